//! The target's end of one data connection: asks for stripes, signs the basis, takes what differs, proves the result.
//!
//! Three stripes at most are open, in the order of their Wants: while the last is read and signed, the others await data,
//! digest and writes. A stripe is finished when every byte of it is hashed and written and its digest is the source's. If
//! the digests differ it is asked for once more, whole: 64 bits may agree by chance, and memory may rot. It is never the
//! peer's lie; but a block outside its stripe, named twice, left out or sent before it was signed is.
//!
//! Where many blocks differ, reading and hashing the basis is for nothing. There a stripe is compared by the heads of its
//! blocks, and only what is equal by them is read, while the rest is on its way: no byte moves that is equal, and nobody
//! waits. When the digests differ after that, a block differs behind its head, and the stripe is asked for once more by
//! signatures; that heads have misled once is enough to look at none any more.

use super::{Extents, Finished, ProtocolError, Room, Table, Terms, at, batch_blocks};
use crate::digest::{Digest, Signature, fold_stripe};
use crate::extent::{Layout, Run, StripeIndex};
use crate::limits::{HEADS_ONE_IN, SIGNATURES_MAX, STRIPES_OPEN_MAX};
use crate::wire::Frame;
use std::collections::VecDeque;

/// What a target is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// The cursor's answer to [`Action::TakeStripe`]; `None` until further notice.
    Stripe(Option<StripeIndex>),
    /// The cursor may have stripes again.
    Again,
    /// Signatures of the heads of a stripe's blocks, or `None` if some are not in memory; the answer to [`Action::ReadHeads`].
    Heads { run: Run, signatures: Option<&'a [Signature]> },
    /// An extent of the basis was read and hashed.
    Hashed { run: Run, digests: &'a [Digest], signatures: &'a [Signature] },
    /// A frame came. Of data or holes, but in a dry run, [`Event::Arrived`] and [`Event::Written`] of each run will follow.
    Frame(Frame<'a>),
    /// Blocks that came, or that were made holes, were hashed.
    Arrived { run: Run, digests: &'a [Digest] },
    /// Blocks that came, or that were made holes, are written in full.
    Written(Run),
}

/// What a target asks for.
#[derive(Debug, PartialEq)]
pub enum Action<'a> {
    /// The next stripe of the session's cursor.
    TakeStripe,
    /// Read the heads of these blocks of the basis.
    ReadHeads(Run),
    /// Read and hash an extent of the basis.
    Read(Run),
    /// Send a frame.
    Send(Frame<'a>),
    /// A stripe is equal, written and proven.
    Finish(Finished),
    /// A stripe is not what the source says; it will be asked for once more.
    Again(StripeIndex),
    /// A stripe is not what the source says, for the second time.
    Unequal(StripeIndex),
}

/// What the blocks of an open stripe are compared by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum By {
    /// All of their bytes: the basis is read before the source can say anything.
    Signatures,
    /// Their heads, which are still to be read.
    UnreadHeads,
    /// Their heads: the basis is read where the source has left it out.
    Heads,
}

#[derive(Debug)]
struct Open {
    stripe: StripeIndex,
    run: Run,
    /// Blocks that are compared; the rest is sent without asking.
    basis_blocks: u32,
    by: By,
    again: bool,
    wanted: bool,
    /// `signed <= hashed <= read <= basis_blocks`: how far the basis got.
    read: u32,
    hashed: u32,
    signed: u32,
    /// The source has spoken of all blocks before this one, equal ones by leaving them out.
    named: u32,
    /// Of them, blocks that differ.
    changed: u32,
    /// Blocks named but not hashed yet, and not written yet.
    unhashed: u32,
    unwritten: u32,
    told: Option<Digest>,
    slate: Slate,
}

/// What is known of each block of an open stripe. Taken when a session starts and used again for stripe after stripe.
#[derive(Debug)]
struct Slate {
    table: Table,
    named: Box<[Named]>,
}

/// What the source has said of a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Named {
    Nothing,
    Changed,
    Hole,
}

