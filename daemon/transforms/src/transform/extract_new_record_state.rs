//! ExtractNewRecordState: the row out of a change event in Debezium's envelope, with what is asked for of the rest.

mod field_reference;
mod row_plan;

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance, Schema, SchemaRef, Type, Value};

use self::field_reference::FieldReference;
use self::row_plan::{Envelope, untyped};
use super::envelope::{OPERATION, is_envelope};
use super::{Transform, Verdict};
use crate::edit::struct_fields;
use crate::fault::{Fault, Place};
use crate::plan_cache::PlanCache;
use crate::record::{Datum, Header, Record, Side};
use crate::settings::Settings;

const SIDE: Side = Side::Value;
const DELETED: &str = "__deleted";

pub(crate) fn config() -> ConfigDef {
    ConfigDef::new()
        .nullable(
            "delete.tombstone.handling.mode",
            ConfigType::String,
            Importance::Medium,
            "What becomes of deletes and their tombstones. tombstone, the default: a delete becomes a tombstone, and the one \
             that follows goes. drop: both go. rewrite: a delete becomes the row as it was, and every row says in __deleted \
             whether it is gone; tombstones go. rewrite-with-tombstone: the same, and tombstones stay.",
        )
        .one_of(&["drop", "tombstone", "rewrite", "rewrite-with-tombstone"])
        .nullable(
            "drop.tombstones",
            ConfigType::Boolean,
            Importance::Low,
            "Whether tombstones go; the older key, as is delete.handling.mode. True where only that one is given.",
        )
        .nullable(
            "delete.handling.mode",
            ConfigType::String,
            Importance::Medium,
            "What becomes of deletes: drop, rewrite, or none for a tombstone; the older key, as is drop.tombstones. drop where \
             only that one is given.",
        )
        .one_of(&["drop", "rewrite", "none"])
        .optional(
            "route.by.field",
            ConfigType::String,
            "",
            Importance::Low,
            "A field of the row whose text becomes the topic.",
        )
        .optional(
            "add.fields",
            ConfigType::List,
            "",
            Importance::Low,
            "Parts of the event to add to the row: op, ts_ms, table, source.lsn, transaction.id; with :name, under that name.",
        )
        .optional(
            "add.fields.prefix",
            ConfigType::String,
            "__",
            Importance::Low,
            "What the names of added fields begin with.",
        )
        .optional(
            "add.headers",
            ConfigType::List,
            "",
            Importance::Low,
            "Parts of the event to make headers of, as for add.fields.",
        )
        .optional(
            "add.headers.prefix",
            ConfigType::String,
            "__",
            Importance::Low,
            "What the names of added headers begin with.",
        )
}

/// What becomes of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delete {
    Drop,
    Tombstone,
    Rewrite,
}

pub(crate) struct ExtractNewRecordState {
    delete: Delete,
    drops_tombstones: bool,
    route_by: Option<String>,
    fields: Vec<FieldReference>,
    headers: Vec<FieldReference>,
    text: SchemaRef,
    plans: PlanCache<Option<Envelope>>,
}

impl ExtractNewRecordState {
    pub(crate) fn build(settings: &mut Settings) -> Option<Box<dyn Transform>> {
        let mode = |key: &str| settings.given(key).map(str::to_ascii_lowercase);
        let (combined, delete, drops) = (
            mode("delete.tombstone.handling.mode"),
            mode("delete.handling.mode"),
            mode("drop.tombstones"),
        );
        let (delete, drops_tombstones) = match combined.as_deref() {
            None if delete.is_some() || drops.is_some() => {
                let delete = match delete.as_deref() {
                    Some("rewrite") => Delete::Rewrite,
                    Some("none") => Delete::Tombstone,
                    _ => Delete::Drop,
                };
                (delete, drops.as_deref() != Some("false"))
            }
            None | Some("tombstone") => (Delete::Tombstone, true),
            Some("rewrite") => (Delete::Rewrite, true),
            Some("rewrite-with-tombstone") => (Delete::Rewrite, false),
            Some(_) => (Delete::Drop, true),
        };
        let mut references = |list: &str, prefix: &str| {
            let prefix = settings.text(prefix).to_owned();
            let mut references = Vec::new();
            for text in settings.list(list) {
                match FieldReference::parse(&text, &prefix) {
                    Ok(reference) => references.push(reference),
                    Err(error) => settings.problem(list, error),
                }
            }
            references
        };
        Some(Box::new(Self {
            delete,
            drops_tombstones,
            fields: references("add.fields", "add.fields.prefix"),
            headers: references("add.headers", "add.headers.prefix"),
            route_by: settings.given("route.by.field").map(ToOwned::to_owned),
            text: Arc::new(Schema::new(Type::String)),
            plans: PlanCache::default(),
        }))
    }

    fn tombstone(&self, record: &mut Record) -> Verdict {
        if self.drops_tombstones {
            return Verdict::Drop;
        }
        for header in &self.headers {
            if header.is_operation() {
                let delete = Datum::new(Some(self.text.clone()), Value::String("d".into()));
                record.headers.push(Header::new(header.name.clone(), delete));
            }
        }
        Verdict::Keep
    }

