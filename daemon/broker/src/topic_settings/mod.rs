//! The settings of a topic: Kafka's names and units, parsed, checked and in force.
//!
//! One table says for each setting its name, what is allowed, how it is read and how it is shown. A value comes from the
//! topic, else from what the broker was opened with, else it is the built-in default.
//!
//! What the settings say of time and size is done by [`retention`](crate::log::retention) and the
//! [`cleaner`](crate::cleaner).

use std::collections::BTreeMap;

use crate::batch::header::MAX_BATCH_BYTES;
use crate::error::{Error, Result};
use crate::options::BrokerOptions;
use crate::topic::{GROUP_OFFSETS_TOPIC, TopicInfo};

mod rules;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use rules::check_name;
use rules::{RULES, Rule, rule};
pub use values::Durability;
pub(crate) use values::{CleanupPolicy, CompressionType, TimestampType};

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

    /// Milliseconds after which an active segment is closed although it is not full: `segment.ms`, and where its records
    /// are to be compacted before, `max.compaction.lag.ms`.
    pub(crate) fn roll_ms(&self) -> i64 {
        if self.cleanup_policy.compact {
            self.segment_ms.min(self.max_compaction_lag_ms)
        } else {
            self.segment_ms
        }
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

/// Whether a topic may have this value of this setting, so that a configuration can be refused before there is a topic.
///
/// # Errors
/// [`Error::InvalidOption`], which says what is allowed; [`Error::UnknownSetting`], which names what is near.
pub fn check_topic_setting(name: &str, value: &str) -> Result<()> {
    let mut settings = TopicSettings::of_broker(&BrokerOptions::new(""))?;
    settings.take(&BTreeMap::from([(name.to_owned(), value.to_owned())]))
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
