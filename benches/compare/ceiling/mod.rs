//! The ceiling: what this machine does at most, and from it the least time of each row of the comparison.
//!
//! Both ends are on this machine, so what both have to do is done by the same cores. A row is measured as a whole, by
//! lanes that do a core's share of it and nothing else (see [`lane`]); its parts are measured for people to see. Beyond
//! that a row has to start, connect and commit, which pdcp does for an empty file as for any, and has to get its writes
//! into one inode, which takes one writer at a time. What may be added: waiting for a disk, so there it is a lower bound.
//! Not counted as possible: mapping files, which saves a copy and kills the program when somebody truncates one.
//!
//! Machines are noisy: everything is measured again and again, between the rows, and medians count.

mod lane;
mod start;

use crate::sample;
use crate::scene::REST;
use crate::subject::Pdcp;
use core_affinity::CoreId;
use lane::{Basis, CHUNK_BYTES, Duty, Lane, PIECE_BYTES, Sample, Written};
use start::Starter;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread;

/// What is copied to and fro: well above any cache, and enough places of the source. A server's last cache has up to a
/// gigabyte, and what a lane finds there does not come from memory, as most of a large file does.
const SAMPLE_BYTES: u64 = 1 << 30;

/// What a row has to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RowKind {
    /// A basis is read and hashed where it is equal; what differs, as its first bytes tell, is carried and written.
    Delta,
    /// Everything is carried and written over what is there (`-W`).
    Whole,
    /// Everything is carried and written where nothing is.
    FirstCopy,
    /// A basis is read; what differs is written. Both ends in one process.
    LocalDelta,
    /// Everything is written where nothing is. Both ends in one process.
    LocalFirstCopy,
}

/// Something that is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Measure {
    /// Seconds of a copy of an empty file to a server, or within one process.
    Start,
    LocalStart,
    /// Bytes a second, by one lane or one on each core, with a target each: what the cores can do.
    Work(Cores, Duty),
    /// Bytes a second, by one lane or one on each core, into one target: what an inode takes.
    Inode(Cores, Duty),
    /// Bytes a second over one connection, or one for each core, whose ends are on different cores.
    Across(Cores),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cores {
    One,
    All,
}

const NOTHING: Duty = Duty { source: false, basis: Basis::Unread, carried: false, written: Written::Nowhere };
const READ: Duty = Duty { source: true, ..NOTHING };
const CARRY: Duty = Duty { carried: true, ..NOTHING };
const WRITE_OVER: Duty = Duty { written: Written::Over, ..NOTHING };
const WRITE_NEW: Duty = Duty { written: Written::New, ..NOTHING };
const EQUAL: Duty = Duty { basis: Basis::Hashed, ..READ };
const WHOLE: Duty = Duty { carried: true, written: Written::Over, ..READ };
const FIRST: Duty = Duty { written: Written::New, ..WHOLE };
const LOCAL_EQUAL: Duty = Duty { basis: Basis::Compared, ..READ }; // what equals the source has its digest
const LOCAL_DIFFERENT: Duty = Duty { basis: Basis::Read, written: Written::Over, ..READ };
const LOCAL_FIRST: Duty = Duty { written: Written::New, ..READ };

/// All that is measured, in this order: what frees memory comes last, since the kernel is busy with it afterwards.
const MEASURES: [(&str, Measure); 18] = [
    ("start, connect, commit", Measure::Start),
    ("start, commit; both ends local", Measure::LocalStart),
    ("read + hash, one core", Measure::Work(Cores::One, READ)),
    ("read + hash, all cores", Measure::Work(Cores::All, READ)),
    ("send + receive, one pair on one core", Measure::Work(Cores::One, CARRY)),
    ("send + receive, a pair on each core", Measure::Work(Cores::All, CARRY)),
    ("send + receive, one pair across cores", Measure::Across(Cores::One)),
    ("send + receive, as many pairs across cores", Measure::Across(Cores::All)),
    ("write over one inode, one core", Measure::Inode(Cores::One, WRITE_OVER)),
    ("write over one inode, all cores", Measure::Inode(Cores::All, WRITE_OVER)),
    ("what is equal, all cores", Measure::Work(Cores::All, EQUAL)),
    ("what differs, all cores", Measure::Work(Cores::All, WHOLE)),
    ("what is equal, local, all cores", Measure::Work(Cores::All, LOCAL_EQUAL)),
    ("what differs, local, all cores", Measure::Work(Cores::All, LOCAL_DIFFERENT)),
    ("write a new inode, one core", Measure::Inode(Cores::One, WRITE_NEW)),
    ("write a new inode, all cores", Measure::Inode(Cores::All, WRITE_NEW)),
    ("what is new, all cores", Measure::Work(Cores::All, FIRST)),
    ("what is new, local, all cores", Measure::Work(Cores::All, LOCAL_FIRST)),
];

