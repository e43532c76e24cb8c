//! The course of a session after its handshake, on the control connection: who has finished what, what comes next, and
//! how it ends, well or not.
//!
//! The same machine on both sides, and for a copy that has both ends in one process, which has no peer. The order of the
//! end is the point: all stripes equal and written, nothing in flight any more; the source says that its file has not
//! changed, and its digest; the digests are equal; what was written reads back (`--verify`); commit; only then 'committed'.
//! The first failure is the session's. Who fails says so first, and stops then.

use super::changes::Changes;
use super::{Finished, ProtocolError};
use crate::digest::{Digest, fold_file};
use crate::extent::{Layout, StripeIndex};
use crate::failure::{Failure, Kind};
use crate::limits::{BLAME_MS, HEARTBEAT_MS, NO_PROGRESS_MS};
use crate::wire::{Beat, Committed, FailureMessage, Message, Proof};
use std::collections::{BTreeMap, VecDeque};

/// Which ends are here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The peer has the target.
    Source,
    /// The peer has the source.
    Target,
    /// Both; there is no peer.
    Both,
}

/// What the course is told.
#[derive(Debug)]
pub enum Event {
    /// The peer said something.
    Message(Message),
    /// The peer's end of the control connection is closed or lost; why, in a few words.
    PeerGone(String),
    /// A stripe is finished on this side.
    Stripe(Finished),
    /// A stripe reads back as it has to.
    ReadBack(StripeIndex),
    /// A worker has the first write ready.
    WantsToWrite,
    /// A data connection was lost; its stripes are back at the cursor.
    Lost(String),
    /// Nothing of the session is left on one worker.
    WorkerEnded,
    /// Something failed on this side.
    Failed(Failure),
    /// The target is marked unfinished: an answer to [`Action::Mark`].
    Marked,
    /// The source is as it was: an answer to [`Action::CheckSource`], as is [`Event::Failed`].
    SourceUnchanged,
    /// The target is final: an answer to [`Action::Commit`]. What was counted, and whether anything about it changed.
    Committed(Committed),
    /// Time passes. `progress` grows with what moves on this side; `busy`: an action is still being worked on.
    Tick { now_ms: u64, beat: Beat, busy: bool },
}

impl Event {
    /// A commit that has begun is waited for: what would stop the session before stops nothing any more.
    fn comes_too_late(&self) -> bool {
        match self {
            Self::PeerGone(_) | Self::Message(_) => true,
            Self::Failed(failure) => matches!(failure.kind, Kind::Interrupted | Kind::ConnectionLost | Kind::Protocol),
            _ => false,
        }
    }
}

/// What the course asks for.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Send a message.
    Send(Message),
    /// Mark the target unfinished.
    Mark,
    /// Let the workers write.
    AllowWriting,
    /// Tell the workers that the cursor has stripes again.
    Resume,
    /// Stop the workers; each answers [`Event::WorkerEnded`].
    StopWorkers,
    /// See whether the source is as it was.
    CheckSource,
    /// Start workers to read these stripes back.
    ReadBack(Vec<(StripeIndex, Digest)>),
    /// Make the target final; `wrote`: something of it was written (in a dry run: would have been).
    Commit { wrote: bool },
    /// It is over: all is done, or this is why not. Nothing comes after it.
    End(Result<(), Failure>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Stripes are being copied.
    Copying,
    /// All stripes are finished; the workers are stopping.
    Draining,
    /// Source: its file is being looked at.
    Checking,
    /// Target: the source is asked for its proof.
    AwaitingProof,
    /// Target: written stripes are read back.
    ReadingBack { left: u64 },
    /// Target: read back, the workers are stopping.
    DrainingAgain,
    /// Target: being made final.
    Committing,
    /// Source: the target has the proof.
    AwaitingCommitted,
    /// It failed; the workers are stopping.
    Failing,
    /// It is over.
    Ended,
}

/// What a session is about, for the course.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which ends are here.
    pub role: Role,
    /// How the file is cut up.
    pub layout: Layout,
    /// Nothing is written.
    pub dry_run: bool,
    /// What is written is read back.
    pub verify: bool,
    /// A session before this one was lost, which may have written.
    pub again: bool,
    /// Data connections that joined.
    pub connections: u32,
    /// Workers that were started.
    pub workers: u32,
    /// Who the peer is, for people.
    pub peer: Vec<u8>,
    /// What the target is called on this side.
    pub target: Vec<u8>,
    /// When.
    pub now_ms: u64,
}

