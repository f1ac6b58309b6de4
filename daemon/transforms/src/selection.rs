//! Which fields of a struct or map stay, and under which names: the schema once, each value by its position.

use std::sync::Arc;

use tidewater_plugin_api::{Field, SchemaRef, Type, Value};

use crate::edit::{defaults, fill, struct_fields};
use crate::fault::Fault;
use crate::path::PathTree;
use crate::record::Side;

/// What stays, by the paths that say so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// Where there are any, only these stay.
    pub include: Option<&'a PathTree>,
    /// These go.
    pub exclude: Option<&'a PathTree>,
    /// These change their name.
    pub renames: Option<&'a PathTree>,
    /// The new names, by the positions in `renames`.
    pub names: &'a [Arc<str>],
}

/// What becomes of one field.
struct Fate<'a> {
    name: Arc<str>,
    /// What goes on within it.
    inner: Option<Rules<'a>>,
}

impl<'a> Rules<'a> {
    fn fate(&self, name: &Arc<str>) -> Option<Fate<'a>> {
        let exclude = self.exclude.and_then(|tree| tree.child(name));
        if exclude.is_some_and(|child| child.leaf().is_some()) {
            return None;
        }
        let include = match self.include {
            None => None,
            Some(tree) => {
                let child = tree.child(name)?;
                child.leaf().is_none().then_some(child)
            }
        };
        let renames = self.renames.and_then(|tree| tree.child(name));
        let renamed = renames.and_then(PathTree::leaf);
        let renames = renames.filter(|child| child.leaf().is_none());
        let inner = (exclude.is_some() || include.is_some() || renames.is_some()).then_some(Rules {
            include,
            exclude,
            renames,
            names: self.names,
        });
        Some(Fate {
            name: renamed.map_or_else(|| name.clone(), |index| self.names[index].clone()),
            inner,
        })
    }

    /// Whether a field that cannot be looked into stays: not where only parts of it were asked for.
    fn keeps_whole(&self) -> bool {
        self.include.is_none()
    }
}

/// What stays of the values of one struct schema.
#[derive(Debug)]
pub(crate) struct Selection {
    /// The schema afterwards.
    pub schema: SchemaRef,
    width: usize,
    defaults: Vec<(usize, Value)>,
    /// The positions that stay, in order, and what stays within them.
    kept: Vec<(usize, Option<Selection>)>,
}

impl Selection {
    /// What `rules` mean for values of `schema`, a struct. Of the outermost struct, optionality and default go, as with
    /// Connect.
    pub(crate) fn new(schema: &SchemaRef, rules: Rules<'_>, replaces_null: bool) -> Self {
        Self::at(schema, rules, replaces_null, true)
    }

    fn at(schema: &SchemaRef, rules: Rules<'_>, replaces_null: bool, outermost: bool) -> Self {
        let mut fields: Vec<Field> = Vec::new();
        let mut kept = Vec::new();
        for (index, field) in schema.fields().iter().enumerate() {
            let Some(fate) = rules.fate(&field.name) else {
                continue;
            };
            let inner = match fate.inner {
                Some(inner) if matches!(field.schema.ty, Type::Struct(_)) => {
                    Some(Self::at(&field.schema, inner, replaces_null, false))
                }
                Some(inner) if !inner.keeps_whole() => continue,
                _ => None,
            };
            let field_schema = inner.as_ref().map_or(&field.schema, |inner| &inner.schema);
            fields.push(Field::new(fate.name, field_schema.clone()));
            kept.push((index, inner));
        }
        let mut new = (**schema).clone();
        // A default has the fields of the schema before.
        new.default = None;
        if outermost {
            new.optional = false;
        }
        new.ty = Type::Struct(fields);
        Self {
            schema: Arc::new(new),
            width: schema.fields().len(),
            defaults: defaults(schema.fields(), replaces_null),
            kept,
        }
    }

    /// Reduces `value`, a struct of the schema this was made for.
    pub(crate) fn apply(&self, side: Side, value: &mut Value) -> Result<(), Fault> {
        let fields = struct_fields(side, value, self.width)?;
        fill(fields, &self.defaults);
        // What stays moves to the front, in place: positions only ever shrink.
        for (to, (from, inner)) in self.kept.iter().enumerate() {
            fields.swap(to, *from);
            if let Some(inner) = inner
                && fields[to] != Value::Null
            {
                inner.apply(side, &mut fields[to])?;
            }
        }
        fields.truncate(self.kept.len());
        Ok(())
    }
}

/// Reduces a map by `rules`.
pub(crate) fn select_map(pairs: &mut Vec<(Value, Value)>, rules: Rules<'_>) {
    pairs.retain_mut(|(key, value)| {
        let Value::String(text) = key else {
            return rules.include.is_none();
        };
        let name: Arc<str> = text.as_str().into();
        let Some(fate) = rules.fate(&name) else {
            return false;
        };
        if let Some(inner) = fate.inner {
            match value {
                Value::Map(pairs) => select_map(pairs, inner),
                _ if !inner.keeps_whole() => return false,
                _ => {}
            }
        }
        if fate.name != name {
            (*fate.name).clone_into(text);
        }
        true
    });
}
