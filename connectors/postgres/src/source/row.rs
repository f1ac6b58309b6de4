//! A row as PostgreSQL sends it, be it in the stream or by COPY: cells that refer to one buffer.

/// A cell of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    Null,
    /// A large value that the update did not change, and that was therefore not sent.
    Unchanged,
    /// Text, from byte `start` to before `end` of the buffer.
    Text {
        start: usize,
        end: usize,
    },
}

/// The cells of a row; the vector is used again for each.
pub(crate) type Cells = Vec<Cell>;

/// A row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) buffer: &'a [u8],
    pub(crate) cells: &'a [Cell],
}

/// A cell's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Null,
    Unchanged,
    Text(&'a [u8]),
}

impl<'a> Row<'a> {
    /// The content of the cell at `index`; null where the row has none.
    pub(crate) fn get(&self, index: usize) -> Content<'a> {
        match self.cells.get(index) {
            None | Some(Cell::Null) => Content::Null,
            Some(Cell::Unchanged) => Content::Unchanged,
            // The decoders have checked the bounds.
            Some(Cell::Text { start, end }) => {
                Content::Text(self.buffer.get(*start..*end).unwrap_or_default())
            }
        }
    }
}

/// Takes apart a line of COPY's text format. The cells refer to `line`, or to `unescaped` where it has escapes: the
/// buffer to use is returned.
pub(crate) fn split_copy_line<'a>(line: &'a [u8], unescaped: &'a mut Vec<u8>, cells: &mut Cells) -> &'a [u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    cells.clear();
    if !line.contains(&b'\\') {
        let mut start = 0;
        for part in line.split(|&byte| byte == b'\t') {
            cells.push(Cell::Text {
                start,
                end: start + part.len(),
            });
            start += part.len() + 1;
        }
        return line;
    }
    unescaped.clear();
    for part in line.split(|&byte| byte == b'\t') {
        if part == b"\\N" {
            cells.push(Cell::Null);
            continue;
        }
        let start = unescaped.len();
        let mut bytes = part.iter();
        while let Some(&byte) = bytes.next() {
            if byte != b'\\' {
                unescaped.push(byte);
                continue;
            }
            unescaped.push(match bytes.next() {
                Some(b'b') => 0x08,
                Some(b'f') => 0x0c,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 0x0b,
                Some(&other) => other,
                None => b'\\',
            });
        }
        cells.push(Cell::Text {
            start,
            end: unescaped.len(),
        });
    }
    unescaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(line: &[u8]) -> Vec<Option<Vec<u8>>> {
        let (mut unescaped, mut cells) = (Vec::new(), Cells::new());
        let buffer = split_copy_line(line, &mut unescaped, &mut cells);
        let row = Row {
            buffer,
            cells: &cells,
        };
        (0..cells.len())
            .map(|index| match row.get(index) {
                Content::Text(text) => Some(text.to_vec()),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn a_line_with_and_without_escapes() {
        assert_eq!(
            split(b"1\t\tx\n"),
            [Some(b"1".to_vec()), Some(vec![]), Some(b"x".to_vec())]
        );
        assert_eq!(
            split(b"\\N\ta\\tb\\\\\\n\t\\\\N\n"),
            [None, Some(b"a\tb\\\n".to_vec()), Some(b"\\N".to_vec())]
        );
    }

    proptest! {
        #[test]
        fn escaped_cells_come_back(cells in proptest::collection::vec("[a\\\\\t\n\r\u{8}\u{b}\u{c}N]{0,8}", 1..6)) {
            let escape = |cell: &String| {
                cell.chars().map(|c| match c {
                    '\\' => "\\\\".to_owned(),
                    '\t' => "\\t".to_owned(),
                    '\n' => "\\n".to_owned(),
                    '\r' => "\\r".to_owned(),
                    '\u{8}' => "\\b".to_owned(),
                    '\u{b}' => "\\v".to_owned(),
                    '\u{c}' => "\\f".to_owned(),
                    c => c.to_string(),
                }).collect::<String>()
            };
            let line = cells.iter().map(escape).collect::<Vec<_>>().join("\t") + "\n";
            let expected: Vec<_> = cells.iter().map(|cell| Some(cell.clone().into_bytes())).collect();
            prop_assert_eq!(split(line.as_bytes()), expected);
        }

        #[test]
        fn arbitrary_lines_never_panic(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = split(&line);
        }
    }
}
