//! The least time of each row, measured between the rounds of its section: what the machine does at most changes from
//! minute to minute, and a bound of another minute would flatter or slander.
//!
//! In memory by the lanes of [`crate::ceiling`]; on a disk, cold, by fio, for what is identical.

use crate::arguments::Arguments;
use crate::ceiling::{Ceiling, RowKind};
use crate::disk::{self, FioError};
use crate::goals;
use crate::peers::{Peers, Program};
use crate::process::{Error, Result};
use crate::rows::{Row, Section};
use crate::sample::{self, Figure, Sample};
use crate::scene::{Basis, Pair};
use crate::subject::Pdcp;
use std::path::{Path, PathBuf};

/// What bounds a section's rows.
#[derive(Debug)]
pub(crate) enum Bounds {
    Nothing,
    /// What the cores and the memory do.
    Memory(Box<Ceiling>),
    /// Seconds that `fio` took, and with how many readers of each file.
    Disk {
        fio: PathBuf,
        seconds: Vec<f64>,
        workers: u32,
    },
}

impl Bounds {
    /// What the bounds of a pair take at most, beside it in its directory.
    pub(crate) fn scratch_bytes(arguments: &Arguments, source_bytes: u64) -> u64 {
        let has_lanes = !arguments.no_ceiling && arguments.remote.is_none() && !arguments.cold;
        if has_lanes { Ceiling::scratch_bytes(source_bytes) } else { 0 }
    }

    /// Of a section that is measured with this pair.
    pub(crate) fn new(
        arguments: &Arguments,
        peers: &Peers,
        section: &Section,
        directory: &Path,
        pair: &Pair,
    ) -> Result<Self> {
        if arguments.no_ceiling || arguments.remote.is_some() || !section.is_bounded {
            return Ok(Self::Nothing);
        }
        if arguments.cold {
            let Some(fio) = peers.fio() else { return Ok(Self::Nothing) };
            let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
            let workers = arguments.workers.unwrap_or(cores);
            return Ok(Self::Disk { fio: fio.into(), seconds: Vec::new(), workers });
        }
        let ceiling = Ceiling::new(directory, &pair.source, &Pdcp::with_own_key(&arguments.pdcp, directory))?;
        Ok(ceiling.map_or(Self::Nothing, |ceiling| Self::Memory(Box::new(ceiling))))
    }

    /// Measures once more.
    pub(crate) fn repeat(&mut self, pair: &mut Pair) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Memory(ceiling) => Ok(ceiling.repeat()?),
            Self::Disk { fio, seconds, workers } => {
                pair.set(&Basis::Changed { percent: 0 })?;
                pair.cool()?;
                match disk::fio_read_seconds(fio, &[pair.source.clone(), pair.target.clone()], *workers) {
                    Ok(took) => seconds.push(took),
                    Err(FioError::World(error)) => return Err(error.into()),
                    Err(failed @ FioError::Failed(_)) => return Err(Error::Program(failed.to_string())),
                }
                Ok(())
            }
        }
    }

    /// What was measured, for people, and what it means for each row. Of two states of a file, what differs is what moved.
    pub(crate) fn tell(self, section: &Section, pair: &Pair, samples: &[Sample]) -> (String, Vec<goals::Ceiling>) {
        match self {
            Self::Nothing => (String::new(), Vec::new()),
            Self::Memory(ceiling) => {
                let least = |row: &Row| {
                    let (kind, share) = kind_of(row, pair, samples)?;
                    Some(goals::Ceiling::new(&row.name, ceiling.least_seconds(kind, share, pair.bytes), samples))
                };
                (ceiling.table(), section.rows.iter().filter_map(least).collect())
            }
            Self::Disk { seconds, .. } => {
                let identical = |row: &&Row| row.basis == Basis::Changed { percent: 0 };
                let least = sample::middle(seconds);
                let ceiling = |row: &Row| Some(goals::Ceiling::new(&row.name, least?, samples));
                let ceilings = section.rows.iter().filter(identical).filter_map(ceiling).collect();
                (least.map_or(String::new(), |least| format!("fio reads both files in {least:.3} s\n")), ceilings)
            }
        }
    }
}

/// What a row has to do, and the share of it that differs.
fn kind_of(row: &Row, pair: &Pair, samples: &[Sample]) -> Option<(RowKind, f64)> {
    let is_local = row.programs.contains(&Program::PdcpLocal);
    let is_whole = row.pdcp_options.iter().any(|option| option == "--whole-file");
    match &row.basis {
        Basis::Missing if is_local => Some((RowKind::LocalFirstCopy, 1.0)),
        Basis::Missing => Some((RowKind::FirstCopy, 1.0)),
        Basis::Changed { .. } if is_whole && !is_local => Some((RowKind::Whole, 1.0)),
        Basis::Changed { .. } => {
            let kind = if is_local { RowKind::LocalDelta } else { RowKind::Delta };
            Some((kind, pair.changed_bytes(&row.basis)? as f64 / pair.bytes as f64))
        }
        Basis::Copied(_) => {
            let by = |program: Program| sample::median(samples, &row.name, program.name(), Figure::MovedBytes);
            let moved = by(Program::PdcpPush).or_else(|| by(Program::PdcpPull));
            Some((RowKind::Delta, moved? / pair.bytes as f64))
        }
        Basis::Scattered => None,
    }
}
