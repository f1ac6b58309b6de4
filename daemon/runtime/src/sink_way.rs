//! The way of a sink's records from the log to frames for the plugin: converters, transforms; and what becomes of those
//! that do not get through. Without transforms, what the converters give stands in the frame at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tidewater_broker::{Fetched, RecordView};
use tidewater_plugin_api::frame::SchemaCache;
use tidewater_plugin_api::{Frame, FrameBuilder, RecordFailure, TopicPartition};
use tidewater_transforms::Chain;

use crate::broker::Broker;
use crate::dead_letters::{self, DeadLetter, DeadLetterTopic, Origin};
use crate::error::{Error, Result};
use crate::failure::{Failure, Stage};
use crate::ledger::{Fates, Ledger};
use crate::record_decoder::RecordDecoder;
use crate::record_errors::{Fate, RecordErrors};
use crate::source_way::applied;

/// Bytes at which a frame is full.
const FRAME_BYTES: usize = 4 << 20;

/// What stands between the log and a sink's plugin, for one task.
pub struct SinkWay {
    chain: Chain,
    decoder: RecordDecoder,
    errors: RecordErrors,
    /// Schemas of records on their way through the chain.
    schemas: SchemaCache,
}

/// A frame on its way, and how far it reaches.
#[derive(Debug, Default)]
pub struct Put {
    /// The records; none is a frame of all records that failed or were filtered, of which the plugin is not told.
    pub frame: Option<Bytes>,
    /// What becomes of its records, and of those between them, once they are written.
    pub fates: Fates,
    /// Records that failed, to be durable before the plugin passes them (invariant 4).
    pub letters: Vec<DeadLetter>,
    /// Whether what was written of it already is durable.
    pub durable: bool,
    /// The next offset of each partition once all this is done.
    pub reached: BTreeMap<TopicPartition, u64>,
}

impl SinkWay {
    /// The way through `decoder` and `chain`.
    pub fn new(chain: Chain, decoder: RecordDecoder, errors: RecordErrors) -> Self {
        Self {
            chain,
            decoder,
            errors,
            schemas: SchemaCache::default(),
        }
    }

    /// Carries what a reader brought into the next puts. After an error all before the record that failed is there.
    pub fn gather(
        &mut self,
        partition: &TopicPartition,
        fetched: &Fetched,
        into: &mut Gathered,
        ledger: &Ledger,
    ) -> Result<()> {
        let topic: Arc<str> = partition.topic.as_str().into();
        for record in fetched.records() {
            let pushed = if self.chain.is_empty() {
                let pushed = self.decoder.push(partition, &record, &mut into.batch);
                pushed
                    .map(|()| true)
                    .map_err(|fault| Failure::of(fault, &place(partition, record.offset)))
            } else {
                self.transform(&topic, partition, &record, &mut into.batch)
            };
            self.settle(partition, &record, pushed, into, ledger)?;
        }
        Ok(())
    }

    /// Takes a record through converters and chain into `batch`; false where it is filtered.
    fn transform(
        &mut self,
        topic: &Arc<str>,
        partition: &TopicPartition,
        record: &RecordView<'_>,
        batch: &mut FrameBuilder,
    ) -> Result<bool, Failure> {
        let place = || place(partition, record.offset);
        let mut converted = self
            .decoder
            .record(topic, partition.partition, record)
            .map_err(|fault| Failure::of(fault, &place()))?;
        converted.original_topic = Some(topic.clone());
        match applied(&mut self.chain, converted, place)? {
            Some(mut transformed) => match transformed.push_to(batch) {
                Ok(()) => Ok(true),
                Err(error) => Err(Failure::new(Stage::Transformation, place(), error.message)),
            },
            None => Ok(false),
        }
    }

