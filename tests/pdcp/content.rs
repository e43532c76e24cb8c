//! Whatever the target holds before, it holds the source's bytes afterwards: every length around every boundary, with
//! every kind of basis and every option that changes how bytes travel, each way a copy can go.
//!
//! The numbers are held against a plain twin of the idea: a block counts as there if the basis has all of its bytes.

use crate::rig::{KIB, MIB, Part, Rig, Way, assert_equal, bytes, digest, mtime};
use std::fs;

/// What the target holds before, made of the source's bytes.
#[derive(Clone, Copy, Debug)]
enum Basis {
    Nothing,
    Equal,
    Shorter,
    Half,
    Longer,
    OneByte,
    Different,
    /// In every four MiB in another way: all of it, the end of each page, nothing, the front of every third page.
    Mixed,
}

const EVERY_BASIS: [Basis; 7] =
    [Basis::Nothing, Basis::Equal, Basis::Shorter, Basis::Half, Basis::Longer, Basis::OneByte, Basis::Different];

const BLOCK: u64 = 16 * KIB;

impl Basis {
    fn of(self, source: &[u8]) -> Option<Vec<u8>> {
        let mut basis = source.to_vec();
        match self {
            Self::Nothing => return None,
            Self::Equal => {}
            Self::Shorter => basis.truncate(source.len().saturating_sub(1)),
            Self::Half => basis.truncate(source.len() / 2),
            Self::Longer => basis.extend_from_slice(b"more"),
            Self::OneByte => {
                if let Some(byte) = basis.get_mut(source.len() / 2) {
                    *byte ^= 1;
                }
            }
            Self::Different => basis.iter_mut().for_each(|byte| *byte ^= 0x5a),
            Self::Mixed => {
                let parts = basis.chunks_mut(usize::try_from(4 * MIB).unwrap()).zip((0..4).cycle());
                parts.for_each(|(part, way)| {
                    let pages = part.chunks_mut(4096);
                    match way {
                        0 => pages.flatten().for_each(|byte| *byte ^= 0x5a),
                        1 => pages.filter_map(|page| page.last_mut()).for_each(|byte| *byte ^= 1),
                        2 => {}
                        _ => pages.step_by(3).for_each(|page| page[0] ^= 1),
                    }
                });
            }
        }
        Some(basis)
    }
}

/// The plain twin.
fn matched_bytes(source: &[u8], basis: &[u8], block_bytes: u64) -> u64 {
    let block_bytes = usize::try_from(block_bytes).unwrap();
    let blocks = (0..).step_by(block_bytes).zip(source.chunks(block_bytes));
    let equal = blocks.filter(|(start, block)| basis.get(*start..*start + block.len()) == Some(*block));
    equal.map(|(_, block)| block.len() as u64).sum()
}

/// Copies and looks at the target and at the numbers. `block_bytes`: what the arguments mean; none if nothing is compared.
#[track_caller]
fn check(rig: &Rig, way: Way, length: u64, basis: Basis, arguments: &[&str], block_bytes: Option<u64>) {
    let parts = [Part::Data(1, length)];
    let source = rig.make("source", &parts);
    let source_bytes = bytes(&parts);
    let basis_bytes = basis.of(&source_bytes);
    rig.remove("target");
    if let Some(basis) = &basis_bytes {
        fs::write(rig.path("target"), basis).unwrap();
    }

    let case = format!("{way:?} of {length} bytes, basis {basis:?}, {arguments:?}");
    println!("{case}");
    let summary = rig.copy(way, "source", "target", arguments).ends_with(0);

    assert_equal(&source, &rig.path("target"));
    assert_eq!(mtime(&source), mtime(&rig.path("target")), "{case}");
    assert_eq!(summary.text("digest"), digest(&source), "{case}");
    assert_eq!(summary.text("direction"), way.direction(), "{case}");
    let compared = block_bytes.and_then(|block_bytes| Some((basis_bytes.as_deref()?, block_bytes)));
    let matched = compared.map_or(0, |(basis, block_bytes)| matched_bytes(&source_bytes, basis, block_bytes));
    assert_eq!(summary.parts(), [matched, length - matched, 0], "{case}");
    let share = |matched: u64| if length == 0 { 1.0 } else { to_float(matched) / to_float(length) };
    let similarity = compared.map(|_| share(matched));
    // JSON's decimal digits may cost the last bit.
    let apart = similarity.zip(summary.similarity()).map_or(0.0, |(wanted, told)| (wanted - told).abs());
    assert!(apart < 1e-12 && similarity.is_some() == summary.similarity().is_some(), "{case}");
    assert!(fs::read_dir(rig.directory()).unwrap().count() == 2, "{case}: something was left behind");
}

