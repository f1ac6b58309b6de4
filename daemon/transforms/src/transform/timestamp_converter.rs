//! TimestampConverter: times between text, Unix numbers and Connect's Date, Time and Timestamp.

use std::sync::Arc;

use jiff::Timestamp;
use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::logical::{self, Logical};
use tidewater_plugin_api::{ConfigDef, Importance, Schema, SchemaRef, Type, Value};

use super::{Transform, Verdict};
use crate::date_format::DateFormat;
use crate::edit::{Edit, Planner, edit_map, require_map, require_struct};
use crate::fault::{Fault, Place};
use crate::path::{FieldPath, PathTree};
use crate::plan_cache::PlanCache;
use crate::record::{Record, Side};
use crate::settings::{Settings, with_defaults, with_paths};

const DAY_MILLIS: i64 = 86_400_000;
const FIX: &str = "name the field that holds the time in `field`";

pub(crate) fn config() -> ConfigDef {
    with_defaults(with_paths(
        ConfigDef::new()
            .optional(
                "field",
                ConfigType::String,
                "",
                Importance::High,
                "The field that holds the time; empty where the whole is one.",
            )
            .required(
                "target.type",
                ConfigType::String,
                Importance::High,
                "What the time becomes: string, unix, Date, Time or Timestamp.",
            )
            .one_of(&["string", "unix", "Date", "Time", "Timestamp"])
            .optional(
                "format",
                ConfigType::String,
                "",
                Importance::Medium,
                "A pattern of Java's SimpleDateFormat, in UTC: how text is written where the target is string, and read where the \
                 time is text.",
            )
            .optional(
                "unix.precision",
                ConfigType::String,
                "milliseconds",
                Importance::Low,
                "What Unix numbers count: seconds, milliseconds, microseconds or nanoseconds.",
            )
            .one_of(&["seconds", "milliseconds", "microseconds", "nanoseconds"]),
    ))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Precision {
    Seconds,
    Millis,
    Micros,
    Nanos,
}

/// A form a time has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Text of the configured format.
    Text,
    /// ISO 8601 with an offset, as Debezium writes it.
    IsoText,
    Unix(Precision),
    /// Days after 1970.
    Date,
    /// Milliseconds after midnight.
    Time,
    /// Milliseconds after 1970.
    Timestamp,
}

pub(crate) struct TimestampConverter {
    side: Side,
    replaces_null: bool,
    field: Option<(FieldPath, PathTree)>,
    format: Option<DateFormat>,
    precision: Precision,
    target: Form,
    fields: PlanCache<Option<Edit<Form>>>,
    wholes: PlanCache<(SchemaRef, Form)>,
}

impl TimestampConverter {
    pub(crate) fn build(settings: &mut Settings, side: Side) -> Option<Box<dyn Transform>> {
        let precision = match settings.text("unix.precision").to_ascii_lowercase().as_str() {
            "seconds" => Precision::Seconds,
            "microseconds" => Precision::Micros,
            "nanoseconds" => Precision::Nanos,
            _ => Precision::Millis,
        };
        let target = match settings.text("target.type").to_ascii_lowercase().as_str() {
            "string" => Form::Text,
            "unix" => Form::Unix(precision),
            "date" => Form::Date,
            "time" => Form::Time,
            _ => Form::Timestamp,
        };
        let pattern = settings.untrimmed("format").unwrap_or_default().to_owned();
        let mut format = None;
        if !pattern.trim().is_empty() {
            match DateFormat::new(&pattern) {
                Ok(read) => format = Some(read),
                Err(error) => settings.problem("format", format!("is no pattern: {error}")),
            }
        } else if target == Form::Text {
            settings.problem(
                "format",
                "is missing; target.type=string needs it, as in yyyy-MM-dd",
            );
        }
        let field = settings.path("field");
        let field = field.map(|path| {
            let tree = settings.tree("field", std::slice::from_ref(&path));
            (path, tree)
        });
        Some(Box::new(Self {
            side,
            replaces_null: settings.replaces_null(),
            field,
            format,
            precision,
            target,
            fields: PlanCache::default(),
            wholes: PlanCache::default(),
        }))
    }
}

