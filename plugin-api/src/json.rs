//! Values and schemas as JSON, in the forms of Kafka Connect's JSON converter.
//!
//! Reading needs no tree in between: the JSON text is walked once and its values are written in the frame's encoding.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use num_bigint::BigInt;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json, json};

use crate::logical;
use crate::schema::{Field, Schema, SchemaRef, Type};
use crate::value::{DecodeError, MAX_DEPTH, Tag, Value, ValueRef, ValueWriter, check_depth};

/// How a decimal is written; Connect's `decimal.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DecimalFormat {
    /// The unscaled bytes in base64: exact everywhere, readable nowhere.
    #[default]
    Base64,
    /// A JSON number.
    Numeric,
}

/// JSON that is no value of its schema, or no JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(pub String);

/// Appends `value` as JSON.
pub fn write_value(
    value: ValueRef<'_>,
    schema: Option<&Schema>,
    format: DecimalFormat,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    write_at(value, schema, format, out, 0)
}

fn write_at(
    value: ValueRef<'_>,
    schema: Option<&Schema>,
    format: DecimalFormat,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), DecodeError> {
    check_depth(depth)?;
    match value {
        ValueRef::Null => out.extend_from_slice(b"null"),
        ValueRef::Bool(true) => out.extend_from_slice(b"true"),
        ValueRef::Bool(false) => out.extend_from_slice(b"false"),
        ValueRef::Int8(v) => write_integer(v, out),
        ValueRef::Int16(v) => write_integer(v, out),
        ValueRef::Int32(v) => write_integer(v, out),
        ValueRef::Int64(v) => write_integer(v, out),
        ValueRef::Float32(v) if v.is_finite() => {
            out.extend_from_slice(ryu::Buffer::new().format_finite(v).as_bytes());
        }
        ValueRef::Float32(v) => write_non_finite(f64::from(v), out),
        ValueRef::Float64(v) if v.is_finite() => {
            out.extend_from_slice(ryu::Buffer::new().format_finite(v).as_bytes());
        }
        ValueRef::Float64(v) => write_non_finite(v, out),
        ValueRef::String(v) => write_string(v, out),
        ValueRef::Bytes(v) => write_bytes(v, schema, format, out),
        ValueRef::Array(array) => {
            out.push(b'[');
            for (index, item) in array.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_at(item?, array.element_schema(), format, out, depth + 1)?;
            }
            out.push(b']');
        }
        ValueRef::Map(map) => {
            let (key_schema, value_schema) = map.schemas().unzip();
            // Connect writes a map as an object only where every key is a string.
            let object = match key_schema {
                Some(key) => key.ty == Type::String && !key.optional,
                None => map
                    .iter()
                    .all(|pair| matches!(pair, Ok((ValueRef::String(_), _)))),
            };
            out.push(if object { b'{' } else { b'[' });
            for (index, pair) in map.iter().enumerate() {
                let (key, value) = pair?;
                if index > 0 {
                    out.push(b',');
                }
                if !object {
                    out.push(b'[');
                }
                write_at(key, key_schema, format, out, depth + 1)?;
                out.push(if object { b':' } else { b',' });
                write_at(value, value_schema, format, out, depth + 1)?;
                if !object {
                    out.push(b']');
                }
            }
            out.push(if object { b'}' } else { b']' });
        }
        ValueRef::Struct(structure) => {
            out.push(b'{');
            for (index, field) in structure.iter().enumerate() {
                let (field, value) = field?;
                if index > 0 {
                    out.push(b',');
                }
                write_string(&field.name, out);
                out.push(b':');
                write_at(value, Some(&field.schema), format, out, depth + 1)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn write_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// JSON has no such numbers; like Jackson in Connect, they go as text.
fn write_non_finite(value: f64, out: &mut Vec<u8>) {
    let text: &[u8] = if value.is_nan() {
        b"\"NaN\""
    } else if value > 0.0 {
        b"\"Infinity\""
    } else {
        b"\"-Infinity\""
    };
    out.extend_from_slice(text);
}

/// Appends `text` as a JSON string.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut clean = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            0..0x20 => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(&bytes[clean..index]);
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
                clean = index + 1;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&bytes[clean..index]);
        out.extend_from_slice(escape);
        clean = index + 1;
    }
    out.extend_from_slice(&bytes[clean..]);
    out.push(b'"');
}

