//! Two small files made by choices.
//!
//! A block's content is one small number. Numbers 2 n and 2 n + 1 have the same signature and different digests, and 4 n to
//! 4 n + 3 the same head, so that blocks that agree by chance are common here.

use crate::digest::{Digest, Signature, fold_stripe};
use crate::extent::{BlockSize, Layout, Run, StripeIndex};
use crate::limits::{DIGEST_LEN, SIGNATURE_LEN, STRIPE_BYTES_MIN};
use crate::method::Method;
use crate::session::{Finished, Terms};
use crate::wire::fuzz::Dice;

/// Content of a block that the target does not have.
pub(super) const NOTHING: u8 = u8::MAX;

/// 0 to 8 MiB in steps of 128 bytes.
fn length(dice: &mut Dice<'_>) -> u64 {
    128 * u64::from(dice.wide())
}

/// The files of both ends, block by block.
pub(super) struct World {
    pub(super) terms: Terms,
    pub(super) sparse: bool,
    pub(super) source: Vec<u8>,
    pub(super) target: Vec<u8>,
}

impl World {
    pub(super) fn new(dice: &mut Dice<'_>) -> Self {
        let (dry_run, sparse) = (dice.coin(), dice.coin());
        // Large blocks show the same in a tenth of the time; only small ones fill a frame.
        let block = dice.among(&[20, 18, 18, 18, 16, 16, 16, 14, 12]);
        let block = BlockSize::checked(1 << block).expect("allowed");
        let layout = Layout::checked(length(dice).max(1), block, STRIPE_BYTES_MIN << dice.below(2)).expect("allowed");
        let terms = Terms { layout, method: Method::default(), basis_bytes: length(dice), dry_run };
        let contents = [dice.roll(), dice.roll(), dice.roll(), dice.roll(), dice.roll()].map(|b| b.unwrap_or(0));
        let content = |seed: u8, block: u64| {
            let pattern = contents[usize::try_from(block * u64::from(seed) % 5).expect("below 5")];
            (pattern >> (block % 3)) & 7
        };
        let whole = Run { first: 0, count: u32::try_from(layout.blocks()).expect("small") };
        let covered = u64::from(layout.covered(whole, terms.basis_bytes));
        let (source_seed, target_seed) = (dice.roll().unwrap_or(1), dice.roll().unwrap_or(1));
        let of_target = |block| if block < covered { content(target_seed, block) } else { NOTHING };
        let source = (0..layout.blocks()).map(|block| content(source_seed, block)).collect();
        Self { terms, sparse, source, target: (0..layout.blocks()).map(of_target).collect() }
    }

    pub(super) fn hole(&self, block: u64) -> bool {
        self.sparse && of(&self.source, Run { first: block, count: 1 }) == [0]
    }

    pub(super) fn bytes(&self, block: u64) -> u64 {
        self.terms.layout.run_bytes(Run { first: block, count: 1 })
    }

    pub(super) fn stripe(&self, index: StripeIndex) -> Run {
        self.terms.layout.stripe(index).expect("only stripes of the file are spoken of")
    }

    /// What machines may speak of: not empty, and inside one stripe.
    #[track_caller]
    pub(super) fn check(&self, run: Run) {
        assert!(run.count > 0);
        let stripe = self.stripe(run.first / u64::from(self.terms.layout.stripe_blocks()));
        assert!(run.end() <= stripe.end());
    }

    pub(super) fn stripe_digest(&self, stripe: StripeIndex, contents: &[u8]) -> Digest {
        fold_stripe(&self.terms.layout, stripe, &digests(of(contents, self.stripe(stripe))))
    }

    /// What an honest stripe has to come out as, found block by block.
    pub(super) fn twin(&self, stripe: StripeIndex, basis: &[u8], again: bool) -> Finished {
        let mut finished = Finished {
            stripe,
            digest: self.stripe_digest(stripe, &self.source),
            matched_bytes: 0,
            changed_bytes: 0,
            hole_bytes: 0,
            changed_blocks: 0,
        };
        if self.terms.dry_run {
            finished.digest = Digest::default();
        }
        let run = self.stripe(stripe);
        for (block, (ours, theirs)) in (run.first..).zip(of(&self.source, run).iter().zip(of(basis, run))) {
            let equal = !again && *theirs != NOTHING && ours / 2 == theirs / 2;
            finished.changed_blocks += u64::from(!equal);
            *match (equal, self.hole(block)) {
                (true, _) => &mut finished.matched_bytes,
                (false, true) => &mut finished.hole_bytes,
                (false, false) => &mut finished.changed_bytes,
            } += self.bytes(block);
        }
        finished
    }
}

pub(super) fn of(contents: &[u8], run: Run) -> &[u8] {
    let first = usize::try_from(run.first).expect("inside");
    &contents[first..first + run.count as usize]
}

pub(super) fn digests(contents: &[u8]) -> Vec<Digest> {
    contents.iter().map(|content| Digest([*content; DIGEST_LEN])).collect()
}

/// Of blocks compared by their heads: numbers 4 n to 4 n + 3 have the same.
pub(super) fn heads(contents: &[u8]) -> Vec<Signature> {
    contents.iter().map(|content| Signature([0x80 + content / 4; SIGNATURE_LEN])).collect()
}

pub(super) fn signatures(contents: &[u8]) -> Vec<Signature> {
    contents.iter().map(|content| Signature([content / 2; SIGNATURE_LEN])).collect()
}
