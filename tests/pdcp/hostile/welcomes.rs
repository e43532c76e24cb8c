//! What a lying server says to a client before there is a session.

use super::control::{CHALLENGE, Control, exactly};
use super::peer::{Ambush, Joining, dribble, hear_from, rest};
use super::scene::{all, all_at_once, at_once, hello, metadata, offer, source_content};
use super::victim::{Client, Ran};
use pdcp::failure::Kind;
use pdcp::limits::{PROOF_LEN, REDIAL_PAUSES_MS, STRIPES_OPEN_MAX};
use pdcp::seal::Side;
use pdcp::session::handshake::welcome;
use pdcp::wire::{Beat, FailureMessage, GREETING_LEN, Message, Welcome, encode_greeting, frame_message};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

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
    ("a basis longer than files can be", |welcome| welcome.basis_bytes = Some(1 << 63), "length of the basis"),
    ("a program whose name is a novel", |welcome| welcome.program = "p".repeat(1025), "program's name"),
    ("a source longer than files can be", |welcome| welcome.source.bytes = 1 << 63, "is not allowed"),
    ("a source as long as a number", |welcome| welcome.source.bytes = u64::MAX, "is not allowed"),
];

/// The same, of a file that is the server's own.
const OF_A_PULL: &[Spoil] =
    &[("a basis at the server", |welcome| welcome.basis_bytes = Some(0), "length of the basis")];

/// The same, of a file that is the client's own.
const OF_A_PUSH: &[Spoil] = &[
    ("a source a byte shorter", |welcome| welcome.source.bytes -= 1, "source is not allowed"),
    ("a source of another mode", |welcome| welcome.source.mode |= 0o4777, "source is not allowed"),
    ("a source of another time", |welcome| welcome.source.mtime = Default::default(), "source is not allowed"),
];

fn stripes_too_long(welcome: &mut Welcome) {
    welcome.stripe_bytes = 32 << 20;
    welcome.source.bytes = 1 << 30;
}

/// A client that pulls (or pushes) over at most two connections; it must leave nothing behind.
fn lured(push: bool, play: impl FnOnce(&Ambush)) -> Ran {
    lured_to(&Ambush::lay(), &["--plaintext"], push, play)
}

/// The same, with these options.
pub(super) fn lured_to(ambush: &Ambush, options: &[&str], push: bool, play: impl FnOnce(&Ambush)) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    let (source, target) = (directory.path().join("source"), directory.path().join("target"));
    std::fs::write(&source, source_content()).unwrap();
    let remote = format!("127.0.0.1:{}:/file", ambush.port()).into();
    let places = if push { [source.into_os_string(), remote] } else { [remote, target.into_os_string()] };
    let options = options.iter().chain(&["-c", "1", "--connections", "2"]).map(Into::into);
    let client = Client::start(options.chain(places));
    play(ambush);
    let ran = client.end();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "it has made something");
    ran
}

#[track_caller]
pub(super) fn check(ran: &Ran, code: i32, says: &str) {
    assert_eq!(ran.code, Some(code), "{ran:?}");
    assert!(ran.stderr.contains(says), "{ran:?}");
}

#[test]
fn a_welcome_that_cannot_be_meant_is_refused() {
    let of = |push, spoils: &'static [Spoil]| spoils.iter().map(move |spoil| (push, spoil));
    let cases: Vec<(bool, &Spoil)> =
        [of(false, WELCOMES), of(true, WELCOMES), of(false, OF_A_PULL), of(true, OF_A_PUSH)]
            .into_iter()
            .flatten()
            .collect();
    let name = |(push, (name, ..)): &(bool, &Spoil)| format!("{name}, push {push}");
    all(&cases, name, |(push, (_, spoil, says))| {
        let ran = lured(*push, |ambush| {
            let (mut control, hello) = ambush.hello();
            let source = if *push { None } else { Some(metadata(8 << 20)) };
            let mut welcome = welcome(&hello, offer(source));
            spoil(&mut welcome);
            say(&mut control, &Message::Welcome(welcome));
            let Some(Message::Failed(failure)) = hear_from(&mut control) else { panic!("not told") };
            assert_eq!(failure.kind.exit_code(), 12, "{failure:?}");
        });
        check(&ran, 12, says);
    });
}

