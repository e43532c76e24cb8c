//! Bodies that shake the decoders with any bytes: for the fuzzer (`fuzz/`), for the replay of its corpus and for tests.
//!
//! What has to hold always: no panic; what is not all there yet is never taken for something else; what decodes encodes to
//! the very bytes it came from, so that there is one way only to say each thing. `sealed` has what has to hold of frames
//! that are sealed, `dice` is how bytes choose, here and on the floors above.

mod dice;
mod sealed;

pub use dice::Dice;
pub use sealed::fuzz_sealed;

use super::{
    DecodeError, Frame, GREETING_LEN, JOIN_LEN, PREAMBLE_LEN, Scratch, decode, decode_greeting, decode_join,
    decode_preamble, encode, encode_greeting, encode_join, encode_preamble, frame_message, header, parse_message,
};
use crate::limits::{FRAME_LEN_MAX, HEADER_LEN};
use bytes::BytesMut;

/// Any bytes as those of one direction of a data connection, arriving in pieces.
pub fn fuzz_deframe(bytes: &[u8]) {
    let mut scratch = Scratch::default();
    let mut left = bytes;
    loop {
        let read = header(left);
        for few in 0..left.len().min(HEADER_LEN) {
            assert_eq!(header(&left[..few]), Ok(None), "no header is read from fewer bytes than it has");
        }
        let Ok(Some(front)) = read else { return };
        assert_eq!(header(&left[..HEADER_LEN]), read, "what follows a header does not change it");
        assert!(front.frame_bytes() <= FRAME_LEN_MAX);

        let Some((whole, behind)) = left.split_at_checked(front.frame_bytes()) else { return };
        for few in [0, HEADER_LEN - 1, HEADER_LEN, whole.len() - 1] {
            assert!(decode(front, &whole[..few], &mut scratch).is_err(), "no frame is read from a part of one");
        }
        let Ok(frame) = decode(front, whole, &mut scratch) else { return };
        let payload_bytes = if let Frame::Data { payload_bytes, .. } = frame { payload_bytes } else { 0 };
        let mut again = [0; FRAME_LEN_MAX];
        let length = encode(&frame, &mut again).expect("the longest frame fits");
        assert_eq!(&again[..length], whole);

        let Some(next) = behind.get(payload_bytes as usize..) else { return };
        left = next;
    }
}

/// Any bytes as those of one direction of a control connection behind its preamble, arriving in pieces.
pub fn fuzz_message(bytes: &[u8]) {
    const PIECE_BYTES: usize = 7; // no multiple of anything that a message is made of
    let mut arrived = BytesMut::new();
    let mut parsed = 0;
    for piece in bytes.chunks(PIECE_BYTES) {
        arrived.extend_from_slice(piece);
        loop {
            let before = arrived.len();
            let Ok(message) = parse_message(&mut arrived) else { return };
            let Some(message) = message else {
                assert_eq!(arrived.len(), before, "a message that is not all there is left alone");
                break;
            };
            let length = before - arrived.len();
            assert_eq!(frame_message(&message), bytes[parsed..parsed + length]);
            parsed += length;
        }
    }
}

/// Any bytes as the first ones of a connection: a preamble, then a join; and a greeting.
pub fn fuzz_preamble(bytes: &[u8]) {
    let whole = decode_preamble(bytes);
    for few in 0..bytes.len().min(PREAMBLE_LEN) {
        let early = decode_preamble(&bytes[..few]);
        assert!(early == Err(DecodeError::TooShort) || early == whole, "what was refused once stays refused");
    }
    if let (Ok(preamble), Some((front, behind))) = (whole, bytes.split_first_chunk::<PREAMBLE_LEN>()) {
        assert_eq!(encode_preamble(preamble), *front);
        if let Some(join_bytes) = behind.first_chunk::<JOIN_LEN>()
            && let Ok(join) = decode_join(join_bytes)
        {
            assert_eq!(encode_join(&join), *join_bytes);
        }
    }
    if let (Ok(challenge), Some(greeting)) = (decode_greeting(bytes), bytes.first_chunk::<GREETING_LEN>()) {
        assert_eq!(encode_greeting(&challenge), *greeting);
    }
}
