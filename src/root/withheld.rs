//! Files that are nobody's source or target, whatever leads to them: a server's keys, its lists of keys, its log.
//!
//! They are known by what they are, not by a name: so no link, mount or other name of theirs helps. Each is looked at when
//! the server starts and whenever it is asked for one, as it may have been exchanged since.

use super::place::Place;
use super::{Facts, Inode};
use rustix::fs::CWD;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Clone, Debug)]
pub struct Withheld {
    paths: Vec<PathBuf>,
    /// What they were at the start.
    inodes: Vec<Inode>,
    directories: Vec<Inode>,
}

/// Who types both ends himself may name what he likes.
pub static NOTHING_WITHHELD: Withheld = Withheld { paths: Vec::new(), inodes: Vec::new(), directories: Vec::new() };

impl Withheld {
    /// Those that have these names now, and whatever will have them.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let inodes = paths.iter().filter_map(|path| inode(path)).collect();
        let directories = paths.iter().filter_map(|path| inode(directory_of(path))).collect();
        Self { paths, inodes, directories }
    }

    /// This file is one of them.
    pub fn has(&self, file: Inode) -> bool {
        self.inodes.contains(&file) || self.paths.iter().any(|path| inode(path) == Some(file))
    }

    /// What would be made here would be one of them.
    pub(super) fn has_place(&self, place: &Place) -> bool {
        let Ok(directory) = Facts::of_name(&place.directory).map(|facts| facts.inode) else { return true };
        // Some file systems see no difference between upper and lower case.
        let alike = |name: &OsStr| name.as_bytes().eq_ignore_ascii_case(&place.name);
        let is_named = |path: &&PathBuf| path.file_name().is_some_and(alike);
        let mut named = self.paths.iter().filter(is_named).peekable();
        named.peek().is_some()
            && (self.directories.contains(&directory) || named.any(|path| inode(directory_of(path)) == Some(directory)))
    }
}

/// Links followed. `None`: nothing has that name, or this user cannot see it.
fn inode(path: &Path) -> Option<Inode> {
    Facts::behind(CWD, path.as_os_str().as_bytes()).ok().map(|facts| facts.inode)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
