//! A host where `pdcp --serve` runs: its directory is set up and looked at by pdcp itself, since there is nothing else.
//!
//! The target's state is made here and pushed there; its result comes back by `-W`, so that every byte crosses, and is
//! compared here. Nothing can be removed there: what was made is made empty, a target as soon as the next has another name.

use crate::peers::{Peers, Program};
use crate::process::{Error, Process, Result, ending};
use crate::rows::Row;
use crate::scene::{Basis, Pair};
use pdcp::failure::Kind;
use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// A file of terabytes over a slow line would need more; it is a guard against waiting for ever.
const LIMIT: Duration = Duration::from_secs(3600);
/// How pdcp ends where it has made nothing there.
const NOT_LET_IN: [Kind; 2] = [Kind::Refused, Kind::Unreachable];

#[derive(Debug)]
pub(crate) struct Remote<'a> {
    peers: &'a Peers,
    /// `HOST:PORT:/DIRECTORY/`, with a directory of our own.
    pdcp: String,
    /// The same for rsync.
    rsync: Option<String>,
    /// A file here that has no bytes.
    empty: PathBuf,
    /// A target that is missing needs a name that was not there: how many there were.
    targets: Cell<u32>,
    /// Files of ours are there, and are not empty.
    holds_files: Cell<bool>,
}

impl<'a> Remote<'a> {
    /// What it needs here is made in `directory`.
    pub(crate) fn new(address: &str, rsync: Option<&str>, peers: &'a Peers, directory: &Path) -> Result<Self> {
        let own = |address: &str| format!("{}/pdcp-bench-{}/", address.trim_end_matches('/'), std::process::id());
        let pdcp = own(address);
        say!("the other end's files are made in {pdcp}, and are empty in the end; unless interrupted");
        let empty = directory.join("empty");
        std::fs::write(&empty, "")?;
        Ok(Self { peers, pdcp, rsync: rsync.map(own), empty, targets: Cell::new(0), holds_files: Cell::new(false) })
    }

    /// Makes the source of a pull, and with it the directory.
    pub(crate) fn place_source(&self, pair: &Pair) -> Result<()> {
        self.push(&pair.source, "source")
    }

    /// Brings the remote target to where the local one is.
    pub(crate) fn place_target(&self, pair: &Pair, row: &Row) -> Result<()> {
        if row.begins_without_target() {
            // Or the disk there would hold one for each first copy.
            self.push(&self.empty, &self.target())?;
            self.targets.set(self.targets.get() + 1);
            return Ok(());
        }
        self.push(&pair.target, &self.target())
    }

    /// Brings the local target to where the remote one is, from nothing.
    pub(crate) fn fetch_target(&self, pair: &mut Pair) -> Result<()> {
        pair.set(&Basis::Missing)?;
        let whole = plain().with(&["--whole-file"]);
        let from = OsString::from(format!("{}{}", self.pdcp, self.target()));
        succeeded(run(self.peers.pdcp(&whole, &from, pair.target.as_os_str()))?)
    }

    pub(crate) fn client(&self, program: Program, row: &Row, pair: &Pair) -> Command {
        let source = pair.source.as_os_str();
        match program {
            Program::PdcpPull => self.peers.pdcp(row, format!("{}source", self.pdcp).as_ref(), pair.target.as_os_str()),
            Program::RsyncDelta | Program::RsyncWhole => {
                let directory = self.rsync.as_deref().expect("a row has rsync only where it was named");
                self.peers.rsync(program, row, source, format!("{directory}{}", self.target()).as_ref())
            }
            _ => self.peers.pdcp(row, source, format!("{}{}", self.pdcp, self.target()).as_ref()),
        }
    }

    /// Makes empty what cannot be removed.
    pub(crate) fn clear(&self) -> Result<()> {
        self.push(&self.empty, "source")?;
        self.push(&self.empty, &self.target())?;
        self.holds_files.set(false);
        Ok(())
    }

    fn target(&self) -> String {
        format!("target-{}", self.targets.get())
    }

    fn push(&self, from: &Path, name: &str) -> Result<()> {
        let held_files = self.holds_files.replace(true); // also if it is cut
        let to = OsString::from(format!("{}{name}", self.pdcp));
        let pushed = run(self.peers.pdcp(&plain(), from.as_os_str(), &to))?;
        if pushed.code().is_some_and(|code| NOT_LET_IN.iter().any(|kind| i32::from(kind.exit_code()) == code)) {
            self.holds_files.set(held_files);
        }
        succeeded(pushed)
    }
}

impl Drop for Remote<'_> {
    fn drop(&mut self) {
        if self.holds_files.get() {
            tell!("files are left in {}", self.pdcp);
        }
    }
}

/// pdcp with no more than what it is always told.
fn plain() -> Row {
    Row::new("set up", Basis::Missing, &[])
}

fn run(mut command: Command) -> Result<ExitStatus> {
    Ok(Process::start(command.stdout(Stdio::null()))?.wait(LIMIT)?.status)
}

fn succeeded(status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    // Why, it has said itself.
    Err(Error::World(std::io::Error::other(format!("pdcp cannot set up the other end: {}", ending(status)))))
}