    fn typed(&self, record: &mut Record, envelope: &Envelope) -> Result<Verdict, Fault> {
        let mut value = record.value.take().map_err(Fault::decode(SIDE))?;
        let fields = struct_fields(SIDE, &mut value, envelope.width)?;
        if let Some(Value::String(op)) = envelope.operation.and_then(|index| fields.get(index))
            && op == "t"
        {
            return Ok(Verdict::Drop);
        }
        let deleted = matches!(fields.get(envelope.after.index), Some(Value::Null));
        if deleted && self.delete == Delete::Drop {
            return Ok(Verdict::Drop);
        }
        let row = if deleted {
            envelope.before.as_ref()
        } else {
            Some(&envelope.after)
        };
        let Some(row) = row else {
            return Err(Fault::missing(
                Place::field(SIDE, super::envelope::BEFORE),
                "set delete.tombstone.handling.mode to tombstone or drop, or let the source state the row before a change",
            ));
        };
        for (name, source) in &envelope.headers {
            let found = source.get(fields);
            record.headers.push(Header::new(
                name.clone(),
                Datum::new(Some(source.schema.clone()), found),
            ));
        }
        if let Some((index, name)) = row.route.as_ref().zip(self.route_by.as_ref())
            && let Some(Value::Struct(columns)) = fields.get(row.index)
        {
            route(&mut record.topic, columns.get(*index), name)?;
        }
        if deleted && self.delete == Delete::Tombstone {
            record.value.set(Some(envelope.after.bare.clone()), Value::Null);
            return Ok(Verdict::Keep);
        }
        let added: Vec<Value> = row.added.iter().map(|source| source.get(fields)).collect();
        let mut new = std::mem::replace(&mut fields[row.index], Value::Null);
        match &mut new {
            // A delete whose source does not state the row: there is nothing to rewrite.
            Value::Null => return Ok(Verdict::Drop),
            Value::Struct(columns) if row.extended => {
                if self.delete == Delete::Rewrite {
                    columns.push(Value::String(if deleted { "true" } else { "false" }.into()));
                }
                columns.extend(added);
            }
            _ => {}
        }
        record.value.set(Some(row.schema.clone()), new);
        Ok(Verdict::Keep)
    }
}

/// Sends a record to the topic that a field of its row names, where it names one.
fn route(topic: &mut Arc<str>, found: Option<&Value>, field: &str) -> Result<(), Fault> {
    match found {
        Some(Value::String(name)) if !name.trim().is_empty() => {
            if **topic != **name {
                *topic = name.as_str().into();
            }
            Ok(())
        }
        None | Some(Value::Null | Value::String(_)) => Ok(()),
        Some(other) => Err(Fault::wrong_type(
            Place::field(SIDE, field),
            other.kind(),
            "string",
            "name a text field in route.by.field",
        )),
    }
}

impl Transform for ExtractNewRecordState {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        if record.value.is_null() {
            return Ok(self.tombstone(record));
        }
        let Some(schema) = record.value.schema().cloned() else {
            return self.untyped(record);
        };
        let wanted = row_plan::Wanted {
            fields: &self.fields,
            headers: &self.headers,
            route_by: self.route_by.as_deref(),
            marks: self.delete == Delete::Rewrite,
        };
        let plan = self.plans.get(&schema, || {
            if is_envelope(&schema) {
                Envelope::new(&schema, &wanted).map(Some)
            } else {
                Ok(None)
            }
        })?;
        match &*plan {
            Some(envelope) => self.typed(record, envelope),
            // Heartbeats, schema changes and what else is no change of a row.
            None => Ok(Verdict::Keep),
        }
    }
}

impl ExtractNewRecordState {
    /// A change event without schema: a map with the parts of an envelope.
    fn untyped(&self, record: &mut Record) -> Result<Verdict, Fault> {
        let value = record.value.value_mut().map_err(Fault::decode(SIDE))?;
        let Some(mut parts) = untyped(value) else {
            return Ok(Verdict::Keep);
        };
        if matches!(parts.get(OPERATION), Some(Value::String(op)) if op == "t") {
            return Ok(Verdict::Drop);
        }
        let deleted = parts.row_is_gone();
        if deleted && self.delete == Delete::Drop {
            return Ok(Verdict::Drop);
        }
        for header in &self.headers {
            if let Some(found) = parts.find(header) {
                let found = Datum::new(None, found.clone());
                record.headers.push(Header::new(header.name.clone(), found));
            }
        }
        let added: Vec<(Value, Value)> = self
            .fields
            .iter()
            .filter_map(|reference| {
                let found = parts.find(reference)?.clone();
                Some((Value::String((*reference.name).to_owned()), found))
            })
            .collect();
        let mut row = parts.take_row(deleted);
        if let (Some(field), Value::Map(columns)) = (&self.route_by, &row) {
            let found = columns
                .iter()
                .find(|(key, _)| crate::path::is_name(key, field))
                .map(|(_, value)| value);
            route(&mut record.topic, found, field)?;
        }
        if deleted && self.delete == Delete::Tombstone {
            record.value.set(None, Value::Null);
            return Ok(Verdict::Keep);
        }
        match &mut row {
            Value::Null => return Ok(Verdict::Drop),
            Value::Map(columns) => {
                if self.delete == Delete::Rewrite {
                    let gone = Value::String(if deleted { "true" } else { "false" }.into());
                    columns.push((Value::String(DELETED.into()), gone));
                }
                columns.extend(added);
            }
            _ => {}
        }
        record.value.set(None, row);
        Ok(Verdict::Keep)
    }
}
