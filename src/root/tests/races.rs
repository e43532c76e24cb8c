//! Somebody exchanges a directory, and a file, for links that lead out, over and over, while we do all that we ever do with
//! names. Nothing outside is read, written or touched.
//!
//! All of it takes two seconds. `PDCP_RACE_SECONDS` says how long each kind of operation is to go on instead.

use super::*;
use crate::root::Source;
use crate::root::commit::link;
use crate::root::place::{Parents, Place};
use crate::root::target::temporary_name;
use rustix::fs::{OFlags, RenameFlags, openat, renameat_with, unlinkat};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What is done to what has the name `swing`, a directory with a file or a link to one outside, or `turn`, a file or a link
/// to one outside. `Err`: it was noticed.
type Operation = fn(&Arena) -> Result<(), RootError>;

const OPERATIONS: &[(&str, Operation)] = &[
    ("a source is read", |arena| arena.read_source("swing/file")),
    ("a source behind links is read", |arena| {
        arena.read_source("via").and(arena.read_source("up-and-down")).and(arena.read_source("dir/../swing/file"))
    }),
    ("a source in a narrower jail is read", |arena| {
        let narrowed = Arena { root: arena.root.narrowed(b"swing")?, held: arena.held.try_clone().unwrap() };
        narrowed.read_source("file")
    }),
    ("a target is updated", |arena| arena.update("swing/file", false)),
    ("a target is updated and read back", |arena| arena.update("via", true)),
    ("a file is read", |arena| arena.read_source("turn")),
    ("a file is updated", |arena| arena.update("turn", true)),
    ("a target is made", |arena| arena.make("swing/new", "new")),
    ("a target takes a name", |arena| arena.make("swing", "source")),
    ("parents are made", |arena| arena.make("swing/made/deep/new", "made/deep/new")),
    ("a target is abandoned", |arena| arena.open("swing/new").map(|target| _ = target.abandon(false))),
    ("a target is linked", Arena::link),
];

/// Where the race is.
struct Arena {
    root: Root,
    /// The directory inside, whatever its name is.
    held: OwnedFd,
}

impl Arena {
    fn open(&self, path: &str) -> Result<Target, RootError> {
        let request = TargetRequest { root: self.root.clone(), fsync: false, ..request(path.as_bytes()) };
        Target::open_within(&request, Duration::ZERO)
    }

    fn read_source(&self, path: &str) -> Result<(), RootError> {
        let source = Source::open(self.root.clone(), path.as_bytes())?;
        assert_eq!(read_again(source.file()), "inside");
        Ok(())
    }

    fn update(&self, path: &str, read_back: bool) -> Result<(), RootError> {
        let mut target = self.open(path)?;
        let basis = target.basis_bytes();
        let metadata = source("inside");
        target.mark_unfinished(&metadata)?;
        write(&target, "inside");
        target.settle_content(&metadata)?;
        if read_back && basis.is_some() {
            assert_eq!(read_again(target.file().unwrap()), "inside");
        }
        target.commit(&metadata, true).map(|_| ())
    }

    /// And removes it, with what was made for it.
    fn make(&self, path: &str, made: &str) -> Result<(), RootError> {
        let target = self.open(path)?;
        write(&target, "new");
        target.commit(&source("new"), true)?;
        unlinkat(&self.held, made, AtFlags::empty()).unwrap();
        let mut above = made;
        while let Some((directory, _)) = above.rsplit_once('/') {
            unlinkat(&self.held, directory, AtFlags::REMOVEDIR).unwrap();
            above = directory;
        }
        Ok(())
    }

