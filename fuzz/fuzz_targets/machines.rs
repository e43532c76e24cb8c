//! Any bytes as the course of one data connection between two machines.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::session::fuzz::fuzz_machines(bytes));
