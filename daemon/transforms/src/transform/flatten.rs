//! Flatten: the fields of nested structs or maps come to the top, under names joined from those on the way.

use std::collections::HashSet;
use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Field, Importance, Schema, SchemaRef, Type, Value};

use super::{Transform, Verdict};
use crate::edit::{require_map, require_struct, struct_fields};
use crate::fault::{Fault, Place};
use crate::plan_cache::PlanCache;
use crate::record::{Record, Side};
use crate::settings::Settings;

const FIX: &str = "Flatten works on a struct or map; remove the transform, or put it elsewhere in the chain";

pub(crate) fn config() -> ConfigDef {
    ConfigDef::new().optional(
        "delimiter",
        ConfigType::String,
        ".",
        Importance::Medium,
        "What stands between the names on the way.",
    )
}

pub(crate) struct Flatten {
    side: Side,
    delimiter: String,
    plans: PlanCache<Plan>,
}

struct Plan {
    schema: SchemaRef,
    shape: Shape,
    width: usize,
}

/// What the fields of a struct are.
struct Shape(Vec<Part>);

enum Part {
    Value,
    /// A struct, and how many fields it comes to.
    Struct(Shape, usize),
}

impl Flatten {
    pub(crate) fn build(settings: &mut Settings, side: Side) -> Option<Box<dyn Transform>> {
        Some(Box::new(Self {
            side,
            delimiter: settings.untrimmed("delimiter").unwrap_or(".").to_owned(),
            plans: PlanCache::default(),
        }))
    }
}

impl Transform for Flatten {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let side = self.side;
        let datum = record.side_mut(side);
        if datum.is_null() {
            return Ok(Verdict::Keep);
        }
        let schema = datum.schema().cloned();
        let mut value = datum.take().map_err(Fault::decode(side))?;
        let Some(schema) = schema else {
            let pairs = std::mem::take(require_map(side, &mut value, FIX)?);
            let mut flat = Flat {
                side,
                delimiter: &self.delimiter,
                pairs: Vec::with_capacity(pairs.len()),
            };
            flat.add("", pairs)?;
            datum.set(None, Value::Map(flat.pairs));
            return Ok(Verdict::Keep);
        };
        require_struct(side, &schema, FIX)?;
        let delimiter = &self.delimiter;
        let plan = self.plans.get(&schema, || plan(side, &schema, delimiter))?;
        let mut fields = Vec::with_capacity(plan.width);
        plan.shape.pour(side, &mut value, &mut fields)?;
        datum.set(Some(plan.schema.clone()), Value::Struct(fields));
        Ok(Verdict::Keep)
    }
}

impl Shape {
    /// Moves the values of a struct to the end of `out`.
    fn pour(&self, side: Side, value: &mut Value, out: &mut Vec<Value>) -> Result<(), Fault> {
        let fields = struct_fields(side, value, self.0.len())?;
        for (part, field) in self.0.iter().zip(fields) {
            match part {
                Part::Value => out.push(std::mem::replace(field, Value::Null)),
                Part::Struct(_, width) if *field == Value::Null => {
                    out.extend(std::iter::repeat_n(Value::Null, *width));
                }
                Part::Struct(shape, _) => shape.pour(side, field, out)?,
            }
        }
        Ok(())
    }
}

fn plan(side: Side, schema: &SchemaRef, delimiter: &str) -> Result<Plan, Fault> {
    let mut builder = Builder {
        side,
        delimiter,
        fields: Vec::new(),
        names: HashSet::new(),
    };
    let shape = builder.flatten(schema, "", schema.optional, schema.default.as_ref())?;
    let width = builder.fields.len();
    // Of the struct itself, optionality and default go, as with Connect.
    let mut new = (**schema).clone();
    new.optional = false;
    new.default = None;
    new.ty = Type::Struct(builder.fields);
    Ok(Plan {
        schema: Arc::new(new),
        shape,
        width,
    })
}

struct Builder<'a> {
    side: Side,
    delimiter: &'a str,
    fields: Vec<Field>,
    names: HashSet<Arc<str>>,
}

impl Builder<'_> {
    /// Adds the fields of a struct: optional where something above is, with the default that something above has for them.
    fn flatten(
        &mut self,
        schema: &Schema,
        prefix: &str,
        optional: bool,
        default: Option<&Value>,
    ) -> Result<Shape, Fault> {
        let mut parts = Vec::with_capacity(schema.fields().len());
        for (index, field) in schema.fields().iter().enumerate() {
            let name = joined(prefix, self.delimiter, &field.name);
            let optional = optional || field.schema.optional;
            let from_above = match default {
                Some(Value::Struct(fields)) => fields.get(index),
                _ => None,
            };
            let default = field
                .schema
                .default
                .as_ref()
                .or(from_above)
                .filter(|value| **value != Value::Null);
            match &field.schema.ty {
                Type::Struct(_) => {
                    let before = self.fields.len();
                    let shape = self.flatten(&field.schema, &name, optional, default)?;
                    parts.push(Part::Struct(shape, self.fields.len() - before));
                }
                Type::Map(..) => return Err(no_map(self.side, name)),
                _ => {
                    let same = field.schema.optional == optional && field.schema.default.as_ref() == default;
                    let new = if same {
                        field.schema.clone()
                    } else {
                        let mut new = (*field.schema).clone();
                        new.optional = optional;
                        new.default = default.cloned();
                        Arc::new(new)
                    };
                    let name: Arc<str> = name.into();
                    if !self.names.insert(name.clone()) {
                        return Err(Fault::wrong_type(
                            Place::field(self.side, &*name),
                            "two fields, once flattened",
                            "one",
                            "set another delimiter, or rename one of the two first",
                        ));
                    }
                    self.fields.push(Field::new(name, new));
                    parts.push(Part::Value);
                }
            }
        }
        Ok(Shape(parts))
    }
}

fn no_map(side: Side, name: String) -> Fault {
    Fault::wrong_type(
        Place::Field(side, name),
        "map",
        "anything but a map",
        "a map's keys differ from record to record, and a struct's may not; drop the field first, with ReplaceField",
    )
}

fn joined(prefix: &str, delimiter: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}{delimiter}{name}")
    }
}

struct Flat<'a> {
    side: Side,
    delimiter: &'a str,
    pairs: Vec<(Value, Value)>,
}

impl Flat<'_> {
    fn add(&mut self, prefix: &str, pairs: Vec<(Value, Value)>) -> Result<(), Fault> {
        for (key, value) in pairs {
            let Value::String(key) = key else {
                return Err(Fault::wrong_type(
                    if prefix.is_empty() {
                        Place::Whole(self.side)
                    } else {
                        Place::field(self.side, prefix)
                    },
                    "map with keys other than strings",
                    "map with strings as keys",
                    "drop the field first, with ReplaceField",
                ));
            };
            let name = joined(prefix, self.delimiter, &key);
            match value {
                Value::Map(inner) => self.add(&name, inner)?,
                value => self.pairs.push((Value::String(name), value)),
            }
        }
        Ok(())
    }
}
