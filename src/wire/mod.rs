//! Bytes and what they mean: frames on data connections, messages on the control connection. `proto-spec.md` is the text
//! to this code; it changes first.
//!
//! No I/O, no state, no memory that a peer chose. Whether something may come *now* is for `session` to say. A new frame:
//! a kind in `frame`, its bounds in `limits`, its bytes in the specification, an example in both.

mod codec;
mod frame;
pub mod fuzz;
mod message;
mod preamble;
mod sealed;

pub use codec::DecodeError;
pub use frame::{Frame, Header, Scratch, decode, encode, header};
pub use message::{
    Beat, Begin, Committed, FailureMessage, Hello, Message, Options, Proof, Welcome, frame_message, parse_message,
};
pub use preamble::{
    Challenge, GREETING_LEN, JOIN_LEN, Join, PREAMBLE_LEN, Purpose, SessionId, decode_greeting, decode_join,
    decode_preamble, encode_greeting, encode_join, encode_preamble,
};
pub use sealed::{clear_tags, open_data, open_frame, seal_data, seal_frame};
