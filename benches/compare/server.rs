//! The other end of one measured run: started for it, and ended after it, so that what it used belongs to this run.
//!
//! It counts as running when it listens and its group has become idle: an interpreter may listen long before it can
//! serve. What it used until then is taken off. It is ended when it is idle again, since what its children used is
//! only known once it has waited for them.

use crate::janitor::Janitor;
use crate::process::{Ended, Error, Process, Result};
use procfs::ProcError;
use procfs::net::TcpState;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

/// Guessed: Python's start takes a second here.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Times of groups are kept in ticks of 10 ms: one without a tick is idle.
const IDLE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Server {
    /// A client ends with its server, but a server has no end of its own. Goes first: until the process is waited for, nobody
    /// else has its number.
    janitor: Janitor,
    process: Process,
    start_cpu_seconds: f64,
}

impl Server {
    /// Starts `command`, which is to listen on `port`, and waits until it does.
    pub(crate) fn start(command: &mut Command, port: u16) -> Result<Self> {
        let process = Process::start(command)?;
        let janitor = Janitor::hire("kill -s KILL -- \"-$1\"", [process.group().to_string()])?;
        let deadline = Instant::now() + START_LIMIT;
        while !listens(process.group(), port)? {
            if process.has_ended()? || Instant::now() > deadline {
                let program = command.get_program().to_string_lossy().into_owned();
                return Err(Error::Program(format!("{program} does not listen on port {port}")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let start_cpu_seconds = cpu_seconds_when_idle(process.group(), deadline)?;
        Ok(Self { janitor, process, start_cpu_seconds })
    }

    /// What it has used since it began to serve. Its peak is that of its whole life.
    pub(crate) fn end(self) -> Result<Ended> {
        cpu_seconds_when_idle(self.process.group(), Instant::now() + START_LIMIT)?;
        self.janitor.dismiss();
        let ended = self.process.end()?;
        Ok(Ended { cpu_seconds: (ended.cpu_seconds - self.start_cpu_seconds).max(0.0), ..ended })
    }
}

/// A port that is free now on the loopback address, and in network namespaces where nobody else is.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Looks, and does not connect: that would cost the server a child, or the only peer that it serves. What it sees is the
/// server's network, which need not be ours.
fn listens(server: i32, port: u16) -> Result<bool> {
    let sockets = match procfs::process::Process::new(server).and_then(|server| server.tcp()) {
        Err(ProcError::NotFound(_)) => return Ok(false), // it has ended
        sockets => sockets.map_err(std::io::Error::other)?,
    };
    Ok(sockets.iter().any(|socket| socket.state == TcpState::Listen && socket.local_address.port() == port))
}

fn cpu_seconds_when_idle(group: i32, deadline: Instant) -> Result<f64> {
    let mut before = cpu_ticks(group)?;
    loop {
        std::thread::sleep(IDLE);
        let now = cpu_ticks(group)?;
        if now == before || Instant::now() > deadline {
            let now = u32::try_from(now).map_err(std::io::Error::other)?;
            return Ok(f64::from(now) / procfs::ticks_per_second() as f64);
        }
        before = now;
    }
}

/// Of all processes of `group`, and of those children that they have waited for.
fn cpu_ticks(group: i32) -> Result<u64> {
    let processes = procfs::process::all_processes().map_err(std::io::Error::other)?;
    // One that ended meanwhile has no line any more.
    let stats = processes.filter_map(|process| process.ok()?.stat().ok()).filter(|stat| stat.pgrp == group);
    Ok(stats.map(|stat| stat.utime + stat.stime + stat.cutime.unsigned_abs() + stat.cstime.unsigned_abs()).sum())
}
