//! A data directory with arbitrary changes, opened.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidewater_broker::fuzzing::recovery(data));
