//! Arbitrary bytes as stored batches.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidewater_broker::fuzzing::batches(data));
