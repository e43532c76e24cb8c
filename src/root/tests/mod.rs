//! On the real file system, in a scratch directory. Where something needs a right that is missing here, it says so loudly.

mod disks;
mod ending;
mod escapes;
mod jails;
mod mutation;
mod opening;
// The tests of the program need these as well, and are another crate.
#[path = "../../../tests/pdcp/rig/outside.rs"]
mod outside;
#[path = "../../../tests/pdcp/rig/race.rs"]
mod race;
mod races;
mod rights;
mod sources;

use super::jail::Way;
use super::{Facts, Jail, NOTHING_WITHHELD, Root, RootError, Target, TargetRequest};
use crate::entry::{Metadata, Timestamp};
use rustix::fs::{AtFlags, CWD, Gid, Timespec, Timestamps, UTIME_OMIT, Uid, utimensat};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of every source here, unless its test is about times.
const MTIME: Timestamp = Timestamp::whole(1_000_000_007);
/// Somebody else than root.
const NOBODY: u32 = 65_534;

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        bytes(&self.path(name))
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Names in the directory, sorted.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Opens a target.
    fn open(&self, name: &str) -> Result<Target, RootError> {
        open(&request(&self.bytes(name)))
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn request(path: &[u8]) -> TargetRequest<'_> {
    TargetRequest {
        root: Root::Typed,
        path,
        source_name: b"source",
        source: None,
        withheld: &NOTHING_WITHHELD,
        dry_run: false,
        inplace: false,
        fsync: true,
    }
}

/// Waits for locks, as control does: a program that another test starts here holds copies of all descriptors until its exec.
fn open(request: &TargetRequest) -> Result<Target, RootError> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match Target::open(request) {
            Err(RootError::Busy) if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
}

/// How a jail may walk: what holds for one holds for the other.
const WAYS: [Way; 2] = [Way::Kernel, Way::ByHand];

/// What is in this directory, and never out of it.
fn jail(directory: &Path, way: Way) -> Root {
    let mut jail = Jail::default();
    jail.add(b"", directory).unwrap();
    Root::Jail(Arc::new(jail.by(way)))
}

fn source(content: &str) -> Metadata {
    Metadata { bytes: content.len() as u64, mode: 0o644, mtime: MTIME, device_node: false }
}

/// What workers do.
fn write(target: &Target, content: &str) {
    let written = rustix::io::pwrite(target.file().unwrap(), content.as_bytes(), 0).unwrap();
    assert_eq!(written, content.len());
}

fn content(target: &Target) -> String {
    let mut content = String::new();
    let file = target.file().unwrap().try_clone().unwrap();
    fs::File::from(file).read_to_string(&mut content).unwrap();
    content
}

fn facts(path: &Path) -> Facts {
    Facts::at(CWD, &bytes(path)).unwrap().unwrap()
}

fn set_mtime(path: &Path, time: Timestamp) {
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let last_modification = Timespec { tv_sec: time.seconds(), tv_nsec: time.nanos().into() };
    utimensat(CWD, path, &Timestamps { last_access, last_modification }, AtFlags::empty()).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs it without root's rights, in a directory that it may use.
fn as_nobody(scratch: &Scratch, body: impl FnOnce() + Send) {
    if !is_root() {
        return body();
    }
    // These calls are a thread's own: the process stays root.
    let dropped = || {
        use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        rustix::fs::chown(scratch.0.path(), Some(user), Some(group))?;
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?;
        // Scratch directories may be where only root can go.
        rustix::fs::stat(scratch.0.path())
    };
    let run = || match dropped() {
        Ok(_) => body(),
        Err(errno) => skipped(&format!("what an ordinary user may not: {errno}")),
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn skipped(why: &str) {
    eprintln!("*** NOT SHOWN HERE: {why} ***");
}

/// Runs a program of the system. `false`: it is missing or failed.
fn run(program: &str, arguments: &[&str]) -> bool {
    std::process::Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
}
