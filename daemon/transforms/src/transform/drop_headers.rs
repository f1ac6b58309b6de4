//! DropHeaders: headers of given names go.

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance, Validator};

use super::{Transform, Verdict};
use crate::fault::Fault;
use crate::record::Record;
use crate::settings::Settings;

pub(crate) fn config() -> ConfigDef {
    ConfigDef::new()
        .required(
            "headers",
            ConfigType::List,
            Importance::High,
            "The names of the headers to drop.",
        )
        .validate(Validator::NonEmpty)
}

pub(crate) struct DropHeaders {
    names: Vec<String>,
}

impl DropHeaders {
    pub(crate) fn build(settings: &mut Settings) -> Option<Box<dyn Transform>> {
        settings.not_empty("headers");
        Some(Box::new(Self {
            names: settings.list("headers"),
        }))
    }
}

impl Transform for DropHeaders {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        record
            .headers
            .retain(|header| !self.names.iter().any(|name| **name == *header.name));
        Ok(Verdict::Keep)
    }
}