    /// Takes note of a record that was pushed or filtered, or that failed.
    fn settle(
        &mut self,
        partition: &TopicPartition,
        record: &RecordView<'_>,
        pushed: Result<bool, Failure>,
        into: &mut Gathered,
        ledger: &Ledger,
    ) -> Result<()> {
        match pushed {
            Ok(true) => into.fates.written += 1,
            Ok(false) => into.fates.filtered += 1,
            Err(fault) => {
                let origin = Origin::of(partition, record.offset);
                match self.errors.judge(fault, &origin, || DeadLetter::of(record)) {
                    Ok(Fate::DeadLetter(letter)) => into.set_aside(letter),
                    Ok(Fate::Dropped) => into.fates.dropped += 1,
                    Err(error) => {
                        into.reached(partition, record.offset);
                        return Err(error);
                    }
                }
            }
        }
        ledger.read(1);
        into.close_if_full(partition, record.offset + 1);
        Ok(())
    }

    /// Makes the dead letters of `put` durable.
    pub async fn bury(broker: &Arc<dyn Broker>, topic: &DeadLetterTopic, put: &mut Put) -> Result<()> {
        if put.letters.is_empty() {
            return Ok(());
        }
        for batch in dead_letters::batches(broker, topic, &put.letters).await? {
            broker.append(batch).await?;
        }
        put.letters.clear();
        Ok(())
    }

    /// The topic for dead letters, where there is one.
    pub fn dead_letter_topic(&self) -> Option<DeadLetterTopic> {
        self.errors.dead_letter_topic().cloned()
    }

    /// Takes the records that the target refuses out of `put`, whose frame is without them afterwards: what was to be
    /// written of them is dead-lettered or dropped, or the error says which record it is. The records are read again from
    /// the log, since there they are as they were.
    pub async fn refuse(
        &mut self,
        broker: &dyn Broker,
        put: &mut Put,
        failures: &[RecordFailure],
    ) -> Result<()> {
        let Some(bytes) = put.frame.take() else {
            return Ok(());
        };
        let frame = Frame::parse(bytes, &mut self.schemas).map_err(|error| {
            Error::State(format!("the frame that was put is a {error}; please report this"))
        })?;
        let mut refused = vec![false; frame.len()];
        for RecordFailure { index, message } in failures {
            let Some(refused) = refused.get_mut(*index as usize) else {
                return Err(Error::State(format!(
                    "the plugin refuses record {index} of a batch of {}; nothing of the batch counts as written",
                    frame.len()
                )));
            };
            if std::mem::replace(refused, true) {
                continue;
            }
            let record = frame.record(*index as usize);
            let partition = TopicPartition {
                topic: record.original_topic().to_owned(),
                partition: record.partition().unwrap_or_default(),
            };
            let offset = record.offset().unwrap_or_default();
            let place = format!(
                "record at offset {offset} of {}-{}",
                partition.topic, partition.partition
            );
            let fault = Failure::new(Stage::Put, place, message);
            let original = if self.errors.settings.tolerate {
                original(broker, &partition, offset).await?
            } else {
                DeadLetter::default()
            };
            put.fates.written -= 1;
            match self
                .errors
                .judge(fault, &Origin::of(&partition, offset), || original)?
            {
                Fate::DeadLetter(letter) => {
                    put.fates.dead_lettered += 1;
                    put.letters.push(letter);
                }
                Fate::Dropped => put.fates.dropped += 1,
            }
        }
        let mut rest = FrameBuilder::new();
        for (record, refused) in frame.records().zip(refused) {
            if !refused {
                tidewater_transforms::Record::from_frame(&frame, &record)
                    .map_err(|error| Error::State(error.0))
                    .and_then(|mut record| {
                        record
                            .push_to(&mut rest)
                            .map_err(|error| Error::State(error.message))
                    })?;
            }
        }
        put.frame = (!rest.is_empty()).then(|| rest.finish());
        Ok(())
    }
}

fn place(partition: &TopicPartition, offset: u64) -> String {
    format!(
        "record at offset {offset} of {}-{}",
        partition.topic, partition.partition
    )
}

/// A record of the log, as it is there.
async fn original(broker: &dyn Broker, partition: &TopicPartition, offset: u64) -> Result<DeadLetter> {
    let fetched = broker.reader(partition, offset)?.next(1).await?;
    let found = fetched.records().find(|record| record.offset == offset);
    found.map(|record| DeadLetter::of(&record)).ok_or_else(|| {
        Error::State(format!(
            "the record at offset {offset} of {}-{}, which the target refuses, is gone from the log by the topic's \
             retention; the task goes on after it when it starts again",
            partition.topic, partition.partition
        ))
    })
}

