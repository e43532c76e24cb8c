//! A peer made of raw sockets and the public encoders: as honest as its script wants it to be. Its frames are not sealed:
//! a lie is one whoever tells it, and a victim that is told one asks for `--plaintext`.
//!
//! It speaks for a client or for a server, and for a source or a target: after the handshake all of these look alike.
//! What the other end no longer takes is not an error here; what it does not say in time is.

use super::control::{CHALLENGE, Control, exactly, greeted};
use super::victim::PATIENCE;
use crate::rig::key_file;
use bytes::BytesMut;
use pdcp::digest::{Digest, Signature, fold_file, fold_stripe, hash_blocks};
use pdcp::extent::{BlockSize, Layout, Run};
use pdcp::limits::{FRAME_LEN_MAX, HEADER_LEN, PROOF_LEN};
use pdcp::seal::{ConnectionSecret, Secret, Side};
use pdcp::wire::{
    Begin, Challenge, FailureMessage, Frame, Hello, JOIN_LEN, Join, Message, PREAMBLE_LEN, Proof, Purpose, Scratch,
    SessionId, Welcome, decode, decode_join, decode_preamble, encode, encode_greeting, encode_join, encode_preamble,
    frame_message, header, parse_message,
};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::{HashMap, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A frame as it came.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    Want { stripe: u64, basis_blocks: u32 },
    Signatures { first: u64, values: Vec<Signature> },
    Data { pieces: Vec<Run>, payload: Vec<u8> },
    Holes(Vec<Run>),
    Differs(Vec<Run>),
    Done { stripe: u64, digest: Digest },
}

/// One data connection.
pub(super) struct Line {
    pub(super) socket: TcpStream,
    open: bool,
    wants: VecDeque<(u64, u32)>,
    /// Signatures that came, by stripe.
    signed: HashMap<u64, u32>,
}

/// A peer in a session that has begun.
pub(super) struct Peer {
    pub(super) control: Control,
    pub(super) lines: Vec<Line>,
    pub(super) layout: Layout,
    /// What the source has, or is said to have.
    pub(super) content: Vec<u8>,
    /// The victim's file.
    pub(super) path: PathBuf,
}

// --- the first words ---

/// A connection that waits no longer than it has to.
pub(super) fn call(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(address).unwrap())
}

