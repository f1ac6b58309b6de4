//! The settings of the worker: one table of keys, and the typed result.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, ConfigMap, ConfigProblem, Importance, Validator};

use super::connector_config::ConverterConfig;
use super::connector_keys;
use super::nearest::suggestion;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Where topics, offsets and copies of plugins are kept.
    pub data_dir: PathBuf,
    /// What this worker is called in statuses.
    pub worker_id: String,
    /// Directories and files to load plugins from; empty for the default places.
    pub plugin_path: Vec<PathBuf>,
    /// How keys stand in topics, where a connector does not say.
    pub key_converter: ConverterConfig,
    /// How values stand in topics, where a connector does not say.
    pub value_converter: ConverterConfig,
    /// How headers stand in topics, where a connector does not say.
    pub header_converter: ConverterConfig,
    /// Whether sources may create topics.
    pub topic_creation: bool,
    /// How often sinks commit their offsets.
    pub offset_flush_interval: Duration,
    /// How long tasks may take to stop.
    pub graceful_stop: Duration,
    /// How often the ledger of each task is logged.
    pub ledger_interval: Duration,
    /// Whether writes are acknowledged only once they are on disk (invariant 1).
    pub fsync: bool,
    /// The size at which a segment of the log is closed and the next begun, in bytes.
    pub segment_bytes: u64,
    /// What is logged: a level, or directives such as `info,tidewater_broker=debug`.
    pub log_level: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Where the REST API is served, such as `http://127.0.0.1:8083`; empty for nowhere.
    pub listeners: Vec<String>,
    /// The certificate chain for `https`, a PEM file.
    pub tls_certificate: Option<PathBuf>,
    /// Its private key, a PEM file.
    pub tls_key: Option<PathBuf>,
    /// The file of those who may call the REST API.
    pub users_file: Option<PathBuf>,
    /// Whether other machines may call it without being known.
    pub allow_anonymous: bool,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self::typed(&ConfigMap::new())
    }
}

fn at_least(min: i64) -> Validator {
    Validator::Range {
        min: Some(min),
        max: None,
    }
}

impl WorkerConfig {
    /// The keys of a worker.
    pub fn keys() -> &'static ConfigDef {
        static KEYS: LazyLock<ConfigDef> = LazyLock::new(keys);
        &KEYS
    }

    /// The settings of `map`, or every fault of it at once.
    pub fn from_map(map: &ConfigMap) -> Result<Self, Vec<ConfigProblem>> {
        let keys = Self::keys();
        let mut problems = keys.check(map);
        for side in ["key.converter", "value.converter", "header.converter"] {
            let given = map.get(side);
            let fault = given.and_then(|value| Some((value, ConverterConfig::fault(side, value)?)));
            if let Some((value, message)) = fault {
                problems.push(ConfigProblem {
                    key: side.into(),
                    value: Some(value.clone()),
                    message,
                });
            }
        }
        for (key, _) in map.iter().filter(|(key, _)| keys.find(key).is_none()) {
            let near = suggestion(key, keys.keys.iter().map(|key| key.name.as_str()));
            problems.push(ConfigProblem::new(
                key,
                format!("is no setting of the worker{near}"),
            ));
        }
        if problems.is_empty() {
            Ok(Self::typed(map))
        } else {
            Err(problems)
        }
    }

    /// From a map that has no faults.
    fn typed(map: &ConfigMap) -> Self {
        let text = |name: &str| {
            let key = Self::keys().find(name);
            key.and_then(|key| ConfigDef::lookup(key, map))
                .unwrap_or_default()
                .trim()
        };
        let number = |name: &str| text(name).parse().unwrap_or(0);
        let list = |name: &str| text(name).split(',').map(str::trim).filter(|p| !p.is_empty());
        let path = |name: &str| Some(PathBuf::from(text(name))).filter(|path| !path.as_os_str().is_empty());
        let by_itself = |class: &str| ConverterConfig {
            class: class.to_owned(),
            settings: [].into(),
        };
        let json = by_itself("json");
        Self {
            data_dir: text("data.dir").into(),
            worker_id: match text("worker.id") {
                "" => host_name(),
                id => id.to_owned(),
            },
            plugin_path: list("plugin.path").map(Into::into).collect(),
            key_converter: ConverterConfig::of(map, "key.converter", &json),
            value_converter: ConverterConfig::of(map, "value.converter", &json),
            header_converter: ConverterConfig::of(map, "header.converter", &by_itself("simple")),
            topic_creation: !text("topic.creation.enable").eq_ignore_ascii_case("false"),
            offset_flush_interval: Duration::from_millis(number("offset.flush.interval.ms")),
            graceful_stop: Duration::from_millis(number("task.shutdown.graceful.timeout.ms")),
            ledger_interval: Duration::from_millis(number("ledger.interval.ms")),
            fsync: text("broker.fsync").eq_ignore_ascii_case("true"),
            segment_bytes: number("broker.segment.bytes"),
            log_level: text("log.level").to_owned(),
            log_format: if text("log.format").eq_ignore_ascii_case("json") {
                LogFormat::Json
            } else {
                LogFormat::Text
            },
            listeners: list("listeners")
                .filter(|address| !address.eq_ignore_ascii_case("none"))
                .map(Into::into)
                .collect(),
            tls_certificate: path("rest.tls.certificate"),
            tls_key: path("rest.tls.key"),
            users_file: path("rest.users.file"),
            allow_anonymous: text("rest.allow.anonymous").eq_ignore_ascii_case("true"),
        }
    }
}

