//! Peers that lie, dribble, fall silent and hang up, against the real program in both roles. Whatever they do, the victim
//! does not panic, does not hang beyond its limits, says what is wrong with the fitting exit code, writes nothing that
//! nobody agreed on, and loses nobody else's session.

mod changed;
mod control;
mod goodbyes;
mod greetings;
mod guests;
mod hanging;
mod middle;
mod on_sources;
mod on_targets;
mod peer;
mod pulls;
mod scene;
mod stale;
mod stalled;
mod starts;
mod strangers;
mod victim;
mod welcomes;

use crate::rig::allow_descriptors;
use pdcp::limits::{PAYLOAD_BUFFERS, STRANGERS_MAX};
use pdcp::wire::Message;
use peer::{Heard, call, client, hear_frame};
use scene::{all, at_once, beside_good_copies, hello, metadata};
use std::net::TcpStream;
use victim::Server;

/// Attacks on a server while good copies run; afterwards it has all its descriptors back, and ends in good order.
fn on_server(attack: impl FnOnce(&Server)) {
    let server = Server::start();
    beside_good_copies(&server, || ());
    let before = server.descriptors();
    beside_good_copies(&server, || attack(&server));
    server.assert_descriptors_return_to(before);
    server.stop();
}

#[test]
fn a_server_that_writes_survives_every_lie_of_its_client() {
    on_server(|server| all(on_targets::ATTACKS, |attack| attack.name.into(), |attack| attack.on_target_server(server)));
}

#[test]
fn a_server_that_reads_survives_every_lie_of_its_client() {
    on_server(|server| all(on_sources::ATTACKS, |attack| attack.name.into(), |attack| attack.on_source_server(server)));
}

#[test]
fn a_client_that_pulls_survives_every_lie_of_its_server() {
    at_once(10, on_targets::ATTACKS, |attack| attack.name.into(), scene::Attack::on_target_client);
}

#[test]
fn a_client_that_pushes_survives_every_lie_of_its_server() {
    at_once(10, on_sources::ATTACKS, |attack| attack.name.into(), scene::Attack::on_source_client);
}

#[test]
fn a_server_is_not_impressed_by_strangers() {
    on_server(|server| {
        greetings::preambles(server);
        greetings::no_tls(server);
        greetings::endless_words(server);
        greetings::a_long_first_word(server);
        greetings::pouring(server);
        strangers::clients(server);
        strangers::real_clients(server);
        greetings::hellos(server);
        starts::starts(server);
        starts::sealed(server);
    });
}

#[test]
fn a_goodbye_is_the_end_whatever_comes_behind_it() {
    on_server(goodbyes::goodbyes);
}

#[test]
fn a_server_lets_no_connection_into_a_session_that_is_not_of_it() {
    on_server(starts::proofs);
}

#[test]
fn who_changes_a_handshake_on_its_way_gains_nothing() {
    on_server(|server| {
        changed::handshakes(server);
        changed::joins(server);
    });
}

#[test]
fn who_changes_moves_or_repeats_a_sealed_frame_gains_nothing() {
    on_server(|server| {
        changed::sealed_frames(server);
        changed::strange_frames(server);
    });
}

/// The limits of time, of both roles at once: half a minute is waited for a Welcome, a minute where nothing moves.
#[test]
fn a_peer_that_falls_silent_is_waited_for_so_long_and_no_longer() {
    std::thread::scope(|scope| {
        scope.spawn(|| on_server(greetings::silence));
        scope.spawn(|| on_server(stalled::sessions));
        scope.spawn(welcomes::instead);
    });
}

/// More than it waits for: those that came first are turned out.
#[test]
fn a_server_serves_beside_hundreds_of_connections_that_say_nothing() {
    allow_descriptors();
    let server = Server::start();
    beside_good_copies(&server, || ());
    let before = server.descriptors();
    let silent: Vec<TcpStream> = (0..STRANGERS_MAX + 100).map(|_| call(server.address)).collect();
    (0..3).for_each(|_| beside_good_copies(&server, || ()));
    let each = 3;
    assert!(server.descriptors() <= before + each * STRANGERS_MAX, "so many are waited for and no more");
    drop(silent);
    server.assert_descriptors_return_to(before);
    server.stop();
}

/// It closes its window: what the server sends stays in the server's buffers.
#[test]
fn a_server_serves_beside_peers_that_read_nothing() {
    on_server(|server| {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        std::fs::write(&source, vec![1; 64 << 20]).unwrap();
        let mut peers: Vec<_> = (0..4).map(|_| client(server.address, &hello(&source, None), Vec::new())).collect();
        for peer in &mut peers {
            (0..3).for_each(|stripe| peer.want(stripe, 0));
            // Its first bytes are on their way, so that it is stuck in the midst of them.
            peer.lines[0].socket.peek(&mut [0]).unwrap();
        }
        (0..3).for_each(|_| beside_good_copies(server, || ()));
        // And it goes on where it was.
        let Some(Heard::Data { payload, .. }) = hear_frame(&mut peers[0].lines[0].socket) else { panic!("no data") };
        assert!(payload.iter().all(|byte| *byte == 1));
    });
}

/// More data in flight than there are buffers, none of it ever complete: others get their minimum.
#[test]
fn a_server_serves_beside_peers_whose_payloads_never_end() {
    const SESSIONS: usize = 4;
    const LINES: usize = 10;
    const WORKERS: usize = 2; // of `Server`
    const { assert!(SESSIONS * LINES > WORKERS * PAYLOAD_BUFFERS) };
    on_server(|server| {
        let directory = tempfile::tempdir().unwrap();
        let mut peers = Vec::new();
        for number in 0..SESSIONS {
            let content = vec![0; 64 << 20]; // stripes for all
            let source = metadata(content.len() as u64);
            let mut hello = hello(&directory.path().join(number.to_string()), Some(source));
            hello.connections = u32::try_from(LINES).unwrap();
            let mut peer = client(server.address, &hello, content);
            for line in 0..LINES {
                let (stripe, _) = peer.wanted_on(line);
                let bytes = peer.data(stripe);
                std::io::Write::write_all(&mut peer.lines[line].socket, &bytes[..bytes.len() / 2]).unwrap();
            }
            peers.push(peer);
        }
        (0..3).for_each(|_| beside_good_copies(server, || ()));
        for peer in &mut peers {
            peer.say(&Message::Received); // no business of a source's: it ends
        }
    });
}
