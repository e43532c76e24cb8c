//! Measures pdcp beside its peers and against what the machine can do at all. `scripts/bench.sh` runs it.

mod long_path;
mod sample;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_none_or(|first| first != "long-path") {
        return;
    }
    let words = |index: usize, default: &str| arguments.get(index).map_or(default, String::as_str).to_owned();
    let options = long_path::Options {
        pdcp: words(1, env!("CARGO_BIN_EXE_pdcp")).into(),
        directory: "/dev/shm".into(),
        bytes: words(4, "1000000000").parse().expect("bytes"),
        connections: words(2, "16,1").split(',').map(|n| n.parse().expect("connections")).collect(),
        runs: words(3, "1").parse().expect("runs"),
        congestion_control: arguments.get(5).cloned(),
    };
    match long_path::run(&options) {
        Ok(samples) => samples.iter().for_each(|sample| println!("{sample:?}")),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}
