//! Logical types: what a schema's name makes of its physical type. The names are Kafka Connect's and Debezium's, so
//! that records mean the same to everybody who reads their topics.

use crate::schema::{Schema, Type};

/// Unscaled two's-complement big-endian bytes; parameter `scale`.
pub const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
/// A struct of `scale` (int32) and `value` (bytes): a decimal whose scale differs from row to row.
pub const VARIABLE_DECIMAL: &str = "io.debezium.data.VariableScaleDecimal";
/// Days since 1970-01-01, int32 (Connect's own name).
pub const CONNECT_DATE: &str = "org.apache.kafka.connect.data.Date";
/// Days since 1970-01-01, int32.
pub const DATE: &str = "io.debezium.time.Date";
/// Milliseconds since midnight, int32 (Connect's own name).
pub const CONNECT_TIME: &str = "org.apache.kafka.connect.data.Time";
/// Milliseconds since midnight, int32.
pub const TIME: &str = "io.debezium.time.Time";
/// Microseconds since midnight, int64.
pub const MICRO_TIME: &str = "io.debezium.time.MicroTime";
/// Nanoseconds since midnight, int64.
pub const NANO_TIME: &str = "io.debezium.time.NanoTime";
/// A time with offset, ISO 8601 text.
pub const ZONED_TIME: &str = "io.debezium.time.ZonedTime";
/// Milliseconds since 1970-01-01T00:00, int64 (Connect's own name).
pub const CONNECT_TIMESTAMP: &str = "org.apache.kafka.connect.data.Timestamp";
/// Milliseconds since 1970-01-01T00:00, int64.
pub const TIMESTAMP: &str = "io.debezium.time.Timestamp";
/// Microseconds since 1970-01-01T00:00, int64.
pub const MICRO_TIMESTAMP: &str = "io.debezium.time.MicroTimestamp";
/// Nanoseconds since 1970-01-01T00:00, int64.
pub const NANO_TIMESTAMP: &str = "io.debezium.time.NanoTimestamp";
/// A timestamp with offset, ISO 8601 text.
pub const ZONED_TIMESTAMP: &str = "io.debezium.time.ZonedTimestamp";
/// A duration in microseconds, int64; months are taken as 30.4375 days, so it is approximate.
pub const MICRO_DURATION: &str = "io.debezium.time.MicroDuration";
/// An ISO 8601 duration, text, exact.
pub const INTERVAL: &str = "io.debezium.time.Interval";
/// A UUID, text.
pub const UUID: &str = "io.debezium.data.Uuid";
/// A JSON document, text.
pub const JSON: &str = "io.debezium.data.Json";
/// An XML document, text.
pub const XML: &str = "io.debezium.data.Xml";
/// One of the names in the parameter `allowed`, text.
pub const ENUM: &str = "io.debezium.data.Enum";
/// A bit string, little-endian bytes; parameter `length` in bits.
pub const BITS: &str = "io.debezium.data.Bits";
/// A label path, text.
pub const LTREE: &str = "io.debezium.data.Ltree";

/// The logical meaning of a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum Logical {
    Decimal { scale: i32 },
    VariableDecimal,
    Date,
    TimeMillis,
    TimeMicros,
    TimeNanos,
    ZonedTime,
    TimestampMillis,
    TimestampMicros,
    TimestampNanos,
    ZonedTimestamp,
    DurationMicros,
    Interval,
    Uuid,
    Json,
    Xml,
    Enum,
    Bits,
    Ltree,
}

impl Logical {
    /// The meaning of `schema`: none for a plain type, an unknown name, or a name on the wrong physical type.
    pub fn of(schema: &Schema) -> Option<Self> {
        let logical = match (schema.name.as_deref()?, &schema.ty) {
            (DECIMAL, Type::Bytes) => Logical::Decimal {
                scale: schema
                    .parameters
                    .get("scale")
                    .and_then(|s| s.parse().ok())
                    .unwrap_or(0),
            },
            (VARIABLE_DECIMAL, Type::Struct(_)) => Logical::VariableDecimal,
            (CONNECT_DATE | DATE, Type::Int32) => Logical::Date,
            (CONNECT_TIME | TIME, Type::Int32) => Logical::TimeMillis,
            (MICRO_TIME, Type::Int64) => Logical::TimeMicros,
            (NANO_TIME, Type::Int64) => Logical::TimeNanos,
            (ZONED_TIME, Type::String) => Logical::ZonedTime,
            (CONNECT_TIMESTAMP | TIMESTAMP, Type::Int64) => Logical::TimestampMillis,
            (MICRO_TIMESTAMP, Type::Int64) => Logical::TimestampMicros,
            (NANO_TIMESTAMP, Type::Int64) => Logical::TimestampNanos,
            (ZONED_TIMESTAMP, Type::String) => Logical::ZonedTimestamp,
            (MICRO_DURATION, Type::Int64) => Logical::DurationMicros,
            (INTERVAL, Type::String) => Logical::Interval,
            (UUID, Type::String) => Logical::Uuid,
            (JSON, Type::String) => Logical::Json,
            (XML, Type::String) => Logical::Xml,
            (ENUM, Type::String) => Logical::Enum,
            (BITS, Type::Bytes) => Logical::Bits,
            (LTREE, Type::String) => Logical::Ltree,
            _ => return None,
        };
        Some(logical)
    }
}
