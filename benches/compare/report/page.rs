//! The page of a run, in Markdown: charts, goals, tables.

use super::charts::Chart;
use super::{Row, Run, Shape, Table, megabytes};
use crate::goals::{Ceiling, Outcome};
use crate::sample::{Figure, median};

const FIGURES: [Figure; 5] =
    [Figure::Seconds, Figure::MovedBytes, Figure::CpuSeconds, Figure::ClientPeakBytes, Figure::ServerPeakBytes];

pub(super) fn page(run: &Run, charts: &[Chart]) -> String {
    let mut page = format!("# pdcp {} beside its peers\n\n", run.machine.commit);
    page += &machine(run);
    for Chart { file, caption } in charts {
        page += &format!("![{caption}]({file})\n\n");
    }
    page += &troubles(run);
    for table in &run.tables {
        page += &format!("## {}\n\n", capitalized(&table.title));
        page += &list(&table.notes);
        let memory_too = matches!(table.shape, Shape::Bars | Shape::Undrawn);
        for figure in FIGURES.into_iter().filter(|figure| memory_too || !is_memory(*figure)) {
            page += &figures(run, table, figure);
        }
    }
    let others = goals(run, Outcome::Reached, "Reached") + &goals(run, Outcome::NotMeasured, "Not measured");
    if others.is_empty() { page } else { page + "## Other goals\n\n" + &others }
}

fn machine(run: &Run) -> String {
    let machine = &run.machine;
    let runs = run.samples.iter().map(|sample| sample.run + 1).max().unwrap_or(0);
    let mut text = format!(
        "`{}`, {}. Figures are medians of up to {runs} runs, programs in turn; a run counts only if its result was the \
         source, byte for byte. [raw.csv](raw.csv) has all runs, [ceilings.csv](ceilings.csv) the least times of this \
         machine as far as they were measured, [machine.json](machine.json) the machine. Memory is that of the largest \
         process of an end.\n\n| | |\n|---|---|\n",
        machine.command, machine.date
    );
    let memory = format!("{:.1} GB", machine.memory_bytes as f64 / 1e9);
    let facts = [
        ("CPU", format!("{}, {} cores used", machine.cpu, machine.cores)),
        ("memory", memory),
        ("kernel", machine.kernel.clone()),
        ("file system", machine.file_system.clone()),
        ("file", megabytes(machine.file_bytes)),
    ];
    for (name, fact) in &facts {
        text += &line([name, &fact[..]]);
    }
    for (program, version) in &machine.versions {
        text += &line([&program[..], &version[..]]);
    }
    text + "\n"
}

fn goals(run: &Run, outcome: Outcome, word: &str) -> String {
    let verdicts: Vec<_> = run.verdicts.iter().filter(|verdict| verdict.outcome == outcome).collect();
    let lines = list(verdicts.iter().map(|verdict| &verdict.text));
    if lines.is_empty() { lines } else { format!("{word} ({}):\n\n{lines}", verdicts.len()) }
}

/// Nothing where there is none.
fn list<'a>(lines: impl IntoIterator<Item = &'a String>) -> String {
    let lines: String = lines.into_iter().map(|line| format!("- {line}\n")).collect();
    if lines.is_empty() { lines } else { lines + "\n" }
}

/// What a reader has to know before anything else.
fn troubles(run: &Run) -> String {
    let mut text = goals(run, Outcome::Short, "Falls short");
    for (word, lines) in [("Failed, and not counted", &run.failures), ("Skipped", &run.skipped)] {
        if !lines.is_empty() {
            text += &format!("{word}:\n\n{}", list(lines));
        }
    }
    if text.is_empty() { text } else { format!("## Goals\n\n{text}") }
}

/// Nothing where no program tells this figure.
fn figures(run: &Run, table: &Table, figure: Figure) -> String {
    let show = |value: Option<f64>| value.map_or_else(String::new, |value| figure.show(value));
    let is_first = figure == Figure::Seconds;
    let has_ceilings = is_first && table.rows.iter().any(|row| run.ceiling(&row.name).is_some());
    let has_sizes = is_first && table.rows.iter().any(|row| row.changed_bytes.is_some());
    let mut lines = String::new();
    let mut told = false;
    for Row { name: row, changed_bytes } in &table.rows {
        let mut cells = vec![row_name(table.shape, row)];
        if has_sizes {
            cells.push(changed_bytes.map_or_else(String::new, megabytes));
        }
        for program in &table.programs {
            let value = median(&run.samples, row, program, figure);
            told |= value.is_some();
            cells.push(show(value));
        }
        if has_ceilings {
            let ceiling = run.ceiling(row);
            cells.push(show(ceiling.map(Ceiling::seconds)));
            let distances = ceiling.map(|ceiling| ceiling.distances(&run.samples)).unwrap_or_default();
            let distances: Vec<_> = distances.into_iter().map(|(_, times)| format!("{times:.2}")).collect();
            cells.push(distances.join(" / "));
        }
        lines += &line(cells.iter().map(String::as_str));
    }
    if !told {
        return String::new();
    }
    let ceiling: &[&str] = if has_ceilings { &["ceiling", "pdcp / ceiling"] } else { &[] };
    let sizes: &[&str] = if has_sizes { &["data size"] } else { &[] };
    let programs = table.programs.iter().map(String::as_str);
    let names = [figure.name()].into_iter().chain(sizes.iter().copied()).chain(programs);
    let names: Vec<&str> = names.chain(ceiling.iter().copied()).collect();
    let rule = names.iter().enumerate().map(|(column, _)| if column == 0 { "---" } else { "--:" });
    let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
    line(names) + &rule + &lines + "\n"
}

fn is_memory(figure: Figure) -> bool {
    matches!(figure, Figure::ClientPeakBytes | Figure::ServerPeakBytes)
}

/// Options are shown as typed.
fn row_name(shape: Shape, row: &str) -> String {
    match shape {
        Shape::BlockSizes | Shape::Connections => format!("`{row}`"),
        Shape::Bars | Shape::Undrawn => row.into(),
    }
}

fn line<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let cells: Vec<String> = cells.into_iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

pub(super) fn capitalized(title: &str) -> String {
    let mut letters = title.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
