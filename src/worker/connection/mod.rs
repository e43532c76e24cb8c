//! THE HUB: one data connection. Turns the machines' actions into operations and completions into the machines' events.
//!
//! It holds the bytes that the machines only speak of: extents being hashed, extents the source holds, payloads being
//! written. Frames go over the line, or, where both ends are here, from one machine straight to the other: then the target
//! writes from the very buffer the source read, and nothing is hashed twice. A panic inside a machine is caught and costs
//! the session; the hub itself does not panic on anything that comes from outside.

mod beside;
mod heads;
mod machines;
mod writing;

use super::inbox::Outcome;
use super::line::{Line, LineError, What, tag};
use super::share::Shares;
use super::timesheet::Waits;
use super::{Guest, OpenFile, WorkerError};
use crate::completion::{Completion, Completions, Errno, Mode, Operation, Part, Traffic};
use crate::counters::Counter;
use crate::digest::{Digest, Signature, hash_blocks, hash_hole, sign_blocks, sign_hole};
use crate::extent::{Run, join_adjacent};
use crate::limits::{DIRECT_ALIGNMENT, DRIBBLE_MS, STILL_SIGNS_MAX};
use crate::session::readback::ReadBack;
use crate::session::source::{Event as SourceEvent, Source};
use crate::session::target::{Event as TargetEvent, Target};
use crate::session::{ProtocolError, Terms};
use crate::wire::{Frame, Scratch};
use heads::sign_heads;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use writing::Write;

/// What a connection needs of its worker while it is looked at.
#[derive(Debug)]
pub(super) struct Context<'a, C: Completions> {
    pub(super) backend: &'a mut C,
    pub(super) shares: &'a Shares,
    pub(super) bench: &'a mut Bench,
    /// Bytes that may still be hashed before the completions are looked at again.
    pub(super) quantum_bytes: &'a mut u32,
}

/// Where a worker hashes and decodes; used by one connection at a time.
#[derive(Debug, Default)]
pub(super) struct Bench {
    digests: Vec<Digest>,
    signatures: Vec<Signature>,
    scratch: Scratch,
    runs: Vec<Run>,
}

/// Operations of one connection on their way.
#[derive(Debug)]
struct Flight {
    slot: usize,
    index: usize,
    /// How many, by [`What`].
    operations: [usize; What::COUNT],
}

impl Flight {
    fn push<C: Completions>(
        &mut self,
        backend: &mut C,
        what: What,
        about: u64,
        operation: Operation<C::Buffer, C::Shared>,
    ) {
        self.operations[what as usize] += 1;
        backend.push(tag(self.slot, self.index, what, about), operation);
    }
}

/// Something to be hashed.
#[derive(Debug)]
enum Work<B> {
    /// An extent of the source; it is held afterwards.
    Source(Run, B),
    /// Zeros of the source.
    SourceHole(Run),
    /// An extent of the basis, or of what is read back.
    Basis(Run, B),
    /// A payload, piece by piece: pieces, index of the next one, where it begins in the buffer.
    Payload { pieces: Vec<Run>, next: usize, from: u32, buffer: B },
    /// Blocks to be made a hole.
    TargetHole(Run),
}

/// Extents that are being read, or were and are not hashed yet. Each end's for itself: where both are here, one that goes
/// ahead must not keep the other from reading, for which it waits itself.
#[derive(Debug, Default)]
struct Reading {
    source: usize,
    /// Of the basis, or of what is read back.
    basis: usize,
}

/// What a connection may wait for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hunger {
    /// A buffer for a payload that comes.
    Payload,
    /// A buffer for an extent.
    Extent,
}

impl Hunger {
    pub(super) const ALL: [Self; Self::COUNT] = [Self::Payload, Self::Extent];
    /// How many kinds there are.
    pub(super) const COUNT: usize = Self::Extent as usize + 1;
}

