//! Topics: their names, what is stored about them, and creating and deleting them durably.
//!
//! `topics/<id>/topic.json` holds id, name, partition count and settings. A topic exists once that file does, which
//! is written last; it is gone once its directory is renamed to `<id>.deleted`, which is done first. What the file says
//! is believed only if its checksum agrees: a wrong partition count would hide records or make files without end.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch::header::crc32c;
use crate::disk::Disk;
use crate::disk::durable_file::{create_dir, replace, sync_dir};
use crate::error::{Error, Result};
use crate::log::Log;
use crate::transaction::log::TRANSACTION_LOG;

/// The topic of the offsets of consumer groups.
pub const GROUP_OFFSETS_TOPIC: &str = "__consumer_offsets";

const MOST_PARTITIONS: u32 = 10_000;
const METADATA: &str = "topic.json";
const DELETED: &str = "deleted";

/// What a topic is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its id, for life; a topic created again under the name gets another.
    pub id: Uuid,
    /// How many partitions it has.
    pub partitions: u32,
    /// Its settings under Kafka's names, as given.
    pub settings: BTreeMap<String, String>,
}

/// What is in the file of a topic.
#[derive(Serialize, Deserialize)]
struct StoredInfo {
    /// Of `topic` as JSON without spaces, 8 hexadecimal digits.
    crc32c: String,
    topic: TopicInfo,
}

/// A topic and its logs.
pub(crate) struct Topic {
    pub(crate) info: TopicInfo,
    pub(crate) logs: Vec<Arc<Log>>,
}

/// The topics found in a data directory.
#[derive(Debug, Default)]
pub(crate) struct StoredTopics {
    pub(crate) live: Vec<TopicInfo>,
    pub(crate) deleted: Vec<DeletedTopic>,
}

/// A topic that was deleted, of which files are left.
#[derive(Debug)]
pub(crate) struct DeletedTopic {
    pub(crate) dir: PathBuf,
    /// Its name, unless that is removed already.
    pub(crate) name: Option<String>,
}

impl TopicInfo {
    /// Checks the name by Kafka's rules, and the partition count.
    pub(crate) fn new(name: &str, partitions: u32, settings: BTreeMap<String, String>) -> Result<Self> {
        let info = Self {
            name: name.to_owned(),
            id: Uuid::new_v4(),
            partitions,
            settings,
        };
        info.check().map_err(|reason| Error::InvalidTopic {
            topic: name.to_owned(),
            reason,
        })?;
        Ok(info)
    }

    /// What is wrong with the name or the partition count.
    fn check(&self) -> Result<(), String> {
        let (name, partitions) = (self.name.as_str(), self.partitions);
        if name == TRANSACTION_LOG {
            return Err("the broker calls its own log that".to_owned());
        }
        if name.is_empty() || name.len() > 249 || name == "." || name == ".." {
            return Err("a name has 1 to 249 characters and is not \".\" or \"..\"".to_owned());
        }
        if let Some(bad) = name
            .chars()
            .find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-'))
        {
            return Err(format!(
                "{bad:?} in the name; letters, digits, '.', '_' and '-' are allowed"
            ));
        }
        if partitions == 0 || partitions > MOST_PARTITIONS {
            return Err(format!(
                "{partitions} partitions; 1 to {MOST_PARTITIONS} are allowed"
            ));
        }
        Ok(())
    }

    /// The same topic with more partitions.
    pub(crate) fn with_partitions(&self, total: u32) -> Result<Self> {
        let invalid = |reason: String| {
            Err(Error::InvalidTopic {
                topic: self.name.clone(),
                reason,
            })
        };
        if total <= self.partitions {
            return invalid(format!(
                "it has {} partitions already and can only get more",
                self.partitions
            ));
        }
        if total > MOST_PARTITIONS {
            return invalid(format!("{total} partitions; 1 to {MOST_PARTITIONS} are allowed"));
        }
        Ok(Self {
            partitions: total,
            ..self.clone()
        })
    }

    pub(crate) fn dir(&self, topics: &Path) -> PathBuf {
        topics.join(self.id.to_string())
    }

    /// Makes the topic durable; its partitions' directories are there already.
    pub(crate) fn store(&self, disk: &dyn Disk, topics: &Path) -> Result<()> {
        let dir = self.dir(topics);
        create_dir(disk, &dir)?;
        let path = dir.join(METADATA);
        let stored = StoredInfo {
            crc32c: self.checksum(&path)?,
            topic: self.clone(),
        };
        let json = serde_json::to_vec_pretty(&stored).map_err(|e| Error::io("encode", &path, e.into()))?;
        replace(disk, &path, &json)?;
        sync_dir(disk, &dir)?;
        sync_dir(disk, topics)
    }

