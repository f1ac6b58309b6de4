//! SetSchemaMetadata: another name or version for the schema; the value stays as it is, encoded or not.

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance, SchemaRef};

use super::{Transform, Verdict};
use crate::fault::{Fault, Place};
use crate::plan_cache::PlanCache;
use crate::record::{Record, Side};
use crate::settings::Settings;

pub(crate) fn config() -> ConfigDef {
    ConfigDef::new()
        .nullable(
            "schema.name",
            ConfigType::String,
            Importance::High,
            "The schema's new name.",
        )
        .nullable(
            "schema.version",
            ConfigType::Int,
            Importance::High,
            "The schema's new version.",
        )
}

pub(crate) struct SetSchemaMetadata {
    side: Side,
    name: Option<Arc<str>>,
    version: Option<i32>,
    plans: PlanCache<SchemaRef>,
}

impl SetSchemaMetadata {
    pub(crate) fn build(settings: &mut Settings, side: Side) -> Option<Box<dyn Transform>> {
        let name = settings.given("schema.name").map(Arc::from);
        let version = settings
            .given("schema.version")
            .and_then(|text| text.parse().ok());
        if name.is_none() && version.is_none() {
            settings.problem(
                "schema.name",
                "is missing, and so is schema.version; set one or both",
            );
        }
        Some(Box::new(Self {
            side,
            name,
            version,
            plans: PlanCache::default(),
        }))
    }
}

impl Transform for SetSchemaMetadata {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let datum = record.side_mut(self.side);
        let Some(schema) = datum.schema() else {
            if datum.is_null() {
                return Ok(Verdict::Keep);
            }
            return Err(Fault::wrong_type(
                Place::Whole(self.side),
                "a value without schema",
                "a value with one",
                "use a converter that gives schemas, or remove the transform",
            ));
        };
        let (name, version) = (&self.name, self.version);
        let plan = self.plans.get::<Fault>(schema, || {
            let mut new = (**schema).clone();
            if name.is_some() {
                new.name.clone_from(name);
            }
            new.version = version.or(new.version);
            Ok(Arc::new(new))
        })?;
        let new = (*plan).clone();
        datum.set_schema(new);
        Ok(Verdict::Keep)
    }
}
