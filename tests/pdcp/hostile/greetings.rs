//! What strangers say to a server before there is a session: preambles, TLS, Hellos, and nothing at all.

use super::control::Control;
use super::peer::{approach, call, dribble, greet, hear_from, joining, knock, rest};
use super::scene::{all, all_at_once, hello, metadata};
use super::victim::Server;
use crate::rig::key_file;
use pdcp::control::identity::{ClientIdentity, server_name};
use pdcp::limits::{
    BLOCK_BYTES_MAX, CONNECTIONS_MAX, FILE_BYTES_MAX, MESSAGE_LEN_MAX, PATH_BYTES_MAX, PROOF_LEN, STRANGER_BYTES_MAX,
    WORKERS_MAX,
};
use pdcp::method::Method;
use pdcp::wire::{
    Beat, Begin, Hello, JOIN_LEN, Message, Options, PREAMBLE_LEN, Purpose, encode_preamble, frame_message,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustls::ClientConnection;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

fn changed(at: usize, byte: u8) -> Vec<u8> {
    let mut bytes = encode_preamble(Purpose::Control).to_vec();
    bytes[at] = byte;
    bytes
}

fn a_join() -> Vec<u8> {
    joining([9; 16], 0, [7; PROOF_LEN])
}

/// Connections that say these bytes and no more are closed without an answer.
pub(super) fn preambles(server: &Server) {
    let preamble = encode_preamble(Purpose::Control);
    let mut cases = vec![
        ("garbage", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec()),
        ("zeros", vec![0; 4096]),
        // Nobody's word is taken for where a client comes from.
        ("a proxy's word for a client", [&b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n"[..], &preamble].concat()),
        ("a proxy's word in bytes", [&b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..], &preamble].concat()),
        ("TLS without a preamble", [&b"\x16\x03\x01\x01\x00"[..], &[1; 256]].concat()),
        ("an unknown purpose", changed(8, 3)),
        ("no purpose", changed(8, 0)),
        ("reserved bytes that are not zero", changed(15, 1)),
        ("a magic with one wrong bit", changed(0, 0x88)),
        ("a join of no session", a_join()),
        ("a join with reserved bytes that are not zero", [&encode_preamble(Purpose::Data)[..], &[1; 56]].concat()),
    ];
    cases.extend((0..PREAMBLE_LEN).map(|cut| ("a preamble cut off", preamble[..cut].to_vec())));
    cases.extend([0, 1, JOIN_LEN - 1].map(|cut| ("a join cut off", a_join()[..PREAMBLE_LEN + cut].to_vec())));
    all(
        &cases,
        |(name, bytes)| format!("{name}, {} bytes", bytes.len()),
        |(_, bytes)| assert_eq!(answered(server, bytes), b""),
    );
}

/// Says these bytes and no more; what comes behind the greeting.
fn answered(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let (mut socket, _) = approach(server.address);
    socket.write_all(bytes).unwrap();
    _ = socket.shutdown(Shutdown::Write);
    rest(&mut socket)
}

/// Control connections that speak no TLS, or not this one, are told no more than TLS's own alert.
pub(super) fn no_tls(server: &Server) {
    let record =
        |bytes: &[u8]| [&b"\x16\x03\x01"[..], &u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let cases: &[(&str, Vec<u8>)] = &[
        ("a Hello in the clear", a_hello()),
        ("text", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n".to_vec()),
        ("zeros", vec![0; 100]),
        ("zeros, more than a handshake takes", vec![0; 64 << 10]),
        ("a ClientHello that makes no sense", record(b"\x01\x00\x00\x04\x03\x03\xff\xff")),
        ("a ClientHello of 16 MiB", record(&[&b"\x01\xff\xff\xff"[..], &[0; 16_000]].concat()).repeat(8)),
        ("a Finished", record(&[20; 36])),
        ("data before any key", [&b"\x17\x03\x03\x00\x20"[..], &[7; 32]].concat()),
        ("an alert", b"\x15\x03\x03\x00\x02\x02\x28".to_vec()),
        ("half a record, and the end", b"\x16\x03\x01\x01".to_vec()),
        ("nothing, and the end", Vec::new()),
    ];
    all(
        cases,
        |(name, _)| (*name).into(),
        |(_, bytes)| {
            let told = answered(server, &[&encode_preamble(Purpose::Control)[..], bytes].concat());
            assert!(told.is_empty() || told.len() == 7 && told[0] == 0x15, "{told:?}");
        },
    );
}

/// Who never comes to an end with his first words of TLS is heard for so many bytes and no more: one who came before him,
/// and says nothing, is still waited for when he is turned out.
pub(super) fn endless_words(server: &Server) {
    let (silent, _) = approach(server.address);
    let (mut talker, _) = approach(server.address);
    let words =
        [&b"\x16\x03\x01\x40\x00\x01\x00\xf0\x00\x03\x03"[..], &vec![1; usize::try_from(STRANGER_BYTES_MAX).unwrap()]]
            .concat();
    talker.write_all(&[&encode_preamble(Purpose::Control)[..], &words].concat()).unwrap();
    let mut ready = [PollFd::new(&talker, PollFlags::IN), PollFd::new(&silent, PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    assert!(poll(&mut ready, Some(&timeout)).unwrap() > 0, "it is heard for ever");
    let [first, second] = ready.map(|ready| !ready.revents().is_empty());
    assert_eq!((first, second), (true, false), "it is heard as long as one who says nothing");
}

/// A ClientHello that is good, and longer than a stranger may be: it is not worth a key exchange.
pub(super) fn a_long_first_word(server: &Server) {
    let config = ClientIdentity::load(Some(key_file())).unwrap().client_config("127.0.0.1", server.address.port());
    let mut config = (*config).clone();
    config.alpn_protocols.extend((0..600).map(|n| format!("pdcp/{n:03}").into_bytes()));
    let mut words = encode_preamble(Purpose::Control).to_vec();
    ClientConnection::new(config.into(), server_name()).unwrap().write_tls(&mut words).unwrap();
    assert!(words.len() as u64 > STRANGER_BYTES_MAX);
    let told = answered(server, &words);
    assert!(told.is_empty() || told.len() == 7 && told[0] == 0x15, "{told:?}");
}

/// Who has been turned out and talks on is not listened to for long.
pub(super) fn pouring(server: &Server) {
    const POURED: usize = 64; // pieces of a MiB, far more than sockets hold
    let piece = vec![0; 1 << 20];
    for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x40\x00\x01\x00\xff\xff"] {
        let (mut talker, _) = approach(server.address);
        talker.write_all(&[&encode_preamble(Purpose::Control)[..], words].concat()).unwrap();
        let taken = (0..POURED).take_while(|_| talker.write_all(&piece).is_ok()).count();
        assert!(taken < POURED, "it takes whatever comes");
    }
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
        ("a Begin", said(Message::Begin(Begin { joined: vec![], sealed: false })), "a Hello was expected"),
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
    // What it is asked for is in its log: see `Server::stop`.
    let nowhere = Path::new("/nowhere\n\x1b[31mlistening on 127.0.0.1:1\r\u{9b}2J\u{85}");
    assert!(knock(server.address, &hello(nowhere, None)).1.unwrap().is_err());
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

/// Who says so little is cut off, after this long.
type Silence = (&'static str, fn(&Server) -> Box<dyn Read>, u64);

const SILENCES: &[Silence] = &[
    ("nothing", |s| Box::new(spoken(s, &[])), 10),
    ("half a preamble", |s| Box::new(spoken(s, &encode_preamble(Purpose::Control)[..8])), 10),
    ("a preamble", |s| Box::new(spoken(s, &encode_preamble(Purpose::Control))), 10),
    (
        "half a head of TLS",
        |s| Box::new(spoken(s, &[&encode_preamble(Purpose::Control)[..], b"\x16\x03"].concat())),
        10,
    ),
    ("a handshake", |s| Box::new(said(s, &[])), 10),
    ("half a length", |s| Box::new(said(s, &a_hello()[..2])), 10),
    ("half a Hello", |s| Box::new(said(s, &a_hello()[..20])), 10),
    ("a Hello", |s| Box::new(said(s, &a_hello())), 20),
    ("a preamble for data", |s| Box::new(spoken(s, &encode_preamble(Purpose::Data))), 10),
    ("half a join", |s| Box::new(spoken(s, &a_join()[..PREAMBLE_LEN + 24])), 10),
    // --- a byte a second: there is a time for all of it, not one for each byte ---
    ("a preamble, a byte a second", |s| Box::new(dribbled(s, 0, &encode_preamble(Purpose::Control))), 10),
    ("a ClientHello, a byte a second", |s| Box::new(dribbled(s, PREAMBLE_LEN, &a_client_hello())), 10),
    ("a join, a byte a second", |s| Box::new(dribbled(s, 0, &a_join())), 10),
    (
        "a Hello, a byte a second",
        |s| {
            let mut control = greet(s.address);
            dribble(&mut control, &a_hello());
            Box::new(control)
        },
        10,
    ),
];

fn a_hello() -> Vec<u8> {
    frame_message(&Message::Hello(hello(Path::new("/nowhere/source"), Some(metadata(1))))).to_vec()
}

fn spoken(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut socket = call(server.address);
    socket.write_all(bytes).unwrap();
    socket
}

fn said(server: &Server, bytes: &[u8]) -> Control {
    let mut control = greet(server.address);
    control.write_all(bytes).unwrap();
    control
}

fn a_client_hello() -> Vec<u8> {
    [&encode_preamble(Purpose::Control)[..], b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03", &[1; 245]].concat()
}

/// Says the first `at_once` bytes at once, the others one a second.
fn dribbled(server: &Server, at_once: usize, bytes: &[u8]) -> TcpStream {
    let (mut socket, _) = approach(server.address);
    socket.write_all(&bytes[..at_once]).unwrap();
    dribble(&mut socket, &bytes[at_once..]);
    socket
}

/// Who says too little is waited for so long and no longer.
pub(super) fn silence(server: &Server) {
    all_at_once(
        SILENCES,
        |(name, ..)| (*name).into(),
        |(_, begin, seconds)| {
            let began = Instant::now();
            _ = rest(&mut begin(server));
            // Only that there is a limit; how exact it is depends on who else is at work here.
            assert!(began.elapsed() < Duration::from_secs(seconds + 15), "{:?}", began.elapsed());
        },
    );
}
