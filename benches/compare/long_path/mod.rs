//! A first copy over a long path: 25 ms and 1 Gbit/s each way with a queue of 100 ms, between two network namespaces of our
//! own on this machine.
//!
//! The server runs in one, the client in the other, and a relay carries their IP packets. It shows what connections,
//! congestion control, windows and round trips come to, which loopback hides. It needs root, and all that it makes goes
//! away with it. What the path does to plain TCP is measured first, so that nobody has to believe in the relay.

mod proof;
mod relay;
mod spaces;

use crate::peers::Program;
use crate::process::{Ended, Error, Process, Result, ending};
use crate::sample::Sample;
use crate::scene::{Basis, Pair, Scene};
use relay::{Relay, Shape};
use spaces::Spaces;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, PipeReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Half of Europe, and what one port of a switch passes.
const SHAPE: Shape =
    Shape { delay: Duration::from_millis(25), bits_per_second: 1_000_000_000, queue: Duration::from_millis(100) };
/// What it can carry at most as bytes of a file, on an Ethernet; a copy should reach nine tenths of it, start included.
const FILE_BITS_PER_SECOND: f64 = 949e6;
const FILE_BYTES: u64 = 1_000_000_000;
/// The server's; in a namespace of our own nobody else has it.
const PORT: u16 = 9000;
/// A copy takes ten seconds over many connections, and some twenty over one.
const LIMIT: Duration = Duration::from_secs(300);

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a> {
    pub(crate) pdcp: &'a Path,
    /// Below which the scratch directory is made; a slow disk would be measured instead of the path.
    pub(crate) directory: &'a Path,
    /// A row for each.
    pub(crate) connections: &'a [u32],
    /// Of each row, in turn.
    pub(crate) runs: u32,
    /// Such as `cubic`; `None` is this machine's default.
    pub(crate) congestion_control: Option<&'a str>,
}

/// An end of the path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    /// Where the client is.
    Near,
    /// Where the server is.
    Far,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Near, Self::Far];

    fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }

    /// Of the block that is set aside for benchmarks (RFC 2544).
    fn address(self) -> Ipv4Addr {
        match self {
            Self::Near => Ipv4Addr::new(198, 18, 0, 1),
            Self::Far => Ipv4Addr::new(198, 18, 0, 2),
        }
    }
}

/// Both namespaces and the relay between them, which goes first.
#[derive(Debug)]
struct LongPath {
    relay: Relay,
    spaces: Spaces,
}

/// The name of a row.
pub(crate) fn row(connections: u32) -> String {
    format!("long path, {connections} connections")
}

/// What the path takes at least for any of its rows.
pub(crate) fn least_seconds() -> f64 {
    FILE_BYTES as f64 * 8.0 / FILE_BITS_PER_SECOND
}