fn write_bytes(bytes: &[u8], schema: Option<&Schema>, format: DecimalFormat, out: &mut Vec<u8>) {
    if format == DecimalFormat::Numeric
        && let Some(logical::Logical::Decimal { scale }) = schema.and_then(logical::Logical::of)
    {
        out.extend_from_slice(decimal_to_string(bytes, scale).as_bytes());
        return;
    }
    let start = out.len() + 1;
    let length = bytes.len().div_ceil(3) * 4;
    out.push(b'"');
    out.resize(start + length, 0);
    // The slice has exactly the encoded length, so encoding cannot fail.
    let written = BASE64.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

/// The decimal number of two's-complement big-endian `unscaled` bytes and `scale`, in plain digits.
pub fn decimal_to_string(unscaled: &[u8], scale: i32) -> String {
    let digits = if unscaled.len() <= 16 {
        let mut wide = if unscaled.first().is_some_and(|byte| byte & 0x80 != 0) {
            [0xff; 16]
        } else {
            [0; 16]
        };
        wide[16 - unscaled.len()..].copy_from_slice(unscaled);
        i128::from_be_bytes(wide).to_string()
    } else {
        BigInt::from_signed_bytes_be(unscaled).to_string()
    };
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits.as_str()),
    };
    if scale <= 0 {
        let zeros = if digits == "0" {
            0
        } else {
            scale.unsigned_abs() as usize
        };
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    }
    let scale = scale as usize;
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// The unscaled two's-complement big-endian bytes of the decimal number in `text` at `scale`.
pub fn decimal_from_str(text: &str, scale: i32) -> Option<Vec<u8>> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = String::with_capacity(whole.len() + fraction.len() + 8);
    digits.push_str(whole);
    digits.push_str(fraction);
    let shift = scale
        .checked_add(exponent)?
        .checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if shift > 0 {
        // A bound on what an exponent may ask for.
        if shift > 20_000 {
            return None;
        }
        digits.extend(std::iter::repeat_n('0', shift as usize));
    } else if shift < 0 {
        let cut = digits.len().checked_sub(shift.unsigned_abs() as usize)?;
        if digits[cut..].bytes().any(|digit| digit != b'0') {
            return None; // the number has more digits than the scale holds
        }
        digits.truncate(cut);
    }
    if digits.len() <= 38
        && let Ok(number) = digits.parse::<i128>()
    {
        return Some(shortest(&number.to_be_bytes()));
    }
    Some(digits.parse::<BigInt>().ok()?.to_signed_bytes_be())
}

fn shortest(bytes: &[u8]) -> Vec<u8> {
    let mut start = 0;
    while start + 1 < bytes.len() {
        let redundant = (bytes[start] == 0 && bytes[start + 1] < 0x80)
            || (bytes[start] == 0xff && bytes[start + 1] >= 0x80);
        if !redundant {
            break;
        }
        start += 1;
    }
    bytes[start..].to_vec()
}

/// Reads one JSON text as a value of `schema` (of any type where there is none) and appends it in the frame's encoding.
pub fn read_value(text: &[u8], schema: Option<&Schema>, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    read_from(&mut deserializer, schema, out)
        .and_then(|()| deserializer.end())
        .map_err(|error| JsonError(error.to_string()))
}

/// Reads the value that `deserializer` stands at; see [`read_value`].
pub fn read_from<'de, D: Deserializer<'de>>(
    deserializer: D,
    schema: Option<&Schema>,
    out: &mut Vec<u8>,
) -> Result<(), D::Error> {
    match schema {
        Some(schema) => TypedSeed {
            schema,
            out,
            depth: 0,
        }
        .deserialize(deserializer),
        None => TaggedSeed { out, depth: 0 }.deserialize(deserializer),
    }
}

