//! The machines' turn: each is asked what it wants done, and it is done.
//!
//! Frames go over the line, or from one machine to the other where both ends are here. A machine that asks for what there is
//! no room for now (a buffer, the line) is asked again when there is.

use super::heads::read_heads;
use super::writing::Write;
use super::{Connection, Context, Guarded, Guest, Hunger, OpenFile, Work, WorkerError, bytes_of, offset_of, part_of};
use crate::completion::{Completions, Mode, Operation, Pool};
use crate::counters::Counter;
use crate::extent::{Run, StripeIndex};
use crate::session::readback::Action as ReadBackAction;
use crate::session::source::{Action as SourceAction, Event as SourceEvent, Source};
use crate::session::target::{Action as TargetAction, Event as TargetEvent};
use crate::session::{ProtocolError, Room};
use crate::wire::{Frame, decode};
use crate::worker::inbox::Outcome;
use crate::worker::line::{Line, LineError, What};

impl<C: Completions> Connection<C> {
    /// Gives the machines the frames that are there, and payloads their buffers.
    pub(super) fn take_frames(&mut self, guest: &mut Guest<C>, cx: &mut Context<'_, C>) -> Result<bool, WorkerError> {
        let holds_payload = self.holds_payload();
        let Some(line) = &mut self.line else { return Ok(false) };
        if line.wants_payload_buffer() {
            let lease = |guest: &Guest<C>| cx.shares.lease(cx.backend, Pool::Payload, guest.account);
            let Some(buffer) = self.lease_in_turn(Hunger::Payload, holds_payload, guest, lease) else {
                return Ok(false);
            };
            let line = self.line.as_mut().expect("seen above");
            if line.give_payload_buffer(buffer, cx.backend.now_ms()) {
                self.payload_complete(guest, cx)?;
            }
            return Ok(true);
        }
        let (header, range) = match line.next() {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(false),
            Err(error) => return self.unreadable(error, cx).map(|()| true),
        };
        if header.has_payload() && self.target.is_none() && line.is_sealed() {
            return self.unreadable(LineError::Forged, cx).map(|()| true); // nobody has tried its tags yet
        }
        let frame = decode(header, line.bytes(range), &mut cx.bench.scratch).map_err(ProtocolError::from)?;
        match (&mut self.target, &mut self.source) {
            (Some(target), _) => match frame {
                // The machine is told of it when all of it is there, and is what the peer has sealed.
                Frame::Data { pieces, payload_bytes } => {
                    let mut list = self.spare.pop().unwrap_or_default();
                    list.extend_from_slice(pieces);
                    line.announce(list, payload_bytes);
                }
                _ => {
                    target.call(|target| target.handle(TargetEvent::Frame(frame)))??;
                    if let Frame::Holes { runs } = frame
                        && !guest.terms.dry_run
                    {
                        self.work.extend(runs.iter().map(|run| Work::TargetHole(*run)));
                    }
                }
            },
            (None, Some(source)) => source.call(|source| source.handle(SourceEvent::Frame(frame)))??,
            (None, None) => return Err(ProtocolError::NotExpected("a frame").into()),
        }
        Ok(true)
    }

    /// Lets the target act once.
    pub(super) fn run_target(&mut self, guest: &mut Guest<C>, cx: &mut Context<'_, C>) -> Result<bool, WorkerError> {
        let mut buffer = self.basis_extent(guest, cx);
        let Self { target: Some(target), source, line, flight, .. } = self else { return Ok(false) };
        let send = line.as_mut().is_none_or(|line| makes_room(line, guest, cx, &mut self.starved));
        let room = Room { read_blocks: blocks_in(guest, buffer.as_ref()), send };
        let Some(action) = target.call(|target| target.poll(room))? else { return Ok(false) };
        match action {
            TargetAction::TakeStripe => {
                if !guest.outbox.is_empty() {
                    return Ok(false); // control is behind: first things first
                }
                let stripe = guest.take_stripe(flight.index);
                target.call(|target| target.handle(TargetEvent::Stripe(stripe)))??;
            }
            TargetAction::ReadHeads(run) => {
                let read = read_heads(run, guest, cx)?;
                let signatures = read.then_some(&cx.bench.signatures[..]);
                target.call(|target| target.handle(TargetEvent::Heads { run, signatures }))??;
            }
            TargetAction::Read(run) => {
                self.reading.basis += 1;
                let read = read_of(guest, guest.target.as_ref(), run, buffer.take());
                flight.push(cx.backend, What::ReadBasis, run.first, read);
            }
            TargetAction::Send(frame) => match (line, source) {
                (Some(line), _) => line.frame(&frame),
                (None, Some(source)) => source.call(|source| source.handle(SourceEvent::Frame(frame)))??,
                (None, None) => unreachable!("a target has a line or a source beside it"),
            },
            TargetAction::Finish(finished) => {
                let counters = &guest.shared.counters;
                counters.add(Counter::MatchedBytes, finished.matched_bytes);
                counters.add(Counter::ChangedBytes, finished.changed_bytes);
                counters.add(Counter::HoleBytes, finished.hole_bytes);
                counters.add(Counter::ChangedBlocks, finished.changed_blocks);
                guest.tell(Outcome::Stripe(finished));
            }
            TargetAction::Again(_) => {
                guest.shared.note_retry();
                guest.shared.counters.add(Counter::AgainStripes, 1);
            }
            TargetAction::Unequal(stripe) => return Err(WorkerError::Unequal(stripe)),
        }
        Ok(true)
    }

