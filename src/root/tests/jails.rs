//! What a jail gives to a peer and what it refuses, whichever way it walks.

use super::*;
use crate::failure::Kind;
use crate::root::{Source, Wall, raise_wall};
use rustix::fs::{OFlags, mkdirat};
use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use std::os::unix::fs::{lchown, symlink};

/// `jail`, with links of all kinds, and what is outside of it.
fn scene() -> Scratch {
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("jail/dir/deep")).unwrap();
    fs::create_dir_all(scratch.path("outside/dir")).unwrap();
    scratch.write("jail/file", "inside");
    scratch.write("jail/dir/file", "inside too");
    scratch.write("outside/file", "outside");
    for (name, leads_to) in [
        ("to-file", "file"),
        ("to-dir", "dir"),
        ("to-itself", "to-itself"),
        ("down-and-up", "dir/deep/../../file"),
        ("to-link", "dir/up"),
        ("dir/up", "../to-file"),
        ("nowhere", "missing"),
        ("out", "../outside/file"),
        ("out-and-in", "../jail/file"),
        ("out-dir", "../outside"),
        ("to-out", "out"),
        ("dir/out", "../../outside/file"),
        ("proc", "/proc/self/cwd"),
    ] {
        symlink(leads_to, scratch.path("jail").join(name)).unwrap();
    }
    symlink(scratch.path("outside/file"), scratch.path("jail/absolute")).unwrap();
    symlink(scratch.path("jail/file"), scratch.path("jail/absolute-inside")).unwrap();
    scratch
}

/// A request of a peer.
fn asked<'a>(root: &Root, path: &'a str) -> TargetRequest<'a> {
    TargetRequest { root: root.clone(), ..request(path.as_bytes()) }
}

#[test]
fn what_stays_inside_is_found_and_what_leads_out_is_refused() {
    let scratch = scene();
    let check = |path: &str, want: Result<&str, RootError>| {
        for way in WAYS {
            let root = jail(&scratch.path("jail"), way);
            let source = Source::open(root.clone(), path.as_bytes(), &NOTHING_WITHHELD);
            let read = source.map(|source| {
                let mut content = String::new();
                fs::File::from(source.file().try_clone().unwrap()).read_to_string(&mut content).unwrap();
                content
            });
            assert_eq!(read, want.clone().map(str::to_owned), "{path} {way:?}");
            let target = open(&asked(&root, path)).map(|target| content(&target));
            assert_eq!(target, want.clone().map(str::to_owned), "{path} {way:?}");
            if let Err(error) = &want {
                assert_eq!((error.source_kind(), error.target_kind()), (Kind::Refused, Kind::Refused));
            }
        }
    };
    check("file", Ok("inside"));
    check("/file", Ok("inside"));
    check("///file", Ok("inside"));
    check("./dir/./file", Ok("inside too"));
    check("dir//file", Ok("inside too"));
    check("dir/../file", Ok("inside"));
    check("dir/deep/../../file", Ok("inside"));
    check("to-file", Ok("inside"));
    check("to-dir/file", Ok("inside too"));
    check("to-dir/../file", Ok("inside"));
    check("down-and-up", Ok("inside"));
    check("to-link", Ok("inside"));
    check("dir/up", Ok("inside"));
    for path in [
        "..",
        "../",
        "/..",
        "../file",
        "../jail/file",
        "../outside/file",
        "dir/../../outside/file",
        "dir/../../jail/file",
        "out",
        "to-out",
        "out-and-in",
        "out-dir/file",
        "out-dir/",
        "dir/out",
        "to-dir/out",
        "absolute",
        "absolute-inside",
        "proc",
        "proc/file",
        "to-dir/../../outside/file",
        "out-dir/../jail/file",
    ] {
        check(path, Err(RootError::Outside));
    }
    assert_eq!(fs::read_to_string(scratch.path("outside/file")).unwrap(), "outside");
}

