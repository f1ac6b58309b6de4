//! `hstore`, in its text: `"key"=>"value", "other"=>NULL`.

use tidewater_plugin_api::ValueWriter;
use tidewater_plugin_api::json::write_string;

use super::{Fit, Unfit, utf8};

const NOT_HSTORE: Unfit = Unfit::Type("it is not an hstore in its own form");

/// Hands out each key and value in turn.
fn pairs(text: &[u8], mut pair: impl FnMut(&str, Option<&str>) -> Fit) -> Fit {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut rest = text;
    while !rest.is_empty() {
        rest = quoted(rest, &mut key)?;
        rest = rest.strip_prefix(b"=>").ok_or(NOT_HSTORE)?;
        if let Some(after) = rest.strip_prefix(b"NULL") {
            pair(utf8(&key)?, None)?;
            rest = after;
        } else {
            rest = quoted(rest, &mut value)?;
            pair(utf8(&key)?, Some(utf8(&value)?))?;
        }
        if rest.is_empty() {
            break;
        }
        rest = rest
            .strip_prefix(b", ")
            .filter(|rest| !rest.is_empty())
            .ok_or(NOT_HSTORE)?;
    }
    Ok(())
}

fn quoted<'a>(text: &'a [u8], unescaped: &mut Vec<u8>) -> Result<&'a [u8], Unfit> {
    unescaped.clear();
    let text = text.strip_prefix(b"\"").ok_or(NOT_HSTORE)?;
    let mut bytes = text.iter().enumerate();
    while let Some((index, &byte)) = bytes.next() {
        match byte {
            b'"' => return Ok(&text[index + 1..]),
            b'\\' => unescaped.push(*bytes.next().ok_or(NOT_HSTORE)?.1),
            _ => unescaped.push(byte),
        }
    }
    Err(NOT_HSTORE)
}

/// Writes a JSON object as text.
pub(crate) fn json(text: &[u8], out: &mut ValueWriter<'_>) -> Fit {
    let mut object = vec![b'{'];
    pairs(text, |key, value| {
        if object.len() > 1 {
            object.push(b',');
        }
        write_string(key, &mut object);
        object.push(b':');
        match value {
            Some(value) => write_string(value, &mut object),
            None => object.extend_from_slice(b"null"),
        }
        Ok(())
    })?;
    object.push(b'}');
    out.bytes(&object);
    Ok(())
}

/// Writes a map of strings.
pub(crate) fn map(text: &[u8], out: &mut ValueWriter<'_>) -> Fit {
    let open = out.begin_counted(0);
    let mut count = 0;
    pairs(text, |key, value| {
        count += 1;
        out.string(key);
        match value {
            Some(value) => {
                out.present();
                out.string(value);
            }
            None => out.null(),
        }
        Ok(())
    })?;
    out.set_count(&open, count);
    out.end(open);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<String, Unfit> {
        let mut buffer = Vec::new();
        json(text.as_bytes(), &mut ValueWriter::new(&mut buffer))?;
        Ok(String::from_utf8(buffer[4..].to_vec()).unwrap())
    }

    #[test]
    fn pairs_become_an_object() {
        assert_eq!(read("").unwrap(), "{}");
        assert_eq!(
            read(r#""a"=>"1", "b\"c"=>NULL, ""=>"NULL""#).unwrap(),
            r#"{"a":"1","b\"c":null,"":"NULL"}"#
        );
        for bad in [
            "a",
            "\"a\"",
            "\"a\"=>",
            "\"a\"=>1",
            "\"a\"=>\"1\",",
            "\"a\"=>\"1\", ",
        ] {
            assert_eq!(read(bad), Err(NOT_HSTORE), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "[\"=>,\\\\NUL a]{0,40}") {
            let mut buffer = Vec::new();
            let _ = read(&text);
            let _ = map(text.as_bytes(), &mut ValueWriter::new(&mut buffer));
        }
    }
}
