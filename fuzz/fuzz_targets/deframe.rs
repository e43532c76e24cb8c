//! Any bytes as those of one data connection.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::wire::fuzz::fuzz_deframe(bytes));
