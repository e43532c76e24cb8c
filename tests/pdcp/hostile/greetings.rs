//! What strangers say to a server before there is a session: preambles, Hellos, Begins, Joins, and nothing at all.

use super::peer::{call, greet, hear_from, join, knock, rest};
use super::scene::{all, at_once, hello, metadata};
use super::victim::Server;
use pdcp::limits::{BLOCK_BYTES_MAX, CONNECTIONS_MAX, FILE_BYTES_MAX, MESSAGE_LEN_MAX, PATH_BYTES_MAX, WORKERS_MAX};
use pdcp::method::Method;
use pdcp::wire::{
    Beat, Begin, Hello, Join, Message, Options, PREAMBLE_LEN, Preamble, Purpose, Welcome, decode_preamble, encode_join,
    encode_preamble, frame_message,
};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

fn preamble(purpose: Purpose) -> Vec<u8> {
    encode_preamble(Preamble::ours(purpose)).to_vec()
}

fn changed(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = preamble(Purpose::Control);
    bytes[at] = byte;
    bytes
}

/// Connections that say these bytes and no more are closed without an answer.
pub(super) fn preambles(server: &Server) {
    let mut cases = vec![
        ("garbage", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec()),
        ("zeros", vec![0; 4096]),
        ("an unknown purpose", changed(8, 3)),
        ("no purpose", changed(8, 0)),
        ("reserved bytes that are not zero", changed(15, 1)),
        ("a magic with one wrong bit", changed(0, 0x88)),
        ("a join of no session", [preamble(Purpose::Data), join_bytes()].concat()),
        ("a join with reserved bytes that are not zero", [preamble(Purpose::Data), vec![1; 56]].concat()),
    ];
    cases.extend((0..PREAMBLE_LEN).map(|cut| ("a preamble cut off", preamble(Purpose::Control)[..cut].to_vec())));
    cases.extend(
        [0, 1, 55].map(|cut| ("a join cut off", [preamble(Purpose::Data), join_bytes()].concat()[..16 + cut].to_vec())),
    );
    all(
        &cases,
        |(name, bytes)| format!("{name}, {} bytes", bytes.len()),
        |(_, bytes)| {
            let mut socket = call(server.address);
            socket.write_all(bytes).unwrap();
            _ = socket.shutdown(Shutdown::Write);
            assert_eq!(rest(&mut socket), b"");
        },
    );
    for (min, max) in [(0, 0), (2, 9), (255, 255), (2, 0)] {
        let mut bytes = changed(9, min);
        bytes[10] = max;
        let mut socket = call(server.address);
        socket.write_all(&bytes).unwrap();
        let answer = rest(&mut socket);
        assert!(decode_preamble(&answer).is_ok(), "versions {min} to {max}: it is told ours, so that it can say so");
    }
}

fn join_bytes() -> Vec<u8> {
    encode_join(Join { session: [9; 16], number: 0 }).to_vec()
}

/// What is wrong with a Hello, by name.
type Spoil = (&'static str, fn(&mut Hello), u8, &'static str);

const HELLOS: &[Spoil] = &[
    ("blocks of 0 bytes", |hello| hello.options.block_bytes = 0, 12, "block size"),
    ("blocks of 3 bytes", |hello| hello.options.block_bytes = 3, 12, "block size"),
    ("blocks of 2 KiB", |hello| hello.options.block_bytes = 2048, 12, "block size"),
    ("blocks of 2 MiB", |hello| hello.options.block_bytes = 2 * BLOCK_BYTES_MAX, 12, "block size"),
    ("blocks of 2 GiB", |hello| hello.options.block_bytes = 1 << 31, 12, "block size"),
    ("a connection too many", |hello| hello.connections = CONNECTIONS_MAX + 1, 12, "number of connections"),
    ("a million connections", |hello| hello.connections = 1_000_000, 12, "number of connections"),
    ("no workers", |hello| hello.workers = 0, 12, "number of workers"),
    ("a worker too many", |hello| hello.workers = WORKERS_MAX + 1, 12, "number of workers"),
    ("an empty path", |hello| hello.path.clear(), 12, "path"),
    ("a path with a NUL", |hello| hello.path.push(0), 12, "path"),
    ("a path one byte too long", |hello| hello.path = vec![b'/'; PATH_BYTES_MAX + 1], 12, "path"),
    ("a path of 5000 bytes", |hello| hello.path = vec![b'a'; 5000], 12, "path"),
    ("a name with a slash", |hello| hello.source_name = b"../name".to_vec(), 12, "name"),
    ("a name with a NUL", |hello| hello.source_name = b"na\0me".to_vec(), 12, "name"),
    ("a name of 256 bytes", |hello| hello.source_name = vec![b'a'; 256], 12, "name"),
    ("a program with a long name", |hello| hello.program = "a".repeat(2000), 12, "name"),
    ("a source longer than files can be", |hello| length(hello, FILE_BYTES_MAX + 1), 12, "length"),
    ("a source as long as a number", |hello| length(hello, u64::MAX), 12, "length"),
];

