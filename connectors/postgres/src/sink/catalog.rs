//! What a session has learnt: the target tables, and how the records of each topic and schema become rows of them.

use std::collections::HashMap;

use sqlx::PgConnection;
use tidewater_plugin_api::{Record, Schema, SchemaRef, Type};

use super::config::{InsertMode, Settings};
use super::ddl::{self, Wanted};
use super::error::SinkError;
use super::identifier::{self, TableName};
use super::key::{KeyParts, KeySource};
use super::record::Shape;
use super::target::{Columns, Target};
use super::text::Form;

/// A field of a row that is written.
#[derive(Debug)]
pub struct FieldPlan {
    /// The column's position in the target.
    pub column: usize,
    /// The form of its values.
    pub form: Form,
}

/// How records of one topic, key schema and value schema become rows.
#[derive(Debug)]
pub struct Plan {
    /// The table's position in [`Catalog::targets`].
    pub target: usize,
    /// Where the key comes from.
    pub key: KeySource,
    /// The set of the key's columns.
    pub key_set: u32,
    /// By the fields of the row's schema; none where a field is not written.
    pub fields: Vec<Option<FieldPlan>>,
    /// The set of all columns that a full row writes.
    pub full_set: u32,
    /// Whether a placeholder may hide where a search for its bytes does not find it.
    pub search_fields: bool,
}

/// Tables and plans.
#[derive(Debug, Default)]
pub struct Catalog {
    /// The tables.
    pub targets: Vec<Target>,
    /// The plans.
    pub plans: Vec<Plan>,
    by_name: HashMap<TableName, usize>,
    by_record: HashMap<PlanKey, usize>,
    /// Keeps the schemas alive whose addresses stand in `by_record`.
    held: Vec<SchemaRef>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PlanKey {
    table: TableName,
    key_schema: usize,
    value_schema: usize,
}

fn address(schema: Option<&SchemaRef>) -> usize {
    schema.map_or(0, |schema| SchemaRef::as_ptr(schema) as usize)
}

/// More plans than any set of tables needs; beyond it a session starts anew, so that memory stays bounded.
const MOST_PLANS: usize = 20_000;

impl Catalog {
    /// Whether so much has been learnt that it is better forgotten.
    pub fn is_full(&self) -> bool {
        self.by_record.len() > MOST_PLANS
    }

    /// The plan for `record`, which goes to `table`: made where there is none yet, along with the table and its columns
    /// where the settings allow. None where the table is missing and the record could only delete from it.
    pub async fn plan(
        &mut self,
        connection: &mut PgConnection,
        settings: &Settings,
        record: &Record<'_>,
        shape: &Shape,
        table: TableName,
    ) -> Result<Option<usize>, SinkError> {
        let (key_schema, value_schema) = (record.key_schema(), record.value_schema());
        let plan_key = PlanKey {
            table,
            key_schema: address(key_schema),
            value_schema: address(value_schema),
        };
        if let Some(&known) = self.by_record.get(&plan_key) {
            return Ok(Some(known));
        }
        let row_schema = shape.row_schema(value_schema);
        let key = KeyParts::of(settings, key_schema, row_schema)?;
        let wanted = wanted_columns(settings, &key, row_schema)?;
        let Some(target) = self
            .ensure(
                connection,
                settings,
                &plan_key.table,
                &wanted,
                row_schema.is_some(),
            )
            .await?
        else {
            return Ok(None);
        };
        let plan = self.make_plan(settings, target, &key, row_schema)?;
        self.plans.push(plan);
        let index = self.plans.len() - 1;
        self.held.extend(key_schema.cloned());
        self.held.extend(value_schema.cloned());
        self.by_record.insert(plan_key, index);
        Ok(Some(index))
    }

    /// The table `name`; none where it does not exist.
    pub async fn table(
        &mut self,
        connection: &mut PgConnection,
        name: &TableName,
    ) -> Result<Option<usize>, SinkError> {
        if let Some(&index) = self.by_name.get(name) {
            return Ok(Some(index));
        }
        Ok(Target::load(connection, name)
            .await?
            .map(|target| self.add(target)))
    }

    fn add(&mut self, target: Target) -> usize {
        self.by_name.insert(target.name.clone(), self.targets.len());
        self.targets.push(target);
        self.targets.len() - 1
    }

