//! What was typed for a file or a directory to serve, and how it is shown: for the fuzzer (`fuzz/`), for the replay of its
//! corpus and for tests.
//!
//! What has to hold always: no panic; what is understood is made of the very bytes typed, and written out in the plain form
//! it is understood as the same; what is shown to a person cannot steer a terminal.

use super::place::place;
use super::{root, served};
use crate::control::access::Served;
use crate::control::{Place, Remote};
use crate::failure::{Failure, Kind, printable, steers};
use crate::limits::PATH_BYTES_MAX;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Any bytes as an argument: one end of a copy, or, line by line, directories to serve.
pub fn fuzz_typed(bytes: &[u8]) {
    check_shown(bytes);
    check_place(bytes);
    check_roots(bytes);
}

fn check_shown(bytes: &[u8]) {
    let shown = printable(bytes);
    assert!(!shown.chars().any(steers));
    assert_eq!(printable(shown.as_bytes()), shown);
}

fn check_place(typed: &[u8]) {
    match place(OsStr::from_bytes(typed)) {
        Ok(Place::Local(path)) => {
            assert_eq!(path.as_os_str().as_bytes(), typed);
            let first = typed.split(|byte| *byte == b'/').next().unwrap_or_default();
            assert!(!first.contains(&b':') && !typed.is_empty() && typed != b"-");
        }
        Ok(Place::Remote(remote)) => check_remote(typed, &remote),
        Err(failure) => {
            assert_eq!((failure.kind, failure.subject.as_slice()), (Kind::Usage, typed));
            let shown = failure.to_string();
            assert!(!shown.chars().any(steers));
        }
    }
}

fn check_remote(typed: &[u8], remote: &Remote) {
    let Remote { host, port, path } = remote;
    assert!(!host.is_empty() && !host.starts_with('-') && !host.contains(char::is_whitespace));
    assert!(*port > 0);
    assert!((1..=PATH_BYTES_MAX).contains(&path.len()) && typed.ends_with(path), "nothing is decoded");
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let plain = [format!("{host}:{port}:").as_bytes(), path].concat();
    assert_eq!(place(OsStr::from_bytes(&plain)), Ok(Place::Remote(remote.clone())));
}

fn check_roots(bytes: &[u8]) {
    let mut roots = Vec::new();
    for typed in bytes.split(|byte| *byte == b'\n') {
        let Ok((name, directory)) = root(OsString::from_vec(typed.to_vec())) else { return };
        let directory = directory.into_os_string().into_vec();
        assert!(!directory.is_empty());
        match &name {
            None => assert_eq!(directory, typed),
            Some(name) => {
                assert_eq!([name, &b"="[..], &directory].concat(), typed);
                assert!(!matches!(name.as_slice(), b"" | b"." | b"..") && !name.contains(&b'/'));
            }
        }
        roots.push((name, PathBuf::from(OsString::from_vec(directory))));
    }
    match served(&roots) {
        Ok(Served::Everything) => assert!(roots.is_empty()),
        Ok(Served::Directory(directory)) => assert_eq!(roots, [(None, directory)]),
        Ok(Served::Named(named)) => {
            let again: Vec<_> = named.iter().cloned().map(|(name, directory)| (Some(name), directory)).collect();
            assert_eq!(again, roots);
            let names: std::collections::HashSet<_> = named.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), named.len(), "a name serves one directory");
        }
        Err(text) => check_shown(Failure::new(Kind::Usage, text).to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_typed_is_refused_or_meant_so(
            typed in r"[a\[\]:./=9\n%-]{0,16}", noise in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            fuzz_typed(&noise);
            fuzz_typed(typed.as_bytes());
        }
    }
}
