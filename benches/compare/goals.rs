//! What pdcp is to reach, as ratios within one run, and whether it did.
//!
//! Each goal is one line of data: in this row, this figure of pdcp is at most so many times that of something else in
//! the same run. A figure that was not measured is no failure, but it is said.

use crate::sample::{Figure, Sample, median};
use std::collections::BTreeSet;

/// Medians of seven runs on a busy machine differ by as much without a cause.
pub(crate) const TOLERANCE: f64 = 1.03;
/// Nobody is asked to come nearer to the ceiling than this for the sake of being faster than another program.
const NEAR_CEILING: f64 = 1.1;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) row: &'static str,
    pub(crate) figure: Figure,
    pub(crate) at_most: f64,
    pub(crate) times: Times,
}

/// What the figure is held against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Times {
    /// Another program in the same row. Where that asks for less than near the ceiling, near the ceiling will do.
    Program(&'static str),
    /// The same design without ring, safety and commit, in the same row: no excuse counts.
    Yardstick,
    /// The least time that the machine can do the row in.
    Ceiling,
    /// The same program in another row.
    Row(&'static str),
    /// A number.
    One,
}

const YARDSTICK: &str = "yardstick";
/// What is judged.
const PDCP: [&str; 3] = ["pdcp push", "pdcp pull", "pdcp local"];

/// Both ends on two cores, warm, tmpfs, 1.92 GB.
const WARM: &[Goal] = &[
    faster("identical", "rsync delta", 2.4),
    faster("identical", "pdiffcopy", 3.4),
    faster("identical", "b3sum", 1.0),
    faster("10 %", "rsync delta", 7.5),
    faster("10 %", "pdiffcopy", 3.5),
    faster("50 %", "rsync delta", 18.0),
    faster("50 %", "pdiffcopy", 4.3),
    faster("100 %", "rsync delta", 19.0),
    faster("100 %", "rsync whole", 1.2),
    faster("100 %", "pdiffcopy", 5.0),
    faster("100 % -W", "rsync whole", 1.5),
    faster("first copy", "rsync whole", 2.5),
    faster("first copy", "pdiffcopy", 5.5),
    faster("table", "rsync delta", 12.0),
    faster("table", "pdiffcopy", 8.0),
    Goal { row: "table", figure: Figure::MovedBytes, at_most: 127e6, times: Times::One },
    faster("local identical", "rsync local", 2.5),
    Goal { row: "local first copy", figure: Figure::Seconds, at_most: 1.2, times: Times::Program("cp") },
    as_fast_as_the_yardstick("identical"),
    as_fast_as_the_yardstick("10 %"),
    as_fast_as_the_yardstick("50 %"),
    as_fast_as_the_yardstick("100 %"),
    as_fast_as_the_yardstick("first copy"),
    near_ceiling("identical", 1.2),
    near_ceiling("10 %", 1.2),
    near_ceiling("50 %", 1.2),
    near_ceiling("100 %", 1.2),
    near_ceiling("100 % -W", 1.2),
    near_ceiling("first copy", 1.2),
    near_ceiling("local identical", 1.2),
    near_ceiling("local first copy", 1.2),
    near_ceiling("table", 1.2),
    near_ceiling("long path, 16 connections", 1.0 / 0.9),
    Goal { row: "two cores", figure: Figure::Seconds, at_most: 1.0 / 1.8, times: Times::Row("one core") },
    no_slower_than("sealed -W", 0.6, "clear -W"),
    no_slower_than("sealed first copy", 0.6, "clear first copy"),
    // Linear in size: the whole takes at most four times a quarter, and no more memory, but for a huge page more or less.
    Goal { row: "100 %", figure: Figure::Seconds, at_most: 4.0, times: Times::Row("a quarter") },
    Goal { row: "100 %", figure: Figure::ClientPeakBytes, at_most: 1.3, times: Times::Row("a quarter") },
    Goal { row: "100 %", figure: Figure::ServerPeakBytes, at_most: 1.3, times: Times::Row("a quarter") },
];

/// Both files on a disk and out of the page cache.
const COLD: &[Goal] = &[
    near_ceiling("identical", 1.0 / 0.9),
    less_cpu("identical", "rsync delta", 5.0),
    less_cpu("10 %", "rsync delta", 5.0),
    less_cpu("50 %", "rsync delta", 5.0),
    less_cpu("100 %", "rsync delta", 5.0),
];

/// The goals for files in memory and, where `is_cold`, on a disk.
pub(crate) fn goals(is_cold: bool) -> &'static [Goal] {
    if is_cold { COLD } else { WARM }
}

pub(crate) const fn faster(row: &'static str, program: &'static str, factor: f64) -> Goal {
    Goal { row, figure: Figure::Seconds, at_most: 1.0 / factor, times: Times::Program(program) }
}

pub(crate) const fn less_cpu(row: &'static str, program: &'static str, factor: f64) -> Goal {
    Goal { row, figure: Figure::CpuSeconds, at_most: 1.0 / factor, times: Times::Program(program) }
}

