//! What is installed, and what a configuration amounts to.

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigMap, ConnectorKind, ConnectorSpec};
use tidewater_plugin_host::PluginRegistry;
use tidewater_runtime::config::{
    Checked, Checker, ConnectorConfig, ConnectorFile, Problem, Providers, WorkerConfig, connector_keys,
};

/// Stands for a secret that was written out. Sent back, it means the one that is there.
pub(crate) const HIDDEN: &str = "********";

/// Where requests come from, in place of a file.
const PLACE: &str = "request";

/// The installed classes, and what configurations are checked against.
pub struct Catalog {
    /// The plugins.
    pub registry: Arc<PluginRegistry>,
    /// The worker's settings: the defaults of converters.
    pub worker: WorkerConfig,
    /// Where references to secrets lead.
    pub providers: Providers,
}

/// A configuration that was checked, by the definition and by the plugin.
pub(crate) struct Verdict {
    pub(crate) spec: Option<ConnectorSpec>,
    pub(crate) config: Option<ConnectorConfig>,
    pub(crate) problems: Vec<Problem>,
}

impl Verdict {
    pub(crate) fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.is_error())
    }
}

impl Catalog {
    /// The class of a short name or an alias.
    pub(crate) fn spec(&self, name: &str) -> Option<ConnectorSpec> {
        self.registry.find(name).ok().map(|class| class.spec().clone())
    }

    /// Every fault that the definition tells of, and where there is none, those that the plugin finds outside.
    pub(crate) async fn check(&self, name: &str, config: &ConfigMap) -> Verdict {
        let classes = self.registry.classes();
        let checker = Checker {
            classes: &classes,
            worker: &self.worker,
            providers: &self.providers,
        };
        let file = ConnectorFile::from_map(PLACE, name, config);
        let Checked {
            class,
            config,
            mut problems,
        } = checker.check(&file);
        let spec = class.and_then(|(class, _)| self.spec(&class));
        if let Some(config) = &config
            && let Ok(class) = self.registry.find(&config.class)
        {
            match class.validate(config.resolved.clone()).await {
                Ok(found) => problems.extend(config.problems(class.spec(), &file, &found)),
                Err(error) => problems.push(Problem::error(config.redactor.redact(&error.to_string()))),
            }
        }
        let config = config.filter(|_| !problems.iter().any(Problem::is_error));
        Verdict {
            spec,
            config,
            problems,
        }
    }

    /// The keys without secrets that were written out (invariant 8). References to secrets are none.
    pub(crate) fn shown(&self, mut config: ConfigMap) -> ConfigMap {
        let spec = config
            .get("connector.class")
            .and_then(|class| self.spec(class.trim()));
        for (key, value) in &mut config {
            if !value.contains("${") && !value.is_empty() && is_secret(spec.as_ref(), key) {
                HIDDEN.clone_into(value);
            }
        }
        config
    }
}

/// Whether the value of a key is a secret, or may be: of a class that is not there nobody knows.
fn is_secret(spec: Option<&ConnectorSpec>, key: &str) -> bool {
    let Some(spec) = spec else {
        let common = [ConnectorKind::Source, ConnectorKind::Sink];
        return common
            .iter()
            .all(|kind| connector_keys::keys(*kind).find(key).is_none());
    };
    let known = spec
        .config
        .find(key)
        .or_else(|| connector_keys::keys(spec.kind).find(key));
    known.is_some_and(|key| key.ty == ConfigType::Password)
}

/// Puts the secrets that are there in the place of what stands for them.
pub(crate) fn with_secrets_of(mut config: ConfigMap, there: &ConfigMap) -> ConfigMap {
    for (key, value) in &mut config {
        if value == HIDDEN
            && let Some(secret) = there.get(key)
        {
            value.clone_from(secret);
        }
    }
    config
}
