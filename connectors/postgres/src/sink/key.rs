//! The key of a row: where it comes from, and its encoded form.

use tidewater_plugin_api::value::StructRef;
use tidewater_plugin_api::{Record, Schema, SchemaRef, Type, ValueRef};

use super::config::{KeyMode, Settings};
use super::ddl::Wanted;
use super::error::SinkError;
use super::rows::write_key_cell;
use super::text::{ColumnKind, Form, TextError};

/// Where a row's key comes from.
#[derive(Debug)]
pub enum KeySource {
    /// There is none.
    None,
    /// Topic, partition and offset.
    Kafka,
    /// The record's key itself.
    Whole(Form),
    /// Fields of the record's key: position, column name, form.
    KeyFields(Vec<KeyField>),
    /// Fields of the row.
    RowFields(Vec<KeyField>),
}

/// A field that makes up a key.
#[derive(Debug)]
pub struct KeyField {
    index: usize,
    name: String,
    form: Form,
}

impl KeySource {
    /// Appends the key of `record`, cell by cell.
    pub fn write(
        &self,
        record: &Record<'_>,
        row: Option<StructRef<'_>>,
        out: &mut Vec<u8>,
    ) -> Result<(), TextError> {
        match self {
            KeySource::None => Ok(()),
            KeySource::Kafka => {
                let number = |out: &mut Vec<u8>, number: u64| {
                    write_key_cell(out, |out| {
                        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
                        Ok(())
                    })
                };
                write_key_cell(out, |out| {
                    out.extend_from_slice(record.original_topic().as_bytes());
                    Ok(())
                })?;
                number(out, record.partition().unwrap_or_default().into())?;
                number(out, record.offset().unwrap_or_default())
            }
            KeySource::Whole(form) => match record.key()? {
                ValueRef::Null => Err(TextError(NO_KEY.into())),
                key => write_key_cell(out, |out| form.write(key, out)),
            },
            KeySource::KeyFields(fields) => match record.key()? {
                ValueRef::Struct(key) => write_fields(fields, key, out),
                _ => Err(TextError(NO_KEY.into())),
            },
            KeySource::RowFields(fields) => match row {
                Some(row) => write_fields(fields, row, out),
                None => Err(TextError("it has no value to take its key from".into())),
            },
        }
    }
}

const NO_KEY: &str = "it has no key, but pk.mode=record_key takes the row's key from it. Give the source table a primary \
                      key or set message.key.columns at the source, or choose another pk.mode";

