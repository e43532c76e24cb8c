//! What a copy costs before its first byte and after its last: starting a process, connecting, committing.
//!
//! Measured by pdcp itself on an empty file, which opens no data connection.

use crate::subject::Pdcp;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// pdcp, a server of it, and an empty file.
#[derive(Debug)]
pub(super) struct Starter {
    pdcp: Pdcp,
    _server: Server,
    /// `127.0.0.1:PORT:` and a path.
    remote: OsString,
    source: PathBuf,
    target: PathBuf,
    _directory: TempDir,
}

impl Starter {
    pub(super) fn new(directory: &Path, pdcp: &Pdcp) -> io::Result<Self> {
        let (server, address) = Server::start(pdcp)?;
        let directory = tempfile::tempdir_in(directory.canonicalize()?)?; // a server takes a path from `/`
        let (source, target) = (directory.path().join("source"), directory.path().join("target"));
        File::create(&source)?;
        let mut remote = OsString::from(address + ":");
        remote.push(&target);
        Ok(Self { pdcp: pdcp.clone(), _server: server, remote, source, target, _directory: directory })
    }

    /// Seconds of a first copy to the server.
    pub(super) fn push_seconds(&self) -> io::Result<f64> {
        self.copy_seconds(&self.remote)
    }

    /// Seconds of a first copy without one.
    pub(super) fn local_seconds(&self) -> io::Result<f64> {
        self.copy_seconds(self.target.as_os_str())
    }

    fn copy_seconds(&self, target: &OsStr) -> io::Result<f64> {
        if self.target.exists() {
            std::fs::remove_file(&self.target)?;
        }
        let start = Instant::now();
        let status = self.pdcp.command().arg("-q").arg(&self.source).arg(target).status()?;
        let seconds = start.elapsed().as_secs_f64();
        if status.success() { Ok(seconds) } else { Err(io::Error::other(format!("an empty copy ended with {status}"))) }
    }
}

/// A server, which lives as long as this.
#[derive(Debug)]
struct Server(Child);

impl Server {
    /// Also says its address.
    fn start(pdcp: &Pdcp) -> io::Result<(Self, String)> {
        let serve = ["--serve", "127.0.0.1:0"];
        let mut server = Self(pdcp.command().args(serve).stderr(Stdio::piped()).spawn()?);
        let said = BufReader::new(server.0.stderr.take().expect("piped"));
        for line in said.lines() {
            if let Some(address) = line?.strip_prefix("listening on ") {
                return Ok((server, address.to_owned()));
            }
        }
        Err(io::Error::other("pdcp --serve ended before it listened"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
