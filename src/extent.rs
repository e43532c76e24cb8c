//! Blocks, runs of them, stripes: how a file is cut up. Pure arithmetic.
//!
//! Everything is counted from the *source's* length, on both sides. Numbers from a peer come in through the `checked`
//! functions here and nowhere else; what they return lies inside the file.

use crate::limits::{
    BLOCK_BYTES_DEFAULT, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, CONNECTIONS_MAX, FILE_BYTES_MAX, STRIPE_BYTES_MAX,
    STRIPE_BYTES_MIN, STRIPES_PER_CONNECTION_WANTED,
};

/// The unit of comparison: a power of two from 4 KiB to 1 MiB.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockSize(u32);

impl Default for BlockSize {
    fn default() -> Self {
        Self(BLOCK_BYTES_DEFAULT)
    }
}

impl BlockSize {
    /// The size a peer names. `None` unless it is one of those allowed.
    pub fn checked(bytes: u32) -> Option<Self> {
        let allowed = bytes.is_power_of_two() && (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes);
        allowed.then_some(Self(bytes))
    }

    /// The allowed size for what a person asked for: rounded up to a power of two, at least 4 KiB, at most 1 MiB.
    /// `None` for 0.
    pub fn nearest(bytes: u64) -> Option<Self> {
        if bytes == 0 {
            return None;
        }
        let clamped = bytes.clamp(u64::from(BLOCK_BYTES_MIN), u64::from(BLOCK_BYTES_MAX));
        u32::try_from(clamped).ok().map(|bytes| Self(bytes.next_power_of_two()))
    }

    /// In bytes.
    pub fn bytes(self) -> u32 {
        self.0
    }
}

/// A run of blocks: `count` of them from block `first` of the file on. Never empty where it comes from this module.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub struct Run {
    /// Index of the first block in the file.
    pub first: u64,
    /// Number of blocks.
    pub count: u32,
}

impl Run {
    /// Index of the block after the last one.
    pub fn end(self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// Whether it has all blocks of `part`.
    pub fn contains(self, part: Self) -> bool {
        part.first >= self.first && part.end() <= self.end()
    }
}

/// Makes one run of those that follow each other in the list and in the file. Together they must fit a run.
///
/// A payload of neighbouring extents is hashed and written at once: everything sent takes 2 % less (`-W`, 40 runs).
pub fn join_adjacent(runs: &mut Vec<Run>) {
    runs.dedup_by(|next, run| {
        let adjacent = run.end() == next.first;
        run.count += if adjacent { next.count } else { 0 };
        adjacent
    });
}

/// Index of a stripe in the file.
pub type StripeIndex = u64;

/// How one file is cut into blocks and stripes. The same on both sides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    file_bytes: u64,
    block: BlockSize,
    stripe_bytes: u64,
}

impl Layout {
    /// `None` unless the file's length and the stripe's are allowed; both may be a peer's numbers.
    pub fn checked(file_bytes: u64, block: BlockSize, stripe_bytes: u64) -> Option<Self> {
        let allowed = file_bytes <= FILE_BYTES_MAX
            && stripe_bytes.is_power_of_two()
            && (STRIPE_BYTES_MIN..=STRIPE_BYTES_MAX).contains(&stripe_bytes);
        allowed.then_some(Self { file_bytes, block, stripe_bytes })
    }

    /// The source's length.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The block size.
    pub fn block(&self) -> BlockSize {
        self.block
    }

    /// Bytes of a stripe; the last one may be shorter.
    pub fn stripe_bytes(&self) -> u64 {
        self.stripe_bytes
    }

    /// Blocks of a stripe; the last one may have fewer.
    pub fn stripe_blocks(&self) -> u32 {
        // At most 32 MiB / 4 KiB.
        u32::try_from(self.stripe_bytes / u64::from(self.block.0)).expect("bounded by limits")
    }

    /// Blocks of the file, a short last one included.
    pub fn blocks(&self) -> u64 {
        self.file_bytes.div_ceil(u64::from(self.block.0))
    }

    /// Stripes of the file; 0 for an empty one.
    pub fn stripes(&self) -> u64 {
        self.file_bytes.div_ceil(self.stripe_bytes)
    }

    /// The blocks of a stripe. `None` if the file has no such stripe.
    pub fn stripe(&self, index: StripeIndex) -> Option<Run> {
        if index >= self.stripes() {
            return None;
        }
        let first = index * u64::from(self.stripe_blocks());
        let count = (self.blocks() - first).min(u64::from(self.stripe_blocks()));
        Some(Run { first, count: u32::try_from(count).ok()? })
    }

    /// A run as a peer names it. `None` unless it is not empty and inside `within`.
    pub fn checked_run(&self, first: u64, count: u32, within: Run) -> Option<Run> {
        let end = first.checked_add(u64::from(count))?;
        (count > 0 && first >= within.first && end <= within.end()).then_some(Run { first, count })
    }

