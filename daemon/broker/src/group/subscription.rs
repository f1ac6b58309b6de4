//! What a member of a group wants to read: topics by name, or all whose names match a pattern.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::Regex;

use crate::error::{Error, Result};
use crate::topic::GROUP_OFFSETS_TOPIC;

/// The topics there are, and how many partitions each has.
pub(crate) type TopicCounts = BTreeMap<Arc<str>, u32>;

#[derive(Debug, Clone)]
pub(crate) enum Subscription {
    /// These, whether they exist or not.
    Topics(BTreeSet<Arc<str>>),
    /// Those whose whole names match, without the broker's own (Kafka's `exclude.internal.topics`).
    Pattern {
        /// As it was given.
        text: Arc<str>,
        whole: Regex,
    },
}

impl Subscription {
    pub(crate) fn pattern(text: &str) -> Result<Self> {
        // Parsed as it is first, so that what is around it cannot make it valid.
        let whole = Regex::new(text).and_then(|_| Regex::new(&format!("^(?:{text})$")));
        let whole = whole.map_err(|_| Error::InvalidOption {
            name: "subscription pattern",
            value: text.to_owned(),
            allowed: "a regular expression of the crate regex, for the whole name of a topic",
        })?;
        Ok(Self::Pattern {
            text: text.into(),
            whole,
        })
    }

    /// The topics it means, given those that exist.
    pub(crate) fn topics(&self, there: &TopicCounts) -> BTreeSet<Arc<str>> {
        match self {
            Self::Topics(topics) => topics.clone(),
            Self::Pattern { whole, .. } => {
                let matches = |topic: &&Arc<str>| ***topic != *GROUP_OFFSETS_TOPIC && whole.is_match(topic);
                there.keys().filter(matches).cloned().collect()
            }
        }
    }

    pub(crate) fn as_pattern(&self) -> Option<&str> {
        match self {
            Self::Topics(_) => None,
            Self::Pattern { text, .. } => Some(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_for_whole_names_and_leaves_out_internal_topics() {
        let there = [
            "shop.orders",
            "shop.orders2",
            "my-shop.orders",
            GROUP_OFFSETS_TOPIC,
        ]
        .map(|topic| (Arc::from(topic), 1))
        .into();
        for (pattern, expected) in [
            ("shop[.].*", vec!["shop.orders", "shop.orders2"]),
            ("shop.orders|my.*", vec!["my-shop.orders", "shop.orders"]),
            ("", vec![]),
            (".*", vec!["my-shop.orders", "shop.orders", "shop.orders2"]),
        ] {
            let topics = Subscription::pattern(pattern).unwrap().topics(&there);
            let topics: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
            assert_eq!(topics, expected, "{pattern}");
        }
        for wrong in ["(", "a)|(b"] {
            let refused = Subscription::pattern(wrong);
            assert!(matches!(refused, Err(Error::InvalidOption { .. })), "{wrong}");
        }
    }
}
