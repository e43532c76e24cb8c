//! Where a target is: whatever a name may be, it is found, and what is not there is made; a directory takes the source's
//! name; links lead where they lead.

use crate::rig::{KIB, MIB, Part, Rig, Server, Way, assert_equal, bytes, ends, pdcp, remote, run, state};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

const SOURCE: [Part; 1] = [Part::Data(1, 100 * KIB)];

fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

#[test]
fn a_file_may_have_any_name() {
    let rig = Rig::in_memory();
    let longest = [b'n'; 255];
    for (source, target) in [
        (&b"plain"[..], &b"target"[..]),
        (b"with space", b"a new\nline"),
        (b"\xff\xfe", b"\x80 not utf-8"),
        (b"percent%20", b"question?mark#hash"),
        (b"-dash", b"--json"),
        (b"quote'\"", b"$HOME;`id`"),
        (b"colon:9000:x", b"127.0.0.1:1:x"),
        ("gr\u{fc}\u{df}e".as_bytes(), "\u{65e5}\u{672c}".as_bytes()),
        (b"\x1b[31m", b"\x07"),
        (&longest, b"target of the longest"),
        (b"source of the longest", &longest),
        (b"...", b".hidden"),
    ] {
        rig.make(name(source), &SOURCE);
        for way in Way::ALL {
            rig.remove(name(target));
            for _first_then_again in 0..2 {
                rig.copy(way, name(source), name(target), &[]).ends_with(0);
                assert_equal(&rig.path(name(source)), &rig.path(name(target)));
            }
        }
    }
}

#[test]
fn a_name_that_is_no_utf_8_is_shown_and_given_exactly() {
    #[track_caller]
    fn check(source: &[u8], target: &[u8], raw: [bool; 2]) {
        let rig = Rig::in_memory();
        rig.make(name(source), &SOURCE);
        for way in Way::ALL {
            let run = rig.copy(way, name(source), name(target), &[]);
            let summary = run.ends_with(0);
            let typed = ends(rig.server.port, way, &rig.path(name(source)), &rig.path(name(target)));
            for (key, raw_key, typed, is_raw) in
                [("source", "source_raw", typed.0, raw[0]), ("target", "target_raw", typed.1, raw[1])]
            {
                assert_eq!(summary.text(key), typed.to_string_lossy(), "{run}");
                let hex: String = typed.into_vec().iter().map(|byte| format!("{byte:02x}")).collect();
                let given = (!summary.is_null(raw_key)).then(|| summary.text(raw_key));
                assert_eq!(given, is_raw.then_some(&hex[..]), "{run}");
            }
        }
    }
    check(b"a", b"b", [false, false]);
    check(b"a\xff", b"b", [true, false]);
    check(b"a", b"b\xc3", [false, true]);
    check("\u{fffd}".as_bytes(), b"\n", [false, false]);
}

#[test]
fn a_name_that_is_too_long_is_a_usage_error() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    let long = [b'n'; 256];
    for way in Way::ALL {
        let run = rig.copy(way, "source", name(&long), &[]);
        run.ends_with(2);
        run.tells("255 bytes");
    }
}

#[test]
fn missing_parents_are_made_and_a_directory_takes_the_sources_name() {
    #[track_caller]
    fn check(typed: &str, want: &str, is_taken: bool) {
        for way in Way::ALL {
            let rig = Rig::in_memory();
            fs::create_dir(rig.path("from")).unwrap();
            fs::create_dir(rig.path("there")).unwrap();
            let source = rig.make("from/source", &SOURCE);
            let summary = rig.copy(way, "from/source", typed, &[]).ends_with(0);
            assert_equal(&source, &rig.path(want));
            let (_, typed) = ends(rig.server.port, way, Path::new(""), &rig.path(typed));
            let slash = if is_taken && !typed.as_bytes().ends_with(b"/") { "/" } else { "" };
            let taken = if is_taken { "source" } else { "" };
            assert_eq!(summary.text("target"), format!("{}{slash}{taken}", typed.to_str().unwrap()));
        }
    }
    check("target", "target", false);
    check("there", "there/source", true);
    check("there/", "there/source", true);
    check("there/.", "there/source", true);
    check("there/x", "there/x", false);
    check("new/", "new/source", true);
    check("a/b/c", "a/b/c", false);
    check("a/b/c/", "a/b/c/source", true);
    check("there//x", "there/x", false);
    check("there/../x", "x", false);
}

#[test]
fn a_path_is_taken_from_where_it_is_typed_or_from_the_servers_root() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let check = |source: &OsStr, target: &OsStr, want: &str| {
        let mut command = pdcp(&[OsStr::new("--json"), source, target]);
        command.current_dir(rig.directory());
        crate::rig::Process::start(command).wait().ends_with(0);
        assert_equal(&rig.path("source"), &rig.path(want));
        rig.remove(want);
    };
    let port = rig.server.port;
    let there = |name: &str| remote(port, rig.path(name));
    let without_slash = |name: &str| remote(port, rig.path(name).strip_prefix("/").unwrap());
    let url = |name: &str| format!("pdcp://127.0.0.1:{port}{}", rig.path(name).display());
    check("source".as_ref(), "target".as_ref(), "target");
    check("./source".as_ref(), "./a:1:b".as_ref(), "a:1:b");
    check("source".as_ref(), "./-".as_ref(), "-");
    check("source".as_ref(), &there("target"), "target");
    check("source".as_ref(), &without_slash("target"), "target");
    check(&without_slash("source"), "target".as_ref(), "target");
    check("source".as_ref(), url("target").as_ref(), "target");
    check(url("source").as_ref(), "target".as_ref(), "target");
    check(source.as_ref(), "new/deep/".as_ref(), "new/deep/source");
}

