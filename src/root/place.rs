//! Where a target is: a held directory, and a name in it.
//!
//! A directory at the end of a path takes the source's name; a symbolic link to a file is followed, so that the file
//! behind it is updated; missing parents are made. Every step is walked from where the path begins, so that in a jail a
//! link may lead up and down again, but not out. Everything later goes by the held directory.

use super::{Facts, Inode, Root, RootError, Start};
use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, SYMLINKS_MAX};
use rustix::fs::{FileType, Mode, fsync, mkdirat, readlinkat, syncfs};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// A held directory and a name in it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: Vec<u8>,
    /// What had that name when we looked: never a symbolic link, never a directory.
    pub(super) found: Option<Facts>,
}

/// What becomes of parent directories that are missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Parents {
    /// They stay missing, and there is no place.
    Leave,
    /// They are made, and are on disk before anything is made in them, if asked for.
    Make { fsync: bool },
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Resolved {
    /// `None`: a parent is missing and was left so.
    pub(super) place: Option<Place>,
    /// The source's name was appended.
    pub(super) taken: bool,
}

impl Place {
    /// Where `path` leads. If that is a directory, or the path can only mean one, `source_name` in it.
    pub(super) fn resolve(
        root: &Root,
        path: &[u8],
        source_name: &[u8],
        parents: Parents,
    ) -> Result<Resolved, RootError> {
        check_path(path)?;
        let (start, path) = root.start(path)?;
        let (above, last) = split(path);
        let mut taken = last.is_none();
        let mut name = match last {
            Some(last) => last,
            None => check_name(source_name)?,
        };
        let Some((mut above, mut directory)) = open_parents(&start, above, parents)? else {
            return Ok(Resolved { place: None, taken });
        };
        loop {
            // By the kernel's own following, so that its rules for links in shared directories hold for us too.
            let path = below(&above, name);
            match start.facts(&path)? {
                Some(facts) if facts.kind == FileType::Directory && !taken => {
                    directory = start.open_directory(&path)?;
                    above = path;
                    name = check_name(source_name)?;
                    taken = true;
                }
                Some(facts) => {
                    facts.admit_target()?;
                    let place = Self::follow(&start, above, directory, name, facts.inode)?;
                    return Ok(Resolved { place: Some(place), taken });
                }
                None => match Facts::at(&directory, name)? {
                    Some(facts) if facts.kind == FileType::Symlink => return Err(RootError::DanglingLink),
                    Some(_) => return Err(RootError::Busy), // it has appeared since
                    None => {
                        let place = Self { directory, name: name.to_vec(), found: None };
                        return Ok(Resolved { place: Some(place), taken });
                    }
                },
            }
        }
    }

    /// Goes from link to link until a name leads to the file itself, which must be the one that the kernel found.
    /// `directory` is what `above` leads to.
    pub(super) fn follow(
        start: &Start,
        mut above: Vec<u8>,
        mut directory: OwnedFd,
        name: &[u8],
        inode: Inode,
    ) -> Result<Self, RootError> {
        let mut name = name.to_vec();
        for _ in 0..=SYMLINKS_MAX {
            let facts = Facts::at(&directory, &name)?.ok_or(RootError::Busy)?; // it was there a moment ago
            if facts.kind != FileType::Symlink {
                // Otherwise somebody changes the links while we read them.
                let same = facts.inode == inode;
                return if same { Ok(Self { directory, name, found: Some(facts) }) } else { Err(RootError::Busy) };
            }
            let link = match readlinkat(&directory, &name, Vec::new()) {
                Err(Errno::INVAL) => return Err(RootError::Busy), // it was a link a moment ago
                other => other?,
            };
            let (link_above, last) = split(link.to_bytes());
            above = if link_above.starts_with(b"/") { link_above.to_vec() } else { below(&above, link_above) };
            directory = start.open_directory(&above)?;
            name = last.ok_or(RootError::Busy)?.to_vec();
        }
        Err(Errno::LOOP.into())
    }

    /// A name in this directory leads to that file.
    pub(super) fn leads_to(&self, name: &[u8], inode: Inode) -> Result<bool, Errno> {
        Ok(Facts::at(&self.directory, name)?.is_some_and(|facts| facts.inode == inode))
    }
}

/// The last name of a path, `None` if it can only mean a directory: what a target directory takes of a source as typed.
pub fn last_name(path: &[u8]) -> Option<&[u8]> {
    split(path).1
}

/// The directories of a path, and the last name unless the path can only mean a directory.
pub(super) fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    match &path[start..] {
        b"" | b"." | b".." => (path, None),
        last => (&path[..start], Some(last)),
    }
}

/// The path of what has this name, or path, in a directory.
pub(super) fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.is_empty() || directory.ends_with(b"/") { b"" } else { b"/" };
    [directory, slash, name].concat()
}

/// Says no to a path that no file can have. Nothing has been made or opened then.
pub(super) fn check_path(path: &[u8]) -> Result<(), RootError> {
    if path.is_empty() {
        return Err(RootError::EmptyPath);
    }
    if path.contains(&0) {
        return Err(RootError::BadName);
    }
    let names_fit = path.split(|byte| *byte == b'/').all(|name| name.len() <= NAME_BYTES_MAX);
    // The kernel counts the NUL that ends it.
    if path.len() < PATH_BYTES_MAX && names_fit { Ok(()) } else { Err(RootError::TooLong) }
}

/// Says no to what is not one name. It may come from a peer.
pub(super) fn check_name(name: &[u8]) -> Result<&[u8], RootError> {
    match name {
        b"" | b"." | b".." => Err(RootError::BadName),
        name if name.contains(&b'/') => Err(RootError::BadName),
        name => check_path(name).map(|()| name),
    }
}

