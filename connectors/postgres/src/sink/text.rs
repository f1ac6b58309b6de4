//! Values as text that Postgres reads back to exactly the same value. Everything goes to Postgres as text and is cast
//! there, so that the target column's own type decides.

use num_bigint::BigInt;
use tidewater_plugin_api::json::{self, DecimalFormat};
use tidewater_plugin_api::logical::Logical;
use tidewater_plugin_api::value::DecodeError;
use tidewater_plugin_api::{SchemaRef, Type, ValueRef};

use super::temporal;

/// A value that has no text form for its column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TextError(pub String);

impl From<DecodeError> for TextError {
    fn from(error: DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// What a column is, as far as the text form of a value depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// `text`, `varchar`, `char`, `citext`, ….
    Text,
    /// `json` or `jsonb`.
    Json,
    /// `hstore`.
    Hstore,
    /// `point`.
    Point,
    /// PostGIS' `geometry` or `geography`.
    Geometry,
    /// An array of these.
    Array(Box<ColumnKind>),
    /// Anything else.
    Other,
}

const POINT: &str = "io.debezium.data.geometry.Point";
const GEOMETRY: [&str; 2] = [
    "io.debezium.data.geometry.Geometry",
    "io.debezium.data.geometry.Geography",
];

/// How the values of one field become text; found out once per field, not once per value.
#[derive(Clone, Debug)]
pub enum Form {
    /// Numbers and strings as they are.
    Plain,
    /// A boolean, by the words the column takes.
    Bool(&'static str, &'static str),
    /// Bytes in hexadecimal.
    Hex,
    /// Unscaled bytes.
    Decimal {
        /// Digits after the point.
        scale: i32,
    },
    /// A struct of scale and unscaled bytes.
    VariableDecimal,
    /// Days since 1970.
    Date,
    /// Time since midnight.
    Time {
        /// Units that make a second.
        per_second: i64,
    },
    /// Time since 1970.
    Timestamp {
        /// Units that make a second.
        per_second: i64,
    },
    /// ISO 8601 with offset.
    ZonedTimestamp,
    /// Microseconds.
    Duration,
    /// A bit string.
    Bits {
        /// Its length; without one, all bits of all bytes.
        length: Option<usize>,
    },
    /// An array literal.
    Array(Box<Form>),
    /// An hstore literal.
    Hstore(Box<Form>, Box<Form>),
    /// An hstore literal, from a JSON object as text: what `hstore.handling.mode=json` sends.
    HstoreOfJson,
    /// JSON.
    Json(SchemaRef),
    /// `(x,y)`.
    Point,
    /// `SRID=…;` and well-known binary in hexadecimal.
    Geometry,
}

impl Form {
    /// The form of values of `schema` in a column of `kind`.
    pub fn of(schema: &SchemaRef, kind: &ColumnKind) -> Self {
        if let Some(logical) = Logical::of(schema) {
            return match logical {
                Logical::Decimal { scale } => Form::Decimal { scale },
                Logical::VariableDecimal => Form::VariableDecimal,
                Logical::Date => Form::Date,
                Logical::TimeMillis => Form::Time { per_second: 1_000 },
                Logical::TimeMicros => Form::Time {
                    per_second: 1_000_000,
                },
                Logical::TimeNanos => Form::Time {
                    per_second: 1_000_000_000,
                },
                Logical::TimestampMillis => Form::Timestamp { per_second: 1_000 },
                Logical::TimestampMicros => Form::Timestamp {
                    per_second: 1_000_000,
                },
                Logical::TimestampNanos => Form::Timestamp {
                    per_second: 1_000_000_000,
                },
                Logical::ZonedTimestamp => Form::ZonedTimestamp,
                Logical::DurationMicros => Form::Duration,
                Logical::Bits => Form::Bits {
                    length: schema.parameters.get("length").and_then(|text| text.parse().ok()),
                },
                Logical::Json if *kind == ColumnKind::Hstore => Form::HstoreOfJson,
                _ => Form::Plain,
            };
        }
        let name = schema.name.as_deref().unwrap_or_default();
        match (&schema.ty, kind) {
            (Type::Bool, ColumnKind::Text | ColumnKind::Json) => Form::Bool("true", "false"),
            // Booleans, bit(1) and numbers all read these.
            (Type::Bool, _) => Form::Bool("1", "0"),
            (Type::Bytes, _) => Form::Hex,
            (Type::Array(element), ColumnKind::Array(kind)) => {
                // The levels of an array are one array type to Postgres.
                let kind = if matches!(element.ty, Type::Array(_)) {
                    ColumnKind::Array(kind.clone())
                } else {
                    (**kind).clone()
                };
                Form::Array(Box::new(Form::of(element, &kind)))
            }
            (Type::Map(key, value), ColumnKind::Hstore) => Form::Hstore(
                Box::new(Form::of(key, &ColumnKind::Text)),
                Box::new(Form::of(value, &ColumnKind::Text)),
            ),
            (Type::Struct(_), ColumnKind::Point) if name == POINT => Form::Point,
            (Type::Struct(_), ColumnKind::Geometry) if name == POINT || GEOMETRY.contains(&name) => {
                Form::Geometry
            }
            (Type::Array(_) | Type::Map(..) | Type::Struct(_), _) => Form::Json(schema.clone()),
            _ => Form::Plain,
        }
    }

