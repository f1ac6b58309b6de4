//! Where the parts of a change event are, worked out once for its schema.

use std::sync::Arc;

use tidewater_plugin_api::{Field, Schema, SchemaRef, Type, Value};

use super::super::envelope::{AFTER, BEFORE, OPERATION};
use super::field_reference::FieldReference;
use super::{DELETED, SIDE};
use crate::fault::{Fault, Place};
use crate::path::{is_name, value_at};

/// What a configuration asks for.
pub(super) struct Wanted<'a> {
    pub fields: &'a [FieldReference],
    pub headers: &'a [FieldReference],
    pub route_by: Option<&'a str>,
    /// Whether rows say if they are gone.
    pub marks: bool,
}

/// A part of the event.
#[derive(Clone, Debug)]
pub(super) struct Source {
    indices: Vec<usize>,
    /// Its schema, optional, since a struct on the way may be null.
    pub schema: SchemaRef,
}

impl Source {
    fn find(schema: &SchemaRef, reference: &FieldReference) -> Option<Self> {
        let in_event = || {
            schema
                .field(&reference.field)
                .map(|(index, field)| (vec![index], field))
        };
        let found = match &reference.parent {
            None => in_event(),
            Some(parent) => schema
                .field(parent)
                .and_then(|(outer, parent)| {
                    let (inner, field) = parent.schema.field(&reference.field)?;
                    Some((vec![outer, inner], field))
                })
                // Another transform may have put it at the top.
                .or_else(in_event),
        };
        let (indices, field) = found?;
        let mut schema = (*field.schema).clone();
        schema.optional = true;
        schema.default = None;
        Some(Self {
            indices,
            schema: Arc::new(schema),
        })
    }

    pub(super) fn get(&self, event: &[Value]) -> Value {
        let (first, rest) = self.indices.split_first().unwrap_or((&usize::MAX, &[]));
        let found = event.get(*first).and_then(|value| value_at(value, rest));
        found.cloned().unwrap_or(Value::Null)
    }
}

/// The row before or after the change.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Its position in the event.
    pub index: usize,
    /// Its schema in the event.
    pub bare: SchemaRef,
    /// Its schema with what is added.
    pub schema: SchemaRef,
    /// Whether there is something to add.
    pub extended: bool,
    pub added: Vec<Source>,
    /// The position of the field that names the topic.
    pub route: Option<usize>,
}

impl Row {
    fn new(event: &SchemaRef, name: &str, wanted: &Wanted<'_>) -> Result<Option<Self>, Fault> {
        let Some((index, field)) = event.field(name) else {
            return Ok(None);
        };
        let bare = field.schema.clone();
        let mut row = Self {
            index,
            schema: bare.clone(),
            bare,
            extended: false,
            added: Vec::new(),
            route: None,
        };
        let Type::Struct(columns) = &row.bare.ty else {
            return Ok(Some(row));
        };
        let mut fields = columns.clone();
        if wanted.marks {
            let text = Schema::new(Type::String).optional();
            add(&mut fields, DELETED.into(), Arc::new(text))?;
        }
        for reference in wanted.fields {
            if let Some(source) = Source::find(event, reference) {
                add(&mut fields, reference.name.clone(), source.schema.clone())?;
                row.added.push(source);
            }
        }
        if fields.len() > columns.len() {
            // What is extended is a schema of its own: not optional, and without default, as with Debezium.
            let mut new = (*row.bare).clone();
            new.optional = false;
            new.default = None;
            new.ty = Type::Struct(fields);
            row.schema = Arc::new(new);
            row.extended = true;
        }
        if let Some(name) = wanted.route_by {
            let Some((at, _)) = row.bare.field(name) else {
                return Err(Fault::missing(
                    Place::field(SIDE, name),
                    "name a field of the row in route.by.field",
                ));
            };
            row.route = Some(at);
        }
        Ok(Some(row))
    }
}

fn add(fields: &mut Vec<Field>, name: Arc<str>, schema: SchemaRef) -> Result<(), Fault> {
    if fields.iter().any(|field| field.name == name) {
        return Err(Fault::wrong_type(
            Place::field(SIDE, &*name),
            "a field of the row",
            "a name that is free",
            "set add.fields.prefix, or give the field a name of its own with :name",
        ));
    }
    fields.push(Field::new(name, schema));
    Ok(())
}

/// The parts of events of one schema.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub width: usize,
    pub operation: Option<usize>,
    pub before: Option<Row>,
    pub after: Row,
    pub headers: Vec<(Arc<str>, Source)>,
}

impl Envelope {
    pub(super) fn new(schema: &SchemaRef, wanted: &Wanted<'_>) -> Result<Self, Fault> {
        let after = Row::new(schema, AFTER, wanted)?.ok_or_else(|| {
            Fault::missing(
                Place::field(SIDE, AFTER),
                "the schema's name says it is a change event, but it has no row; give it another name",
            )
        })?;
        let header = |reference: &FieldReference| {
            let source = Source::find(schema, reference)?;
            Some((reference.name.clone(), source))
        };
        Ok(Self {
            width: schema.fields().len(),
            operation: schema.field(OPERATION).map(|(index, _)| index),
            before: Row::new(schema, BEFORE, wanted)?,
            after,
            headers: wanted.headers.iter().filter_map(header).collect(),
        })
    }
}

/// A change event without schema.
pub(super) struct Parts<'a>(&'a mut Vec<(Value, Value)>);

/// `value` as a change event; none where it is something else.
pub(super) fn untyped(value: &mut Value) -> Option<Parts<'_>> {
    let Value::Map(pairs) = value else { return None };
    let has = |name: &str| pairs.iter().any(|(key, _)| is_name(key, name));
    (has(OPERATION) && has(AFTER) && has(super::super::envelope::SOURCE)).then_some(Parts(pairs))
}

impl Parts<'_> {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(key, _)| is_name(key, name))
            .map(|(_, value)| value)
    }

    pub(super) fn row_is_gone(&self) -> bool {
        matches!(self.get(AFTER), None | Some(Value::Null))
    }

    pub(super) fn find(&self, reference: &FieldReference) -> Option<&Value> {
        let inner = reference
            .parent
            .as_ref()
            .and_then(|parent| match self.get(parent)? {
                Value::Map(pairs) => pairs
                    .iter()
                    .find(|(key, _)| is_name(key, &reference.field))
                    .map(|(_, value)| value),
                _ => None,
            });
        inner.or_else(|| self.get(&reference.field))
    }

    /// Takes the row out: as it was before where it is gone.
    pub(super) fn take_row(&mut self, gone: bool) -> Value {
        let name = if gone { BEFORE } else { AFTER };
        let found = self.0.iter_mut().find(|(key, _)| is_name(key, name));
        found.map_or(Value::Null, |(_, value)| std::mem::replace(value, Value::Null))
    }
}
