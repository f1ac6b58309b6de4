//! The settings of a topic: Kafka's names and units, parsed, checked and in force.
//!
//! One table says for each setting its name, what is allowed, how it is read and how it is shown. A value comes from the
//! topic, else from what the broker was opened with, else it is the built-in default.
//!
//! `retention.ms` and `retention.bytes` are checked, kept and shown, and not acted on in this version: nothing is removed
//! by time or size.

use std::collections::BTreeMap;

use crate::batch::compression::Compression;
use crate::batch::header::MAX_BATCH_BYTES;
use crate::error::{Error, Result};
use crate::options::{BrokerOptions, MAX_SEGMENT_BYTES};
use crate::topic::{GROUP_OFFSETS_TOPIC, TopicInfo};

/// The settings in force for one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicSettings {
    pub(crate) cleanup_policy: CleanupPolicy,
    pub(crate) compression: CompressionType,
    /// How long a tombstone is kept after it was compacted, in milliseconds.
    pub(crate) delete_retention_ms: i64,
    pub(crate) durability: Durability,
    pub(crate) index_interval_bytes: u64,
    /// The largest batch taken, as it is stored.
    pub(crate) max_message_bytes: usize,
    pub(crate) timestamp_type: TimestampType,
    /// How long a closed segment may wait to be compacted, in milliseconds, however small the dirty part is.
    pub(crate) max_compaction_lag_ms: i64,
    /// The share of the dirty part at which a log is compacted, in millionths.
    pub(crate) min_dirty_millionths: u32,
    /// How old a record must be to be compacted, in milliseconds.
    pub(crate) min_compaction_lag_ms: i64,
    /// Bytes of a partition above which its oldest segments go; `None` for any number.
    pub(crate) retention_bytes: Option<u64>,
    /// Milliseconds after which a segment goes; `None` for never.
    pub(crate) retention_ms: Option<i64>,
    pub(crate) segment_bytes: u64,
    /// Milliseconds after which a segment is closed although it is not full.
    pub(crate) segment_ms: i64,
}

/// `cleanup.policy`: what becomes of old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CleanupPolicy {
    /// They go by time and size.
    pub(crate) delete: bool,
    /// The last of each key stays.
    pub(crate) compact: bool,
}

/// `compression.type`: how batches are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompressionType {
    /// As the producer chose.
    Producer,
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl CompressionType {
    /// The codec of all batches; `None` leaves each as its producer made it.
    pub(crate) fn codec(self) -> Option<Compression> {
        match self {
            Self::Producer => None,
            Self::None => Some(Compression::None),
            Self::Gzip => Some(Compression::Gzip),
            Self::Snappy => Some(Compression::Snappy),
            Self::Lz4 => Some(Compression::Lz4),
            Self::Zstd => Some(Compression::Zstd),
        }
    }
}

/// `message.timestamp.type`: what the timestamp of a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimestampType {
    /// What the producer gave.
    CreateTime,
    /// When its batch was appended.
    LogAppendTime,
}

/// `durability`: when a write is acknowledged, and visible to readers (invariant 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on disk (`fdatasync`, one for all that wait): it survives a power failure.
    Fsync,
    /// Once the operating system has it: it survives the end of the process, not that of the machine, which may take
    /// up to [`checkpoint_bytes`](crate::BrokerOptions::checkpoint_bytes) of each partition with it, also the part
    /// of a committed transaction that is there.
    Os,
}

/// Where a value in force comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingSource {
    /// It was set for the topic.
    Topic,
    /// The broker was opened with it.
    Broker,
    /// It is built in.
    Default,
}

/// A setting of a topic as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Kafka's name, such as `retention.ms`.
    pub name: &'static str,
    /// The value, in the unit the name says.
    pub value: String,
    /// Where it comes from.
    pub source: SettingSource,
}

/// One row of the table.
struct Rule {
    name: &'static str,
    allowed: &'static str,
    /// Takes the value over; `None` if it is not allowed.
    set: fn(&mut TopicSettings, &str) -> Option<()>,
    show: fn(&TopicSettings) -> String,
}

const MILLISECONDS: &str = "a number of milliseconds, 0 or more";
const MILLISECONDS_OR_NONE: &str = "a number of milliseconds, or -1 for no limit";
const BYTES_OR_NONE: &str = "a number of bytes, or -1 for no limit";

