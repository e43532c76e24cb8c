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
    /// Target to source: I want this stripe; of its first blocks you will get signatures, send the rest unasked.
    Want { stripe: u64, basis_blocks: u32 },
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
            let (stripe, basis_blocks) = (reader.u64()?, reader.u32()?);
            reader.zeros::<4>()?;
            Frame::Want { stripe, basis_blocks }
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
/// If the frame has more entries than [`crate::limits`] allows: that would be our own mistake.
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
    assert!(payload_bytes <= PAYLOAD_BYTES_MAX);
    let body_bytes = before + entry * count + behind;
    let into = into.get_mut(..HEADER_LEN + body_bytes)?;
    let mut writer = Writer::new(into);
    writer.bytes(&[kind, 0]);
    writer.u16(u16::try_from(count).expect("at most entries_max"));
    writer.u32(u32::try_from(body_bytes).expect("at most FRAME_LEN_MAX"));
    writer.u32(payload_bytes);
    writer.u32(0);
    match *frame {
        Frame::Want { stripe, basis_blocks } => {
            writer.u64(stripe);
            writer.u32(basis_blocks);
            writer.u32(0);
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
