//! One open file of a worker: its own description, opened for it by control, and the plain calls on it.
//!
//! What always holds: the description names the inode that control holds, and control's own description, with the lock on
//! it, lives at least as long. Whether a path still leads there, and what is kept when all is done, is control's matter.

use super::errno;
use crate::completion::{Access, Errno, Mode};
use crate::limits::{SLOW_WRITE_MS, SLOW_WRITE_REST};
use rustix::fs::{FileType, Mode as Permissions, OFlags, SeekFrom, fstat, open, seek};
use rustix::io::{Errno as Error, ReadWriteFlags, pread, preadv2, pwrite, retry_on_intr};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A plain write that took so long had to wait for the disk.
const SLOW_WRITE: Duration = Duration::from_millis(SLOW_WRITE_MS);

/// See the module.
#[derive(Debug)]
pub struct OpenFile {
    pub(super) descriptor: OwnedFd,
    pub(super) held: Arc<OwnedFd>,
    pub(super) mode: Mode,
    /// Pushed and not yet popped.
    pub(super) in_flight: u32,
    /// A write of the ring's has come back, so the disk does not hang.
    pub(super) answers: bool,
    /// Until when a plain write through the page cache is not tried again.
    pub(super) slow_until: Option<Instant>,
    is_device: bool,
}

impl OpenFile {
    /// For one worker: a description of its own, since the kernel's read-ahead is kept there. To be called on a thread that may
    /// block: a disk of another host, or a file system in user space, may not answer.
    ///
    /// # Errors
    /// What the kernel says; `ESTALE` if it opened another file.
    pub fn open(held: &Arc<OwnedFd>, access: Access, mode: Mode) -> Result<Self, Errno> {
        let descriptor = reopen(held, access, mode == Mode::Direct).map_err(errno)?;
        let is_device = file_type(&descriptor).map_err(errno)? == FileType::BlockDevice;
        Ok(Self { descriptor, held: Arc::clone(held), mode, in_flight: 0, answers: false, slow_until: None, is_device })
    }

    /// A plain read.
    pub(super) fn read(&self, into: &mut [u8], offset: u64) -> Result<u32, Errno> {
        let moved = retry_on_intr(|| pread(&self.descriptor, &mut *into, offset)).map_err(errno)?;
        Ok(u32::try_from(moved).expect("at most a buffer"))
    }

    /// A plain read of what need not be waited for. `false`: it would have to be, or the file ends before.
    pub(super) fn peek(&self, into: &mut [u8], offset: u64) -> Result<bool, Errno> {
        let flags = match self.mode {
            Mode::Memory => ReadWriteFlags::empty(), // not every file system in memory knows the flag
            Mode::Buffered => ReadWriteFlags::NOWAIT,
            Mode::Direct => return Ok(false),
        };
        let bytes = into.len();
        match retry_on_intr(|| preadv2(&self.descriptor, &mut [IoSliceMut::new(into)], offset, flags)) {
            Ok(moved) => Ok(moved == bytes),
            Err(Error::AGAIN | Error::OPNOTSUPP) => Ok(false),
            Err(error) => Err(errno(error)),
        }
    }

    /// A plain write, where that is the fastest way: not past the page cache, nor before the disk is known to answer, nor where the
    /// last one had to wait for it, as then all of the worker waited with it. It waits so for one [`SLOW_WRITE_REST`]th of the
    /// time at most.
    pub(super) fn write_at_once(&mut self, bytes: &[u8], offset: u64) -> Option<Result<u32, Errno>> {
        match self.mode {
            Mode::Direct => return None,
            Mode::Memory => return Some(self.write(bytes, offset)),
            Mode::Buffered => {}
        }
        let began = Instant::now();
        if !self.answers || self.slow_until.is_some_and(|until| began < until) {
            return None;
        }
        let written = self.write(bytes, offset);
        let took = began.elapsed();
        self.slow_until = (took >= SLOW_WRITE).then(|| began + took * SLOW_WRITE_REST);
        Some(written)
    }

    /// A plain write.
    fn write(&self, bytes: &[u8], offset: u64) -> Result<u32, Errno> {
        let moved = retry_on_intr(|| pwrite(&self.descriptor, bytes, offset)).map_err(errno)?;
        Ok(u32::try_from(moved).expect("at most a buffer"))
    }

