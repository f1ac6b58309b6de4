//! Single-message transforms and predicates: records change on their way between a connector and the log.
//!
//! A [`Chain`] is built from a connector's flat configuration and applied to owned [`Record`]s, one at a time. It does no
//! input or output, and what it makes of a record depends on that record alone; what it works out for a schema or a topic
//! it keeps, so that a schema is transformed once and its result shared.
//!
//! # The map, in the order a record meets it
//! - [`record`]: what is transformed. Keys and values stay encoded until something looks into them, and what is encoded is
//!   shared with the frame it came in ([`Record::from_frame`], [`Record::push_to`]).
//! - [`chain`]: the transforms in order, each with its predicate; every fault of a configuration at once.
//! - [`class`]: the table of classes, with names, documentation and configuration.
//! - [`predicate`], [`transform`]: the classes themselves, one a file.
//! - [`value_text`]: values as text and back, by the rules of Connect's simple header converter.
//! - [`fault`]: errors that say which transform, which field, what it is, what to do; and never what a record holds.
//! - within: `path` (KIP-821's field paths), `plan_cache` (one plan a schema), `edit` and `selection` (changing and choosing
//!   fields by position), `settings` (one transform's configuration), `expression` and `scripted` (CEL), `date_format`
//!   (`SimpleDateFormat`), `java_regex`, `literal` and `number_text` (Java's ways with text).
//!
//! # Configuration
//! ```text
//! transforms=unwrap,mask
//! transforms.unwrap.type=io.debezium.transforms.ExtractNewRecordState
//! transforms.mask.type=MaskField$Value
//! transforms.mask.fields=customer.email
//! transforms.mask.field.syntax.version=V2
//! transforms.mask.predicate=audited
//! transforms.mask.negate=true
//! predicates=audited
//! predicates.audited.type=TopicNameMatches
//! predicates.audited.pattern=audit\..*
//! ```
//! Classes go by short names or by the full names of their Java counterparts. A transform with variants works on the key or
//! on the value of a record: `Cast$Key`, `Cast$Value`.
//!
//! # Transforms
//! | class | variants | keys |
//! |---|---|---|
//! | `ByLogicalTableRouter` | | `topic.regex`, `topic.replacement`, `key.enforce.uniqueness`, `key.field.name`, `key.field.regex`, `key.field.replacement` |
//! | `Cast` | yes | `spec` ᵖ ᵈ |
//! | `ContentBasedRouter` | | `topic.expression`, `language`, `topic.regex`, `null.handling.mode` |
//! | `DropHeaders` | | `headers` |
//! | `ExpressionFilter` (`io.debezium.transforms.Filter`) | | `condition`, `language`, `topic.regex`, `null.handling.mode` |
//! | `ExtractField` | yes | `field` ᵖ ᵈ |
//! | `ExtractNewRecordState` | | `delete.tombstone.handling.mode`, `drop.tombstones`, `delete.handling.mode`, `route.by.field`, `add.fields`, `add.fields.prefix`, `add.headers`, `add.headers.prefix` |
//! | `Filter` | | |
//! | `Flatten` | yes | `delimiter` |
//! | `HeaderFrom` | yes | `fields`, `headers`, `operation` ᵖ ᵈ |
//! | `HoistField` | yes | `field`, `hoisted` ᵖ |
//! | `InsertField` | yes | `topic.field`, `partition.field`, `offset.field`, `timestamp.field`, `static.field`, `static.value`, `field.on.missing.parent`, `field.on.existing.field` ᵖ ᵈ |
//! | `InsertHeader` | | `header`, `value.literal` |
//! | `MaskField` | yes | `fields`, `replacement` ᵖ ᵈ |
//! | `RegexRouter` | | `regex`, `replacement` |
//! | `ReplaceField` | yes | `exclude`, `include`, `renames` ᵖ ᵈ |
//! | `SetSchemaMetadata` | yes | `schema.name`, `schema.version` |
//! | `TimestampConverter` | yes | `field`, `target.type`, `format`, `unix.precision` ᵖ ᵈ |
//! | `TimestampRouter` | | `topic.format`, `timestamp.format` |
//! | `ValueToKey` | | `fields` ᵖ ᵈ |
//!
//! ᵖ also `field.syntax.version`: fields are paths with `V2`. ᵈ also `replace.null.with.default`.
//!
//! # Predicates
//! | class | keys |
//! |---|---|
//! | `HasHeaderKey` | `name` |
//! | `RecordIsTombstone` | |
//! | `TopicNameMatches` | `pattern` |
//!
//! # Expressions
//! `ExpressionFilter` and `ContentBasedRouter` take expressions of CEL, the Common Expression Language, over the variables
//! `topic`, `partition`, `timestamp`, `key`, `value`, `header` (by name, each with a `value`), `keySchema` and `valueSchema`
//! (`name`, `version`, `type`, `optional`): `value.op == 'u' && value.after.total > 100.0`. A field that may not be there is
//! asked for with `has(value.after.total)`. Decimals are doubles there, and times the numbers they are stored as.
//!
//! # Where this is not as in Kafka Connect
//! - Nested paths work in every transform that names fields; `InsertField` overwrites a field that is there, also with a
//!   schema, unless told otherwise.
//! - A null key or value passes `MaskField` and `HeaderFrom`, which in Connect fail on it; `MaskField` empties bytes.
//! - `Cast` writes Date, Time and Timestamp by their type, where Connect guesses by their value, writes decimals in plain
//!   digits, and takes the logical name off what it casts as a whole.
//! - `TimestampConverter` knows Debezium's time types by themselves and refuses dates that are none, such as a 30 February.
//! - `replace.null.with.default` touches only records in which the transform finds a field to work on.
//! - `ExtractNewRecordState` drops truncations, and unwraps events without schema too.
//! - The expression language of Debezium's two transforms is CEL; Groovy and JavaScript are refused with that advice.

pub mod chain;
pub mod class;
mod date_format;
mod edit;
mod expression;
pub mod fault;
mod frame;
mod java_regex;
mod literal;
mod nearest;
mod number_text;
pub mod path;
mod plan_cache;
#[allow(clippy::unnecessary_wraps)] // the table of classes takes one form of `build`
pub mod predicate;
pub mod record;
mod scripted;
mod selection;
mod settings;
#[allow(clippy::unnecessary_wraps)] // as above
pub mod transform;
pub mod value_text;

pub use chain::Chain;
pub use class::{PredicateClass, TransformClass};
pub use fault::{Fault, Place, Stage, TransformError};
pub use predicate::Predicate;
pub use record::{Datum, Header, Record, Side};
pub use transform::{Transform, Verdict};
