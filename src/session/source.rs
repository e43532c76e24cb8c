//! The source's end of one data connection: reads what is wanted, holds it until the signatures are there, drops what is
//! equal and sends what differs.
//!
//! Stripes are taken strictly in the order of their Wants; all of one (data, holes, digest) goes before anything of the
//! next. Blocks are settled in ascending order: an extent is held from its read to the moment when all its blocks are
//! known to be equal or are handed to the socket. Reading goes ahead only as far as there are buffers, earliest first, so
//! what is held is always what will be asked about next.

use super::{Extent, Extents, Finished, ProtocolError, Room, Table, Terms, at};
use crate::delta::differing;
use crate::digest::{Digest, Signature, fold_stripe};
use crate::extent::{Run, StripeIndex};
use crate::limits::{HASH_QUANTUM_BYTES, PAYLOAD_BYTES_MAX, PIECES_MAX, RUNS_MAX, STRIPES_OPEN_MAX};
use crate::wire::Frame;
use std::collections::VecDeque;

/// What a source is told.
#[derive(Debug)]
pub enum Event<'a> {
    /// A frame came.
    Frame(Frame<'a>),
    /// The source's bytes `from..until` are a hole; an answer to [`Action::Map`].
    Hole { from: u64, until: u64 },
    /// All holes of the stripe were told.
    Mapped(StripeIndex),
    /// An extent was read, or its zeros taken, and hashed, and those of its blocks signed that are compared.
    Hashed { run: Run, digests: &'a [Digest], signatures: &'a [Signature] },
}

/// What a source asks for.
#[derive(Debug, PartialEq)]
pub enum Action<'a> {
    /// Find the holes of these blocks.
    Map(StripeIndex, Run),
    /// Read an extent, hash it, and hold its bytes until [`Action::Release`].
    Read(Run),
    /// Hash these blocks as zeros; there is nothing to hold.
    HashHole(Run),
    /// Send a frame; the bytes of a data frame's pieces are in held extents, each piece in one.
    Send(Frame<'a>),
    /// The held extent is not needed for any further frame.
    Release(Run),
    /// All of a stripe was handed over.
    Finish(Finished),
}

#[derive(Debug)]
struct Wanted {
    stripe: StripeIndex,
    run: Run,
    basis_blocks: u32,
    /// Signatures are those of heads.
    heads: bool,
    mapping: Mapping,
    /// Blocks asked to be read, or taken as holes.
    read: u32,
    /// Blocks whose signatures came.
    signed: u32,
    /// Blocks known to be equal or handed over.
    settled: u32,
    /// Of them, bytes that were sent, and bytes that were said to be holes.
    changed_bytes: u64,
    hole_bytes: u64,
    slate: Slate,
}

/// What is known of each block of a wanted stripe. Taken when a session starts and used again for stripe after stripe.
#[derive(Debug)]
struct Slate {
    table: Table,
    /// Signatures of the basis.
    theirs: Box<[Signature]>,
    /// Blocks that are holes.
    holes: Box<[bool]>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mapping {
    Unasked,
    Asked,
    Done,
}

/// The source's end of one data connection.
#[derive(Debug)]
pub struct Source {
    terms: Terms,
    /// The file may have holes.
    sparse: bool,
    wanted: VecDeque<Wanted>,
    spare: Vec<Slate>,
    /// Extents that are being read or held, in order, over all wanted stripes.
    held: Extents,
    finished: Option<Finished>,
    /// Runs of the frame that was handed out last.
    runs: Vec<Run>,
}

/// What a frame under construction says of its runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Says {
    Data,
    Holes,
    Differs,
}

impl Source {
    /// Takes all the memory it will ever use. `sparse`: the file may have holes.
    pub fn new(terms: Terms, sparse: bool) -> Self {
        let blocks = terms.layout.stripe_blocks() as usize;
        let slate = || Slate {
            table: Table::new(&terms.layout),
            theirs: vec![Signature::default(); blocks].into(),
            holes: vec![false; blocks].into(),
        };
        Self {
            terms,
            sparse,
            wanted: VecDeque::with_capacity(STRIPES_OPEN_MAX),
            spare: (0..STRIPES_OPEN_MAX).map(|_| slate()).collect(),
            held: Extents::default(),
            finished: None,
            runs: Vec::with_capacity(RUNS_MAX.max(PIECES_MAX)),
        }
    }