/// Push and pull for each number of connections, in turn. What the path itself does is told on standard error.
///
/// # Errors
/// Also for the first copy that fails or is wrong: on a path that loses nothing but time there is no reason for one.
pub(crate) fn run(options: &Options<'_>) -> Result<Vec<Sample>> {
    let (spaces, [near, far]) = Spaces::new()?;
    let path = LongPath { relay: Relay::start(near, far, SHAPE)?, spaces };
    if let Some(algorithm) = options.congestion_control {
        path.spaces.choose_congestion_control(algorithm)?;
    }
    prove(&path, options.connections)?;
    let scene = Scene::new(options.directory)?;
    let mut pair = scene.pair("long-path", FILE_BYTES)?;
    let mut samples = Vec::new();
    for run in 0..options.runs {
        for connections in options.connections {
            for program in [Program::PdcpPush, Program::PdcpPull] {
                let sample = path.sample(program, *connections, run, options.pdcp, &mut pair)?;
                let [there, back] = path.relay.passed();
                eprintln!("run {run}: {}, {}: {:.3} s", sample.row, sample.program, sample.seconds);
                eprintln!("    in all {there} there, {back} back");
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// The round trip, and what plain TCP reaches.
fn prove(path: &LongPath, connections: &[u32]) -> Result<()> {
    let algorithm = path.spaces.congestion_control()?;
    let round_trip = proof::round_trip(&path.spaces)?;
    eprintln!("long path: a connect takes {:.1} ms; congestion control {algorithm}", round_trip.as_secs_f64() * 1e3);
    for connections in connections {
        path.spaces.forget()?;
        let took = proof::bulk(&path.spaces, *connections, FILE_BYTES)?.as_secs_f64();
        let megabits = FILE_BYTES as f64 * 8.0 / took / 1e6;
        let [there, back] = path.relay.passed();
        eprintln!("long path: plain TCP, {connections} connections: {took:.3} s, {megabits:.0} Mbit/s");
        eprintln!("    in all {there} there, {back} back");
    }
    Ok(())
}

impl LongPath {
    /// One first copy: timed, then compared.
    fn sample(&self, program: Program, connections: u32, run: u32, pdcp: &Path, pair: &mut Pair) -> Result<Sample> {
        pair.set(&Basis::Missing)?;
        self.spaces.forget()?;
        let server = Server::start(&self.spaces, pdcp)?;
        let printed = pair.target.with_extension("printed");
        let (seconds, client) = self.copy(program, connections, pdcp, pair, &printed)?;
        let server = server.process.end()?;
        let printed = fs::read_to_string(&printed)?;
        if !client.status.success() {
            return Err(Error::Program(format!("{}: {}, {printed}", row(connections), ending(client.status))));
        }
        if !pair.compare()? {
            return Err(Error::Program(format!("{}: the result is wrong", row(connections))));
        }
        Ok(Sample {
            row: row(connections),
            program: program.name().into(),
            run,
            seconds,
            moved_bytes: program.moved_bytes(&printed),
            client_cpu_seconds: client.cpu_seconds,
            server_cpu_seconds: server.cpu_seconds,
            client_peak_bytes: client.peak_bytes,
            server_peak_bytes: server.peak_bytes,
        })
    }

    fn copy(
        &self,
        program: Program,
        connections: u32,
        pdcp: &Path,
        pair: &Pair,
        printed: &Path,
    ) -> Result<(f64, Ended)> {
        let there = |path: &Path| format!("{}:{PORT}:{}", Side::Far.address(), path.display()).into();
        let mut command = self.spaces.command(Side::Near, pdcp);
        command.args(["--json", "--connections", &connections.to_string()]);
        if program == Program::PdcpPush {
            command.args([pair.source.clone(), there(&pair.target)]);
        } else {
            command.args([there(&pair.source), pair.target.clone()]);
        }
        let printed = File::create(printed)?;
        command.stdout(printed.try_clone()?).stderr(printed);
        let start = Instant::now();
        let client = Process::start(&mut command)?.wait(LIMIT)?;
        Ok((start.elapsed().as_secs_f64(), client))
    }
}

/// `pdcp --serve` at the far end.
#[derive(Debug)]
struct Server {
    process: Process,
    /// What it says after it listens, a line a session: open, so that it can.
    _said: BufReader<PipeReader>,
}

impl Server {
    /// Comes back when it listens.
    fn start(spaces: &Spaces, pdcp: &Path) -> Result<Self> {
        let (reader, writer) = io::pipe()?;
        let mut command = spaces.command(Side::Far, pdcp);
        command.args(["--serve", &format!("{}:{PORT}", Side::Far.address())]).stderr(writer);
        let process = Process::start(&mut command)?;
        drop(command); // its end of the pipe is the server's alone
        let mut said = BufReader::new(reader);
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            if said.read_line(&mut line)? == 0 {
                return Err(Error::Program("the server at the far end did not start".into()));
            }
        }
        Ok(Self { process, _said: said })
    }
}
