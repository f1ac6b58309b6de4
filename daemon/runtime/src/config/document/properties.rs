//! Java's `.properties`: UTF-8 where it is that, else Latin-1, as Java reads it.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use java_properties::{LineContent, PropertiesIter};

use super::{Entry, Fault, Place};

pub(in crate::config) fn parse(bytes: &[u8]) -> Result<Vec<Entry>, Fault> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // The WHATWG's name for Latin-1 and its superset in practice.
    let encoding: &'static Encoding = if std::str::from_utf8(bytes).is_ok() {
        UTF_8
    } else {
        WINDOWS_1252
    };
    let mut entries = Vec::new();
    for line in PropertiesIter::new_with_encoding(bytes, encoding) {
        let line = line.map_err(|error| Fault {
            place: error.line_number().map(|line| Place {
                line: line as u32,
                column: 1,
            }),
            key: None,
            message: format!("is not a valid .properties file: {error}"),
        })?;
        let place = Place {
            line: line.line_number() as u32,
            column: 1,
        };
        if let LineContent::KVPair(key, value) = line.consume_content() {
            entries.push(Entry {
                key,
                value: Some(value),
                place,
            });
        }
    }
    Ok(entries)
}
