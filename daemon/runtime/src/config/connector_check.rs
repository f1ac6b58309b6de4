//! The check of a whole connector file: every fault at once.

use std::time::Duration;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, ConfigMap, ConfigProblem, ConnectorKind, ConnectorSpec};
use tidewater_transforms::{Chain, chain};

use super::connector_config::{ConnectorConfig, ConverterConfig, spelling};
use super::connector_file::ConnectorFile;
use super::connector_keys::{self, Absent};
use super::error_settings::ErrorSettings;
use super::nearest::{nearest, suggestion};
use super::overrides;
use super::problem::{Problem, Severity};
use super::provider::{Providers, Resolved};
use super::redactor::Redactor;
use super::topic_creation;
use super::worker_config::WorkerConfig;
use crate::broker::is_internal;
use crate::dead_letters::DeadLetterTopic;
use crate::partitioner::{Partitioning, RecordField};
use crate::record_encoder::{BATCH_BYTES, EncoderOptions};
use crate::restart_policy::{RestartMode, RestartPolicy};
use crate::sink_task::Topics;
use crate::start_offset::OffsetReset;
use crate::topic_rules::TopicRules;

/// What the check of a file gives.
#[derive(Debug)]
pub struct Checked {
    /// The class by its short name, and which way it moves records; none where there is no such class.
    pub class: Option<(String, ConnectorKind)>,
    /// The connector; none where a problem is an error.
    pub config: Option<ConnectorConfig>,
    /// Everything found, in the order of the file.
    pub problems: Vec<Problem>,
}

/// Checks connector files.
#[derive(Debug)]
pub struct Checker<'a> {
    /// The installed classes.
    pub classes: &'a [ConnectorSpec],
    /// Where the defaults of converters come from.
    pub worker: &'a WorkerConfig,
    /// Where references lead.
    pub providers: &'a Providers,
}

impl Checker<'_> {
    /// Every fault of `file` at once; the connector where there is none.
    pub fn check(&self, file: &ConnectorFile) -> Checked {
        let resolved = self.providers.resolve(&file.config);
        let mut check = Check {
            file,
            spec: None,
            resolved,
            problems: file.notes.clone(),
        };
        check.references();
        check.spec = check.class(self.classes);
        let topics = if let Some(spec) = check.spec {
            check.keys(spec)
        } else {
            check.common_keys();
            None
        };
        check
            .problems
            .sort_by_key(|problem| (problem.line.is_none(), problem.line));
        let config = match (check.spec, topics) {
            (Some(spec), Some(topics)) if !check.problems.iter().any(Problem::is_error) => {
                Some(self.typed(spec, topics, &check))
            }
            _ => None,
        };
        Checked {
            class: check.spec.map(|spec| (spec.class.clone(), spec.kind)),
            config,
            problems: check.problems,
        }
    }

    /// How long a transaction of a source waits for more.
    fn linger<'a>(&self, text: &impl Fn(&str) -> &'a str) -> Duration {
        let interval = text("transaction.boundary.interval.ms").parse();
        if text("transaction.boundary").eq_ignore_ascii_case("interval") {
            interval.map_or(self.worker.offset_flush_interval, Duration::from_millis)
        } else {
            Duration::from_millis(text("producer.override.linger.ms").parse().unwrap_or(0))
        }
    }

    fn typed(&self, spec: &ConnectorSpec, topics: Topics, check: &Check<'_>) -> ConnectorConfig {
        let values = &check.resolved.values;
        let def = connector_keys::keys(spec.kind);
        let text = |name: &str| {
            def.find(name)
                .and_then(|key| ConfigDef::lookup(key, values))
                .unwrap_or("")
                .trim()
        };
        let number = |name: &str| text(name).parse().unwrap_or(0);
        let (rules, _told_before) = topic_creation::read(values);
        let encoder = EncoderOptions {
            compression: text("producer.override.compression.type")
                .to_ascii_lowercase()
                .parse()
                .unwrap_or_default(),
            batch_bytes: match number("producer.override.batch.size") {
                0 => BATCH_BYTES, // a sink, which has no such key
                bytes => bytes as usize,
            },
            partitioning: partitioning(values).unwrap_or_default(),
            topics: TopicRules {
                enabled: self.worker.topic_creation,
                ..rules
            },
        };
        ConnectorConfig {
            name: check.file.name.clone(),
            class: spec.class.clone(),
            kind: spec.kind,
            tasks_max: number("tasks.max") as u32,
            key_converter: ConverterConfig::of(values, "key.converter", &self.worker.key_converter),
            value_converter: ConverterConfig::of(values, "value.converter", &self.worker.value_converter),
            header_converter: ConverterConfig::of(values, "header.converter", &self.worker.header_converter),
            topics,
            max_poll_records: number("consumer.override.max.poll.records") as usize,
            offset_reset: OffsetReset::named(text("consumer.override.auto.offset.reset")),
            encoder,
            errors: error_settings(values, &text),
            rate_limit_records: text("rate.limit.records").parse().ok(),
            rate_limit_bytes: text("rate.limit.bytes").parse().ok(),
            linger: self.linger(&text),
            retry_delay_max: Duration::from_millis(number("errors.retry.delay.max.ms")),
            restart: RestartPolicy {
                mode: if text("restart.policy").eq_ignore_ascii_case("never") {
                    RestartMode::Never
                } else {
                    RestartMode::OnFailure
                },
                // -1 is none.
                max_attempts: text("restart.max.attempts").parse().ok(),
                window: Duration::from_millis(number("restart.window.ms")),
                first_delay: Duration::from_millis(number("restart.delay.initial.ms")),
                max_delay: Duration::from_millis(match text("restart.delay.max.ms") {
                    "" => number("errors.retry.delay.max.ms"),
                    _ => number("restart.delay.max.ms"),
                }),
            },
            call_timeout: Duration::from_millis(number("task.call.timeout.ms")),
            raw: check.file.config.clone(),
            resolved: values.clone(),
            redactor: check.redactor(),
        }
    }
}