    /// Nothing is asked of it.
    pub fn idle(&self) -> bool {
        self.wanted.is_empty() && self.finished.is_none()
    }

    /// Digests and signatures of blocks that are held.
    pub fn hashes(&self, run: Run) -> (&[Digest], &[Signature]) {
        let wanted = self.wanted.iter().find(|wanted| wanted.holds(run)).expect("asked only about what is held");
        let from = at(wanted.run, run.first) as usize;
        let range = from..from + run.count as usize;
        (&wanted.slate.table.digests[range.clone()], &wanted.slate.table.ours[range])
    }

    /// Whether these blocks of a wanted stripe were taken as a hole, and hashed.
    pub fn holds_hole(&self, run: Run) -> bool {
        self.held.0.iter().any(|extent| extent.hole && extent.hashed && extent.run.contains(run))
    }

    /// How many of the first of these blocks, all of one stripe that is wanted, are compared with the basis.
    pub fn compared_blocks(&self, run: Run) -> u32 {
        let wanted = self.wanted.iter().find(|wanted| wanted.holds(run)).expect("wanted until all is settled");
        wanted.basis_blocks.saturating_sub(at(wanted.run, run.first)).min(run.count)
    }

    /// Whether blocks that are being read are to be compared by their heads.
    pub fn compares_heads(&self, run: Run) -> bool {
        self.wanted.iter().any(|wanted| wanted.heads && wanted.holds(run))
    }

    /// Whether a block of a wanted stripe was read, or taken as a hole, and hashed.
    pub fn has_hashed(&self, block: u64) -> bool {
        let run = Run { first: block, count: 1 };
        let pending = |extent: &Extent| !extent.hashed && block >= extent.run.first && block < extent.run.end();
        let wanted = self.wanted.iter().find(|wanted| wanted.holds(run));
        wanted.is_some_and(|wanted| at(wanted.run, block) < wanted.read) && !self.held.0.iter().any(pending)
    }

    /// Whether the next thing it would do with a buffer is to read an extent into it.
    pub fn wants_extent(&self) -> bool {
        let next = self.wanted.iter().find(|wanted| wanted.read < wanted.end(self.terms.dry_run));
        next.is_some_and(|wanted| wanted.mapping == Mapping::Done && !wanted.slate.holes[wanted.read as usize])
    }

    /// Takes note of what happened.
    ///
    /// # Errors
    /// Only for a frame: the peer's lie.
    pub fn handle(&mut self, event: Event<'_>) -> Result<(), ProtocolError> {
        match event {
            Event::Frame(Frame::Want { stripe, basis_blocks, heads }) => {
                return self.want(stripe, basis_blocks, heads);
            }
            Event::Frame(Frame::Signatures { first, values }) => return self.signatures(first, values),
            Event::Frame(_) => return Err(ProtocolError::NotExpected("a frame of this kind")),
            Event::Hole { from, until } => self.hole(from, until),
            Event::Mapped(stripe) => {
                let wanted = self.wanted.iter_mut().find(|w| w.stripe == stripe && w.mapping == Mapping::Asked);
                wanted.expect("only what was asked for is mapped").mapping = Mapping::Done;
            }
            Event::Hashed { run, digests, signatures } => {
                self.held.hashed(run);
                let wanted = self.wanted.iter_mut().find(|w| w.holds(run)).expect("wanted until all is settled");
                wanted.slate.table.keep(at(wanted.run, run.first), digests, signatures);
            }
        }
        Ok(())
    }