/// The target's end of one data connection.
#[derive(Debug)]
pub struct Target {
    terms: Terms,
    open: VecDeque<Open>,
    spare: Vec<Slate>,
    reading: Extents,
    /// Blocks that are equal by their heads: to be read and hashed.
    left_out: VecDeque<Run>,
    /// The cursor may have more.
    more: bool,
    /// Stripes may be compared by heads.
    heads: bool,
    /// Of the stripe that was finished last many blocks differed.
    many_differed: bool,
}

impl Target {
    /// Takes the memory for all blocks it will speak of. `heads`: reading a few bytes of each block costs less than reading it.
    pub fn new(terms: Terms, heads: bool) -> Self {
        let blocks = terms.layout.stripe_blocks() as usize;
        let slate = || Slate { table: Table::new(&terms.layout), named: vec![Named::Nothing; blocks].into() };
        Self {
            terms,
            open: VecDeque::new(),
            spare: (0..STRIPES_OPEN_MAX).map(|_| slate()).collect(),
            reading: Extents::default(),
            left_out: VecDeque::new(),
            more: true,
            heads: heads && !terms.dry_run,
            many_differed: false,
        }
    }

    /// Stripes that are open; they go back to the cursor when the connection is lost.
    pub fn stripes(&self) -> impl Iterator<Item = StripeIndex> + '_ {
        self.open.iter().map(|open| open.stripe)
    }

    /// Nothing is open and the cursor had nothing more.
    pub fn idle(&self) -> bool {
        self.open.is_empty() && !self.more
    }

    /// The block from which on the basis is to be read next.
    pub fn next_read(&self) -> Option<u64> {
        if let Some(run) = self.left_out.front() {
            return Some(run.first);
        }
        let open = self.open.iter().find(|open| open.read < open.basis_blocks)?;
        Some(open.run.first + u64::from(open.read))
    }

    /// Takes note of what happened.
    ///
    /// # Errors
    /// Only for a frame: the peer's lie.
    pub fn handle(&mut self, event: Event<'_>) -> Result<(), ProtocolError> {
        match event {
            Event::Stripe(Some(stripe)) => {
                let run = self.terms.layout.stripe(stripe).expect("the cursor ends where the file does");
                let mut slate = self.spare.pop().expect("asked for only while one is spare");
                slate.named.fill(Named::Nothing);
                let basis_blocks = self.terms.layout.covered(run, self.terms.basis_bytes);
                let many_differ = self.many_differed || self.open.iter().any(Open::many_differ);
                let heads = self.heads && many_differ && basis_blocks == run.count;
                let by = if heads { By::UnreadHeads } else { By::Signatures };
                self.open.push_back(Open { by, ..Open::new(stripe, run, basis_blocks, slate) });
            }
            Event::Stripe(None) => self.more = false,
            Event::Again => self.more = true,
            Event::Heads { run, signatures: None } => self.of(run).by = By::Signatures,
            Event::Heads { run, signatures: Some(signatures) } => {
                let open = self.of(run);
                open.by = By::Heads;
                open.slate.table.ours[..signatures.len()].copy_from_slice(signatures);
                (open.read, open.hashed) = (open.basis_blocks, open.basis_blocks);
            }
            Event::Hashed { run, digests, signatures } => self.hashed(run, digests, signatures),
            Event::Frame(frame) => return self.frame(frame),
            Event::Arrived { run, digests } => {
                let open = self.of(run);
                let at = at(open.run, run.first) as usize;
                open.slate.table.digests[at..at + digests.len()].copy_from_slice(digests);
                open.unhashed -= run.count;
            }
            Event::Written(run) => self.of(run).unwritten -= run.count,
        }
        Ok(())
    }

    /// What to do next; `None` until something happens or there is more room.
    pub fn poll(&mut self, room: Room) -> Option<Action<'_>> {
        while let Some(index) = self.open.iter().position(Open::complete) {
            if let Some(action) = self.conclude(index) {
                return Some(action);
            }
        }
        if let Some(open) = self.open.iter().find(|open| open.by == By::UnreadHeads) {
            return Some(Action::ReadHeads(open.run));
        }
        if self.more && !self.spare.is_empty() && self.open.iter().all(|open| open.read == open.basis_blocks) {
            return Some(Action::TakeStripe);
        }
        if room.send
            && let Some(index) = self.speaker()
        {
            return Some(Action::Send(self.speak(index)));
        }
        if room.read_blocks > 0 {
            let run = self.next_extent(room.read_blocks)?;
            self.reading.push(run, false);
            return Some(Action::Read(run));
        }
        None
    }

    /// The next extent of the basis to be read. What was left out comes first: only that is missing of its stripe.
    fn next_extent(&mut self, read_blocks: u32) -> Option<Run> {
        if let Some(run) = self.left_out.front_mut() {
            let (first, count) = (run.first, run.count.min(read_blocks));
            *run = Run { first: first + u64::from(count), count: run.count - count };
            if run.count == 0 {
                self.left_out.pop_front();
            }
            return Some(Run { first, count });
        }
        let open = self.open.iter_mut().find(|open| open.read < open.basis_blocks)?;
        // Extents end at multiples of their size, so that direct reads are aligned to more than a block.
        let count = (read_blocks - open.read % read_blocks).min(open.basis_blocks - open.read);
        let run = Run { first: open.run.first + u64::from(open.read), count };
        assert!(run.end() <= self.terms.layout.blocks());
        open.read += count;
        Some(run)
    }

    /// The open stripe that holds `run`. For events of our own only: they are about what is open.
    fn of(&mut self, run: Run) -> &mut Open {
        self.open
            .iter_mut()
            .find(|open| open.run.contains(run))
            .expect("a stripe stays open until all that was asked for has come back")
    }

    fn hashed(&mut self, run: Run, digests: &[Digest], signatures: &[Signature]) {
        self.reading.hashed(run);
        let open = self.of(run);
        open.slate.table.keep(at(open.run, run.first), digests, signatures);
        while let Some(extent) = self.reading.0.front().filter(|extent| extent.hashed) {
            let run = extent.run;
            self.reading.0.pop_front();
            let open = self.of(run);
            match open.by {
                By::Signatures => open.hashed += run.count,
                By::UnreadHeads | By::Heads => open.unhashed -= run.count,
            }
        }
    }

    fn frame(&mut self, frame: Frame<'_>) -> Result<(), ProtocolError> {
        let Self { terms, open, left_out, .. } = self;
        match frame {
            Frame::Data { pieces, payload_bytes } if !terms.dry_run => {
                let open = current(open, "data")?;
                let mut bytes = 0;
                for piece in pieces {
                    bytes += open.name(terms, *piece, Named::Changed, left_out)?;
                    open.unhashed += piece.count;
                    open.unwritten += piece.count;
                }
                if bytes == u64::from(payload_bytes) { Ok(()) } else { Err(ProtocolError::PayloadLength) }
            }
            Frame::Differs { runs } if terms.dry_run => {
                let open = current(open, "a run that differs")?;
                runs.iter().try_for_each(|run| open.name(terms, *run, Named::Changed, left_out).map(drop))
            }
            Frame::Holes { runs } => {
                let open = current(open, "a hole")?;
                for run in runs {
                    open.name(terms, *run, Named::Hole, left_out)?;
                    if !terms.dry_run {
                        open.unhashed += run.count;
                        open.unwritten += run.count;
                    }
                }
                Ok(())
            }
            Frame::Done { stripe, digest } => {
                let open = current(open, "a stripe's digest")?;
                let lacks_some = open.run.count > open.named.max(open.basis_blocks);
                if open.stripe != stripe || open.signed < open.basis_blocks {
                    return Err(ProtocolError::NotExpected("a stripe's digest"));
                }
                if lacks_some {
                    return Err(ProtocolError::LeftOut);
                }
                open.pass_over(open.run.count, left_out);
                open.told = Some(digest);
                Ok(())
            }
            _ => Err(ProtocolError::NotExpected("a frame of this kind")),
        }
    }

    /// The first stripe with something to say. Only one can be signed at a time: all of it goes before the next one's.
    fn speaker(&self) -> Option<usize> {
        let batch = batch_blocks(&self.terms.layout);
        let signed = self.open.iter().position(|open| open.signed < open.basis_blocks);
        let signed = signed.filter(|index| {
            let open = &self.open[*index];
            let unsigned = open.hashed - open.signed;
            open.wanted && (unsigned >= batch || (unsigned > 0 && open.hashed == open.basis_blocks))
        });
        let unwanted = self.open.iter().position(|open| !open.wanted);
        [signed, unwanted].into_iter().flatten().min()
    }

    fn speak(&mut self, index: usize) -> Frame<'_> {
        let open = &mut self.open[index];
        if !open.wanted {
            open.wanted = true;
            let heads = open.by == By::Heads;
            return Frame::Want { stripe: open.stripe, basis_blocks: open.basis_blocks, heads };
        }
        let from = open.signed as usize;
        let until = (open.hashed as usize).min(from + SIGNATURES_MAX);
        open.signed = u32::try_from(until).expect("at most hashed");
        let first = open.run.first + from as u64;
        Frame::Signatures { first, values: &open.slate.table.ours[from..until] }
    }

    /// A stripe has everything: finish it, or ask for it once more.
    fn conclude(&mut self, index: usize) -> Option<Action<'static>> {
        let open = self.open.remove(index).expect("just found");
        let layout = &self.terms.layout;
        let told = open.told.expect("complete");
        let digests = &open.slate.table.digests[..open.run.count as usize];
        let equal = self.terms.dry_run || fold_stripe(layout, open.stripe, digests) == told;
        if equal {
            let finished = open.finished(layout, told);
            self.many_differed = open.many_differ();
            self.spare.push(open.slate);
            return Some(Action::Finish(finished));
        }
        if open.again {
            return Some(Action::Unequal(open.stripe));
        }
        // To the end of the order: the Want goes out like any other.
        let Open { stripe, run, basis_blocks, by, mut slate, .. } = open;
        if by == By::Heads {
            // Some block differs, but not in its head. Those that have come are equal now, and still count as changed.
            self.heads = false;
            self.open.push_back(Open::new(stripe, run, basis_blocks, slate));
            return None;
        }
        slate.named.fill(Named::Nothing);
        self.open.push_back(Open { again: true, ..Open::new(stripe, run, 0, slate) });
        Some(Action::Again(stripe))
    }
}

