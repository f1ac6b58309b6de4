//! The keys of every connector, whatever its class: one table for each direction, and what this version does not have.

use std::sync::LazyLock;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, ConnectorKind, Importance, Validator};

use crate::converter::{Role, class};
use crate::partitioner::Partitioning;

/// The keys of every connector of `kind`, besides those of its class.
pub fn keys(kind: ConnectorKind) -> &'static ConfigDef {
    static SOURCE: LazyLock<ConfigDef> = LazyLock::new(|| of_source(common().clone()));
    static SINK: LazyLock<ConfigDef> = LazyLock::new(|| of_sink(common().clone()));
    match kind {
        ConnectorKind::Source => &SOURCE,
        ConnectorKind::Sink => &SINK,
    }
}

/// The keys of every connector, in whichever direction it moves records.
pub fn common() -> &'static ConfigDef {
    static BOTH: LazyLock<ConfigDef> = LazyLock::new(of_both);
    &BOTH
}

/// The settings of a converter, under `key.converter.`, `value.converter.` and `header.converter.`.
pub fn converter_keys() -> &'static ConfigDef {
    static KEYS: LazyLock<ConfigDef> = LazyLock::new(|| {
        ConfigDef::new()
            .optional(
                "schemas.enable",
                ConfigType::Boolean,
                "true",
                Importance::Medium,
                "json: whether each record carries its schema, as {\"schema\": …, \"payload\": …}.",
            )
            .optional(
                "decimal.format",
                ConfigType::String,
                "BASE64",
                Importance::Low,
                "json: how decimals are written, BASE64 (the unscaled bytes) or NUMERIC (a JSON number).",
            )
            .one_of(&["BASE64", "NUMERIC"])
            .optional(
                "schemas.cache.size",
                ConfigType::Int,
                "64",
                Importance::Low,
                "json: how many schemas of records lately read are remembered (Kafka Connect's default is 1000).",
            )
            .validate(Validator::Range {
                min: Some(1),
                max: Some(100_000),
            })
            .optional(
                "replace.null.with.default",
                ConfigType::Boolean,
                "false",
                Importance::Medium,
                "json: whether a null becomes the default of its schema, and what was null can no longer be told (Kafka \
                 Connect's default is true).",
            )
            .optional(
                "converter.encoding",
                ConfigType::String,
                "UTF-8",
                Importance::Low,
                "string: how text is encoded, always UTF-8.",
            )
            .one_of(&["UTF-8", "UTF8"])
    });
    &KEYS
}

fn at_least(min: i64) -> Validator {
    Validator::Range {
        min: Some(min),
        max: None,
    }
}