    /// What to do next; `None` until something happens or there is more room.
    pub fn poll(&mut self, room: Room) -> Option<Action<'_>> {
        if let Some(finished) = self.finished.take() {
            return Some(Action::Finish(finished));
        }
        if let Some(run) = self.settled_extent() {
            return Some(Action::Release(run));
        }
        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.mapping == Mapping::Unasked) {
            wanted.mapping = Mapping::Asked;
            return Some(Action::Map(wanted.stripe, wanted.run));
        }
        if let Some(action) = self.next_extent(room.read_blocks) {
            return Some(action);
        }
        self.runs.clear();
        if let Some((says, payload_bytes)) = self.settle(room.send) {
            self.count(says);
            return Some(Action::Send(match says {
                Says::Data => Frame::Data { pieces: &self.runs, payload_bytes },
                Says::Holes => Frame::Holes { runs: &self.runs },
                Says::Differs => Frame::Differs { runs: &self.runs },
            }));
        }
        // What is equal was settled without a word.
        if let Some(run) = self.settled_extent() {
            return Some(Action::Release(run));
        }
        if room.send { self.done().map(Action::Send) } else { None }
    }

    fn want(&mut self, stripe: StripeIndex, basis_blocks: u32, heads: bool) -> Result<(), ProtocolError> {
        if heads && self.terms.dry_run {
            return Err(ProtocolError::NotExpected("a comparison by heads"));
        }
        let run = self.terms.layout.stripe(stripe).ok_or(ProtocolError::OutsideFile)?;
        if basis_blocks > run.count {
            return Err(ProtocolError::OutsideFile);
        }
        if self.wanted.iter().any(|wanted| wanted.stripe == stripe) {
            return Err(ProtocolError::OutOfOrder);
        }
        let mut slate = self.spare.pop().ok_or(ProtocolError::TooManyOpen)?;
        slate.holes.fill(false);
        let mapping = if self.sparse { Mapping::Unasked } else { Mapping::Done };
        let (read, signed, settled, changed_bytes, hole_bytes) = (0, 0, 0, 0, 0);
        self.wanted.push_back(Wanted {
            stripe,
            run,
            basis_blocks,
            heads,
            mapping,
            read,
            signed,
            settled,
            changed_bytes,
            hole_bytes,
            slate,
        });
        Ok(())
    }

    fn signatures(&mut self, first: u64, values: &[Signature]) -> Result<(), ProtocolError> {
        let wanted = self.wanted.iter_mut().find(|wanted| wanted.signed < wanted.basis_blocks);
        let wanted = wanted.ok_or(ProtocolError::NotExpected("a signature"))?;
        if first != wanted.run.first + u64::from(wanted.signed) {
            return Err(ProtocolError::OutOfOrder);
        }
        let from = wanted.signed as usize;
        let until = from + values.len();
        if until > wanted.basis_blocks as usize {
            return Err(ProtocolError::OutsideFile);
        }
        wanted.slate.theirs[from..until].copy_from_slice(values);
        wanted.signed = u32::try_from(until).expect("at most basis_blocks");
        Ok(())
    }

    /// Marks the blocks of which every byte lies in the hole.
    fn hole(&mut self, from: u64, until: u64) {
        let block_bytes = u64::from(self.terms.layout.block().bytes());
        let first = from.div_ceil(block_bytes);
        let end =
            if until >= self.terms.layout.file_bytes() { self.terms.layout.blocks() } else { until / block_bytes };
        for wanted in self.wanted.iter_mut().filter(|wanted| wanted.mapping == Mapping::Asked) {
            let (first, end) = (first.max(wanted.run.first), end.min(wanted.run.end()));
            if first < end {
                wanted.slate.holes[at(wanted.run, first) as usize..at(wanted.run, end) as usize].fill(true);
            }
        }
    }

    /// A held extent all of whose blocks are settled. Holes hold nothing and just go.
    fn settled_extent(&mut self) -> Option<Run> {
        loop {
            let extent = self.held.0.front()?;
            // A stripe goes only when nothing of it is held, so what is held first is of the first stripe, or of the next
            // one while the first is waiting to say that it is done.
            let wanted = self.wanted.front().filter(|wanted| wanted.holds(extent.run))?;
            if at(wanted.run, extent.run.first) + extent.run.count > wanted.settled {
                return None;
            }
            let extent = self.held.0.pop_front()?;
            if !extent.hole {
                return Some(extent.run);
            }
        }
    }

    fn next_extent(&mut self, read_blocks: u32) -> Option<Action<'static>> {
        let dry_run = self.terms.dry_run;
        let quantum = (HASH_QUANTUM_BYTES / self.terms.layout.block().bytes()).max(1);
        let wanted = self.wanted.iter_mut().find(|wanted| wanted.read < wanted.end(dry_run))?;
        if wanted.mapping != Mapping::Done {
            return None;
        }
        let hole = wanted.slate.holes[wanted.read as usize];
        if !hole && read_blocks == 0 {
            return None;
        }
        let size = if hole { quantum } else { read_blocks };
        // Extents end at multiples of their size, so that direct reads are aligned to more than a block.
        let most = (size - wanted.read % size).min(wanted.end(dry_run) - wanted.read);
        let alike =
            wanted.slate.holes[wanted.read as usize..].iter().take(most as usize).take_while(|h| **h == hole).count();
        let count = u32::try_from(alike).expect("at most `most`");
        let run = Run { first: wanted.run.first + u64::from(wanted.read), count };
        wanted.read += count;
        self.held.push(run, hole);
        Some(if hole { Action::HashHole(run) } else { Action::Read(run) })
    }

    /// Ends the first stripe, if all of it is settled and released.
    fn done(&mut self) -> Option<Frame<'static>> {
        let wanted = self.wanted.front()?;
        let held = self.held.0.front().is_some_and(|extent| wanted.holds(extent.run));
        if wanted.settled < wanted.run.count || held {
            return None;
        }
        let wanted = self.wanted.pop_front()?;
        let Wanted { stripe, changed_bytes, hole_bytes, .. } = wanted;
        let digest = if self.terms.dry_run {
            Digest::default()
        } else {
            fold_stripe(&self.terms.layout, stripe, &wanted.slate.table.digests[..wanted.run.count as usize])
        };
        let matched_bytes = self.terms.layout.run_bytes(wanted.run) - changed_bytes - hole_bytes;
        self.finished = Some(Finished { stripe, digest, matched_bytes, changed_bytes, hole_bytes, changed_blocks: 0 });
        self.spare.push(wanted.slate);
        Some(Frame::Done { stripe, digest })
    }

    /// Counts what a frame is about to say of the first stripe.
    fn count(&mut self, says: Says) {
        let bytes: u64 = self.runs.iter().map(|run| self.terms.layout.run_bytes(*run)).sum();
        if let Some(wanted) = self.wanted.front_mut() {
            *(if says == Says::Holes { &mut wanted.hole_bytes } else { &mut wanted.changed_bytes }) += bytes;
        }
    }

    /// Settles blocks of the first stripe, until a frame is full or nothing more is known; where none may be sent, until
    /// something differs. Fills `runs` and says what they are, with the bytes of their payload; `None` where there is nothing
    /// to send.
    fn settle(&mut self, may_send: bool) -> Option<(Says, u32)> {
        let wanted = self.wanted.front_mut()?;
        let mut frame = FrameRuns::new(&self.terms, &mut self.runs, may_send);
        let stripe = wanted.run;
        for extent in self.held.0.iter().take_while(|extent| stripe.contains(extent.run)) {
            let end = at(stripe, extent.run.first) + extent.run.count;
            let known = wanted.known(end);
            if !extent.hashed || !wanted.settle(known, extent.hole, &mut frame) || wanted.settled < end {
                return frame.done();
            }
        }
        if self.terms.dry_run && wanted.settled >= wanted.basis_blocks && wanted.mapping == Mapping::Done {
            // What the basis does not have needs no reading to know that it would move.
            while wanted.settled < stripe.count {
                let from = wanted.settled as usize;
                let hole = wanted.slate.holes[from];
                let rest = &wanted.slate.holes[from..stripe.count as usize];
                let alike = rest.iter().take_while(|h| **h == hole).count();
                let until = wanted.settled + u32::try_from(alike).expect("at most a stripe");
                if !wanted.settle(until, hole, &mut frame) {
                    break;
                }
            }
        }
        frame.done()
    }
}

