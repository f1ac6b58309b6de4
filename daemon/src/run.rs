//! `tidewater run`: connectors until a signal stops them.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidewater_rest::api::{Api, app};
use tidewater_rest::catalog::Catalog;
use tidewater_rest::listener::{Address, ListenError, Listener, ListenerConfig};
use tidewater_runtime::config::worker_config::LogFormat;
use tidewater_runtime::config::{
    Checked, Checker, ConnectorConfig, ConnectorFile, Found, Problem, Providers, Severity, WorkerConfig,
};
use tidewater_runtime::config_store::Origin;
use tidewater_runtime::{Error, Worker};

use crate::catalog::kind;
use crate::cli::RunArgs;
use crate::exit::{Failure, Result};
use crate::logging;
use crate::output::{self, count, table};
use crate::plugins::Plugins;
use crate::settings::Settings;
use crate::signals::Signals;

/// Signals this near to the first are the same request: Ctrl-C reaches a whole process group, and what started the daemon
/// may hand it on as well.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// A connector that can run, and the file it came from.
struct Ready {
    file: PathBuf,
    config: ConnectorConfig,
}

/// Runs the command.
pub async fn run(args: RunArgs) -> Result {
    let settings = Settings::read(&args.worker, &args.settings()).map_err(|problems| {
        output::say_problems(&problems);
        Failure::input_reported()
    })?;
    let worker_config = &settings.worker;
    let log_levels = logging::start(&worker_config.log_level, worker_config.log_format);
    let mut signals = Signals::take()?;
    log_problems(&settings.warnings);
    if let Some(file) = &settings.file {
        tracing::info!("settings are read from {}", file.display());
    }

    // Taken first: an address that cannot be had is told before anything runs.
    let listener = listener(worker_config)?;
    let copies = worker_config.data_dir.join("plugins");
    std::fs::create_dir_all(&copies).map_err(|error| {
        let dir = worker_config.data_dir.display();
        Failure::environment(format!(
            "cannot make the data directory {dir}: {error}; choose another one with --data-dir or data.dir"
        ))
    })?;
    let plugins = Plugins::load(worker_config, copies).await?;
    for (path, error) in &plugins.report.refused {
        tracing::error!("{}: plugin refused: {error}", path.display());
    }
    let ready = connectors(&args.paths, worker_config, &plugins)?;

    let worker = tokio::select! {
        started = Worker::start(worker_config, plugins.registry.clone()) => started.map_err(|error| cannot_start(&error))?,
        name = signals.next() => {
            tracing::info!("{name} before the start was done; nothing has run");
            return Ok(());
        }
    };
    let worker = Arc::new(worker);
    announce(worker_config, &ready, &listener.addresses());
    for Ready { config, .. } in ready {
        let name = config.name.clone();
        if let Err(error) = worker.run_from_file(config).await {
            tracing::error!(connector = name, "the connector could not be created: {error}");
        }
    }
    restore(&worker, worker_config, &plugins).await;
    let api = Api {
        worker: worker.clone(),
        catalog: Arc::new(Catalog {
            registry: plugins.registry.clone(),
            worker: worker_config.clone(),
            providers: Providers::system(),
        }),
        log_levels,
    };
    let serving = listener
        .serve(app(api))
        .map_err(|error| Failure::environment(format!("cannot serve the REST API: {error}")))?;

    let name = signals.next().await;
    tracing::info!(
        "{name}: stopping {}; another signal, a second or more from now, ends at once",
        count(worker.connectors().len(), "connector")
    );
    let end = async {
        // Calls end first: what they ask for would not be done any more.
        serving.stop().await;
        worker.shutdown().await
    };
    tokio::select! {
        _ = end => tracing::info!("stopped"),
        name = signals.next_after(SAME_REQUEST) => {
            // What was acknowledged is on disk already (invariant 1); what was not will be read again.
            return Err(Failure::runtime(format!("{name} again: ended before all was stopped; nothing acknowledged is lost")));
        }
    }
    Ok(())
}

/// Takes the addresses of the REST API.
fn listener(worker: &WorkerConfig) -> Result<Listener> {
    let mut addresses = Vec::new();
    for address in &worker.listeners {
        let parsed = address.parse::<Address>();
        addresses.push(parsed.map_err(|fault| Failure::input(format!("listeners: {fault}")))?);
    }
    let config = ListenerConfig {
        addresses,
        certificate: worker.tls_certificate.clone(),
        key: worker.tls_key.clone(),
        users: worker.users_file.clone(),
        allow_anonymous: worker.allow_anonymous,
    };
    Listener::bind(&config).map_err(|error| match error {
        ListenError::Bind { .. } => Failure::environment(error.to_string()),
        _ => Failure::input(error.to_string()),
    })
}