/// `errors.*`, where `text` gives the keys' values.
fn error_settings<'a>(values: &ConfigMap, text: &impl Fn(&str) -> &'a str) -> ErrorSettings {
    let is = |name: &str, value: &str| text(name).eq_ignore_ascii_case(value);
    let retry_timeout: i64 = text("errors.retry.timeout").parse().unwrap_or(-1);
    let topic = values
        .get("errors.deadletterqueue.topic.name")
        .map(|name| name.trim())
        .filter(|name| !name.is_empty());
    ErrorSettings {
        retry_timeout: u64::try_from(retry_timeout).ok().map(Duration::from_millis),
        tolerate: is("errors.tolerance", "all"),
        log: is("errors.log.enable", "true"),
        log_contents: is("errors.log.include.messages", "true"),
        dead_letter_topic: topic.map(|name| DeadLetterTopic {
            name: name.to_owned(),
            context_headers: is("errors.deadletterqueue.context.headers.enable", "true"),
        }),
    }
}

/// The check of one file.
struct Check<'a> {
    file: &'a ConnectorFile,
    spec: Option<&'a ConnectorSpec>,
    resolved: Resolved,
    problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn add(&mut self, severity: Severity, key: &str, message: impl Into<String>) {
        let mut problem = self.file.problem(key, severity, message);
        problem.value = self.shown(key);
        self.problems.push(problem);
    }

    /// The value of `key` as written, where it may be shown: no password, and nothing under a name nobody knows, since that
    /// may be a password with a typing error in its key (invariant 8).
    fn shown(&self, key: &str) -> Option<String> {
        let of_all = || match self.spec {
            Some(spec) => connector_keys::keys(spec.kind),
            None => connector_keys::common(),
        };
        let of_class = self.spec.and_then(|spec| spec.config.find(key));
        let of_chain = chain::definition(&self.resolved.values);
        let value = self.file.config.get(key)?;
        if key.starts_with(topic_creation::PREFIX) {
            return Some(value.clone());
        }
        let def = of_class
            .or_else(|| of_all().find(key))
            .or_else(|| of_chain.find(key))?;
        let secret = def.ty == ConfigType::Password && !is_reference(value);
        Some(if secret { "[hidden]".into() } else { value.clone() })
    }

    fn references(&mut self) {
        for problem in std::mem::take(&mut self.resolved.problems) {
            let place = problem.key.as_deref().and_then(|key| self.file.place(key));
            self.problems.push(problem.in_file(&self.file.path, place));
        }
    }

    fn class(&mut self, classes: &'a [ConnectorSpec]) -> Option<&'a ConnectorSpec> {
        const KEY: &str = "connector.class";
        if self.resolved.unresolved.contains(KEY) {
            return None;
        }
        let installed = || {
            let mut names: Vec<&str> = classes.iter().map(|spec| spec.class.as_str()).collect();
            names.sort_unstable();
            match names.as_slice() {
                [] => "no plugin is loaded; see `tidewater plugins` for where they are looked for".to_owned(),
                names => format!("installed are {}", names.join(", ")),
            }
        };
        let Some(name) = self
            .resolved
            .values
            .get(KEY)
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
        else {
            let problem = format!(
                "is missing; it says which class the connector is of; {}",
                installed()
            );
            self.problems
                .push(self.file.problem(KEY, Severity::Error, problem));
            return None;
        };
        let is_it = |spec: &&ConnectorSpec| spec.class == name || spec.aliases.contains(&name);
        if let Some(spec) = classes.iter().find(is_it) {
            return Some(spec);
        }
        let known = classes
            .iter()
            .flat_map(|spec| std::iter::once(&spec.class).chain(&spec.aliases));
        let near = suggestion(&name, known.map(String::as_str));
        let message = format!("is no class of the loaded plugins{near}; {}", installed());
        let raw = self.file.config.get(KEY).cloned().unwrap_or_default();
        self.problems
            .push(self.file.problem(KEY, Severity::Error, message).showing(raw));
        None
    }

    /// What can be said of a connector whose class is not known.
    fn common_keys(&mut self) {
        const CLASS: &str = "connector.class";
        let common = connector_keys::common();
        for ConfigProblem { key, message, .. } in common.check(&self.resolved.values) {
            // What is wrong with the class is said already.
            if key != CLASS && !self.resolved.unresolved.contains(&key) {
                self.add(Severity::Error, &key, message);
            }
        }
        self.converters();
        self.chain();
        let file = self.file;
        for (name, value) in &file.config {
            let value = self.resolved.values.get(name).unwrap_or(value);
            let of_kind = [ConnectorKind::Source, ConnectorKind::Sink]
                .iter()
                .any(|kind| connector_keys::keys(*kind).find(name).is_some());
            if !of_kind && connector_keys::absent(name, value) == Some(Absent::Refused) {
                self.add(Severity::Error, name, connector_keys::INSTEAD);
            }
        }
    }

    /// Checks all keys against those of `spec` and of every connector.
    fn keys(&mut self, spec: &ConnectorSpec) -> Option<Topics> {
        let framework = connector_keys::keys(spec.kind);
        let def_problems = framework.check(&self.resolved.values);
        let class_problems = spec.config.check(&self.resolved.values);
        for ConfigProblem { key, message, .. } in def_problems.into_iter().chain(class_problems) {
            // What a reference did not give is reported already; it is not missing.
            let def = spec.config.find(&key).or_else(|| framework.find(&key));
            let spelling = def
                .map_or(key.as_str(), |def| spelling(def, &self.file.config))
                .to_owned();
            if !self.resolved.unresolved.contains(&spelling) {
                self.add(Severity::Error, &spelling, message);
            }
        }
        self.spelled_twice(framework);
        self.spelled_twice(&spec.config);
        self.converters();
        self.unknown_keys(spec, framework);
        self.exactly_once(spec);
        self.boundary(spec);
        if spec.kind == ConnectorKind::Source {
            self.topic_creation();
            self.partitioning();
        }
        self.chain();
        let topics = match spec.kind {
            ConnectorKind::Source => Some(Topics::Named(Vec::new())),
            ConnectorKind::Sink => self.topics(),
        };
        self.dead_letters(topics.as_ref());
        topics
    }

    fn spelled_twice(&mut self, def: &ConfigDef) {
        for key in &def.keys {
            let given: Vec<&String> = std::iter::once(&key.name)
                .chain(&key.aliases)
                .filter(|name| self.file.config.contains_key(*name))
                .collect();
            if let [first, second, ..] = given.as_slice() {
                let message = format!("means the same as {first}, which is given too; keep one of them");
                self.add(Severity::Error, second, message);
            }
        }
    }

    fn converters(&mut self) {
        for side in ["key.converter", "value.converter", "header.converter"] {
            let name = self.resolved.values.get(side).cloned();
            if let Some(message) = name.and_then(|name| ConverterConfig::fault(side, &name)) {
                self.add(Severity::Error, side, message);
            }
        }
    }

    fn unknown_keys(&mut self, spec: &ConnectorSpec, framework: &ConfigDef) {
        let mut known: Vec<&str> = Vec::new();
        for key in spec.config.keys.iter().chain(&framework.keys) {
            known.push(&key.name);
            known.extend(key.aliases.iter().map(String::as_str));
        }
        for absent in connector_keys::absent_names() {
            known.push(absent);
        }
        let file = self.file;
        for (name, value) in &file.config {
            let of_class = spec.config.find(name).is_some()
                || spec
                    .config
                    .prefixes
                    .iter()
                    .any(|prefix| name.starts_with(prefix.as_str()));
            let created = spec.kind == ConnectorKind::Source && name.starts_with(topic_creation::PREFIX);
            if of_class || created || framework.find(name).is_some() || chain::owns(name) {
                continue;
            }
            if self.of_the_other_kind(spec, name) {
                continue;
            }
            let value = self.resolved.values.get(name).unwrap_or(value);
            let stand = match overrides::stand(name, value) {
                Some(Err(why)) => {
                    self.add(Severity::Error, name, why);
                    continue;
                }
                Some(Ok(stand)) => Some(stand),
                None => connector_keys::absent(name, value),
            };
            match stand {
                Some(Absent::Harmless) => {}
                Some(Absent::NoEffect(why)) => self.add(Severity::Warning, name, why),
                Some(Absent::Refused) => self.add(Severity::Error, name, connector_keys::INSTEAD),
                None => {
                    let (severity, message) = match nearest(name, known.iter().copied()) {
                        Some(near) if near.typo => (
                            Severity::Error,
                            format!("is no key of {}; did you mean {}?", spec.class, near.name),
                        ),
                        Some(near) => (
                            Severity::Warning,
                            format!(
                                "is no key of {} and has no effect; did you mean {}?",
                                spec.class, near.name
                            ),
                        ),
                        None => (
                            Severity::Warning,
                            format!("is no key of {} and has no effect", spec.class),
                        ),
                    };
                    self.add(severity, name, message);
                }
            }
        }
    }

    /// Whether `name` belongs to connectors of the other direction, which is said.
    fn of_the_other_kind(&mut self, spec: &ConnectorSpec, name: &str) -> bool {
        let (this, other, other_kind) = match spec.kind {
            ConnectorKind::Source => ("source", "sinks", ConnectorKind::Sink),
            ConnectorKind::Sink => ("sink", "sources", ConnectorKind::Source),
        };
        let of_family = other_kind == ConnectorKind::Source && name.starts_with(topic_creation::PREFIX);
        if !of_family && connector_keys::keys(other_kind).find(name).is_none() {
            return false;
        }
        self.add(
            Severity::Error,
            name,
            format!("is for {other}, and {} is a {this}; remove it", spec.class),
        );
        true
    }

    /// The transforms and predicates.
    fn chain(&mut self) {
        let Err(problems) = Chain::new(&self.resolved.values) else {
            return;
        };
        for ConfigProblem { key, message, .. } in problems {
            if !self.resolved.unresolved.contains(&key) {
                self.add(Severity::Error, &key, message);
            }
        }
    }

    /// The topic for dead letters, which must be none that a sink reads.
    fn dead_letters(&mut self, topics: Option<&Topics>) {
        const KEY: &str = "errors.deadletterqueue.topic.name";
        let given = |key: &str| self.resolved.values.get(key).map(|text| text.trim());
        let Some(name) = given(KEY).filter(|name| !name.is_empty()).map(str::to_owned) else {
            return;
        };
        let tolerant = given("errors.tolerance").is_some_and(|text| text.eq_ignore_ascii_case("all"));
        let read = match topics {
            Some(Topics::Named(names)) => names.contains(&name),
            Some(Topics::Matching(pattern)) => pattern.is_match(&name),
            None => false,
        };
        if !is_topic_name(&name) {
            let message = "no topic can have this name; names are 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-'";
            self.add(Severity::Error, KEY, message);
        } else if is_internal(&name) {
            self.add(
                Severity::Error,
                KEY,
                "the topic keeps the worker's own state; give dead letters another one",
            );
        } else if read {
            let message = "is one of the topics this connector reads, which would then never end; give dead letters another one";
            self.add(Severity::Error, KEY, message);
        } else if !tolerant {
            self.add(
                Severity::Warning,
                KEY,
                "has no effect without errors.tolerance=all: a record that fails ends the task",
            );
        }
    }

    fn exactly_once(&mut self, spec: &ConnectorSpec) {
        const KEY: &str = "exactly.once.support";
        let required = self
            .resolved
            .values
            .get(KEY)
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("required"));
        if required && spec.kind == ConnectorKind::Source && !spec.exactly_once {
            let message = format!(
                "cannot be met: {} does not keep its positions exactly",
                spec.class
            );
            self.add(Severity::Error, KEY, message);
        }
    }

    /// No class says in its own frames where its transactions end.
    fn boundary(&mut self, spec: &ConnectorSpec) {
        const KEY: &str = "transaction.boundary";
        let own = self
            .resolved
            .values
            .get(KEY)
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("connector"));
        if own && spec.kind == ConnectorKind::Source {
            let message = format!(
                "cannot be met: {} defines no boundaries of its own; set poll or interval",
                spec.class
            );
            self.add(Severity::Error, KEY, message);
        }
    }

    /// The rules by which topics are created.
    fn topic_creation(&mut self) {
        let (_, findings) = topic_creation::read(&self.resolved.values);
        for finding in findings {
            let told = self
                .problems
                .iter()
                .any(|problem| problem.is_error() && problem.key.as_deref() == Some(finding.key.as_str()));
            // What a reference did not give, and what is no number, is reported already.
            if !self.resolved.unresolved.contains(&finding.key) && !told {
                self.add(finding.severity, &finding.key, finding.message);
            }
        }
    }

    fn partitioning(&mut self) {
        if self.resolved.unresolved.contains(FIELDS) {
            return;
        }
        if let Err(fault) = partitioning(&self.resolved.values) {
            self.add(Severity::Error, FIELDS, fault);
        }
    }

    /// The topics of a sink; none where they are at fault.
    fn topics(&mut self) -> Option<Topics> {
        let given = |key: &str| {
            self.resolved
                .values
                .get(key)
                .map(|text| text.trim().to_owned())
                .filter(|t| !t.is_empty())
        };
        if ["topics", "topics.regex"]
            .iter()
            .any(|key| self.resolved.unresolved.contains(*key))
        {
            return None;
        }
        match (given("topics"), given("topics.regex")) {
            (Some(_), Some(_)) => {
                self.add(
                    Severity::Error,
                    "topics.regex",
                    "is given beside topics; keep one of the two",
                );
                None
            }
            (None, None) => {
                let message =
                    "is missing; a sink needs the topics to read, as a list here or as topics.regex";
                self.add(Severity::Error, "topics", message);
                None
            }
            (Some(list), None) => {
                let mut names: Vec<String> = Vec::new();
                for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    if !is_topic_name(name) {
                        let message = "holds a name no topic can have; names are 1 to 249 characters of a-z, A-Z, 0-9, \
                                       '.', '_' and '-'; for a pattern use topics.regex";
                        self.add(Severity::Error, "topics", message);
                    } else if !names.iter().any(|known| known == name) {
                        names.push(name.to_owned());
                    }
                }
                Some(Topics::Named(names))
            }
            (None, Some(pattern)) => match regex::Regex::new(&format!("^(?:{pattern})$")) {
                Ok(regex) => Some(Topics::Matching(regex)),
                Err(error) => {
                    let message = format!("is no regular expression: {}", last_line(&error.to_string()));
                    self.add(Severity::Error, "topics.regex", message);
                    None
                }
            },
        }
    }

    fn redactor(&self) -> Redactor {
        let mut redactor = self.resolved.redactor.clone();
        for key in self
            .spec
            .iter()
            .flat_map(|spec| &spec.config.keys)
            .filter(|key| key.ty == ConfigType::Password)
        {
            if let Some(secret) = ConfigDef::lookup(key, &self.resolved.values) {
                redactor.hide(secret, "[hidden]");
            }
        }
        redactor
    }
}

