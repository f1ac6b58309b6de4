//! The topics of a stopped daemon, read from its data folder: what the daemon wrote, without asking the daemon.

use std::path::Path;

use tidewater_broker::{Broker, BrokerOptions, Isolation, Start};

use crate::error::{Error, Result};

/// A committed record of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicRecord<'r> {
    /// Its topic.
    pub topic: &'r str,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Its key.
    pub key: Option<&'r [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'r [u8]>,
}

/// Shows `visit` all committed records of the topics whose names begin with `prefix`, partition by partition in the order of
/// offsets, without holding them all.
pub async fn visit(
    data_dir: &Path,
    prefix: &str,
    mut visit: impl FnMut(TopicRecord<'_>) -> Result<()>,
) -> Result<()> {
    let failed =
        |what: String| move |error: tidewater_broker::Error| Error::Different(format!("{what}: {error}"));
    let options = BrokerOptions::new(data_dir);
    let broker = Broker::open(options).map_err(failed(format!("opening {}", data_dir.display())))?;
    for topic in broker
        .topics()
        .into_iter()
        .filter(|topic| topic.name.starts_with(prefix))
    {
        for partition in 0..topic.partitions {
            let what = || format!("reading {}-{partition}", topic.name);
            let mut reader = broker
                .reader(&topic.name, partition, Start::Earliest, Isolation::ReadCommitted)
                .map_err(failed(what()))?;
            while let Some(fetched) = reader.try_next(4 << 20).map_err(failed(what()))? {
                for record in fetched.records() {
                    visit(TopicRecord {
                        topic: &topic.name,
                        partition,
                        offset: record.offset,
                        key: record.key,
                        value: record.value,
                    })?;
                }
            }
        }
    }
    broker
        .close()
        .await
        .map_err(failed(format!("closing {}", data_dir.display())))
}
