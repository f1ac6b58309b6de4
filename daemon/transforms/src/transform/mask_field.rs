//! MaskField: fields lose their content and keep their type.

use bytes::Bytes;
use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::json::decimal_from_str;
use tidewater_plugin_api::logical::Logical;
use tidewater_plugin_api::{ConfigDef, Importance, Schema, SchemaRef, Type, Validator, Value};

use super::{Transform, Verdict};
use crate::edit::{Edit, Planner, edit_map, require_map, require_struct};
use crate::fault::{Fault, Place};
use crate::path::{FieldPath, PathTree};
use crate::plan_cache::PlanCache;
use crate::record::{Record, Side};
use crate::settings::{Settings, with_defaults, with_paths};

const FIX: &str = "MaskField works on the fields of a struct or map; remove the transform, or put it elsewhere in the chain";

pub(crate) fn config() -> ConfigDef {
    with_defaults(with_paths(
        ConfigDef::new()
            .required(
                "fields",
                ConfigType::List,
                Importance::High,
                "The fields to mask.",
            )
            .validate(Validator::NonEmpty)
            .nullable(
                "replacement",
                ConfigType::String,
                Importance::Low,
                "What numbers and strings become; without it zero, false, or empty.",
            )
            .validate(Validator::NonEmpty),
    ))
}

pub(crate) struct MaskField {
    side: Side,
    replaces_null: bool,
    paths: Vec<FieldPath>,
    tree: PathTree,
    replacement: Option<String>,
    plans: PlanCache<Option<Edit<Op>>>,
}

struct Op {
    path: usize,
    logical: Option<Logical>,
}

impl MaskField {
    pub(crate) fn build(settings: &mut Settings, side: Side) -> Option<Box<dyn Transform>> {
        settings.not_empty("fields");
        let paths = settings.paths("fields");
        Some(Box::new(Self {
            side,
            replaces_null: settings.replaces_null(),
            tree: settings.tree("fields", &paths),
            paths,
            replacement: settings.untrimmed("replacement").map(ToOwned::to_owned),
            plans: PlanCache::default(),
        }))
    }
}

impl Transform for MaskField {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let (side, paths, tree, replaces_null) = (self.side, &self.paths, &self.tree, self.replaces_null);
        let replacement = self.replacement.as_deref();
        let datum = record.side_mut(side);
        if datum.is_null() {
            return Ok(Verdict::Keep);
        }
        let place = |path: usize| Place::field(side, paths[path].text());
        let mut run = |op: &Op, value: &mut Value| mask(value, op.logical, replacement, &|| place(op.path));
        let Some(schema) = datum.schema().cloned() else {
            let value = datum.value_mut().map_err(Fault::decode(side))?;
            let pairs = require_map(side, value, FIX)?;
            edit_map(pairs, tree, &mut |path, value| {
                mask(value, None, replacement, &|| place(path))
            })?;
            return Ok(Verdict::Keep);
        };
        require_struct(side, &schema, FIX)?;
        let plan = self.plans.get(&schema, || {
            let mut plan = |path: usize, field: &SchemaRef| {
                // A default is content too, but of the schema, which everybody may read.
                let logical = Logical::of(field);
                check(field, logical, replacement.is_some(), &|| place(path))?;
                Ok((field.clone(), Op { path, logical }))
            };
            Planner {
                side,
                replaces_null,
                plan: &mut plan,
                run: &mut run,
            }
            .edit(&schema, tree)
        })?;
        if let Some(edit) = &*plan {
            let value = datum.value_mut().map_err(Fault::decode(side))?;
            edit.apply(side, value, &mut run)?;
        }
        Ok(Verdict::Keep)
    }
}

/// Whether values of `schema` can be masked at all.
fn check(
    schema: &Schema,
    logical: Option<Logical>,
    replaced: bool,
    place: &dyn Fn() -> Place,
) -> Result<(), Fault> {
    let number_or_text = !matches!(schema.ty, Type::Bool | Type::Array(_) | Type::Map(..))
        && (schema.ty != Type::Bytes || matches!(logical, Some(Logical::Decimal { .. })));
    match &schema.ty {
        Type::Struct(_) => Err(no_struct(place())),
        other if replaced && !number_or_text => Err(no_replacement(place(), other.name())),
        _ => Ok(()),
    }
}

fn no_struct(place: Place) -> Fault {
    Fault::wrong_type(
        place,
        "struct",
        "a number, a boolean, a string, bytes, an array or a map",
        "name the fields within it, with field.syntax.version=V2",
    )
}

fn no_replacement(place: Place, found: &'static str) -> Fault {
    Fault::wrong_type(
        place,
        found,
        "a number or a string, as replacement is set",
        "mask this field in a transform of its own without replacement",
    )
}

fn mask(
    value: &mut Value,
    logical: Option<Logical>,
    replacement: Option<&str>,
    place: &dyn Fn() -> Place,
) -> Result<(), Fault> {
    let found = value.kind();
    let Some(text) = replacement else {
        *value = match value {
            Value::Null => return Ok(()),
            Value::Bool(_) => Value::Bool(false),
            Value::Int8(_) => Value::Int8(0),
            Value::Int16(_) => Value::Int16(0),
            Value::Int32(_) => Value::Int32(0),
            Value::Int64(_) => Value::Int64(0),
            Value::Float32(_) => Value::Float32(0.0),
            Value::Float64(_) => Value::Float64(0.0),
            Value::String(_) => Value::String(String::new()),
            Value::Bytes(_) if matches!(logical, Some(Logical::Decimal { .. })) => {
                Value::Bytes(Bytes::from_static(&[0]))
            }
            Value::Bytes(_) => Value::Bytes(Bytes::new()),
            Value::Array(_) => Value::Array(Vec::new()),
            Value::Map(_) => Value::Map(Vec::new()),
            Value::Struct(_) => return Err(no_struct(place())),
        };
        return Ok(());
    };
    let replaced = match value {
        Value::Null => return Ok(()),
        Value::Int8(_) => text.parse().map(Value::Int8).ok(),
        Value::Int16(_) => text.parse().map(Value::Int16).ok(),
        Value::Int32(_) => text.parse().map(Value::Int32).ok(),
        Value::Int64(_) => text.parse().map(Value::Int64).ok(),
        Value::Float32(_) => text.parse().map(Value::Float32).ok(),
        Value::Float64(_) => text.parse().map(Value::Float64).ok(),
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Bytes(_) if let Some(Logical::Decimal { scale }) = logical => {
            decimal_from_str(text, scale).map(|unscaled| Value::Bytes(unscaled.into()))
        }
        _ => return Err(no_replacement(place(), found)),
    };
    *value = replaced.ok_or_else(|| {
        Fault::unconvertible(
            place(),
            found,
            "the replacement",
            format!("{text:?} is no such number, or out of its range"),
            "mask this field in a transform of its own with a replacement of its type",
        )
    })?;
    Ok(())
}
