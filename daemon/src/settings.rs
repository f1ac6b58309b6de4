//! The worker's settings: defaults < `tidewater.toml` < environment < flags, merged by figment, every fault at once and
//! each with its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::providers::Env;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use tidewater_plugin_api::ConfigMap;
use tidewater_runtime::config::connector_file::WORKER_FILE;
use tidewater_runtime::config::document::{Format, Place};
use tidewater_runtime::config::nearest::nearest;
use tidewater_runtime::config::{Problem, Providers, Severity, WorkerConfig};

use crate::cli::{LogFormat, WorkerArgs};
use crate::logging;

const PREFIX: &str = "TIDEWATER_";
/// The short name of `log.level` in the environment.
const LOG: &str = "TIDEWATER_LOG";
/// Variables with the prefix that are no settings of the worker.
const OTHERS: [&str; 6] = [
    LOG,
    "TIDEWATER_CONFIG",
    "TIDEWATER_URL",
    "TIDEWATER_TOKEN",
    "TIDEWATER_USER",
    "TIDEWATER_CA",
];

/// The settings and where they came from.
#[derive(Debug)]
pub struct Settings {
    /// The settings.
    pub worker: WorkerConfig,
    /// The file they were read from, if any.
    pub file: Option<PathBuf>,
    /// What is no fault but probably not meant.
    pub warnings: Vec<Problem>,
}

/// One level of precedence: flat keys, and how each was called there.
struct Layer {
    name: &'static str,
    values: ConfigMap,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let dict = self
            .values
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.as_str())));
        Ok(Profile::Default.collect(dict.collect()))
    }
}

const FILE: &str = "file";
const ENVIRONMENT: &str = "environment";
const FLAGS: &str = "flags";

impl Settings {
    /// Reads the settings, with the flags of `args` and the data directory of `run` above all else.
    pub fn read(args: &WorkerArgs, given: &[(&str, String)]) -> Result<Self, Vec<Problem>> {
        let variables = Env::prefixed(PREFIX)
            .iter()
            .map(|(key, value)| (format!("{PREFIX}{}", key.as_str().to_uppercase()), value))
            .collect();
        Self::read_with(args, given, &variables)
    }

    fn read_with(
        args: &WorkerArgs,
        given: &[(&str, String)],
        variables: &BTreeMap<String, String>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let file = args
            .config
            .clone()
            .or_else(|| Some(PathBuf::from(WORKER_FILE)).filter(|file| file.is_file()));
        let mut places = BTreeMap::new();
        let mut values = ConfigMap::new();
        if let Some(file) = &file {
            match read_file(file) {
                Ok(entries) => {
                    for (key, value, place) in entries {
                        places.insert(key.clone(), place);
                        values.insert(key, value);
                    }
                }
                Err(found) => problems.extend(found),
            }
        }
        let (env, warnings) = environment(variables);
        let merged = Figment::new()
            .merge(Layer { name: FILE, values })
            .merge(Layer {
                name: ENVIRONMENT,
                values: env,
            })
            .merge(Layer {
                name: FLAGS,
                values: flags(args, given),
            });
        let origin = |key: &str| {
            merged
                .extract::<BTreeMap<String, Value>>()
                .ok()?
                .get(key)
                .map(|value| {
                    merged
                        .get_metadata(value.tag())
                        .map_or(FILE, |metadata| match &*metadata.name {
                            ENVIRONMENT => ENVIRONMENT,
                            FLAGS => FLAGS,
                            _ => FILE,
                        })
                })
        };
        let map: ConfigMap = merged
            .extract()
            .map_err(|error| vec![Problem::error(error.to_string())])?;

        let resolved = Providers::system().resolve(&map);
        let mut found = resolved.problems.clone();
        let checked = WorkerConfig::from_map(&resolved.values);
        if let Err(config_problems) = &checked {
            for problem in config_problems {
                let mut told = Problem::error(&problem.message).of(&problem.key);
                // References are shown as written.
                told.value = problem
                    .value
                    .as_ref()
                    .and_then(|_| map.get(&problem.key))
                    .cloned();
                found.push(told);
            }
        }
        if let Some(message) = checked
            .as_ref()
            .ok()
            .and_then(|worker| logging::fault(&worker.log_level))
        {
            let level = map.get("log.level").cloned().unwrap_or_default();
            found.push(Problem::error(message).of("log.level").showing(level));
        }
        problems.extend(found.into_iter().map(|mut problem| {
            let key = problem.key.clone().unwrap_or_default();
            match (origin(&key), &file) {
                (Some(ENVIRONMENT), _) => problem.of(variable(&key)),
                (Some(FLAGS), _) => problem.of(format!("--{}", key.replace('.', "-"))),
                (_, Some(file)) => {
                    problem.file = Some(file.clone());
                    problem.line = places.get(&key).map(|place: &Place| place.line);
                    problem
                }
                (_, None) => problem,
            }
        }));
        match checked {
            Ok(worker) if problems.is_empty() => Ok(Self {
                worker,
                file,
                warnings,
            }),
            _ => Err(problems),
        }
    }
}

