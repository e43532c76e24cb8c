//! What the disk gives, measured by fio: the files of an identical copy read as pdcp reads them when they are cold.
//!
//! Both files at the same time, past the page cache, each by as many readers as there are connections, which take its
//! stripes in turn. pdcp hashes what it reads, fio throws it away.

use pdcp::extent::Deal;
use pdcp::limits::{LARGE_BUFFER_BYTES, LARGE_BUFFERS, SESSION_EXTENTS_MIN};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Reads in flight at one reader: a session's minimum of extents and half of the rest.
const DEPTH: usize = SESSION_EXTENTS_MIN + (LARGE_BUFFERS - SESSION_EXTENTS_MIN).div_ceil(2);

/// Why there is no figure.
#[derive(Debug)]
pub(crate) enum FioError {
    /// It cannot be run, or a file cannot be looked at.
    World(io::Error),
    /// It ran, and this is what it said.
    Failed(String),
}

impl std::fmt::Display for FioError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::World(error) => write!(f, "fio: {error}"),
            Self::Failed(said) => write!(f, "fio: {said}"),
        }
    }
}

impl std::error::Error for FioError {}

impl From<io::Error> for FioError {
    fn from(error: io::Error) -> Self {
        Self::World(error)
    }
}

/// Seconds that `fio` takes to read these files at the same time, where each side has so many workers. It evicts them first.
pub(crate) fn fio_read_seconds(fio: &Path, files: &[PathBuf], workers: u32) -> Result<f64, FioError> {
    let mut jobs = String::from("[global]\nrw=read\ndirect=1\nioengine=io_uring\n");
    writeln!(jobs, "bs={LARGE_BUFFER_BYTES}\niodepth={DEPTH}\nzonemode=strided").expect("a string has room");
    for file in files {
        add_readers(&mut jobs, file, std::fs::metadata(file)?.len(), workers);
    }
    let output = run(fio, &jobs)?;
    if !output.status.success() {
        return Err(FioError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    longest_seconds(&output.stdout).ok_or_else(|| FioError::Failed("has no result that can be read".into()))
}

/// The readers of one file. What is left of it behind the last whole extent is not read: fio has no short reads.
fn add_readers(jobs: &mut String, file: &Path, file_bytes: u64, workers: u32) {
    let deal = Deal::new(file_bytes, workers, workers, workers, true);
    let (stripe_bytes, readers) = (deal.stripe_bytes, u64::from(deal.connections));
    let file_bytes = file_bytes - file_bytes % LARGE_BUFFER_BYTES as u64;
    let name = file.to_string_lossy().replace(':', "\\:"); // a colon would separate two files
    for reader in 0..readers {
        let offset = reader * stripe_bytes;
        let stripes = (offset..file_bytes).step_by(usize::try_from(readers * stripe_bytes).expect("at most 4 GiB"));
        let bytes: u64 = stripes.map(|start| stripe_bytes.min(file_bytes - start)).sum();
        let skip_bytes = (readers - 1) * stripe_bytes;
        writeln!(
            jobs,
            "[reader]\nfilename={name}\noffset={offset}\nio_size={bytes}\nzonesize={stripe_bytes}\nzoneskip={skip_bytes}"
        )
        .expect("a string has room");
    }
}

fn run(fio: &Path, jobs: &str) -> Result<Output, FioError> {
    let mut fio = Command::new(fio);
    // Into huge pages, as pdcp: in small ones a disk may take an extent in two requests, which reads at half the rate.
    fio.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
    fio.args(["--output-format=json", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut fio = fio.spawn()?;
    fio.stdin.take().expect("piped").write_all(jobs.as_bytes())?;
    Ok(fio.wait_with_output()?)
}

/// What the slowest reader took; all begin together.
fn longest_seconds(json: &[u8]) -> Option<f64> {
    let result: Value = serde_json::from_slice(json).ok()?;
    let readers = result["jobs"].as_array()?;
    let runtimes_ms: Option<Vec<f64>> = readers.iter().map(|reader| reader["read"]["runtime"].as_f64()).collect();
    runtimes_ms?.into_iter().reduce(f64::max).map(|runtime_ms| runtime_ms / 1e3)
}
