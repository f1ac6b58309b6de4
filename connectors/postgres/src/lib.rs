//! postgres-source and postgres-sink.

#[cfg(feature = "sink")]
pub mod sink;
#[cfg(feature = "source")]
pub mod source;
