//! One thread, one core, one ring: the loop that everything on the way of the data happens in.
//!
//! Workers belong to the process and serve all sessions; a session's part on a worker is its *guest*. Jobs come from
//! control, outcomes go there, bytes come and go through the completions below. Nothing is shared with other workers but
//! the session's cursor, counters and pen. An error ends the guest's session and no other.

mod connection;
mod guest;
mod holes;
pub mod inbox;
mod line;
mod share;
mod timesheet;
mod turns;

use crate::completion::{Account, Completions, Errno, Pool};
use crate::counters::Counter;
use crate::extent::StripeIndex;
use crate::limits::{ADMISSION_MS, HASH_QUANTUM_BYTES, HELD_UP_MS, LOOK_MS, SESSIONS_MAX};
use crate::session::ProtocolError;
use connection::{Bench, Connection, Context, Hunger};
use guest::{Guest, OpenFile, frames, least_pool};
use inbox::{Ends, Inbox, Job, Joined, Outcome, SessionKey, SessionShared, Start};
use line::{Line, untag};
use share::{Full, Shares};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use timesheet::Timesheet;

/// Why a session ended on a worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WorkerError {
    /// The source cannot be read.
    Source(Errno),
    /// The source ended before its end.
    SourceShrank,
    /// The target cannot be read or written.
    Target(Errno),
    /// The target ended before its end.
    TargetShrank,
    /// The peer broke the protocol.
    Protocol(ProtocolError),
    /// A stripe is not what the source says, also the second time.
    Unequal(StripeIndex),
    /// This worker has no room for another session.
    Busy,
    /// A machine panicked.
    Panic,
}

impl fmt::Display for WorkerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => write!(f, "cannot be read: {error}"),
            Self::SourceShrank => write!(f, "became shorter while it was read"),
            Self::Target(error) => write!(f, "cannot be written: {error}"),
            Self::TargetShrank => write!(f, "became shorter while it was updated"),
            Self::Protocol(error) => error.fmt(f),
            Self::Unequal(stripe) => write!(f, "stripe {stripe} is not what the source has, also when sent again"),
            Self::Busy => write!(f, "has no room for another session now; try again later"),
            Self::Panic => write!(f, "an internal error ended the session; please report it"),
        }
    }
}

impl std::error::Error for WorkerError {}

impl From<ProtocolError> for WorkerError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// A guest with its connections.
type Party<C> = (Guest<C>, Vec<Connection<C>>);

/// One worker.
#[derive(Debug)]
pub struct Worker<C: Completions> {
    backend: C,
    inbox: Inbox<C>,
    /// Sessions whose minimum of buffers is still in use, and until when they wait for it. `None`: until it is free.
    waiting: VecDeque<(Box<Start<C>>, Option<u64>)>,
    /// Sessions of which nothing is here, to be told so, and before it what has failed.
    farewells: VecDeque<(Arc<SessionShared>, Option<WorkerError>)>,
    /// Boxed, as all places are looked at in every turn: that is two lines of the cache instead of one each.
    parties: [Option<Box<Party<C>>>; SESSIONS_MAX],
    shares: Shares,
    bench: Bench,
    timesheet: Timesheet,
    /// Connections to look at: slot and index.
    list: VecDeque<(usize, usize)>,
    /// Which connection of a session is listed first, as far as it has so many.
    first: usize,
    leaving: bool,
    looked_ms: u64,
}

impl<C: Completions> Worker<C> {
    /// A worker without guests.
    pub fn new(backend: C, inbox: Inbox<C>) -> Self {
        inbox.beat(backend.now_ms());
        Self {
            backend,
            inbox,
            waiting: VecDeque::new(),
            farewells: VecDeque::new(),
            parties: std::array::from_fn(|_| None),
            shares: Shares::default(),
            bench: Bench::default(),
            timesheet: Timesheet::default(),
            list: VecDeque::new(),
            first: 0,
            leaving: false,
            looked_ms: 0,
        }
    }

    /// Works until it is told to leave and its last guest has gone.
    ///
    /// # Errors
    /// When what is below fails as a whole.
    pub fn run(mut self) -> Result<(), Errno> {
        while self.turn(LOOK_MS)? {}
        Ok(())
    }