fn read_file(file: &Path) -> Result<Vec<(String, String, Place)>, Vec<Problem>> {
    let Some(format) = Format::of(file) else {
        let message = format!("is no settings file by its name; {} are read", Format::EXTENSIONS);
        return Err(vec![Problem::error(message).in_file(file, None)]);
    };
    let bytes = std::fs::read(file)
        .map_err(|error| vec![Problem::error(format!("cannot be read: {error}")).in_file(file, None)])?;
    let entries = format.parse(&bytes).map_err(|faults| {
        faults
            .into_iter()
            .map(|fault| Problem::from_fault(file, fault))
            .collect::<Vec<_>>()
    })?;
    Ok(entries
        .into_iter()
        .filter_map(|entry| Some((entry.key, entry.value?, entry.place)))
        .collect())
}

/// The settings among the variables, and a warning for each that was probably meant as one.
fn environment(variables: &BTreeMap<String, String>) -> (ConfigMap, Vec<Problem>) {
    let known: BTreeMap<String, &str> = WorkerConfig::keys()
        .keys
        .iter()
        .map(|key| (variable(&key.name), key.name.as_str()))
        .collect();
    let mut values = ConfigMap::new();
    let mut warnings = Vec::new();
    for (name, value) in variables {
        if let Some(key) = known.get(name) {
            values.insert((*key).to_owned(), value.clone());
        } else if !OTHERS.contains(&name.as_str())
            && let Some(near) = nearest(name, known.keys().map(String::as_str)).filter(|near| near.typo)
        {
            // No error: such a name may be somebody's own, for a connector file to refer to.
            let message = format!(
                "is no setting and has no effect here; did you mean {}?",
                near.name
            );
            warnings.push(Problem::new(Severity::Warning, message).of(name));
        }
    }
    if let Some(level) = variables.get(LOG) {
        values.insert("log.level".to_owned(), level.clone());
    }
    (values, warnings)
}

