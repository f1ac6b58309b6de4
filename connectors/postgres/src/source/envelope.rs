//! The records: Debezium's envelope, field for field, written straight from PostgreSQL's text into the batch.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pgwire_replication::Lsn;
use tidewater_plugin_api::frame::SchemaId;
use tidewater_plugin_api::{
    Error, Field, FrameBuilder, Result, Schema, SchemaRef, Type, Value, ValueRef, ValueWriter, logical,
};

use super::relation::{Misfit, Part, Relation};
use super::row::Row;
use super::settings::Settings;

/// The header that names columns whose values PostgreSQL did not send and whose types have room for no placeholder.
pub(crate) const UNAVAILABLE_HEADER: &str = "__unavailable.columns";
const NEW_KEY_HEADER: &str = "__debezium.newkey";
const OLD_KEY_HEADER: &str = "__debezium.oldkey";

/// The schema of a table's records.
pub(crate) fn schema(prefix: &str, before: Schema, after: Schema) -> Schema {
    let optional = |ty| Schema::new(ty).optional();
    let transaction = Schema::structure(vec![
        Field::new("id", Schema::new(Type::String)),
        Field::new("total_order", Schema::new(Type::Int64)),
        Field::new("data_collection_order", Schema::new(Type::Int64)),
    ])
    .named("event.block")
    .version(1)
    .optional();
    Schema::structure(vec![
        Field::new("before", before),
        Field::new("after", after),
        Field::new("source", source_schema()),
        Field::new("transaction", transaction),
        Field::new("op", Schema::new(Type::String)),
        Field::new("ts_ms", optional(Type::Int64)),
        Field::new("ts_us", optional(Type::Int64)),
        Field::new("ts_ns", optional(Type::Int64)),
    ])
    .named(format!("{prefix}.Envelope"))
    .version(2)
}

fn source_schema() -> Schema {
    let required = |name: &str, ty| Field::new(name, Schema::new(ty));
    let optional = |name: &str, ty| Field::new(name, Schema::new(ty).optional());
    let snapshot = Schema::new(Type::String)
        .named(logical::ENUM)
        .version(1)
        .parameter(
            "allowed",
            "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental",
        )
        .default_value(Value::String("false".to_owned()))
        .optional();
    Schema::structure(vec![
        required("version", Type::String),
        required("connector", Type::String),
        required("name", Type::String),
        required("ts_ms", Type::Int64),
        Field::new("snapshot", snapshot),
        required("db", Type::String),
        optional("sequence", Type::String),
        optional("ts_us", Type::Int64),
        optional("ts_ns", Type::Int64),
        required("schema", Type::String),
        required("table", Type::String),
        optional("txId", Type::Int64),
        optional("lsn", Type::Int64),
        optional("xmin", Type::Int64),
    ])
    .named("io.debezium.connector.postgresql.Source")
    .version(1)
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    /// Read by a snapshot.
    Read,
    Truncate,
}

impl Operation {
    fn letter(self) -> &'static str {
        match self {
            Operation::Create => "c",
            Operation::Update => "u",
            Operation::Delete => "d",
            Operation::Read => "r",
            Operation::Truncate => "t",
        }
    }
}

/// Where a change comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    /// When it was committed or read, in microseconds since 1970.
    pub(crate) micros: i64,
    /// `false` in the stream.
    pub(crate) snapshot: &'static str,
    /// The end of the last transaction before.
    pub(crate) last_commit: Option<Lsn>,
    pub(crate) lsn: Lsn,
    pub(crate) xid: Option<u32>,
}

/// A change of a row, as it becomes a record.
#[derive(Clone, Copy, Debug)]
struct Change<'a> {
    operation: Operation,
    /// The row whose key is the record's.
    key: Option<Row<'a>>,
    before: Option<Row<'a>>,
    after: Option<Row<'a>>,
    /// Where values that were not sent may be found.
    old: Option<Row<'a>>,
    /// A header with the key of another row.
    other_key: Option<(&'static str, Row<'a>)>,
}

/// Writes records into batches.
pub(crate) struct Emitter {
    /// The encoded fields `version`, `connector` and `name` of `source`.
    source_head: Vec<u8>,
    /// The encoded field `db`.
    database: Vec<u8>,
    server_name: String,
    heartbeat_topic: String,
    placeholder: String,
    tombstones: bool,
    names_schema: SchemaRef,
    heartbeat_key: SchemaRef,
    heartbeat_value: SchemaRef,
    /// Changes with each batch.
    epoch: u64,
    /// How many records have been written.
    pub(crate) records: u64,
    unavailable: Vec<usize>,
}

