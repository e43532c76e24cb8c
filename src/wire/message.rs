//! Messages of the control connection: a length, then the message. The only file that knows bincode; the specification
//! gives the bytes, so that nobody else has to.

use super::codec::DecodeError;
use super::preamble::SessionId;
use crate::bottleneck::Spent;
use crate::completion::DirectPolicy;
use crate::digest::Digest;
use crate::entry::Metadata;
use crate::failure::{Failure, Kind};
use crate::limits::{MESSAGE_LEN_MAX, PATH_BYTES_MAX, TEXT_BYTES_MAX};
use crate::method::Method;
use crate::seal::Cipher;
use bincode::Options as _;
use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

/// How the user wants it done; the same on both sides.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Options {
    /// An allowed block size.
    pub block_bytes: u32,
    /// What blocks are compared by.
    pub method: Method,
    /// The basis is not looked at.
    pub whole_file: bool,
    /// Compare, but write and create nothing.
    pub dry_run: bool,
    /// Read back what was written.
    pub verify: bool,
    /// A target with several links is updated.
    pub inplace: bool,
    /// What is reported done is on disk.
    pub fsync: bool,
    /// Past the page cache or not, on the server; its own setting may say never.
    pub direct: DirectPolicy,
}

/// Client to server, first: what is wanted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hello {
    /// Program and version, for people.
    pub program: String,
    /// Push: what the client's source is. Pull: nothing.
    pub source: Option<Metadata>,
    /// The path on the server, as typed; any bytes but NUL.
    pub path: Vec<u8>,
    /// Push: the source's last name as typed, for a target that is a directory.
    pub source_name: Vec<u8>,
    /// How.
    pub options: Options,
    /// Connections asked for; 0 leaves it to the server.
    pub connections: u32,
    /// Workers of the client, at least 1.
    pub workers: u32,
    /// The client's CPU has instructions for AES.
    pub aes: bool,
    /// The client's user wants nothing sealed.
    pub plaintext: bool,
    /// The session that was lost, and is dialled again by this.
    pub former: Option<SessionId>,
}

/// Server to client: how it will be done.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Welcome {
    /// Program and version, for people.
    pub program: String,
    /// What data connections join.
    pub session: SessionId,
    /// What the source is, whichever side has it.
    pub source: Metadata,
    /// Push: bytes of the basis; nothing where there is none.
    pub basis_bytes: Option<u64>,
    /// Push: the name that was appended to the path, because it is a directory; else empty.
    pub taken_name: Vec<u8>,
    /// Data connections to open, numbered from 0.
    pub connections: u32,
    /// Bytes of a stripe.
    pub stripe_bytes: u64,
    /// Cores of the server's workers, in order; empty where they are not pinned. As many as it has workers otherwise.
    pub cores: Vec<u32>,
    /// Workers of the server.
    pub workers: u32,
    /// What frames are sealed with, unless both ends are neighbours. Nothing: both users want it so.
    pub cipher: Option<Cipher>,
}

/// Client to server: these connections have joined, let us start.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Begin {
    /// Their numbers, ascending.
    pub joined: Vec<u32>,
    /// Frames are sealed, with Welcome's cipher. Not so: there is none, or both ends have proven to be neighbours.
    pub sealed: bool,
}

/// Both ways, twice a second: I live, and this much has moved.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Beat {
    /// Grows with whatever moves on the sender's side.
    pub progress: u64,
    /// At the target: bytes of finished stripes that were equal.
    pub matched_bytes: u64,
    /// At the target: bytes of finished stripes that came as payload.
    pub changed_bytes: u64,
    /// At the target: bytes of finished stripes that differed and were made as holes.
    pub hole_bytes: u64,
    /// Where the sender's workers spent their time.
    pub spent: Spent,
}

/// Source to target, as the answer to `Received`: the file is as it was when we started.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Proof {
    /// The file's digest; zeros in a dry run.
    pub digest: [u8; 32],
}

/// Target to source, last: it is done.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Committed {
    /// Bytes that were equal.
    pub matched_bytes: u64,
    /// Bytes that came as payload.
    pub changed_bytes: u64,
    /// Bytes that differed and were made as holes.
    pub hole_bytes: u64,
    /// Blocks that differed.
    pub changed_blocks: u64,
    /// Anything about the target changed.
    pub changed: bool,
    /// What was written was read back.
    pub read_back: bool,
}

