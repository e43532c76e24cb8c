//! A first copy over a long path: 25 ms and 1 Gbit/s each way, with a queue of 100 ms, between two network namespaces of
//! our own on this machine.
//!
//! The server runs in one, the client in the other, and a relay carries their IP packets. It shows what connections and
//! congestion control, windows and round trips come to, which loopback hides. Needs root; everything it makes goes away with it.

mod proof;
mod relay;
mod spaces;

use crate::sample::Sample;
use relay::{Relay, Shape};
use spaces::Spaces;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, thread};

/// The path: half of Europe, and what one port of a switch passes.
const SHAPE: Shape = Shape {
    delay: Duration::from_millis(25),
    bits_per_second: 1_000_000_000,
    queue: Duration::from_millis(100),
};
/// What TCP can carry of the rate at most, as file bytes: 949 Mbit/s; of it a copy should carry nine tenths.
pub(crate) const FILE_BITS_PER_SECOND: f64 = 949e6;
/// The server's port; in a namespace of our own nobody else has it.
const PORT: u16 = 9000;

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The program.
    pub(crate) pdcp: PathBuf,
    /// Where source and target are: on tmpfs, with room for both.
    pub(crate) directory: PathBuf,
    /// Of the source.
    pub(crate) bytes: u64,
    /// A row for each.
    pub(crate) connections: Vec<u32>,
    /// Of every row, interleaved.
    pub(crate) runs: u32,
    /// `cubic`, `bbr`; this machine's default if nobody says.
    pub(crate) congestion_control: Option<String>,
}

/// Why there are no figures.
#[derive(Debug)]
pub(crate) enum Error {
    /// What this machine or user has not, and how to get it.
    Lacking(&'static str),
    /// A command that sets the path up said no.
    Refused { command: String, said: String },
    /// `what` failed.
    Io { what: &'static str, error: io::Error },
    /// pdcp failed, and what it said.
    Copy(String),
    /// The target is not what the source is.
    Differs,
}

impl Error {
    fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io { what, error }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacking(what) => write!(f, "the long path needs {what}"),
            Self::Refused { command, said } => write!(f, "{command}: {said}"),
            Self::Io { what, error } => write!(f, "{what}: {error}"),
            Self::Copy(said) => write!(f, "pdcp failed: {said}"),
            Self::Differs => write!(f, "the target differs from the source"),
        }
    }
}

impl std::error::Error for Error {}