fn say(control: &mut Control, message: &Message) {
    _ = control.write_all(&frame_message(message));
}

/// A connection that lives as long as this.
type Held = Box<dyn AsFd>;

/// What is said instead of a Welcome, by name; the client's code, and what it says.
type Instead = (&'static str, fn(&Ambush) -> Held, i32, &'static str);

const INSTEAD: &[Instead] = &[
    ("garbage", |a| answer(a, b"HTTP/1.1 400 Bad Request\r\n\r\n"), 12, "no pdcp server"),
    ("zeros", |a| answer(a, &[0; 16]), 12, "no pdcp server"),
    ("half a greeting, and the end", |a| cut(answer(a, &encode_greeting(&CHALLENGE)[..9])), 35, "closed"),
    ("nothing, and the end", |a| cut(answer(a, b"")), 35, "closed"),
    ("a greeting, and the end", |a| cut(answer(a, &encode_greeting(&CHALLENGE))), 43, "hung up"),
    ("a greeting and text", |a| greeted_and(a, b"220 ready\r\n"), 12, "does not speak TLS"),
    ("a greeting and zeros", |a| greeted_and(a, &[0; 100]), 12, "does not speak TLS"),
    ("a greeting and a Welcome in the clear", |a| greeted_and(a, &in_the_clear()), 12, "does not speak TLS"),
    ("a greeting and a strange alert", |a| greeted_and(a, b"\x15\x03\x03\x00\x02\x02\x50"), 10, "InternalError"),
    ("a heartbeat", |a| first(a, &frame_message(&Message::Beat(Beat::default()))), 12, "a Welcome was expected"),
    (
        "'committed'",
        |a| first(a, &frame_message(&Message::Committed(Default::default()))),
        12,
        "a Welcome was expected",
    ),
    // Trigger: a server that says it was stopped. Damage: the client ended with 130, as if it had been. Cure: it is lost.
    ("that it was stopped", |a| first(a, &failed(Kind::Interrupted, "is stopped there")), 10, "is stopped there"),
    ("a message that cannot be read", |a| first(a, &[4, 0, 0, 0, 9, 9, 9, 9]), 12, "cannot be read"),
    ("a message as long as can be", |a| first(a, &[0xff; 4]), 12, "too long"),
    ("half a message, and the end", |a| cut(first(a, &[4, 0, 0, 0, 1])), 43, "hung up"),
    // --- and nothing at all: there is a limit ---
    ("silence", |a| answer(a, b""), 35, "does not answer"),
    ("silence after the greeting", |a| answer(a, &encode_greeting(&CHALLENGE)), 35, "does not answer"),
    ("silence after half a record", |a| greeted_and(a, b"\x16\x03\x03\x01\x00\x02"), 35, "does not answer"),
    ("silence after the handshake", |a| first(a, b""), 35, "does not answer"),
    ("silence after half a Welcome", |a| first(a, &[4, 0, 0, 0, 1]), 35, "does not answer"),
    ("silence on data connections", |a| welcomed(a, b""), 10, "data connections could not be made"),
    ("half a greeting on data connections", |a| welcomed(a, b"\x89pdcp"), 10, "could not be made"),
    ("no proof on data connections", |a| lets_in(a, |_| Vec::new()), 10, "could not be made"),
    ("half a proof on data connections", |a| lets_in(a, |j| j.proof()[..31].to_vec()), 10, "could not be made"),
    ("garbage on data connections", |a| welcomed(a, &[7; 40]), 10, "pdcp"),
    // --- a byte a second: there is a time for all of it, not one for each byte ---
    ("a greeting, a byte a second", |a| dribbled(a, 0), 35, "does not answer"),
    ("an answer to TLS, a byte a second", |a| dribbled(a, GREETING_LEN), 35, "does not answer"),
    ("a Welcome, a byte a second", a_welcome_dribbled, 35, "does not answer"),
    ("a greeting on data connections, a byte a second", |a| lets_in_slowly(a, false), 10, "could not be made"),
    ("a proof on data connections, a byte a second", |a| lets_in_slowly(a, true), 10, "could not be made"),
    // --- who is not the server of the session ---
    ("zeros for a proof", |a| lets_in(a, |_| vec![0; PROOF_LEN]), 10, NOT_THE_SERVER),
    ("the client's own proof", |a| lets_in(a, |j| j.secret.proof(Side::Client).to_vec()), 10, NOT_THE_SERVER),
];

