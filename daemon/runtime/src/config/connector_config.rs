//! A checked connector: what the runtime runs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigKey, ConfigMap, ConfigProblem, ConnectorKind, ConnectorSpec};
use tidewater_transforms::Chain;

use super::connector_file::ConnectorFile;
use super::connector_keys;
use super::error_settings::ErrorSettings;
use super::nearest::suggestion;
use super::problem::{Problem, Severity};
use super::redactor::Redactor;
use crate::converter::{Role, class};
use crate::error::{Error, Result};
use crate::record_encoder::EncoderOptions;
use crate::restart_policy::RestartPolicy;
use crate::sink_task::Topics;
use crate::start_offset::OffsetReset;

/// A connector that can be run.
#[derive(Clone)]
pub struct ConnectorConfig {
    /// Its name.
    pub name: String,
    /// The class by its short name, whatever alias was given.
    pub class: String,
    /// Which way it moves records.
    pub kind: ConnectorKind,
    /// The most tasks to split the work into.
    pub tasks_max: u32,
    /// How keys stand in topics.
    pub key_converter: ConverterConfig,
    /// How values stand in topics.
    pub value_converter: ConverterConfig,
    /// How headers stand in topics.
    pub header_converter: ConverterConfig,
    /// The topics a sink reads; none for a source.
    pub topics: Topics,
    /// Sinks: the most records handed to the plugin at once.
    pub max_poll_records: usize,
    /// Sinks: where to begin without an offset.
    pub offset_reset: OffsetReset,
    /// Sources: how records are gathered, where they go, and what their topics are created with.
    pub encoder: EncoderOptions,
    /// What is done about what fails.
    pub errors: ErrorSettings,
    /// The most records a second, over all tasks.
    pub rate_limit_records: Option<u64>,
    /// The most bytes a second, over all tasks.
    pub rate_limit_bytes: Option<u64>,
    /// Sources: how long a transaction waits for more records, unless it is full.
    pub linger: Duration,
    /// The longest pause before a retry.
    pub retry_delay_max: Duration,
    /// When what failed is started again.
    pub restart: RestartPolicy,
    /// How long one call of the plugin may take.
    pub call_timeout: Duration,
    /// The keys as written, references to secrets unresolved: what may be shown and kept, unless
    /// somebody wrote a secret out.
    pub raw: ConfigMap,
    /// The keys with references resolved: for the plugin alone.
    pub resolved: ConfigMap,
    /// Takes the connector's secrets out of any text.
    pub redactor: Redactor,
}

impl fmt::Debug for ConnectorConfig {
    /// Without the keys: they may hold secrets (invariant 8).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectorConfig")
            .field("name", &self.name)
            .field("class", &self.class)
            .field("tasks_max", &self.tasks_max)
            .finish_non_exhaustive()
    }
}

/// A converter and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConverterConfig {
    /// The converter's short name.
    pub class: String,
    /// Its keys, without the prefix (`schemas.enable`).
    pub settings: BTreeMap<String, String>,
}

impl ConverterConfig {
    /// The converter `side` (`key.converter`, `value.converter`, `header.converter`) of `map`. Where `map` names none, `default` is taken with
    /// the settings of `map` on top: Kafka Connect would not look at these without a class beside them.
    pub fn of(map: &ConfigMap, side: &str, default: &Self) -> Self {
        let named = map
            .get(side)
            .and_then(|name| class::class(name.trim(), Role::of(side)));
        let mut chosen = match named {
            Some(class) => Self {
                class: class.to_owned(),
                settings: BTreeMap::new(),
            },
            None => default.clone(),
        };
        for key in &connector_keys::converter_keys().keys {
            if let Some(value) = map.get(&format!("{side}.{}", key.name)) {
                chosen.settings.insert(key.name.clone(), value.trim().to_owned());
            }
        }
        chosen
    }

    /// Why `name` is no converter for `side`; none where it is one.
    pub fn fault(side: &str, name: &str) -> Option<String> {
        let role = Role::of(side);
        if class::class(name.trim(), role).is_some() {
            return None;
        }
        let known: Vec<&str> = class::classes(role).collect();
        let near = suggestion(name, known.iter().copied());
        Some(format!(
            "must be a converter of this version: {}{near}",
            known.join(", ")
        ))
    }
}

impl ConnectorConfig {
    /// A chain of its transforms, for one task.
    pub fn chain(&self) -> Result<Chain> {
        Chain::new(&self.resolved).map_err(|problems| {
            let told = problems
                .iter()
                .map(|problem| self.redactor.redact(&problem.to_string()));
            Error::State(told.collect::<Vec<_>>().join("; "))
        })
    }

    /// What a plugin found wrong with this configuration, as problems of `file`, without secrets (invariant 8).
    pub fn problems(
        &self,
        spec: &ConnectorSpec,
        file: &ConnectorFile,
        found: &[ConfigProblem],
    ) -> Vec<Problem> {
        let place = |found: &ConfigProblem| {
            let message = self.redactor.redact(&found.message);
            if found.key.is_empty() {
                return Problem::error(message).in_file(&file.path, None);
            }
            let def = spec
                .config
                .find(&found.key)
                .or_else(|| connector_keys::keys(spec.kind).find(&found.key));
            let key = def.map_or(found.key.as_str(), |def| spelling(def, &file.config));
            let secret = def.is_none_or(|def| def.ty == ConfigType::Password);
            let mut problem = file.problem(key, Severity::Error, message);
            problem.value = file.config.get(key).filter(|_| !secret).cloned();
            problem
        };
        found.iter().map(place).collect()
    }
}

/// The spelling of `key` that `map` uses.
pub(super) fn spelling<'a>(key: &'a ConfigKey, map: &ConfigMap) -> &'a str {
    std::iter::once(&key.name)
        .chain(&key.aliases)
        .find(|name| map.contains_key(*name))
        .unwrap_or(&key.name)
}