impl Wanted {
    fn holds(&self, run: Run) -> bool {
        self.run.contains(run)
    }

    /// Blocks that have to be read.
    fn end(&self, dry_run: bool) -> u32 {
        if dry_run { self.basis_blocks } else { self.run.count }
    }

    /// How far before `until` it is known whether blocks differ.
    fn known(&self, until: u32) -> u32 {
        if self.signed < self.basis_blocks { until.min(self.signed) } else { until }
    }

    /// Settles blocks up to `until`, all of which are known, hashed where they have to be, and alike. `false`: the frame
    /// takes no more.
    fn settle(&mut self, until: u32, hole: bool, frame: &mut FrameRuns<'_>) -> bool {
        let compared = until.min(self.basis_blocks);
        if self.settled < compared {
            let (from, to) = (self.settled as usize, compared as usize);
            let first = self.run.first + u64::from(self.settled);
            for run in differing(first, &self.slate.theirs[from..to], &self.slate.table.ours[from..to]) {
                let taken = frame.take(run, hole);
                self.settled = at(self.run, run.first) + taken;
                if taken < run.count {
                    return false;
                }
            }
            self.settled = compared;
        }
        if self.settled < until {
            let run = Run { first: self.run.first + u64::from(self.settled), count: until - self.settled };
            let taken = frame.take(run, hole);
            self.settled += taken;
            return taken == run.count;
        }
        true
    }
}

