//! `auto.create` and `auto.evolve`: tables and columns from the records' schema.

use std::collections::HashMap;
use std::fmt::Write as _;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use tidewater_plugin_api::logical::Logical;
use tidewater_plugin_api::{SchemaRef, Type, ValueRef};

use super::error::SinkError;
use super::identifier::{TableName, literal, quoted};
use super::text::{ColumnKind, Form};

/// A column that records bring along.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name in the target.
    pub name: String,
    /// What it holds.
    pub schema: SchemaRef,
    /// Whether it belongs to the key.
    pub key: bool,
}

/// Names the lock under which this connector's sessions change definitions one after the other: `IF NOT EXISTS` alone
/// does not save two sessions from each other.
const LOCK: &str =
    "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('tidewater definitions', 0))";

/// Makes the table and, where it is missing, its schema.
pub async fn create_table(
    connection: &mut PgConnection,
    table: &TableName,
    columns: &[Wanted],
) -> Result<(), SinkError> {
    let types = known_types(connection, columns).await?;
    let mut lines = Vec::with_capacity(columns.len() + 1);
    for column in columns {
        let mut line = definition(column, &types);
        if column.key || !column.schema.optional {
            line.push_str(" NOT NULL");
        }
        lines.push(line);
    }
    let key: Vec<_> = columns
        .iter()
        .filter(|column| column.key)
        .map(|column| quoted(&column.name))
        .collect();
    if !key.is_empty() {
        lines.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    let create = format!("CREATE TABLE IF NOT EXISTS {table} ({})", lines.join(", "));
    tracing::info!(table = %table, "creating the table");
    run(
        connection,
        table.schema.as_deref(),
        &create,
        &format!("creating table {table}"),
    )
    .await
}

/// Adds columns.
pub async fn add_columns(
    connection: &mut PgConnection,
    table: &TableName,
    columns: &[Wanted],
) -> Result<(), SinkError> {
    let types = known_types(connection, columns).await?;
    let changes: Vec<_> = columns
        .iter()
        .map(|column| {
            let mut change = format!("ADD COLUMN IF NOT EXISTS {}", definition(column, &types));
            // Rows that are there already have no value for it, so it is NOT NULL only where a default gives them one.
            if !column.schema.optional && column.schema.default.is_some() {
                change.push_str(" NOT NULL");
            }
            change
        })
        .collect();
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    tracing::info!(table = %table, columns = ?names, "adding columns");
    let alter = format!("ALTER TABLE {table} {}", changes.join(", "));
    let doing = format!("adding the columns {} to table {table}", names.join(", "));
    run(connection, None, &alter, &doing).await
}

async fn run(
    connection: &mut PgConnection,
    schema: Option<&str>,
    sql: &str,
    doing: &str,
) -> Result<(), SinkError> {
    let mut transaction = connection.begin().await.map_err(SinkError::database(doing))?;
    let mut statements = vec![LOCK.to_owned()];
    if let Some(schema) = schema {
        // The right to make schemas is not needed for one that is there.
        let there = sqlx::query("SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1")
            .bind(schema)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(SinkError::database(doing))?;
        if there.is_none() {
            statements.push(format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema)));
        }
    }
    statements.push(sql.to_owned());
    for statement in statements {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut *transaction)
            .await
            .map_err(SinkError::database(doing))?;
    }
    transaction.commit().await.map_err(SinkError::database(doing))
}

fn definition(column: &Wanted, types: &HashMap<String, String>) -> String {
    let ty = column_type(&column.schema, types);
    let mut text = format!("{} {ty}", quoted(&column.name));
    if let Some(default) = default_text(&column.schema) {
        let _ = write!(text, " DEFAULT {}", literal(&default));
    }
    text
}

/// The text of a schema's default.
fn default_text(schema: &SchemaRef) -> Option<String> {
    let mut encoded = Vec::new();
    schema.default.as_ref()?.encode(Some(schema), &mut encoded).ok()?;
    let value = ValueRef::decode(Some(schema), &encoded).ok()?;
    if value.is_null() {
        return None;
    }
    let mut text = Vec::new();
    Form::of(schema, &kind(schema)).write(value, &mut text).ok()?;
    String::from_utf8(text).ok()
}

/// What a column made for `schema` is.
fn kind(schema: &SchemaRef) -> ColumnKind {
    match &schema.ty {
        Type::Array(element) => ColumnKind::Array(Box::new(kind(element))),
        Type::Map(..) | Type::Struct(_) => ColumnKind::Json,
        _ => ColumnKind::Other,
    }
}

