//! Writes what a run found out into a directory: the machine, and a page with tables and charts.
//!
//! Nothing is measured or judged here. All figures shown are medians of the samples, taken by [`sample::median`]; the
//! samples themselves are in [`RAW`] already, so that everything on the page can be had from it again.
//!
//! [`sample::median`]: crate::sample::median

mod charts;
mod machine;
mod page;

pub(crate) use machine::Machine;

use crate::goals::{Ceiling, Verdict};
use crate::sample::Sample;
use std::path::Path;
use std::{fmt, fs, io};

/// Name of the file that has all samples, in a report's directory.
pub(crate) const RAW: &str = "raw.csv";

/// All that a run found out.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) machine: Machine,
    /// What is shown, in this order.
    pub(crate) tables: Vec<Table>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) ceilings: Vec<Ceiling>,
    /// In the order of the goals; empty where none apply.
    pub(crate) verdicts: Vec<Verdict>,
    /// What failed, or had a wrong result.
    pub(crate) failures: Vec<String>,
    /// What was asked for, and could not be had.
    pub(crate) skipped: Vec<String>,
}

/// Rows and programs, by the names that the samples have them by, in the order to be shown.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) shape: Shape,
    pub(crate) rows: Vec<Row>,
    pub(crate) programs: Vec<String>,
    /// What has to be known to read it.
    pub(crate) notes: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// How much of the file differs at the start; `None` where nobody knows.
    pub(crate) changed_bytes: Option<u64>,
}

/// What is drawn of a table. In a sweep the number that is swept over ends the name of each row.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    /// Seconds of each program: all such tables share a chart.
    Bars,
    /// Bytes moved and seconds against bytes of a block.
    BlockSizes,
    /// File bytes a second against the number of connections.
    Connections,
    /// Nothing.
    Undrawn,
}

/// What went wrong on the way to the disk.
#[derive(Debug)]
pub(crate) enum ReportError {
    Io(io::Error),
    Csv(csv::Error),
    Json(serde_json::Error),
    Chart(String),
}

pub(crate) fn write(run: &Run, directory: &Path) -> Result<(), ReportError> {
    fs::create_dir_all(directory)?;
    write_ceilings(&run.ceilings, &directory.join("ceilings.csv"))?;
    fs::write(directory.join("machine.json"), serde_json::to_string_pretty(&run.machine)? + "\n")?;
    let charts = charts::draw(run, directory)?;
    fs::write(directory.join("README.md"), page::page(run, &charts))?;
    Ok(())
}

fn write_ceilings(ceilings: &[Ceiling], path: &Path) -> Result<(), ReportError> {
    let mut file = csv::Writer::from_path(path)?;
    file.write_record(["row", "seconds", "parts_seconds", "beaten_by"])?;
    for ceiling in ceilings {
        let beaten_by = ceiling.beaten_by.as_ref().map(|(program, _)| program);
        file.serialize((&ceiling.row, ceiling.seconds(), ceiling.parts_seconds, beaten_by))?;
    }
    Ok(file.flush()?)
}

/// For people.
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

impl Run {
    /// The least seconds that the machine can do `row` in, where that was measured.
    fn ceiling(&self, row: &str) -> Option<&Ceiling> {
        self.ceilings.iter().find(|ceiling| ceiling.row == row)
    }
}

impl From<io::Error> for ReportError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<csv::Error> for ReportError {
    fn from(error: csv::Error) -> Self {
        Self::Csv(error)
    }
}

impl From<serde_json::Error> for ReportError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}

impl fmt::Display for ReportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "writing the report: ")?;
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Csv(error) => error.fmt(f),
            Self::Json(error) => error.fmt(f),
            Self::Chart(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReportError {}
