//! The teller of a server: what people and the audit log are told, on a thread of its own.
//!
//! A terminal may be stopped, a pipe full, a disk frozen: who writes there waits, and nobody else may. So a server hands over
//! what is to be told, and goes on. What finds no room is counted. So are callers who were not let in, beyond some lines a
//! minute: they come by the thousand, and disks are not theirs to fill. Both counts are told in their turn.

use super::audit::Audit;
use super::{Record, Watch};
use crate::limits::{REFUSED_LINES_BURST, REFUSED_LINES_MS, TELL_COUNTS_MS, TELL_MS, TOLD_MAX};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Something to be told.
enum News {
    Warning(String),
    Detail(String),
    Listening(SocketAddr),
    Record(Box<Record>),
}

/// What has no line of its own.
#[derive(Debug, Default)]
struct Untold {
    /// Lines that found no room.
    lines: AtomicU64,
    /// Callers who were not let in.
    callers: AtomicU64,
}

/// Takes what is to be told. Nobody waits here.
#[derive(Debug)]
pub(super) struct Teller {
    /// `None`: nothing more comes.
    queue: SyncSender<Option<News>>,
    untold: Arc<Untold>,
    allowance: RefCell<Allowance>,
    /// Says nothing; its end is the thread's.
    ended: Receiver<()>,
}

impl Teller {
    /// Its thread has the rights and confinements that this one has now.
    ///
    /// # Errors
    /// Where there may be no more threads.
    pub(super) fn start(watch: Box<dyn Watch + Send>, audit: Option<Audit>) -> io::Result<Self> {
        let (queue, news) = sync_channel(TOLD_MAX);
        let (ends, ended) = sync_channel(0);
        let untold = Arc::<Untold>::default();
        let desk = Desk { news, untold: Arc::clone(&untold), watch, audit };
        std::thread::Builder::new().spawn(move || {
            desk.work();
            drop(ends);
        })?;
        Ok(Self { queue, untold, allowance: RefCell::new(Allowance::new(Instant::now())), ended })
    }

    pub(super) fn warn(&self, line: impl Into<String>) {
        self.tell(News::Warning(line.into()));
    }

    pub(super) fn detail(&self, line: impl Into<String>) {
        self.tell(News::Detail(line.into()));
    }

    pub(super) fn listening(&self, address: SocketAddr) {
        self.tell(News::Listening(address));
    }

    /// A session has ended.
    pub(super) fn session(&self, record: Record) {
        self.tell(News::Record(Box::new(record)));
    }

    /// Somebody was not let in.
    pub(super) fn refused(&self, record: Record) {
        if self.allowance.borrow_mut().take(Instant::now()) {
            self.tell(News::Record(Box::new(record)));
        } else {
            self.untold.callers.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tell(&self, news: News) {
        if self.queue.try_send(Some(news)).is_err() {
            self.untold.lines.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Nothing more is to be told. Waits until all is, for as long as whoever stops a server may be kept waiting.
    pub(super) fn end(&self) {
        // Not at the cost of what is in it already; where there is no room, nobody is listening anyway.
        _ = self.queue.try_send(None);
        _ = self.ended.recv_timeout(Duration::from_millis(TELL_MS));
    }
}

/// How many lines there may be: a number at once, then one from time to time.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: REFUSED_LINES_BURST, since: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let each = Duration::from_millis(REFUSED_LINES_MS);
        while self.left < REFUSED_LINES_BURST && now.duration_since(self.since) >= each {
            self.left += 1;
            self.since += each;
        }
        if self.left == REFUSED_LINES_BURST {
            self.since = now;
        }
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }
}

/// Where it is told.
struct Desk {
    news: Receiver<Option<News>>,
    untold: Arc<Untold>,
    watch: Box<dyn Watch + Send>,
    audit: Option<Audit>,
}

impl Desk {
    fn work(mut self) {
        let pause = Duration::from_millis(TELL_COUNTS_MS);
        let mut due = Instant::now() + pause;
        loop {
            match self.news.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(None) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Some(news)) => self.tell(news),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.tell_count(|untold| &untold.lines, "lines are missing here; nobody took them in time");
            if Instant::now() >= due {
                due = Instant::now() + pause;
                self.tell_callers();
            }
        }
        self.tell_callers();
    }

    fn tell(&mut self, news: News) {
        match news {
            News::Warning(line) => self.watch.warn(&line),
            News::Detail(line) => self.watch.detail(&line),
            News::Listening(address) => self.watch.listening(address),
            News::Record(record) => {
                self.watch.session(&record);
                self.append(|audit| audit.append(&record));
            }
        }
    }

    fn tell_callers(&mut self) {
        self.tell_count(|untold| &untold.callers, "more callers were not let in");
    }

    fn tell_count(&mut self, count: impl FnOnce(&Untold) -> &AtomicU64, what: &'static str) {
        let count = count(&self.untold).swap(0, Ordering::Relaxed);
        if count > 0 {
            self.watch.warn(&format!("{count} {what}"));
            self.append(|audit| audit.append_count(count, what));
        }
    }

    fn append(&mut self, append: impl FnOnce(&mut Audit) -> Option<String>) {
        if let Some(warning) = self.audit.as_mut().and_then(append) {
            self.watch.warn(&warning);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_lines_at_once_and_then_one_from_time_to_time() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let mut taken = |ms: u64| {
            let now = start + Duration::from_millis(ms);
            (0..1000).filter(|_| allowance.take(now)).count()
        };
        let (burst, each) = (REFUSED_LINES_BURST as usize, REFUSED_LINES_MS);
        assert_eq!(taken(0), burst);
        assert_eq!(taken(each - 1), 0);
        assert_eq!(taken(each), 1);
        assert_eq!(taken(each), 0);
        assert_eq!(taken(4 * each + 1), 3);
        assert_eq!(taken(5 * each), 1, "nothing of the time is lost");
        assert_eq!(taken(1_000_000 * each), burst);
    }
}