/// One data connection, or one lane of a copy that has both ends here.
#[derive(Debug)]
pub(super) struct Connection<C: Completions> {
    /// Its number in the session.
    pub(super) number: u32,
    flight: Flight,
    line: Option<Line<C>>,
    source: Option<Guarded<Source>>,
    target: Option<Guarded<Target>>,
    readback: Option<Guarded<ReadBack>>,
    /// Extents that the source holds.
    held: Vec<(Run, C::Shared)>,
    work: VecDeque<Work<C::Buffer>>,
    writes: VecDeque<Write<C::Shared>>,
    /// A hole is being made. One at a time: there may be many, and little in each.
    punching: bool,
    reading: Reading,
    /// Lists of pieces, used again for payload after payload.
    spare: Vec<Vec<Run>>,
    /// It waits for a buffer.
    starved: bool,
    /// It waits for such a buffer, and holds none.
    hungry: [bool; Hunger::COUNT],
    /// Looks on end in which it had something to write, and another worker was writing.
    outwritten: u32,
    /// Bytes that the peer's kernel had taken and given when it was looked at.
    moved: u64,
    /// Signs that it is dead, since bytes moved on it: see [`STILL_SIGNS_MAX`].
    still: u32,
    /// It is on its worker's list of connections to look at.
    pub(super) listed: bool,
    draining: bool,
    lost: Option<Option<Errno>>,
}

/// The machines of a connection: those whose ends this process has.
#[derive(Debug, Default)]
pub(super) struct Machines {
    pub(super) source: Option<Source>,
    pub(super) target: Option<Target>,
    pub(super) readback: Option<ReadBack>,
}

impl<C: Completions> Connection<C> {
    /// Connection `index` of the guest in `slot`; without a line where both ends are here.
    pub(super) fn new(slot: usize, index: usize, number: u32, line: Option<Line<C>>, machines: Machines) -> Self {
        Self {
            number,
            flight: Flight { slot, index, operations: [0; What::COUNT] },
            line,
            source: machines.source.map(Guarded),
            target: machines.target.map(Guarded),
            readback: machines.readback.map(Guarded),
            held: Vec::new(),
            work: VecDeque::new(),
            writes: VecDeque::new(),
            punching: false,
            reading: Reading::default(),
            spare: Vec::new(),
            starved: false,
            hungry: [false; Hunger::COUNT],
            outwritten: 0,
            moved: 0,
            still: 0,
            listed: false,
            draining: false,
            lost: None,
        }
    }

    /// Nothing is left of it: no operation in flight, and it was stopped or lost.
    pub(super) fn drained(&self) -> bool {
        self.draining && self.flight.operations.iter().all(|count| *count == 0)
    }

    /// Work was left because the quantum was used up.
    pub(super) fn has_work(&self) -> bool {
        !self.draining && !self.work.is_empty()
    }

    /// It waits for a buffer.
    pub(super) fn is_starved(&self) -> bool {
        self.starved
    }

    /// It has something to write, and another worker was writing.
    pub(super) fn is_outwritten(&self) -> bool {
        self.outwritten > 0
    }

    /// It has nothing to do, and could have.
    pub(super) fn is_idle(&self) -> bool {
        let is_idle = self.target.as_ref().is_some_and(|target| target.0.idle())
            || self.source.as_ref().is_some_and(|source| source.0.idle());
        is_idle && !self.draining && self.line.as_ref().is_some_and(|line| !line.ended)
    }

    /// Called once a second: whether bytes have moved on it since. Where none has, though something is to come, and the session
    /// `gets_on` without it, it is lost in the end.
    pub(super) fn look(&mut self, gets_on: bool, backend: &mut C) -> bool {
        let Some(line) = self.line.as_ref().filter(|_| !self.draining) else { return false };
        let Traffic { moved, awaits_peer } = backend.traffic(line.socket);
        let has_moved = std::mem::replace(&mut self.moved, moved) != moved;
        // A peer may take its time, but not within a payload that it sends; and its kernel acknowledges at once.
        let signs = if awaits_peer || line.is_filling() { 2 } else { u32::from(self.awaits_peer()) };
        self.still = if has_moved || signs == 0 { 0 } else { self.still + signs * u32::from(gets_on) };
        if self.still >= STILL_SIGNS_MAX {
            self.lose(Some(Errno::TIMED_OUT), backend);
        }
        has_moved
    }

