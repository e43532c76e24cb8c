//! Frames of data connections: a fixed header, a body whose length its kind and count decide, and in a data frame the
//! pieces' bytes behind it.
//!
//! Decoding allocates nothing: entries go into a [`Scratch`] that a connection owns. What it yields is well formed and
//! within bounds of count and length; whether blocks lie inside a stripe is for `session` to say.

use super::codec::{DecodeError, Reader, Writer};
use crate::digest::{Digest, Signature};
use crate::extent::Run;
use crate::limits::{
    DIGEST_LEN, FRAME_LEN_MAX, HEADER_LEN, PAYLOAD_BYTES_MAX, PIECE_LEN, PIECES_MAX, RUN_LEN, RUNS_MAX, SIGNATURE_LEN,
    SIGNATURES_MAX, TAG_LEN,
};

/// One frame, without its payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Frame<'a> {
    /// Target to source: I want this stripe; of its first blocks you will get signatures, of whole blocks or of their heads;
    /// send the rest unasked.
    Want { stripe: u64, basis_blocks: u32, heads: bool },
    /// Target to source: signatures of the basis, from block `first` on.
    Signatures { first: u64, values: &'a [Signature] },
    /// Source to target: blocks that differ, in ascending order; their bytes follow, `payload_bytes` in all.
    Data { pieces: &'a [Run], payload_bytes: u32 },
    /// Source to target: blocks that differ and are holes.
    Holes { runs: &'a [Run] },
    /// Source to target, in a dry run only: blocks that differ and would be sent.
    Differs { runs: &'a [Run] },
    /// Source to target: that was all of this stripe; its digest, zeros in a dry run.
    Done { stripe: u64, digest: Digest },
}

const WANT: u8 = 1;
const SIGNATURES: u8 = 2;
const DATA: u8 = 3;
const HOLES: u8 = 4;
const DIFFERS: u8 = 5;
const DONE: u8 = 6;

/// Flag of a Want: signatures are those of heads.
const WANT_HEADS: u32 = 1;

/// A frame's front, read and found possible.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    kind: u8,
    count: u16,
    body_bytes: u32,
    payload_bytes: u32,
}

impl Header {
    /// Bytes of header and body, without the payload; at most [`FRAME_LEN_MAX`].
    pub fn frame_bytes(&self) -> usize {
        HEADER_LEN + self.body_bytes as usize
    }

    /// Whether a payload follows the frame.
    pub fn has_payload(&self) -> bool {
        self.payload_bytes > 0
    }
}

/// Where decoded entries lie until the next frame is decoded.
#[derive(Debug)]
pub struct Scratch {
    signatures: Vec<Signature>,
    runs: Vec<Run>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { signatures: Vec::with_capacity(SIGNATURES_MAX), runs: Vec::with_capacity(RUNS_MAX.max(PIECES_MAX)) }
    }
}

/// What a kind's body needs: bytes before its entries, bytes of an entry, most entries, bytes behind them.
fn shape(kind: u8) -> Result<(usize, usize, usize, usize), DecodeError> {
    match kind {
        WANT => Ok((16, 0, 0, TAG_LEN)),
        SIGNATURES => Ok((8, SIGNATURE_LEN, SIGNATURES_MAX, TAG_LEN)),
        DATA => Ok((0, PIECE_LEN, PIECES_MAX, 0)), // each piece has its own tag
        HOLES | DIFFERS => Ok((0, RUN_LEN, RUNS_MAX, TAG_LEN)),
        DONE => Ok((8 + DIGEST_LEN, 0, 0, TAG_LEN)),
        unknown => Err(DecodeError::UnknownKind(unknown)),
    }
}

/// Reads the header at the front of `bytes`; `None` if it is not all there yet.
///
/// # Errors
/// Whatever no frame can be: refused here, before anybody waits for its body or sets memory aside.
pub fn header(bytes: &[u8]) -> Result<Option<Header>, DecodeError> {
    if bytes.len() < HEADER_LEN {
        return Ok(None);
    }
    let mut reader = Reader(bytes);
    let kind = reader.u8()?;
    reader.zeros::<1>()?;
    let count = reader.u16()?;
    let body_bytes = reader.u32()?;
    let payload_bytes = reader.u32()?;
    reader.zeros::<4>()?;
    let (before, entry, entries_max, behind) = shape(kind)?;
    let entries = usize::from(count);
    if entries > entries_max || (entries_max > 0 && entries == 0) {
        return Err(DecodeError::Count(count));
    }
    let needed = before + entry * entries + behind;
    match (body_bytes as usize).cmp(&needed) {
        std::cmp::Ordering::Less => return Err(DecodeError::TooShort),
        std::cmp::Ordering::Greater => return Err(DecodeError::TooLong { bytes: body_bytes }),
        std::cmp::Ordering::Equal => {}
    }
    if kind == DATA && payload_bytes == 0 {
        return Err(DecodeError::TooShort);
    }
    if payload_bytes > if kind == DATA { PAYLOAD_BYTES_MAX } else { 0 } {
        return Err(DecodeError::TooLong { bytes: payload_bytes });
    }
    Ok(Some(Header { kind, count, body_bytes, payload_bytes }))
}

/// Reads the frame that `header` announced; `bytes` are its [`Header::frame_bytes`], header included.
pub fn decode<'a>(header: Header, bytes: &[u8], scratch: &'a mut Scratch) -> Result<Frame<'a>, DecodeError> {
    let mut reader = Reader(bytes.get(HEADER_LEN..).ok_or(DecodeError::TooShort)?);
    let frame = match header.kind {
        WANT => {
            let (stripe, basis_blocks, flags) = (reader.u64()?, reader.u32()?, reader.u32()?);
            if flags & !WANT_HEADS != 0 {
                return Err(DecodeError::NotZero);
            }
            Frame::Want { stripe, basis_blocks, heads: flags & WANT_HEADS != 0 }
        }
        SIGNATURES => {
            let first = reader.u64()?;
            scratch.signatures.clear();
            for _ in 0..header.count {
                scratch.signatures.push(Signature(reader.bytes()?));
            }
            Frame::Signatures { first, values: &scratch.signatures }
        }
        DONE => Frame::Done { stripe: reader.u64()?, digest: Digest(reader.bytes()?) },
        kind => {
            scratch.runs.clear();
            for _ in 0..header.count {
                scratch.runs.push(Run { first: reader.u64()?, count: reader.u32()? });
                if kind == DATA {
                    reader.zeros::<TAG_LEN>()?;
                }
            }
            match kind {
                DATA => Frame::Data { pieces: &scratch.runs, payload_bytes: header.payload_bytes },
                HOLES => Frame::Holes { runs: &scratch.runs },
                _ => Frame::Differs { runs: &scratch.runs },
            }
        }
    };
    if header.kind != DATA {
        reader.zeros::<TAG_LEN>()?;
    }
    if !reader.0.is_empty() {
        return Err(DecodeError::TooLong { bytes: header.body_bytes });
    }
    Ok(frame)
}

