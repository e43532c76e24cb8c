//! Bodies that shake the readers of key files and lists with any bytes: for the fuzzer (`fuzz/`), for the replay of its
//! corpus and for tests.
//!
//! What has to hold always: no panic; what is understood, written out and read again is the same.

use super::file;
use super::lists::{Authorized, KnownServers};

/// Any bytes as a key file.
pub fn fuzz_key_file(bytes: &[u8]) {
    let Ok(secrets) = file::parse(bytes) else { return };
    let written: String = secrets.iter().map(|secret| format!("{}\n", *secret.text())).collect();
    let again = file::parse(written.as_bytes()).expect("what was understood is understood again");
    let public = |secrets: &[super::Secret]| secrets.iter().map(super::Secret::public).collect::<Vec<_>>();
    assert_eq!(public(&again), public(&secrets));
}

/// Any bytes as `authorized_keys`.
pub fn fuzz_authorized_keys(bytes: &[u8]) {
    let Ok(list) = Authorized::parse(bytes) else { return };
    assert_eq!(Authorized::parse(list.to_string().as_bytes()), Ok(list));
}

/// Any bytes as `known_servers`.
pub fn fuzz_known_servers(bytes: &[u8]) {
    let Ok(list) = KnownServers::parse(bytes) else { return };
    assert_eq!(KnownServers::parse(list.to_string().as_bytes()), Ok(list));
}
