//! Any bytes as the course of one direction of a sealed connection.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::wire::fuzz::fuzz_sealed(bytes));
