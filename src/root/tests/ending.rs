//! What a target is after commit, after abandon, and after neither.

use super::*;
use crate::failure::Kind;
use crate::root::commit::{link, rename_to_free};
use crate::root::place::{Parents, Place};
use crate::root::target::temporary_name;
use crate::root::{Committed, Left};

#[test]
fn a_new_target_takes_name_time_and_harmless_permission_bits() {
    #[track_caller]
    fn check(mode: u32, mtime: Timestamp, want_mode: u32) {
        let scratch = Scratch::new();
        let mut target = scratch.open("file").unwrap();
        let temporary = scratch.path(&temporary_name(b"file"));
        assert_eq!(facts(&temporary).mode, 0o600);
        let source = Metadata { mode, mtime, ..source("new") };
        target.mark_unfinished(&source).unwrap();
        write(&target, "new");
        assert_eq!(target.commit(&source, true), Ok(Committed { changed: true }));
        let made = facts(&scratch.path("file"));
        assert_eq!((made.mode, made.mtime, made.bytes), (want_mode, mtime, 3));
        assert_eq!(scratch.names(), ["file"]);
    }
    check(0o644, MTIME, 0o644);
    check(0o777, Timestamp::checked(0, 1).unwrap(), 0o777); // whatever the umask
    check(0o400, Timestamp::checked(4_000_000_000, 999_999_999).unwrap(), 0o400);
    check(0o7755, Timestamp::checked(-86_400, 123_456_789).unwrap(), 0o755);
    check(u32::MAX, Timestamp::checked(-1, 999_999_999).unwrap(), 0o777);
    check(0, Timestamp::whole(0), 0);
}

#[test]
fn an_existing_target_keeps_its_mode_and_takes_the_time() {
    let scratch = Scratch::new();
    let path = scratch.write("file", "old");
    set_mode(&path, 0o640);
    let before = facts(&path);
    for fsync in [true, false] {
        let source = Metadata { mode: 0o7777, mtime: Timestamp::checked(-5, 7).unwrap(), ..source("new") };
        let mut target = open(&TargetRequest { fsync, ..request(&bytes(&path)) }).unwrap();
        target.mark_unfinished(&source).unwrap();
        write(&target, "new");
        assert_eq!(target.commit(&source, true), Ok(Committed { changed: true }));
        let after = facts(&path);
        assert_eq!((after.mode, after.mtime, after.inode), (0o640, source.mtime, before.inode));
        assert_eq!(scratch.read("file"), "new");
    }
}

#[test]
fn an_unchanged_target_costs_no_write() {
    let scratch = Scratch::new();
    let path = scratch.write("file", "same");
    set_mtime(&path, MTIME);
    let before = facts(&path);
    for dry_run in [true, false] {
        let target = open(&TargetRequest { dry_run, ..request(&bytes(&path)) }).unwrap();
        assert_eq!(target.commit(&source("same"), false), Ok(Committed { changed: false }));
        // The kernel moves ctime with every write, of metadata too.
        assert_eq!(facts(&path), before);
    }
    assert_eq!(scratch.names(), ["file"]);
}

#[test]
fn equal_bytes_with_another_time_cost_only_the_time() {
    let scratch = Scratch::new();
    let path = scratch.write("file", "same");
    let target = scratch.open("file").unwrap();
    assert_eq!(target.commit(&source("same"), false), Ok(Committed { changed: true }));
    assert_eq!(facts(&path).mtime, MTIME);
    let target = scratch.open("file").unwrap();
    assert_eq!(target.commit(&source("same"), false), Ok(Committed { changed: false }));
}

#[test]
fn the_length_becomes_the_sources() {
    #[track_caller]
    fn check(basis: &str, bytes: u64, want: &str) {
        let scratch = Scratch::new();
        let path = scratch.write("file", basis);
        set_mtime(&path, MTIME);
        let target = scratch.open("file").unwrap();
        let source = Metadata { bytes, ..source("") };
        assert_eq!(target.commit(&source, false), Ok(Committed { changed: true }));
        assert_eq!((scratch.read("file").as_str(), facts(&path).mtime), (want, MTIME));
    }
    check("longer", 4, "long");
    check("longer", 0, "");
    check("hole", 6, "hole\0\0"); // a hole at the end is never written
    check("", 1, "\0");
}