    /// Bytes of a run as a peer names it. `None` unless it is not empty and inside the file.
    pub fn checked_bytes(&self, run: Run) -> Option<u64> {
        let end = run.first.checked_add(u64::from(run.count))?;
        (run.count > 0 && end <= self.blocks()).then(|| self.run_bytes(run))
    }

    /// Where a run begins, in bytes. The run lies inside the file.
    pub fn offset(&self, run: Run) -> u64 {
        run.first * u64::from(self.block.0)
    }

    /// Bytes of a run, which lies inside the file: only the file's last block may be short.
    pub fn run_bytes(&self, run: Run) -> u64 {
        let end = (run.end() * u64::from(self.block.0)).min(self.file_bytes);
        end - self.offset(run)
    }

    /// How many blocks of `run` a basis of `basis_bytes` can be compared with: those of which it holds every byte that
    /// the source has.
    pub fn covered(&self, run: Run, basis_bytes: u64) -> u32 {
        let whole = if basis_bytes >= self.file_bytes {
            self.blocks() // a short last block counts when the basis reaches the file's end
        } else {
            basis_bytes / u64::from(self.block.0)
        };
        u32::try_from(whole.saturating_sub(run.first).min(u64::from(run.count))).expect("at most run.count")
    }
}

/// How a session shares a file out: computed once by the server, told in Welcome.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deal {
    /// Data connections, at most [`CONNECTIONS_MAX`]; 0 for an empty file.
    pub connections: u32,
    /// Bytes of a stripe.
    pub stripe_bytes: u64,
}

impl Deal {
    /// `asked` connections (already lowered to the server's limit) over sides of so many workers; on one host, as far
    /// as addresses tell.
    pub fn new(file_bytes: u64, asked: u32, source_workers: u32, target_workers: u32, same_address: bool) -> Self {
        let asked = asked.clamp(1, CONNECTIONS_MAX);
        let mut stripe_bytes = Self::stripe_bytes_max(asked, source_workers, target_workers);
        let at_once = Self::at_once(asked, source_workers, target_workers, same_address);
        while stripe_bytes > STRIPE_BYTES_MIN
            && file_bytes.div_ceil(stripe_bytes) < STRIPES_PER_CONNECTION_WANTED * u64::from(at_once)
        {
            stripe_bytes /= 2;
        }
        let stripes = u32::try_from(file_bytes.div_ceil(stripe_bytes)).unwrap_or(u32::MAX);
        Self { connections: asked.min(stripes), stripe_bytes }
    }

    /// How many of the connections work on stripes at a time. Between hosts one carries what another cannot. Within one kernel
    /// more than keep all workers busy would drive each other's bytes out of the cores' caches: there they take turns.
    pub fn at_once(connections: u32, source_workers: u32, target_workers: u32, same_kernel: bool) -> u32 {
        if same_kernel { connections.min(source_workers.max(target_workers)) } else { connections }.max(1)
    }

