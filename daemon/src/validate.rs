//! `tidewater validate`: every fault of connector files at once; nothing is run.

use std::io::Write as _;

use serde_json::json;
use tidewater_plugin_api::ConnectorKind;
use tidewater_runtime::config::{
    Checked, Checker, ConnectorConfig, ConnectorFile, Found, Problem, Providers,
};

use crate::catalog::kind;
use crate::cli::ValidateArgs;
use crate::exit::{Failure, Result};
use crate::logging;
use crate::output::{self, count, print_json, table, write_problem};
use crate::plugins::Plugins;
use crate::settings::Settings;

/// One file and what was found.
struct Verdict {
    file: ConnectorFile,
    class: Option<(String, ConnectorKind)>,
    config: Option<ConnectorConfig>,
    problems: Vec<Problem>,
}

impl Verdict {
    fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.is_error()).count()
    }
}

/// Runs the command.
pub async fn validate(args: ValidateArgs) -> Result {
    let settings = Settings::read(&args.worker, &[]).map_err(|problems| {
        output::say_problems(&problems);
        Failure::input_reported()
    })?;
    logging::start(&settings.worker.log_level, settings.worker.log_format);
    let found = Found::among(&args.paths);
    let copies = tempfile::tempdir()
        .map_err(|error| Failure::environment(format!("no temporary directory: {error}")))?;
    let plugins = Plugins::load(&settings.worker, copies.path().to_owned()).await?;
    for (path, error) in &plugins.report.refused {
        tracing::warn!("{}: plugin refused: {error}", path.display());
    }
    let classes = plugins.classes();
    let providers = Providers::system();
    let checker = Checker {
        classes: &classes,
        worker: &settings.worker,
        providers: &providers,
    };
    let mut verdicts = Vec::with_capacity(found.files.len());
    for file in found.files {
        let Checked {
            class,
            config,
            problems,
        } = checker.check(&file);
        verdicts.push(Verdict {
            file,
            class,
            config,
            problems,
        });
    }
    if args.connect {
        for verdict in &mut verdicts {
            connect(&plugins, verdict).await;
        }
    }

    let all = || {
        found
            .problems
            .iter()
            .chain(verdicts.iter().flat_map(|verdict| &verdict.problems))
    };
    let errors = all().filter(|problem| problem.is_error()).count();
    if args.json {
        let files: Vec<_> = verdicts.iter().map(to_json).collect();
        print_json(&json!({ "files": files, "problems": found.problems, "errors": errors }))?;
    } else {
        let mut out = anstream::stdout().lock();
        for problem in all() {
            write_problem(&mut out, problem)?;
        }
        if all().next().is_some() && !verdicts.is_empty() {
            writeln!(out)?;
        }
        if !verdicts.is_empty() {
            writeln!(
                out,
                "{}",
                table(
                    ["CONNECTOR", "CLASS", "KIND", "RESULT", "FILE"],
                    verdicts.iter().map(row)
                )
            )?;
        }
    }
    if !found.missing.is_empty() {
        return Err(Failure::input("a given path cannot be read"));
    }
    if classes.is_empty() {
        return Err(plugins.none_loaded());
    }
    if errors > 0 {
        let files = found.broken.len() + verdicts.iter().filter(|verdict| verdict.errors() > 0).count();
        return Err(Failure::input(format!(
            "{} in {}",
            count(errors, "error"),
            count(files.max(1), "file")
        )));
    }
    if verdicts.is_empty() {
        return Err(Failure::input("there is no connector file to check"));
    }
    Ok(())
}

/// Asks the servers, by way of the class.
async fn connect(plugins: &Plugins, verdict: &mut Verdict) {
    let Some(config) = &verdict.config else { return };
    let class = match plugins.registry.find(&config.class) {
        Ok(class) => class,
        Err(error) => {
            verdict
                .problems
                .push(Problem::error(error.to_string()).in_file(&verdict.file.path, None));
            return;
        }
    };
    match class.validate(config.resolved.clone()).await {
        Ok(found) => verdict
            .problems
            .extend(config.problems(class.spec(), &verdict.file, &found)),
        Err(error) => {
            let message = config.redactor.redact(&error.to_string());
            verdict
                .problems
                .push(Problem::error(message).in_file(&verdict.file.path, None));
        }
    }
}

fn row(verdict: &Verdict) -> [String; 5] {
    let given = || {
        verdict
            .file
            .config
            .get("connector.class")
            .cloned()
            .unwrap_or_else(|| "-".to_owned())
    };
    let (class, direction) = match &verdict.class {
        Some((class, direction)) => (class.clone(), kind(*direction)),
        None => (given(), "-"),
    };
    let result = match (verdict.errors(), verdict.problems.len()) {
        (0, 0) => "ok".to_owned(),
        (0, warnings) => format!("ok, {}", count(warnings, "warning")),
        (errors, _) => count(errors, "error"),
    };
    let path = verdict.file.path.display().to_string();
    [
        verdict.file.name.clone(),
        class,
        direction.to_owned(),
        result,
        path,
    ]
}

fn to_json(verdict: &Verdict) -> serde_json::Value {
    json!({
        "file": verdict.file.path,
        "name": verdict.file.name,
        "class": verdict.class.as_ref().map(|(class, _)| class),
        "kind": verdict.class.as_ref().map(|(_, kind)| kind),
        "valid": verdict.errors() == 0,
        "problems": verdict.problems,
    })
}
