//! The way of a source's records from the plugin's frame to the log: transforms, converters, partitions; and what becomes of
//! those that do not get through. Without transforms nothing is decoded that the converters do not ask for.

use std::sync::Arc;

use tidewater_plugin_api::{Frame, Record, SchemaRef};
use tidewater_transforms::{self as transforms, Chain};

use crate::broker::{Broker, PartitionBatch, is_internal};
use crate::config::is_topic_name;
use crate::converter::{Converter, JsonConverter, SimpleHeaderConverter};
use crate::dead_letters::{self, DeadLetter, Origin};
use crate::error::Result;
use crate::failure::{Failure, Stage};
use crate::ledger::Fates;
use crate::record_encoder::{Batches, RecordEncoder};
use crate::record_errors::{Fate, RecordErrors};
use crate::state_topic::unix_millis;

/// What stands between a source's plugin and the log, for one task.
pub struct SourceWay {
    broker: Arc<dyn Broker>,
    chain: Chain,
    encoder: RecordEncoder,
    errors: RecordErrors,
}

/// What a frame has become.
#[derive(Debug, Default)]
pub struct Carried {
    /// Records and dead letters, for one transaction.
    pub batches: Vec<PartitionBatch>,
    /// What becomes of the records once that is committed.
    pub fates: Fates,
}

impl SourceWay {
    /// The way through `chain` and `encoder`.
    pub fn new(broker: Arc<dyn Broker>, chain: Chain, encoder: RecordEncoder, errors: RecordErrors) -> Self {
        Self {
            broker,
            chain,
            encoder,
            errors,
        }
    }

    /// Carries the records of `frame` as far as they get.
    pub async fn carry(&mut self, frame: &Frame) -> Result<Carried> {
        let (mut batches, mut fates, mut letters) = (Batches::default(), Fates::default(), Vec::new());
        let as_it_is = self.chain.is_empty() && frame.topics().iter().all(|topic| no_topic(topic).is_none());
        if as_it_is {
            self.encoder.prepare_frame(frame, &*self.broker).await?;
        } else {
            self.encoder.begin();
        }
        for record in frame.records() {
            let pushed = if as_it_is {
                let pushed = self.encoder.push_frame_record(&record, &mut batches);
                pushed
                    .map(|()| true)
                    .map_err(|fault| Failure::of(fault, &place(&record)))
            } else {
                match transformed(&mut self.chain, frame, &record) {
                    Ok(Some(transformed)) => self.push(&transformed, &record, &mut batches).await?,
                    Ok(None) => Ok(false),
                    Err(failure) => Err(failure),
                }
            };
            match pushed {
                Ok(true) => fates.written += 1,
                Ok(false) => fates.filtered += 1,
                Err(failure) => match self
                    .errors
                    .judge(failure, &origin(&record), || content(&record))?
                {
                    Fate::DeadLetter(letter) => {
                        fates.dead_lettered += 1;
                        letters.push(letter);
                    }
                    Fate::Dropped => fates.dropped += 1,
                },
            }
        }
        let mut batches = self.encoder.finish(batches);
        if let Some(topic) = self.errors.dead_letter_topic() {
            batches.extend(dead_letters::batches(&self.broker, topic, &letters).await?);
        }
        Ok(Carried { batches, fates })
    }

    /// Adds a record that the chain has let through, to whatever topic.
    async fn push(
        &mut self,
        transformed: &transforms::Record,
        record: &Record<'_>,
        batches: &mut Batches,
    ) -> Result<Result<bool, Failure>> {
        if let Some(reason) = no_topic(&transformed.topic) {
            let place = format!("record for topic {:?}", &*transformed.topic);
            return Ok(Err(Failure::new(Stage::Produce, place, reason)));
        }
        self.encoder.prepare(transformed, &*self.broker).await?;
        let pushed = self.encoder.push(transformed, batches);
        Ok(pushed
            .map(|()| true)
            .map_err(|fault| Failure::of(fault, &place(record))))
    }
}

/// What `chain` makes of a record; none where it is filtered.
fn transformed(
    chain: &mut Chain,
    frame: &Frame,
    record: &Record<'_>,
) -> Result<Option<transforms::Record>, Failure> {
    let owned = transforms::Record::from_frame(frame, record)
        .map_err(|error| Failure::new(Stage::Transformation, place(record), error.0))?;
    applied(chain, owned, || place(record))
}

/// What `chain` makes of the record at `place`; none where it is filtered.
pub(crate) fn applied(
    chain: &mut Chain,
    record: transforms::Record,
    place: impl FnOnce() -> String,
) -> Result<Option<transforms::Record>, Failure> {
    chain.apply(record).map_err(|error| Failure {
        class: Some(error.stage.class().to_owned()),
        ..Failure::new(
            Stage::Transformation,
            place(),
            format!("{}: {}", error.stage, error.fault),
        )
    })
}

fn place(record: &Record<'_>) -> String {
    format!("a record for topic {}", record.topic())
}

