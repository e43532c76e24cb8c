//! Where in a frame its seals are: which bytes are hidden, which only protected, and where the tags lie.
//!
//! A data frame's pieces are sealed one by one, each with its entry of the table; of every other frame the body is one
//! piece. The header stays readable, and is protected by every tag. A frame that was opened has zeros where its tags were,
//! as one that was never sealed: decoding does not know the difference.

use crate::limits::{HEADER_LEN, PIECE_LEN, TAG_LEN};
use crate::seal::{Forged, Seals};

/// Bytes of a table's entry that are protected: the run. The tag follows.
const RUN_IN_PIECE_LEN: usize = PIECE_LEN - TAG_LEN;
/// What is protected along with a piece: header and entry.
const ABOUT_LEN: usize = HEADER_LEN + RUN_IN_PIECE_LEN;

/// Seals an encoded frame that has no payload.
pub fn seal_frame(seals: &mut Seals, frame: &mut [u8]) {
    let (header, body, tag) = parts(frame).expect("encoded before");
    let number = seals.next_frame(body.len() as u64);
    *tag = seals.seal(number, 0, header, body);
}

/// Opens what [`seal_frame`] has sealed.
pub fn open_frame(seals: &mut Seals, frame: &mut [u8]) -> Result<(), Forged> {
    let (header, body, tag) = parts(frame).ok_or(Forged)?;
    let number = seals.next_frame(body.len() as u64);
    seals.open(number, 0, header, tag, body)?;
    *tag = [0; TAG_LEN];
    Ok(())
}

/// Header, hidden body and tag.
fn parts(frame: &mut [u8]) -> Option<(&[u8], &mut [u8], &mut [u8; TAG_LEN])> {
    let (header, rest) = frame.split_at_mut_checked(HEADER_LEN)?;
    let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>()?;
    Some((header, body, tag))
}

/// Seals the pieces of an encoded data frame into its payload, and puts their tags into its table.
pub fn seal_data<'a>(seals: &mut Seals, frame: &mut [u8], pieces: impl Iterator<Item = &'a [u8]>, payload: &mut [u8]) {
    let (header, table) = frame.split_at_mut(HEADER_LEN);
    let number = seals.next_frame(payload.len() as u64);
    let mut rest = payload;
    for ((entry, piece), index) in table.chunks_exact_mut(PIECE_LEN).zip(pieces).zip(0..) {
        let place;
        (place, rest) = rest.split_at_mut(piece.len());
        let (run, tag) = entry.split_at_mut(RUN_IN_PIECE_LEN);
        tag.copy_from_slice(&seals.seal_into(number, index, &about(header, run), piece, place));
    }
    assert!(rest.is_empty(), "a payload is its pieces");
}

/// Opens what [`seal_data`] has sealed: all pieces, whose lengths are given, or none.
pub fn open_data(
    seals: &mut Seals,
    frame: &[u8],
    piece_bytes: impl Iterator<Item = u64>,
    payload: &mut [u8],
) -> Result<(), Forged> {
    let (header, table) = frame.split_at_checked(HEADER_LEN).ok_or(Forged)?;
    let number = seals.next_frame(payload.len() as u64);
    let mut rest = payload;
    for ((entry, bytes), index) in table.chunks_exact(PIECE_LEN).zip(piece_bytes).zip(0..) {
        let piece;
        let bytes = usize::try_from(bytes).map_err(|_| Forged)?;
        (piece, rest) = rest.split_at_mut_checked(bytes).ok_or(Forged)?;
        let (run, tag) = entry.split_last_chunk::<TAG_LEN>().ok_or(Forged)?;
        seals.open(number, index, &about(header, run), tag, piece)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(Forged) }
}

fn about(header: &[u8], run: &[u8]) -> [u8; ABOUT_LEN] {
    let mut about = [0; ABOUT_LEN];
    about[..HEADER_LEN].copy_from_slice(header);
    about[HEADER_LEN..].copy_from_slice(run);
    about
}

/// Takes the tags out of a data frame's table.
pub fn clear_tags(frame: &mut [u8]) {
    let table = frame.get_mut(HEADER_LEN..).unwrap_or_default();
    table.chunks_exact_mut(PIECE_LEN).for_each(|entry| entry[RUN_IN_PIECE_LEN..].fill(0));
}
