//! How far the file has been read, in the form that is stored: Connect's source partition and offset.
//!
//! The keys `filename` and `position` are FileStreamSource's, so that its positions are taken over.

use std::path::Path;

use serde_json::{Map, Value as Json};
use tidewater_plugin_api::SourcePosition;

use crate::mark::Mark;
use crate::regular_file::FileId;

/// The source partition of `file`.
pub fn partition(file: &Path) -> Map<String, Json> {
    Map::from_iter([("filename".to_owned(), file.to_string_lossy().into_owned().into())])
}

/// The source offset of `mark`, the byte after the last line that became a record.
pub fn to_map(mark: &Mark) -> Map<String, Json> {
    let mut map = Map::new();
    map.insert("position".into(), mark.position.into());
    if let Some(id) = mark.id {
        map.insert("device".into(), id.device.into());
        map.insert("inode".into(), id.inode.into());
        map.insert("born".into(), id.born.into());
        map.insert("modified".into(), mark.modified.into());
        map.insert("fingerprint".into(), mark.fingerprint.to_string().into());
    }
    map
}

/// Reads a source offset; none where there is no position in it.
pub fn from_map(map: &Map<String, Json>) -> Option<Mark> {
    let number = |key: &str| map.get(key).and_then(Json::as_u64);
    let id = number("device")
        .zip(number("inode"))
        .map(|(device, inode)| FileId {
            device,
            inode,
            born: number("born").unwrap_or(0),
        });
    let fingerprint = map.get("fingerprint").and_then(Json::as_str);
    let fingerprint = fingerprint.and_then(|text| text.parse().ok());
    Some(Mark {
        position: number("position")?,
        // Without a fingerprint the inode alone would prove nothing.
        id: id.filter(|_| fingerprint.is_some()),
        modified: number("modified").unwrap_or(0),
        fingerprint: fingerprint.unwrap_or_default(),
    })
}

/// The stored offset of `file` among `positions`.
pub fn stored(file: &Path, positions: &[SourcePosition]) -> Option<Mark> {
    let partition = partition(file);
    let position = positions
        .iter()
        .find(|position| position.partition == partition)?;
    from_map(position.offset.as_ref()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::Fingerprint;

    #[test]
    fn round_trip_and_file_stream_form() {
        let mark = Mark {
            position: 12,
            id: Some(FileId {
                device: 3,
                inode: 4,
                born: 5,
            }),
            modified: 5,
            fingerprint: Fingerprint::of(b"head and tai", b"head and tai"),
        };
        assert_eq!(from_map(&to_map(&mark)), Some(mark));

        let foreign = Map::from_iter([("position".to_owned(), 7.into())]);
        let mark = from_map(&foreign).unwrap();
        assert_eq!((mark.position, mark.id), (7, None));
        assert_eq!(from_map(&Map::new()), None);
    }
}
