//! Who is let in under conditions, and wants more: clients whose key stands in `authorized_keys`, made of raw sockets, so
//! that what they ask for is what no honest client would.

use super::control::Control;
use super::peer::{call, hear_from, rest};
use super::scene::{all, hello, metadata};
use super::strangers::stranger;
use super::victim::Server;
use crate::rig::state;
use pdcp::control::identity::keygen;
use pdcp::wire::{FailureMessage, Hello, Message, Welcome, frame_message};
use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A server, a guest, and what there is to be had: `inside` is what the guest may see, `outside` is beside it.
struct House {
    directory: TempDir,
    server: Server,
    _home: TempDir,
    key: PathBuf,
}

impl House {
    /// `conditions` are those of the guest's line; `ROOT` in them is the directory inside.
    fn open(conditions: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for made in ["inside/dir", "inside/dir/sub", "outside", "home"] {
            fs::create_dir_all(path(made)).unwrap();
        }
        for file in ["inside/file", "outside/file"] {
            fs::write(path(file), file).unwrap();
        }
        symlink("../outside/file", path("inside/out")).unwrap();
        symlink("../outside", path("inside/out-dir")).unwrap();
        symlink("../../outside/new", path("inside/dir/out-new")).unwrap();
        symlink(path("inside/file"), path("inside/absolute")).unwrap();
        symlink("dir/../../inside/file", path("inside/around")).unwrap();
        symlink("loop", path("inside/loop")).unwrap();
        let servers = path("home/key");
        keygen(Some(&servers), false).unwrap();
        let (home, key) = stranger(None);
        let conditions = conditions.replace("ROOT", path("inside").to_str().unwrap());
        let line = format!("{} {conditions}\n", keygen(Some(&key), true).unwrap());
        fs::write(path("home/authorized_keys"), line).unwrap();
        let server = Server::start_with(&servers, &[]);
        let known = format!("127.0.0.1:{} {}\n", server.address.port(), keygen(Some(&servers), true).unwrap());
        fs::write(home.path().join("known_servers"), known).unwrap();
        Self { directory, server, _home: home, key }
    }

    /// What the server says to a Hello. While the connection lives, so does the session.
    fn ask(&self, hello: &Hello) -> (Control, Result<Welcome, FailureMessage>) {
        self.ask_by(&self.key, hello)
    }

    /// The same by who has this key.
    fn ask_by(&self, key: &Path, hello: &Hello) -> (Control, Result<Welcome, FailureMessage>) {
        let mut control = Control::dial(call(self.server.address), key).unwrap();
        control.write_all(&frame_message(&Message::Hello(hello.clone()))).unwrap();
        let answer = match hear_from(&mut control) {
            Some(Message::Welcome(welcome)) => Ok(welcome),
            Some(Message::Failed(failure)) => Err(failure),
            other => panic!("{other:?} is no answer to a Hello"),
        };
        (control, answer)
    }

    #[track_caller]
    fn check_refused(&self, hello: &Hello, code: u8, says: &str) {
        let (_, answer) = self.ask(hello);
        let failure = answer.expect_err("no Welcome");
        assert_eq!(failure.kind.exit_code(), code, "{failure:?}");
        assert!(failure.text.contains(says), "{failure:?}");
    }

    /// What must not change whatever a guest asks for.
    fn outside(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        ["outside", "outside/file", ""].map(|name| {
            let path = self.directory.path().join(name);
            (state(&path), fs::read(&path).ok())
        })
    }
}

fn push(path: &[u8], name: &[u8]) -> Hello {
    Hello { path: path.to_vec(), source_name: name.to_vec(), ..hello(Path::new(""), Some(metadata(1))) }
}

fn pull(path: &[u8]) -> Hello {
    Hello { path: path.to_vec(), ..hello(Path::new(""), None) }
}

/// Ways out that a guest may try: paths, and what is said of them.
const WAYS_OUT: &[(&[u8], &str)] = &[
    (b"../outside/file", LEADS_OUT),
    (b"/../outside/file", LEADS_OUT),
    (b"dir/../../outside/file", LEADS_OUT),
    (b"././/.././outside/file", LEADS_OUT),
    (b"dir/sub/../../../inside/file", LEADS_OUT),
    (b"missing/../../outside/file", ""),
    (b"out", LEADS_OUT),
    (b"dir/../out", LEADS_OUT),
    (b"out-dir/file", LEADS_OUT),
    (b"out-dir/../inside/file", LEADS_OUT),
    (b"absolute", LEADS_OUT),
    (b"around", LEADS_OUT),
    (b"/proc/self/root/etc/passwd", ""),
    (b"loop", ""),
];
const LEADS_OUT: &str = "leads out of the directory";