/// The stripe that the source is speaking of: the first it has not ended.
fn current<'a>(open: &'a mut VecDeque<Open>, what: &'static str) -> Result<&'a mut Open, ProtocolError> {
    let open = open.iter_mut().find(|open| open.told.is_none() && open.wanted);
    open.ok_or(ProtocolError::NotExpected(what))
}

impl Open {
    /// Compared by signatures.
    fn new(stripe: StripeIndex, run: Run, basis_blocks: u32, slate: Slate) -> Self {
        Self {
            stripe,
            run,
            basis_blocks,
            by: By::Signatures,
            again: false,
            wanted: false,
            read: 0,
            hashed: 0,
            signed: 0,
            named: 0,
            changed: 0,
            unhashed: 0,
            unwritten: 0,
            told: None,
            slate,
        }
    }

    fn complete(&self) -> bool {
        self.told.is_some() && self.unhashed == 0 && self.unwritten == 0
    }

    /// As far as the source has spoken of it.
    fn many_differ(&self) -> bool {
        HEADS_ONE_IN * u64::from(self.changed) >= u64::from(self.run.count)
    }

    /// What became of its blocks.
    fn finished(&self, layout: &Layout, digest: Digest) -> Finished {
        let mut finished = Finished {
            stripe: self.stripe,
            digest,
            matched_bytes: 0,
            changed_bytes: 0,
            hole_bytes: 0,
            changed_blocks: 0,
        };
        for (first, named) in (self.run.first..self.run.end()).zip(&self.slate.named) {
            finished.changed_blocks += u64::from(*named != Named::Nothing);
            *match named {
                Named::Nothing => &mut finished.matched_bytes,
                Named::Changed => &mut finished.changed_bytes,
                Named::Hole => &mut finished.hole_bytes,
            } += layout.run_bytes(Run { first, count: 1 });
        }
        finished
    }

