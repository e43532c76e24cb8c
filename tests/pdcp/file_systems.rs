//! File systems that lack what others have, those in user space, of sticks, of other systems; and disks that hang.

use crate::rig::freezer::Freezer;
use crate::rig::sandbox::{EINVAL, ENOSYS, EOPNOTSUPP, EPERM, FCHMOD, LINKAT, RENAMEAT2, Refused, refusing};
use crate::rig::union::Union;
use crate::rig::{KIB, MIB, Part, Process, Rig, Valve, Way, assert_equal, ends, make, mtime, pdcp};
use pdcp::limits::WORKER_SILENT_MS;
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const SOURCE: [Part; 1] = [Part::Data(1, 3 * MIB + 5)];

/// Trigger: a target on mergerfs, sshfs or unionfs. Damage: the new file was whole and had its name, but the run ended with 'somebody
/// else replaced it', and the one right after it with 'has 2 names': what had been linked was another file by its number. And under
/// bindfs, encfs or unionfs it had the time of its making, as these set both times or none. Cure: such a file is renamed, and
/// both times are set.
#[test]
fn a_file_system_in_user_space_is_as_good_as_any() {
    for way in Way::ALL {
        let rig = Rig::in_memory();
        let source = rig.make("source", &SOURCE);
        let Some(union) = Union::below(rig.directory()) else { return eprintln!("SKIPPED: {}", Union::NEEDS) };
        let target = union.top.join("target");
        let check = || {
            assert_equal(&source, &target);
            assert_eq!(mtime(&target), mtime(&source), "{way:?}");
            let names: Vec<_> = fs::read_dir(&union.top).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["target"], "{way:?}");
        };
        for options in [&[] as &[_], &["--verify"], &["--direct", "always"], &["--verify", "--direct", "always"]] {
            rig.remove("union/target");
            rig.copy(way, "source", "union/target", options).ends_with(0);
            check();
            rig.copy(way, "source", "union/target", options).ends_with(0);
            rig.copy(way, "union/target", "back", options).ends_with(0);
        }
        rig.make("union/target", &[Part::Data(1, MIB), Part::Data(2, 64 * KIB)]);
        rig.copy(way, "source", "union/target", &[]).ends_with(0);
        check();
    }
}

/// Trigger: a new file that is large against the memory, on mergerfs or unionfs. Damage: it was written past the page cache, which these
/// let be asked for, and then refuse. Cure: they are not trusted with it.
#[test]
fn a_large_file_is_made_in_user_space_as_well() {
    let rig = Rig::in_memory();
    let memory = rustix::system::sysinfo();
    let large = Part::Hole(memory.totalram * u64::from(memory.mem_unit) / 10);
    let source = rig.make("source", &[Part::Data(1, 3 * MIB), large]);
    let Some(union) = Union::below(rig.directory()) else { return eprintln!("SKIPPED: {}", Union::NEEDS) };
    rig.copy(Way::Push, "source", "union/target", &[]).ends_with(0);
    assert_eq!(mtime(&union.top.join("target")), mtime(&source));
}

/// As above: what an interrupted run had half updated looked like any file.
#[test]
fn what_is_unfinished_in_user_space_has_a_time_that_no_other_file_has() {
    let rig = Rig::in_memory();
    rig.make("source", &[Part::Data(1, 8 * MIB)]);
    let Some(union) = Union::below(rig.directory()) else { return eprintln!("SKIPPED: {}", Union::NEEDS) };
    let target = rig.make("union/target", &[Part::Data(2, 8 * MIB)]);
    let valve = Valve::new(rig.server.port, 2_000_000);
    let copy = rig.start_by(valve.port, Way::Pull, "source", "union/target", &["--connections", "2"]);
    valve.wait_until_held();
    copy.signal(Signal::INT);
    copy.wait().ends_with(130);
    assert_eq!(mtime(&target), (0, 0));
    drop(union);
}

