//! Sealed frames on their way past somebody who may change, drop, repeat, reorder and reflect them, and say anything.
//!
//! What has to hold always: what arrives as it was sealed, and in its turn, opens to what it was; nothing else opens.

use super::Dice;
use crate::digest::{Digest, Signature};
use crate::extent::Run;
use crate::limits::{CHALLENGE_LEN, DIGEST_LEN, FRAME_LEN_MAX, KEY_BYTES_MAX, SIGNATURE_LEN};
use crate::seal::{Cipher, Duplex, Seals, Secret, Side};
use crate::wire::{Frame, Scratch, clear_tags, decode, encode, header, open_data, open_frame, seal_data, seal_frame};

/// Bytes of a block here: only a number.
const BLOCK_BYTES: u64 = 24;
/// Blocks of a piece at most.
const BLOCKS_MAX: u32 = 4;

/// Any bytes as the course of one direction of a sealed connection.
pub fn fuzz_sealed(bytes: &[u8]) {
    let mut dice = Dice(bytes);
    let cipher = dice.among(&[Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305]);
    // A key for each input: else a fuzzer, which sees what is compared, learns sealed frames and says them again.
    let connection = Secret::new(blake3::hash(bytes).into()).connection(&[2; CHALLENGE_LEN], 3);
    let Duplex { mut sending, receiving: mut reflected } = connection.duplex(Side::Client, cipher);
    let mut opening = connection.duplex(Side::Server, cipher).receiving;
    if dice.coin() {
        // The end of a key is near.
        let left = u64::from(dice.wide()) % 1024;
        for seals in [&mut sending, &mut reflected, &mut opening] {
            seals.next_frame(KEY_BYTES_MAX - left);
        }
    }
    let mut before = Vec::new();
    while let Some(harm) = dice.roll() {
        let clear = Clear::new(&mut dice);
        let sealed = clear.seal(&mut sending);
        let arrives = match harm % 16 {
            0 => flipped(&sealed, &mut dice),
            1 => sealed[..usize::from(dice.wide()) % sealed.len()].to_vec(),
            2 => before,                                   // once more, in the place of this one
            3 => Clear::new(&mut dice).seal(&mut sending), // the one after it
            4 => clear.seal(&mut reflected),
            5 => exchanged(&sealed, &clear, &mut dice),
            6 => dice.0.to_vec(),
            7 => [&sealed[..sealed.len() - sealed.len().min(dice.0.len())], dice.0].concat(),
            _ => sealed.clone(),
        };
        let as_sealed = arrives.starts_with(&sealed);
        assert_eq!(open(&mut opening, &arrives), as_sealed.then_some(clear));
        if !as_sealed {
            return;
        }
        before = sealed;
    }
}

/// A frame as its sender means it, and its payload. Zeros where its tags will be.
#[derive(Debug, Eq, PartialEq)]
struct Clear {
    frame: Vec<u8>,
    pieces: Vec<Run>,
    payload: Vec<u8>,
}

impl Clear {
    fn new(dice: &mut Dice<'_>) -> Self {
        let mut pieces = Vec::new();
        let (number, values) = (u64::from(dice.wide()), [Signature([7; SIGNATURE_LEN]); 3]);
        for _ in 0..=dice.below(3) {
            pieces.push(Run { first: number, count: u32::from(dice.roll().unwrap_or(0)) % BLOCKS_MAX + 1 });
        }
        let mut payload = Vec::new();
        let frame = match dice.below(6) {
            0 => Frame::Want { stripe: number, basis_blocks: 9, heads: number.is_multiple_of(2) },
            1 => Frame::Signatures { first: number, values: &values[..pieces.len()] },
            2 => Frame::Done { stripe: number, digest: Digest([8; DIGEST_LEN]) },
            3 => Frame::Holes { runs: &pieces },
            _ => {
                let bytes: u64 = lengths(&pieces).sum();
                payload.extend((1..=u8::MAX).cycle().take(usize::try_from(bytes).expect("small")));
                Frame::Data { pieces: &pieces, payload_bytes: u32::try_from(bytes).expect("small") }
            }
        };
        let mut bytes = vec![0; FRAME_LEN_MAX];
        let length = encode(&frame, &mut bytes).expect("the longest frame fits");
        bytes.truncate(length);
        pieces.truncate(if payload.is_empty() { 0 } else { pieces.len() });
        Self { frame: bytes, pieces, payload }
    }

    fn seal(&self, seals: &mut Seals) -> Vec<u8> {
        let mut frame = self.frame.clone();
        let mut payload = vec![0; self.payload.len()];
        if payload.is_empty() {
            seal_frame(seals, &mut frame);
        } else {
            let mut rest = self.payload.as_slice();
            let pieces = lengths(&self.pieces).map(|bytes| {
                let (piece, behind) = rest.split_at(usize::try_from(bytes).expect("small"));
                rest = behind;
                piece
            });
            seal_data(seals, &mut frame, pieces, &mut payload);
            assert_ne!(payload, self.payload, "it is hidden");
        }
        [frame, payload].concat()
    }
}

fn lengths(pieces: &[Run]) -> impl Iterator<Item = u64> {
    pieces.iter().map_while(|run| (run.count <= BLOCKS_MAX).then_some(u64::from(run.count) * BLOCK_BYTES))
}

/// Opens the first frame of these bytes, as a connection does it: the header is believed before it is opened, and the table
/// before the payload is there, as far as to know how much is to come.
fn open(seals: &mut Seals, arrived: &[u8]) -> Option<Clear> {
    let mut scratch = Scratch::default();
    let header = header(arrived).ok()??;
    let (sealed, behind) = arrived.split_at_checked(header.frame_bytes())?;
    let mut frame = sealed.to_vec();
    if !header.has_payload() {
        open_frame(seals, &mut frame).ok()?;
        decode(header, &frame, &mut scratch).expect("what opens is what was encoded");
        return Some(Clear { frame, pieces: Vec::new(), payload: Vec::new() });
    }
    clear_tags(&mut frame);
    let Frame::Data { pieces, payload_bytes } = decode(header, &frame, &mut scratch).ok()? else { return None };
    let mut payload = behind.get(..payload_bytes as usize)?.to_vec();
    open_data(seals, sealed, lengths(pieces), &mut payload).ok()?;
    Some(Clear { frame, pieces: pieces.to_vec(), payload })
}

fn flipped(sealed: &[u8], dice: &mut Dice<'_>) -> Vec<u8> {
    let mut bytes = sealed.to_vec();
    let at = usize::from(dice.wide()) % bytes.len();
    bytes[at] ^= 1 << dice.below(8);
    bytes
}

/// Two stretches of a frame that have the same length change places: entries of its table, pieces, anything.
fn exchanged(sealed: &[u8], clear: &Clear, dice: &mut Dice<'_>) -> Vec<u8> {
    use crate::limits::{HEADER_LEN, PIECE_LEN};
    let mut bytes = sealed.to_vec();
    let (one, other, length) = if clear.pieces.len() > 1 && dice.coin() {
        (HEADER_LEN, HEADER_LEN + PIECE_LEN, PIECE_LEN)
    } else {
        let length = 1 + dice.below(bytes.len() / 2);
        let one = usize::from(dice.wide()) % (bytes.len() - 2 * length + 1);
        (one, one + length, length)
    };
    let (front, back) = bytes.split_at_mut(other);
    front[one..one + length].swap_with_slice(&mut back[..length]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_what_was_sealed_opens_and_in_its_turn(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_sealed(&bytes);
        }
    }
}