    /// What is open on it is the peer's turn: to take what is sent, or, nothing being in the works here, to send.
    fn awaits_peer(&self) -> bool {
        let has_stripes = self.target.as_ref().is_some_and(|target| target.0.stripes().next().is_some());
        let Waits { source_disk, target_disk, .. } = self.waits();
        let is_at_work = source_disk || target_disk || self.starved || !self.work.is_empty();
        self.flight.operations[What::Send as usize] > 0 || (has_stripes && !is_at_work)
    }

    /// A payload has been on its way for too long.
    pub(super) fn dribbles(&self, now_ms: u64) -> bool {
        let since_ms = self.line.as_ref().and_then(Line::filling_since_ms);
        since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= DRIBBLE_MS)
    }

    /// What it waits for if its worker has nothing to do.
    pub(super) fn waits(&self) -> Waits {
        let is_in_flight = |what: What| self.flight.operations[what as usize] > 0;
        Waits {
            source_disk: is_in_flight(What::ReadSource),
            // Writes that may not begin wait for the target to be marked.
            target_disk: is_in_flight(What::ReadBasis) || is_in_flight(What::Write) || !self.writes.is_empty(),
            line: is_in_flight(What::Send) || self.line.as_ref().is_some_and(Line::is_filling),
            peer: is_in_flight(What::Receive),
        }
    }

    /// Lets go of everything but what is in flight.
    pub(super) fn stop(&mut self, backend: &mut C) {
        if self.draining {
            return;
        }
        self.draining = true;
        if let Some(line) = &self.line {
            backend.shut(line.socket);
        }
        self.work.clear();
        self.writes.clear();
        self.outwritten = 0;
        self.held.clear();
    }

    /// A payload is being hashed or written.
    fn holds_payload(&self) -> bool {
        let is_hashed = |work: &Work<C::Buffer>| matches!(work, Work::Payload { .. });
        self.flight.operations[What::Write as usize] > 0 || !self.writes.is_empty() || self.work.iter().any(is_hashed)
    }

    fn be_hungry(&mut self, what: Hunger, hungry: bool, guest: &mut Guest<C>) {
        let (index, queue) = (self.flight.index, &mut guest.hungry[what as usize]);
        match (std::mem::replace(&mut self.hungry[what as usize], hungry), hungry) {
            (false, true) => queue.push_back(index),
            (true, false) => queue.retain(|hungry| *hungry != index),
            _ => {}
        }
    }

    fn hunger_ends(&mut self, guest: &mut Guest<C>) {
        Hunger::ALL.into_iter().for_each(|what| self.be_hungry(what, false, guest));
    }

    /// Takes one of these buffers, unless it is another's turn. Buffers come back where they were, and would stay there:
    /// the next goes to who waits and holds none, longest first.
    fn lease_in_turn(
        &mut self,
        what: Hunger,
        holds: bool,
        guest: &mut Guest<C>,
        lease: impl FnOnce(&Guest<C>) -> Option<C::Buffer>,
    ) -> Option<C::Buffer> {
        let is_others_turn = guest.hungry[what as usize].front().is_some_and(|first| *first != self.flight.index);
        let buffer = if is_others_turn { None } else { lease(guest) };
        self.starved |= buffer.is_none();
        self.be_hungry(what, buffer.is_none() && !holds, guest);
        buffer
    }

    /// Drained for good: its stripes go back, its socket is closed.
    pub(super) fn finish(&mut self, guest: &mut Guest<C>, backend: &mut C) {
        assert!(self.drained());
        self.hunger_ends(guest);
        if let Some(line) = self.line.take() {
            backend.release(line.socket);
        }
        if let Some(target) = self.target.take() {
            guest.shared.note_retry();
            target.0.stripes().for_each(|stripe| guest.shared.cursor.give_back(stripe));
        }
        if let Some(error) = self.lost.take() {
            guest.tell(Outcome::Lost { number: self.number, error });
        }
    }

    /// It can do something with a stripe: its end is a target, and nothing has ended.
    pub(super) fn can_take(&self) -> bool {
        self.target.is_some() && !self.draining && self.line.as_ref().is_none_or(|line| !line.ended)
    }

    /// The cursor may have stripes for it again.
    pub(super) fn resume(&mut self) -> Result<(), WorkerError> {
        let can_take = self.can_take();
        match self.target.as_mut().filter(|_| can_take) {
            Some(target) => target.call(|target| target.handle(TargetEvent::Again))?.map_err(Into::into),
            None => Ok(()),
        }
    }

    fn lose(&mut self, error: Option<Errno>, backend: &mut C) {
        if self.lost.is_none() {
            self.lost = Some(error);
        }
        self.stop(backend);
    }

    // --- completions ---

    /// An operation of this connection has ended.
    ///
    /// # Errors
    /// What ends the session. A failed write does so even while draining: a file that failed once has failed.
    pub(super) fn complete(
        &mut self,
        what: What,
        about: u64,
        done: Completion<C::Buffer, C::Shared>,
        guest: &Guest<C>,
        cx: &mut Context<'_, C>,
    ) -> Result<(), WorkerError> {
        self.flight.operations[what as usize] -= 1;
        guest.shared.counters.add(Counter::Progress, 1);
        match done.operation {
            read @ Operation::Read { .. } => self.read(what, about, read, done.result, guest, cx),
            write @ Operation::Write { .. } => self.wrote(about, write, done.result, guest, cx),
            Operation::Punch { bytes, .. } => self.punched(run_of(guest, about, bytes), done.result),
            Operation::Receive { buffer, .. } => self.received(buffer, done.result, guest, cx),
            Operation::Send { parts, skip, .. } => {
                self.sent(parts, skip, done.result, guest, cx);
                Ok(())
            }
        }
    }

    /// A read came back: what is missing is asked for; what is whole waits to be hashed.
    fn read(
        &mut self,
        what: What,
        about: u64,
        read: Operation<C::Buffer, C::Shared>,
        result: Result<u32, Errno>,
        guest: &Guest<C>,
        cx: &mut Context<'_, C>,
    ) -> Result<(), WorkerError> {
        let Operation::Read { file, offset, mut buffer, from, until } = read else { return Ok(()) };
        if self.draining {
            return Ok(()); // nothing more will be read
        }
        let source = what == What::ReadSource;
        let bytes = result.map_err(if source { WorkerError::Source } else { WorkerError::Target })?;
        if bytes < until - from {
            let Some(more) = goes_on_behind(if source { &guest.source } else { &guest.target }, bytes) else {
                return Err(if source { WorkerError::SourceShrank } else { WorkerError::TargetShrank });
            };
            let (from, offset) = (from + more, offset + u64::from(more));
            self.flight.push(cx.backend, what, about, Operation::Read { file, offset, buffer, from, until });
            return Ok(());
        }
        pad(&mut buffer, until);
        let run = run_of(guest, about, until);
        self.work.push_back(if source { Work::Source(run, buffer) } else { Work::Basis(run, buffer) });
        Ok(())
    }

    /// A hole was made.
    fn punched(&mut self, run: Run, result: Result<u32, Errno>) -> Result<(), WorkerError> {
        self.punching = false;
        result.map_err(WorkerError::Target)?;
        if self.draining { Ok(()) } else { self.written(run) }
    }

    fn sent(
        &mut self,
        parts: Vec<Part<C::Shared>>,
        skip: u32,
        result: Result<u32, Errno>,
        guest: &Guest<C>,
        cx: &mut Context<'_, C>,
    ) {
        match result {
            Ok(bytes) => {
                guest.shared.counters.add(Counter::WireSentBytes, u64::from(bytes));
                let line = self.line.as_mut().expect("it was sent on the line");
                let rest = line.sent(parts, skip, bytes);
                if let Some(rest) = rest.filter(|_| !self.draining) {
                    self.flight.push(cx.backend, What::Send, 0, rest);
                }
            }
            Err(error) => self.lose(Some(error), cx.backend),
        }
    }

    fn received(
        &mut self,
        buffer: C::Buffer,
        result: Result<u32, Errno>,
        guest: &Guest<C>,
        cx: &mut Context<'_, C>,
    ) -> Result<(), WorkerError> {
        let received = match result {
            Ok(received) => received,
            Err(error) => {
                self.lose(Some(error), cx.backend);
                return Ok(());
            }
        };
        guest.shared.counters.add(Counter::WireReceivedBytes, u64::from(received));
        let line = self.line.as_mut().expect("it was received on the line");
        if line.received(buffer, received) {
            self.payload_complete(guest, cx)?;
        }
        if received == 0 && !self.draining {
            let line = self.line.as_ref().expect("see above");
            // A target is the first to stop, and awaits its turn although it has nothing open.
            let done = self.source.as_ref().is_some_and(|source| source.0.idle());
            if line.mid_frame() || !done {
                self.lose(None, cx.backend);
            }
        }
        Ok(())
    }

    /// All of a data frame is there. The target is told, and the payload is to be hashed.
    fn payload_complete(&mut self, guest: &Guest<C>, cx: &mut Context<'_, C>) -> Result<(), WorkerError> {
        if self.draining {
            return Ok(());
        }
        let layout = &guest.terms.layout;
        let line = self.line.as_mut().expect("payloads come over the line");
        let taken = line.take_payload(|run| layout.checked_bytes(run));
        let (mut pieces, payload_bytes, mut buffer) = match taken {
            Ok(taken) => taken,
            Err(error) => return self.unreadable(error, cx),
        };
        let target = self.target.as_mut().expect("only a target is sent data");
        let frame = Frame::Data { pieces: &pieces, payload_bytes };
        target.call(|target| target.handle(TargetEvent::Frame(frame)))??;
        pad(&mut buffer, payload_bytes);
        join_adjacent(&mut pieces);
        self.work.push_back(Work::Payload { pieces, next: 0, from: 0, buffer });
        Ok(())
    }

    /// What came is no frame of the peer's. If somebody else has made it so, that costs the connection, not the session.
    fn unreadable(&mut self, error: LineError, cx: &mut Context<'_, C>) -> Result<(), WorkerError> {
        match error {
            LineError::Decode(error) => Err(ProtocolError::from(error).into()),
            LineError::Forged => {
                self.lose(Some(Errno::BAD_MESSAGE), cx.backend);
                Ok(())
            }
        }
    }

    fn written(&mut self, run: Run) -> Result<(), WorkerError> {
        let target = self.target.as_mut().expect("only a target writes");
        Ok(target.call(|target| target.handle(TargetEvent::Written(run)))??)
    }

    // --- looking at it ---

    /// Does all that can be done now: hashes, lets the machines act, sends, receives, writes.
    ///
    /// # Errors
    /// What ends the session.
    pub(super) fn advance(&mut self, guest: &mut Guest<C>, cx: &mut Context<'_, C>) -> Result<(), WorkerError> {
        if self.draining {
            self.hunger_ends(guest);
            return Ok(());
        }
        self.starved = false;
        let outwritten = std::mem::take(&mut self.outwritten);
        loop {
            let mut moved = self.hash(guest, cx)?;
            moved |= self.take_frames(guest, cx)?;
            if self.draining {
                break; // what came was forged: nothing of it is held any more
            }
            moved |= self.run_target(guest, cx)?;
            moved |= self.run_source(guest, cx)?;
            moved |= self.run_readback(guest, cx)?;
            moved |= self.write(outwritten, guest, cx)?;
            if !moved || self.draining {
                break;
            }
        }
        if let Some(line) = self.line.as_mut().filter(|_| !self.draining) {
            // Control is told first: the peer's control may answer what is sent before ours has heard of it.
            if guest.outbox.is_empty()
                && let Some(send) = line.flush()
            {
                self.flight.push(cx.backend, What::Send, 0, send);
            }
            if let Some(receive) = line.receive() {
                self.flight.push(cx.backend, What::Receive, 0, receive);
            }
        }
        Ok(())
    }

    /// Hashes one thing, if there is one and the quantum is not used up.
    fn hash(&mut self, guest: &mut Guest<C>, cx: &mut Context<'_, C>) -> Result<bool, WorkerError> {
        if *cx.quantum_bytes == 0 {
            return Ok(false);
        }
        let Some(work) = self.work.pop_front() else { return Ok(false) };
        match work {
            Work::Source(run, buffer) => {
                let bytes = hash_run(guest, run, Some(&buffer), cx);
                self.sign_source(guest, run, Some(&buffer), cx.bench)?;
                self.reading.source -= 1;
                self.held.push((run, C::share(buffer)));
                self.source_hashed(run, cx.bench)?;
                guest.shared.counters.add(Counter::ReadBytes, bytes);
            }
            Work::SourceHole(run) => {
                hash_run::<C>(guest, run, None, cx);
                self.sign_source(guest, run, None, cx.bench)?;
                self.source_hashed(run, cx.bench)?;
            }
            Work::Basis(run, buffer) => {
                if !self.take_from_source(run, &buffer, guest, cx)? {
                    hash_run(guest, run, Some(&buffer), cx);
                    if self.target.is_some() {
                        sign_run(guest, run, Some(&buffer), cx.bench);
                    }
                }
                drop(buffer);
                self.reading.basis -= 1;
                let Bench { digests, signatures, .. } = &*cx.bench;
                if let Some(target) = &mut self.target {
                    target.call(|target| target.handle(TargetEvent::Hashed { run, digests, signatures }))??;
                } else if let Some(readback) = &mut self.readback {
                    readback.call(|readback| readback.hashed(run, digests))?;
                }
                guest.shared.counters.add(Counter::ReadBytes, guest.terms.layout.run_bytes(run));
            }
            Work::TargetHole(run) => {
                hash_run::<C>(guest, run, None, cx);
                self.arrived(run, &cx.bench.digests)?;
                self.writes.push_back(Write::Hole(run));
            }
            Work::Payload { pieces, next, from, buffer } => {
                let run = pieces[next];
                let until = from + bytes_of(guest, run);
                hash_run(guest, run, Some(&buffer[from as usize..]), cx);
                self.arrived(run, &cx.bench.digests)?;
                if next + 1 < pieces.len() {
                    self.work.push_front(Work::Payload { pieces, next: next + 1, from: until, buffer });
                } else {
                    self.payload_hashed(pieces, buffer, guest);
                }
            }
        }
        Ok(true)
    }

    /// Signs blocks of the source that were hashed last, as far and as their stripe is compared.
    fn sign_source(
        &mut self,
        guest: &Guest<C>,
        run: Run,
        bytes: Option<&[u8]>,
        bench: &mut Bench,
    ) -> Result<(), WorkerError> {
        let source = self.source.as_mut().expect("its extents are the source's");
        let (count, by_heads) = source.call(|source| (source.compared_blocks(run), source.compares_heads(run)))?;
        let sign = if by_heads { sign_heads } else { sign_run };
        sign(guest, Run { count, ..run }, bytes, bench);
        Ok(())
    }

    fn source_hashed(&mut self, run: Run, bench: &Bench) -> Result<(), WorkerError> {
        let Bench { digests, signatures, .. } = bench;
        let source = self.source.as_mut().expect("its extents are the source's");
        Ok(source.call(|source| source.handle(SourceEvent::Hashed { run, digests, signatures }))??)
    }

    fn arrived(&mut self, run: Run, digests: &[Digest]) -> Result<(), WorkerError> {
        let target = self.target.as_mut().expect("blocks arrive at a target");
        Ok(target.call(|target| target.handle(TargetEvent::Arrived { run, digests }))??)
    }
}