/// What there is to know for the conversion of one value.
struct Conversion<'a> {
    format: Option<&'a DateFormat>,
    target: Form,
    place: &'a dyn Fn() -> Place,
}

impl Transform for TimestampConverter {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let (side, precision, target, replaces_null) =
            (self.side, self.precision, self.target, self.replaces_null);
        let field = self.field.as_ref();
        let place = || match field {
            Some((path, _)) => Place::field(side, path.text()),
            None => Place::Whole(side),
        };
        let conversion = Conversion {
            format: self.format.as_ref(),
            target,
            place: &place,
        };
        let mut run = |form: &Form, value: &mut Value| conversion.convert(*form, value);
        let datum = record.side_mut(side);
        let Some(schema) = datum.schema().cloned() else {
            if datum.is_null() {
                return Ok(Verdict::Keep);
            }
            let value = datum.value_mut().map_err(Fault::decode(side))?;
            match field {
                None => conversion.convert_untyped(precision, value)?,
                Some((_, tree)) => {
                    let pairs = require_map(side, value, FIX)?;
                    edit_map(pairs, tree, &mut |_, value| {
                        conversion.convert_untyped(precision, value)
                    })?;
                }
            }
            return Ok(Verdict::Keep);
        };
        let Some((_, tree)) = field else {
            let plan = self.wholes.get(&schema, || {
                let form = form_of(&schema, precision, conversion.format, &place)?;
                Ok((target_schema(target, schema.optional), form))
            })?;
            let mut value = datum.take().map_err(Fault::decode(side))?;
            conversion.convert(plan.1, &mut value)?;
            datum.set(Some(plan.0.clone()), value);
            return Ok(Verdict::Keep);
        };
        require_struct(side, &schema, FIX)?;
        let plan = self.fields.get(&schema, || {
            let mut plan = |_: usize, field: &SchemaRef| {
                let form = form_of(field, precision, conversion.format, &place)?;
                Ok((target_schema(target, field.optional), form))
            };
            Planner {
                side,
                replaces_null,
                plan: &mut plan,
                run: &mut run,
            }
            .edit(&schema, tree)
        })?;
        if let Some(edit) = &*plan {
            let mut value = datum.take().map_err(Fault::decode(side))?;
            if value != Value::Null {
                edit.apply(side, &mut value, &mut run)?;
            }
            datum.set(Some(edit.schema.clone()), value);
        }
        Ok(Verdict::Keep)
    }
}

fn target_schema(target: Form, optional: bool) -> SchemaRef {
    let schema = match target {
        Form::Text | Form::IsoText => Schema::new(Type::String),
        Form::Unix(_) => Schema::new(Type::Int64),
        Form::Date => Schema::new(Type::Int32).named(logical::CONNECT_DATE).version(1),
        Form::Time => Schema::new(Type::Int32).named(logical::CONNECT_TIME).version(1),
        Form::Timestamp => Schema::new(Type::Int64)
            .named(logical::CONNECT_TIMESTAMP)
            .version(1),
    };
    Arc::new(if optional { schema.optional() } else { schema })
}

/// The form of the times of `schema`. Debezium's names say their own precision; plain numbers have the configured one.
fn form_of(
    schema: &Schema,
    precision: Precision,
    format: Option<&DateFormat>,
    place: &dyn Fn() -> Place,
) -> Result<Form, Fault> {
    Ok(match (Logical::of(schema), &schema.ty) {
        (Some(Logical::Date), _) => Form::Date,
        (Some(Logical::TimeMillis), _) => Form::Time,
        (Some(Logical::TimestampMillis), _) => Form::Timestamp,
        (Some(Logical::TimestampMicros | Logical::TimeMicros), _) => Form::Unix(Precision::Micros),
        (Some(Logical::TimestampNanos | Logical::TimeNanos), _) => Form::Unix(Precision::Nanos),
        (Some(Logical::ZonedTimestamp), _) if format.is_none() => Form::IsoText,
        (_, Type::String) => Form::Text,
        (_, Type::Int64) => Form::Unix(precision),
        (_, other) => return Err(no_time(place(), other.name())),
    })
}