/// The runs of a frame under construction.
struct FrameRuns<'a> {
    terms: &'a Terms,
    runs: &'a mut Vec<Run>,
    /// It takes nothing otherwise.
    may_send: bool,
    says: Option<Says>,
    payload_bytes: u32,
}

impl<'a> FrameRuns<'a> {
    fn new(terms: &'a Terms, runs: &'a mut Vec<Run>, may_send: bool) -> Self {
        Self { terms, runs, may_send, says: None, payload_bytes: 0 }
    }

    /// Takes as many of the run's first blocks as the frame has room for.
    fn take(&mut self, run: Run, hole: bool) -> u32 {
        let says = match (hole, self.terms.dry_run) {
            (true, _) => Says::Holes,
            (false, true) => Says::Differs,
            (false, false) => Says::Data,
        };
        let most = if says == Says::Data { PIECES_MAX } else { RUNS_MAX };
        if !self.may_send || self.says.is_some_and(|said| said != says) || self.runs.len() == most {
            return 0;
        }
        let mut run = run;
        if says == Says::Data {
            run.count = run.count.min((PAYLOAD_BYTES_MAX - self.payload_bytes) / self.terms.layout.block().bytes());
            if run.count == 0 {
                return 0;
            }
            let bytes = self.terms.layout.run_bytes(run);
            self.payload_bytes += u32::try_from(bytes).expect("at most a payload");
        }
        self.says = Some(says);
        self.runs.push(run);
        run.count
    }

