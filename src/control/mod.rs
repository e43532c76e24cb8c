//! The control plane: what was asked for, who talks to whom, and how it ended. It never touches bulk bytes.
//!
//! `client` asks, `server` serves; both run the same session machine from `session`. Only here and on the command line
//! are there clients and servers: everything below knows sources and targets.

pub mod access;
mod audit;
pub mod benchmark;
pub mod client;
mod crew;
mod dial;
mod door;
mod drive;
mod files;
mod former;
pub mod fuzz;
pub mod identity;
mod link;
mod listen;
mod neighbour;
mod notify;
mod own;
mod record;
mod room;
mod seats;
pub mod server;
mod signals;
mod teller;
mod user;

pub use record::{Done, Record, Request};

use crate::bottleneck::Limit;
use crate::completion::DirectPolicy;
use crate::digest::Digest;
use crate::entry::Timestamp;
use crate::extent::BlockSize;
use crate::failure::Failure;
use crate::method::Method;
use crate::seal::Sealing;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// One end of a copy, as typed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// A path on this host.
    Local(PathBuf),
    /// A path on a server.
    Remote(Remote),
}

/// A path on a server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remote {
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The path from the server's root, any bytes but NUL, nothing decoded; with or without a leading `/`.
    pub path: Vec<u8>,
}

/// How many workers this process has, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkersConfig {
    /// `-c`; by default the cores this process may use, at most 16.
    pub count: Option<u32>,
    /// `--cpus`: which of the cores this process may use; `None` means all of them.
    pub cpus: Option<Vec<usize>>,
    /// Pin each worker to a core (not with `--no-pin`).
    pub pin: bool,
}

/// One copy to make.
#[derive(Clone, Debug)]
pub struct CopyConfig {
    /// Where the wanted bytes are.
    pub source: Place,
    /// The source exactly as typed.
    pub source_typed: Vec<u8>,
    /// Where they shall be. At most one of the two is remote.
    pub target: Place,
    /// The target exactly as typed.
    pub target_typed: Vec<u8>,
    /// `-b`, rounded.
    pub block_size: BlockSize,
    /// `-m`.
    pub method: Method,
    /// `-W`: send everything, do not read what the target has.
    pub whole_file: bool,
    /// `-n`: compare, but write and create nothing.
    pub dry_run: bool,
    /// `--verify`: read back what was written and compare.
    pub verify: bool,
    /// `--inplace`: update a target that has several links.
    pub inplace: bool,
    /// Not `--no-fsync`: what is reported done is on disk.
    pub fsync: bool,
    /// `--direct`.
    pub direct: DirectPolicy,
    /// `--key-file`.
    pub key_file: Option<PathBuf>,
    /// `--plaintext`: nothing is sealed, if the other end wants it so too.
    pub plaintext: bool,
    /// `--connections`.
    pub connections: Option<u32>,
    /// Workers on this side.
    pub workers: WorkersConfig,
}

/// One server to run.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Where to listen.
    pub listen: Listen,
    /// `--audit-log`.
    pub audit_log: Option<PathBuf>,
    /// `--key-file`.
    pub key_file: Option<PathBuf>,
    /// `--plaintext`: nothing is sealed, if the other end wants it so too.
    pub plaintext: bool,
    /// `--root`.
    pub served: access::Served,
    /// `--read-only`, `--no-delete`: what every peer may do.
    pub access: access::Access,
    /// `--run-as`: who to become once the port is taken and what is served is held.
    pub run_as: Option<String>,
    /// `--direct`.
    pub direct: DirectPolicy,
    /// Most connections of one session (`--connections`, by default the protocol's limit).
    pub connections_max: u32,
    /// Workers on this side.
    pub workers: WorkersConfig,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Listen {
    /// Where it was told to.
    At {
        /// `None` means all addresses, IPv6 and IPv4, or IPv4 where there is no IPv6.
        address: Option<IpAddr>,
        /// 0 lets the kernel choose.
        port: u16,
    },
    /// At the sockets that systemd hands over (socket activation).
    Systemd,
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// To the server.
    Push,
    /// From the server.
    Pull,
    /// Both ends here.
    Local,
}

impl Direction {
    /// As programs are told it.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Push => "push",
            Direction::Pull => "pull",
            Direction::Local => "local",
        }
    }
}

