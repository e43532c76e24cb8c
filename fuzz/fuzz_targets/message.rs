//! Any bytes as those of one control connection.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::wire::fuzz::fuzz_message(bytes));
