//! The side file `<file>.offsets`: how much of the data file is durable, and which records that covers.
//!
//! It is a JSON object of a checksum and the state, replaced as a whole by a rename. The file itself is locked (flock),
//! so that two writers keep apart, and since each write is a new file, each new file is locked before it takes
//! the name: who holds the lock of the file that bears the name is the writer.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crc_fast::CrcAlgorithm::Crc32Iscsi;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidewater_plugin_api::{AlteredOffset, AssignedPartition, TopicPartitionOffset};

use crate::error::FileError;
use crate::regular_file::{FileId, folder, is_missing, must_be_file};

/// What is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The life of the task that wrote this; a greater one fences it (invariant 9).
    pub generation: u64,
    /// Which file the data file is.
    pub file: FileId,
    /// Its durable length in bytes.
    pub length: u64,
    /// Checksums of its beginning and of what stands before `length`; see [`crate::fingerprint`].
    pub fingerprint: String,
    /// For each partition the next offset to write: all before are within `length`, or in a file rotated away.
    pub offsets: Vec<TopicPartitionOffset>,
    /// The ids of the topics that the offsets are of.
    pub topic_ids: BTreeMap<String, String>,
}

impl State {
    /// Sets offsets by hand, while no task runs. One that was left behind is fenced by it, as by a task's next life.
    pub fn alter(&mut self, altered: &[AlteredOffset]) {
        self.generation += 1;
        for AlteredOffset { partition, offset } in altered {
            let AssignedPartition { partition, topic_id } = partition;
            let known = self.topic_ids.insert(partition.topic.clone(), topic_id.clone());
            // The others are of an earlier topic of the name, and count for nothing.
            let same_topic = known.as_ref() == Some(topic_id);
            self.offsets.retain(|other| {
                other.partition.topic != partition.topic || (same_topic && other.partition != *partition)
            });
            self.offsets.extend(offset.map(|offset| TopicPartitionOffset {
                partition: partition.clone(),
                offset,
            }));
        }
    }
}

/// The file's form. The checksum is CRC-32C of the state's text.
#[derive(Serialize, Deserialize)]
struct Content<'a> {
    version: u32,
    crc32c: u32,
    #[serde(borrow)]
    state: &'a RawValue,
}

/// The side file, locked.
#[derive(Debug)]
pub struct SideFile {
    data_path: PathBuf,
    path: PathBuf,
    /// The file that bears the name; its lock is held as long as this is open.
    locked: File,
    id: FileId,
}

impl SideFile {
    /// Where the side file of `data_path` is.
    pub fn path_of(data_path: &Path) -> PathBuf {
        let mut name = data_path.as_os_str().to_owned();
        name.push(".offsets");
        name.into()
    }

    /// Opens and locks the side file of `data_path` and reads it; there is no state before the first write.
    pub fn lock(data_path: &Path) -> Result<(Self, Option<State>), FileError> {
        let path = Self::path_of(data_path);
        loop {
            let locked = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(|error| FileError::io("open", &path, error))?;
            take_lock(&locked, data_path, &path)?;
            let examine = |error| FileError::io("examine", &path, error);
            let metadata = locked.metadata().map_err(examine)?;
            must_be_file(&metadata, &path)?;
            let id = FileId::of(&metadata);
            // Replaced between opening and locking: the lock is on a file without a name.
            if bearer(&path).map_err(examine)? != Some(id) {
                continue;
            }
            let side_file = Self {
                data_path: data_path.to_owned(),
                path,
                locked,
                id,
            };
            let state = side_file.read(&side_file.locked)?;
            return Ok((side_file, state));
        }
    }

    /// The side file's own path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the state; when this returns, it is durable.
    pub fn write(&mut self, state: &State) -> Result<(), FileError> {
        self.still_ours(state.generation)?;
        let mut next_path = self.path.clone().into_os_string();
        next_path.push(".tmp");
        let next_path = PathBuf::from(next_path);
        let written = self.write_next(&next_path, state);
        if written.is_err() {
            // What is left of it would only take room; the next attempt writes it anew.
            let _ = std::fs::remove_file(&next_path);
        }
        written
    }

    fn write_next(&mut self, next_path: &Path, state: &State) -> Result<(), FileError> {
        let fault = |doing| move |error: io::Error| FileError::io(doing, next_path, error);
        let text = encode(state).map_err(|error| fault("encode")(error.into()))?;
        let mut next = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(next_path)
            .map_err(fault("create"))?;
        take_lock(&next, &self.data_path, next_path)?;
        next.write_all(&text).map_err(fault("write"))?;
        next.sync_all().map_err(fault("sync"))?;
        let id = FileId::of(&next.metadata().map_err(fault("examine"))?);
        std::fs::rename(next_path, &self.path)
            .map_err(|error| FileError::io("replace", &self.path, error))?;
        self.locked = next;
        self.id = id;
        sync_folder(&self.path)
    }

