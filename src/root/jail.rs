//! What is served: a directory that a peer's paths never leave, or several, chosen by a path's first name.
//!
//! A path is walked from the held directory, by `openat2(RESOLVE_BENEATH)`, or by hand where the kernel or a sandbox refuses
//! that call. Either way a link may lead anywhere inside, also up and down again; one that is absolute, or leads higher
//! than the directory, is refused. What is found is held, so that whoever moves names meanwhile gains nothing.
//!
//! Only the peer's part is confined: on the way to the directory itself links lead where they lead. Hard links and mounts
//! inside are inside.

use super::{Facts, RootError};
use crate::limits::{RESOLVE_TRIES_MAX, SYMLINKS_MAX, WALK_DEPTH_MAX};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::os::fd::OwnedFd;
use std::path::Path;

/// See the module. A new one serves nothing.
#[derive(Debug, Default)]
pub struct Jail {
    cells: Vec<Cell>,
}

/// One directory that is served.
#[derive(Debug)]
pub(super) struct Cell {
    /// First name of the paths that lead here; empty if all do.
    name: Vec<u8>,
    directory: OwnedFd,
    way: Way,
}

/// How a path is walked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// By `openat2`.
    Kernel,
    /// One name at a time.
    ByHand,
}

impl Jail {
    /// Serves also this directory of this host, to paths that begin with this name; an empty name is for all paths.
    pub fn add(&mut self, name: &[u8], directory: &Path) -> Result<(), RootError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.cells.push(Cell::new(name, openat(CWD, directory, flags, Mode::empty())?));
        Ok(())
    }

    /// Serves this directory.
    pub(super) fn of(directory: OwnedFd) -> Self {
        Self { cells: vec![Cell::new(b"", directory)] }
    }

    /// The kernel refuses `openat2`, and paths are walked by hand.
    pub fn walks_by_hand(&self) -> bool {
        self.cells.iter().any(|cell| cell.way == Way::ByHand)
    }

    /// Where a path begins, which has no leading slash, and what is left of it.
    pub(super) fn choose<'p>(&self, path: &'p [u8]) -> Result<(&Cell, &'p [u8]), RootError> {
        let end = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
        let (first, rest) = path.split_at(end);
        let chosen = self.cells.iter().find(|cell| cell.name.is_empty() || cell.name == first);
        let cell = chosen.ok_or(RootError::NotServed)?;
        Ok((cell, if cell.name.is_empty() { path } else { rest }))
    }

    /// All that is served.
    pub(super) fn directories(&self) -> impl Iterator<Item = &OwnedFd> {
        self.cells.iter().map(|cell| &cell.directory)
    }

    #[cfg(test)]
    pub(super) fn by(mut self, way: Way) -> Self {
        self.cells.iter_mut().for_each(|cell| cell.way = way);
        self
    }
}

impl Cell {
    fn new(name: &[u8], directory: OwnedFd) -> Self {
        // ENOSYS of an old kernel, EPERM or whatever a sandbox' filter says.
        let refused = beneath(&directory, b".", OFlags::PATH | OFlags::CLOEXEC).is_err();
        let way = if refused { Way::ByHand } else { Way::Kernel };
        Self { name: name.to_vec(), directory, way }
    }

    /// Opens what the path leads to, if that is inside; `EXDEV` if it is not.
    pub(super) fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        for attempt in 0..RESOLVE_TRIES_MAX {
            let opened = match self.way {
                // Where it goes up, the kernel gives in to every rename on the system; by hand only those on the way count.
                Way::Kernel if attempt < RESOLVE_TRIES_MAX / 2 => beneath(&self.directory, path, flags),
                Way::Kernel | Way::ByHand => walk(&self.directory, path, flags),
            };
            match opened {
                Err(Errno::AGAIN) => {} // a name was moved meanwhile
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }
}

fn beneath(directory: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    openat2(directory, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

/// The same by hand. Every step opens one name without following it, and the directories passed through stay held, so that
/// `..` leads back the way we came and not to where somebody has moved a directory.
fn walk(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut passed: Vec<OwnedFd> = Vec::new();
    let mut ahead = names_backwards(path)?;
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        let here = passed.last().unwrap_or(root);
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                passed.pop().ok_or(Errno::XDEV)?;
                continue;
            }
            _ => {}
        }
        let found = openat(here, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let facts = Facts::of_name(&found)?;
        match facts.kind {
            FileType::Symlink => {
                links += 1;
                if links > SYMLINKS_MAX {
                    return Err(Errno::LOOP);
                }
                may_follow(here, &facts)?;
                ahead.extend(names_backwards(readlinkat(&found, "", Vec::new())?.to_bytes())?);
            }
            FileType::Directory if passed.len() >= WALK_DEPTH_MAX => return Err(Errno::NAMETOOLONG),
            FileType::Directory => passed.push(found),
            // A slash behind a file means a directory.
            _ if !ahead.is_empty() || flags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
            _ if flags.contains(OFlags::PATH) => return Ok(found),
            _ => {
                return match openat(here, &name, flags | OFlags::NOFOLLOW, Mode::empty()) {
                    Err(Errno::LOOP) => Err(Errno::AGAIN), // it was no link a moment ago
                    other => other,
                };
            }
        }
    }
    openat(passed.last().unwrap_or(root), ".", flags, Mode::empty())
}

/// What lies between the slashes of a relative path, the last first.
pub(super) fn names_backwards(path: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
    if path.starts_with(b"/") {
        return Err(Errno::XDEV);
    }
    Ok(path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect())
}

/// The kernel's rule for links in directories that everybody writes to (`fs.protected_symlinks`); here it holds always.
fn may_follow(directory: &OwnedFd, link: &Facts) -> Result<(), Errno> {
    const SHARED: u32 = 0o1002; // sticky, and writable for everybody
    let directory = Facts::of_name(directory)?;
    let trusted = link.owner == geteuid().as_raw() || link.owner == directory.owner;
    if directory.mode & SHARED == SHARED && !trusted { Err(Errno::ACCESS) } else { Ok(()) }
}
