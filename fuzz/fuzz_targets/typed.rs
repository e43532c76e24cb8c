//! Any bytes as an argument of the command line.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::cli::fuzz::fuzz_typed(bytes));