    fn done(self) -> Option<(Says, u32)> {
        self.says.map(|says| (says, self.payload_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::{BlockSize, Layout};

    const MIB: u64 = 1 << 20;
    const ROOM: Room = Room { read_blocks: 1, send: true };

    /// A file of `stripes` stripes of one block each.
    fn source(stripes: u64, dry_run: bool, sparse: bool) -> Source {
        let block = BlockSize::checked(1 << 20).expect("allowed");
        let layout = Layout::checked(stripes * MIB, block, MIB).expect("allowed");
        let terms = Terms { layout, method: crate::method::Method::default(), basis_bytes: stripes * MIB, dry_run };
        Source::new(terms, sparse)
    }

    fn want(source: &mut Source, stripe: StripeIndex, basis_blocks: u32) {
        source.handle(Event::Frame(Frame::Want { stripe, basis_blocks, heads: false })).expect("a proper want");
    }

    /// Trigger: a stripe that is a hole on both sides. Damage: forgetting the hole looked like having nothing to do, so
    /// the stripe's digest waited for the next event, which for a file's last stripe never came.
    #[test]
    fn a_hole_that_is_equal_is_ended_without_waiting_for_anything_more() {
        let mut source = source(1, false, true);
        want(&mut source, 0, 1);
        let run = Run { first: 0, count: 1 };
        assert_eq!(source.poll(ROOM), Some(Action::Map(0, run)));
        source.handle(Event::Hole { from: 0, until: MIB }).expect("our own");
        source.handle(Event::Mapped(0)).expect("our own");
        assert_eq!(source.poll(ROOM), Some(Action::HashHole(run)));
        let (digests, signatures) = ([Digest([3; 32])], [Signature([3; 8])]);
        source.handle(Event::Hashed { run, digests: &digests, signatures: &signatures }).expect("our own");
        assert_eq!(source.poll(ROOM), None);
        source.handle(Event::Frame(Frame::Signatures { first: 0, values: &signatures })).expect("proper");
        assert_eq!(source.poll(ROOM), Some(Action::Send(Frame::Done { stripe: 0, digest: digests[0] })));
    }

    #[test]
    fn a_block_is_hashed_when_its_extent_has_come_back_and_not_when_it_is_asked_for() {
        let mut source = source(2, false, false);
        assert!(!source.has_hashed(0), "nothing is wanted");
        want(&mut source, 0, 1);
        assert!(!source.has_hashed(0));
        let run = Run { first: 0, count: 1 };
        assert_eq!(source.poll(ROOM), Some(Action::Read(run)));
        assert!(!source.has_hashed(0));
        let (digests, signatures) = ([Digest([3; 32])], [Signature([5; 8])]);
        source.handle(Event::Hashed { run, digests: &digests, signatures: &signatures }).expect("our own");
        assert!(source.has_hashed(0));
        assert!(!source.has_hashed(1));
        assert_eq!(source.hashes(run), (&digests[..], &signatures[..]));
    }

    /// Trigger: in a dry run, a stripe that the basis lacks is wanted before one that it has. Damage: the first needs no
    /// reading, so what is held first was of the second, and an assertion ended the session.
    #[test]
    fn a_dry_run_may_want_a_stripe_without_a_basis_before_one_that_has_one() {
        let mut source = source(2, true, false);
        want(&mut source, 1, 0);
        want(&mut source, 0, 1);
        let run = Run { first: 0, count: 1 };
        assert_eq!(source.poll(ROOM), Some(Action::Read(run)));
        let differs = [Run { first: 1, count: 1 }];
        assert_eq!(source.poll(ROOM), Some(Action::Send(Frame::Differs { runs: &differs })));
        let digest = Digest::default();
        assert_eq!(source.poll(ROOM), Some(Action::Send(Frame::Done { stripe: 1, digest })));
    }

    /// Trigger: equal blocks are held while nothing can be sent. Damage: they kept their buffers until something could, from
    /// others who had something to read. Cure: what is equal is let go of without a word.
    #[test]
    fn what_is_equal_is_let_go_of_also_while_nothing_can_be_sent() {
        let mut source = source(2, false, false);
        want(&mut source, 0, 1);
        want(&mut source, 1, 1);
        let signatures = [Signature([5; 8])];
        for (stripe, theirs) in [(0, signatures), (1, [Signature([6; 8])])] {
            let run = Run { first: stripe, count: 1 };
            assert_eq!(source.poll(ROOM), Some(Action::Read(run)));
            let digests = [Digest([3; 32])];
            source.handle(Event::Hashed { run, digests: &digests, signatures: &signatures }).expect("our own");
            source.handle(Event::Frame(Frame::Signatures { first: stripe, values: &theirs })).expect("proper");
        }
        let silent = Room { send: false, ..ROOM };
        assert_eq!(source.poll(silent), Some(Action::Release(Run { first: 0, count: 1 })));
        assert_eq!(source.poll(silent), None, "the first stripe is not done before that is said");
        assert!(matches!(source.poll(ROOM), Some(Action::Send(Frame::Done { stripe: 0, .. }))));
        assert!(matches!(source.poll(silent), Some(Action::Finish(_))));
        assert_eq!(source.poll(silent), None, "the second differs");
        assert!(matches!(source.poll(ROOM), Some(Action::Send(Frame::Data { .. }))));
    }

    #[test]
    fn what_a_target_may_not_say_is_refused() {
        use ProtocolError::{NotExpected, OutOfOrder, OutsideFile, TooManyOpen};
        /// `lie` comes after Wants of these stripes, each with a basis, and so many signatures.
        #[track_caller]
        fn check(wants: &[StripeIndex], signed: usize, lie: Frame<'_>, want: Result<(), ProtocolError>) {
            let block = BlockSize::checked(256 << 10).unwrap();
            let layout = Layout::checked(5 * MIB, block, MIB).unwrap();
            let terms =
                Terms { layout, method: crate::method::Method::default(), basis_bytes: 5 * MIB, dry_run: false };
            let mut source = Source::new(terms, false);
            for stripe in wants {
                source.handle(Event::Frame(Frame::Want { stripe: *stripe, basis_blocks: 4, heads: false })).unwrap();
            }
            if signed > 0 {
                let values = &[Signature::default(); 4][..signed];
                source.handle(Event::Frame(Frame::Signatures { first: 4 * wants[0], values })).unwrap();
            }
            assert_eq!(source.handle(Event::Frame(lie)), want);
        }
        let want = |wants: &[_], stripe, basis_blocks, want| {
            check(wants, 0, Frame::Want { stripe, basis_blocks, heads: false }, want)
        };
        want(&[], 4, 4, Ok(()));
        want(&[], 4, 5, Err(OutsideFile));
        want(&[], 5, 0, Err(OutsideFile));
        want(&[], u64::MAX, 0, Err(OutsideFile));
        want(&[4, 1], 0, 0, Ok(()));
        want(&[4, 1], 1, 0, Err(OutOfOrder));
        want(&[4, 1, 0], 2, 0, Err(TooManyOpen));
        let signs = |wants: &[_], signed, first, count, want| {
            check(wants, signed, Frame::Signatures { first, values: &[Signature::default(); 5][..count] }, want);
        };
        signs(&[], 0, 0, 1, Err(NotExpected("a signature")));
        signs(&[1, 0], 0, 4, 4, Ok(()));
        signs(&[1, 0], 0, 4, 5, Err(OutsideFile));
        signs(&[1, 0], 0, 5, 1, Err(OutOfOrder));
        signs(&[1, 0], 0, 0, 1, Err(OutOfOrder)); // 0 was wanted later
        signs(&[1, 0], 2, 5, 1, Err(OutOfOrder)); // once is enough
        signs(&[1, 0], 2, 6, 2, Ok(()));
        signs(&[1, 0], 4, 0, 4, Ok(()));
        signs(&[1], 4, 8, 1, Err(NotExpected("a signature")));
        signs(&[1], 0, u64::MAX, 1, Err(OutOfOrder));
        let done = Frame::Done { stripe: 1, digest: Digest::default() };
        check(&[1], 4, done, Err(NotExpected("a frame of this kind")));
    }

    #[test]
    fn only_what_the_basis_has_is_compared() {
        let block = BlockSize::checked(256 << 10).unwrap();
        let layout = Layout::checked(2 * MIB, block, MIB).unwrap();
        let method = crate::method::Method::default();
        let mut source = Source::new(Terms { layout, method, basis_bytes: 2 * MIB, dry_run: false }, false);
        want(&mut source, 1, 3);
        want(&mut source, 0, 0);
        for (first, count, compared) in [(4, 4, 3), (4, 2, 2), (6, 2, 1), (7, 1, 0), (0, 4, 0)] {
            assert_eq!(source.compared_blocks(Run { first, count }), compared, "{count} from {first}");
        }
    }

    #[test]
    fn in_a_dry_run_nothing_is_compared_by_heads_as_no_digest_would_tell() {
        let want = |heads| Event::Frame(Frame::Want { stripe: 0, basis_blocks: 1, heads });
        let refused = Err(ProtocolError::NotExpected("a comparison by heads"));
        assert_eq!(source(1, true, false).handle(want(true)), refused);
        assert_eq!(source(1, true, false).handle(want(false)), Ok(()));
        let mut source = source(2, false, false);
        source.handle(want(true)).unwrap();
        assert!(source.compares_heads(Run { first: 0, count: 1 }));
        assert!(!source.compares_heads(Run { first: 1, count: 1 }), "nobody wants it");
    }
}
