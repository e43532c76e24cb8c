//! Measures pdcp beside its peers and against what the machine can do at most. `scripts/bench.sh` runs it.
//!
//! Everything becomes a [`sample::Sample`], of a run whose result was compared byte for byte before its time counted;
//! tables, goals and the report are made of nothing else. The one fact that is no sample is a [`goals::Ceiling`].

#[macro_use]
mod say;

mod arguments;
mod bounds;
mod ceiling;
mod disk;
mod goals;
mod innodb;
mod janitor;
mod long_path;
mod measure;
mod overview;
mod peers;
mod process;
mod remote;
mod report;
mod rows;
mod sample;
mod scene;
mod server;
#[path = "../../src/cli/size.rs"]
#[expect(unused_imports, reason = "a bench is built as a test, but its own tests run elsewhere")]
mod size; // a size means here what it means to pdcp
mod spaces;
mod subject;
mod tables;

use arguments::{Arguments, Sweep};
use bounds::Bounds;
use clap::Parser;
use goals::Verdict;
use measure::Bench;
use peers::{Peers, Program};
use process::{Error, Result};
use remote::Remote;
use report::{Machine, Table};
use rows::Section;
use sample::{Log, Sample};
use scene::{Pair, Scene};
use spaces::Spaces;
use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};
use subject::Pdcp;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let error = if process::is_interrupted() { Error::Interrupted } else { error };
            tell!("{error}");
            if let Some(output) = &arguments.output {
                // Only if nothing is in it.
                _ = fs::remove_dir(output);
                let raw = output.join(report::RAW);
                if raw.exists() && !matches!(error, Error::Usage(_)) {
                    tell!("what was measured until then: {}", raw.display());
                }
            }
            ExitCode::from(match error {
                Error::Interrupted => 130,
                Error::Usage(_) => 2,
                _ => 1,
            })
        }
    }
}

/// Everything that a run found out.
#[derive(Debug, Default)]
struct Findings {
    log: Log,
    tables: Vec<Table>,
    samples: Vec<Sample>,
    /// What failed, or had a wrong result.
    failures: Vec<String>,
    /// What was asked for, and cannot be had here.
    skipped: Vec<String>,
    ceilings: Vec<goals::Ceiling>,
}

/// Whether all goals are reached.
fn run(arguments: &Arguments) -> Result<bool> {
    process::end_all_on_signals()?;
    check_files(arguments)?;
    if let Some(why) = rows::unknown(arguments) {
        return Err(unusable(why));
    }
    let scene = Scene::new(&arguments.directory)?;
    let pdcp = match arguments.remote {
        Some(_) => Pdcp::with_the_users_key(&arguments.pdcp),
        None => Pdcp::with_own_key(&arguments.pdcp, scene.directory()),
    };
    let peers = Peers::find(arguments, pdcp, scene.directory());
    let look = || Machine::look(scene.directory(), arguments.size, arguments.other_pdcp(), peers.paths());
    let machine = arguments.output.as_ref().map(|_| look());
    let raw = arguments.output.as_ref().map(|output| output.join(report::RAW));
    let mut findings = Findings { log: Log::to(raw), ..Findings::default() };
    if arguments.cold && scene.is_in_memory()? {
        return Err(unusable("--cold wants a --directory on a disk"));
    }
    if arguments.remote.is_some() {
        findings.skipped.extend(out_of_reach(arguments).map(String::from));
    }
    if let (Some(directory), Some(_)) = (&arguments.innodb, table(arguments, &peers)) {
        innodb::check(directory).map_err(|error| unusable(format!("{}: {error}", directory.display())))?;
    }
    let remote = arguments.remote.as_deref();
    let remote = remote
        .map(|address| Remote::new(address, arguments.rsync.as_deref(), &peers, scene.directory()))
        .transpose()?;
    let bench = Bench {
        peers: &peers,
        remote,
        hosts: findings.hosts(arguments)?,
        is_cold: arguments.cold,
        directory: scene.directory().to_path_buf(),
    };
    measure_sections(arguments, &bench, &scene, &mut findings)?;
    if arguments.long_path {
        match measure_long_path(arguments, &mut findings) {
            // What was measured before it is worth keeping.
            Err(Error::Program(why)) => findings.failures.push(format!("long path: {why}")),
            measured => measured?,
        }
    }
    if let Some(remote) = &bench.remote {
        remote.clear()?;
    }
    for what in &findings.skipped {
        say!("SKIPPED       {what}");
    }
    for failure in &findings.failures {
        say!("FAILED        {failure}");
    }
    let goals = if bench.remote.is_none() {
        goals::goals(arguments.cold)
    } else {
        say!("\nNo goals: they are for both ends on this machine.");
        &[]
    };
    let verdicts = goals::judge(goals, &findings.samples, &findings.ceilings);
    let is_good = overview::print_goals(&verdicts) && findings.failures.is_empty();
    if let Some((output, machine)) = arguments.output.as_ref().zip(machine) {
        let measures = |name: &str| findings.samples.iter().any(|sample| sample.program.starts_with(name));
        let machine = machine.with(|name| name == "fio" || measures(name));
        findings.report(verdicts, machine, output)?;
    }
    Ok(is_good)
}

