//! Messages of the plugin pgoutput, protocol version 1, decoded in place. Begin and Commit come from the replication
//! client already taken apart.
//!
//! Source: PostgreSQL's documentation, "Logical Replication Message Formats".

use super::catalog::Identity;
use super::row::{Cell, Cells};

/// Bytes that are no message of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed pgoutput message: {0}")]
pub(crate) struct Malformed(&'static str);

const SHORT: Malformed = Malformed("it ends too early");

/// A message. The cells of rows go to the buffers given to [`decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Relation(RelationMessage),
    Insert {
        relation: u32,
    },
    /// What is known of the old row, and all of the new one.
    Update {
        relation: u32,
        old: Old,
    },
    Delete {
        relation: u32,
        old: Old,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// Types, origins and messages: they tell nothing that is needed here.
    Other,
}

/// What a change tells of the old row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    Nothing,
    /// The columns of the replica identity; the others are null.
    Key,
    /// All of it.
    Row,
}

/// What a table looks like from here on in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelationMessage {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) identity: Identity,
    pub(crate) columns: Vec<RelationColumn>,
}

/// A column of a [`RelationMessage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub(crate) in_identity: bool,
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) modifier: i32,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let array = self
            .bytes
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<N>())
            .ok_or(SHORT)?;
        self.at += N;
        Ok(*array)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn count(&mut self) -> Result<usize, Malformed> {
        usize::try_from(i16::from_be_bytes(self.array()?)).map_err(|_| Malformed("a count is negative"))
    }

    fn string(&mut self) -> Result<String, Malformed> {
        let rest = self.bytes.get(self.at..).ok_or(SHORT)?;
        let end = rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(Malformed("a name has no end"))?;
        self.at += end + 1;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn row(&mut self, cells: &mut Cells) -> Result<(), Malformed> {
        cells.clear();
        for _ in 0..self.count()? {
            cells.push(match self.u8()? {
                b'n' => Cell::Null,
                b'u' => Cell::Unchanged,
                b't' => {
                    let length = self.u32()? as usize;
                    let start = self.at;
                    self.at = start
                        .checked_add(length)
                        .filter(|&end| end <= self.bytes.len())
                        .ok_or(SHORT)?;
                    Cell::Text { start, end: self.at }
                }
                _ => return Err(Malformed("a cell is neither null, unchanged nor text")),
            });
        }
        Ok(())
    }
}

/// Decodes `bytes`; the cells of the old and the new row, where there are such, refer to them.
pub(crate) fn decode(bytes: &[u8], old: &mut Cells, new: &mut Cells) -> Result<Message, Malformed> {
    let mut reader = Reader { bytes, at: 0 };
    Ok(match reader.u8()? {
        b'I' => {
            let relation = reader.u32()?;
            if reader.u8()? != b'N' {
                return Err(Malformed("an insert has no new row"));
            }
            reader.row(new)?;
            Message::Insert { relation }
        }
        b'U' => {
            let relation = reader.u32()?;
            let mut tag = reader.u8()?;
            let kind = old_row(tag);
            if kind != Old::Nothing {
                reader.row(old)?;
                tag = reader.u8()?;
            }
            if tag != b'N' {
                return Err(Malformed("an update has no new row"));
            }
            reader.row(new)?;
            Message::Update { relation, old: kind }
        }
        b'D' => {
            let relation = reader.u32()?;
            let kind = old_row(reader.u8()?);
            if kind == Old::Nothing {
                return Err(Malformed("a delete has no old row"));
            }
            reader.row(old)?;
            Message::Delete { relation, old: kind }
        }
        b'T' => {
            let count = reader.u32()?;
            let _options = reader.u8()?;
            let mut relations = Vec::new();
            for _ in 0..count {
                relations.push(reader.u32()?);
            }
            Message::Truncate { relations }
        }
        b'R' => Message::Relation(relation(&mut reader)?),
        _ => Message::Other,
    })
}

fn old_row(tag: u8) -> Old {
    match tag {
        b'K' => Old::Key,
        b'O' => Old::Row,
        _ => Old::Nothing,
    }
}

fn relation(reader: &mut Reader<'_>) -> Result<RelationMessage, Malformed> {
    let oid = reader.u32()?;
    let schema = reader.string()?;
    let table = reader.string()?;
    let identity = Identity::of(reader.u8()?);
    let mut columns = Vec::new();
    for _ in 0..reader.count()? {
        columns.push(RelationColumn {
            in_identity: reader.u8()? & 1 == 1,
            name: reader.string()?,
            type_oid: reader.u32()?,
            modifier: reader.u32()? as i32,
        });
    }
    // The system's own schema goes without a name.
    let schema = if schema.is_empty() {
        "pg_catalog".to_owned()
    } else {
        schema
    };
    Ok(RelationMessage {
        oid,
        schema,
        table,
        identity,
        columns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_update_with_its_old_key() {
        let mut bytes = vec![
            b'U', 0, 0, 0, 9, b'K', 0, 2, b't', 0, 0, 0, 1, b'1', b'n', b'N', 0, 2,
        ];
        bytes.extend([b't', 0, 0, 0, 1, b'2', b'u']);
        let (mut old, mut new) = (Cells::new(), Cells::new());
        let message = decode(&bytes, &mut old, &mut new).unwrap();
        assert_eq!(
            message,
            Message::Update {
                relation: 9,
                old: Old::Key
            }
        );
        assert_eq!(old, [Cell::Text { start: 13, end: 14 }, Cell::Null]);
        assert_eq!(new, [Cell::Text { start: 23, end: 24 }, Cell::Unchanged]);
        assert_eq!(&bytes[13..14], b"1");
        assert_eq!(&bytes[23..24], b"2");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(tag in "[IUDTRYOMX]", bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut message = tag.into_bytes();
            message.extend(bytes);
            let (mut old, mut new) = (Cells::new(), Cells::new());
            if decode(&message, &mut old, &mut new).is_ok() {
                for cell in old.iter().chain(&new) {
                    if let Cell::Text { start, end } = *cell {
                        prop_assert!(message.get(start..end).is_some());
                    }
                }
            }
        }
    }
}
