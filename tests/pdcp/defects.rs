//! Every defect that pdiffcopy 1.0.1 is known for, and that must not come back. A test is named by what its users saw.

use crate::rig::{KIB, MIB, Part, Process, Rig, Valve, Way, assert_equal, pdcp, remote};
use std::fs;

#[test]
fn two_empty_files_ended_in_a_division_by_zero() {
    for way in Way::ALL {
        let rig = Rig::in_memory();
        rig.make("source", &[]);
        rig.make("target", &[]);
        for arguments in [&["-n"][..], &[], &["-W"], &["--verify"]] {
            let summary = rig.copy(way, "source", "target", arguments).ends_with(0);
            assert_eq!(summary.parts(), [0, 0, 0]);
        }
    }
}

#[test]
fn an_empty_source_was_nothing_to_do_and_its_target_was_not_made() {
    for way in Way::ALL {
        let rig = Rig::in_memory();
        rig.make("source", &[]);
        assert!(rig.copy(way, "source", "target", &[]).ends_with(0).flag("changed"));
        assert_eq!(fs::metadata(rig.path("target")).unwrap().len(), 0);
    }
}

#[test]
fn a_relative_target_in_the_working_directory_was_not_found() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &[Part::Data(1, MIB)]);
    for typed in [source.as_os_str().to_owned(), remote(rig.server.port, &source), "source".into()] {
        let mut command = pdcp(&["--json"]);
        command.arg(typed).arg("target").current_dir(rig.directory());
        Process::start(command).wait().ends_with(0);
        assert_equal(&source, &rig.path("target"));
        rig.remove("target");
    }
}

#[test]
fn a_missing_source_was_told_as_something_else() {
    let rig = Rig::in_memory();
    for way in Way::ALL {
        let run = rig.copy(way, "source", "target", &[]);
        run.ends_with(3);
        let missing = rig.path("source");
        run.tells(&format!("{}: no such file or directory", missing.display()));
    }
}

// A block device had size 0: `a_block_device_is_copied_as_the_file_that_it_is_and_refused_as_target` in `failures`.

#[test]
fn a_target_that_only_had_to_shrink_was_uploaded() {
    for way in Way::ALL {
        let rig = Rig::in_memory();
        let source = rig.make("source", &[Part::Data(1, MIB)]);
        rig.make("target", &[Part::Data(1, MIB), Part::Data(2, 3 * MIB)]);
        // The tail is no block to move either.
        assert_eq!(rig.copy(way, "source", "target", &["-n"]).ends_with(0).parts(), [MIB, 0, 0]);
        let summary = rig.copy(way, "source", "target", &[]).ends_with(0);
        assert_eq!(summary.parts(), [MIB, 0, 0]);
        if way != Way::Local {
            assert!(summary.number("wire_sent_bytes") + summary.number("wire_received_bytes") < 8 * KIB);
        }
        assert_equal(&source, &rig.path("target"));
    }
}

#[test]
fn each_phase_was_waited_for_by_sleeping() {
    // Time is not measured here. Who waits by sleeping has to write it down.
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for floor in ["ring", "session", "worker", "wire", "control/drive.rs", "control/link.rs", "control/dial.rs"] {
        let mut paths = vec![source.join(floor)];
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                paths.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                assert!(!fs::read_to_string(&path).unwrap().contains("sleep("), "{path:?}");
            }
        }
    }
}

#[test]
fn there_was_a_connection_for_each_block() {
    for way in Way::REMOTE {
        let rig = Rig::in_memory();
        rig.make("source", &[Part::Data(1, 8 * MIB)]);
        let valve = Valve::new(rig.server.port, usize::MAX);
        rig.start_by(valve.port, way, "source", "target", &["--connections", "2"]).wait().ends_with(0);
        assert_eq!(valve.connections(), 3, "one for control and two for data");
    }
}

#[test]
fn something_had_to_be_installed_beside_it() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &[Part::Data(1, MIB)]);
    let mut command = pdcp(&["--json"]);
    command.arg(&source).arg("target").env_clear().current_dir(rig.directory());
    Process::start(command).wait().ends_with(0);
    assert_equal(&source, &rig.path("target"));
}

#[test]
fn a_block_that_could_not_be_written_was_a_success_and_a_wrong_target() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &[Part::Data(1, 8 * MIB)]);
    let target = rig.make("target", &[Part::Data(2, 8 * KIB)]);
    // Only what lies beyond some length cannot be written.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -f 8192; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_pdcp"), "--json"]);
    command.args([&source, &target]);
    Process::start(command).wait().ends_with(11);
    assert_ne!(crate::rig::mtime(&target), crate::rig::mtime(&source));
    rig.copy(Way::Local, "source", "target", &[]).ends_with(0);
    assert_equal(&source, &target);
}

#[test]
fn a_block_size_of_0_or_a_method_that_nobody_knows_hung() {
    for arguments in
        [["-b", "0"], ["-b", ""], ["-b", "1x"], ["-b", "-5"], ["-m", "shake_128"], ["-m", "crc32"], ["-m", ""]]
    {
        let mut command = pdcp(&["--json"]);
        command.args(arguments).args(["source", "target"]);
        Process::start(command).wait().ends_with(2);
    }
}

#[test]
fn a_dry_run_still_said_that_it_had_synchronized() {
    let rig = Rig::in_memory();
    let (source, target) = (rig.make("source", &[Part::Data(1, MIB)]), rig.path("target"));
    let run = crate::rig::run(&["-n".as_ref(), source.as_os_str(), target.as_os_str()]);
    assert_eq!(run.code, 0, "{run}");
    assert!(run.stdout.contains("would move") && !run.stdout.contains(" moved"), "{run}");
    assert!(!target.exists());
}
