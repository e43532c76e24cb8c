//! Names on a disk, and the files behind them: how a source is opened and watched for change; how a target is opened,
//! locked, marked unfinished, committed or abandoned.
//!
//! A path is resolved once, to a held directory and a name in it (`place`) or to a held file. Every later operation goes
//! by descriptor: a path that is looked at twice may lead to two places. Everything is a plain blocking system call, off
//! the hot path; control calls it from a thread that may block. Bytes are read and written by workers; here only a
//! benchmark's target is mutated.
//!
//! [`Root`] says where paths begin. Whoever confines a peer to a directory does it in `Root` and `place`.

mod commit;
mod error;
mod facts;
mod mutation;
mod place;
mod source;
mod target;
#[cfg(test)]
mod tests;

pub use commit::{Committed, Left};
pub use error::RootError;
pub use facts::{Facts, Inode};
pub use mutation::{Mutated, Mutation, Share};
pub use place::last_name;
pub use source::Source;
pub use target::{Target, TargetRequest};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// Where paths begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Root {
    /// What a user typed on his own side: from the working directory, or absolute.
    Typed,
    /// What a peer sent: from `/`, with or without a leading `/`.
    System,
}

impl Root {
    /// The directory that [`Self::relative`] paths are relative to.
    fn start(self) -> Result<OwnedFd, Errno> {
        let path = match self {
            Root::Typed => ".",
            Root::System => "/",
        };
        openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    }

    /// The path as the kernel is to be given it.
    fn relative(self, path: &[u8]) -> &[u8] {
        match self {
            Root::Typed => path,
            Root::System => match path.iter().position(|byte| *byte != b'/') {
                Some(first) => &path[first..],
                None => b".",
            },
        }
    }
}

/// Makes a descriptor that was opened with `O_NONBLOCK` (lest a FIFO blocks us) an ordinary one: a ring gives up with
/// `EAGAIN` on some file systems where the flag is set.
fn clear_nonblocking(file: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    rustix::fs::fcntl_setfl(file, flags - OFlags::NONBLOCK)
}