    /// Whether nobody has taken over: the file that bears the name is the one whose lock is held, or there is none.
    fn still_ours(&self, generation: u64) -> Result<(), FileError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(FileError::io("open", &self.path, error)),
        };
        let metadata = file
            .metadata()
            .map_err(|error| FileError::io("examine", &self.path, error))?;
        if FileId::of(&metadata) == self.id {
            return Ok(());
        }
        match self.read(&mut file)? {
            Some(theirs) if theirs.generation > generation => Err(FileError::Fenced {
                path: self.data_path.clone(),
                theirs: theirs.generation,
                ours: generation,
            }),
            _ => Err(FileError::SideFile {
                path: self.data_path.clone(),
                side_file: self.path.clone(),
                reason: "it was replaced while this connector was writing".into(),
            }),
        }
    }

    fn read(&self, mut file: impl io::Read) -> Result<Option<State>, FileError> {
        let mut text = String::new();
        match file.read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.damaged("it is not text"));
            }
            Err(error) => return Err(FileError::io("read", &self.path, error)),
        }
        // Made to be locked, and never written.
        if text.is_empty() {
            return Ok(None);
        }
        let content: Content<'_> = serde_json::from_str(&text).map_err(|error| self.damaged(error))?;
        if content.version != 1 {
            return Err(self.damaged(format_args!(
                "version {} is of a later file-sink",
                content.version
            )));
        }
        if content.crc32c != checksum(content.state.get()) {
            return Err(self.damaged("its checksum does not match"));
        }
        let state = serde_json::from_str(content.state.get()).map_err(|error| self.damaged(error))?;
        Ok(Some(state))
    }

    fn damaged(&self, reason: impl std::fmt::Display) -> FileError {
        FileError::SideFile {
            path: self.data_path.clone(),
            side_file: self.path.clone(),
            reason: reason.to_string(),
        }
    }
}

impl Drop for SideFile {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just being started by another thread holds a copy of the handle until it
        // runs its program, and with it the lock.
        let _ = rustix::fs::flock(&self.locked, FlockOperation::Unlock);
    }
}

/// Makes a new or changed name in the folder of `path` durable.
pub fn sync_folder(path: &Path) -> Result<(), FileError> {
    let folder = folder(path);
    File::open(&folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| FileError::io("sync the folder", &folder, error))
}

fn encode(state: &State) -> serde_json::Result<Vec<u8>> {
    let state = serde_json::value::to_raw_value(state)?;
    let mut text = serde_json::to_vec(&Content {
        version: 1,
        crc32c: checksum(state.get()),
        state: &state,
    })?;
    text.push(b'\n');
    Ok(text)
}

fn checksum(text: &str) -> u32 {
    crc_fast::checksum(Crc32Iscsi, text.as_bytes()) as u32
}

fn take_lock(file: &File, data_path: &Path, path: &Path) -> Result<(), FileError> {
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(FileError::Locked {
                    path: data_path.to_owned(),
                    side_file: path.to_owned(),
                });
            }
            Err(error) => return Err(FileError::io("lock", path, error)),
        }
    }
}

/// Which file bears the name `path`.
fn bearer(path: &Path) -> io::Result<Option<FileId>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(FileId::of(&metadata))),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tidewater_plugin_api::TopicPartition;

    use super::*;

    fn state(generation: u64) -> State {
        State {
            generation,
            file: FileId {
                device: 1,
                inode: 2,
                born: 3,
            },
            length: 3,
            fingerprint: "3:00,3:00".into(),
            offsets: vec![TopicPartitionOffset {
                partition: TopicPartition {
                    topic: "t".into(),
                    partition: 0,
                },
                offset: 9,
            }],
            topic_ids: [("t".to_owned(), "id".to_owned())].into(),
        }
    }

    #[test]
    fn survives_and_keeps_others_out() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("out");
        let (mut side, none) = SideFile::lock(&data).unwrap();
        assert_eq!(none, None);
        assert!(matches!(SideFile::lock(&data), Err(FileError::Locked { .. })));
        side.write(&state(1)).unwrap();
        assert!(
            matches!(SideFile::lock(&data), Err(FileError::Locked { .. })),
            "the new file is locked too"
        );
        drop(side);
        assert_eq!(SideFile::lock(&data).unwrap().1, Some(state(1)));
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn offsets_are_set_by_hand() {
        let altered = |partition, topic_id: &str, offset| AlteredOffset {
            partition: TopicPartition {
                topic: "t".into(),
                partition,
            }
            .assigned(topic_id),
            offset,
        };
        let mut state = state(4);
        state.alter(&[altered(0, "id", Some(3)), altered(1, "id", Some(5))]);
        let offsets = |state: &State| -> Vec<(u32, u64)> {
            state
                .offsets
                .iter()
                .map(|of| (of.partition.partition, of.offset))
                .collect()
        };
        assert_eq!((state.generation, offsets(&state)), (5, vec![(0, 3), (1, 5)]));
        state.alter(&[altered(0, "id", None)]);
        assert_eq!(offsets(&state), [(1, 5)]);
        state.alter(&[altered(2, "another", Some(1))]);
        assert_eq!(offsets(&state), [(2, 1)], "those of the topic before it are gone");
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("out");
        let (mut side, _) = SideFile::lock(&data).unwrap();
        side.write(&state(1)).unwrap();
        drop(side);
        let path = SideFile::path_of(&data);
        let good = std::fs::read(&path).unwrap();
        for index in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[index] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert!(
                matches!(SideFile::lock(&data), Err(FileError::SideFile { .. })),
                "byte {index}"
            );
            std::fs::write(&path, &good[..=index]).unwrap();
            if index + 2 < good.len() {
                assert!(
                    matches!(SideFile::lock(&data), Err(FileError::SideFile { .. })),
                    "cut after byte {index}"
                );
            }
        }
    }

    #[test]
    fn a_later_generation_fences() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("out");
        let (mut zombie, _) = SideFile::lock(&data).unwrap();
        zombie.write(&state(1)).unwrap();
        // Its file is taken away from under its lock, as on a file system without locks.
        std::fs::remove_file(zombie.path()).unwrap();
        let (mut heir, _) = SideFile::lock(&data).unwrap();
        heir.write(&state(2)).unwrap();
        assert!(matches!(
            zombie.write(&state(1)),
            Err(FileError::Fenced {
                theirs: 2,
                ours: 1,
                ..
            })
        ));
    }
}
