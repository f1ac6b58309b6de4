//! Values as text and back, by the rules of Connect's simple header converter. Read, text takes the type that fits it best:
//! null, booleans, the narrowest integer, floats, decimals, dates and times in ISO 8601, lists and maps of all these; what is
//! none of them is a string. Written, a string is its text, and a list or map quotes the strings in it.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use tidewater_plugin_api::json::{decimal_from_str, decimal_to_string};
use tidewater_plugin_api::logical::{self, Logical};
use tidewater_plugin_api::value::{DecodeError, MAX_DEPTH};
use tidewater_plugin_api::{Schema, SchemaRef, Type, Value, ValueRef};

use crate::date_format::{DateFormat, iso_date, iso_time, iso_timestamp};
use crate::number_text::{double_text, float_text};
use crate::record::Datum;

/// What `text` stands for. A list or map of mixed types has no schema, since there is none for it.
pub fn read(text: &str) -> Datum {
    let plain = text.trim();
    let node = match plain {
        "null" => Some(Node::Null),
        "" => None,
        _ if plain.starts_with(['[', '{']) => Reader { rest: plain }.whole(),
        _ => scalar(plain),
    };
    match node.unwrap_or_else(|| string(text)) {
        Node::Null => Datum::null(),
        Node::Typed { schema, value, .. } => Datum::new(Some(schema), value),
        Node::Loose(value) => Datum::new(None, value),
    }
}

/// A value on its way into a list or map.
enum Node<'t> {
    Null,
    Typed {
        schema: SchemaRef,
        value: Value,
        /// Where the schema's name gives the value its meaning: the text it was, for a list that has no schema.
        text: Option<&'t str>,
    },
    /// A list or map without a schema.
    Loose(Value),
}

/// The schemas of plain values, shared, so that batches hold each once.
static PLAIN: LazyLock<[SchemaRef; 8]> = LazyLock::new(|| {
    [
        Type::Bool,
        Type::Int8,
        Type::Int16,
        Type::Int32,
        Type::Int64,
        Type::Float32,
        Type::Float64,
        Type::String,
    ]
    .map(|ty| Arc::new(Schema::new(ty)))
});

/// The schemas of dates, times and timestamps, shared.
static TIMES: LazyLock<[SchemaRef; 3]> = LazyLock::new(|| {
    [
        (Type::Int32, logical::CONNECT_DATE),
        (Type::Int32, logical::CONNECT_TIME),
        (Type::Int64, logical::CONNECT_TIMESTAMP),
    ]
    .map(|(ty, name)| Arc::new(Schema::new(ty).named(name).version(1)))
});

fn typed(value: Value) -> Node<'static> {
    let index = match value {
        Value::Bool(_) => 0,
        Value::Int8(_) => 1,
        Value::Int16(_) => 2,
        Value::Int32(_) => 3,
        Value::Int64(_) => 4,
        Value::Float32(_) => 5,
        Value::Float64(_) => 6,
        _ => 7,
    };
    Node::Typed {
        schema: PLAIN[index].clone(),
        value,
        text: None,
    }
}

fn string(text: &str) -> Node<'static> {
    typed(Value::String(text.to_owned()))
}

/// A boolean, a date or time, or a number.
fn scalar(text: &str) -> Option<Node<'_>> {
    match text {
        "true" => Some(typed(Value::Bool(true))),
        "false" => Some(typed(Value::Bool(false))),
        _ => time(text).or_else(|| number(text)),
    }
}

fn number(text: &str) -> Option<Node<'_>> {
    let begins = text.starts_with(|first: char| first.is_ascii_digit() || first == '+' || first == '-');
    let others = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if !begins || !others {
        return None;
    }
    // A number without a fraction is an integer, however it is written.
    let unscaled = decimal_from_str(text, 0);
    let plain = text
        .trim_start_matches(['+', '-'])
        .bytes()
        .all(|byte| byte.is_ascii_digit());
    if let Some(unscaled) = unscaled.filter(|unscaled| unscaled.len() <= 8 || plain) {
        if unscaled.len() > 8 {
            return Some(decimal(unscaled, text));
        }
        let negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[8 - unscaled.len()..].copy_from_slice(&unscaled);
        return Some(typed(narrowest(i64::from_be_bytes(wide))));
    }
    let single: f32 = text.parse().ok()?;
    if single.is_finite() {
        return Some(typed(Value::Float32(single)));
    }
    let double: f64 = text.parse().ok()?;
    double.is_finite().then(|| typed(Value::Float64(double)))
}

fn narrowest(integer: i64) -> Value {
    if let Ok(number) = i8::try_from(integer) {
        Value::Int8(number)
    } else if let Ok(number) = i16::try_from(integer) {
        Value::Int16(number)
    } else if let Ok(number) = i32::try_from(integer) {
        Value::Int32(number)
    } else {
        Value::Int64(integer)
    }
}

