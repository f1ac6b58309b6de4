//! ExtractField: one field of the key or value takes the place of the whole.

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance, SchemaRef, Validator, Value};

use super::{Transform, Verdict};
use crate::edit::{require_map, require_struct};
use crate::fault::{Fault, Place};
use crate::path::{FieldPath, take_at};
use crate::plan_cache::PlanCache;
use crate::record::{Record, Side};
use crate::settings::{Settings, with_defaults, with_paths};

const FIX: &str = "ExtractField takes a field out of a struct or map; remove the transform, or put it elsewhere in the chain";

pub(crate) fn config() -> ConfigDef {
    with_defaults(with_paths(
        ConfigDef::new()
            .required(
                "field",
                ConfigType::String,
                Importance::Medium,
                "The field to extract.",
            )
            .validate(Validator::NonEmpty),
    ))
}

pub(crate) struct ExtractField {
    side: Side,
    path: FieldPath,
    replaces_null: bool,
    plans: PlanCache<Plan>,
}

struct Plan {
    indices: Vec<usize>,
    schema: SchemaRef,
}

impl ExtractField {
    pub(crate) fn build(settings: &mut Settings, side: Side) -> Option<Box<dyn Transform>> {
        Some(Box::new(Self {
            side,
            path: settings.path("field")?,
            replaces_null: settings.replaces_null(),
            plans: PlanCache::default(),
        }))
    }
}

impl Transform for ExtractField {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let (side, path) = (self.side, &self.path);
        let datum = record.side_mut(side);
        let Some(schema) = datum.schema().cloned() else {
            let mut value = datum.take().map_err(Fault::decode(side))?;
            if value != Value::Null {
                require_map(side, &mut value, FIX)?;
                datum.set(None, path.take_from(&mut value).unwrap_or(Value::Null));
            }
            return Ok(Verdict::Keep);
        };
        require_struct(side, &schema, FIX)?;
        let plan = self.plans.get(&schema, || {
            let found = path.locate(&schema);
            let found = found.and_then(|found| Some((found.indices, found.schema?.clone())));
            let (indices, schema) = found.ok_or_else(|| {
                Fault::missing(
                    Place::field(side, path.text()),
                    "name a field of the schema; a nested one needs field.syntax.version=V2",
                )
            })?;
            Ok(Plan { indices, schema })
        })?;
        let mut value = datum.take().map_err(Fault::decode(side))?;
        let mut taken = take_at(&mut value, &plan.indices).unwrap_or(Value::Null);
        if taken == Value::Null
            && self.replaces_null
            && value != Value::Null
            && let Some(default) = &plan.schema.default
        {
            taken = default.clone();
        }
        datum.set(Some(plan.schema.clone()), taken);
        Ok(Verdict::Keep)
    }
}
