//! What postgres-source can be told: Debezium's property names and defaults for what is built here, and nothing else.

use tidewater_plugin_api::config_def::{ConfigDef, ConfigType as T, Importance as I, Validator};

/// The keys of `postgres-source`.
pub(crate) fn config_def() -> ConfigDef {
    let def = connection(ConfigDef::new());
    let def = capture(def);
    let def = snapshot(def);
    let def = records(def);
    runtime(def)
}

fn connection(def: ConfigDef) -> ConfigDef {
    def.required("database.hostname", T::String, I::High, "Host name or address of the PostgreSQL server.")
        .validate(Validator::NonEmpty)
        .group("Connection")
        .optional("database.port", T::Int, "5432", I::High, "TCP port of the server.")
        .validate(Validator::Range { min: Some(1), max: Some(65535) })
        .group("Connection")
        .required(
            "database.user",
            T::String,
            I::High,
            "Role to connect as. It needs the attribute REPLICATION and SELECT on the captured tables.",
        )
        .validate(Validator::NonEmpty)
        .group("Connection")
        .nullable("database.password", T::Password, I::High, "Password of the role.")
        .group("Connection")
        .required("database.dbname", T::String, I::High, "Database to capture.")
        .validate(Validator::NonEmpty)
        .group("Connection")
        .optional(
            "database.sslmode",
            T::String,
            "prefer",
            I::Medium,
            "TLS: disable; prefer (TLS where the server offers it, else plain text, so no protection against an \
             attacker in between); require (TLS, the server's certificate is not checked); verify-ca (its chain is \
             checked); verify-full (its name too).",
        )
        .one_of(&["disable", "prefer", "require", "verify-ca", "verify-full"])
        .group("Connection")
        .nullable(
            "database.sslrootcert",
            T::String,
            I::Medium,
            "PEM file of the certificate authorities to trust for verify-ca and verify-full; without it, those that \
             browsers trust.",
        )
        .group("Connection")
}

fn capture(def: ConfigDef) -> ConfigDef {
    def.required(
        "topic.prefix",
        T::String,
        I::High,
        "Name of this server in topics: changes of table t in schema s go to <topic.prefix>.s.t. Changing it later \
         makes a new source that starts from the beginning.",
    )
    .alias("database.server.name")
    .validate(Validator::NonEmpty)
    .group("Capture")
    .optional(
        "plugin.name",
        T::String,
        "pgoutput",
        I::Low,
        "Logical decoding plugin of the server. Only pgoutput, which every server has since PostgreSQL 10.",
    )
    .one_of(&["pgoutput"])
    .group("Capture")
    .optional(
        "slot.name",
        T::String,
        "debezium",
        I::High,
        "Replication slot; made where it is missing. Each connector needs one of its own.",
    )
    .validate(Validator::SlotName)
    .group("Capture")
    .optional(
        "slot.drop.on.stop",
        T::Boolean,
        "false",
        I::Low,
        "Drop the slot when the task stops in order. For tests: what changes afterwards is lost to this connector.",
    )
    .group("Capture")
    .optional("publication.name", T::String, "dbz_publication", I::High, "Publication to read.")
    .validate(Validator::NonEmpty)
    .group("Capture")
    .optional(
        "publication.autocreate.mode",
        T::String,
        "all_tables",
        I::Medium,
        "What to do about the publication: all_tables (made for all tables where missing; the role must be a \
         superuser); filtered (made for, and kept at, the tables the include and exclude lists select; the role must \
         own them); disabled (it must be there); no_tables (made without tables, for somebody to add them).",
    )
    .one_of(&["all_tables", "filtered", "disabled", "no_tables"])
    .group("Capture")
    .optional(
        "publish.via.partition.root",
        T::Boolean,
        "false",
        I::Low,
        "Whether a publication made here reports changes of partitions under the partitioned table's name. An \
         existing publication keeps its own setting.",
    )
    .group("Capture")
    .nullable(
        "schema.include.list",
        T::List,
        I::Medium,
        "Regular expressions that a schema's whole name must match, without regard to case; none is all schemas.",
    )
    .group("Capture")
    .nullable("schema.exclude.list", T::List, I::Medium, "Regular expressions of schemas to leave out.")
    .group("Capture")
    .nullable(
        "table.include.list",
        T::List,
        I::High,
        "Regular expressions that a table's whole <schema>.<table> must match, without regard to case; none is all \
         tables. An expression that matches no table is an error.",
    )
    .group("Capture")
    .nullable("table.exclude.list", T::List, I::Medium, "Regular expressions of tables to leave out.")
    .group("Capture")
    .nullable(
        "column.include.list",
        T::List,
        I::Medium,
        "Regular expressions of <schema>.<table>.<column>: only these columns stand in values. Keys stay whole.",
    )
    .group("Capture")
    .nullable("column.exclude.list", T::List, I::Medium, "Regular expressions of columns to leave out of values.")
    .group("Capture")
    .nullable(
        "message.key.columns",
        T::String,
        I::Medium,
        "Keys of tables other than their primary keys: <schema>.<table>:<column>,<column>;… with a regular expression \
         for the table. For deletes to carry such a key the table needs REPLICA IDENTITY FULL, or an index on it.",
    )
    .group("Capture")
}

