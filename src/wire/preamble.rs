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

const CONTROL: u8 = 1;
const DATA: u8 = 2;

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
        Purpose::Control => CONTROL,
        Purpose::Data => DATA,
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
        CONTROL => Purpose::Control,
        DATA => Purpose::Data,
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

/// Reads the server's answer to a join.
pub fn decode_joined(bytes: &[u8; JOINED_LEN]) -> Result<Preamble, DecodeError> {
    let preamble = decode_preamble(bytes)?;
    if preamble.purpose != Purpose::Data {
        return Err(DecodeError::UnknownKind(CONTROL));
    }
    Reader(&bytes[PREAMBLE_LEN..]).zeros::<32>()?;
    Ok(preamble)
}

#[cfg(test)]
mod tests {
    use super::*;
    use DecodeError::{NoCommonVersion, NotPdcp, NotZero, TooShort, UnknownKind};
    use proptest::prelude::*;

    fn preamble(purpose: u8, version_min: u8, version_max: u8) -> [u8; PREAMBLE_LEN] {
        let mut bytes = [0; PREAMBLE_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..11].copy_from_slice(&[purpose, version_min, version_max]);
        bytes
    }

    #[test]
    fn versions_agree_where_the_ranges_meet() {
        #[track_caller]
        fn check(version_min: u8, version_max: u8, want: bool) {
            let read = decode_preamble(&preamble(1, version_min, version_max)).map(|preamble| preamble.version_max);
            assert_eq!(read, if want { Ok(version_max) } else { Err(NoCommonVersion(version_min, version_max)) });
        }
        check(VERSION, VERSION, true);
        check(0, VERSION, true);
        check(VERSION, u8::MAX, true);
        check(0, VERSION - 1, false);
        check(VERSION + 1, u8::MAX, false);
        check(VERSION + 1, VERSION - 1, false); // upside down
    }

    #[test]
    fn what_is_no_pdcp_is_told_from_the_first_wrong_byte_on() {
        #[track_caller]
        fn check(bytes: &[u8], want: DecodeError) {
            assert_eq!(decode_preamble(bytes), Err(want));
        }
        check(b"", TooShort);
        check(b"G", NotPdcp);
        check(b"GET / HTTP/1.1\r\n\r\n", NotPdcp);
        check(b"\x16\x03\x01", NotPdcp); // TLS
        check(b"\x89pdcp\n\x1a", NotPdcp); // came through something that changes ends of lines
        for few in 0..PREAMBLE_LEN {
            check(&preamble(1, 1, 1)[..few], TooShort);
        }
        check(&preamble(0, 1, 1), UnknownKind(0));
        check(&preamble(3, 1, 1), UnknownKind(3));
        for reserved in 11..PREAMBLE_LEN {
            let mut bytes = preamble(1, 1, 1);
            bytes[reserved] = 1;
            check(&bytes, NotZero);
        }
    }

    #[test]
    fn a_join_has_zeros_where_its_proof_will_be() {
        let join = Join { session: [7; 16], number: 9 };
        assert_eq!(decode_join(&encode_join(join)), Ok(join));
        for reserved in 20..JOIN_LEN {
            let mut bytes = encode_join(join);
            bytes[reserved] = 1;
            assert_eq!(decode_join(&bytes), Err(NotZero));
        }
    }

    #[test]
    fn the_answer_to_a_join_is_a_data_preamble_with_zeros_where_its_proof_will_be() {
        #[track_caller]
        fn check(index: usize, byte: u8, want: DecodeError) {
            let mut bytes = encode_joined();
            bytes[index] = byte;
            assert_eq!(decode_joined(&bytes), Err(want));
        }
        assert_eq!(decode_joined(&encode_joined()), Ok(Preamble::ours(Purpose::Data)));
        check(0, b'G', NotPdcp);
        check(8, CONTROL, UnknownKind(CONTROL));
        check(10, 0, NoCommonVersion(VERSION, 0));
        check(11, 1, NotZero);
        check(PREAMBLE_LEN, 1, NotZero);
        check(JOINED_LEN - 1, 1, NotZero);
    }

    proptest! {
        #[test]
        fn preambles_and_joins_come_back(min in 0..=VERSION, max in VERSION.., session: SessionId, number: u32) {
            for purpose in [Purpose::Control, Purpose::Data] {
                let preamble = Preamble { purpose, version_min: min, version_max: max };
                prop_assert_eq!(decode_preamble(&encode_preamble(preamble)), Ok(preamble));
            }
            let join = Join { session, number };
            prop_assert_eq!(decode_join(&encode_join(join)), Ok(join));
        }

        #[test]
        fn any_bytes_are_refused_or_are_what_encodes_to_them(
            noise in prop::collection::vec(any::<u8>(), 0..80), index in 0..PREAMBLE_LEN + JOIN_LEN, byte: u8,
        ) {
            crate::wire::fuzz_preamble(&noise);
            let join = encode_join(Join { session: [1; 16], number: 2 });
            let mut bytes = [&preamble(2, VERSION, VERSION)[..], &join].concat();
            bytes[index] = byte;
            crate::wire::fuzz_preamble(&bytes);
        }
    }
}