/// Either way, at any time: it has failed, and this is why.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FailureMessage {
    /// What kind.
    pub kind: Kind,
    /// The path it is about, for people; empty if there is none.
    pub subject: Vec<u8>,
    /// Why, in a sentence.
    pub text: String,
    /// Said by the end that has the target: that is as it was, for certain.
    pub untouched: bool,
}

/// Everything that is said on a control connection.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Message {
    /// First, from the client.
    Hello(Hello),
    /// Its answer.
    Welcome(Welcome),
    /// The client's data connections are there.
    Begin(Begin),
    /// A heartbeat.
    Beat(Beat),
    /// Target to source: every stripe is equal and written; give me your proof.
    Received,
    /// Its answer.
    Proof(Proof),
    /// The end, if it is a good one.
    Committed(Committed),
    /// The end, if it is not.
    Failed(FailureMessage),
}

impl FailureMessage {
    /// A failure of this end, for the peer of this name: what is about the peer does not say so, as it has other names there.
    pub fn new(failure: Failure, peer: &[u8]) -> Self {
        let Failure { kind, mut subject, mut text } = failure;
        if subject == peer {
            subject.clear();
        }
        subject.truncate(PATH_BYTES_MAX);
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        Self { kind, subject, text, untouched: false }
    }

    /// The failure of this end that it makes, told by the peer of this name: about its path, or about it. Who was stopped is the
    /// peer: here it is lost.
    pub fn told_by(self, peer: &[u8]) -> Failure {
        let Self { kind, subject, text, untouched: _ } = self;
        let kind = if kind == Kind::Interrupted { Kind::ConnectionLost } else { kind };
        let subject = if subject.is_empty() { peer.to_vec() } else { [peer, b":", subject.as_slice()].concat() };
        Failure { kind, subject, text }
    }

    /// Its parts are as long as they may be, and it is of a kind that one end can tell another.
    fn is_allowed(&self) -> bool {
        self.kind != Kind::Unreachable && self.subject.len() <= PATH_BYTES_MAX && self.text.len() <= TEXT_BYTES_MAX
    }
}

impl From<Digest> for Proof {
    fn from(digest: Digest) -> Self {
        Self { digest: digest.0 }
    }
}

fn format() -> impl bincode::Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(u64::from(MESSAGE_LEN_MAX)).reject_trailing_bytes()
}

/// Bytes of the length in front of a message.
const LENGTH_LEN: usize = 4;

/// A message as it goes over the wire.
///
/// # Panics
/// If it is longer than allowed: paths and texts are cut to their bounds before they get here.
pub fn frame_message(message: &Message) -> Bytes {
    let body = format().serialize(message).expect("our own messages are within bounds");
    let length = u32::try_from(body.len()).expect("bounded by the format");
    Bytes::from([&length.to_le_bytes()[..], &body].concat())
}