fn patient(socket: TcpStream) -> TcpStream {
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// All that still comes until the other end closes.
#[track_caller]
pub(super) fn rest(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match from.read_to_end(&mut bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("it does not close"),
        _ => bytes, // a reset is an end as well
    }
}

/// Says these bytes, one a second, as long as the other end takes them, and no longer than anybody waits for a first word.
pub(super) fn dribble(to: &mut impl Write, bytes: &[u8]) {
    for byte in bytes.iter().take(45) {
        if to.write_all(&[*byte]).is_err() {
            return;
        }
        std::thread::park_timeout(Duration::from_secs(1));
    }
}

/// A client's control connection.
pub(super) fn greet(address: SocketAddr) -> Control {
    Control::dial(call(address), key_file()).unwrap()
}

/// The next message; `None` when there will be none.
pub(super) fn hear_from(control: &mut Control) -> Option<Message> {
    let length = u32::from_le_bytes(exactly::<4>(control)?);
    let mut bytes = vec![0; length as usize];
    control.read_exact(&mut bytes).ok()?;
    let mut framed = BytesMut::from(&[&length.to_le_bytes()[..], &bytes].concat()[..]);
    parse_message(&mut framed).expect("the program's messages can be read")
}

/// Says Hello. The Welcome, or why not; `None`: it was closed without a word.
pub(super) fn knock(address: SocketAddr, hello: &Hello) -> (Control, Option<Result<Welcome, FailureMessage>>) {
    let mut control = greet(address);
    control.write_all(&frame_message(&Message::Hello(hello.clone()))).unwrap();
    let answer = hear_from(&mut control).map(|message| match message {
        Message::Welcome(welcome) => Ok(welcome),
        Message::Failed(failure) => Err(failure),
        other => panic!("{other:?} is no answer to a Hello"),
    });
    (control, answer)
}

/// A data connection that was greeted, and has said nothing.
pub(super) fn approach(address: SocketAddr) -> (TcpStream, Challenge) {
    let mut socket = call(address);
    let challenge = greeted(&mut socket);
    (socket, challenge)
}

/// What a data connection says to join, with any proof.
pub(super) fn joining(session: SessionId, number: u32, proof: [u8; PROOF_LEN]) -> Vec<u8> {
    [&encode_preamble(Purpose::Data)[..], &encode_join(&Join { session, number, proof })].concat()
}

/// Asks to join; `true`: let in, by the server of the session.
pub(super) fn join(address: SocketAddr, session: SessionId, secret: &Secret, number: u32) -> (TcpStream, bool) {
    let (mut socket, challenge) = approach(address);
    let secret = secret.connection(&challenge, number);
    socket.write_all(&joining(session, number, secret.proof(Side::Client))).unwrap();
    let proof = exactly::<PROOF_LEN>(&mut socket);
    assert!(proof.is_none_or(|proof| proof == secret.proof(Side::Server)), "it proves itself");
    (socket, proof.is_some())
}

/// A place where a client can be lured to.
pub(super) struct Ambush {
    listener: TcpListener,
    key_file: PathBuf,
}

/// A client's data connection that wants to join.
pub(super) struct Joining {
    pub(super) socket: TcpStream,
    pub(super) number: u32,
    pub(super) secret: ConnectionSecret,
}

impl Joining {
    /// The proof that lets the client believe in the session.
    pub(super) fn proof(&self) -> [u8; PROOF_LEN] {
        self.secret.proof(Side::Server)
    }
}

impl Ambush {
    pub(super) fn lay() -> Self {
        Self::lay_with(key_file())
    }

    /// With the key of this file.
    pub(super) fn lay_with(key_file: &Path) -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").unwrap(), key_file: key_file.into() }
    }

    pub(super) fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// The next connection; `None` if nobody comes.
    pub(super) fn caught(&self) -> Option<TcpStream> {
        let timeout = rustix::event::Timespec { tv_sec: 15, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&timeout)).unwrap();
        (ready > 0).then(|| patient(self.listener.accept().unwrap().0))
    }

    /// A control connection, if TLS lets both ends be.
    pub(super) fn control(&self) -> std::io::Result<Control> {
        Control::accept(self.caught().expect("a client comes"), &self.key_file)
    }

    /// A control connection, with the client's Hello.
    pub(super) fn hello(&self) -> (Control, Hello) {
        let mut control = self.control().unwrap();
        match hear_from(&mut control) {
            Some(Message::Hello(hello)) => (control, hello),
            other => panic!("{other:?} is no Hello"),
        }
    }

    /// Welcomes and lets all connections in. `content`: what the source has.
    pub(super) fn take(&self, welcome: impl FnOnce(&Hello) -> Welcome, content: Vec<u8>) -> Peer {
        let (mut control, hello) = self.hello();
        let welcome = welcome(&hello);
        let layout = layout(&hello, &welcome);
        control.write_all(&frame_message(&Message::Welcome(welcome.clone()))).unwrap();
        let secret = control.secret();
        let mut joined: Vec<Joining> = (0..welcome.connections).map(|_| self.joining(&secret)).collect();
        for joining in &mut joined {
            let proof = joining.proof();
            joining.socket.write_all(&proof).unwrap();
        }
        joined.sort_by_key(|joining| joining.number);
        match hear_from(&mut control) {
            Some(Message::Begin(begin)) => assert_eq!((begin.joined.len(), begin.sealed), (joined.len(), false)),
            other => panic!("{other:?} is no Begin"),
        }
        Peer::new(control, joined.into_iter().map(|joining| joining.socket), layout, content)
    }

    /// A data connection that has proven to be of the session with this secret.
    pub(super) fn joining(&self, secret: &Secret) -> Joining {
        let mut socket = self.caught().expect("a data connection comes");
        socket.write_all(&encode_greeting(&CHALLENGE)).unwrap();
        let asked = exactly::<{ PREAMBLE_LEN + JOIN_LEN }>(&mut socket).unwrap();
        assert_eq!(decode_preamble(&asked[..PREAMBLE_LEN]), Ok(Purpose::Data));
        let join = decode_join(asked[PREAMBLE_LEN..].first_chunk().unwrap()).unwrap();
        let secret = secret.connection(&CHALLENGE, join.number);
        assert_eq!(join.proof, secret.proof(Side::Client));
        Joining { socket, number: join.number, secret }
    }
}