fn keys() -> ConfigDef {
    use ConfigType::{Boolean, Class, List, Long, String};
    use Importance::{High, Low, Medium};
    let mut def = ConfigDef::new()
        .optional(
            "data.dir",
            String,
            "tidewater-data",
            High,
            "Where topics, offsets and copies of plugins are kept.",
        )
        .validate(Validator::NonEmpty)
        .nullable(
            "plugin.path",
            List,
            High,
            "Directories and files to load plugins from. Default: the folder of the program, its plugins/, \
             /usr/lib/tidewater/plugins and /usr/local/lib/tidewater/plugins.",
        )
        .optional(
            "log.level",
            String,
            "info",
            Medium,
            "error, warn, info, debug, trace, or directives: info,sqlx=debug.",
        )
        .validate(Validator::NonEmpty)
        .optional("log.format", String, "text", Medium, "text or json, on stderr.")
        .one_of(&["text", "json"]);
    for (side, default) in [("key", "json"), ("value", "json"), ("header", "simple")] {
        let class = format!("{side}.converter");
        let doc = format!("How {side}s stand in topics where a connector does not say.");
        def = def.optional(&class, Class, default, Medium, &doc);
        for key in &connector_keys::converter_keys().keys {
            let mut key = key.clone();
            key.name = format!("{class}.{}", key.name);
            def.keys.push(key);
        }
    }
    def.optional(
        "topic.creation.enable",
        Boolean,
        "true",
        Medium,
        "Whether sources create topics that are not there; with false, a source that names one fails.",
    )
    .optional("offset.flush.interval.ms", Long, "5000", Medium, "How often sinks commit their offsets, in milliseconds (Kafka Connect's default is 60000).")
        .validate(at_least(1))
        .optional(
            "task.shutdown.graceful.timeout.ms",
            Long,
            "5000",
            Medium,
            "How long tasks may take to stop before they are abandoned, in milliseconds.",
        )
        .validate(at_least(1))
        .optional(
            "ledger.interval.ms",
            Long,
            "30000",
            Low,
            "How often the counts of each task are logged (read, written, filtered, dead-lettered, in flight), in \
             milliseconds.",
        )
        .validate(at_least(1))
        .optional(
            "listeners",
            List,
            "http://127.0.0.1:8083",
            High,
            "Where the REST API is served: http://host:port and https://host:port, separated by commas, or none.",
        )
        .nullable("rest.tls.certificate", String, Medium, "The certificate chain of https listeners, a PEM file.")
        .nullable("rest.tls.key", String, Medium, "The private key of https listeners, a PEM file.")
        .nullable(
            "rest.users.file",
            String,
            Medium,
            "Those who may call the REST API, with their roles: see `tidewater auth --help`. Without it anybody may who \
             can reach a listener.",
        )
        .optional(
            "rest.allow.anonymous",
            Boolean,
            "false",
            Medium,
            "Whether a listener that other machines can reach is served although rest.users.file is not set.",
        )
        .optional("worker.id", String, "", Low, "What this worker is called in statuses; empty for the host's name.")
        .optional(
            "broker.fsync",
            Boolean,
            "true",
            Medium,
            "Whether writes are acknowledged only once they are on disk. With false they survive a crash of the \
             process, not one of the machine.",
        )
        .optional("broker.segment.bytes", Long, "134217728", Low, "Size of a segment of the log, in bytes.")
        .validate(Validator::Range { min: Some(1), max: Some(2 << 30) })
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> ConfigMap {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn defaults_are_kafka_connects_but_for_the_flush_interval() {
        let config = WorkerConfig::default();
        assert_eq!(config.offset_flush_interval, Duration::from_secs(5));
        assert_eq!(config.graceful_stop, Duration::from_secs(5));
        assert_eq!(config.key_converter.class, "json");
        assert_eq!(config.segment_bytes, 128 << 20);
        assert!(config.fsync && !config.worker_id.is_empty());
        for key in &WorkerConfig::keys().keys {
            assert_eq!(
                key.default
                    .as_deref()
                    .map_or(Ok(()), |default| key.check(default)),
                Ok(()),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let given = map(&[
            ("data.dri", "x"),
            ("broker.fsync", "maybe"),
            ("log.format", "jsn"),
            ("value.converter", "jsno"),
            ("offset.flush.interval.ms", "0"),
        ]);
        let problems = WorkerConfig::from_map(&given).expect_err("five faults");
        assert_eq!(problems.len(), 5, "{problems:#?}");
        let text = problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n");
        assert!(text.contains("did you mean data.dir?"), "{text}");
        assert!(
            text.contains("did you mean \"json\"?") && text.contains("did you mean json?"),
            "{text}"
        );
    }

    #[test]
    fn settings_of_a_converter_stand_without_its_class() {
        let config = WorkerConfig::from_map(&map(&[
            ("value.converter.schemas.enable", "false"),
            (
                "key.converter",
                "org.apache.kafka.connect.storage.StringConverter",
            ),
            ("plugin.path", "/a, /b ,"),
            ("log.format", "JSON"),
        ]))
        .expect("valid");
        assert_eq!(config.value_converter.settings["schemas.enable"], "false");
        assert_eq!(config.key_converter.class, "string");
        assert_eq!(config.plugin_path, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(config.log_format, LogFormat::Json);
    }
}
