//! What was configured: a checked flat map with typed access.

use std::collections::BTreeMap;
use std::fmt;

use crate::config_def::{ConfigDef, ConfigProblem, ConfigType};

/// The canonical form of every configuration: Kafka Connect's flat map from key to text.
pub type ConfigMap = BTreeMap<String, String>;

/// A secret. It prints as `[hidden]` everywhere (invariant 8); [`Secret::reveal`] is the one way to the text.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: only to hand it to the system that asks for it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// A configuration that has passed its [`ConfigDef`]: every key has a value of its type, its default, or none.
#[derive(Clone)]
pub struct Config {
    def: ConfigDef,
    map: ConfigMap,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.map.iter().map(|(name, value)| {
                let secret = self
                    .def
                    .find(name)
                    .is_none_or(|key| key.ty == ConfigType::Password);
                (name, if secret { "[hidden]" } else { value.as_str() })
            }))
            .finish()
    }
}

impl Config {
    /// Checks `map` against `def`; all faults at once.
    pub fn new(def: ConfigDef, map: ConfigMap) -> Result<Self, Vec<ConfigProblem>> {
        let problems = def.check(&map);
        if problems.is_empty() {
            Ok(Self { def, map })
        } else {
            Err(problems)
        }
    }

    /// The text of `name`, or of its default; trimmed but for passwords.
    pub fn get(&self, name: &str) -> Option<&str> {
        let Some(key) = self.def.find(name) else {
            return self.map.get(name).map(String::as_str);
        };
        let value = ConfigDef::lookup(key, &self.map)?;
        Some(if key.ty == ConfigType::Password {
            value
        } else {
            value.trim()
        })
    }

    /// The text of `name`; empty where it has none.
    pub fn str(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// The boolean `name`; false where it has none.
    pub fn bool(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The integer `name`; 0 where it has none.
    pub fn i64(&self, name: &str) -> i64 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// The integer `name` as a size or count; 0 where it has none or a negative one.
    pub fn usize(&self, name: &str) -> usize {
        usize::try_from(self.i64(name)).unwrap_or(0)
    }

    /// The duration `name`, given in milliseconds.
    pub fn millis(&self, name: &str) -> std::time::Duration {
        std::time::Duration::from_millis(u64::try_from(self.i64(name)).unwrap_or(0))
    }

    /// The items of the list `name`, trimmed, the empty ones left out.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.str(name)
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .collect()
    }

    /// The secret `name`.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.get(name).map(Secret::new)
    }

    /// The whole map as it was given.
    pub fn map(&self) -> &ConfigMap {
        &self.map
    }
}
