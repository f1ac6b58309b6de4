//! The configuration of a task, parsed once.

use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;
use tidewater_plugin_api::{Config, ConfigProblem, Secret};

use super::table_filter::{Patterns, TableFilter, message_keys};

/// Where the database is and how to reach it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Secret,
    pub(crate) database: String,
    pub(crate) tls: Tls,
    pub(crate) root_certificates: Option<PathBuf>,
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "PostgreSQL at {}:{}, database {:?}",
            self.host, self.port, self.database
        )
    }
}

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// What to do about the publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PublicationMode {
    AllTables,
    Filtered,
    Disabled,
    NoTables,
}

/// What is read before changes are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotMode {
    Initial,
    InitialOnly,
    NoData,
    Always,
    WhenNeeded,
}

/// `decimal.handling.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecimalMode {
    Precise,
    Double,
    String,
}

/// `time.precision.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeMode {
    Adaptive,
    AdaptiveTimeMicros,
    Connect,
}

/// `binary.handling.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinaryMode {
    Bytes,
    Base64,
    Base64UrlSafe,
    Hex,
}

/// How values of types that can be sent in several ways are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TypeModes {
    pub(crate) decimal: DecimalMode,
    pub(crate) time: TimeMode,
    pub(crate) interval_as_text: bool,
    pub(crate) binary: BinaryMode,
    pub(crate) hstore_as_map: bool,
}

/// Operations that make no record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Skipped {
    pub(crate) create: bool,
    pub(crate) update: bool,
    pub(crate) delete: bool,
    pub(crate) truncate: bool,
}

/// The configuration of a task.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) server: Server,
    pub(crate) topic_prefix: String,
    pub(crate) slot: String,
    pub(crate) drop_slot_on_stop: bool,
    pub(crate) publication: String,
    pub(crate) publication_mode: PublicationMode,
    pub(crate) via_partition_root: bool,
    pub(crate) filter: TableFilter,
    pub(crate) message_keys: Vec<(Regex, Vec<String>)>,
    pub(crate) propagate_type: Patterns,
    pub(crate) snapshot_mode: SnapshotMode,
    pub(crate) lock_timeout: Duration,
    pub(crate) tombstones: bool,
    pub(crate) skipped: Skipped,
    pub(crate) types: TypeModes,
    pub(crate) placeholder: String,
    pub(crate) max_batch: usize,
    pub(crate) poll_interval: Duration,
    pub(crate) status_interval: Duration,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) heartbeat_topic: String,
}

impl Settings {
    /// Parses `config`, which has passed its `ConfigDef`; all further faults at once.
    pub(crate) fn new(config: &Config) -> Result<Self, Vec<ConfigProblem>> {
        let mut problems = Vec::new();
        let settings = Self {
            server: server(config),
            topic_prefix: config.str("topic.prefix").to_owned(),
            slot: config.str("slot.name").to_owned(),
            drop_slot_on_stop: config.bool("slot.drop.on.stop"),
            publication: config.str("publication.name").to_owned(),
            publication_mode: match lower(config, "publication.autocreate.mode").as_str() {
                "filtered" => PublicationMode::Filtered,
                "disabled" => PublicationMode::Disabled,
                "no_tables" => PublicationMode::NoTables,
                _ => PublicationMode::AllTables,
            },
            via_partition_root: config.bool("publish.via.partition.root"),
            filter: TableFilter::of(config, &mut problems),
            message_keys: message_keys(config, &mut problems),
            propagate_type: Patterns::of(config, "column.propagate.source.type", &mut problems),
            snapshot_mode: match lower(config, "snapshot.mode").as_str() {
                "initial_only" => SnapshotMode::InitialOnly,
                "no_data" | "never" => SnapshotMode::NoData,
                "always" => SnapshotMode::Always,
                "when_needed" => SnapshotMode::WhenNeeded,
                _ => SnapshotMode::Initial,
            },
            lock_timeout: config.millis("snapshot.lock.timeout.ms"),
            tombstones: config.bool("tombstones.on.delete"),
            skipped: skipped(config, &mut problems),
            types: types(config),
            placeholder: config.str("unavailable.value.placeholder").to_owned(),
            max_batch: config.usize("max.batch.size").max(1),
            poll_interval: config.millis("poll.interval.ms"),
            status_interval: config.millis("status.update.interval.ms"),
            heartbeat: Some(config.millis("heartbeat.interval.ms")).filter(|interval| !interval.is_zero()),
            heartbeat_topic: format!(
                "{}.{}",
                config.str("topic.heartbeat.prefix"),
                config.str("topic.prefix")
            ),
        };
        if settings
            .topic_prefix
            .chars()
            .any(|c| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
        {
            problems.push(ConfigProblem {
                key: "topic.prefix".to_owned(),
                value: Some(settings.topic_prefix.clone()),
                message: "begins the names of topics, so it may hold only letters, digits, '.', '_' and '-'"
                    .to_owned(),
            });
        }
        if let Some(path) = &settings.server.root_certificates
            && let Err(error) = std::fs::File::open(path)
        {
            problems.push(ConfigProblem {
                key: "database.sslrootcert".to_owned(),
                value: Some(path.display().to_string()),
                message: format!("cannot be read: {error}"),
            });
        }
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(problems)
        }
    }
}

fn lower(config: &Config, key: &str) -> String {
    config.str(key).to_ascii_lowercase()
}

fn server(config: &Config) -> Server {
    Server {
        host: config.str("database.hostname").to_owned(),
        // The ConfigDef has checked its range.
        port: u16::try_from(config.i64("database.port")).unwrap_or(5432),
        user: config.str("database.user").to_owned(),
        password: config.secret("database.password").unwrap_or_default(),
        database: config.str("database.dbname").to_owned(),
        tls: match lower(config, "database.sslmode").as_str() {
            "disable" => Tls::Disable,
            "require" => Tls::Require,
            "verify-ca" => Tls::VerifyCa,
            "verify-full" => Tls::VerifyFull,
            _ => Tls::Prefer,
        },
        root_certificates: config
            .get("database.sslrootcert")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
    }
}

fn types(config: &Config) -> TypeModes {
    TypeModes {
        decimal: match lower(config, "decimal.handling.mode").as_str() {
            "double" => DecimalMode::Double,
            "string" => DecimalMode::String,
            _ => DecimalMode::Precise,
        },
        time: match lower(config, "time.precision.mode").as_str() {
            "connect" => TimeMode::Connect,
            "adaptive_time_microseconds" => TimeMode::AdaptiveTimeMicros,
            _ => TimeMode::Adaptive,
        },
        interval_as_text: lower(config, "interval.handling.mode") == "string",
        binary: match lower(config, "binary.handling.mode").as_str() {
            "base64" => BinaryMode::Base64,
            "base64-url-safe" => BinaryMode::Base64UrlSafe,
            "hex" => BinaryMode::Hex,
            _ => BinaryMode::Bytes,
        },
        hstore_as_map: lower(config, "hstore.handling.mode") == "map",
    }
}

fn skipped(config: &Config, problems: &mut Vec<ConfigProblem>) -> Skipped {
    let mut skipped = Skipped::default();
    for operation in config.list("skipped.operations") {
        match operation {
            "c" => skipped.create = true,
            "u" => skipped.update = true,
            "d" => skipped.delete = true,
            "t" => skipped.truncate = true,
            "none" => {}
            _ => problems.push(ConfigProblem {
                key: "skipped.operations".to_owned(),
                value: Some(operation.to_owned()),
                message: "must be c, u, d, t or none".to_owned(),
            }),
        }
    }
    skipped
}
