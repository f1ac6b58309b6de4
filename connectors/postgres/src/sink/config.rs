//! What can be configured: the JDBC sinks' keys, in Confluent's and Debezium's spellings.

use std::path::PathBuf;
use std::time::Duration;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{Config, ConfigDef, ConfigProblem, Importance, Secret, Validator};

use super::connection_url::ConnectionUrl;
use super::identifier::{Quoting, TableName};
use super::placeholder::Placeholder;
use super::table_format::TableFormat;

/// What writing a record means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertMode {
    /// A row is added for each record; one that is there already is an error.
    Insert,
    /// The row of the record's key is changed, or added where there is none.
    Upsert,
    /// The row of the record's key is changed; where there is none, nothing happens.
    Update,
}

/// Where a row's key columns come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyMode {
    /// Rows have no key.
    None,
    /// Topic, partition and offset.
    Kafka,
    /// The record's key.
    RecordKey,
    /// Fields of the record's value.
    RecordValue,
}

/// The settings, read and checked against each other.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to connect.
    pub url: ConnectionUrl,
    /// As whom.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// `sslmode`.
    pub sslmode: String,
    /// The certificate authorities' file.
    pub sslrootcert: Option<PathBuf>,
    /// The client certificate's file.
    pub sslcert: Option<PathBuf>,
    /// The client key's file.
    pub sslkey: Option<PathBuf>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long writing a batch may take.
    pub write_timeout: Duration,
    /// What writing means.
    pub insert_mode: InsertMode,
    /// Where keys come from.
    pub key_mode: KeyMode,
    /// The key's fields; empty takes all of the record key.
    pub key_fields: Vec<String>,
    /// Whether deletions are carried out.
    pub delete: bool,
    /// Whether truncations are carried out.
    pub truncate: bool,
    /// Whether missing tables are made.
    pub create: bool,
    /// Whether missing columns are added.
    pub evolve: bool,
    /// How a table's name comes about.
    pub table_format: TableFormat,
    /// How names become identifiers.
    pub quoting: Quoting,
    /// The value fields to write; empty writes all.
    pub fields: Vec<String>,
    /// What stands for a value that the source did not send.
    pub placeholder: Placeholder,
    /// The most rows one statement writes.
    pub batch_rows: usize,
    /// From how many rows on insertions use COPY.
    pub copy_rows: usize,
    /// The table of offsets.
    pub offsets_table: TableName,
}

/// The columns of `pk.mode=kafka` where `pk.fields` does not name others.
pub const KAFKA_COLUMNS: [&str; 3] = ["__connect_topic", "__connect_partition", "__connect_offset"];

const CONNECTION: &str = "Connection";
const WRITES: &str = "Writes";
const TABLES: &str = "Tables";
const BATCHES: &str = "Batches and offsets";

