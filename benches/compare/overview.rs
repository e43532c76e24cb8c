//! What is printed: tables in the form of pdiffcopy's documentation, one a figure, and the goals.

use crate::goals::{Ceiling, Outcome, Verdict};
use crate::peers::Program;
use crate::report::{Table, megabytes};
use crate::rows::Section;
use crate::sample::{Figure, Sample, median};
use crate::scene::Pair;

const FIGURES: [Figure; 5] =
    [Figure::Seconds, Figure::MovedBytes, Figure::CpuSeconds, Figure::ClientPeakBytes, Figure::ServerPeakBytes];

/// Medians of a section's rows, figure by figure, without figures that nobody has.
pub(crate) fn print_section(section: &Section, pair: &Pair, samples: &[Sample]) {
    let mut programs: Vec<Program> = section.rows.iter().flat_map(|row| row.programs.clone()).collect();
    programs.sort();
    programs.dedup();
    for figure in FIGURES {
        if samples.iter().all(|sample| sample.figure(figure).is_none_or(|value| value == 0.0)) {
            continue;
        }
        let cell = |row: &str, program: &Program| {
            median(samples, row, program.name(), figure).map_or(String::new(), |value| figure.show(value))
        };
        say!("\n{}: {}", section.title, figure.name());
        print_line("Delta", "Data size", programs.iter().map(|program| program.name().into()));
        for row in &section.rows {
            let changed = pair.changed_bytes(&row.basis).map_or(String::new(), megabytes);
            print_line(&row.name, &changed, programs.iter().map(|program| cell(&row.name, program)));
        }
    }
}

/// Medians of the long path, in seconds.
pub(crate) fn print_long_path(table: &Table, samples: &[Sample]) {
    say!("\n{}: {}", table.title, Figure::Seconds.name());
    print_line("", "", table.programs.iter().cloned());
    for row in &table.rows {
        let cell = |program: &String| median(samples, &row.name, program, Figure::Seconds);
        let cells = table.programs.iter().map(|program| cell(program).map_or(String::new(), |s| format!("{s:.2}")));
        print_line(&row.name, "", cells);
    }
}

/// What the machine does at most, in general and in each row, and how far from it pdcp is.
pub(crate) fn print_ceilings(parts: &str, ceilings: &[Ceiling], samples: &[Sample]) {
    if ceilings.is_empty() {
        return;
    }
    say!("\nAt most, in the same run:\n{parts}");
    for ceiling in ceilings {
        let Ceiling { row, parts_seconds, beaten_by } = ceiling;
        let beaten =
            beaten_by.as_ref().map(|(program, _)| format!(", by {program}; its parts take {parts_seconds:.3} s"));
        let (seconds, by) = (ceiling.seconds(), beaten.unwrap_or_default());
        let distances = ceiling.distances(samples);
        let distances: Vec<String> = distances.iter().map(|(program, times)| format!("{program} {times:.2}")).collect();
        say!("{row:<32}{seconds:>8.3} s at least{by}; times that: {}", distances.join(", "));
    }
}

fn print_line(name: &str, size: &str, cells: impl Iterator<Item = String>) {
    let cells: String = cells.map(|cell| format!("{cell:>12}")).collect();
    say!("{name:<20}{size:>12}{cells}");
}

/// What falls short last, where it is seen. Returns whether nothing does.
pub(crate) fn print_goals(verdicts: &[Verdict]) -> bool {
    let of = |outcome| verdicts.iter().filter(move |verdict| verdict.outcome == outcome);
    if !verdicts.is_empty() {
        say!("\nGoals for medians, with a tolerance of 3 %; not measured: {}", of(Outcome::NotMeasured).count());
    }
    for (outcome, word) in [(Outcome::Reached, "reached"), (Outcome::Short, "FALLS SHORT")] {
        of(outcome).for_each(|verdict| say!("{word:<13} {}", verdict.text));
    }
    of(Outcome::Short).count() == 0
}
