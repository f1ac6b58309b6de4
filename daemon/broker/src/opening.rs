//! Opening a broker: lock, format, logs, transactions, group offsets, in that order.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};

use crate::broker::{Broker, Shared};
use crate::cleaner;
use crate::disk::Disk;
use crate::disk::data_dir::DataDir;
use crate::disk::durable_file::{create_dir, sync_dir};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::group::offset_expiry;
use crate::group::offsets::GroupOffsets;
use crate::group::registry::Registry;
use crate::housekeeping::Keeper;
use crate::log::flusher::Flusher;
use crate::log::recovery::Recovered;
use crate::log::{Log, LogId};
use crate::options::BrokerOptions;
use crate::recovery_report::{PartitionRecovery, RecoveryAction, RecoveryReport};
use crate::topic::{self, DeletedTopic, GROUP_OFFSETS_TOPIC, Topic, TopicInfo};
use crate::topic_settings::TopicSettings;
use crate::transaction::commit::Coordinator;
use crate::transaction::expiry::NextTimeout;
use crate::transaction::log::{TRANSACTION_LOG, TransactionLog};
use crate::transaction::producer_state::ProducerEntry;
use crate::transaction::recovery::{OpenedLogs, decide};

/// The largest segment of the offsets of groups.
const GROUP_OFFSETS_SEGMENT_BYTES: u64 = 16 << 20;

/// Threads that read logs back: they wait for the disk most of the time, and syncs of many files at once cost little
/// more than one.
const OPENING_THREADS: usize = 16;

impl Broker {
    pub(crate) fn open_on(environment: impl Into<Environment>, options: BrokerOptions) -> Result<Self> {
        let environment = environment.into();
        let disk = Arc::clone(&environment.disk);
        let begun = Instant::now();
        options.validate()?;
        let data_dir = DataDir::open(&disk, &options.data_dir)?;
        let (topics_dir, mut data_dir) = (data_dir.topics(), Some(data_dir));
        let flusher = Flusher::new(environment, &options);
        let opened = Self::open_locked(options, &flusher, &topics_dir, &mut data_dir, begun);
        if opened.is_err() {
            // Logs that are queued to be synced would keep it, themselves and their files for ever. The directory is
            // still locked.
            flusher.stop();
        }
        opened
    }

    /// Opens what is in a directory; takes over its lock once all is there.
    fn open_locked(
        options: BrokerOptions,
        flusher: &Arc<Flusher>,
        topics_dir: &Path,
        data_dir: &mut Option<DataDir>,
        begun: Instant,
    ) -> Result<Self> {
        let disk = Arc::clone(&flusher.disk);
        let stored = TopicInfo::load_all(disk.as_ref(), topics_dir)?;
        let mut infos = stored.live;
        if !infos.iter().any(|info| info.name == GROUP_OFFSETS_TOPIC) {
            // The active segment is never compacted, and all of the log is read when the broker opens.
            let segment_bytes = options.segment_bytes.min(GROUP_OFFSETS_SEGMENT_BYTES);
            let settings = BTreeMap::from([
                ("cleanup.policy".to_owned(), "compact".to_owned()),
                ("segment.bytes".to_owned(), segment_bytes.to_string()),
            ]);
            let info = TopicInfo::new(GROUP_OFFSETS_TOPIC, 1, settings)?;
            let dir = info.dir(topics_dir);
            create_dir(disk.as_ref(), &dir.join("0"))?;
            sync_dir(disk.as_ref(), &dir)?;
            info.store(disk.as_ref(), topics_dir)?;
            infos.push(info);
        }
        let (transactions, own, replayed) = TransactionLog::open(&options, flusher)?;
        let mut logs = open_logs(&infos, topics_dir, &options, flusher)?;
        // What a process wrote that was killed may be known to the page cache alone, and a partition may be new.
        for info in &infos {
            sync_dir(disk.as_ref(), &info.dir(topics_dir))?;
        }
        decide(&transactions, &replayed.commits, &mut logs)?;

        let mut recovery = RecoveryReport {
            scanned_bytes: own.scanned_bytes,
            ..RecoveryReport::default()
        };
        note(&mut recovery, TRANSACTION_LOG, 0, own.actions);
        let mut topics = BTreeMap::new();
        for info in infos {
            let mut opened = Vec::new();
            for partition in 0..info.partitions {
                if let Some((log, recovered)) = logs.remove(&(info.id, partition)) {
                    recovery.scanned_bytes += recovered.scanned_bytes;
                    note(&mut recovery, &info.name, partition, recovered.actions);
                    opened.push(log);
                }
            }
            topics.insert(info.name.clone(), Arc::new(Topic { info, logs: opened }));
        }
        let offsets_log = topics
            .get(GROUP_OFFSETS_TOPIC)
            .and_then(|topic| topic.logs.first())
            .cloned();
        let missing = || Error::UnknownTopic {
            topic: GROUP_OFFSETS_TOPIC.to_owned(),
        };
        let offsets = GroupOffsets::open(offsets_log.ok_or_else(missing)?)?;
        forget_deleted(&stored.deleted, &topics, &offsets, disk.as_ref());
        let producers = replayed.producers.iter().map(|(transactional_id, who)| {
            (
                transactional_id.clone(),
                Arc::new(ProducerEntry::new(
                    transactional_id,
                    Some(*who),
                    flusher.clock.monotonic(),
                )),
            )
        });
        let producers: HashMap<_, _> = producers.collect();
        flusher.start(options.flush_threads)?;
        recovery.elapsed = begun.elapsed();
        let keeper = Keeper::new("log-keeper", Arc::clone(&flusher.clock));
        let coordinator = Arc::new(Coordinator {
            transactions,
            offsets,
        });
        let counts = topics
            .values()
            .map(|topic| (topic.info.name.as_str().into(), topic.info.partitions));
        let (clock, expire) = (Arc::clone(&flusher.clock), options.offsets_retention);
        let groups = Registry::new(counts.collect(), expire.is_some(), clock, Arc::clone(&keeper));
        if let Some(retention) = expire {
            offset_expiry::schedule(&keeper, &groups, &coordinator, retention)?;
        }
        let broker = Self::from_shared(Shared {
            keeper,
            groups,
            cleaner: Keeper::new("log-cleaner", Arc::clone(&flusher.clock)),
            options,
            flusher: Arc::clone(flusher),
            coordinator,
            topics: RwLock::new(topics),
            catalog: Arc::default(),
            producers: Mutex::new(producers),
            next_timeout: NextTimeout::default(),
            recovery,
            closed: Arc::new(AtomicBool::new(false)),
            data_dir: Mutex::new(data_dir.take()),
        });
        broker.shared.keep_producers()?;
        broker.shared.keep_logs()?;
        cleaner::start(&broker.shared)?;
        Ok(broker)
    }
}

