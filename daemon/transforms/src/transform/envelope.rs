//! Change events in Debezium's envelope: what one is, and where its parts are.

use tidewater_plugin_api::Schema;

/// The row before the change.
pub(super) const BEFORE: &str = "before";
/// The row after the change.
pub(super) const AFTER: &str = "after";
/// What the change was: `c`, `u`, `d`, `r` (read by a snapshot), `t` (truncate).
pub(super) const OPERATION: &str = "op";
/// Where the change comes from.
pub(super) const SOURCE: &str = "source";
/// The transaction of the change.
pub(super) const TRANSACTION: &str = "transaction";

/// Whether values of `schema` are change events: their schema's name says so.
pub(super) fn is_envelope(schema: &Schema) -> bool {
    schema
        .name
        .as_deref()
        .is_some_and(|name| name.ends_with(".Envelope"))
}
