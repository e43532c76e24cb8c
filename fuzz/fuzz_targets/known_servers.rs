//! Any bytes as a list of known servers.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::control::identity::fuzz_known_servers(bytes));
