//! Any bytes as a list of keys that may come in.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::control::identity::fuzz_authorized_keys(bytes));
