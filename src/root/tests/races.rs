//! Somebody exchanges directories on the way, and the file itself, for links that lead out, and moves a directory away, over
//! and over, while we do all that we ever do with names and files. Nothing outside is read, written or touched.
//!
//! Each kind of operation goes on for 2 s, `PDCP_RACE_SECONDS` says how long instead; `PDCP_RACE_ONLY` takes those kinds
//! whose name holds it. With `--nocapture` it says how often each was done, and how often what was exchanged was noticed.

use super::race::{FILE, Race};
use super::*;
use crate::extent::BlockSize;
use crate::root::Source;
use crate::root::commit::link;
use crate::root::place::{Parents, Place};
use crate::root::target::temporary_name;
use rustix::fs::{FallocateFlags, OFlags, fallocate, linkat, openat, unlinkat};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

/// What is done once. `Err`: an exchange was noticed.
type Operation = fn(&Arena) -> Result<(), RootError>;

const OPERATIONS: &[(&str, Operation)] = &[
    ("a source is opened, read and looked at again", |arena| arena.read(FILE)),
    ("a source is found behind links, up and down", |arena| {
        arena.read("via").and(arena.read("up-and-down")).and(arena.read("first/middle/last/deep/../file"))
    }),
    ("a source is opened in a narrower jail", |arena| arena.narrowed()?.read("last/file")),
    ("a dry run reads its basis", |arena| {
        let target = Target::open(&TargetRequest { dry_run: true, ..arena.request(FILE) })?;
        arena.assert_reads(target.file().unwrap(), "inside");
        target.commit(&source("inside"), false).map(drop).map_err(|(error, _)| error)
    }),
    ("a target is opened, locked, its basis read, and let go", |arena| {
        let target = arena.open(FILE)?;
        arena.assert_reads(target.file().unwrap(), "inside");
        target.abandon(false);
        Ok(())
    }),
    ("a target is found behind links, up and down", |arena| {
        arena.update("via").and(arena.update("up-and-down")).and(arena.update("first/middle/last/deep/../file"))
    }),
    ("a target is updated", |arena| arena.update(FILE)),
    ("a target in a narrower jail is updated", |arena| arena.narrowed()?.update("last/file")),
    ("a target is given up midway", |arena| {
        let mut target = arena.open(FILE)?;
        target.mark_unfinished(&source("inside"))?;
        write_as_workers(&target, "inside");
        target.abandon(true);
        Ok(())
    }),
    ("a target is cut, extended, given room and holes", Arena::reshape),
    ("a target is read back", |arena| {
        let mut target = arena.open(FILE)?;
        target.settle_content(&source("inside"))?;
        arena.assert_reads(target.file().unwrap(), "inside");
        target.commit(&source("inside"), false).map(drop).map_err(|(error, _)| error)
    }),
    ("a target is probed, and all is taken back", |arena| {
        let target = arena.open(FILE)?;
        let inode = target.inode().ok_or(RootError::Missing)?;
        let probe = target.mutation(inode, BlockSize::default())?.probe()?;
        probe.take_back()?;
        probe.restore_time()
    }),
    ("a target with several names is updated", |arena| {
        let mut target = Target::open(&TargetRequest { inplace: true, ..arena.request("first/middle/last/twin") })?;
        target.mark_unfinished(&source("inside"))?;
        write_as_workers(&target, "inside");
        target.commit(&source("inside"), true).map(drop).map_err(|(error, _)| error)
    }),
    ("a target is made, given its mode, and renamed", |arena| arena.make("first/middle/last/new", "new")),
    ("a directory takes a name", |arena| arena.make("first/middle/last", "source")),
    ("a path that ends in a slash takes a name", |arena| arena.make("first/middle/last/", "source")),
    ("parents are made", |arena| arena.make("first/middle/last/made/deeper/new", "made/deeper/new")),
    ("a way through what is missing leads back", |arena| {
        let result = arena.update("first/middle/last/missing/../file");
        _ = unlinkat(&arena.held, "missing", AtFlags::REMOVEDIR);
        result
    }),
    ("a temporary is removed", |arena| arena.open("first/middle/last/new").map(|target| _ = target.abandon(false))),
    ("what an interrupted copy left is gone on with", Arena::resume),
    ("a target is named by a link where it cannot be renamed", Arena::link),
    ("a name that a killed run left is removed", Arena::finish_for_the_killed),
];

const SMALL_PIECE: u64 = 4096;

/// Where the race is.
struct Arena {
    root: Root,
    /// The directory `last` inside, wherever its name leads.
    held: OwnedFd,
}