fn to_float(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes).unwrap())
}

/// 0, 1, and around chunk, block, two blocks, extent, smallest stripe and two of them.
fn lengths() -> Vec<u64> {
    let around = [KIB, BLOCK, 2 * BLOCK, 64 * KIB, MIB, 2 * MIB].into_iter().flat_map(|at| at - 1..=at + 1);
    [0, 1].into_iter().chain(around).collect()
}

fn check_every_length_and_basis(way: Way) {
    let rig = Rig::in_memory();
    for length in lengths() {
        for basis in EVERY_BASIS {
            check(&rig, way, length, basis, &[], Some(BLOCK));
        }
    }
}

#[test]
fn a_push_of_any_length_onto_any_basis_ends_equal() {
    check_every_length_and_basis(Way::Push);
}

#[test]
fn a_pull_of_any_length_onto_any_basis_ends_equal() {
    check_every_length_and_basis(Way::Pull);
}

#[test]
fn a_local_copy_of_any_length_onto_any_basis_ends_equal() {
    check_every_length_and_basis(Way::Local);
}

#[test]
fn blocks_of_every_size_are_compared() {
    let rig = Rig::in_memory();
    for way in Way::ALL {
        for (typed, block_bytes) in [
            ("4KiB", 4 * KIB),
            ("1", 4 * KIB),
            ("4097", 8 * KIB),
            ("16K", 16 * KIB),
            ("100 KB", 128 * KIB),
            ("512KiB", 512 * KIB),
            ("1MiB", MIB),
            ("1M", MIB),
            ("1 GiB", MIB),
        ] {
            for length in [3 * MIB + 1, 2 * block_bytes, block_bytes - 1] {
                check(&rig, way, length, Basis::OneByte, &["-b", typed], Some(block_bytes));
            }
            check(&rig, way, 3 * MIB + 1, Basis::Half, &["-b", typed], Some(block_bytes));
        }
    }
}

#[test]
fn every_method_compares_and_the_proof_stays_the_same() {
    let rig = Rig::in_memory();
    for method in "blake3 xxh3 md5 sha1 sha224 sha256 sha384 sha512 sha3_224 sha3_256 sha3_384 sha3_512 blake2b blake2s"
        .split(' ')
    {
        for way in Way::ALL {
            check(&rig, way, MIB + 1, Basis::OneByte, &["-m", method], Some(BLOCK));
            check(&rig, way, MIB + 1, Basis::Half, &["-m", method], Some(BLOCK));
        }
    }
}

/// Where much differs blocks are compared by their heads, which can tell that they differ but not that they are equal.
#[test]
fn what_is_equal_among_much_that_differs_stays_and_nothing_else() {
    for rig in [Rig::in_memory(), Rig::new()] {
        for way in Way::ALL {
            let mixed = |arguments: &[&str], block_bytes| {
                check(&rig, way, 37 * MIB + 11, Basis::Mixed, arguments, Some(block_bytes));
            };
            mixed(&["--connections", "1"], BLOCK);
            mixed(&["--connections", "2", "--verify"], BLOCK);
            mixed(&["--connections", "1", "-b", "4K", "-m", "sha1"], 4 * KIB);
            mixed(&["--connections", "1", "-b", "1M"], MIB);
            mixed(&["--connections", "2", "--direct", "always"], BLOCK);
        }
    }
}

#[test]
fn a_whole_file_is_sent_without_a_look_at_what_is_there() {
    let rig = Rig::in_memory();
    for way in Way::ALL {
        for basis in EVERY_BASIS {
            for length in [0, 1, BLOCK, 2 * MIB + 1] {
                check(&rig, way, length, basis, &["-W"], None);
            }
        }
    }
}

