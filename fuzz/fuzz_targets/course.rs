//! Any bytes as the course of one session.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::session::fuzz::fuzz_course(bytes));