#[test]
fn an_empty_source_makes_an_empty_target() {
    let scratch = Scratch::new();
    let target = scratch.open("file").unwrap();
    assert_eq!(target.commit(&source(""), false), Ok(Committed { changed: true }));
    assert_eq!((scratch.read("file").as_str(), facts(&scratch.path("file")).mtime), ("", MTIME));
}

#[test]
fn a_device_gives_neither_mode_nor_time() {
    let device = Metadata { mode: 0o666, device_node: true, ..source("new") };
    let scratch = Scratch::new();
    let reference = facts(&scratch.write("reference", ""));
    let target = scratch.open("file").unwrap();
    write(&target, "new");
    target.commit(&device, true).unwrap();
    let made = facts(&scratch.path("file"));
    assert_eq!(made.mode, 0o600);
    assert!(made.mtime >= reference.mtime);

    set_mtime(&scratch.path("file"), Timestamp::whole(77));
    let before = facts(&scratch.path("file"));
    let target = scratch.open("file").unwrap();
    assert_eq!(target.commit(&device, false), Ok(Committed { changed: false }));
    assert_eq!(facts(&scratch.path("file")), before);

    let mut target = scratch.open("file").unwrap();
    target.mark_unfinished(&device).unwrap();
    write(&target, "NEW");
    assert_eq!(target.commit(&device, true), Ok(Committed { changed: true }));
    assert!(facts(&scratch.path("file")).mtime >= reference.mtime);
}

#[test]
fn an_unfinished_target_never_has_the_sources_time() {
    #[track_caller]
    fn check(source_mtime: Timestamp, want: Timestamp) {
        let scratch = Scratch::new();
        let path = scratch.write("file", "old");
        set_mtime(&path, source_mtime);
        let mut target = scratch.open("file").unwrap();
        assert_eq!(facts(&path).mtime, source_mtime);
        let source = Metadata { mtime: source_mtime, ..source("new") };
        target.mark_unfinished(&source).unwrap();
        assert_eq!(facts(&path).mtime, want);
        let marked = facts(&path);
        target.mark_unfinished(&source).unwrap();
        assert_eq!(facts(&path), marked, "a second mark costs nothing");
        write(&target, "n");
        assert_ne!(facts(&path).mtime, want, "a write moves the time");
        assert_eq!(target.abandon(true), Left::Unfinished);
        assert_eq!((facts(&path).mtime, scratch.read("file").as_str()), (want, "nld"));
    }
    check(MTIME, Timestamp::whole(0));
    check(Timestamp::whole(0), Timestamp::whole(1));
    check(Timestamp::checked(0, 5).unwrap(), Timestamp::whole(1));
    check(Timestamp::whole(1), Timestamp::whole(0));
    check(Timestamp::whole(-1), Timestamp::whole(0));
}

/// Trigger: a connection that was lost had written, and the next one found all equal. Damage: 'nothing has changed' was said of a
/// target that has been rewritten, if its time was the source's before.
#[test]
fn what_was_marked_has_changed_whoever_wrote_it() {
    let scratch = Scratch::new();
    let path = scratch.write("file", "same");
    set_mtime(&path, MTIME);
    let mut target = open(&request(&scratch.bytes("file"))).unwrap();
    target.mark_unfinished(&source("same")).unwrap();
    assert!(target.commit(&source("same"), false).unwrap().changed);
}

#[test]
fn an_existing_target_that_was_not_written_is_left_alone() {
    let scratch = Scratch::new();
    let path = scratch.write("file", "old");
    let before = facts(&path);
    for keep in [true, false] {
        assert_eq!(scratch.open("file").unwrap().abandon(keep), Left::Untouched);
    }
    assert_eq!(facts(&path), before);
}