/// The connectors of `paths` that can run; what keeps the others from it is logged.
fn connectors(paths: &[PathBuf], worker: &WorkerConfig, plugins: &Plugins) -> Result<Vec<Ready>> {
    let found = Found::among(paths);
    log_problems(&found.problems);
    if !found.missing.is_empty() {
        return Err(Failure::input(
            "a given path cannot be read, as said above; nothing was started",
        ));
    }
    let classes = plugins.classes();
    if classes.is_empty() {
        return Err(plugins.none_loaded());
    }
    if paths.is_empty() && !worker.listeners.is_empty() {
        return Ok(Vec::new());
    }
    let providers = Providers::system();
    let checker = Checker {
        classes: &classes,
        worker,
        providers: &providers,
    };
    let mut ready = Vec::new();
    let mut broken = found.broken.len();
    for file in &found.files {
        let Checked { config, problems, .. } = checker.check(file);
        log_problems(&problems);
        match config {
            Some(config) => ready.push(Ready {
                file: file.path.clone(),
                config,
            }),
            None => broken += 1,
        }
    }
    match (ready.len(), broken) {
        (0, 0) => Err(Failure::input(
            "there is no connector file among the given paths, and no listener to create connectors over; nothing was started",
        )),
        (0, _) => Err(Failure::input(
            "not one connector file can run, as said above; nothing was started",
        )),
        (_, 0) => Ok(ready),
        (running, broken) => {
            let (broken, running) = (count(broken, "connector file"), count(running, "connector"));
            tracing::error!(
                "{broken} left out, as said above; {running} will run; mend the files and restart"
            );
            Ok(ready)
        }
    }
}

/// Runs the connectors that were created while an earlier daemon ran on this log. One that a file was given for runs by
/// that already; one whose file was not given again does not run.
async fn restore(worker: &Worker, worker_config: &WorkerConfig, plugins: &Plugins) {
    let (classes, providers, running) = (plugins.classes(), Providers::system(), worker.connectors());
    let checker = Checker {
        classes: &classes,
        worker: worker_config,
        providers: &providers,
    };
    for stored in worker.stored_connectors() {
        let name = stored.name;
        if running.contains(&name) {
            continue;
        }
        if stored.origin == Origin::File {
            tracing::info!(
                connector = name,
                "known from a file that is not given now; it does not run"
            );
            continue;
        }
        let file = ConnectorFile::from_map("the stored configuration", &name, &stored.properties);
        let Checked { config, problems, .. } = checker.check(&file);
        log_problems(&problems);
        let Some(config) = config else {
            tracing::error!(
                connector = name,
                "the stored configuration cannot run any more, as said above; it is kept"
            );
            continue;
        };
        if let Err(error) = worker.restore(config).await {
            tracing::error!(connector = name, "the stored connector could not be run: {error}");
        }
    }
}

fn log_problems(problems: &[Problem]) {
    for problem in problems {
        match problem.severity {
            Severity::Error => tracing::error!("{problem}"),
            Severity::Warning => tracing::warn!("{problem}"),
            Severity::Note => tracing::info!("{problem}"),
        }
    }
}

fn cannot_start(error: &Error) -> Failure {
    match error {
        // A data directory that is in use, of another version, unwritable or full: another one may do.
        Error::Broker { .. } => Failure::environment(format!("cannot start: {error}")),
        _ => Failure::runtime(format!("cannot start: {error}")),
    }
}

/// Says what runs: to people a table, to programs an event of the log.
fn announce(worker: &WorkerConfig, ready: &[Ready], addresses: &[String]) {
    let data_dir = std::path::absolute(&worker.data_dir).unwrap_or_else(|_| worker.data_dir.clone());
    let rest = addresses.join(", ");
    tracing::info!(data_dir = %data_dir.display(), connectors = ready.len(), rest, "tidewater {} runs", env!("CARGO_PKG_VERSION"));
    if worker.log_format == LogFormat::Json {
        return;
    }
    let rows = ready.iter().map(|Ready { file, config }| {
        [
            config.name.clone(),
            config.class.clone(),
            kind(config.kind).to_owned(),
            file.display().to_string(),
        ]
    });
    let mut out = anstream::stdout().lock();
    let said = writeln!(
        out,
        "tidewater {} keeps its data in {}{}\n\n{}\n\nStop with Ctrl-C.\n",
        env!("CARGO_PKG_VERSION"),
        data_dir.display(),
        if rest.is_empty() {
            String::new()
        } else {
            format!(" and serves its REST API on {rest}")
        },
        table(["CONNECTOR", "CLASS", "KIND", "FILE"], rows)
    );
    // A daemon whose stdout nobody reads goes on.
    if let Err(error) = said {
        tracing::debug!("the start-up summary could not be printed: {error}");
    }
}
