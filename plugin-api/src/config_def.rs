//! What can be configured. A [`ConfigDef`] is the one table from which validation, defaults, help, REST answers and
//! generated documentation come.

use serde::{Deserialize, Serialize};

use crate::config::ConfigMap;

/// The type of a configuration value; Kafka Connect's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum ConfigType {
    Boolean,
    String,
    Int,
    Long,
    Double,
    /// Comma-separated.
    List,
    Class,
    /// Never shown (invariant 8).
    Password,
}

/// How much a key matters to most users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Importance {
    High,
    Medium,
    Low,
}

/// What a value must be besides its type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Validator {
    /// One of these, compared without regard to case.
    OneOf(Vec<String>),
    /// A number between these, both included.
    Range {
        /// The least value allowed.
        min: Option<i64>,
        /// The greatest value allowed.
        max: Option<i64>,
    },
    /// Not empty and not only white space.
    NonEmpty,
    /// A name Postgres takes for a replication slot: `[a-z0-9_]`, at most 63 characters.
    SlotName,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigKey {
    /// The key.
    pub name: String,
    /// Other spellings that mean the same key.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// The type of its value.
    #[serde(rename = "type")]
    pub ty: ConfigType,
    /// Whether there must be a value: there is no default and none can be left out.
    pub required: bool,
    /// The value where none is given.
    pub default: Option<String>,
    /// How much it matters.
    pub importance: Importance,
    /// What it does, with units and an example where that helps.
    pub documentation: String,
    /// The heading it stands under.
    pub group: Option<String>,
    /// What the value must be besides its type.
    pub validator: Option<Validator>,
}

/// A configuration key that is wrong, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigProblem {
    /// The key; empty where the whole configuration is meant.
    pub key: String,
    /// The value as given; `[hidden]` for secrets, none where it is missing.
    pub value: Option<String>,
    /// What is wrong, what is expected, and what to do.
    pub message: String,
}

impl ConfigProblem {
    /// A problem of `key`, whatever its value.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: None,
            message: message.into(),
        }
    }
}

impl std::fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.key.is_empty(), &self.value) {
            (true, _) => write!(f, "{}", self.message),
            (false, None) => write!(f, "{}: {}", self.key, self.message),
            (false, Some(value)) => write!(f, "{} = {value:?}: {}", self.key, self.message),
        }
    }
}

/// The keys of a connector class.
///
/// ```
/// use tidewater_plugin_api::config_def::{ConfigDef, ConfigType, Importance, Validator};
///
/// let def = ConfigDef::new()
///     .required("file", ConfigType::String, Importance::High, "The file to read.")
///     .optional("batch.size", ConfigType::Int, "1000", Importance::Low, "Lines per batch.")
///     .validate(Validator::Range { min: Some(1), max: None });
/// let problems = def.check(&[("batch.size".to_owned(), "0".to_owned())].into());
/// assert_eq!(problems.len(), 2);
/// assert!(problems[0].to_string().contains("file"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigDef {
    /// The keys, in the order people should read them.
    pub keys: Vec<ConfigKey>,
    /// Prefixes under which any key is taken.
    #[serde(default)]
    pub prefixes: Vec<String>,
}

impl ConfigDef {
    /// A definition without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key that must be given.
    #[must_use]
    pub fn required(self, name: &str, ty: ConfigType, importance: Importance, doc: &str) -> Self {
        self.key(name, ty, true, None, importance, doc)
    }

    /// Adds a key with a default.
    #[must_use]
    pub fn optional(
        self,
        name: &str,
        ty: ConfigType,
        default: &str,
        importance: Importance,
        doc: &str,
    ) -> Self {
        self.key(name, ty, false, Some(default.to_owned()), importance, doc)
    }

    /// Adds a key that may be left out and then has no value.
    #[must_use]
    pub fn nullable(self, name: &str, ty: ConfigType, importance: Importance, doc: &str) -> Self {
        self.key(name, ty, false, None, importance, doc)
    }

    fn key(
        mut self,
        name: &str,
        ty: ConfigType,
        required: bool,
        default: Option<String>,
        importance: Importance,
        doc: &str,
    ) -> Self {
        self.keys.push(ConfigKey {
            name: name.to_owned(),
            aliases: Vec::new(),
            ty,
            required,
            default,
            importance,
            documentation: doc.to_owned(),
            group: None,
            validator: None,
        });
        self
    }

    /// Gives the key added last a validator.
    #[must_use]
    pub fn validate(mut self, validator: Validator) -> Self {
        if let Some(key) = self.keys.last_mut() {
            key.validator = Some(validator);
        }
        self
    }

    /// Lets the key added last take only one of `values`.
    #[must_use]
    pub fn one_of(self, values: &[&str]) -> Self {
        self.validate(Validator::OneOf(values.iter().map(|&v| v.to_owned()).collect()))
    }

