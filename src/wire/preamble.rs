//! The first bytes of every connection, both ways: who speaks, which versions, and to which session a data connection
//! belongs. Fixed lengths, so that a socket can be handed on with not a byte too many read.

use super::codec::{DecodeError, Reader, Writer};

/// The version of the protocol that this program speaks.
pub const VERSION: u8 = 1;

/// Neither text nor another protocol's greeting; a transfer in text mode would break it.
const MAGIC: [u8; 8] = *b"\x89pdcp\r\n\x1a";

/// Bytes of a preamble.
pub const PREAMBLE_LEN: usize = 16;
/// Bytes of a join, behind the preamble: session, number, zeros, proof (zeros until there are keys).
pub const JOIN_LEN: usize = 16 + 4 + 4 + 32;
/// Bytes of the server's answer to a join: its preamble and its proof (zeros until there are keys).
pub const JOINED_LEN: usize = PREAMBLE_LEN + 32;

/// Names a session: 128 random bits, told only to its client.
pub type SessionId = [u8; 16];

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// Messages, in both directions.
    Control,
    /// Frames of a session.
    Data,
}

/// The first bytes of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Preamble {
    /// What the connection is for.
    pub purpose: Purpose,
    /// Lowest version spoken.
    pub version_min: u8,
    /// Highest version spoken.
    pub version_max: u8,
}

impl Preamble {
    /// What this program says.
    pub fn ours(purpose: Purpose) -> Self {
        Self { purpose, version_min: VERSION, version_max: VERSION }
    }
}

/// As bytes.
pub fn encode_preamble(preamble: Preamble) -> [u8; PREAMBLE_LEN] {
    let mut bytes = [0; PREAMBLE_LEN];
    let mut writer = Writer::new(&mut bytes);
    writer.bytes(&MAGIC);
    let purpose = match preamble.purpose {
        Purpose::Control => 1,
        Purpose::Data => 2,
    };
    writer.bytes(&[purpose, preamble.version_min, preamble.version_max]);
    bytes
}

/// Reads a preamble, and agrees on [`VERSION`]. `bytes` may be fewer than [`PREAMBLE_LEN`]: what is no pdcp is told from
/// the first wrong byte on, however short it is.
pub fn decode_preamble(bytes: &[u8]) -> Result<Preamble, DecodeError> {
    if bytes.iter().zip(MAGIC).any(|(byte, magic)| *byte != magic) {
        return Err(DecodeError::NotPdcp);
    }
    let mut reader = Reader(bytes);
    reader.bytes::<8>()?;
    let purpose = match reader.u8()? {
        1 => Purpose::Control,
        2 => Purpose::Data,
        unknown => return Err(DecodeError::UnknownKind(unknown)),
    };
    let (version_min, version_max) = (reader.u8()?, reader.u8()?);
    if !(version_min..=version_max).contains(&VERSION) {
        return Err(DecodeError::NoCommonVersion(version_min, version_max));
    }
    reader.zeros::<5>()?;
    Ok(Preamble { purpose, version_min, version_max })
}

/// Which session a data connection belongs to, and as which of its connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Join {
    /// As told in Welcome.
    pub session: SessionId,
    /// Below the number of connections told in Welcome; used once.
    pub number: u32,
}

/// As bytes, to be sent behind the preamble.
pub fn encode_join(join: Join) -> [u8; JOIN_LEN] {
    let mut bytes = [0; JOIN_LEN];
    let mut writer = Writer::new(&mut bytes);
    writer.bytes(&join.session);
    writer.u32(join.number);
    bytes
}

/// Reads a join.
pub fn decode_join(bytes: &[u8; JOIN_LEN]) -> Result<Join, DecodeError> {
    let mut reader = Reader(bytes);
    let join = Join { session: reader.bytes()?, number: reader.u32()? };
    reader.zeros::<4>()?;
    reader.zeros::<32>()?;
    Ok(join)
}

/// The server's answer to a join.
pub fn encode_joined() -> [u8; JOINED_LEN] {
    let mut bytes = [0; JOINED_LEN];
    bytes[..PREAMBLE_LEN].copy_from_slice(&encode_preamble(Preamble::ours(Purpose::Data)));
    bytes
}
