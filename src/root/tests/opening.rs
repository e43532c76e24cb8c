//! What is found or made where a path leads, and what is refused.

use super::*;
use crate::failure::Kind;
use crate::root::place::{Parents, Place};
use crate::root::target::{hold, open_new, temporary_name};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_directory_or_a_path_that_ends_in_a_slash_takes_the_sources_name() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("dir")).unwrap();
    fs::create_dir(scratch.path("full")).unwrap();
    scratch.write("full/source", "old");
    symlink("dir", scratch.path("link")).unwrap();
    let check = |path: &str, want: &str, basis: Option<u64>| {
        let target = scratch.open(path).unwrap();
        assert_eq!(target.taken_path(), scratch.bytes(want));
        assert_eq!(target.basis_bytes(), basis);
        assert_eq!(target.is_new(), basis.is_none());
        target.abandon(false);
    };
    check("file", "file", None);
    check("dir", "dir/source", None);
    check("dir/", "dir/source", None);
    check("dir/.", "dir/./source", None);
    check("dir/..", "dir/../source", None);
    check("link", "link/source", None);
    check("full", "full/source", Some(3));
    check("full/source", "full/source", Some(3));
    check("new/", "new/source", None);
}

#[test]
fn missing_parents_are_made_but_not_in_a_dry_run() {
    let scratch = Scratch::new();
    let path = scratch.bytes("a//b/../c/file");
    let looked = open(&TargetRequest { dry_run: true, ..request(&path) }).unwrap();
    assert!(looked.file().is_none());
    assert_eq!(looked.basis_bytes(), None);
    assert!(looked.commit(&source(""), false).unwrap().changed);
    assert!(scratch.names().is_empty());

    let target = open(&request(&path)).unwrap();
    write(&target, "new");
    target.commit(&source("new"), true).unwrap();
    assert_eq!(scratch.read("a/c/file"), "new");
    assert!(scratch.path("a/b").is_dir());
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would_change() {
    let scratch = Scratch::new();
    let path = scratch.write("file", "same");
    set_mtime(&path, MTIME);
    let before = facts(&path);
    let other_time = Metadata { mtime: Timestamp::whole(5), ..source("same") };
    let check = |source: &Metadata, wrote: bool, changed: bool| {
        let target = open(&TargetRequest { dry_run: true, ..request(&scratch.bytes("file")) }).unwrap();
        assert_eq!(target.basis_bytes(), Some(4));
        assert_eq!(target.commit(source, wrote).unwrap().changed, changed);
    };
    let locked = scratch.open("file").unwrap();
    check(&source("same"), false, false);
    check(&source("same"), true, true);
    check(&source("longer"), false, true);
    check(&other_time, false, true);
    check(&Metadata { device_node: true, ..other_time }, false, false);
    drop(locked);
    assert_eq!(facts(&path), before);

    // What an earlier run left is the basis of a dry run too, and stays as it is.
    let left = scratch.write(&temporary_name(b"new"), "half");
    let before = facts(&left);
    let target = open(&TargetRequest { dry_run: true, ..request(&scratch.bytes("new")) }).unwrap();
    assert_eq!((target.basis_bytes(), target.is_new()), (Some(4), true));
    assert!(target.commit(&Metadata { mtime: before.mtime, ..source("half") }, false).unwrap().changed);
    assert_eq!(facts(&left), before);
}

#[test]
fn a_peers_path_begins_at_the_root_with_or_without_a_slash() {
    let scratch = Scratch::new();
    scratch.write("file", "old");
    let path = scratch.bytes("file");
    for path in [path.clone(), path[1..].to_vec(), [b"//", path.as_slice()].concat()] {
        let target = open(&TargetRequest { root: Root::System, ..request(&path) }).unwrap();
        assert_eq!(target.basis_bytes(), Some(3));
        assert_eq!(target.taken_path(), path);
    }
}

#[test]
fn any_name_that_a_file_can_have_is_a_targets() {
    let scratch = Scratch::new();
    let not_text = [0xff, b'\n', 0x80].to_vec();
    for name in [vec![b'n'; 255], not_text, b".pdcp-".to_vec(), b"-".to_vec()] {
        let path = scratch.0.path().join(std::ffi::OsString::from_vec(name));
        for again in [false, true] {
            let target = open(&request(&bytes(&path))).unwrap();
            assert_eq!(target.is_new(), !again);
            write(&target, "new");
            target.commit(&source("new"), true).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
        }
    }
}

#[test]
fn what_can_be_no_path_of_a_file_is_said_before_anything_is_made() {
    let scratch = Scratch::new();
    scratch.write("file", "");
    let long = "n".repeat(256);
    #[track_caller]
    fn check(path: &[u8], source_name: &[u8], want: RootError) {
        let target = open(&TargetRequest { source_name, ..request(path) });
        assert_eq!(target.unwrap_err(), want);
    }
    check(b"", b"s", RootError::EmptyPath);
    check(&scratch.bytes("new/a\0b"), b"s", RootError::BadName);
    check(&scratch.bytes(&format!("new/{long}")), b"s", RootError::TooLong);
    check(&scratch.bytes(&format!("new/{}", "a/".repeat(2048))), b"s", RootError::TooLong);
    check(&scratch.bytes("file/"), b"s", RootError::NotDirectory);
    check(&scratch.bytes("file/below"), b"s", RootError::NotDirectory);
    // The name comes from a peer.
    for name in ["", ".", "..", "../out", "/out", "a\0b"] {
        check(&scratch.bytes("new/"), name.as_bytes(), RootError::BadName);
        check(&scratch.bytes(""), name.as_bytes(), RootError::BadName);
    }
    assert_eq!(scratch.names(), ["file"]);
}

#[test]
fn what_is_no_file_is_refused() {
    let scratch = Scratch::new();
    mknodat(CWD, scratch.path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(scratch.path("socket")).unwrap();
    fs::create_dir_all(scratch.path("dir/source")).unwrap();
    symlink("nowhere", scratch.path("dangling")).unwrap();
    symlink("nowhere/file", scratch.path("far")).unwrap();
    symlink("fifo", scratch.path("link")).unwrap();
    symlink("loop", scratch.path("loop")).unwrap();
    let check = |path: &str, kind: Kind, want: RootError| {
        for dry_run in [true, false] {
            let path = scratch.path(path);
            let error = open(&TargetRequest { dry_run, ..request(&bytes(&path)) }).unwrap_err();
            assert_eq!((error.target_kind(), &error), (kind, &want), "{}", path.display());
        }
    };
    check("fifo", Kind::Refused, RootError::NotRegular("a FIFO"));
    check("link", Kind::Refused, RootError::NotRegular("a FIFO"));
    check("socket", Kind::Refused, RootError::NotRegular("a socket"));
    check("/dev/null", Kind::Refused, RootError::NotRegular("a character device"));
    let made_up = "made up by the kernel as it is read, and has no length";
    check("/proc/self/comm", Kind::Refused, RootError::NotRegular(made_up)); // where root may read and write, and the owner
    check("dir", Kind::Usage, RootError::IsDirectory);
    check("dangling", Kind::Refused, RootError::DanglingLink);
    check("far", Kind::Refused, RootError::DanglingLink);
    check("loop", Kind::Target, rustix::io::Errno::LOOP.into());
    assert_eq!(scratch.open("dangling/file").unwrap_err(), RootError::DanglingLink);
    assert_eq!(scratch.open("dangling/").unwrap_err(), RootError::DanglingLink);
    match fs::exists("/dev/loop0") {
        Ok(true) => check("/dev/loop0", Kind::Refused, RootError::BlockDeviceTarget),
        _ => skipped("a block device as target: there is no /dev/loop0"),
    }
}

#[test]
fn the_file_behind_a_symbolic_link_is_the_target() {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("deep/er")).unwrap();
    scratch.write("deep/file", "old");
    symlink("../file", scratch.path("deep/er/second")).unwrap();
    symlink("deep/er/second", scratch.path("first")).unwrap();
    symlink(scratch.path("first"), scratch.path("absolute")).unwrap();
    for name in ["first", "absolute", "deep/er/../er/second"] {
        let target = scratch.open(name).unwrap();
        assert_eq!((target.basis_bytes(), target.taken_path()), (Some(3), scratch.bytes(name).as_slice()));
        write(&target, name);
        target.commit(&source(name), true).unwrap();
        assert_eq!(scratch.read("deep/file"), name);
        fs::write(scratch.path("deep/file"), "old").unwrap();
    }
    assert!(scratch.path("first").is_symlink());
    assert_eq!(scratch.names(), ["absolute", "deep", "first"]);
}

#[test]
fn a_file_with_several_names_is_updated_only_when_asked() {
    let scratch = Scratch::new();
    let path = scratch.write("one", "old");
    fs::hard_link(&path, scratch.path("two")).unwrap();
    let before = facts(&path);
    assert_eq!(scratch.open("one").unwrap_err(), RootError::HasLinks(2));
    assert_eq!(facts(&path), before);

    let target = open(&TargetRequest { inplace: true, ..request(&bytes(&path)) }).unwrap();
    write(&target, "new");
    target.commit(&source("new"), true).unwrap();
    assert_eq!(scratch.read("two"), "new");
}

#[test]
fn a_file_is_not_copied_to_itself() {
    let scratch = Scratch::new();
    let path = scratch.write("file", "content");
    let other = scratch.write(&temporary_name(b"new"), "content");
    symlink("file", scratch.path("link")).unwrap();
    fs::hard_link(&path, scratch.path("second")).unwrap();
    let check = |target: &str, source: &Path| {
        for dry_run in [true, false] {
            let source = Some(facts(source).inode);
            let path = scratch.bytes(target);
            let error = open(&TargetRequest { source, dry_run, ..request(&path) }).unwrap_err();
            assert_eq!((error.target_kind(), &error), (Kind::Usage, &RootError::SameFile));
        }
    };
    check("file", &path);
    check("./link", &path);
    check("second", &path);
    check("new", &other); // its temporary is the source
    assert_eq!(scratch.read("file"), "content");
    assert_eq!(fs::read_to_string(other).unwrap(), "content");
}

#[test]
fn one_at_a_time_has_a_target() {
    let scratch = Scratch::new();
    scratch.write("old", "");
    for name in ["old", "new"] {
        let path = scratch.bytes(name);
        let open_at_once = || Target::open(&request(&path));
        let first = scratch.open(name).unwrap();
        assert_eq!(open_at_once().unwrap_err(), RootError::Busy);
        // A worker's operations may be in flight longer than control cares: it holds the description, and so the lock.
        let held_by_worker = first.file().unwrap().clone();
        first.abandon(true);
        assert_eq!(open_at_once().unwrap_err(), RootError::Busy);
        drop(held_by_worker);
        scratch.open(name).unwrap();
    }
}

#[test]
fn a_lock_on_a_file_that_lost_its_name_is_worth_nothing() {
    let check = |what: &str, held: bool, meanwhile: &dyn Fn(&Scratch)| {
        let scratch = Scratch::new();
        let path = scratch.bytes("file");
        let file = fs::File::options().write(true).open(scratch.write("file", "")).unwrap().into();
        let resolved = Place::resolve(&Root::Typed, &path, b"source", Parents::Leave).unwrap();
        meanwhile(&scratch);
        let facts = hold(&resolved.place.unwrap(), b"file", &file, &request(&path)).unwrap();
        assert_eq!(facts.is_some(), held, "{what}");
    };
    check("nothing happens", true, &|_| {});
    check("removed", false, &|scratch| fs::remove_file(scratch.path("file")).unwrap());
    check("moved", false, &|scratch| fs::rename(scratch.path("file"), scratch.path("other")).unwrap());
    check("replaced", false, &|scratch| fs::rename(scratch.write("other", ""), scratch.path("file")).unwrap());
    check("replaced by a link to it", false, &|scratch| {
        fs::rename(scratch.path("file"), scratch.path("other")).unwrap();
        symlink("other", scratch.path("file")).unwrap();
    });
}

#[test]
fn a_target_that_was_finished_before_we_had_the_lock_is_not_made_anew() {
    let temporary = temporary_name(b"file");
    for left in [false, true] {
        let scratch = Scratch::new();
        let path = scratch.bytes("file");
        let place = Place::resolve(&Root::Typed, &path, b"source", Parents::Leave).unwrap().place.unwrap();
        if left {
            scratch.write(&temporary, "theirs");
        }
        scratch.write("file", "finished");
        assert!(open_new(&place, &temporary, &request(&path)).unwrap().is_none());
        assert_eq!(scratch.path(&temporary).exists(), left, "what we made is gone, what was there is not");
    }
}

#[test]
fn links_that_lead_elsewhere_by_now_are_not_trusted() {
    let scratch = Scratch::new();
    let seen = facts(&scratch.write("seen", "")).inode;
    scratch.write("precious", "");
    let check = |leads_to: &str, trusted: bool| {
        symlink(leads_to, scratch.path("link")).unwrap();
        let above = scratch.bytes("");
        let (start, _) = Root::Typed.start(&above).unwrap();
        let directory = start.open_directory(&above).unwrap();
        assert_eq!(Place::follow(&start, above.clone(), directory, b"link", seen).is_ok(), trusted);
        fs::remove_file(scratch.path("link")).unwrap();
    };
    check("seen", true);
    check("./seen", true);
    check("precious", false);
    check("missing", false);
    check("..", false);
    check("link", false);
}

/// Trigger: a target takes its name, or loses it, while another run looks for it. Damage: it was called a link that leads nowhere.
#[test]
fn a_target_that_comes_or_goes_meanwhile_is_no_link() {
    let scratch = Scratch::new();
    let path = scratch.bytes("file");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                scratch.write("file", "new");
                fs::remove_file(scratch.path("file")).unwrap();
            }
        });
        let links = (0..20_000).filter(|_| {
            let looked = Target::open(&TargetRequest { dry_run: true, ..request(&path) });
            looked.is_err_and(|error| error == RootError::DanglingLink)
        });
        let links = links.count();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(links, 0);
    });
}

