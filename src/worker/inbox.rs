//! What passes between control and the workers: jobs in, outcomes out, and what the workers of one session share.
//!
//! Nothing here is touched more than once a stripe, but for the counters, which are added to once a completion, and the pen
//! of a target that is written through the page cache.

use super::WorkerError;
use crate::completion::{Completions, Errno, Waker};
use crate::counters::Counters;
use crate::digest::Digest;
use crate::extent::StripeIndex;
use crate::limits::{CONNECTIONS_MAX, JOBS_MAX, STRIPES_OPEN_MAX};
use crate::seal::Duplex;
use crate::session::{Finished, Terms};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// Which session, among those of this process.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SessionKey(pub u64);

/// What control asks of a worker.
#[derive(Debug)]
pub enum Job<C: Completions> {
    /// A session starts.
    Start(Box<Start<C>>),
    /// The cursor has stripes again, or writing is allowed now.
    Resume(SessionKey),
    /// Stop at once; [`Outcome::Ended`] follows when nothing is in flight any more.
    Stop(SessionKey),
    /// No more sessions will come; leave when the last one has ended.
    Leave,
}

/// A session's part on one worker.
#[derive(Debug)]
pub struct Start<C: Completions> {
    /// Which session.
    pub key: SessionKey,
    /// What its workers share.
    pub shared: Arc<SessionShared>,
    /// What both ends know.
    pub terms: Terms,
    /// What this process has of it.
    pub ends: Ends<C::File>,
    /// Data connections; [`Ends::Both`] and [`Ends::ReadBack`] have none.
    pub sockets: Vec<Joined<C::Socket>>,
    /// How many of these take stripes at a time, at least one. Of use at the target only.
    pub at_once: usize,
}

/// A data connection that belongs to its session for certain.
#[derive(Debug)]
pub struct Joined<S> {
    /// Its number in the session.
    pub number: u32,
    /// Connected, with nothing in flight.
    pub socket: S,
    /// What its frames are sealed with; `None`: they are not.
    pub seals: Option<Duplex>,
}

/// A file as control gives it to a worker.
#[derive(Clone, Debug)]
pub struct FileTerms<F> {
    /// Opened for this worker.
    pub file: F,
    /// Its length when it was opened.
    pub bytes: u64,
}

/// Which ends of a session are here.
#[derive(Clone, Debug)]
pub enum Ends<F> {
    /// The source; `sparse`: it may have holes.
    Source { file: FileTerms<F>, sparse: bool },
    /// The target. In a dry run without a basis there is no file.
    Target { file: Option<FileTerms<F>> },
    /// Both: no sockets.
    Both { source: FileTerms<F>, sparse: bool, target: Option<FileTerms<F>> },
    /// The target again, to read back these stripes.
    ReadBack { file: FileTerms<F>, expected: Arc<[(StripeIndex, Digest)]> },
}

impl<F> Ends<F> {
    /// Whether frames go over the network, not from one machine to the other.
    pub(super) fn has_lines(&self) -> bool {
        matches!(self, Self::Source { .. } | Self::Target { .. })
    }

    /// Its source and its target.
    pub(super) fn files(&self) -> [Option<&FileTerms<F>>; 2] {
        match self {
            Self::Source { file, .. } => [Some(file), None],
            Self::Target { file } => [None, file.as_ref()],
            Self::Both { source, target, .. } => [Some(source), target.as_ref()],
            Self::ReadBack { file, .. } => [None, Some(file)],
        }
    }

    /// The same, to keep.
    pub(super) fn into_files(self) -> [Option<FileTerms<F>>; 2] {
        match self {
            Self::Source { file, .. } => [Some(file), None],
            Self::Target { file } => [None, file],
            Self::Both { source, target, .. } => [Some(source), target],
            Self::ReadBack { file, .. } => [None, Some(file)],
        }
    }
}

/// What a worker tells control.
#[derive(Debug)]
pub enum Outcome {
    /// A stripe is finished: at the target proven, at the source handed over.
    Stripe(Finished),
    /// A stripe that was written reads back as it has to.
    ReadBack(StripeIndex),
    /// The first write is ready; it waits for [`SessionShared::allow_writing`].
    WantsToWrite,
    /// A data connection was lost; its stripes are back at the cursor.
    Lost { number: u32, error: Option<Errno> },
    /// The session has failed here. It stops by itself.
    Failed(WorkerError),
    /// Nothing of the session is left on this worker.
    Ended,
}

/// What the workers of one session share with each other and with control.
#[derive(Debug)]
pub struct SessionShared {
    /// What was counted on this side.
    pub counters: Counters,
    /// Stripes nobody has taken yet; of use at the target only.
    pub cursor: Cursor,
    /// Of use at the target only.
    pub pen: Pen,
    may_write: AtomicBool,
    /// See [`Self::note_lively`].
    lively: AtomicU64,
    /// Some stripe was, or will be, begun for the second time: there may be bytes in it that nobody wants.
    retries: AtomicBool,
    outcomes: Sender<Outcome>,
    bell: Waker,
}

