//! Any bytes as the first ones of a connection.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::wire::fuzz::fuzz_preamble(bytes));
