//! postgres-source and postgres-sink.
