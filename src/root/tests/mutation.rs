//! What a benchmark does to its target, on the disk.

use super::{MTIME, Scratch, facts, set_mtime};
use crate::entry::Timestamp;
use crate::extent::BlockSize;
use crate::root::{Inode, Mutated, RootError, Share};

const ALL: Share = Share { part: 1, whole: 1 };

/// Mutates `target`, believed to be the file `inode`.
fn mutate(scratch: &Scratch, inode: Inode, share: Share, go_on: impl Fn() -> bool) -> Result<Mutated, RootError> {
    scratch.open("target")?.mutation(inode, BlockSize::default())?.make(share, go_on)
}

#[test]
fn every_byte_differs_and_the_time_says_unfinished() {
    for (mtime, mark) in [(MTIME, 0), (Timestamp::whole(0), 1)] {
        let scratch = Scratch::new();
        let path = scratch.write("target", "some\0bytes\x7f");
        set_mtime(&path, mtime);
        let found = facts(&path);
        let mutated = mutate(&scratch, found.inode, ALL, || true).unwrap();
        let want: Vec<u8> = b"some\0bytes\x7f".iter().map(|byte| !byte).collect();
        assert_eq!(std::fs::read(&path).unwrap(), want);
        assert_eq!((mutated.bytes, mutated.data_bytes), (11, 11));
        assert_eq!(facts(&path).mtime, Timestamp::whole(mark));
        assert_eq!(facts(&path).inode, found.inode);
    }
}

#[test]
fn a_probe_is_a_byte_here_and_there_that_is_taken_back_only_where_nobody_has() {
    let scratch = Scratch::new();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let path = scratch.path("target");
    std::fs::write(&path, &bytes).unwrap();
    set_mtime(&path, MTIME);
    let inode = facts(&path).inode;
    let probe = || scratch.open("target").unwrap().mutation(inode, BlockSize::default()).unwrap().probe().unwrap();
    let read = || std::fs::read(&path).unwrap();
    let changed = || read().iter().zip(&bytes).filter(|(now, before)| now != before).count();
    let probed = probe();
    assert_eq!(changed(), 16);
    assert_eq!((facts(&path).mtime, probed.mtime_marked()), (Timestamp::whole(0), Timestamp::whole(0)));
    drop(scratch.open("target").unwrap()); // it is not locked
    assert_eq!((probed.take_back(), changed()), (Ok(true), 0));
    assert_eq!(facts(&path).mtime, Timestamp::whole(0));
    probed.restore_time().unwrap();
    assert_eq!(facts(&path).mtime, MTIME);
    for copied in [&bytes[..], &vec![7; 3_000_000], b"", b"shorter"] {
        std::fs::write(&path, &bytes).unwrap();
        let probed = probe();
        std::fs::write(&path, copied).unwrap();
        let before = facts(&path);
        assert_eq!(probed.take_back(), Ok(false));
        assert_eq!((facts(&path), &read()[..]), (before, copied));
    }
}

#[test]
fn level_0_and_a_stop_leave_the_bytes_and_still_mark_it() {
    for (share, go_on) in [(Share { part: 0, whole: 3 }, true), (ALL, false)] {
        let scratch = Scratch::new();
        let path = scratch.write("target", "bytes");
        set_mtime(&path, MTIME);
        let mutated = mutate(&scratch, facts(&path).inode, share, || go_on).unwrap();
        assert_eq!((mutated.bytes, &scratch.read("target")[..]), (0, "bytes"));
        assert_eq!(facts(&path).mtime, Timestamp::whole(0));
    }
}

#[test]
fn another_file_than_the_one_that_was_meant_is_left_alone() {
    let scratch = Scratch::new();
    let meant = facts(&scratch.write("meant", "meant")).inode;
    // Nothing has the name any more: nothing is made.
    assert_eq!(mutate(&scratch, meant, ALL, || true), Err(RootError::Replaced));
    assert_eq!(scratch.names(), ["meant"]);
    let before = facts(&scratch.write("target", "other"));
    assert_eq!(mutate(&scratch, meant, ALL, || true), Err(RootError::Replaced));
    assert_eq!((facts(&scratch.path("target")), &scratch.read("target")[..]), (before, "other"));
}

#[test]
fn what_holds_no_data_is_not_marked_either() {
    for bytes in [0, 1 << 20] {
        let scratch = Scratch::new();
        let path = scratch.write("target", "");
        std::fs::File::options().write(true).open(&path).unwrap().set_len(bytes).unwrap();
        let before = facts(&path);
        assert_eq!(mutate(&scratch, before.inode, ALL, || true), Err(RootError::NoData));
        assert_eq!(facts(&path), before);
    }
}