fn too_deep<E: de::Error>() -> E {
    E::custom(format_args!("nested deeper than {MAX_DEPTH} levels"))
}

struct TypedSeed<'s, 'o> {
    schema: &'s Schema,
    out: &'o mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for TypedSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(too_deep());
        }
        deserializer.deserialize_any(self)
    }
}

impl TypedSeed<'_, '_> {
    fn present(&mut self) -> ValueWriter<'_> {
        if self.schema.optional {
            self.out.push(1);
        }
        ValueWriter::new(self.out)
    }

    fn integer<E: de::Error>(mut self, number: i128) -> Result<(), E> {
        let out_of_range = || E::custom(format_args!("{number} does not fit {}", self.schema.ty.name()));
        match self.schema.ty {
            Type::Int8 => {
                let number = i8::try_from(number).map_err(|_| out_of_range())?;
                self.present().i8(number);
            }
            Type::Int16 => {
                let number = i16::try_from(number).map_err(|_| out_of_range())?;
                self.present().i16(number);
            }
            Type::Int32 => {
                let number = i32::try_from(number).map_err(|_| out_of_range())?;
                self.present().i32(number);
            }
            Type::Int64 => {
                let number = i64::try_from(number).map_err(|_| out_of_range())?;
                self.present().i64(number);
            }
            Type::Float32 => self.present().f32(number as f32),
            Type::Float64 => self.present().f64(number as f64),
            Type::Bytes => return self.decimal(&number.to_string()),
            _ => return Err(E::invalid_type(de::Unexpected::Other("a number"), &self)),
        }
        Ok(())
    }

    fn decimal<E: de::Error>(mut self, text: &str) -> Result<(), E> {
        let Some(logical::Logical::Decimal { scale }) = logical::Logical::of(self.schema) else {
            return Err(E::invalid_type(de::Unexpected::Other("a number"), &self));
        };
        let bytes = decimal_from_str(text, scale)
            .ok_or_else(|| E::custom(format_args!("{text} is no decimal number of scale {scale}")))?;
        self.present().bytes(&bytes);
        Ok(())
    }
}

