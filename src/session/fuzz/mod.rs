//! Drives a source and a target by any bytes: for the fuzzer (`fuzz/`), for the replay of its corpus and for tests.
//!
//! The bytes choose two small files, who moves next, and how much room there is; what was asked for completes in any order.
//! Two honest machines have to come to an end by themselves and agree with a slow plain twin about every byte. Hostile
//! frames, made of small numbers and of huge ones, may end the session and do nothing else: no panic, nothing read or
//! written outside the file, nothing named twice, never more held than there was room for.
//!
//! `world` has the files, `referee` judges every frame, `hostile` makes frames that are none of the machines'. How a session
//! comes to have machines at all is shaken in `handshake`, how it goes on and ends beside them in `course`.

mod course;
mod handshake;
mod hostile;
mod referee;
mod world;

pub use course::fuzz_course;
pub use handshake::fuzz_handshake;

use super::source::{Action as SourceAction, Event as SourceEvent, Source};
use super::target::{Action as TargetAction, Event as TargetEvent, Target};
use super::{Finished, ProtocolError, Room};
use crate::extent::{Run, StripeIndex};
use crate::limits::{FRAME_LEN_MAX, STRIPES_OPEN_MAX};
use crate::wire::fuzz::Dice;
use crate::wire::{Frame, Scratch, decode, encode, header};
use referee::{Referee, Speaker};
use std::collections::VecDeque;
use world::{NOTHING, World, digests, heads, of, signatures};

/// Extents that each side has room for.
const EXTENTS: usize = 6;

/// Any bytes as the course of one data connection.
pub fn fuzz_machines(bytes: &[u8]) {
    let mut dice = Dice(bytes);
    let liar = [None, None, Some(Speaker::Source), Some(Speaker::Target)][dice.below(4)];
    let mut pair = Pair::new(World::new(&mut dice), liar, &mut dice);
    while let Some(choice) = dice.roll() {
        match pair.step(choice, &mut dice) {
            Ok(()) => assert!(pair.target.stripes().count() <= STRIPES_OPEN_MAX),
            Err(error) => {
                assert!(liar.is_some(), "an honest peer was called a liar: {error}");
                return;
            }
        }
        if pair.unequal {
            assert!(liar.is_some(), "a stripe differs though nothing is wrong with it");
            return;
        }
    }
    if liar.is_none() {
        pair.run_out();
    }
}

/// A frame as bytes, and the contents of the blocks of its payload.
struct Packet {
    frame: Vec<u8>,
    payload: Vec<u8>,
}

impl Packet {
    fn new(frame: &Frame<'_>, payload: Vec<u8>) -> Self {
        let mut bytes = vec![0; FRAME_LEN_MAX];
        let length = encode(frame, &mut bytes).expect("the longest frame fits");
        bytes.truncate(length);
        Self { frame: bytes, payload }
    }

    fn read<'a>(&self, scratch: &'a mut Scratch) -> Result<Frame<'a>, ProtocolError> {
        let header = header(&self.frame)?.expect("whole");
        assert_eq!(header.frame_bytes(), self.frame.len());
        Ok(decode(header, &self.frame, scratch)?)
    }
}

/// What the source waits for.
enum SourceWork {
    Map(StripeIndex, Run),
    Hash(Run),
}

/// What the target waits for.
enum TargetWork {
    Hash(Run),
    Arrive(Run, Vec<u8>),
    Write(Run, Vec<u8>),
}

/// Both machines, what is under way between them, and what they wait for.
struct Pair {
    world: World,
    /// Whose frames are not its machine's.
    liar: Option<Speaker>,
    /// The target as it was.
    basis: Vec<u8>,
    cursor: VecDeque<StripeIndex>,
    source: Source,
    target: Target,
    at_source: Referee,
    at_target: Referee,
    to_source: VecDeque<Packet>,
    to_target: VecDeque<Packet>,
    slow: bool,
    /// Stripes whose basis is not in memory, a bit each.
    cold: u8,
    /// Blocks that an extent has room for.
    read_blocks: u32,
    source_work: Vec<SourceWork>,
    target_work: Vec<TargetWork>,
    /// Extents in the source's hands, and whether they are hashed.
    held: Vec<(Run, bool)>,
    basis_reads: usize,
    again: Vec<StripeIndex>,
    finished: Vec<StripeIndex>,
    unequal: bool,
    scratch: Scratch,
}