fn of_both() -> ConfigDef {
    let mut def = ConfigDef::new()
        .nullable(
            "name",
            ConfigType::String,
            Importance::High,
            "The connector's name, under which its offsets are kept; the file's name where it is left out.",
        )
        .required(
            "connector.class",
            ConfigType::Class,
            Importance::High,
            "The class of the connector, by its short name or an alias; `tidewater plugins` lists them.",
        )
        .optional(
            "tasks.max",
            ConfigType::Int,
            "1",
            Importance::High,
            "The most tasks to split the work into.",
        )
        .validate(Validator::Range {
            min: Some(1),
            max: Some(1000),
        });
    for side in ["key", "value", "header"] {
        let class = format!("{side}.converter");
        let classes = class::classes(Role::of(&class)).collect::<Vec<_>>().join(", ");
        let doc = format!(
            "How {side}s stand in topics: {classes}, or the Java class of one; the worker's {class} where it is left out."
        );
        def = def.nullable(&class, ConfigType::Class, Importance::Medium, &doc);
        for key in &converter_keys().keys {
            let mut key = key.clone();
            key.name = format!("{class}.{}", key.name);
            def.keys.push(key);
        }
    }
    def.optional(
        "transforms",
        ConfigType::List,
        "",
        Importance::Medium,
        "The names of the transforms that records pass, in order; each is configured under transforms.NAME.",
    )
    .optional(
        "predicates",
        ConfigType::List,
        "",
        Importance::Low,
        "The names of the predicates that transforms use; each is configured under predicates.NAME.",
    )
    .nullable(
        "rate.limit.records",
        ConfigType::Long,
        Importance::Low,
        "The most records a second that the connector moves, over all its tasks; none is no limit.",
    )
    .validate(at_least(1))
    .nullable(
        "rate.limit.bytes",
        ConfigType::Long,
        Importance::Low,
        "The most bytes a second that the connector moves, over all its tasks and as its plugin sees them; none is no limit.",
    )
    .validate(at_least(1))
    .optional(
        "errors.retry.timeout",
        ConfigType::Long,
        "-1",
        Importance::Medium,
        "How long what may succeed later is tried again in place before the task fails and is restarted, in milliseconds; \
         -1, the default, is until it succeeds (Kafka Connect's default is 0, not at all).",
    )
    .validate(at_least(-1))
    .optional(
        "errors.tolerance",
        ConfigType::String,
        "none",
        Importance::Medium,
        "What becomes of a record that cannot be converted, transformed or written: with none it fails the task, with all \
         it goes to the dead-letter topic, or is dropped and counted where there is none.",
    )
    .one_of(&["none", "all"])
    .optional(
        "errors.log.enable",
        ConfigType::Boolean,
        "false",
        Importance::Medium,
        "Whether each such record is logged, with its place and what is wrong with it.",
    )
    .optional(
        "errors.log.include.messages",
        ConfigType::Boolean,
        "false",
        Importance::Medium,
        "Whether the log shows such records' keys and values too.",
    )
    .nullable(
        "errors.deadletterqueue.topic.name",
        ConfigType::String,
        Importance::Medium,
        "The topic for records that cannot be taken further, with errors.tolerance=all: a sink's as they were in their \
         topic, a source's as JSON with schemas. It is made where it is missing.",
    )
    .optional(
        "errors.deadletterqueue.context.headers.enable",
        ConfigType::Boolean,
        "false",
        Importance::Medium,
        "Whether records there carry headers that tell where they came from and what is wrong, __connect.errors.*.",
    )
    .nullable(
        "errors.deadletterqueue.topic.replication.factor",
        ConfigType::Int,
        Importance::Low,
        "Taken for compatibility; the embedded log keeps one copy.",
    )
    .optional(
        "errors.retry.delay.max.ms",
        ConfigType::Long,
        "60000",
        Importance::Medium,
        "The longest pause before something that failed is tried again, in milliseconds; pauses double from 300 ms.",
    )
    .validate(at_least(1))
    .optional(
        "restart.policy",
        ConfigType::String,
        "on-failure",
        Importance::Medium,
        "Whether a task, or a connector's start, that failed is started again by itself: on-failure, or never as in Kafka \
         Connect.",
    )
    .one_of(&["never", "on-failure"])
    .optional(
        "restart.max.attempts",
        ConfigType::Int,
        "-1",
        Importance::Medium,
        "The most restarts within restart.window.ms; a failure after that leaves it FAILED. -1 for as many as it takes, so \
         that no outage, however long, needs somebody's hand.",
    )
    .validate(at_least(-1))
    .optional(
        "restart.window.ms",
        ConfigType::Long,
        "3600000",
        Importance::Low,
        "The time in which restart.max.attempts are counted, in milliseconds.",
    )
    .validate(at_least(1))
    .optional(
        "restart.delay.initial.ms",
        ConfigType::Long,
        "300",
        Importance::Low,
        "The pause before the first restart, in milliseconds; it doubles with each, until a task has run for 30 s.",
    )
    .validate(at_least(1))
    .nullable(
        "restart.delay.max.ms",
        ConfigType::Long,
        Importance::Low,
        "The longest pause before a restart, in milliseconds; errors.retry.delay.max.ms where it is left out.",
    )
    .validate(at_least(1))
    .optional(
        "task.call.timeout.ms",
        ConfigType::Long,
        "300000",
        Importance::Medium,
        "How long one call of the plugin may take, in milliseconds; a task whose plugin does not answer in time is given up \
         and replaced. A source may wait for new data for as long as it likes, as long as its thread is not blocked.",
    )
    .validate(at_least(1))
}

fn of_source(def: ConfigDef) -> ConfigDef {
    def.optional(
        "topic.creation.default.partitions",
        ConfigType::Int,
        "1",
        Importance::Medium,
        "Partitions of a topic that this connector creates; topic.creation.default.NAME gives it the setting NAME, such as \
         retention.ms.",
    )
    .nullable(
        "topic.creation.default.replication.factor",
        ConfigType::Int,
        Importance::Low,
        "Taken for compatibility; the embedded log keeps one copy.",
    )
    .nullable(
        "topic.creation.groups",
        ConfigType::List,
        Importance::Low,
        "Groups of topics that are created differently; each has topic.creation.GROUP.include, a list of regular expressions \
         for whole names, and may have .exclude, .partitions and settings of topics.",
    )
    .nullable(
        "partitioner.fields",
        ConfigType::List,
        Importance::Medium,
        "Fields whose text decides the partition, instead of the key: key.id, value.customer.id; backticks keep the dots of a \
         name together.",
    )
    .nullable(
        "producer.override.partitioner.class",
        ConfigType::Class,
        Importance::Low,
        "How partitions are picked: default (by the key, as Kafka's producer does), round-robin or sticky, or Kafka's class.",
    )
    .one_of(&Partitioning::names().collect::<Vec<_>>())
    .optional(
        "producer.override.partitioner.ignore.keys",
        ConfigType::Boolean,
        "false",
        Importance::Low,
        "With true, the default partitioner does not look at keys.",
    )
    .optional(
        "producer.override.batch.size",
        ConfigType::Int,
        "524288",
        Importance::Low,
        "Bytes at which a batch for one partition is closed, before compression (Kafka's default is 16384).",
    )
    .validate(Validator::Range {
        min: Some(1024),
        max: Some(16 << 20),
    })
    .optional(
        "producer.override.compression.type",
        ConfigType::String,
        "none",
        Importance::Medium,
        "How the connector's batches are compressed: none, gzip, snappy, lz4 or zstd.",
    )
    .one_of(&["none", "gzip", "snappy", "lz4", "zstd"])
    .optional(
        "exactly.once.support",
        ConfigType::String,
        "requested",
        Importance::Low,
        "With `required`, a class that cannot keep its positions exactly is refused.",
    )
    .one_of(&["requested", "required"])
    .optional(
        "transaction.boundary",
        ConfigType::String,
        "poll",
        Importance::Medium,
        "When a transaction ends: poll, as soon as the log takes it, with one poll of the plugin or more; interval, after \
         transaction.boundary.interval.ms, or once it is full (4 MiB).",
    )
    .one_of(&["poll", "interval", "connector"])
    .nullable(
        "transaction.boundary.interval.ms",
        ConfigType::Long,
        Importance::Low,
        "With transaction.boundary=interval: how long a transaction gathers records, in milliseconds; the worker's \
         offset.flush.interval.ms where it is left out.",
    )
    .validate(at_least(1))
    .optional(
        "producer.override.linger.ms",
        ConfigType::Long,
        "0",
        Importance::Low,
        "How long a transaction waits for more records before it is committed, unless it is full, in milliseconds.",
    )
    .validate(at_least(0))
}