const NOT_THE_SERVER: &str = "not the server that the session is with";

/// The first words; the connection lives as long as it is held.
fn answer(ambush: &Ambush, bytes: &[u8]) -> Held {
    let mut control = ambush.caught().unwrap();
    _ = control.write_all(bytes);
    Box::new(control)
}

fn greeted_and(ambush: &Ambush, bytes: &[u8]) -> Held {
    answer(ambush, &[&encode_greeting(&CHALLENGE)[..], bytes].concat())
}

fn in_the_clear() -> Vec<u8> {
    let hello = hello(Path::new("/file"), None);
    frame_message(&Message::Welcome(welcome(&hello, offer(Some(metadata(8 << 20)))))).to_vec()
}

fn failure(kind: Kind, text: &str) -> FailureMessage {
    FailureMessage { kind, subject: Vec::new(), text: text.into(), untouched: false }
}

fn failed(kind: Kind, text: &str) -> Vec<u8> {
    frame_message(&Message::Failed(failure(kind, text))).to_vec()
}

fn cut(held: Held) -> Held {
    _ = rustix::net::shutdown(&held, rustix::net::Shutdown::Write);
    held
}

/// Behind the handshake and the Hello.
fn first(ambush: &Ambush, bytes: &[u8]) -> Held {
    let (mut control, _) = ambush.hello();
    _ = control.write_all(bytes);
    Box::new(control)
}

/// Welcomes, and answers on both data connections: with these bytes at once.
fn welcomed(ambush: &Ambush, bytes: &[u8]) -> Held {
    let mut control = welcoming(ambush);
    let mut lines = [ambush.caught().unwrap(), ambush.caught().unwrap()];
    lines.iter_mut().for_each(|line| _ = line.write_all(bytes));
    _ = rest(&mut control); // until the client has given up
    Box::new(control)
}

/// Says some of this at once, and then no more than a byte a second.
fn dribbled(ambush: &Ambush, at_once: usize) -> Held {
    let mut control = ambush.caught().unwrap();
    let record = [&b"\x16\x03\x03\x01\x00\x02\x00\x00\xfc\x03\x03"[..], &[1; 50]].concat();
    let says = [&encode_greeting(&CHALLENGE)[..], &record].concat();
    _ = control.write_all(&says[..at_once]);
    dribble(&mut control, &says[at_once..]);
    Box::new(control)
}

fn a_welcome_dribbled(ambush: &Ambush) -> Held {
    let (mut control, _) = ambush.hello();
    dribble(&mut control, &in_the_clear());
    Box::new(control)
}

/// Welcomes, and says no more than a byte a second on both data connections: of the greeting, or, `greeted`, of the proof.
fn lets_in_slowly(ambush: &Ambush, greeted: bool) -> Held {
    let mut control = welcoming(ambush);
    let secret = control.secret();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (mut socket, says) = if greeted {
                let joining = ambush.joining(&secret);
                let proof = joining.proof();
                (joining.socket, proof.to_vec())
            } else {
                (ambush.caught().unwrap(), encode_greeting(&CHALLENGE).to_vec())
            };
            scope.spawn(move || dribble(&mut socket, &says));
        }
    });
    _ = rest(&mut control);
    Box::new(control)
}

/// The same as [`welcomed`], with the greeting, and then with what `proof` makes of the join.
fn lets_in(ambush: &Ambush, proof: impl Fn(&Joining) -> Vec<u8>) -> Held {
    let mut control = welcoming(ambush);
    let secret = control.secret();
    let mut lines = [ambush.joining(&secret), ambush.joining(&secret)];
    for line in &mut lines {
        let proof = proof(line);
        _ = line.socket.write_all(&proof);
    }
    _ = rest(&mut control);
    Box::new(control)
}

fn welcoming(ambush: &Ambush) -> Control {
    let (mut control, hello) = ambush.hello();
    say(&mut control, &Message::Welcome(welcome(&hello, offer(Some(metadata(8 << 20))))));
    control
}

