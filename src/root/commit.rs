//! How a target ends: whole, on disk and under its name, or never looking finished.
//!
//! The order is the point. A modification time reaches the disk only after the bytes that it stands for; a name only after
//! the file; 'committed' is said only after the name. While an existing file is changed, its time is one that the source
//! does not have. The first error is the last: what failed is abandoned, however often a later sync says yes.

use super::place::{Place, sync_directory};
use super::{Facts, Inode, RootError, Target};
use crate::entry::{Metadata, Timestamp};
use rustix::fs::{
    Advice, AtFlags, FsWord, Mode, RenameFlags, Timespec, Timestamps, UTIME_NOW, fadvise, fchmod, fdatasync, fstatfs,
    fsync, ftruncate, futimens, linkat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A new file takes these of the source's permission bits: not setuid, setgid, sticky.
const MODE_TAKEN: u32 = 0o777;

/// File systems in user space; from the kernel's linux/magic.h.
const FUSE_SUPER_MAGIC: FsWord = 0x6573_5546;

/// A target that is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Committed {
    /// Anything about it was changed: bytes, length, modification time; or it is new. In a dry run: would be.
    pub changed: bool,
}

/// What an abandoned target leaves behind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Left {
    /// Everything is as it was.
    Untouched,
    /// The target is still missing; what was made of it has this name beside it, and is the next run's basis.
    Kept(String),
    /// The target is partly updated. It does not have the source's modification time, unless that was the last to be set.
    Unfinished,
}

impl Target {
    /// To be called before the first write. An existing file is given a modification time that the source does not have,
    /// on disk, before it is changed. A temporary needs no mark.
    pub fn mark_unfinished(&mut self, source: &Metadata) -> Result<(), RootError> {
        self.work.as_mut().expect("a dry run writes nothing").mark_unfinished(source.mtime)
    }

    /// It is as it was, for certain: nothing of it has been marked, written or made.
    pub fn is_untouched(&self) -> bool {
        self.work.as_ref().is_none_or(|work| work.temporary.is_none() && work.mark.is_none() && !work.timed)
    }

    /// Gives it its length already now, and what was written to the disk, so that all of it can be read back. To be called
    /// when nothing is in flight any more.
    pub fn settle_content(&mut self, source: &Metadata) -> Result<(), RootError> {
        let work = self.work.as_mut().expect("a dry run writes nothing");
        work.set_length(source)?;
        work.sync_or_forget(|file| fdatasync(file)) // also with --no-fsync: else it would be read back from memory
    }

    /// Makes it final: every byte of it is known to equal the source's, all writes have completed in full, and the source
    /// has not changed. `wrote`: something was written (in a dry run: would be).
    ///
    /// After an error it has been abandoned, and a temporary kept: what is left is told with it.
    pub fn commit(mut self, source: &Metadata, wrote: bool) -> Result<Committed, (RootError, Left)> {
        let Some(work) = &mut self.work else {
            let same = |basis: Facts| {
                basis.bytes == source.bytes && (source.device_node || basis.mtime == source.mtime) && !self.is_new()
            };
            return Ok(Committed { changed: wrote || !self.basis.is_some_and(same) });
        };
        let result = work.finish(source, wrote).and_then(|()| Ok(Facts::of(&work.file)?));
        match result {
            Ok(now) => {
                // What a connection wrote that was lost counts nowhere else.
                let wrote = wrote || work.mark.is_some();
                let same = |basis: Facts| basis.bytes == now.bytes && basis.mtime == now.mtime && !self.is_new();
                Ok(Committed { changed: wrote || !self.basis.is_some_and(same) })
            }
            Err(error) => Err((error, self.abandon(true))),
        }
    }

    /// Gives it up after an error, with nothing in flight any more. A temporary is kept if something in it is verified
    /// (`keep`), or was left by an earlier run, which may have verified it.
    pub fn abandon(self, keep: bool) -> Left {
        self.work.map_or(Left::Untouched, |work| work.leave(keep))
    }
}

/// What a target is being worked on with.
#[derive(Debug)]
pub(super) struct Work {
    place: Place,
    file: Arc<OwnedFd>,
    /// The name of the file as long as it is being made; `None` for one that is updated in place.
    temporary: Option<String>,
    /// An earlier run left something in it.
    resumed: bool,
    fsync: bool,
    /// The modification time that says 'unfinished', once it has been set.
    mark: Option<Timestamp>,
    /// Its final time has been set.
    timed: bool,
}

impl Work {
    pub(super) fn new(place: Place, file: Arc<OwnedFd>, temporary: Option<String>, resumed: bool, fsync: bool) -> Self {
        Self { place, file, temporary, resumed, fsync, mark: None, timed: false }
    }

    pub(super) fn mark_unfinished(&mut self, source_mtime: Timestamp) -> Result<(), RootError> {
        if self.temporary.is_some() || self.mark.is_some() {
            return Ok(());
        }
        // Different also for whoever compares whole seconds.
        let mark = Timestamp::whole(i64::from(source_mtime.seconds() == 0));
        set_mtime(&self.file, Some(mark))?;
        self.mark = Some(mark);
        self.synced(|file| fsync(file))
    }

    /// A hole at the end is not written, and has to extend the file; a longer basis is cut.
    fn set_length(&mut self, source: &Metadata) -> Result<(), RootError> {
        if Facts::of(&self.file)?.bytes != source.bytes {
            self.mark_unfinished(source.mtime)?;
            ftruncate(&self.file, source.bytes)?;
        }
        Ok(())
    }

