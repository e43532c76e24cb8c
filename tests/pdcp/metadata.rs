//! What becomes of a file's mode and times, and that nothing is written where nothing has to be.

use crate::rig::{KIB, MIB, Part, Rig, Way, assert_equal, bytes, digest, is_root, mtime, state};
use std::fs::{self, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mtime(path: &Path, mtime: SystemTime) {
    fs::File::options().append(true).open(path).unwrap().set_times(FileTimes::new().set_modified(mtime)).unwrap();
}

#[test]
fn a_new_file_takes_the_sources_permissions_and_an_existing_one_keeps_its_own() {
    #[track_caller]
    fn check(source_mode: u32, target_mode: Option<u32>, want: u32) {
        for way in Way::ALL {
            let rig = Rig::in_memory();
            set_mode(&rig.make("source", &[Part::Data(1, KIB)]), source_mode);
            if let Some(mode) = target_mode {
                set_mode(&rig.make("target", &[Part::Data(2, KIB)]), mode);
            }
            rig.copy(way, "source", "target", &[]).ends_with(0);
            assert_eq!(mode(&rig.path("target")), want, "{way:?} of {source_mode:o} onto {target_mode:?}");
        }
    }
    check(0o644, None, 0o644);
    check(0o600, None, 0o600);
    check(0o777, None, 0o777);
    check(0o444, None, 0o444);
    check(0o4755, None, 0o755);
    check(0o2755, None, 0o755);
    check(0o1666, None, 0o666);
    check(0o644, Some(0o600), 0o600);
    check(0o600, Some(0o666), 0o666);
    check(0o4755, Some(0o640), 0o640);
}

#[test]
fn the_target_has_the_sources_modification_time_to_the_nanosecond() {
    let whole = SystemTime::UNIX_EPOCH;
    for (what, time) in [
        ("the epoch", whole),
        ("one second", whole + Duration::from_secs(1)),
        ("a nanosecond", whole + Duration::new(1_000_000_000, 1)),
        ("before the epoch", whole - Duration::new(1_000, 500)),
        ("in the future", whole + Duration::from_secs(4_000_000_000)),
        ("after 2038", whole + Duration::new(2_200_000_000, 999_999_999)),
    ] {
        for way in Way::ALL {
            let rig = Rig::new();
            let source = rig.make("source", &[Part::Data(1, MIB)]);
            set_mtime(&source, time);
            for basis in [None, Some(2), Some(1)] {
                rig.remove("target");
                if let Some(which) = basis {
                    rig.make("target", &[Part::Data(which, MIB)]);
                }
                let summary = rig.copy(way, "source", "target", &[]).ends_with(0);
                assert!(summary.flag("changed"));
                assert_eq!(mtime(&rig.path("target")), mtime(&source), "{what}, {way:?}");
            }
        }
    }
}

#[test]
fn a_target_that_is_equal_already_is_not_touched() {
    for rig in [Rig::new(), Rig::in_memory()] {
        for way in Way::ALL {
            for parts in [&[][..], &[Part::Data(1, 1)], &[Part::Data(1, 3 * MIB + 1)], &[Part::Hole(MIB)]] {
                for arguments in [&[][..], &["--verify"], &["--direct", "always"], &["-n"], &["-c", "1"]] {
                    rig.remove("target");
                    rig.make("source", parts);
                    rig.copy(way, "source", "target", &[]).ends_with(0);
                    let before = state(&rig.path("target"));
                    let summary = rig.copy(way, "source", "target", arguments).ends_with(0);
                    assert_eq!(state(&rig.path("target")), before, "{way:?} {parts:?} {arguments:?}");
                    assert!(!summary.flag("changed"));
                    assert_eq!(summary.similarity(), Some(1.0));
                }
            }
        }
    }
}

#[test]
fn a_target_with_equal_content_gets_only_its_time() {
    for way in Way::ALL {
        let rig = Rig::in_memory();
        let source = rig.make("source", &[Part::Data(1, MIB)]);
        set_mtime(&source, SystemTime::UNIX_EPOCH + Duration::from_secs(99));
        rig.make("target", &[Part::Data(1, MIB)]);
        let summary = rig.copy(way, "source", "target", &[]).ends_with(0);
        assert_eq!(summary.parts(), [MIB, 0, 0]);
        assert!(summary.flag("changed"));
        assert_eq!(mtime(&rig.path("target")), (99, 0));
    }
}

#[test]
fn a_source_is_only_read() {
    let rig = Rig::new();
    let source = rig.make("source", &[Part::Data(1, MIB), Part::Hole(MIB)]);
    set_mode(&source, 0o400);
    let before = state(&source);
    for way in Way::ALL {
        rig.copy(way, "source", "target", &["--verify"]).ends_with(0);
        assert_eq!(state(&source), before, "{way:?}");
    }
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    struct Want {
        parts: [u64; 3],
        similarity: Option<f64>,
        changed: bool,
    }
    #[track_caller]
    fn check(source: &[Part], basis: Option<&[Part]>, want: &Want) {
        for way in Way::ALL {
            let rig = Rig::in_memory();
            let source = rig.make("source", source);
            let before = basis.map(|basis| {
                let target = rig.make("target", basis);
                set_mtime(&target, fs::metadata(&source).unwrap().modified().unwrap());
                (state(&target), digest(&target))
            });
            let target = rig.path(if basis.is_some() { "target" } else { "new/target" });
            let summary = rig.copy(way, "source", target.strip_prefix(rig.directory()).unwrap(), &["-n"]).ends_with(0);
            assert!(summary.flag("dry_run"));
            assert_eq!(summary.parts(), want.parts, "{way:?}");
            assert_eq!(summary.similarity(), want.similarity, "{way:?}");
            assert_eq!(summary.flag("changed"), want.changed, "{way:?}");
            match before {
                Some(before) => assert_eq!((state(&target), digest(&target)), before, "{way:?}"),
                None => assert_eq!(fs::read_dir(rig.directory()).unwrap().count(), 1, "{way:?}: something was made"),
            }
            // And then it does what it has said.
            let done = rig.copy(way, "source", target.strip_prefix(rig.directory()).unwrap(), &[]).ends_with(0);
            assert_eq!((done.parts(), done.flag("changed")), (want.parts, want.changed), "{way:?}");
            assert_equal(&source, &target);
        }
    }
    let data = Part::Data(1, MIB);
    let want = |parts, similarity, changed| Want { parts, similarity, changed };
    check(&[data], None, &want([0, MIB, 0], None, true));
    check(&[], None, &want([0, 0, 0], None, true));
    check(&[], Some(&[]), &want([0, 0, 0], Some(1.0), false));
    check(&[], Some(&[data]), &want([0, 0, 0], Some(1.0), true));
    check(&[data], Some(&[data]), &want([MIB, 0, 0], Some(1.0), false));
    check(&[data], Some(&[]), &want([0, MIB, 0], Some(0.0), true));
    check(&[data], Some(&[data, data]), &want([MIB, 0, 0], Some(1.0), true));
    check(&[data, Part::Data(2, MIB)], Some(&[data]), &want([MIB, MIB, 0], Some(0.5), true));
    check(&[Part::Data(2, MIB), data], Some(&[data, data]), &want([MIB, MIB, 0], Some(0.5), true));
    check(&[Part::Hole(MIB), data], Some(&[data, data]), &want([MIB, 0, MIB], Some(0.5), true));
    check(&[Part::Hole(MIB), data], None, &want([0, MIB, MIB], None, true));
}

#[test]
fn a_dry_run_says_to_people_what_would_move() {
    let rig = Rig::in_memory();
    let (source, target) = (rig.make("source", &[Part::Data(1, MIB)]), rig.make("target", &[Part::Data(1, MIB / 2)]));
    let run = crate::rig::run(&["-n".as_ref(), source.as_os_str(), target.as_os_str()]);
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stdout.contains("50.0% equal: 32 blocks differ, 512.00 KiB would move"), "{run}");
}

#[test]
fn a_target_of_somebody_else_keeps_its_owner() {
    if !is_root() {
        return eprintln!("SKIPPED: only root can give a file away");
    }
    for way in Way::ALL {
        let rig = Rig::in_memory();
        rig.make("source", &[Part::Data(1, MIB)]);
        let target = rig.make("target", &[Part::Data(2, MIB)]);
        std::os::unix::fs::chown(&target, Some(12345), Some(54321)).unwrap();
        rig.copy(way, "source", "target", &[]).ends_with(0);
        let found = fs::metadata(&target).unwrap();
        assert_eq!((found.uid(), found.gid()), (12345, 54321));
        assert_eq!(fs::read(&target).unwrap(), bytes(&[Part::Data(1, MIB)]));
    }
}