fn snapshot(def: ConfigDef) -> ConfigDef {
    def.optional(
        "snapshot.mode",
        T::String,
        "initial",
        I::High,
        "What is read before changes are followed: initial (all rows, once); initial_only (all rows, once, and no \
         changes); no_data or never (changes only, from the slot's position); always (all rows at every start); \
         when_needed (like initial, and again where the slot has lost changes). All rows are read as they were at one \
         point, and changes follow from that very point. A snapshot that was cut short begins anew, and the changes \
         since its first attempt follow it, so that rows deleted in between do not stay behind.",
    )
    .one_of(&["initial", "initial_only", "no_data", "never", "always", "when_needed"])
    .group("Snapshot")
    .optional(
        "snapshot.lock.timeout.ms",
        T::Long,
        "10000",
        I::Low,
        "How long in milliseconds to wait for the ACCESS SHARE lock that keeps tables from being rewritten while they \
         are read; the snapshot is tried again later where it was not to be had.",
    )
    .validate(Validator::Range { min: Some(1), max: None })
    .group("Snapshot")
}

fn records(def: ConfigDef) -> ConfigDef {
    def.optional(
        "tombstones.on.delete",
        T::Boolean,
        "true",
        I::Medium,
        "Whether a delete is followed by a record with its key and no value, by which compacted topics forget the key.",
    )
    .group("Records")
    .optional(
        "skipped.operations",
        T::List,
        "t",
        I::Low,
        "Operations to leave out, comma-separated: c (insert), u (update), d (delete), t (truncate); none leaves out \
         nothing.",
    )
    .group("Records")
    .optional(
        "decimal.handling.mode",
        T::String,
        "precise",
        I::Medium,
        "numeric and money: precise (org.apache.kafka.connect.data.Decimal, or VariableScaleDecimal where the column \
         states no scale); double (may lose digits); string. A value that precise cannot hold (NaN, Infinity) turns \
         its column into a string from that record on, so that nothing is lost; string avoids the change.",
    )
    .one_of(&["precise", "double", "string"])
    .group("Records")
    .optional(
        "time.precision.mode",
        T::String,
        "adaptive",
        I::Medium,
        "date, time and timestamp: adaptive (milliseconds or microseconds, as the column's precision needs); \
         adaptive_time_microseconds (the same, time always in microseconds); connect (Kafka Connect's own types, in \
         milliseconds, which loses finer parts).",
    )
    .one_of(&["adaptive", "adaptive_time_microseconds", "connect"])
    .group("Records")
    .optional(
        "interval.handling.mode",
        T::String,
        "numeric",
        I::Low,
        "interval: numeric (microseconds, months taken as 30.4375 days, so not exact); string (ISO 8601, exact).",
    )
    .one_of(&["numeric", "string"])
    .group("Records")
    .optional(
        "binary.handling.mode",
        T::String,
        "bytes",
        I::Low,
        "bytea: bytes, or text in base64, base64-url-safe or hex.",
    )
    .one_of(&["bytes", "base64", "base64-url-safe", "hex"])
    .group("Records")
    .optional("hstore.handling.mode", T::String, "json", I::Low, "hstore: json (text) or map.")
        .one_of(&["json", "map"])
        .group("Records")
        .optional(
            "include.unknown.datatypes",
            T::Boolean,
            "true",
            I::Low,
            "Columns of types without a mapping of their own are sent as PostgreSQL's text. Only true: no column is \
             dropped in silence; use column.exclude.list to leave one out.",
        )
        .one_of(&["true"])
        .group("Records")
        .optional(
            "unavailable.value.placeholder",
            T::String,
            "__debezium_unavailable_value",
            I::Medium,
            "Stands for a large value that an update did not change and that PostgreSQL therefore did not send. Columns \
             whose type cannot hold it are null, and named in the header __unavailable.columns.",
        )
        .group("Records")
        .nullable(
            "column.propagate.source.type",
            T::List,
            I::Low,
            "Regular expressions of <schema>.<table>.<column> whose schemas name the column's own type in the parameters \
             __debezium.source.column.type, .length and .scale.",
        )
        .group("Records")
}

fn runtime(def: ConfigDef) -> ConfigDef {
    def.optional("max.batch.size", T::Int, "2048", I::Medium, "The most records of one batch.")
        .validate(Validator::Range { min: Some(1), max: Some(1_000_000) })
        .group("Operation")
        .optional(
            "poll.interval.ms",
            T::Long,
            "500",
            I::Low,
            "How long in milliseconds to wait for a change before an empty batch is returned. Changes are sent at once.",
        )
        .validate(Validator::Range { min: Some(1), max: None })
        .group("Operation")
        .optional(
            "status.update.interval.ms",
            T::Int,
            "10000",
            I::Low,
            "How often in milliseconds a source whose tables are idle stores its position, and so lets the server forget \
             what came before.",
        )
        .validate(Validator::Range { min: Some(1), max: Some(600_000) })
        .group("Operation")
        .optional(
            "heartbeat.interval.ms",
            T::Int,
            "0",
            I::Medium,
            "How often in milliseconds to write a heartbeat: a record in <topic.heartbeat.prefix>.<topic.prefix>, and a \
             message in the server's log (pg_logical_emit_message) that keeps the slot moving while the captured tables \
             are idle. 0 is never.",
        )
        .validate(Validator::Range { min: Some(0), max: None })
        .group("Operation")
        .optional(
            "topic.heartbeat.prefix",
            T::String,
            "__debezium-heartbeat",
            I::Low,
            "What the heartbeat topic's name begins with.",
        )
        .validate(Validator::NonEmpty)
        .group("Operation")
}
