//! Peers that are in a session and let nothing move any more: they are given up after a time, and told why.

use super::peer::{Ambush, Peer, client, hear_from};
use super::scene::{all_at_once, hello, metadata, offer, source_content};
use super::victim::{Client, PATIENCE, Server};
use super::welcomes::check;
use pdcp::failure::Kind;
use pdcp::session::handshake::welcome;
use pdcp::wire::{Beat, Message};
use std::path::Path;
use std::time::Instant;

/// What a peer says to a heartbeat instead of doing its part, by name. `count`: of those that it has heard.
type Stall = (&'static str, fn(count: u64) -> Option<Beat>);

const STALLS: &[Stall] = &[
    ("says nothing", |_| None),
    ("says that it lives", |_| Some(Beat::default())),
    ("counts backwards", |count| Some(Beat { progress: u64::MAX - count, ..Beat::default() })),
];

/// Answers heartbeats, and nothing else, until it is told that this is the end.
fn stall(peer: &mut Peer, answer: fn(u64) -> Option<Beat>) {
    let deadline = Instant::now() + PATIENCE;
    for count in 0.. {
        match hear_from(&mut peer.control) {
            Some(Message::Beat(_)) => answer(count).into_iter().for_each(|beat| peer.say(&Message::Beat(beat))),
            Some(Message::Failed(failure)) => return assert_eq!(failure.kind, Kind::NoProgress, "{failure:?}"),
            other => panic!("{other:?} is no end"),
        }
        assert!(Instant::now() < deadline, "it goes on for ever");
    }
}

/// Who is at the other end.
#[derive(Clone, Copy, Debug)]
enum Victim {
    ServerThatWrites,
    ServerThatReads,
    ClientThatPulls,
    ClientThatPushes,
}

const VICTIMS: [Victim; 4] =
    [Victim::ServerThatWrites, Victim::ServerThatReads, Victim::ClientThatPulls, Victim::ClientThatPushes];

/// All of them at once: each takes a minute.
pub(super) fn sessions(server: &Server) {
    let cases: Vec<(Victim, &Stall)> =
        VICTIMS.iter().flat_map(|victim| STALLS.iter().map(|stall| (*victim, stall))).collect();
    all_at_once(
        &cases,
        |(victim, (name, _))| format!("{victim:?}, the peer {name}"),
        |(victim, (_, answer))| {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("file");
            let pushed = matches!(victim, Victim::ServerThatWrites | Victim::ClientThatPulls);
            if !pushed {
                std::fs::write(&file, source_content()).unwrap();
            }
            match victim {
                Victim::ServerThatWrites | Victim::ServerThatReads => {
                    let source = pushed.then(|| metadata(source_content().len() as u64));
                    stall(&mut client(server.address, &hello(&file, source), source_content()), *answer);
                }
                Victim::ClientThatPulls | Victim::ClientThatPushes => on_client(&file, !pushed, *answer),
            }
            assert_eq!(file.exists(), !pushed, "an unfinished target has its name");
        },
    );
}

fn on_client(file: &Path, push: bool, answer: fn(u64) -> Option<Beat>) {
    let ambush = Ambush::lay();
    let remote = format!("127.0.0.1:{}:/file", ambush.port());
    let places = if push { [file, Path::new(&remote)] } else { [Path::new(&remote), file] };
    let options = ["--plaintext", "-c", "1", "--connections", "1"].map(Path::new);
    let client = Client::start(options.into_iter().chain(places));
    let source = (!push).then(|| metadata(source_content().len() as u64));
    let mut peer = ambush.take(|hello| welcome(hello, offer(source)), source_content());
    drop(ambush);
    stall(&mut peer, answer);
    drop(peer);
    check(&client.end(), 30, "nothing has moved for 60 seconds");
}