/// An end of the path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    /// Where the client is.
    Near,
    /// Where the server is.
    Far,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }

    /// From the block for benchmarks (RFC 2544).
    fn address(self) -> Ipv4Addr {
        match self {
            Self::Near => Ipv4Addr::new(198, 18, 0, 1),
            Self::Far => Ipv4Addr::new(198, 18, 0, 2),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Push,
    Pull,
}

/// Both namespaces and the relay between them. The relay goes first.
#[derive(Debug)]
struct LongPath {
    relay: Relay,
    spaces: Spaces,
}

impl LongPath {
    fn new(shape: Shape) -> Result<Self, Error> {
        let (spaces, [near, far]) = Spaces::new()?;
        let relay = Relay::start(near, far, shape).map_err(Error::io("relay"))?;
        Ok(Self { relay, spaces })
    }
}

/// Measures pdcp on the long path: a row for each number of connections, push and pull. Says on standard error what the
/// path itself does.
///
/// # Errors
/// What is lacking here, or what went wrong; a target that differs is an error, not a figure.
pub(crate) fn run(options: &Options) -> Result<Vec<Sample>, Error> {
    let path = LongPath::new(SHAPE)?;
    if let Some(algorithm) = &options.congestion_control {
        path.spaces.congestion_control(algorithm)?;
    }
    prove(&path, options)?;
    let (source, target) = (options.directory.join("long-path.source"), options.directory.join("long-path.target"));
    let _scratch = Scratch([&source, &target]);
    random_file(&source, options.bytes).map_err(Error::io("source"))?;
    let mut server = Server::start(&path.spaces, &options.pdcp)?;
    let mut samples = Vec::new();
    for run in 0..options.runs {
        for connections in &options.connections {
            for direction in [Direction::Push, Direction::Pull] {
                let sample = copy(&path, &mut server, options, *connections, direction, [&source, &target])?;
                let [there, back] = path.relay.passed();
                eprintln!("{}, {}: {:.3} s; so far {there}, {back}", sample.row, sample.program, sample.seconds);
                samples.push(Sample { run, ..sample });
            }
        }
    }
    Ok(samples)
}

/// What the path does without pdcp, so that nobody has to believe in the relay.
fn prove(path: &LongPath, options: &Options) -> Result<(), Error> {
    let round_trip = proof::round_trip(&path.spaces)?;
    eprintln!("long path: a connect takes {:.1} ms", round_trip.as_secs_f64() * 1e3);
    for connections in &options.connections {
        path.spaces.forget()?;
        let took = proof::bulk(&path.spaces, *connections, options.bytes)?;
        let rate = megabits(options.bytes, took.as_secs_f64());
        let [there, back] = path.relay.passed();
        eprintln!("plain TCP, {connections} connections: {rate:.0} Mbit/s; so far {there}, {back}");
    }
    Ok(())
}

fn megabits(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 * 8.0 / seconds / 1e6
}

/// One first copy, timed, compared, and removed again.
fn copy(
    path: &LongPath,
    server: &mut Server,
    options: &Options,
    connections: u32,
    direction: Direction,
    [source, target]: [&Path; 2],
) -> Result<Sample, Error> {
    path.spaces.forget()?;
    let remote = |path: &Path| format!("{}:{PORT}:{}", Side::Far.address(), path.display());
    let local = |path: &Path| path.display().to_string();
    let (program, from, to) = match direction {
        Direction::Push => ("pdcp push", local(source), remote(target)),
        Direction::Pull => ("pdcp pull", remote(source), local(target)),
    };
    let server_cpu_seconds = server.cpu_seconds();
    let mut command = path.spaces.command(Side::Near, &options.pdcp);
    command.args(["--json", "--connections", &connections.to_string()]).args([from, to]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let began = Instant::now();
    let client = command.spawn().map_err(Error::io("pdcp"))?;
    let output = client.wait_with_output().map_err(Error::io("pdcp"))?;
    let seconds = began.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(Error::Copy(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    if !equal(source, target).map_err(Error::io("comparing"))? {
        return Err(Error::Differs);
    }
    fs::remove_file(target).map_err(Error::io("target"))?;
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(Sample {
        row: format!("long path, {connections} connections"),
        program: program.into(),
        run: 0,
        seconds,
        moved_bytes: summary["changed_bytes"].as_u64(),
        client_cpu_seconds: 0.0,
        server_cpu_seconds: server.cpu_seconds() - server_cpu_seconds,
        client_peak_bytes: 0,
        server_peak_bytes: 0,
    })
}

/// `pdcp --serve` at the far end, until it is dropped.
#[derive(Debug)]
struct Server(Child);

impl Server {
    fn start(spaces: &Spaces, pdcp: &Path) -> Result<Self, Error> {
        let mut command = spaces.command(Side::Far, pdcp);
        command.args(["--serve", &format!("{}:{PORT}", Side::Far.address())]);
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(Error::io("pdcp --serve"))?;
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let server = Self(child);
        let mut lines = said.by_ref().lines().map_while(Result::ok);
        if !lines.any(|line| line.contains("listening on")) {
            return Err(Error::Copy("the server did not start".into()));
        }
        // What it says later is a line a session: read, so that it never waits for us.
        thread::spawn(move || io::copy(&mut said, &mut io::sink()));
        Ok(server)
    }

    fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.0.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name in brackets may hold anything; user and system time are the 12th and 13th field behind it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Files that go when this does.
struct Scratch<'a>([&'a Path; 2]);

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(fs::remove_file(path)));
    }
}

/// What does not compress and has no holes.
fn random_file(path: &Path, bytes: u64) -> io::Result<()> {
    let mut random = File::open("/dev/urandom")?.take(bytes);
    io::copy(&mut random, &mut File::create(path)?).map(drop)
}

fn equal(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut ours, mut theirs) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let read = one.read(&mut ours)?;
        if read == 0 {
            return Ok(other.read(&mut theirs)? == 0);
        }
        match other.read_exact(&mut theirs[..read]) {
            Ok(()) if ours[..read] == theirs[..read] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
