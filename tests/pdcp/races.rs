//! The real program serves a directory in which somebody exchanges all that can be exchanged, while its clients push and
//! pull, in every way they can. Only the jail holds here: there is no Landlock, and in the second half no `openat2` either.
//!
//! It takes some seconds; `PDCP_RACE_SECONDS` says how long each half goes on instead. What is done to names one by one is
//! raced in the tests of `root`.

use crate::rig::sandbox::{ENOSYS, LANDLOCK, OPENAT2, Refused, refusing};
use crate::rig::{KIB, Part, Process, Race, Server, Way, bytes, ends, make, pdcp};
use rustix::fs::{AtFlags, Dir, unlinkat};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const BLOCK: u64 = 16 * KIB;
const INSIDE: [Part; 1] = [Part::Data(1, 20 * BLOCK)];
/// Every second push differs from the one before, in data and in holes.
const SOURCES: [(&str, &[Part]); 2] = [
    ("one", &[Part::Data(1, 9 * BLOCK), Part::Hole(9 * BLOCK), Part::Data(2, 9 * BLOCK)]),
    ("two", &[Part::Data(3, 20 * BLOCK)]),
];
/// None of its blocks is in anything that is served.
const OUTSIDE: [Part; 1] = [Part::Data(9, 20 * BLOCK)];

const COPIES: &[(Way, &str, &[&str])] = &[
    (Way::Push, "first/middle/last/file", &[]),
    (Way::Pull, "first/middle/last/file", &[]),
    (Way::Push, "first/middle/last/file", &["-n"]),
    (Way::Push, "first/middle/last/file", &["-W", "--verify"]),
    (Way::Push, "first/middle/last/file", &["--direct", "always"]),
    (Way::Push, "first/middle/last/twin", &["--inplace"]),
    (Way::Push, "first/middle/last/new", &["--no-fsync"]),
    (Way::Push, "first/middle/last/new", &["--direct", "always"]),
    (Way::Push, "first/middle/last", &[]),
    (Way::Push, "first/middle/last/", &[]),
    (Way::Push, "first/middle/last/made/deeper/new", &[]),
    (Way::Push, "first/middle/last/made/../file", &[]),
    (Way::Push, "up-and-down", &[]),
    (Way::Pull, "first/middle/last/deep/../file", &[]),
    (Way::Pull, "up-and-down", &["--direct", "always"]),
    (Way::Pull, "via", &["-W"]),
];
/// Done, source missing, refused, target not writable, source changed, in use. Nothing else may become of a copy in a race.
const ENDS: &[i32] = &[0, 3, 5, 11, 24, 43];

#[test]
fn whoever_exchanges_what_is_on_the_way_of_a_copy_gains_nothing() {
    for refused in [&[LANDLOCK][..], &[LANDLOCK, OPENAT2]] {
        race(refused);
    }
}

fn race(refused: &[Refused]) {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    SOURCES.iter().for_each(|(name, parts)| make(&path(name), parts));
    fs::create_dir(path("pulled")).unwrap();
    let race = Race::new(scratch.path(), &bytes(&INSIDE), &bytes(&OUTSIDE));
    let jail = race.jail.display().to_string();
    let server = refusing(refused, ENOSYS, || Server::start(&["127.0.0.1:0", "-c", "1", "--root", &jail]));
    let seconds = std::env::var("PDCP_RACE_SECONDS").map_or(1, |seconds| seconds.parse().unwrap());
    let mut ended = BTreeMap::<i32, u64>::new();
    let ((), exchanges) = race.run(|| {
        let until = Instant::now() + Duration::from_secs(seconds);
        for (index, (source, _)) in (0..).zip(SOURCES.iter().cycle()) {
            if index >= SOURCES.len() && Instant::now() >= until {
                break;
            }
            for (way, served, options) in COPIES {
                let [source, target] = match way {
                    Way::Push => [path(source), served.into()],
                    _ => [served.into(), path("pulled").join("file")],
                };
                let (source, target) = ends(server.port, *way, &source, &target);
                let mut command = pdcp(&["--json", "-c", "1", "--connections", "1"]);
                command.args(*options).arg(source).arg(target);
                let run = Process::start(command).wait();
                assert!(ENDS.contains(&run.code), "{run}");
                *ended.entry(run.code).or_default() += 1;
                assert_nothing_leaked(&path("pulled"));
                clear(&race);
            }
        }
    });
    eprintln!("{refused:?} refused: {ended:?} ended, {exchanges} exchanges");
    race.outside.assert_untouched("a copy");
    assert!(ended.contains_key(&0));
}

/// No block of what is outside is in what was pulled, finished or not.
fn assert_nothing_leaked(pulled: &Path) {
    let outside = bytes(&OUTSIDE);
    let block = usize::try_from(BLOCK).unwrap();
    let outside: HashSet<&[u8]> = outside.chunks(block).collect();
    for entry in fs::read_dir(pulled).unwrap().map(Result::unwrap) {
        let content = fs::read(entry.path()).unwrap();
        assert!(!content.chunks(block).any(|block| outside.contains(block)), "{:?}", entry.file_name());
        fs::remove_file(entry.path()).unwrap();
    }
}

/// Takes away what a copy has made, or has left, so that the next one makes it anew.
fn clear(race: &Race) {
    for made in ["new", "one", "two", "made/deeper/new"] {
        _ = unlinkat(&race.last, made, AtFlags::empty());
    }
    for entry in Dir::read_from(&race.last).unwrap().map(Result::unwrap) {
        if entry.file_name().to_bytes().starts_with(b".pdcp-") {
            _ = unlinkat(&race.last, entry.file_name(), AtFlags::empty());
        }
    }
    for made in ["made/deeper", "made"] {
        _ = unlinkat(&race.last, made, AtFlags::REMOVEDIR);
    }
}
