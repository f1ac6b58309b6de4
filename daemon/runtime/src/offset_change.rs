//! Where a connector goes on, read and changed by hand. A connector class has its say before anything is stored, and a target
//! that keeps offsets of its own changes them in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};
use tidewater_plugin_api::{
    AlteredOffset, ConnectorKind, ErrorKind, SourcePosition, TopicPartition, TopicPartitionOffset,
};
use tidewater_plugin_host::{ConnectorClass, PluginError};

use crate::broker::is_internal;
use crate::config::ConnectorConfig;
use crate::connector::Shared;
use crate::control::{ControlError, OffsetChange, OffsetsChanged, REQUEST_TIMEOUT};
use crate::error::Error;
use crate::sink_task::Topics;
use crate::task_life::{group, producer_id};

/// What is left of a request's time for the log, after the class has had its say.
const FOR_THE_LOG: Duration = Duration::from_secs(30);

const TOPIC: &str = "kafka_topic";
const PARTITION: &str = "kafka_partition";
const OFFSET: &str = "kafka_offset";

/// How far a connector has come.
pub(crate) fn read(shared: &Shared, config: &ConnectorConfig) -> Vec<SourcePosition> {
    match config.kind {
        ConnectorKind::Source => shared.offsets.positions(&config.name),
        ConnectorKind::Sink => shared
            .broker
            .group_offsets(&group(&config.name))
            .into_iter()
            .map(|(partition, offset)| SourcePosition {
                partition: Map::from_iter([
                    (TOPIC.to_owned(), partition.topic.into()),
                    (PARTITION.to_owned(), partition.partition.into()),
                ]),
                offset: Some(Map::from_iter([(OFFSET.to_owned(), offset.into())])),
            })
            .collect(),
    }
}

/// The offsets of a connector that is stopped.
pub(crate) struct OffsetsOf<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) config: &'a ConnectorConfig,
    pub(crate) class: &'a Arc<ConnectorClass>,
    /// How many tasks it had in this process: one of them may have been left behind.
    pub(crate) tasks: u32,
}