    /// The longest stripe: each open one costs memory for every block of it, so that many connections have short ones.
    pub fn stripe_bytes_max(connections: u32, source_workers: u32, target_workers: u32) -> u64 {
        let per_worker = connections.clamp(1, CONNECTIONS_MAX).div_ceil(source_workers.min(target_workers).max(1));
        let share = STRIPE_BYTES_MAX / u64::from(per_worker);
        (1 << share.ilog2()).max(STRIPE_BYTES_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;

    fn layout(file_bytes: u64) -> Layout {
        Layout::checked(file_bytes, BlockSize::default(), MIB).expect("allowed")
    }

    #[test]
    fn a_block_size_is_rounded_up_to_a_power_of_two_within_bounds() {
        #[track_caller]
        fn check(asked: u64, want: Option<u32>) {
            assert_eq!(BlockSize::nearest(asked).map(BlockSize::bytes), want);
        }
        check(0, None);
        check(1, Some(4096));
        check(4096, Some(4096));
        check(4097, Some(8192));
        check(MIB - 1, Some(1 << 20));
        check(MIB, Some(1 << 20));
        check(MIB + 1, Some(1 << 20));
        check(u64::MAX, Some(1 << 20));
    }

    #[test]
    fn a_peer_may_name_only_allowed_sizes() {
        #[track_caller]
        fn check(bytes: u32, want: bool) {
            assert_eq!(BlockSize::checked(bytes).is_some(), want);
        }
        check(0, false);
        check(2048, false);
        check(4096, true);
        check(4097, false);
        check(1 << 20, true);
        check(1 << 21, false);
        assert!(Layout::checked(FILE_BYTES_MAX + 1, BlockSize::default(), MIB).is_none());
        assert!(Layout::checked(1, BlockSize::default(), MIB - 1).is_none());
        assert!(Layout::checked(1, BlockSize::default(), MIB / 2).is_none());
        assert!(Layout::checked(1, BlockSize::default(), 64 * MIB).is_none());
    }

    #[test]
    fn runs_are_joined_only_where_one_begins_at_the_end_of_the_one_before() {
        let run = |first, count| Run { first, count };
        let mut runs = vec![run(0, 2), run(2, 1), run(3, 5), run(9, 1), run(8, 1), run(9, 3)];
        join_adjacent(&mut runs);
        assert_eq!(runs, [run(0, 8), run(9, 1), run(8, 4)]);
    }

    #[test]
    fn a_block_counts_only_where_the_basis_holds_all_that_the_source_has_of_it() {
        #[track_caller]
        fn check(file_bytes: u64, basis_bytes: u64, want: u32) {
            let layout = layout(file_bytes);
            let stripe = layout.stripe(0).expect("not empty");
            assert_eq!(layout.covered(stripe, basis_bytes), want);
        }
        check(40 * KIB, 0, 0);
        check(40 * KIB, 16 * KIB - 1, 0);
        check(40 * KIB, 16 * KIB, 1);
        check(40 * KIB, 40 * KIB - 1, 2); // the short last block is not all there
        check(40 * KIB, 40 * KIB, 3);
        check(40 * KIB, 41 * KIB, 3); // beyond the source's length nothing is read
        check(MIB, 2 * MIB, 64);
    }

    #[test]
    fn connections_and_stripes_are_dealt_in_the_written_order() {
        #[track_caller]
        fn check(file_bytes: u64, asked: u32, workers: (u32, u32), hosts: u32, want: (u32, u64)) {
            let deal = Deal::new(file_bytes, asked, workers.0, workers.1, hosts == 1);
            assert_eq!((deal.connections, deal.stripe_bytes / MIB), want);
        }
        check(0, 2, (2, 2), 2, (0, 1));
        check(1, 2, (2, 2), 2, (1, 1));
        check(MIB + 1, 2, (2, 2), 2, (2, 1));
        check(1900 * MIB, 2, (2, 2), 2, (2, 16));
        check(200 * MIB, 2, (2, 2), 2, (2, 2));
        check(1 << 40, 16, (2, 4), 2, (16, 4));
        check(1 << 40, 128, (1, 1), 2, (128, 1));
        check(1 << 40, 1000, (1, 1), 2, (128, 1));
        check(1 << 40, 3, (2, 2), 2, (3, 16));
        // Within one host those beyond the workers shorten no stripes.
        check(1900 * MIB, 2, (2, 2), 1, (2, 16));
        check(1900 * MIB, 16, (2, 2), 2, (16, 2));
        check(1900 * MIB, 16, (2, 2), 1, (16, 4));
        check(1900 * MIB, 16, (2, 8), 1, (16, 4));
        check(200 * MIB, 16, (2, 2), 2, (16, 1));
        check(200 * MIB, 16, (2, 2), 1, (16, 2));
        check(1900 * MIB, 4, (16, 16), 1, (4, 8));
    }

    #[test]
    fn as_many_work_at_a_time_as_keep_the_workers_busy() {
        #[track_caller]
        fn check(connections: u32, workers: (u32, u32), same_kernel: bool, want: u32) {
            assert_eq!(Deal::at_once(connections, workers.0, workers.1, same_kernel), want);
        }
        check(16, (2, 2), false, 16);
        check(16, (2, 2), true, 2);
        check(16, (1, 4), true, 4);
        check(2, (4, 4), true, 2);
        check(0, (2, 2), true, 1);
    }

    proptest! {
        #[test]
        fn stripes_tile_the_file(file_bytes in 0..1u64 << 40, block in 12u32..=20, stripe in 20u32..=25) {
            let block = BlockSize::checked(1 << block).expect("allowed");
            let layout = Layout::checked(file_bytes, block, 1 << stripe).expect("allowed");
            prop_assert!(layout.stripe(layout.stripes()).is_none());
            if layout.stripes() > 0 {
                let last = layout.stripe(layout.stripes() - 1).expect("inside");
                prop_assert_eq!(last.end(), layout.blocks());
                prop_assert_eq!(layout.offset(last) + layout.run_bytes(last), file_bytes);
                let first = layout.stripe(0).expect("inside");
                prop_assert_eq!(first.first, 0);
            }
        }

        #[test]
        fn a_run_that_passes_the_check_lies_inside(first: u64, count: u32, from in 0u64..100, blocks in 1u32..100) {
            let within = Run { first: from, count: blocks };
            if let Some(run) = layout(1 << 40).checked_run(first, count, within) {
                prop_assert!(run.count > 0);
                prop_assert!(within.contains(run));
            }
        }
    }
}
