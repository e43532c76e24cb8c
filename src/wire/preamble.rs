//! The first bytes of every connection: the server's greeting, what the client wants the connection for, and to which
//! session a data connection belongs. Fixed lengths, so that a socket can be handed on with not a byte too many read.
//!
//! No version is spoken here: the control connection agrees on one inside TLS (ALPN), where nobody can lower it.

use super::codec::{DecodeError, Reader, Writer};
use crate::limits::{CHALLENGE_LEN, PROOF_LEN};

/// Neither text nor another protocol's greeting; a transfer in text mode would break it.
const MAGIC: [u8; 8] = *b"\x89pdcp\r\n\x1a";
/// Bytes of a server's greeting.
pub const GREETING_LEN: usize = 8 + CHALLENGE_LEN;
/// Bytes of a preamble.
pub const PREAMBLE_LEN: usize = 16;
/// Bytes of a join, behind the preamble: session, number, zeros, proof.
pub const JOIN_LEN: usize = 16 + 4 + 4 + PROOF_LEN;

/// Names a session: 128 random bits, told only to its client.
pub type SessionId = [u8; 16];
/// Random bytes of the server's, for one connection.
pub type Challenge = [u8; CHALLENGE_LEN];

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// Messages, in both directions.
    Control,
    /// Frames of a session.
    Data,
}

const CONTROL: u8 = 1;
const DATA: u8 = 2;

/// What a server says first.
pub fn encode_greeting(challenge: &Challenge) -> [u8; GREETING_LEN] {
    let mut bytes = [0; GREETING_LEN];
    let mut writer = Writer::new(&mut bytes);
    writer.bytes(&MAGIC);
    writer.bytes(challenge);
    bytes
}

/// Reads a greeting. `bytes` may be fewer than [`GREETING_LEN`]: what is no pdcp is told from the first wrong byte on,
/// however short it is.
pub fn decode_greeting(bytes: &[u8]) -> Result<Challenge, DecodeError> {
    let mut reader = Reader(bytes);
    magic(&mut reader)?;
    reader.bytes()
}

/// What a client says first.
pub fn encode_preamble(purpose: Purpose) -> [u8; PREAMBLE_LEN] {
    let mut bytes = [0; PREAMBLE_LEN];
    let mut writer = Writer::new(&mut bytes);
    writer.bytes(&MAGIC);
    writer.bytes(&[match purpose {
        Purpose::Control => CONTROL,
        Purpose::Data => DATA,
    }]);
    bytes
}

/// Reads a preamble; `bytes` as for [`decode_greeting`].
pub fn decode_preamble(bytes: &[u8]) -> Result<Purpose, DecodeError> {
    let mut reader = Reader(bytes);
    magic(&mut reader)?;
    let purpose = match reader.u8()? {
        CONTROL => Purpose::Control,
        DATA => Purpose::Data,
        unknown => return Err(DecodeError::UnknownKind(unknown)),
    };
    reader.zeros::<7>()?;
    Ok(purpose)
}

fn magic(reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    if reader.0.iter().zip(MAGIC).any(|(byte, magic)| *byte != magic) {
        return Err(DecodeError::NotPdcp);
    }
    reader.bytes::<8>().map(drop)
}

/// Which session a data connection belongs to, as which of its connections, and that it is no stranger's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Join {
    /// As told in Welcome.
    pub session: SessionId,
    /// Below the number of connections told in Welcome; used once.
    pub number: u32,
    /// The client's, for this connection's challenge.
    pub proof: [u8; PROOF_LEN],
}

/// As bytes, to be sent behind the preamble.
pub fn encode_join(join: &Join) -> [u8; JOIN_LEN] {
    let mut bytes = [0; JOIN_LEN];
    let mut writer = Writer::new(&mut bytes);
    writer.bytes(&join.session);
    writer.u32(join.number);
    writer.bytes(&[0; 4]);
    writer.bytes(&join.proof);
    bytes
}

/// Reads a join.
pub fn decode_join(bytes: &[u8; JOIN_LEN]) -> Result<Join, DecodeError> {
    let mut reader = Reader(bytes);
    let (session, number) = (reader.bytes()?, reader.u32()?);
    reader.zeros::<4>()?;
    Ok(Join { session, number, proof: reader.bytes()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use DecodeError::{NotPdcp, NotZero, TooShort, UnknownKind};
    use proptest::prelude::*;

    #[test]
    fn what_is_no_pdcp_is_told_from_the_first_wrong_byte_on() {
        #[track_caller]
        fn check(bytes: &[u8], want: DecodeError) {
            assert_eq!(decode_preamble(bytes), Err(want));
            assert_eq!(decode_greeting(bytes), Err(want));
        }
        check(b"", TooShort);
        check(b"G", NotPdcp);
        check(b"GET / HTTP/1.1\r\n\r\n", NotPdcp);
        check(b"\x16\x03\x01", NotPdcp); // TLS
        check(b"\x89pdcp\n\x1a", NotPdcp); // came through something that changes ends of lines
        for few in 0..PREAMBLE_LEN {
            check(&encode_preamble(Purpose::Control)[..few], TooShort);
        }
        for few in 0..GREETING_LEN {
            assert_eq!(decode_greeting(&encode_greeting(&[7; CHALLENGE_LEN])[..few]), Err(TooShort));
        }
    }

    #[test]
    fn a_preamble_names_a_purpose_and_nothing_else() {
        #[track_caller]
        fn check(index: usize, byte: u8, want: DecodeError) {
            let mut bytes = encode_preamble(Purpose::Data);
            bytes[index] = byte;
            assert_eq!(decode_preamble(&bytes), Err(want));
        }
        check(8, 0, UnknownKind(0));
        check(8, 3, UnknownKind(3));
        (9..PREAMBLE_LEN).for_each(|reserved| check(reserved, 1, NotZero));
        let mut join = encode_join(&Join { session: [7; 16], number: 9, proof: [8; PROOF_LEN] });
        for reserved in 20..24 {
            join[reserved] = 1;
            assert_eq!(decode_join(&join), Err(NotZero));
            join[reserved] = 0;
        }
    }

    proptest! {
        #[test]
        fn greetings_preambles_and_joins_come_back(
            challenge: Challenge, session: SessionId, number: u32, proof: [u8; PROOF_LEN],
        ) {
            prop_assert_eq!(decode_greeting(&encode_greeting(&challenge)), Ok(challenge));
            for purpose in [Purpose::Control, Purpose::Data] {
                prop_assert_eq!(decode_preamble(&encode_preamble(purpose)), Ok(purpose));
            }
            let join = Join { session, number, proof };
            prop_assert_eq!(decode_join(&encode_join(&join)), Ok(join));
        }

        #[test]
        fn any_bytes_are_refused_or_are_what_encodes_to_them(
            noise in prop::collection::vec(any::<u8>(), 0..80), index in 0..PREAMBLE_LEN + JOIN_LEN, byte: u8,
        ) {
            crate::wire::fuzz::fuzz_preamble(&noise);
            let join = encode_join(&Join { session: [1; 16], number: 2, proof: [3; PROOF_LEN] });
            let mut bytes = [&encode_preamble(Purpose::Data)[..], &join].concat();
            bytes[index] = byte;
            crate::wire::fuzz::fuzz_preamble(&bytes);
        }
    }
}