#[test]
fn a_link_to_a_file_leads_to_it() {
    for way in Way::ALL {
        let rig = Rig::in_memory();
        rig.make("source", &SOURCE);
        symlink("source", rig.path("to source")).unwrap();
        let target = rig.make("target", &[Part::Data(2, MIB)]);
        symlink("target", rig.path("to target")).unwrap();
        rig.copy(way, "to source", "to target", &[]).ends_with(0);
        assert_equal(&rig.path("source"), &target);
        assert!(rig.path("to target").is_symlink());

        symlink("nowhere", rig.path("dangling")).unwrap();
        rig.copy(way, "source", "dangling", &[]).ends_with(5);
        assert!(rig.path("dangling").is_symlink());
        assert!(!rig.path("nowhere").exists());
        rig.copy(way, "dangling", "target", &[]).ends_with(3);
        assert_equal(&rig.path("source"), &target);
    }
}

#[test]
fn a_target_with_several_names_is_updated_only_inplace() {
    for way in Way::ALL {
        let rig = Rig::in_memory();
        let source = rig.make("source", &SOURCE);
        let old = [Part::Data(2, 50 * KIB)];
        let target = rig.make("target", &old);
        fs::hard_link(&target, rig.path("other name")).unwrap();
        let before = crate::rig::state(&target);

        for arguments in [&[][..], &["-n"]] {
            let run = rig.copy(way, "source", "target", arguments);
            run.ends_with(5);
            run.tells("--inplace");
            assert_eq!(crate::rig::state(&target), before);
        }
        assert_eq!(fs::read(&target).unwrap(), bytes(&old));

        rig.copy(way, "source", "target", &["--inplace"]).ends_with(0);
        assert_equal(&source, &target);
        assert_equal(&source, &rig.path("other name"));
        assert_eq!(fs::metadata(&target).unwrap().nlink(), 2);
    }
}

#[test]
fn a_source_with_several_names_is_nothing_special() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    fs::hard_link(&source, rig.path("other name")).unwrap();
    for way in Way::ALL {
        rig.copy(way, "source", "target", &[]).ends_with(0);
        assert_equal(&source, &rig.path("target"));
    }
}

/// Trigger: source and target are one file, which only their server can know. Damage: with `-W` it had a modification time of
/// 1970 and was called unfinished. Cure: who shares a kernel says which file he has.
#[test]
fn a_file_is_not_copied_onto_itself_by_way_of_a_server() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    fs::hard_link(&source, rig.path("other name")).unwrap();
    let before = state(&source);
    for way in [Way::Push, Way::Pull] {
        for options in [&["--inplace"][..], &["--inplace", "-W"], &["--inplace", "-n"]] {
            for target in ["source", "other name"] {
                let run = rig.copy(way, "source", target, options);
                run.ends_with(2);
                run.tells("source and target are the same file");
                assert_eq!(state(&source), before, "{run}");
            }
        }
    }
    // What Debian makes of a host's own name; nobody dials from there.
    let server = Server::start(&["127.0.1.1:0"]);
    let there =
        OsString::from_vec([format!("127.0.1.1:{}:", server.port).as_bytes(), source.as_os_str().as_bytes()].concat());
    for ends in [[source.as_os_str(), &there], [&there, source.as_os_str()]] {
        let run = run(&[&["--json", "-W", "--inplace"].map(OsStr::new)[..], &ends].concat());
        run.ends_with(2);
        run.tells("source and target are the same file");
        assert_eq!(state(&source), before, "{run}");
    }
}

#[test]
fn what_cannot_be_a_name_of_a_file_is_said_before_anything_happens() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    fs::create_dir(rig.path("directory")).unwrap();
    symlink("source", rig.path("link")).unwrap();
    fs::hard_link(&source, rig.path("other name")).unwrap();
    let port = rig.server.port;
    let check = |source: &str, target: &str, code: i32, told: &str| {
        let mut command = pdcp(&["--json", source, target]);
        command.current_dir(rig.directory());
        let run = crate::rig::Process::start(command).wait();
        run.ends_with(code);
        run.tells(told);
    };
    let there = |path: PathBuf| remote(port, path).into_string().unwrap();
    check("directory", "target", 2, "is a directory");
    check("directory/", &there(rig.path("target")), 2, "is a directory");
    check(&there(rig.path("directory")), "target", 2, "is a directory");
    check(&there(rig.path("directory/")), "target", 2, "is a directory");
    check("source", "source", 2, "is the same file");
    check("source", "link", 2, "is the same file");
    check("source", "other name", 2, "is the same file");
    check("source", ".", 2, "is the same file");
    check("source/", "target", 3, "source/: a part of the path is a file");
    check(&there(rig.path("source/")), "target", 3, "source/: a part of the path is a file");
    check("source", "source/x", 11, "a part of the path is a file");
    check("source", &there(rig.path("source/x")), 11, "a part of the path is a file");
    check("source", "", 2, "HOST:PORT:PATH");
    check("", "target", 2, "HOST:PORT:PATH");
    check("source", "-", 2, "./-");
    check("host:/path", "target", 2, "host:9000:/path");
    check("source", "http://host/path", 2, "pdcp://host:9000/path");
    check("127.0.0.1:1:/x", "127.0.0.1:2:/y", 2, "run pdcp on one of the hosts");
    check("source", &format!("127.0.0.1:{port}:"), 2, "the path is missing");
    assert!(!rig.path("target").exists());
    assert_equal(&source, &rig.path("other name"));
    assert_eq!(fs::read(&source).unwrap(), bytes(&SOURCE));
    assert_eq!(run(&["--json", "one path only"]).ends_with(2).error().0, "");
}