/// A machine, called where a panic is caught: it holds nothing that a panic could leave half done but itself, and it is
/// not called again afterwards.
#[derive(Debug)]
struct Guarded<M>(M);

impl<M> Guarded<M> {
    fn call<'a, R>(&'a mut self, call: impl FnOnce(&'a mut M) -> R) -> Result<R, WorkerError> {
        catch_unwind(AssertUnwindSafe(|| call(&mut self.0))).map_err(|_| WorkerError::Panic)
    }
}

/// What follows the last byte may be written along, to fill a direct write's last unit.
fn pad(buffer: &mut [u8], bytes: u32) {
    let padded = bytes.next_multiple_of(DIRECT_ALIGNMENT) as usize;
    let end = padded.min(buffer.len());
    buffer[bytes as usize..end].fill(0);
}

/// Where a read or write goes on that was short after `moved` bytes: past the page cache at a multiple of 4096, so that
/// some bytes may move again. `None`: it would move the same again, for ever.
fn goes_on_behind(file: &Option<OpenFile>, moved: u32) -> Option<u32> {
    let direct = file.as_ref().is_some_and(|file| file.mode == Mode::Direct);
    let behind = if direct { moved - moved % DIRECT_ALIGNMENT } else { moved };
    (behind > 0).then_some(behind)
}