    /// Appends `value`, which is not null.
    pub fn write(&self, value: ValueRef<'_>, out: &mut Vec<u8>) -> Result<(), TextError> {
        match (self, value) {
            (Form::Plain, ValueRef::String(text)) => out.extend_from_slice(text.as_bytes()),
            (Form::Plain, ValueRef::Int8(v)) => write_integer(v, out),
            (Form::Plain, ValueRef::Int16(v)) => write_integer(v, out),
            (Form::Plain, ValueRef::Int32(v)) => write_integer(v, out),
            (Form::Plain, ValueRef::Int64(v)) => write_integer(v, out),
            (Form::Plain, ValueRef::Float32(v)) => write_float(v, v.into(), out),
            (Form::Plain, ValueRef::Float64(v)) => write_float(v, v, out),
            (Form::Bool(yes, no), ValueRef::Bool(v)) => {
                out.extend_from_slice((if v { yes } else { no }).as_bytes());
            }
            (Form::Hex, ValueRef::Bytes(bytes)) => {
                out.extend_from_slice(b"\\x");
                write_hex(bytes, out);
            }
            (Form::Decimal { scale }, ValueRef::Bytes(bytes)) => write_decimal(bytes, *scale, out),
            (Form::VariableDecimal, ValueRef::Struct(parts)) => {
                let (Some(scale), Some(ValueRef::Bytes(bytes))) = (
                    parts.get("scale")?.and_then(|scale| scale.as_i64()),
                    parts.get("value")?,
                ) else {
                    return Err(TextError(
                        "a VariableScaleDecimal lacks its scale or its value".into(),
                    ));
                };
                let scale = i32::try_from(scale)
                    .map_err(|_| TextError(format!("a VariableScaleDecimal has the scale {scale}")))?;
                write_decimal(bytes, scale, out);
            }
            (Form::Date, ValueRef::Int32(days)) => temporal::write_date(days, out),
            (Form::Time { per_second }, ValueRef::Int32(v)) => {
                temporal::write_time(v.into(), *per_second, out);
            }
            (Form::Time { per_second }, ValueRef::Int64(v)) => temporal::write_time(v, *per_second, out),
            (Form::Timestamp { per_second }, ValueRef::Int64(v)) => {
                temporal::write_timestamp(v, *per_second, out);
            }
            (Form::ZonedTimestamp, ValueRef::String(text)) => temporal::write_zoned_timestamp(text, out)?,
            (Form::Duration, ValueRef::Int64(micros)) => {
                write_integer(micros, out);
                out.extend_from_slice(b" microseconds");
            }
            (Form::Bits { length }, ValueRef::Bytes(bytes)) => {
                // The last bit of the string is the lowest of the first byte.
                for index in (0..length.unwrap_or(bytes.len() * 8)).rev() {
                    let byte = bytes.get(index / 8).copied().unwrap_or(0);
                    out.push(b'0' + (byte >> (index % 8) & 1));
                }
            }
            (Form::Array(element), ValueRef::Array(items)) => {
                out.push(b'{');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    element.write_element(item?, out)?;
                }
                out.push(b'}');
            }
            (Form::Hstore(key_form, value_form), ValueRef::Map(pairs)) => {
                for (index, pair) in pairs.iter().enumerate() {
                    let (key, value) = pair?;
                    if index > 0 {
                        out.push(b',');
                    }
                    key_form.write_element(key, out)?;
                    out.extend_from_slice(b"=>");
                    value_form.write_element(value, out)?;
                }
            }
            (Form::HstoreOfJson, ValueRef::String(text)) => write_hstore_of_json(text, out)?,
            (Form::Json(schema), value) => {
                json::write_value(value, Some(schema), DecimalFormat::Numeric, out)?;
            }
            (Form::Point, ValueRef::Struct(parts)) => {
                let (Some(ValueRef::Float64(x)), Some(ValueRef::Float64(y))) =
                    (parts.get("x")?, parts.get("y")?)
                else {
                    return Err(TextError("a Point lacks its x or its y".into()));
                };
                out.push(b'(');
                write_float(x, x, out);
                out.push(b',');
                write_float(y, y, out);
                out.push(b')');
            }
            (Form::Geometry, ValueRef::Struct(parts)) => {
                let Some(ValueRef::Bytes(wkb)) = parts.get("wkb")? else {
                    return Err(TextError("a Geometry lacks its wkb".into()));
                };
                if let Some(srid) = parts.get("srid")?.and_then(|srid| srid.as_i64()) {
                    out.extend_from_slice(b"SRID=");
                    write_integer(srid, out);
                    out.push(b';');
                }
                write_hex(wkb, out);
            }
            (form, value) => {
                return Err(TextError(format!(
                    "{} cannot be written as {form:?}",
                    value.kind()
                )));
            }
        }
        Ok(())
    }

