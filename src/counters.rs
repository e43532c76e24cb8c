//! Everything that is counted while a session runs, in one table; the unit is the last word of the name.
//!
//! Workers add, control reads. Added to once a frame, a stripe or a turn, never once a block.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted on one side of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counter {
    /// At the target: bytes of finished stripes that were already there.
    MatchedBytes,
    /// At the target: bytes of finished stripes that came as payload (with `-n`: would have come).
    ChangedBytes,
    /// At the target: bytes of finished stripes that differed and were made as holes (with `-n`: would be).
    HoleBytes,
    /// At the target: blocks of finished stripes that differed, holes included.
    ChangedBlocks,
    /// Given to this side's data sockets.
    WireSentBytes,
    /// Taken from this side's data sockets.
    WireReceivedBytes,
    /// Read from files, on this side.
    ReadBytes,
    /// Written to the target.
    WrittenBytes,
    /// Stripes that had to be asked for a second time.
    AgainStripes,
    /// Of this side's workers: at work, but for writing. This and the next four are what `bottleneck` judges by.
    HashingNs,
    /// Waiting for reads of the source.
    SourceDiskNs,
    /// Waiting for reads and writes of the target, or writing.
    TargetDiskNs,
    /// Waiting for the other side, or for the network to take what there is to send.
    PeerNs,
    /// In none of these four: while there was something to do, or it was over what was waited for, others had the cores.
    WithoutCoreNs,
    /// Anything that moved: what "no progress" is judged by. Not a number of anything.
    Progress,
}

/// Number of counters.
const COUNTERS: usize = Counter::Progress as usize + 1;

/// The counts of one side of a session.
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; COUNTERS]);

impl Counters {
    /// Counts `amount` more.
    pub fn add(&self, counter: Counter, amount: u64) {
        // Relaxed: the counts lead no other memory access, and are read for people.
        self.0[counter as usize].fetch_add(amount, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn read(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }
}
