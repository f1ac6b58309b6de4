//! Values that a source did not send, because they are large and did not change: what stands in their place.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use memchr::memmem::Finder;
use tidewater_plugin_api::value::DecodeError;
use tidewater_plugin_api::{Record, ValueRef, logical};

use super::text::write_hex;

/// The header in which our source names columns whose type has no room for a placeholder; they are null then.
const UNAVAILABLE_COLUMNS: &str = "__unavailable.columns";

/// What stands for a value that was not sent (`unavailable.value.placeholder`).
#[derive(Clone, Debug)]
pub struct Placeholder {
    /// As text; and as a source writes it that sends bytes as text, in base64 or hexadecimal.
    texts: Vec<String>,
    finders: Vec<Finder<'static>>,
}

impl Placeholder {
    /// The placeholder `text`.
    pub fn new(text: &str) -> Self {
        let mut hex = Vec::new();
        write_hex(text.as_bytes(), &mut hex);
        let hex = String::from_utf8_lossy(&hex).into_owned();
        let mut texts = vec![text.to_owned(), STANDARD.encode(text), hex];
        let url_safe = URL_SAFE.encode(text);
        if url_safe != texts[1] {
            texts.push(url_safe);
        }
        Self {
            finders: texts.iter().map(|text| Finder::new(text).into_owned()).collect(),
            texts,
        }
    }

    /// Whether encoded values may hold it; settles nearly all rows without looking at their fields. It does not see one
    /// that hides in an array of integers.
    pub fn may_be_in(&self, encoded: &[u8]) -> bool {
        self.finders.iter().any(|finder| finder.find(encoded).is_some())
    }

    /// Whether `value` is it.
    pub fn is(&self, value: ValueRef<'_>) -> bool {
        let plain = &self.texts[0];
        match value {
            ValueRef::String(text) => self.texts.iter().any(|known| known == text),
            ValueRef::Bytes(bytes) => bytes == plain.as_bytes(),
            ValueRef::Array(items) if items.count() == 1 => {
                items.iter().all(|item| matches!(item, Ok(item) if self.is(item)))
            }
            // An array of integers holds its bytes one by one.
            ValueRef::Array(items) if items.count() as usize == plain.len() => items
                .iter()
                .zip(plain.bytes())
                .all(|(item, byte)| matches!(item, Ok(item) if item.as_i64() == Some(byte.into()))),
            ValueRef::Map(pairs) if pairs.count() == 1 => pairs
                .iter()
                .all(|pair| matches!(pair, Ok((key, _)) if self.is(key))),
            ValueRef::Struct(parts) if parts.schema().name.as_deref() == Some(logical::VARIABLE_DECIMAL) => {
                matches!(parts.get("value"), Ok(Some(value)) if self.is(value))
            }
            _ => false,
        }
    }
}

/// The columns that a record's header says were not sent.
pub fn unavailable_columns<'a>(record: &Record<'a>) -> Result<Vec<&'a str>, DecodeError> {
    let mut names = Vec::new();
    for header in record.headers() {
        let header = header?;
        if header.name == UNAVAILABLE_COLUMNS
            && let ValueRef::Array(items) = header.value
        {
            for item in items.iter() {
                names.extend(item?.as_str());
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidewater_plugin_api::{Schema, Type, Value};

    #[test]
    fn in_every_guise() {
        let text = "__debezium_unavailable_value";
        let string = Schema::new(Type::String);
        let cases = [
            (string.clone(), Value::String(text.into())),
            (string.clone(), Value::String(STANDARD.encode(text))),
            (Schema::new(Type::Bytes), Value::Bytes(text.into())),
            (
                Schema::array(string.clone()),
                Value::Array(vec![Value::String(text.into())]),
            ),
            (
                Schema::array(Schema::new(Type::Int32)),
                Value::Array(text.bytes().map(|byte| Value::Int32(byte.into())).collect()),
            ),
            (
                Schema::map(string.clone(), string.clone()),
                Value::Map(vec![(Value::String(text.into()), Value::String(text.into()))]),
            ),
        ];
        let (placeholder, other) = (Placeholder::new(text), Placeholder::new("another"));
        for (schema, value) in cases {
            let mut encoded = Vec::new();
            value.encode(Some(&schema), &mut encoded).unwrap();
            let integers = matches!(&schema.ty, Type::Array(element) if element.ty == Type::Int32);
            assert!(integers || placeholder.may_be_in(&encoded), "{value:?}");
            assert!(!other.may_be_in(&encoded), "{value:?}");
            let value = ValueRef::decode(Some(&schema), &encoded).unwrap();
            assert!(placeholder.is(value), "{value:?}");
            assert!(!other.is(value), "{value:?}");
        }
    }
}
