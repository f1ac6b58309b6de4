//! What can be configured for `file-sink`, and what was.

use std::path::PathBuf;

use tidewater_plugin_api::config_def::{ConfigType, Validator};
use tidewater_plugin_api::json::DecimalFormat;
use tidewater_plugin_api::{Config, ConfigDef, Importance};

/// What a line holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The record's value.
    Value,
    /// An object of the record's topic, partition, offset, timestamp, key, value and headers.
    Record,
}

/// The checked configuration of a `file-sink`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file to append to.
    pub file: PathBuf,
    /// What a line holds.
    pub format: Format,
    /// How decimals are written.
    pub decimals: DecimalFormat,
    /// Whether a record without value makes a line.
    pub tombstones: bool,
    /// Bytes that are collected before they are handed to the operating system.
    pub write_bytes: usize,
}

/// The keys of `file-sink`.
pub fn config_def() -> ConfigDef {
    ConfigDef::new()
        .required(
            "file",
            ConfigType::String,
            Importance::High,
            "The file to append to. It is made if it does not exist; its folder must. Beside it, in <file>.offsets, stands how far it is durable.",
        )
        .validate(Validator::NonEmpty)
        .optional(
            "format",
            ConfigType::String,
            "value",
            Importance::Medium,
            "What a line holds, as JSON: \"value\", or \"record\" for an object of topic, partition, offset, timestamp, key, value and, where \
             there are any, headers.",
        )
        .one_of(&["value", "record"])
        .optional(
            "write.tombstones",
            ConfigType::Boolean,
            "true",
            Importance::Low,
            "Whether a record without value makes a line (\"null\" with format=value); where not, it is passed over and counted in the metric \
             tombstones_skipped.",
        )
        .optional(
            "decimal.format",
            ConfigType::String,
            "numeric",
            Importance::Low,
            "How decimals are written: \"numeric\" as JSON numbers, \"base64\" as the bytes of Connect's Decimal.",
        )
        .one_of(&["numeric", "base64"])
        .optional(
            "write.bytes",
            ConfigType::Int,
            "262144",
            Importance::Low,
            "How many bytes of a batch are handed to the operating system at once.",
        )
        .validate(Validator::Range {
            min: Some(1),
            max: Some(64 << 20),
        })
}

impl Settings {
    /// Reads `config`, which has passed [`config_def`].
    pub fn read(config: &Config) -> Self {
        let is = |key: &str, value: &str| config.str(key).eq_ignore_ascii_case(value);
        Self {
            file: PathBuf::from(config.str("file")),
            format: if is("format", "record") {
                Format::Record
            } else {
                Format::Value
            },
            decimals: if is("decimal.format", "base64") {
                DecimalFormat::Base64
            } else {
                DecimalFormat::Numeric
            },
            tombstones: config.bool("write.tombstones"),
            write_bytes: config.usize("write.bytes"),
        }
    }
}