    /// The first hole from `offset` on. What lies behind the file's end is no hole of the file.
    pub(super) fn next_hole(&self, offset: u64) -> Result<Option<(u64, u64)>, Errno> {
        if self.is_device {
            return Ok(None);
        }
        let hole = match seek(&self.descriptor, SeekFrom::Hole(offset)) {
            Ok(hole) => hole,
            // Behind the end, or a file system that cannot say.
            Err(Error::NXIO | Error::INVAL | Error::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(errno(error)),
        };
        let hole_end = match seek(&self.descriptor, SeekFrom::Data(hole)) {
            Ok(data) => data,
            Err(Error::NXIO) => self.bytes()?, // no data up to the end, where SEEK_HOLE finds one in every file
            Err(error) => return Err(errno(error)),
        };
        Ok((hole < hole_end).then_some((hole, hole_end)))
    }

    fn bytes(&self) -> Result<u64, Errno> {
        let stat = fstat(&self.descriptor).map_err(errno)?;
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    }
}

/// What kind of file this is.
pub(super) fn file_type(file: &OwnedFd) -> Result<FileType, Error> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode))
}

/// Another description of the same inode, for certain. Where /proc cannot be used, the same description, unless it has to
/// be a direct one.
pub(super) fn reopen(held: &OwnedFd, access: Access, direct: bool) -> Result<OwnedFd, Error> {
    let mut flags = OFlags::CLOEXEC; // no NOFOLLOW and no EXCL: the first refuses /proc's links, the second a held device
    flags |= match access {
        Access::Read => OFlags::RDONLY,
        Access::Update => OFlags::RDWR,
    };
    flags.set(OFlags::DIRECT, direct);
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let opened = match retry_on_intr(|| open(&path, flags, Permissions::empty())) {
        Ok(opened) => opened,
        Err(Error::NOENT | Error::NOTDIR | Error::ACCESS | Error::PERM) if !direct => {
            return rustix::io::fcntl_dupfd_cloexec(held, 0);
        }
        Err(error) => return Err(error),
    };
    let (ours, theirs) = (fstat(&opened)?, fstat(held)?);
    let is_same = (ours.st_dev, ours.st_ino, ours.st_rdev) == (theirs.st_dev, theirs.st_ino, theirs.st_rdev);
    if is_same { Ok(opened) } else { Err(Error::STALE) }
}

#[cfg(test)]
mod tests {
    use super::super::calls::cached_pages;
    use super::*;
    use rustix::fs::{Advice, fadvise};
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    #[test]
    fn what_has_to_be_waited_for_is_not_peeked_at() {
        #[track_caller]
        fn check(file: &OpenFile, offset: u64, want: Option<&[u8; 3]>) {
            let mut into = [0; 3];
            assert_eq!(file.peek(&mut into, offset), Ok(want.is_some()));
            assert!(want.is_none_or(|want| into == *want));
        }
        let executable = std::env::current_exe().unwrap();
        let disk = executable.parent().unwrap();
        for (directory, mode) in [(Path::new("/dev/shm"), Mode::Memory), (disk, Mode::Buffered)] {
            let file = tempfile::tempfile_in(directory).unwrap();
            file.write_all_at(&[7; 8192], 0).unwrap();
            file.write_all_at(b"abcdef", 4096).unwrap();
            file.sync_all().unwrap();
            let held = Arc::new(OwnedFd::from(file.try_clone().unwrap()));
            let opened = OpenFile::open(&held, Access::Update, mode).unwrap();
            check(&opened, 4096, Some(b"abc"));
            check(&opened, 4098, Some(b"cde"));
            check(&opened, 8190, None); // two bytes are no three
            check(&opened, 8192, None);
            if mode == Mode::Memory {
                continue;
            }
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
            if cached_pages(&held) == Some(0) {
                check(&opened, 4096, None);
            } else {
                eprintln!("SKIPPED: what is not cached, as everything is");
            }
            if let Ok(direct) = OpenFile::open(&held, Access::Update, Mode::Direct) {
                check(&direct, 4096, None);
            }
        }
    }
}
