//! Filter: every record it is applied to goes; a predicate says which these are.

use tidewater_plugin_api::ConfigDef;

use super::{Transform, Verdict};
use crate::fault::Fault;
use crate::record::Record;

pub(crate) fn config() -> ConfigDef {
    ConfigDef::new()
}

pub(crate) struct Filter;

impl Transform for Filter {
    fn apply(&mut self, _: &mut Record) -> Result<Verdict, Fault> {
        Ok(Verdict::Drop)
    }
}