impl<'de> Visitor<'de> for TypedSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.schema.ty.name())?;
        if let Some(name) = &self.schema.name {
            write!(f, " ({name})")?;
        }
        if self.schema.optional {
            f.write_str(" or null")
        } else {
            Ok(())
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        if let Some(default) = &self.schema.default {
            return default.encode(Some(self.schema), self.out).map_err(E::custom);
        }
        if !self.schema.optional {
            return Err(E::invalid_type(de::Unexpected::Unit, &self));
        }
        self.out.push(0);
        Ok(())
    }

    fn visit_bool<E: de::Error>(mut self, value: bool) -> Result<(), E> {
        if self.schema.ty != Type::Bool {
            return Err(E::invalid_type(de::Unexpected::Bool(value), &self));
        }
        self.present().bool(value);
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_f64<E: de::Error>(mut self, value: f64) -> Result<(), E> {
        match self.schema.ty {
            Type::Float32 => self.present().f32(value as f32),
            Type::Float64 => self.present().f64(value),
            Type::Bytes => return self.decimal(&value.to_string()),
            _ => return Err(E::invalid_type(de::Unexpected::Float(value), &self)),
        }
        Ok(())
    }

    fn visit_str<E: de::Error>(mut self, value: &str) -> Result<(), E> {
        match self.schema.ty {
            Type::String => self.present().string(value),
            Type::Bytes => {
                let bytes = BASE64
                    .decode(value)
                    .map_err(|error| E::custom(format_args!("bytes are not base64: {error}")))?;
                self.present().bytes(&bytes);
            }
            Type::Float32 | Type::Float64 => {
                let number = match value {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    _ => return Err(E::invalid_type(de::Unexpected::Str(value), &self)),
                };
                return self.visit_f64(number);
            }
            _ => return Err(E::invalid_type(de::Unexpected::Str(value), &self)),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let schema = self.schema;
        let depth = self.depth + 1;
        match &schema.ty {
            Type::Array(element) => {
                let open = self.present().begin_counted(0);
                let mut count = 0;
                while seq
                    .next_element_seed(TypedSeed {
                        schema: element,
                        out: self.out,
                        depth,
                    })?
                    .is_some()
                {
                    count += 1;
                }
                let mut writer = ValueWriter::new(self.out);
                writer.set_count(&open, count);
                writer.end(open);
            }
            // A map whose keys are not strings: a list of pairs.
            Type::Map(key, value) => {
                let open = self.present().begin_counted(0);
                let mut count = 0;
                while seq
                    .next_element_seed(PairSeed {
                        key,
                        value,
                        out: self.out,
                        depth,
                    })?
                    .is_some()
                {
                    count += 1;
                }
                let mut writer = ValueWriter::new(self.out);
                writer.set_count(&open, count);
                writer.end(open);
            }
            _ => return Err(de::Error::invalid_type(de::Unexpected::Seq, &self)),
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let schema = self.schema;
        let depth = self.depth + 1;
        match &schema.ty {
            Type::Map(key_schema, value_schema) if key_schema.ty == Type::String => {
                let open = self.present().begin_counted(0);
                let mut count = 0;
                while let Some(key) = map.next_key::<String>()? {
                    if key_schema.optional {
                        self.out.push(1);
                    }
                    ValueWriter::new(self.out).string(&key);
                    map.next_value_seed(TypedSeed {
                        schema: value_schema,
                        out: self.out,
                        depth,
                    })?;
                    count += 1;
                }
                let mut writer = ValueWriter::new(self.out);
                writer.set_count(&open, count);
                writer.end(open);
                Ok(())
            }
            Type::Struct(fields) => {
                let open = self.present().begin();
                read_fields(fields, &mut map, self.out, depth)?;
                ValueWriter::new(self.out).end(open);
                Ok(())
            }
            _ => Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
        }
    }
}

/// Writes the fields in the schema's order. Writers nearly always send them so; those that come early wait aside.
fn read_fields<'de, A: MapAccess<'de>>(
    fields: &[Field],
    map: &mut A,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), A::Error> {
    let mut next = 0;
    let mut early: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
    while let Some(key) = map.next_key_seed(FieldSeed(fields.get(next)))? {
        let name = match key {
            FieldKey::Expected => {
                let field = &fields[next];
                map.next_value_seed(TypedSeed {
                    schema: &field.schema,
                    out,
                    depth,
                })
                .map_err(|error| de::Error::custom(format_args!("field {}: {error}", field.name)))?;
                next += 1;
                while let Some(encoded) = early.remove(&next) {
                    out.extend_from_slice(&encoded);
                    next += 1;
                }
                continue;
            }
            FieldKey::Other(name) => name,
        };
        let Some(index) = fields.iter().position(|field| *field.name == *name) else {
            // Like Connect, what the schema does not know is passed over.
            map.next_value::<de::IgnoredAny>()?;
            continue;
        };
        if index < next || early.contains_key(&index) {
            return Err(de::Error::custom(format_args!("field {name} stands twice")));
        }
        let mut encoded = Vec::new();
        map.next_value_seed(TypedSeed {
            schema: &fields[index].schema,
            out: &mut encoded,
            depth,
        })
        .map_err(|error| de::Error::custom(format_args!("field {name}: {error}")))?;
        early.insert(index, encoded);
    }
    for (index, field) in fields.iter().enumerate().skip(next) {
        if let Some(encoded) = early.remove(&index) {
            out.extend_from_slice(&encoded);
        } else if let Some(default) = &field.schema.default {
            default
                .encode(Some(&field.schema), out)
                .map_err(de::Error::custom)?;
        } else if field.schema.optional {
            out.push(0);
        } else {
            return Err(de::Error::custom(format_args!(
                "field {} is missing and has no default",
                field.name
            )));
        }
    }
    Ok(())
}

/// Reads a field's name, without copying it where it is the one that is due.
struct FieldSeed<'f>(Option<&'f Field>);

enum FieldKey {
    Expected,
    Other(String),
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = FieldKey;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldKey, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldSeed<'_> {
    type Value = FieldKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<FieldKey, E> {
        match self.0 {
            Some(field) if *field.name == *name => Ok(FieldKey::Expected),
            _ => Ok(FieldKey::Other(name.to_owned())),
        }
    }
}

struct PairSeed<'s, 'o> {
    key: &'s Schema,
    value: &'s Schema,
    out: &'o mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for PairSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for PairSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a [key, value] pair")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for (index, schema) in [self.key, self.value].into_iter().enumerate() {
            seq.next_element_seed(TypedSeed {
                schema,
                out: self.out,
                depth: self.depth,
            })?
            .ok_or_else(|| de::Error::invalid_length(index, &"a [key, value] pair"))?;
        }
        match seq.next_element::<de::IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(de::Error::custom("a [key, value] pair has more than two parts")),
        }
    }
}