    /// The source says by its silence that the blocks before `until`, if it has not spoken of them, are equal.
    fn pass_over(&mut self, until: u32, left_out: &mut VecDeque<Run>) {
        if self.by == By::Heads && self.named < until {
            let count = until - self.named;
            left_out.push_back(Run { first: self.run.first + u64::from(self.named), count });
            self.unhashed += count;
        }
    }

    /// The source says that `run` differs. Its bytes, if it may say so.
    fn name(
        &mut self,
        terms: &Terms,
        run: Run,
        named: Named,
        left_out: &mut VecDeque<Run>,
    ) -> Result<u64, ProtocolError> {
        let run = terms.layout.checked_run(run.first, run.count, self.run).ok_or(ProtocolError::OutsideFile)?;
        let from = at(self.run, run.first);
        let until = from + run.count;
        if from < self.named {
            return Err(ProtocolError::OutOfOrder);
        }
        if from > self.named.max(self.basis_blocks) {
            return Err(ProtocolError::LeftOut);
        }
        if until.min(self.basis_blocks) > self.signed {
            return Err(ProtocolError::NotExpected("a block without its signature"));
        }
        self.pass_over(from, left_out);
        self.named = until;
        self.changed += run.count;
        self.slate.named[from as usize..until as usize].fill(named);
        Ok(terms.layout.run_bytes(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::{BlockSize, Layout};
    use ProtocolError::{LeftOut, NotExpected, OutOfOrder, OutsideFile, PayloadLength};

    const ROOM: Room = Room { read_blocks: 64, send: true };
    const BLOCK: u32 = 16 << 10;

    /// Two stripes of 64 blocks, of which the basis has the first 4; the first stripe is wanted and signed.
    fn target(dry_run: bool) -> Target {
        let layout = Layout::checked(2 << 20, BlockSize::default(), 1 << 20).unwrap();
        let terms =
            Terms { layout, method: crate::method::Method::default(), basis_bytes: 4 * u64::from(BLOCK), dry_run };
        let mut target = Target::new(terms, false);
        assert_eq!(target.poll(ROOM), Some(Action::TakeStripe));
        target.handle(Event::Stripe(Some(0))).unwrap();
        assert_eq!(target.poll(ROOM), Some(Action::Send(Frame::Want { stripe: 0, basis_blocks: 4, heads: false })));
        let run = Run { first: 0, count: 4 };
        assert_eq!(target.poll(ROOM), Some(Action::Read(run)));
        target.handle(Event::Stripe(None)).unwrap();
        let (digests, signatures) = ([Digest::default(); 4], [Signature::default(); 4]);
        target.handle(Event::Hashed { run, digests: &digests, signatures: &signatures }).unwrap();
        let signed = Frame::Signatures { first: 0, values: &signatures };
        assert_eq!(target.poll(ROOM), Some(Action::Send(signed)));
        target
    }

    fn run(first: u64, count: u32) -> Run {
        Run { first, count }
    }

    #[test]
    fn what_a_source_may_not_say_is_refused() {
        /// `lie` comes after blocks `0..told`, named in order; it is refused as `want`.
        #[track_caller]
        fn check(told: u32, lie: Frame<'_>, want: Result<(), ProtocolError>) {
            let mut target = target(false);
            if told > 0 {
                target.handle(Event::Frame(Frame::Holes { runs: &[run(0, told)] })).unwrap();
            }
            assert_eq!(target.handle(Event::Frame(lie)), want);
        }
        let holes = |told, runs: &[Run], want| check(told, Frame::Holes { runs }, want);
        let data = |told, pieces: &[Run], payload_bytes, want| check(told, Frame::Data { pieces, payload_bytes }, want);
        let done = |told, stripe, want| check(told, Frame::Done { stripe, digest: Digest::default() }, want);

        holes(0, &[run(0, 1)], Ok(()));
        holes(0, &[run(0, 0)], Err(OutsideFile));
        holes(0, &[run(4, 60)], Ok(()));
        holes(0, &[run(4, 61)], Err(OutsideFile));
        holes(0, &[run(64, 1)], Err(OutsideFile));
        holes(0, &[run(u64::MAX, 1)], Err(OutsideFile));
        holes(0, &[run(1, u32::MAX)], Err(OutsideFile));
        holes(3, &[run(3, 1)], Ok(()));
        holes(3, &[run(2, 1)], Err(OutOfOrder));
        holes(3, &[run(2, 2)], Err(OutOfOrder));
        holes(0, &[run(1, 1), run(2, 1)], Ok(()));
        holes(0, &[run(1, 2), run(2, 1)], Err(OutOfOrder));
        holes(0, &[run(2, 1), run(1, 1)], Err(OutOfOrder));
        holes(0, &[run(5, 1)], Err(LeftOut));
        holes(6, &[run(7, 1)], Err(LeftOut));
        data(0, &[run(0, 1), run(2, 2)], 3 * BLOCK, Ok(()));
        data(0, &[run(0, 1), run(2, 2)], 3 * BLOCK - 1, Err(PayloadLength));
        data(0, &[run(0, 1), run(2, 2)], 3 * BLOCK + 1, Err(PayloadLength));
        done(64, 0, Ok(()));
        done(64, 1, Err(NotExpected("a stripe's digest")));
        done(63, 0, Err(LeftOut));
        check(0, Frame::Differs { runs: &[run(0, 1)] }, Err(NotExpected("a frame of this kind")));
        check(0, Frame::Want { stripe: 0, basis_blocks: 0, heads: false }, Err(NotExpected("a frame of this kind")));
    }

    #[test]
    fn in_a_dry_run_no_data_may_come() {
        let runs = &[run(0, 1)];
        target(true).handle(Event::Frame(Frame::Differs { runs })).unwrap();
        let data = Frame::Data { pieces: runs, payload_bytes: BLOCK };
        assert_eq!(target(true).handle(Event::Frame(data)), Err(NotExpected("a frame of this kind")));
    }

    #[test]
    fn nothing_may_be_said_of_what_is_not_wanted_or_not_signed() {
        let mut target = Target::new(target(false).terms, false);
        let runs = &[run(0, 1)];
        let done = Frame::Done { stripe: 0, digest: Digest::default() };
        assert_eq!(target.handle(Event::Frame(Frame::Holes { runs })), Err(NotExpected("a hole")));
        target.handle(Event::Stripe(Some(0))).unwrap();
        assert_eq!(target.handle(Event::Frame(Frame::Holes { runs })), Err(NotExpected("a hole")));
        target.poll(ROOM); // Want
        let unsigned = Err(NotExpected("a block without its signature"));
        assert_eq!(target.handle(Event::Frame(Frame::Holes { runs })), unsigned);
        assert_eq!(target.handle(Event::Frame(Frame::Holes { runs: &[run(4, 1)] })), unsigned, "as if 0..4 were equal");
        assert_eq!(target.handle(Event::Frame(done)), Err(NotExpected("a stripe's digest")));
    }

    #[test]
    fn a_stripe_that_differs_is_asked_for_once_more_and_then_given_up() {
        let mut target = target(false);
        let done = Frame::Done { stripe: 0, digest: Digest([9; 32]) };
        let all = |target: &mut Target, first: u64, count: u32| {
            let pieces = &[run(first, count)];
            target.handle(Event::Frame(Frame::Data { pieces, payload_bytes: count * BLOCK })).unwrap();
            target.handle(Event::Frame(done)).unwrap();
            let digests = vec![Digest::default(); count as usize];
            target.handle(Event::Arrived { run: pieces[0], digests: &digests }).unwrap();
            assert_eq!(target.poll(ROOM), None, "not before it is written");
            target.handle(Event::Written(pieces[0])).unwrap();
        };
        all(&mut target, 4, 60);
        assert_eq!(target.poll(ROOM), Some(Action::Again(0)));
        assert_eq!(target.poll(ROOM), Some(Action::Send(Frame::Want { stripe: 0, basis_blocks: 0, heads: false })));
        all(&mut target, 0, 64);
        assert_eq!(target.poll(ROOM), Some(Action::Unequal(0)));
    }

    /// A target with stripes of 4 blocks, the first one finished: all of it differed.
    struct ByHeads {
        target: Target,
        /// What the cursor has.
        cursor: VecDeque<StripeIndex>,
    }

    const BLOCK_OF_FEW: u32 = 256 << 10;

    impl ByHeads {
        fn new() -> Self {
            let layout = Layout::checked(8 << 20, BlockSize::checked(BLOCK_OF_FEW).unwrap(), 1 << 20).unwrap();
            let (method, basis_bytes) = (crate::method::Method::default(), 8 << 20);
            let target = Target::new(Terms { layout, method, basis_bytes, dry_run: false }, true);
            let mut it = Self { target, cursor: VecDeque::new() };
            it.has(&[0]);
            it.wants(0, false);
            it.reads(run(0, 4));
            it.signs(0);
            it.comes(run(0, 4));
            it.done(0, false);
            it.finishes(0, 4);
            it
        }

        /// The second stripe is wanted by heads, and signed.
        fn comparing() -> Self {
            let mut it = Self::new();
            it.has(&[1]);
            it.heads(run(4, 4), true);
            it.wants(1, true);
            it.signs(4);
            it
        }

        /// The cursor has these stripes again.
        fn has(&mut self, stripes: &[StripeIndex]) {
            self.cursor.extend(stripes);
            self.target.handle(Event::Again).unwrap();
        }

        /// What it asks for, but for stripes, which it gets.
        fn poll(&mut self) -> Option<Action<'_>> {
            while self.target.more && self.target.poll(Room { read_blocks: 0, send: false }) == Some(Action::TakeStripe)
            {
                self.target.handle(Event::Stripe(self.cursor.pop_front())).unwrap();
            }
            self.target.poll(ROOM)
        }

        #[track_caller]
        fn wants(&mut self, stripe: StripeIndex, heads: bool) {
            assert_eq!(self.poll(), Some(Action::Send(Frame::Want { stripe, basis_blocks: 4, heads })));
        }

        #[track_caller]
        fn signs(&mut self, first: u64) {
            let values = &[Signature::default(); 4];
            assert_eq!(self.poll(), Some(Action::Send(Frame::Signatures { first, values })));
        }

        #[track_caller]
        fn heads(&mut self, run: Run, in_memory: bool) {
            assert_eq!(self.poll(), Some(Action::ReadHeads(run)));
            let heads = [Signature::default(); 4];
            self.target.handle(Event::Heads { run, signatures: in_memory.then_some(&heads[..]) }).unwrap();
        }

        #[track_caller]
        fn reads(&mut self, run: Run) {
            assert_eq!(self.poll(), Some(Action::Read(run)));
            self.hashed(run);
        }

        /// As zeros.
        fn hashed(&mut self, run: Run) {
            let (digests, signatures) = ([Digest::default(); 4], [Signature::default(); 4]);
            let (digests, signatures) = (&digests[..run.count as usize], &signatures[..run.count as usize]);
            self.target.handle(Event::Hashed { run, digests, signatures }).unwrap();
        }

        /// Blocks come, and are hashed as zeros and written.
        fn comes(&mut self, run: Run) {
            let data = Frame::Data { pieces: &[run], payload_bytes: run.count * BLOCK_OF_FEW };
            self.target.handle(Event::Frame(data)).unwrap();
            let digests = vec![Digest::default(); run.count as usize];
            self.target.handle(Event::Arrived { run, digests: &digests }).unwrap();
            self.target.handle(Event::Written(run)).unwrap();
        }

        /// The source's digest comes: that of blocks hashed as zeros, or another one.
        fn done(&mut self, stripe: StripeIndex, differs: bool) {
            let digest = fold_stripe(&self.target.terms.layout, stripe, &[Digest([differs.into(); 32]); 4]);
            self.target.handle(Event::Frame(Frame::Done { stripe, digest })).unwrap();
        }

        #[track_caller]
        fn finishes(&mut self, stripe: StripeIndex, changed_blocks: u64) {
            let Some(Action::Finish(finished)) = self.target.poll(ROOM) else { panic!("not finished") };
            assert_eq!((finished.stripe, finished.changed_blocks), (stripe, changed_blocks));
            assert_eq!(finished.changed_bytes, changed_blocks * u64::from(BLOCK_OF_FEW));
            assert_eq!(finished.matched_bytes + finished.changed_bytes, 1 << 20);
        }
    }

    #[test]
    fn where_much_differs_only_what_is_equal_by_its_head_is_read() {
        let mut it = ByHeads::comparing();
        assert_eq!(it.poll(), None, "nothing of the basis is read before something is left out");
        it.comes(run(5, 1));
        it.reads(run(4, 1));
        it.comes(run(6, 1));
        it.done(1, false);
        it.reads(run(7, 1));
        it.finishes(1, 2);
    }

    #[test]
    fn where_little_differs_stripes_are_compared_by_signatures_until_much_of_one_has_come() {
        let mut it = ByHeads::comparing();
        it.done(1, false);
        it.reads(run(4, 4));
        it.finishes(1, 0);
        it.has(&[2]);
        it.wants(2, false);
        it.reads(run(8, 4));
        it.signs(8);
        it.comes(run(9, 1));
        it.has(&[3]);
        it.heads(run(12, 4), true);
        it.wants(3, true);
    }

    #[test]
    fn heads_that_are_not_in_memory_are_not_waited_for() {
        let mut it = ByHeads::new();
        it.has(&[1]);
        it.heads(run(4, 4), false);
        it.wants(1, false);
        it.reads(run(4, 4));
        it.signs(4);
        it.comes(run(4, 4));
        it.done(1, false);
        it.finishes(1, 4);
        it.has(&[2]);
        it.heads(run(8, 4), true);
    }

    /// What has come stays and counts as changed, once; signatures find the rest, and heads are not trusted again.
    #[test]
    fn a_head_that_misleads_costs_one_comparison_by_signatures() {
        /// These blocks come, the rest is left out; then, by signatures, come those.
        #[track_caller]
        fn check(by_head: Run, left_out: Option<Run>, by_signature: Run, changed_blocks: u64) {
            let mut it = ByHeads::comparing();
            it.comes(by_head);
            it.done(1, true);
            left_out.into_iter().for_each(|run| it.reads(run));
            it.wants(1, false);
            it.reads(run(4, 4));
            it.signs(4);
            it.comes(by_signature);
            it.done(1, false);
            it.finishes(1, changed_blocks);
            it.has(&[2]);
            it.wants(2, false);
        }
        check(run(4, 2), Some(run(6, 2)), run(7, 1), 3);
        check(run(4, 4), None, run(4, 4), 4);
    }

    /// Trigger: a stripe compared by heads, all known at once, behind one whose basis is still being hashed. Damage: its
    /// signatures went first, and the source called that a lie.
    #[test]
    fn heads_wait_for_the_signatures_of_the_stripe_before() {
        let mut it = ByHeads::new();
        it.has(&[1]);
        it.heads(run(4, 4), false);
        it.wants(1, false);
        assert_eq!(it.poll(), Some(Action::Read(run(4, 4))));
        it.has(&[2, 3]);
        it.heads(run(8, 4), true);
        it.heads(run(12, 4), true);
        it.wants(2, true);
        it.wants(3, true);
        assert_eq!(it.poll(), None);
        it.hashed(run(4, 4));
        it.signs(4);
        it.signs(8);
        it.signs(12);
    }
}