const FIELDS: &str = "partitioner.fields";

/// How partitions are picked; the error is of `partitioner.fields`.
fn partitioning(values: &ConfigMap) -> Result<Partitioning, String> {
    let given = |key: &str| {
        values
            .get(key)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    };
    let class = given("producer.override.partitioner.class");
    let named = class.and_then(Partitioning::named).unwrap_or_default();
    let ignore_keys = given("producer.override.partitioner.ignore.keys")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let Some(fields) = given(FIELDS) else {
        return Ok(match named {
            Partitioning::Key if ignore_keys => Partitioning::Sticky,
            named => named,
        });
    };
    if named != Partitioning::Key || ignore_keys {
        return Err(
            "is given beside producer.override.partitioner.*, which decides otherwise; keep one of the two"
                .into(),
        );
    }
    let fields = fields.split(',').map(str::trim).filter(|field| !field.is_empty());
    Ok(Partitioning::Fields(
        fields.map(RecordField::parse).collect::<Result<_, _>>()?,
    ))
}

/// Whether `value` as written is a reference and nothing else, so that showing it tells no secret.
fn is_reference(value: &str) -> bool {
    value.starts_with("${") && value.find('}') == Some(value.len() - 1)
}

/// Kafka's rule for names of topics.
pub(crate) fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// The last line of a message that draws a picture: the one that says what is wrong.
fn last_line(message: &str) -> &str {
    message
        .lines()
        .last()
        .unwrap_or(message)
        .trim_start_matches("error: ")
}

#[cfg(test)]
mod tests;
