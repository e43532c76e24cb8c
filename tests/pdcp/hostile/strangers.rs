//! Ends that do not know each other's keys: they part in TLS, and neither says a word to the other before that.

use super::control::Control;
use super::peer::{Ambush, call, hear_from, knock, rest};
use super::scene::{hello, metadata};
use super::victim::{Client, PATIENCE, Server};
use super::welcomes::{check, lured_to};
use crate::rig::key_file;
use pdcp::control::identity::keygen;
use pdcp::limits::REFUSED_LINES_BURST;
use pdcp::wire::{Message, frame_message};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;
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

/// Trigger: a key is used where its line does not allow it (`from=`). Damage: each call had a line of the log, without a bound
/// and without the key, and the caller was told what the line says. Cure: he is one of those who are not let in.
#[test]
fn a_key_that_comes_from_elsewhere_is_told_little_and_its_lines_are_bounded() {
    const CALLS: u32 = REFUSED_LINES_BURST + 20;
    let (server_home, server_key) = stranger(None);
    let log = server_home.path().join("log");
    let (guest_home, guest_key) = stranger(None);
    let line = format!("{} from=10.0.0.0/8\n", keygen(Some(&guest_key), true).unwrap());
    std::fs::write(server_home.path().join("authorized_keys"), line).unwrap();
    let server = Server::start_with(&server_key, &["-c", "1", "--audit-log", log.to_str().unwrap()]);
    let known = format!("127.0.0.1:{} {}\n", server.address.port(), keygen(Some(&server_key), true).unwrap());
    std::fs::write(guest_home.path().join("known_servers"), known).unwrap();
    for _ in 0..CALLS {
        let mut control = Control::dial(call(server.address), &guest_key).unwrap();
        control.write_all(&frame_message(&Message::Hello(hello(Path::new("/x"), None)))).unwrap();
        let Some(Message::Failed(failure)) = hear_from(&mut control) else { panic!("not told") };
        assert_eq!(failure.text, "does not let this user in; who runs it can say why");
        assert_eq!((failure.kind.exit_code(), failure.subject), (5, Vec::new()));
    }
    server.assert_tells(&["its key may not come from this address"]);
    server.stop();
    let lines: Vec<Value> =
        std::fs::read_to_string(&log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (refused, missing): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["type"] == "refused");
    assert!(refused.iter().all(|line| line["key"].is_string() && line["path"].is_null()), "{lines:?}");
    let counted: u64 = missing.iter().map(|line| line["count"].as_u64().unwrap()).sum();
    assert!(counted > 0, "{lines:?}");
    assert_eq!(refused.len() as u64 + counted, u64::from(CALLS));
}

/// A connection from this address of this host. The server listens on another.
fn call_from(address: [u8; 4], server: &Server) -> TcpStream {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddr::from((address, 0))).unwrap();
    connect(&socket, &server.address).unwrap();
    socket.into()
}

fn was_greeted(socket: &TcpStream, within: Duration) -> bool {
    socket.set_read_timeout(Some(within)).unwrap();
    socket.peek(&mut [0]).is_ok_and(|bytes| bytes > 0)
}

/// Its next connection waits before it is greeted, and who comes later from elsewhere does not; nor does anybody of an
/// address of which somebody is in.
#[test]
fn an_address_that_fails_to_prove_itself_waits_unless_somebody_of_it_is_in() {
    let [guilty, inside, innocent] = [[127, 0, 0, 2], [127, 0, 0, 1], [127, 0, 0, 3]];
    let server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let (session, answer) = knock(server.address, &hello(&directory.path().join("target"), Some(metadata(1))));
    assert!(answer.is_some_and(|answer| answer.is_ok()));

    let (_home, key) = stranger(Some((server.address.port(), key_file())));
    for address in [guilty, inside] {
        let sockets: Vec<_> = (0..5).map(|_| call_from(address, &server)).collect(); // together: four seconds
        for socket in sockets {
            assert_eq!(rest(&mut Control::dial(socket, &key).unwrap()), b"");
        }
    }
    let [waits, shares, innocent] = [guilty, inside, innocent].map(|address| call_from(address, &server));
    assert!(was_greeted(&innocent, PATIENCE) && was_greeted(&shares, PATIENCE));
    assert!(!was_greeted(&waits, Duration::from_millis(1)), "it was greeted before or with the others");
    assert!(was_greeted(&waits, PATIENCE));
    drop(session); // or its server waits for it
    server.stop();
}
