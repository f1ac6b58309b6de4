//! What tests of consumer groups use.

#![allow(dead_code, reason = "not every test file uses all of it")]

use std::collections::BTreeSet;
use std::time::Duration;

use tidewater_broker::{
    AutoOffsetReset, Broker, Consumer, ConsumerEvent, ConsumerOptions, TopicConfig, TopicPartition,
};

use super::options;

pub const HOUR: Duration = Duration::from_hours(1);

pub fn part(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

pub fn parts(topic: &str, partitions: &[u32]) -> BTreeSet<TopicPartition> {
    partitions.iter().map(|p| part(topic, *p)).collect()
}

pub fn earliest(group: &str) -> ConsumerOptions {
    ConsumerOptions {
        auto_offset_reset: AutoOffsetReset::Earliest,
        ..ConsumerOptions::new(group)
    }
}

pub fn member(broker: &Broker, options: ConsumerOptions, topics: &[&str]) -> Consumer {
    let mut consumer = broker.consumer(options).unwrap();
    consumer.subscribe(topics).unwrap();
    consumer
}

pub async fn broker_with(dir: &tempfile::TempDir, partitions: u32) -> Broker {
    let broker = Broker::open(options(dir)).unwrap();
    broker
        .create_topic("t", TopicConfig::new(partitions))
        .await
        .unwrap();
    broker
}

pub fn assigned(event: ConsumerEvent) -> BTreeSet<TopicPartition> {
    match event {
        ConsumerEvent::Assigned(partitions) => partitions,
        other => panic!("{other:?}"),
    }
}

pub async fn values(consumer: &mut Consumer) -> Vec<String> {
    let polled = consumer.poll(1 << 20).await.unwrap();
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    polled.records().map(|record| text(record.value)).collect()
}
