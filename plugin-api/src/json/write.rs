//! Values to JSON text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{DecimalFormat, decimal_to_string};
use crate::logical;
use crate::schema::{Schema, Type};
use crate::value::{DecodeError, ValueRef, check_depth};

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