fn write_fields(fields: &[KeyField], values: StructRef<'_>, out: &mut Vec<u8>) -> Result<(), TextError> {
    let cell = |field: &KeyField, value: ValueRef<'_>, out: &mut Vec<u8>| {
        if value.is_null() {
            return Err(TextError(format!("the key column {} is null", field.name)));
        }
        write_key_cell(out, |out| field.form.write(value, out))
    };
    // Nearly always the fields are taken in their own order, and one walk gives them all.
    let in_order = fields.windows(2).all(|pair| pair[0].index < pair[1].index);
    if in_order {
        let mut wanted = fields.iter().peekable();
        for (index, part) in values.iter().enumerate() {
            let (_, value) = part?;
            if let Some(field) = wanted.next_if(|field| field.index == index) {
                cell(field, value, out)?;
            }
            if wanted.peek().is_none() {
                break;
            }
        }
        return Ok(());
    }
    for field in fields {
        if let Some(part) = values.iter().nth(field.index) {
            cell(field, part?.1, out)?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum KeyOrigin {
    None,
    Kafka,
    Whole,
    Key,
    Row,
}

/// What makes up the key of records of one key schema and row schema.
#[derive(Debug)]
pub struct KeyParts {
    origin: KeyOrigin,
    /// Its columns.
    pub columns: Vec<Wanted>,
    /// Where each column's value stands, and what it is there.
    fields: Vec<(usize, SchemaRef)>,
}

impl KeyParts {
    /// The parts of the key that `settings` ask for.
    pub fn of(
        settings: &Settings,
        key_schema: Option<&SchemaRef>,
        row_schema: Option<&SchemaRef>,
    ) -> Result<Self, SinkError> {
        let name_of = |name: &str| settings.quoting.catalogue_name(name);
        let fields_of = |origin: KeyOrigin, schema: &SchemaRef, what: &str| -> Result<KeyParts, SinkError> {
            let names: Vec<&str> = if settings.key_fields.is_empty() {
                schema.fields().iter().map(|field| &*field.name).collect()
            } else {
                settings.key_fields.iter().map(String::as_str).collect()
            };
            let mut found = KeyParts {
                origin,
                columns: Vec::new(),
                fields: Vec::new(),
            };
            for name in names {
                let (index, field) = schema.field(name).ok_or_else(|| {
                    let there: Vec<_> = schema.fields().iter().map(|field| &*field.name).collect();
                    SinkError::Target(format!(
                        "pk.fields names {name:?}, which the record's {what} does not have; it has {}",
                        there.join(", ")
                    ))
                })?;
                found.fields.push((index, field.schema.clone()));
                // The row's field may say more of the source's column than the key's does.
                let row_field = row_schema.and_then(|row| row.field(name)).map(|(_, field)| field);
                found.columns.push(Wanted {
                    name: name_of(name),
                    schema: row_field.unwrap_or(field).schema.clone(),
                    key: true,
                });
            }
            Ok(found)
        };
        let none = KeyParts {
            origin: KeyOrigin::None,
            columns: Vec::new(),
            fields: Vec::new(),
        };
        Ok(match settings.key_mode {
            KeyMode::None => none,
            KeyMode::Kafka => KeyParts {
                origin: KeyOrigin::Kafka,
                columns: settings
                    .key_fields
                    .iter()
                    .zip([Type::String, Type::Int32, Type::Int64])
                    .map(|(name, ty)| Wanted {
                        name: name_of(name),
                        schema: Schema::new(ty).into(),
                        key: true,
                    })
                    .collect(),
                fields: Vec::new(),
            },
            KeyMode::RecordKey => {
                let schema = key_schema
                    .ok_or_else(|| SinkError::Target(NO_KEY.replacen("it has", "a record has", 1)))?;
                if matches!(schema.ty, Type::Struct(_)) {
                    fields_of(KeyOrigin::Key, schema, "key")?
                } else {
                    let [name] = settings.key_fields.as_slice() else {
                        return Err(SinkError::Config(format!(
                            "the records' key is {} and has no field names; give its column's name in pk.fields",
                            schema.ty.name()
                        )));
                    };
                    KeyParts {
                        origin: KeyOrigin::Whole,
                        columns: vec![Wanted {
                            name: name_of(name),
                            schema: schema.clone(),
                            key: true,
                        }],
                        fields: vec![(0, schema.clone())],
                    }
                }
            }
            KeyMode::RecordValue => match row_schema {
                None => none,
                Some(schema) => fields_of(KeyOrigin::Row, schema, "value")?,
            },
        })
    }

    /// Where the keys of records come from; `kind` tells what the column at a place of the key is.
    pub fn source<'t>(&self, kind: impl Fn(usize) -> &'t ColumnKind) -> KeySource {
        let mut fields: Vec<KeyField> = self
            .fields
            .iter()
            .zip(&self.columns)
            .enumerate()
            .map(|(place, ((index, schema), column))| KeyField {
                index: *index,
                name: column.name.clone(),
                form: Form::of(schema, kind(place)),
            })
            .collect();
        match self.origin {
            KeyOrigin::None => KeySource::None,
            KeyOrigin::Kafka => KeySource::Kafka,
            KeyOrigin::Whole => fields
                .pop()
                .map_or(KeySource::None, |field| KeySource::Whole(field.form)),
            KeyOrigin::Key => KeySource::KeyFields(fields),
            KeyOrigin::Row => KeySource::RowFields(fields),
        }
    }
}
