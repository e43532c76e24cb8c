//! A running program of ours: what it says, line by line, and how it ends.
//!
//! Whatever happens to the test, the program ends: it is killed when it is dropped, and when it lives longer than
//! [`DEADLINE`].

use super::{DEADLINE, Summary};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

const EIO: i32 = 5;

/// See the module.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    shown: String,
    stdout: Option<JoinHandle<Vec<u8>>>,
    lines: Receiver<String>,
    said: Vec<String>,
}

/// How a program ended, and what it has said.
#[derive(Debug)]
pub(crate) struct Run {
    /// -1 for one that a signal ended: that is never right.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) shown: String,
}

impl Process {
    /// Starts it. Standard output is taken unless it has been given away.
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped());
        Self::start_with_own_stdout(command)
    }

    /// The same where standard output is the command's own matter.
    #[track_caller]
    pub(crate) fn start_with_own_stdout(mut command: Command) -> Self {
        let shown = format!("{command:?}");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().map(|mut stdout| {
            std::thread::spawn(move || {
                let mut all = Vec::new();
                stdout.read_to_end(&mut all).unwrap();
                all
            })
        });
        let lines = lines_of(child.stderr.take().unwrap());
        Self { child, shown, stdout, lines, said: Vec::new() }
    }

    /// Starts it on a terminal, as far as its standard input and error go, where somebody types this.
    #[track_caller]
    pub(crate) fn start_on_terminal(mut command: Command, typed: &[u8]) -> Self {
        let (mut screen, terminal) = terminal();
        screen.write_all(typed).unwrap();
        let shown = format!("{command:?}");
        // One that can erase a row: it is drawn.
        command.env("TERM", "xterm");
        command.stdin(terminal.try_clone().unwrap()).stderr(terminal).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        Self { child, shown, stdout: None, lines: lines_of(Screen(screen)), said: Vec::new() }
    }

    /// Waits for a line on standard error that contains this.
    #[track_caller]
    pub(crate) fn line_with(&mut self, wanted: &str) -> String {
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(wanted) {
                        return line;
                    }
                }
                Err(error) => panic!("{error} before '{wanted}' from {}:\n{}", self.shown, self.said.join("\n")),
            }
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Run {
        let status =
            if self.ends_within(DEADLINE) { self.child.wait().unwrap() } else { panic!("{} hangs", self.shown) };
        let stdout = self.stdout.take().map(|stdout| stdout.join().unwrap()).unwrap_or_default();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("somebody holds the standard error of {}", self.shown),
            }
        }
        Run {
            code: status.code().unwrap_or_else(|| -status.signal().unwrap()),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: self.said.join("\n"),
            shown: self.shown.clone(),
        }
    }

    fn ends_within(&self, patience: Duration) -> bool {
        let process = pidfd_open(self.pid(), PidfdFlags::empty()).unwrap();
        let timeout = Timespec { tv_sec: i64::try_from(patience.as_secs()).unwrap(), tv_nsec: 0 };
        poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)).unwrap() > 0
    }
}

/// A terminal: its other side, and where a program has it.
pub(crate) fn terminal() -> (File, OwnedFd) {
    let screen = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap();
    let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (screen, terminal)
}

/// A terminal from its other side.
struct Screen(File);

impl Read for Screen {
    /// Nobody is there any more: for a terminal that is an error.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).or_else(|error| if error.raw_os_error() == Some(EIO) { Ok(0) } else { Err(error) })
    }
}

/// What is said there, line by line.
fn lines_of(said: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(said).lines() {
            _ = sender.send(line.unwrap());
        }
    });
    lines
}

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Run {
    /// It ended with this code and said so also to programs.
    #[track_caller]
    pub(crate) fn ends_with(&self, code: i32) -> Summary {
        assert_eq!(self.code, code, "{self}");
        self.summary()
    }

    /// The one line for programs.
    #[track_caller]
    pub(crate) fn summary(&self) -> Summary {
        Summary::of(self)
    }

    /// It told people this.
    #[track_caller]
    pub(crate) fn tells(&self, text: &str) {
        assert!(self.stderr.contains(text), "no '{text}' from {self}");
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nended with {}\n{}{}", self.shown, self.code, self.stdout, self.stderr)
    }
}