fn length(hello: &mut Hello, bytes: u64) {
    hello.source = Some(metadata(bytes));
}

/// Hellos that cannot be meant seriously: answered as such, before anything is made.
pub(super) fn hellos(server: &Server) {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("sub/target");
    all(
        HELLOS,
        |(name, ..)| (*name).into(),
        |(_, spoil, code, says)| {
            let mut hello = hello(&target, Some(metadata(1)));
            spoil(&mut hello);
            let (mut control, answer) = knock(server.address, &hello);
            let failure = answer.expect("an answer").expect_err("no Welcome");
            assert_eq!(failure.kind.exit_code(), *code, "{failure:?}");
            assert!(failure.text.contains(says), "{failure:?}");
            drop(control.shutdown(Shutdown::Write));
            _ = rest(&mut control);
        },
    );
    let body = body_of(&hello(&target, Some(metadata(1))));
    let other = Hello {
        options: Options { method: Method::Xxh3, ..hello(&target, None).options },
        ..hello(&target, Some(metadata(1)))
    };
    let method_at = body.iter().zip(body_of(&other)).position(|(byte, other)| *byte != other).unwrap();
    // Kind, program's length and bytes, then the source: a flag and 25 bytes, then the path's length.
    let source_at = 4 + 8 + "an enemy".len();
    let huge = (1_u64 << 60).to_le_bytes();
    let longest = vec![0; MESSAGE_LEN_MAX as usize];
    let said = |message: Message| frame_message(&message).to_vec();
    let cases: &[(&str, Vec<u8>, &str)] = &[
        ("an empty message", framed(&[]), "cannot be read"),
        ("garbage", framed(&[0xaa; 16]), "cannot be read"),
        ("a program's name of 2^60 bytes", framed(&spoiled(&body, 4, &huge)), "cannot be read"),
        ("a source that is neither there nor not", framed(&spoiled(&body, source_at, &[2])), "cannot be read"),
        ("a path of 2^60 bytes", framed(&spoiled(&body, source_at + 26, &huge)), "cannot be read"),
        ("a method that nobody knows", framed(&spoiled(&body, method_at, &[200])), "cannot be read"),
        ("a byte too many", framed(&[&body[..], &[0]].concat()), "cannot be read"),
        ("a byte too few", framed(&body[..body.len() - 1]), "cannot be read"),
        ("a message as long as can be", vec![0xff; 4], "too long"),
        ("a message one byte too long", framed(&[&longest[..], &[0]].concat()), "too long"),
        ("the longest message, zeros", framed(&longest), "cannot be read"),
        ("a heartbeat", said(Message::Beat(Beat::default())), "a Hello was expected"),
        ("'received'", said(Message::Received), "a Hello was expected"),
        ("a Begin", said(Message::Begin(Begin { joined: vec![] })), "a Hello was expected"),
    ];
    all(
        cases,
        |(name, ..)| (*name).into(),
        |(_, bytes, says)| {
            let mut control = greet(server.address);
            control.write_all(bytes).unwrap();
            let Some(Message::Failed(failure)) = hear_from(&mut control) else { panic!("not told") };
            assert_eq!(failure.kind.exit_code(), 12, "{failure:?}");
            assert!(failure.text.contains(says), "{failure:?}");
        },
    );
    assert!(!target.parent().unwrap().exists(), "made before all was checked");
}

fn body_of(hello: &Hello) -> Vec<u8> {
    frame_message(&Message::Hello(hello.clone()))[4..].to_vec()
}

/// A message of these bytes.
fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

fn spoiled(body: &[u8], at: usize, by: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes[at..at + by.len()].copy_from_slice(by);
    bytes
}

/// A client that was welcomed, of a file with two connections' worth of stripes.
struct Welcomed<'a> {
    server: &'a Server,
    control: TcpStream,
    welcome: Welcome,
}

impl Welcomed<'_> {
    fn join(&self, number: u32) -> (TcpStream, bool) {
        join(self.server.address, self.welcome.session, number)
    }

    fn begin(&mut self, joined: &[u32]) {
        self.say(&Message::Begin(Begin { joined: joined.to_vec() }));
    }

    fn say(&mut self, message: &Message) {
        _ = self.control.write_all(&frame_message(message));
    }

    #[track_caller]
    fn is_refused(&mut self, says: &str) {
        let Some(Message::Failed(failure)) = hear_from(&mut self.control) else { panic!("not told") };
        assert_eq!(failure.kind.exit_code(), 12, "{failure:?}");
        assert!(failure.text.contains(says), "{failure:?}");
    }
}