/// Takes the first message off `bytes`; `None` if it is not all there yet.
///
/// # Errors
/// A length beyond bounds is refused before anybody waits for it; after an error the connection is of no more use.
pub fn parse_message(bytes: &mut BytesMut) -> Result<Option<Message>, DecodeError> {
    let Some(length) = bytes.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length);
    if length > MESSAGE_LEN_MAX {
        return Err(DecodeError::TooLong { bytes: length });
    }
    let length = length as usize;
    if bytes.len() - LENGTH_LEN < length {
        return Ok(None);
    }
    bytes.advance(LENGTH_LEN);
    let body = bytes.split_to(length);
    match format().deserialize(&body) {
        Ok(Message::Failed(failure)) if !failure.is_allowed() => Err(DecodeError::Message),
        message => message.map(Some).map_err(|_| DecodeError::Message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Timestamp;
    use crate::limits::{CONNECTIONS_MAX, NAME_BYTES_MAX, WORKERS_MAX};
    use proptest::option;
    use proptest::prelude::*;

    #[track_caller]
    fn check(bytes: &[u8], want: Result<Option<Message>, DecodeError>) {
        assert_eq!(parse_message(&mut BytesMut::from(bytes)), want);
    }

    /// A body with its length in front.
    fn framed(body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat()
    }

    fn hello() -> Hello {
        Hello {
            program: "pdcp".into(),
            source: None,
            path: b"/a".into(),
            source_name: Vec::new(),
            options: Options {
                block_bytes: 4096,
                method: Method::Blake3,
                whole_file: false,
                dry_run: false,
                verify: false,
                inplace: false,
                fsync: true,
                direct: DirectPolicy::Auto,
            },
            connections: 1,
            workers: 1,
            aes: true,
            plaintext: false,
            former: None,
        }
    }

    #[test]
    fn a_message_is_read_only_when_whole_and_within_the_limit() {
        check(&[], Ok(None));
        check(&[4, 0, 0], Ok(None));
        check(&[4, 0, 0, 0], Ok(None));
        check(&[4, 0, 0, 0, 4, 0, 0], Ok(None));
        check(&[4, 0, 0, 0, 4, 0, 0, 0], Ok(Some(Message::Received)));
        check(&[4, 0, 0, 0, 4, 0, 0, 0, 99], Ok(Some(Message::Received)));
        check(&(MESSAGE_LEN_MAX - 1).to_le_bytes(), Ok(None));
        check(&MESSAGE_LEN_MAX.to_le_bytes(), Ok(None));
        for bytes in [MESSAGE_LEN_MAX + 1, u32::MAX] {
            check(&bytes.to_le_bytes(), Err(DecodeError::TooLong { bytes }));
        }
    }

    #[test]
    fn what_follows_a_message_is_left_for_the_next_look() {
        let mut bytes = BytesMut::new();
        bytes.extend_from_slice(&frame_message(&Message::Received));
        bytes.extend_from_slice(&frame_message(&Message::Begin(Begin { joined: vec![0, 2], sealed: true })));
        bytes.extend_from_slice(&[8]);
        assert_eq!(parse_message(&mut bytes), Ok(Some(Message::Received)));
        assert_eq!(parse_message(&mut bytes), Ok(Some(Message::Begin(Begin { joined: vec![0, 2], sealed: true }))));
        assert_eq!(parse_message(&mut bytes), Ok(None));
        assert_eq!(bytes[..], [8]);
    }

    #[test]
    fn a_body_that_is_not_exactly_a_message_is_refused() {
        let whole = frame_message(&Message::Hello(hello()))[LENGTH_LEN..].to_vec();
        check(&framed(&whole), Ok(Some(Message::Hello(hello()))));
        for few in 0..whole.len() {
            check(&framed(&whole[..few]), Err(DecodeError::Message));
        }
        check(&framed(&[&whole[..], &[0]].concat()), Err(DecodeError::Message));
        // By place: which message, length of program, its text, a source or none, method, whole_file, fsync, direct,
        // aes, plaintext.
        for (place, value) in [
            (0, 8),
            (3, 1),
            (4, 5),
            (11, 1),
            (12, 0xff),
            (16, 2),
            (39, 14),
            (40, 2),
            (44, 2),
            (45, 3),
            (57, 2),
            (58, 2),
        ] {
            let mut body = whole.clone();
            assert_ne!(body[place], value);
            body[place] = value;
            check(&framed(&body), Err(DecodeError::Message));
        }
    }

    #[test]
    fn a_kind_of_failure_that_nobody_says_is_refused() {
        for (kind, known) in
            [(0u32, true), (7, true), (8, false), (9, true), (12, true), (13, false), (u32::MAX, false)]
        {
            let body = [&7u32.to_le_bytes()[..], &kind.to_le_bytes(), &[0; 17]].concat();
            assert_eq!(parse_message(&mut BytesMut::from(&framed(&body)[..])).is_ok(), known);
        }
    }

    #[test]
    fn a_failure_has_no_more_to_say_than_is_allowed() {
        #[track_caller]
        fn check(subject: usize, text: usize, allowed: bool) {
            let (subject, text) = (vec![b'/'; subject], "a".repeat(text));
            let failed = FailureMessage { kind: Kind::Other, subject, text, untouched: false };
            let bytes = frame_message(&Message::Failed(failed));
            assert_eq!(parse_message(&mut BytesMut::from(&bytes[..])).is_ok(), allowed);
        }
        check(0, 0, true);
        check(PATH_BYTES_MAX, TEXT_BYTES_MAX, true);
        check(PATH_BYTES_MAX + 1, 0, false);
        check(0, TEXT_BYTES_MAX + 1, false);
    }

    #[test]
    fn a_moment_with_a_whole_second_of_nanoseconds_is_refused() {
        let mtime = Timestamp::checked(1, 999_999_999).unwrap();
        let hello = Message::Hello(Hello { source: Some(Metadata { mtime, ..Metadata::default() }), ..hello() });
        let mut bytes = frame_message(&hello).to_vec();
        check(&bytes, Ok(Some(hello)));
        let place = LENGTH_LEN + 37; // behind message, program, the mark of a source, bytes, mode, seconds
        assert_eq!(bytes[place..place + 4], 999_999_999u32.to_le_bytes());
        bytes[place..place + 4].copy_from_slice(&1_000_000_000u32.to_le_bytes());
        check(&bytes, Err(DecodeError::Message));
    }

    #[test]
    fn a_list_longer_than_its_message_is_refused() {
        for entries in [1, 4096, u64::MAX] {
            let body = [&2u32.to_le_bytes()[..], &entries.to_le_bytes()].concat();
            check(&framed(&body), Err(DecodeError::Message));
        }
    }

    #[test]
    fn the_longest_messages_we_ever_send_are_within_the_limit() {
        let mut hello = hello();
        hello.source = Some(Metadata::default());
        hello.path = vec![b'a'; PATH_BYTES_MAX];
        hello.source_name = vec![b'a'; NAME_BYTES_MAX];
        hello.former = Some([0; 16]);
        let welcome = Welcome {
            program: hello.program.clone(),
            session: [0; 16],
            source: Metadata::default(),
            basis_bytes: Some(0),
            taken_name: vec![b'a'; NAME_BYTES_MAX],
            connections: CONNECTIONS_MAX,
            stripe_bytes: 0,
            cores: vec![0; WORKERS_MAX as usize],
            workers: WORKERS_MAX,
            cipher: Some(Cipher::Aes256Gcm),
        };
        let begin = Begin { joined: (0..CONNECTIONS_MAX).collect(), sealed: true };
        let failed = Failure::about(Kind::Other, &[b'a'; 2 * PATH_BYTES_MAX], "\u{fc}".repeat(TEXT_BYTES_MAX));
        let failed = FailureMessage::new(failed, b"peer");
        assert_eq!((failed.subject.len(), failed.text.len()), (PATH_BYTES_MAX, TEXT_BYTES_MAX));
        for message in
            [Message::Hello(hello), Message::Welcome(welcome), Message::Begin(begin), Message::Failed(failed)]
        {
            assert!(frame_message(&message).len() <= MESSAGE_LEN_MAX as usize);
        }
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        #[track_caller]
        fn check(text: &str, want_bytes: usize) {
            let message = FailureMessage::new(Failure::new(Kind::Other, text), b"peer");
            assert_eq!(message.text.len(), want_bytes);
            assert!(text.starts_with(&message.text));
        }
        let ascii = "a".repeat(TEXT_BYTES_MAX - 1);
        check(&ascii, TEXT_BYTES_MAX - 1);
        check(&(ascii.clone() + "b"), TEXT_BYTES_MAX);
        check(&(ascii.clone() + "bc"), TEXT_BYTES_MAX);
        check(&(ascii + "\u{fc}"), TEXT_BYTES_MAX - 1);
    }

    /// Trigger: what is wrong with a caller was said about its address. Damage: its user read
    /// 'nas:9000:10.0.0.7:5: nothing has moved'. Cure: who is meant knows his name.
    #[test]
    fn a_failure_is_told_as_the_peers_and_nobody_was_stopped_here() {
        #[track_caller]
        fn check(kind: Kind, subject: &[u8], want_kind: Kind, want_subject: &str) {
            let told = FailureMessage::new(Failure::about(kind, subject, "text"), b"10.0.0.7:5").told_by(b"nas:9000");
            assert_eq!(told, Failure::about(want_kind, want_subject.as_bytes(), "text"));
        }
        check(Kind::Busy, b"/file", Kind::Busy, "nas:9000:/file");
        check(Kind::Refused, b"", Kind::Refused, "nas:9000");
        check(Kind::NoProgress, b"10.0.0.7:5", Kind::NoProgress, "nas:9000");
        check(Kind::Interrupted, b"", Kind::ConnectionLost, "nas:9000");
    }

    fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..most)
    }

    prop_compose! {
        fn metadata()(
            bytes: u64, mode: u32, seconds: i64, nanos in 0u32..1_000_000_000, device_node: bool,
        ) -> Metadata {
            Metadata { bytes, mode, mtime: Timestamp::checked(seconds, nanos).unwrap(), device_node }
        }
    }

    prop_compose! {
        fn options()(
            block_bytes: u32, method in 0u8..14, flags: [bool; 5], direct in 0usize..3,
        ) -> Options {
            let [whole_file, dry_run, verify, inplace, fsync] = flags;
            let direct = [DirectPolicy::Auto, DirectPolicy::Always, DirectPolicy::Never][direct];
            let method = Method::try_from(method).unwrap();
            Options { block_bytes, method, whole_file, dry_run, verify, inplace, fsync, direct }
        }
    }

    prop_compose! {
        fn any_hello()(
            program in ".{0,20}", source in option::of(metadata()), path in bytes(300), source_name in bytes(30),
            options in options(), connections: u32, workers: u32, flags: [bool; 2], former: Option<SessionId>,
        ) -> Hello {
            let [aes, plaintext] = flags;
            Hello { program, source, path, source_name, options, connections, workers, aes, plaintext, former }
        }
    }

    prop_compose! {
        fn welcome()(
            program in ".{0,20}", session: SessionId, source in metadata(), basis_bytes: Option<u64>,
            taken_name in bytes(30), connections: u32, stripe_bytes: u64,
            cores in prop::collection::vec(any::<u32>(), 0..20), workers: u32,
            cipher in prop::sample::select(vec![None, Some(Cipher::Aes256Gcm), Some(Cipher::ChaCha20Poly1305)]),
        ) -> Welcome {
            Welcome {
                program, session, source, basis_bytes, taken_name, connections, stripe_bytes, cores, workers, cipher,
            }
        }
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            any_hello().prop_map(Message::Hello),
            welcome().prop_map(Message::Welcome),
            (prop::collection::vec(any::<u32>(), 0..20), any::<bool>())
                .prop_map(|(joined, sealed)| Message::Begin(Begin { joined, sealed })),
            any::<([u64; 4], [u64; 5])>().prop_map(|(counts, spent)| {
                let [progress, matched_bytes, changed_bytes, hole_bytes] = counts;
                let [hashing_us, source_disk_us, target_disk_us, peer_us, without_core_us] = spent;
                let spent = Spent { hashing_us, source_disk_us, target_disk_us, peer_us, without_core_us };
                Message::Beat(Beat { progress, matched_bytes, changed_bytes, hole_bytes, spent })
            }),
            Just(Message::Received),
            any::<[u8; 32]>().prop_map(|digest| Message::Proof(Proof { digest })),
            any::<([u64; 4], bool, bool)>().prop_map(|(counts, changed, read_back)| {
                let [matched_bytes, changed_bytes, hole_bytes, changed_blocks] = counts;
                Message::Committed(Committed {
                    matched_bytes,
                    changed_bytes,
                    hole_bytes,
                    changed_blocks,
                    changed,
                    read_back,
                })
            }),
            (bytes(30), ".{0,40}", any::<bool>()).prop_map(|(subject, text, untouched)| {
                Message::Failed(FailureMessage { kind: Kind::Target, subject, text, untouched })
            }),
        ]
    }

    proptest! {
        #[test]
        fn every_message_comes_back(message in message()) {
            let mut bytes = BytesMut::from(frame_message(&message));
            prop_assert_eq!(parse_message(&mut bytes), Ok(Some(message)));
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn any_bytes_are_refused_or_are_what_encodes_to_them(
            message in message(), index in any::<prop::sample::Index>(), byte: u8, noise in bytes(100),
        ) {
            crate::wire::fuzz::fuzz_message(&noise);
            let mut bytes = frame_message(&message).to_vec();
            let index = index.index(bytes.len());
            bytes[index] = byte;
            crate::wire::fuzz::fuzz_message(&bytes);
        }
    }
}
