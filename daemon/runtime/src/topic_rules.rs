//! What the topics that a source names are created with, where they are not there: Kafka Connect's `topic.creation.*`.

use std::collections::BTreeMap;

use regex::Regex;

/// What a topic that is not there yet is created with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// The number of partitions.
    pub partitions: u32,
    /// Settings under Kafka's names.
    pub settings: BTreeMap<String, String>,
}

/// A group of topics that are created alike.
#[derive(Clone, Debug)]
pub struct TopicGroup {
    /// Patterns of whole names of topics that belong to it.
    pub include: Vec<Regex>,
    /// Patterns of those that do not, though they are included.
    pub exclude: Vec<Regex>,
    /// What its topics are created with.
    pub topic: NewTopic,
}

/// The rules of a connector.
#[derive(Clone, Debug)]
pub struct TopicRules {
    /// Whether the worker lets connectors create topics: `topic.creation.enable`.
    pub enabled: bool,
    /// The groups, the first that a topic belongs to counts.
    pub groups: Vec<TopicGroup>,
    /// For topics that belong to no group.
    pub default: NewTopic,
}

impl TopicRules {
    /// Creates every topic with so many partitions.
    pub fn partitions(partitions: u32) -> Self {
        Self {
            enabled: true,
            groups: Vec::new(),
            default: NewTopic {
                partitions,
                settings: BTreeMap::new(),
            },
        }
    }

    /// What the topic called `name` is created with; none where it may not be created.
    pub fn of(&self, name: &str) -> Option<&NewTopic> {
        let matches = |patterns: &[Regex]| patterns.iter().any(|pattern| pattern.is_match(name));
        let group = self
            .groups
            .iter()
            .find(|group| matches(&group.include) && !matches(&group.exclude));
        self.enabled
            .then(|| group.map_or(&self.default, |group| &group.topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_group_a_topic_belongs_to_counts() {
        let patterns = |texts: &[&str]| -> Vec<Regex> {
            let whole = texts
                .iter()
                .map(|text| Regex::new(&format!("^(?:{text})$")).unwrap());
            whole.collect()
        };
        let group = |include: &[&str], exclude: &[&str], partitions| TopicGroup {
            include: patterns(include),
            exclude: patterns(exclude),
            topic: NewTopic {
                partitions,
                settings: BTreeMap::new(),
            },
        };
        let mut rules = TopicRules {
            groups: vec![group(&["a.*", "b"], &["ab", "x"], 2), group(&["ab.*"], &[], 3)],
            ..TopicRules::partitions(1)
        };
        for (topic, partitions) in [("a", 2), ("abc", 2), ("ab", 3), ("b", 2), ("bb", 1), ("c", 1)] {
            assert_eq!(
                rules.of(topic).map(|new| new.partitions),
                Some(partitions),
                "{topic}"
            );
        }
        rules.enabled = false;
        assert_eq!(rules.of("a"), None);
    }
}
