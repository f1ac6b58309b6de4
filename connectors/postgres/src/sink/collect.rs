//! From the records of a frame to a [`Batch`].

use std::collections::HashMap;
use std::ops::Range;

use tidewater_plugin_api::value::{DecodeError, StructRef};
use tidewater_plugin_api::{Frame, Record};

use super::batch::{Batch, Key, Reduction};
use super::catalog::Plan;
use super::config::{InsertMode, Settings};
use super::error::{Place, SinkError};
use super::placeholder::unavailable_columns;
use super::record::{self, Change, Shape};
use super::session::Session;
use super::text::TextError;

/// What is found out once per frame and not once per record.
pub struct Collector<'a> {
    frame: &'a Frame,
    settings: &'a Settings,
    shapes: Vec<Shape>,
    no_schema: Shape,
    plans: HashMap<PlanKey<'a>, usize>,
    last: Option<(PlanKey<'a>, usize)>,
    /// Records that asked for nothing, or for what the settings do not allow.
    pub passed_over: u64,
}

/// Topic, key schema, value schema, and schema and table of the source block where the table depends on them.
type PlanKey<'a> = (usize, Option<usize>, Option<usize>, Option<(&'a str, &'a str)>);

impl<'a> Collector<'a> {
    /// For the records of `frame`.
    pub fn new(frame: &'a Frame, settings: &'a Settings) -> Self {
        Self {
            frame,
            settings,
            shapes: frame
                .schemas()
                .iter()
                .map(|schema| Shape::of(Some(schema)))
                .collect(),
            no_schema: Shape::of(None),
            plans: HashMap::new(),
            last: None,
            passed_over: 0,
        }
    }

    /// The records in `range` as a batch; those that `wanted` refuses are left out.
    pub async fn collect(
        &mut self,
        session: &mut Session,
        range: Range<usize>,
        wanted: impl Fn(usize) -> bool,
    ) -> Result<Batch<'a>, SinkError> {
        let mut batch = Batch::new(match self.settings.insert_mode {
            InsertMode::Insert => Reduction::Each,
            InsertMode::Upsert => Reduction::Last,
            InsertMode::Update => Reduction::LastUnlessGone,
        });
        for index in range.filter(|&index| wanted(index)) {
            self.add(session, &mut batch, self.frame.record(index)).await?;
        }
        Ok(batch)
    }

    async fn add(
        &mut self,
        session: &mut Session,
        batch: &mut Batch<'a>,
        record: Record<'a>,
    ) -> Result<(), SinkError> {
        let needs_source = self.settings.table_format.needs_source();
        let shape = match (record.value_bytes(), record.value_schema_index()) {
            (None, _) => &Shape::Tombstone,
            (_, Some(schema)) => &self.shapes[schema],
            (_, None) => &self.no_schema,
        };
        let event = record
            .value()
            .and_then(|value| record::open(shape, value, needs_source))
            .map_err(|error| refused(&record, error))?;
        let passes = match event.change {
            Change::Write(_) => true,
            Change::Delete => self.settings.delete,
            Change::Truncate => self.settings.truncate,
            Change::Nothing => false,
        };
        if !passes {
            self.passed_over += 1;
            return Ok(());
        }
        let table = || {
            self.settings
                .table_format
                .table(record.topic(), event.source, self.settings.quoting)
                .map_err(|why| refused(&record, TextError(why)))
        };
        if event.change == Change::Truncate {
            if let Some(target) = session.catalog.table(&mut session.connection, &table()?).await? {
                batch.truncate(target);
            }
            return Ok(());
        }
        let plan_key = (
            record.topic_index(),
            record.key_schema_index(),
            record.value_schema_index(),
            event.source,
        );
        let known = self
            .last
            .filter(|(key, _)| *key == plan_key)
            .map(|(_, plan)| plan)
            .or_else(|| self.plans.get(&plan_key).copied());
        let plan_index = if let Some(plan) = known {
            plan
        } else {
            let table = table()?;
            let plan = session
                .catalog
                .plan(&mut session.connection, self.settings, &record, shape, table)
                .await
                .map_err(|error| at(&record, error))?;
            let Some(plan) = plan else {
                // There is no such table to delete from.
                self.passed_over += 1;
                return Ok(());
            };
            self.plans.insert(plan_key, plan);
            plan
        };
        self.last = Some((plan_key, plan_index));
        let plan = &session.catalog.plans[plan_index];
        let row = match event.change {
            Change::Write(row) => Some(row),
            _ => None,
        };
        let start = batch.keys.len();
        plan.key
            .write(&record, row, &mut batch.keys)
            .map_err(|error| refused(&record, error))?;
        let key = Key {
            target: plan.target,
            plan: plan_index,
            set: plan.key_set,
            start,
        };
        match row {
            Some(row) => {
                let partial = self
                    .is_partial(plan, &record, row)
                    .map_err(|error| refused(&record, error))?;
                let unavailable = unavailable_columns(&record).map_err(|error| refused(&record, error))?;
                batch.write(key, row, partial, unavailable);
            }
            None => batch.delete(key),
        }
        Ok(())
    }

    /// Whether the row holds a placeholder.
    fn is_partial(&self, plan: &Plan, record: &Record<'_>, row: StructRef<'_>) -> Result<bool, DecodeError> {
        let placeholder = &self.settings.placeholder;
        if !plan.search_fields && !placeholder.may_be_in(record.value_bytes().unwrap_or_default()) {
            return Ok(false);
        }
        for field in row.iter() {
            if placeholder.is(field?.1) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Where a record came from.
pub fn place(record: &Record<'_>) -> Place {
    Place {
        topic: record.original_topic().to_owned(),
        partition: record.partition().unwrap_or_default(),
        offset: record.offset().unwrap_or_default(),
    }
}

fn refused(record: &Record<'_>, why: impl Into<TextError>) -> SinkError {
    SinkError::Unwritable {
        place: place(record),
        reason: why.into().0,
    }
}

/// Says which record first met a fault of its table.
fn at(record: &Record<'_>, error: SinkError) -> SinkError {
    match error {
        SinkError::Target(reason) => SinkError::Record {
            place: place(record),
            reason,
        },
        other => other,
    }
}