    /// Appends an element of an array or hstore literal, in quotes where it needs them.
    fn write_element(&self, value: ValueRef<'_>, out: &mut Vec<u8>) -> Result<(), TextError> {
        if value.is_null() {
            out.extend_from_slice(b"NULL");
            return Ok(());
        }
        let start = out.len();
        self.write(value, out)?;
        let bare = |byte: &u8| byte.is_ascii_digit() || b"+-.".contains(byte);
        let element = &out[start..];
        if matches!(self, Form::Array(_)) || (!element.is_empty() && element.iter().all(bare)) {
            return Ok(());
        }
        let element = out.split_off(start);
        write_quoted(&element, out);
        Ok(())
    }
}

/// Appends text in quotes, as array and hstore literals have it.
fn write_quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

fn write_hstore_of_json(text: &str, out: &mut Vec<u8>) -> Result<(), TextError> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)
        .map_err(|error| TextError(format!("only a JSON object can become an hstore: {error}")))?;
    for (index, (key, value)) in object.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_quoted(key.as_bytes(), out);
        out.extend_from_slice(b"=>");
        match value {
            serde_json::Value::Null => out.extend_from_slice(b"NULL"),
            serde_json::Value::String(text) => write_quoted(text.as_bytes(), out),
            other => write_quoted(other.to_string().as_bytes(), out),
        }
    }
    Ok(())
}

fn write_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest digits that give back the same number in its own width.
fn write_float(value: impl ryu::Float, wide: f64, out: &mut Vec<u8>) {
    if wide.is_finite() {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    } else if wide.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if wide > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
}

/// Appends bytes in hexadecimal.
pub fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Appends a decimal number from its two's-complement big-endian unscaled bytes.
fn write_decimal(unscaled: &[u8], scale: i32, out: &mut Vec<u8>) {
    if unscaled.is_empty() || unscaled.len() > 16 {
        let number = BigInt::from_signed_bytes_be(unscaled).to_string();
        return write_scaled(&number, scale, out);
    }
    let fill = if unscaled[0] & 0x80 == 0 { 0 } else { 0xff };
    let mut wide = [fill; 16];
    wide[16 - unscaled.len()..].copy_from_slice(unscaled);
    write_scaled(itoa::Buffer::new().format(i128::from_be_bytes(wide)), scale, out);
}

