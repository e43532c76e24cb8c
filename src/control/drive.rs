//! Drives one session after its handshake: gives the course its events, and does what it asks for, with the link to the
//! peer, the workers, and the files.
//!
//! What may take long (a sync, a rename) is done on a thread that may block, one thing at a time; meanwhile heartbeats go
//! on. A commit that has begun is waited for, whatever else happens.

use super::client::Stop;
use super::files::{self, ClosedAside};
use super::link::{Link, LinkError};
use super::{Names, Progress, count};
use crate::bottleneck::{Limit, Side, Spent, limit};
use crate::completion::{Errno, Waker};
use crate::counters::Counter;
use crate::digest::Digest;
use crate::entry::Metadata;
use crate::failure::{Failure, Kind};
use crate::limits::{OUTCOMES_MAX, TICK_MS};
use crate::ring::{OpenFile, Ring};
use crate::root::{Left, RootError, Source, Target};
use crate::session::Terms;
use crate::session::course::{Action, Course, Event, Role, Start as CourseStart};
use crate::wire::{Beat, Committed, Message};
use crate::worker::WorkerError;
use crate::worker::inbox::{Ends, Job, Joined, Mailbox, Outcome, SessionKey, SessionShared, Start};
use crossbeam_channel::Receiver;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// What a session is driven with.
#[derive(Debug)]
pub(super) struct Session<'a> {
    pub(super) terms: Terms,
    pub(super) verify: bool,
    /// A session before this one was lost.
    pub(super) again: bool,
    /// What the source is, whichever side has it.
    pub(super) metadata: Metadata,
    /// What this process has of it, as its workers are given it:
    /// one for each, or why it cannot be had.
    pub(super) ends: Result<Vec<Ends<OpenFile>>, Failure>,
    pub(super) source: Option<ClosedAside<Source>>,
    /// In a dry run it may have no file.
    pub(super) target: Option<Target>,
    /// Workers of this session, in the order in which connections are dealt to them.
    pub(super) mailboxes: Vec<Mailbox<Ring>>,
    pub(super) sockets: Vec<Joined<OwnedFd>>,
    /// `None`: both ends are here.
    pub(super) link: Option<&'a mut Link>,
    /// Workers that the peer has for this session.
    pub(super) peer_workers: u32,
    /// Nothing goes over a network, as far as anybody knows.
    pub(super) same_host: bool,
    /// Connections that take stripes at a time, at least one.
    pub(super) at_once: u32,
    pub(super) names: Names,
    /// Somebody asks us to stop, and why.
    pub(super) stop: watch::Receiver<Stop>,
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) failure: Option<Failure>,
    /// The peer was asked to stop, and will not be there for a while.
    pub(super) peer_stopped: bool,
    pub(super) digest: Option<Digest>,
    pub(super) proven: bool,
    /// What the target counted in the end, or, after a failure, as far as it is known.
    pub(super) counts: Committed,
    /// Whether anything about the target changed, as far as it is known.
    pub(super) changed: Option<bool>,
    /// The name beside a missing target under which what was made of it is kept.
    pub(super) kept: Option<String>,
    /// What limited it, if anything stands out.
    pub(super) limit: Option<Limit>,
    /// Lines for those who want detail.
    pub(super) notes: Vec<String>,
    /// Given to and taken from this side's data sockets.
    pub(super) wire_bytes: (u64, u64),
}

/// Something that may block, when it is done.
enum Done {
    Marked(Box<Target>, Result<(), RootError>),
    Checked(ClosedAside<Source>, Result<bool, RootError>),
    Settled(Box<Target>, Result<Vec<Ends<OpenFile>>, RootError>, u64),
    Committed(Result<bool, (RootError, Left)>),
}

static NEXT_KEY: AtomicU64 = AtomicU64::new(0);

/// The workers' part of a session, seen from here.
struct Workers {
    key: SessionKey,
    shared: Arc<SessionShared>,
    outcomes: Receiver<Outcome>,
    started: Vec<Mailbox<Ring>>,
}

