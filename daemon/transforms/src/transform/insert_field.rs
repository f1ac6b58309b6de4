//! InsertField: what is known of a record, or a fixed text, becomes a field of its key or value.

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Field, Importance, Schema, SchemaRef, Type, Value, logical};

use super::{Transform, Verdict};
use crate::edit::{defaults, fill, require_map, require_struct, struct_fields};
use crate::fault::{Fault, Place};
use crate::path::{FieldPath, is_name};
use crate::plan_cache::PlanCache;
use crate::record::{Record, Side};
use crate::settings::{Settings, with_defaults, with_paths};

const FIX: &str =
    "InsertField adds to a struct or map; wrap the value with HoistField first, or remove the transform";

const SOURCES: [(&str, Source, &str); 5] = [
    ("topic.field", Source::Topic, "The field for the topic."),
    (
        "partition.field",
        Source::Partition,
        "The field for the partition; null where none is stated, as for most records of sources.",
    ),
    (
        "offset.field",
        Source::Offset,
        "The field for the offset in the partition; for sinks only.",
    ),
    (
        "timestamp.field",
        Source::Timestamp,
        "The field for the timestamp.",
    ),
    ("static.field", Source::Static, "The field for a fixed text."),
];

pub(crate) fn config() -> ConfigDef {
    let mut def = ConfigDef::new();
    for (key, _, doc) in SOURCES {
        let doc = format!("{doc} A ! after the name makes it required, a ? optional, which it is anyway.");
        def = def.nullable(key, ConfigType::String, Importance::Medium, &doc);
    }
    def = def
        .nullable(
            "static.value",
            ConfigType::String,
            Importance::Medium,
            "The fixed text.",
        )
        .optional(
            "field.on.missing.parent",
            ConfigType::String,
            "create",
            Importance::Medium,
            "What to do where a struct or map on the way to the field is not there: create it, or ignore the field.",
        )
        .one_of(&["create", "ignore"])
        .optional(
            "field.on.existing.field",
            ConfigType::String,
            "overwrite",
            Importance::Medium,
            "What to do where the field is there already: overwrite it, or ignore the new one.",
        )
        .one_of(&["overwrite", "ignore"]);
    with_defaults(with_paths(def))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Topic,
    Partition,
    Offset,
    Timestamp,
    Static,
}

impl Source {
    fn schema(self, optional: bool) -> SchemaRef {
        let schema = match self {
            Source::Topic | Source::Static => Schema::new(Type::String),
            Source::Partition => Schema::new(Type::Int32),
            Source::Offset => Schema::new(Type::Int64),
            Source::Timestamp => Schema::new(Type::Int64)
                .named(logical::CONNECT_TIMESTAMP)
                .version(1),
        };
        Arc::new(if optional { schema.optional() } else { schema })
    }
}

struct Insertion {
    path: FieldPath,
    source: Source,
    optional: bool,
}

#[derive(Clone, Copy)]
struct Manner {
    creates_parents: bool,
    overwrites: bool,
}

pub(crate) struct InsertField {
    side: Side,
    replaces_null: bool,
    insertions: Vec<Insertion>,
    manner: Manner,
    text: String,
    plans: PlanCache<Plan>,
}

struct Plan {
    schema: SchemaRef,
    width: usize,
    defaults: Vec<(usize, Value)>,
    /// By insertion: how its value gets to its place.
    ways: Vec<Way>,
}

/// The way of a value to its field.
#[derive(Debug)]
enum Way {
    /// Into the struct at this position.
    Into(usize, Box<Way>),
    /// In place of the field at this position.
    Over(usize),
    /// At the end, within as many new structs.
    Append(usize),
    /// Nowhere.
    Nowhere,
}

impl InsertField {
    pub(crate) fn build(settings: &mut Settings, side: Side) -> Option<Box<dyn Transform>> {
        let mut insertions = Vec::new();
        for (key, source, _) in SOURCES {
            let Some(text) = settings.given(key).map(ToOwned::to_owned) else {
                continue;
            };
            let (name, optional) = match text.strip_suffix('!') {
                Some(name) => (name, false),
                None => (text.strip_suffix('?').unwrap_or(&text), true),
            };
            if let Some(path) = settings.parse_path(key, name) {
                insertions.push(Insertion {
                    path,
                    source,
                    optional,
                });
            }
        }
        let is_static = insertions
            .iter()
            .any(|insertion| insertion.source == Source::Static);
        let text = settings.untrimmed("static.value").map(ToOwned::to_owned);
        match (is_static, &text) {
            (true, None) => settings.problem("static.value", "is missing; static.field needs it"),
            (false, Some(_)) => settings.problem("static.field", "is missing; static.value needs it"),
            (false, None) if insertions.is_empty() => settings.problem(
                "topic.field",
                "is missing, and so are the others; set one of topic.field, partition.field, offset.field, timestamp.field \
                 and static.field",
            ),
            _ => {}
        }
        let manner = Manner {
            creates_parents: settings
                .text("field.on.missing.parent")
                .eq_ignore_ascii_case("create"),
            overwrites: settings
                .text("field.on.existing.field")
                .eq_ignore_ascii_case("overwrite"),
        };
        Some(Box::new(Self {
            side,
            replaces_null: settings.replaces_null(),
            insertions,
            manner,
            text: text.unwrap_or_default(),
            plans: PlanCache::default(),
        }))
    }

