//! How a section of the comparison is shown in the report.

use crate::report::{Shape, Table};
use crate::rows::{BLOCK_SIZE_ROW, CONNECTIONS_ROW, Section};
use crate::sample::Sample;

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
        rows: each_once(|sample| &sample.row),
        programs: each_once(|sample| &sample.program),
    }
}

impl From<&Section> for Table {
    fn from(section: &Section) -> Self {
        let mut programs: Vec<String> = Vec::new();
        for program in section.rows.iter().flat_map(|row| &row.programs) {
            if !programs.iter().any(|name| name == program.name()) {
                programs.push(program.name().into());
            }
        }
        let rows: Vec<String> = section.rows.iter().map(|row| row.name.clone()).collect();
        let is_sweep_of = |option| rows.iter().all(|row| row.contains(option));
        let shape = if is_sweep_of(BLOCK_SIZE_ROW) {
            Shape::BlockSizes
        } else if is_sweep_of(CONNECTIONS_ROW) {
            Shape::Connections
        } else if section.part > 1 || section.rows.iter().any(|row| row.cores.is_some()) {
            Shape::Undrawn // measured to be held against another row
        } else {
            Shape::Bars
        };
        Self { title: section.title.into(), shape, rows, programs }
    }
}
