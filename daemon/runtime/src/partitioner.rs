//! Which partition of its topic a record goes to, where it does not name one.

use std::fmt;

use tidewater_broker::partition_for_key;
use tidewater_plugin_api::{Schema, SchemaRef, ValueRef};
use tidewater_transforms::path::{FieldPath, Syntax};
use tidewater_transforms::value_text;

/// How partitions are picked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Partitioning {
    /// As Kafka's producer does it: by the hash of the key's bytes; without a key all of one poll to one partition, and those
    /// of the next to the next.
    #[default]
    Key,
    /// Each record to the next partition, whatever its key.
    RoundRobin,
    /// All of one poll to one partition, whatever their keys.
    Sticky,
    /// By the hash of the text of these fields.
    Fields(Vec<RecordField>),
}

/// The classes of partitioners: short names, and Kafka's.
const CLASSES: [(&str, &[&str]); 3] = [
    (
        "default",
        &[
            "org.apache.kafka.clients.producer.internals.DefaultPartitioner",
            "DefaultPartitioner",
        ],
    ),
    (
        "round-robin",
        &[
            "org.apache.kafka.clients.producer.RoundRobinPartitioner",
            "RoundRobinPartitioner",
        ],
    ),
    (
        "sticky",
        &[
            "org.apache.kafka.clients.producer.UniformStickyPartitioner",
            "UniformStickyPartitioner",
        ],
    ),
];

impl Partitioning {
    /// The partitioning of the class `name`.
    pub fn named(name: &str) -> Option<Self> {
        let (short, _) = CLASSES
            .iter()
            .find(|(short, aliases)| *short == name || aliases.contains(&name))?;
        Some(match *short {
            "round-robin" => Self::RoundRobin,
            "sticky" => Self::Sticky,
            _ => Self::Key,
        })
    }

    /// The names of all classes, the short ones first.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let long = CLASSES.iter().flat_map(|(_, aliases)| aliases.iter().copied());
        CLASSES.iter().map(|(short, _)| *short).chain(long)
    }
}

/// A field of a record's key or value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordField {
    of_key: bool,
    path: FieldPath,
}

impl RecordField {
    /// Reads `key`, `value`, or one of them with a path behind it, `value.customer.id`, in which backticks keep the dots of a
    /// name together; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = FieldPath::parse(text, Syntax::V2)?;
        let of_key = match &*path.steps()[0] {
            "key" => true,
            "value" => false,
            other => {
                return Err(format!(
                    "{text:?} begins with {other:?}; a field begins with key or value: key.id, value.customer.id"
                ));
            }
        };
        Ok(Self { of_key, path })
    }

    /// The field's text, appended to `out`.
    fn write(&self, key: Side<'_>, value: Side<'_>, out: &mut String) -> Result<(), String> {
        let side = if self.of_key { key } else { value };
        let schema = side.schema.map(|schema| &**schema);
        let mut found = match side.bytes {
            None => ValueRef::Null,
            Some(bytes) => ValueRef::decode(schema, bytes).map_err(|error| self.fault(&error))?,
        };
        let mut found_schema: Option<&Schema> = schema;
        for step in &self.path.steps()[1..] {
            (found, found_schema) = match found {
                ValueRef::Struct(fields) => {
                    let inner = fields.get(step).map_err(|error| self.fault(&error))?;
                    let schema = fields.schema().field(step).map(|(_, field)| &*field.schema);
                    (inner.ok_or_else(|| self.missing())?, schema)
                }
                ValueRef::Map(pairs) => {
                    let mut inner = None;
                    for pair in pairs.iter() {
                        let (name, value) = pair.map_err(|error| self.fault(&error))?;
                        if name.as_str() == Some(step) {
                            inner = Some(value);
                        }
                    }
                    let schema = pairs.schemas().map(|(_, value)| value);
                    (inner.ok_or_else(|| self.missing())?, schema)
                }
                _ => return Err(self.missing()),
            };
        }
        value_text::write(found, found_schema, out).map_err(|error| self.fault(&error))
    }

    fn missing(&self) -> String {
        format!(
            "partitioner.fields names {}, which this record does not have; where values may be null, take fields of the key",
            self.path.text()
        )
    }

    fn fault(&self, error: &dyn fmt::Display) -> String {
        format!("partitioner.fields, {}: {error}", self.path.text())
    }
}

/// A key or a value on its way, encoded as in a frame.
#[derive(Clone, Copy)]
pub struct Side<'r> {
    /// Its schema.
    pub schema: Option<&'r SchemaRef>,
    /// Its encoding; none where it is null.
    pub bytes: Option<&'r [u8]>,
}

/// Picks partitions.
#[derive(Debug)]
pub struct Partitioner {
    partitioning: Partitioning,
    /// Which poll this is: its records without a key go to one partition.
    poll: u32,
    text: String,
}

impl Partitioner {
    /// A partitioner that begins anew.
    pub fn new(partitioning: Partitioning) -> Self {
        Self {
            partitioning,
            poll: 0,
            text: String::new(),
        }
    }

    /// Says that what comes was polled later.
    pub fn next_poll(&mut self) {
        self.poll = self.poll.wrapping_add(1);
    }