/// See the module.
#[derive(Debug)]
pub(crate) struct Ceiling {
    cores: Vec<CoreId>,
    starter: Starter,
    source: Arc<File>,
    /// A target for each lane. What is written there is what is there: its sample of the source.
    targets: Vec<Arc<File>>,
    /// A target for all lanes, with anything in it.
    inode: Arc<File>,
    directory: PathBuf,
    /// Chunks of a lane.
    chunks: u64,
    source_step_bytes: u64,
    /// Chunks that each lane has visited.
    visits: Vec<Arc<AtomicU64>>,
    /// Results of each of [`MEASURES`].
    results: [Vec<f64>; MEASURES.len()],
}

impl Ceiling {
    /// What its files take at most, for a source of so many bytes: the lanes' targets, the one inode, and a new file.
    pub(crate) fn scratch_bytes(source_bytes: u64) -> u64 {
        3 * source_bytes.min(SAMPLE_BYTES)
    }

    /// Measures in `directory`, with `source_file`, which should be in the page cache, and this pdcp. `None`: the file is
    /// too short to measure with.
    pub(crate) fn new(directory: &Path, source_file: &Path, pdcp: &Pdcp) -> io::Result<Option<Self>> {
        let cores = core_affinity::get_core_ids().ok_or_else(|| io::Error::other("no cores to pin lanes to"))?;
        let source = File::open(source_file)?;
        let source_bytes = source.metadata()?.len();
        let lanes = cores.len() as u64;
        let Some(log) = (source_bytes.min(SAMPLE_BYTES) / (lanes * CHUNK_BYTES)).checked_ilog2() else {
            return Ok(None);
        };
        let chunks: u64 = 1 << log;
        let source_step_bytes = source_bytes / (chunks * lanes) / PIECE_BYTES as u64 * PIECE_BYTES as u64;
        let ceiling = Self {
            starter: Starter::new(directory, pdcp)?,
            source: Arc::new(source),
            targets: cores.iter().map(|_| scratch(directory)).collect::<io::Result<_>>()?,
            inode: scratch(directory)?,
            directory: directory.to_owned(),
            chunks,
            source_step_bytes,
            visits: cores.iter().map(|_| Arc::default()).collect(),
            results: std::array::from_fn(|_| Vec::new()),
            cores,
        };
        ceiling.lanes(Cores::All, &ceiling.targets).iter().try_for_each(fill)?;
        ceiling.lanes(Cores::All, &ceiling.shared(&ceiling.inode)).iter().try_for_each(fill)?;
        Ok(Some(ceiling))
    }

    /// Measures everything once more, in about three seconds after a rest.
    pub(crate) fn repeat(&mut self) -> io::Result<()> {
        thread::sleep(REST);
        for (index, (_, measure)) in MEASURES.iter().enumerate() {
            let result = match *measure {
                Measure::Start => self.starter.push_seconds(),
                Measure::LocalStart => self.starter.local_seconds(),
                Measure::Work(cores, duty) => self.work_rate(cores, duty),
                Measure::Inode(cores, duty) => self.inode_rate(cores, duty),
                Measure::Across(cores) => self.rate_across(cores),
            }?;
            self.results[index].push(result);
        }
        Ok(())
    }

    /// The least time of a row: of a file of so many bytes, of which this share differs (where there is a basis).
    ///
    /// # Panics
    /// If nothing was measured yet.
    pub(crate) fn least_seconds(&self, row: RowKind, changed_share: f64, bytes: u64) -> f64 {
        let bytes = bytes as f64;
        let seconds = |duty| bytes / self.median(Measure::Work(Cores::All, duty));
        let inode_seconds = |duty| {
            let rate = |cores| self.median(Measure::Inode(cores, duty));
            bytes / rate(Cores::One).max(rate(Cores::All))
        };
        let mixed = |equal, different| {
            let work = (1.0 - changed_share) * seconds(equal) + changed_share * seconds(different);
            work.max(changed_share * inode_seconds(WRITE_OVER))
        };
        let (start, work) = match row {
            RowKind::Delta => (Measure::Start, mixed(EQUAL, WHOLE)),
            RowKind::Whole => (Measure::Start, seconds(WHOLE).max(inode_seconds(WRITE_OVER))),
            RowKind::FirstCopy => (Measure::Start, seconds(FIRST).max(inode_seconds(WRITE_NEW))),
            RowKind::LocalDelta => (Measure::LocalStart, mixed(LOCAL_EQUAL, LOCAL_DIFFERENT)),
            RowKind::LocalFirstCopy => (Measure::LocalStart, seconds(LOCAL_FIRST).max(inode_seconds(WRITE_NEW))),
        };
        self.median(start) + work
    }