impl Workers {
    /// Starts the session on those workers that have something to do: connections, or everything where there are none.
    fn start(
        stripes: u64,
        terms: Terms,
        ends: Vec<Ends<OpenFile>>,
        mailboxes: &[Mailbox<Ring>],
        sockets: Vec<Joined<OwnedFd>>,
        at_once: u32,
        bell: &Arc<Notify>,
    ) -> Self {
        let key = SessionKey(NEXT_KEY.fetch_add(1, Ordering::Relaxed));
        let bell = Arc::clone(bell);
        let bell = Waker(Arc::new(move || bell.notify_one()));
        let (shared, outcomes) = SessionShared::new(stripes, OUTCOMES_MAX, bell);
        let mut shares: Vec<Vec<Joined<OwnedFd>>> = mailboxes.iter().map(|_| Vec::new()).collect();
        for joined in sockets {
            shares[joined.number as usize % mailboxes.len()].push(joined);
        }
        let at_once = (at_once as usize).div_ceil(mailboxes.len()); // each has its share of them
        let mut started = Vec::new();
        for ((mailbox, sockets), ends) in mailboxes.iter().zip(shares).zip(ends) {
            let lineless = matches!(ends, Ends::Both { .. } | Ends::ReadBack { .. });
            if (lineless || !sockets.is_empty()) && stripes > 0 {
                let start = Start { key, shared: Arc::clone(&shared), terms, ends, sockets, at_once };
                mailbox.post(Job::Start(Box::new(start)));
                started.push(mailbox.clone());
            } else {
                drop(ClosedAside::new(ends));
            }
        }
        Self { key, shared, outcomes, started }
    }

    fn count(&self) -> u32 {
        count(&self.started)
    }

    fn resume(&self) {
        self.started.iter().for_each(|mailbox| mailbox.post(Job::Resume(self.key)));
    }

    fn stop(&self) {
        self.started.iter().for_each(|mailbox| mailbox.post(Job::Stop(self.key)));
    }
}

impl Drop for Workers {
    /// Also if the task that drives the session panics: nothing of it stays on the workers.
    fn drop(&mut self) {
        self.stop();
    }
}

/// Everything that is under way.
struct Drive<'a> {
    session: Session<'a>,
    course: Course,
    bell: Arc<Notify>,
    copying: Workers,
    reading_back: Option<Workers>,
    /// What may block, and since when no worker has anything to do for it.
    blocking: Option<(JoinHandle<Done>, Option<Instant>)>,
    /// How long the target's disk kept everybody waiting.
    blocked: Duration,
    ended: Option<Result<(), Failure>>,
    /// What a commit that failed has left.
    left: Option<Left>,
    began: Instant,
    lately: Lately,
}

/// What limits the copy at present: judged anew for each stretch of time.
#[derive(Debug, Default)]
struct Lately {
    /// Up to when it was judged, and where both sides were then.
    until: Duration,
    before: (Side, Option<Side>),
    limit: Option<Limit>,
}

/// A stretch of time that is judged as one: four heartbeats, so that the peer's count is hardly late.
const STRETCH: Duration = Duration::from_secs(2);

