//! One transform's or predicate's configuration while it is built: typed access, and all faults of it at once.

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{Config, ConfigDef, ConfigProblem, Importance};

use crate::path::{FieldPath, PathTree, Syntax};

const SYNTAX: &str = "field.syntax.version";
const REPLACE_NULL: &str = "replace.null.with.default";

/// Adds the key that lets paths be nested to the definition of a transform that names fields.
pub(crate) fn with_paths(def: ConfigDef) -> ConfigDef {
    def.optional(
        SYNTAX,
        ConfigType::String,
        "V1",
        Importance::Medium,
        "How fields are named: V1 takes a name as it is, dots included; with V2 dots lead into nested structs and maps, and \
         backticks keep the dots of a name together: a.`b.c`.d.",
    )
    .one_of(&["V1", "V2"])
}

/// Adds the key that says what a null in a field with a default counts as.
pub(crate) fn with_defaults(def: ConfigDef) -> ConfigDef {
    def.optional(
        REPLACE_NULL,
        ConfigType::Boolean,
        "true",
        Importance::Medium,
        "Whether a field that is null and has a default takes the default; else it stays null.",
    )
}

/// A checked configuration, and what is found wrong beyond the check.
pub(crate) struct Settings {
    config: Config,
    /// What is wrong.
    pub problems: Vec<ConfigProblem>,
}

impl Settings {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            problems: Vec::new(),
        }
    }

    /// Notes that the value of `key` is wrong.
    pub(crate) fn problem(&mut self, key: &str, message: impl Into<String>) {
        let value = self.config.get(key).map(ToOwned::to_owned);
        self.problems.push(ConfigProblem {
            key: key.to_owned(),
            value,
            message: message.into(),
        });
    }

    /// The text of `key`, trimmed; empty where it has none.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.config.str(key)
    }

    /// The text of `key`; none where it is empty or not given.
    pub(crate) fn given(&self, key: &str) -> Option<&str> {
        self.config.get(key).filter(|text| !text.is_empty())
    }

    /// The text of `key` with its white space; the default where it is not given.
    pub(crate) fn untrimmed(&self, key: &str) -> Option<&str> {
        self.config
            .map()
            .get(key)
            .map(String::as_str)
            .or_else(|| self.config.get(key))
    }

    pub(crate) fn bool(&self, key: &str) -> bool {
        self.config.bool(key)
    }

    /// Whether a null in a field with a default counts as the default.
    pub(crate) fn replaces_null(&self) -> bool {
        self.config.bool(REPLACE_NULL)
    }

    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        self.config.list(key).into_iter().map(ToOwned::to_owned).collect()
    }

    /// How the paths of this configuration are written.
    pub(crate) fn syntax(&self) -> Syntax {
        if self.text(SYNTAX).eq_ignore_ascii_case("V2") {
            Syntax::V2
        } else {
            Syntax::V1
        }
    }

    /// The path that `text`, found under `key`, stands for; what is wrong with it is noted.
    pub(crate) fn parse_path(&mut self, key: &str, text: &str) -> Option<FieldPath> {
        match FieldPath::parse(text, self.syntax()) {
            Ok(path) => Some(path),
            Err(error) => {
                self.problem(key, error);
                None
            }
        }
    }

    /// The path under `key`; none where there is none.
    pub(crate) fn path(&mut self, key: &str) -> Option<FieldPath> {
        let text = self.given(key)?.to_owned();
        self.parse_path(key, &text)
    }

    /// The paths under `key`.
    pub(crate) fn paths(&mut self, key: &str) -> Vec<FieldPath> {
        let texts = self.list(key);
        texts
            .iter()
            .filter_map(|text| self.parse_path(key, text))
            .collect()
    }

    /// `paths`, which came from `key`, as a tree.
    pub(crate) fn tree(&mut self, key: &str, paths: &[FieldPath]) -> PathTree {
        PathTree::new(paths).unwrap_or_else(|error| {
            self.problem(key, error);
            PathTree::default()
        })
    }

    /// Notes that the list `key` is empty, where it is.
    pub(crate) fn not_empty(&mut self, key: &str) {
        if self.list(key).is_empty() {
            self.problem(key, "must name at least one");
        }
    }
}