fn unusable(why: impl Into<String>) -> Error {
    Error::Usage(why.into())
}

/// What was asked for, and cannot be had where the other end is another host.
fn out_of_reach(arguments: &Arguments) -> impl Iterator<Item = &'static str> {
    [
        (arguments.cold, "cold: files on the other host stay in its page cache"),
        (arguments.workers.is_some(), "workers: the server on the other host has those that it was started with"),
        (arguments.wants(Sweep::Cores), "cores: those of the other host are its own"),
        (arguments.wants(Sweep::Sealed), "sealed and in the clear: the path to the other host is what it is"),
    ]
    .into_iter()
    .filter_map(|(is_asked_for, why)| is_asked_for.then_some(why))
}

/// That what was named is there, before minutes are spent on anything else.
fn check_files(arguments: &Arguments) -> Result<()> {
    for path in arguments.files.iter().chain([&arguments.pdcp]).chain(&arguments.yardstick) {
        let error = match path.metadata() {
            Ok(found) if found.is_file() => continue,
            Ok(_) => "is no file".into(),
            Err(error) => error.to_string(),
        };
        return Err(unusable(format!("{}: {error}", path.display())));
    }
    for directory in [&arguments.directory].into_iter().chain(&arguments.innodb) {
        if !directory.is_dir() {
            return Err(unusable(format!("{}: is no directory", directory.display())));
        }
    }
    if let Some(output) = &arguments.output {
        let of = |error: io::Error| unusable(format!("{}: {error}", output.display()));
        fs::create_dir_all(output).map_err(of)?;
        if fs::read_dir(output).map_err(of)?.next().is_some() {
            return Err(unusable(format!("{}: is not empty; a report has a directory of its own", output.display())));
        }
    }
    Ok(())
}

/// What all that was asked for takes at most: pairs stay to the end, what is measured beside them does not.
fn scratch_bytes(arguments: &Arguments, sections: &[Section]) -> Result<u64> {
    let lengths = arguments.files.iter().map(|file| Ok(file.metadata()?.len())).collect::<io::Result<Vec<_>>>()?;
    let size = if sections.is_empty() { 0 } else { arguments.size };
    let own = lengths.into_iter().max().unwrap_or(0); // only the target is ours, here and in the next line
    let table = if arguments.innodb.is_some() { innodb::TABLE_BYTES } else { 0 };
    let long_path = if arguments.long_path { long_path::SCRATCH_BYTES } else { 0 };
    let beside = Bounds::scratch_bytes(arguments, size.max(own).max(table)).max(long_path);
    Ok([size, size, own, table, beside].into_iter().fold(0, u64::saturating_add))
}

fn measure_sections(arguments: &Arguments, bench: &Bench, scene: &Scene, findings: &mut Findings) -> Result<()> {
    let sections = rows::sections(arguments, bench.peers, bench.hosts.is_some());
    scene.check_room(scratch_bytes(arguments, &sections)?)?;
    let mut pair: Option<Pair> = None;
    for section in sections {
        let bytes = arguments.size / section.part;
        let pair = match &mut pair {
            Some(pair) if (pair.bytes, pair.texture) == (bytes, section.texture) => pair,
            pair => pair.insert(scene.pair("file", bytes, section.texture)?),
        };
        findings.measure(&section, bench, pair, arguments)?;
    }
    if findings.samples.is_empty() && arguments.files.is_empty() && arguments.innodb.is_none() && !arguments.long_path {
        return Err(unusable("no row and no program is left to measure"));
    }
    if let [before, after] = &arguments.files[..] {
        let name = rows::OWN_FILES_ROW;
        if let Some(section) = rows::pair_of_files(name, before.into(), arguments, bench.peers) {
            findings.measure(&section, bench, &mut scene.pair_of(name, after.into())?, arguments)?;
        }
    }
    if let Some(directory) = &arguments.innodb {
        match measure_table(directory, arguments, bench, scene, findings) {
            // What was measured before it is worth keeping.
            Err(Error::Program(why)) => findings.failures.push(format!("{}: {why}", rows::TABLE_ROW)),
            measured => measured?,
        }
    }
    Ok(())
}

