//! Processes of a measurement: started, timed, and ended whatever happens.
//!
//! Each leads a process group of its own. What runs is on one list, so that Ctrl-C, an error or a panic leaves nothing
//! behind: the thread of [`end_all_on_signals`] ends the groups, whoever waits for one sees it end, and nothing new is
//! started. CPU time and memory are what the kernel charged to the process and to those children that it waited for.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use wait4::Wait4;

/// How long a process may take to end after it was asked to. Guessed: a server of pdcp grants its sessions 2 s.
const GRACE: Duration = Duration::from_secs(5);

static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Why there is no figure.
#[derive(Debug)]
pub(crate) enum Error {
    /// By Ctrl-C or SIGTERM: everything stops.
    Interrupted,
    /// A measured program failed, or left a wrong result: the others go on.
    Program(String),
    /// What was asked for makes no sense.
    Usage(String),
    /// The machine: a full disk, a program that is not there.
    World(std::io::Error),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Says of a program's failure whose it is.
    pub(crate) fn about(self, whose: &str) -> Self {
        match self {
            Self::Program(what) => Self::Program(format!("{whose}: {what}")),
            error => error,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::World(error)
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(error: rustix::io::Errno) -> Self {
        Self::World(error.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Program(what) | Self::Usage(what) => f.write_str(what),
            Self::World(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// What a process has used when it is gone, with the children that it waited for.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) cpu_seconds: f64,
    /// The largest resident set of one process among them.
    pub(crate) peak_bytes: u64,
}

/// A running process and its group; dropped, both are killed.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Pid,
    is_running: bool,
}

impl Process {
    /// Starts `command`, which reads nothing.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        // A child's peak begins with its parent's, from which it is split off: we forget ours. A kernel without page
        // monitor refuses, and small programs then seem as large as we are.
        _ = std::fs::write("/proc/self/clear_refs", "5");
        let mut running = RUNNING.lock().expect("no holder panics");
        if is_interrupted() {
            return Err(Error::Interrupted);
        }
        let child = command.stdin(Stdio::null()).process_group(0).spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            std::io::Error::new(error.kind(), format!("{program}: {error}"))
        })?;
        let group = Pid::from_child(&child);
        running.push(group);
        Ok(Self { child, group, is_running: true })
    }

    /// The number of its process group, which is its own.
    pub(crate) fn group(&self) -> i32 {
        self.group.as_raw_nonzero().get()
    }

    pub(crate) fn has_ended(&self) -> Result<bool> {
        self.ends_within(Duration::ZERO)
    }

    /// Waits until it ends by itself. After `limit` it is killed, and has failed.
    pub(crate) fn wait(mut self, limit: Duration) -> Result<Ended> {
        if !self.ends_within(limit)? {
            return Err(Error::Program(format!("did not end within {} s", limit.as_secs())));
        }
        self.reap()
    }

    /// Asks it to end, by SIGTERM, and waits.
    pub(crate) fn end(mut self) -> Result<Ended> {
        _ = kill_process_group(self.group, Signal::TERM); // it may be gone
        if !self.ends_within(GRACE)? {
            _ = kill_process_group(self.group, Signal::KILL);
        }
        self.reap()
    }

    fn ends_within(&self, limit: Duration) -> Result<bool> {
        let process = pidfd_open(self.group, PidfdFlags::empty())?;
        let limit = Timespec::try_from(limit).map_err(std::io::Error::other)?;
        // A signal to us makes the process end soon; the wait may begin anew.
        let count = rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)))?;
        Ok(count > 0)
    }

    fn reap(&mut self) -> Result<Ended> {
        let used = self.child.wait4()?;
        self.is_running = false;
        RUNNING.lock().expect("no holder panics").retain(|group| *group != self.group);
        _ = kill_process_group(self.group, Signal::KILL); // what the leader left behind, if anything
        if is_interrupted() {
            return Err(Error::Interrupted);
        }
        let cpu = used.rusage.utime + used.rusage.stime;
        Ok(Ended { status: used.status, cpu_seconds: cpu.as_secs_f64(), peak_bytes: used.rusage.maxrss })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running {
            _ = kill_process_group(self.group, Signal::KILL);
            _ = self.reap();
        }
    }
}

/// To be called once, before the first process is started. A second signal kills instead of asking.
pub(crate) fn end_all_on_signals() -> std::io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            let again = INTERRUPTED.swap(true, Ordering::SeqCst);
            let signal = if again { Signal::KILL } else { Signal::TERM };
            for group in RUNNING.lock().expect("no holder panics").iter() {
                _ = kill_process_group(*group, signal);
            }
        }
    });
    Ok(())
}

pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// How a process ended, for people.
pub(crate) fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, signal) => format!("killed by signal {}", signal.unwrap_or(0)),
    }
}
