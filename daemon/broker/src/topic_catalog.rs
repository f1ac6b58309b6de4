//! What the broker's handle offers for topics: create, describe, add partitions, alter settings, delete.
//!
//! Each change is made durable first and in force then, one after the other, and comes to its end even if its caller
//! goes: the directory and what is in memory change together.

use std::path::Path;
use std::sync::Arc;

use crate::broker::{Broker, Shared, refuse_internal};
use crate::disk::durable_file::sync_dir;
use crate::error::{Error, Result};
use crate::log::flusher::Flusher;
use crate::log::{Log, LogId};
use crate::options::TopicConfig;
use crate::reader::blocking;
use crate::topic::{Topic, TopicInfo};
use crate::topic_settings::{self, Setting, TopicSettings};

/// A topic and the settings in force for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// What it was created with, and altered to since.
    pub info: TopicInfo,
    /// All settings, by name.
    pub settings: Vec<Setting>,
}

impl TopicDescription {
    /// The value in force of a setting; `None` if there is no such setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        let found = self.settings.iter().find(|setting| setting.name == name);
        found.map(|setting| setting.value.as_str())
    }
}

impl Broker {
    /// Creates a topic, durably.
    ///
    /// # Errors
    /// [`Error::TopicExists`], [`Error::InvalidTopic`], [`Error::InvalidOption`] for a setting out of range,
    /// [`Error::UnknownSetting`].
    pub async fn create_topic(&self, name: &str, config: TopicConfig) -> Result<TopicInfo> {
        self.check_open()?;
        let info = TopicInfo::new(name, config.partitions, config.settings)?;
        let settings = Arc::new(TopicSettings::of_topic(&self.shared.options, &info)?);
        let create = move |shared: &Shared, topics: &Path| {
            if shared.topics.read().contains_key(&info.name) {
                return Err(Error::TopicExists { topic: info.name });
            }
            // Where deleting one of that name ended in an error, a power failure might bring it back beside this one.
            sync_dir(shared.flusher.disk.as_ref(), topics)?;
            // What groups committed under the name is about another topic that had it.
            shared.coordinator.offsets.forget_topic(&info.name)?;
            let topic = Topic::create(info, topics, &settings, &shared.flusher)?;
            let info = topic.info.clone();
            shared.topics.write().insert(info.name.clone(), Arc::new(topic));
            shared.groups.topic_changed(&info.name, Some(info.partitions));
            Ok(info)
        };
        self.change_catalog(create).await
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<TopicInfo> {
        let topics = self.shared.topics.read();
        topics.get(name).map(|topic| topic.info.clone())
    }

    /// All topics by name, the broker's own among them.
    pub fn topics(&self) -> Vec<TopicInfo> {
        let topics = self.shared.topics.read();
        topics.values().map(|topic| topic.info.clone()).collect()
    }

    /// A topic with the settings in force, and where each comes from.
    ///
    /// ```
    /// # use tidewater_broker::{Broker, BrokerOptions, SettingSource, TopicConfig};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tidewater_broker::Error> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let broker = Broker::open(BrokerOptions::new(dir.path().join("data")))?;
    /// broker.create_topic("orders", TopicConfig::new(1)).await?;
    /// let hour = Some("3600000");
    /// broker.alter_topic("orders", &[("retention.ms", hour)]).await?;
    /// let orders = broker.describe_topic("orders")?;
    /// assert_eq!(orders.setting("retention.ms"), hour);
    /// assert_eq!(orders.setting("cleanup.policy"), Some("delete"));
    /// let set = orders.settings.iter().filter(|setting| setting.source == SettingSource::Topic);
    /// assert_eq!(set.count(), 1);
    /// # broker.close().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownTopic`].
    pub fn describe_topic(&self, name: &str) -> Result<TopicDescription> {
        let info = self.shared.known_topic(name)?.info.clone();
        let settings = topic_settings::describe(&self.shared.options, &info)?;
        Ok(TopicDescription { info, settings })
    }

    /// Adds partitions to a topic, durably, so that it has `total`. Those it has stay as they are; which of them a key
    /// belongs to changes (see [`partition_for_key`](crate::partition_for_key)).
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::InternalTopic`], [`Error::InvalidTopic`] if it has `total` or more already.
    pub async fn add_partitions(&self, name: &str, total: u32) -> Result<TopicInfo> {
        self.check_open()?;
        refuse_internal(name)?;
        let name = name.to_owned();
        let add = move |shared: &Shared, topics: &Path| {
            let topic = shared.known_topic(&name)?;
            let info = topic.info.with_partitions(total)?;
            let settings = Arc::new(TopicSettings::of_topic(&shared.options, &info)?);
            let added = info.open_logs(topic.info.partitions..total, topics, &settings, &shared.flusher);
            // On an error their directories stay. They are empty, and the metadata may count them after all, if it was
            // replaced and is only not known to be durable.
            let added = added?;
            info.store(shared.flusher.disk.as_ref(), topics)?;
            let logs = topic.logs.iter().cloned().chain(added).collect();
            shared.replace_topic(info.clone(), logs);
            shared.groups.topic_changed(&info.name, Some(info.partitions));
            Ok(info)
        };
        self.change_catalog(add).await
    }

    /// Alters settings of a topic at run time, durably: `Some` sets a value, `None` goes back to the default. All
    /// changes are checked before any is made; they are in force when this returns. What goes by a new `retention.ms` or
    /// `retention.bytes` goes soon after.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::InternalTopic`], [`Error::UnknownSetting`], [`Error::InvalidOption`]; nothing
    /// is changed then.
    pub async fn alter_topic(&self, name: &str, changes: &[(&str, Option<&str>)]) -> Result<TopicInfo> {
        self.check_open()?;
        refuse_internal(name)?;
        for (setting, _) in changes {
            topic_settings::check_name(setting)?;
        }
        let name = name.to_owned();
        let changes: Vec<_> = changes
            .iter()
            .map(|(setting, value)| ((*setting).to_owned(), value.map(str::to_owned)))
            .collect();
        let alter = move |shared: &Shared, topics: &Path| {
            let topic = shared.known_topic(&name)?;
            let mut info = topic.info.clone();
            for (setting, value) in changes {
                match value {
                    Some(value) => info.settings.insert(setting, value),
                    None => info.settings.remove(&setting),
                };
            }
            let settings = Arc::new(TopicSettings::of_topic(&shared.options, &info)?);
            info.store(shared.flusher.disk.as_ref(), topics)?;
            for log in &topic.logs {
                log.set_settings(Arc::clone(&settings));
            }
            shared.replace_topic(info.clone(), topic.logs.clone());
            // What goes by the new settings goes now.
            shared.keep_logs_soon()?;
            Ok(info)
        };
        self.change_catalog(alter).await
    }

