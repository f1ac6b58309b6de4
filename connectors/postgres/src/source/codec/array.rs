//! Arrays, in PostgreSQL's text: `{1,NULL,"a \"b\""}`.

use tidewater_plugin_api::ValueWriter;

use super::{Codec, Fit, Unfit};

const NOT_ARRAY: Unfit = Unfit::Type("it is not an array in PostgreSQL's form");
const DIMENSIONS: Unfit = Unfit::Type("a list cannot hold an array of several dimensions");
const BOUNDS: Unfit = Unfit::Type("a list cannot hold an array that does not start at 1");

/// Writes the list of the elements in `text`.
pub(crate) fn write(text: &[u8], element: &Codec, delimiter: u8, out: &mut ValueWriter<'_>) -> Fit {
    if text.first() == Some(&b'[') {
        return Err(BOUNDS);
    }
    let inner = text
        .strip_prefix(b"{")
        .and_then(|rest| rest.strip_suffix(b"}"))
        .ok_or(NOT_ARRAY)?;
    let open = out.begin_counted(0);
    let mut count = 0;
    let mut unescaped = Vec::new();
    let mut rest = inner;
    while !inner.is_empty() {
        let after = match rest.first() {
            Some(b'{') => return Err(DIMENSIONS),
            Some(b'"') => {
                let after = quoted(&rest[1..], &mut unescaped)?;
                out.present();
                element.write(&unescaped, out)?;
                after
            }
            _ => {
                let end = rest
                    .iter()
                    .position(|&byte| byte == delimiter)
                    .unwrap_or(rest.len());
                let (item, after) = rest.split_at(end);
                if item.is_empty() || item.iter().any(|byte| matches!(byte, b'"' | b'{' | b'}' | b'\\')) {
                    return Err(NOT_ARRAY);
                }
                if item == b"NULL" {
                    out.null();
                } else {
                    out.present();
                    element.write(item, out)?;
                }
                after
            }
        };
        count += 1;
        match after.split_first() {
            None => break,
            Some((&byte, next)) if byte == delimiter => rest = next,
            Some(_) => return Err(NOT_ARRAY),
        }
    }
    out.set_count(&open, count);
    out.end(open);
    Ok(())
}

/// Unescapes up to the closing quote; what stands after it is left.
fn quoted<'a>(text: &'a [u8], unescaped: &mut Vec<u8>) -> Result<&'a [u8], Unfit> {
    unescaped.clear();
    let mut bytes = text.iter().enumerate();
    while let Some((index, &byte)) = bytes.next() {
        match byte {
            b'"' => return Ok(&text[index + 1..]),
            b'\\' => unescaped.push(*bytes.next().ok_or(NOT_ARRAY)?.1),
            _ => unescaped.push(byte),
        }
    }
    Err(NOT_ARRAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidewater_plugin_api::{Schema, Type, Value, ValueRef};

    fn read(text: &str) -> Result<Vec<Option<String>>, Unfit> {
        let mut buffer = Vec::new();
        write(
            text.as_bytes(),
            &Codec::Text,
            b',',
            &mut ValueWriter::new(&mut buffer),
        )?;
        let schema = Schema::array(Schema::new(Type::String).optional());
        let Value::Array(items) = ValueRef::decode(Some(&schema), &buffer)
            .unwrap()
            .to_value()
            .unwrap()
        else {
            panic!("an array");
        };
        Ok(items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Some(text),
                _ => None,
            })
            .collect())
    }

    #[test]
    fn elements_quotes_and_nulls() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("{}").unwrap(), []);
        assert_eq!(
            read(r#"{a,NULL,"NULL","","x\"y\\z",null}"#).unwrap(),
            [
                some("a"),
                None,
                some("NULL"),
                some(""),
                some("x\"y\\z"),
                some("null")
            ]
        );
        assert_eq!(read("{{1},{2}}"), Err(DIMENSIONS));
        assert_eq!(read("[0:1]={1,2}"), Err(BOUNDS));
        for bad in ["", "{", "}", "{a", "{a,}", "{,}", "{\"a}", "{\"a\"b}", "{a\\}"] {
            assert_eq!(read(bad), Err(NOT_ARRAY), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(items in proptest::collection::vec(".{0,12}", 0..8)) {
            let quoted: Vec<String> =
                items.iter().map(|item| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\""))).collect();
            let read = read(&format!("{{{}}}", quoted.join(","))).unwrap();
            prop_assert_eq!(read, items.into_iter().map(Some).collect::<Vec<_>>());
        }

        #[test]
        fn arbitrary_text_never_panics(text in "[{}\",\\\\NUL1 a]{0,40}") {
            let _ = read(&text);
        }
    }
}