/// Writes a frame to the front of `into` and says how long it is; a data frame's payload follows it on the wire.
/// `None` if it does not fit.
///
/// # Panics
/// If the frame has more entries than [`crate::limits`] allows, or none: that would be our own mistake.
pub fn encode(frame: &Frame<'_>, into: &mut [u8]) -> Option<usize> {
    let (kind, count, payload_bytes) = match *frame {
        Frame::Want { .. } => (WANT, 0, 0),
        Frame::Signatures { values, .. } => (SIGNATURES, values.len(), 0),
        Frame::Data { pieces, payload_bytes } => (DATA, pieces.len(), payload_bytes),
        Frame::Holes { runs } => (HOLES, runs.len(), 0),
        Frame::Differs { runs } => (DIFFERS, runs.len(), 0),
        Frame::Done { .. } => (DONE, 0, 0),
    };
    let (before, entry, entries_max, behind) = shape(kind).expect("our own kinds are known");
    assert!(count <= entries_max);
    assert!(count > 0 || entries_max == 0);
    assert!(payload_bytes <= PAYLOAD_BYTES_MAX);
    assert_eq!(payload_bytes > 0, kind == DATA);
    let body_bytes = before + entry * count + behind;
    let into = into.get_mut(..HEADER_LEN + body_bytes)?;
    let mut writer = Writer::new(into);
    writer.bytes(&[kind, 0]);
    writer.u16(u16::try_from(count).expect("at most entries_max"));
    writer.u32(u32::try_from(body_bytes).expect("at most FRAME_LEN_MAX"));
    writer.u32(payload_bytes);
    writer.u32(0);
    match *frame {
        Frame::Want { stripe, basis_blocks, heads } => {
            writer.u64(stripe);
            writer.u32(basis_blocks);
            writer.u32(if heads { WANT_HEADS } else { 0 });
        }
        Frame::Signatures { first, values } => {
            writer.u64(first);
            values.iter().for_each(|value| writer.bytes(&value.0));
        }
        Frame::Data { pieces, .. } => {
            for piece in pieces {
                writer.u64(piece.first);
                writer.u32(piece.count);
                writer.bytes(&[0; TAG_LEN]);
            }
        }
        Frame::Holes { runs } | Frame::Differs { runs } => {
            for run in runs {
                writer.u64(run.first);
                writer.u32(run.count);
            }
        }
        Frame::Done { stripe, digest } => {
            writer.u64(stripe);
            writer.bytes(&digest.0);
        }
    }
    if kind != DATA {
        writer.bytes(&[0; TAG_LEN]);
    }
    assert_eq!(writer.used(), HEADER_LEN + body_bytes);
    assert!(writer.used() <= FRAME_LEN_MAX);
    Some(writer.used())
}

