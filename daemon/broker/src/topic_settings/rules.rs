//! The table of all settings: names, what is allowed, how each is read and shown.

use crate::batch::header::MAX_BATCH_BYTES;
use crate::error::{Error, Result};
use crate::options::MAX_SEGMENT_BYTES;
use crate::topic_settings::TopicSettings;
use crate::topic_settings::values::{CleanupPolicy, CompressionType, Durability, TimestampType};

/// One row of the table.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) allowed: &'static str,
    /// Takes the value over; `None` if it is not allowed.
    pub(super) set: fn(&mut TopicSettings, &str) -> Option<()>,
    pub(super) show: fn(&TopicSettings) -> String,
}

const MILLISECONDS: &str = "a number of milliseconds, 0 or more";
const MILLISECONDS_OR_NONE: &str = "a number of milliseconds, or -1 for no limit";
const BYTES_OR_NONE: &str = "a number of bytes, or -1 for no limit";

/// All settings, by name.
pub(super) const RULES: &[Rule] = &[
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
pub(super) fn rule(name: &str) -> Result<&'static Rule> {
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