#[test]
fn what_is_wrong_inside_is_told_as_anywhere() {
    let scratch = scene();
    let check = |path: &str, want: RootError| {
        for way in WAYS {
            let root = jail(&scratch.path("jail"), way);
            assert_eq!(open(&asked(&root, path)).unwrap_err(), want, "{path} {way:?}");
        }
    };
    check("to-itself", Errno::LOOP.into());
    check("nowhere", RootError::DanglingLink);
    check("nowhere/file", RootError::DanglingLink);
    check("file/", RootError::NotDirectory);
    check("file/below", RootError::NotDirectory);
    check("to-file/", RootError::NotDirectory);
    check("file/..", RootError::NotDirectory);
    check("", RootError::EmptyPath);
    check("a\0b", RootError::BadName);
    check(&"n".repeat(256), RootError::TooLong);
}

#[test]
fn a_target_is_made_updated_and_abandoned_in_a_jail_as_anywhere() {
    for way in WAYS {
        let scratch = scene();
        let root = jail(&scratch.path("jail"), way);
        let check = |path: &str, made: &str| {
            let mut target = open(&asked(&root, path)).unwrap();
            target.mark_unfinished(&source("new")).unwrap();
            write(&target, "new");
            target.commit(&source("new"), true).unwrap();
            assert_eq!(fs::read_to_string(scratch.path("jail").join(made)).unwrap(), "new", "{path} {way:?}");
        };
        check("file", "file");
        check("dir/up", "file");
        check("made", "made");
        check("dir", "dir/source");
        check("/", "source");
        check("dir/deep/..", "dir/source");
        check("new/../new/deep/er/made", "new/deep/er/made");
        check("to-dir/new/made", "dir/new/made");
        check("another/", "another/source");
        open(&asked(&root, "gone")).unwrap().abandon(false);
        assert!(!scratch.path("jail/gone").exists());
        assert!(scratch.path("jail/to-file").is_symlink());
        assert_eq!(scratch.names(), ["jail", "outside"]);
    }
}

/// Trigger: a push to `new/../../file` was refused, after `new` had been made. Now nothing is made for a path before all
/// of it is known to be inside.
#[test]
fn no_parent_is_made_outside_and_none_for_a_path_that_is_refused() {
    for way in WAYS {
        let scratch = scene();
        symlink("../outside/new", scratch.path("jail/to-new")).unwrap();
        let root = jail(&scratch.path("jail"), way);
        let before = names_in(&scratch.path("jail"));
        for (path, want) in [
            ("../new/file", RootError::Outside),
            ("out-dir/new/file", RootError::Outside),
            ("new/../../new/file", RootError::Outside),
            ("new/../../file", RootError::Outside),
            ("new/deep/../../..", RootError::Outside),
            ("new/../out-dir/new/file", RootError::Outside),
            ("dir/new/../../../jail/file", RootError::Outside),
            ("to-new/file", RootError::Outside),
            ("to-new/new/file", RootError::Outside),
            ("to-new", RootError::Outside),
            ("new/../nowhere/file", RootError::DanglingLink),
            ("nowhere/../file", RootError::DanglingLink),
            ("new/../file/below", RootError::NotDirectory),
            ("new/../to-itself/file", Errno::LOOP.into()),
        ] {
            for dry_run in [true, false] {
                let request = TargetRequest { dry_run, ..asked(&root, path) };
                assert_eq!(open(&request).unwrap_err(), want, "{path} {way:?} {dry_run}");
            }
        }
        assert_eq!(names_in(&scratch.path("jail")), before);
        assert_eq!(fs::read_dir(scratch.path("outside")).unwrap().count(), 2);
        assert_eq!(scratch.names(), ["jail", "outside"]);
    }
}

/// All names below a directory, sorted.
fn names_in(directory: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        names.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            names.extend(names_in(&entry.path()));
        }
    }
    names.sort();
    names
}

#[test]
fn a_way_through_what_is_missing_and_back_leads_on() {
    for way in WAYS {
        let scratch = scene();
        let root = jail(&scratch.path("jail"), way);
        let check = |path: &str, want: Option<u64>, missing: &str| {
            let missing = scratch.path("jail").join(missing);
            for dry_run in [true, false] {
                assert!(!missing.exists(), "{path} {way:?}");
                let target = open(&TargetRequest { dry_run, ..asked(&root, path) }).unwrap();
                assert_eq!(target.basis_bytes(), want, "{path} {way:?} {dry_run}");
                target.abandon(false);
            }
            assert!(missing.is_dir(), "the path as typed leads to the file");
            fs::remove_dir_all(missing).unwrap();
        };
        check("missing/../file", Some(6), "missing");
        check("missing/deep/../../dir/file", Some(10), "missing/deep");
        fs::remove_dir(scratch.path("jail/missing")).unwrap();
        check("dir/missing/..", None, "dir/missing");
        check("missing/./..//another", None, "missing");
        check("missing/deep/../file", None, "missing");
    }
}

