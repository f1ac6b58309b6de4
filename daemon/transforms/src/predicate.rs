//! The predicates: whether a transform is applied to a record.

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance, Validator};

use crate::fault::Fault;
use crate::java_regex::{TopicCache, WholeMatch};
use crate::record::Record;
use crate::settings::Settings;

/// A predicate, configured.
pub trait Predicate: Send {
    /// Whether `record` is one of those it means.
    fn test(&mut self, record: &Record) -> Result<bool, Fault>;
}

pub(crate) fn has_header_key_config() -> ConfigDef {
    ConfigDef::new()
        .required(
            "name",
            ConfigType::String,
            Importance::Medium,
            "The name of the header that a record must have.",
        )
        .validate(Validator::NonEmpty)
}

/// Records with a header of a given name.
pub(crate) struct HasHeaderKey(Arc<str>);

impl HasHeaderKey {
    pub(crate) fn build(settings: &mut Settings) -> Option<Box<dyn Predicate>> {
        Some(Box::new(Self(settings.text("name").into())))
    }
}

impl Predicate for HasHeaderKey {
    fn test(&mut self, record: &Record) -> Result<bool, Fault> {
        Ok(record.headers.iter().any(|header| header.name == self.0))
    }
}

/// Records whose value is null.
pub(crate) struct RecordIsTombstone;

impl Predicate for RecordIsTombstone {
    fn test(&mut self, record: &Record) -> Result<bool, Fault> {
        Ok(record.value.is_null())
    }
}

pub(crate) fn topic_name_matches_config() -> ConfigDef {
    ConfigDef::new()
        .required(
            "pattern",
            ConfigType::String,
            Importance::Medium,
            "The regular expression that the whole name of the topic must match.",
        )
        .validate(Validator::NonEmpty)
}

/// Records of topics whose whole name matches.
pub(crate) struct TopicNameMatches {
    pattern: WholeMatch,
    known: TopicCache<bool>,
}

impl TopicNameMatches {
    pub(crate) fn build(settings: &mut Settings) -> Option<Box<dyn Predicate>> {
        match WholeMatch::new(settings.untrimmed("pattern").unwrap_or_default(), "pattern") {
            Ok(pattern) => Some(Box::new(Self {
                pattern,
                known: TopicCache::default(),
            })),
            Err(error) => {
                settings.problem("pattern", error);
                None
            }
        }
    }
}

impl Predicate for TopicNameMatches {
    fn test(&mut self, record: &Record) -> Result<bool, Fault> {
        let pattern = &self.pattern;
        self.known.get(&record.topic, || pattern.matches(&record.topic))
    }
}
