//! A captured table at one moment of the stream: its columns with their codecs, its key, and the schemas of its records,
//! built once and shared by all of them.

use std::sync::Arc;

use tidewater_plugin_api::frame::{SchemaId, TopicId};
use tidewater_plugin_api::{Error, Field, FrameBuilder, Result, Schema, SchemaRef, Type, ValueWriter};

use super::catalog::{Identity, Table};
use super::codec::choose::{Declared, Mapping, mapping, source_parameters};
use super::codec::{Codec, Unfit};
use super::envelope;
use super::pgoutput::RelationMessage;
use super::row::{Content, Row};
use super::settings::Settings;
use super::type_catalog::TypeCatalog;

/// What is known of a table, from the catalogs, the stream or both.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) columns: Vec<ShapeColumn>,
    /// The primary key's columns in its order, by their places in `columns`; none where there is none or it is unknown.
    primary_key: Vec<usize>,
}

/// A column of a [`Shape`].
#[derive(Clone, Debug)]
pub(crate) struct ShapeColumn {
    pub(crate) name: String,
    declared: Declared,
    not_null: bool,
    /// Whether old rows tell its value.
    in_identity: bool,
}

impl Shape {
    /// As the catalogs have it now, for the columns in `published` or all.
    pub(crate) fn from_catalog(table: &Table, published: Option<&[String]>) -> Self {
        let kept = table
            .columns
            .iter()
            .filter(|column| published.is_none_or(|names| names.contains(&column.name)));
        let columns = kept
            .map(|column| ShapeColumn {
                name: column.name.clone(),
                declared: column.declared,
                not_null: column.not_null,
                in_identity: match table.identity {
                    Identity::Full => true,
                    Identity::Default => column.key_position.is_some(),
                    Identity::Index => column.in_identity_index,
                    Identity::Nothing => false,
                },
            })
            .collect();
        Self::new(
            table.schema.clone(),
            table.name.clone(),
            table.identity,
            columns,
            Some(table),
        )
    }

    /// As the stream says, with what only the catalogs know (nullability, dimensions, the primary key) by the names of
    /// columns. The catalogs may be ahead of the stream: what does not match there is taken as nullable.
    pub(crate) fn from_stream(message: &RelationMessage, table: Option<&Table>) -> Self {
        let columns = message
            .columns
            .iter()
            .map(|column| {
                let known = table.and_then(|table| {
                    let mut columns = table.columns.iter();
                    columns
                        .find(|known| known.name == column.name && known.declared.type_oid == column.type_oid)
                });
                ShapeColumn {
                    name: column.name.clone(),
                    declared: Declared {
                        type_oid: column.type_oid,
                        modifier: column.modifier,
                        dimensions: known.map_or(0, |known| known.declared.dimensions),
                    },
                    not_null: known.is_some_and(|known| known.not_null),
                    in_identity: message.identity == Identity::Full || column.in_identity,
                }
            })
            .collect();
        Self::new(
            message.schema.clone(),
            message.table.clone(),
            message.identity,
            columns,
            table,
        )
    }

    fn new(
        schema: String,
        table: String,
        identity: Identity,
        columns: Vec<ShapeColumn>,
        catalog: Option<&Table>,
    ) -> Self {
        let mut key: Vec<(i32, &str)> = catalog
            .iter()
            .flat_map(|table| &table.columns)
            .filter_map(|column| Some((column.key_position?, column.name.as_str())))
            .collect();
        key.sort_unstable();
        let place = |name: &str| columns.iter().position(|column| column.name == name);
        let by_name: Option<Vec<usize>> = key.iter().map(|(_, name)| place(name)).collect();
        let told = |column: &usize| columns[*column].in_identity;
        let primary_key = match by_name {
            // An index that does not cover the primary key is all that deletes carry, so it is the key.
            Some(places)
                if !places.is_empty() && (identity != Identity::Index || places.iter().all(told)) =>
            {
                places
            }
            _ if matches!(identity, Identity::Default | Identity::Index) => {
                (0..columns.len()).filter(told).collect()
            }
            _ => Vec::new(),
        };
        Self {
            schema,
            table,
            columns,
            primary_key,
        }
    }

    /// The types of the columns.
    pub(crate) fn type_oids(&self) -> Vec<u32> {
        self.columns
            .iter()
            .map(|column| column.declared.type_oid)
            .collect()
    }
}

