//! Measures pdcp beside its peers and against what the machine can do at all. `scripts/bench.sh` runs it.

mod sample;

fn main() {}
