//! Cast: other primitive types for fields, or for the whole key or value.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::json::decimal_to_string;
use tidewater_plugin_api::logical::{self, Logical};
use tidewater_plugin_api::{ConfigDef, Importance, Schema, SchemaRef, Type, Value};

use super::{Transform, Verdict};
use crate::date_format;
use crate::edit::{Edit, Planner, edit_map, require_map, require_struct};
use crate::fault::{Fault, Place};
use crate::number_text::{double_text, float_text};
use crate::path::{FieldPath, PathTree};
use crate::plan_cache::PlanCache;
use crate::record::{Record, Side};
use crate::settings::{Settings, with_defaults, with_paths};

const SPEC: &str = "spec";
const FIX: &str = "name its fields, or cast the whole with a spec that is a type alone";

pub(crate) fn config() -> ConfigDef {
    with_defaults(with_paths(ConfigDef::new().required(
        SPEC,
        ConfigType::List,
        Importance::High,
        "Fields and the types to cast them to, field1:type,field2:type; or one type alone for the whole. The types are int8, \
         int16, int32, int64, float32, float64, boolean and string; bytes can only become string.",
    )))
}

/// A type a value can be cast to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    String,
}

const TARGETS: [(&str, Target); 8] = [
    ("int8", Target::Int8),
    ("int16", Target::Int16),
    ("int32", Target::Int32),
    ("int64", Target::Int64),
    ("float32", Target::Float32),
    ("float64", Target::Float64),
    ("boolean", Target::Bool),
    ("string", Target::String),
];

impl Target {
    fn parse(name: &str) -> Result<Self, String> {
        let names = || TARGETS.map(|(name, _)| name);
        TARGETS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, target)| *target)
            .ok_or_else(|| {
                format!(
                    "{name:?} is no type to cast to; the types are {}{}",
                    names().join(", "),
                    crate::nearest::suggestion(name, names())
                )
            })
    }

    fn name(self) -> &'static str {
        TARGETS
            .iter()
            .find(|(_, target)| *target == self)
            .map_or("", |(name, _)| name)
    }

    fn ty(self) -> Type {
        match self {
            Target::Bool => Type::Bool,
            Target::Int8 => Type::Int8,
            Target::Int16 => Type::Int16,
            Target::Int32 => Type::Int32,
            Target::Int64 => Type::Int64,
            Target::Float32 => Type::Float32,
            Target::Float64 => Type::Float64,
            Target::String => Type::String,
        }
    }
}

pub(crate) struct Cast {
    side: Side,
    replaces_null: bool,
    what: What,
}

enum What {
    Whole {
        target: Target,
        plans: PlanCache<Whole>,
    },
    Fields {
        paths: Vec<FieldPath>,
        targets: Vec<Target>,
        tree: PathTree,
        plans: PlanCache<Option<Edit<Op>>>,
    },
}

struct Whole {
    schema: SchemaRef,
    meaning: Meaning,
}

struct Op {
    path: usize,
    meaning: Meaning,
}

/// What the schema makes of the value besides its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Plain,
    Decimal(i32),
    Date,
    Time,
    Timestamp,
}

impl Meaning {
    fn of(schema: &Schema) -> Self {
        match (schema.name.as_deref(), Logical::of(schema)) {
            (_, Some(Logical::Decimal { scale })) => Meaning::Decimal(scale),
            (Some(logical::CONNECT_DATE), Some(_)) => Meaning::Date,
            (Some(logical::CONNECT_TIME), Some(_)) => Meaning::Time,
            (Some(logical::CONNECT_TIMESTAMP), Some(_)) => Meaning::Timestamp,
            _ => Meaning::Plain,
        }
    }
}

impl Cast {
    pub(crate) fn build(settings: &mut Settings, side: Side) -> Option<Box<dyn Transform>> {
        settings.not_empty(SPEC);
        let specs = settings.list(SPEC);
        let mut whole = None;
        let (mut paths, mut targets) = (Vec::new(), Vec::new());
        for spec in &specs {
            let (path, target) = match spec.rsplit_once(':') {
                Some((path, target)) => (Some(path.trim()), target.trim()),
                None => (None, spec.as_str()),
            };
            let target = match Target::parse(target) {
                Ok(target) => target,
                Err(error) => {
                    settings.problem(SPEC, error);
                    continue;
                }
            };
            match path {
                None => whole = Some(target),
                Some(path) => {
                    if let Some(path) = settings.parse_path(SPEC, path) {
                        paths.push(path);
                        targets.push(target);
                    }
                }
            }
        }
        if whole.is_some() && specs.len() > 1 {
            settings.problem(
                SPEC,
                "casts the whole and fields of it; keep either one type alone, or fields with their types",
            );
        }
        let what = match whole {
            Some(target) => What::Whole {
                target,
                plans: PlanCache::default(),
            },
            None => What::Fields {
                tree: settings.tree(SPEC, &paths),
                paths,
                targets,
                plans: PlanCache::default(),
            },
        };
        Some(Box::new(Self {
            side,
            replaces_null: settings.replaces_null(),
            what,
        }))
    }
}

