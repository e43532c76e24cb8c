//! `-B` overwrites one file, the one that it was given, only when somebody agreed, and leaves it equal to its source, or says
//! that it has not and what brings it back.

use crate::rig::{
    KIB, Loop, MIB, Part, Process, Rig, Run, Summary, Valve, Way, assert_equal, digest, ends, mtime, pdcp, remote,
};
use crate::rig::{make, state};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::io::Seek;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::process::{Command, Stdio};

const SOURCE: [Part; 1] = [Part::Data(1, 4 * MIB)];
const OLD: [Part; 2] = [Part::Data(1, MIB), Part::Data(2, MIB)];

/// The ways that end here.
const WAYS: [Way; 2] = [Way::Pull, Way::Local];

#[derive(Debug)]
struct Measured {
    levels: Vec<Value>,
    summary: Summary,
}

impl Measured {
    /// What a run with `--json` has said: a line for each level, then the one that every run ends with.
    #[track_caller]
    fn of(run: Run, code: i32) -> Self {
        let (levels, summary) = match run.stdout.trim_end().rsplit_once('\n') {
            Some((levels, summary)) => (levels.to_owned(), summary.to_owned()),
            None => (String::new(), run.stdout.clone()),
        };
        let levels: Vec<Value> = levels.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for (number, level) in levels.iter().enumerate() {
            let keys: Vec<&str> = level.as_object().unwrap().keys().map(String::as_str).collect();
            let mut wanted = KEYS.to_vec();
            wanted.sort_unstable();
            assert_eq!(keys, wanted, "{run}");
            assert_eq!((&level["type"], &level["schema"]), (&"level".into(), &1.into()), "{run}");
            assert_eq!(level["level"], number, "{run}");
        }
        Self { levels, summary: Run { stdout: summary, ..run }.ends_with(code) }
    }

    fn numbers(&self, key: &str) -> Vec<u64> {
        self.levels.iter().map(|level| level[key].as_u64().unwrap()).collect()
    }
}

const KEYS: &[&str] = &[
    "type",
    "schema",
    "level",
    "levels",
    "data_bytes",
    "delta_bytes",
    "matched_bytes",
    "changed_bytes",
    "hole_bytes",
    "wire_sent_bytes",
    "wire_received_bytes",
    "elapsed_seconds",
    "rsync_seconds",
];

