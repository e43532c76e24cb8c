//! `--verify`: reads back stripes that were written and compares them with what they have to be.

use super::{Extents, Room, Table, at};
use crate::digest::{Digest, fold_stripe};
use crate::extent::{Layout, Run, StripeIndex};

/// What a read-back asks for.
#[derive(Debug, Eq, PartialEq)]
pub enum Action {
    /// The next stripe of the list.
    TakeStripe,
    /// Read and hash an extent.
    Read(Run),
    /// A stripe is what it has to be.
    Equal(StripeIndex),
    /// A stripe is not.
    Unequal(StripeIndex),
}

#[derive(Debug)]
struct Open {
    stripe: StripeIndex,
    run: Run,
    expected: Digest,
    read: u32,
    hashed: u32,
}

/// Reads back one stripe at a time.
#[derive(Debug)]
pub struct ReadBack {
    layout: Layout,
    open: Option<Open>,
    table: Table,
    reading: Extents,
    more: bool,
}

impl ReadBack {
    /// Takes all the memory it will ever use.
    pub fn new(layout: Layout) -> Self {
        Self { layout, open: None, table: Table::new(&layout), reading: Extents::default(), more: true }
    }

    /// The list's answer to [`Action::TakeStripe`].
    pub fn take(&mut self, next: Option<(StripeIndex, Digest)>) {
        let Some((stripe, expected)) = next else {
            self.more = false;
            return;
        };
        let run = self.layout.stripe(stripe).expect("a stripe that was written");
        self.open = Some(Open { stripe, run, expected, read: 0, hashed: 0 });
    }

    /// An extent was read and hashed.
    pub fn hashed(&mut self, run: Run, digests: &[Digest]) {
        let open = self.open.as_mut().expect("a stripe stays open until all of it has come back");
        self.table.keep(at(open.run, run.first), digests, &[]);
        self.reading.hashed(run);
        while self.reading.0.front().is_some_and(|extent| extent.hashed) {
            open.hashed += self.reading.0.pop_front().map_or(0, |extent| extent.run.count);
        }
    }

    /// Whether the next thing it would do with a buffer is to read an extent into it.
    pub fn wants_extent(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.read < open.run.count)
    }

    /// What to do next; `None` until something happens or there is more room.
    pub fn poll(&mut self, room: Room) -> Option<Action> {
        let Some(open) = &mut self.open else {
            return self.more.then_some(Action::TakeStripe);
        };
        if open.hashed == open.run.count {
            let (stripe, expected) = (open.stripe, open.expected);
            let digest = fold_stripe(&self.layout, stripe, &self.table.digests[..open.run.count as usize]);
            self.open = None;
            return Some(if digest == expected { Action::Equal(stripe) } else { Action::Unequal(stripe) });
        }
        if room.read_blocks == 0 || open.read == open.run.count {
            return None;
        }
        let count = (room.read_blocks - open.read % room.read_blocks).min(open.run.count - open.read);
        let run = Run { first: open.run.first + u64::from(open.read), count };
        open.read += count;
        self.reading.push(run, false);
        Some(Action::Read(run))
    }
}