impl SessionShared {
    /// With stripes `0..stripes` to be taken; `bell` is rung when there is an outcome, of which `outcomes_max` can wait.
    pub fn new(stripes: u64, outcomes_max: usize, bell: Waker) -> (Arc<Self>, Receiver<Outcome>) {
        let (outcomes, inbox) = bounded(outcomes_max);
        let shared = Self {
            counters: Counters::default(),
            cursor: Cursor::new(stripes),
            pen: Pen::default(),
            may_write: AtomicBool::new(false),
            lively: AtomicU64::new(0),
            retries: AtomicBool::new(false),
            outcomes,
            bell,
        };
        (Arc::new(shared), inbox)
    }

    /// The target is marked unfinished, or need not be: writes may begin.
    pub fn allow_writing(&self) {
        // Release: what control did to the file comes before what workers do to it.
        self.may_write.store(true, Ordering::Release);
    }

    pub(super) fn may_write(&self) -> bool {
        self.may_write.load(Ordering::Acquire)
    }

    /// To be called by a worker that has a connection on which bytes move, or one that has nothing left to do: the session
    /// gets on, or could, without others.
    pub(super) fn note_lively(&self) {
        self.lively.fetch_add(1, Ordering::Relaxed);
    }

    /// Another number than before: that was called meanwhile.
    pub(super) fn lively(&self) -> u64 {
        self.lively.load(Ordering::Relaxed)
    }

    /// To be called before the stripe is asked for again: whoever gets it then knows.
    pub(super) fn note_retry(&self) {
        self.retries.store(true, Ordering::Release);
    }

    pub(super) fn retries(&self) -> bool {
        self.retries.load(Ordering::Acquire)
    }

    /// Tells control. Comes back when the queue is full.
    pub(crate) fn tell(&self, outcome: Outcome) -> Result<(), Outcome> {
        let result = match self.outcomes.try_send(outcome) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(outcome)) => Err(outcome),
            Err(TrySendError::Disconnected(_)) => Ok(()), // nobody wants to know any more
        };
        self.bell.wake();
        result
    }
}

/// Hands out stripes, each to one connection at a time.
#[derive(Debug)]
pub struct Cursor {
    next: AtomicU64,
    stripes: u64,
    returned: (Sender<StripeIndex>, Receiver<StripeIndex>),
}

impl Cursor {
    fn new(stripes: u64) -> Self {
        let returned = bounded(CONNECTIONS_MAX as usize * STRIPES_OPEN_MAX);
        Self { next: AtomicU64::new(0), stripes, returned }
    }

    /// The next stripe: one that came back, or the next of the file.
    pub(super) fn take(&self) -> Option<StripeIndex> {
        if let Ok(stripe) = self.returned.1.try_recv() {
            return Some(stripe);
        }
        // Relaxed: the number is all there is to it. It grows by one a connection beyond the end at most.
        if self.next.load(Ordering::Relaxed) >= self.stripes {
            return None;
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        (next < self.stripes).then_some(next)
    }

    /// A stripe whose connection is lost, with nothing of it in flight any more.
    pub(super) fn give_back(&self, stripe: StripeIndex) {
        self.returned.0.try_send(stripe).expect("no more stripes than connections can have open");
    }
}

/// Whoever writes to the target through the page cache by plain calls has it.
#[derive(Debug, Default)]
pub struct Pen(Mutex<()>);

impl Pen {
    /// `None`: another worker has it, and we do not wait.
    pub(crate) fn take(&self, waits: bool) -> Option<MutexGuard<'_, ()>> {
        // Nothing lies behind it that a panic could leave half done.
        match self.0.try_lock() {
            Err(TryLockError::WouldBlock) => waits.then(|| self.0.lock().unwrap_or_else(PoisonError::into_inner)),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Ok(taken) => Some(taken),
        }
    }
}

/// Control's end of a worker's inbox.
#[derive(Debug)]
pub struct Mailbox<C: Completions> {
    jobs: Sender<Job<C>>,
    waker: Waker,
    pulse: Arc<AtomicU64>,
}

/// A worker's end.
#[derive(Debug)]
pub struct Inbox<C: Completions> {
    pub(super) jobs: Receiver<Job<C>>,
    pulse: Arc<AtomicU64>,
}

impl<C: Completions> Inbox<C> {
    /// The worker has finished a turn.
    pub(super) fn beat(&self, now_ms: u64) {
        self.pulse.store(now_ms, Ordering::Relaxed); // a number, with nothing behind it
    }
}

impl<C: Completions> Clone for Mailbox<C> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), waker: self.waker.clone(), pulse: Arc::clone(&self.pulse) }
    }
}

impl<C: Completions> Mailbox<C> {
    /// A mailbox and what its worker reads from.
    pub fn new(waker: Waker) -> (Self, Inbox<C>) {
        let (sender, jobs) = bounded(JOBS_MAX);
        let pulse = Arc::default();
        (Self { jobs: sender, waker, pulse: Arc::clone(&pulse) }, Inbox { jobs, pulse })
    }

    /// When the worker finished its last turn, by the clock of its machine. It does so every [`crate::limits::LOOK_MS`] at least,
    /// unless it has no core, or a call of its does not come back.
    pub fn last_turn_ms(&self) -> u64 {
        self.pulse.load(Ordering::Relaxed)
    }

    /// Gives the worker a job. Waits while its inbox is full: it empties it every turn. A worker that is gone has ended
    /// all its sessions, so nothing is lost with the job.
    pub fn post(&self, job: Job<C>) {
        _ = self.jobs.send(job);
        self.waker.wake();
    }
}
