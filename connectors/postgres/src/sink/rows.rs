//! Rows on their way to Postgres: as array parameters, or as COPY's text. Values are written straight into the buffers.

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgTypeInfo};
use sqlx::{Arguments as _, Postgres, Type};

use super::text::TextError;

/// Takes rows cell by cell, in the order of the columns.
pub trait RowWriter {
    /// A NULL.
    fn null(&mut self);
    /// A value, which `write` appends as text.
    fn value(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), TextError>) -> Result<(), TextError>;
    /// The end of the row.
    fn end_row(&mut self);

    /// The cells of an encoded key.
    fn key(&mut self, key: &[u8]) {
        for cell in key_cells(key) {
            // Writing bytes that are there cannot fail.
            let _ = self.value(|out| {
                out.extend_from_slice(cell);
                Ok(())
            });
        }
    }
}

/// Appends a key's cell: its length, and what `write` appends.
pub fn write_key_cell(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), TextError>,
) -> Result<(), TextError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// The cells of a key written with [`write_key_cell`].
pub fn key_cells(mut key: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = key.split_first_chunk::<4>()?;
        let (cell, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        key = rest;
        Some(cell)
    })
}

/// Rows as one `text[]` parameter per column.
#[derive(Debug, Default)]
pub struct ParameterRows {
    columns: Vec<TextArray>,
    /// The column that comes next.
    at: usize,
    rows: usize,
    bytes: usize,
}

/// A one-dimensional `text[]`, its elements in the binary protocol's form: length and bytes, or -1 for NULL.
#[derive(Debug, Default)]
struct TextArray {
    elements: Vec<u8>,
    count: i32,
    has_null: bool,
}

impl ParameterRows {
    /// No rows yet, of `columns` columns.
    pub fn new(columns: usize) -> Self {
        Self {
            columns: std::iter::repeat_with(TextArray::default).take(columns).collect(),
            ..Self::default()
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// How large their values are, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets them, but keeps their room.
    pub fn clear(&mut self) {
        for column in &mut self.columns {
            column.elements.clear();
            column.count = 0;
            column.has_null = false;
        }
        (self.rows, self.bytes) = (0, 0);
    }

    /// The rows as a statement's arguments.
    pub fn arguments(&self) -> Result<PgArguments, BoxDynError> {
        let mut arguments = PgArguments::default();
        for column in &self.columns {
            arguments.add(column)?;
        }
        Ok(arguments)
    }

    /// The cells of the first row.
    pub fn first_row(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.columns.iter().map(|column| {
            let (length, rest) = column.elements.split_first_chunk::<4>()?;
            rest.get(..usize::try_from(i32::from_be_bytes(*length)).ok()?)
        })
    }
}

impl RowWriter for ParameterRows {
    fn null(&mut self) {
        let column = &mut self.columns[self.at];
        column.elements.extend_from_slice(&(-1i32).to_be_bytes());
        column.has_null = true;
        column.count += 1;
        self.at += 1;
    }

    fn value(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), TextError>) -> Result<(), TextError> {
        let column = &mut self.columns[self.at];
        let start = column.elements.len();
        write_key_cell(&mut column.elements, write)?;
        self.bytes += column.elements.len() - start;
        column.count += 1;
        self.at += 1;
        Ok(())
    }

    fn end_row(&mut self) {
        debug_assert_eq!(self.at, self.columns.len());
        self.at = 0;
        self.rows += 1;
    }
}

impl Type<Postgres> for TextArray {
    fn type_info() -> PgTypeInfo {
        <Vec<String> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for TextArray {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        const TEXT: i32 = 25; // pg_type's oid of text
        for word in [1, i32::from(self.has_null), TEXT, self.count, 1] {
            buffer.extend_from_slice(&word.to_be_bytes());
        }
        buffer.extend_from_slice(&self.elements);
        Ok(IsNull::No)
    }
}

/// Rows as COPY's text format.
#[derive(Debug, Default)]
pub struct CopyRows {
    text: Vec<u8>,
    in_row: bool,
}

impl CopyRows {
    /// What has been written; the caller sends it and clears it.
    pub fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.in_row, true) {
            self.text.push(b'\t');
        }
    }
}

impl RowWriter for CopyRows {
    fn null(&mut self) {
        self.separate();
        self.text.extend_from_slice(b"\\N");
    }

    fn value(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), TextError>) -> Result<(), TextError> {
        self.separate();
        let start = self.text.len();
        write(&mut self.text)?;
        escape_from(&mut self.text, start);
        Ok(())
    }

    fn end_row(&mut self) {
        self.text.push(b'\n');
        self.in_row = false;
    }
}

/// Escapes what COPY would take for something else, from `start` on.
fn escape_from(text: &mut Vec<u8>, start: usize) {
    let special = |byte: u8| matches!(byte, b'\\' | b'\n' | b'\r' | b'\t');
    let Some(first) = text[start..].iter().position(|&byte| special(byte)) else {
        return;
    };
    let tail = text.split_off(start + first);
    text.reserve(tail.len() + 8);
    for byte in tail {
        let letter = match byte {
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            plain => {
                text.push(plain);
                continue;
            }
        };
        text.extend_from_slice(&[b'\\', letter]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(rows: &mut impl RowWriter, text: &str) {
        rows.value(|out| {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn copy_escapes() {
        let mut rows = CopyRows::default();
        put(&mut rows, "a\\b\tc\nd\re");
        rows.null();
        put(&mut rows, "");
        rows.end_row();
        put(&mut rows, "\\N");
        rows.end_row();
        assert_eq!(
            String::from_utf8(rows.text().clone()).unwrap(),
            "a\\\\b\\tc\\nd\\re\t\\N\t\n\\\\N\n"
        );
    }

    #[test]
    fn keys_come_back_as_cells() {
        let mut key = Vec::new();
        for cell in ["a", "", "bc"] {
            write_key_cell(&mut key, |out| {
                out.extend_from_slice(cell.as_bytes());
                Ok(())
            })
            .unwrap();
        }
        assert_eq!(key_cells(&key).collect::<Vec<_>>(), [b"a".as_slice(), b"", b"bc"]);
        let mut rows = ParameterRows::new(4);
        rows.key(&key);
        rows.null();
        rows.end_row();
        let row: Vec<_> = rows.first_row().collect();
        assert_eq!(row, [Some(b"a".as_slice()), Some(b""), Some(b"bc"), None]);
    }
}