    /// One round: jobs, completions, connections; then waits up to `wait_ms` for more, if there is nothing left to do.
    /// `false`: it has left.
    pub fn turn(&mut self, wait_ms: u64) -> Result<bool, Errno> {
        while let Ok(job) = self.inbox.jobs.try_recv() {
            self.work_on(job);
        }
        self.flush_outboxes();
        self.list_those(Connection::is_outwritten);
        let mut quantum_bytes = HASH_QUANTUM_BYTES;
        let mut idle = true;
        loop {
            let mut moved = false;
            while let Some(completion) = self.backend.pop() {
                if !moved {
                    // Buffers may come back, and would stay with those who had them.
                    self.list_those(Connection::is_starved);
                }
                moved = true;
                self.complete(completion, &mut quantum_bytes);
            }
            moved |= !self.list.is_empty();
            // Once around: who has work left after the quantum is used up is listed again.
            for _ in 0..self.list.len() {
                let (slot, index) = self.list.pop_front().expect("counted");
                self.look_at(slot, index, &mut quantum_bytes);
            }
            idle &= !moved;
            if !moved || quantum_bytes == 0 {
                break;
            }
        }
        self.dismiss_drained();
        self.start_waiting();
        self.say_farewells();
        if self.leaving && self.is_empty() {
            return Ok(false);
        }
        let held_up = !self.farewells.is_empty()
            || self.parties.iter().filter_map(Option::as_deref).any(|(guest, _)| guest.held_up);
        let copies = !idle && self.copies();
        let outwritten =
            self.parties.iter().filter_map(Option::as_deref).any(|(_, all)| all.iter().any(Connection::is_outwritten));
        let busy = !self.list.is_empty() || !self.inbox.jobs.is_empty() || outwritten;
        let wait_ms = match (busy || copies, held_up) {
            (true, _) => 0,
            (false, true) => wait_ms.min(HELD_UP_MS),
            (false, false) => wait_ms,
        };
        if wait_ms > 0 || copies {
            self.book_work(self.backend.now_ns());
        }
        self.backend.turn(wait_ms)?;
        let now_ns = self.backend.now_ns();
        self.book_turn(wait_ms > 0, copies, now_ns);
        self.look_around(now_ns / 1_000_000);
        self.inbox.beat(now_ns / 1_000_000);
        Ok(true)
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.farewells.is_empty() && self.parties.iter().all(Option::is_none)
    }

    /// For tests: no guest is left, and every buffer is back.
    #[cfg(test)]
    pub(crate) fn assert_empty(&self) {
        assert!(self.is_empty());
        for pool in [Pool::Frame, Pool::Small, Pool::Large, Pool::Payload] {
            assert_eq!(self.backend.free(pool), pool.buffers());
        }
    }

    fn work_on(&mut self, job: Job<C>) {
        match job {
            Job::Start(start) => {
                // What is read back was copied: it is too late to say that there is no room.
                let read_back = matches!(start.ends, Ends::ReadBack { .. });
                let until_ms = (!read_back).then(|| self.backend.now_ms() + ADMISSION_MS);
                self.waiting.push_back((start, until_ms));
            }
            Job::Resume(key) => {
                if let Some(slot) = self.slot_of(key) {
                    self.resume(slot);
                }
            }
            Job::Stop(key) => {
                if let Some(slot) = self.slot_of(key) {
                    self.stop(slot, None);
                } else if let Some(at) = self.waiting.iter().position(|(start, _)| start.key == key) {
                    let gone = self.waiting.remove(at);
                    self.farewells.extend(gone.map(|(start, _)| (start.shared, None)));
                }
            }
            Job::Leave => self.leaving = true,
        }
    }

    /// The cursor may have stripes for those connections whose turn it is, and all may be allowed to write now.
    fn resume(&mut self, slot: usize) {
        let Some((guest, connections)) = self.parties[slot].as_deref_mut() else { return };
        let failed = guest.turns.theirs().find_map(|index| connections.get_mut(index)?.resume().err());
        let count = connections.len();
        (0..count).for_each(|index| self.enlist(slot, index));
        if let Some(error) = failed {
            self.stop(slot, Some(error));
        }
    }

