//! One timed run, from the state it begins with to the proof that it did what it was asked for.

use crate::peers::{Peers, Program};
use crate::process::{Ended, Error, Process, Result, ending, is_interrupted};
use crate::remote::Remote;
use crate::rows::{Confined, Row};
use crate::sample::{Log, Sample};
use crate::scene::Pair;
use crate::server::{Server, free_port};
use crate::spaces::{Side, Spaces};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// pdiffcopy may wait for ever. The slowest here, rsync with all changed, needs half a minute for 1.9 GB.
const LIMIT: Duration = Duration::from_secs(3600);
/// Names of the files that hold what the two ends of a run print.
const CLIENT: &str = "client";
const SERVER: &str = "server";
/// Where rsync and pdiffcopy would turn to instead.
const PROXIES: [&str; 6] = ["RSYNC_PROXY", "RSYNC_CONNECT_PROG", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];

#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) peers: &'a Peers,
    /// `None`: both ends are here.
    pub(crate) remote: Option<Remote<'a>>,
    /// For rows between two hosts.
    pub(crate) hosts: Option<Spaces>,
    pub(crate) is_cold: bool,
    /// For what programs print.
    pub(crate) directory: PathBuf,
}

impl Bench<'_> {
    /// All rows in turn, `runs` times, and the programs of a row in another order each time. What fails is told on
    /// standard error and comes back as a second list. `between` is called after each round.
    pub(crate) fn rounds(
        &self,
        rows: &[Row],
        pair: &mut Pair,
        runs: u32,
        log: &mut Log,
        between: &mut dyn FnMut(&mut Pair) -> Result<()>,
    ) -> Result<(Vec<Sample>, Vec<String>)> {
        let (mut samples, mut failures) = (Vec::new(), Vec::new());
        if let Some(remote) = &self.remote {
            remote.place_source(pair)?;
        }
        for run in 0..runs {
            for row in rows {
                let mut programs = row.programs.clone();
                fastrand::shuffle(&mut programs);
                for program in programs {
                    match self.sample(program, row, pair, run) {
                        Ok(sample) => {
                            log.tell(&sample)?;
                            samples.push(sample);
                        }
                        // Whoever was ended for it failed in some way or other.
                        Err(_) if is_interrupted() => return Err(Error::Interrupted),
                        Err(Error::Program(what)) => {
                            let failure = format!("{}, {}: {what}", row.name, program.name());
                            tell!("{failure}");
                            failures.push(failure);
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            between(pair)?;
        }
        Ok((samples, failures))
    }

    fn sample(&self, program: Program, row: &Row, pair: &mut Pair, run: u32) -> Result<Sample> {
        pair.set(&row.basis)?;
        let remote = self.remote.as_ref();
        let writes_there = remote.filter(|_| program != Program::PdcpPull);
        if let Some(remote) = writes_there {
            remote.place_target(pair, row)?;
        }
        let timed = self.timed(program, row, pair)?;
        if let Some(remote) = writes_there {
            remote.fetch_target(pair)?;
        }
        pair.compare()?;
        let printed = self.printed(CLIENT)?;
        if let Some(words) = row.pdcp_says.filter(|words| !printed.contains(words)) {
            return Err(Error::Program(format!("did not say '{words}'")));
        }
        Ok(Sample {
            row: row.name.clone(),
            program: program.name().into(),
            run,
            seconds: timed.seconds,
            moved_bytes: program.moved_bytes(&printed)?,
            client_cpu_seconds: timed.client.cpu_seconds,
            server_cpu_seconds: match (&timed.server, &self.remote) {
                (Some(server), _) => Some(server.cpu_seconds),
                (None, Some(_)) => None,
                (None, None) => Some(0.0),
            },
            client_peak_bytes: Some(timed.client.peak_bytes),
            server_peak_bytes: timed.server.as_ref().map(|server| server.peak_bytes),
        })
    }

    fn timed(&self, program: Program, row: &Row, pair: &Pair) -> Result<Timed> {
        let _confined = row.cores.map(Confined::to).transpose()?;
        let host = if row.is_between_hosts { Side::Far.address() } else { Ipv4Addr::LOCALHOST };
        let address = SocketAddrV4::new(host, free_port()?);
        let server = match self.remote {
            Some(_) => None,
            None => self.peers.server(program, row, pair, address)?,
        };
        let server = server.map(|mut command| {
            self.printing_to(&mut command, SERVER)?;
            self.on(Side::Far, row, || Server::start(&mut command, address.port())).map_err(|error| match error {
                Error::Program(what) => Error::Program(format!("{what}: {}", self.last_words(SERVER))),
                error => error,
            })
        });
        let server = server.transpose()?;
        let mut command = match &self.remote {
            Some(remote) => remote.client(program, row, pair),
            None => self.peers.client(program, row, pair, address),
        };
        self.printing_to(&mut command, CLIENT)?;
        if self.remote.is_none() {
            // Both ends are here, whatever the user has for the rest of the world.
            PROXIES.iter().for_each(|proxy| _ = command.env_remove(proxy));
        }
        if self.is_cold {
            pair.cool()?;
        }
        let start = Instant::now();
        let client = self.on(Side::Near, row, || Process::start(&mut command))?.wait(LIMIT)?;
        let seconds = start.elapsed().as_secs_f64();
        let server = server.map(Server::end).transpose()?;
        if !client.status.success() {
            return Err(Error::Program(format!("{}: {}", ending(client.status), self.last_words(CLIENT))));
        }
        Ok(Timed { seconds, client, server })
    }

    /// Runs `body` on the host where this end of the row is.
    fn on<T: Send>(&self, side: Side, row: &Row, body: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match &self.hosts {
            Some(hosts) if row.is_between_hosts => hosts.inside(side, body),
            _ => body(),
        }
    }

    /// Into a file, which takes all of it at any speed.
    fn printing_to(&self, command: &mut Command, name: &str) -> Result<()> {
        let file = File::create(self.directory.join(name))?;
        command.stdout(file.try_clone()?).stderr(file);
        Ok(())
    }

    /// By the last one of this name.
    fn printed(&self, name: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.directory.join(name))?).into_owned())
    }

    /// Why it failed: most programs end with that, and some need two lines for it.
    fn last_words(&self, name: &str) -> String {
        let printed = self.printed(name).unwrap_or_default();
        let lines: Vec<&str> = printed.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        match &lines[lines.len().saturating_sub(2)..] {
            [] => "without a word".into(),
            last => last.join("; "),
        }
    }
}

#[derive(Debug)]
struct Timed {
    seconds: f64,
    client: Ended,
    server: Option<Ended>,
}