/// Names that a guest may give a source, to be put behind a directory: what is said of them.
const NAMES: &[(&[u8], u8, &str)] = &[
    (b"..", 2, NO_NAME),
    (b".", 2, NO_NAME),
    (b"", 2, NO_NAME),
    (b"out-new", 5, LEADS_OUT),
    (b"../file", 12, "name"),
    (b"a\0b", 12, "name"),
];
const NO_NAME: &str = "not a name that a file can have";

#[test]
fn a_guest_does_not_get_out_of_its_directory() {
    let house = House::open("root=ROOT");
    let before = house.outside();
    all(
        WAYS_OUT,
        |(path, _)| String::from_utf8_lossy(path).into_owned(),
        |(path, says)| {
            for hello in [pull(path), push(path, b"name")] {
                let (_, answer) = house.ask(&hello);
                match answer {
                    Err(failure) => assert!(failure.text.contains(says), "{failure:?}"),
                    // What is made anew is made inside: below a directory of the name that leads out elsewhere.
                    Ok(_) => assert!(says.is_empty() && hello.source.is_some(), "welcome"),
                }
            }
        },
    );
    all(
        NAMES,
        |(name, ..)| String::from_utf8_lossy(name).into_owned(),
        |(name, code, says)| house.check_refused(&push(b"dir", name), *code, says),
    );
    let whole = house.directory.path().join("inside/file");
    house.check_refused(&pull(whole.as_os_str().as_bytes()), 3, "no such file");
    assert_eq!(house.outside(), before);
    for path in [&b"file"[..], b"/file", b"./dir/..//file"] {
        assert_eq!(house.ask(&pull(path)).1.unwrap().source.bytes, 11);
    }
    house.server.stop();
}

#[test]
fn a_guest_who_may_read_does_not_write() {
    let house = House::open("ro");
    let inside = house.directory.path().join("inside");
    let before = (state(&inside), state(&inside.join("file")));
    for path in ["file", "new", "dir", "new/dir/file", "dir/"] {
        let path = inside.join(path);
        for dry_run in [false, true] {
            let mut hello = push(path.as_os_str().as_bytes(), b"name");
            hello.options.dry_run = dry_run;
            house.check_refused(&hello, 5, "served read-only");
        }
    }
    assert!(house.ask(&pull(inside.join("file").as_os_str().as_bytes())).1.is_ok());
    assert_eq!((state(&inside), state(&inside.join("file"))), before);
    house.server.stop();
}

#[test]
fn a_guest_from_elsewhere_is_not_let_in() {
    let house = House::open("from=10.0.0.0/8");
    let before = house.outside();
    let target = house.directory.path().join("outside/file");
    for hello in [pull(target.as_os_str().as_bytes()), push(target.as_os_str().as_bytes(), b"name")] {
        house.check_refused(&hello, 5, "");
    }
    assert_eq!(house.outside(), before);
    house.server.stop();
}

/// Trigger: a path is cut without a word, and the client dials again. Damage: its old session held the target and its place
/// until the server missed it, for half a minute or more. Cure: the client says which one it was.
#[test]
fn a_session_that_is_dialled_again_ends_and_nobody_elses_does() {
    let house = House::open("root=ROOT max-sessions=1");
    let (mut lost, welcome) = house.ask(&push(b"file", b""));
    let session = welcome.unwrap().session;
    for former in [None, Some([9; 16])] {
        house.check_refused(&Hello { former, ..push(b"file", b"") }, 43, "as many sessions as it may have");
    }
    let again = Hello { former: Some(session), ..push(b"file", b"") };
    let path = house.directory.path().join("inside/file").into_os_string().into_vec();
    let (_, other) = house.ask_by(&house.directory.path().join("home/key"), &Hello { path, ..again.clone() });
    assert_eq!(other.unwrap_err().kind.exit_code(), 43, "the target is still held");
    let (_control, welcome) = house.ask(&again);
    assert!(welcome.is_ok_and(|welcome| welcome.session != session));
    _ = rest(&mut lost);
    house.server.stop();
}

#[test]
fn a_guest_has_no_more_sessions_than_its_line_says() {
    let house = House::open("root=ROOT max-sessions=2");
    let two = [house.ask(&pull(b"file")), house.ask(&pull(b"file"))];
    assert!(two.iter().all(|(_, answer)| answer.is_ok()));
    house.check_refused(&pull(b"file"), 43, "as many sessions as it may have");
    for (mut control, _) in two {
        _ = control.shutdown(Shutdown::Write);
        _ = rest(&mut control);
    }
    assert!(house.ask(&pull(b"file")).1.is_ok());
    house.server.stop();
}