/// Trigger: exfat-fuse, fusefat: no second names, no renaming without replacing. Damage: all was copied, and kept under a temporary
/// name for ever. Cure: renamed, if the name is free.
#[test]
fn a_new_file_takes_its_name_where_the_file_system_can_only_rename() {
    without(&[(EINVAL, RENAMEAT2), (EPERM, LINKAT)]);
    without(&[(ENOSYS, RENAMEAT2), (EOPNOTSUPP, LINKAT)]);
    without(&[(EINVAL, RENAMEAT2)]);
}

/// Trigger: fusefat, `bindfs --chmod-deny`, a share of another system. Damage: no new file could be made at all, and an empty one stayed.
/// Cure: its mode is what the file system says it is.
#[test]
fn a_new_file_is_made_where_the_file_system_has_no_modes() {
    for errno in [EPERM, ENOSYS, EOPNOTSUPP] {
        without(&[(errno, FCHMOD)]);
    }
}

/// A new file is made by a program that is refused these calls.
#[track_caller]
fn without(refused: &[(u32, Refused)]) {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let (here, there) = ends(0, Way::Local, &source, &rig.path("target"));
    let mut command = pdcp(&["--json"]);
    command.arg(here).arg(there);
    let start = || Process::start(command);
    let process = match refused {
        [(errno, call)] => refusing(&[*call], *errno, start),
        [(errno, call), (other_errno, other)] => {
            refusing(&[*call], *errno, || refusing(&[*other], *other_errno, start))
        }
        _ => unreachable!("no test refuses more"),
    };
    process.wait().ends_with(0);
    assert_equal(&source, &rig.path("target"));
    assert_eq!(mtime(&rig.path("target")), mtime(&source));
    let names = fs::read_dir(rig.directory()).unwrap().count();
    assert_eq!(names, 2, "beside source and target");
}

/// Trigger: a disk is frozen, or its host gone, in the midst of fast writes. Damage: one worker hung in a plain write and the other
/// waited for its turn; whoever else the server had ended after a minute, and whoever came found nobody. Cure: where others are
/// the ring writes; nobody waits for his turn beside a disk; newcomers go to workers that answer.
#[test]
fn a_disk_that_hangs_in_the_midst_of_writing_holds_up_nobody_else() {
    for beside in [true, false] {
        let rig = Rig::in_memory();
        let source = rig.make("source", &[Part::Data(1, 12 * MIB)]);
        // Dropped first: a server in which something hangs cannot even be killed.
        let Some(freezer) = Freezer::new() else { return eprintln!("SKIPPED: {}", Freezer::NEEDS) };
        let target = freezer.disk.join("target");
        make(&target, &[Part::Data(2, 12 * MIB)]);
        let held = |target: &Path| {
            let valve = Valve::new(rig.server.port, 3_000_000);
            let copy = rig.start_by(valve.port, Way::Push, "source", target, &["--connections", "2"]);
            valve.wait_until_held();
            (valve, copy)
        };
        let neighbour = beside.then(|| held(&rig.path("beside")));
        let (valve, copy) = held(&target);
        assert!(freezer.freeze());
        valve.open();
        let since = Instant::now();
        while !hangs(&rig) {
            assert!(since.elapsed() < Duration::from_secs(30), "nobody writes to it");
        }
        if let Some((valve, copy)) = neighbour {
            valve.open();
            copy.wait().ends_with(0);
            assert_equal(&source, &rig.path("beside"));
        }
        std::thread::park_timeout(Duration::from_millis(WORKER_SILENT_MS + 500));
        rig.copy(Way::Push, "source", "later", &[]).ends_with(0);
        assert_equal(&source, &rig.path("later"));
        assert!(hangs(&rig));
        assert!(freezer.thaw());
        copy.wait().ends_with(0);
        assert_equal(&source, &target);
    }
}

/// Some thread of the server, or one that the kernel has for it, waits for a disk.
fn hangs(rig: &Rig) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", rig.server.process.id())).unwrap();
    tasks.flatten().any(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('D'))
    })
}