struct TaggedSeed<'o> {
    out: &'o mut Vec<u8>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for TaggedSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth > MAX_DEPTH {
            return Err(too_deep());
        }
        deserializer.deserialize_any(self)
    }
}

impl TaggedSeed<'_> {
    fn tag(&mut self, tag: Tag) -> ValueWriter<'_> {
        let mut writer = ValueWriter::new(self.out);
        writer.tag(tag);
        writer
    }
}

impl<'de> Visitor<'de> for TaggedSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(mut self) -> Result<(), E> {
        self.tag(Tag::Null);
        Ok(())
    }

    fn visit_bool<E: de::Error>(mut self, value: bool) -> Result<(), E> {
        self.tag(Tag::Bool).bool(value);
        Ok(())
    }

    fn visit_i64<E: de::Error>(mut self, value: i64) -> Result<(), E> {
        self.tag(Tag::Int64).i64(value);
        Ok(())
    }

    fn visit_u64<E: de::Error>(mut self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.tag(Tag::Int64).i64(value),
            Err(_) => self.tag(Tag::Float64).f64(value as f64),
        }
        Ok(())
    }

    fn visit_f64<E: de::Error>(mut self, value: f64) -> Result<(), E> {
        self.tag(Tag::Float64).f64(value);
        Ok(())
    }

    fn visit_str<E: de::Error>(mut self, value: &str) -> Result<(), E> {
        self.tag(Tag::String).string(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let open = self.tag(Tag::Array).begin_counted(0);
        let mut count = 0;
        while seq
            .next_element_seed(TaggedSeed {
                out: self.out,
                depth: self.depth + 1,
            })?
            .is_some()
        {
            count += 1;
        }
        let mut writer = ValueWriter::new(self.out);
        writer.set_count(&open, count);
        writer.end(open);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let open = self.tag(Tag::Map).begin_counted(0);
        let mut count = 0;
        while let Some(key) = map.next_key::<String>()? {
            self.tag(Tag::String).string(&key);
            map.next_value_seed(TaggedSeed {
                out: self.out,
                depth: self.depth + 1,
            })?;
            count += 1;
        }
        let mut writer = ValueWriter::new(self.out);
        writer.set_count(&open, count);
        writer.end(open);
        Ok(())
    }
}

/// A schema in the JSON converter's form; `field` is its name within a struct.
pub fn schema_to_json(schema: &Schema, field: Option<&str>) -> Json {
    let mut object = Map::new();
    object.insert("type".into(), schema.ty.name().into());
    match &schema.ty {
        Type::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| schema_to_json(&field.schema, Some(&field.name)))
                .collect();
            object.insert("fields".into(), Json::Array(fields));
        }
        Type::Array(element) => {
            object.insert("items".into(), schema_to_json(element, None));
        }
        Type::Map(key, value) => {
            object.insert("keys".into(), schema_to_json(key, None));
            object.insert("values".into(), schema_to_json(value, None));
        }
        _ => {}
    }
    object.insert("optional".into(), schema.optional.into());
    if let Some(name) = &schema.name {
        object.insert("name".into(), (&**name).into());
    }
    if let Some(version) = schema.version {
        object.insert("version".into(), version.into());
    }
    if let Some(doc) = &schema.doc {
        object.insert("doc".into(), (&**doc).into());
    }
    if !schema.parameters.is_empty() {
        object.insert("parameters".into(), json!(schema.parameters));
    }
    if let Some(default) = schema
        .default
        .as_ref()
        .and_then(|default| value_to_json(default, schema))
    {
        object.insert("default".into(), default);
    }
    if let Some(field) = field {
        object.insert("field".into(), field.into());
    }
    Json::Object(object)
}

