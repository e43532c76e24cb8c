//! A target: found or made, locked, and ours until it is committed or abandoned.
//!
//! An existing file is updated in place. A missing one is made under a temporary name beside it, `.pdcp-` and 16 hex digits
//! of the BLAKE3 of its name, so that the next run finds what this one leaves. Whoever holds the lock of the very file that
//! a name leads to may write it. `commit.rs` says how it ends.

use super::commit::{Work, set_mode};
use super::place::{Parents, Place, Resolved};
use super::{Facts, Inode, Root, RootError, Withheld, clear_nonblocking};
use crate::completion::Errno as AnyErrno;
use crate::limits::PATH_BYTES_MAX;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Mode of a file that is being made: nobody else's business until it is whole.
pub(super) const TEMPORARY_MODE: u32 = 0o600;

/// What is asked of a target.
#[derive(Clone, Debug)]
pub struct TargetRequest<'a> {
    /// Where `path` begins.
    pub root: Root,
    /// As typed.
    pub path: &'a [u8],
    /// The last name of the source as typed: appended where `path` is a directory, or ends in `/`.
    pub source_name: &'a [u8],
    /// The source, where it is on this host.
    pub source: Option<Inode>,
    /// What it must not be.
    pub withheld: &'a Withheld,
    /// Only look: nothing is made, locked or changed.
    pub dry_run: bool,
    /// A file with several names may be updated.
    pub inplace: bool,
    /// What is reported done is on disk.
    pub fsync: bool,
}

/// A target that is open and, unless this is a dry run, locked.
///
/// Ends in [`commit`](Self::commit) or [`abandon`](Self::abandon). Dropped without either, it leaves everything as it is,
/// as if the process had been killed: a temporary stays for the next run, and an existing file that was marked stays
/// unfinished.
#[derive(Debug)]
pub struct Target {
    path: Vec<u8>,
    file: Option<Arc<OwnedFd>>,
    new: bool,
    /// What was there before.
    pub(super) basis: Option<Facts>,
    /// `None` in a dry run.
    pub(super) work: Option<Work>,
}

impl Target {
    /// Finds or makes it, and locks it. It is tried once; [`RootError::Busy`] may be over in a moment.
    pub fn open(request: &TargetRequest) -> Result<Self, RootError> {
        Self::attempt(request)?.ok_or(RootError::Busy)
    }

    /// `None`: somebody holds it, or its name leads elsewhere by now.
    fn attempt(request: &TargetRequest) -> Result<Option<Self>, RootError> {
        let parents = if request.dry_run { Parents::Leave } else { Parents::Make { fsync: request.fsync } };
        let Resolved { place, taken } = Place::resolve(&request.root, request.path, request.source_name, parents)?;
        let path = if taken { take(request.path, request.source_name)? } else { request.path.to_vec() };
        let Some(place) = place else {
            return Ok(Some(Self { path, file: None, new: true, basis: None, work: None }));
        };
        if place.found.is_some_and(|found| request.withheld.has(found.inode)) || request.withheld.has_place(&place) {
            return Err(RootError::Withheld);
        }
        let temporary = temporary_name(&place.name);
        let new = place.found.is_none();
        let opened =
            if new { open_new(&place, &temporary, request) } else { open_existing(&place, &temporary, request) };
        let Some(Opened { file, basis }) = opened? else {
            return Ok(None);
        };
        let file = file.map(Arc::new);
        let work = match &file {
            Some(file) if !request.dry_run => {
                let temporary = new.then_some(temporary);
                Some(Work::new(place, file.clone(), temporary, basis.is_some(), request.fsync))
            }
            _ => None,
        };
        Ok(Some(Self { path, file, new, basis, work }))
    }

    /// The path as typed, with the source's name appended where it was taken.
    pub fn taken_path(&self) -> &[u8] {
        &self.path
    }

    /// The descriptor that is locked, and by which everything is synced. For workers it is opened again, and they hold it
    /// as long as they have operations in flight. `None`: a dry run without a basis.
    pub fn file(&self) -> Option<&Arc<OwnedFd>> {
        self.file.as_ref()
    }

    /// Length of what was there before: the existing file, or what an earlier run left. `None`: nothing.
    pub fn basis_bytes(&self) -> Option<u64> {
        self.basis.map(|facts| facts.bytes)
    }

    /// Which file was found; `None` if there was none.
    pub fn inode(&self) -> Option<Inode> {
        self.basis.filter(|_| !self.is_new()).map(|basis| basis.inode)
    }

    /// There was no such file.
    pub fn is_new(&self) -> bool {
        self.new
    }
}

/// A target's descriptor (`None`: a dry run that found none), and what was there before.
pub(super) struct Opened {
    file: Option<OwnedFd>,
    basis: Option<Facts>,
}