    /// All topics stored. What a crash left half created is removed.
    pub(crate) fn load_all(disk: &dyn Disk, topics: &Path) -> Result<StoredTopics> {
        // A process that was killed may have left names in the page cache alone; what follows from them must not go.
        sync_dir(disk, topics)?;
        let mut found = StoredTopics::default();
        for name in disk.list(topics).map_err(|e| Error::io("list", topics, e))? {
            let dir = topics.join(name);
            let stem = dir.file_stem().and_then(|name| name.to_str());
            let ours = stem.is_some_and(|name| Uuid::parse_str(name).is_ok());
            let metadata = dir.join(METADATA);
            if dir.extension().is_some_and(|extension| extension == DELETED) {
                // Only what this crate made is removed.
                if ours {
                    // What does not read any more was being removed, which is begun last.
                    let name = read_info(disk, &metadata).ok().map(|info| info.name);
                    found.deleted.push(DeletedTopic { dir, name });
                }
                continue;
            }
            match disk.size(&metadata) {
                Ok(_) => found.live.push(read_info(disk, &metadata)?),
                Err(e) if e.kind() != ErrorKind::NotFound && e.kind() != ErrorKind::NotADirectory => {
                    return Err(Error::io("look at", &metadata, e));
                }
                Err(_) if !ours => {}
                Err(_) if holds_records(disk, &dir)? => {
                    return Err(damaged(
                        &metadata,
                        "it is missing, and there are records".to_owned(),
                    ));
                }
                Err(_) => remove(disk, &dir)?,
            }
        }
        let mut names = BTreeMap::new();
        for info in &found.live {
            if let Some(other) = names.insert(info.name.as_str(), info.id) {
                let reason = format!("it is of topic {:?}, as is that in {other}", info.name);
                return Err(damaged(&info.dir(topics).join(METADATA), reason));
            }
        }
        Ok(found)
    }

    fn checksum(&self, path: &Path) -> Result<String> {
        let json = serde_json::to_vec(self).map_err(|e| Error::io("encode", path, e.into()))?;
        Ok(format!("{:08x}", crc32c(&json)))
    }

    /// Deletes the topic, durably once the directory of the topics is synced; its files are still there.
    pub(crate) fn mark_deleted(&self, disk: &dyn Disk, topics: &Path) -> Result<()> {
        let dir = self.dir(topics);
        disk.rename(&dir, &dir.with_extension(DELETED))
            .map_err(|e| Error::io("rename", &dir, e))
    }

    /// Removes the partitions of a deleted topic.
    pub(crate) fn remove_partitions(&self, disk: &dyn Disk, topics: &Path) -> Result<()> {
        let dir = self.dir(topics).with_extension(DELETED);
        for partition in 0..self.partitions {
            remove(disk, &dir.join(partition.to_string()))?;
        }
        Ok(())
    }

    /// Removes what is left of a deleted topic.
    pub(crate) fn remove_deleted(&self, disk: &dyn Disk, topics: &Path) -> Result<()> {
        remove(disk, &self.dir(topics).with_extension(DELETED))
    }
}

fn read_info(disk: &dyn Disk, metadata: &Path) -> Result<TopicInfo> {
    let json = disk.read(metadata).map_err(|e| Error::io("read", metadata, e))?;
    let stored: StoredInfo =
        serde_json::from_slice(&json).map_err(|e| damaged(metadata, format!("it does not read: {e}")))?;
    let info = stored.topic;
    let checksum = info.checksum(metadata)?;
    if stored.crc32c != checksum {
        let reason = format!(
            "its checksum is {:?}, and its content has {checksum:?}",
            stored.crc32c
        );
        return Err(damaged(metadata, reason));
    }
    info.check().map_err(|reason| damaged(metadata, reason))?;
    let dir = metadata.parent().and_then(Path::file_stem);
    if dir.and_then(|dir| dir.to_str()) != Some(info.id.to_string().as_str()) {
        let reason = format!("it is of the topic with id {}, and in another directory", info.id);
        return Err(damaged(metadata, reason));
    }
    Ok(info)
}

fn damaged(metadata: &Path, reason: String) -> Error {
    Error::Damaged {
        path: metadata.to_owned(),
        reason,
        advice: "restore it from a copy, or, to do without this topic, move its directory out of the data directory",
    }
}

/// Whether the partitions in the directory of a topic have any: one that is half created has none.
fn holds_records(disk: &dyn Disk, dir: &Path) -> Result<bool> {
    for partition in disk.list(dir).map_err(|e| Error::io("list", dir, e))? {
        let partition = dir.join(partition);
        // What is no directory is no partition.
        for file in disk.list(&partition).unwrap_or_default() {
            let path = partition.join(file);
            if path.extension().is_some_and(|e| e == "log") && disk.size(&path).is_ok_and(|size| size > 0) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

pub(crate) fn remove(disk: &dyn Disk, dir: &Path) -> Result<()> {
    disk.remove_dir_all(dir).map_err(|e| Error::io("remove", dir, e))
}