/// The course of one session.
#[derive(Debug)]
pub struct Course {
    start: Start,
    state: State,
    actions: VecDeque<Action>,
    /// Digests of finished stripes. A peer may have them in any order: what they take follows the work that was done.
    stripes: BTreeMap<StripeIndex, Digest>,
    written: Vec<StripeIndex>,
    changes: Changes,
    wrote: bool,
    marking: bool,
    may_write: bool,
    root: Option<Digest>,
    proven: bool,
    read_back: bool,
    outcome: Option<Committed>,
    workers: u32,
    lost: u32,
    lost_ms: Option<u64>,
    last_loss: String,
    failure: Option<Failure>,
    peer_stopped: bool,
    peer_untouched: bool,
    peer_beat: Beat,
    own_beat: Beat,
    own_progress: u64,
    /// Ticks during which something of ours was worked on: that is progress too.
    busy_ticks: u64,
    moved_ms: u64,
    beat_ms: u64,
    now_ms: u64,
}

impl Course {
    /// Begins. `may_write`: the target needs no mark.
    pub fn new(start: Start, may_write: bool) -> Self {
        let mut course = Self {
            state: State::Copying,
            actions: VecDeque::new(),
            stripes: BTreeMap::new(),
            written: Vec::new(),
            changes: Changes::new(start.layout),
            wrote: false,
            marking: false,
            may_write,
            root: None,
            proven: false,
            read_back: false,
            outcome: None,
            workers: start.workers,
            lost: 0,
            lost_ms: None,
            last_loss: String::new(),
            failure: None,
            peer_stopped: false,
            peer_untouched: false,
            peer_beat: Beat::default(),
            own_beat: Beat::default(),
            own_progress: 0,
            busy_ticks: 0,
            moved_ms: start.now_ms,
            beat_ms: start.now_ms,
            now_ms: start.now_ms,
            start,
        };
        course.look_whether_finished();
        course
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// It is over.
    pub fn ended(&self) -> bool {
        self.state == State::Ended
    }

    /// The source's digest, where it is known for certain.
    pub fn digest(&self) -> Option<Digest> {
        self.root.filter(|_| !self.start.dry_run)
    }

    /// Both ends had the same digest.
    pub fn proven(&self) -> bool {
        self.proven && !self.start.dry_run
    }

    /// The peer was asked to stop, and will not be there for a while.
    pub fn peer_stopped(&self) -> bool {
        self.peer_stopped
    }

    /// The peer has failed and, as it says, left the target as it was.
    pub fn peer_untouched(&self) -> bool {
        self.peer_untouched
    }

    /// Some stripe of the target is proven, so that it is worth keeping.
    pub fn worth_keeping(&self) -> bool {
        !self.stripes.is_empty()
    }

    /// What the target says at the end; on the target's side what it will say.
    pub fn outcome(&self) -> Option<Committed> {
        self.outcome
    }

    /// How far the peer is.
    pub fn peer_beat(&self) -> Beat {
        self.peer_beat
    }

    /// For how long nothing has moved, neither here nor there.
    pub fn still_ms(&self) -> u64 {
        self.now_ms.saturating_sub(self.moved_ms)
    }

    /// What was said of the last data connection that was lost while stripes were copied, and how many were; `None`: none was.
    pub fn losses(&self) -> Option<(u32, &str)> {
        (self.lost > 0).then_some((self.lost, self.last_loss.as_str()))
    }

    /// Where the changes lay.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Takes note of what happened.
    pub fn handle(&mut self, event: Event) {
        if self.state == State::Ended || (self.state == State::Committing && event.comes_too_late()) {
            return;
        }
        match event {
            Event::Message(message) => self.message(message),
            Event::PeerGone(why) => self.peer_gone(&why),
            Event::Stripe(finished) => self.stripe(finished),
            Event::ReadBack(_) => {
                if let State::ReadingBack { left } = &mut self.state {
                    *left -= 1;
                    if *left == 0 {
                        self.read_back = true;
                        self.state = State::DrainingAgain;
                        self.actions.push_back(Action::StopWorkers);
                    }
                }
            }
            Event::WantsToWrite => {
                if self.may_write {
                    self.actions.push_back(Action::AllowWriting);
                } else if !self.marking && self.state == State::Copying {
                    self.marking = true;
                    self.actions.push_back(Action::Mark);
                }
            }
            Event::Marked => {
                self.marking = false;
                self.may_write = true;
                self.actions.push_back(Action::AllowWriting);
                if self.state == State::Draining && self.workers == 0 {
                    self.drained();
                }
            }
            Event::Lost(why) => self.connection_lost(why),
            Event::WorkerEnded => {
                self.workers = self.workers.saturating_sub(1);
                if self.workers == 0 {
                    self.drained();
                }
            }
            Event::Failed(failure) => self.fail(failure),
            Event::SourceUnchanged => self.source_unchanged(),
            Event::Committed(committed) => self.committed(committed),
            Event::Tick { now_ms, beat, busy } => self.tick(now_ms, beat, busy),
        }
    }

    /// A failure of this side: said first, then everything stops.
    fn fail(&mut self, failure: Failure) {
        let tell = self.start.role != Role::Both;
        self.fail_as(failure, tell);
    }

    fn fail_as(&mut self, failure: Failure, tell: bool) {
        if self.failure.is_some() || self.state == State::Ended {
            return;
        }
        if tell {
            let told = FailureMessage::new(failure.clone(), &self.start.peer);
            self.actions.push_back(Action::Send(Message::Failed(told)));
        }
        self.failure = Some(failure);
        self.state = State::Failing;
        if self.workers > 0 {
            self.actions.push_back(Action::StopWorkers);
        } else {
            self.drained();
        }
    }

    fn lied(&mut self, error: ProtocolError) {
        self.fail(Failure::about(Kind::Protocol, &self.start.peer.clone(), error.to_string()));
    }

    fn message(&mut self, message: Message) {
        match (message, self.state) {
            (Message::Failed(failure), _) => {
                self.peer_stopped |= failure.kind == Kind::Interrupted;
                self.peer_untouched = failure.untouched;
                self.fail_as(failure.told_by(&self.start.peer), false);
            }
            (_, State::Failing) => {}
            (Message::Beat(beat), _) => {
                if beat.progress > self.peer_beat.progress {
                    self.moved_ms = self.now_ms;
                }
                self.peer_beat = beat;
            }
            (Message::Received, State::Copying) if self.start.role == Role::Source => {
                if self.finished() < self.start.layout.stripes() {
                    return self.lied(ProtocolError::NotExpected("'received'"));
                }
                self.drain();
            }
            (Message::Proof(proof), State::AwaitingProof) => self.prove(Digest(proof.digest)),
            (Message::Committed(committed), State::AwaitingCommitted) => {
                let Committed { matched_bytes, changed_bytes, hole_bytes, changed_blocks, read_back, .. } = committed;
                let layout = &self.start.layout;
                let all = matched_bytes.checked_add(changed_bytes).and_then(|bytes| bytes.checked_add(hole_bytes));
                if all != Some(layout.file_bytes()) || changed_blocks > layout.blocks() {
                    return self.lied(ProtocolError::Value("count of what is done"));
                }
                if read_back && (!self.start.verify || self.start.dry_run) {
                    return self.lied(ProtocolError::Value("word of what was read back"));
                }
                self.outcome = Some(committed);
                self.proven = true;
                self.read_back = committed.read_back;
                self.end(Ok(()));
            }
            _ => self.lied(ProtocolError::NotExpected("a message of this kind")),
        }
    }

    fn peer_gone(&mut self, why: &str) {
        let text = if self.last_loss.is_empty() { why } else { &self.last_loss };
        let text = format!("connection lost: {text}");
        self.fail_as(Failure::about(Kind::ConnectionLost, &self.start.peer.clone(), text), false);
    }

    fn connection_lost(&mut self, why: String) {
        if self.state != State::Copying {
            return;
        }
        self.lost += 1;
        self.last_loss = why;
        if self.lost < self.start.connections {
            // The others make it up.
            self.actions.push_back(Action::Resume);
        } else {
            self.lost_ms = Some(self.now_ms);
        }
    }

    fn stripe(&mut self, finished: Finished) {
        self.moved_ms = self.now_ms; // of a hole nothing else may tell
        self.stripes.insert(finished.stripe, finished.digest);
        self.changes.note(&finished);
        if finished.changed_blocks > 0 {
            self.wrote = true;
            if self.start.verify {
                self.written.push(finished.stripe);
            }
        }
        self.look_whether_finished();
    }

    /// Stripes that are finished.
    fn finished(&self) -> u64 {
        self.stripes.len() as u64
    }

    /// The target decides when all is there; the source waits for its word.
    fn look_whether_finished(&mut self) {
        let all = self.finished() == self.start.layout.stripes();
        if all && self.state == State::Copying && self.start.role != Role::Source {
            self.drain();
        }
    }

    fn drain(&mut self) {
        self.state = State::Draining;
        if self.workers > 0 {
            self.actions.push_back(Action::StopWorkers);
        } else {
            self.drained();
        }
    }

    /// No worker has anything of the session left.
    fn drained(&mut self) {
        match self.state {
            State::Failing => {
                let failure = self.failure.clone().expect("failing");
                self.end(Err(failure));
            }
            // Nobody wants to write any more, but the target is not free yet.
            State::Draining if self.marking => {}
            State::Draining if self.start.role == Role::Target => {
                self.state = State::AwaitingProof;
                self.actions.push_back(Action::Send(Message::Received));
            }
            State::Draining => {
                self.state = State::Checking;
                self.actions.push_back(Action::CheckSource);
            }
            State::DrainingAgain => self.commit(),
            // A worker left without being asked to: it failed, and has said so, or it is gone.
            _ => self.fail(Failure::new(Kind::Other, "the workers have ended too early")),
        }
    }

    fn source_unchanged(&mut self) {
        if self.state != State::Checking {
            return;
        }
        let root = self.fold();
        self.root = Some(root);
        if self.start.role == Role::Both {
            self.proven = true;
            return self.read_back();
        }
        self.state = State::AwaitingCommitted;
        self.beat();
        self.actions.push_back(Action::Send(Message::Proof(Proof::from(root))));
    }

    fn fold(&self) -> Digest {
        if self.start.dry_run {
            return Digest::default();
        }
        let digests: Vec<Digest> = self.stripes.values().copied().collect();
        fold_file(&self.start.layout, &digests)
    }

    fn prove(&mut self, theirs: Digest) {
        let root = self.fold();
        if root != theirs {
            let text = "the two ends do not agree on the file's digest; the target is unfinished, try again";
            return self.fail(Failure::about(Kind::Verification, &self.start.target.clone(), text));
        }
        self.root = Some(root);
        self.proven = true;
        self.read_back();
    }

    fn read_back(&mut self) {
        if !self.start.verify || self.start.dry_run {
            return self.commit();
        }
        let digest = |stripe: &StripeIndex| self.stripes.get(stripe).map(|digest| (*stripe, *digest));
        // What was lost may have written what is now found to be equal, in memory.
        let stripes: Vec<(StripeIndex, Digest)> = if self.start.again || self.lost > 0 {
            self.stripes.iter().map(|(stripe, digest)| (*stripe, *digest)).collect()
        } else {
            self.written.iter().filter_map(digest).collect()
        };
        if stripes.is_empty() {
            self.read_back = true; // nothing was written, nothing is to be read
            return self.commit();
        }
        self.state = State::ReadingBack { left: stripes.len() as u64 };
        self.actions.push_back(Action::ReadBack(stripes));
    }

    /// The workers of [`Action::ReadBack`] were started.
    pub fn reading_back(&mut self, workers: u32) {
        self.workers = workers;
    }

    fn commit(&mut self) {
        self.state = State::Committing;
        self.actions.push_back(Action::Commit { wrote: self.wrote });
    }

    fn committed(&mut self, committed: Committed) {
        if self.state != State::Committing {
            return;
        }
        let committed = Committed { read_back: self.read_back, ..committed };
        self.outcome = Some(committed);
        if self.start.role == Role::Target {
            self.beat();
            self.actions.push_back(Action::Send(Message::Committed(committed)));
        }
        self.end(Ok(()));
    }

    fn end(&mut self, result: Result<(), Failure>) {
        self.state = State::Ended;
        self.actions.push_back(Action::End(result));
    }

    fn tick(&mut self, now_ms: u64, beat: Beat, busy: bool) {
        self.now_ms = now_ms;
        if busy {
            self.busy_ticks += 1;
        }
        let progress = beat.progress + self.busy_ticks;
        self.own_beat = Beat { progress, ..beat };
        if progress != self.own_progress {
            self.own_progress = progress;
            self.moved_ms = now_ms;
        }
        if self.state == State::Failing {
            return;
        }
        if self.start.role != Role::Both && now_ms.saturating_sub(self.beat_ms) >= HEARTBEAT_MS {
            self.beat_ms = now_ms;
            self.beat();
        }
        let blamed = self.lost_ms.is_some_and(|lost_ms| now_ms.saturating_sub(lost_ms) >= BLAME_MS);
        if blamed && self.state == State::Copying {
            let text = format!("connection lost: {}", self.last_loss);
            return self.fail(Failure::about(Kind::ConnectionLost, &self.start.peer.clone(), text));
        }
        if self.still_ms() >= NO_PROGRESS_MS {
            let text = format!("nothing has moved for {} seconds: {}", NO_PROGRESS_MS / 1000, self.awaited());
            self.fail(Failure::about(Kind::NoProgress, &self.start.peer.clone(), text));
        }
    }

    fn beat(&mut self) {
        self.actions.push_back(Action::Send(Message::Beat(self.own_beat)));
    }

    /// What waits for what, for people.
    fn awaited(&self) -> String {
        let stripes = self.start.layout.stripes();
        match (self.state, self.start.role) {
            (State::Copying, Role::Source) => {
                format!("the target does not ask or does not take ({} of {stripes} stripes sent)", self.finished())
            }
            (State::Copying, _) => {
                format!(
                    "data does not come, or the disk does not take it ({} of {stripes} stripes done)",
                    self.finished()
                )
            }
            (State::AwaitingProof, _) => "the source does not say that it is done".into(),
            (State::AwaitingCommitted, _) => "the target does not say that it is done".into(),
            _ => "the disk does not answer".into(),
        }
    }
}

#[cfg(test)]
mod tests;
