//! Text in a configuration that stands for a typed value: as [`crate::value_text`] reads it, and quotes keep text what it is.

use tidewater_plugin_api::Value;

use crate::record::Datum;
use crate::value_text;

/// What `text` stands for.
pub(crate) fn parse(text: &str) -> Datum {
    let quoted = text
        .trim()
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .filter(|inner| !inner.contains('"'));
    match quoted {
        Some(inner) => {
            // Read for the schema of text, which all text shares.
            let mut text = value_text::read("");
            text.set(text.schema().cloned(), Value::String(inner.to_owned()));
            text
        }
        None => value_text::read(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_text_what_it_is() {
        let table = [
            ("42", Some("int8"), Value::Int8(42)),
            ("\"42\"", Some("string"), Value::String("42".into())),
            (" \"\" ", Some("string"), Value::String(String::new())),
            ("\"a\",\"b\"", Some("string"), Value::String("\"a\",\"b\"".into())),
            (
                "[1,2]",
                Some("array"),
                Value::Array(vec![Value::Int8(1), Value::Int8(2)]),
            ),
            ("null", None, Value::Null),
        ];
        for (text, ty, value) in table {
            let mut datum = parse(text);
            assert_eq!(datum.schema().map(|schema| schema.ty.name()), ty, "{text}");
            assert_eq!(datum.value().expect("decoded"), &value, "{text}");
        }
    }
}