fn names(rig: &Rig) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(rig.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn every_level_is_mutated_measured_and_brought_back() {
    /// `deltas`: what is mutated at each level, which is what moves, as all of it is whole blocks.
    #[track_caller]
    fn check(source_parts: &[Part], old: &[Part], levels: &str, arguments: &[&str], deltas: &[u64]) {
        let rig = Rig::in_memory();
        for way in WAYS {
            let source = rig.make("source", source_parts);
            let target = rig.make("target", old);
            let bystander = rig.make("target2", &OLD);
            let before = (names(&rig), state(&bystander), state(&source), fs::metadata(&target).unwrap().ino());
            let arguments = [&["-B", levels, "--yes"], arguments].concat();
            let measured = Measured::of(rig.copy(way, "source", "target", &arguments), 0);
            assert_equal(&source, &target);
            assert_eq!(mtime(&source), mtime(&target));
            let after = (names(&rig), state(&bystander), state(&source), fs::metadata(&target).unwrap().ino());
            assert_eq!(before, after);
            assert_eq!(measured.summary.text("digest"), digest(&source));
            assert_eq!(measured.numbers("delta_bytes"), deltas);
            let is_compared = !arguments.contains(&"-W");
            if is_compared {
                assert_eq!(measured.numbers("changed_bytes"), deltas);
            }
            assert!(measured.levels.iter().all(|level| level["rsync_seconds"].is_null()));
        }
    }
    const BLOCK: u64 = 16 * KIB;
    check(&SOURCE, &OLD, "1", &[], &[0, 4 * MIB]);
    check(&SOURCE, &SOURCE, "4", &[], &[0, MIB, 2 * MIB, 3 * MIB, 4 * MIB]);
    check(&SOURCE, &SOURCE, "4", &["-W"], &[0, MIB, 2 * MIB, 3 * MIB, 4 * MIB]);
    check(&SOURCE, &[], "2", &["-c", "1", "--connections", "2", "-m", "xxh3"], &[0, 2 * MIB, 4 * MIB]);
    check(&SOURCE, &SOURCE, "2", &["-b", "1M", "--direct", "never", "--no-fsync"], &[0, 2 * MIB, 4 * MIB]);
    // Fewer blocks than levels: as near as whole blocks come, and never nothing.
    check(&[Part::Data(1, 1)], &[], "3", &[], &[0, 1, 1, 1]);
    check(&[Part::Data(1, BLOCK + 1)], &[], "4", &[], &[0, BLOCK, BLOCK, BLOCK + 1, BLOCK + 1]);
    // Zeros that are data are changed like all data, and holes are not.
    check(&[Part::Zeros(MIB)], &[Part::Zeros(MIB)], "2", &[], &[0, MIB / 2, MIB]);
    let sparse = [Part::Hole(64 * MIB), Part::Data(1, MIB), Part::Hole(64 * MIB), Part::Data(2, MIB)];
    check(&sparse, &sparse, "2", &[], &[0, MIB, 2 * MIB]);
}

#[test]
fn what_must_not_be_overwritten_is_refused_and_left_alone() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let target = rig.make("target", &OLD);
    rig.make("linked", &OLD);
    fs::hard_link(rig.path("linked"), rig.path("linked2")).unwrap();
    fs::create_dir(rig.path("directory")).unwrap();
    let linked = rig.path("linked");
    let before = || (names(&rig), state(&source), state(&target), state(&linked), state(&rig.path("directory")));
    let untouched = before();
    let check = |way: Way, source: &str, target: &str, arguments: &[&str], code: i32, told: &str| {
        let run = rig.copy(way, source, target, arguments);
        run.tells(told);
        assert!(Measured::of(run, code).levels.is_empty());
        assert_eq!(before(), untouched, "{arguments:?} {source} {target}");
    };
    for way in WAYS {
        check(way, "source", "target", &["-B", "2"], 5, "nobody is here to be asked: --yes agrees");
        check(way, "source", "missing", &["-B", "2", "--yes"], 5, "copy it first: pdcp ");
        check(way, "source", "not there", &["-B", "2", "--yes"], 5, "not there'");
        check(way, "source", "no/parent", &["-B", "2", "--yes"], 5, "copy it first: pdcp ");
        check(way, "source", "directory", &["-B", "2", "--yes"], 5, "copy it first: pdcp ");
        check(way, "source", "linked", &["-B", "2", "--yes"], 5, "--inplace updates");
        check(way, "source", "/dev/null", &["-B", "2", "--yes"], 5, "is a character device");
        check(way, "source", "target", &["-B", "2", "--yes", "-n"], 2, "cannot be used with");
        check(way, "source", "target", &["-B", "0", "--yes"], 2, "1..=100");
        check(way, "source", "target", &["-B", "101", "--yes"], 2, "1..=100");
        check(way, "source", "target", &["--yes"], 2, "--benchmark");
        check(way, "source", "target", &["--rsync-source", "h:/a"], 2, "--benchmark");
        check(way, "missing", "target", &["-B", "2", "--yes"], 3, "no such file");
    }
    check(Way::Local, "source", "source", &["-B", "2", "--yes"], 2, "same file");
    check(Way::Push, "source", "target", &["-B", "2", "--yes"], 2, "is remote, but a benchmark overwrites its target");
}

#[test]
fn what_holds_no_data_is_refused_once_it_is_level() {
    for parts in [&[][..], &[Part::Hole(MIB)]] {
        let rig = Rig::in_memory();
        let source = rig.make("source", parts);
        let target = rig.make("target", &OLD);
        let run = rig.copy(Way::Local, "source", "target", &["-B", "2", "--yes"]);
        run.tells("nothing to measure with");
        run.tells("equals");
        Measured::of(run, 5);
        assert_equal(&source, &target);
    }
}

#[test]
fn links_to_the_target_are_followed_as_in_a_copy() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let target = rig.make("target", &OLD);
    symlink("target", rig.path("link")).unwrap();
    fs::create_dir(rig.path("directory")).unwrap();
    make(&rig.path("directory/source"), &OLD);
    Measured::of(rig.copy(Way::Pull, "source", "link", &["-B", "1", "--yes"]), 0);
    assert!(rig.path("link").is_symlink());
    assert_equal(&source, &target);
    Measured::of(rig.copy(Way::Pull, "source", "directory", &["-B", "1", "--yes"]), 0);
    assert_equal(&source, &rig.path("directory/source"));
    fs::hard_link(&target, rig.path("hard")).unwrap();
    Measured::of(rig.copy(Way::Local, "source", "hard", &["-B", "1", "--yes", "--inplace"]), 0);
    assert_equal(&source, &target);
}

/// Mutating the only copy there is would lose it, and every later comparison would say that all is well.
#[test]
fn one_file_by_two_names_is_found_out_and_left_as_it_was() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let before = (digest(&source), mtime(&source));
    let (from, to) = (remote(rig.server.port, &source), source.as_os_str());
    for comparing in [&[][..], &["-W"]] {
        let mut command = pdcp(&["-B", "2", "--yes", "--json"]);
        command.args(comparing).arg(&from).arg(to);
        let run = Process::start(command).wait();
        run.tells("source and target are the same file");
        assert!(Measured::of(run, 2).levels.is_empty());
        assert_eq!((digest(&source), mtime(&source)), before);
    }
}

