//! What a peer's path and name are taken for, before anything is looked for: for the fuzzer (`fuzz/`), for the replay of its
//! corpus and for tests. No file is opened for them; that the walk stays inside is for the jail's own tests to show.
//!
//! What has to hold always: no panic; a path is refused that no file can have; cut up and put together it has the same names
//! in the same order; no name has a slash in it; a path without its leading slashes begins with none.

use super::jail::names_backwards;
use super::place::{below, check_name, check_path, split};
use super::{Jail, RootError, relative};
use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX};
use std::path::Path;
use std::sync::LazyLock;

/// Serves the same directory by two names.
static JAIL: LazyLock<Jail> = LazyLock::new(|| {
    let mut jail = Jail::default();
    for name in [b"a".as_slice(), b"..."] {
        jail.add(name, Path::new("/")).expect("the root directory is there");
    }
    jail
});

/// Any bytes as a source's name, as long as the first of them says, and a path behind it.
pub fn fuzz_paths(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let (name, path) = rest.split_at(usize::from(*length).min(rest.len()));
    check_one_name(name);
    check_one_name(path);
    let known = path_error(path);
    assert_eq!(check_path(path).err(), known);
    check_relative(path);
    check_split(path, known.is_none());
    check_jail(relative(path));
}

/// Why no file can have this path.
fn path_error(path: &[u8]) -> Option<RootError> {
    let long = path.len() >= PATH_BYTES_MAX || names(path).any(|name| name.len() > NAME_BYTES_MAX);
    match () {
        () if path.is_empty() => Some(RootError::EmptyPath),
        () if path.contains(&0) => Some(RootError::BadName),
        () => long.then_some(RootError::TooLong),
    }
}

/// What a path is walked by: `.` is where one is already.
fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

fn check_one_name(name: &[u8]) {
    let one = names(name).eq([name]) && name != b"..";
    match check_name(name) {
        Ok(checked) => {
            assert_eq!(checked, name);
            assert!(one && !name.contains(&b'/') && !name.contains(&0) && name.len() <= NAME_BYTES_MAX);
        }
        Err(error) => assert!(!one || path_error(name) == Some(error)),
    }
}

fn check_relative(path: &[u8]) {
    let inside = relative(path);
    assert!(!inside.is_empty());
    assert!(!inside.starts_with(b"/"));
    assert!(names(inside).eq(names(path)));
    assert_eq!(names_backwards(path).is_err(), path.starts_with(b"/"));
    let walked: Vec<_> = names_backwards(inside).expect("relative").into_iter().rev().collect();
    assert_eq!(walked.join(&b'/'), inside);
}

fn check_split(path: &[u8], possible: bool) {
    let (above, last) = split(path);
    assert_eq!([above, last.unwrap_or_default()].concat(), path);
    assert!(last.is_none() || above.is_empty() || above.ends_with(b"/"));
    let Some(last) = last else { return };
    assert_eq!(check_name(last).is_ok(), possible || path_error(last).is_none());
    let together = below(above, last);
    assert!(names(&together).eq(names(path)));
    assert_eq!(together.starts_with(b"/"), path.starts_with(b"/"));
}

fn check_jail(path: &[u8]) {
    let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
    match JAIL.choose(path) {
        Err(error) => {
            assert_eq!(error, RootError::NotServed);
            assert!(![b"a".as_slice(), b"..."].contains(&first));
        }
        Ok((_, rest)) => {
            assert!([b"a".as_slice(), b"..."].contains(&first));
            assert!(names(path).eq([first].into_iter().chain(names(relative(rest)))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_path_is_refused_or_keeps_its_names(
            path in "[a./]{0,12}", name in "[a./]{0,4}", noise in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            fuzz_paths(&noise);
            let length = u8::try_from(name.len()).unwrap();
            fuzz_paths(&[&[length], name.as_bytes(), path.as_bytes()].concat());
        }
    }
}