    /// What was measured, for people: medians, and what lies around them.
    pub(crate) fn table(&self) -> String {
        let mut table = String::new();
        for ((name, measure), results) in MEASURES.iter().zip(&self.results) {
            let (unit, scale) = match measure {
                Measure::Start | Measure::LocalStart => ("ms", 1e3),
                Measure::Work(..) | Measure::Inode(..) | Measure::Across(_) => ("GB/s", 1e-9),
            };
            let [least, middle, most] = spread(results).map(|result| result * scale);
            writeln!(table, "{name:<43} {middle:>6.2} {unit:<4} ({least:.2} to {most:.2})").expect("a string has room");
        }
        table
    }

    fn median(&self, wanted: Measure) -> f64 {
        let index = MEASURES.iter().position(|(_, measure)| *measure == wanted).expect("everything used is measured");
        middle(&self.results[index])
    }

    fn work_rate(&self, cores: Cores, duty: Duty) -> io::Result<f64> {
        let targets = match duty.written {
            Written::New => self.cores.iter().map(|_| scratch(&self.directory)).collect::<io::Result<_>>()?,
            Written::Nowhere | Written::Over => self.targets.clone(),
        };
        lane::rate(&self.lanes(cores, &targets), duty)
    }

    fn inode_rate(&self, cores: Cores, duty: Duty) -> io::Result<f64> {
        let target = match duty.written {
            Written::New => scratch(&self.directory)?,
            Written::Nowhere | Written::Over => Arc::clone(&self.inode),
        };
        lane::rate(&self.lanes(cores, &self.shared(&target)), duty)
    }

    fn rate_across(&self, cores: Cores) -> io::Result<f64> {
        let senders = self.some(cores);
        let mut receivers = self.cores.clone();
        receivers.rotate_left(1);
        lane::rate_across(senders, &receivers[..senders.len()])
    }

    /// So many lanes, each with its target.
    fn lanes(&self, cores: Cores, targets: &[Arc<File>]) -> Vec<Lane> {
        let lane = |(((&core, target), visits), lane): (((_, &Arc<File>), _), u64)| {
            let (source, target, visits) = (Arc::clone(&self.source), Arc::clone(target), Arc::clone(visits));
            let (lanes, chunks, source_step_bytes) = (self.cores.len() as u64, self.chunks, self.source_step_bytes);
            Lane { core, source, target, sample: Sample { lane, lanes, chunks, source_step_bytes }, visits }
        };
        self.some(cores).iter().zip(targets).zip(&self.visits).zip(0..).map(lane).collect()
    }

    /// One target for every lane.
    fn shared(&self, target: &Arc<File>) -> Vec<Arc<File>> {
        vec![Arc::clone(target); self.cores.len()]
    }

    fn some(&self, cores: Cores) -> &[CoreId] {
        match cores {
            Cores::One => &self.cores[..1],
            Cores::All => &self.cores,
        }
    }
}

/// A file without a name, which ends with us.
fn scratch(directory: &Path) -> io::Result<Arc<File>> {
    tempfile::tempfile_in(directory).map(Arc::new)
}

/// Gives a lane's target what the source holds.
fn fill(lane: &Lane) -> io::Result<()> {
    let mut chunk = vec![0; usize::try_from(CHUNK_BYTES).expect("small")];
    for (source_at, target_at) in (0..lane.sample.chunks).map(|visit| lane.sample.chunk(visit)) {
        lane.source.read_exact_at(&mut chunk, source_at)?;
        lane.target.write_all_at(&chunk, target_at)?;
    }
    Ok(())
}

/// Least, median and most.
fn spread(results: &[f64]) -> [f64; 3] {
    let least = results.iter().copied().fold(f64::INFINITY, f64::min);
    let most = results.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [least, middle(results), most]
}

fn middle(results: &[f64]) -> f64 {
    sample::middle(results.to_vec()).expect("measured before it is asked for")
}
