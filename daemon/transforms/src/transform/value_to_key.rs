//! ValueToKey: fields of the value become the key.

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Field, Importance, Schema, SchemaRef, Validator, Value};

use super::{Transform, Verdict};
use crate::edit::{require_map, require_struct};
use crate::fault::{Fault, Place};
use crate::path::{FieldPath, value_at};
use crate::plan_cache::PlanCache;
use crate::record::{Record, Side};
use crate::settings::{Settings, with_defaults, with_paths};

const FIX: &str =
    "ValueToKey reads the fields of a struct or map; remove the transform, or put it elsewhere in the chain";

pub(crate) fn config() -> ConfigDef {
    with_defaults(with_paths(
        ConfigDef::new()
            .required(
                "fields",
                ConfigType::List,
                Importance::High,
                "The fields of the value that make the key, under the last names of their paths.",
            )
            .validate(Validator::NonEmpty),
    ))
}

pub(crate) struct ValueToKey {
    paths: Vec<FieldPath>,
    replaces_null: bool,
    plans: PlanCache<Plan>,
}

struct Plan {
    schema: SchemaRef,
    indices: Vec<Vec<usize>>,
}

impl ValueToKey {
    pub(crate) fn build(settings: &mut Settings) -> Option<Box<dyn Transform>> {
        settings.not_empty("fields");
        let paths = settings.paths("fields");
        for (index, path) in paths.iter().enumerate() {
            if paths[..index].iter().any(|other| other.name() == path.name()) {
                settings.problem(
                    "fields",
                    format!(
                        "two of the fields would both be {:?} in the key; keep one",
                        path.name()
                    ),
                );
            }
        }
        Some(Box::new(Self {
            paths,
            replaces_null: settings.replaces_null(),
            plans: PlanCache::default(),
        }))
    }
}

impl Transform for ValueToKey {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        const SIDE: Side = Side::Value;
        if record.value.is_null() {
            return Err(Fault::missing(
                Place::Whole(SIDE),
                "a tombstone has no fields to make a key of; keep it away from the transform with a RecordIsTombstone \
                 predicate, negated",
            ));
        }
        let paths = &self.paths;
        let Some(schema) = record.value.schema().cloned() else {
            let value = record.value.value_mut().map_err(Fault::decode(SIDE))?;
            require_map(SIDE, value, FIX)?;
            let pair = |path: &FieldPath| {
                let found = path.find_in(value).cloned().unwrap_or(Value::Null);
                (Value::String((**path.name()).to_owned()), found)
            };
            let key = Value::Map(paths.iter().map(pair).collect());
            record.key.set(None, key);
            return Ok(Verdict::Keep);
        };
        require_struct(SIDE, &schema, FIX)?;
        let plan = self.plans.get(&schema, || plan(&schema, paths))?;
        let replaces_null = self.replaces_null;
        let value = record.value.value().map_err(Fault::decode(SIDE))?;
        let taken = plan
            .indices
            .iter()
            .zip(plan.schema.fields())
            .map(|(indices, field)| match value_at(value, indices) {
                None | Some(Value::Null) => match &field.schema.default {
                    Some(default) if replaces_null => default.clone(),
                    _ => Value::Null,
                },
                Some(found) => found.clone(),
            });
        let key = Value::Struct(taken.collect());
        record.key.set(Some(plan.schema.clone()), key);
        Ok(Verdict::Keep)
    }
}

fn plan(schema: &SchemaRef, paths: &[FieldPath]) -> Result<Plan, Fault> {
    let mut fields = Vec::with_capacity(paths.len());
    let mut indices = Vec::with_capacity(paths.len());
    for path in paths {
        let found = path.locate(schema).and_then(|found| {
            let field = found.schema?.clone();
            Some((found.indices, field))
        });
        let Some((at, field)) = found else {
            return Err(Fault::missing(
                Place::field(Side::Value, path.text()),
                "name fields of the schema; a nested one needs field.syntax.version=V2",
            ));
        };
        // Below a struct that may be null, every field may be.
        let may_miss = at.len() > 1 && ways(schema, &at).any(|way| way.optional) && !field.optional;
        let field = if may_miss {
            Arc::new((*field).clone().optional())
        } else {
            field
        };
        fields.push(Field::new(path.name().clone(), field));
        indices.push(at);
    }
    Ok(Plan {
        schema: Arc::new(Schema::structure(fields)),
        indices,
    })
}

/// The schemas of the structs on the way to a field, but for the outermost.
fn ways<'a>(schema: &'a SchemaRef, indices: &'a [usize]) -> impl Iterator<Item = &'a SchemaRef> {
    indices[..indices.len() - 1]
        .iter()
        .scan(schema, |current, &index| {
            *current = &current.fields().get(index)?.schema;
            Some(*current)
        })
}