impl Pair {
    fn new(world: World, liar: Option<Speaker>, dice: &mut Dice<'_>) -> Self {
        let stripes = world.terms.layout.stripes();
        let mut cursor: VecDeque<_> = (0..stripes).collect();
        cursor.rotate_left(dice.below(5) % cursor.len());
        Self {
            basis: world.target.clone(),
            cursor,
            source: Source::new(world.terms, world.sparse),
            target: Target::new(world.terms, dice.coin()),
            at_source: Referee::new(world.terms.layout, world.terms.dry_run),
            at_target: Referee::new(world.terms.layout, world.terms.dry_run),
            to_source: VecDeque::new(),
            to_target: VecDeque::new(),
            slow: dice.coin(),
            cold: dice.roll().unwrap_or(0) & dice.roll().unwrap_or(0),
            read_blocks: 1 + 7 * u32::try_from(dice.below(5)).expect("below 5"),
            source_work: Vec::new(),
            target_work: Vec::new(),
            held: Vec::new(),
            basis_reads: 0,
            again: Vec::new(),
            finished: Vec::new(),
            unequal: false,
            scratch: Scratch::default(),
            world,
            liar,
        }
    }

    /// Lets somebody move.
    fn step(&mut self, choice: u8, dice: &mut Dice<'_>) -> Result<(), ProtocolError> {
        let room = Room { read_blocks: self.read_blocks * u32::from(choice >> 7), send: choice & 64 == 0 };
        if let Some(liar) = self.liar {
            return self.step_with(liar, choice, dice);
        }
        match choice % 6 {
            0 => _ = self.poll_source(room)?,
            1 => _ = self.poll_target(room)?,
            2 => _ = self.deliver_to_source()?,
            3 => _ = self.deliver_to_target()?,
            4 => _ = self.complete_source(dice)?,
            _ => _ = self.complete_target(dice)?,
        }
        Ok(())
    }

    /// Lets the liar say something, or the other one do all it can; what that says goes nowhere.
    fn step_with(&mut self, liar: Speaker, choice: u8, dice: &mut Dice<'_>) -> Result<(), ProtocolError> {
        let room = Room { read_blocks: self.read_blocks, send: true };
        self.to_source.clear();
        self.to_target.clear();
        match (liar, choice % 4) {
            (Speaker::Target, 0) => while self.poll_source(room)? {},
            (Speaker::Target, 1) => _ = self.complete_source(dice)?,
            (Speaker::Target, _) => {
                self.to_source.push_back(hostile::to_source(&self.world, &self.at_source, dice));
                self.deliver_to_source()?;
            }
            (Speaker::Source, 0) => while self.poll_target(room)? && !self.unequal {},
            (Speaker::Source, 1) => while self.complete_target(dice)? {},
            (Speaker::Source, _) => {
                self.to_target.push_back(hostile::to_target(&self.world, &self.at_target, dice));
                self.deliver_to_target()?;
            }
        }
        Ok(())
    }

    /// Two honest machines, left alone, come to the right end.
    fn run_out(&mut self) {
        let read_blocks = self.read_blocks;
        // Who is slow to send has more to say at once.
        while self.move_on(Room { read_blocks, send: !self.slow }) || self.move_on(Room { read_blocks, send: true }) {}
        assert!(!self.unequal);
        assert!(self.source.idle(), "the source stands still");
        assert!(self.target.idle(), "the target stands still");
        assert!(self.held.is_empty());
        self.finished.sort_unstable();
        assert!(self.finished.iter().copied().eq(0..self.world.terms.layout.stripes()), "every stripe, once");
        if !self.world.terms.dry_run {
            assert_eq!(self.world.target, self.world.source);
        }
    }

    /// Everybody does what he can. `false` if that is nothing.
    fn move_on(&mut self, room: Room) -> bool {
        const HONEST: &str = "an honest peer is never a liar";
        let mut first = Dice(&[]);
        let mut moved = false;
        while self.poll_source(room).expect(HONEST) {
            moved = true;
        }
        while self.poll_target(room).expect(HONEST) {
            moved = true;
        }
        moved |= self.deliver_to_source().expect(HONEST);
        moved |= self.deliver_to_target().expect(HONEST);
        moved |= self.complete_source(&mut first).expect(HONEST);
        moved |= self.complete_target(&mut first).expect(HONEST);
        moved
    }

