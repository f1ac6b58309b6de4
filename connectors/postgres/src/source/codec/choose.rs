//! Which codec and which schema a column gets: Debezium's mapping, with these differences, each so that nothing is lost:
//! bit strings of varying length are text (their length matters), a time with time zone keeps its own offset, arrays that
//! are declared with several dimensions are text, and so is every type without a mapping of its own (ranges, geometric
//! and network types, composites, text search, PostGIS, pgvector, …).

use tidewater_plugin_api::{Field, Schema, Type, logical};

use super::Codec;
use crate::source::settings::{BinaryMode, DecimalMode, TimeMode, TypeModes};
use crate::source::type_catalog::{TypeCatalog, TypeInfo, TypeKind};

/// How a column is sent: its codec, and its schema but for nullability.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) codec: Codec,
    pub(crate) schema: Schema,
}

impl Mapping {
    /// As text.
    pub(crate) fn text() -> Self {
        Self {
            codec: Codec::Text,
            schema: Schema::new(Type::String),
        }
    }

    fn new(codec: Codec, schema: Schema) -> Self {
        Self { codec, schema }
    }

    fn named(codec: Codec, ty: Type, name: &str) -> Self {
        Self::new(codec, Schema::new(ty).named(name).version(1))
    }
}

/// What a column is declared as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    /// `pg_type.oid`.
    pub(crate) type_oid: u32,
    /// `pg_attribute.atttypmod`; -1 is none.
    pub(crate) modifier: i32,
    /// `pg_attribute.attndims`.
    pub(crate) dimensions: i32,
}

/// The mapping of a column.
pub(crate) fn mapping(declared: Declared, types: &TypeCatalog, modes: TypeModes) -> Mapping {
    mapping_at(declared, types, modes, 0)
}

fn mapping_at(declared: Declared, types: &TypeCatalog, modes: TypeModes, depth: usize) -> Mapping {
    let Some(info) = types.get(declared.type_oid).filter(|_| depth < 10) else {
        return Mapping::text(); // dropped since: its name and labels are gone, its text is not
    };
    match &info.kind {
        TypeKind::Domain { base, modifier } => {
            let base = Declared {
                type_oid: *base,
                modifier: *modifier,
                ..declared
            };
            mapping_at(base, types, modes, depth + 1)
        }
        TypeKind::Enum { labels } => Mapping::new(
            Codec::Enum(labels.clone()),
            Schema::new(Type::String)
                .named(logical::ENUM)
                .version(1)
                .parameter("allowed", labels.join(",")),
        ),
        TypeKind::Array { .. } if declared.dimensions > 1 => Mapping::text(),
        TypeKind::Array { element, delimiter } => {
            let of = Declared {
                type_oid: *element,
                dimensions: 0,
                ..declared
            };
            let Mapping { codec, schema } = mapping_at(of, types, modes, depth + 1);
            Mapping::new(
                Codec::Array {
                    element: Box::new(codec),
                    delimiter: *delimiter,
                },
                Schema::array(schema.optional()),
            )
        }
        TypeKind::Base => base(info, declared.modifier, types, modes),
        TypeKind::Other => Mapping::text(),
    }
}

fn base(info: &TypeInfo, modifier: i32, types: &TypeCatalog, modes: TypeModes) -> Mapping {
    let plain = |codec, ty| Mapping::new(codec, Schema::new(ty));
    let text = |name| Mapping::named(Codec::Text, Type::String, name);
    match info.name.as_str() {
        "bool" => plain(Codec::Bool, Type::Bool),
        "int2" => plain(Codec::Int16, Type::Int16),
        "int4" => plain(Codec::Int32, Type::Int32),
        "int8" | "oid" => plain(Codec::Int64, Type::Int64),
        "float4" => plain(Codec::Float32, Type::Float32),
        "float8" => plain(Codec::Float64, Type::Float64),
        "numeric" => numeric(modifier, modes.decimal),
        "money" => money(types.money_scale(), modes.decimal),
        "bytea" => match modes.binary {
            BinaryMode::Bytes => plain(Codec::Bytea(modes.binary), Type::Bytes),
            _ => plain(Codec::Bytea(modes.binary), Type::String),
        },
        "bit" if modifier == 1 => plain(Codec::Bit, Type::Bool),
        "bit" if modifier > 1 => Mapping::new(
            Codec::Bits,
            Schema::new(Type::Bytes)
                .named(logical::BITS)
                .version(1)
                .parameter("length", modifier.to_string()),
        ),
        "json" | "jsonb" => text(logical::JSON),
        "xml" => text(logical::XML),
        "uuid" => text(logical::UUID),
        "ltree" => text(logical::LTREE),
        "hstore" if modes.hstore_as_map => Mapping::new(
            Codec::HstoreMap,
            Schema::map(Schema::new(Type::String), Schema::new(Type::String).optional()),
        ),
        "hstore" => Mapping::named(Codec::HstoreJson, Type::String, logical::JSON),
        "interval" if modes.interval_as_text => {
            Mapping::named(Codec::IntervalText, Type::String, logical::INTERVAL)
        }
        "interval" => Mapping::named(Codec::IntervalMicros, Type::Int64, logical::MICRO_DURATION),
        "timetz" => Mapping::named(Codec::TimeTz, Type::String, logical::ZONED_TIME),
        "timestamptz" => {
            let digits = usize::try_from(modifier).unwrap_or(6).min(6);
            Mapping::named(
                Codec::TimestampTz { digits },
                Type::String,
                logical::ZONED_TIMESTAMP,
            )
        }
        "date" | "time" | "timestamp" => temporal(&info.name, modifier, modes.time),
        _ => Mapping::text(),
    }
}