/// The run of blocks that begins at block `first` and has `bytes`.
fn run_of<C: Completions>(guest: &Guest<C>, first: u64, bytes: u32) -> Run {
    Run { first, count: bytes.div_ceil(guest.terms.layout.block().bytes()) }
}

fn offset_of<C: Completions>(guest: &Guest<C>, run: Run) -> u64 {
    guest.terms.layout.offset(run)
}

/// Bytes of a run that fits a buffer.
fn bytes_of<C: Completions>(guest: &Guest<C>, run: Run) -> u32 {
    u32::try_from(guest.terms.layout.run_bytes(run)).expect("no longer than a buffer")
}

/// Where the bytes of a piece are held.
fn part_of<C: Completions>(guest: &Guest<C>, held: &[(Run, C::Shared)], run: Run) -> Part<C::Shared> {
    let (extent, data) = held.iter().find(|(extent, _)| extent.contains(run)).expect("a piece lies in one held extent");
    let from = u32::try_from((run.first - extent.first) * u64::from(guest.terms.layout.block().bytes()));
    let from = from.expect("inside a buffer");
    Part { data: data.clone(), from, until: from + bytes_of(guest, run) }
}

/// Digests of `run` onto the bench: of `bytes`, which begin with it, or of zeros. Says how many bytes.
fn hash_run<C: Completions>(guest: &Guest<C>, run: Run, bytes: Option<&[u8]>, cx: &mut Context<'_, C>) -> u64 {
    let (layout, digests) = (&guest.terms.layout, &mut cx.bench.digests);
    digests.resize(run.count as usize, Digest::default());
    match bytes {
        Some(bytes) => hash_blocks(layout, run, &bytes[..bytes_of(guest, run) as usize], digests),
        None => hash_hole(layout, run, digests),
    }
    let length = layout.run_bytes(run);
    *cx.quantum_bytes = cx.quantum_bytes.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
    length
}

/// Signatures of `run`, or all of what was hashed last: only of blocks that are compared, as another method than BLAKE3 is a
/// second hash.
fn sign_run<C: Completions>(guest: &Guest<C>, run: Run, bytes: Option<&[u8]>, bench: &mut Bench) {
    let Terms { layout, method, .. } = &guest.terms;
    let Bench { digests, signatures, .. } = bench;
    let digests = &digests[..run.count as usize];
    signatures.resize(run.count as usize, Signature::default());
    match bytes {
        Some(bytes) => sign_blocks(*method, layout, &bytes[..bytes_of(guest, run) as usize], digests, signatures),
        None => sign_hole(*method, layout, run, digests, signatures),
    }
}
