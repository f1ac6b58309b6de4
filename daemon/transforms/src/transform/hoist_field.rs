//! HoistField: wraps the key or value, or one field of it, in a struct or map of one field.

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Field, Importance, Schema, SchemaRef, Validator, Value};

use super::{Transform, Verdict};
use crate::edit::{Edit, Planner, edit_map, require_map, require_struct};
use crate::fault::{Fault, Place};
use crate::path::PathTree;
use crate::plan_cache::PlanCache;
use crate::record::{Record, Side};
use crate::settings::{Settings, with_paths};

const FIX: &str = "leave `hoisted` empty to wrap the whole";

pub(crate) fn config() -> ConfigDef {
    with_paths(
        ConfigDef::new()
            .required(
                "field",
                ConfigType::String,
                Importance::Medium,
                "The name of the one field of the struct or map that is made.",
            )
            .validate(Validator::NonEmpty)
            .optional(
                "hoisted",
                ConfigType::String,
                "",
                Importance::Medium,
                "The field to wrap, where it stands; empty wraps the whole.",
            ),
    )
}

pub(crate) struct HoistField {
    side: Side,
    name: Arc<str>,
    /// The field to wrap; empty for the whole.
    hoisted: PathTree,
    wholes: PlanCache<SchemaRef>,
    fields: PlanCache<Option<Edit<()>>>,
}

impl HoistField {
    pub(crate) fn build(settings: &mut Settings, side: Side) -> Option<Box<dyn Transform>> {
        let hoisted = settings.path("hoisted");
        Some(Box::new(Self {
            side,
            name: settings.text("field").into(),
            hoisted: settings.tree("hoisted", hoisted.as_slice()),
            wholes: PlanCache::default(),
            fields: PlanCache::default(),
        }))
    }
}

impl Transform for HoistField {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let (side, name) = (self.side, &self.name);
        let datum = record.side_mut(side);
        let schema = datum.schema().cloned();
        let mut value = datum.take().map_err(Fault::decode(side))?;
        let wrapper = |inner: &SchemaRef| -> SchemaRef {
            Arc::new(Schema::structure(vec![Field::new(name.clone(), inner.clone())]))
        };
        let mut in_struct = |(): &(), value: &mut Value| -> Result<(), Fault> {
            *value = Value::Struct(vec![std::mem::replace(value, Value::Null)]);
            Ok(())
        };
        let in_map = |value: Value| Value::Map(vec![(Value::String((**name).to_owned()), value)]);
        match schema {
            Some(schema) if self.hoisted.is_empty() => {
                if value == Value::Null && !schema.optional {
                    return Err(Fault::missing(
                        Place::Whole(side),
                        "its schema takes no null within a struct; keep tombstones away from the transform with a \
                         RecordIsTombstone predicate, negated",
                    ));
                }
                let plan = self.wholes.get::<Fault>(&schema, || Ok(wrapper(&schema)))?;
                in_struct(&(), &mut value)?;
                datum.set(Some((*plan).clone()), value);
            }
            None if self.hoisted.is_empty() => datum.set(None, in_map(value)),
            Some(schema) => {
                require_struct(side, &schema, FIX)?;
                let hoisted = &self.hoisted;
                let plan = self.fields.get(&schema, || {
                    let mut plan = |_: usize, field: &SchemaRef| Ok((wrapper(field), ()));
                    Planner {
                        side,
                        replaces_null: false,
                        plan: &mut plan,
                        run: &mut in_struct,
                    }
                    .edit(&schema, hoisted)
                })?;
                let new = plan
                    .as_ref()
                    .as_ref()
                    .map_or(&schema, |edit| &edit.schema)
                    .clone();
                if let Some(edit) = &*plan
                    && value != Value::Null
                {
                    edit.apply(side, &mut value, &mut in_struct)?;
                }
                datum.set(Some(new), value);
            }
            None => {
                if value != Value::Null {
                    let pairs = require_map(side, &mut value, FIX)?;
                    edit_map(pairs, &self.hoisted, &mut |_, value| {
                        *value = in_map(std::mem::replace(value, Value::Null));
                        Ok(())
                    })?;
                }
                datum.set(None, value);
            }
        }
        Ok(Verdict::Keep)
    }
}