    fn poll_source(&mut self, mut room: Room) -> Result<bool, ProtocolError> {
        if self.held.len() == EXTENTS {
            room.read_blocks = 0;
        }
        let Some(action) = self.source.poll(room) else { return Ok(false) };
        let world = &self.world;
        match action {
            SourceAction::Map(stripe, run) => {
                assert_eq!(run, world.stripe(stripe));
                self.source_work.push(SourceWork::Map(stripe, run));
            }
            SourceAction::Read(run) => {
                world.check(run);
                assert!(run.count <= room.read_blocks);
                assert!(self.held.iter().all(|(held, _)| run.end() <= held.first || held.end() <= run.first));
                self.held.push((run, false));
                self.source_work.push(SourceWork::Hash(run));
            }
            SourceAction::HashHole(run) => {
                world.check(run);
                assert!((run.first..run.end()).all(|block| world.hole(block)));
                self.source_work.push(SourceWork::Hash(run));
            }
            SourceAction::Send(frame) => {
                assert!(room.send);
                assert!(self.at_source.allows(Speaker::Source, &frame), "{frame:?}");
                let mut payload = Vec::new();
                if let Frame::Data { pieces, .. } = frame {
                    for piece in pieces {
                        let within = |held: &Run| held.contains(*piece);
                        assert!(self.held.iter().any(|(held, hashed)| *hashed && within(held)));
                        payload.extend_from_slice(of(&world.source, *piece));
                    }
                }
                self.to_target.push_back(Packet::new(&frame, payload));
            }
            SourceAction::Release(run) => {
                let held = self.held.iter().position(|held| *held == (run, true));
                self.held.remove(held.expect("only what is held is released"));
            }
            SourceAction::Finish(_) => (),
        }
        Ok(true)
    }

    fn poll_target(&mut self, mut room: Room) -> Result<bool, ProtocolError> {
        if self.basis_reads == EXTENTS {
            room.read_blocks = 0;
        }
        let Some(action) = self.target.poll(room) else { return Ok(false) };
        match action {
            TargetAction::TakeStripe => {
                let stripe = self.cursor.pop_front();
                self.target.handle(TargetEvent::Stripe(stripe))?;
            }
            TargetAction::ReadHeads(run) => {
                self.world.check(run);
                let heads = heads(of(&self.basis, run));
                let stripe = run.first / u64::from(self.world.terms.layout.stripe_blocks());
                let signatures = (self.cold >> (stripe % 8) & 1 == 0).then_some(&heads[..]);
                self.target.handle(TargetEvent::Heads { run, signatures })?;
            }
            TargetAction::Read(run) => {
                self.world.check(run);
                assert!(run.count <= room.read_blocks);
                assert!(!of(&self.basis, run).contains(&NOTHING), "only what the basis has is read");
                self.basis_reads += 1;
                self.target_work.push(TargetWork::Hash(run));
            }
            TargetAction::Send(frame) => {
                assert!(room.send);
                assert!(self.at_target.allows(Speaker::Target, &frame), "{frame:?}");
                self.to_source.push_back(Packet::new(&frame, Vec::new()));
            }
            TargetAction::Finish(finished) => self.finish(finished),
            TargetAction::Again(stripe) => {
                assert!(!self.again.contains(&stripe), "asked for again once");
                self.again.push(stripe);
            }
            TargetAction::Unequal(stripe) => {
                assert!(self.again.contains(&stripe));
                self.unequal = true;
            }
        }
        Ok(true)
    }

    fn finish(&mut self, finished: Finished) {
        let stripe = finished.stripe;
        let bytes = self.world.terms.layout.run_bytes(self.world.stripe(stripe));
        assert_eq!(finished.matched_bytes + finished.changed_bytes + finished.hole_bytes, bytes);
        let open = |work: &TargetWork| match work {
            TargetWork::Hash(run) | TargetWork::Arrive(run, _) | TargetWork::Write(run, _) => {
                self.world.stripe(stripe).contains(*run)
            }
        };
        assert!(!self.target_work.iter().any(open), "a stripe stays open until all of it has come back");
        if !self.world.terms.dry_run {
            assert_eq!(finished.digest, self.world.stripe_digest(stripe, &self.world.target), "proven, not believed");
        }
        if self.liar.is_none() {
            assert_eq!(finished, self.world.twin(stripe, &self.basis, self.again.contains(&stripe)));
            self.finished.push(stripe);
        }
    }

