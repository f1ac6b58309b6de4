//! Changing some fields of a struct or map where they are: the schema once, each value by its position.

use std::sync::Arc;

use tidewater_plugin_api::{Field, SchemaRef, Type, Value};

use crate::fault::{Fault, Place};
use crate::path::PathTree;
use crate::record::Side;

/// What is done to the values of one struct schema.
#[derive(Debug)]
pub(crate) struct Edit<Op> {
    /// The schema afterwards; the very same where no type changes.
    pub schema: SchemaRef,
    width: usize,
    /// What stands for null, by field.
    defaults: Vec<(usize, Value)>,
    steps: Vec<(usize, Step<Op>)>,
}

#[derive(Debug)]
enum Step<Op> {
    Leaf(Op),
    Inner(Edit<Op>),
}

/// How an [`Edit`] is made.
pub(crate) struct Planner<'a, Plan, Run> {
    pub side: Side,
    /// Whether a null in a field with a default counts as the default.
    pub replaces_null: bool,
    /// For a path and the schema at its end, the schema afterwards and what to do with values.
    pub plan: &'a mut Plan,
    /// Does it: defaults of structs change with their schema.
    pub run: &'a mut Run,
}

impl<Plan, Run> Planner<'_, Plan, Run> {
    /// What `tree` means for values of `schema`; none where it has none of the fields.
    pub(crate) fn edit<Op>(&mut self, schema: &SchemaRef, tree: &PathTree) -> Result<Option<Edit<Op>>, Fault>
    where
        Plan: FnMut(usize, &SchemaRef) -> Result<(SchemaRef, Op), Fault>,
        Run: FnMut(&Op, &mut Value) -> Result<(), Fault>,
    {
        let fields = schema.fields();
        let mut steps = Vec::new();
        let mut after: Vec<Field> = fields.to_vec();
        let mut changed = false;
        for (index, field) in fields.iter().enumerate() {
            let Some(child) = tree.child(&field.name) else {
                continue;
            };
            let (step, new) = if let Some(path) = child.leaf() {
                let (new, op) = (self.plan)(path, &field.schema)?;
                (Step::Leaf(op), new)
            } else {
                let Some(inner) = self.edit(&field.schema, child)? else {
                    continue;
                };
                let new = inner.schema.clone();
                (Step::Inner(inner), new)
            };
            changed |= !Arc::ptr_eq(&new, &field.schema);
            after[index].schema = new;
            steps.push((index, step));
        }
        if steps.is_empty() {
            return Ok(None);
        }
        let mut edit = Edit {
            schema: schema.clone(),
            width: fields.len(),
            defaults: defaults(fields, self.replaces_null),
            steps,
        };
        if changed {
            let mut new = (**schema).clone();
            if let Some(default) = new.default.as_mut().filter(|value| **value != Value::Null) {
                edit.apply(self.side, default, self.run)?;
            }
            new.ty = Type::Struct(after);
            edit.schema = Arc::new(new);
        }
        Ok(Some(edit))
    }
}

/// The defaults of those `fields` that have one.
pub(crate) fn defaults(fields: &[Field], wanted: bool) -> Vec<(usize, Value)> {
    let some = |(index, field): (usize, &Field)| match &field.schema.default {
        Some(value) if *value != Value::Null => Some((index, value.clone())),
        _ => None,
    };
    fields
        .iter()
        .enumerate()
        .filter(|_| wanted)
        .filter_map(some)
        .collect()
}

/// Puts `defaults` where `fields` are null.
pub(crate) fn fill(fields: &mut [Value], defaults: &[(usize, Value)]) {
    for (index, default) in defaults {
        if let Some(field) = fields.get_mut(*index).filter(|field| **field == Value::Null) {
            *field = default.clone();
        }
    }
}

impl<Op> Edit<Op> {
    /// Changes `value`, a struct of the schema this was planned for.
    pub(crate) fn apply<Run>(&self, side: Side, value: &mut Value, run: &mut Run) -> Result<(), Fault>
    where
        Run: FnMut(&Op, &mut Value) -> Result<(), Fault>,
    {
        let fields = struct_fields(side, value, self.width)?;
        fill(fields, &self.defaults);
        for (index, step) in &self.steps {
            match step {
                Step::Leaf(op) => run(op, &mut fields[*index])?,
                Step::Inner(_) if fields[*index] == Value::Null => {}
                Step::Inner(inner) => inner.apply(side, &mut fields[*index], run)?,
            }
        }
        Ok(())
    }
}

/// The fields of `value`, which its schema says is a struct of `width` fields.
pub(crate) fn struct_fields(side: Side, value: &mut Value, width: usize) -> Result<&mut Vec<Value>, Fault> {
    match value {
        Value::Struct(fields) => {
            if fields.len() == width {
                return Ok(fields);
            }
            let found = fields.len();
            Err(Fault::malformed(
                side,
                format!("a struct of {width} fields is expected, there are {found}"),
            ))
        }
        other => Err(Fault::malformed(
            side,
            format!("a struct is expected, there is a value of type {}", other.kind()),
        )),
    }
}

/// Changes the fields of a map that `tree` names; a field at the root that is not there is added as null, as Connect does
/// for records without schema.
pub(crate) fn edit_map<Run>(
    pairs: &mut Vec<(Value, Value)>,
    tree: &PathTree,
    run: &mut Run,
) -> Result<(), Fault>
where
    Run: FnMut(usize, &mut Value) -> Result<(), Fault>,
{
    for (name, child) in tree.children() {
        let found = pairs
            .iter_mut()
            .find(|(key, _)| crate::path::is_name(key, name))
            .map(|(_, value)| value);
        match (found, child.leaf()) {
            (Some(value), Some(path)) => run(path, value)?,
            (Some(Value::Map(inner)), None) => edit_inner(inner, child, run)?,
            (None, Some(_)) => pairs.push((Value::String((**name).to_owned()), Value::Null)),
            (_, None) => {}
        }
    }
    Ok(())
}

fn edit_inner<Run>(pairs: &mut [(Value, Value)], tree: &PathTree, run: &mut Run) -> Result<(), Fault>
where
    Run: FnMut(usize, &mut Value) -> Result<(), Fault>,
{
    for (key, value) in pairs {
        let Value::String(key) = key else { continue };
        match (tree.child(key), value) {
            (Some(child), value) if child.leaf().is_some() => {
                run(child.leaf().unwrap_or_default(), value)?;
            }
            (Some(child), Value::Map(inner)) => edit_inner(inner, child, run)?,
            _ => {}
        }
    }
    Ok(())
}

/// The schema of a struct, or the fault that it is none.
pub(crate) fn require_struct(side: Side, schema: &SchemaRef, advice: &'static str) -> Result<(), Fault> {
    match &schema.ty {
        Type::Struct(_) => Ok(()),
        other => Err(Fault::wrong_type(
            Place::Whole(side),
            other.name(),
            "struct",
            advice,
        )),
    }
}

/// The pairs of a value without schema, which must be a map.
pub(crate) fn require_map<'a>(
    side: Side,
    value: &'a mut Value,
    advice: &'static str,
) -> Result<&'a mut Vec<(Value, Value)>, Fault> {
    match value {
        Value::Map(pairs) => Ok(pairs),
        other => Err(Fault::wrong_type(
            Place::Whole(side),
            other.kind(),
            "map, or struct with a schema",
            advice,
        )),
    }
}