#[test]
fn an_abandoned_temporary_is_kept_if_it_is_worth_it() {
    let temporary = temporary_name(b"file");
    #[track_caller]
    fn check(left_before: &str, keep: bool, kept: bool) {
        let temporary = temporary_name(b"file");
        let scratch = Scratch::new();
        if !left_before.is_empty() {
            scratch.write(&temporary, left_before);
        }
        let target = scratch.open("file").unwrap();
        write(&target, "half");
        let want = if kept { Left::Kept(temporary.clone()) } else { Left::Untouched };
        assert_eq!(target.abandon(keep), want);
        let names: Vec<_> = kept.then_some(temporary).into_iter().collect();
        assert_eq!(scratch.names(), names);
        if kept {
            let next = scratch.open("file").unwrap();
            assert_eq!((next.basis_bytes(), content(&next).as_str()), (Some(4), "half"));
        }
    }
    check("", true, true);
    check("", false, false);
    check("left", true, true);
    check("left", false, true); // an earlier run may have verified hours of work

    // What has the name by now is not ours to remove.
    let scratch = Scratch::new();
    let target = scratch.open("file").unwrap();
    fs::remove_file(scratch.path(&temporary)).unwrap();
    scratch.write(&temporary, "theirs");
    target.abandon(false);
    assert_eq!(scratch.read(&temporary), "theirs");
}

#[test]
fn a_target_that_is_dropped_stays_as_if_the_process_had_been_killed() {
    let scratch = Scratch::new();
    let path = scratch.write("old", "old");
    let mut target = scratch.open("old").unwrap();
    target.mark_unfinished(&source("new")).unwrap();
    drop(target);
    assert_eq!((facts(&path).mtime, scratch.read("old").as_str()), (Timestamp::whole(0), "old"));

    let target = scratch.open("new").unwrap();
    write(&target, "half");
    drop(target);
    assert_eq!(scratch.open("new").unwrap().basis_bytes(), Some(4));
}

#[test]
fn a_target_that_appears_meanwhile_is_kept_and_so_is_ours() {
    let scratch = Scratch::new();
    let target = scratch.open("file").unwrap();
    write(&target, "ours");
    scratch.write("file", "theirs");
    let (error, left) = target.commit(&source("ours"), true).unwrap_err();
    assert_eq!((error.target_kind(), error), (Kind::Busy, RootError::Appeared));
    assert_eq!(left, Left::Kept(temporary_name(b"file")));
    assert_eq!(scratch.read("file"), "theirs");
    assert_eq!(scratch.read(&temporary_name(b"file")), "ours");
}

#[test]
fn a_target_that_is_replaced_meanwhile_is_not_called_done() {
    let scratch = Scratch::new();
    let old = temporary_name(b"new");
    let check = |name: &str, replaced: &str, by: Option<&str>| {
        let target = scratch.open(name).unwrap();
        write(&target, "ours");
        fs::remove_file(scratch.path(replaced)).unwrap();
        if let Some(content) = by {
            scratch.write(replaced, content);
        }
        let (error, _) = target.commit(&source("ours"), true).unwrap_err();
        assert_eq!((error.target_kind(), error), (Kind::Busy, RootError::Replaced));
        assert_eq!(fs::read_to_string(scratch.path(replaced)).ok().as_deref(), by);
    };
    scratch.write("old", "old");
    check("old", "old", Some("theirs"));
    check("old", "old", None);
    check("new", &old, Some("theirs"));
    assert!(!scratch.path("new").exists());
}

#[test]
fn a_file_system_without_exclusive_rename_links_and_unlinks() {
    let scratch = Scratch::new();
    let temporary = temporary_name(b"file");
    let place = |name: &str| {
        let resolved = Place::resolve(&Root::Typed, &scratch.bytes(name), b"source", Parents::Leave).unwrap();
        resolved.place.unwrap()
    };
    for name_it in [link, rename_to_free] {
        scratch.write(&temporary, "ours");
        name_it(&place("file"), &temporary).unwrap();
        assert_eq!((scratch.names(), scratch.read("file").as_str()), (vec!["file".to_owned()], "ours"));
        scratch.write(&temporary, "second");
        assert_eq!(name_it(&place("file"), &temporary), Err(rustix::io::Errno::EXIST));
        assert_eq!((scratch.read("file").as_str(), scratch.read(&temporary).as_str()), ("ours", "second"));
        fs::remove_file(scratch.path("file")).unwrap();
    }
}