    fn deliver_to_source(&mut self) -> Result<bool, ProtocolError> {
        let Some(packet) = self.to_source.pop_front() else { return Ok(false) };
        let frame = packet.read(&mut self.scratch)?;
        let allowed = self.at_source.allows(Speaker::Target, &frame);
        let handled = self.source.handle(SourceEvent::Frame(frame));
        assert_eq!(handled.is_ok(), allowed, "{handled:?} to {frame:?}");
        handled.map(|()| true)
    }

    fn deliver_to_target(&mut self) -> Result<bool, ProtocolError> {
        let Some(packet) = self.to_target.pop_front() else { return Ok(false) };
        let frame = packet.read(&mut self.scratch)?;
        let allowed = self.at_target.allows(Speaker::Source, &frame);
        let handled = self.target.handle(TargetEvent::Frame(frame));
        assert_eq!(handled.is_ok(), allowed, "{handled:?} to {frame:?}");
        handled?;
        let (runs, filling) = match frame {
            Frame::Data { pieces, .. } => (pieces, 1),
            Frame::Holes { runs } if !self.world.terms.dry_run => (runs, 0),
            _ => return Ok(true),
        };
        let mut payload = packet.payload.into_iter().chain(std::iter::repeat(filling));
        for run in runs {
            self.world.check(*run);
            let contents: Vec<u8> = payload.by_ref().take(run.count as usize).collect();
            self.target_work.push(TargetWork::Arrive(*run, contents.clone()));
            self.target_work.push(TargetWork::Write(*run, contents));
        }
        Ok(true)
    }

    fn complete_source(&mut self, dice: &mut Dice<'_>) -> Result<bool, ProtocolError> {
        if self.source_work.is_empty() {
            return Ok(false);
        }
        match self.source_work.remove(dice.below(self.source_work.len())) {
            SourceWork::Map(stripe, run) => {
                for block in (run.first..run.end()).filter(|block| self.world.hole(*block)) {
                    let from = self.world.terms.layout.offset(Run { first: block, count: 1 });
                    let until = from + self.world.bytes(block);
                    // The last byte of the block before may belong to the hole: that block is none.
                    self.source.handle(SourceEvent::Hole { from: from.saturating_sub(1), until })?;
                }
                self.source.handle(SourceEvent::Mapped(stripe))?;
            }
            SourceWork::Hash(run) => {
                if let Some(held) = self.held.iter_mut().find(|(held, _)| *held == run) {
                    held.1 = true;
                }
                let contents = of(&self.world.source, run);
                let sign = if self.source.compares_heads(run) { heads } else { signatures };
                let (digests, signatures) = (digests(contents), sign(contents));
                self.source.handle(SourceEvent::Hashed { run, digests: &digests, signatures: &signatures })?;
            }
        }
        Ok(true)
    }

    fn complete_target(&mut self, dice: &mut Dice<'_>) -> Result<bool, ProtocolError> {
        if self.target_work.is_empty() {
            return Ok(false);
        }
        match self.target_work.remove(dice.below(self.target_work.len())) {
            TargetWork::Hash(run) => {
                self.basis_reads -= 1;
                let contents = of(&self.world.target, run);
                let (digests, signatures) = (digests(contents), signatures(contents));
                self.target.handle(TargetEvent::Hashed { run, digests: &digests, signatures: &signatures })?;
            }
            TargetWork::Arrive(run, contents) => {
                self.target.handle(TargetEvent::Arrived { run, digests: &digests(&contents) })?;
            }
            TargetWork::Write(run, contents) => {
                assert!(!self.world.terms.dry_run, "a dry run writes nothing");
                let first = usize::try_from(run.first).expect("inside");
                self.world.target[first..first + contents.len()].copy_from_slice(&contents);
                self.target.handle(TargetEvent::Written(run))?;
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // Heads are looked at from the fourth stripe on, if all goes as far as that.
        #![proptest_config(ProptestConfig::with_cases(8192))]
        #[test]
        fn any_course_of_a_connection_ends_well_or_in_a_protocol_error(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
        ) {
            fuzz_machines(&bytes);
        }
    }
}
