//! What a hostile server has a say in when a client pulls: the bytes of one file, its permission bits, its time. Not where
//! that file is, what it is called, what kind of file it is, or what else is read or written.
//!
//! What it may not say at all is in `welcomes` and `on_targets`: no message of a server's has a name that a client opens, and
//! what comes with one where none belongs is a lie.

use super::peer::{Ambush, hear_from};
use super::scene::{all, metadata, offer, source_content};
use super::victim::{Client, Ran};
use crate::rig::Outside;
use pdcp::entry::{Metadata, Timestamp};
use pdcp::session::handshake::welcome;
use pdcp::wire::{Message, frame_message};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

/// A client's directory: `inbox`, where something may be made, and what nobody asked for.
fn home() -> (tempfile::TempDir, Outside) {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    for directory in ["inbox", "private", "private/inbox"] {
        std::fs::create_dir(path(directory)).unwrap();
    }
    for file in ["private/name", "private/inbox/name", "private/passwords"] {
        std::fs::write(path(file), "mine").unwrap();
    }
    symlink("../private", path("inbox/link")).unwrap();
    let private = Outside::watch(&[path("private")]);
    (home, private)
}

fn start(home: &Path, ambush: &Ambush, remote: &str, target: &str) -> Client {
    let remote = format!("127.0.0.1:{}:{remote}", ambush.port());
    let target = format!("{}/{target}", home.display());
    Client::start(["--plaintext", "-c", "1", "--connections", "1", "--no-fsync", &remote, &target])
}

/// All that is in the inbox and was not there before.
fn made(home: &Path) -> Vec<String> {
    let names = std::fs::read_dir(home.join("inbox")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).filter(|name| name != "link").collect();
    names.sort();
    names
}

/// What it was told of the source, by name; and the mode that its target gets.
type Claim = (&'static str, fn(&mut Metadata), u32);

const CLAIMS: &[Claim] = &[
    ("nothing strange", |_| (), 0o644),
    ("setuid, setgid, sticky", |source| source.mode = 0o7755, 0o755),
    ("all bits of a mode, and then some", |source| source.mode = u32::MAX, 0o777),
    ("a directory's mode", |source| source.mode = 0o040_700, 0o700),
    ("no permission at all", |source| source.mode = 0, 0),
    ("a device", |source| source.device_node = true, 0o600),
    ("the end of time", |source| source.mtime = Timestamp::whole(i64::MAX), 0o644),
    ("before all time", |source| source.mtime = Timestamp::whole(i64::MIN), 0o644),
    ("the time that says unfinished", |source| source.mtime = Timestamp::whole(0), 0o644),
];

#[test]
fn what_a_server_says_of_its_file_makes_a_plain_file_of_that_name() {
    all(
        CLAIMS,
        |(name, ..)| (*name).into(),
        |(_, claim, mode)| {
            let (home, private) = home();
            let ambush = Ambush::lay();
            let client = start(home.path(), &ambush, "/deep/name", "inbox/");
            let mut source = metadata(source_content().len() as u64);
            claim(&mut source);
            let mut peer = ambush.take(|hello| welcome(hello, offer(Some(source))), source_content());
            peer.serve_the_rest();
            drop(peer);
            let ran = client.end();
            assert_eq!(ran.code, Some(0), "{ran:?}");
            assert_eq!(made(home.path()), ["name"]);
            let found = home.path().join("inbox/name").symlink_metadata().unwrap();
            assert!(found.is_file());
            assert_eq!((found.mode() & 0o7777, found.nlink()), (*mode, 1));
            private.assert_untouched("a pull");
        },
    );
}

/// What was typed, the remote's path and the target, and what is made; `None`: nothing.
const TYPED: &[(&str, &str, Option<&str>)] = &[
    ("/deep/name", "inbox", Some("name")),
    ("/deep/name", "inbox/mine", Some("mine")),
    ("private/passwords", "inbox/", Some("passwords")),
    ("../../private/name", "inbox", Some("name")),
    ("/private/name", "inbox/../inbox/./mine", Some("mine")),
    // What has no last name gives none.
    ("/private/..", "inbox", None),
];

#[test]
fn a_target_is_where_it_was_typed_and_called_as_it_was_typed() {
    all(
        TYPED,
        |typed| format!("{typed:?}"),
        |(remote, target, want)| {
            let (home, private) = home();
            let ambush = Ambush::lay();
            let client = start(home.path(), &ambush, remote, target);
            let source = metadata(source_content().len() as u64);
            let ran = match want {
                Some(_) => {
                    let mut peer = ambush.take(|hello| welcome(hello, offer(Some(source))), source_content());
                    peer.serve_the_rest();
                    drop(peer);
                    client.end()
                }
                None => refusing(&ambush, source, client),
            };
            assert_eq!(ran.code, Some(if want.is_some() { 0 } else { 2 }), "{ran:?}");
            assert_eq!(made(home.path()), want.iter().map(ToString::to_string).collect::<Vec<_>>());
            private.assert_untouched("a pull");
        },
    );
}

/// The client goes no further than the Welcome.
fn refusing(ambush: &Ambush, source: Metadata, client: Client) -> Ran {
    let (mut control, hello) = ambush.hello();
    _ = control.write_all(&frame_message(&Message::Welcome(welcome(&hello, offer(Some(source))))));
    let secret = control.secret();
    let mut joining = ambush.joining(&secret);
    let proof = joining.proof();
    _ = joining.socket.write_all(&proof);
    while !matches!(hear_from(&mut control), None | Some(Message::Failed(_))) {}
    client.end()
}
