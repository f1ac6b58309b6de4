//! The transforms, one a file.

pub(crate) mod by_logical_table_router;
pub(crate) mod cast;
pub(crate) mod content_based_router;
pub(crate) mod drop_headers;
pub(crate) mod envelope;
pub(crate) mod expression_filter;
pub(crate) mod extract_field;
pub(crate) mod extract_new_record_state;
pub(crate) mod filter;
pub(crate) mod flatten;
pub(crate) mod header_from;
pub(crate) mod hoist_field;
pub(crate) mod insert_field;
pub(crate) mod insert_header;
pub(crate) mod mask_field;
pub(crate) mod regex_router;
pub(crate) mod replace_field;
pub(crate) mod set_schema_metadata;
pub(crate) mod timestamp_converter;
pub(crate) mod timestamp_router;
pub(crate) mod value_to_key;

use crate::fault::Fault;
use crate::record::Record;

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, changed or not.
    Keep,
    /// It ends here, on purpose.
    Drop,
}

/// A transform, configured. It works on the record in place; after an error the record is half done and worth nothing.
/// What it keeps between records is only what it worked out once, so each record's result depends on that record alone.
pub trait Transform: Send {
    /// Changes `record`, or says that it ends here.
    fn apply(&mut self, record: &mut Record) -> Result<Verdict, Fault>;
}