impl Emitter {
    /// Writes records as `settings` say.
    pub(crate) fn new(settings: &Settings) -> Self {
        let mut source_head = Vec::new();
        let mut writer = ValueWriter::new(&mut source_head);
        writer.string(env!("CARGO_PKG_VERSION"));
        writer.string("postgresql");
        writer.string(&settings.topic_prefix);
        let mut database = Vec::new();
        ValueWriter::new(&mut database).string(&settings.server.database);
        let one_field = |name: &str, field: &str, ty| {
            Arc::new(Schema::structure(vec![Field::new(field, Schema::new(ty))]).named(name))
        };
        Self {
            source_head,
            database,
            server_name: settings.topic_prefix.clone(),
            heartbeat_topic: settings.heartbeat_topic.clone(),
            placeholder: settings.placeholder.clone(),
            tombstones: settings.tombstones,
            names_schema: Arc::new(Schema::array(Schema::new(Type::String))),
            heartbeat_key: one_field(
                "io.debezium.connector.common.ServerNameKey",
                "serverName",
                Type::String,
            ),
            heartbeat_value: one_field("io.debezium.connector.common.Heartbeat", "ts_ms", Type::Int64),
            epoch: 0,
            records: 0,
            unavailable: Vec::new(),
        }
    }

    /// Another batch may come now: what relations are called in it is asked anew.
    pub(crate) fn begin_batch(&mut self) {
        self.epoch += 1;
    }

    /// A row that was inserted, or read by a snapshot.
    pub(crate) fn row(
        &mut self,
        batch: &mut FrameBuilder,
        relation: &mut Relation,
        operation: Operation,
        row: Row<'_>,
        origin: Origin,
    ) -> Result<()> {
        let change = Change {
            operation,
            key: Some(row),
            before: None,
            after: Some(row),
            old: None,
            other_key: None,
        };
        self.record(batch, relation, change, origin)
    }

    /// A row that was updated. A change of its key is a delete and an insert, since they belong to two keys.
    pub(crate) fn update(
        &mut self,
        batch: &mut FrameBuilder,
        relation: &mut Relation,
        old: Option<Row<'_>>,
        new: Row<'_>,
        origin: Origin,
    ) -> Result<()> {
        match old {
            Some(old) if relation.key_differs(old, new) => {
                self.removal(batch, relation, old, Some((NEW_KEY_HEADER, new)), origin)?;
                let change = Change {
                    operation: Operation::Create,
                    key: Some(new),
                    before: None,
                    after: Some(new),
                    old: Some(old),
                    other_key: Some((OLD_KEY_HEADER, old)),
                };
                self.record(batch, relation, change, origin)
            }
            _ => {
                let change = Change {
                    operation: Operation::Update,
                    key: Some(new),
                    before: old,
                    after: Some(new),
                    old,
                    other_key: None,
                };
                self.record(batch, relation, change, origin)
            }
        }
    }

    /// A row that was deleted.
    pub(crate) fn delete(
        &mut self,
        batch: &mut FrameBuilder,
        relation: &mut Relation,
        old: Row<'_>,
        origin: Origin,
    ) -> Result<()> {
        self.removal(batch, relation, old, None, origin)
    }

    fn removal(
        &mut self,
        batch: &mut FrameBuilder,
        relation: &mut Relation,
        old: Row<'_>,
        other_key: Option<(&'static str, Row<'_>)>,
        origin: Origin,
    ) -> Result<()> {
        let change = Change {
            operation: Operation::Delete,
            key: Some(old),
            before: Some(old),
            after: None,
            old: None,
            other_key,
        };
        self.record(batch, relation, change, origin)?;
        if !self.tombstones || relation.key_schema().is_none() {
            return Ok(());
        }
        // The key has just been written once, so it fits.
        let ids = relation.ids(batch, self.epoch)?;
        let mut misfit = None;
        let mut record = batch.record(ids.topic);
        record.key(ids.key, |out| misfit = relation.write_key(old, out).err());
        if misfit.is_none() {
            record.push()?;
            self.records += 1;
        }
        Ok(())
    }

    /// A table that was emptied.
    pub(crate) fn truncate(
        &mut self,
        batch: &mut FrameBuilder,
        relation: &mut Relation,
        origin: Origin,
    ) -> Result<()> {
        let change = Change {
            operation: Operation::Truncate,
            key: None,
            before: None,
            after: None,
            old: None,
            other_key: None,
        };
        self.record(batch, relation, change, origin)
    }

    fn record(
        &mut self,
        batch: &mut FrameBuilder,
        relation: &mut Relation,
        change: Change<'_>,
        origin: Origin,
    ) -> Result<()> {
        loop {
            match self.attempt(batch, relation, &change, origin)? {
                None => {
                    self.records += 1;
                    return Ok(());
                }
                // Nothing was pushed. Each adaptation makes the schema hold more, so this ends.
                Some((misfit, row)) => relation.adapt(misfit, row)?,
            }
        }
    }

