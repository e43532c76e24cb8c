//! What was typed.

use crate::size;
use clap::{Parser, ValueEnum};
use pdcp::limits::BLOCK_BYTES_MAX;
use std::path::{Path, PathBuf};

/// Measures pdcp beside rsync, pdiffcopy and cp, and says where it falls short of its goals.
///
/// The goals are for files of the default size and medians of 7 runs; of small files starting is most.
///
/// Exit code: 0 all goals that were measured are reached, 1 one falls short or a result was wrong, 2 usage, 130
/// interrupted.
#[derive(Debug, Parser)]
#[command(name = "bench.sh", bin_name = "scripts/bench.sh", args_override_self = true)]
pub(crate) struct Arguments {
    /// A host where `pdcp --serve` runs, and a directory on it that may be filled. Without it both ends are here
    #[arg(value_name = "HOST:PORT:/DIRECTORY", value_parser = remote)]
    pub(crate) remote: Option<String>,
    /// The same directory as rsync reaches it: rsync://HOST/MODULE/ or HOST:/DIRECTORY
    #[arg(long, value_name = "ADDRESS", requires = "remote")]
    pub(crate) rsync: Option<String>,

    /// Length of the file
    #[arg(long, default_value = "1920MB", value_parser = size)]
    pub(crate) size: u64,
    /// Shares of the file that are changed
    #[arg(long, value_name = "PERCENT,...", value_delimiter = ',', default_value = "0,10,50,100",
          value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) changed: Vec<u8>,
    /// Runs of each program on each row, in turn
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) runs: u32,
    /// Where the scratch directory is made
    #[arg(long, default_value = "/dev/shm")]
    pub(crate) directory: PathBuf,
    /// Each run begins with both files out of the page cache; wants a --directory on a disk
    #[arg(long)]
    pub(crate) cold: bool,
    /// Two files of your own for the row 'own files': the target holds BEFORE and is to become AFTER
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"])]
    pub(crate) files: Vec<PathBuf>,
    /// The row 'table': a real table of a database before and after an update. MariaDB makes it below DIRECTORY, once, and
    /// needs 4 GB there for a minute
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) innodb: Option<PathBuf>,
    /// A first copy of 1 GB over 25 ms and 1 Gbit/s each way, between two network namespaces; wants root
    #[arg(long)]
    pub(crate) long_path: bool,
    /// What TCP uses on the long path, such as cubic or bbr [default: this machine's]
    #[arg(long, value_name = "NAME", requires = "long_path")]
    pub(crate) congestion_control: Option<String>,
    /// Only rows that begin so: --rows 'identical,10 %', or of a sweep --rows=--block-size
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    pub(crate) rows: Vec<String>,
    /// Only programs that begin so, such as 'pdcp,rsync delta'
    #[arg(long, value_name = "PROGRAM,...", value_delimiter = ',')]
    pub(crate) programs: Vec<String>,
    /// pdcp pushes; with neither this nor --pull it does both
    #[arg(long)]
    pub(crate) push: bool,
    /// pdcp pulls
    #[arg(long)]
    pub(crate) pull: bool,

    /// pdcp's --connections, also on the long path, where 1 is measured beside it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=128))]
    pub(crate) connections: Option<u32>,
    /// pdcp's --concurrency, on both ends
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) workers: Option<u32>,
    /// pdcp's --block-size
    #[arg(long, value_name = "SIZE", value_parser = block_size)]
    pub(crate) block_size: Option<String>,
    /// pdcp does not wait for the disk, which no other program here does
    #[arg(long)]
    pub(crate) no_fsync: bool,
    /// Another pdcp than the one that was just built
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_pdcp"))]
    pub(crate) pdcp: PathBuf,
    /// Where pdiffcopy is, unless in PATH
    #[arg(long, value_name = "PATH", default_value = "pdiffcopy")]
    pub(crate) pdiffcopy: PathBuf,
    /// A program that compares with plain threads, to be compared with
    #[arg(long, value_name = "PATH")]
    pub(crate) yardstick: Option<PathBuf>,

    /// What else is measured
    #[arg(long, value_name = "SWEEP,...", value_delimiter = ',')]
    pub(crate) sweeps: Vec<Sweep>,
    /// All sweeps
    #[arg(long)]
    pub(crate) all: bool,
    /// Measures nothing of what the machine does at most
    #[arg(long)]
    pub(crate) no_ceiling: bool,

    /// Where raw figures, the machine's description and the report go
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) output: Option<PathBuf>,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Sweep {
    /// Bytes moved and time against the size of a block
    BlockSize,
    /// Rate against connections
    Connections,
    /// Both ends on one core, and on two
    Cores,
    /// Sealed and in the clear, between two network namespaces on one core; wants root, else it is skipped
    Sealed,
    /// A quarter of the file against the whole: time and memory
    Size,
    /// A file that is mostly holes, such as the image of a virtual machine; rsync is told --sparse
    Holes,
}

impl Arguments {
    pub(crate) fn wants(&self, sweep: Sweep) -> bool {
        self.all || self.sweeps.contains(&sweep)
    }

    /// Another pdcp than this repository's.
    pub(crate) fn other_pdcp(&self) -> Option<&Path> {
        Some(self.pdcp.as_path()).filter(|pdcp| *pdcp != Path::new(env!("CARGO_BIN_EXE_pdcp")))
    }

    pub(crate) fn wants_push(&self) -> bool {
        self.push || !self.pull
    }

    pub(crate) fn wants_pull(&self) -> bool {
        self.pull || !self.push
    }
}

/// As pdcp takes it, with the port and a path that begins at the server's root.
fn remote(text: &str) -> Result<String, String> {
    let has_digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = |port: &str| has_digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0);
    let before_path = text.find(":/").and_then(|at| text[..at].rsplit_once(':'));
    match before_path {
        Some((host, port)) if !host.is_empty() && is_port(port) => Ok(text.into()),
        _ => Err("no host with a directory, such as nas:9000:/srv/scratch; --directory is for one on this host".into()),
    }
}

fn size(text: &str) -> Result<u64, String> {
    size::parse(text).filter(|bytes| *bytes > 0).ok_or_else(|| "no size, such as 200MB or 1.5GiB".into())
}

/// As pdcp takes it: it is pdcp that rounds it up.
fn block_size(text: &str) -> Result<String, String> {
    let is_one = size::parse(text).is_some_and(|bytes| (1..=u64::from(BLOCK_BYTES_MAX)).contains(&bytes));
    if is_one { Ok(text.into()) } else { Err("no size of a block, such as 16KiB; at most 1 MiB".into()) }
}
