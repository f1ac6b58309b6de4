//! [`Administration`] of the log in this process.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tidewater_broker::{GroupState, Metrics, SettingSource, TopicConfig};
use tidewater_plugin_api::TopicPartition;

use crate::administration::{
    Administration, GroupDescription, GroupOffset, PartitionDescription, TopicDescription, TopicSetting,
};
use crate::broker::TopicInfo;
use crate::embedded::{EmbeddedBroker, info};
use crate::error::{Error, Result};

#[async_trait]
impl Administration for EmbeddedBroker {
    async fn create_topic(
        &self,
        name: &str,
        partitions: u32,
        settings: &BTreeMap<String, String>,
    ) -> Result<TopicInfo> {
        let mut config = TopicConfig::new(partitions);
        config.settings.clone_from(settings);
        let created = self.log.create_topic(name, config).await;
        let created = created.map_err(Error::broker(format!("creating topic {name}")))?;
        self.catalog_changed();
        Ok(info(created))
    }

    async fn describe_topic(&self, name: &str) -> Result<TopicDescription> {
        let doing = || format!("describing topic {name}");
        let described = self.log.describe_topic(name).map_err(Error::broker(doing()))?;
        let setting = |setting: tidewater_broker::Setting| {
            let of_topic = setting.source == SettingSource::Topic;
            let value = setting.value;
            (setting.name.to_owned(), TopicSetting { value, of_topic })
        };
        let mut partitions = Vec::with_capacity(described.info.partitions as usize);
        let metrics = self.log.metrics();
        for partition in 0..described.info.partitions {
            let offsets = self
                .log
                .offsets(name, partition)
                .map_err(Error::broker(doing()))?;
            let is_it =
                |p: &&tidewater_broker::PartitionMetrics| &*p.topic == name && p.partition == partition;
            partitions.push(PartitionDescription {
                partition,
                log_start: offsets.log_start,
                last_stable: offsets.last_stable,
                high_watermark: offsets.high_watermark,
                size_bytes: metrics.partitions.iter().find(is_it).map_or(0, |p| p.size_bytes),
            });
        }
        Ok(TopicDescription {
            topic: info(described.info),
            settings: described.settings.into_iter().map(setting).collect(),
            partitions,
        })
    }

    async fn alter_topic(&self, name: &str, changes: &BTreeMap<String, Option<String>>) -> Result<()> {
        let changes: Vec<_> = changes
            .iter()
            .map(|(setting, value)| (setting.as_str(), value.as_deref()))
            .collect();
        let altered = self.log.alter_topic(name, &changes).await;
        altered
            .map(drop)
            .map_err(Error::broker(format!("altering topic {name}")))
    }

    async fn add_partitions(&self, name: &str, total: u32) -> Result<()> {
        let added = self.log.add_partitions(name, total).await;
        added.map_err(Error::broker(format!("adding partitions to topic {name}")))?;
        self.catalog_changed();
        Ok(())
    }

    async fn delete_topic(&self, name: &str) -> Result<()> {
        let deleted = self.log.delete_topic(name).await;
        deleted.map_err(Error::broker(format!("deleting topic {name}")))?;
        self.catalog_changed();
        Ok(())
    }

    async fn offset_for_time(&self, partition: &TopicPartition, timestamp: i64) -> Result<Option<u64>> {
        let TopicPartition { topic, partition } = partition;
        let found = self.log.offset_for_time(topic, *partition, timestamp).await;
        found.map_err(Error::broker(format!(
            "looking for a time in {topic}-{partition}"
        )))
    }

    fn groups(&self) -> BTreeMap<String, String> {
        let groups = self.log.list_groups();
        groups
            .into_iter()
            .map(|(group, state)| (group, state.to_string()))
            .collect()
    }

    fn describe_group(&self, group: &str) -> Option<GroupDescription> {
        let described = self.log.describe_group(group);
        if described.state == GroupState::Dead {
            return None;
        }
        let lags = self.log.group_lag(group);
        let offset = |((topic, partition), committed)| {
            let lag = lags.get(&(String::clone(&topic), partition));
            GroupOffset {
                partition: TopicPartition { topic, partition },
                committed,
                end: lag.map(|lag| lag.end),
                lag: lag.map(|lag| lag.lag),
            }
        };
        Some(GroupDescription {
            group: group.to_owned(),
            state: described.state.to_string(),
            members: described
                .members
                .into_iter()
                .map(|member| member.member_id)
                .collect(),
            offsets: self.log.group_offsets(group).into_iter().map(offset).collect(),
        })
    }

    async fn delete_group(&self, group: &str) -> Result<()> {
        let deleted = self.log.delete_group_offsets(group).await;
        deleted.map_err(Error::broker(format!("deleting group {group}")))
    }

    fn metrics(&self) -> Metrics {
        self.log.metrics()
    }
}
