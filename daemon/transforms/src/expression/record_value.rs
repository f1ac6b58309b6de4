//! A record as an expression sees it: structs are walked where they are, nothing is copied but what a map or list holds.

use std::collections::HashMap;
use std::sync::OnceLock;

use cel::ExecutionError;
use cel::common::traits::{Container, Indexer, Iterable, Iterator as ValueIterator, Sizer};
use cel::common::types::{
    CelBool, CelBytes, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, MAP_TYPE, Type,
};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use tidewater_plugin_api::json::decimal_to_string;
use tidewater_plugin_api::logical::Logical;
use tidewater_plugin_api::{Schema, Value};

use crate::record::{Datum, Record};

/// The variables of an expression. What is read of the record has been decoded.
pub(super) struct Variables<'a>(pub &'a Record);

impl VariableResolver for Variables<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let record = self.0;
        let value: Box<dyn Val + 'b> = match variable {
            "topic" => Box::new(CelString::from(&*record.topic)),
            "partition" => match record.partition {
                Some(partition) => Box::new(CelInt::from(i64::from(partition))),
                None => Box::new(CelNull),
            },
            "timestamp" => match record.timestamp {
                Some(timestamp) => Box::new(CelInt::from(timestamp)),
                None => Box::new(CelNull),
            },
            "key" => datum(&record.key),
            "value" => datum(&record.value),
            "keySchema" => schema(&record.key),
            "valueSchema" => schema(&record.value),
            "header" => headers(record),
            _ => return None,
        };
        Some(CowVal::Owned(value))
    }
}

fn datum(datum: &Datum) -> Box<dyn Val + '_> {
    match datum.decoded() {
        Some(value) => seen(datum.schema().map(|schema| &**schema), value),
        None => Box::new(CelNull),
    }
}

fn text_map<'a>(pairs: Vec<(&'a str, Box<dyn Val + 'a>)>) -> Box<dyn Val + 'a> {
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| (CelMapKey::from(name), value));
    Box::new(CelMap::from(pairs.collect::<HashMap<_, _>>()))
}

/// What there is to know of a schema.
fn schema(datum: &Datum) -> Box<dyn Val + '_> {
    let Some(schema) = datum.schema() else {
        return Box::new(CelNull);
    };
    let name: Box<dyn Val + '_> = match &schema.name {
        Some(name) => Box::new(CelString::from(&**name)),
        None => Box::new(CelNull),
    };
    let version: Box<dyn Val + '_> = match schema.version {
        Some(version) => Box::new(CelInt::from(i64::from(version))),
        None => Box::new(CelNull),
    };
    text_map(vec![
        ("name", name),
        ("version", version),
        ("type", Box::new(CelString::from(schema.ty.name()))),
        ("optional", Box::new(CelBool::from(schema.optional))),
    ])
}

/// The headers by name, each with its value; the last of a name counts.
fn headers(record: &Record) -> Box<dyn Val + '_> {
    let headers = record
        .headers
        .iter()
        .map(|header| (&*header.name, text_map(vec![("value", datum(&header.value))])));
    text_map(headers.collect())
}

/// A value as an expression sees it. Decimals are doubles there, and times the numbers they are.
fn seen<'a>(schema: Option<&'a Schema>, value: &'a Value) -> Box<dyn Val + 'a> {
    let int = |number: i64| -> Box<dyn Val + 'a> { Box::new(CelInt::from(number)) };
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(v) => Box::new(CelBool::from(*v)),
        Value::Int8(v) => int((*v).into()),
        Value::Int16(v) => int((*v).into()),
        Value::Int32(v) => int((*v).into()),
        Value::Int64(v) => int(*v),
        Value::Float32(v) => Box::new(CelDouble::from(f64::from(*v))),
        Value::Float64(v) => Box::new(CelDouble::from(*v)),
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Bytes(bytes) => match schema.and_then(Logical::of) {
            Some(Logical::Decimal { scale }) => {
                let number = decimal_to_string(bytes, scale).parse().unwrap_or(f64::NAN);
                Box::new(CelDouble::from(number))
            }
            _ => Box::new(CelBytes::from(&**bytes)),
        },
        Value::Array(items) => {
            let element = schema.and_then(|schema| match &schema.ty {
                tidewater_plugin_api::Type::Array(element) => Some(&**element),
                _ => None,
            });
            let items: Vec<Box<dyn Val + 'a>> = items.iter().map(|item| seen(element, item)).collect();
            Box::new(CelList::from(items))
        }
        Value::Map(pairs) => {
            let element = schema.and_then(|schema| match &schema.ty {
                tidewater_plugin_api::Type::Map(_, element) => Some(&**element),
                _ => None,
            });
            let pairs = pairs
                .iter()
                .filter_map(|(key, value)| Some((map_key(key)?, seen(element, value))));
            Box::new(CelMap::from(pairs.collect::<HashMap<_, _>>()))
        }
        Value::Struct(values) => match schema {
            Some(schema) => Box::new(Fields {
                schema,
                values,
                names: OnceLock::new(),
            }),
            None => Box::new(CelNull),
        },
    }
}

