//! What a record asks for: change events in Debezium's envelope, flat records and tombstones.

use tidewater_plugin_api::value::{DecodeError, StructRef};
use tidewater_plugin_api::{Schema, SchemaRef, Type, ValueRef};

/// What the values of one schema are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A change event; positions of its fields.
    Envelope(Envelope),
    /// The row itself.
    Flat,
    /// Nothing that concerns a table: heartbeats, messages, transaction markers.
    Aside,
    /// No value: a tombstone.
    Tombstone,
    /// Something that has no columns; what it is.
    Unusable(String),
}

/// Where the parts of an envelope stand among its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    after: usize,
    op: usize,
    source: Option<usize>,
}

const ASIDE: [&str; 4] = [
    "io.debezium.connector.common.Heartbeat",
    "io.debezium.connector.common.TransactionMetadataValue",
    "io.debezium.connector.postgresql.MessageValue",
    "io.debezium.connector.postgresql.SchemaChangeValue",
];

impl Shape {
    /// What values of `schema` are.
    pub fn of(schema: Option<&Schema>) -> Self {
        let Some(schema) = schema else {
            return Shape::Unusable(
                "the value has no schema; use a converter that keeps schemas (value.converter.schemas.enable=true)".into(),
            );
        };
        let name = schema.name.as_deref().unwrap_or_default();
        let Type::Struct(fields) = &schema.ty else {
            return Shape::Unusable(format!(
                "the value is {}, and only a struct has columns",
                schema.ty.name()
            ));
        };
        if ASIDE.contains(&name) {
            return Shape::Aside;
        }
        let at = |field: &str| schema.field(field).map(|(index, _)| index);
        match (at("before"), at("after"), at("op")) {
            (Some(_), Some(after), Some(op))
                if matches!(fields[after].schema.ty, Type::Struct(_))
                    && fields[op].schema.ty == Type::String =>
            {
                Shape::Envelope(Envelope {
                    after,
                    op,
                    source: at("source")
                        .filter(|&source| matches!(fields[source].schema.ty, Type::Struct(_))),
                })
            }
            _ => Shape::Flat,
        }
    }

    /// The schema of the rows in values of `schema`.
    pub fn row_schema<'a>(&self, schema: Option<&'a SchemaRef>) -> Option<&'a SchemaRef> {
        match self {
            Shape::Envelope(envelope) => Some(&schema?.fields()[envelope.after].schema),
            Shape::Flat => schema,
            Shape::Aside | Shape::Tombstone | Shape::Unusable(_) => None,
        }
    }
}

/// What a record asks for.
#[derive(Clone, Copy, PartialEq)]
pub enum Change<'a> {
    /// The row is now this.
    Write(StructRef<'a>),
    /// The row of the record's key is gone.
    Delete,
    /// All rows are gone.
    Truncate,
    /// Nothing for a table.
    Nothing,
}

/// A record's value, opened.
#[derive(Clone, Copy)]
pub struct Event<'a> {
    /// What it asks for.
    pub change: Change<'a>,
    /// Schema and table of the source block.
    pub source: Option<(&'a str, &'a str)>,
}

/// Opens `value`, whose shape is `shape`. The source block is read only where `with_source`.
pub fn open<'a>(shape: &Shape, value: ValueRef<'a>, with_source: bool) -> Result<Event<'a>, DecodeError> {
    let plain = |change| Ok(Event { change, source: None });
    match (shape, value) {
        (_, ValueRef::Null) => plain(Change::Delete),
        (Shape::Flat, ValueRef::Struct(row)) => plain(Change::Write(row)),
        (Shape::Envelope(envelope), ValueRef::Struct(parts)) => envelope.open(parts, with_source),
        (Shape::Unusable(why), _) => Err(DecodeError(why.clone())),
        _ => plain(Change::Nothing),
    }
}

impl Envelope {
    fn open<'a>(&self, parts: StructRef<'a>, with_source: bool) -> Result<Event<'a>, DecodeError> {
        let (mut after, mut op, mut source) = (None, "", None);
        let last = self
            .after
            .max(self.op)
            .max(if with_source { self.source.unwrap_or(0) } else { 0 });
        for (index, part) in parts.iter().enumerate().take(last + 1) {
            let (_, value) = part?;
            if index == self.after {
                after = value.as_struct();
            } else if index == self.op {
                op = value.as_str().unwrap_or_default();
            } else if with_source && Some(index) == self.source {
                source = value.as_struct();
            }
        }
        let change = match (op, after) {
            ("c" | "r" | "u", Some(row)) => Change::Write(row),
            ("c" | "r" | "u", None) => {
                return Err(DecodeError(format!(
                    "the event's op is {op:?}, but its after is null"
                )));
            }
            ("d", _) => Change::Delete,
            ("t", _) => Change::Truncate,
            ("m", _) => Change::Nothing,
            (other, _) => {
                return Err(DecodeError(format!(
                    "the event's op is {other:?}; expected c, r, u, d, t or m"
                )));
            }
        };
        let source = source.map(names).transpose()?.flatten();
        Ok(Event { change, source })
    }
}

fn names(source: StructRef<'_>) -> Result<Option<(&str, &str)>, DecodeError> {
    let (mut schema, mut table) = (None, None);
    for field in source.iter() {
        let (field, value) = field?;
        match &*field.name {
            "schema" => schema = value.as_str(),
            "table" => table = value.as_str(),
            _ => {}
        }
    }
    Ok(table.map(|table| (schema.unwrap_or_default(), table)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tidewater_plugin_api::Field;

    #[test]
    fn envelopes_are_told_from_rows() {
        let row = Arc::new(Schema::structure(vec![Field::new("id", Schema::new(Type::Int32))]).optional());
        let envelope = Schema::structure(vec![
            Field::new("before", row.clone()),
            Field::new("after", row.clone()),
            Field::new("op", Schema::new(Type::String)),
        ]);
        assert!(matches!(Shape::of(Some(&envelope)), Shape::Envelope(_)));
        assert_eq!(Shape::of(Some(&row)), Shape::Flat);
        assert!(matches!(Shape::of(None), Shape::Unusable(_)));
        assert!(matches!(
            Shape::of(Some(&Schema::new(Type::String))),
            Shape::Unusable(_)
        ));
    }
}
