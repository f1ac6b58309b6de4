//! Files as source and sink.
//!
//! - [`source`]: `file-source` follows a growing file line by line, through rotation, truncation and replacement;
//! - [`sink`]: `file-sink` appends JSON lines, each exactly once;
//! - [`fingerprint`]: how a file is recognised when its name no longer tells;
//! - [`rotation`], [`rotated_name`]: where a file has gone, and which files come after it;
//! - [`mark`]: a place in a file, to be found again;
//! - [`regular_file`]: opening files, and only files;
//! - [`error`]: what can go wrong, and what to do about it.

pub mod error;
pub mod fingerprint;
pub mod mark;
pub mod regular_file;
pub mod rotated_name;
pub mod rotation;
pub mod sink;
pub mod source;

pub use sink::FileSink;
pub use source::FileSource;

tidewater_plugin_api::export_plugin! { name: "tidewater-file", sources: [FileSource], sinks: [FileSink] }
