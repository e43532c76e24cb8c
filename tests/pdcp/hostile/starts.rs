//! What strangers say to a server that has welcomed one of them, and what that one says before Begin: who is not of the
//! session does not get in, whatever he has seen of it.

use super::control::Control;
use super::peer::{approach, frame, hear_from, join, joining, knock, rest};
use super::scene::{all, hello, metadata};
use super::victim::Server;
use pdcp::digest::Digest;
use pdcp::limits::PROOF_LEN;
use pdcp::seal::{Secret, Side};
use pdcp::wire::{Begin, Challenge, Frame, JOIN_LEN, Message, PREAMBLE_LEN, Welcome, frame_message};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A client that was welcomed, of a file with two connections' worth of stripes.
struct Welcomed<'a> {
    server: &'a Server,
    control: Control,
    welcome: Welcome,
    secret: Secret,
}

impl Welcomed<'_> {
    fn join(&self, number: u32) -> (TcpStream, bool) {
        join(self.server.address, self.welcome.session, &self.secret, number)
    }

    fn begin(&mut self, joined: &[u32]) {
        self.say(&Message::Begin(Begin { joined: joined.to_vec(), sealed: false }));
    }

    fn say(&mut self, message: &Message) {
        _ = self.control.write_all(&frame_message(message));
    }

    /// Says this where ends of one kernel meet, and is not answered.
    fn says_at_rendezvous(&self, greeting: [u8; PROOF_LEN]) {
        let name = std::os::unix::net::SocketAddr::from_abstract_name(self.secret.rendezvous()).unwrap();
        let mut stream = UnixStream::connect_addr(&name).unwrap();
        stream.write_all(&greeting).unwrap();
        assert_eq!(rest(&mut stream), b"");
    }

    /// Whether a connection is let in with what `joining` makes of its challenge.
    fn lets_in(&self, joining: impl FnOnce(&Challenge) -> Vec<u8>) -> bool {
        let (mut socket, challenge) = approach(self.server.address);
        socket.write_all(&joining(&challenge)).unwrap();
        match socket.read(&mut [0]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it is neither let in nor turned out"),
            read => read.is_ok_and(|bytes| bytes > 0),
        }
    }

    /// Whether connection 0 is let in with what `proof` makes of its challenge.
    fn believes(&self, proof: impl FnOnce(&Challenge) -> [u8; PROOF_LEN]) -> bool {
        self.lets_in(|challenge| joining(self.welcome.session, 0, proof(challenge)))
    }

    /// What a client says that is let in.
    fn honest(&self, challenge: &Challenge) -> Vec<u8> {
        joining(self.welcome.session, 0, self.secret.connection(challenge, 0).proof(Side::Client))
    }

    /// Ends the session, and waits until the server has done so too.
    fn ends(&mut self) {
        _ = self.control.shutdown(Shutdown::Write);
        _ = rest(&mut self.control);
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
const UNSORTED: &str = "connections twice, or not in order";

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
        w.is_refused(UNSORTED);
    }),
    ("a Begin with numbers that there are not", |w| {
        let _socket = w.join(0);
        w.begin(&[0, 2, u32::MAX]);
        w.is_refused(NOT_JOINED);
    }),
    ("a Begin with as many numbers as a message holds", |w| {
        let _socket = w.join(0);
        w.begin(&[0; 4000]);
        w.is_refused(UNSORTED);
    }),
    ("a Begin with connections in another order", |w| {
        let _sockets = (w.join(0), w.join(1));
        w.begin(&[1, 0]);
        w.is_refused(UNSORTED);
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
    ("a number used again after its connection was closed", |w| {
        drop(w.join(0));
        assert!(!w.join(0).1);
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
    ("a join of a session that has ended", |w| {
        let _socket = w.join(0);
        w.begin(&[0]);
        w.ends();
        (0..3).for_each(|number| assert!(!w.join(number).1, "{number}"));
    }),
    ("a join of a session that has failed before it began", |w| {
        w.begin(&[]);
        w.ends();
        (0..2).for_each(|number| assert!(!w.join(number).1, "{number}"));
    }),
    ("a join that was let in, played back to the next session", |w| {
        let seen = std::cell::OnceCell::new();
        assert!(w.lets_in(|challenge| seen.get_or_init(|| w.honest(challenge)).clone()));
        w.ends();
        between(w.server, true, |next| assert!(!next.lets_in(|_| seen.get().unwrap().clone())));
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
    all(STARTS, |(name, _)| (*name).into(), |(_, play)| between(server, true, play));
}

/// Plays it as a client that was welcomed; nothing may be left of it. `plaintext`: both ends want nothing sealed.
fn between(server: &Server, plaintext: bool, play: impl FnOnce(&mut Welcomed<'_>)) {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("target");
    let mut hello = hello(&target, Some(metadata(8 << 20)));
    (hello.connections, hello.plaintext) = (2, plaintext);
    let (control, answer) = knock(server.address, &hello);
    let welcome = answer.unwrap().unwrap();
    assert_eq!((welcome.connections, welcome.cipher.is_none()), (2, plaintext));
    let secret = control.secret();
    let mut welcomed = Welcomed { server, control, welcome, secret };
    play(&mut welcomed);
    welcomed.ends();
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something was left");
}

/// What has to be sealed, by name.
const SEALED: &[Start] = &[
    ("a Begin that wants nothing sealed, by who was not at the rendezvous", |w| {
        let _socket = w.join(0);
        w.begin(&[0]);
        w.is_refused("wants nothing sealed");
    }),
    ("the same, by who found the rendezvous and knows not what to say there", |w| {
        let (_socket, own) = (w.join(0), rustix::process::geteuid().as_raw());
        w.says_at_rendezvous([0; PROOF_LEN]);
        w.says_at_rendezvous(w.secret.greeting(Side::Server, own));
        w.says_at_rendezvous(w.secret.greeting(Side::Client, own + 1)); // what a client of another user has said
        w.begin(&[0]);
        w.is_refused("wants nothing sealed");
    }),
    ("frames that are not sealed", |w| {
        let (mut socket, _) = w.join(0);
        w.say(&Message::Begin(Begin { joined: vec![0], sealed: true }));
        socket.write_all(&frame(&Frame::Done { stripe: 0, digest: Digest::default() })).unwrap();
        let failure = loop {
            match hear_from(&mut w.control) {
                Some(Message::Beat(_)) => {}
                Some(Message::Failed(failure)) => break failure,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(failure.kind.exit_code(), 10, "{failure:?}");
    }),
];

/// Nothing goes in the clear that was not meant to.
pub(super) fn sealed(server: &Server) {
    all(SEALED, |(name, _)| (*name).into(), |(_, play)| between(server, false, play));
}

/// Proofs for connection 0 that prove nothing, by name.
type Disproof = (&'static str, fn(&Welcomed<'_>, &Challenge) -> [u8; PROOF_LEN]);

const DISPROOFS: &[Disproof] = &[
    ("zeros", |_, _| [0; PROOF_LEN]),
    ("that of another number", |w, challenge| w.secret.connection(challenge, 1).proof(Side::Client)),
    ("the server's own", |w, challenge| w.secret.connection(challenge, 0).proof(Side::Server)),
    ("that of another challenge", |w, _| w.secret.connection(&[1; 32], 0).proof(Side::Client)),
    ("one seen on another connection", |w, _| {
        let (_silent, challenge) = approach(w.server.address);
        w.secret.connection(&challenge, 0).proof(Side::Client)
    }),
    ("the session's name, twice", |w, _| [w.welcome.session, w.welcome.session].concat().try_into().unwrap()),
    ("that of another session", |w, challenge| {
        let directory = tempfile::tempdir().unwrap();
        let hello = hello(&directory.path().join("target"), Some(metadata(8 << 20)));
        let (other, answer) = knock(w.server.address, &hello);
        assert!(answer.unwrap().is_ok());
        other.secret().connection(challenge, 0).proof(Side::Client)
    }),
    ("the client's greeting at the rendezvous", |w, _| w.secret.greeting(Side::Client, 0)),
];

/// Who cannot prove that he is of the session is not let in, and takes nobody's seat.
pub(super) fn proofs(server: &Server) {
    all(
        DISPROOFS,
        |(name, _)| (*name).into(),
        |(_, disproof)| {
            between(server, true, |w| {
                assert!(!w.believes(|challenge| disproof(w, challenge)));
                assert!(w.lets_in(|challenge| w.honest(challenge)), "the seat is lost");
            });
        },
    );
    between(server, true, |w| {
        let seen = std::cell::OnceCell::new();
        assert!(w.lets_in(|challenge| seen.get_or_init(|| w.honest(challenge)).clone()));
        assert!(!w.lets_in(|_| seen.get().unwrap().clone()), "a join is played back");
    });
    between(server, true, |w| {
        for bit in 0..8 * (PREAMBLE_LEN + JOIN_LEN) {
            let spoiled = |challenge: &Challenge| {
                let mut bytes = w.honest(challenge);
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            };
            assert!(!w.lets_in(spoiled), "let in without bit {bit} of its join");
        }
        assert!(w.lets_in(|challenge| w.honest(challenge)), "the seat is lost");
    });
}