fn of_sink(def: ConfigDef) -> ConfigDef {
    def.nullable(
        "topics",
        ConfigType::List,
        Importance::High,
        "The topics to read, separated by commas; either this or topics.regex.",
    )
    .nullable(
        "topics.regex",
        ConfigType::String,
        Importance::High,
        "A regular expression that a topic's whole name must match; topics that appear later are read too.",
    )
    .optional(
        "consumer.override.max.poll.records",
        ConfigType::Int,
        "5000",
        Importance::Medium,
        "The most records handed to the connector at once, and so in one transaction of the target (Kafka's default is 500).",
    )
    .validate(at_least(1))
    .nullable(
        "consumer.override.auto.offset.reset",
        ConfigType::String,
        Importance::Medium,
        "Where to begin: earliest or latest. Left out, a new sink begins at the first record, and one whose next records \
         were removed fails; with either of these it goes on without them.",
    )
    .one_of(&["earliest", "latest"])
}

/// Keys of Kafka Connect that this version does not have, and the values that ask for nothing. A key that ends in a dot
/// stands for all that begin with it. A configuration that uses one is refused: what it asks for would not happen.
const ABSENT: [(&str, &[&str]); 5] = [
    ("offsets.storage.topic", &[]),
    ("producer.override.", &[]),
    ("consumer.override.", &[]),
    ("admin.override.", &[]),
    ("tasks.max.enforce", &["true"]),
];

/// How a key of Kafka Connect stands that this version does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The value asks for nothing that would not happen.
    Harmless,
    /// It is passed over, for this reason.
    NoEffect(&'static str),
    /// It asks for what is not there.
    Refused,
}

/// Whether `key` is one of Kafka Connect's that this version does not have, and whether `value` needs it.
pub fn absent(key: &str, value: &str) -> Option<Absent> {
    // Its reasons to reload, a provider that announces new secrets, do not arise here.
    if key == "config.action.reload" {
        return Some(Absent::Harmless);
    }
    let (_, harmless) = ABSENT
        .iter()
        .find(|(absent, _)| *absent == key || (absent.ends_with('.') && key.starts_with(absent)))?;
    let value = value.trim();
    let is_harmless = harmless
        .iter()
        .any(|harmless| harmless.eq_ignore_ascii_case(value));
    Some(if is_harmless {
        Absent::Harmless
    } else {
        Absent::Refused
    })
}

/// What to do instead of using a key that is [`Absent::Refused`].
pub const INSTEAD: &str = "is not available in this version; remove it";

/// The names of Kafka Connect's keys that this version does not have, for finding what was mistyped.
pub fn absent_names() -> impl Iterator<Item = &'static str> {
    ABSENT
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !name.ends_with('.'))
        .chain(["config.action.reload"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_there_are_not_called_absent() {
        for kind in [ConnectorKind::Source, ConnectorKind::Sink] {
            for key in &keys(kind).keys {
                let value = key.default.clone().unwrap_or_default();
                assert_eq!(
                    key.default
                        .as_deref()
                        .map_or(Ok(()), |default| key.check(default)),
                    Ok(()),
                    "{}",
                    key.name
                );
                let shadowed = absent(&key.name, &value).is_some();
                let by_prefix = ABSENT
                    .iter()
                    .any(|(name, _)| name.ends_with('.') && key.name.starts_with(name));
                assert_eq!(shadowed, by_prefix, "{}", key.name);
            }
        }
    }

    #[test]
    fn what_is_absent_is_refused_unless_it_asks_for_nothing() {
        assert_eq!(absent("tasks.max.enforce", " TRUE"), Some(Absent::Harmless));
        assert_eq!(absent("tasks.max.enforce", "false"), Some(Absent::Refused));
        assert_eq!(absent("admin.override.retries", "x"), Some(Absent::Refused));
        assert_eq!(absent("tasks.max", "1"), None);
        assert_eq!(absent("transformsx", ""), None);
    }
}