    /// Gives the key added last another spelling.
    #[must_use]
    pub fn alias(mut self, alias: &str) -> Self {
        if let Some(key) = self.keys.last_mut() {
            key.aliases.push(alias.to_owned());
        }
        self
    }

    /// Puts the key added last under a heading.
    #[must_use]
    pub fn group(mut self, group: &str) -> Self {
        if let Some(key) = self.keys.last_mut() {
            key.group = Some(group.to_owned());
        }
        self
    }

    /// Takes any key that starts with `prefix`.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefixes.push(prefix.to_owned());
        self
    }

    /// The key called `name`, by its name or an alias.
    pub fn find(&self, name: &str) -> Option<&ConfigKey> {
        self.keys
            .iter()
            .find(|key| key.name == name || key.aliases.iter().any(|alias| alias == name))
    }

    /// The value of `key` in `map`, by any of its spellings; the default where none is given.
    pub fn lookup<'a>(key: &'a ConfigKey, map: &'a ConfigMap) -> Option<&'a str> {
        map.get(&key.name)
            .or_else(|| key.aliases.iter().find_map(|alias| map.get(alias)))
            .or(key.default.as_ref())
            .map(String::as_str)
    }

    /// Every fault of `map`'s values against this definition, all at once. Keys that are not defined here are left
    /// to the caller, who knows what else may stand in the map.
    pub fn check(&self, map: &ConfigMap) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        for key in &self.keys {
            match Self::lookup(key, map) {
                None if key.required => problems.push(ConfigProblem::new(
                    &key.name,
                    format!(
                        "is missing; a {} is required: {}",
                        key.ty.noun(),
                        key.documentation
                    ),
                )),
                None => {}
                Some(value) => {
                    if let Err(message) = key.check(value) {
                        let shown = if key.ty == ConfigType::Password {
                            "[hidden]".to_owned()
                        } else {
                            value.to_owned()
                        };
                        problems.push(ConfigProblem {
                            key: key.name.clone(),
                            value: Some(shown),
                            message,
                        });
                    }
                }
            }
        }
        problems
    }
}

impl ConfigType {
    /// What a value of this type is called in a sentence.
    pub fn noun(self) -> &'static str {
        match self {
            ConfigType::Boolean => "boolean",
            ConfigType::String => "string",
            ConfigType::Int => "32-bit integer",
            ConfigType::Long => "64-bit integer",
            ConfigType::Double => "number",
            ConfigType::List => "comma-separated list",
            ConfigType::Class => "class name",
            ConfigType::Password => "password",
        }
    }
}

impl ConfigKey {
    /// Why `value` cannot be this key's value.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let trimmed = value.trim();
        match self.ty {
            ConfigType::Boolean if !["true", "false"].contains(&trimmed.to_ascii_lowercase().as_str()) => {
                return Err("must be true or false".into());
            }
            ConfigType::Int if trimmed.parse::<i32>().is_err() => {
                return Err("must be a 32-bit integer".into());
            }
            ConfigType::Long if trimmed.parse::<i64>().is_err() => {
                return Err("must be a 64-bit integer".into());
            }
            ConfigType::Double if trimmed.parse::<f64>().is_err() => return Err("must be a number".into()),
            _ => {}
        }
        match &self.validator {
            Some(Validator::NonEmpty) if trimmed.is_empty() => Err("must not be empty".into()),
            None | Some(Validator::NonEmpty) => Ok(()),
            Some(Validator::OneOf(allowed)) => one_of(allowed, trimmed),
            Some(Validator::Range { min, max }) => in_range(*min, *max, trimmed),
            Some(Validator::SlotName) => {
                let fits = (1..=63).contains(&trimmed.len())
                    && trimmed
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
                if fits {
                    Ok(())
                } else {
                    Err("must be 1 to 63 characters of a-z, 0-9 and _".into())
                }
            }
        }
    }
}

fn one_of(allowed: &[String], value: &str) -> Result<(), String> {
    if allowed
        .iter()
        .any(|candidate| candidate.eq_ignore_ascii_case(value))
    {
        return Ok(());
    }
    let nearest = allowed
        .iter()
        .map(|candidate| {
            (
                strsim::jaro_winkler(candidate, &value.to_ascii_lowercase()),
                candidate,
            )
        })
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| format!("; did you mean {candidate:?}?"))
        .unwrap_or_default();
    Err(format!("must be one of {}{nearest}", allowed.join(", ")))
}

fn in_range(min: Option<i64>, max: Option<i64>, value: &str) -> Result<(), String> {
    // A value that is no number has been reported by its type already.
    let Ok(number) = value.parse::<i64>() else {
        return Ok(());
    };
    match (min, max) {
        (Some(min), Some(max)) if number < min || number > max => {
            Err(format!("must be between {min} and {max}"))
        }
        (Some(min), None) if number < min => Err(format!("must be {min} or more")),
        (None, Some(max)) if number > max => Err(format!("must be {max} or less")),
        _ => Ok(()),
    }
}
