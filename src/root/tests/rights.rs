//! What an ordinary user may and may not.

use super::*;
use crate::root::target::temporary_name;
use crate::root::{Left, Source};
use std::os::unix::fs::{lchown, symlink};

#[test]
fn what_may_not_be_read_or_written_is_not_permitted() {
    let scratch = Scratch::new();
    as_nobody(&scratch, || {
        fs::create_dir(scratch.path("dir")).unwrap();
        let file = scratch.write("file", "old");
        set_mode(&scratch.path("dir"), 0o555);
        for name in ["dir/new", "dir/sub/new"] {
            assert_eq!(scratch.open(name).unwrap_err(), RootError::NotPermitted);
        }
        set_mode(&file, 0o444);
        assert_eq!(scratch.open("file").unwrap_err(), RootError::NotPermitted);
        Source::open(Root::Typed, &bytes(&file), &NOTHING_WITHHELD).unwrap();
        set_mode(&file, 0o222);
        assert_eq!(Source::open(Root::Typed, &bytes(&file), &NOTHING_WITHHELD).unwrap_err(), RootError::NotPermitted);
        assert_eq!(scratch.names(), ["dir", "file"]);
    });
}

#[test]
fn a_directory_that_may_be_entered_but_not_read_is_good_enough() {
    let scratch = Scratch::new();
    as_nobody(&scratch, || {
        fs::create_dir(scratch.path("dir")).unwrap();
        set_mode(&scratch.path("dir"), 0o300);
        let target = scratch.open("dir/sub/new").unwrap();
        write(&target, "new");
        target.commit(&source("new"), true).unwrap();
        set_mode(&scratch.path("dir"), 0o700);
        assert_eq!(scratch.read("dir/sub/new"), "new");
    });
}

#[test]
fn a_run_killed_after_it_gave_the_final_mode_can_be_resumed() {
    let scratch = Scratch::new();
    as_nobody(&scratch, || {
        let left = scratch.write(&temporary_name(b"file"), "whole");
        set_mode(&left, 0o444);
        let target = scratch.open("file").unwrap();
        assert_eq!(target.basis_bytes(), Some(5));
        assert!(target.commit(&source("whole"), false).unwrap().changed);
        assert_eq!(scratch.read("file"), "whole");
    });
}

#[test]
fn a_file_whose_time_is_not_ours_to_set_fails_before_it_is_written() {
    if !is_root() {
        return skipped("a target of another user: needs root");
    }
    let scratch = Scratch::new();
    let path = scratch.write("file", "same");
    set_mode(&path, 0o666);
    let before = facts(&path);
    as_nobody(&scratch, || {
        let mut target = scratch.open("file").unwrap();
        assert_eq!(target.mark_unfinished(&source("new!")).unwrap_err(), RootError::NotOwner);
        drop(target);
        let target = scratch.open("file").unwrap();
        assert_eq!(target.commit(&source("same"), false).unwrap_err(), (RootError::NotOwner, Left::Untouched));
    });
    assert_eq!(facts(&path), before);
}

#[test]
fn a_link_that_the_kernel_would_not_follow_is_not_followed_by_hand() {
    let protected = fs::read("/proc/sys/fs/protected_symlinks").is_ok_and(|value| value.starts_with(b"1"));
    if !protected || !is_root() {
        return skipped("somebody's link in a shared directory: needs root and fs.protected_symlinks");
    }
    let scratch = Scratch::new();
    let victim = scratch.write("victim", "precious");
    fs::create_dir(scratch.path("shared")).unwrap();
    set_mode(&scratch.path("shared"), 0o1777);
    symlink(&victim, scratch.path("shared/file")).unwrap();
    lchown(scratch.path("shared/file"), Some(NOBODY), None).unwrap();
    assert_eq!(scratch.open("shared/file").unwrap_err(), RootError::NotPermitted);
}
