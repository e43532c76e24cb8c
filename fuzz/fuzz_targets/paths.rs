//! Any bytes as a peer's path, and the name of its source.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::root::fuzz::fuzz_paths(bytes));
