//! file-source and file-sink.