struct Column {
    name: Arc<str>,
    mapping: Mapping,
    parameters: Vec<(&'static str, String)>,
    optional: bool,
    /// Whether it stands in values; it may stand in the key all the same.
    included: bool,
    in_identity: bool,
}

impl Column {
    fn schema(&self, optional: bool) -> Schema {
        let mut schema = self.mapping.schema.clone();
        schema.optional = optional;
        for (name, value) in &self.parameters {
            schema = schema.parameter(*name, value);
        }
        schema
    }
}

/// A captured table.
pub(crate) struct Relation {
    /// `schema.table`.
    pub(crate) name: String,
    topic: String,
    schema_prefix: String,
    columns: Vec<Column>,
    key: Vec<usize>,
    key_schema: Option<SchemaRef>,
    envelope: SchemaRef,
    /// The encoded names of schema and table, as they stand in `source`.
    source_names: Vec<u8>,
    ids: Option<(u64, Ids)>,
}

/// What a relation is called within a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    pub(crate) topic: TopicId,
    /// [`SchemaId::NONE`] where there is no key.
    pub(crate) key: SchemaId,
    pub(crate) envelope: SchemaId,
}

/// Which of a row's columns a struct is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Before,
    After,
}

/// A cell that could not be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Misfit {
    column: usize,
    unfit: Unfit,
}

impl Relation {
    /// Builds the schemas of the table's records.
    pub(crate) fn new(shape: &Shape, types: &TypeCatalog, settings: &Settings) -> Self {
        let (schema, table) = (&shape.schema, &shape.table);
        let name = format!("{schema}.{table}");
        let columns: Vec<Column> = shape
            .columns
            .iter()
            .map(|column| Column {
                name: column.name.as_str().into(),
                mapping: mapping(column.declared, types, settings.types),
                parameters: if settings
                    .propagate_type
                    .matches(&format!("{name}.{}", column.name))
                {
                    source_parameters(column.declared, types)
                } else {
                    Vec::new()
                },
                optional: !column.not_null,
                included: settings.filter.includes_column(schema, table, &column.name),
                in_identity: column.in_identity,
            })
            .collect();
        let wanted = settings
            .message_keys
            .iter()
            .find(|(pattern, _)| pattern.is_match(&name));
        let key = match wanted {
            Some((_, names)) => {
                let place = |wanted: &String| columns.iter().position(|column| *column.name == **wanted);
                let places: Vec<usize> = names.iter().filter_map(place).collect();
                if places.len() < names.len() {
                    tracing::warn!(table = %name, "message.key.columns names columns that the table does not have");
                }
                if !places.iter().all(|&place| columns[place].in_identity) {
                    tracing::warn!(
                        table = %name,
                        "message.key.columns names columns that deletes do not carry: set REPLICA IDENTITY FULL on the table"
                    );
                }
                places
            }
            None => shape.primary_key.clone(),
        };
        let mut source_names = Vec::new();
        let mut writer = ValueWriter::new(&mut source_names);
        writer.string(schema);
        writer.string(table);
        let mut relation = Self {
            topic: topic_name(&settings.topic_prefix, schema, table),
            schema_prefix: format!("{}.{name}", settings.topic_prefix),
            name,
            columns,
            key,
            key_schema: None,
            envelope: Arc::new(Schema::new(Type::String)), // replaced at once
            source_names,
            ids: None,
        };
        relation.build_schemas();
        relation
    }

    fn build_schemas(&mut self) {
        let value_name = format!("{}.Value", self.schema_prefix);
        let value = |part: Part| {
            let fields = self
                .columns
                .iter()
                .filter(|column| column.included)
                .map(|column| {
                    let told = part == Part::After || column.in_identity;
                    Field::new(column.name.clone(), column.schema(column.optional || !told))
                });
            Schema::structure(fields.collect())
                .named(value_name.as_str())
                .optional()
        };
        let envelope = envelope::schema(&self.schema_prefix, value(Part::Before), value(Part::After));
        let key = (!self.key.is_empty()).then(|| {
            let fields = self.key.iter().map(|&place| {
                let column = &self.columns[place];
                Field::new(column.name.clone(), column.schema(column.optional))
            });
            Arc::new(Schema::structure(fields.collect()).named(format!("{}.Key", self.schema_prefix)))
        });
        self.envelope = Arc::new(envelope);
        self.key_schema = key;
        self.ids = None;
    }

    /// The relation's topic and schemas within `batch`; `epoch` is unlike for each batch.
    pub(crate) fn ids(&mut self, batch: &mut FrameBuilder, epoch: u64) -> Result<Ids> {
        if let Some((known, ids)) = self.ids
            && known == epoch
        {
            return Ok(ids);
        }
        let ids = Ids {
            topic: batch.topic(&self.topic)?,
            key: match &self.key_schema {
                Some(schema) => batch.schema(schema)?,
                None => SchemaId::NONE,
            },
            envelope: batch.schema(&self.envelope)?,
        };
        self.ids = Some((epoch, ids));
        Ok(ids)
    }

    /// The key's schema, where there is a key.
    pub(crate) fn key_schema(&self) -> Option<&SchemaRef> {
        self.key_schema.as_ref()
    }

    /// The encoded names of schema and table.
    pub(crate) fn source_names(&self) -> &[u8] {
        &self.source_names
    }