/// The column type for `schema`: the source's own, where it is known here and the values are of it; else the one that
/// holds every value of the schema.
fn column_type(schema: &SchemaRef, types: &HashMap<String, String>) -> String {
    if let Some(source) = SourceType::of(schema)
        && let Some(known) = types.get(&source.name)
        && fits(schema, &source.name)
    {
        let modifier = source.modifier();
        return match known.strip_suffix("[]") {
            Some(element) => format!("{element}{modifier}[]"),
            None if source.array => format!("{known}{modifier}[]"),
            None => format!("{known}{modifier}"),
        };
    }
    schema_type(schema)
}

/// The type that holds every value of `schema`.
fn schema_type(schema: &SchemaRef) -> String {
    if let Some(logical) = Logical::of(schema) {
        let name = match logical {
            Logical::Decimal { scale } => {
                let precision = schema
                    .parameters
                    .get("connect.decimal.precision")
                    .and_then(|text| text.parse::<u32>().ok())
                    .filter(|precision| {
                        (1..=1000).contains(precision) && (0..=*precision as i32).contains(&scale)
                    });
                return precision.map_or("numeric".into(), |precision| {
                    format!("numeric({precision},{scale})")
                });
            }
            Logical::VariableDecimal => "numeric",
            Logical::Date => "date",
            Logical::TimeMillis | Logical::TimeMicros | Logical::TimeNanos => "time",
            Logical::ZonedTime => "timetz",
            Logical::TimestampMillis | Logical::TimestampMicros | Logical::TimestampNanos => "timestamp",
            Logical::ZonedTimestamp => "timestamptz",
            Logical::DurationMicros | Logical::Interval => "interval",
            Logical::Uuid => "uuid",
            Logical::Json => "json",
            Logical::Xml => "xml",
            Logical::Bits => "varbit",
            _ => "text",
        };
        return name.into();
    }
    let name = match &schema.ty {
        Type::Bool => "boolean",
        Type::Int8 | Type::Int16 => "smallint",
        Type::Int32 => "integer",
        Type::Int64 => "bigint",
        Type::Float32 => "real",
        Type::Float64 => "double precision",
        Type::String => "text",
        Type::Bytes => "bytea",
        // An array of any depth is one type.
        Type::Array(element) => {
            let element = schema_type(element);
            return format!("{}[]", element.trim_end_matches("[]"));
        }
        Type::Map(..) | Type::Struct(_) => "jsonb",
    };
    name.into()
}

/// The type of a column in the source database, as the source's parameters tell it.
struct SourceType {
    /// The catalogue's name of the type, or of the elements' type.
    name: String,
    array: bool,
    length: Option<i64>,
    scale: Option<i64>,
}

impl SourceType {
    fn of(schema: &SchemaRef) -> Option<Self> {
        let parameter = |name: &str| schema.parameters.get(&format!("__debezium.source.column.{name}"));
        let number = |name: &str| parameter(name).and_then(|text| text.parse().ok());
        let written = parameter("type")?.trim();
        let (name, array) = match (written.strip_suffix("[]"), written.strip_prefix('_')) {
            (Some(element), _) => (element.trim_end_matches("[]"), true),
            (None, Some(element)) => (element, true),
            (None, None) => (written, false),
        };
        let name = name.trim_matches('"');
        let length: Option<i64> = number("length");
        let name = match name.to_ascii_lowercase().as_str() {
            "smallserial" | "smallint" | "serial2" => "int2".into(),
            "serial" | "serial4" | "integer" | "int" => "int4".into(),
            "bigserial" | "serial8" | "bigint" => "int8".into(),
            "real" => "float4".into(),
            "double precision" => "float8".into(),
            "boolean" => "bool".into(),
            "decimal" => "numeric".into(),
            "character varying" => "varchar".into(),
            "character" => "bpchar".into(),
            // "char" with a length is SQL's; Postgres' own "char" holds a single byte.
            "char" if length.is_some_and(|length| length > 0) => "bpchar".into(),
            "bit varying" => "varbit".into(),
            "time without time zone" => "time".into(),
            "time with time zone" => "timetz".into(),
            "timestamp without time zone" => "timestamp".into(),
            "timestamp with time zone" => "timestamptz".into(),
            // Names of one's own types may have upper case; those of built-in ones come in either.
            lower => {
                if name.chars().any(char::is_lowercase) {
                    name.to_owned()
                } else {
                    lower.to_owned()
                }
            }
        };
        Some(Self {
            name,
            array,
            length,
            scale: number("scale"),
        })
    }

