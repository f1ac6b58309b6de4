//! Text that stands for a typed value, by Connect's rules: the narrowest integer that holds it, then float, double and
//! decimal; booleans; dates and times in ISO 8601; anything else is text.

use std::sync::Arc;

use bytes::Bytes;
use tidewater_plugin_api::json::decimal_from_str;
use tidewater_plugin_api::{Schema, Type, Value, logical};

use crate::date_format::DateFormat;
use crate::record::Datum;

/// What `text` stands for.
pub(crate) fn parse(text: &str) -> Datum {
    let plain = text.trim();
    let typed = |ty: Type, value: Value| Datum::new(Some(Arc::new(Schema::new(ty))), value);
    match plain {
        "null" => return Datum::null(),
        "true" => return typed(Type::Bool, Value::Bool(true)),
        "false" => return typed(Type::Bool, Value::Bool(false)),
        _ => {}
    }
    if let Some(inner) = plain
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|inner| !inner.contains('"'))
    {
        return typed(Type::String, Value::String(inner.to_owned()));
    }
    if let Some(number) = number(plain).or_else(|| time(plain)) {
        return number;
    }
    typed(Type::String, Value::String(text.to_owned()))
}

fn number(text: &str) -> Option<Datum> {
    let digits = text.bytes().any(|byte| byte.is_ascii_digit());
    let others = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    if !digits || !others {
        return None;
    }
    let typed = |ty: Type, value: Value| Some(Datum::new(Some(Arc::new(Schema::new(ty))), value));
    // A number without a fraction is an integer, however it is written.
    let unscaled = decimal_from_str(text, 0);
    let plain = text
        .trim_start_matches(['+', '-'])
        .bytes()
        .all(|byte| byte.is_ascii_digit());
    if let Some(unscaled) = unscaled.filter(|unscaled| unscaled.len() <= 8 || plain) {
        if unscaled.len() > 8 {
            return Some(decimal(unscaled, 0));
        }
        let negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[8 - unscaled.len()..].copy_from_slice(&unscaled);
        let integer = i64::from_be_bytes(wide);
        if let Ok(number) = i8::try_from(integer) {
            return typed(Type::Int8, Value::Int8(number));
        }
        if let Ok(number) = i16::try_from(integer) {
            return typed(Type::Int16, Value::Int16(number));
        }
        if let Ok(number) = i32::try_from(integer) {
            return typed(Type::Int32, Value::Int32(number));
        }
        return typed(Type::Int64, Value::Int64(integer));
    }
    let single: f32 = text.parse().ok()?;
    if single.is_finite() {
        return typed(Type::Float32, Value::Float32(single));
    }
    let double: f64 = text.parse().ok()?;
    if double.is_finite() {
        return typed(Type::Float64, Value::Float64(double));
    }
    None
}

fn decimal(unscaled: Vec<u8>, scale: i32) -> Datum {
    let schema = Schema::new(Type::Bytes)
        .named(logical::DECIMAL)
        .version(1)
        .parameter("scale", scale.to_string());
    Datum::new(Some(Arc::new(schema)), Value::Bytes(Bytes::from(unscaled)))
}

fn time(text: &str) -> Option<Datum> {
    let (pattern, ty, name) = match text.len() {
        10 => ("yyyy-MM-dd", Type::Int32, logical::CONNECT_DATE),
        13 => ("HH:mm:ss.SSS'Z'", Type::Int32, logical::CONNECT_TIME),
        24 => (
            "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'",
            Type::Int64,
            logical::CONNECT_TIMESTAMP,
        ),
        _ => return None,
    };
    let millis = DateFormat::new(pattern).ok()?.parse(text).ok()?;
    let value = match text.len() {
        10 => Value::Int32(i32::try_from(millis.div_euclid(86_400_000)).ok()?),
        13 => Value::Int32(i32::try_from(millis).ok()?),
        _ => Value::Int64(millis),
    };
    let schema = Schema::new(ty).named(name).version(1);
    Some(Datum::new(Some(Arc::new(schema)), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_by_connects_rules() {
        let table = [
            ("true", Some("boolean"), Value::Bool(true)),
            ("42", Some("int8"), Value::Int8(42)),
            ("-128", Some("int8"), Value::Int8(-128)),
            ("128", Some("int16"), Value::Int16(128)),
            ("1.0", Some("int8"), Value::Int8(1)),
            ("1e3", Some("int16"), Value::Int16(1000)),
            ("40000", Some("int32"), Value::Int32(40000)),
            ("5000000000", Some("int64"), Value::Int64(5_000_000_000)),
            ("1.5", Some("float"), Value::Float32(1.5)),
            ("1.5e300", Some("double"), Value::Float64(1.5e300)),
            ("null", None, Value::Null),
            ("hello", Some("string"), Value::String("hello".into())),
            ("\"42\"", Some("string"), Value::String("42".into())),
            ("1.2.3", Some("string"), Value::String("1.2.3".into())),
            ("-", Some("string"), Value::String("-".into())),
            ("", Some("string"), Value::String(String::new())),
            ("1970-01-02", Some("int32"), Value::Int32(1)),
            ("00:00:01.500Z", Some("int32"), Value::Int32(1500)),
            ("1970-01-01T00:00:01.500Z", Some("int64"), Value::Int64(1500)),
            ("1970-13-02", Some("string"), Value::String("1970-13-02".into())),
        ];
        for (text, ty, value) in table {
            let mut datum = parse(text);
            assert_eq!(datum.schema().map(|schema| schema.ty.name()), ty, "{text}");
            assert_eq!(datum.value().expect("decoded"), &value, "{text}");
        }
        let wide = parse("123456789012345678901234567890");
        let name = wide.schema().and_then(|schema| schema.name.clone());
        assert_eq!(name.as_deref(), Some(logical::DECIMAL));
    }
}