/// All settings, by name.
const RULES: &[Rule] = &[
    Rule {
        name: "cleanup.policy",
        allowed: "delete, compact, or both with a comma between",
        set: |s, v| CleanupPolicy::parse(v).map(|policy| s.cleanup_policy = policy),
        show: |s| s.cleanup_policy.text().to_owned(),
    },
    Rule {
        name: "compression.type",
        allowed: "producer, none, gzip, snappy, lz4 or zstd",
        set: |s, v| named(CompressionType::NAMES, v).map(|codec| s.compression = codec),
        show: |s| name_of(CompressionType::NAMES, s.compression),
    },
    Rule {
        name: "delete.retention.ms",
        allowed: MILLISECONDS,
        set: |s, v| number(v, 0).map(|ms| s.delete_retention_ms = ms),
        show: |s| s.delete_retention_ms.to_string(),
    },
    Rule {
        name: "durability",
        allowed: "fsync or os",
        set: |s, v| named(Durability::NAMES, v).map(|durability| s.durability = durability),
        show: |s| name_of(Durability::NAMES, s.durability),
    },
    Rule {
        name: "index.interval.bytes",
        allowed: "a number of bytes from 1 to 4294967295",
        set: |s, v| {
            let bytes = number(v, 1)?;
            u32::try_from(bytes)
                .ok()
                .map(|bytes| s.index_interval_bytes = bytes.into())
        },
        show: |s| s.index_interval_bytes.to_string(),
    },
    Rule {
        name: "max.compaction.lag.ms",
        allowed: "a number of milliseconds, 1 or more",
        set: |s, v| number(v, 1).map(|ms| s.max_compaction_lag_ms = ms),
        show: |s| s.max_compaction_lag_ms.to_string(),
    },
    Rule {
        name: "max.message.bytes",
        allowed: "a number of bytes from 1 to 268435456",
        set: |s, v| {
            let bytes = usize::try_from(number(v, 1)?).ok()?;
            (bytes <= MAX_BATCH_BYTES).then(|| s.max_message_bytes = bytes)
        },
        show: |s| s.max_message_bytes.to_string(),
    },
    Rule {
        name: "message.timestamp.type",
        allowed: "CreateTime or LogAppendTime",
        set: |s, v| named(TimestampType::NAMES, v).map(|kind| s.timestamp_type = kind),
        show: |s| name_of(TimestampType::NAMES, s.timestamp_type),
    },
    Rule {
        name: "min.cleanable.dirty.ratio",
        allowed: "a number from 0 to 1",
        set: |s, v| {
            let ratio = v
                .parse::<f64>()
                .ok()
                .filter(|ratio| (0.0..=1.0).contains(ratio))?;
            s.min_dirty_millionths = (ratio * 1e6).round() as u32;
            Some(())
        },
        show: |s| (f64::from(s.min_dirty_millionths) / 1e6).to_string(),
    },
    Rule {
        name: "min.compaction.lag.ms",
        allowed: MILLISECONDS,
        set: |s, v| number(v, 0).map(|ms| s.min_compaction_lag_ms = ms),
        show: |s| s.min_compaction_lag_ms.to_string(),
    },
    Rule {
        name: "retention.bytes",
        allowed: BYTES_OR_NONE,
        set: |s, v| number(v, -1).map(|bytes| s.retention_bytes = u64::try_from(bytes).ok()),
        show: |s| {
            s.retention_bytes
                .map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string())
        },
    },
    Rule {
        name: "retention.ms",
        allowed: MILLISECONDS_OR_NONE,
        set: |s, v| number(v, -1).map(|ms| s.retention_ms = Some(ms).filter(|ms| *ms >= 0)),
        show: |s| s.retention_ms.unwrap_or(-1).to_string(),
    },
    Rule {
        name: "segment.bytes",
        allowed: "a number of bytes from 1 to 2147483648",
        set: |s, v| {
            let bytes = u64::try_from(number(v, 1)?).ok()?;
            (bytes <= MAX_SEGMENT_BYTES).then(|| s.segment_bytes = bytes)
        },
        show: |s| s.segment_bytes.to_string(),
    },
    Rule {
        name: "segment.ms",
        allowed: "a number of milliseconds, 1 or more",
        set: |s, v| number(v, 1).map(|ms| s.segment_ms = ms),
        show: |s| s.segment_ms.to_string(),
    },
];

impl TopicSettings {
    /// Those of a topic without settings of its own, on a broker opened with `options`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`], [`Error::UnknownSetting`] for what is wrong in
    /// [`BrokerOptions::topic_defaults`].
    pub(crate) fn of_broker(options: &BrokerOptions) -> Result<Self> {
        let mut settings = Self {
            cleanup_policy: CleanupPolicy {
                delete: true,
                compact: false,
            },
            compression: CompressionType::Producer,
            delete_retention_ms: 86_400_000,
            durability: options.durability,
            index_interval_bytes: options.index_interval_bytes,
            max_message_bytes: options.max_message_bytes,
            timestamp_type: TimestampType::CreateTime,
            max_compaction_lag_ms: i64::MAX,
            min_dirty_millionths: 500_000,
            min_compaction_lag_ms: 0,
            retention_bytes: None,
            retention_ms: Some(604_800_000),
            segment_bytes: options.segment_bytes,
            segment_ms: 604_800_000,
        };
        settings.take(&options.topic_defaults)?;
        Ok(settings)
    }