#[test]
fn the_directory_that_is_served_may_itself_be_behind_links() {
    let scratch = scene();
    symlink(scratch.path("jail"), scratch.path("link")).unwrap();
    symlink("link/dir", scratch.path("second")).unwrap();
    for way in WAYS {
        Source::open(jail(&scratch.path("link"), way), b"to-file", &NOTHING_WITHHELD).unwrap();
        Source::open(jail(&scratch.path("second"), way), b"file", &NOTHING_WITHHELD).unwrap();
        let up = Source::open(jail(&scratch.path("second"), way), b"up", &NOTHING_WITHHELD).unwrap_err();
        assert_eq!(up, RootError::Outside, "what is inside one jail is outside a smaller one");
    }
}

#[test]
fn several_directories_are_told_apart_by_the_first_name_of_a_path() {
    let scratch = scene();
    for way in WAYS {
        let mut both = Jail::default();
        both.add(b"one", &scratch.path("jail")).unwrap();
        both.add(b"two", &scratch.path("outside")).unwrap();
        let root = Root::Jail(Arc::new(both.by(way)));
        let check = |path: &str, want: Result<u64, RootError>| {
            let found =
                Source::open(root.clone(), path.as_bytes(), &NOTHING_WITHHELD).map(|source| source.facts().bytes);
            assert_eq!(found, want, "{path} {way:?}");
        };
        check("one/file", Ok(6));
        check("//two//file", Ok(7));
        check("one", Err(RootError::IsDirectory));
        check("one/", Err(RootError::IsDirectory));
        check("one/../two/file", Err(RootError::Outside));
        check("one/out", Err(RootError::Outside));
        check("file", Err(RootError::NotServed));
        check("on/file", Err(RootError::NotServed));
        check("one2/file", Err(RootError::NotServed));
        check("/", Err(RootError::NotServed));
        check("..", Err(RootError::NotServed));
        let target = open(&asked(&root, "/one")).unwrap();
        assert_eq!(target.taken_path(), b"/one/source");
        target.abandon(false);
    }
    let nothing = Root::Jail(Arc::new(Jail::default()));
    assert_eq!(Source::open(nothing, b"file", &NOTHING_WITHHELD).unwrap_err(), RootError::NotServed);
}

#[test]
fn as_many_links_as_the_kernel_follows_are_followed_and_no_more() {
    let scratch = Scratch::new();
    scratch.write("0", "inside");
    for link in 1..=41 {
        symlink((link - 1).to_string(), scratch.path(&link.to_string())).unwrap();
    }
    for way in WAYS {
        let root = jail(scratch.0.path(), way);
        Source::open(root.clone(), b"40", &NOTHING_WITHHELD).unwrap();
        assert_eq!(Source::open(root, b"41", &NOTHING_WITHHELD).unwrap_err(), Errno::LOOP.into(), "{way:?}");
    }
}

