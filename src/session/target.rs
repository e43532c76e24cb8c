//! The target's end of one data connection: asks for stripes, signs the basis, takes what differs, proves the result.
//!
//! Three stripes at most are open, in the order of their Wants: while the last is read and signed, the others await data,
//! digest and writes. A stripe is finished when every byte of it is hashed and written and its digest is the source's. If
//! the digests differ it is asked for once more, whole: 64 bits may agree by chance, and memory may rot. It is never the
//! peer's lie; but a block outside its stripe, named twice, left out or sent before it was signed is.

use super::{Extents, Finished, ProtocolError, Room, Table, Terms, at, batch_blocks};
use crate::digest::{Digest, Signature, fold_stripe};
use crate::extent::{Run, StripeIndex};
use crate::limits::{SIGNATURES_MAX, STRIPES_OPEN_MAX};
use crate::wire::Frame;
use std::collections::VecDeque;

/// What a target is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// The cursor's answer to [`Action::TakeStripe`]; `None` until further notice.
    Stripe(Option<StripeIndex>),
    /// The cursor may have stripes again.
    Again,
    /// An extent of the basis was read and hashed.
    Hashed { run: Run, digests: &'a [Digest], signatures: &'a [Signature] },
    /// A frame came. Of a data frame every piece's hash and write will follow.
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
    /// Read and hash an extent of the basis.
    Read(Run),
    /// Send a frame.
    Send(Frame<'a>),
    /// Hash these blocks as zeros and make them a hole: both [`Event::Arrived`] and [`Event::Written`] follow.
    Punch(Run),
    /// A stripe is equal, written and proven.
    Finish(Finished),
    /// A stripe is not what the source says; it will be asked for once more.
    Again(StripeIndex),
    /// A stripe is not what the source says, for the second time.
    Unequal(StripeIndex),
}

#[derive(Debug)]
struct Open {
    stripe: StripeIndex,
    run: Run,
    /// Blocks that are compared; the rest is sent without asking.
    basis_blocks: u32,
    again: bool,
    wanted: bool,
    /// `signed <= hashed <= read <= basis_blocks`: how far the basis got.
    read: u32,
    hashed: u32,
    signed: u32,
    /// The source has spoken of all blocks before this one, equal ones by leaving them out.
    named: u32,
    /// Blocks named but not hashed yet, and not written yet.
    unhashed: u32,
    unwritten: u32,
    told: Option<Digest>,
    changed_blocks: u32,
    changed_bytes: u64,
    hole_bytes: u64,
    table: Table,
}

/// The target's end of one data connection.
#[derive(Debug)]
pub struct Target {
    terms: Terms,
    open: VecDeque<Open>,
    spare: Vec<Table>,
    reading: Extents,
    punch: VecDeque<Run>,
    /// The cursor may have more.
    more: bool,
}