    /// Those of a topic.
    ///
    /// # Errors
    /// [`Error::InvalidOption`], [`Error::UnknownSetting`].
    pub(crate) fn of_topic(options: &BrokerOptions, topic: &TopicInfo) -> Result<Self> {
        let mut settings = if topic.name == GROUP_OFFSETS_TOPIC {
            // What users choose for their topics is not for this one.
            let own = BrokerOptions {
                topic_defaults: BTreeMap::new(),
                max_message_bytes: MAX_BATCH_BYTES,
                ..options.clone()
            };
            Self::of_broker(&own)?
        } else {
            Self::of_broker(options)?
        };
        settings.take(&topic.settings)?;
        Ok(settings)
    }

    /// Those of the broker's own transaction log: nothing of it goes by time or size, and its segments are small.
    pub(crate) fn of_transaction_log(options: &BrokerOptions, segment_bytes: u64) -> Result<Self> {
        Ok(Self {
            cleanup_policy: CleanupPolicy {
                delete: false,
                compact: false,
            },
            compression: CompressionType::Producer,
            durability: options.durability,
            max_message_bytes: MAX_BATCH_BYTES,
            timestamp_type: TimestampType::CreateTime,
            segment_bytes,
            segment_ms: i64::MAX,
            ..Self::of_broker(options)?
        })
    }

    fn take(&mut self, values: &BTreeMap<String, String>) -> Result<()> {
        for (name, value) in values {
            let rule = rule(name)?;
            (rule.set)(self, value.trim()).ok_or_else(|| Error::InvalidOption {
                name: rule.name,
                value: value.clone(),
                allowed: rule.allowed,
            })?;
        }
        Ok(())
    }
}

/// All settings of a topic as they are in force, by name.
///
/// # Errors
/// [`Error::InvalidOption`], [`Error::UnknownSetting`].
pub(crate) fn describe(options: &BrokerOptions, topic: &TopicInfo) -> Result<Vec<Setting>> {
    let built_in = TopicSettings::of_broker(&BrokerOptions::new(""))?;
    let in_force = TopicSettings::of_topic(options, topic)?;
    let setting = |rule: &Rule| {
        let value = (rule.show)(&in_force);
        let source = if topic.settings.contains_key(rule.name) {
            SettingSource::Topic
        } else if options.topic_defaults.contains_key(rule.name) || (rule.show)(&built_in) != value {
            SettingSource::Broker
        } else {
            SettingSource::Default
        };
        Setting {
            name: rule.name,
            value,
            source,
        }
    };
    Ok(RULES.iter().map(setting).collect())
}

/// Whether there is a setting of this name.
///
/// # Errors
/// [`Error::UnknownSetting`].
pub(crate) fn check_name(name: &str) -> Result<()> {
    rule(name).map(drop)
}

/// The row of a setting.
///
/// # Errors
/// [`Error::UnknownSetting`], which names those that are near.
fn rule(name: &str) -> Result<&'static Rule> {
    RULES
        .iter()
        .find(|rule| rule.name == name)
        .ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Error {
    let likeness = |known: &str| strsim::jaro_winkler(&name.to_lowercase(), known);
    let mut near: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
    near.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    near.truncate(3);
    Error::UnknownSetting {
        name: name.to_owned(),
        near: near.join(", "),
    }
}

/// A whole number of at least `least`.
fn number(text: &str, least: i64) -> Option<i64> {
    text.parse().ok().filter(|number| *number >= least)
}

fn named<T: Copy>(names: &[(&str, T)], text: &str) -> Option<T> {
    names
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
}

fn name_of<T: PartialEq + Copy>(names: &[(&str, T)], value: T) -> String {
    names
        .iter()
        .find(|(_, known)| *known == value)
        .map_or_else(String::new, |(name, _)| (*name).to_owned())
}

impl CompressionType {
    const NAMES: &[(&str, Self)] = &[
        ("producer", Self::Producer),
        ("none", Self::None),
        ("gzip", Self::Gzip),
        ("snappy", Self::Snappy),
        ("lz4", Self::Lz4),
        ("zstd", Self::Zstd),
    ];
}

impl TimestampType {
    const NAMES: &[(&str, Self)] = &[
        ("CreateTime", Self::CreateTime),
        ("LogAppendTime", Self::LogAppendTime),
    ];
}

impl Durability {
    const NAMES: &[(&str, Self)] = &[("fsync", Self::Fsync), ("os", Self::Os)];
}