fn decimal(unscaled: Vec<u8>, text: &str) -> Node<'_> {
    let schema = Schema::new(Type::Bytes)
        .named(logical::DECIMAL)
        .version(1)
        .parameter("scale", "0");
    Node::Typed {
        schema: Arc::new(schema),
        value: Value::Bytes(Bytes::from(unscaled)),
        text: Some(text),
    }
}

fn time(text: &str) -> Option<Node<'_>> {
    let (pattern, kind) = match text.len() {
        10 => ("yyyy-MM-dd", 0),
        13 => ("HH:mm:ss.SSS'Z'", 1),
        24 => ("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'", 2),
        _ => return None,
    };
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let millis = DateFormat::new(pattern).ok()?.parse(text).ok()?;
    let value = match kind {
        0 => Value::Int32(i32::try_from(millis.div_euclid(86_400_000)).ok()?),
        1 => Value::Int32(i32::try_from(millis).ok()?),
        _ => Value::Int64(millis),
    };
    Some(Node::Typed {
        schema: TIMES[kind].clone(),
        value,
        text: Some(text),
    })
}

/// Walks the text of a list or map. What it cannot read is none, and the whole text stays a string.
struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn whole(mut self) -> Option<Node<'t>> {
        let node = self.node(0)?;
        self.rest.trim_start().is_empty().then_some(node)
    }

    fn eat(&mut self, delimiter: char) -> bool {
        let rest = self.rest.trim_start();
        match rest.strip_prefix(delimiter) {
            Some(after) => {
                self.rest = after;
                true
            }
            None => false,
        }
    }

    fn node(&mut self, depth: usize) -> Option<Node<'t>> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.eat('[') {
            return self.list(depth);
        }
        if self.eat('{') {
            return self.map(depth);
        }
        if self.eat('"') {
            return self.quoted();
        }
        self.rest = self.rest.trim_start();
        // Times hold colons, which end any other word.
        for length in [24, 13, 10] {
            if let Some((word, rest)) = self.rest.split_at_checked(length)
                && rest.trim_start().starts_with([',', ':', ']', '}'])
                && let Some(time) = time(word)
            {
                self.rest = rest;
                return Some(time);
            }
        }
        let end = self.rest.find([',', ':', '[', ']', '{', '}', '"'])?;
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word.trim_end() {
            "null" => Some(Node::Null),
            word => scalar(word),
        }
    }

    fn quoted(&mut self) -> Option<Node<'t>> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(match time(&text) {
                        // The text is not borrowed from the whole; it is made anew where it is needed.
                        Some(Node::Typed { schema, value, .. }) => Node::Typed {
                            schema,
                            value,
                            text: None,
                        },
                        _ => typed(Value::String(text)),
                    });
                }
                '\\' => text.push(characters.next()?.1),
                other => text.push(other),
            }
        }
        None
    }

    fn list(&mut self, depth: usize) -> Option<Node<'t>> {
        let mut nodes = Vec::new();
        while !self.eat(']') {
            nodes.push(self.node(depth + 1)?);
            if !self.eat(',') && !self.rest.trim_start().starts_with(']') {
                return None;
            }
        }
        Some(match common(&nodes) {
            Some(element) => Node::Typed {
                value: Value::Array(nodes.into_iter().map(|node| node.widened(&element)).collect()),
                schema: Arc::new(Schema::array(element)),
                text: None,
            },
            None => Node::Loose(Value::Array(nodes.into_iter().map(Node::loose).collect())),
        })
    }

    fn map(&mut self, depth: usize) -> Option<Node<'t>> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        while !self.eat('}') {
            let key = self.node(depth + 1)?;
            if matches!(key, Node::Null) || !self.eat(':') {
                return None;
            }
            keys.push(key);
            values.push(self.node(depth + 1)?);
            if !self.eat(',') && !self.rest.trim_start().starts_with('}') {
                return None;
            }
        }
        let shared = common(&keys).zip(common(&values));
        let pairs = keys.into_iter().zip(values);
        Some(match shared {
            Some((key, value)) => {
                let pairs = pairs.map(|(k, v)| (k.widened(&key), v.widened(&value)));
                Node::Typed {
                    value: Value::Map(pairs.collect()),
                    schema: Arc::new(Schema::map(key, value)),
                    text: None,
                }
            }
            None => Node::Loose(Value::Map(pairs.map(|(k, v)| (k.loose(), v.loose())).collect())),
        })
    }
}