    /// As where nothing can be renamed without replacing.
    fn link(&self) -> Result<(), RootError> {
        let resolved = Place::resolve(&self.root, b"swing/linked", b"source", Parents::Leave)?;
        let place = resolved.place.ok_or(RootError::Missing)?;
        let temporary = temporary_name(&place.name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
        openat(&place.directory, &temporary, flags, rustix::fs::Mode::RUSR)?;
        link(&place, &temporary)?;
        unlinkat(&self.held, "linked", AtFlags::empty()).unwrap();
        Ok(())
    }
}

/// As workers do.
fn read_again(file: &OwnedFd) -> String {
    fs::read_to_string(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}

const OUTSIDE: &[&str] = &["outside", "outside/file", "outside/new", "outside/source", "outside/made"];

/// All that the kernel says of what is outside. Nothing is opened for it: that would be seen.
fn seen(scratch: &Scratch) -> Vec<[i64; 11]> {
    let look = |name: &&str| {
        let found = scratch.path(name).symlink_metadata().unwrap();
        let (inode, bytes, links) =
            (found.ino().cast_signed(), found.size().cast_signed(), found.nlink().cast_signed());
        let (mode, owner) = (found.mode().into(), found.uid().into());
        let read = [found.atime(), found.atime_nsec()];
        let changed = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
        [inode, bytes, links, mode, owner, read[0], read[1], changed[0], changed[1], changed[2], changed[3]]
    };
    OUTSIDE.iter().map(look).collect()
}

fn scene(leads_to: impl AsRef<Path>) -> Scratch {
    let scratch = Scratch::new();
    for directory in ["jail/swing", "jail/dir", "outside/made"] {
        fs::create_dir_all(scratch.path(directory)).unwrap();
    }
    scratch.write("jail/swing/file", "inside");
    scratch.write("jail/turn", "inside");
    for name in ["file", "new", "source"] {
        scratch.write(&format!("outside/{name}"), "outside");
    }
    let leads_to = if leads_to.as_ref().is_absolute() { scratch.path("outside") } else { leads_to.as_ref().into() };
    symlink(leads_to.join("file"), scratch.path("jail/other-turn")).unwrap();
    symlink(leads_to, scratch.path("jail/other-swing")).unwrap();
    symlink("swing/file", scratch.path("jail/via")).unwrap();
    symlink("dir/../swing/../swing/file", scratch.path("jail/up-and-down")).unwrap();
    for name in OUTSIDE {
        // Older than the last change, so that a read would be noted.
        let times = Timestamps {
            last_access: Timespec { tv_sec: 1, tv_nsec: 0 },
            last_modification: Timespec { tv_sec: 2, tv_nsec: 0 },
        };
        utimensat(CWD, scratch.path(name), &times, AtFlags::empty()).unwrap();
    }
    scratch
}

#[test]
fn whoever_exchanges_a_directory_for_a_link_gains_nothing() {
    let runs = u32::try_from(OPERATIONS.len() * WAYS.len()).unwrap();
    let seconds = std::env::var("PDCP_RACE_SECONDS").ok().map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    let each = seconds.unwrap_or(Duration::from_secs(2) / runs);
    for (way, leads_to) in WAYS.iter().zip(["../outside", "/"]) {
        race(*way, leads_to, each);
    }
    if seconds.is_some() {
        WAYS.iter().zip(["/", "../outside"]).for_each(|(way, leads_to)| race(*way, leads_to, each));
    }
}

fn race(way: Way, leads_to: &str, each: Duration) {
    let scratch = scene(leads_to);
    let before = seen(&scratch);
    let held = fs::File::open(scratch.path("jail/swing")).unwrap().into();
    let arena = Arena { root: jail(&scratch.path("jail"), way), held };
    let (over, exchanges) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let top = fs::File::open(scratch.path("jail")).unwrap();
            while !over.load(Ordering::Relaxed) {
                for (name, other) in [("swing", "other-swing"), ("turn", "other-turn")] {
                    renameat_with(&top, name, &top, other, RenameFlags::EXCHANGE).unwrap();
                }
                exchanges.fetch_add(1, Ordering::Relaxed);
            }
        });
        let raced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (what, operation) in OPERATIONS {
                let until = Instant::now() + each;
                let (mut done, mut noticed) = (0_u64, 0_u64);
                while Instant::now() < until || (done == 0 && noticed == 0) {
                    *(if operation(&arena).is_ok() { &mut done } else { &mut noticed }) += 1;
                }
                eprintln!("{what}, {way:?} {leads_to}: {done} done, {noticed} noticed");
                assert_eq!(seen(&scratch), before, "{what} {way:?} {leads_to}");
            }
        }));
        over.store(true, Ordering::Relaxed);
        raced.unwrap();
    });
    eprintln!("{} exchanges", exchanges.load(Ordering::Relaxed));
    let mut names: Vec<_> =
        fs::read_dir(scratch.path("outside")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["file", "made", "new", "source"]);
    for name in ["file", "new", "source"] {
        assert_eq!(scratch.read(&format!("outside/{name}")), "outside");
    }
}