/// A client that is not welcomed says why.
pub(super) fn instead() {
    all_at_once(
        INSTEAD,
        |(name, ..)| (*name).into(),
        |(_, play, code, says)| {
            let mut held = None;
            check(&lured(false, |ambush| held = Some(play(ambush))), *code, says);
        },
    );
}

/// Every bit of the server's proof counts: where one is wrong, the client goes without that connection, or not at all.
#[test]
fn a_client_uses_no_connection_whose_server_proves_nothing() {
    let bits: Vec<usize> = (0..8 * PROOF_LEN).collect();
    let spoiled = |joining: &Joining, bit: usize| {
        let mut proof = joining.proof();
        proof[bit / 8] ^= 1 << (bit % 8);
        proof.to_vec()
    };
    let both: Vec<usize> = bits.iter().copied().step_by(8).collect();
    at_once(
        10,
        &both,
        |bit| format!("both without bit {bit}"),
        |bit| {
            let ran = lured(false, |ambush| drop(lets_in(ambush, |joining| spoiled(joining, *bit))));
            check(&ran, 10, NOT_THE_SERVER);
        },
    );
    at_once(
        10,
        &bits,
        |bit| format!("one without bit {bit}"),
        |bit| {
            let ran = lured(false, |ambush| {
                let mut control = welcoming(ambush);
                let secret = control.secret();
                for mut line in [ambush.joining(&secret), ambush.joining(&secret)] {
                    let proof = if line.number == 0 { spoiled(&line, *bit) } else { line.proof().to_vec() };
                    _ = line.socket.write_all(&proof);
                }
                match hear_from(&mut control) {
                    Some(Message::Begin(begin)) => assert_eq!(begin.joined, [1]),
                    other => panic!("{other:?} is no Begin"),
                }
                let failure = failure(Kind::Busy, "enough");
                say(&mut control, &Message::Failed(failure));
                _ = rest(&mut control);
            });
            check(&ran, 43, "enough");
        },
    );
}

/// Trigger: a Welcome names no cipher, though only the server wants it so. What would be sent in the clear is not sent.
#[test]
fn a_client_that_wants_its_frames_sealed_is_not_talked_out_of_it() {
    for push in [false, true] {
        let ran = lured_to(&Ambush::lay(), &[], push, |ambush| {
            let (mut control, hello) = ambush.hello();
            let source = if push { None } else { Some(metadata(8 << 20)) };
            let mut welcome = welcome(&hello, offer(source));
            assert!(welcome.cipher.take().is_some());
            say(&mut control, &Message::Welcome(welcome));
            let Some(Message::Failed(failure)) = hear_from(&mut control) else { panic!("not told") };
            assert_eq!(failure.kind.exit_code(), 12, "{failure:?}");
        });
        check(&ran, 12, "cipher");
    }
}

/// Who holds the rendezvous cannot pass for the server by giving a client its own words back, or none: all is sealed.
#[test]
fn a_client_is_not_talked_out_of_sealing_by_who_holds_the_rendezvous() {
    let answers: [fn([u8; PROOF_LEN]) -> Vec<u8>; 3] = [|said| said.to_vec(), |_| vec![0; PROOF_LEN], |_| Vec::new()];
    for answer in answers {
        let ran = lured_to(&Ambush::lay(), &[], false, |ambush| {
            let (mut control, hello) = ambush.hello();
            let secret = control.secret();
            let name = std::os::unix::net::SocketAddr::from_abstract_name(secret.rendezvous()).unwrap();
            let rendezvous = UnixListener::bind_addr(&name).unwrap();
            say(&mut control, &Message::Welcome(welcome(&hello, offer(Some(metadata(8 << 20))))));
            for mut line in [ambush.joining(&secret), ambush.joining(&secret)] {
                let proof = line.proof();
                line.socket.write_all(&proof).unwrap();
            }
            let mut met = rendezvous.accept().unwrap().0;
            let said = exactly::<PROOF_LEN>(&mut met).unwrap();
            met.write_all(&answer(said)).unwrap();
            drop(met);
            match hear_from(&mut control) {
                Some(Message::Begin(begin)) => assert!(begin.sealed),
                other => panic!("{other:?} is no Begin"),
            }
            let failure = failure(Kind::Busy, "enough");
            say(&mut control, &Message::Failed(failure));
            _ = rest(&mut control);
        });
        check(&ran, 43, "enough");
    }
}

