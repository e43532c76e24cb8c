//! Ends that do not know each other's keys: they part in TLS, and neither says a word to the other before that.

use super::control::Control;
use super::peer::{Ambush, call, hear_from, rest};
use super::scene::{hello, metadata};
use super::victim::{Client, Server};
use super::welcomes::{check, lured_to};
use crate::rig::key_file;
use pdcp::control::identity::keygen;
use pdcp::wire::{Message, frame_message};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Somebody else's key; `knows`: this server is one that he trusts all the same.
pub(super) fn stranger(knows: Option<(u16, &Path)>) -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let key = home.path().join("key");
    keygen(Some(&key), false).unwrap();
    if let Some((port, servers)) = knows {
        let known = format!("127.0.0.1:{port} {}\n", keygen(Some(servers), true).unwrap());
        std::fs::write(home.path().join("known_servers"), known).unwrap();
    }
    (home, key)
}

/// The server trusts it not: it hears an alert, and no message.
pub(super) fn clients(server: &Server) {
    let (_home, key) = stranger(Some((server.address.port(), key_file())));
    let mut control = Control::dial(call(server.address), &key).unwrap();
    _ = control.write_all(&frame_message(&Message::Hello(hello(Path::new("/x"), Some(metadata(1))))));
    let end = control.read(&mut [0]).unwrap_err();
    let error =
        end.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()).unwrap_or_else(|| panic!("{end:?}"));
    assert!(matches!(error, rustls::Error::AlertReceived(_)), "{error:?}");
    assert_eq!(rest(&mut control), b"");

    // And it trusts the server not.
    let (_home, key) = stranger(None);
    assert!(Control::dial(call(server.address), &key).is_err());
}

/// Trigger: a server refuses a client's key. Damage: it wanted to say more after TLS's alert, could not, and cut the
/// connection before the alert was out: the client took it for a server that is gone. Cure: the alert is the last word.
pub(super) fn real_clients(server: &Server) {
    let (home, key) = stranger(Some((server.address.port(), key_file())));
    let remote = format!("{}:/x", server.address);
    let options = ["--key-file", key.to_str().unwrap(), &remote, home.path().to_str().unwrap()];
    check(&Client::start(options).end(), 5, "the server does not accept this user's key");
}

#[test]
fn a_client_that_is_not_let_in_is_told_so_by_its_own_pdcp() {
    let ambush = Ambush::lay();
    let (_home, key) = stranger(Some((ambush.port(), key_file())));
    let options = ["--key-file", key.to_str().unwrap()];
    let ran = lured_to(&ambush, &options, false, |ambush| {
        let refused = ambush.control().map(drop).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData, "{refused}");
    });
    check(&ran, 5, "the server does not accept this user's key");
    check(&ran, 5, "copy the server's key file to");
}

#[test]
fn a_client_says_nothing_to_a_server_with_another_key() {
    let (_home, key) = stranger(None);
    for push in [false, true] {
        let ran = lured_to(&Ambush::lay_with(&key), &[], push, |ambush| {
            let heard = ambush.control().map(|mut control| hear_from(&mut control));
            assert!(heard.is_err(), "{heard:?}");
        });
        check(&ran, 5, "the server has another key than this user's");
        check(&ran, 5, "another user started it");
    }
}
