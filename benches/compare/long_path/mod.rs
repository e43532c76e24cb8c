//! A first copy over a long path: 25 ms and 1 Gbit/s each way with a queue of 100 ms, between two network namespaces of our
//! own on this machine.
//!
//! The server runs in one, the client in the other, and a relay carries their IP packets: sealed, since that is what users
//! get between hosts. It shows what connections, congestion control, windows and round trips come to, which loopback
//! hides. It needs root, and all that it makes goes away with it. What the path does to plain TCP is measured first, so
//! that nobody has to believe in the relay.

mod proof;
mod relay;

use crate::peers::Program;
use crate::process::{Ended, Error, Process, Result, ending};
use crate::sample::{Log, Sample};
use crate::scene::{Basis, Pair, Scene, Texture};
use crate::server::Server;
use crate::spaces::{Side, Spaces};
use crate::subject::Pdcp;
use relay::{MTU, Relay, Shape};
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

/// Half of Europe, and what one port of a switch passes.
const SHAPE: Shape =
    Shape { delay: Duration::from_millis(25), bits_per_second: 1_000_000_000, queue: Duration::from_millis(100) };
/// What it can carry at most as bytes of a file, on an Ethernet; a copy should reach nine tenths of it, start included.
const FILE_BITS_PER_SECOND: f64 = 949e6;
const FILE_BYTES: u64 = 1_000_000_000;
/// What its files take.
pub(crate) const SCRATCH_BYTES: u64 = 2 * FILE_BYTES;
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
    /// Push and pull, or one of them.
    pub(crate) programs: &'a [Program],
    /// Of each row, in turn.
    pub(crate) runs: u32,
    /// Such as `cubic`; `None` is this machine's default.
    pub(crate) congestion_control: Option<&'a str>,
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

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) samples: Vec<Sample>,
    /// What the path does, to connects and to plain TCP.
    pub(crate) proof: Vec<String>,
}

/// Each program for each number of connections, in turn.
///
/// # Errors
/// Also for the first copy that fails or is wrong: on a path that loses nothing but time there is no reason for one.
pub(crate) fn run(options: &Options<'_>, log: &mut Log) -> Result<Outcome> {
    let (spaces, [near, far]) = Spaces::unwired(MTU)?;
    let path = LongPath { relay: Relay::start(near, far, SHAPE)?, spaces };
    if let Some(algorithm) = options.congestion_control {
        path.spaces.choose_congestion_control(algorithm)?;
    }
    let proof = prove(&path, options.connections)?;
    let scene = Scene::new(options.directory)?;
    let pdcp = Pdcp::with_own_key(options.pdcp, scene.directory());
    let mut pair = scene.pair("long-path", FILE_BYTES, Texture::Data)?;
    let mut samples = Vec::new();
    for run in 0..options.runs {
        for connections in options.connections {
            for program in options.programs {
                let sample = path.sample(*program, *connections, run, &pdcp, &mut pair);
                let sample =
                    sample.map_err(|error| error.about(&format!("{}, {}", row(*connections), program.name())))?;
                let [there, back] = path.relay.passed();
                log.tell(&sample)?;
                tell!("    {there} there, {back} back");
                samples.push(sample);
            }
        }
    }
    Ok(Outcome { samples, proof })
}

/// The round trip, and what plain TCP reaches. Also told on standard error.
fn prove(path: &LongPath, connections: &[u32]) -> Result<Vec<String>> {
    let mut proof = Vec::new();
    let mut note = |what: String| {
        tell!("long path: {what}");
        proof.push(what);
    };
    let algorithm = path.spaces.congestion_control()?;
    let round_trip = proof::round_trip(&path.spaces)?;
    note(format!("a connect takes {:.1} ms; congestion control {algorithm}", round_trip.as_secs_f64() * 1e3));
    for connections in connections {
        path.spaces.forget()?;
        let took = proof::bulk(&path.spaces, *connections, FILE_BYTES)?.as_secs_f64();
        let megabits = FILE_BYTES as f64 * 8.0 / took / 1e6;
        let [there, back] = path.relay.passed();
        note(format!("plain TCP, {connections} connections: {took:.3} s, {megabits:.0} Mbit/s"));
        tell!("    {there} there, {back} back");
    }
    Ok(proof)
}

impl LongPath {
    /// One first copy: timed, then compared.
    fn sample(&self, program: Program, connections: u32, run: u32, pdcp: &Pdcp, pair: &mut Pair) -> Result<Sample> {
        pair.set(&Basis::Missing)?;
        self.spaces.forget()?;
        let mut command = pdcp.command();
        command.args(["--quiet", "--serve", &format!("{}:{PORT}", Side::Far.address())]);
        command.stderr(File::create(pair.target.with_extension("server"))?);
        let server = self.spaces.inside(Side::Far, || Server::start(&mut command, PORT))?;
        let printed = pair.target.with_extension("printed");
        let (seconds, client) = self.copy(program, connections, pdcp, pair, &printed)?;
        let server = server.end()?;
        let printed = fs::read_to_string(&printed)?;
        if !client.status.success() {
            return Err(Error::Program(format!("{}, {}", ending(client.status), printed.trim())));
        }
        pair.compare()?;
        Ok(Sample {
            row: row(connections),
            program: program.name().into(),
            run,
            seconds,
            moved_bytes: program.moved_bytes(&printed)?,
            client_cpu_seconds: client.cpu_seconds,
            server_cpu_seconds: Some(server.cpu_seconds),
            // A process begins with the peak of the one that starts it, and the relay's queues are in ours.
            client_peak_bytes: None,
            server_peak_bytes: None,
        })
    }

    fn copy(
        &self,
        program: Program,
        connections: u32,
        pdcp: &Pdcp,
        pair: &Pair,
        printed: &Path,
    ) -> Result<(f64, Ended)> {
        let there = |path: &Path| format!("{}:{PORT}:{}", Side::Far.address(), path.display()).into();
        let mut command = pdcp.command();
        command.args(["--json", "--connections", &connections.to_string()]);
        if program == Program::PdcpPush {
            command.args([pair.source.clone(), there(&pair.target)]);
        } else {
            command.args([there(&pair.source), pair.target.clone()]);
        }
        let printed = File::create(printed)?;
        command.stdout(printed.try_clone()?).stderr(printed);
        let start = Instant::now();
        let client = self.spaces.inside(Side::Near, || Process::start(&mut command))?.wait(LIMIT)?;
        Ok((start.elapsed().as_secs_f64(), client))
    }
}
