//! Any bytes as what a client or a server says of a session.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pdcp::session::fuzz::fuzz_handshake(bytes));