impl Transform for Cast {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let side = self.side;
        let datum = record.side_mut(side);
        if datum.is_null() {
            return Ok(Verdict::Keep);
        }
        let schema = datum.schema().cloned();
        match (&mut self.what, schema) {
            (What::Whole { target, plans }, Some(schema)) => {
                let plan = plans.get(&schema, || {
                    let meaning = Meaning::of(&schema);
                    let cast_schema = cast_schema(&schema, *target, meaning, &Place::Whole(side), true)?;
                    Ok(Whole {
                        schema: cast_schema,
                        meaning,
                    })
                })?;
                let mut value = datum.take().map_err(Fault::decode(side))?;
                cast(&mut value, *target, plan.meaning, &|| Place::Whole(side))?;
                datum.set(Some(plan.schema.clone()), value);
            }
            (What::Whole { target, .. }, None) => {
                let value = datum.value_mut().map_err(Fault::decode(side))?;
                cast(value, *target, Meaning::Plain, &|| Place::Whole(side))?;
            }
            (
                What::Fields {
                    paths,
                    targets,
                    tree,
                    plans,
                },
                Some(schema),
            ) => {
                require_struct(side, &schema, FIX)?;
                let mut run = |op: &Op, value: &mut Value| {
                    let place = || Place::field(side, paths[op.path].text());
                    cast(value, targets[op.path], op.meaning, &place)
                };
                let replaces_null = self.replaces_null;
                let plan = plans.get(&schema, || {
                    let mut plan = |path: usize, field: &SchemaRef| {
                        let meaning = Meaning::of(field);
                        let place = Place::field(side, paths[path].text());
                        let new = cast_schema(field, targets[path], meaning, &place, false)?;
                        Ok((new, Op { path, meaning }))
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
                    let mut value = datum.take().map_err(Fault::decode(side))?;
                    edit.apply(side, &mut value, &mut run)?;
                    datum.set(Some(edit.schema.clone()), value);
                }
            }
            (
                What::Fields {
                    paths, targets, tree, ..
                },
                None,
            ) => {
                let value = datum.value_mut().map_err(Fault::decode(side))?;
                let pairs = require_map(side, value, FIX)?;
                edit_map(pairs, tree, &mut |path, value| {
                    let place = || Place::field(side, paths[path].text());
                    cast(value, targets[path], Meaning::Plain, &place)
                })?;
            }
        }
        Ok(Verdict::Keep)
    }
}

/// The schema of what `schema` is cast to: as optional as before, with the default cast too. A field's logical name goes,
/// as it would be wrong; the whole keeps its name.
fn cast_schema(
    schema: &SchemaRef,
    target: Target,
    meaning: Meaning,
    place: &Place,
    whole: bool,
) -> Result<SchemaRef, Fault> {
    let mut new = Schema::new(target.ty());
    if whole {
        new.name.clone_from(&schema.name);
        new.version = schema.version;
        new.doc.clone_from(&schema.doc);
        new.parameters.clone_from(&schema.parameters);
        // A logical name on another type would claim what is no longer so.
        if Logical::of(schema).is_some() {
            new.name = None;
            new.version = None;
            new.parameters.clear();
        }
    }
    new.optional = schema.optional;
    if let Type::Array(_) | Type::Map(..) | Type::Struct(_) = &schema.ty {
        return Err(unsupported(place.clone(), schema.ty.name(), target));
    }
    if let Some(default) = &schema.default {
        let mut default = default.clone();
        cast(&mut default, target, meaning, &|| place.clone())?;
        new.default = Some(default);
    }
    Ok(Arc::new(new))
}

fn unsupported(place: Place, found: &'static str, target: Target) -> Fault {
    let expected = if found == "bytes" {
        "a number, a boolean or a string; bytes can only become string"
    } else {
        "a number, a boolean, a string or bytes"
    };
    Fault::wrong_type(
        place,
        found,
        expected,
        format!("leave it out of spec, or do not cast it to {}", target.name()),
    )
}

/// Casts `value` as Java's conversions between numbers do: integers keep their low bits, floats lose their fraction and stop
/// at the ends of int32 or int64.
fn cast(value: &mut Value, target: Target, meaning: Meaning, place: &dyn Fn() -> Place) -> Result<(), Fault> {
    let found = value.kind();
    let result = match (&*value, target) {
        (Value::Null, _) | (Value::String(_), Target::String) => return Ok(()),
        (Value::Int8(v), _) => from_integer((*v).into(), target, meaning),
        (Value::Int16(v), _) => from_integer((*v).into(), target, meaning),
        (Value::Int32(v), _) => from_integer((*v).into(), target, meaning),
        (Value::Int64(v), _) => from_integer(*v, target, meaning),
        (Value::Float32(v), Target::Float32) => Some(Value::Float32(*v)),
        (Value::Float32(v), Target::String) => Some(Value::String(float_text(*v))),
        (Value::Float32(v), _) => Some(from_double((*v).into(), target)),
        (Value::Float64(v), Target::String) => Some(Value::String(double_text(*v))),
        (Value::Float64(v), _) => Some(from_double(*v, target)),
        (Value::Bool(v), Target::String) => Some(Value::String(v.to_string())),
        (Value::Bool(v), _) => from_integer((*v).into(), target, Meaning::Plain),
        (Value::String(text), _) => match parse(text, target) {
            Some(parsed) => Some(parsed),
            None => return Err(out_of_range(place(), found, target)),
        },
        (Value::Bytes(bytes), target) => match (meaning, target) {
            (Meaning::Decimal(scale), Target::String) => Some(Value::String(decimal_to_string(bytes, scale))),
            (Meaning::Decimal(scale), _) => match from_decimal(&decimal_to_string(bytes, scale), target) {
                Some(number) => Some(number),
                None => return Err(out_of_range(place(), "decimal", target)),
            },
            (_, Target::String) => Some(Value::String(STANDARD.encode(bytes))),
            _ => None,
        },
        _ => None,
    };
    match result {
        Some(result) => {
            *value = result;
            Ok(())
        }
        None => Err(unsupported(place(), found, target)),
    }
}

fn out_of_range(place: Place, found: &'static str, target: Target) -> Fault {
    Fault::unconvertible(
        place,
        found,
        target.name(),
        Cow::Borrowed("it is no such number, or out of its range"),
        "cast it to a wider type, or mend it at its source",
    )
}

fn from_integer(number: i64, target: Target, meaning: Meaning) -> Option<Value> {
    Some(match target {
        Target::Bool => Value::Bool(number != 0),
        Target::Int8 => Value::Int8(number as i8),
        Target::Int16 => Value::Int16(number as i16),
        Target::Int32 => Value::Int32(number as i32),
        Target::Int64 => Value::Int64(number),
        Target::Float32 => Value::Float32(number as f32),
        Target::Float64 => Value::Float64(number as f64),
        Target::String => Value::String(
            match meaning {
                Meaning::Date => date_format::iso_date(number),
                Meaning::Time => date_format::iso_time(number),
                Meaning::Timestamp => date_format::iso_timestamp(number),
                Meaning::Plain | Meaning::Decimal(_) => None,
            }
            .unwrap_or_else(|| number.to_string()),
        ),
    })
}

fn from_double(number: f64, target: Target) -> Value {
    match target {
        Target::Bool => Value::Bool(number as i64 != 0),
        Target::Int8 => Value::Int8(number as i32 as i8),
        Target::Int16 => Value::Int16(number as i32 as i16),
        Target::Int32 => Value::Int32(number as i32),
        Target::Int64 => Value::Int64(number as i64),
        Target::Float32 => Value::Float32(number as f32),
        Target::Float64 => Value::Float64(number),
        Target::String => Value::String(double_text(number)),
    }
}

/// A decimal in plain digits as a number: the fraction goes, the low bits stay.
fn from_decimal(text: &str, target: Target) -> Option<Value> {
    match target {
        Target::Float32 => text.parse().ok().map(Value::Float32),
        Target::Float64 => text.parse().ok().map(Value::Float64),
        _ => {
            let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
            let number = whole.parse::<i128>().ok()?;
            from_integer(number as i64, target, Meaning::Plain)
        }
    }
}

fn parse(text: &str, target: Target) -> Option<Value> {
    Some(match target {
        Target::Bool => Value::Bool(text.eq_ignore_ascii_case("true")),
        Target::Int8 => Value::Int8(text.parse().ok()?),
        Target::Int16 => Value::Int16(text.parse().ok()?),
        Target::Int32 => Value::Int32(text.parse().ok()?),
        Target::Int64 => Value::Int64(text.parse().ok()?),
        Target::Float32 => Value::Float32(java_number(text).parse().ok()?),
        Target::Float64 => Value::Float64(java_number(text).parse().ok()?),
        Target::String => Value::String(text.to_owned()),
    })
}

/// Java takes white space around a float's text, and an `f` or `d` after its digits.
fn java_number(text: &str) -> &str {
    let text = text.trim();
    match text.strip_suffix(['f', 'F', 'd', 'D']) {
        Some(digits) if digits.ends_with(|last: char| last.is_ascii_digit() || last == '.') => digits,
        _ => text,
    }
}
