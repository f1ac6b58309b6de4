//! The log in this process, as the runtime's [`Broker`].

use std::collections::BTreeMap;

use async_trait::async_trait;
use tidewater_broker::{self as log, Fetched, Isolation, TopicConfig};
use tidewater_plugin_api::{TopicPartition, TopicPartitionOffset};
use tokio::sync::watch;

use crate::broker::{Broker, PartitionBatch, Producer, Reader, TopicInfo};
use crate::error::{Error, Result};

/// The embedded log.
pub struct EmbeddedBroker {
    pub(crate) log: log::Broker,
    changes: watch::Sender<u64>,
}

impl EmbeddedBroker {
    /// Serves an open log.
    pub fn new(log: log::Broker) -> Self {
        Self {
            log,
            changes: watch::channel(0).0,
        }
    }

    /// Tells those who wait for topics that there are others now.
    pub(crate) fn catalog_changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

pub(crate) fn info(topic: log::TopicInfo) -> TopicInfo {
    TopicInfo {
        name: topic.name,
        id: topic.id.to_string(),
        partitions: topic.partitions,
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn ensure_topic(
        &self,
        name: &str,
        partitions: u32,
        settings: &BTreeMap<String, String>,
    ) -> Result<TopicInfo> {
        if let Some(topic) = self.topic(name) {
            return Ok(topic);
        }
        let mut config = TopicConfig::new(partitions);
        config.settings.clone_from(settings);
        match self.log.create_topic(name, config).await {
            Ok(topic) => {
                self.catalog_changed();
                Ok(info(topic))
            }
            Err(error) => self
                .topic(name)
                .ok_or_else(|| Error::broker(format!("creating topic {name}"))(error)),
        }
    }

    fn topic(&self, name: &str) -> Option<TopicInfo> {
        self.log.topic(name).map(info)
    }

    fn topics(&self) -> Vec<TopicInfo> {
        self.log.topics().into_iter().map(info).collect()
    }

    fn topic_changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    async fn append(&self, batch: PartitionBatch) -> Result<()> {
        let PartitionBatch {
            partition: TopicPartition { topic, partition },
            records,
        } = batch;
        let appended = self.log.append(&topic, partition, records).await;
        appended
            .map(drop)
            .map_err(Error::broker(format!("appending to {topic}-{partition}")))
    }

    async fn producer(&self, transactional_id: &str) -> Result<Box<dyn Producer>> {
        let producer = self.log.producer(transactional_id).await;
        let producer = producer.map_err(Error::broker(format!(
            "taking over as producer {transactional_id}"
        )))?;
        Ok(Box::new(EmbeddedProducer(producer)))
    }

    fn reader(&self, partition: &TopicPartition, offset: u64) -> Result<Box<dyn Reader>> {
        let TopicPartition { topic, partition } = partition;
        let from = log::Start::Offset(offset);
        let reader = self.log.reader(topic, *partition, from, Isolation::ReadCommitted);
        Ok(Box::new(EmbeddedReader(reader.map_err(Error::broker(
            format!("opening {topic}-{partition}"),
        ))?)))
    }

    fn bounds(&self, partition: &TopicPartition) -> Result<(u64, u64)> {
        let offsets = self.log.offsets(&partition.topic, partition.partition);
        let offsets = offsets.map_err(Error::broker(format!(
            "looking up {}-{}",
            partition.topic, partition.partition
        )))?;
        Ok((offsets.log_start, offsets.last_stable))
    }

    fn group_offsets(&self, group: &str) -> BTreeMap<TopicPartition, u64> {
        let offsets = self.log.group_offsets(group);
        offsets
            .into_iter()
            .map(|((topic, partition), offset)| (TopicPartition { topic, partition }, offset))
            .collect()
    }

    async fn commit_group_offsets(&self, group: &str, offsets: &[TopicPartitionOffset]) -> Result<()> {
        let offsets: Vec<_> = offsets
            .iter()
            .map(|next| {
                (
                    next.partition.topic.as_str(),
                    next.partition.partition,
                    next.offset,
                )
            })
            .collect();
        let committed = self.log.commit_group_offsets(group, &offsets).await;
        committed.map_err(Error::broker(format!("committing offsets of group {group}")))
    }

    async fn delete_group_offsets(&self, group: &str, partitions: &[TopicPartition]) -> Result<()> {
        let partitions: Vec<_> = partitions
            .iter()
            .map(|partition| (partition.topic.as_str(), partition.partition))
            .collect();
        let deleted = self.log.delete_partition_offsets(group, &partitions).await;
        deleted.map_err(Error::broker(format!("deleting offsets of group {group}")))
    }

    async fn close(&self) {
        if let Err(error) = self.log.close().await {
            tracing::error!(%error, "the log did not close cleanly; it recovers when it is opened next");
        }
    }
}

struct EmbeddedProducer(log::Producer);

#[async_trait]
impl Producer for EmbeddedProducer {
    async fn commit(&mut self, batches: Vec<PartitionBatch>) -> Result<()> {
        let fault = |doing| Error::broker(doing);
        let mut transaction = self.0.begin().map_err(fault("beginning a transaction"))?;
        for PartitionBatch {
            partition: TopicPartition { topic, partition },
            records,
        } in batches
        {
            let appended = transaction.append(&topic, partition, records).await;
            appended.map_err(Error::broker(format!("appending to {topic}-{partition}")))?;
        }
        transaction
            .commit()
            .await
            .map(drop)
            .map_err(fault("committing a transaction"))
    }
}

struct EmbeddedReader(log::Reader);

#[async_trait]
impl Reader for EmbeddedReader {
    async fn next(&mut self, max_bytes: usize) -> Result<Fetched> {
        self.0
            .next(max_bytes)
            .await
            .map_err(Error::broker("reading from the log"))
    }

    async fn try_next(&mut self, max_bytes: usize) -> Result<Option<Fetched>> {
        self.0
            .try_next(max_bytes)
            .map_err(Error::broker("reading from the log"))
    }

    fn position(&self) -> u64 {
        self.0.position()
    }
}
