//! A source: opened once, looked at before it is read and after.

use super::place::check_path;
use super::{Facts, Root, RootError, Withheld, clear_nonblocking};
use rustix::fs::OFlags;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A file or block device whose bytes are wanted.
#[derive(Debug)]
pub struct Source {
    file: Arc<OwnedFd>,
    facts: Facts,
}

impl Source {
    /// Opens it, symbolic links followed, unless it is one of those.
    pub fn open(root: Root, path: &[u8], withheld: &Withheld) -> Result<Self, RootError> {
        check_path(path)?;
        let (start, path) = root.start(path)?;
        // Looked at before it is opened: opening alone rewinds a tape, and wakes whoever waits at the other end of a FIFO.
        start.facts(path)?.ok_or(RootError::Missing)?.admit_source()?;
        let file = start.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let facts = Facts::of(&file)?;
        facts.admit_source()?;
        if facts.device_node && facts.bytes == 0 {
            return Err(RootError::NoMedium); // taken for an empty file, it would empty the target
        }
        if withheld.has(facts.inode) {
            return Err(RootError::Withheld);
        }
        facts.admit_kept(&file)?;
        clear_nonblocking(&file)?;
        Ok(Self { file: Arc::new(file), facts })
    }

    /// What was known about it when it was opened.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The descriptor that was looked at. For workers it is opened again.
    pub fn file(&self) -> &Arc<OwnedFd> {
        &self.file
    }

    /// Nobody has changed it since it was opened, as far as the kernel knows. Of a block device only the length is known:
    /// writes to it leave its times alone.
    pub fn unchanged(&self) -> Result<bool, RootError> {
        let (before, now) = (&self.facts, Facts::of(&self.file)?);
        let untouched = before.device_node || (before.mtime == now.mtime && before.ctime == now.ctime);
        Ok(untouched && before.bytes == now.bytes && before.inode == now.inode)
    }
}
