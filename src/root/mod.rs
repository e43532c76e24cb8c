//! Names on a disk, and the files behind them: how a source is opened and watched for change; how a target is opened,
//! locked, marked unfinished, committed or abandoned.
//!
//! A path is resolved to a held directory and a name in it (`place`) or to a held file. Every later operation goes
//! by descriptor: a path that is looked at twice may lead to two places. Everything is a plain blocking system call, off
//! the hot path; control calls it from a thread that may block. Bytes are read and written by workers; here only a
//! benchmark's target is mutated.
//!
//! [`Root`] says where paths begin and whether they may leave. Whatever has more than one name in it, or may be a link, is
//! opened by [`Start`] and nothing else; in a `jail` none of it leads out.

mod commit;
mod error;
mod facts;
pub mod fuzz;
mod jail;
mod mutation;
mod place;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod wall;
mod withheld;

pub use commit::{Committed, Left};
pub use error::RootError;
pub use facts::{Facts, Inode};
pub use jail::Jail;
pub use mutation::{Mutated, Mutation, Probe, Share};
pub use place::last_name;
pub use source::Source;
pub use target::{Target, TargetRequest};
pub use wall::{Wall, raise_wall};
pub use withheld::{NOTHING_WITHHELD, Withheld};

use jail::Cell;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// Where paths begin.
#[derive(Clone, Debug)]
pub enum Root {
    /// What a user typed on his own side: from the working directory, or absolute.
    Typed,
    /// What a peer sent: from `/`, with or without a leading `/`.
    System,
    /// What a peer sent: from a directory, with or without a leading `/`, and never out of it.
    Jail(Arc<Jail>),
}

impl Root {
    /// The same for somebody whose paths begin at this directory and stay in it.
    pub fn narrowed(&self, directory: &[u8]) -> Result<Root, RootError> {
        place::check_path(directory)?;
        let (start, path) = self.start(directory)?;
        let held = start.open(path, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(Root::Jail(Arc::new(Jail::of(held))))
    }

    /// Where a path begins, and the path from there.
    fn start<'p>(&self, path: &'p [u8]) -> Result<(Start<'_>, &'p [u8]), RootError> {
        let held = |path: &str| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        match self {
            Root::Typed => Ok((Start::Anywhere(held(".")?), path)),
            Root::System => Ok((Start::Anywhere(held("/")?), relative(path))),
            Root::Jail(jail) => {
                let (cell, path) = jail.choose(relative(path))?;
                Ok((Start::Within(cell), relative(path)))
            }
        }
    }
}

/// A peer's path without its leading slashes; `.` if nothing else is in it.
fn relative(path: &[u8]) -> &[u8] {
    path.iter().position(|byte| *byte != b'/').map_or(b".", |first| &path[first..])
}

/// The directory that a path is walked from, and by whose rules.
#[derive(Debug)]
enum Start<'a> {
    /// The system's: links lead where they lead.
    Anywhere(OwnedFd),
    /// The jail's.
    Within(&'a Cell),
}

impl Start<'_> {
    /// Opens what the path leads to, links followed. It is never made.
    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::CLOEXEC;
        match self {
            Start::Anywhere(directory) => openat(directory, path, flags, Mode::empty()),
            Start::Within(cell) => cell.open(path, flags),
        }
    }

    /// Opens a directory so that it can be synced, or, where it may be entered but not read, at least used.
    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        match self.open(path, OFlags::DIRECTORY | OFlags::RDONLY) {
            Err(Errno::ACCESS) => self.open(path, OFlags::DIRECTORY | OFlags::PATH),
            other => other,
        }
    }

    /// About what the path leads to, without waking it. `None` if nowhere.
    fn facts(&self, path: &[u8]) -> Result<Option<Facts>, Errno> {
        match self.open(path, OFlags::PATH) {
            Err(Errno::NOENT) => Ok(None),
            found => Ok(Some(Facts::of_name(found?)?)),
        }
    }
}

/// Opens what no peer has a word in, such as a key: by a held directory, `CWD` for none. What is made is its owner's alone.
pub fn open_own(directory: impl AsFd, name: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(directory, name, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
}

/// Makes a descriptor that was opened with `O_NONBLOCK` (lest a FIFO blocks us) an ordinary one: a ring gives up with
/// `EAGAIN` on some file systems where the flag is set.
fn clear_nonblocking(file: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags - OFlags::NONBLOCK)
}