    /// Deletes a topic, its records, and the offsets groups have committed in it, durably. Its readers and waiting
    /// appends get an error.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`], [`Error::InternalTopic`]. After another error the topic is gone too; what could not be
    /// removed goes when the broker is opened again.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        self.check_open()?;
        refuse_internal(name)?;
        let name = name.to_owned();
        let delete = move |shared: &Shared, topics: &Path| {
            let topic = shared.known_topic(&name)?;
            let disk = shared.flusher.disk.as_ref();
            for log in &topic.logs {
                log.set_going(true);
            }
            topic.info.mark_deleted(disk, topics).inspect_err(|_| {
                for log in &topic.logs {
                    log.set_going(false);
                }
            })?;
            // The files have gone with the directory: whether or not that is durable, nothing can be written to them.
            let synced = sync_dir(disk, topics);
            shared.topics.write().remove(&topic.info.name);
            shared.groups.topic_changed(&topic.info.name, None);
            for log in &topic.logs {
                log.delete(synced.is_ok());
            }
            synced?;
            // First what takes space: what follows needs some, and there may be none.
            let freed = topic.info.remove_partitions(disk, topics);
            // Before the rest, which tells the next start what to forget.
            shared.coordinator.offsets.forget_topic(&topic.info.name)?;
            freed?;
            Ok(topic)
        };
        let topic = self.change_catalog(delete).await?;
        let (topics, shared) = (self.topics_dir()?, Arc::clone(&self.shared));
        blocking(move || topic.info.remove_deleted(shared.flusher.disk.as_ref(), &topics)).await
    }

    /// Makes a change where no other is under way.
    async fn change_catalog<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Shared, &Path) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let catalog = Arc::clone(&self.shared.catalog).lock_owned().await;
        // Closing waits for its turn, too.
        self.check_open()?;
        let (topics, shared) = (self.topics_dir()?, Arc::clone(&self.shared));
        blocking(move || {
            let changed = change(&shared, &topics);
            drop(catalog);
            changed
        })
        .await
    }
}

impl Shared {
    fn known_topic(&self, name: &str) -> Result<Arc<Topic>> {
        let topics = self.topics.read();
        topics.get(name).cloned().ok_or_else(|| Error::UnknownTopic {
            topic: name.to_owned(),
        })
    }

    fn replace_topic(&self, info: TopicInfo, logs: Vec<Arc<Log>>) {
        let name = info.name.clone();
        self.topics.write().insert(name, Arc::new(Topic { info, logs }));
    }
}

impl TopicInfo {
    /// Opens the logs of some partitions, making those that are new.
    fn open_logs(
        &self,
        partitions: std::ops::Range<u32>,
        topics: &Path,
        settings: &Arc<TopicSettings>,
        flusher: &Arc<Flusher>,
    ) -> Result<Vec<Arc<Log>>> {
        let dir = self.dir(topics);
        let open = |partition: u32| {
            let id = LogId {
                topic: self.name.as_str().into(),
                topic_id: self.id,
                partition,
            };
            let (log, _) = Log::open(dir.join(partition.to_string()), id, Arc::clone(settings), flusher)?;
            Ok(log)
        };
        let logs = partitions.map(open).collect::<Result<_>>()?;
        // The partitions are there before the metadata counts them: one that is not is lost.
        sync_dir(flusher.disk.as_ref(), &dir)?;
        Ok(logs)
    }
}

impl Topic {
    /// Makes a topic: its logs first, then what makes it exist.
    fn create(
        info: TopicInfo,
        topics: &Path,
        settings: &Arc<TopicSettings>,
        flusher: &Arc<Flusher>,
    ) -> Result<Self> {
        let logs = info.open_logs(0..info.partitions, topics, settings, flusher);
        match logs.and_then(|logs| info.store(flusher.disk.as_ref(), topics).map(|()| logs)) {
            Ok(logs) => Ok(Self { info, logs }),
            Err(e) => {
                // Its metadata may be there, and only not be known to be durable. It must not come back, or in part: it
                // goes as a topic that is deleted does. The next start removes what stays.
                let disk = flusher.disk.as_ref();
                let _ = info
                    .mark_deleted(disk, topics)
                    .and_then(|()| info.remove_deleted(disk, topics));
                Err(e)
            }
        }
    }
}
