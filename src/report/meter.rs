//! How progress is shown: a bar on a terminal, elsewhere a line from time to time, by a thread of its own.
//!
//! A terminal may be stopped and a pipe full: who draws waits then. The copy does not, as it only leaves word of how far it
//! is; what was left before that and not drawn yet is out of date.

use super::pace::Pacer;
use super::row::{self, Row};
use super::{print_to, progress_line, write_to};
use crate::control::Progress;
use rustix::termios::tcgetwinsize;
use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two plain lines of progress where standard error is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Who does not wait longer than this needs no word about it. Guessed: one who looks begins to wonder.
const WAITING_FROM: Duration = Duration::from_secs(2);
/// So often the row of who waits is drawn anew.
const GLANCE: Duration = Duration::from_secs(1);

/// Takes word of how far a copy is, and has it shown.
#[derive(Debug)]
pub(super) struct Meter {
    face: Arc<Mutex<Face>>,
    /// What is to be shown next.
    latest: Arc<Mutex<Option<Word>>>,
    /// `None`: there was no word yet, and there is no thread.
    bell: Option<SyncSender<()>>,
}

impl Meter {
    /// That shows nothing.
    pub(super) fn hidden() -> Self {
        Self::with(Face::Nothing)
    }

    /// On standard error.
    pub(super) fn new() -> Self {
        Self::with(Face::new())
    }

    fn with(face: Face) -> Self {
        Self { face: Arc::new(Mutex::new(face)), latest: Arc::default(), bell: None }
    }

    /// Has this shown, as soon as what is drawn now is drawn.
    pub(super) fn show(&mut self, progress: Progress) {
        self.take(Word::Progress(progress));
    }

    /// Says on a terminal who is waited for, if that takes long: until the next progress.
    pub(super) fn wait(&mut self, whom: String) {
        self.take(Word::Waiting(whom));
    }

    fn take(&mut self, word: Word) {
        *lock(&self.latest) = Some(word);
        let (face, latest) = (&self.face, &self.latest);
        let bell = self.bell.get_or_insert_with(|| draw(Arc::clone(face), Arc::clone(latest)));
        _ = bell.try_send(()); // or it has been rung already
    }

    /// One line on standard error; a bar goes on below it.
    pub(super) fn print_above(&self, line: impl Display) {
        match &mut *lock(&self.face) {
            Face::Bar { row, .. } => write_to(stderr(), &row.end_with(line)),
            Face::Nothing | Face::Lines { .. } => print_to(stderr(), line),
        }
    }

    /// The next copy has a progress of its own.
    pub(super) fn begin_again(&self) {
        let mut face = lock(&self.face);
        lock(&self.latest).take();
        match &mut *face {
            Face::Nothing => {}
            Face::Bar { row, pacer, waiting } => {
                write_to(stderr(), row.clear());
                (*pacer, *waiting) = (Pacer::default(), None);
            }
            // Lines keep their pace: a copy may take less than the time between two.
            Face::Lines { pacer, .. } => *pacer = Pacer::default(),
        }
    }

    /// Nothing is shown any more.
    pub(super) fn end(&self) {
        if let Face::Bar { mut row, .. } = std::mem::replace(&mut *lock(&self.face), Face::Nothing) {
            write_to(stderr(), row.clear());
        }
    }
}

/// What a meter is told.
#[derive(Debug)]
enum Word {
    Progress(Progress),
    Waiting(String),
}

/// Starts the thread that shows the latest when it is rung for, until the bell is dropped. Without one nothing is shown.
fn draw(face: Arc<Mutex<Face>>, latest: Arc<Mutex<Option<Word>>>) -> SyncSender<()> {
    let (bell, rung) = sync_channel(1);
    _ = std::thread::Builder::new().spawn(move || {
        while rung.recv_timeout(GLANCE) != Err(RecvTimeoutError::Disconnected) {
            let mut face = lock(&face);
            let word = lock(&latest).take();
            match word {
                Some(Word::Progress(progress)) => face.show(progress),
                Some(Word::Waiting(whom)) => face.wait(whom),
                None => face.look_again(),
            }
        }
    });
    bell
}

/// A panic while something was drawn is no reason not to draw the next.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is seen.
#[derive(Debug)]
enum Face {
    Nothing,
    Bar {
        row: Row,
        pacer: Pacer,
        /// For whom, and since when.
        waiting: Option<(String, Instant)>,
    },
    Lines {
        pacer: Pacer,
        due: Instant,
    },
}

impl Face {
    fn new() -> Self {
        // What is no more than paper erases no row.
        let erases = std::env::var_os("TERM").is_some_and(|name| name != "dumb");
        if stderr().is_terminal() && erases {
            Self::Bar { row: Row::default(), pacer: Pacer::default(), waiting: None }
        } else {
            Self::Lines { pacer: Pacer::default(), due: Instant::now() + LINE_INTERVAL }
        }
    }

    fn show(&mut self, progress: Progress) {
        let now = Instant::now();
        match self {
            Self::Nothing => {}
            Self::Bar { row, pacer, waiting } => {
                *waiting = None;
                let text = row::progress(progress, pacer.pace(now, progress), columns());
                write_to(stderr(), &row.show(&text));
            }
            Self::Lines { pacer, due } => {
                let pace = pacer.pace(now, progress);
                if now >= *due {
                    *due = now + LINE_INTERVAL;
                    print_to(stderr(), format_args!("pdcp: {}", progress_line(progress, pace)));
                }
            }
        }
    }

    /// Lines say how far a copy is, and that is nowhere yet.
    fn wait(&mut self, whom: String) {
        if let Self::Bar { waiting, .. } = self {
            *waiting = Some((whom, Instant::now()));
        }
    }

    fn look_again(&mut self) {
        if let Self::Bar { row, waiting: Some((whom, since)), .. } = self
            && since.elapsed() >= WAITING_FROM
        {
            write_to(stderr(), &row.show(&row::waiting(whom, since.elapsed(), columns())));
        }
    }
}

/// Now, as they may have changed. `0`: nobody knows.
fn columns() -> u16 {
    tcgetwinsize(stderr()).map_or(0, |size| size.ws_col)
}
