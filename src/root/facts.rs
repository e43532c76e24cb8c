//! What the kernel knows about a file.

use super::RootError;
use crate::entry::{Metadata, Timestamp};
use rustix::fs::{AtFlags, FileType, SeekFrom, Statx, StatxFlags, makedev, seek, statx};
use rustix::io::{Errno, pread};
use std::os::fd::{AsFd, OwnedFd};

/// Which file it is: two descriptors with the same inode are the same file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Inode {
    /// The file system it is on.
    pub device: u64,
    /// Its number there.
    pub number: u64,
}

/// What the kernel knows about a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Facts {
    /// Length; a block device's is the device's.
    pub bytes: u64,
    /// Permission bits, setuid, setgid and sticky included.
    pub mode: u32,
    /// When its content was last modified, as anybody may claim.
    pub mtime: Timestamp,
    /// When anything about it was last modified. Nobody can set it.
    pub ctime: Timestamp,
    /// Which file it is.
    pub inode: Inode,
    /// Names that lead to it.
    pub links: u64,
    /// It has holes, or is compressed by its file system.
    pub sparse: bool,
    /// A block device.
    pub device_node: bool,
    pub(super) owner: u32,
    pub(super) kind: FileType,
}

impl Facts {
    /// About an open file.
    pub(super) fn of(file: impl AsFd) -> Result<Self, Errno> {
        let mut facts = Self::of_name(&file)?;
        if facts.device_node {
            // stat says 0. Its end is what BLKGETSIZE64 says, and nobody else uses this description's position.
            facts.bytes = seek(&file, SeekFrom::End(0))?;
        }
        Ok(facts)
    }

    /// About what has this name itself, be it a symbolic link. `None` if nothing has.
    pub(super) fn at(directory: impl AsFd, name: &[u8]) -> Result<Option<Self>, Errno> {
        match Self::read(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            found => found.map(Some),
        }
    }

    /// About what this name leads to.
    pub(super) fn behind(directory: impl AsFd, name: &[u8]) -> Result<Self, Errno> {
        Self::read(directory, name, AtFlags::empty())
    }

    /// About what is held by name only (`O_PATH`). How long a block device is, is not known then.
    pub(super) fn of_name(held: impl AsFd) -> Result<Self, Errno> {
        Self::read(held, b"", AtFlags::EMPTY_PATH)
    }

    fn read(directory: impl AsFd, path: &[u8], flags: AtFlags) -> Result<Self, Errno> {
        Ok(Self::from(&statx(directory, path, flags, StatxFlags::BASIC_STATS)?))
    }

    /// What a source tells of itself.
    pub fn metadata(&self) -> Metadata {
        Metadata { bytes: self.bytes, mode: self.mode, mtime: self.mtime, device_node: self.device_node }
    }

    /// Says no to what cannot be a source.
    pub(super) fn admit_source(&self) -> Result<(), RootError> {
        match self.kind {
            FileType::BlockDevice => Ok(()),
            _ => self.admit_regular(),
        }
    }

    /// Says no to what cannot be a target.
    pub(super) fn admit_target(&self) -> Result<(), RootError> {
        match self.kind {
            FileType::BlockDevice => Err(RootError::BlockDeviceTarget),
            _ => self.admit_regular(),
        }
    }

    /// Says no to a file of length 0 that has bytes: the kernel makes them up, as in /proc, and what is read is not what is
    /// there next time.
    pub(super) fn admit_kept(&self, file: &OwnedFd) -> Result<(), RootError> {
        let is_empty = self.bytes == 0 && !self.device_node;
        if is_empty && pread(file, &mut [0], 0)? > 0 && Self::of(file)?.bytes == 0 {
            // and it has not just grown
            return Err(RootError::NotRegular("made up by the kernel as it is read, and has no length"));
        }
        Ok(())
    }

    fn admit_regular(&self) -> Result<(), RootError> {
        Err(match self.kind {
            FileType::RegularFile => return Ok(()),
            FileType::Directory => RootError::IsDirectory,
            FileType::Fifo => RootError::NotRegular("a FIFO"),
            FileType::Socket => RootError::NotRegular("a socket"),
            FileType::CharacterDevice => RootError::NotRegular("a character device"),
            _ => RootError::NotRegular("no file"),
        })
    }
}

impl From<&Statx> for Facts {
    fn from(found: &Statx) -> Self {
        let kind = FileType::from_raw_mode(found.stx_mode.into());
        let time = |seconds, nanos| Timestamp::checked(seconds, nanos).unwrap_or(Timestamp::whole(seconds));
        Self {
            bytes: found.stx_size,
            mode: u32::from(found.stx_mode) & 0o7777,
            mtime: time(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
            ctime: time(found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
            inode: Inode { device: makedev(found.stx_dev_major, found.stx_dev_minor), number: found.stx_ino },
            links: found.stx_nlink.into(),
            sparse: kind == FileType::RegularFile && found.stx_blocks.saturating_mul(512) < found.stx_size,
            device_node: kind == FileType::BlockDevice,
            owner: found.stx_uid,
            kind,
        }
    }
}