/// The keys of the class.
pub fn definition() -> ConfigDef {
    use ConfigType::{Boolean, Int, List, Password, String};
    use Importance::{High, Low, Medium};
    let at_least_one = || Validator::Range {
        min: Some(1),
        max: None,
    };
    ConfigDef::new()
        .required(
            "connection.url",
            String,
            High,
            "The target: jdbc:postgresql://host:port/database or postgres://host:port/database. The parameters user, \
             sslmode, sslrootcert, sslcert, sslkey and currentSchema are understood; a password belongs into \
             connection.password.",
        )
        .validate(Validator::NonEmpty)
        .group(CONNECTION)
        .nullable("connection.user", String, High, "The user to connect as.")
        .alias("connection.username")
        .group(CONNECTION)
        .nullable("connection.password", Password, High, "The user's password.")
        .group(CONNECTION)
        .optional(
            "connection.sslmode",
            String,
            "prefer",
            Medium,
            "How far the connection is encrypted and the server checked, as libpq has it. A sslmode in the URL goes first.",
        )
        .one_of(&["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])
        .group(CONNECTION)
        .nullable("connection.sslrootcert", String, Low, "A file of certificate authorities, PEM.")
        .group(CONNECTION)
        .nullable("connection.sslcert", String, Low, "A file of the client's certificate, PEM.")
        .group(CONNECTION)
        .nullable("connection.sslkey", String, Low, "A file of the client's private key, PEM.")
        .group(CONNECTION)
        .optional(
            "connection.timeout.ms",
            Int,
            "30000",
            Low,
            "How long connecting may take, in milliseconds.",
        )
        .validate(at_least_one())
        .group(CONNECTION)
        .optional(
            "insert.mode",
            String,
            "insert",
            High,
            "What a record does: insert adds a row, upsert changes the row of its key or adds it, update only changes it.",
        )
        .one_of(&["insert", "upsert", "update"])
        .group(WRITES)
        .optional(
            "pk.mode",
            String,
            "none",
            High,
            "Where a row's key comes from: none, kafka (topic, partition, offset), record_key or record_value.",
        )
        .alias("primary.key.mode")
        .one_of(&["none", "kafka", "record_key", "record_value"])
        .group(WRITES)
        .nullable(
            "pk.fields",
            List,
            Medium,
            "The key's fields. With record_key, the fields of the key to take (all where it is left out), or the column's \
             name where the key is no struct; with record_value, the fields of the value; with kafka, three column names.",
        )
        .alias("primary.key.fields")
        .group(WRITES)
        .optional(
            "delete.enabled",
            Boolean,
            "false",
            High,
            "Whether delete events and tombstones delete the row of their key; needs pk.mode=record_key. Otherwise they \
             are passed over.",
        )
        .group(WRITES)
        .optional(
            "truncate.enabled",
            Boolean,
            "false",
            Medium,
            "Whether truncate events empty the table. Otherwise they are passed over.",
        )
        .group(WRITES)
        .nullable(
            "fields.whitelist",
            List,
            Low,
            "The fields of the value to write besides the key; all where it is left out.",
        )
        .group(WRITES)
        .optional(
            "unavailable.value.placeholder",
            String,
            "__debezium_unavailable_value",
            Low,
            "What a source sends for a large value that did not change; the column is then left as it is.",
        )
        .validate(Validator::NonEmpty)
        .group(WRITES)
        .optional(
            "table.name.format",
            String,
            "${topic}",
            Medium,
            "The table a record goes to. ${topic} is the topic, ${source.schema} and ${source.table} are the names in the \
             event's source block or else the last two parts of the topic's name. A dot stands between schema and \
             table, and of more than two parts the last two count. Spelled collection.name.format, or left out, the dots \
             of ${topic} become underscores, as in Debezium's sink.",
        )
        .alias("collection.name.format")
        .validate(Validator::NonEmpty)
        .group(TABLES)
        .optional(
            "quote.sql.identifiers",
            String,
            "always",
            Low,
            "always takes names of tables and columns exactly as they are; never in lower case, as SQL reads a name \
             without quotes. true and false mean the same.",
        )
        .alias("quote.identifiers")
        .one_of(&["always", "never", "true", "false"])
        .group(TABLES)
        .optional(
            "auto.create",
            Boolean,
            "false",
            Medium,
            "Whether a missing table (and its schema) is made from the records' schema.",
        )
        .group(TABLES)
        .optional(
            "auto.evolve",
            Boolean,
            "false",
            Medium,
            "Whether a missing column is added: nullable, or with the default of the records' schema.",
        )
        .group(TABLES)
        .nullable(
            "schema.evolution",
            String,
            Medium,
            "basic turns on both auto.create and auto.evolve; none turns on neither.",
        )
        .one_of(&["none", "basic"])
        .group(TABLES)
        .optional(
            "batch.size",
            Int,
            "5000",
            Medium,
            "The most rows that one statement writes. A batch of any size is one transaction.",
        )
        .validate(at_least_one())
        .group(BATCHES)
        .optional(
            "batch.copy.rows",
            Int,
            "500",
            Low,
            "From how many rows on insert.mode=insert uses COPY instead of INSERT.",
        )
        .validate(at_least_one())
        .group(BATCHES)
        .optional(
            "write.timeout.ms",
            Int,
            "600000",
            Low,
            "How long writing a batch may take, in milliseconds; after that the connection is taken for dead, and the \
             batch is repeated on another.",
        )
        .validate(at_least_one())
        .group(BATCHES)
        .optional(
            "offsets.table",
            String,
            "tidewater_offsets",
            Low,
            "The table, as name or schema.name, that holds how far each partition is written; made where it is missing.",
        )
        .validate(Validator::NonEmpty)
        .group(BATCHES)
}

impl Settings {
    /// Reads `config`; every fault that no single key shows, all at once.
    pub fn read(config: &Config) -> Result<Self, Vec<ConfigProblem>> {
        let mut problems = Vec::new();
        let mut fault = |key: &str, message: String| problems.push(ConfigProblem::new(key, message));
        let url = ConnectionUrl::parse(config.str("connection.url"))
            .map_err(|why| fault("connection.url", why))
            .unwrap_or_default();
        let insert_mode = match config.str("insert.mode").to_ascii_lowercase().as_str() {
            "upsert" => InsertMode::Upsert,
            "update" => InsertMode::Update,
            _ => InsertMode::Insert,
        };
        let key_mode = match config.str("pk.mode").to_ascii_lowercase().as_str() {
            "kafka" => KeyMode::Kafka,
            "record_key" => KeyMode::RecordKey,
            "record_value" => KeyMode::RecordValue,
            _ => KeyMode::None,
        };
        let mut key_fields: Vec<String> = config.list("pk.fields").into_iter().map(Into::into).collect();
        match key_mode {
            KeyMode::None if insert_mode != InsertMode::Insert => fault(
                "pk.mode",
                format!(
                    "insert.mode={} needs to know a row's key; set pk.mode to record_key or record_value",
                    config.str("insert.mode")
                ),
            ),
            KeyMode::Kafka if key_fields.is_empty() => key_fields = KAFKA_COLUMNS.map(String::from).into(),
            KeyMode::Kafka if key_fields.len() != 3 => fault(
                "pk.fields",
                "pk.mode=kafka needs three names, for topic, partition and offset; or leave it out".into(),
            ),
            KeyMode::RecordValue if key_fields.is_empty() => fault(
                "pk.fields",
                "pk.mode=record_value needs the names of the value's fields that make up the key".into(),
            ),
            _ => {}
        }
        let delete = config.bool("delete.enabled");
        if delete && key_mode != KeyMode::RecordKey {
            fault(
                "delete.enabled",
                "needs pk.mode=record_key: a tombstone has nothing but its key".into(),
            );
        }
        let table_format = TableFormat::parse(
            config.str("table.name.format"),
            config.map().contains_key("table.name.format"),
        )
        .map_err(|why| fault("table.name.format", why));
        let offsets_table =
            TableName::parse(config.str("offsets.table")).map_err(|why| fault("offsets.table", why));
        let basic = config.str("schema.evolution").eq_ignore_ascii_case("basic");
        let (Ok(table_format), Ok(offsets_table)) = (table_format, offsets_table) else {
            return Err(problems);
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let file = |from_url: &Option<PathBuf>, key: &str| {
            from_url.clone().or_else(|| config.get(key).map(PathBuf::from))
        };
        Ok(Self {
            user: config
                .get("connection.user")
                .map(Into::into)
                .or_else(|| url.user.clone()),
            password: config.secret("connection.password"),
            sslmode: url
                .sslmode
                .clone()
                .unwrap_or_else(|| config.str("connection.sslmode").to_ascii_lowercase()),
            sslrootcert: file(&url.sslrootcert, "connection.sslrootcert"),
            sslcert: file(&url.sslcert, "connection.sslcert"),
            sslkey: file(&url.sslkey, "connection.sslkey"),
            connect_timeout: config.millis("connection.timeout.ms"),
            write_timeout: config.millis("write.timeout.ms"),
            insert_mode,
            key_mode,
            key_fields,
            delete,
            truncate: config.bool("truncate.enabled"),
            create: config.bool("auto.create") || basic,
            evolve: config.bool("auto.evolve") || basic,
            table_format,
            quoting: match config.str("quote.sql.identifiers").to_ascii_lowercase().as_str() {
                "never" | "false" => Quoting::Never,
                _ => Quoting::Always,
            },
            fields: config
                .list("fields.whitelist")
                .into_iter()
                .map(Into::into)
                .collect(),
            placeholder: Placeholder::new(config.str("unavailable.value.placeholder")),
            batch_rows: config.usize("batch.size").max(1),
            copy_rows: config.usize("batch.copy.rows").max(1),
            offsets_table,
            url,
        })
    }

    /// The target as errors name it: `host:port/database`.
    pub fn server(&self) -> String {
        let database = self
            .url
            .database
            .as_deref()
            .or(self.user.as_deref())
            .unwrap_or_default();
        format!("{}:{}/{database}", self.url.host, self.url.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, Vec<ConfigProblem>> {
        let mut map: tidewater_plugin_api::ConfigMap =
            [("connection.url".to_owned(), "postgres://h/d".to_owned())].into();
        map.extend(
            pairs
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned())),
        );
        Settings::read(&Config::new(definition(), map)?)
    }

    #[test]
    fn both_spellings_are_understood() {
        let confluent = read(&[
            ("connection.user", "me"),
            ("insert.mode", "upsert"),
            ("pk.mode", "record_key"),
            ("pk.fields", "a, b"),
            ("auto.create", "true"),
            ("auto.evolve", "true"),
        ])
        .unwrap();
        let debezium = read(&[
            ("connection.username", "me"),
            ("insert.mode", "UPSERT"),
            ("primary.key.mode", "record_key"),
            ("primary.key.fields", "a,b"),
            ("schema.evolution", "basic"),
        ])
        .unwrap();
        for settings in [confluent, debezium] {
            assert_eq!(settings.user.as_deref(), Some("me"));
            assert_eq!(settings.insert_mode, InsertMode::Upsert);
            assert_eq!(settings.key_mode, KeyMode::RecordKey);
            assert_eq!(settings.key_fields, ["a", "b"]);
            assert!(settings.create && settings.evolve);
        }
    }

    #[test]
    fn faults_between_keys_come_all_at_once() {
        let problems = read(&[
            ("connection.url", "postgres://me:secret@h/d"),
            ("insert.mode", "upsert"),
            ("delete.enabled", "true"),
            ("table.name.format", "${topci}"),
        ])
        .unwrap_err();
        let keys: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(
            keys,
            ["connection.url", "pk.mode", "delete.enabled", "table.name.format"]
        );
        assert!(!format!("{problems:?}").contains("secret"));
    }

    #[test]
    fn the_password_shows_nowhere() {
        let settings = read(&[("connection.password", "hunter2")]).unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(settings.password.unwrap().reveal(), "hunter2");
    }
}