/// A client of `address`, up to Begin.
pub(super) fn client(address: SocketAddr, hello: &Hello, content: Vec<u8>) -> Peer {
    client_after(|| (), address, hello, content)
}

/// The same, but for what it does before it says Begin.
pub(super) fn client_after(before: impl FnOnce(), address: SocketAddr, hello: &Hello, content: Vec<u8>) -> Peer {
    let (mut control, answer) = knock(address, hello);
    let welcome = answer.expect("an answer").expect("a Welcome");
    let secret = control.secret();
    let sockets: Vec<TcpStream> = (0..welcome.connections)
        .map(|number| {
            let (socket, joined) = join(address, welcome.session, &secret, number);
            assert!(joined);
            socket
        })
        .collect();
    before();
    let begin = Begin { joined: (0..welcome.connections).collect(), sealed: false };
    control.write_all(&frame_message(&Message::Begin(begin))).unwrap();
    Peer::new(control, sockets.into_iter(), layout(hello, &welcome), content)
}

fn layout(hello: &Hello, welcome: &Welcome) -> Layout {
    let block = BlockSize::checked(hello.options.block_bytes).unwrap();
    Layout::checked(welcome.source.bytes, block, welcome.stripe_bytes).unwrap()
}

// --- in the session ---

impl Line {
    /// The next Want all of whose basis is signed.
    fn signed_want(&mut self) -> Option<u64> {
        let (stripe, basis_blocks) = *self.wants.front()?;
        let signed = self.signed.get(&stripe).copied().unwrap_or(0);
        (signed >= basis_blocks).then(|| self.wants.pop_front()).flatten().map(|(stripe, _)| stripe)
    }
}

impl Peer {
    fn new(control: Control, sockets: impl Iterator<Item = TcpStream>, layout: Layout, content: Vec<u8>) -> Self {
        let lines =
            sockets.map(|socket| Line { socket, open: true, wants: VecDeque::new(), signed: HashMap::new() }).collect();
        Self { control, lines, layout, content, path: PathBuf::new() }
    }

    pub(super) fn say(&mut self, message: &Message) {
        _ = self.control.write_all(&frame_message(message));
    }

