//! The part of the workload about topics: one that is compacted, one that grows and is altered, one that is deleted and
//! created again under its name.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use super::crash_registers::{AGAIN, GROWN, KEYED, Register, TAG};
use super::crash_workload::{Workload, batch};
use crate::log::compaction::CleanerLimits;
use crate::{BatchBuilder, Compression, Result, TopicConfig};

fn config(settings: &[(&str, &str)]) -> TopicConfig {
    let settings = settings.iter().copied();
    let owned = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    TopicConfig {
        settings: owned.collect::<BTreeMap<_, _>>(),
        ..TopicConfig::new(1)
    }
}

fn change(key: &str, value: Option<&str>) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Compression::Lz4);
    batch.push(1, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
    batch
}

impl Workload {
    /// Notes that a register is set, does what sets it, and notes that it is done.
    pub(super) async fn set<T>(
        &self,
        register: Register,
        value: Option<String>,
        work: impl Future<Output = Result<T>>,
    ) -> Option<T> {
        let now = self.now();
        self.ledger.lock().registers.begin(register.clone(), value, now);
        let done = self.ok(work.await)?;
        let now = self.now();
        self.ledger.lock().registers.acknowledge(&register, now);
        Some(done)
    }

    /// Changes keys, in and outside of transactions, and compacts their topic now and then.
    pub(super) async fn keys(&self, steps: usize) {
        let mut random = self.random(104);
        if self.broker.topic(KEYED).is_none() {
            let settings = [
                ("cleanup.policy", "compact"),
                ("min.cleanable.dirty.ratio", "0"),
                ("delete.retention.ms", "0"),
                ("segment.bytes", "1500"),
            ];
            self.create(KEYED, config(&settings)).await;
        }
        let Some(producer) = self.ok(self.broker.producer("keys").await) else {
            return;
        };
        for step in 0..steps {
            let key = format!("k{}", random.u32(..5));
            let pad = "v".repeat(random.usize(..300));
            let value = (random.u32(..4) > 0).then(|| format!("{} {step} {pad}", self.generation));
            let batch = change(&key, value.as_deref());
            let register = Register::Key(key);
            if random.bool() {
                self.set(register, value, self.broker.append(KEYED, 0, batch))
                    .await;
            } else {
                let Some(mut transaction) = self.ok(producer.begin()) else {
                    return;
                };
                if self.ok(transaction.append(KEYED, 0, batch).await).is_none() {
                    continue;
                }
                if random.u32(..3) == 0 {
                    transaction.abort().await.unwrap();
                } else {
                    self.set(register, value, transaction.commit()).await;
                }
            }
            if step % 8 == 7 {
                self.compact();
            }
        }
    }

    fn compact(&self) {
        let stop = AtomicBool::new(false);
        let limits = CleanerLimits {
            key_bytes: 1 << 16,
            stop: &stop,
        };
        if let Ok(log) = self.broker.log(KEYED, 0) {
            self.ok(log.compact(limits));
        }
    }

    /// A topic gets partitions, with records in the new ones, and its setting is altered.
    pub(super) async fn grow(&self, steps: usize) {
        let mut random = self.random(105);
        if self.broker.topic(GROWN).is_none() {
            let create = self.create(GROWN, TopicConfig::new(1));
            let created = async {
                create.await;
                self.broker.describe_topic(GROWN)
            };
            self.set(Register::Partitions, Some("1".to_owned()), created)
                .await;
        }
        for step in 0..steps {
            let Some(grown) = self.broker.topic(GROWN) else {
                return;
            };
            if random.bool() {
                let total = grown.partitions + 1;
                let add = self.broker.add_partitions(GROWN, total);
                if self
                    .set(Register::Partitions, Some(total.to_string()), add)
                    .await
                    .is_some()
                {
                    let values = self.values(&format!("grown{step}"), &mut random);
                    self.append((GROWN.to_owned(), total - 1), values).await;
                }
            } else {
                let value = (1_000 * (self.generation as usize + 1) + step).to_string();
                let changes = [(TAG, Some(value.as_str()))];
                let alter = self.broker.alter_topic(GROWN, &changes);
                self.set(Register::Setting, Some(value.clone()), alter).await;
            }
        }
    }

    /// A topic that is deleted and created again: nothing of its life before is in the next.
    pub(super) async fn come_again(&self, steps: usize) {
        let mut random = self.random(106);
        for step in 0..steps {
            if self.broker.topic(AGAIN).is_some() {
                let delete = self.broker.delete_topic(AGAIN);
                if self.set(Register::Life, None, delete).await.is_none() {
                    continue;
                }
            }
            let life = (1_000 * (self.generation as usize + 1) + step).to_string();
            let create = self.broker.create_topic(AGAIN, config(&[(TAG, &life)]));
            if self
                .set(Register::Life, Some(life.clone()), create)
                .await
                .is_none()
            {
                continue;
            }
            for count in 0..random.usize(..4) {
                let batch = batch(&[format!("{life} {count}")]);
                let append = self.broker.append(AGAIN, 0, batch);
                let register = Register::Records(life.clone());
                if self
                    .set(register, Some((count + 1).to_string()), append)
                    .await
                    .is_none()
                {
                    break;
                }
            }
        }
    }
}