/// Removes what is left of deleted topics; first, durably, the offsets that groups committed in them. No flusher thread
/// runs yet.
fn forget_deleted(
    deleted: &[DeletedTopic],
    topics: &BTreeMap<String, Arc<Topic>>,
    offsets: &GroupOffsets,
    disk: &dyn Disk,
) {
    for topic in deleted {
        // If there is a topic of that name, the offsets were forgotten before it was created.
        let name = topic.name.as_deref().filter(|name| !topics.contains_key(*name));
        let forgotten = name.map_or(Ok(()), |name| offsets.forget_topic_here(name));
        if let Err(error) = forgotten.and_then(|()| topic::remove(disk, &topic.dir)) {
            // A topic created under the name forgets them first, too.
            tracing::warn!(dir = %topic.dir.display(), %error, "a deleted topic stays until the next start");
        }
    }
}

/// Opens the logs of all partitions, some at a time.
fn open_logs(
    infos: &[TopicInfo],
    topics: &Path,
    options: &BrokerOptions,
    flusher: &Arc<Flusher>,
) -> Result<OpenedLogs> {
    let mut todo: Vec<(PathBuf, LogId, Arc<TopicSettings>)> = Vec::new();
    for info in infos {
        let settings = Arc::new(TopicSettings::of_topic(options, info)?);
        for partition in 0..info.partitions {
            let id = LogId {
                topic: info.name.as_str().into(),
                topic_id: info.id,
                partition,
            };
            let dir = info.dir(topics).join(partition.to_string());
            todo.push((dir, id, Arc::clone(&settings)));
        }
    }
    let next = AtomicUsize::new(0);
    let opened: Mutex<Result<OpenedLogs>> = Mutex::new(Ok(HashMap::new()));
    let work = || {
        while let Some((dir, id, settings)) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            let place = (id.topic_id, id.partition);
            let log = open_log(dir, id, settings, flusher);
            let mut opened = opened.lock();
            match (&mut *opened, log) {
                (Ok(logs), Ok(log)) => {
                    logs.insert(place, log);
                }
                (Ok(_), Err(e)) => *opened = Err(e),
                (Err(_), _) => return,
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..OPENING_THREADS.min(todo.len()) {
            scope.spawn(work);
        }
        work();
    });
    opened.into_inner()
}

/// Opens the log of a partition that was created some time: its directory must be there.
fn open_log(
    dir: &Path,
    id: &LogId,
    settings: &Arc<TopicSettings>,
    flusher: &Arc<Flusher>,
) -> Result<(Arc<Log>, Recovered)> {
    let listed = flusher.disk.list(dir);
    let lost = listed.is_err_and(|e| e.kind() == ErrorKind::NotFound);
    let (log, mut recovered) = Log::open(dir.to_owned(), id.clone(), Arc::clone(settings), flusher)?;
    if lost {
        let dir = dir.to_owned();
        recovered.actions.push(RecoveryAction::PartitionLost { dir });
    }
    Ok((log, recovered))
}

fn note(recovery: &mut RecoveryReport, topic: &str, partition: u32, actions: Vec<RecoveryAction>) {
    for action in &actions {
        tracing::warn!(topic, partition, "recovery: {action}");
    }
    if !actions.is_empty() {
        recovery.partitions.push(PartitionRecovery {
            topic: topic.to_owned(),
            partition,
            actions,
        });
    }
}