    fn finish(&mut self, source: &Metadata, wrote: bool) -> Result<(), RootError> {
        // Also bytes that we found, not wrote: an earlier run, killed or with --no-fsync, may have left them in memory.
        self.synced(|file| fdatasync(file))?;
        let new = self.temporary.is_some();
        self.set_length(source)?;
        if new && !source.device_node {
            set_mode(&self.file, source.mode & MODE_TAKEN)?;
        }
        let mut touched = new || wrote || self.mark.is_some();
        if source.device_node {
            // A device's times say nothing about what it holds: this copy was made now, or has not been touched.
            if touched {
                set_mtime(&self.file, None)?;
            }
        } else if Facts::of(&self.file)?.mtime != source.mtime {
            set_mtime(&self.file, Some(source.mtime))?;
            self.timed = true;
            touched = true;
        }
        if touched {
            self.synced(|file| fsync(file))?;
        }
        self.settle_name()
    }

    /// Gives a new file its name, and makes sure that the target's name leads to the file that was proven.
    fn settle_name(&self) -> Result<(), RootError> {
        let inode = self.inode()?;
        if let Some(temporary) = &self.temporary {
            if !self.place.leads_to(temporary.as_bytes(), inode)? {
                return Err(RootError::Replaced);
            }
            let named = rename(&self.place, temporary, &self.file);
            named.map_err(|errno| if errno == Errno::EXIST { RootError::Appeared } else { errno.into() })?;
            if self.fsync {
                sync_directory(&self.place.directory, &self.file)?;
            }
        }
        if self.place.leads_to(&self.place.name, inode)? { Ok(()) } else { Err(RootError::Replaced) }
    }

    fn leave(self, keep: bool) -> Left {
        match (&self.temporary, self.mark) {
            (Some(temporary), _) if keep || self.resumed => Left::Kept(temporary.clone()),
            (Some(temporary), _) => {
                // Only if the name is still ours; failing that, a worthless file stays for the next run.
                if self.inode().and_then(|inode| self.place.leads_to(temporary.as_bytes(), inode)) == Ok(true) {
                    _ = unlinkat(&self.place.directory, temporary, AtFlags::empty());
                }
                Left::Untouched
            }
            (None, None) if self.timed => Left::Unfinished,
            (None, None) => Left::Untouched,
            (None, Some(mark)) => {
                // Writes have moved it since. If this fails too, the time is theirs: still not the source's.
                _ = set_mtime(&self.file, Some(mark)).and_then(|()| self.synced(|file| fsync(file)));
                Left::Unfinished
            }
        }
    }

    fn inode(&self) -> Result<Inode, Errno> {
        Ok(Facts::of(&self.file)?.inode)
    }

    /// By the description that holds the file since before the first write: it is told of every write that failed.
    pub(super) fn synced(&self, sync: fn(&OwnedFd) -> Result<(), Errno>) -> Result<(), RootError> {
        if self.fsync { self.sync_or_forget(sync) } else { Ok(()) }
    }

    fn sync_or_forget(&self, sync: fn(&OwnedFd) -> Result<(), Errno>) -> Result<(), RootError> {
        sync(&self.file).map_err(|errno| {
            // What could not be written counts as clean now. The next run must compare what the disk has.
            _ = fadvise(&self.file, 0, None, Advice::DontNeed);
            errno.into()
        })
    }
}

/// `None`: the present time.
pub(super) fn set_mtime(file: &OwnedFd, mtime: Option<Timestamp>) -> Result<(), RootError> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let last_modification = mtime.map_or(now, |time| Timespec { tv_sec: time.seconds(), tv_nsec: time.nanos().into() });
    // A file system of libfuse 2 takes both times or, without a word, none.
    match futimens(file, &Timestamps { last_access: now, last_modification }) {
        Err(Errno::PERM | Errno::ACCESS) => Err(RootError::NotOwner),
        other => Ok(other?),
    }
}

/// Where the file system has modes to set. One that has none says so to the file's own maker, or is silent (vfat).
pub(super) fn set_mode(file: &OwnedFd, mode: u32) -> Result<(), Errno> {
    match fchmod(file, Mode::from_raw_mode(mode)) {
        Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Gives the temporary the target's name, unless that is somebody's.
fn rename(place: &Place, temporary: &str, file: &OwnedFd) -> Result<(), Errno> {
    let name = place.name.as_slice();
    match renameat_with(&place.directory, temporary, &place.directory, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {}
        other => return other,
    }
    // In user space a second name is another file by its number, and what was proven could not be told from it.
    let can_link = fstatfs(file).is_ok_and(|system| system.f_type != FUSE_SUPER_MAGIC);
    match if can_link { link(place, temporary) } else { Err(Errno::OPNOTSUPP) } {
        Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => rename_to_free(place, temporary),
        other => other,
    }
}

/// The same for file systems that cannot rename without replacing.
pub(super) fn link(place: &Place, temporary: &str) -> Result<(), Errno> {
    linkat(&place.directory, temporary, &place.directory, place.name.as_slice(), AtFlags::empty())?;
    unlinkat(&place.directory, temporary, AtFlags::empty())
}

/// The same for those that cannot link either. Who takes the name between the look and the renaming loses it: no call of
/// theirs would tell.
pub(super) fn rename_to_free(place: &Place, temporary: &str) -> Result<(), Errno> {
    match Facts::at(&place.directory, &place.name)? {
        Some(_) => Err(Errno::EXIST),
        None => renameat(&place.directory, temporary, &place.directory, place.name.as_slice()),
    }
}