    /// Lets the source act once.
    pub(super) fn run_source(&mut self, guest: &mut Guest<C>, cx: &mut Context<'_, C>) -> Result<bool, WorkerError> {
        let was_starved = self.starved;
        let mut buffer = self.source_extent(guest, cx);
        let Self { source: Some(source), target, line, flight, .. } = self else { return Ok(false) };
        let send = line.as_mut().is_none_or(|line| makes_room(line, guest, cx, &mut self.starved));
        let mut payload = None;
        if send && line.as_ref().is_some_and(Line::is_sealed) {
            payload = cx.shares.lease(cx.backend, Pool::Payload, guest.account);
            self.starved |= payload.is_none();
        }
        let send = send && (payload.is_some() || line.as_ref().is_none_or(|line| !line.is_sealed()));
        let room = Room { read_blocks: blocks_in(guest, buffer.as_ref()), send };
        let Some(action) = source.call(|source| source.poll(room))? else {
            // Now a target beside it need not await it any more.
            return Ok(target.is_some() && self.starved && !was_starved);
        };
        match action {
            SourceAction::Map(stripe, run) => map(source, stripe, run, guest, cx)?,
            SourceAction::Read(run) => {
                self.reading.source += 1;
                let read = read_of(guest, guest.source.as_ref(), run, buffer.take());
                flight.push(cx.backend, What::ReadSource, run.first, read);
            }
            SourceAction::HashHole(run) => self.work.push_back(Work::SourceHole(run)),
            SourceAction::Send(frame) => match (line, target) {
                (Some(line), _) => match frame {
                    Frame::Data { pieces, .. } => {
                        let parts = pieces.iter().map(|run| part_of(guest, &self.held, *run)).collect();
                        line.data(&frame, parts, payload.take());
                    }
                    _ => line.frame(&frame),
                },
                (None, Some(target)) => {
                    target.call(|target| target.handle(TargetEvent::Frame(frame)))??;
                    let (runs, is_hole) = match frame {
                        Frame::Data { pieces, .. } => (pieces, false),
                        Frame::Holes { runs } if !guest.terms.dry_run => (runs, true),
                        _ => return Ok(true),
                    };
                    cx.bench.runs.clear();
                    cx.bench.runs.extend_from_slice(runs);
                    for run in cx.bench.runs.iter().copied() {
                        let (digests, _) = source.call(|source| source.hashes(run))?;
                        target.call(|target| target.handle(TargetEvent::Arrived { run, digests }))??;
                        let bytes = || Write::Bytes(run, part_of(guest, &self.held, run));
                        self.writes.push_back(if is_hole { Write::Hole(run) } else { bytes() });
                    }
                }
                (None, None) => unreachable!("a source has a line or a target beside it"),
            },
            SourceAction::Release(run) => self.held.retain(|(held, _)| *held != run),
            SourceAction::Finish(finished) => {
                if target.is_none() {
                    guest.tell(Outcome::Stripe(finished));
                }
            }
        }
        Ok(true)
    }

    /// Lets the read-back act once.
    pub(super) fn run_readback(&mut self, guest: &mut Guest<C>, cx: &mut Context<'_, C>) -> Result<bool, WorkerError> {
        let mut buffer = self.basis_extent(guest, cx);
        let Self { readback: Some(readback), flight, .. } = self else { return Ok(false) };
        let room = Room { read_blocks: blocks_in(guest, buffer.as_ref()), send: false };
        let Some(action) = readback.call(|readback| readback.poll(room))? else { return Ok(false) };
        match action {
            ReadBackAction::TakeStripe => {
                let next =
                    guest.shared.cursor.take().and_then(|index| {
                        usize::try_from(index).ok().and_then(|index| guest.expected.get(index).copied())
                    });
                readback.call(|readback| readback.take(next))?;
            }
            ReadBackAction::Read(run) => {
                self.reading.basis += 1;
                let read = read_of(guest, guest.target.as_ref(), run, buffer.take());
                flight.push(cx.backend, What::ReadBasis, run.first, read);
            }
            ReadBackAction::Equal(stripe) => guest.tell(Outcome::ReadBack(stripe)),
            ReadBackAction::Unequal(stripe) => return Err(WorkerError::Unequal(stripe)),
        }
        Ok(true)
    }

