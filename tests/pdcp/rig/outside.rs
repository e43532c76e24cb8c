//! What nobody may touch while something goes on beside it: no byte read, no name opened or listed, nothing changed.
//!
//! The kernel tells of whatever is opened, read, written, made, moved, removed or given another mode, owner, time or attribute
//! there (inotify). What it says of each file before and after is compared as well: its content, its attributes, and its
//! ctime, which moves with any change and which nobody can set. The tests of `root` include this file, too.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::fs::{OFlags, lgetxattr, llistxattr};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Some files and trees, as they are.
#[derive(Debug)]
pub(crate) struct Outside {
    tops: Vec<PathBuf>,
    before: Vec<Seen>,
    told: OwnedFd,
}

/// All that is known about one of them.
#[derive(Debug, Eq, PartialEq)]
struct Seen {
    path: PathBuf,
    numbers: [i64; 8],
    /// Last read, last written, last changed in any way.
    times: [(i64, i64); 3],
    attributes: Vec<u8>,
    content: Vec<u8>,
}

impl Outside {
    /// From now on nobody may touch these.
    pub(crate) fn watch(tops: &[PathBuf]) -> Self {
        let mut paths = Vec::new();
        tops.iter().for_each(|top| walk(top, &mut paths));
        let times = Timestamps {
            // Older than the last change, so that one read would be noted, mounted as usual.
            last_access: Timespec { tv_sec: 1, tv_nsec: 0 },
            last_modification: Timespec { tv_sec: 2, tv_nsec: 0 },
        };
        for path in &paths {
            utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
        }
        let before = look(tops);
        let told = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        // Not of what is closed: what our own look has opened, a child of another test may close once more, later.
        let all = WatchFlags::ALL_EVENTS.difference(WatchFlags::CLOSE_NOWRITE | WatchFlags::CLOSE_WRITE);
        for path in &paths {
            inotify::add_watch(&told, path, all | WatchFlags::DONT_FOLLOW).unwrap();
        }
        Self { tops: tops.to_vec(), before, told }
    }

    /// Nobody has, so far.
    #[track_caller]
    pub(crate) fn assert_untouched(&self, by: &str) {
        assert_eq!(self.events(), [], "{by}");
        assert_eq!(look(&self.tops), self.before, "{by}");
        self.events(); // our own look
    }

    fn events(&self) -> Vec<(ReadFlags, Option<OsString>)> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.told, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| name.to_string_lossy().into_owned().into());
                    events.push((event.events(), name));
                }
                Err(Errno::AGAIN) => return events,
                Err(errno) => panic!("{errno}"),
            }
        }
    }
}

/// The path, and all that is below it.
fn walk(path: &Path, into: &mut Vec<PathBuf>) {
    into.push(path.to_owned());
    if path.is_dir() {
        let directory = open(path);
        let names = rustix::fs::Dir::new(directory).unwrap().map(|entry| entry.unwrap().file_name().to_owned());
        let mut names: Vec<_> = names.filter(|name| ![c".", c".."].contains(&name.as_c_str())).collect();
        names.sort();
        names.iter().for_each(|name| walk(&path.join(name.to_str().unwrap()), into));
    }
}

fn look(tops: &[PathBuf]) -> Vec<Seen> {
    let mut paths = Vec::new();
    tops.iter().for_each(|top| walk(top, &mut paths));
    paths.into_iter().map(Seen::of).collect()
}

impl Seen {
    fn of(path: PathBuf) -> Self {
        let found = path.symlink_metadata().unwrap();
        let numbers = [found.ino(), found.size(), found.nlink(), found.dev(), found.blocks()].map(u64::cast_signed);
        let [inode, bytes, links, device, blocks] = numbers;
        let [mode, owner, group] = [found.mode(), found.uid(), found.gid()].map(i64::from);
        let times = [
            (found.atime(), found.atime_nsec()),
            (found.mtime(), found.mtime_nsec()),
            (found.ctime(), found.ctime_nsec()),
        ];
        let mut content = Vec::new();
        if found.is_file() {
            std::fs::File::from(open(&path)).read_to_end(&mut content).unwrap();
        }
        let numbers = [inode, bytes, links, device, blocks, mode, owner, group];
        let attributes = attributes(&path);
        Self { path, numbers, times, attributes, content }
    }
}

/// For reading, without leaving a trace in its times.
fn open(path: &Path) -> OwnedFd {
    let flags = (OFlags::NOATIME | OFlags::NOFOLLOW).bits().cast_signed();
    std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap().into()
}

/// Extended attributes, access lists among them: all names, and behind them all values.
fn attributes(path: &Path) -> Vec<u8> {
    let mut all = Vec::with_capacity(1 << 10);
    if llistxattr(path, rustix::buffer::spare_capacity(&mut all)).is_err() {
        return all; // the file system has none
    }
    for name in all.clone().split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = Vec::with_capacity(1 << 10);
        _ = lgetxattr(path, name, rustix::buffer::spare_capacity(&mut value));
        all.append(&mut value);
    }
    all
}