#[test]
fn any_number_of_connections_and_workers_gives_the_same_file() {
    let rig = Rig::in_memory();
    for way in Way::ALL {
        for connections in ["1", "2", "3", "16", "128"] {
            check(&rig, way, 9 * MIB + 5, Basis::OneByte, &["--connections", connections], Some(BLOCK));
            check(&rig, way, BLOCK, Basis::Nothing, &["--connections", connections], Some(BLOCK));
        }
        for workers in ["1", "2", "3", "4"] {
            let arguments = ["-c", workers, "--connections", "4"];
            check(&rig, way, 9 * MIB + 5, Basis::Nothing, &arguments, Some(BLOCK));
            check(&rig, way, 9 * MIB + 5, Basis::OneByte, &["-c", workers], Some(BLOCK));
        }
        check(&rig, way, 9 * MIB + 5, Basis::Half, &["--no-pin"], Some(BLOCK));
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let core = (0..).find(|core| allowed.is_set(*core)).unwrap().to_string();
        check(&rig, way, 9 * MIB + 5, Basis::Half, &["--cpus", &core], Some(BLOCK));
    }
}

#[test]
fn the_page_cache_is_used_or_passed_by_with_the_same_result() {
    let rig = Rig::new();
    for way in Way::ALL {
        for direct in ["always", "never", "auto"] {
            for length in [0, 1, 4095, 4096, 4097, BLOCK + 1, 64 * KIB - 1, 3 * MIB + 511, 3 * MIB + 512] {
                check(&rig, way, length, Basis::Nothing, &["--direct", direct], Some(BLOCK));
                check(&rig, way, length, Basis::Different, &["--direct", direct], Some(BLOCK));
            }
            check(&rig, way, 3 * MIB + 511, Basis::Longer, &["--direct", direct], Some(BLOCK));
            check(&rig, way, 3 * MIB + 511, Basis::Shorter, &["--direct", direct, "-b", "4K"], Some(4 * KIB));
            check(&rig, way, 3 * MIB + 511, Basis::OneByte, &["--direct", direct, "-b", "1M"], Some(MIB));
        }
    }
}

#[test]
fn a_server_that_was_told_how_to_read_and_write_does_so() {
    for direct in ["always", "never"] {
        let mut rig = Rig::new();
        rig.server = crate::rig::Server::start(&["127.0.0.1:0", "--direct", direct, "-c", "1", "--connections", "2"]);
        for way in Way::REMOTE {
            check(&rig, way, 3 * MIB + 511, Basis::Different, &["--connections", "16"], Some(BLOCK));
        }
    }
}

#[test]
fn what_was_written_is_read_back_when_asked_for() {
    #[track_caller]
    fn check_read_back(rig: &Rig, way: Way, arguments: &[&str], want: bool) {
        let summary = rig.copy(way, "source", "target", arguments).ends_with(0);
        assert_eq!(summary.flag("read_back"), want, "{way:?} {arguments:?}");
    }
    for rig in [Rig::new(), Rig::in_memory()] {
        for way in Way::ALL {
            for basis in EVERY_BASIS {
                check(&rig, way, 3 * MIB + 1, basis, &["--verify"], Some(BLOCK));
            }
            check(&rig, way, 0, Basis::Nothing, &["--verify"], Some(BLOCK));
            check(&rig, way, 3 * MIB + 1, Basis::Different, &["--verify", "--direct", "never"], Some(BLOCK));
            check(&rig, way, 3 * MIB + 1, Basis::Different, &["--no-fsync", "--verify"], Some(BLOCK));
            rig.make("source", &[Part::Data(1, MIB)]);
            rig.make("target", &[Part::Data(2, MIB)]);
            check_read_back(&rig, way, &["--verify", "-n"], false);
            check_read_back(&rig, way, &["--verify"], true);
            check_read_back(&rig, way, &[], false);
        }
    }
}

#[test]
fn not_waiting_for_the_disk_gives_the_same_file() {
    let rig = Rig::new();
    for way in Way::ALL {
        for basis in EVERY_BASIS {
            check(&rig, way, MIB + 1, basis, &["--no-fsync"], Some(BLOCK));
        }
    }
}

#[test]
fn the_system_disk_does_as_well_as_memory() {
    let rig = Rig::new();
    for way in Way::ALL {
        for basis in EVERY_BASIS {
            check(&rig, way, 9 * MIB + 5, basis, &[], Some(BLOCK));
        }
    }
}
