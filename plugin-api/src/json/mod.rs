//! Values and schemas as JSON, in the forms of Kafka Connect's JSON converter.
//!
//! Reading needs no tree in between: the JSON text is walked once and its values are written in the frame's encoding.

mod decimal;
mod read;
mod schema;
mod write;

pub use decimal::{decimal_from_str, decimal_to_string};
pub use read::{read_from, read_value};
pub use schema::{schema_from_json, schema_to_json, value_to_json};
pub use write::{write_string, write_value};

/// How a decimal is written; Connect's `decimal.format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DecimalFormat {
    /// The unscaled bytes in base64: exact everywhere, readable nowhere.
    #[default]
    Base64,
    /// A JSON number.
    Numeric,
}

/// JSON that is no value of its schema, or no JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(pub String);
