//! A directory that is served, and somebody who exchanges each name on the way to a file in it, and the file itself, for
//! links that lead out, and moves a directory away, over and over.
//!
//! Outside is a tree of the same names, so that who is led astray finds what he looks for. The tests of `root` include this
//! file, too.

use super::outside::Outside;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, XattrFlags, openat, renameat_with, setxattr};
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is on the way, and at its end.
pub(crate) const FILE: &str = "first/middle/last/file";

/// See the module. `TOP/jail` is what is served.
#[derive(Debug)]
pub(crate) struct Race {
    pub(crate) jail: PathBuf,
    /// The directory `last` in the jail, wherever its name leads.
    pub(crate) last: OwnedFd,
    pub(crate) outside: Outside,
    swings: Vec<Swing>,
    /// Outside, as a link through /proc leads there.
    _held: OwnedFd,
}

impl Race {
    /// Sets the scene, with files of this content inside and outside.
    pub(crate) fn new(top: &Path, inside: &[u8], outside: &[u8]) -> Self {
        let last = |tree: &str| top.join(tree).join("first/middle/last");
        for (tree, content) in [("jail", inside), ("outside", outside)] {
            fs::create_dir_all(last(tree).join("deep")).unwrap();
            ["file", "twin", "single"].iter().for_each(|name| fs::write(last(tree).join(name), content).unwrap());
        }
        fs::hard_link(last("jail").join("twin"), last("jail").join("twin-too")).unwrap();
        symlink(FILE, top.join("jail/via")).unwrap();
        symlink("first/../first/middle/last/deep/../../last/file", top.join("jail/up-and-down")).unwrap();
        for name in ["new", "source", "linked", "made"] {
            fs::write(last("outside").join(name), outside).unwrap();
        }
        fs::create_dir_all(top.join("beyond/away")).unwrap();
        fs::write(top.join("beyond/away/file"), outside).unwrap();
        _ = setxattr(last("outside").join("file"), "user.pdcp", b"outside", XattrFlags::empty());
        let held = openat(CWD, top.join("outside"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        Self {
            jail: top.join("jail"),
            last: File::open(last("jail")).unwrap().into(),
            outside: Outside::watch(&[top.join("outside"), top.join("beyond/away/file")]),
            swings: swings(top, &held),
            _held: held,
        }
    }

    /// Does it while everything is exchanged. And how often that was.
    pub(crate) fn run<T>(&self, body: impl FnOnce() -> T) -> (T, u64) {
        let (over, exchanges) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for swing in self.swings.iter().cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
                    swing.out_and_back();
                    exchanges.fetch_add(2, Ordering::Relaxed);
                }
            });
            // Also when it goes wrong the other has to end.
            let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            over.store(true, Ordering::Relaxed);
            (ran.unwrap(), exchanges.load(Ordering::Relaxed))
        })
    }
}

/// What trades places with what, in one directory or between two.
#[derive(Debug)]
struct Swing {
    here: OwnedFd,
    name: &'static str,
    there: OwnedFd,
    other: String,
    flags: RenameFlags,
}

impl Swing {
    fn out_and_back(&self) {
        let (name, other) = (self.name, self.other.as_str());
        renameat_with(&self.here, name, &self.there, other, self.flags).unwrap();
        renameat_with(&self.there, other, &self.here, name, self.flags).unwrap();
    }
}

/// Each name on the way, for a link of each kind to its like outside; and a directory out of which `..` leads elsewhere.
fn swings(top: &Path, held: &OwnedFd) -> Vec<Swing> {
    let open = |path: &str| OwnedFd::from(File::open(top.join(path)).unwrap());
    let mut swings = Vec::new();
    let ways = [("", "first"), ("first/", "middle"), ("first/middle/", "last"), ("first/middle/last/", "file")];
    for (above, name) in ways {
        let directory = format!("jail/{above}");
        let up = "../".repeat(above.matches('/').count() + 1);
        let links = [
            format!("{up}outside/{above}{name}"),
            format!("{}/{above}{name}", top.join("outside").display()),
            format!("/proc/{}/fd/{}/{above}{name}", std::process::id(), held.as_raw_fd()),
        ];
        for (kind, link) in links.iter().enumerate() {
            let other = format!("other-{name}-{kind}");
            symlink(link, top.join(&directory).join(&other)).unwrap();
            let (here, there) = (open(&directory), open(&directory));
            swings.push(Swing { here, name, there, other, flags: RenameFlags::EXCHANGE });
        }
    }
    let (here, there) = (open("jail/first/middle/last"), open("beyond/away"));
    // In place of an empty one, should somebody have made that meanwhile.
    swings.push(Swing { here, name: "deep", there, other: "deep".into(), flags: RenameFlags::empty() });
    swings
}
