//! InsertHeader: a header with a fixed value.

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance, Validator};

use super::{Transform, Verdict};
use crate::fault::Fault;
use crate::literal;
use crate::record::{Datum, Header, Record};
use crate::settings::Settings;

pub(crate) fn config() -> ConfigDef {
    ConfigDef::new()
        .required(
            "header",
            ConfigType::String,
            Importance::High,
            "The name of the header.",
        )
        .validate(Validator::NonEmpty)
        .required(
            "value.literal",
            ConfigType::String,
            Importance::High,
            "The header's value: a number, a boolean, null, a date or time in ISO 8601, a list or map of these, or text, which quotes keep text.",
        )
}

pub(crate) struct InsertHeader {
    name: Arc<str>,
    value: Datum,
}

impl InsertHeader {
    pub(crate) fn build(settings: &mut Settings) -> Option<Box<dyn Transform>> {
        Some(Box::new(Self {
            name: settings.text("header").into(),
            value: literal::parse(settings.untrimmed("value.literal").unwrap_or_default()),
        }))
    }
}

impl Transform for InsertHeader {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        record
            .headers
            .push(Header::new(self.name.clone(), self.value.clone()));
        Ok(Verdict::Keep)
    }
}
