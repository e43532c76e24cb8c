//! What a lying server says to a client before there is a session.

use super::peer::{Ambush, hear_from, rest};
use super::scene::{all, at_once, metadata, offer, source_content};
use super::victim::{Client, Ran};
use pdcp::session::handshake::welcome;
use pdcp::wire::{
    Beat, JOINED_LEN, Message, Preamble, Purpose, Welcome, encode_joined, encode_preamble, frame_message,
};
use std::io::Write;
use std::net::TcpStream;

/// What is wrong with a Welcome, by name.
type Spoil = (&'static str, fn(&mut Welcome), &'static str);

const WELCOMES: &[Spoil] = &[
    ("stripes of 0 bytes", |welcome| welcome.stripe_bytes = 0, "length of file or stripe"),
    ("stripes of 3 bytes", |welcome| welcome.stripe_bytes = 3, "length of file or stripe"),
    ("stripes of 2^60 bytes", |welcome| welcome.stripe_bytes = 1 << 60, "length of file or stripe"),
    ("stripes too long for so many connections", stripes_too_long, "length of file or stripe"),
    ("no connections", |welcome| welcome.connections = 0, "number of connections"),
    ("more connections than were asked for", |welcome| welcome.connections = 3, "number of connections"),
    ("a million connections", |welcome| welcome.connections = 1_000_000, "number of connections"),
    ("no workers", |welcome| welcome.workers = 0, "number of workers"),
    ("a worker too many", |welcome| welcome.workers = 257, "number of workers"),
    ("a core too many", |welcome| welcome.cores = vec![0; 257], "list of cores"),
    ("a name that nobody gave", |welcome| welcome.taken_name = b"other".to_vec(), "name of the target"),
    ("a name that leads elsewhere", |welcome| welcome.taken_name = b"../../x".to_vec(), "name of the target"),
    ("a source longer than files can be", |welcome| welcome.source.bytes = 1 << 63, "is not allowed"),
    ("a source as long as a number", |welcome| welcome.source.bytes = u64::MAX, "is not allowed"),
];

fn stripes_too_long(welcome: &mut Welcome) {
    welcome.stripe_bytes = 32 << 20;
    welcome.source.bytes = 1 << 30;
}

/// A client that pulls (or pushes) over at most two connections; it must leave nothing behind.
fn lured(push: bool, play: impl FnOnce(&Ambush)) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    let (source, target) = (directory.path().join("source"), directory.path().join("target"));
    std::fs::write(&source, source_content()).unwrap();
    let ambush = Ambush::lay();
    let remote = format!("127.0.0.1:{}:/file", ambush.port()).into();
    let places = if push { [source.into_os_string(), remote] } else { [remote, target.into_os_string()] };
    let options = ["-c", "1", "--connections", "2"].map(Into::into);
    let client = Client::start(options.into_iter().chain(places));
    play(&ambush);
    let ran = client.end();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "it has made something");
    ran
}

#[track_caller]
fn check(ran: &Ran, code: i32, says: &str) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.stderr.contains(says), "{ran:?}");
}

#[test]
fn a_welcome_that_cannot_be_meant_is_refused() {
    let push_too: Vec<(bool, &Spoil)> = WELCOMES.iter().flat_map(|spoil| [(false, spoil), (true, spoil)]).collect();
    let name = |(push, (name, ..)): &(bool, &Spoil)| format!("{name}, push {push}");
    all(&push_too, name, |(push, (_, spoil, says))| {
        let ran = lured(*push, |ambush| {
            let (mut control, hello) = ambush.hello();
            let source = if *push { None } else { Some(metadata(8 << 20)) };
            let mut welcome = welcome(&hello, offer(source));
            spoil(&mut welcome);
            say(&mut control, &Message::Welcome(welcome));
            let Some(Message::Failed(failure)) = hear_from(&mut control) else { panic!("not told") };
            assert_eq!(failure.kind.exit_code(), 12, "{failure:?}");
        });
        // What was pushed is known to the client, and told to be something else.
        check(&ran, 12, if *push { "is not allowed" } else { says });
    });
}