#[test]
fn who_walks_by_hand_holds_only_so_many_directories() {
    let scratch = Scratch::new();
    let mut held = fs::File::open(scratch.0.path()).unwrap();
    for _ in 0..129 {
        mkdirat(&held, "d", rustix::fs::Mode::RWXU).unwrap();
        held = rustix::fs::openat(&held, "d", OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap().into();
    }
    let root = jail(scratch.0.path(), Way::ByHand);
    let deep = |depth: usize| root.narrowed("d/".repeat(depth).as_bytes());
    deep(128).unwrap();
    assert_eq!(deep(129).unwrap_err(), RootError::TooLong);
    deep(128).unwrap().narrowed(b"d").unwrap();
}

#[test]
fn somebodys_link_in_a_shared_directory_is_not_followed_by_hand_either() {
    let scratch = scene();
    fs::create_dir(scratch.path("jail/shared")).unwrap();
    symlink("../file", scratch.path("jail/shared/link")).unwrap();
    let root = jail(&scratch.path("jail"), Way::ByHand);
    set_mode(&scratch.path("jail/shared"), 0o1777);
    Source::open(root.clone(), b"shared/link", &NOTHING_WITHHELD).unwrap();
    if !is_root() {
        return skipped("somebody's link in a shared directory: needs root");
    }
    lchown(scratch.path("jail/shared/link"), Some(NOBODY), None).unwrap();
    assert_eq!(Source::open(root.clone(), b"shared/link", &NOTHING_WITHHELD).unwrap_err(), RootError::NotPermitted);
    set_mode(&scratch.path("jail/shared"), 0o755);
    Source::open(root, b"shared/link", &NOTHING_WITHHELD).unwrap();
}

/// As systemd's `RestrictSUIDSGID=` does (ENOSYS), containers (EPERM), and who knows (EACCES).
#[test]
fn where_openat2_is_refused_paths_are_walked_by_hand() {
    const OPENAT2: i64 = 437;
    let scratch = scene();
    assert!(!{
        let mut jail = Jail::default();
        jail.add(b"", scratch.0.path()).unwrap();
        jail.walks_by_hand()
    });
    for errno in [Errno::NOSYS, Errno::PERM, Errno::ACCESS] {
        let refuse = || {
            let arch = std::env::consts::ARCH.try_into().unwrap();
            let action = SeccompAction::Errno(errno.raw_os_error().unsigned_abs());
            let filter = SeccompFilter::new([(OPENAT2, vec![])].into(), SeccompAction::Allow, action, arch).unwrap();
            apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
            let mut jail = Jail::default();
            jail.add(b"", &scratch.path("jail")).unwrap();
            assert!(jail.walks_by_hand(), "{errno}");
            let root = Root::Jail(Arc::new(jail));
            Source::open(root.clone(), b"down-and-up", &NOTHING_WITHHELD).unwrap();
            assert_eq!(Source::open(root.clone(), b"out", &NOTHING_WITHHELD).unwrap_err(), RootError::Outside);
            let narrowed = root.narrowed(b"dir").unwrap();
            assert_eq!(Source::open(narrowed, b"up", &NOTHING_WITHHELD).unwrap_err(), RootError::Outside);
        };
        // A thread's own matter.
        std::thread::scope(|scope| scope.spawn(refuse).join()).unwrap();
    }
}

#[test]
fn behind_the_jail_stands_a_wall() {
    let scratch = scene();
    let check = |read_only: bool| {
        let root = jail(&scratch.path("jail"), Way::Kernel);
        let wall = raise_wall(&root, read_only);
        if wall != Wall::Whole {
            return skipped(&format!("a wall of Landlock: {wall}"));
        }
        // As if the jail had a hole.
        assert!(fs::read(scratch.path("outside/file")).is_err());
        assert!(fs::write(scratch.path("outside/file"), "").is_err());
        assert!(fs::write(scratch.path("outside/new"), "").is_err());
        assert!(fs::create_dir(scratch.path("outside/new")).is_err());
        assert!(fs::rename(scratch.path("jail/file"), scratch.path("outside/new")).is_err());
        assert!(fs::remove_file(scratch.path("outside/file")).is_err());
        let source = Source::open(root.clone(), b"file", &NOTHING_WITHHELD).unwrap();
        use std::os::fd::AsRawFd;
        let again = format!("/proc/self/fd/{}", source.file().as_raw_fd());
        assert_eq!(fs::read_to_string(again).unwrap(), "inside", "as workers open it");
        let target = open(&asked(&root, "dir/new/file"));
        if read_only {
            return assert_eq!(target.unwrap_err(), RootError::NotPermitted);
        }
        let target = target.unwrap();
        write(&target, "new");
        target.commit(&super::source("new"), true).unwrap();
        open(&asked(&root, "gone")).unwrap().abandon(false);
    };
    for read_only in [true, false] {
        std::thread::scope(|scope| scope.spawn(|| check(read_only)).join()).unwrap();
    }
    assert_eq!(fs::read_to_string(scratch.path("outside/file")).unwrap(), "outside");
    let all = std::thread::spawn(|| raise_wall(&Root::System, false)).join().unwrap();
    assert_eq!(all, Wall::NotWanted);
    fs::read(scratch.path("outside/file")).unwrap();
}
