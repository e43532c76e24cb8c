//! Measures pdcp beside its peers and against what the machine can do at most. `scripts/bench.sh` runs it.
//!
//! Everything becomes a [`sample::Sample`], of a run whose result was compared byte for byte before its time counted;
//! tables, goals and the report are made of nothing else. The one fact that is no sample is a [`goals::Ceiling`].

mod arguments;
mod goals;
mod innodb;
mod measure;
mod overview;
mod peers;
mod process;
mod remote;
mod rows;
mod sample;
mod scene;
mod server;
#[path = "../../src/cli/size.rs"]
#[expect(unused_imports, reason = "a bench is built as a test, but its own tests run elsewhere")]
mod size; // a size means here what it means to pdcp

use arguments::Arguments;
use clap::Parser;
use measure::Bench;
use peers::Peers;
use process::{Error, Result};
use remote::Remote;
use rows::Section;
use sample::Sample;
use scene::{Pair, Scene};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = try_parts() {
        return code;
    }
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if process::is_interrupted() { 130 } else { 1 })
        }
    }
}

/// A way to try what the comparison does not call yet.
fn try_parts() -> Option<ExitCode> {
    let [_, what, directory] = &std::env::args().collect::<Vec<_>>()[..] else { return None };
    let directory: &std::path::Path = directory.as_ref();
    match what.as_str() {
        "innodb" => {
            let pair = innodb::pair(directory).expect("MariaDB makes the table");
            println!("from {} to {}:", pair.before.display(), pair.after.display());
            for difference in pair.differences().expect("both were just made") {
                println!("{difference}");
            }
        }
        _ => return None,
    }
    Some(ExitCode::SUCCESS)
}

/// Everything that a run found out.
#[derive(Debug, Default)]
struct Findings {
    samples: Vec<Sample>,
    /// What failed, or had a wrong result.
    failures: Vec<String>,
    ceilings: Vec<goals::Ceiling>,
}

/// Whether all goals are reached.
fn run(arguments: &Arguments) -> Result<bool> {
    process::end_all_on_signals()?;
    let peers = Peers::find(arguments);
    let scene = Scene::new(&arguments.directory)?;
    if arguments.cold && scene.is_in_memory()? {
        return Err(unusable("--cold wants a --directory on a disk"));
    }
    let remote = arguments.remote.as_deref();
    let bench = Bench {
        peers: &peers,
        remote: remote.map(|address| Remote::new(address, arguments.rsync.as_deref(), &peers)),
        is_cold: arguments.cold,
        directory: scene.directory().to_path_buf(),
    };
    let mut findings = Findings::default();
    measure_sections(arguments, &bench, &scene, &mut findings)?;
    // Here the other measurements add to the findings: the table of a database, a long path, the ceilings.
    if let Some(remote) = &bench.remote {
        remote.clear(scene.directory())?;
    }
    // Here the report is written, to `arguments.output`.
    if bench.remote.is_some() {
        println!("\nThe goals are for both ends on this machine.");
        return Ok(findings.failures.is_empty());
    }
    let verdicts = goals::judge(goals::goals(arguments.cold), &findings.samples, &findings.ceilings);
    for failure in &findings.failures {
        println!("FAILED        {failure}");
    }
    Ok(overview::print_goals(&verdicts) && findings.failures.is_empty())
}

fn unusable(why: &str) -> Error {
    Error::World(std::io::Error::other(why))
}

fn measure_sections(arguments: &Arguments, bench: &Bench, scene: &Scene, findings: &mut Findings) -> Result<()> {
    let mut pair: Option<Pair> = None;
    for section in rows::sections(arguments, bench.peers) {
        let bytes = arguments.size / section.part;
        let pair = match &mut pair {
            Some(pair) if pair.bytes == bytes => pair,
            pair => pair.insert(scene.pair("file", bytes)?),
        };
        findings.measure(&section, bench, pair, arguments.runs)?;
    }
    if findings.samples.is_empty() && arguments.files.is_empty() {
        return Err(unusable("no row and no program is left to measure"));
    }
    if let [before, after] = &arguments.files[..] {
        let mut section = rows::pair_of_files("own files", before.clone());
        section.retain(arguments, bench.peers);
        findings.measure(&section, bench, &mut scene.pair_of("own", after.clone())?, arguments.runs)?;
    }
    Ok(())
}

impl Findings {
    /// Measures a section, and shows it.
    fn measure(&mut self, section: &Section, bench: &Bench, pair: &mut Pair, runs: u32) -> Result<()> {
        let (samples, failures) = bench.rounds(&section.rows, pair, runs)?;
        overview::print_section(section, pair, &samples);
        self.samples.extend(samples);
        self.failures.extend(failures);
        Ok(())
    }
}