fn no_time(place: Place, found: &'static str) -> Fault {
    Fault::wrong_type(
        place,
        found,
        "string, int64, Date, Time or Timestamp",
        "name a field that holds a time, or cast it to int64 first",
    )
}

impl Conversion<'_> {
    fn convert_untyped(&self, precision: Precision, value: &mut Value) -> Result<(), Fault> {
        let form = match value {
            Value::Null => return Ok(()),
            Value::Int64(_) => Form::Unix(precision),
            Value::String(_) => Form::Text,
            other => {
                return Err(Fault::wrong_type(
                    (self.place)(),
                    other.kind(),
                    "string or int64",
                    "name a field that holds a time, or cast it to int64 first",
                ));
            }
        };
        self.convert(form, value)
    }

    fn convert(&self, form: Form, value: &mut Value) -> Result<(), Fault> {
        let millis = match (form, &*value) {
            (_, Value::Null) => return Ok(()),
            (Form::Text, Value::String(text)) => self.read(text)?,
            (Form::IsoText, Value::String(text)) => text
                .parse::<Timestamp>()
                .map(Timestamp::as_millisecond)
                .map_err(|_| self.unreadable("it is no ISO 8601 time"))?,
            (Form::Unix(precision), Value::Int64(number)) => match precision {
                Precision::Seconds => number.saturating_mul(1000),
                Precision::Millis => *number,
                Precision::Micros => number / 1000,
                Precision::Nanos => number / 1_000_000,
            },
            (Form::Date, Value::Int32(days)) => i64::from(*days) * DAY_MILLIS,
            (Form::Time, Value::Int32(millis)) => i64::from(*millis),
            (Form::Timestamp, Value::Int64(millis)) => *millis,
            (_, other) => return Err(no_time((self.place)(), other.kind())),
        };
        *value = self.written(millis)?;
        Ok(())
    }

    fn read(&self, text: &str) -> Result<i64, Fault> {
        let Some(format) = self.format else {
            return Err(Fault::missing(
                (self.place)(),
                "the time is text, and there is no format to read it by: set format, as in yyyy-MM-dd",
            ));
        };
        format.parse(text).map_err(|error| self.unreadable(error))
    }

    fn unreadable(&self, reason: impl Into<std::borrow::Cow<'static, str>>) -> Fault {
        let advice = match self.format {
            Some(format) => format!(
                "the pattern is {:?}; set format to what the text has",
                format.pattern()
            ),
            None => "set format to what the text has".to_owned(),
        };
        Fault::unconvertible((self.place)(), "string", "a time", reason, advice)
    }

    fn written(&self, millis: i64) -> Result<Value, Fault> {
        let beyond = |target: &'static str| {
            Fault::unconvertible(
                (self.place)(),
                "time",
                target,
                "it lies beyond what that holds",
                "check unix.precision: it says what the numbers count",
            )
        };
        Ok(match self.target {
            Form::Text | Form::IsoText => {
                let mut text = String::new();
                self.format
                    .and_then(|format| format.format(millis, &mut text))
                    .ok_or_else(|| beyond("text of the years -9999 to 9999"))?;
                Value::String(text)
            }
            Form::Unix(Precision::Seconds) => Value::Int64(millis / 1000),
            Form::Unix(Precision::Millis) | Form::Timestamp => Value::Int64(millis),
            Form::Unix(Precision::Micros) => Value::Int64(millis.saturating_mul(1000)),
            Form::Unix(Precision::Nanos) => Value::Int64(millis.saturating_mul(1_000_000)),
            Form::Date => {
                let days = millis.div_euclid(DAY_MILLIS);
                Value::Int32(i32::try_from(days).map_err(|_| beyond("Date"))?)
            }
            // Less than a day always fits.
            Form::Time => Value::Int32(millis.rem_euclid(DAY_MILLIS) as i32),
        })
    }
}