/// Drives a session to its end. `watch` is called with its progress several times a second.
pub(super) async fn drive(mut session: Session<'_>, watch: &mut dyn FnMut(Progress)) -> Ending {
    let bell = Arc::new(Notify::new());
    let role = match (&session.source, &session.target) {
        (Some(_), None) => Role::Source,
        (Some(_), Some(_)) => Role::Both,
        (None, _) => Role::Target,
    };
    let (ends, failure) = match std::mem::replace(&mut session.ends, Ok(Vec::new())) {
        Ok(ends) => (ends, None),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    let connections = count(&session.sockets);
    let at_once = session.at_once;
    let sockets = std::mem::take(&mut session.sockets);
    let stripes = session.terms.layout.stripes();
    let copying = Workers::start(stripes, session.terms, ends, &session.mailboxes, sockets, at_once, &bell);
    let start = CourseStart {
        role,
        layout: session.terms.layout,
        dry_run: session.terms.dry_run,
        verify: session.verify,
        again: session.again,
        connections,
        workers: copying.count(),
        peer: session.names.peer.clone(),
        target: session.names.target.clone(),
        now_ms: 0,
    };
    let unmarked = session.target.as_ref().is_some_and(Target::is_new);
    if unmarked {
        copying.shared.allow_writing();
    }
    let course = Course::new(start, unmarked);
    let mut drive = Drive {
        session,
        course,
        bell,
        copying,
        reading_back: None,
        blocking: None,
        blocked: Duration::ZERO,
        ended: None,
        left: None,
        began: Instant::now(),
        lately: Lately::default(),
    };
    failure.into_iter().for_each(|failure| drive.course.handle(Event::Failed(failure)));
    drive.run(watch).await;
    drive.ending().await
}

impl Drive<'_> {
    async fn run(&mut self, watch: &mut dyn FnMut(Progress)) {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut link_lives = self.session.link.is_some();
        let mut stop = self.session.stop.clone();
        let mut stop_open = true;
        loop {
            while let Some(action) = self.course.poll() {
                self.perform(action);
            }
            if self.ended.is_some() {
                return;
            }
            let event = tokio::select! {
                biased;
                () = self.bell.notified() => {
                    self.hear_workers();
                    continue;
                }
                done = wait_for(&mut self.blocking) => {
                    self.unblock();
                    self.course.handle(self.tick()); // what was counted up to now
                    self.done(done)
                }
                message = receive(&mut self.session.link), if link_lives => match message {
                    Ok(message) => Event::Message(message),
                    Err(error) => {
                        link_lives = false;
                        self.hear_workers(); // what the workers said comes first
                        match error {
                            LinkError::Decode(error) => {
                                let peer = &self.session.names.peer;
                                Event::Failed(Failure::about(Kind::Protocol, peer, error.to_string()))
                            }
                            other => Event::PeerGone(other.to_string()),
                        }
                    }
                },
                changed = stop.changed(), if stop_open => {
                    stop_open = changed.is_ok();
                    let Some((failure, _)) = stop.borrow_and_update().clone() else { continue };
                    Event::Failed(failure)
                }
                _ = ticks.tick() => {
                    watch(self.progress());
                    self.tick()
                }
            };
            self.course.handle(event);
        }
    }

    fn tick(&self) -> Event {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Event::Tick { now_ms, beat: self.beat(), busy: self.blocking.is_some() }
    }

    fn count(&self, counter: Counter) -> u64 {
        let reading_back = self.reading_back.as_ref().map_or(0, |workers| workers.shared.counters.read(counter));
        self.copying.shared.counters.read(counter) + reading_back
    }

    fn beat(&self) -> Beat {
        Beat {
            progress: self.count(Counter::Progress),
            matched_bytes: self.count(Counter::MatchedBytes),
            changed_bytes: self.count(Counter::ChangedBytes),
            hole_bytes: self.count(Counter::HoleBytes),
            spent: self.own().spent,
        }
    }

    /// This side, from the start on.
    fn own(&self) -> Side {
        let us = |counter| self.count(counter) / 1000;
        let since = self.blocking.as_ref().and_then(|(_, since)| *since);
        let blocked = self.blocked + since.as_ref().map_or(Duration::ZERO, Instant::elapsed);
        let kept_waiting = blocked * if self.session.names.target_is_here { self.copying.count() } else { 0 };
        let spent = Spent {
            hashing_us: us(Counter::HashingNs),
            source_disk_us: us(Counter::SourceDiskNs),
            target_disk_us: us(Counter::TargetDiskNs) + micros(kept_waiting),
            peer_us: us(Counter::PeerNs),
            without_core_us: us(Counter::WithoutCoreNs),
        };
        Side { workers: self.copying.count(), spent }
    }

    /// This side and the peer, as that says, from the start on.
    fn sides(&self) -> (Side, Option<Side>) {
        let spent = self.course.peer_beat().spent;
        let peer = Side { workers: self.session.peer_workers, spent };
        (self.own(), self.session.link.is_some().then_some(peer))
    }

    /// What limits it at present.
    fn limit_lately(&mut self) -> Option<Limit> {
        let now = self.began.elapsed();
        if now - self.lately.until >= STRETCH {
            let (own, peer) = self.sides();
            let (own_before, peer_before) = self.lately.before;
            let peer_lately = peer.map(|peer| peer.since(peer_before.unwrap_or_default()));
            let elapsed_us = micros(now - self.lately.until);
            let limit = limit(elapsed_us, own.since(own_before), peer_lately, self.session.same_host);
            self.lately = Lately { until: now, before: (own, peer), limit };
        }
        self.lately.limit
    }

    /// Of the end that has the target, also while that is synced and named.
    fn target_beat(&self) -> Beat {
        if self.session.names.target_is_here { self.beat() } else { self.course.peer_beat() }
    }

    fn progress(&mut self) -> Progress {
        // Bytes are done where the target is.
        let beat = self.target_beat();
        Progress {
            source_bytes: self.session.terms.layout.file_bytes(),
            // They may be a peer's numbers: any.
            done_bytes: beat.matched_bytes.saturating_add(beat.changed_bytes).saturating_add(beat.hole_bytes),
            matched_bytes: beat.matched_bytes,
            limit: self.limit_lately(),
            still: Duration::from_millis(self.course.still_ms()),
        }
    }

    /// Here is a target, and it is as it was, for certain.
    fn is_untouched(&self) -> bool {
        self.left == Some(Left::Untouched) || self.session.target.as_ref().is_some_and(Target::is_untouched)
    }

    /// Gives the course what the workers have said.
    fn hear_workers(&mut self) {
        while let Ok(outcome) = self.copying.outcomes.try_recv() {
            self.course.handle(translate(outcome, &self.session.names));
        }
        if let Some(workers) = &self.reading_back {
            while let Ok(outcome) = workers.outcomes.try_recv() {
                self.course.handle(translate(outcome, &self.session.names));
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send(mut message) => {
                if let Message::Failed(failure) = &mut message {
                    failure.untouched = self.is_untouched();
                }
                if let Some(link) = &self.session.link {
                    link.send(&message);
                }
            }
            Action::AllowWriting => {
                self.copying.shared.allow_writing();
                self.copying.resume();
            }
            Action::Resume => self.copying.resume(),
            Action::StopWorkers => self.reading_back.as_ref().unwrap_or(&self.copying).stop(),
            Action::Mark => {
                let mut target = self.session.target.take().expect("only a target is written");
                let metadata = self.session.metadata;
                self.block_beside_workers(move || {
                    let marked = target.mark_unfinished(&metadata);
                    Done::Marked(Box::new(target), marked)
                });
            }
            Action::CheckSource => {
                let source = self.session.source.take().expect("only a source is checked");
                self.block(move || {
                    let unchanged = source.unchanged();
                    Done::Checked(source, unchanged)
                });
            }
            Action::ReadBack(stripes) => {
                let mut target = self.session.target.take().expect("only a target is read back");
                let metadata = self.session.metadata;
                let (bytes, workers) = (self.session.terms.layout.file_bytes(), self.session.mailboxes.len());
                self.block(move || {
                    let count = stripes.len() as u64;
                    let file = Arc::clone(target.file().expect("it was written"));
                    let opened = || Ok(files::read_back(file, bytes, stripes, workers)?);
                    let settled = target.settle_content(&metadata).and_then(|()| opened());
                    Done::Settled(Box::new(target), settled, count)
                });
            }
            Action::Commit { wrote } => {
                let target = self.session.target.take().expect("only a target is committed");
                let metadata = self.session.metadata;
                self.block(move || Done::Committed(target.commit(&metadata, wrote).map(|done| done.changed)));
            }
            Action::End(result) => self.ended = Some(result),
        }
    }

    /// When the workers are done: for as long as the target is synced, or takes its name, they have nothing to do.
    fn block(&mut self, call: impl FnOnce() -> Done + Send + 'static) {
        self.block_beside_workers(call);
        self.blocking.iter_mut().for_each(|(_, since)| *since = Some(Instant::now()));
    }

    /// While the workers go on: those that wait for this say so themselves.
    fn block_beside_workers(&mut self, call: impl FnOnce() -> Done + Send + 'static) {
        assert!(self.blocking.is_none(), "one thing at a time");
        self.blocking = Some((tokio::task::spawn_blocking(call), None));
    }

    fn unblock(&mut self) {
        if let Some((_, Some(since))) = self.blocking.take() {
            self.blocked += since.elapsed();
        }
    }

    /// Something that may block is done; what the course is to be told.
    fn done(&mut self, done: Done) -> Event {
        let names = &self.session.names;
        let target_failed = |error: &RootError| error.of_target(&names.target);
        match done {
            Done::Marked(target, result) => {
                let event = result.map_or_else(|error| Event::Failed(target_failed(&error)), |()| Event::Marked);
                self.session.target = Some(*target);
                event
            }
            Done::Checked(source, result) => {
                self.session.source = Some(source);
                match result {
                    Ok(true) => Event::SourceUnchanged,
                    Ok(false) => {
                        let text =
                            "changed while it was read; copy a snapshot of it, or try again when nobody writes to it";
                        Event::Failed(Failure::about(Kind::SourceChanged, &names.source, text))
                    }
                    Err(error) => Event::Failed(error.of_source(&names.source)),
                }
            }
            Done::Settled(target, result, stripes) => {
                let event = match result {
                    Ok(ends) => {
                        if self.ended.is_none() {
                            self.read_back(ends, stripes);
                        }
                        self.tick()
                    }
                    Err(error) => Event::Failed(target_failed(&error)),
                };
                self.session.target = Some(*target);
                event
            }
            Done::Committed(Err((error, left))) => {
                let event = Event::Failed(target_failed(&error));
                self.left = Some(left);
                event
            }
            Done::Committed(Ok(changed)) => Event::Committed(self.committed(changed)),
        }
    }

    /// Starts the workers again, on so many stripes that were written.
    fn read_back(&mut self, ends: Vec<Ends<OpenFile>>, stripes: u64) {
        let terms = self.session.terms;
        let workers = Workers::start(stripes, terms, ends, &self.session.mailboxes, Vec::new(), 1, &self.bell);
        self.course.reading_back(workers.count());
        self.reading_back = Some(workers);
    }

    fn committed(&self, changed: bool) -> Committed {
        let beat = self.beat();
        Committed {
            matched_bytes: beat.matched_bytes,
            changed_bytes: beat.changed_bytes,
            hole_bytes: beat.hole_bytes,
            changed_blocks: self.count(Counter::ChangedBlocks),
            changed,
            read_back: false,
        }
    }

    /// What is left to be done when it is over, and how it ended.
    async fn ending(mut self) -> Ending {
        if let Some((blocking, _)) = self.blocking.take()
            && let Ok(done) = blocking.await
        {
            _ = self.done(done);
        }
        let result = self.ended.take().expect("it is over");
        let elapsed_us = micros(self.began.elapsed());
        let (own, peer) = self.sides();
        let mut notes = vec![format!("time of the workers: {}", own.of(elapsed_us))];
        notes.extend(peer.map(|peer| format!("time of the other end's: {}", peer.of(elapsed_us))));
        if let Some((lost, why)) = self.course.losses() {
            notes.push(format!("data connections that were lost: {lost}; the last: {why}"));
        }
        if result.is_ok() {
            notes.push(format!("changes: {}", self.course.changes()));
        }
        if let Some(target) = self.session.target.take() {
            let keep = self.course.worth_keeping();
            self.left = tokio::task::spawn_blocking(move || target.abandon(keep)).await.ok();
        }
        let changed = match &self.left {
            Some(left) => Some(*left != Left::Untouched),
            None if self.course.peer_untouched() => Some(false),
            None => self.course.outcome().map(|outcome| outcome.changed),
        };
        let kept = match self.left.take() {
            Some(Left::Kept(name)) => Some(name),
            _ => None,
        };
        let counts = self.course.outcome().unwrap_or_else(|| {
            let beat = self.target_beat();
            Committed {
                matched_bytes: beat.matched_bytes,
                changed_bytes: beat.changed_bytes,
                hole_bytes: beat.hole_bytes,
                ..Committed::default()
            }
        });
        Ending {
            failure: result.err(),
            peer_stopped: self.course.peer_stopped(),
            digest: self.course.digest(),
            proven: self.course.proven(),
            counts,
            changed,
            kept,
            limit: limit(elapsed_us, own, peer, self.session.same_host),
            notes,
            wire_bytes: (self.count(Counter::WireSentBytes), self.count(Counter::WireReceivedBytes)),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

async fn wait_for(blocking: &mut Option<(JoinHandle<Done>, Option<Instant>)>) -> Done {
    match blocking {
        Some((handle, _)) => handle.await.expect("a blocking call does not panic"),
        None => std::future::pending().await,
    }
}

async fn receive(link: &mut Option<&mut Link>) -> Result<Message, LinkError> {
    match link {
        Some(link) => link.receive().await,
        None => std::future::pending().await,
    }
}

/// What a worker says, as the course understands it.
fn translate(outcome: Outcome, names: &Names) -> Event {
    match outcome {
        Outcome::Stripe(finished) => Event::Stripe(finished),
        Outcome::ReadBack(stripe) => Event::ReadBack(stripe),
        Outcome::WantsToWrite => Event::WantsToWrite,
        Outcome::Lost { error, .. } => {
            // Broken pipe, reset by peer: what the kernel calls it depends on who spoke last.
            let closed = error.is_none_or(|error| matches!(error, Errno::PIPE | Errno::RESET));
            Event::Lost(error.filter(|_| !closed).map_or_else(|| "the other end closed it".into(), |e| e.to_string()))
        }
        Outcome::Failed(error) => Event::Failed(explain(error, names)),
        Outcome::Ended => Event::WorkerEnded,
    }
}

fn explain(error: WorkerError, names: &Names) -> Failure {
    let text = error.to_string();
    match error {
        WorkerError::Source(errno) => RootError::from(errno).of_source(&names.source),
        WorkerError::SourceShrank => Failure::about(Kind::SourceChanged, &names.source, text),
        WorkerError::Target(errno) => RootError::from(errno).of_target(&names.target),
        WorkerError::TargetShrank => Failure::about(Kind::Target, &names.target, text),
        WorkerError::Protocol(_) => Failure::about(Kind::Protocol, &names.peer, text),
        WorkerError::Unequal(_) => Failure::about(Kind::Verification, &names.target, text),
        WorkerError::Busy => Failure::about(Kind::Busy, &names.own, text),
        WorkerError::Panic => Failure::about(Kind::Other, &names.own, text),
    }
}
