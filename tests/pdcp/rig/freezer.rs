//! A disk that hangs whenever a test wants it to. The tests of `ring` include this file, too.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own, gone when dropped. While it is frozen, whoever writes to it waits.
pub(crate) struct Freezer {
    directory: tempfile::TempDir,
    /// Where it is mounted.
    pub(crate) disk: PathBuf,
}

impl Freezer {
    /// What it is not to be had without.
    pub(crate) const NEEDS: &str = "a disk that hangs: needs root, loop devices, mkfs.ext4 and fsfreeze";

    pub(crate) fn new() -> Option<Self> {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let freezer = Self { disk: directory.path().join("disk"), directory };
        let image = freezer.directory.path().join("image");
        File::create(&image).unwrap().set_len(32 << 20).unwrap();
        std::fs::create_dir(&freezer.disk).unwrap();
        let made = run("mkfs.ext4", &["-q".as_ref(), &image])
            && run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &freezer.disk])
            && freezer.freeze()
            && freezer.thaw();
        made.then_some(freezer)
    }

    pub(crate) fn freeze(&self) -> bool {
        run("fsfreeze", &["--freeze".as_ref(), &self.disk])
    }

    pub(crate) fn thaw(&self) -> bool {
        run("fsfreeze", &["--unfreeze".as_ref(), &self.disk])
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        run("umount", &["--lazy".as_ref(), &self.disk]);
    }
}

fn run(program: &str, arguments: &[&Path]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}