impl CleanupPolicy {
    fn parse(text: &str) -> Option<Self> {
        let mut policy = Self {
            delete: false,
            compact: false,
        };
        for part in text.split(',') {
            match part.trim() {
                "delete" => policy.delete = true,
                "compact" => policy.compact = true,
                _ => return None,
            }
        }
        Some(policy)
    }

    fn text(self) -> &'static str {
        match (self.compact, self.delete) {
            (true, true) => "compact,delete",
            (true, false) => "compact",
            (false, true) => "delete",
            (false, false) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(values: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = values
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    fn topic(values: &[(&str, &str)]) -> TopicInfo {
        TopicInfo::new("t", 1, own(values)).unwrap()
    }

    fn settings(values: &[(&str, &str)]) -> Result<TopicSettings> {
        TopicSettings::of_topic(&BrokerOptions::new("x"), &topic(values))
    }

    #[test]
    fn the_defaults_are_kafkas() {
        let shown = describe(&BrokerOptions::new("x"), &topic(&[])).unwrap();
        let value = |name: &str| {
            let setting = shown.iter().find(|setting| setting.name == name).unwrap();
            assert_eq!(setting.source, SettingSource::Default, "{name}");
            setting.value.clone()
        };
        assert_eq!(value("retention.ms"), "604800000");
        assert_eq!(value("retention.bytes"), "-1");
        assert_eq!(value("segment.ms"), "604800000");
        assert_eq!(value("cleanup.policy"), "delete");
        assert_eq!(value("min.compaction.lag.ms"), "0");
        assert_eq!(value("max.compaction.lag.ms"), i64::MAX.to_string());
        assert_eq!(value("min.cleanable.dirty.ratio"), "0.5");
        assert_eq!(value("delete.retention.ms"), "86400000");
        assert_eq!(value("message.timestamp.type"), "CreateTime");
        assert_eq!(value("compression.type"), "producer");
        assert_eq!(value("durability"), "fsync");
    }

    #[test]
    fn what_is_shown_reads_back() {
        let values = [
            ("cleanup.policy", " delete , compact "),
            ("compression.type", "zstd"),
            ("delete.retention.ms", "0"),
            ("durability", "os"),
            ("index.interval.bytes", "4096"),
            ("max.compaction.lag.ms", "86400000"),
            ("max.message.bytes", "1048588"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.cleanable.dirty.ratio", "0.25"),
            ("min.compaction.lag.ms", "7"),
            ("retention.bytes", "0"),
            ("retention.ms", "-1"),
            ("segment.bytes", "2147483648"),
            ("segment.ms", "1"),
        ];
        let set = settings(&values).unwrap();
        assert_eq!((set.retention_bytes, set.retention_ms), (Some(0), None));
        let shown = describe(&BrokerOptions::new("x"), &topic(&values)).unwrap();
        assert!(shown.iter().all(|setting| setting.source == SettingSource::Topic));
        let again: Vec<_> = shown.iter().map(|s| (s.name, s.value.as_str())).collect();
        assert_eq!(settings(&again).unwrap(), set);
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_what_is_allowed() {
        for (name, value) in [
            ("cleanup.policy", ""),
            ("cleanup.policy", "delete,keep"),
            ("compression.type", "LZ4"),
            ("delete.retention.ms", "-1"),
            ("durability", "none"),
            ("index.interval.bytes", "0"),
            ("max.message.bytes", "268435457"),
            ("message.timestamp.type", "createtime"),
            ("max.compaction.lag.ms", "0"),
            ("min.cleanable.dirty.ratio", "1.1"),
            ("min.cleanable.dirty.ratio", "NaN"),
            ("min.compaction.lag.ms", "-1"),
            ("retention.bytes", "-2"),
            ("retention.ms", "a week"),
            ("retention.ms", "9223372036854775808"),
            ("segment.bytes", "2147483649"),
            ("segment.ms", "0"),
        ] {
            match settings(&[(name, value)]) {
                Err(Error::InvalidOption { name: said, .. }) => assert_eq!(said, name),
                other => panic!("{name}={value}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_those_near_it() {
        match settings(&[("retention.mss", "1")]) {
            Err(Error::UnknownSetting { near, .. }) => assert!(near.starts_with("retention.ms,"), "{near}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_value_says_where_it_comes_from() {
        let mut options = BrokerOptions::new("x");
        options.segment_bytes = 1000;
        options.topic_defaults = own(&[("retention.ms", "604800000")]);
        let shown = describe(&options, &topic(&[("segment.ms", "604800000")])).unwrap();
        let source = |name: &str| shown.iter().find(|setting| setting.name == name).unwrap().source;
        assert_eq!(source("segment.bytes"), SettingSource::Broker);
        assert_eq!(source("retention.ms"), SettingSource::Broker);
        assert_eq!(source("segment.ms"), SettingSource::Topic);
        assert_eq!(source("cleanup.policy"), SettingSource::Default);
    }
}