/// Keys of other types than these cannot be asked for.
fn map_key(key: &Value) -> Option<CelMapKey<'_>> {
    Some(match key {
        Value::Bool(v) => (*v).into(),
        Value::Int8(v) => i64::from(*v).into(),
        Value::Int16(v) => i64::from(*v).into(),
        Value::Int32(v) => i64::from(*v).into(),
        Value::Int64(v) => (*v).into(),
        Value::String(text) => text.as_str().into(),
        _ => return None,
    })
}

/// A struct: a map from the names of its fields, made one by one as they are asked for.
struct Fields<'a> {
    schema: &'a Schema,
    values: &'a [Value],
    names: OnceLock<Vec<CelString<'a>>>,
}

impl std::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a struct of {} fields", self.values.len())
    }
}

impl<'a> Fields<'a> {
    fn find(&self, name: &dyn Val) -> Option<Box<dyn Val + 'a>> {
        let name = name.downcast_ref::<CelString<'_>>()?;
        let (index, field) = self.schema.field(name.inner())?;
        Some(seen(Some(&field.schema), self.values.get(index)?))
    }

    fn copy(&self) -> Self {
        Self {
            schema: self.schema,
            values: self.values,
            names: OnceLock::new(),
        }
    }
}

impl Val for Fields<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_iterable<'b, 'v>(&'b self) -> Option<&'b (dyn Iterable + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        let same_size = other
            .as_sizer()
            .is_some_and(|sizer| *sizer.size().inner() == self.schema.fields().len() as i64);
        let Some(other) = other.as_indexer().filter(|_| same_size) else {
            return false;
        };
        self.schema
            .fields()
            .iter()
            .zip(self.values)
            .all(|(field, value)| {
                let name = CelString::from(&*field.name);
                other
                    .get(&name)
                    .is_ok_and(|theirs| seen(Some(&field.schema), value).equals(theirs.as_ref()))
            })
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.copy())
    }
}

impl Container for Fields<'_> {
    fn contains(&self, name: &dyn Val) -> Result<bool, ExecutionError> {
        Ok(self.find(name).is_some())
    }
}

impl Indexer for Fields<'_> {
    fn get<'b, 'v>(&'b self, name: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        if let Some(value) = self.find(name) {
            return Ok(CowVal::Owned(value));
        }
        let name = name.downcast_ref::<CelString<'_>>();
        Err(ExecutionError::no_such_key(
            name.map_or("of another type than string", |name| name.inner()),
        ))
    }

    fn steal<'v>(self: Box<Self>, name: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(name).map(CowVal::into_owned)
    }
}

impl Sizer for Fields<'_> {
    fn size(&self) -> CelInt {
        (self.schema.fields().len() as i64).into()
    }
}

impl Iterable for Fields<'_> {
    fn iter<'b, 'v>(&'b self) -> Box<dyn ValueIterator<'b, 'v> + 'b>
    where
        Self: 'v,
    {
        let names = self.names.get_or_init(|| {
            let fields = self.schema.fields().iter();
            fields.map(|field| CelString::from(&*field.name)).collect()
        });
        Box::new(Names(names.iter()))
    }
}

struct Names<'b, 'a>(std::slice::Iter<'b, CelString<'a>>);

impl<'b, 'v, 'a: 'v> ValueIterator<'b, 'v> for Names<'b, 'a> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'v)> {
        let next = self.0.next()?;
        Some(next)
    }
}
