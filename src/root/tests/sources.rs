//! How a source is opened and watched.

use super::*;
use crate::failure::Kind;
use crate::root::Source;
use rustix::fs::{FileType, Mode, OFlags, mknodat};
use std::os::unix::fs::symlink;

#[test]
fn a_source_is_a_file_or_a_link_to_one() {
    let scratch = Scratch::new();
    scratch.write("file", "content");
    symlink("file", scratch.path("link")).unwrap();
    for name in ["file", "link"] {
        let source = Source::open(Root::Typed, &scratch.bytes(name), &NOTHING_WITHHELD).unwrap();
        assert_eq!(source.facts(), &facts(&scratch.path("file")));
        assert!(source.unchanged().unwrap());
        let flags = rustix::fs::fcntl_getfl(source.file()).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK), "a ring would answer EAGAIN");
    }
    let path = scratch.bytes("file");
    Source::open(Root::System, &path, &NOTHING_WITHHELD).unwrap();
    Source::open(Root::System, &path[1..], &NOTHING_WITHHELD).unwrap();
}

#[test]
fn what_is_no_file_is_no_source() {
    let scratch = Scratch::new();
    scratch.write("file", "");
    // Must not hang: nobody writes to it.
    mknodat(CWD, scratch.path("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(scratch.path("socket")).unwrap();
    symlink("nowhere", scratch.path("dangling")).unwrap();
    let check = |path: &str, kind: Kind, want: RootError| {
        let error = Source::open(Root::Typed, &scratch.bytes(path), &NOTHING_WITHHELD).unwrap_err();
        assert_eq!((error.source_kind(), &error), (kind, &want), "{path}");
    };
    check("missing", Kind::Source, RootError::Missing);
    check("dangling", Kind::Source, RootError::Missing);
    check("missing/file", Kind::Source, RootError::Missing);
    check("file/", Kind::Source, RootError::NotDirectory);
    check("", Kind::Usage, RootError::IsDirectory); // the scratch directory
    check("fifo", Kind::Source, RootError::NotRegular("a FIFO"));
    check("socket", Kind::Source, RootError::NotRegular("a socket"));
    check("/dev/null", Kind::Source, RootError::NotRegular("a character device"));
    check(
        "/proc/version",
        Kind::Source,
        RootError::NotRegular("made up by the kernel as it is read, and has no length"),
    );
    check(&"n".repeat(256), Kind::Usage, RootError::TooLong);
    check("a\0b", Kind::Usage, RootError::BadName);
    assert_eq!(Source::open(Root::Typed, b"", &NOTHING_WITHHELD).unwrap_err(), RootError::EmptyPath);
    assert_eq!(Source::open(Root::System, b"/", &NOTHING_WITHHELD).unwrap_err(), RootError::IsDirectory);
}

#[test]
fn a_change_of_a_source_is_noticed() {
    let check = |what: &str, unchanged: bool, change: &dyn Fn(&Path)| {
        let scratch = Scratch::new();
        let path = scratch.write("file", "content");
        set_mtime(&path, MTIME);
        let source = Source::open(Root::Typed, &bytes(&path), &NOTHING_WITHHELD).unwrap();
        change(&path);
        assert_eq!(source.unchanged().unwrap(), unchanged, "{what}");
    };
    check("nothing", true, &|_| {});
    check("read", true, &|path| drop(fs::read(path).unwrap()));
    check("longer", false, &|path| fs::write(path, "content and more").unwrap());
    check("shorter", false, &|path| fs::write(path, "").unwrap());
    check("same length", false, &|path| fs::write(path, "CONTENT").unwrap());
    check("same length, its time set back", false, &|path| {
        fs::write(path, "CONTENT").unwrap();
        set_mtime(path, MTIME);
    });
}

#[test]
fn holes_are_seen() {
    let scratch = Scratch::new();
    let path = scratch.write("file", "content");
    assert!(!Source::open(Root::Typed, &bytes(&path), &NOTHING_WITHHELD).unwrap().facts().sparse);
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    assert!(Source::open(Root::Typed, &bytes(&path), &NOTHING_WITHHELD).unwrap().facts().sparse);
}
