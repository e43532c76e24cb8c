//! What is to be done when we are gone, however that comes about, SIGKILL included: a shell waits until a pipe closes.

use std::ffi::OsStr;
use std::io::{Result, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Dropped, it does its work, and is waited for.
#[derive(Debug)]
pub(crate) struct Janitor {
    shell: Child,
    leash: Option<ChildStdin>,
}

impl Janitor {
    /// It will do `work` in a shell, with `words` as "$@".
    pub(crate) fn hire(work: &str, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", &format!("read -r line || {{ {work}; }}"), "sh"])
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // the terminal's Ctrl-C is not for it
            .spawn()?;
        let leash = shell.stdin.take();
        Ok(Self { shell, leash })
    }

    /// There is nothing left to do.
    pub(crate) fn dismiss(mut self) {
        // A shell that has been killed does nothing either.
        self.leash.iter_mut().for_each(|leash| _ = leash.write_all(b"\n"));
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.leash = None;
        _ = self.shell.wait();
    }
}