/// Trigger: a session is lost, and the server, which cannot know yet, still holds its target. Damage: after three times "in
/// use" within seconds the copy was given up. Cure: it is dialled again until the server must have missed it.
#[test]
fn a_target_that_a_lost_session_still_holds_is_waited_for() {
    let ran = lured_to(&Ambush::lay(), &["--plaintext"], true, |ambush| {
        drop(ambush.take(|hello| welcome(hello, offer(None)), Vec::new()));
        let answers = [Kind::Busy; REDIAL_PAUSES_MS.len() + 2].into_iter().chain([Kind::Refused]);
        for kind in answers {
            let (mut control, hello) = ambush.hello();
            assert_eq!(hello.former, Some(offer(None).session));
            _ = control.write_all(&failed(kind, "by whom?"));
            _ = rest(&mut control);
        }
    });
    check(&ran, 5, "by whom?");
}

/// Trigger: a session was lost when it had written, and the next one failed before it wrote. Damage: 'is as it was' was said of a
/// target half of which was new. Cure: what earlier sessions did counts.
#[test]
fn what_a_lost_session_has_done_to_the_target_is_not_forgotten_by_the_next() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let (source, target) = (directory.path().join("source"), directory.path().join("target"));
    let content = source_content();
    for push in [false, true] {
        std::fs::write(&source, &content).unwrap();
        std::fs::write(&target, vec![7; content.len()]).unwrap();
        let ambush = Ambush::lay();
        let remote = format!("127.0.0.1:{}:/file", ambush.port()).into();
        let places =
            if push { [source.clone().into_os_string(), remote] } else { [remote, target.clone().into_os_string()] };
        let options = ["--plaintext", "--json", "-c", "1", "--connections", "1"].map(Into::into);
        let client = Client::start(options.into_iter().chain(places));
        let bytes = content.len() as u64;
        let offered = || if push { None } else { Some(metadata(bytes)) };
        let mut lost = ambush.take(|hello| welcome(hello, offer(offered())), content.clone());
        if !push {
            // So many may be open: the first is written.
            (0..=STRIPES_OPEN_MAX).for_each(|_| _ = lost.serve_on(0));
        }
        drop(lost);
        let mut next = ambush.take(|hello| welcome(hello, offer(offered())), content.clone());
        next.say(&Message::Failed(FailureMessage { untouched: push, ..failure(Kind::Source, "no more") }));
        let ran = client.end();
        check(&ran, 3, "no more");
        check(&ran, 3, if push { "may be unfinished" } else { "is unfinished" });
    }
}

/// Trigger: a session finds that the lost one before it still has the server's buffers. Damage: it was given up, though the same
/// said before Welcome is tried again.
#[test]
fn a_lost_session_is_dialled_again_also_when_there_is_no_room_for_it_yet() {
    let ran = lured_to(&Ambush::lay(), &["--plaintext"], true, |ambush| {
        drop(ambush.take(|hello| welcome(hello, offer(None)), Vec::new()));
        for kind in [Kind::Busy, Kind::Refused] {
            let mut peer = ambush.take(|hello| welcome(hello, offer(None)), Vec::new());
            peer.say(&Message::Failed(failure(kind, "by whom?")));
            _ = peer.hear();
        }
    });
    check(&ran, 5, "by whom?");
    assert_eq!(ran.stderr.matches("dialling again").count(), 2, "{ran:?}");
}

/// Trigger: a lost session is dialled again, and its server says no. Damage: it was dialled three times more. Cure: what is
/// final ends it.
#[test]
fn who_says_no_when_a_lost_session_is_dialled_again_is_dialled_no_more() {
    let ran = lured_to(&Ambush::lay(), &["--plaintext"], true, |ambush| {
        drop(ambush.take(|hello| welcome(hello, offer(None)), Vec::new()));
        let (mut control, _) = ambush.hello();
        _ = control.write_all(&failed(Kind::Refused, "not you"));
        _ = rest(&mut control);
    });
    check(&ran, 5, "not you");
    assert_eq!(ran.stderr.matches("dialling again").count(), 1, "{ran:?}");
}
