//! The rules of a session, as machines without I/O: what may happen when, and what follows from it.
//!
//! Events go in through `handle`, actions come out of `poll`. A machine holds block numbers, digests and counts, never bytes
//! of files, buffers, descriptors or clocks; so the simulator and the fuzzer can drive it as well as a worker. `source` and
//! `target` are the two ends of one data connection; `handshake` is how a session starts and `course` how it goes on and
//! ends on the control connection; `readback` is `--verify`, `changes` a map for people; `fuzz` shakes them.
//!
//! A frame for which a machine has no arrow is the peer's lie: a [`ProtocolError`], which ends the session and nothing else.

pub mod changes;
pub mod course;
pub mod fuzz;
pub mod handshake;
pub mod readback;
pub mod source;
pub mod target;

use crate::digest::{Digest, Signature};
use crate::extent::{Layout, Run, StripeIndex};
use crate::limits::SIGNATURE_BATCH_BYTES;
use crate::method::Method;
use crate::wire::DecodeError;
use std::collections::VecDeque;
use std::fmt;

/// Program and version, for people at the other end.
pub const PROGRAM: &str = concat!("pdcp ", env!("CARGO_PKG_VERSION"));

/// What both ends of every connection of a session know.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// How the file is cut up.
    pub layout: Layout,
    /// What blocks are compared by.
    pub method: Method,
    /// Bytes of the basis that can be compared with; 0 with `-W`.
    pub basis_bytes: u64,
    /// Blocks are compared, nothing moves.
    pub dry_run: bool,
}

/// What a machine may ask for now: what its driver has room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// A buffer for an extent of so many blocks; 0 if there is none.
    pub read_blocks: u32,
    /// A frame can be taken.
    pub send: bool,
}

/// Why the peer's frames make no session. Always the peer's fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProtocolError {
    /// No frame at all.
    Decode(DecodeError),
    /// A frame or message that may not come now.
    NotExpected(&'static str),
    /// Blocks outside the stripe they are said to be of, or a stripe outside the file.
    OutsideFile,
    /// Blocks that were already named, or not in ascending order.
    OutOfOrder,
    /// The pieces of a data frame and its payload are not of the same length.
    PayloadLength,
    /// Blocks that the basis does not have were left out.
    LeftOut,
    /// More stripes wanted at a time than allowed.
    TooManyOpen,
    /// A value that is not allowed, such as a block size of 0.
    Value(&'static str),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(error) => error.fmt(f),
            Self::NotExpected(what) => write!(f, "{what} may not come now"),
            Self::OutsideFile => write!(f, "blocks outside the file or the stripe were named"),
            Self::OutOfOrder => write!(f, "blocks were named twice or out of order"),
            Self::PayloadLength => write!(f, "a data frame's pieces and its payload differ in length"),
            Self::LeftOut => write!(f, "blocks that the target does not have were left out"),
            Self::TooManyOpen => write!(f, "too many stripes were asked for at a time"),
            Self::Value(what) => write!(f, "the {what} is not allowed"),
        }
    }
}

impl std::error::Error for ProtocolError {}

impl From<DecodeError> for ProtocolError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// What is known of each block of one stripe. Taken when a session starts and used again for stripe after stripe.
#[derive(Debug)]
struct Table {
    digests: Box<[Digest]>,
    /// Of the blocks on this side.
    ours: Box<[Signature]>,
}

impl Table {
    fn new(layout: &Layout) -> Self {
        let blocks = layout.stripe_blocks() as usize;
        Self { digests: vec![Digest::default(); blocks].into(), ours: vec![Signature::default(); blocks].into() }
    }

    /// Keeps what was found about the blocks `at..`.
    fn keep(&mut self, at: u32, digests: &[Digest], ours: &[Signature]) {
        let at = at as usize;
        self.digests[at..at + digests.len()].copy_from_slice(digests);
        self.ours[at..at + ours.len()].copy_from_slice(ours);
    }
}

/// Extents that were asked for in order and are hashed in any order.
#[derive(Debug, Default)]
struct Extents(VecDeque<Extent>);

#[derive(Clone, Copy, Debug)]
struct Extent {
    run: Run,
    hashed: bool,
    hole: bool,
}

impl Extents {
    fn push(&mut self, run: Run, hole: bool) {
        self.0.push_back(Extent { run, hashed: false, hole });
    }

    /// Marks an extent that was asked for as hashed.
    fn hashed(&mut self, run: Run) {
        let extent = self.0.iter_mut().find(|extent| extent.run == run && !extent.hashed);
        extent.expect("only what was asked for is hashed, and once").hashed = true;
    }
}

/// Position of a run in its stripe.
fn at(stripe: Run, block: u64) -> u32 {
    u32::try_from(block - stripe.first).expect("a stripe is small")
}

/// Signatures that make a batch.
fn batch_blocks(layout: &Layout) -> u32 {
    (SIGNATURE_BATCH_BYTES / layout.block().bytes()).max(1)
}

/// A stripe that a source or a target has finished with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Finished {
    /// Which.
    pub stripe: StripeIndex,
    /// Its digest: what the source read. Zeros in a dry run.
    pub digest: Digest,
    /// Bytes that were equal ...
    pub matched_bytes: u64,
    /// ... that went as payload ...
    pub changed_bytes: u64,
    /// ... that differed and are holes.
    pub hole_bytes: u64,
    /// At the target: blocks that differed, holes included.
    pub changed_blocks: u64,
}
