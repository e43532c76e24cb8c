//! How a section of the comparison is shown in the report.

use crate::report::{Row, Shape, Table};
use crate::rows::{BLOCK_SIZE_ROW, CONNECTIONS_ROW, Section};
use crate::sample::Sample;
use crate::scene::Pair;

/// Rows and programs as they first come.
pub(crate) fn of_long_path(samples: &[Sample]) -> Table {
    let each_once = |name: fn(&Sample) -> &String| {
        let mut names: Vec<String> = Vec::new();
        for name in samples.iter().map(name) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    };
    Table {
        title: "first copy of 1 GB over 25 ms and 1 Gbit/s each way".into(),
        shape: Shape::Undrawn,
        rows: each_once(|sample| &sample.row).into_iter().map(|name| Row { name, changed_bytes: None }).collect(),
        programs: each_once(|sample| &sample.program),
        notes: Vec::new(),
    }
}

/// A section that was measured with `pair`.
pub(crate) fn of_section(section: &Section, pair: &Pair) -> Table {
    let mut programs: Vec<String> = Vec::new();
    for program in section.rows.iter().flat_map(|row| &row.programs) {
        if !programs.iter().any(|name| name == program.name()) {
            programs.push(program.name().into());
        }
    }
    let is_sweep_of = |option| section.rows.iter().all(|row| row.name.contains(option));
    let shape = if is_sweep_of(BLOCK_SIZE_ROW) {
        Shape::BlockSizes
    } else if is_sweep_of(CONNECTIONS_ROW) {
        Shape::Connections
    } else if section.part > 1 || section.rows.iter().any(|row| row.cores.is_some()) {
        Shape::Undrawn // measured to be held against another row
    } else {
        Shape::Bars
    };
    let rows = section.rows.iter();
    let rows = rows.map(|row| Row { name: row.name.clone(), changed_bytes: pair.changed_bytes(&row.basis) });
    Table { title: section.title.into(), shape, rows: rows.collect(), programs, notes: Vec::new() }
}
