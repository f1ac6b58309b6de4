//! The keys `topic.creation.*` of a source: read, and every fault of them at once.

use std::collections::BTreeMap;

use regex::Regex;
use tidewater_plugin_api::ConfigMap;

use super::nearest::suggestion;
use super::problem::Severity;
use crate::topic_rules::{NewTopic, TopicGroup, TopicRules};

/// What all these keys begin with.
pub const PREFIX: &str = "topic.creation.";
const GROUPS: &str = "topic.creation.groups";
const DEFAULT: &str = "default";
const MAX_PARTITIONS: i64 = 10_000;

/// Kafka's settings of topics that say nothing to a log that keeps one copy, by itself.
const WITHOUT_EFFECT: [&str; 16] = [
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "message.downconversion.enable",
    "message.format.version",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.storage.enable",
    "segment.index.bytes",
    "unclean.leader.election.enable",
];

/// Something to say about a key.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The key.
    pub key: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// The rules that `values` hold, and what is wrong with them.
pub fn read(values: &ConfigMap) -> (TopicRules, Vec<Finding>) {
    let mut reader = Reader {
        values,
        findings: Vec::new(),
    };
    let names = reader.group_names();
    reader.strays(&names);
    let default = reader.topic(DEFAULT, 1);
    let groups = names
        .iter()
        .filter_map(|name| {
            let include = reader.patterns(name, "include");
            let exclude = reader.patterns(name, "exclude");
            let topic = reader.topic(name, default.partitions);
            if !values.contains_key(&format!("{PREFIX}{name}.include")) {
                let message = format!("lists {name}, which includes no topic; give {PREFIX}{name}.include");
                reader.error(GROUPS, message);
            }
            Some(TopicGroup {
                include: include?,
                exclude: exclude?,
                topic,
            })
        })
        .collect();
    let rules = TopicRules {
        enabled: true,
        groups,
        default,
    };
    (rules, reader.findings)
}