    /// The next message that is no heartbeat.
    pub(super) fn hear(&mut self) -> Option<Message> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match hear_from(&mut self.control) {
                Some(Message::Beat(_)) => {}
                other => return other,
            }
        }
        panic!("nothing comes but heartbeats");
    }

    /// All messages until the other end closes: the failure among them.
    pub(super) fn hear_failure(&mut self) -> Option<FailureMessage> {
        let mut failure = None;
        while let Some(message) = self.hear() {
            if let Message::Failed(told) = message {
                failure.get_or_insert(told);
                // It need not wait for us.
                _ = self.control.shutdown(Shutdown::Write);
            }
        }
        failure
    }

    /// Sends these bytes on data connection 0.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        _ = self.lines[0].socket.write_all(bytes);
    }

    /// Blocks of the content.
    pub(super) fn bytes(&self, run: Run) -> &[u8] {
        let from = usize::try_from(self.layout.offset(run)).unwrap();
        &self.content[from..from + usize::try_from(self.layout.run_bytes(run)).unwrap()]
    }

    /// The digest of a stripe of the content.
    pub(super) fn stripe_digest(&self, stripe: u64) -> Digest {
        let run = self.layout.stripe(stripe).unwrap();
        let mut digests = vec![Digest::default(); run.count as usize];
        hash_blocks(&self.layout, run, self.bytes(run), &mut digests);
        fold_stripe(&self.layout, stripe, &digests)
    }

    /// The content's digest.
    pub(super) fn proof(&self) -> Message {
        let stripes: Vec<Digest> = (0..self.layout.stripes()).map(|stripe| self.stripe_digest(stripe)).collect();
        Message::Proof(Proof::from(fold_file(&self.layout, &stripes)))
    }

    // --- as a source ---

    /// The next Want of a connection, in order.
    #[track_caller]
    pub(super) fn wanted_on(&mut self, line: usize) -> (u64, u32) {
        while self.lines[line].wants.is_empty() {
            assert!(self.note(line), "a target goes on asking");
        }
        self.lines[line].wants.pop_front().unwrap()
    }

    #[track_caller]
    pub(super) fn wanted(&mut self) -> (u64, u32) {
        self.wanted_on(0)
    }

    /// Waits until the first `blocks` of a stripe are signed.
    #[track_caller]
    pub(super) fn await_signatures(&mut self, line: usize, stripe: u64, blocks: u32) {
        while self.lines[line].signed.get(&stripe).copied().unwrap_or(0) < blocks {
            assert!(self.note(line), "a target goes on signing");
        }
    }

    /// Takes note of the next frame; `false`: there will be none.
    #[track_caller]
    fn note(&mut self, line: usize) -> bool {
        let per_stripe = u64::from(self.layout.stripe_blocks());
        let heard = hear_frame(&mut self.lines[line].socket);
        let line = &mut self.lines[line];
        let Some(heard) = heard else { return false };
        match heard {
            Heard::Want { stripe, basis_blocks } => line.wants.push_back((stripe, basis_blocks)),
            Heard::Signatures { first, values } => {
                *line.signed.entry(first / per_stripe).or_default() += u32::try_from(values.len()).unwrap();
            }
            other => panic!("{other:?} does not come from a target"),
        }
        true
    }

    /// Data frames of all of a stripe, without its end.
    pub(super) fn data(&self, stripe: u64) -> Vec<u8> {
        data(&[self.layout.stripe(stripe).unwrap()], self.bytes(self.layout.stripe(stripe).unwrap()))
    }

    pub(super) fn done(&self, stripe: u64) -> Vec<u8> {
        frame(&Frame::Done { stripe, digest: self.stripe_digest(stripe) })
    }

    /// Serves the next Want of a connection as an honest source would, but for sending what is equal as well.
    #[track_caller]
    pub(super) fn serve_on(&mut self, line: usize) -> u64 {
        let (stripe, basis_blocks) = self.wanted_on(line);
        self.await_signatures(line, stripe, basis_blocks);
        let bytes = [self.data(stripe), self.done(stripe)].concat();
        _ = self.lines[line].socket.write_all(&bytes);
        stripe
    }

    /// Serves all connections, each stripe with what `answer` makes of it (and `false`: hangs up then), until the target
    /// says something.
    #[track_caller]
    pub(super) fn serve_with(&mut self, mut answer: impl FnMut(&Self, usize, u64) -> (Vec<u8>, bool)) -> Message {
        loop {
            for line in 0..self.lines.len() {
                while let Some(stripe) = self.lines[line].signed_want() {
                    let (bytes, go_on) = answer(self, line, stripe);
                    _ = self.lines[line].socket.write_all(&bytes);
                    if !go_on {
                        self.hang_up(line);
                    }
                }
            }
            let ready = self.ready();
            if ready[0] {
                match hear_from(&mut self.control).expect("it goes on") {
                    Message::Beat(_) => {}
                    other => return other,
                }
            }
            for line in (0..self.lines.len()).filter(|line| ready[line + 1]) {
                if !self.note(line) {
                    self.lines[line].open = false;
                }
            }
        }
    }

    pub(super) fn hang_up(&mut self, line: usize) {
        _ = self.lines[line].socket.shutdown(Shutdown::Both);
        self.lines[line].open = false;
        self.lines[line].wants.clear();
    }

    /// Waits; where something has come: on control, on each open data connection.
    fn ready(&mut self) -> Vec<bool> {
        let closed = PollFlags::empty();
        let has_more = self.control.has_more();
        let flags = |line: &Line| if line.open { PollFlags::IN } else { closed };
        let mut descriptors = vec![PollFd::new(&self.control, PollFlags::IN)];
        descriptors.extend(self.lines.iter().map(|line| PollFd::new(&line.socket, flags(line))));
        let timeout = rustix::event::Timespec { tv_sec: if has_more { 0 } else { 30 }, tv_nsec: 0 };
        let ready = poll(&mut descriptors, Some(&timeout)).unwrap();
        assert!(has_more || ready > 0, "nothing comes");
        let open = std::iter::once(true).chain(self.lines.iter().map(|line| line.open));
        let mut ready: Vec<bool> =
            descriptors.iter().zip(open).map(|(descriptor, open)| open && !descriptor.revents().is_empty()).collect();
        ready[0] |= has_more;
        ready
    }

    /// Serves everything that is left as an honest source would, and ends well.
    #[track_caller]
    pub(super) fn serve_the_rest(&mut self) {
        let said = self.serve_with(|peer, _, stripe| ([peer.data(stripe), peer.done(stripe)].concat(), true));
        self.prove_after(said);
    }

    /// Waits for 'received', proves, and waits for 'committed'.
    #[track_caller]
    pub(super) fn prove(&mut self) {
        let said = self.hear().expect("'received'");
        self.prove_after(said);
    }

    #[track_caller]
    pub(super) fn prove_after(&mut self, said: Message) {
        assert_eq!(said, Message::Received);
        let proof = self.proof();
        self.say(&proof);
        match self.hear() {
            Some(Message::Committed(_)) => {}
            other => panic!("{other:?} instead of 'committed'"),
        }
    }

    /// Waits for so many heartbeats: two a second.
    #[track_caller]
    pub(super) fn await_beats(&mut self, count: usize) {
        for _ in 0..count {
            assert!(matches!(hear_from(&mut self.control), Some(Message::Beat(_))));
        }
    }

    // --- as a target ---

    pub(super) fn want(&mut self, stripe: u64, basis_blocks: u32) {
        self.send(&frame(&Frame::Want { stripe, basis_blocks, heads: false }));
    }

    /// Takes a whole stripe without a basis, and checks that it is the content's.
    #[track_caller]
    pub(super) fn fetch(&mut self, stripe: u64) {
        self.want(stripe, 0);
        self.take(stripe);
    }

    /// Takes what was wanted: all of a stripe.
    #[track_caller]
    pub(super) fn take(&mut self, stripe: u64) {
        loop {
            match hear_frame(&mut self.lines[0].socket).expect("a source sends what is wanted") {
                Heard::Data { pieces, payload } => {
                    let expected: Vec<u8> = pieces.iter().flat_map(|run| self.bytes(*run).to_vec()).collect();
                    assert!(payload == expected, "the source sends its bytes");
                }
                Heard::Done { stripe: told, digest } => {
                    assert_eq!((told, digest), (stripe, self.stripe_digest(stripe)));
                    return;
                }
                other => panic!("{other:?} does not come from a source"),
            }
        }
    }
}