fn origin(record: &Record<'_>) -> Origin {
    Origin {
        topic: record.topic().to_owned(),
        partition: None,
        offset: None,
    }
}

/// Why no source may write to a topic of this name; none where it may.
fn no_topic(name: &str) -> Option<&'static str> {
    if is_internal(name) {
        Some("the topic keeps the worker's own state; give the connector's records another topic")
    } else if !is_topic_name(name) {
        Some(
            "no topic can have this name; names are 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-'; mend it where \
             the connector or a transform makes it",
        )
    } else {
        None
    }
}

/// A record as the plugin gave it, for the dead-letter topic: key and value as the JSON converter writes them, with their
/// schemas. What is so malformed that this is not possible stays in the plugin's own encoding.
fn content(record: &Record<'_>) -> DeadLetter {
    let mut json = JsonConverter::new(true);
    let mut side = |schema, bytes| converted(&mut json, schema, bytes).or_else(|| Some(bytes?.to_vec()));
    let mut simple = SimpleHeaderConverter;
    DeadLetter {
        key: side(record.key_schema(), record.key_bytes()),
        value: side(record.value_schema(), record.value_bytes()),
        headers: record
            .headers()
            .map_while(Result::ok)
            .map(|header| {
                (
                    header.name.to_owned(),
                    converted(&mut simple, header.schema, header.encoded),
                )
            })
            .collect(),
        timestamp: record.timestamp().unwrap_or_else(unix_millis),
    }
}

/// What `converter` makes of a value; none where that is null or cannot be.
fn converted(
    converter: &mut dyn Converter,
    schema: Option<&SchemaRef>,
    bytes: Option<&[u8]>,
) -> Option<Vec<u8>> {
    let mut scratch = Vec::new();
    let converted = converter.to_topic(schema, Some(bytes?), &mut scratch).ok()??;
    Some(converted.to_vec())
}

#[cfg(test)]
mod tests {
    use tidewater_broker::{BrokerOptions, Compression};
    use tidewater_plugin_api::frame::SchemaCache;
    use tidewater_plugin_api::{FrameBuilder, Schema, TopicPartition, Type, Value};

    use super::*;
    use crate::config::{ErrorSettings, Redactor};
    use crate::converter::{Converters, StringConverter};
    use crate::dead_letters::DeadLetterTopic;
    use crate::embedded::EmbeddedBroker;
    use crate::error::Error;
    use crate::partitioner::Partitioning;
    use crate::record_encoder::{BATCH_BYTES, EncoderOptions};
    use crate::topic_rules::TopicRules;

    struct Stand {
        _folder: tempfile::TempDir,
        broker: Arc<dyn Broker>,
    }

    impl Stand {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let log = tidewater_broker::Broker::open(BrokerOptions::new(folder.path())).unwrap();
            Self {
                broker: Arc::new(EmbeddedBroker::new(log)),
                _folder: folder,
            }
        }

        fn way(&self, config: &[(&str, &str)], tolerate: bool) -> SourceWay {
            let config = config
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                .collect();
            let errors = RecordErrors {
                settings: ErrorSettings {
                    tolerate,
                    dead_letter_topic: Some(DeadLetterTopic {
                        name: "dead".into(),
                        context_headers: true,
                    }),
                    ..ErrorSettings::default()
                },
                connector: "numbers".into(),
                task: 0,
                class: "counting-source".into(),
                redactor: Redactor::default(),
            };
            let options = EncoderOptions {
                compression: Compression::None,
                batch_bytes: BATCH_BYTES,
                partitioning: Partitioning::default(),
                topics: TopicRules::partitions(1),
            };
            let converters = Converters {
                key: Box::new(StringConverter),
                value: Box::new(StringConverter),
                header: Box::new(SimpleHeaderConverter),
            };
            let encoder = RecordEncoder::new(converters, options);
            SourceWay::new(self.broker.clone(), Chain::new(&config).unwrap(), encoder, errors)
        }

        /// Commits what was carried, as the task does.
        async fn commit(&self, carried: Carried) {
            let mut producer = self.broker.producer("numbers").await.unwrap();
            producer.commit(carried.batches).await.unwrap();
        }

        async fn letters(&self, topic: &str) -> Vec<DeadLetter> {
            let partition = TopicPartition {
                topic: topic.to_owned(),
                partition: 0,
            };
            let mut found = Vec::new();
            if self.broker.topic(topic).is_some() {
                let mut reader = self.broker.reader(&partition, 0).unwrap();
                while let Some(fetched) = reader.try_next(1 << 20).await.unwrap() {
                    found.extend(fetched.records().map(|record| DeadLetter::of(&record)));
                }
            }
            found
        }