/// `value` as JSON of `schema`; none where it does not fit.
pub fn value_to_json(value: &Value, schema: &Schema) -> Option<Json> {
    let (mut encoded, mut text) = (Vec::new(), Vec::new());
    value.encode(Some(schema), &mut encoded).ok()?;
    write_value(
        ValueRef::decode(Some(schema), &encoded).ok()?,
        Some(schema),
        DecimalFormat::Base64,
        &mut text,
    )
    .ok()?;
    serde_json::from_slice(&text).ok()
}

/// Reads a schema in the JSON converter's form.
pub fn schema_from_json(json: &Json) -> Result<Schema, JsonError> {
    schema_at(json, 0)
}

fn schema_at(json: &Json, depth: usize) -> Result<Schema, JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError(format!("schema nested deeper than {MAX_DEPTH} levels")));
    }
    let part = |key: &str| -> Result<SchemaRef, JsonError> {
        let part = json
            .get(key)
            .ok_or_else(|| JsonError(format!("schema has no {key:?}: {json}")))?;
        Ok(schema_at(part, depth + 1)?.into())
    };
    let name = json
        .get("type")
        .and_then(Json::as_str)
        .ok_or_else(|| JsonError(format!("schema has no \"type\": {json}")))?;
    let ty = match name {
        "boolean" => Type::Bool,
        "int8" => Type::Int8,
        "int16" => Type::Int16,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "float" | "float32" => Type::Float32,
        "double" | "float64" => Type::Float64,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "array" => Type::Array(part("items")?),
        "map" => Type::Map(part("keys")?, part("values")?),
        "struct" => {
            let fields = json.get("fields").and_then(Json::as_array);
            let fields =
                fields.ok_or_else(|| JsonError(format!("struct schema has no \"fields\": {json}")))?;
            Type::Struct(
                fields
                    .iter()
                    .map(|field| {
                        let name = field.get("field").and_then(Json::as_str);
                        let name =
                            name.ok_or_else(|| JsonError(format!("field has no \"field\" name: {field}")))?;
                        Ok(Field::new(name, schema_at(field, depth + 1)?))
                    })
                    .collect::<Result<_, _>>()?,
            )
        }
        other => {
            return Err(JsonError(format!(
                "unknown schema type {other:?}; expected boolean, int8, int16, int32, int64, float, double, string, bytes, array, map or struct"
            )));
        }
    };
    let mut schema = Schema::new(ty);
    schema.optional = json.get("optional").and_then(Json::as_bool).unwrap_or(false);
    schema.name = json.get("name").and_then(Json::as_str).map(Into::into);
    schema.version = json
        .get("version")
        .and_then(Json::as_i64)
        .and_then(|version| version.try_into().ok());
    schema.doc = json.get("doc").and_then(Json::as_str).map(Into::into);
    if let Some(parameters) = json.get("parameters").and_then(Json::as_object) {
        schema.parameters = parameters
            .iter()
            .map(|(key, value)| {
                (
                    key.clone(),
                    value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                )
            })
            .collect();
    }
    if let Some(default) = json.get("default").filter(|default| !default.is_null()) {
        let mut encoded = Vec::new();
        read_from(default, Some(&schema), &mut encoded)
            .map_err(|error| JsonError(format!("default of the schema: {error}")))?;
        let value = ValueRef::decode(Some(&schema), &encoded).and_then(|value| value.to_value());
        schema.default = Some(value.map_err(|error| JsonError(error.to_string()))?);
    }
    Ok(schema)
}