impl OffsetsOf<'_> {
    pub(crate) async fn change(&self, change: OffsetChange) -> Result<OffsetsChanged, ControlError> {
        if matches!(&change, OffsetChange::Alter(offsets) if offsets.is_empty()) {
            return Err(ControlError::Invalid(
                "there are no offsets to change; give at least one partition".to_owned(),
            ));
        }
        let agreed = match self.config.kind {
            ConnectorKind::Source => self.of_source(change).await?,
            ConnectorKind::Sink => self.of_sink(change).await?,
        };
        tracing::info!(agreed, "offsets changed by hand");
        Ok(if agreed {
            OffsetsChanged::Agreed
        } else {
            OffsetsChanged::Stored
        })
    }

    async fn of_source(&self, change: OffsetChange) -> Result<bool, ControlError> {
        let name = &self.config.name;
        let positions = match change {
            OffsetChange::Alter(positions) => positions,
            OffsetChange::Reset => {
                let mut positions = self.shared.offsets.positions(name);
                for position in &mut positions {
                    position.offset = None;
                }
                positions
            }
        };
        if let Some(position) = positions.iter().find(|position| position.partition.is_empty()) {
            return Err(ControlError::Invalid(format!(
                "a partition of a source is an object with its members, and one is empty: {position:?}"
            )));
        }
        // A task that was left behind must not commit the old positions afterwards (invariant 9).
        for task in 0..self.tasks {
            self.shared.broker.producer(&producer_id(name, task)).await?;
        }
        let agreed = self.ask(positions.clone()).await?;
        self.shared.offsets.store(name, &positions).await?;
        Ok(agreed)
    }

    async fn of_sink(&self, change: OffsetChange) -> Result<bool, ControlError> {
        let group = group(&self.config.name);
        let wanted: BTreeMap<TopicPartition, Option<u64>> = match change {
            OffsetChange::Alter(offsets) => offsets
                .iter()
                .map(|of| self.parse(of))
                .collect::<Result<_, _>>()?,
            // What the target keeps may go beyond what the group has.
            OffsetChange::Reset => self.partitions(&group).into_iter().map(|of| (of, None)).collect(),
        };
        let altered: Vec<AlteredOffset> = wanted
            .iter()
            .map(|(partition, offset)| {
                let topic = self.shared.broker.topic(&partition.topic);
                AlteredOffset {
                    partition: partition
                        .clone()
                        .assigned(topic.map(|topic| topic.id).unwrap_or_default()),
                    offset: *offset,
                }
            })
            .collect();
        let agreed = self.ask(altered).await?;
        if !agreed && self.class.spec().exactly_once {
            return Err(ControlError::Invalid(format!(
                "the target of {} keeps offsets of its own, which go first, and the class {} cannot change them; change them in the \
                 target, or rebuild the plugin with an SDK that can",
                self.config.name, self.config.class
            )));
        }
        let (mut set, mut gone) = (Vec::new(), Vec::new());
        for (partition, offset) in wanted {
            match offset {
                Some(offset) => set.push(TopicPartitionOffset { partition, offset }),
                None => gone.push(partition),
            }
        }
        if !set.is_empty() {
            self.shared.broker.commit_group_offsets(&group, &set).await?;
        }
        if !gone.is_empty() {
            self.shared.broker.delete_group_offsets(&group, &gone).await?;
        }
        Ok(agreed)
    }

    /// The partitions that the group has offsets of, and those that its tasks would read.
    fn partitions(&self, group: &str) -> BTreeSet<TopicPartition> {
        let broker = &self.shared.broker;
        let wanted = |name: &String| match &self.config.topics {
            Topics::Named(names) => names.contains(name),
            Topics::Matching(pattern) => pattern.is_match(name) && !is_internal(name),
        };
        let read = broker.topics().into_iter().filter(|topic| wanted(&topic.name));
        let read = read.flat_map(|topic| {
            (0..topic.partitions).map(move |partition| TopicPartition {
                topic: topic.name.clone(),
                partition,
            })
        });
        broker.group_offsets(group).into_keys().chain(read).collect()
    }

    /// A partition of a topic and its offset, numbers as such or as texts.
    fn parse(&self, given: &SourcePosition) -> Result<(TopicPartition, Option<u64>), ControlError> {
        let shown = || Json::Object(given.partition.clone());
        let invalid = |why: String| Err(ControlError::Invalid(format!("{}: {why}", shown())));
        let (Some(Json::String(topic)), Some(partition)) = (
            given.partition.get(TOPIC),
            given
                .partition
                .get(PARTITION)
                .and_then(number)
                .and_then(|number| u32::try_from(number).ok()),
        ) else {
            return invalid(format!(
                "a partition of a sink is {{\"{TOPIC}\": a topic, \"{PARTITION}\": a number}}"
            ));
        };
        let partition = TopicPartition {
            topic: topic.clone(),
            partition,
        };
        let Some(offset) = &given.offset else {
            return Ok((partition, None));
        };
        let Some(offset) = offset.get(OFFSET).and_then(number) else {
            return invalid(format!(
                "an offset of a sink is {{\"{OFFSET}\": a number}}, or null"
            ));
        };
        let exists = self
            .shared
            .broker
            .topic(topic)
            .is_some_and(|topic| partition.partition < topic.partitions);
        if !exists {
            return invalid("there is no such partition".to_owned());
        }
        let (_, end) = self.shared.broker.bounds(&partition)?;
        if offset > end {
            return invalid(format!(
                "offset {offset} is beyond the end of the partition, which is {end}"
            ));
        }
        Ok((partition, Some(offset)))
    }

    /// The say of the class.
    async fn ask<T: serde::Serialize>(&self, offsets: Vec<T>) -> Result<bool, ControlError> {
        let limit = self
            .config
            .call_timeout
            .min(REQUEST_TIMEOUT.saturating_sub(FOR_THE_LOG));
        let answer = self
            .class
            .alter_offsets(&self.config.name, self.config.resolved.clone(), offsets, limit)
            .await;
        answer.map_err(|error| {
            let message = self.config.redactor.redact(&error.message); // invariant 8
            match error.kind {
                ErrorKind::Config | ErrorKind::Fatal => ControlError::Invalid(message),
                _ => ControlError::Failed(Error::Plugin(PluginError { message, ..error })),
            }
        })
    }
}

/// A number, as such or as a text.
fn number(value: &Json) -> Option<u64> {
    match value {
        Json::Number(number) => number.as_u64(),
        Json::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
