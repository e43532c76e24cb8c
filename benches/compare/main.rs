//! Measures pdcp beside its peers and against what the machine can do at all. `scripts/bench.sh` runs it.

mod ceiling;
mod disk;
mod sample;

use ceiling::{Ceiling, RowKind};
use std::path::PathBuf;

/// `ceiling DIRECTORY SOURCE PDCP`, or `disk WORKERS FILE...`.
fn main() {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    match arguments.split_first() {
        Some((what, [directory, source, program])) if what.as_os_str() == "ceiling" => {
            show_ceiling(Ceiling::new(directory, source, program).expect("files can be made"));
        }
        Some((what, [workers, files @ ..])) if what.as_os_str() == "disk" => {
            let workers = workers.to_str().and_then(|workers| workers.parse().ok()).expect("a number");
            match disk::fio_read_seconds(files, workers) {
                Ok(seconds) => println!("{seconds:.3} s"),
                Err(error) => println!("{error}"),
            }
        }
        _ => {}
    }
}

fn show_ceiling(mut ceiling: Ceiling) {
    const BYTES: u64 = 1_920_000_000;
    for _ in 0..5 {
        ceiling.repeat().expect("what worked once works again");
    }
    print!("{}", ceiling.table());
    for row in [RowKind::Delta, RowKind::LocalDelta] {
        for share in [0.0, 0.1, 0.5, 1.0] {
            println!("{row:?} {share}: {:.3} s", ceiling.least_seconds(row, share, BYTES));
        }
    }
    for row in [RowKind::Whole, RowKind::FirstCopy, RowKind::LocalFirstCopy] {
        println!("{row:?}: {:.3} s", ceiling.least_seconds(row, 1.0, BYTES));
    }
}