/// Trigger: a source that shows the target's own bytes, and has no time that would tell, as a loop device, or one that a
/// mapper or qemu-nbd makes. Damage: what was mutated was mutated in both, equal, and lost; exit 0.
#[test]
fn a_device_that_shows_the_target_itself_is_found_out_and_left_as_it_was() {
    let rig = Rig::new();
    for parts in [&SOURCE[..], &[Part::Data(1, 512)], &[Part::Hole(8 * MIB), Part::Zeros(MIB), Part::Data(2, 5 * KIB)]]
    {
        let image = rig.make("image", parts);
        fs::File::open(&image).unwrap().sync_all().unwrap();
        let Some(device) = Loop::of(&image) else {
            return eprintln!("SKIPPED: this user may not make loop devices");
        };
        // Whoever has it open keeps what was read of it in the cache, and what is read there is old.
        let mut held = fs::File::open(&device.0).unwrap();
        let before = (digest(&image), mtime(&image));
        for cached in [false, true] {
            for way in WAYS {
                for arguments in [&[][..], &["-W"], &["--no-fsync", "--direct", "never"]] {
                    if cached {
                        held.rewind().unwrap();
                        std::io::copy(&mut held, &mut std::io::sink()).unwrap();
                    }
                    let arguments = [&["-B", "4", "--yes"], arguments].concat();
                    let run = rig.copy(way, device.0.to_str().unwrap(), "image", &arguments);
                    run.tells("source and target are the same file");
                    assert!(Measured::of(run, 2).levels.is_empty());
                    assert_eq!((digest(&image), mtime(&image)), before, "{way:?} {arguments:?}");
                }
            }
        }
    }
}

/// Nobody sees from a device's times that it changes.
#[test]
fn a_device_that_is_another_file_is_measured_until_it_changes() {
    let rig = Rig::new();
    let image = rig.make("image", &SOURCE);
    let target = rig.make("target", &OLD);
    fs::File::open(&image).unwrap().sync_all().unwrap();
    let Some(device) = Loop::of(&image) else {
        return eprintln!("SKIPPED: this user may not make loop devices");
    };
    for way in WAYS {
        let source = device.0.to_str().unwrap();
        Measured::of(rig.copy(way, source, "target", &["-B", "2", "--yes"]), 0);
        assert_equal(&image, &target);
    }
    // Enough for level 0, not for 1, which may have read by then what changes now; level 2 has not.
    let valve = Valve::new(rig.server.port, 1_000_000);
    let arguments = ["-B", "2", "--yes", "--connections", "1"];
    let run = rig.start_by(valve.port, Way::Pull, device.0.to_str().unwrap(), "target", &arguments);
    valve.wait_until_held();
    fs::File::options().write(true).open(&device.0).unwrap().write_all_at(&[7; 4096], 4 * MIB - 4096).unwrap();
    valve.open();
    let run = run.wait();
    run.tells("has changed since the benchmark began");
    run.tells("equals");
    assert!(Measured::of(run, 24).levels.len() < 3);
    assert_equal(&image, &target);
}

#[test]
fn a_person_is_asked_and_anything_but_yes_is_no() {
    #[track_caller]
    fn check(typed: &str, code: i32) {
        let rig = Rig::in_memory();
        let (source, target) = (rig.make("source", &SOURCE), rig.make("target", &OLD));
        let before = state(&target);
        for json in [&[][..], &["--json"]] {
            let mut command = pdcp(&["-q", "-B", "2"]);
            command.args(json).arg(&source).arg(&target);
            let run = Process::start_on_terminal(command, typed.as_bytes()).wait();
            assert_eq!(run.code, code, "{run}");
            run.tells(&format!("{} is overwritten at 2 levels", target.display()));
            run.tells("[y/N]");
            match code {
                0 => assert_equal(&source, &target),
                _ => assert_eq!(state(&target), before),
            }
        }
    }
    check("y\n", 0);
    check(" YES \n", 0);
    check("n\n", 5);
    check("\n", 5);
    check("yesterday\n", 5);
    check("\x04", 5); // the end of the input
}

