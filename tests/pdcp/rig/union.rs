//! A file system in user space, by a program that can be made to stop answering.

use super::DEADLINE;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Directories laid over each other by a program of libfuse 2, gone when dropped.
#[derive(Debug)]
pub(crate) struct Union {
    pub(crate) top: PathBuf,
    program: Child,
}

impl Union {
    pub(crate) const NEEDS: &'static str = "a file system in user space needs root, /dev/fuse and unionfs-fuse";

    /// At `union` below this directory, where three are made. `None`: not to be had here; the caller says so.
    pub(crate) fn below(directory: &Path) -> Option<Self> {
        let [branch, lower, top] = ["branch", "lower", "union"].map(|name| directory.join(name));
        [&branch, &lower, &top].into_iter().for_each(|path| fs::create_dir(path).unwrap());
        let branches = format!("{}=RW:{}=RO", branch.display(), lower.display());
        let mut command = Command::new("unionfs");
        command.args(["-f", &branches]).arg(&top).stdout(Stdio::null()).stderr(Stdio::null());
        let mut union = Self { top, program: command.spawn().ok()? };
        let device = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
        let since = Instant::now();
        while device(&union.top) == device(directory) {
            if union.program.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(since.elapsed() < DEADLINE, "it is not mounted");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Some(union)
    }

    /// From now on it answers nobody.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// It answers again.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.program.id()).unwrap()).unwrap();
        _ = kill_process(id, signal);
    }
}

impl Drop for Union {
    fn drop(&mut self) {
        self.thaw();
        _ = Command::new("umount").arg("--lazy").arg(&self.top).stderr(Stdio::null()).status();
        _ = self.program.kill();
        _ = self.program.wait();
    }
}