    /// The table with these columns, looked up, made or widened.
    async fn ensure(
        &mut self,
        connection: &mut PgConnection,
        settings: &Settings,
        table: &TableName,
        wanted: &[Wanted],
        writes: bool,
    ) -> Result<Option<usize>, SinkError> {
        let index = match self.table(connection, table).await? {
            Some(index) => index,
            None if settings.create && !writes => return Ok(None),
            None => {
                let mut made = None;
                if settings.create {
                    ddl::create_table(connection, table, wanted).await?;
                    made = self.table(connection, table).await?;
                }
                made.ok_or_else(|| {
                    SinkError::Target(format!(
                        "table {table} does not exist. Create it, set auto.create=true, or mend table.name.format"
                    ))
                })?
            }
        };
        let missing = |target: &Target| -> Vec<Wanted> {
            wanted
                .iter()
                .filter(|column| target.column(&column.name).is_none())
                .cloned()
                .collect()
        };
        let mut lacking = missing(&self.targets[index]);
        if !lacking.is_empty() {
            // Somebody else may have added them meanwhile.
            self.reload(connection, index).await?;
            lacking = missing(&self.targets[index]);
        }
        if !lacking.is_empty() && settings.evolve && lacking.iter().all(|column| !column.key) {
            ddl::add_columns(connection, table, &lacking).await?;
            self.reload(connection, index).await?;
            lacking = missing(&self.targets[index]);
        }
        if lacking.is_empty() {
            return Ok(Some(index));
        }
        let names: Vec<_> = lacking.iter().map(|column| column.name.as_str()).collect();
        Err(SinkError::Target(if lacking.iter().any(|column| column.key) {
            format!(
                "table {table} lacks the key columns {}. Add them, or name the table's own key in pk.fields",
                names.join(", ")
            )
        } else {
            format!(
                "table {table} lacks the columns {}. Add them, set auto.evolve=true, or leave them out with fields.whitelist",
                names.join(", ")
            )
        }))
    }

    async fn reload(&mut self, connection: &mut PgConnection, index: usize) -> Result<(), SinkError> {
        let target = &mut self.targets[index];
        let later = Target::load(connection, &target.name).await?;
        target.renew(later.ok_or_else(|| SinkError::Changed(target.name.to_string()))?)
    }

    fn make_plan(
        &mut self,
        settings: &Settings,
        target_index: usize,
        key: &KeyParts,
        row_schema: Option<&SchemaRef>,
    ) -> Result<Plan, SinkError> {
        let target = &mut self.targets[target_index];
        // Every wanted column is there: `ensure` has seen to it.
        let place = |target: &Target, name: &str| target.column(name).unwrap_or_default();
        let key_columns: Vec<usize> = key
            .columns
            .iter()
            .map(|column| place(target, &column.name))
            .collect();
        if settings.insert_mode == InsertMode::Upsert && !target.has_unique(&key_columns) {
            let names: Vec<_> = key.columns.iter().map(|column| column.name.as_str()).collect();
            return Err(SinkError::Target(format!(
                "table {} has no primary key or unique index on exactly ({names}), which insert.mode=upsert needs. Make \
                 one (CREATE UNIQUE INDEX ON {} ({})), or name the table's key in pk.fields",
                target.name,
                target.name,
                target.names(&key_columns),
                names = names.join(", "),
            )));
        }
        let mut fields = Vec::new();
        let mut rest = Vec::new();
        for field in row_schema.map(|schema| schema.fields()).unwrap_or_default() {
            let name = settings.quoting.catalogue_name(&field.name);
            let column = target.column(&name).filter(|column| {
                is_chosen(settings, &field.name)
                    && !key_columns.contains(column)
                    && !target.columns[*column].generated
                    && !rest.contains(column)
            });
            fields.push(column.map(|column| {
                rest.push(column);
                FieldPlan {
                    column,
                    form: Form::of(&field.schema, &target.columns[column].kind),
                }
            }));
        }
        if row_schema.is_some() && key_columns.is_empty() && rest.is_empty() {
            return Err(SinkError::Target(format!(
                "no field of the records is left to write to table {}; see fields.whitelist",
                target.name
            )));
        }
        let source = key.source(|place| &target.columns[key_columns[place]].kind);
        let key_set = target.set(Columns {
            key: key_columns.clone(),
            rest: Vec::new(),
        });
        let full_set = target.set(Columns {
            key: key_columns,
            rest,
        });
        let holds_integers = |schema: &Schema| matches!(&schema.ty, Type::Array(element) if !matches!(element.ty, Type::String));
        Ok(Plan {
            target: target_index,
            key: source,
            key_set,
            search_fields: row_schema
                .is_some_and(|schema| schema.fields().iter().any(|field| holds_integers(&field.schema))),
            fields,
            full_set,
        })
    }
}

fn is_chosen(settings: &Settings, field: &str) -> bool {
    settings.fields.is_empty() || settings.fields.iter().any(|chosen| chosen == field)
}

/// The key's columns, then those of the row.
fn wanted_columns(
    settings: &Settings,
    key: &KeyParts,
    row_schema: Option<&SchemaRef>,
) -> Result<Vec<Wanted>, SinkError> {
    let mut wanted = key.columns.clone();
    for field in row_schema.map(|schema| schema.fields()).unwrap_or_default() {
        let name = settings.quoting.catalogue_name(&field.name);
        if is_chosen(settings, &field.name) && !wanted.iter().any(|column| column.name == name) {
            wanted.push(Wanted {
                name,
                schema: field.schema.clone(),
                key: false,
            });
        }
    }
    for column in &wanted {
        identifier::check(&column.name)
            .map_err(|why| SinkError::Target(format!("{why} (field {:?})", column.name)))?;
    }
    Ok(wanted)
}
