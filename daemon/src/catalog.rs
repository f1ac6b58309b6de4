//! `tidewater plugins`: what is installed, and the keys of one class.

use std::io::Write as _;

use serde_json::json;
use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, ConfigKey, ConnectorKind, ConnectorSpec, Importance};
use tidewater_runtime::config::connector_keys;
use tidewater_runtime::config::nearest::suggestion;

use crate::cli::PluginsArgs;
use crate::exit::{Failure, Result};
use crate::logging;
use crate::output::{self, print_json, table};
use crate::plugins::Plugins;
use crate::settings::Settings;

/// Runs the command.
pub async fn plugins(args: PluginsArgs) -> Result {
    let settings = Settings::read(&args.worker, &[]).map_err(|problems| {
        output::say_problems(&problems);
        Failure::input_reported()
    })?;
    logging::start(&settings.worker.log_level, settings.worker.log_format);
    let copies = tempfile::tempdir()
        .map_err(|error| Failure::environment(format!("no temporary directory: {error}")))?;
    let plugins = Plugins::load(&settings.worker, copies.path().to_owned()).await?;
    match args.class {
        None => list(&plugins, args.json),
        Some(class) => keys(&plugins, &class, args.json),
    }
}

fn list(plugins: &Plugins, as_json: bool) -> Result {
    let classes = plugins.classes();
    let file = |spec: &ConnectorSpec| {
        plugins
            .file_of(&spec.class)
            .map(|file| file.display().to_string())
    };
    if as_json {
        let classes: Vec<_> = classes
            .iter()
            .map(|spec| {
                json!({
                    "class": spec.class, "kind": spec.kind, "version": spec.version, "exactly_once": spec.exactly_once,
                    "aliases": spec.aliases, "documentation": spec.documentation, "file": file(spec),
                })
            })
            .collect();
        let refused: Vec<_> = plugins
            .report
            .refused
            .iter()
            .map(|(path, error)| json!({ "file": path, "reason": error.to_string() }))
            .collect();
        print_json(&json!({ "classes": classes, "refused": refused, "searched": plugins.searched }))?;
    } else {
        let mut out = anstream::stdout().lock();
        if !classes.is_empty() {
            let rows = classes.iter().map(|spec| {
                [
                    spec.class.clone(),
                    kind(spec.kind).to_owned(),
                    spec.version.clone(),
                    if spec.exactly_once { "yes" } else { "no" }.to_owned(),
                    file(spec).unwrap_or_default(),
                ]
            });
            writeln!(
                out,
                "{}",
                table(["CLASS", "KIND", "VERSION", "EXACTLY ONCE", "PLUGIN"], rows)
            )?;
        }
        if !plugins.report.refused.is_empty() {
            let rows = plugins
                .report
                .refused
                .iter()
                .map(|(path, error)| [path.display().to_string(), error.to_string()]);
            writeln!(out, "\n{}", table(["REFUSED", "REASON"], rows))?;
        }
    }
    if classes.is_empty() {
        Err(plugins.none_loaded())
    } else {
        Ok(())
    }
}

fn keys(plugins: &Plugins, name: &str, as_json: bool) -> Result {
    let classes = plugins.classes();
    if classes.is_empty() {
        return Err(plugins.none_loaded());
    }
    let is_it = |spec: &&ConnectorSpec| spec.class == name || spec.aliases.iter().any(|alias| alias == name);
    let Some(spec) = classes.iter().find(is_it) else {
        let known = classes
            .iter()
            .flat_map(|spec| std::iter::once(&spec.class).chain(&spec.aliases));
        let near = suggestion(name, known.map(String::as_str));
        let installed: Vec<&str> = classes.iter().map(|spec| spec.class.as_str()).collect();
        let installed = installed.join(", ");
        return Err(Failure::input(format!(
            "there is no class {name:?}{near}; installed are {installed}"
        )));
    };
    let common = connector_keys::keys(spec.kind);
    if as_json {
        return Ok(print_json(&json!({
            "class": spec.class, "kind": spec.kind, "version": spec.version, "exactly_once": spec.exactly_once,
            "aliases": spec.aliases, "documentation": spec.documentation,
            "keys": spec.config.keys, "prefixes": spec.config.prefixes, "common_keys": common.keys,
        }))?);
    }
    let mut out = anstream::stdout().lock();
    let exactly = if spec.exactly_once { ", exactly once" } else { "" };
    writeln!(
        out,
        "{} {} ({}{exactly})",
        spec.class,
        spec.version,
        kind(spec.kind)
    )?;
    if !spec.documentation.is_empty() {
        writeln!(out, "{}", spec.documentation)?;
    }
    if !spec.aliases.is_empty() {
        writeln!(out, "Also known as {}", spec.aliases.join(", "))?;
    }
    writeln!(out, "\n{}", key_table(&spec.config))?;
    if !spec.config.prefixes.is_empty() {
        writeln!(
            out,
            "\nand any key that begins with {}",
            spec.config.prefixes.join(" or ")
        )?;
    }
    writeln!(out, "\nKeys of every {}:\n", kind(spec.kind))?;
    writeln!(out, "{}", key_table(common))?;
    Ok(())
}

fn key_table(def: &ConfigDef) -> String {
    let rows = def.keys.iter().map(|key| {
        let importance = match key.importance {
            Importance::High => "high",
            Importance::Medium => "medium",
            Importance::Low => "low",
        };
        [
            key.name.clone(),
            type_name(key.ty).to_owned(),
            default(key),
            importance.to_owned(),
            documentation(key),
        ]
    });
    table(["KEY", "TYPE", "DEFAULT", "IMPORTANCE", "DOCUMENTATION"], rows)
}

fn default(key: &ConfigKey) -> String {
    match &key.default {
        _ if key.required => "(required)".to_owned(),
        None => "-".to_owned(),
        Some(empty) if empty.is_empty() => "\"\"".to_owned(),
        Some(default) => default.clone(),
    }
}

fn documentation(key: &ConfigKey) -> String {
    match key.aliases.as_slice() {
        [] => key.documentation.clone(),
        aliases => format!("{} (also {})", key.documentation, aliases.join(", ")),
    }
}

/// `source` or `sink`.
pub fn kind(kind: ConnectorKind) -> &'static str {
    match kind {
        ConnectorKind::Source => "source",
        ConnectorKind::Sink => "sink",
    }
}

fn type_name(ty: ConfigType) -> &'static str {
    match ty {
        ConfigType::Boolean => "boolean",
        ConfigType::String => "string",
        ConfigType::Int => "int",
        ConfigType::Long => "long",
        ConfigType::Double => "double",
        ConfigType::List => "list",
        ConfigType::Class => "class",
        ConfigType::Password => "password",
    }
}
