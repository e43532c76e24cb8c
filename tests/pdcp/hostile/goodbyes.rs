//! Peers that say TLS's goodbye and leave the socket open, with bytes behind it that mean nothing: it is the end, at once.

use super::control::Control;
use super::peer::{client, greet, rest};
use super::scene::{all, hello, metadata, source_content};
use super::victim::Server;
use std::io::Write;

/// What comes behind the goodbye: in the same segment, and later.
const BEHIND: &[(&str, &[u8], &[u8])] = &[
    ("nothing", b"", b""),
    ("a few bytes", &[0x55; 37], b""),
    ("a few bytes, later", b"", &[0x55; 37]),
    ("more than a record", &[0x17; 20_000], &[0x17; 20_000]),
];

/// Trigger: rustls takes no byte behind a goodbye. Damage: a loop that gave them to it until they were taken never ended, and
/// nobody else was served. Cure: a goodbye is the end of what is listened to.
pub(super) fn goodbyes(server: &Server) {
    let end = |control: Control, (_, at_once, later): &(&str, &[u8], &[u8])| {
        let mut socket = control.say_goodbye(at_once);
        _ = socket.write_all(later);
        _ = rest(&mut socket);
    };
    all(BEHIND, |(name, ..)| format!("before a Hello, {name}"), |behind| end(greet(server.address), behind));
    let directory = tempfile::tempdir().unwrap();
    all(
        BEHIND,
        |(name, ..)| format!("in a session, {name}"),
        |behind| {
            let target = directory.path().join(behind.0);
            let source = Some(metadata(source_content().len() as u64));
            let peer = client(server.address, &hello(&target, source), source_content());
            end(peer.control, behind);
            server.assert_tells(&[target.to_str().unwrap(), "connection lost"]);
        },
    );
}