        async fn values(&self, topic: &str) -> Vec<String> {
            let text = |letter: DeadLetter| String::from_utf8(letter.value.unwrap()).unwrap();
            self.letters(topic).await.into_iter().map(text).collect()
        }
    }

    fn header<'a>(letter: &'a DeadLetter, name: &str) -> &'a str {
        let name = format!("__connect.errors.{name}");
        let (_, value) = letter.headers.iter().find(|(known, _)| *known == name).unwrap();
        std::str::from_utf8(value.as_ref().unwrap()).unwrap()
    }

    fn frame(topic: &str, values: &[&str]) -> Frame {
        let text: SchemaRef = Arc::new(Schema::new(Type::String).optional());
        let mut batch = FrameBuilder::new();
        for value in values {
            let key = Value::String(format!("key of {value}"));
            let value = match *value {
                "" => Value::Null,
                value => Value::String(value.into()),
            };
            batch.push(topic, Some((&text, &key)), (&text, &value)).unwrap();
        }
        Frame::parse(batch.finish(), &mut SchemaCache::default()).unwrap()
    }

    const CAST: [(&str, &str); 3] = [
        ("transforms", "number"),
        ("transforms.number.type", "Cast$Value"),
        ("transforms.number.spec", "int32"),
    ];

    #[tokio::test]
    async fn topics_and_their_making_follow_the_transforms_and_what_is_filtered_counts() {
        let stand = Stand::new();
        let mut way = stand.way(
            &[
                ("transforms", "live,route"),
                ("transforms.live.type", "Filter"),
                ("transforms.live.predicate", "dead"),
                ("transforms.route.type", "RegexRouter"),
                ("transforms.route.regex", "public\\.(.*)"),
                ("transforms.route.replacement", "shop-$1"),
                ("predicates", "dead"),
                ("predicates.dead.type", "RecordIsTombstone"),
            ],
            false,
        );
        let carried = way
            .carry(&frame("public.orders", &["a", "", "b", ""]))
            .await
            .unwrap();
        let expected = Fates {
            written: 2,
            filtered: 2,
            ..Fates::default()
        };
        assert_eq!(carried.fates, expected);
        stand.commit(carried).await;
        assert_eq!(stand.values("shop-orders").await, ["a", "b"]);
        assert!(stand.broker.topic("public.orders").is_none());

        let nothing = way.carry(&frame("public.orders", &["", ""])).await.unwrap();
        assert_eq!((nothing.fates.filtered, nothing.batches.len()), (2, 0));
    }

    #[tokio::test]
    async fn a_failing_record_is_a_dead_letter_in_the_same_transaction_as_the_others() {
        let stand = Stand::new();
        let mut way = stand.way(&CAST, true);
        let carried = way.carry(&frame("numbers", &["1", "two", "3"])).await.unwrap();
        let expected = Fates {
            written: 2,
            dead_lettered: 1,
            ..Fates::default()
        };
        assert_eq!(carried.fates, expected);
        stand.commit(carried).await;
        assert_eq!(stand.values("numbers").await, ["1", "3"]);
        let letters = stand.letters("dead").await;
        let [letter] = letters.as_slice() else {
            panic!("{letters:?}");
        };
        let json = |bytes: &Option<Vec<u8>>| -> serde_json::Value {
            serde_json::from_slice(bytes.as_ref().unwrap()).unwrap()
        };
        assert_eq!(json(&letter.key)["payload"], "key of two");
        let value = json(&letter.value);
        assert_eq!(
            (&value["payload"], &value["schema"]["type"]),
            (&"two".into(), &"string".into())
        );
        assert_eq!(header(letter, "topic"), "numbers");
        assert_eq!(header(letter, "stage"), "TRANSFORMATION");
        assert_eq!(header(letter, "class.name"), "Cast$Value");
        assert!(
            !header(letter, "exception.message").contains("two"),
            "contents are not told"
        );
    }

    #[tokio::test]
    async fn a_failing_record_ends_the_task_where_that_is_not_tolerated() {
        let stand = Stand::new();
        let error = stand
            .way(&CAST, false)
            .carry(&frame("numbers", &["1", "two"]))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::Record(failure) if failure.stage == Stage::Transformation),
            "{error}"
        );
        assert!(error.to_string().contains("transform number"), "{error}");
    }

    #[tokio::test]
    async fn no_transform_leads_into_a_topic_of_the_worker_or_one_that_cannot_be() {
        for target in ["connect-offsets", "__consumer_offsets", "no topic"] {
            let stand = Stand::new();
            let config = [
                ("transforms", "route"),
                ("transforms.route.type", "RegexRouter"),
                ("transforms.route.regex", "stray"),
                ("transforms.route.replacement", target),
            ];
            let error = stand.way(&config, false).carry(&frame("stray", &["a"])).await;
            assert!(error.unwrap_err().to_string().contains(target));
            let mut tolerant = stand.way(&config, true);
            let carried = tolerant.carry(&frame("stray", &["a"])).await.unwrap();
            assert_eq!((carried.fates.written, carried.fates.dead_lettered), (0, 1));
            stand.commit(carried).await;
            assert_eq!(header(&stand.letters("dead").await[0], "stage"), "KAFKA_PRODUCE");
        }
    }
}