    /// The partition of a record among `partitions`, of which `earlier` records went to its topic before. `converted` is the
    /// key as it will stand in the topic.
    pub fn pick(
        &mut self,
        converted: Option<&[u8]>,
        (key, value): (Side<'_>, Side<'_>),
        earlier: u64,
        partitions: u32,
    ) -> Result<u32, String> {
        let sticky = self.poll % partitions;
        Ok(match &self.partitioning {
            Partitioning::Key => converted.map_or(sticky, |key| partition_for_key(key, partitions)),
            Partitioning::Sticky => sticky,
            Partitioning::RoundRobin => (earlier % u64::from(partitions)) as u32,
            Partitioning::Fields(fields) => {
                self.text.clear();
                for (index, field) in fields.iter().enumerate() {
                    if index > 0 {
                        self.text.push('\0');
                    }
                    field.write(key, value, &mut self.text)?;
                }
                partition_for_key(self.text.as_bytes(), partitions)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tidewater_plugin_api::{Field, Type, Value};

    const NOTHING: Side<'static> = Side {
        schema: None,
        bytes: None,
    };

    fn by_fields(text: &str) -> Partitioner {
        let fields = text.split(',').map(|text| RecordField::parse(text).unwrap());
        Partitioner::new(Partitioning::Fields(fields.collect()))
    }

    #[test]
    fn keys_go_where_kafka_sends_them_and_the_rest_sticks_for_a_poll() {
        let mut partitioner = Partitioner::new(Partitioning::Key);
        let pick = |partitioner: &mut Partitioner, key: Option<&[u8]>| {
            partitioner.pick(key, (NOTHING, NOTHING), 0, 7).unwrap()
        };
        // 1173551340 is Kafka's hash of "21", its sign bit cleared.
        assert_eq!(pick(&mut partitioner, Some(b"21")), 1_173_551_340 % 7);
        let first = pick(&mut partitioner, None);
        assert_eq!(pick(&mut partitioner, None), first);
        partitioner.next_poll();
        assert_eq!(pick(&mut partitioner, None), (first + 1) % 7);
        assert_eq!(pick(&mut partitioner, Some(b"21")), 1_173_551_340 % 7);
    }

    #[test]
    fn round_robin_and_sticky_do_not_look_at_keys() {
        let mut partitioner = Partitioner::new(Partitioning::RoundRobin);
        let picked: Vec<u32> = (0..5)
            .map(|earlier| {
                partitioner
                    .pick(Some(b"same"), (NOTHING, NOTHING), earlier, 3)
                    .unwrap()
            })
            .collect();
        assert_eq!(picked, [0, 1, 2, 0, 1]);
        let mut partitioner = Partitioner::new(Partitioning::Sticky);
        let mut pick = |key: &[u8]| partitioner.pick(Some(key), (NOTHING, NOTHING), 0, 3).unwrap();
        assert_eq!(pick(b"a"), pick(b"b"));
    }

    #[test]
    fn fields_are_found_in_structs_and_maps_and_hashed_as_text() {
        let schema: SchemaRef = Arc::new(Schema::structure(vec![
            Field::new("id", Schema::new(Type::Int64)),
            Field::new(
                "customer",
                Schema::structure(vec![Field::new("a.b", Schema::new(Type::String).optional())]).optional(),
            ),
        ]));
        let encoded = |value: &Value, schema: Option<&SchemaRef>| {
            let mut out = Vec::new();
            value.encode(schema.map(|schema| &**schema), &mut out).unwrap();
            out
        };
        let row = |customer: Value| encoded(&Value::Struct(vec![Value::Int64(21), customer]), Some(&schema));
        let whole = row(Value::Struct(vec![Value::String("x".into())]));
        let value = Side {
            schema: Some(&schema),
            bytes: Some(&whole),
        };
        let pick = |fields: &str, value: Side<'_>| by_fields(fields).pick(None, (NOTHING, value), 0, 100);
        let expected = |text: &str| Ok(partition_for_key(text.as_bytes(), 100));
        assert_eq!(pick("value.id", value), expected("21"));
        assert_eq!(pick("value.customer.`a.b`", value), expected("x"));
        assert_eq!(pick("value.id,value.customer.`a.b`", value), expected("21\u{0}x"));
        assert_eq!(pick("key,value.id", value), expected("null\u{0}21"));

        let map = encoded(
            &Value::Map(vec![(Value::String("id".into()), Value::Int32(21))]),
            None,
        );
        let loose = Side {
            schema: None,
            bytes: Some(&map),
        };
        assert_eq!(pick("value.id", loose), expected("21"));

        let without = row(Value::Null);
        let without = Side {
            schema: Some(&schema),
            bytes: Some(&without),
        };
        for (fields, side) in [
            ("value.nr", value),
            ("value.nr", loose),
            ("value.id.x", value),
            ("value.customer.`a.b`", without),
            ("value.id", NOTHING),
        ] {
            let error = pick(fields, side).unwrap_err();
            assert!(error.contains(fields), "{error}");
        }
    }

    #[test]
    fn names_and_paths() {
        for name in Partitioning::names() {
            assert!(Partitioning::named(name).is_some(), "{name}");
        }
        let kafkas = "org.apache.kafka.clients.producer.RoundRobinPartitioner";
        assert_eq!(Partitioning::named(kafkas), Some(Partitioning::RoundRobin));
        assert_eq!(Partitioning::named("random"), None);
        assert!(RecordField::parse("id").unwrap_err().contains("key or value"));
        assert!(RecordField::parse("").is_err() && RecordField::parse("value.`a").is_err());
    }
}
