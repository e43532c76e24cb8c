//! Any bytes as what happens to sessions that wait for their data connections.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::control::fuzz::fuzz_join(bytes));