/// Opens the file that was found.
fn open_existing(place: &Place, temporary: &str, request: &TargetRequest) -> Result<Option<Opened>, RootError> {
    let access = if request.dry_run { OFlags::RDONLY } else { OFlags::RDWR };
    let file = match open_name(place, &place.name, access) {
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        other => other?,
    };
    if let Some(found) = place.found {
        found.admit_kept(&file)?;
    }
    let Some(mut facts) = hold(place, &place.name, &file, request)? else {
        return Ok(None);
    };
    facts.admit_target()?; // it may have taken the name since we looked
    if facts.links > 1 && place.leads_to(temporary.as_bytes(), facts.inode)? {
        // A run that was killed between link and unlink has left its temporary's name on the file that it finished.
        if !request.dry_run {
            unlinkat(&place.directory, temporary, AtFlags::empty())?;
        }
        facts.links -= 1;
    }
    if facts.links > 1 && !request.inplace {
        return Err(RootError::HasLinks(facts.links));
    }
    Ok(Some(Opened { file: Some(file), basis: Some(facts) }))
}

/// Makes the temporary, or opens what an earlier run left.
pub(super) fn open_new(place: &Place, temporary: &str, request: &TargetRequest) -> Result<Option<Opened>, RootError> {
    let foreign = || RootError::ForeignTemporary(temporary.to_owned());
    let made = if request.dry_run { None } else { make(place, temporary)? };
    let ours_for_certain = made.is_some();
    let file = match made.map_or_else(|| open_left(place, temporary, request.dry_run), Ok) {
        Err(Errno::NOENT) if request.dry_run => return Ok(Some(Opened { file: None, basis: None })),
        Err(Errno::NOENT) => return Ok(None),
        // A symbolic link, a directory, a socket.
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Err(foreign()),
        other => other?,
    };
    let held = hold(place, temporary.as_bytes(), &file, request);
    // Whoever had the lock before us may have finished the target.
    let finished = Facts::at(&place.directory, &place.name)?.is_some();
    let somebody_elses = held == Ok(None);
    if ours_for_certain && !somebody_elses && (finished || held.is_err()) {
        unlinkat(&place.directory, temporary, AtFlags::empty())?;
    }
    let Some(facts) = held?.filter(|_| !finished) else {
        return Ok(None);
    };
    // Some file systems (vfat, NFS for root) show another owner than who made it.
    if !ours_for_certain && !is_ours(&facts) {
        return Err(foreign());
    }
    if facts.mode != TEMPORARY_MODE && !request.dry_run {
        set_mode(&file, TEMPORARY_MODE)?;
    }
    // An empty one that was left is worth nothing.
    Ok(Some(Opened { file: Some(file), basis: (facts.bytes > 0).then_some(facts) }))
}

/// `None`: the name is there already.
fn make(place: &Place, temporary: &str) -> Result<Option<OwnedFd>, Errno> {
    match open_name(place, temporary.as_bytes(), OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
        Err(Errno::EXIST) => Ok(None),
        other => other.map(Some),
    }
}

/// Opens what an earlier run left, also if that was killed when it had already given the file its final mode.
fn open_left(place: &Place, temporary: &str, dry_run: bool) -> Result<OwnedFd, Errno> {
    let temporary = temporary.as_bytes();
    if dry_run {
        return open_name(place, temporary, OFlags::RDONLY);
    }
    match open_name(place, temporary, OFlags::RDWR) {
        Err(Errno::ACCESS) => {
            let file = open_name(place, temporary, OFlags::RDONLY)?;
            if is_ours(&Facts::of(&file)?) {
                set_mode(&file, TEMPORARY_MODE)?;
            }
            open_name(place, temporary, OFlags::RDWR)
        }
        other => other,
    }
}

fn open_name(place: &Place, name: &[u8], access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    openat(&place.directory, name, flags, Mode::from_raw_mode(TEMPORARY_MODE))
}

fn is_ours(facts: &Facts) -> bool {
    facts.kind == FileType::RegularFile && facts.links == 1 && facts.owner == geteuid().as_raw()
}

/// Takes the lock, and makes sure that the name leads to what was locked. `None`: start over.
pub(super) fn hold(
    place: &Place,
    name: &[u8],
    file: &OwnedFd,
    request: &TargetRequest,
) -> Result<Option<Facts>, RootError> {
    let facts = Facts::of(file)?;
    if request.source == Some(facts.inode) {
        return Err(RootError::SameFile);
    }
    clear_nonblocking(file)?;
    if !request.dry_run {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
            Err(errno) => return Err(RootError::CannotLock(AnyErrno(errno.raw_os_error()))),
            Ok(()) => {}
        }
    }
    // Looked at again: whoever had the lock before us may have changed anything.
    let facts = Facts::of(file)?;
    Ok(place.leads_to(name, facts.inode)?.then_some(facts))
}

/// The name under which a file of this name is made. 22 bytes, also where the name has 255.
pub(super) fn temporary_name(name: &[u8]) -> String {
    format!(".pdcp-{:.16}", blake3::hash(name).to_hex())
}

fn take(path: &[u8], name: &[u8]) -> Result<Vec<u8>, RootError> {
    let slash: &[u8] = if path.ends_with(b"/") { b"" } else { b"/" };
    let taken = [path, slash, name].concat();
    if taken.len() < PATH_BYTES_MAX { Ok(taken) } else { Err(RootError::TooLong) }
}