/// A frame without payload.
pub(super) fn frame(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = vec![0; FRAME_LEN_MAX];
    let used = encode(frame, &mut bytes).unwrap();
    bytes.truncate(used);
    bytes
}

/// A data frame with as much payload as is given, right or not.
pub(super) fn data(pieces: &[Run], payload: &[u8]) -> Vec<u8> {
    let payload_bytes = u32::try_from(payload.len()).unwrap();
    [&frame(&Frame::Data { pieces, payload_bytes })[..], payload].concat()
}

/// The next frame of a data connection; `None` when there will be none.
pub(super) fn hear_frame(socket: &mut TcpStream) -> Option<Heard> {
    let front = exactly::<HEADER_LEN>(socket)?;
    let payload_bytes = u32::from_le_bytes(*front[8..].first_chunk().unwrap());
    let header = header(&front).unwrap().unwrap();
    let mut bytes = front.to_vec();
    bytes.resize(header.frame_bytes(), 0);
    socket.read_exact(&mut bytes[HEADER_LEN..]).ok()?;
    let mut payload = vec![0; payload_bytes as usize];
    socket.read_exact(&mut payload).ok()?;
    let mut scratch = Scratch::default();
    Some(match decode(header, &bytes, &mut scratch).unwrap() {
        Frame::Want { stripe, basis_blocks, .. } => Heard::Want { stripe, basis_blocks },
        Frame::Signatures { first, values } => Heard::Signatures { first, values: values.to_vec() },
        Frame::Data { pieces, .. } => Heard::Data { pieces: pieces.to_vec(), payload },
        Frame::Holes { runs } => Heard::Holes(runs.to_vec()),
        Frame::Differs { runs } => Heard::Differs(runs.to_vec()),
        Frame::Done { stripe, digest } => Heard::Done { stripe, digest },
    })
}