    /// Control was behind, and connections took no new stripes and sent nothing: perhaps it has caught up.
    fn flush_outboxes(&mut self) {
        for slot in 0..SESSIONS_MAX {
            let Some((guest, connections)) = self.parties[slot].as_deref_mut() else { continue };
            if !std::mem::take(&mut guest.held_up) {
                continue;
            }
            guest.flush();
            let count = if guest.held_up { 0 } else { connections.len() };
            (0..count).for_each(|index| self.enlist(slot, index));
        }
    }

    /// Control may be busy with what other workers of the session say: it is told as soon as it has room.
    fn say_farewells(&mut self) {
        for _ in 0..self.farewells.len() {
            let (shared, mut error) = self.farewells.pop_front().expect("counted");
            error = error.filter(|error| shared.tell(Outcome::Failed(*error)).is_err());
            if error.is_some() || shared.tell(Outcome::Ended).is_err() {
                self.farewells.push_back((shared, error));
            }
        }
    }

    fn slot_of(&self, key: SessionKey) -> Option<usize> {
        self.parties.iter().position(|party| party.as_deref().is_some_and(|(guest, _)| guest.key == key))
    }

    /// Those whose minimum is free start, in the order in which they came. For whom it does not come back in time is told.
    fn start_waiting(&mut self) {
        for _ in 0..self.waiting.len() {
            let (start, until_ms) = self.waiting.pop_front().expect("counted");
            let room = self.shares.admit(&self.backend, least_pool(&start.terms), frames(&start));
            let may_wait = match room {
                Ok(_) => false,
                Err(Full::Now) => until_ms.is_none_or(|until_ms| self.backend.now_ms() < until_ms),
                Err(Full::Altogether) => until_ms.is_none(),
            };
            if may_wait {
                self.waiting.push_back((start, until_ms));
                continue;
            }
            let shared = Arc::clone(&start.shared);
            match room {
                Ok(account) => self.start(*start, account),
                Err(_) => self.farewells.push_back((shared, Some(WorkerError::Busy))),
            }
        }
    }

    fn start(&mut self, start: Start<C>, account: Account) {
        let slot = usize::from(account.0);
        let mut guest = Guest::new(&start, account);
        let Start { ends, sockets, .. } = start;
        let connections = if ends.has_lines() {
            let connection = |(index, Joined { number, socket, seals })| {
                let buffer = self.backend.lease(Pool::Frame, account).expect("counted at the door");
                let line = Line::new(self.backend.adopt(socket), seals, buffer);
                Connection::new(slot, index, number, Some(line), guest.machines(&ends))
            };
            sockets.into_iter().enumerate().map(connection).collect()
        } else {
            vec![Connection::new(slot, 0, 0, None, guest.machines(&ends))]
        };
        guest.adopt_files(ends, &mut self.backend);
        let count = connections.len();
        self.parties[slot] = Some(Box::new((guest, connections)));
        (0..count).for_each(|index| self.enlist(slot, index));
    }

    fn enlist(&mut self, slot: usize, index: usize) {
        let Some((_, connections)) = self.parties[slot].as_deref_mut() else { return };
        let Some(connection) = connections.get_mut(index) else { return };
        if !connection.listed {
            connection.listed = true;
            self.list.push_back((slot, index));
        }
    }

    /// Lists all connections of which this is true, another one of a session first each time: where buffers are few, the first
    /// may be the only one that gets any.
    fn list_those(&mut self, is_one: fn(&Connection<C>) -> bool) {
        self.first = self.first.wrapping_add(1);
        for slot in 0..SESSIONS_MAX {
            let count = self.parties[slot].as_deref().map_or(0, |(_, connections)| connections.len());
            let first = self.first % count.max(1);
            for index in (first..count).chain(0..first) {
                if self.parties[slot].as_deref().is_some_and(|(_, connections)| is_one(&connections[index])) {
                    self.enlist(slot, index);
                }
            }
        }
    }

    fn complete(&mut self, completion: crate::completion::Completion<C::Buffer, C::Shared>, quantum_bytes: &mut u32) {
        let (slot, index, what) = untag(completion.tag);
        let about = completion.tag.about;
        self.work_for(slot);
        let (guest, connections) =
            self.parties[slot].as_deref_mut().expect("a guest stays while something is in flight");
        let mut cx =
            Context { backend: &mut self.backend, shares: &self.shares, bench: &mut self.bench, quantum_bytes };
        let result = connections[index].complete(what, about, completion, guest, &mut cx);
        match result {
            Ok(()) => self.enlist(slot, index),
            Err(error) => self.stop(slot, Some(error)),
        }
    }