    /// Pushes the record; or answers the cell that does not fit its schema, and its row.
    fn attempt<'a>(
        &mut self,
        batch: &mut FrameBuilder,
        relation: &mut Relation,
        change: &Change<'a>,
        origin: Origin,
    ) -> Result<Option<(Misfit, Row<'a>)>> {
        let ids = relation.ids(batch, self.epoch)?;
        let names_id = if change.operation == Operation::Update || change.other_key.is_some() {
            batch.schema(&self.names_schema)?
        } else {
            SchemaId::NONE
        };
        let relation = &*relation;
        self.unavailable.clear();
        let mut misfit: Option<(Misfit, Row<'a>)> = None;
        let mut record = batch.record(ids.topic);
        if let (Some(row), Some(_)) = (change.key, relation.key_schema()) {
            record.key(ids.key, |out| {
                misfit = relation.write_key(row, out).err().map(|fault| (fault, row));
            });
        }
        if misfit.is_none() {
            record.value(ids.envelope, |out| {
                misfit = self.write_envelope(relation, change, origin, out).err();
            });
        }
        if misfit.is_some() {
            return Ok(misfit);
        }
        if let (Some((name, row)), Some(schema)) = (change.other_key, relation.key_schema()) {
            let mut encoded = Vec::new();
            if let Err(fault) = relation.write_key(row, &mut ValueWriter::new(&mut encoded)) {
                return Ok(Some((fault, row)));
            }
            let key = ValueRef::decode(Some(schema), &encoded)
                .and_then(|key| key.to_value())
                .map_err(|error| Error::fatal(format!("key of table {}: {error}", relation.name)))?;
            record.header(name, ids.key, Some(schema), Some(&key))?;
        }
        if !self.unavailable.is_empty() {
            let names = relation
                .names(&self.unavailable)
                .into_iter()
                .map(Value::String)
                .collect();
            record.header(
                UNAVAILABLE_HEADER,
                names_id,
                Some(&self.names_schema),
                Some(&Value::Array(names)),
            )?;
        }
        record.push()?;
        Ok(None)
    }

    fn write_envelope<'a>(
        &mut self,
        relation: &Relation,
        change: &Change<'a>,
        origin: Origin,
        out: &mut ValueWriter<'_>,
    ) -> Result<(), (Misfit, Row<'a>)> {
        let open = out.begin();
        for (part, row) in [(Part::Before, change.before), (Part::After, change.after)] {
            let Some(row) = row else {
                out.null();
                continue;
            };
            out.present();
            let old = if part == Part::After { change.old } else { None };
            relation
                .write_row(part, row, old, &self.placeholder, &mut self.unavailable, out)
                .map_err(|fault| (fault, row))?;
        }
        self.write_source(relation, origin, out);
        out.null(); // transaction
        out.string(change.operation.letter());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        for time in [now.as_millis(), now.as_micros(), now.as_nanos()] {
            out.present();
            out.i64(time as i64);
        }
        out.end(open);
        Ok(())
    }

    fn write_source(&self, relation: &Relation, origin: Origin, out: &mut ValueWriter<'_>) {
        let open = out.begin();
        out.raw(&self.source_head);
        out.i64(origin.micros.div_euclid(1000));
        out.present();
        out.string(origin.snapshot);
        out.raw(&self.database);
        out.present();
        write_sequence(origin, out);
        out.present();
        out.i64(origin.micros);
        out.present();
        out.i64(origin.micros.saturating_mul(1000));
        out.raw(relation.source_names());
        match origin.xid {
            Some(xid) => {
                out.present();
                out.i64(i64::from(xid));
            }
            None => out.null(),
        }
        out.present();
        out.i64(origin.lsn.0 as i64);
        out.null(); // xmin
        out.end(open);
    }

    /// A heartbeat.
    pub(crate) fn heartbeat(&mut self, batch: &mut FrameBuilder) -> Result<()> {
        let topic = batch.topic(&self.heartbeat_topic)?;
        let (key, value) = (
            batch.schema(&self.heartbeat_key)?,
            batch.schema(&self.heartbeat_value)?,
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut record = batch.record(topic);
        record.key(key, |out| {
            let open = out.begin();
            out.string(&self.server_name);
            out.end(open);
        });
        record.value(value, |out| {
            let open = out.begin();
            out.i64(now.as_millis() as i64);
            out.end(open);
        });
        record.push()?;
        self.records += 1;
        Ok(())
    }
}

/// The last commit and the change's place in the log, as a JSON list of strings.
fn write_sequence(origin: Origin, out: &mut ValueWriter<'_>) {
    let mut digits = itoa::Buffer::new();
    let open = out.begin();
    match origin.last_commit {
        Some(lsn) => {
            out.raw(b"[\"");
            out.raw(digits.format(lsn.0).as_bytes());
            out.raw(b"\",\"");
        }
        None => out.raw(b"[null,\""),
    }
    out.raw(digits.format(origin.lsn.0).as_bytes());
    out.raw(b"\"]");
    out.end(open);
}