fn measure_table(
    directory: &Path,
    arguments: &Arguments,
    bench: &Bench,
    scene: &Scene,
    findings: &mut Findings,
) -> Result<()> {
    let Some((pair, section)) = table(arguments, bench.peers) else { return Ok(()) };
    innodb::provide(directory).map_err(|error| match error {
        _ if process::is_interrupted() => Error::Interrupted,
        error => Error::Program(error.to_string()),
    })?;
    say!("\nA table of MariaDB, before and after 5,000 of 3 million rows changed:");
    let differences = pair.differences()?.map(|difference| difference.to_string());
    differences.iter().for_each(|difference| say!("{difference}"));
    findings.measure(&section, bench, &mut scene.pair_of(rows::TABLE_ROW, pair.after)?, arguments)?;
    findings.note(differences);
    Ok(())
}

/// The row of a real table, if it is wanted, and the files that it is about.
fn table(arguments: &Arguments, peers: &Peers) -> Option<(innodb::Pair, Section)> {
    let pair = innodb::Pair::below(arguments.innodb.as_deref()?);
    let section = rows::pair_of_files(rows::TABLE_ROW, pair.before.clone(), arguments, peers)?;
    Some((pair, section))
}

fn measure_long_path(arguments: &Arguments, findings: &mut Findings) -> Result<()> {
    let connections = arguments.connections.unwrap_or(16);
    let programs = [Program::PdcpPush, Program::PdcpPull].into_iter().filter(|way| rows::is_wanted(arguments, *way));
    let options = long_path::Options {
        pdcp: &arguments.pdcp,
        directory: &arguments.directory,
        connections: if connections == 1 { &[1] } else { &[connections, 1] },
        programs: &programs.collect::<Vec<_>>(),
        runs: arguments.runs,
        congestion_control: arguments.congestion_control.as_deref(),
    };
    let long_path::Outcome { samples, proof } = long_path::run(&options, &mut findings.log)?;
    let table = Table { notes: proof, ..tables::of_long_path(&samples) };
    let ceiling = |row: &report::Row| goals::Ceiling::new(&row.name, long_path::least_seconds(), &samples);
    let ceilings: Vec<_> = table.rows.iter().map(ceiling).collect();
    overview::print_long_path(&table, &samples);
    overview::print_ceilings("", &ceilings, &samples);
    findings.ceilings.extend(ceilings);
    findings.tables.push(table);
    findings.samples.extend(samples);
    Ok(())
}

impl Findings {
    /// For rows between two hosts, if there are to be any.
    fn hosts(&mut self, arguments: &Arguments) -> Result<Option<Spaces>> {
        if !arguments.wants(Sweep::Sealed) || arguments.remote.is_some() {
            return Ok(None);
        }
        match Spaces::wired() {
            Err(Error::Program(why)) => {
                self.skipped.push(format!("sealed and in the clear: {why}"));
                Ok(None)
            }
            spaces => spaces.map(Some),
        }
    }

    /// Measures a section, and shows it.
    fn measure(&mut self, section: &Section, bench: &Bench, pair: &mut Pair, arguments: &Arguments) -> Result<()> {
        let mut bounds = Bounds::new(arguments, bench.peers, section, &bench.directory, pair)?;
        let between = &mut |pair: &mut Pair| bounds.repeat(pair);
        let (samples, failures) = bench.rounds(&section.rows, pair, arguments.runs, &mut self.log, between)?;
        overview::print_section(section, pair, &samples);
        let (text, ceilings) = bounds.tell(section, pair, &samples);
        overview::print_ceilings(&text, &ceilings, &samples);
        self.ceilings.extend(ceilings);
        self.tables.push(tables::of_section(section, pair));
        self.samples.extend(samples);
        self.failures.extend(failures);
        Ok(())
    }

    /// What has to be known about the section that was measured last.
    fn note(&mut self, notes: impl IntoIterator<Item = String>) {
        self.tables.last_mut().expect("it was measured").notes.extend(notes);
    }

    /// Writes it all into `output`.
    fn report(self, verdicts: Vec<Verdict>, machine: Machine, output: &Path) -> Result<()> {
        let Self { log: _, tables, samples, failures, skipped, ceilings } = self;
        let run = report::Run { machine, tables, samples, ceilings, verdicts, failures, skipped };
        report::write(&run, output).map_err(|error| Error::World(io::Error::other(error)))?;
        say!("\nReport: {}", output.join("README.md").display());
        Ok(())
    }
}
