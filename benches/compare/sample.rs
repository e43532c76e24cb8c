//! What one timed run says, and what is made of several: medians, of interleaved runs only.

use serde::Serialize;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

/// One run of one program on one row. Only runs whose result was compared byte for byte become a sample.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// The row's name, such as `10 %` or `first copy`.
    pub(crate) row: String,
    /// The program's name, such as `pdcp push` or `rsync delta`.
    pub(crate) program: String,
    /// 0-based.
    pub(crate) run: u32,
    /// Wall clock of the asking process, from its start to its exit.
    pub(crate) seconds: f64,
    /// File bytes that crossed the connection, as the program tells; `None` where it does not.
    pub(crate) moved_bytes: Option<u64>,
    /// User and system time of the asking process, and of the server for this run.
    pub(crate) client_cpu_seconds: f64,
    /// See above; 0 where there is no server, `None` where it is on another machine.
    pub(crate) server_cpu_seconds: Option<f64>,
    /// Largest resident set of the asking process, or of one of its children; `None` where it is not known.
    pub(crate) client_peak_bytes: Option<u64>,
    /// Of the server; `None` where there is none, or it is on another machine.
    pub(crate) server_peak_bytes: Option<u64>,
}

/// What can be asked of a sample.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Figure {
    Seconds,
    MovedBytes,
    /// Of both ends.
    CpuSeconds,
    ClientPeakBytes,
    ServerPeakBytes,
}

impl Figure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::MovedBytes => "MB moved",
            Self::CpuSeconds => "CPU seconds of both ends",
            Self::ClientPeakBytes => "peak memory of the client, MB",
            Self::ServerPeakBytes => "peak memory of the server, MB",
        }
    }

    /// In the unit that its name says.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Seconds | Self::CpuSeconds => format!("{value:.3}"),
            Self::MovedBytes | Self::ClientPeakBytes | Self::ServerPeakBytes => format!("{:.1}", value / 1e6),
        }
    }
}

impl Sample {
    pub(crate) fn figure(&self, figure: Figure) -> Option<f64> {
        match figure {
            Figure::Seconds => Some(self.seconds),
            Figure::MovedBytes => self.moved_bytes.map(|bytes| bytes as f64),
            Figure::CpuSeconds => self.server_cpu_seconds.map(|server| self.client_cpu_seconds + server),
            Figure::ClientPeakBytes => self.client_peak_bytes.map(|bytes| bytes as f64),
            Figure::ServerPeakBytes => self.server_peak_bytes.map(|bytes| bytes as f64),
        }
    }
}

/// Samples as they come, told and written down at once: a run that is interrupted keeps what it has measured.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// `None`: they are told only.
    path: Option<PathBuf>,
    /// Made for the first sample: a run without one leaves nothing.
    file: Option<csv::Writer<File>>,
}

impl Log {
    /// To be written to `path`, in a directory that there may be none of yet.
    pub(crate) fn to(path: Option<PathBuf>) -> Self {
        Self { path, file: None }
    }

    pub(crate) fn tell(&mut self, sample: &Sample) -> io::Result<()> {
        let Sample { row, program, run, seconds, .. } = sample;
        tell!("run {run}: {row}, {program}: {seconds:.3} s");
        let Some(path) = &self.path else { return Ok(()) };
        if self.file.is_none() {
            fs::create_dir_all(path.parent().expect("a file is in a directory"))?;
            self.file = Some(csv::Writer::from_path(path)?);
        }
        let file = self.file.as_mut().expect("made above");
        file.serialize(sample)?;
        file.flush()
    }
}

/// Of all runs of `program` on `row`; `None` where there is none that tells.
pub(crate) fn median(samples: &[Sample], row: &str, program: &str, figure: Figure) -> Option<f64> {
    let runs = samples.iter().filter(|sample| sample.row == row && sample.program == program);
    middle(runs.filter_map(|sample| sample.figure(figure)).collect())
}

/// The median of these.
pub(crate) fn middle(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let upper = *figures.get(figures.len() / 2)?;
    let lower = figures[(figures.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}