fn write_scaled(number: &str, scale: i32, out: &mut Vec<u8>) {
    let digits = number.strip_prefix('-').unwrap_or(number);
    if digits.len() < number.len() {
        out.push(b'-');
    }
    let digits = digits.as_bytes();
    let places = scale.unsigned_abs() as usize;
    if scale <= 0 {
        out.extend_from_slice(digits);
        if digits != b"0" {
            out.resize(out.len() + places, b'0');
        }
    } else if digits.len() > places {
        let (whole, fraction) = digits.split_at(digits.len() - places);
        out.extend_from_slice(whole);
        out.push(b'.');
        out.extend_from_slice(fraction);
    } else {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + places - digits.len(), b'0');
        out.extend_from_slice(digits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewater_plugin_api::{Schema, Value};

    fn text(schema: Schema, kind: &ColumnKind, value: &Value) -> String {
        let schema = SchemaRef::new(schema);
        let mut encoded = Vec::new();
        value.encode(Some(&schema), &mut encoded).unwrap();
        let mut out = Vec::new();
        Form::of(&schema, kind)
            .write(ValueRef::decode(Some(&schema), &encoded).unwrap(), &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decimals_agree_with_the_sdk() {
        for number in [
            "0",
            "-1",
            "123456789012345678901234567890123456789012345",
            "-99",
            "100",
            "5",
        ] {
            for scale in [-3, 0, 1, 2, 10, 60] {
                let bytes = number.parse::<BigInt>().unwrap().to_signed_bytes_be();
                let mut out = Vec::new();
                write_decimal(&bytes, scale, &mut out);
                assert_eq!(
                    String::from_utf8(out).unwrap(),
                    json::decimal_to_string(&bytes, scale)
                );
            }
        }
    }

    #[test]
    fn array_elements_are_quoted() {
        let schema = Schema::array(Schema::new(Type::String).optional());
        let items = ["plain", "", "NULL", "a\"b\\c", "{x,y}", "1.5"];
        let mut items: Vec<Value> = items.iter().map(|&item| Value::String(item.into())).collect();
        items.push(Value::Null);
        assert_eq!(
            text(
                schema,
                &ColumnKind::Array(Box::new(ColumnKind::Text)),
                &Value::Array(items)
            ),
            r#"{"plain","","NULL","a\"b\\c","{x,y}",1.5,NULL}"#
        );
    }

    #[test]
    fn bits_are_little_endian() {
        let bits = |length: &str| {
            Schema::new(Type::Bytes)
                .named("io.debezium.data.Bits")
                .parameter("length", length)
        };
        let value = Value::Bytes(vec![0b0000_0101, 0b10].into());
        assert_eq!(text(bits("10"), &ColumnKind::Other, &value), "1000000101");
        let short = Value::Bytes(vec![1].into());
        assert_eq!(text(bits("12"), &ColumnKind::Other, &short), "000000000001");
    }

    #[test]
    fn the_column_decides_where_it_matters() {
        let flag = Value::Bool(true);
        assert_eq!(text(Schema::new(Type::Bool), &ColumnKind::Text, &flag), "true");
        assert_eq!(text(Schema::new(Type::Bool), &ColumnKind::Other, &flag), "1");
        let list = Value::Array(vec![Value::Int32(1), Value::Int32(2)]);
        let schema = || Schema::array(Schema::new(Type::Int32));
        assert_eq!(text(schema(), &ColumnKind::Json, &list), "[1,2]");
        assert_eq!(
            text(schema(), &ColumnKind::Array(Box::new(ColumnKind::Other)), &list),
            "{1,2}"
        );
        let map = Value::Map(vec![(Value::String("a=>b".into()), Value::Null)]);
        let schema = || Schema::map(Schema::new(Type::String), Schema::new(Type::String).optional());
        assert_eq!(text(schema(), &ColumnKind::Hstore, &map), r#""a=>b"=>NULL"#);
        assert_eq!(text(schema(), &ColumnKind::Json, &map), r#"{"a=>b":null}"#);
        let object = Value::String(r#"{"k \"q\"":"v\\","n":null,"i":1}"#.into());
        let schema = || Schema::new(Type::String).named("io.debezium.data.Json");
        let hstore = r#""k \"q\""=>"v\\","n"=>NULL,"i"=>"1""#;
        assert_eq!(text(schema(), &ColumnKind::Hstore, &object), hstore);
    }
}