#[test]
fn who_waited_for_a_new_target_finds_it_finished() {
    let scratch = Scratch::new();
    let first = scratch.open("file").unwrap();
    write(&first, "new");
    let path = scratch.bytes("file");
    let waiting = std::thread::spawn(move || open(&request(&path)).unwrap());
    first.commit(&source("new"), true).unwrap();
    let second = waiting.join().unwrap();
    assert_eq!((second.is_new(), second.basis_bytes()), (false, Some(3)));
    assert_eq!(scratch.names(), ["file"]);
}

#[test]
fn a_temporary_is_used_only_if_it_is_ours() {
    let temporary = temporary_name(b"file");
    let check = |what: &str, make: &dyn Fn(&Path)| {
        let scratch = Scratch::new();
        scratch.write("other", "precious");
        make(&scratch.path(&temporary));
        let before = scratch.names();
        for dry_run in [true, false] {
            let path = scratch.bytes("file");
            let error = open(&TargetRequest { dry_run, ..request(&path) }).unwrap_err();
            assert_eq!(error, RootError::ForeignTemporary(temporary.clone()), "{what}");
            assert_eq!(error.target_kind(), Kind::Refused);
        }
        assert_eq!((scratch.read("other").as_str(), scratch.names()), ("precious", before), "{what}");
    };
    check("a link to a file", &|path| symlink("other", path).unwrap());
    check("a link to nothing", &|path| symlink("nowhere", path).unwrap());
    check("a second name", &|path| fs::hard_link(path.with_file_name("other"), path).unwrap());
    check("a directory", &|path| fs::create_dir(path).unwrap());
    check("a FIFO", &|path| mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap());
    check("a socket", &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()));
    if is_root() {
        check("somebody else's", &|path| {
            fs::write(path, "theirs").unwrap();
            std::os::unix::fs::chown(path, Some(NOBODY), None).unwrap();
        });
    } else {
        skipped("a temporary of another user: needs root");
    }
}

