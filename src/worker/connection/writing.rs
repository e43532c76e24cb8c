//! What a connection writes: when it may, how, and what becomes of a write that came back.
//!
//! Through the page cache the kernel lets one writer at a time into a file, and lets the others spin or sleep. So the workers of
//! a session have a pen, and who has it writes by plain calls, which are the fastest; the others hash meanwhile.

use super::{Connection, Context, Guest, WorkerError, bytes_of, goes_on_behind, offset_of, run_of};
use crate::completion::{Completions, Errno, Mode, Operation, Part, Writing};
use crate::counters::Counter;
use crate::extent::Run;
use crate::limits::OUTWRITTEN_TURNS_MAX;
use crate::worker::inbox::{Outcome, Pen};
use crate::worker::line::What;
use std::sync::MutexGuard;

/// Something to be written.
#[derive(Debug)]
pub(super) enum Write<S> {
    Bytes(Run, Part<S>),
    Hole(Run),
}

/// How a worker writes now, and the pen if it needs it. `None`: another one writes, and this one looks again.
///
/// A plain call may wait for a disk, and a disk that hangs keeps it for ever. So only a worker makes it that has no other guest, and
/// none waits for the pen of one that does.
fn choose(mode: Mode, pen: &Pen, outwritten: u32, alone: bool) -> Option<(Writing, Option<MutexGuard<'_, ()>>)> {
    let looks_again = outwritten < OUTWRITTEN_TURNS_MAX;
    match mode {
        Mode::Memory => pen.take(!looks_again).map(|pen| (Writing::AtOnce, Some(pen))),
        Mode::Buffered if alone => match pen.take(false) {
            None if looks_again => None,
            None => Some((Writing::Meanwhile, None)),
            pen => Some((Writing::AtOnce, pen)),
        },
        Mode::Buffered | Mode::Direct => Some((Writing::Meanwhile, None)),
    }
}

impl<C: Completions> Connection<C> {
    /// All of a payload is hashed: its pieces are to be written, from where they are.
    pub(super) fn payload_hashed(&mut self, mut pieces: Vec<Run>, buffer: C::Buffer, guest: &Guest<C>) {
        let data = C::share(buffer);
        let mut from = 0;
        for run in &pieces {
            let until = from + bytes_of(guest, *run);
            self.writes.push_back(Write::Bytes(*run, Part { data: data.clone(), from, until }));
            from = until;
        }
        pieces.clear();
        self.spare.push(pieces);
    }

    /// Starts the writes, once they are allowed; `outwritten`: in so many looks before this another worker was writing.
    pub(super) fn write(
        &mut self,
        outwritten: u32,
        guest: &mut Guest<C>,
        cx: &mut Context<'_, C>,
    ) -> Result<bool, WorkerError> {
        if self.writes.is_empty() || self.punching {
            return Ok(false);
        }
        if !guest.shared.may_write() {
            if !guest.asked_to_write {
                guest.asked_to_write = true;
                guest.tell(Outcome::WantsToWrite);
            }
            return Ok(false);
        }
        let file = guest.target.as_ref().expect("only a target writes");
        let (id, mode, basis_bytes) = (file.id, file.mode, file.bytes);
        let began_ns = cx.backend.now_ns();
        let Some((how, _pen)) = choose(mode, &guest.shared.pen, outwritten, cx.shares.has_one_guest()) else {
            self.outwritten = outwritten + 1;
            return Ok(false);
        };
        self.outwritten = 0;
        while let Some(write) = self.writes.pop_front() {
            match write {
                Write::Bytes(run, part) => {
                    let offset = offset_of(guest, run);
                    let end = offset + u64::from(part.until - part.from);
                    let grows = mode == Mode::Direct && end > basis_bytes;
                    let how = if grows { Writing::MeanwhileWithRoom } else { how };
                    self.flight.push(
                        cx.backend,
                        What::Write,
                        run.first,
                        Operation::Write { file: id, offset, part, how },
                    );
                }
                Write::Hole(run) => {
                    let offset = offset_of(guest, run);
                    // Beyond the basis there is nothing yet, unless an attempt before this one has written there.
                    if offset >= basis_bytes && !guest.shared.retries() {
                        self.written(run)?;
                        continue;
                    }
                    let bytes = guest.terms.layout.run_bytes(run).try_into().expect("at most a stripe");
                    self.flight.push(cx.backend, What::Write, run.first, Operation::Punch { file: id, offset, bytes });
                    self.punching = true;
                    break;
                }
            }
        }
        if mode != Mode::Memory {
            guest.writing_ns += cx.backend.now_ns().saturating_sub(began_ns);
        }
        Ok(true)
    }

    /// A write came back: the rest of a short one goes on; what is whole is told.
    pub(super) fn wrote(
        &mut self,
        about: u64,
        write: Operation<C::Buffer, C::Shared>,
        result: Result<u32, Errno>,
        guest: &Guest<C>,
        cx: &mut Context<'_, C>,
    ) -> Result<(), WorkerError> {
        let Operation::Write { file, offset, part, .. } = write else { return Ok(()) };
        let bytes = result.map_err(WorkerError::Target)?;
        let whole = bytes == part.until - part.from;
        let more = if whole { None } else { goes_on_behind(&guest.target, bytes) };
        if !whole && more.is_none() {
            return Err(WorkerError::Target(Errno::NO_SPACE)); // a write that writes nothing
        }
        guest.shared.counters.add(Counter::WrittenBytes, u64::from(bytes));
        if self.draining {
            return Ok(());
        }
        if let Some(more) = more {
            let part = Part { from: part.from + more, ..part };
            let rest = Operation::Write { file, offset: offset + u64::from(more), part, how: Writing::Meanwhile };
            self.flight.push(cx.backend, What::Write, about, rest);
            return Ok(());
        }
        // The piece began where `about` says, also if its last write did not.
        let begin = offset_of(guest, Run { first: about, count: 1 });
        let length = offset + u64::from(part.until - part.from) - begin;
        self.written(run_of(guest, about, u32::try_from(length).expect("a piece fits a buffer")))
    }
}
