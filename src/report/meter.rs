//! How progress is shown: a bar on a terminal, elsewhere a line from time to time, by a thread of its own.
//!
//! A terminal may be stopped and a pipe full: who draws waits then. The copy does not, as it only leaves word of how far it
//! is; what was left before that and not drawn yet is out of date.

use super::pace::Pacer;
use super::{equal_share, left, limit, print_to, progress_line, speed};
use crate::control::Progress;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use rustix::termios::tcgetwinsize;
use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two plain lines of progress where standard error is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// From here on a line of progress has room for everything.
const WIDE_COLUMNS: u16 = 100;

/// Takes word of how far a copy is, and has it shown.
#[derive(Debug)]
pub(super) struct Meter {
    face: Arc<Mutex<Face>>,
    /// What is to be shown next.
    latest: Arc<Mutex<Option<Progress>>>,
    /// `None`: there was no progress yet, and there is no thread.
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
        *lock(&self.latest) = Some(progress);
        let (face, latest) = (&self.face, &self.latest);
        let bell = self.bell.get_or_insert_with(|| draw(Arc::clone(face), Arc::clone(latest)));
        _ = bell.try_send(()); // or it has been rung already
    }

    /// One line on standard error; a bar stays below it.
    pub(super) fn print_above(&self, line: impl Display) {
        match &*lock(&self.face) {
            // Before its first progress there is none: a server never has any, and what is refused never gets so far.
            Face::Bar(bar, _) if bar.length().is_some() => bar.suspend(|| print_to(stderr(), line)),
            Face::Bar(..) | Face::Nothing | Face::Lines { .. } => print_to(stderr(), line),
        }
    }

    /// The next copy has a progress of its own.
    pub(super) fn begin_again(&self) {
        let mut face = lock(&self.face);
        lock(&self.latest).take();
        match &mut *face {
            Face::Nothing => {}
            Face::Bar(bar, _) => {
                bar.finish_and_clear();
                *face = Face::new();
            }
            // Lines keep their pace: a copy may take less than the time between two.
            Face::Lines { pacer, .. } => *pacer = Pacer::default(),
        }
    }

    /// Nothing is shown any more.
    pub(super) fn end(&self) {
        if let Face::Bar(bar, _) = std::mem::replace(&mut *lock(&self.face), Face::Nothing) {
            bar.finish_and_clear();
        }
    }
}

/// Starts the thread that shows the latest when it is rung for, until the bell is dropped. Without one nothing is shown.
fn draw(face: Arc<Mutex<Face>>, latest: Arc<Mutex<Option<Progress>>>) -> SyncSender<()> {
    let (bell, rung) = sync_channel(1);
    _ = std::thread::Builder::new().spawn(move || {
        while rung.recv().is_ok() {
            let mut face = lock(&face);
            let progress = lock(&latest).take();
            progress.into_iter().for_each(|progress| face.show(progress));
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
    Bar(ProgressBar, Pacer),
    Lines { pacer: Pacer, due: Instant },
}

impl Face {
    fn new() -> Self {
        if stderr().is_terminal() {
            Self::Bar(bar(ProgressDrawTarget::stderr()), Pacer::default())
        } else {
            Self::Lines { pacer: Pacer::default(), due: Instant::now() + LINE_INTERVAL }
        }
    }

    fn show(&mut self, progress: Progress) {
        let now = Instant::now();
        match self {
            Self::Nothing => {}
            Self::Bar(bar, pacer) => {
                let pace = pacer.pace(now, progress);
                let [speed, equal, left] = [speed(pace), equal_share(progress), left(pace)]
                    .map(|part| if part.is_empty() { part } else { format!("  {part}") });
                let limit = limit(progress);
                let limit = if limit.is_empty() { limit } else { format!(", {limit}") };
                bar.set_length(progress.source_bytes);
                bar.set_message(format!("{speed}{equal}{left}{limit}"));
                bar.set_position(progress.done_bytes);
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
}

fn bar(target: ProgressDrawTarget) -> ProgressBar {
    let template = "{binary_bytes:>10}{total} [{wide_bar}] {percent:>3}%{msg}";
    let style = ProgressStyle::with_template(template).expect("a template that a test parses");
    let total = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let columns = tcgetwinsize(stderr()).map_or(0, |size| size.ws_col);
        _ = out.write_str(&total(state.len().unwrap_or(0), columns));
    };
    let style = style.with_key("total", total).progress_chars("=> ");
    ProgressBar::with_draw_target(None, target).with_style(style)
}

/// Of how much, where so many columns leave room for it beside a bar and the longest rest; a share is told in any case.
fn total(bytes: u64, columns: u16) -> String {
    if columns < WIDE_COLUMNS { String::new() } else { format!(" of {}", HumanBytes(bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bottleneck::Limit;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_narrow_terminal_has_a_bar_too() {
        assert_eq!(total(5 * MIB, 100), " of 5.00 MiB");
        assert_eq!(total(5 * MIB, 80), "");
    }

    #[test]
    fn the_bar_stands_at_the_bytes_done() {
        let mut face = Face::Bar(bar(ProgressDrawTarget::hidden()), Pacer::default());
        let (limit, still) = (Some(Limit::Network), Duration::from_secs(7));
        face.show(Progress { source_bytes: 4 * MIB, done_bytes: MIB, matched_bytes: MIB / 2, limit, still });
        let Face::Bar(bar, _) = &face else { unreachable!("made so above") };
        assert_eq!((bar.position(), bar.length()), (MIB, Some(4 * MIB)));
        assert_eq!(bar.message(), "  nothing has moved for 7 s  50% equal, limit: network");
    }
}