pub(crate) const fn as_fast_as_the_yardstick(row: &'static str) -> Goal {
    Goal { row, figure: Figure::Seconds, at_most: 1.0, times: Times::Yardstick }
}

pub(crate) const fn near_ceiling(row: &'static str, at_most: f64) -> Goal {
    Goal { row, figure: Figure::Seconds, at_most, times: Times::Ceiling }
}

/// At least this share of the speed of another row.
pub(crate) const fn no_slower_than(row: &'static str, share: f64, other: &'static str) -> Goal {
    Goal { row, figure: Figure::Seconds, at_most: 1.0 / share, times: Times::Row(other) }
}

/// The least seconds that the machine can do a row in, as measured in the same run.
#[derive(Clone, Debug)]
pub(crate) struct Ceiling {
    pub(crate) row: String,
    /// By what the row is made of.
    pub(crate) parts_seconds: f64,
    /// Who took less, and what it took: measured in louder moments, the parts are no bound then.
    pub(crate) beaten_by: Option<(String, f64)>,
}

impl Ceiling {
    /// Of a row whose parts take so long, unless a program was faster in these samples.
    pub(crate) fn new(row: &str, parts_seconds: f64, samples: &[Sample]) -> Self {
        let programs: BTreeSet<&String> =
            samples.iter().filter(|sample| sample.row == row).map(|sample| &sample.program).collect();
        let seconds = |program: &String| Some((program.clone(), median(samples, row, program, Figure::Seconds)?));
        let fastest = programs.into_iter().filter_map(seconds).min_by(|left, right| left.1.total_cmp(&right.1));
        let beaten_by = fastest.filter(|(_, seconds)| seconds * TOLERANCE < parts_seconds);
        Self { row: row.into(), parts_seconds, beaten_by }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.beaten_by.as_ref().map_or(self.parts_seconds, |(_, seconds)| *seconds)
    }

    /// How many times the least pdcp took, by each way that was measured.
    pub(crate) fn distances(&self, samples: &[Sample]) -> Vec<(&'static str, f64)> {
        let seconds = |program: &'static str| Some((program, median(samples, &self.row, program, Figure::Seconds)?));
        PDCP.into_iter().filter_map(seconds).map(|(program, seconds)| (program, seconds / self.seconds())).collect()
    }
}

/// What became of one goal for one program; `text` has the figures.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    Reached,
    Short,
    NotMeasured,
}

/// One verdict a goal, or one for each way of pdcp's that was measured in its row.
pub(crate) fn judge(goals: &[Goal], samples: &[Sample], ceilings: &[Ceiling]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for goal in goals {
        let judged: Vec<_> = PDCP.iter().filter_map(|program| goal.judge(program, samples, ceilings)).collect();
        if judged.is_empty() {
            verdicts.push(Verdict { outcome: Outcome::NotMeasured, text: goal.to_string() });
        }
        verdicts.extend(judged);
    }
    verdicts
}

impl Goal {
    fn judge(&self, program: &str, samples: &[Sample], ceilings: &[Ceiling]) -> Option<Verdict> {
        let is = median(samples, self.row, program, self.figure)?;
        let ceiling = ceilings.iter().find(|ceiling| ceiling.row == self.row).map(Ceiling::seconds);
        let of = |program| median(samples, self.row, program, self.figure);
        let other = match self.times {
            Times::Program(other) => of(other)?,
            Times::Yardstick => of(YARDSTICK)?,
            Times::Ceiling => ceiling?,
            Times::Row(row) => median(samples, row, program, self.figure)?,
            Times::One => 1.0,
        };
        let asked = self.at_most * other;
        let excused = match (self.times, self.figure) {
            (Times::Program(_), Figure::Seconds) => ceiling.map_or(0.0, |ceiling| ceiling * NEAR_CEILING),
            _ => 0.0,
        };
        let outcome = if is <= asked.max(excused) * TOLERANCE { Outcome::Reached } else { Outcome::Short };
        let excuse =
            if excused > asked { format!(", by the ceiling {}", self.figure.show(excused)) } else { String::new() };
        let (is, asked) = (self.figure.show(is), self.figure.show(asked));
        Some(Verdict { outcome, text: format!("{self}: {program} {is}, asked for {asked}{excuse}") })
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}: ", self.row, self.figure.name())?;
        let at_most = self.at_most;
        match self.times {
            Times::Program(other) if at_most < 1.0 => write!(f, "{other} / {:.1}", 1.0 / at_most),
            Times::Program(other) => write!(f, "{at_most:.1} × {other}"),
            Times::Yardstick => write!(f, "no more than the yardstick"),
            Times::Ceiling => write!(f, "{at_most:.2} × the ceiling"),
            Times::Row(row) if at_most < 1.0 => write!(f, "'{row}' / {:.1}", 1.0 / at_most),
            Times::Row(row) => write!(f, "{at_most:.2} × '{row}'"),
            Times::One => write!(f, "{}", self.figure.show(at_most)),
        }
    }
}
