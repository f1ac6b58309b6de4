//! ReplaceField: fields go, stay or change their names.

use std::sync::Arc;

use tidewater_plugin_api::config_def::ConfigType;
use tidewater_plugin_api::{ConfigDef, Importance};

use super::{Transform, Verdict};
use crate::edit::{require_map, require_struct};
use crate::fault::Fault;
use crate::path::PathTree;
use crate::plan_cache::PlanCache;
use crate::record::{Record, Side};
use crate::selection::{Rules, Selection, select_map};
use crate::settings::{Settings, with_defaults, with_paths};

const FIX: &str = "ReplaceField works on the fields of a struct or map; remove the transform, or put it elsewhere in the chain";

pub(crate) fn config() -> ConfigDef {
    with_defaults(with_paths(
        ConfigDef::new()
            .optional(
                "exclude",
                ConfigType::List,
                "",
                Importance::Medium,
                "Fields that go; this is stronger than include.",
            )
            .alias("blacklist")
            .optional(
                "include",
                ConfigType::List,
                "",
                Importance::Medium,
                "Fields that stay, and no others; empty keeps all that exclude does not name.",
            )
            .alias("whitelist")
            .optional(
                "renames",
                ConfigType::List,
                "",
                Importance::Medium,
                "New names, old:new,…; a new name is a name and no path.",
            ),
    ))
}

pub(crate) struct ReplaceField {
    side: Side,
    replaces_null: bool,
    include: Option<PathTree>,
    exclude: Option<PathTree>,
    renames: Option<PathTree>,
    names: Vec<Arc<str>>,
    plans: PlanCache<Selection>,
}

impl ReplaceField {
    pub(crate) fn build(settings: &mut Settings, side: Side) -> Option<Box<dyn Transform>> {
        let mut tree = |key: &str| {
            let paths = settings.paths(key);
            let tree = settings.tree(key, &paths);
            (!tree.is_empty()).then_some(tree)
        };
        let (include, exclude) = (tree("include"), tree("exclude"));
        let (mut paths, mut names) = (Vec::new(), Vec::new());
        for rename in settings.list("renames") {
            let Some((old, new)) = rename
                .rsplit_once(':')
                .filter(|(old, new)| !old.trim().is_empty() && !new.trim().is_empty())
            else {
                settings.problem("renames", format!("{rename:?} is no rename; write old:new"));
                continue;
            };
            if let Some(path) = settings.parse_path("renames", old.trim()) {
                paths.push(path);
                names.push(new.trim().into());
            }
        }
        let renames = settings.tree("renames", &paths);
        Some(Box::new(Self {
            side,
            replaces_null: settings.replaces_null(),
            include,
            exclude,
            renames: (!renames.is_empty()).then_some(renames),
            names,
            plans: PlanCache::default(),
        }))
    }
}

impl Transform for ReplaceField {
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault> {
        let side = self.side;
        let datum = record.side_mut(side);
        if datum.is_null() {
            return Ok(Verdict::Keep);
        }
        let rules = Rules {
            include: self.include.as_ref(),
            exclude: self.exclude.as_ref(),
            renames: self.renames.as_ref(),
            names: &self.names,
        };
        let Some(schema) = datum.schema().cloned() else {
            let value = datum.value_mut().map_err(Fault::decode(side))?;
            select_map(require_map(side, value, FIX)?, rules);
            return Ok(Verdict::Keep);
        };
        require_struct(side, &schema, FIX)?;
        let replaces_null = self.replaces_null;
        let plan = self
            .plans
            .get::<Fault>(&schema, || Ok(Selection::new(&schema, rules, replaces_null)))?;
        let mut value = datum.take().map_err(Fault::decode(side))?;
        plan.apply(side, &mut value)?;
        datum.set(Some(plan.schema.clone()), value);
        Ok(Verdict::Keep)
    }
}