fn say(control: &mut TcpStream, message: &Message) {
    _ = control.write_all(&frame_message(message));
}

/// What is said instead of a Welcome, by name; the client's code, and what it says.
type Instead = (&'static str, fn(&Ambush) -> TcpStream, i32, &'static str);

const INSTEAD: &[Instead] = &[
    ("garbage", |a| answer(a, b"HTTP/1.1 400 Bad Request\r\n\r\n"), 12, "no pdcp server"),
    ("zeros", |a| answer(a, &[0; 16]), 12, "no pdcp server"),
    ("another version", |a| answer(a, &greeting(10, 9)), 12, "versions"),
    ("reserved bytes that are not zero", |a| answer(a, &greeting(15, 1)), 12, "not zero"),
    ("an unknown purpose", |a| answer(a, &greeting(8, 77)), 12, "77"),
    ("half a greeting, and the end", |a| cut(answer(a, &greeting(0, 0x89)[..9])), 35, "closed"),
    ("nothing, and the end", |a| cut(answer(a, b"")), 35, "closed"),
    ("a heartbeat", |a| first(a, &frame_message(&Message::Beat(Beat::default()))), 12, "a Welcome was expected"),
    (
        "'committed'",
        |a| first(a, &frame_message(&Message::Committed(Default::default()))),
        12,
        "a Welcome was expected",
    ),
    ("a message that cannot be read", |a| first(a, &[4, 0, 0, 0, 9, 9, 9, 9]), 12, "cannot be read"),
    ("a message as long as can be", |a| first(a, &[0xff; 4]), 12, "too long"),
    ("half a message, and the end", |a| cut(first(a, &[4, 0, 0, 0, 1])), 35, "closed"),
    // --- and nothing at all: there is a limit ---
    ("silence", |a| answer(a, b""), 35, "does not answer"),
    ("silence after the greeting", |a| first(a, b""), 35, "does not answer"),
    ("silence after half a Welcome", |a| first(a, &[4, 0, 0, 0, 1]), 35, "does not answer"),
    ("silence on data connections", |a| welcomed(a, b""), 10, "data connections could not be made"),
    (
        "half an answer on data connections",
        |a| welcomed(a, &encode_joined()[..JOINED_LEN - 1]),
        10,
        "could not be made",
    ),
    ("garbage on data connections", |a| welcomed(a, &[7; JOINED_LEN]), 10, "does not speak pdcp"),
];

fn greeting(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = encode_preamble(Preamble::ours(Purpose::Control)).to_vec();
    bytes[at] = byte;
    if at == 10 {
        bytes[9] = byte;
    }
    bytes
}

/// The first words; the connection lives as long as it is held.
fn answer(ambush: &Ambush, bytes: &[u8]) -> TcpStream {
    let mut control = ambush.caught().unwrap();
    _ = control.write_all(bytes);
    control
}

fn cut(control: TcpStream) -> TcpStream {
    _ = control.shutdown(std::net::Shutdown::Write);
    control
}

/// Behind both greetings and the Hello.
fn first(ambush: &Ambush, bytes: &[u8]) -> TcpStream {
    let (mut control, _) = ambush.hello();
    _ = control.write_all(bytes);
    control
}

/// Welcomes, and answers on data connections with these bytes.
fn welcomed(ambush: &Ambush, bytes: &[u8]) -> TcpStream {
    let (mut control, hello) = ambush.hello();
    say(&mut control, &Message::Welcome(welcome(&hello, offer(Some(metadata(8 << 20))))));
    let mut lines = [ambush.caught().unwrap(), ambush.caught().unwrap()];
    lines.iter_mut().for_each(|line| _ = line.write_all(bytes));
    _ = rest(&mut control); // until the client has given up
    control
}

/// A client that is not welcomed says why.
pub(super) fn instead() {
    at_once(
        INSTEAD.len(),
        INSTEAD,
        |(name, ..)| (*name).into(),
        |(_, play, code, says)| {
            let mut held = None;
            check(&lured(false, |ambush| held = Some(play(ambush))), *code, says);
        },
    );
}