    /// `(length)` or `(precision,scale)`, for the types that take one. Drivers give huge lengths where there is none.
    fn modifier(&self) -> String {
        let length = self.length.unwrap_or(0);
        match self.name.as_str() {
            "varchar" | "bpchar" if (1..=10_485_760).contains(&length) => format!("({length})"),
            "bit" | "varbit" if (1..=83_886_080).contains(&length) => format!("({length})"),
            "numeric" if (1..=1000).contains(&length) => match self.scale {
                Some(scale) if (0..=length).contains(&scale) => format!("({length},{scale})"),
                // A negative scale, or one beyond the precision, is known to newer servers only.
                Some(_) => String::new(),
                None => format!("({length})"),
            },
            _ => String::new(),
        }
    }
}

/// Whether values of `schema` can be of the type `name`; another database's types may only share a name.
fn fits(schema: &SchemaRef, name: &str) -> bool {
    let logical = match &schema.ty {
        Type::Array(element) => Logical::of(element),
        _ => Logical::of(schema),
    };
    match logical {
        Some(Logical::ZonedTimestamp) => name == "timestamptz",
        Some(Logical::TimestampMillis | Logical::TimestampMicros | Logical::TimestampNanos) => {
            name == "timestamp" || name == "timestamptz"
        }
        Some(Logical::TimeMillis | Logical::TimeMicros | Logical::TimeNanos) => name == "time",
        Some(Logical::ZonedTime) => name == "timetz",
        Some(Logical::Date) => name == "date",
        Some(Logical::DurationMicros | Logical::Interval) => name == "interval",
        _ => true,
    }
}

/// Which of the source's types this database knows: from the catalogue's name to how SQL writes it.
async fn known_types(
    connection: &mut PgConnection,
    columns: &[Wanted],
) -> Result<HashMap<String, String>, SinkError> {
    let names: Vec<String> = columns
        .iter()
        .filter_map(|column| SourceType::of(&column.schema))
        .map(|source| source.name)
        .collect();
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sqlx::query(
        "SELECT t.typname::text, pg_catalog.format_type(t.oid, -1) FROM pg_catalog.pg_type t
         WHERE t.typname = ANY($1) AND pg_catalog.pg_type_is_visible(t.oid) AND t.typtype <> 'p'",
    )
    .bind(names)
    .fetch_all(connection)
    .await
    .map_err(SinkError::database("looking up the source's column types"))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewater_plugin_api::Schema;

    fn with_source(schema: Schema, ty: &str, length: &str, scale: &str) -> SchemaRef {
        SchemaRef::new(
            schema
                .parameter("__debezium.source.column.type", ty)
                .parameter("__debezium.source.column.length", length)
                .parameter("__debezium.source.column.scale", scale),
        )
    }

    #[test]
    fn the_sources_type_is_taken_where_it_fits() {
        let types: HashMap<String, String> = [
            ("varchar", "character varying"),
            ("numeric", "numeric"),
            ("int8", "bigint"),
            ("bpchar", "bpchar"),
            ("date", "date"),
            ("text", "text"),
        ]
        .map(|(name, sql)| (name.to_owned(), sql.to_owned()))
        .into();
        let string = || Schema::new(Type::String);
        let micros = || Schema::new(Type::Int64).named("io.debezium.time.MicroTimestamp");
        for (schema, expected) in [
            (
                with_source(string(), "VARCHAR", "20", "0"),
                "character varying(20)",
            ),
            (
                with_source(string(), "VARCHAR", "2147483647", "0"),
                "character varying",
            ),
            (with_source(string(), "CHAR", "3", "0"), "bpchar(3)"),
            (
                with_source(Schema::new(Type::Bytes), "NUMERIC", "12", "2"),
                "numeric(12,2)",
            ),
            (
                with_source(Schema::new(Type::Bytes), "NUMERIC", "131089", "0"),
                "numeric",
            ),
            (
                with_source(Schema::new(Type::Int64), "bigserial", "19", "0"),
                "bigint",
            ),
            (with_source(Schema::array(string()), "_TEXT", "0", "0"), "text[]"),
            (
                with_source(Schema::array(string()), "varchar[]", "9", "0"),
                "character varying(9)[]",
            ),
            (with_source(string(), "MOOD", "0", "0"), "text"),
            (with_source(micros(), "DATE", "7", "0"), "timestamp"),
        ] {
            assert_eq!(column_type(&schema, &types), expected, "{:?}", schema.parameters);
        }
    }

    #[test]
    fn nested_arrays_are_one_array_type() {
        let schema = SchemaRef::new(Schema::array(Schema::array(Schema::new(Type::Int16))));
        assert_eq!(schema_type(&schema), "smallint[]");
    }
}