/// The environment variable of a setting.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn flags(args: &WorkerArgs, given: &[(&str, String)]) -> ConfigMap {
    let mut flags = ConfigMap::new();
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            flags.insert(key.to_owned(), value);
        }
    };
    for (key, value) in given {
        set(key, Some(value.clone()));
    }
    let paths: Vec<String> = args
        .plugin_path
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    set(
        "plugin.path",
        Some(paths.join(",")).filter(|paths| !paths.is_empty()),
    );
    let format = |format| match format {
        LogFormat::Text => "text".to_owned(),
        LogFormat::Json => "json".to_owned(),
    };
    set("log.format", args.log_format.map(format));
    set("log.level", args.log_level.clone());
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(config: Option<PathBuf>) -> WorkerArgs {
        WorkerArgs {
            config,
            plugin_path: Vec::new(),
            log_format: None,
            log_level: None,
        }
    }

    fn read(args: &WorkerArgs, given: &[(&str, String)]) -> Result<Settings, Vec<Problem>> {
        Settings::read_with(args, given, &BTreeMap::new())
    }

    fn variables(given: &[(&str, &str)]) -> BTreeMap<String, String> {
        given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("tidewater.toml");
        std::fs::write(&path, text).expect("written");
        (dir, path)
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let (_dir, path) = file("data.dir = \"/from/file\"\n[offset.flush.interval]\nms = 10\n");
        let settings = read(&args(Some(path.clone())), &[]).expect("valid");
        assert_eq!(settings.worker.data_dir, Path::new("/from/file"));
        assert_eq!(settings.worker.offset_flush_interval.as_millis(), 10);
        let settings = read(&args(Some(path)), &[("data.dir", "/from/flag".to_owned())]).expect("valid");
        assert_eq!(settings.worker.data_dir, Path::new("/from/flag"));
        assert_eq!(settings.worker.ledger_interval.as_secs(), 30);
    }

    #[test]
    fn every_fault_with_its_place() {
        let (_dir, path) = file("data.dri = \"x\"\nlog.format = \"text\"\nbroker.fsync = \"maybe\"\n");
        let mut args = args(Some(path.clone()));
        args.log_level = Some("loud".to_owned());
        let problems = read(&args, &[]).expect_err("faults");
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        let place = path.display();
        assert!(
            texts
                .iter()
                .any(|t| t.starts_with(&format!("{place}:1: data.dri"))),
            "{texts:#?}"
        );
        assert!(
            texts
                .iter()
                .any(|t| t.starts_with(&format!("{place}:3: broker.fsync"))),
            "{texts:#?}"
        );
        let (_dir, path) = file("");
        args.config = Some(path);
        let problems = read(&args, &[]).expect_err("a fault");
        assert!(
            problems[0].to_string().starts_with("--log-level = \"loud\": "),
            "{}",
            problems[0]
        );
    }

    #[test]
    fn the_environment_goes_between_the_file_and_flags() {
        let (_dir, path) = file("data.dir = \"/file\"\nlog.format = \"text\"\n");
        let mut args = args(Some(path));
        args.log_level = Some("warn".to_owned());
        let given = variables(&[("TIDEWATER_DATA_DIR", "/env"), ("TIDEWATER_LOG", "debug")]);
        let settings = Settings::read_with(&args, &[], &given).expect("valid");
        assert_eq!(settings.worker.data_dir, Path::new("/env"));
        assert_eq!(settings.worker.log_level, "warn");
        let given = variables(&[("TIDEWATER_LOG_FORMAT", "xml")]);
        let problems = Settings::read_with(&args, &[], &given).expect_err("a fault");
        let text = problems[0].to_string();
        assert!(text.starts_with("TIDEWATER_LOG_FORMAT = \"xml\": "), "{text}");
    }

    #[test]
    fn variables_are_keys_in_capitals() {
        let (values, warnings) = environment(&variables(&[
            ("TIDEWATER_DATA_DIR", "/d"),
            ("TIDEWATER_TASK_SHUTDOWN_GRACEFUL_TIMEOUT_MS", "1"),
            ("TIDEWATER_LOG_LEVEL", "warn"),
            ("TIDEWATER_LOG", "debug"),
            ("TIDEWATER_CONFIG", "x.toml"),
            ("TIDEWATER_SHOP_PASSWORD", "s3cret"),
            ("TIDEWATER_PLUGIN_PAHT", "/p"),
        ]));
        assert_eq!(values["data.dir"], "/d");
        assert_eq!(values["task.shutdown.graceful.timeout.ms"], "1");
        assert_eq!(values["log.level"], "debug");
        assert_eq!(values.len(), 3);
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0]
                .to_string()
                .contains("did you mean TIDEWATER_PLUGIN_PATH?"),
            "{}",
            warnings[0]
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_says_so() {
        let problems = read(&args(Some("/nowhere/tidewater.toml".into())), &[]).expect_err("no file");
        assert!(
            problems[0]
                .to_string()
                .starts_with("/nowhere/tidewater.toml: cannot be read: No such file")
        );
        let (_dir, path) = file("a = = b\n");
        let problems = read(&args(Some(path)), &[]).expect_err("no TOML");
        assert!(
            problems[0]
                .to_string()
                .contains("tidewater.toml:1:5: is not valid TOML"),
            "{}",
            problems[0]
        );
    }
}