/// The directory that `path` leads to, and a path to it. `None`: it is missing, and was left so. Nothing is made before all
/// of the path is known to be allowed.
fn open_parents(start: &Start, path: &[u8], parents: Parents) -> Result<Option<(Vec<u8>, OwnedFd)>, RootError> {
    match start.open_directory(path) {
        Err(Errno::NOENT) => {}
        opened => return Ok(Some((path.to_vec(), opened?))),
    }
    let found = Ancestor::find(start, path)?;
    match parents {
        // All that is missing may be on a way that leads back.
        Parents::Leave => Ok(found.missing.is_empty().then_some((found.path, found.directory))),
        Parents::Make { fsync } => Ok(Some((path.to_vec(), make_directories(start, path, fsync)?))),
    }
}

/// How far a path leads, and what is missing from there on.
struct Ancestor<'p> {
    path: Vec<u8>,
    directory: OwnedFd,
    /// Names below it, each in the one before.
    missing: Vec<&'p [u8]>,
}

impl<'p> Ancestor<'p> {
    fn find(start: &Start, path: &'p [u8]) -> Result<Self, RootError> {
        let top = top(path);
        let mut found = Self { path: top.to_vec(), directory: start.open_directory(top)?, missing: Vec::new() };
        for name in path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
            found.enter(start, name)?;
        }
        Ok(found)
    }

    /// Goes on by one name.
    fn enter(&mut self, start: &Start, name: &'p [u8]) -> Result<(), RootError> {
        if !self.missing.is_empty() {
            // In what is not there is nothing but what would be made.
            match name {
                b".." => _ = self.missing.pop(),
                _ => self.missing.push(name),
            }
            return Ok(());
        }
        let path = below(&self.path, name);
        match start.open_directory(&path) {
            Err(Errno::NOENT) => match Facts::at(&self.directory, name)? {
                Some(facts) if facts.kind == FileType::Symlink => return Err(RootError::DanglingLink),
                _ => self.missing.push(name),
            },
            opened => (self.path, self.directory) = (path, opened?),
        }
        Ok(())
    }
}

/// Where a path begins.
fn top(path: &[u8]) -> &'static [u8] {
    if path.starts_with(b"/") { b"/" } else { b"." }
}

/// Opens the directories of a path one by one, and makes those that are missing.
fn make_directories(start: &Start, path: &[u8], fsync: bool) -> Result<OwnedFd, RootError> {
    let mut here = start.open_directory(top(path))?;
    let mut from = 0;
    for name in path.split(|byte| *byte == b'/') {
        let upto = &path[..from + name.len()];
        from += name.len() + 1;
        if name.is_empty() {
            continue;
        }
        here = match start.open_directory(upto) {
            Err(Errno::NOENT) => make_directory(start, upto, &here, name, fsync)?,
            other => other?,
        };
    }
    Ok(here)
}

/// Makes a directory of this name in `parent`, and opens it by its path.
fn make_directory(
    start: &Start,
    path: &[u8],
    parent: &OwnedFd,
    name: &[u8],
    fsync: bool,
) -> Result<OwnedFd, RootError> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o777)) {
        // Somebody else has just made it, or it is a link to nothing.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let made = match start.open_directory(path) {
        Err(Errno::NOENT) => return Err(RootError::DanglingLink),
        other => other?,
    };
    if fsync {
        sync_directory(parent, &made)?;
    }
    Ok(made)
}

/// Brings a directory's names to disk: by itself, or, where it cannot be read or its file system has no such call for
/// directories, with the whole file system that `file` is on.
pub(super) fn sync_directory(directory: &OwnedFd, file: impl AsFd) -> Result<(), Errno> {
    match fsync(directory) {
        Err(Errno::BADF | Errno::INVAL) => syncfs(file),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_is_what_a_directory_takes() {
        #[track_caller]
        fn check(path: &[u8], want: Option<&[u8]>) {
            assert_eq!(last_name(path), want);
        }
        check(b"file", Some(b"file"));
        check(b"/a//b", Some(b"b"));
        check(b"./\xff", Some(b"\xff"));
        check(b"a/...", Some(b"..."));
        check(b"a/", None);
        check(b"a/.", None);
        check(b"..", None);
        check(b"/", None);
        check(b"", None);
    }

    #[test]
    fn a_path_is_checked_before_anything_is_made() {
        #[track_caller]
        fn check(path: &[u8], want: Result<(), RootError>) {
            assert_eq!(check_path(path), want);
        }
        check(b"", Err(RootError::EmptyPath));
        check(b"a\0b", Err(RootError::BadName));
        check(&[b'a'; 255], Ok(()));
        check(&[b'a'; 256], Err(RootError::TooLong));
        check(&b"a/".repeat(2047), Ok(())); // 4094 bytes
        check(&[b'/'; 4095], Ok(()));
        check(&[b'/'; 4096], Err(RootError::TooLong));
    }

    #[test]
    fn a_source_name_is_one_name() {
        #[track_caller]
        fn check(name: &[u8], want: Result<(), RootError>) {
            assert_eq!(check_name(name).map(|_| ()), want);
        }
        check(b"name", Ok(()));
        check(b"...", Ok(()));
        check(b"", Err(RootError::BadName));
        check(b".", Err(RootError::BadName));
        check(b"..", Err(RootError::BadName));
        check(b"a/b", Err(RootError::BadName));
        check(b"a\0", Err(RootError::BadName));
        check(&[b'a'; 256], Err(RootError::TooLong));
    }
}