fn temporal(name: &str, modifier: i32, mode: TimeMode) -> Mapping {
    let millis_suffice = (0..=3).contains(&modifier);
    match (name, mode) {
        ("date", TimeMode::Connect) => Mapping::named(Codec::Date, Type::Int32, logical::CONNECT_DATE),
        ("date", _) => Mapping::named(Codec::Date, Type::Int32, logical::DATE),
        ("time", TimeMode::Connect) => Mapping::named(Codec::TimeMillis, Type::Int32, logical::CONNECT_TIME),
        ("time", TimeMode::Adaptive) if millis_suffice => {
            Mapping::named(Codec::TimeMillis, Type::Int32, logical::TIME)
        }
        ("time", _) => Mapping::named(Codec::TimeMicros, Type::Int64, logical::MICRO_TIME),
        (_, TimeMode::Connect) => {
            Mapping::named(Codec::TimestampMillis, Type::Int64, logical::CONNECT_TIMESTAMP)
        }
        _ if millis_suffice => Mapping::named(Codec::TimestampMillis, Type::Int64, logical::TIMESTAMP),
        _ => Mapping::named(Codec::TimestampMicros, Type::Int64, logical::MICRO_TIMESTAMP),
    }
}

/// The precision and scale in a `numeric`'s modifier.
fn precision_and_scale(modifier: i32) -> Option<(i32, i32)> {
    let packed = modifier - 4;
    // Scales are 11 bits with a sign since PostgreSQL 15.
    (modifier >= 4).then_some(((packed >> 16) & 0xffff, ((packed & 0x7ff) ^ 1024) - 1024))
}

fn numeric(modifier: i32, mode: DecimalMode) -> Mapping {
    match (mode, precision_and_scale(modifier)) {
        (DecimalMode::Double, _) => Mapping::new(Codec::Float64, Schema::new(Type::Float64)),
        (DecimalMode::String, _) => Mapping::text(),
        (DecimalMode::Precise, Some((precision, scale))) => {
            let schema = decimal_schema(scale).parameter("connect.decimal.precision", precision.to_string());
            Mapping::new(Codec::Decimal { scale }, schema)
        }
        (DecimalMode::Precise, None) => {
            let mut schema = Schema::structure(vec![
                Field::new("scale", Schema::new(Type::Int32)),
                Field::new("value", Schema::new(Type::Bytes)),
            ])
            .named(logical::VARIABLE_DECIMAL)
            .version(1);
            schema.doc = Some("Variable scaled decimal".into());
            Mapping::new(Codec::VariableDecimal, schema)
        }
    }
}

fn money(scale: i32, mode: DecimalMode) -> Mapping {
    match mode {
        DecimalMode::Double => Mapping::new(Codec::MoneyDouble { scale }, Schema::new(Type::Float64)),
        DecimalMode::String => Mapping::new(Codec::MoneyText { scale }, Schema::new(Type::String)),
        DecimalMode::Precise => Mapping::new(Codec::MoneyDecimal { scale }, decimal_schema(scale)),
    }
}

fn decimal_schema(scale: i32) -> Schema {
    Schema::new(Type::Bytes)
        .named(logical::DECIMAL)
        .version(1)
        .parameter("scale", scale.to_string())
}

/// A type's name, length and scale as `column.propagate.source.type` reports them.
pub(crate) fn source_parameters(declared: Declared, types: &TypeCatalog) -> Vec<(&'static str, String)> {
    let Some(info) = types.get(declared.type_oid) else {
        return Vec::new();
    };
    let mut parameters = vec![("__debezium.source.column.type", info.name.to_uppercase())];
    let (length, scale) = match info.name.as_str() {
        "numeric" => precision_and_scale(declared.modifier).unzip(),
        "varchar" | "bpchar" if declared.modifier >= 4 => (Some(declared.modifier - 4), None),
        _ if declared.modifier >= 0 => (Some(declared.modifier), None),
        _ => (None, None),
    };
    parameters.extend(length.map(|length| ("__debezium.source.column.length", length.to_string())));
    parameters.extend(scale.map(|scale| ("__debezium.source.column.scale", scale.to_string())));
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modifier_holds_precision_and_a_signed_scale() {
        let modifier = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7ff)) + 4;
        assert_eq!(precision_and_scale(modifier(10, 2)), Some((10, 2)));
        assert_eq!(precision_and_scale(modifier(5, -3)), Some((5, -3)));
        assert_eq!(precision_and_scale(modifier(1000, 1000)), Some((1000, 1000)));
        assert_eq!(precision_and_scale(-1), None);
    }
}