impl Target {
    /// Takes all the memory it will ever use.
    pub fn new(terms: Terms) -> Self {
        let spare = (0..STRIPES_OPEN_MAX).map(|_| Table::new(&terms.layout)).collect();
        Self { terms, open: VecDeque::new(), spare, reading: Extents::default(), punch: VecDeque::new(), more: true }
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
                let table = self.spare.pop().expect("asked for only while one is spare");
                let basis_blocks = self.terms.layout.covered(run, self.terms.basis_bytes);
                self.open.push_back(Open::new(stripe, run, basis_blocks, table));
            }
            Event::Stripe(None) => self.more = false,
            Event::Again => self.more = true,
            Event::Hashed { run, digests, signatures } => self.hashed(run, digests, signatures),
            Event::Frame(frame) => return self.frame(frame),
            Event::Arrived { run, digests } => {
                let open = self.of(run);
                let at = at(open.run, run.first) as usize;
                open.table.digests[at..at + digests.len()].copy_from_slice(digests);
                open.unhashed -= run.count;
            }
            Event::Written(run) => self.of(run).unwritten -= run.count,
        }
        Ok(())
    }

    /// What to do next; `None` until something happens or there is more room.
    pub fn poll(&mut self, room: Room) -> Option<Action<'_>> {
        if let Some(index) = self.open.iter().position(Open::complete) {
            return Some(self.conclude(index));
        }
        if let Some(run) = self.punch.pop_front() {
            return Some(Action::Punch(run));
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
            let layout = self.terms.layout;
            let open = self.open.iter_mut().find(|open| open.read < open.basis_blocks)?;
            // Extents end at multiples of their size, so that direct reads are aligned to more than a block.
            let count = (room.read_blocks - open.read % room.read_blocks).min(open.basis_blocks - open.read);
            let run = Run { first: open.run.first + u64::from(open.read), count };
            assert!(run.end() <= layout.blocks());
            open.read += count;
            self.reading.push(run, false);
            return Some(Action::Read(run));
        }
        None
    }

    /// The open stripe that holds `run`. For events of our own only: they are about what is open.
    fn of(&mut self, run: Run) -> &mut Open {
        let holds = |open: &&mut Open| run.first >= open.run.first && run.end() <= open.run.end();
        self.open.iter_mut().find(holds).expect("a stripe stays open until all that was asked for has come back")
    }

    fn hashed(&mut self, run: Run, digests: &[Digest], signatures: &[Signature]) {
        self.reading.hashed(run);
        let open = self.of(run);
        open.table.keep(at(open.run, run.first), digests, signatures);
        while let Some(extent) = self.reading.0.front().filter(|extent| extent.hashed) {
            let run = extent.run;
            self.reading.0.pop_front();
            self.of(run).hashed += run.count;
        }
    }

    fn frame(&mut self, frame: Frame<'_>) -> Result<(), ProtocolError> {
        match frame {
            Frame::Data { pieces, payload_bytes } if !self.terms.dry_run => {
                let open = Self::current(&mut self.open, "data")?;
                let mut bytes = 0;
                for piece in pieces {
                    bytes += open.name(&self.terms, *piece, false)?;
                    open.unhashed += piece.count;
                    open.unwritten += piece.count;
                }
                if bytes == u64::from(payload_bytes) { Ok(()) } else { Err(ProtocolError::PayloadLength) }
            }
            Frame::Differs { runs } if self.terms.dry_run => {
                let open = Self::current(&mut self.open, "a run that differs")?;
                runs.iter().try_for_each(|run| open.name(&self.terms, *run, false).map(drop))
            }
            Frame::Holes { runs } => {
                let open = Self::current(&mut self.open, "a hole")?;
                for run in runs {
                    open.name(&self.terms, *run, true)?;
                    if !self.terms.dry_run {
                        open.unhashed += run.count;
                        open.unwritten += run.count;
                        self.punch.push_back(*run);
                    }
                }
                Ok(())
            }
            Frame::Done { stripe, digest } => {
                let open = Self::current(&mut self.open, "a stripe's digest")?;
                let left_out = open.run.count > open.named.max(open.basis_blocks);
                if open.stripe != stripe || open.signed < open.basis_blocks {
                    return Err(ProtocolError::NotExpected("a stripe's digest"));
                }
                if left_out {
                    return Err(ProtocolError::LeftOut);
                }
                open.told = Some(digest);
                Ok(())
            }
            _ => Err(ProtocolError::NotExpected("a frame of this kind")),
        }
    }

    /// The stripe that the source is speaking of: the first it has not ended.
    fn current<'a>(open: &'a mut VecDeque<Open>, what: &'static str) -> Result<&'a mut Open, ProtocolError> {
        let open = open.iter_mut().find(|open| open.told.is_none() && open.wanted);
        open.ok_or(ProtocolError::NotExpected(what))
    }

    /// The first stripe with something to say.
    fn speaker(&self) -> Option<usize> {
        let batch = batch_blocks(&self.terms.layout);
        self.open.iter().position(|open| {
            let unsigned = open.hashed - open.signed;
            !open.wanted || unsigned >= batch || (unsigned > 0 && open.hashed == open.basis_blocks)
        })
    }

    fn speak(&mut self, index: usize) -> Frame<'_> {
        let open = &mut self.open[index];
        if !open.wanted {
            open.wanted = true;
            return Frame::Want { stripe: open.stripe, basis_blocks: open.basis_blocks };
        }
        let from = open.signed as usize;
        let until = (open.hashed as usize).min(from + SIGNATURES_MAX);
        open.signed = u32::try_from(until).expect("at most hashed");
        let first = open.run.first + from as u64;
        Frame::Signatures { first, values: &open.table.ours[from..until] }
    }

    /// A stripe has everything: finish it, or ask for it once more.
    fn conclude(&mut self, index: usize) -> Action<'static> {
        let open = self.open.remove(index).expect("just found");
        let layout = &self.terms.layout;
        let told = open.told.expect("complete");
        let equal = self.terms.dry_run
            || fold_stripe(layout, open.stripe, &open.table.digests[..open.run.count as usize]) == told;
        if equal {
            let finished = Finished {
                stripe: open.stripe,
                digest: told,
                matched_bytes: layout.run_bytes(open.run) - open.changed_bytes - open.hole_bytes,
                changed_bytes: open.changed_bytes,
                hole_bytes: open.hole_bytes,
                changed_blocks: u64::from(open.changed_blocks),
            };
            self.spare.push(open.table);
            return Action::Finish(finished);
        }
        if open.again {
            return Action::Unequal(open.stripe);
        }
        // To the end of the order: the Want goes out like any other.
        self.open.push_back(Open { again: true, ..Open::new(open.stripe, open.run, 0, open.table) });
        Action::Again(open.stripe)
    }
}

impl Open {
    fn new(stripe: StripeIndex, run: Run, basis_blocks: u32, table: Table) -> Self {
        Self {
            stripe,
            run,
            basis_blocks,
            again: false,
            wanted: false,
            read: 0,
            hashed: 0,
            signed: 0,
            named: 0,
            unhashed: 0,
            unwritten: 0,
            told: None,
            changed_blocks: 0,
            changed_bytes: 0,
            hole_bytes: 0,
            table,
        }
    }

    fn complete(&self) -> bool {
        self.told.is_some() && self.unhashed == 0 && self.unwritten == 0
    }

    /// The source says that `run` differs. Its bytes, if it may say so.
    fn name(&mut self, terms: &Terms, run: Run, hole: bool) -> Result<u64, ProtocolError> {
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
        self.named = until;
        self.changed_blocks += run.count;
        let bytes = terms.layout.run_bytes(run);
        *(if hole { &mut self.hole_bytes } else { &mut self.changed_bytes }) += bytes;
        Ok(bytes)
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
        let mut target = Target::new(terms);
        assert_eq!(target.poll(ROOM), Some(Action::TakeStripe));
        target.handle(Event::Stripe(Some(0))).unwrap();
        assert_eq!(target.poll(ROOM), Some(Action::Send(Frame::Want { stripe: 0, basis_blocks: 4 })));
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
        check(0, Frame::Want { stripe: 0, basis_blocks: 0 }, Err(NotExpected("a frame of this kind")));
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
        let mut target = Target::new(target(false).terms);
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
        assert_eq!(target.poll(ROOM), Some(Action::Send(Frame::Want { stripe: 0, basis_blocks: 0 })));
        all(&mut target, 0, 64);
        assert_eq!(target.poll(ROOM), Some(Action::Unequal(0)));
    }
}