/// The schema that all elements of a list share; none where they are of several types, or all null, or there are none.
fn common(nodes: &[Node<'_>]) -> Option<SchemaRef> {
    let mut shared: Option<&SchemaRef> = None;
    let mut nulls = false;
    for node in nodes {
        let next = match node {
            Node::Null => {
                nulls = true;
                continue;
            }
            Node::Loose(_) => return None,
            Node::Typed { schema, .. } => schema,
        };
        shared = match shared {
            None => Some(next),
            Some(before) if before == next => Some(before),
            Some(before) => match (width(before), width(next)) {
                (Some(a), Some(b)) => Some(if a >= b { before } else { next }),
                _ => return None,
            },
        };
    }
    match shared {
        Some(schema) if nulls => Some(Arc::new(Schema::clone(schema).optional())),
        shared => shared.cloned(),
    }
}

/// The place of a plain number's type among those that it can widen to.
fn width(schema: &Schema) -> Option<usize> {
    let place = match schema.ty {
        Type::Int8 => 1,
        Type::Int16 => 2,
        Type::Int32 => 3,
        Type::Int64 => 4,
        Type::Float32 => 5,
        Type::Float64 => 6,
        _ => return None,
    };
    schema.name.is_none().then_some(place)
}

impl Node<'_> {
    /// The value as one of `schema`, which is [`common`] to it.
    fn widened(self, schema: &Schema) -> Value {
        let value = match self {
            Node::Null => return Value::Null,
            Node::Typed { value, .. } | Node::Loose(value) => value,
        };
        let integer = match value {
            Value::Int8(v) => i64::from(v),
            Value::Int16(v) => i64::from(v),
            Value::Int32(v) => i64::from(v),
            Value::Int64(v) => v,
            Value::Float32(v) if schema.ty == Type::Float64 => return Value::Float64(v.into()),
            other => return other,
        };
        match schema.ty {
            Type::Int16 => Value::Int16(integer as i16),
            Type::Int32 => Value::Int32(integer as i32),
            Type::Int64 => Value::Int64(integer),
            Type::Float32 => Value::Float32(integer as f32),
            Type::Float64 => Value::Float64(integer as f64),
            _ => value,
        }
    }

    /// The value by itself. Without a schema, what it would mean is kept by its text alone.
    fn loose(self) -> Value {
        match self {
            Node::Null => Value::Null,
            Node::Typed { text: Some(text), .. } => Value::String(text.to_owned()),
            Node::Typed { schema, value, .. } if schema.name.is_some() => {
                Value::String(meant(&value, &schema).unwrap_or_default())
            }
            Node::Typed { value, .. } | Node::Loose(value) => value,
        }
    }
}

fn meant(value: &Value, schema: &Schema) -> Option<String> {
    match value {
        Value::Int32(number) => time_text(i64::from(*number), schema),
        Value::Int64(number) => time_text(*number, schema),
        _ => None,
    }
}

/// A date or time of Connect's own types as text; none for any other number.
fn time_text(number: i64, schema: &Schema) -> Option<String> {
    match (schema.name.as_deref()?, &schema.ty) {
        (logical::CONNECT_DATE, Type::Int32) => iso_date(number),
        (logical::CONNECT_TIME, Type::Int32) => iso_time(number),
        (logical::CONNECT_TIMESTAMP, Type::Int64) => iso_timestamp(number),
        _ => None,
    }
}

/// Appends `value` as text.
pub fn write(value: ValueRef<'_>, schema: Option<&Schema>, out: &mut String) -> Result<(), DecodeError> {
    write_at(value, schema, out, 0)
}

fn write_at(
    value: ValueRef<'_>,
    schema: Option<&Schema>,
    out: &mut String,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > MAX_DEPTH {
        return Err(DecodeError(format!("nested deeper than {MAX_DEPTH} levels")));
    }
    let within = depth > 0;
    match value {
        ValueRef::Null => out.push_str("null"),
        ValueRef::Bool(truth) => out.push_str(if truth { "true" } else { "false" }),
        ValueRef::Int8(_) | ValueRef::Int16(_) | ValueRef::Int32(_) | ValueRef::Int64(_) => {
            let number = value.as_i64().unwrap_or_default();
            let time = schema.and_then(|schema| time_text(number, schema));
            out.push_str(&time.unwrap_or_else(|| number.to_string()));
        }
        ValueRef::Float32(number) => out.push_str(&float_text(number)),
        ValueRef::Float64(number) => out.push_str(&double_text(number)),
        ValueRef::String(text) if within => quote(text, out),
        ValueRef::String(text) => out.push_str(text),
        ValueRef::Bytes(bytes) => match schema.and_then(Logical::of) {
            Some(Logical::Decimal { scale }) => out.push_str(&decimal_to_string(bytes, scale)),
            _ if within => quote(&BASE64.encode(bytes), out),
            _ => BASE64.encode_string(bytes, out),
        },
        ValueRef::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_at(item?, items.element_schema(), out, depth + 1)?;
            }
            out.push(']');
        }
        ValueRef::Map(pairs) => {
            let (key_schema, value_schema) = pairs.schemas().unzip();
            out.push('{');
            for (index, pair) in pairs.iter().enumerate() {
                let (key, value) = pair?;
                if index > 0 {
                    out.push(',');
                }
                write_at(key, key_schema, out, depth + 1)?;
                out.push(':');
                write_at(value, value_schema, out, depth + 1)?;
            }
            out.push('}');
        }
        ValueRef::Struct(fields) => {
            out.push('{');
            for (index, field) in fields.iter().enumerate() {
                let (field, value) = field?;
                if index > 0 {
                    out.push(',');
                }
                quote(&field.name, out);
                out.push(':');
                write_at(value, Some(&field.schema), out, depth + 1)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

#[cfg(test)]
mod tests;