#[cfg(test)]
mod tests {
    use super::*;
    use DecodeError::{Count, NotZero, TooLong, TooShort, UnknownKind};
    use proptest::prelude::*;

    /// A header as a peer might write it.
    fn front(kind: u8, count: u16, body_bytes: u32, payload_bytes: u32) -> Vec<u8> {
        let mut bytes = vec![kind, 0];
        bytes.extend(count.to_le_bytes());
        bytes.extend(body_bytes.to_le_bytes());
        bytes.extend(payload_bytes.to_le_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    /// Bytes of a body with so many entries.
    fn body(kind: u8, count: u16) -> u32 {
        let (before, entry, _, behind) = shape(kind).unwrap();
        u32::try_from(before + entry * usize::from(count) + behind).unwrap()
    }

    fn encoded(frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = vec![0; FRAME_LEN_MAX];
        let length = encode(frame, &mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    #[track_caller]
    fn check_decode(bytes: &[u8], want: Result<Frame<'_>, DecodeError>) {
        let header = header(bytes).unwrap().unwrap();
        assert_eq!(decode(header, bytes, &mut Scratch::default()), want);
    }

    #[test]
    fn a_header_is_read_only_when_whole_and_within_limits() {
        #[track_caller]
        fn check(bytes: &[u8], want: Result<Option<usize>, DecodeError>) {
            assert_eq!(header(bytes).map(|header| header.map(|header| header.frame_bytes())), want);
        }
        let want = front(WANT, 0, 32, 0);
        check(&[], Ok(None));
        check(&want[..15], Ok(None));
        check(&want, Ok(Some(48)));
        check(&[255; 15], Ok(None));
        check(&[255; 16], Err(NotZero));
        for unknown in [0, 7, 255] {
            check(&front(unknown, 0, 32, 0), Err(UnknownKind(unknown)));
        }
        for reserved in [1, 12, 13, 14, 15] {
            let mut bytes = want.clone();
            bytes[reserved] = 1;
            check(&bytes, Err(NotZero));
        }
    }

    #[test]
    fn a_kind_has_so_many_entries_and_no_other_number() {
        #[track_caller]
        fn check(kind: u8, count: u16, known: bool) {
            let payload_bytes = u32::from(kind == DATA);
            let read = header(&front(kind, count, body(kind, count), payload_bytes));
            let want = if known { Ok(Some(HEADER_LEN + body(kind, count) as usize)) } else { Err(Count(count)) };
            assert_eq!(read.map(|header| header.map(|header| header.frame_bytes())), want);
        }
        for kind in [WANT, DONE] {
            check(kind, 0, true);
            check(kind, 1, false);
        }
        for (kind, most) in [(SIGNATURES, 512), (DATA, 64), (HOLES, 128), (DIFFERS, 128)] {
            check(kind, 0, false);
            check(kind, 1, true);
            check(kind, most - 1, true);
            check(kind, most, true);
            check(kind, most + 1, false);
            check(kind, u16::MAX, false);
        }
    }

    #[test]
    fn a_body_is_exactly_as_long_as_its_kind_and_count_need() {
        for (kind, count) in [(WANT, 0), (SIGNATURES, 1), (SIGNATURES, 512), (DATA, 64), (HOLES, 3), (DONE, 0)] {
            let payload_bytes = u32::from(kind == DATA);
            let exact = body(kind, count);
            assert!(header(&front(kind, count, exact, payload_bytes)).is_ok());
            assert_eq!(header(&front(kind, count, exact - 1, payload_bytes)), Err(TooShort));
            for bytes in [exact + 1, u32::MAX] {
                assert_eq!(header(&front(kind, count, bytes, payload_bytes)), Err(TooLong { bytes }));
            }
        }
    }

    #[test]
    fn only_data_has_a_payload_and_it_has_one_within_the_limit() {
        #[track_caller]
        fn check(kind: u8, payload_bytes: u32, want: Result<(), DecodeError>) {
            let count = u16::from(kind != WANT && kind != DONE);
            assert_eq!(header(&front(kind, count, body(kind, count), payload_bytes)).map(drop), want);
        }
        check(DATA, 0, Err(TooShort));
        check(DATA, 1, Ok(()));
        check(DATA, PAYLOAD_BYTES_MAX, Ok(()));
        check(DATA, PAYLOAD_BYTES_MAX + 1, Err(TooLong { bytes: PAYLOAD_BYTES_MAX + 1 }));
        check(DATA, u32::MAX, Err(TooLong { bytes: u32::MAX }));
        for kind in [WANT, SIGNATURES, HOLES, DIFFERS, DONE] {
            check(kind, 0, Ok(()));
            check(kind, 1, Err(TooLong { bytes: 1 }));
        }
    }

    #[test]
    fn room_for_tags_and_reserved_bytes_have_to_be_zero() {
        #[track_caller]
        fn check(frame: Frame<'_>, zeros: std::ops::Range<usize>) {
            for index in zeros {
                let mut bytes = encoded(&frame);
                bytes[index] |= 2; // 1 is the flag of a Want
                check_decode(&bytes, Err(NotZero));
            }
        }
        let runs = [Run { first: 1, count: 2 }, Run { first: 3, count: 4 }];
        let values = [Signature([7; 8])];
        check(Frame::Want { stripe: 1, basis_blocks: 2, heads: false }, 28..48);
        check(Frame::Signatures { first: 1, values: &values }, 32..48);
        check(Frame::Data { pieces: &runs, payload_bytes: 5 }, 28..44);
        check(Frame::Data { pieces: &runs, payload_bytes: 5 }, 56..72);
        check(Frame::Holes { runs: &runs }, 40..56);
        check(Frame::Differs { runs: &runs }, 40..56);
        check(Frame::Done { stripe: 1, digest: Digest([9; 32]) }, 56..72);
    }

    #[test]
    fn a_frame_is_read_from_its_own_bytes_neither_fewer_nor_more() {
        let frame = Frame::Done { stripe: 1, digest: Digest([9; 32]) };
        let mut bytes = encoded(&frame);
        check_decode(&bytes, Ok(frame));
        for few in 0..bytes.len() {
            let header = header(&bytes).unwrap().unwrap();
            assert_eq!(decode(header, &bytes[..few], &mut Scratch::default()), Err(TooShort));
        }
        bytes.push(0);
        check_decode(&bytes, Err(TooLong { bytes: 56 }));
    }

    #[test]
    fn a_frame_is_written_whole_or_not_at_all() {
        let frame = Frame::Want { stripe: 1, basis_blocks: 2, heads: false };
        assert_eq!(encode(&frame, &mut [0; 47]), None);
        assert_eq!(encode(&frame, &mut [0; 48]), Some(48));
        assert_eq!(encode(&frame, &mut [0; 49]), Some(48));
        let values = [Signature::default(); SIGNATURES_MAX];
        assert_eq!(encoded(&Frame::Signatures { first: 0, values: &values }).len(), FRAME_LEN_MAX);
    }

    #[test]
    fn what_was_decoded_before_leaves_no_trace() {
        let mut scratch = Scratch::default();
        let (two, one) = ([Run { first: 1, count: 2 }, Run { first: 3, count: 4 }], [Run { first: 5, count: 6 }]);
        for runs in [&two[..], &one] {
            let bytes = encoded(&Frame::Holes { runs });
            let frame = decode(header(&bytes).unwrap().unwrap(), &bytes, &mut scratch);
            assert_eq!(frame, Ok(Frame::Holes { runs }));
        }
    }

    fn runs(most: usize) -> impl Strategy<Value = Vec<Run>> {
        prop::collection::vec(any::<(u64, u32)>().prop_map(|(first, count)| Run { first, count }), 1..=most)
    }

    #[track_caller]
    fn comes_back(frame: Frame<'_>) {
        check_decode(&encoded(&frame), Ok(frame));
    }

    proptest! {
        #[test]
        fn every_frame_comes_back(
            number: u64, blocks: u32, digest: [u8; 32], payload_bytes in 1..=PAYLOAD_BYTES_MAX,
            signatures in prop::collection::vec(any::<[u8; 8]>().prop_map(Signature), 1..=SIGNATURES_MAX),
            pieces in runs(PIECES_MAX), runs in runs(RUNS_MAX),
        ) {
            comes_back(Frame::Want { stripe: number, basis_blocks: blocks, heads: number.is_multiple_of(2) });
            comes_back(Frame::Signatures { first: number, values: &signatures });
            comes_back(Frame::Data { pieces: &pieces, payload_bytes });
            comes_back(Frame::Holes { runs: &runs });
            comes_back(Frame::Differs { runs: &runs });
            comes_back(Frame::Done { stripe: number, digest: Digest(digest) });
        }

        #[test]
        fn any_bytes_are_refused_or_are_what_encodes_to_them(
            kind in 0u8..8, count in 0u16..4, payload_bytes in 0u32..3,
            noise in prop::collection::vec(any::<u8>(), 0..200),
            flip in any::<prop::sample::Index>(), bits: u8,
        ) {
            crate::wire::fuzz::fuzz_deframe(&noise);
            let body = shape(kind).map_or(0, |_| body(kind, count));
            let mut bytes = front(kind, count, body, payload_bytes);
            bytes.extend(std::iter::repeat_n(0, body as usize));
            bytes.extend(&noise);
            crate::wire::fuzz::fuzz_deframe(&bytes);
            let flipped = flip.index(bytes.len());
            bytes[flipped] ^= bits;
            crate::wire::fuzz::fuzz_deframe(&bytes);
        }
    }
}
