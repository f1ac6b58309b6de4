//! JSON text to values, walked once and written in the frame's encoding.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use serde_json::value::RawValue;

use super::{JsonError, decimal_from_str};
use crate::logical;
use crate::schema::{Field, Schema, Type};
use crate::value::{MAX_DEPTH, Tag, ValueWriter};

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
        if self.schema.ty == Type::Bytes
            && let Some(logical::Logical::Decimal { .. }) = logical::Logical::of(self.schema)
        {
            // A decimal may be a number with more digits than a double holds: its text counts.
            let raw: Box<RawValue> = serde::Deserialize::deserialize(deserializer)?;
            return match raw.get().as_bytes().first() {
                Some(b'0'..=b'9' | b'-') => self.decimal(raw.get()),
                _ => serde_json::Deserializer::from_str(raw.get())
                    .deserialize_any(self)
                    .map_err(de::Error::custom),
            };
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
        // A null that may be one stays one, whatever the default: it was written on purpose.
        if self.schema.optional {
            self.out.push(0);
            return Ok(());
        }
        match &self.schema.default {
            Some(default) => default.encode(Some(self.schema), self.out).map_err(E::custom),
            None => Err(E::invalid_type(de::Unexpected::Unit, &self)),
        }
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