    /// What is to insert; none where the record does not say.
    fn value(&self, insertion: &Insertion, record: &Record) -> Result<Option<Value>, Fault> {
        let found = match insertion.source {
            Source::Topic => Some(Value::String((*record.topic).to_owned())),
            Source::Static => Some(Value::String(self.text.clone())),
            Source::Partition => record.partition.map(|number| Value::Int32(number as i32)),
            Source::Timestamp => record.timestamp.map(Value::Int64),
            Source::Offset => match record.offset {
                Some(offset) => Some(Value::Int64(offset as i64)),
                None => {
                    return Err(Fault::missing(
                        Place::Offset,
                        "offset.field is for sinks; remove it from a source",
                    ));
                }
            },
        };
        if found.is_none() && !insertion.optional {
            return Err(Fault::missing(
                match insertion.source {
                    Source::Timestamp => Place::Timestamp,
                    _ => Place::field(self.side, insertion.path.text()),
                },
                "the record does not state it; take the ! after the field's name away, so that it may be null",
            ));
        }
        Ok(found)
    }
}

impl Transform for InsertField {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let (side, manner) = (self.side, self.manner);
        if record.side(side).is_null() {
            return Ok(Verdict::Keep);
        }
        let Some(schema) = record.side(side).schema().cloned() else {
            for insertion in &self.insertions {
                let found = self.value(insertion, record)?;
                let value = record.side_mut(side).value_mut().map_err(Fault::decode(side))?;
                let pairs = require_map(side, value, FIX)?;
                if let Some(found) = found {
                    insert_in_map(pairs, insertion.path.steps(), found, manner);
                }
            }
            return Ok(Verdict::Keep);
        };
        require_struct(side, &schema, FIX)?;
        let (insertions, replaces_null) = (&self.insertions, self.replaces_null);
        let plan = self
            .plans
            .get::<Fault>(&schema, || Ok(plan(&schema, insertions, replaces_null, manner)))?;
        let mut value = record.side_mut(side).take().map_err(Fault::decode(side))?;
        fill(struct_fields(side, &mut value, plan.width)?, &plan.defaults);
        for (insertion, way) in self.insertions.iter().zip(&plan.ways) {
            let found = self.value(insertion, record)?;
            way.put(&mut value, found.unwrap_or(Value::Null));
        }
        record.side_mut(side).set(Some(plan.schema.clone()), value);
        Ok(Verdict::Keep)
    }
}

impl Way {
    fn put(&self, value: &mut Value, found: Value) {
        // A struct on the way that is null stays null: its other fields may not be.
        let Value::Struct(fields) = value else { return };
        match self {
            Way::Nowhere => {}
            Way::Into(index, way) => {
                if let Some(inner) = fields.get_mut(*index) {
                    way.put(inner, found);
                }
            }
            Way::Over(index) => {
                if let Some(field) = fields.get_mut(*index) {
                    *field = found;
                }
            }
            Way::Append(depth) => fields.push((0..*depth).fold(found, |inner, _| Value::Struct(vec![inner]))),
        }
    }
}

fn plan(schema: &SchemaRef, insertions: &[Insertion], replaces_null: bool, manner: Manner) -> Plan {
    // Of the outermost struct, optionality and default go, as with Connect.
    let mut new = (**schema).clone();
    new.optional = false;
    new.default = None;
    let mut ways = Vec::with_capacity(insertions.len());
    for insertion in insertions {
        let leaf = insertion.source.schema(insertion.optional);
        ways.push(insert_in_schema(&mut new, insertion.path.steps(), leaf, manner));
    }
    Plan {
        schema: Arc::new(new),
        width: schema.fields().len(),
        defaults: defaults(schema.fields(), replaces_null),
        ways,
    }
}

/// Puts a field into `schema`, a struct.
fn insert_in_schema(schema: &mut Schema, steps: &[Arc<str>], leaf: SchemaRef, manner: Manner) -> Way {
    let Type::Struct(fields) = &mut schema.ty else {
        return Way::Nowhere;
    };
    let Some((first, rest)) = steps.split_first() else {
        return Way::Nowhere;
    };
    let known = fields.iter().position(|field| field.name == *first);
    match (known, rest.is_empty()) {
        (Some(index), true) if manner.overwrites => {
            fields[index].schema = leaf;
            Way::Over(index)
        }
        (Some(index), false) if matches!(fields[index].schema.ty, Type::Struct(_)) => {
            let mut inner = (*fields[index].schema).clone();
            inner.default = None;
            let way = insert_in_schema(&mut inner, rest, leaf, manner);
            if !matches!(way, Way::Nowhere) {
                fields[index].schema = Arc::new(inner);
            }
            Way::Into(index, Box::new(way))
        }
        (Some(_), _) => Way::Nowhere,
        (None, false) if !manner.creates_parents => Way::Nowhere,
        (None, _) => {
            let wrapped = rest.iter().rev().fold(leaf, |inner, name| {
                Arc::new(Schema::structure(vec![Field::new(name.clone(), inner)]))
            });
            fields.push(Field::new(first.clone(), wrapped));
            Way::Append(rest.len())
        }
    }
}

fn insert_in_map(pairs: &mut Vec<(Value, Value)>, steps: &[Arc<str>], found: Value, manner: Manner) {
    let Some((first, rest)) = steps.split_first() else {
        return;
    };
    let known = pairs
        .iter_mut()
        .find(|(key, _)| is_name(key, first))
        .map(|(_, value)| value);
    match known {
        Some(value) if rest.is_empty() && manner.overwrites => *value = found,
        Some(Value::Map(inner)) => insert_in_map(inner, rest, found, manner),
        None if rest.is_empty() || manner.creates_parents => {
            let wrapped = rest.iter().rev().fold(found, |inner, name| {
                Value::Map(vec![(Value::String((**name).to_owned()), inner)])
            });
            pairs.push((Value::String((**first).to_owned()), wrapped));
        }
        Some(_) | None => {}
    }
}
