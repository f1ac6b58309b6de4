//! The keys of a chain in a connector's flat configuration: `transforms`, `transforms.<name>.<key>`, and the same of
//! predicates.

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, ConfigMap, Importance};

use crate::class::{PredicateClass, find_predicate, find_transform};

pub(super) const TRANSFORMS: &str = "transforms";
pub(super) const PREDICATES: &str = "predicates";

/// A transform or predicate by the name a configuration gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alias {
    /// Its name.
    pub name: String,
    prefix: String,
}

impl Alias {
    fn new(list: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            prefix: format!("{list}.{name}."),
        }
    }

    /// The whole name of its key `key`.
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Which key of it `key` is.
    pub(super) fn key_of<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)
    }
}

/// The names in the list under `list`, in order.
pub(super) fn aliases(config: &ConfigMap, list: &str) -> Vec<Alias> {
    config
        .get(list)
        .map(String::as_str)
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| Alias::new(list, name))
        .collect()
}

/// The keys that every transform has.
pub(super) fn of_every_transform() -> ConfigDef {
    ConfigDef::new()
        .required(
            "type",
            ConfigType::Class,
            Importance::High,
            "The class of the transform.",
        )
        .optional(
            "predicate",
            ConfigType::String,
            "",
            Importance::Medium,
            "The predicate, by its name in predicates, that says which records the transform is applied to.",
        )
        .optional(
            "negate",
            ConfigType::Boolean,
            "false",
            Importance::Medium,
            "Whether the transform is applied to the records that the predicate does not mean.",
        )
}

/// The keys that every predicate has.
pub(super) fn of_every_predicate() -> ConfigDef {
    ConfigDef::new().required(
        "type",
        ConfigType::Class,
        Importance::High,
        "The class of the predicate.",
    )
}

/// Whether `key` is one of a chain's, so that [`Chain::new`](super::Chain::new) answers for it.
pub fn owns(key: &str) -> bool {
    [TRANSFORMS, PREDICATES].iter().any(|list| {
        key.strip_prefix(list)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// All keys that `config` may have for its chain, under their whole names: those of the transforms and predicates it lists.
/// It is what an answer to "what can be configured" is made of.
pub fn definition(config: &ConfigMap) -> ConfigDef {
    let mut whole = ConfigDef::new()
        .optional(
            TRANSFORMS,
            ConfigType::List,
            "",
            Importance::Low,
            "The names of the transforms, in the order they are applied.",
        )
        .optional(
            PREDICATES,
            ConfigType::List,
            "",
            Importance::Low,
            "The names of the predicates that transforms use.",
        );
    let class_of = |alias: &Alias| config.get(&alias.key("type")).map(|name| name.trim().to_owned());
    for alias in aliases(config, TRANSFORMS) {
        let class = class_of(&alias).and_then(|name| find_transform(&name).ok());
        let own = class.map_or_else(ConfigDef::new, |(class, _)| class.config());
        add(&mut whole, &alias, "Transforms", [of_every_transform(), own]);
    }
    for alias in aliases(config, PREDICATES) {
        let class = class_of(&alias).and_then(|name| find_predicate(&name).ok());
        let own = class.map_or_else(ConfigDef::new, PredicateClass::config);
        add(&mut whole, &alias, "Predicates", [of_every_predicate(), own]);
    }
    whole
}

fn add(whole: &mut ConfigDef, alias: &Alias, group: &str, defs: [ConfigDef; 2]) {
    for mut key in defs.into_iter().flat_map(|def| def.keys) {
        key.name = alias.key(&key.name);
        for other in &mut key.aliases {
            *other = alias.key(other);
        }
        key.group = Some(format!("{group}: {}", alias.name));
        whole.keys.push(key);
    }
}