    /// Whether the key differs between the rows.
    pub(crate) fn key_differs(&self, old: Row<'_>, new: Row<'_>) -> bool {
        // A key column that was not sent did not change.
        self.key
            .iter()
            .any(|&place| new.get(place) != Content::Unchanged && old.get(place) != new.get(place))
    }

    /// Writes the key's struct.
    pub(crate) fn write_key(&self, row: Row<'_>, out: &mut ValueWriter<'_>) -> Result<(), Misfit> {
        let open = out.begin();
        for &place in &self.key {
            let column = &self.columns[place];
            let unfit = match row.get(place) {
                Content::Text(text) => {
                    if column.optional {
                        out.present();
                    }
                    column.mapping.codec.write(text, out)
                }
                _ if column.optional => {
                    out.null();
                    Ok(())
                }
                _ => Err(Unfit::Null),
            };
            unfit.map_err(|unfit| Misfit { column: place, unfit })?;
        }
        out.end(open);
        Ok(())
    }

    /// Writes the struct of a row. Values that were not sent are taken from `old`, else `placeholder` stands for them;
    /// columns that have room for neither are null and added to `unavailable`.
    pub(crate) fn write_row(
        &self,
        part: Part,
        row: Row<'_>,
        old: Option<Row<'_>>,
        placeholder: &str,
        unavailable: &mut Vec<usize>,
        out: &mut ValueWriter<'_>,
    ) -> Result<(), Misfit> {
        let open = out.begin();
        for (place, column) in self.columns.iter().enumerate() {
            if !column.included {
                continue;
            }
            let optional = column.optional || (part == Part::Before && !column.in_identity);
            let mut content = row.get(place);
            if content == Content::Unchanged
                && let Some(old) = old
            {
                content = old.get(place);
            }
            let unfit = match content {
                Content::Text(text) => {
                    if optional {
                        out.present();
                    }
                    column.mapping.codec.write(text, out)
                }
                Content::Unchanged if column.mapping.codec.has_placeholder() => {
                    if optional {
                        out.present();
                    }
                    column.mapping.codec.write_placeholder(placeholder, out);
                    Ok(())
                }
                Content::Null | Content::Unchanged if !optional => Err(Unfit::Null),
                Content::Unchanged => {
                    unavailable.push(place);
                    out.null();
                    Ok(())
                }
                Content::Null => {
                    out.null();
                    Ok(())
                }
            };
            unfit.map_err(|unfit| Misfit { column: place, unfit })?;
        }
        out.end(open);
        Ok(())
    }

    /// The names of columns.
    pub(crate) fn names(&self, columns: &[usize]) -> Vec<String> {
        columns
            .iter()
            .map(|&place| self.columns[place].name.to_string())
            .collect()
    }

    /// Changes the schema so that the cell fits: nothing is lost, nothing stops.
    pub(crate) fn adapt(&mut self, misfit: Misfit, row: Row<'_>) -> Result<()> {
        let column = &mut self.columns[misfit.column];
        let name = &column.name;
        match misfit.unfit {
            Unfit::Null => {
                tracing::info!(table = %self.name, column = %name, "a row has no value here: the column is sent as nullable");
                column.optional = true;
            }
            Unfit::Type(reason) => {
                tracing::warn!(
                    table = %self.name, column = %name,
                    "the column is sent as text from here on, since its type cannot hold a value: {reason}"
                );
                column.mapping = Mapping::text();
            }
            Unfit::Label => {
                tracing::info!(table = %self.name, column = %name, "the enum has a new label");
                match (&mut column.mapping.codec, row.get(misfit.column)) {
                    (Codec::Enum(labels), Content::Text(text)) => {
                        labels.push(String::from_utf8_lossy(text).into_owned());
                        let allowed = labels.join(",");
                        let schema = std::mem::replace(&mut column.mapping.schema, Schema::new(Type::String));
                        column.mapping.schema = schema.parameter("allowed", allowed);
                    }
                    // Within an array: the labels are for readers only.
                    (Codec::Array { element, .. }, _) => **element = Codec::Text,
                    _ => column.mapping.codec = Codec::Text,
                }
            }
            Unfit::Encoding => {
                return Err(Error::fatal(format!(
                    "column {name:?} of table {} holds text that is not UTF-8, which a database of encoding SQL_ASCII \
                     allows: mend the value, or leave the column out with column.exclude.list",
                    self.name
                )));
            }
        }
        self.build_schemas();
        Ok(())
    }
}

/// The topic of a table: characters that topics cannot have become `_`, as in Debezium.
fn topic_name(prefix: &str, schema: &str, table: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    format!("{prefix}.{schema}.{table}")
        .chars()
        .map(|c| if fits(c) { c } else { '_' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_s_name_has_only_what_topics_may() {
        assert_eq!(topic_name("shop", "public", "Größe $1"), "shop.public.Gr__e__1");
    }
}