struct Reader<'a> {
    values: &'a ConfigMap,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn add(&mut self, severity: Severity, key: impl Into<String>, message: impl Into<String>) {
        self.findings.push(Finding {
            severity,
            key: key.into(),
            message: message.into(),
        });
    }

    fn error(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Error, key, message);
    }

    /// The groups in their order; `default` is always there and need not be listed.
    fn group_names(&mut self) -> Vec<String> {
        let list = self.values.get(GROUPS).map_or("", String::as_str);
        let mut names: Vec<String> = Vec::new();
        let given = list.split(',').map(str::trim);
        for name in given.filter(|name| !name.is_empty() && *name != DEFAULT) {
            if names.iter().any(|known| known == name) {
                self.error(GROUPS, format!("lists {name} twice"));
            } else {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// Says which keys belong to no group.
    fn strays(&mut self, names: &[String]) {
        let strays: Vec<&String> = self
            .values
            .keys()
            .filter(|key| *key != GROUPS)
            .filter(|key| {
                key.strip_prefix(PREFIX).is_some_and(|rest| {
                    !names
                        .iter()
                        .map(String::as_str)
                        .chain([DEFAULT])
                        .any(|name| setting_of(rest, name).is_some())
                })
            })
            .collect();
        for key in strays {
            let group = key[PREFIX.len()..].split('.').next().unwrap_or_default();
            let known = names.iter().map(String::as_str).chain([DEFAULT]);
            let near = suggestion(group, known);
            self.error(
                key,
                format!("is of the group {group:?}, which {GROUPS} does not list{near}"),
            );
        }
    }

    fn patterns(&mut self, group: &str, which: &str) -> Option<Vec<Regex>> {
        let key = format!("{PREFIX}{group}.{which}");
        let list = self.values.get(&key).map_or("", String::as_str);
        let mut patterns = Some(Vec::new());
        for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            match (Regex::new(&format!("^(?:{text})$")), &mut patterns) {
                (Ok(pattern), Some(patterns)) => patterns.push(pattern),
                (Ok(_), None) => {}
                (Err(error), _) => {
                    let error = error.to_string();
                    let why = error.lines().last().unwrap_or_default();
                    let why = why.trim_start_matches("error: ");
                    self.error(
                        &key,
                        format!("holds {text:?}, which is no regular expression: {why}"),
                    );
                    patterns = None;
                }
            }
        }
        patterns
    }

    /// What topics of a group are created with.
    fn topic(&mut self, group: &str, partitions: u32) -> NewTopic {
        let mut topic = NewTopic {
            partitions,
            settings: BTreeMap::new(),
        };
        for (key, value) in self.values {
            let Some(name) = key.strip_prefix(PREFIX).and_then(|rest| setting_of(rest, group)) else {
                continue;
            };
            let value = value.trim();
            match name {
                "partitions" => match value.parse::<i64>() {
                    Ok(-1) => {}
                    Ok(count) if (1..=MAX_PARTITIONS).contains(&count) => topic.partitions = count as u32,
                    _ => self.error(
                        key,
                        format!("must be a number from 1 to {MAX_PARTITIONS}, or -1 for the default"),
                    ),
                },
                "replication.factor" => match value.parse::<i64>() {
                    Ok(-1 | 1) => {}
                    Ok(2..=32767) => self.add(
                        Severity::Warning,
                        key,
                        "has no effect: the embedded log keeps one copy",
                    ),
                    _ => self.error(key, "must be a number of copies from 1 on, or -1 for the default"),
                },
                "include" | "exclude" if group == DEFAULT => {
                    self.error(
                        key,
                        "is not for the default group, which takes what no other group takes",
                    );
                }
                "include" | "exclude" => {}
                _ if WITHOUT_EFFECT.contains(&name) => {
                    self.add(
                        Severity::Warning,
                        key,
                        "has no effect: the embedded log keeps one copy, and has its own ways on disk",
                    );
                }
                _ => match tidewater_broker::check_topic_setting(name, value) {
                    Ok(()) => {
                        topic.settings.insert(name.to_owned(), value.to_owned());
                    }
                    Err(tidewater_broker::Error::InvalidOption { allowed, .. }) => {
                        self.error(key, format!("must be {allowed}"));
                    }
                    Err(tidewater_broker::Error::UnknownSetting { near, .. }) => {
                        self.error(
                            key,
                            format!("{name} is no setting of a topic; near it are {near}"),
                        );
                    }
                    Err(other) => self.error(key, other.to_string()),
                },
            }
        }
        topic
    }
}

/// What comes after `group.` in the rest of a key.
fn setting_of<'k>(rest: &'k str, group: &str) -> Option<&'k str> {
    rest.strip_prefix(group)?.strip_prefix('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(entries: &[(&str, &str)]) -> ConfigMap {
        let owned = entries
            .iter()
            .map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned()));
        owned.collect()
    }

    #[test]
    fn groups_have_their_own_settings_and_the_defaults_partitions() {
        let (rules, findings) = read(&map(&[
            ("groups", "compacted, wide"),
            ("default.partitions", "3"),
            ("default.replication.factor", "-1"),
            ("default.retention.ms", "1000"),
            ("compacted.include", "users, .*\\.state"),
            ("compacted.exclude", "old\\..*"),
            ("compacted.cleanup.policy", "compact"),
            ("wide.include", ".*\\.events"),
            ("wide.partitions", "12"),
        ]));
        assert_eq!(findings, []);
        let of = |topic: &str| {
            let new = rules.of(topic).expect("enabled");
            let settings: Vec<_> = new
                .settings
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            (new.partitions, settings.join(","))
        };
        assert_eq!(of("users"), (3, "cleanup.policy=compact".into()));
        assert_eq!(of("a.state"), (3, "cleanup.policy=compact".into()));
        assert_eq!(of("old.state"), (3, "retention.ms=1000".into()));
        assert_eq!(of("users2"), (3, "retention.ms=1000".into()));
        assert_eq!(of("a.events"), (12, String::new()));
    }

    #[test]
    fn without_any_key_a_topic_has_one_partition() {
        let (rules, findings) = read(&ConfigMap::new());
        assert_eq!(findings, []);
        assert_eq!(
            rules.of("t"),
            Some(&NewTopic {
                partitions: 1,
                settings: BTreeMap::new()
            })
        );
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let table = [
            ("groups", "a,b,a,default", Severity::Error, "lists a twice"),
            (
                "groups",
                "a,b,a,default",
                Severity::Error,
                "lists b, which includes no topic",
            ),
            (
                "a.include",
                "x(",
                Severity::Error,
                "holds \"x(\", which is no regular expression: unclosed group",
            ),
            (
                "a.partitions",
                "0",
                Severity::Error,
                "must be a number from 1 to 10000",
            ),
            ("a.replication.factor", "3", Severity::Warning, "keeps one copy"),
            ("b.exclude", "ok", Severity::Error, ""),
            (
                "b.retention.mss",
                "1",
                Severity::Error,
                "retention.mss is no setting of a topic; near it are retention.ms,",
            ),
            (
                "b.segment.bytes",
                "0",
                Severity::Error,
                "must be a number of bytes from 1",
            ),
            ("b.min.insync.replicas", "2", Severity::Warning, "has no effect"),
            (
                "default.include",
                ".*",
                Severity::Error,
                "takes what no other group takes",
            ),
            (
                "defualt.partitions",
                "1",
                Severity::Error,
                "which topic.creation.groups does not list; did you mean default?",
            ),
        ];
        let entries: Vec<_> = table.iter().map(|(key, value, ..)| (*key, *value)).collect();
        let (_, findings) = read(&map(&entries));
        for (key, value, severity, said) in table.iter().filter(|(.., said)| !said.is_empty()) {
            let found = findings.iter().any(|finding| {
                finding.key == format!("{PREFIX}{key}")
                    && finding.severity == *severity
                    && finding.message.contains(said)
            });
            assert!(found, "{key}={value}: {said:?} in {findings:#?}");
        }
        assert_eq!(findings.len(), table.len() - 1, "{findings:#?}");
    }
}