/// Records gathered for the next puts.
pub struct Gathered {
    max_records: usize,
    full: VecDeque<Put>,
    batch: FrameBuilder,
    fates: Fates,
    letters: Vec<DeadLetter>,
    letter_bytes: usize,
    reached: BTreeMap<TopicPartition, u64>,
}

impl Gathered {
    /// Nothing yet; a frame is full with `max_records`.
    pub fn new(max_records: usize) -> Self {
        Self {
            max_records: max_records.max(1),
            full: VecDeque::new(),
            batch: FrameBuilder::new(),
            fates: Fates::default(),
            letters: Vec::new(),
            letter_bytes: 0,
            reached: BTreeMap::new(),
        }
    }

    /// Whether no frame is full (invariant 6).
    pub fn has_room(&self) -> bool {
        self.full.is_empty()
    }

    /// Whether there is nothing to put.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty() && self.fates == Fates::default()
    }

    fn set_aside(&mut self, letter: DeadLetter) {
        self.fates.dead_lettered += 1;
        self.letter_bytes += letter.bytes();
        self.letters.push(letter);
    }

    /// The record before `offset` was taken in: closes the frame where that filled it.
    fn close_if_full(&mut self, partition: &TopicPartition, offset: u64) {
        if self.batch.len() >= self.max_records || self.batch.bytes() + self.letter_bytes >= FRAME_BYTES {
            self.reached(partition, offset);
            let full = self.close();
            self.full.push_back(full);
        }
    }

    /// All records before `offset` were taken in.
    pub fn reached(&mut self, partition: &TopicPartition, offset: u64) {
        match self.reached.get_mut(partition) {
            Some(reached) => *reached = offset,
            None => drop(self.reached.insert(partition.clone(), offset)),
        }
    }

    fn close(&mut self) -> Put {
        self.letter_bytes = 0;
        Put {
            frame: (!self.batch.is_empty()).then(|| self.batch.finish()),
            fates: std::mem::take(&mut self.fates),
            letters: std::mem::take(&mut self.letters),
            durable: false,
            reached: std::mem::take(&mut self.reached),
        }
    }

    /// What is to be put next.
    pub fn take(&mut self) -> Option<Put> {
        self.full
            .pop_front()
            .or_else(|| (self.fates != Fates::default()).then(|| self.close()))
    }
}

#[cfg(test)]
mod tests {
    use tidewater_broker::{BatchBuilder, BrokerOptions, Compression};

    use super::*;
    use crate::broker::PartitionBatch;
    use crate::config::{ErrorSettings, Redactor};
    use crate::converter::{Converters, JsonConverter, SimpleHeaderConverter, StringConverter};
    use crate::embedded::EmbeddedBroker;

    struct Stand {
        _folder: tempfile::TempDir,
        broker: Arc<dyn Broker>,
        orders: TopicPartition,
    }

    impl Stand {
        /// A topic of these values, with keys and a header.
        async fn new(values: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let log = tidewater_broker::Broker::open(BrokerOptions::new(folder.path())).unwrap();
            let stand = Self {
                broker: Arc::new(EmbeddedBroker::new(log)),
                orders: TopicPartition {
                    topic: "orders".into(),
                    partition: 0,
                },
                _folder: folder,
            };
            stand
                .broker
                .ensure_topic("orders", 1, &BTreeMap::new())
                .await
                .unwrap();
            let mut records = BatchBuilder::new(Compression::None);
            for (timestamp, value) in (1..).zip(values) {
                records.push(
                    timestamp,
                    Some(b"k"),
                    Some(value.as_bytes()),
                    &[("trace", Some(b"t"))],
                );
            }
            let partition = stand.orders.clone();
            stand
                .broker
                .append(PartitionBatch { partition, records })
                .await
                .unwrap();
            stand
        }

        async fn fetched(&self, partition: &TopicPartition) -> Fetched {
            self.broker
                .reader(partition, 0)
                .unwrap()
                .next(1 << 20)
                .await
                .unwrap()
        }