#[test]
fn people_get_a_row_for_each_level_and_then_the_hash() {
    let rig = Rig::in_memory();
    let (source, target) = (rig.make("source", &SOURCE), rig.make("target", &OLD));
    let of = |quiet: &[&str]| {
        let mut command = pdcp(&["-B", "2", "--yes"]);
        command.args(quiet).arg(&source).arg(&target);
        let run = Process::start(command).wait();
        assert_eq!((run.code, &run.stderr[..]), (0, ""), "{run}");
        run.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = of(&[]);
    assert_eq!(lines.len(), 6, "{lines:?}");
    assert_eq!(lines[0], "Delta size | Data transferred | Runtime of pdcp");
    for (line, begin) in lines[1..].iter().zip(["       0% |              0 B |", "      50% |         2.00 MiB |"]) {
        assert!(line.trim_start().starts_with(begin.trim_start()), "{line}");
    }
    assert_eq!(lines[4], format!("{} equals {} again", target.display(), source.display()));
    assert_eq!(lines[5], digest(&source));
    assert_eq!(of(&["-q"]).len(), 4, "the overview is what was asked for");
}

#[test]
fn what_is_cut_midway_says_so_and_the_command_that_it_names_heals() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let rig = Rig::in_memory();
        let source = rig.make("source", &SOURCE);
        let target = rig.make("target", &SOURCE);
        // Enough for levels 0 and 1, not for 2.
        let valve = Valve::new(rig.server.port, 3_000_000);
        let arguments = ["-B", "2", "--yes", "--connections", "1"];
        let run = rig.start_by(valve.port, Way::Pull, "source", "target", &arguments);
        valve.wait_until_held();
        run.signal(signal);
        let run = run.wait();
        let (from, to) = ends(valve.port, Way::Pull, &source, &target);
        let remedy = format!("pdcp {} {}", from.display(), to.display());
        run.tells(&format!("{} may be left mutated; this brings it back: {remedy}", target.display()));
        assert_eq!(Measured::of(run, code).levels.len(), 2);
        assert_ne!(mtime(&target), mtime(&source), "a mutated target looks finished");
        valve.open();
        rig.copy(Way::Pull, "source", "target", &[]).ends_with(0);
        assert_equal(&source, &target);
        assert_eq!(mtime(&target), mtime(&source));
    }
}

#[test]
fn an_error_at_a_level_ends_it_with_that_copys_code() {
    let mut rig = Rig::in_memory();
    let (source, target) = (rig.make("source", &SOURCE), rig.make("target", &SOURCE));
    let valve = Valve::new(rig.server.port, 3_000_000);
    let run = rig.start_by(valve.port, Way::Pull, "source", "target", &["-B", "2", "--yes", "--connections", "1"]);
    valve.wait_until_held();
    fs::File::options().write(true).open(&source).unwrap().write_all_at(b"changed", 0).unwrap();
    valve.open();
    let run = run.wait();
    run.tells("may be left mutated");
    assert_eq!(Measured::of(run, 24).levels.len(), 2);
    assert_ne!(mtime(&target), mtime(&source));
    rig.server.process.line_with("pull of");
}

#[test]
fn rsync_is_measured_beside_it_and_is_not_believed() {
    if !Command::new("rsync").arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return eprintln!("SKIPPED: there is no rsync here");
    }
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let target = rig.make("target", &OLD);
    rig.make("other", &OLD);
    symlink("target", rig.path("link")).unwrap();
    let before = names(&rig);
    let check = |rsync_source: &str, code: i32, levels: usize, told: &str| {
        let url = rig.path(rsync_source).display().to_string();
        let run = rig.copy(Way::Pull, "source", "link", &["-B", "2", "--yes", "--rsync-source", &url]);
        run.tells(told);
        let measured = Measured::of(run, code);
        assert_eq!(measured.levels.len(), levels);
        assert!(measured.levels.iter().all(|level| level["rsync_seconds"].is_f64()));
        // Also where rsync did nothing, or did harm.
        assert_equal(&source, &target);
        assert_eq!((mtime(&source), names(&rig)), (mtime(&target), before.clone()));
        assert!(rig.path("link").is_symlink());
    };
    check("source", 0, 3, "");
    check("other", 1, 0, "bytes that differ; is this the same source?");
    check("missing", 1, 0, "rsync failed: exit status: 23");
    check("missing", 1, 0, &format!("{} equals", rig.path("link").display()));
}

#[test]
fn rsync_that_is_missing_is_told_before_anything_is_done() {
    let rig = Rig::in_memory();
    let (source, target) = (rig.make("source", &SOURCE), rig.make("target", &OLD));
    let before = state(&target);
    let mut command = pdcp(&["-B", "2", "--yes", "--json", "--rsync-source", "host:/path"]);
    command.arg(source).arg(&target).env("PATH", rig.directory());
    let run = Process::start(command).wait();
    run.tells("rsync cannot be started");
    assert!(Measured::of(run, 1).levels.is_empty());
    assert_eq!(state(&target), before);
}