/// What things are called in a session's failures.
#[derive(Clone, Debug)]
struct Names {
    source: Vec<u8>,
    target: Vec<u8>,
    peer: Vec<u8>,
    /// This process.
    own: Vec<u8>,
    target_is_here: bool,
}

/// How far a copy is, as a person watches it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// The source's length.
    pub source_bytes: u64,
    /// Bytes done at the target, holes and what was equal included.
    pub done_bytes: u64,
    /// Of them, what was equal.
    pub matched_bytes: u64,
    /// What limits it at present, if anything stands out.
    pub limit: Option<Limit>,
    /// For how long nothing has moved at either end. Bytes are done by the stripe: they may stand still for longer.
    pub still: Duration,
}

/// Who is told how it goes, while it goes. Nothing it does may change the copy.
pub trait Watch {
    /// A line that belongs to the present copy or server and that everybody should see, such as a warning.
    fn warn(&mut self, line: &str);
    /// A line for those who asked for detail (`-v`).
    fn detail(&mut self, line: &str);
    /// A server accepts connections at this address.
    fn listening(&mut self, address: SocketAddr);
    /// A server is done with a caller.
    fn session(&mut self, record: &Record);
    /// A server, or whoever has the target, is waited for from now on, until there is progress.
    fn waiting(&mut self, whom: &str);
    /// Called ten times a second or so while bytes move.
    fn progress(&mut self, progress: Progress);
}

/// How a copy ended: everything that `--json` and the closing lines say. Complete also when it failed; `None` means
/// unknown.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Which way; unknown after a usage error.
    pub direction: Option<Direction>,
    /// `-n` was given; unknown after a usage error.
    pub dry_run: Option<bool>,
    /// As typed; empty when unknown.
    pub source: Vec<u8>,
    /// As typed, the taken name appended.
    pub target: Vec<u8>,
    /// The source's length.
    pub source_bytes: Option<u64>,
    /// The source's modification time; a device has none that means anything.
    pub source_mtime: Option<Timestamp>,
    /// Bytes that were already there.
    pub matched_bytes: Option<u64>,
    /// Bytes that moved because they differed.
    pub changed_bytes: Option<u64>,
    /// Bytes that differed and were made as holes.
    pub hole_bytes: Option<u64>,
    /// Blocks that differed, for people.
    pub changed_blocks: Option<u64>,
    /// Given to this side's sockets.
    pub wire_sent_bytes: Option<u64>,
    /// Taken from this side's sockets.
    pub wire_received_bytes: Option<u64>,
    /// Matched part of the source.
    pub similarity: Option<f64>,
    /// The target was changed (with `-n`: would be), its length or modification time included.
    pub changed: Option<bool>,
    /// The target is still missing; what was made of it has this name beside it.
    pub kept: Option<String>,
    /// The source's BLAKE3.
    pub digest: Option<Digest>,
    /// Both ends had the same digest.
    pub verified: bool,
    /// `--verify` did its part.
    pub read_back: bool,
    /// What has kept others from what went over the network. `None`: nothing went there.
    pub sealing: Option<Sealing>,
    /// It was a benchmark, and this is what it leaves of its target. `None`: a copy, or a benchmark that has not come so far.
    pub aftermath: Option<Aftermath>,
    /// From the start of the copy, or of a benchmark or a server as a whole.
    pub elapsed_seconds: f64,
    /// What limited it, if anything stands out.
    pub limit: Option<Limit>,
    /// What went wrong, most important first. Empty: it went well.
    pub failures: Vec<Failure>,
    /// The signal that stopped it.
    pub signal: Option<i32>,
}

/// What a benchmark leaves of its target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Aftermath {
    /// It equals the source.
    Level,
    /// It may be mutated.
    Mutated {
        /// The command that brings it back.
        remedy: Vec<u8>,
    },
}

impl Summary {
    /// 0, or the first failure's code; 128 + the signal that interrupted.
    pub fn exit_code(&self) -> u8 {
        match (self.failures.first(), self.signal) {
            (None, _) => 0,
            (Some(failure), Some(signal)) if failure.kind == crate::failure::Kind::Interrupted => {
                u8::try_from(128 + signal).unwrap_or(130)
            }
            (Some(failure), _) => failure.kind.exit_code(),
        }
    }
}

/// Workers or connections, of which there are few.
fn count<T>(all: &[T]) -> u32 {
    u32::try_from(all.len()).expect("bounded by limits")
}