        /// The value of each dead letter, and what is said of it.
        async fn letters(&self) -> Vec<(String, String)> {
            let dead = TopicPartition {
                topic: "dead".into(),
                partition: 0,
            };
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let fetched = self.fetched(&dead).await;
            fetched
                .records()
                .map(|record| {
                    let headers: BTreeMap<_, _> = record.headers().collect();
                    assert_eq!(headers["trace"], Some(&b"t"[..]), "as it was");
                    assert_eq!(record.key, Some(&b"k"[..]));
                    let of = |name: &str| text(headers[&*format!("__connect.errors.{name}")].unwrap());
                    let said = format!("{} {} {}", of("stage"), of("topic"), of("offset"));
                    (text(record.value.unwrap()), said)
                })
                .collect()
        }
    }

    fn way(config: &[(&str, &str)], tolerate: bool, dead_letters: bool) -> SinkWay {
        let config = config
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let errors = RecordErrors {
            settings: ErrorSettings {
                tolerate,
                dead_letter_topic: dead_letters.then(|| DeadLetterTopic {
                    name: "dead".into(),
                    context_headers: true,
                }),
                ..ErrorSettings::default()
            },
            connector: "mirror".into(),
            task: 0,
            class: "postgres-sink".into(),
            redactor: Redactor::default(),
        };
        let converters = Converters {
            key: Box::new(StringConverter),
            value: Box::new(JsonConverter::new(false)),
            header: Box::new(SimpleHeaderConverter),
        };
        let decoder = RecordDecoder::new(converters);
        SinkWay::new(Chain::new(&config).unwrap(), decoder, errors)
    }

    const ROUTE: [(&str, &str); 8] = [
        ("transforms", "small,route"),
        ("transforms.small.type", "ExpressionFilter"),
        ("transforms.small.condition", "value.id < 100"),
        ("transforms.small.language", "cel"),
        ("transforms.route.type", "RegexRouter"),
        ("transforms.route.regex", "orders"),
        ("transforms.route.replacement", "purchases"),
        ("predicates", ""),
    ];