impl Arena {
    fn request<'a>(&self, path: &'a str) -> TargetRequest<'a> {
        TargetRequest { root: self.root.clone(), fsync: false, ..request(path.as_bytes()) }
    }

    fn open(&self, path: &str) -> Result<Target, RootError> {
        Target::open(&self.request(path))
    }

    fn narrowed(&self) -> Result<Arena, RootError> {
        Ok(Arena { root: self.root.narrowed(b"first/middle")?, held: self.held.try_clone().unwrap() })
    }

    /// What is outside says so.
    #[track_caller]
    fn assert_reads(&self, file: &OwnedFd, want: &str) {
        assert_eq!(fs::read_to_string(as_workers(file)).unwrap(), want);
    }

    fn read(&self, path: &str) -> Result<(), RootError> {
        let source = Source::open(self.root.clone(), path.as_bytes(), &NOTHING_WITHHELD)?;
        self.assert_reads(source.file(), "inside");
        source.unchanged().map(drop) // a name that was exchanged counts as a change on some file systems
    }

    fn update(&self, path: &str) -> Result<(), RootError> {
        let mut target = self.open(path)?;
        target.mark_unfinished(&source("inside"))?;
        write_as_workers(&target, "inside");
        target.commit(&source("inside"), true).map(drop).map_err(|(error, _)| error)
    }

    /// And takes it away again, with what was made for it.
    fn make(&self, path: &str, made: &str) -> Result<(), RootError> {
        let target = self.open(path)?;
        write_as_workers(&target, "new");
        target.commit(&source("new"), true).map_err(|(error, _)| error)?;
        unlinkat(&self.held, made, AtFlags::empty()).unwrap();
        let mut above = made;
        while let Some((directory, _)) = above.rsplit_once('/') {
            unlinkat(&self.held, directory, AtFlags::REMOVEDIR).unwrap();
            above = directory;
        }
        Ok(())
    }

    /// All that workers and a commit do to where a file's bytes lie.
    fn reshape(&self) -> Result<(), RootError> {
        let mut target = self.open(FILE)?;
        target.mark_unfinished(&source("inside"))?;
        {
            let file = fs::OpenOptions::new().write(true).open(as_workers(target.file().unwrap())).unwrap();
            fallocate(&file, FallocateFlags::empty(), 0, 2 * SMALL_PIECE).unwrap();
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, punch, SMALL_PIECE, SMALL_PIECE).unwrap();
        }
        target.settle_content(&Metadata { bytes: 3 * SMALL_PIECE, ..source("") })?;
        target.settle_content(&source("inside"))?;
        target.commit(&source("inside"), true).map(drop).map_err(|(error, _)| error)
    }

    fn resume(&self) -> Result<(), RootError> {
        let target = self.open("first/middle/last/new")?;
        write_as_workers(&target, "ne");
        target.abandon(true);
        let result = self.open("first/middle/last/new").and_then(|target| {
            self.assert_reads(target.file().unwrap(), "ne");
            write_as_workers(&target, "new");
            target.commit(&source("new"), true).map(drop).map_err(|(error, _)| error)
        });
        // Whoever noticed something, here or the time before, has left one or the other.
        for left in [temporary_name(b"new").as_str(), "new"] {
            _ = unlinkat(&self.held, left, AtFlags::empty());
        }
        result
    }

    /// As where nothing can be renamed without replacing.
    fn link(&self) -> Result<(), RootError> {
        let resolved = Place::resolve(&self.root, b"first/middle/last/linked", b"source", Parents::Leave)?;
        let place = resolved.place.ok_or(RootError::Missing)?;
        let temporary = temporary_name(&place.name);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
        openat(&place.directory, &temporary, flags, rustix::fs::Mode::RUSR)?;
        link(&place, &temporary)?;
        unlinkat(&self.held, "linked", AtFlags::empty()).unwrap();
        Ok(())
    }

    fn finish_for_the_killed(&self) -> Result<(), RootError> {
        let temporary = temporary_name(b"single");
        _ = linkat(&self.held, "single", &self.held, &temporary, AtFlags::empty());
        self.update("first/middle/last/single")
    }
}

/// The way by which workers come to the same file.
fn as_workers(file: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn write_as_workers(target: &Target, content: &str) {
    let file = fs::OpenOptions::new().write(true).open(as_workers(target.file().unwrap())).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, content.as_bytes(), 0).unwrap();
}

#[test]
fn whoever_exchanges_what_is_on_the_way_gains_nothing() {
    let seconds = std::env::var("PDCP_RACE_SECONDS").map_or(2, |seconds| seconds.parse().unwrap());
    let only = std::env::var("PDCP_RACE_ONLY").unwrap_or_default();
    for (what, operation) in OPERATIONS.iter().filter(|(what, _)| what.contains(&only)) {
        for way in WAYS {
            race(what, *operation, way, Duration::from_secs(seconds) / 2);
        }
    }
}

fn race(what: &str, operation: Operation, way: Way, time: Duration) {
    let scratch = Scratch::new();
    let race = Race::new(scratch.0.path(), b"inside", b"outside");
    let arena = Arena { root: jail(&race.jail, way), held: race.last.try_clone().unwrap() };
    let (mut done, mut noticed) = (0_u64, BTreeMap::<String, u64>::new());
    let ((), exchanges) = race.run(|| {
        let until = Instant::now() + time;
        while Instant::now() < until || done == 0 {
            match operation(&arena) {
                Ok(()) => done += 1,
                Err(RootError::Os(errno)) => panic!("{what}, {way:?}: {errno} says nothing to a user"),
                Err(error) => *noticed.entry(format!("{error:?}")).or_default() += 1,
            }
        }
    });
    eprintln!("{what}, {way:?}: {done} done, {noticed:?} noticed, {exchanges} exchanges");
    race.outside.assert_untouched(what);
}
