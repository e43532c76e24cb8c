//! Section 9 of `proto-spec.md`, "Rules of order", once more and as plainly as can be: a third party that hears every frame of
//! one connection, in the order in which one of its ends does, and says whether it may come now. Block by block, no thought
//! given to cost. Machines and referee have to agree about every frame.

use crate::extent::{Layout, Run, StripeIndex};
use crate::limits::STRIPES_OPEN_MAX;
use crate::wire::Frame;

/// Who sent a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Speaker {
    Source,
    Target,
}

/// A stripe between its Want and its Done.
#[derive(Debug)]
pub(super) struct OpenStripe {
    pub(super) stripe: StripeIndex,
    pub(super) run: Run,
    /// For each of its blocks whether there will be a signature, and whether it has come.
    basis: Vec<bool>,
    signed: Vec<bool>,
    /// The first block that may still be named.
    pub(super) next: u64,
}

impl OpenStripe {
    fn at(&self, block: u64) -> usize {
        usize::try_from(block - self.run.first).expect("a stripe is small")
    }

    /// The block whose signature has to come next.
    pub(super) fn unsigned(&self) -> Option<u64> {
        (self.run.first..self.run.end()).find(|block| self.basis[self.at(*block)] && !self.signed[self.at(*block)])
    }

    /// Blocks `next..until` may be passed over in silence: all of them can be equal.
    fn may_skip(&self, until: u64) -> bool {
        (self.next..until).all(|block| self.basis[self.at(block)])
    }

    fn may_name(&self, run: Run) -> bool {
        let known = |block| !self.basis[self.at(block)] || self.signed[self.at(block)];
        // Nor is it known of a block that is passed over that it is equal, before its signature has come.
        run.first >= self.next && self.may_skip(run.first) && (self.next..run.end()).all(known)
    }
}

/// Hears all frames of one connection as one of its ends does.
#[derive(Debug)]
pub(super) struct Referee {
    layout: Layout,
    dry_run: bool,
    /// In the order of their Wants.
    pub(super) open: Vec<OpenStripe>,
}

impl Referee {
    pub(super) fn new(layout: Layout, dry_run: bool) -> Self {
        Self { layout, dry_run, open: Vec::new() }
    }

    /// Whether this frame may come now. After one that may not, the session is over.
    pub(super) fn allows(&mut self, speaker: Speaker, frame: &Frame<'_>) -> bool {
        match (speaker, *frame) {
            (Speaker::Target, Frame::Want { stripe, basis_blocks, heads }) => {
                !(heads && self.dry_run) && self.want(stripe, basis_blocks)
            }
            (Speaker::Target, Frame::Signatures { first, values }) => self.signatures(first, values.len()),
            (Speaker::Source, Frame::Data { pieces, payload_bytes }) => {
                !self.dry_run
                    && self.names(pieces)
                    && pieces.iter().map(|piece| self.layout.run_bytes(*piece)).sum::<u64>() == u64::from(payload_bytes)
            }
            (Speaker::Source, Frame::Holes { runs }) => self.names(runs),
            (Speaker::Source, Frame::Differs { runs }) => self.dry_run && self.names(runs),
            (Speaker::Source, Frame::Done { stripe, .. }) => self.done(stripe),
            _ => false,
        }
    }

    fn want(&mut self, stripe: StripeIndex, basis_blocks: u32) -> bool {
        let Some(run) = self.layout.stripe(stripe) else { return false };
        let known = self.open.iter().any(|open| open.stripe == stripe);
        if known || basis_blocks > run.count || self.open.len() == STRIPES_OPEN_MAX {
            return false;
        }
        let basis = (0..run.count).map(|block| block < basis_blocks).collect();
        self.open.push(OpenStripe { stripe, run, basis, signed: vec![false; run.count as usize], next: run.first });
        true
    }

    fn signatures(&mut self, first: u64, count: usize) -> bool {
        let Some(open) = self.open.iter_mut().find(|open| open.unsigned().is_some()) else { return false };
        if open.unsigned() != Some(first) {
            return false;
        }
        for _ in 0..count {
            let Some(block) = open.unsigned() else { return false };
            let at = open.at(block);
            open.signed[at] = true;
        }
        true
    }

    fn names(&mut self, runs: &[Run]) -> bool {
        let Some(open) = self.open.first_mut() else { return false };
        for run in runs {
            let inside = run.count > 0
                && run.first >= open.run.first
                && run.first < open.run.end()
                && u64::from(run.count) <= open.run.end() - run.first;
            if !inside || !open.may_name(*run) {
                return false;
            }
            open.next = run.end();
        }
        true
    }

    fn done(&mut self, stripe: StripeIndex) -> bool {
        let may = self
            .open
            .first()
            .is_some_and(|open| open.stripe == stripe && open.unsigned().is_none() && open.may_skip(open.run.end()));
        if may {
            self.open.remove(0);
        }
        may
    }
}
