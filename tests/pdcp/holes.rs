//! Holes stay holes: they are not sent, not written, and take no room at the target, whatever was there before. Zeros that
//! are data stay data, and what is equal is left as it is.

use crate::rig::Part::{Data, Hole, Zeros};
use crate::rig::{KIB, MIB, Part, Rig, Way, assert_equal, digest};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

fn allocated_bytes(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// Copies onto `basis` and looks at what came: matched, changed, made as holes; and at what the target takes at most.
#[track_caller]
fn check(rig: &Rig, arguments: &[&str], source: &[Part], basis: Option<&[Part]>, want: [u64; 3], allocated_max: u64) {
    for way in Way::ALL {
        let made = rig.make("source", source);
        let target = rig.path("target");
        rig.remove("target");
        if let Some(basis) = basis {
            rig.make("target", basis);
        }
        let case = format!("{way:?} {arguments:?} {source:?} onto {basis:?}");
        println!("{case}");
        let summary = rig.copy(way, "source", "target", arguments).ends_with(0);
        assert_equal(&made, &target);
        assert_eq!(summary.text("digest"), digest(&made), "{case}");
        assert_eq!(summary.parts(), want, "{case}");
        let allocated = allocated_bytes(&target);
        assert!(allocated <= allocated_max, "{case}: {allocated} bytes allocated");
    }
}

/// File systems round up, and keep notes of their own.
const SLACK: u64 = 64 * KIB;

fn rigs() -> [Rig; 2] {
    [Rig::new(), Rig::in_memory()]
}

#[test]
fn a_hole_of_the_source_is_a_hole_at_the_target() {
    for rig in rigs() {
        let check = |source: &[Part], holes: u64, data: u64| {
            check(&rig, &[], source, None, [0, data, holes], data + SLACK);
        };
        check(&[Hole(MIB), Data(1, MIB)], MIB, MIB);
        check(&[Data(1, MIB), Hole(MIB), Data(2, MIB)], MIB, 2 * MIB);
        check(&[Data(1, MIB), Hole(MIB)], MIB, MIB);
        check(&[Data(1, MIB), Hole(MIB + 1)], MIB + 1, MIB);
        check(&[Hole(1)], 1, 0);
        check(&[Hole(16 * KIB)], 16 * KIB, 0);
        check(&[Hole(40 * MIB)], 40 * MIB, 0);
        check(&[Hole(40 * MIB + 1)], 40 * MIB + 1, 0);
        // A block that is a hole only in part moves.
        check(&[Data(1, 4 * KIB), Hole(60 * KIB), Data(2, 64 * KIB)], 48 * KIB, 80 * KIB);
        check(&[Hole(60 * KIB), Data(1, 4 * KIB)], 48 * KIB, 16 * KIB);
        // Many of them, across stripes.
        let comb: Vec<Part> = (0..96).flat_map(|tooth| [Data(tooth, 16 * KIB), Hole(48 * KIB)]).collect();
        check(&comb, 96 * 48 * KIB, 96 * 16 * KIB);
    }
}

#[test]
fn holes_are_the_same_in_blocks_of_any_size_and_past_the_cache() {
    let rig = Rig::new();
    let source = [Data(1, MIB), Hole(3 * MIB), Data(2, MIB + 511), Hole(MIB)];
    // The hole at the end begins within a page, which is data then.
    let data = 2 * MIB + 4 * KIB;
    let check = |arguments: &[&str], changed: u64| {
        let holes = 6 * MIB + 511 - changed;
        check(&rig, arguments, &source, None, [0, changed, holes], data + SLACK + MIB);
    };
    for direct in ["always", "never"] {
        check(&["--direct", direct, "-b", "4K"], data);
        check(&["--direct", direct], 2 * MIB + 16 * KIB);
        check(&["--direct", direct, "-b", "1M"], 3 * MIB);
        check(&["--direct", direct, "-W"], 2 * MIB + 16 * KIB);
        check(&["--direct", direct, "--verify"], 2 * MIB + 16 * KIB);
    }
}

#[test]
fn a_hole_takes_the_place_of_old_data() {
    for rig in rigs() {
        let old = [Data(9, 3 * MIB)];
        let check = |source: &[Part], basis: &[Part], want: [u64; 3], allocated_max: u64| {
            check(&rig, &[], source, Some(basis), want, allocated_max + SLACK);
        };
        check(&[Hole(3 * MIB)], &old, [0, 0, 3 * MIB], 0);
        check(&[Hole(3 * MIB - 1)], &old, [0, 0, 3 * MIB - 1], 0);
        check(&[Hole(5 * MIB)], &old, [0, 0, 5 * MIB], 0);
        check(&[Data(1, MIB), Hole(MIB), Data(2, MIB)], &old, [0, 2 * MIB, MIB], 2 * MIB);
        // What was equal on both sides of the hole stays.
        check(&[Data(9, MIB), Hole(2 * MIB)], &old, [MIB, 0, 2 * MIB], MIB);
        // Data where there was a hole.
        check(&[Data(1, 3 * MIB)], &[Hole(3 * MIB)], [0, 3 * MIB, 0], 3 * MIB);
        check(&[Data(1, MIB), Hole(2 * MIB)], &[Hole(3 * MIB)], [2 * MIB, MIB, 0], MIB);
        // More of both, in what is signed at once, than a worker has buffers: with both ends local that stood still.
        let comb: Vec<Part> = (0..96).flat_map(|tooth| [Data(tooth, 16 * KIB), Hole(16 * KIB)]).collect();
        check(&comb, &[Data(99, 3 * MIB)], [0, 96 * 16 * KIB, 96 * 16 * KIB], 96 * 16 * KIB);
    }
}

#[test]
fn zeros_that_are_data_stay_data_and_what_is_equal_stays_as_it_is() {
    for rig in rigs() {
        let check =
            |source: &[Part], basis: Option<&[Part]>, want: [u64; 3], allocated_min: u64, allocated_max: u64| {
                check(&rig, &[], source, basis, want, allocated_max + SLACK);
                let allocated = allocated_bytes(&rig.path("target"));
                assert!(allocated >= allocated_min, "{source:?} onto {basis:?}: {allocated} bytes allocated");
            };
        check(&[Zeros(MIB)], None, [0, MIB, 0], MIB, MIB);
        check(&[Zeros(MIB), Hole(MIB)], None, [0, MIB, MIB], MIB, MIB);
        // Equal: a hole over zeros that are data leaves them, and data over a hole leaves that.
        check(&[Hole(MIB)], Some(&[Zeros(MIB)]), [MIB, 0, 0], MIB, MIB);
        check(&[Zeros(MIB)], Some(&[Hole(MIB)]), [MIB, 0, 0], 0, 0);
        check(&[Zeros(MIB)], Some(&[Data(1, MIB)]), [0, MIB, 0], MIB, MIB);
    }
}

#[test]
fn a_file_beyond_4_and_10_gib_is_copied() {
    let rig = Rig::in_memory();
    for (way, bytes) in [(Way::Push, 10 << 30), (Way::Pull, 4 << 30), (Way::Local, 4 << 30)] {
        rig.make("source", &[Data(1, MIB), Hole(bytes), Data(2, MIB + 1)]);
        rig.make("target", &[Data(1, MIB), Data(3, MIB)]);
        let summary = rig.copy(way, "source", "target", &[]).ends_with(0);
        assert_eq!(summary.parts(), [MIB, MIB + 1, bytes]);
        assert_eq!(summary.number("source_bytes"), 2 * MIB + 1 + bytes);
        let target = fs::File::open(rig.path("target")).unwrap();
        let mut end = vec![0; 1 << 20];
        target.read_exact_at(&mut end, bytes + MIB + 1).unwrap();
        assert_eq!(end, crate::rig::bytes(&[Data(2, MIB + 1)])[1..], "{way:?}");
        assert!(allocated_bytes(&rig.path("target")) <= 2 * MIB + SLACK, "{way:?}");
    }
}

#[test]
fn a_file_that_is_nothing_but_a_hole_costs_nothing_on_the_wire() {
    let rig = Rig::in_memory();
    rig.make("source", &[Hole(1024 * MIB)]);
    for way in Way::REMOTE {
        rig.remove("target");
        let summary = rig.copy(way, "source", "target", &[]).ends_with(0);
        assert_eq!(summary.parts(), [0, 0, 1024 * MIB]);
        assert!(summary.number("wire_sent_bytes") + summary.number("wire_received_bytes") < 128 * KIB);
        assert_eq!(allocated_bytes(&rig.path("target")), 0);
    }
}
