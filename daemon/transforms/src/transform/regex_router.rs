//! RegexRouter: another topic where the topic's whole name matches.

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance};

use super::{Transform, Verdict};
use crate::fault::{Fault, Place};
use crate::java_regex::{Replacement, TopicCache, WholeMatch};
use crate::record::Record;
use crate::settings::Settings;

pub(crate) fn config() -> ConfigDef {
    ConfigDef::new()
        .required(
            "regex",
            ConfigType::String,
            Importance::High,
            "The regular expression that the whole name of the topic must match.",
        )
        .required(
            "replacement",
            ConfigType::String,
            Importance::High,
            "The topic's new name; $1 and ${name} stand for the groups of the expression.",
        )
}

pub(crate) struct RegexRouter {
    pattern: WholeMatch,
    replacement: Replacement,
    topics: TopicCache<Option<Arc<str>>>,
}

impl RegexRouter {
    pub(crate) fn build(settings: &mut Settings) -> Option<Box<dyn Transform>> {
        let (pattern, replacement) = pattern(settings, "regex", "replacement")?;
        Some(Box::new(Self {
            pattern,
            replacement,
            topics: TopicCache::default(),
        }))
    }
}

/// The pattern and its replacement under these keys; what is wrong with them is noted.
pub(super) fn pattern(
    settings: &mut Settings,
    regex: &'static str,
    replacement: &'static str,
) -> Option<(WholeMatch, Replacement)> {
    let pattern = match WholeMatch::new(settings.untrimmed(regex).unwrap_or_default(), regex) {
        Ok(pattern) => pattern,
        Err(error) => {
            settings.problem(regex, error);
            return None;
        }
    };
    match Replacement::new(settings.untrimmed(replacement).unwrap_or_default(), &pattern) {
        Ok(replacement) => Some((pattern, replacement)),
        Err(error) => {
            settings.problem(replacement, error);
            None
        }
    }
}

impl Transform for RegexRouter {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let (pattern, replacement, topic) = (&self.pattern, &self.replacement, &record.topic);
        let routed = self.topics.get(topic, || {
            let routed = pattern.replace(topic, replacement)?;
            routed.map(|routed| checked(routed, "replacement")).transpose()
        })?;
        if let Some(routed) = routed {
            record.topic = routed;
        }
        Ok(Verdict::Keep)
    }
}

/// A topic's name, which must not be empty.
pub(super) fn checked(name: String, key: &str) -> Result<Arc<str>, Fault> {
    if name.is_empty() {
        return Err(Fault::NoTopic {
            place: Place::Topic,
            reason: "the new name is empty".into(),
            advice: format!("mend {key}").into(),
        });
    }
    Ok(name.into())
}