    /// A buffer for the source's next extent, if it wants one and may read it now.
    fn source_extent(&mut self, guest: &mut Guest<C>, cx: &mut Context<'_, C>) -> Option<C::Buffer> {
        let wants = self.source.as_ref()?.0.wants_extent();
        if !wants || !reads_more(&guest.source, self.reading.source) {
            self.be_hungry(Hunger::Extent, false, guest);
            return None;
        }
        // The last one is for a target beside it: what it signs is what lets go of others.
        let leaves_one = self.target.is_some() && self.reading.basis == 0;
        let holds = self.reading.source > 0 || !self.held.is_empty();
        self.lease_in_turn(Hunger::Extent, holds, guest, |guest| {
            lease_extent(guest, cx).filter(|_| !leaves_one || lease_extent(guest, cx).is_some())
        })
    }

    /// The same for the basis, or what is read back.
    fn basis_extent(&mut self, guest: &mut Guest<C>, cx: &mut Context<'_, C>) -> Option<C::Buffer> {
        let wants = match (&self.target, &self.readback) {
            (Some(target), _) => target.0.next_read().is_some() && !self.awaits_source(guest),
            (None, Some(readback)) => readback.0.wants_extent(),
            (None, None) => return None,
        };
        if !wants || !reads_more(&guest.target, self.reading.basis) {
            self.be_hungry(Hunger::Extent, false, guest);
            return None;
        }
        self.lease_in_turn(Hunger::Extent, self.reading.basis > 0, guest, |guest| lease_extent(guest, cx))
    }
}

/// Tells the source where a stripe has holes.
fn map<C: Completions>(
    source: &mut Guarded<Source>,
    stripe: StripeIndex,
    run: Run,
    guest: &mut Guest<C>,
    cx: &mut Context<'_, C>,
) -> Result<(), WorkerError> {
    let mut from = offset_of(guest, run);
    let end = from + guest.terms.layout.run_bytes(run);
    let began_ns = cx.backend.now_ns();
    let OpenFile { id, mode, holes, .. } = guest.source.as_mut().expect("a source has a file");
    let mut next_hole = |from| holes.next(from, |from| cx.backend.next_hole(*id, from)).map_err(WorkerError::Source);
    while let Some((hole, until)) = next_hole(from)?.filter(|(hole, _)| *hole < end) {
        source.call(|source| source.handle(SourceEvent::Hole { from: hole, until }))??;
        from = until;
    }
    if *mode != Mode::Memory {
        guest.seeking_ns += cx.backend.now_ns().saturating_sub(began_ns);
    }
    source.call(|source| source.handle(SourceEvent::Mapped(stripe)))?.map_err(WorkerError::from)
}

/// The read of an extent for which there was room.
fn read_of<C: Completions>(
    guest: &Guest<C>,
    file: Option<&OpenFile>,
    run: Run,
    buffer: Option<C::Buffer>,
) -> Operation<C::Buffer, C::Shared> {
    let file = file.expect("only a file that is there is read").id;
    let buffer = buffer.expect("there was room");
    Operation::Read { file, offset: offset_of(guest, run), buffer, from: 0, until: bytes_of(guest, run) }
}

/// Whether one more extent of the file may be read, beside so many that are.
fn reads_more(file: &Option<OpenFile>, reading: usize) -> bool {
    file.as_ref().is_some_and(|file| reading < file.reads_max)
}

fn lease_extent<C: Completions>(guest: &Guest<C>, cx: &mut Context<'_, C>) -> Option<C::Buffer> {
    let pools = guest.pools(Hunger::Extent);
    pools.into_iter().find_map(|pool| cx.shares.lease(cx.backend, pool, guest.account))
}

/// Blocks that fit the buffer; 0 without one.
fn blocks_in<C: Completions>(guest: &Guest<C>, buffer: Option<&C::Buffer>) -> u32 {
    let bytes = buffer.map_or(0, |buffer| u32::try_from(buffer.len()).expect("a buffer is small"));
    bytes / guest.terms.layout.block().bytes()
}

/// Whether the line takes one more frame; gives it a buffer for frames if that is all it needs.
fn makes_room<C: Completions>(
    line: &mut Line<C>,
    guest: &Guest<C>,
    cx: &mut Context<'_, C>,
    starved: &mut bool,
) -> bool {
    if !line.takes_frame() {
        return false;
    }
    if line.needs_buffer() {
        let Some(buffer) = cx.shares.lease(cx.backend, Pool::Frame, guest.account) else {
            *starved = true;
            return false;
        };
        line.give_buffer(buffer);
    }
    true
}