/// What comes between Welcome and the session, by name.
type Start = (&'static str, fn(&mut Welcomed<'_>));

const NOT_JOINED: &str = "connections that have not joined";

const STARTS: &[Start] = &[
    ("a Begin without connections", |w| {
        w.begin(&[]);
        w.is_refused(NOT_JOINED);
    }),
    ("a Begin with a connection that never joined", |w| {
        let _socket = w.join(0);
        w.begin(&[0, 1]);
        w.is_refused(NOT_JOINED);
    }),
    ("a Begin with a connection twice", |w| {
        let _socket = w.join(0);
        w.begin(&[0, 0]);
        w.is_refused(NOT_JOINED);
    }),
    ("a Begin with numbers that there are not", |w| {
        let _socket = w.join(0);
        w.begin(&[0, 2, u32::MAX]);
        w.is_refused(NOT_JOINED);
    }),
    ("a Begin with as many numbers as a message holds", |w| {
        let _socket = w.join(0);
        w.begin(&[0; 4000]);
        w.is_refused(NOT_JOINED);
    }),
    ("a second Hello", |w| {
        w.say(&Message::Hello(hello(Path::new("/x"), None)));
        w.is_refused("a Begin was expected");
    }),
    ("a Begin that cannot be read", |w| {
        _ = w.control.write_all(&[0xff; 4]);
        w.is_refused("too long");
    }),
    ("a second Begin", |w| {
        let _socket = w.join(0);
        w.begin(&[0]);
        w.begin(&[0]);
        loop {
            match hear_from(&mut w.control) {
                Some(Message::Beat(_)) => {}
                Some(Message::Failed(failure)) => break assert_eq!(failure.kind.exit_code(), 12, "{failure:?}"),
                other => panic!("{other:?}"),
            }
        }
    }),
    ("a number used twice", |w| {
        let (first, second) = (w.join(0), w.join(0));
        assert_eq!((first.1, second.1), (true, false));
    }),
    ("numbers that there are not", |w| {
        for number in [2, 128, u32::MAX] {
            assert!(!w.join(number).1, "{number}");
        }
    }),
    ("a join of another session", |w| {
        w.welcome.session[0] ^= 1;
        assert!(!w.join(0).1);
    }),
    ("a join after Begin", |w| {
        let _socket = w.join(0);
        w.begin(&[0]);
        while !matches!(hear_from(&mut w.control), Some(Message::Beat(_))) {}
        assert!(!w.join(1).1);
    }),
];

/// Between Welcome and the session.
pub(super) fn starts(server: &Server) {
    all(
        STARTS,
        |(name, _)| (*name).into(),
        |(_, play)| {
            let directory = tempfile::tempdir().unwrap();
            let target = directory.path().join("target");
            let mut hello = hello(&target, Some(metadata(8 << 20)));
            hello.connections = 2;
            let (control, answer) = knock(server.address, &hello);
            let welcome = answer.unwrap().unwrap();
            assert_eq!(welcome.connections, 2);
            let mut welcomed = Welcomed { server, control, welcome };
            play(&mut welcomed);
            _ = welcomed.control.shutdown(Shutdown::Write);
            _ = rest(&mut welcomed.control);
            assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something was left");
        },
    );
}

/// Who says so little is cut off, after this long.
pub(super) fn silence(server: &Server) {
    let directory = tempfile::tempdir().unwrap();
    let hello = hello(&directory.path().join("target"), Some(metadata(1)));
    let body = frame_message(&Message::Hello(hello.clone())).to_vec();
    let greeting = preamble(Purpose::Control);
    let joining = [preamble(Purpose::Data), join_bytes()].concat();
    let cases: &[(&str, Vec<u8>, u64)] = &[
        ("nothing", vec![], 10),
        ("half a preamble", greeting[..8].to_vec(), 10),
        ("a preamble", greeting.clone(), 20),
        ("half a length", [&greeting[..], &body[..2]].concat(), 20),
        ("half a Hello", [&greeting[..], &body[..20]].concat(), 20),
        ("a Hello", [&greeting[..], &body].concat(), 20),
        ("a preamble for data", joining[..16].to_vec(), 10),
        ("half a join", joining[..40].to_vec(), 10),
    ];
    at_once(
        cases.len(),
        cases,
        |(name, ..)| (*name).into(),
        |(_, bytes, seconds)| {
            let mut socket = call(server.address);
            let began = Instant::now();
            socket.write_all(bytes).unwrap();
            _ = rest(&mut socket);
            // Only that there is a limit; how exact it is depends on who else is at work here.
            assert!(began.elapsed() < Duration::from_secs(seconds + 15), "{:?}", began.elapsed());
        },
    );
}