    /// Topic, topic it was read from, and offset of each record.
    fn places(put: &Put) -> Vec<(String, String, u64)> {
        let frame = Frame::parse(put.frame.clone().unwrap(), &mut SchemaCache::default()).unwrap();
        let place = |record: tidewater_plugin_api::Record<'_>| {
            (
                record.topic().to_owned(),
                record.original_topic().to_owned(),
                record.offset().unwrap(),
            )
        };
        frame.records().map(place).collect()
    }

    fn place(topic: &str, offset: u64) -> (String, String, u64) {
        (topic.to_owned(), "orders".to_owned(), offset)
    }

    #[tokio::test]
    async fn poison_is_set_aside_as_it_was_and_the_rest_goes_on() {
        let stand = Stand::new(&["{\"id\":1}", "{\"id\":", "{\"id\":3}"]).await;
        let mut way = way(&[], true, true);
        let (ledger, mut gathered) = (Ledger::default(), Gathered::new(1000));
        let fetched = stand.fetched(&stand.orders).await;
        way.gather(&stand.orders, &fetched, &mut gathered, &ledger)
            .unwrap();
        gathered.reached(&stand.orders, 3);
        let mut put = gathered.take().unwrap();
        assert_eq!(places(&put), [place("orders", 0), place("orders", 2)]);
        assert_eq!((put.fates.written, put.fates.dead_lettered), (2, 1));
        assert_eq!(put.reached[&stand.orders], 3);
        assert!(gathered.is_empty() && gathered.take().is_none());

        let topic = way.dead_letter_topic().unwrap();
        SinkWay::bury(&stand.broker, &topic, &mut put).await.unwrap();
        let expected = ("{\"id\":".to_owned(), "VALUE_CONVERTER orders 1".to_owned());
        assert_eq!(stand.letters().await, [expected]);
        SinkWay::bury(&stand.broker, &topic, &mut put).await.unwrap();
        assert_eq!(stand.letters().await.len(), 1, "once");
        assert_eq!(ledger.snapshot().in_flight, 3);
        ledger.settle(put.fates);
        assert_eq!(ledger.snapshot().in_flight, 0);
    }

    #[tokio::test]
    async fn what_is_not_tolerated_ends_the_task_after_all_before_it() {
        for transforms in [&[][..], &ROUTE] {
            let stand = Stand::new(&["{\"id\":1}", "{\"id\":", "{\"id\":3}"]).await;
            let mut way = way(transforms, false, true);
            let (ledger, mut gathered) = (Ledger::default(), Gathered::new(1000));
            let fetched = stand.fetched(&stand.orders).await;
            let error = way
                .gather(&stand.orders, &fetched, &mut gathered, &ledger)
                .unwrap_err();
            assert!(error.to_string().contains("offset 1 of orders-0"), "{error}");
            let put = gathered.take().unwrap();
            assert_eq!((put.fates.written, put.reached[&stand.orders]), (1, 1));
            assert_eq!(ledger.snapshot().read, 1);
        }
    }

    #[tokio::test]
    async fn offsets_move_over_what_is_filtered_or_dropped() {
        let stand = Stand::new(&["{\"id\":100}", "{\"id\":", "{\"id\":200}"]).await;
        let mut way = way(&ROUTE, true, false);
        let (ledger, mut gathered) = (Ledger::default(), Gathered::new(1000));
        let fetched = stand.fetched(&stand.orders).await;
        way.gather(&stand.orders, &fetched, &mut gathered, &ledger)
            .unwrap();
        gathered.reached(&stand.orders, 3);
        let put = gathered.take().unwrap();
        assert!(put.frame.is_none(), "the plugin is not told of nothing");
        assert_eq!((put.fates.filtered, put.fates.dropped), (2, 1));
        assert_eq!(put.reached[&stand.orders], 3);
    }

    #[tokio::test]
    async fn what_the_target_refuses_is_set_aside_as_it_was_in_its_topic() {
        let values = ["{\"id\":1}", "{\"id\":2}", "{\"id\":3}", "{\"id\":4}"];
        let stand = Stand::new(&values).await;
        let mut way = way(&ROUTE, true, true);
        let (ledger, mut gathered) = (Ledger::default(), Gathered::new(1000));
        let fetched = stand.fetched(&stand.orders).await;
        way.gather(&stand.orders, &fetched, &mut gathered, &ledger)
            .unwrap();
        let mut put = gathered.take().unwrap();
        let failure = |index| RecordFailure {
            index,
            message: "violates a check".into(),
        };
        let refused = [failure(1), failure(3), failure(1)];
        way.refuse(&*stand.broker, &mut put, &refused).await.unwrap();
        assert_eq!(places(&put), [place("purchases", 0), place("purchases", 2)]);
        assert_eq!((put.fates.written, put.fates.dead_lettered), (2, 2));
        let topic = way.dead_letter_topic().unwrap();
        SinkWay::bury(&stand.broker, &topic, &mut put).await.unwrap();
        let expected = [1, 3].map(|offset| (values[offset].to_owned(), format!("TASK_PUT orders {offset}")));
        assert_eq!(stand.letters().await, expected);

        let all = [failure(0), failure(1)];
        way.refuse(&*stand.broker, &mut put, &all).await.unwrap();
        assert!(put.frame.is_none() && put.fates.written == 0);
    }

    #[tokio::test]
    async fn a_refusal_that_is_not_tolerated_or_makes_no_sense_ends_the_task() {
        let stand = Stand::new(&["{\"id\":1}"]).await;
        for (tolerate, index, said) in [
            (false, 0, "offset 0 of orders-0"),
            (true, 7, "record 7 of a batch of 1"),
        ] {
            let mut way = way(&[], tolerate, true);
            let (ledger, mut gathered) = (Ledger::default(), Gathered::new(1000));
            let fetched = stand.fetched(&stand.orders).await;
            way.gather(&stand.orders, &fetched, &mut gathered, &ledger)
                .unwrap();
            let mut put = gathered.take().unwrap();
            let failure = RecordFailure {
                index,
                message: "violates a check".into(),
            };
            let error = way
                .refuse(&*stand.broker, &mut put, &[failure])
                .await
                .unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
