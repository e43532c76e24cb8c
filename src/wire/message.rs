//! Messages of the control connection: a length, then the message. The only file that knows bincode; the specification
//! gives the bytes, so that nobody else has to.

use super::codec::DecodeError;
use super::preamble::SessionId;
use crate::completion::DirectPolicy;
use crate::digest::Digest;
use crate::entry::Metadata;
use crate::failure::{Failure, Kind};
use crate::limits::{MESSAGE_LEN_MAX, PATH_BYTES_MAX, TEXT_BYTES_MAX};
use crate::method::Method;
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
}

/// Client to server: these connections have joined, let us start.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Begin {
    /// Their numbers, ascending.
    pub joined: Vec<u32>,
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
    /// The path it is about.
    pub subject: Vec<u8>,
    /// Why, in a sentence.
    pub text: String,
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

impl From<Failure> for FailureMessage {
    fn from(failure: Failure) -> Self {
        let Failure { kind, mut subject, mut text } = failure;
        subject.truncate(PATH_BYTES_MAX);
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        Self { kind, subject, text }
    }
}

impl From<FailureMessage> for Failure {
    fn from(message: FailureMessage) -> Self {
        Self { kind: message.kind, subject: message.subject, text: message.text }
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
    format().deserialize(&body).map(Some).map_err(|_| DecodeError::Message)
}