    fn look_at(&mut self, slot: usize, index: usize, quantum_bytes: &mut u32) {
        self.work_for(slot);
        let Some((guest, connections)) = self.parties[slot].as_deref_mut() else { return };
        let Some(connection) = connections.get_mut(index) else { return };
        connection.listed = false;
        let mut cx =
            Context { backend: &mut self.backend, shares: &self.shares, bench: &mut self.bench, quantum_bytes };
        match connection.advance(guest, &mut cx) {
            Ok(()) if connection.has_work() => self.enlist(slot, index),
            Ok(()) => {}
            Err(error) => self.stop(slot, Some(error)),
        }
        self.call_hungry(slot, index);
        let Some((guest, connections)) = self.parties[slot].as_deref_mut() else { return };
        if guest.turns.pass(|index| connections.get(index).is_some_and(Connection::can_take)) {
            self.resume(slot);
        }
    }

    /// Lists those whose turn it is to have a buffer, if they can have it now: `index`, which was looked at, may have let go of
    /// it and let them go first.
    fn call_hungry(&mut self, slot: usize, index: usize) {
        let Some((guest, _)) = self.parties[slot].as_deref() else { return };
        let next = Hunger::ALL.map(|what| {
            let first = guest.hungry[what as usize].front().copied().filter(|first| *first != index)?;
            let pools = guest.pools(what);
            pools.into_iter().any(|pool| self.shares.allows(&self.backend, pool, guest.account)).then_some(first)
        });
        next.into_iter().flatten().for_each(|first| self.enlist(slot, first));
    }

    /// Stops a guest; what is in flight ends first. Only its first error is told.
    fn stop(&mut self, slot: usize, error: Option<WorkerError>) {
        let Some((guest, connections)) = self.parties[slot].as_deref_mut() else { return };
        if let Some(error) = error
            && !guest.stopping
        {
            guest.tell(Outcome::Failed(error));
        }
        guest.stopping = true;
        connections.iter_mut().for_each(|connection| connection.stop(&mut self.backend));
    }

    /// Connections of which nothing is left go; and so does a guest that was stopped, with its last connection.
    fn dismiss_drained(&mut self) {
        for slot in 0..SESSIONS_MAX {
            let Some((guest, connections)) = self.parties[slot].as_deref_mut() else { continue };
            for connection in connections.iter_mut().filter(|connection| connection.drained()) {
                connection.finish(guest, &mut self.backend);
            }
            if !guest.stopping || !connections.iter().all(Connection::drained) {
                continue;
            }
            connections.clear();
            guest.close_files(&mut self.backend);
            if !guest.ended {
                guest.ended = true;
                guest.tell(Outcome::Ended);
            }
            guest.flush();
            if !guest.outbox.is_empty() {
                continue; // control is behind; it will be told
            }
            self.shares.dismiss(guest.account, guest.frames);
            self.list.retain(|(listed, _)| *listed != slot);
            self.parties[slot] = None;
            self.list_those(Connection::is_starved);
        }
    }

    /// Once a second: bytes that move below us are progress too. Who stands still while the others get on is given up, so
    /// that they do his part: a path of several may be dead, and nobody is told.
    fn look_around(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.looked_ms) < LOOK_MS {
            return;
        }
        self.looked_ms = now_ms;
        // Whoever has its place gets on, and goes.
        let at_last = self.waiting.iter().filter(|(_, until_ms)| until_ms.is_none());
        at_last.for_each(|(start, _)| start.shared.counters.add(Counter::Progress, 1));
        for (guest, connections) in self.parties.iter_mut().filter_map(Option::as_deref_mut) {
            let dribbles = connections.iter().any(|connection| connection.dribbles(now_ms));
            self.shares.confine(guest.account, dribbles);
            let gets_on = guest.lively != guest.shared.lively();
            guest.lively = guest.shared.lively();
            let mut moved = false;
            for connection in connections.iter_mut() {
                moved |= connection.look(gets_on, &mut self.backend);
            }
            guest.shared.counters.add(Counter::Progress, u64::from(moved));
            if moved || connections.iter().any(Connection::is_idle) {
                guest.shared.note_lively();
            }
        }
    }
}