#[test]
fn what_a_killed_run_left_is_the_basis_of_the_next() {
    let temporary = temporary_name(b"file");
    let check = |mode: u32, left: &str, basis: Option<u64>| {
        let scratch = Scratch::new();
        let path = scratch.write(&temporary, left);
        set_mode(&path, mode);
        let target = scratch.open("file").unwrap();
        assert_eq!((target.basis_bytes(), target.is_new()), (basis, true));
        assert_eq!(content(&target), left);
        assert_eq!(facts(&path).mode, 0o600);
        target.commit(&source(left), false).unwrap();
        assert_eq!((scratch.names(), facts(&scratch.path("file")).mode), (vec!["file".to_owned()], 0o644));
    };
    check(0o600, "half", Some(4));
    check(0o600, "", None); // made, and nothing else
    check(0o444, "whole", Some(5)); // killed between mode and name
    check(0o4755, "whole", Some(5));
}

#[test]
fn a_run_killed_between_link_and_unlink_has_finished_the_file() {
    let scratch = Scratch::new();
    let path = scratch.write("file", "whole");
    fs::hard_link(&path, scratch.path(&temporary_name(b"file"))).unwrap();
    let dry = open(&TargetRequest { dry_run: true, ..request(&bytes(&path)) }).unwrap();
    assert_eq!((dry.is_new(), scratch.names().len()), (false, 2));
    let target = scratch.open("file").unwrap();
    assert_eq!((target.is_new(), target.basis_bytes()), (false, Some(5)));
    assert_eq!(scratch.names(), ["file"]);
    fs::hard_link(&path, scratch.path("second")).unwrap();
    drop(target);
    assert_eq!(scratch.open("file").unwrap_err(), RootError::HasLinks(2));
}
