//! Where a worker's time goes: each guest is booked what the worker does for it, and what it waits for while the worker
//! has nothing to do. Time in which the worker had no core to run on is neither, whatever it looks like from within.
//!
//! The clock is read when the worker turns from one guest to another, around a wait, around writes, and around looking for
//! holes. While it works for one guest the others are booked nothing: their other ends see that they wait for no reason of
//! their own.

use super::connection::Connection;
use super::{Guest, OpenFile, Worker};
use crate::completion::{Completions, Mode};
use crate::counters::Counter;
use crate::limits::LOOK_MS;

/// Work is booked more often than that. Whoever was away for longer was stopped, and that is nothing to be booked here: the
/// other end sees it.
const WORK_NS_MAX: u64 = 100_000_000;
/// A wait for a disk or a write hardly takes longer. See [`WORK_NS_MAX`].
const DISK_NS_MAX: u64 = 2 * 1_000_000 * LOOK_MS;
/// A turn that waits for nothing but the other end ends after [`LOOK_MS`]: of one that took longer, nobody knows how much was
/// a wait.
const PEER_NS_MAX: u64 = 1_000_000 * LOOK_MS + WORK_NS_MAX;
/// In shorter stretches nobody asks the kernel, which takes a call, whether there was a core: it is told with the next.
const ASKING_NS_MIN: u64 = 1_000_000;
/// Copying takes less than this, whatever a worker asks for in a turn: a few MiB at most.
const COPYING_NS_MAX: u64 = 1_000_000;
/// Work that never pauses is booked this often, so that it can be watched.
const BOOK_NS: u64 = 50_000_000;

/// Up to when a worker's time is booked, and whom it works for.
#[derive(Debug, Default)]
pub(super) struct Timesheet {
    since_ns: u64,
    slot: usize,
    /// What the kernel said last.
    without_core_ns: u64,
}

/// Time that is to be booked.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// At work, or waiting.
    spent_ns: u64,
    /// In none of it.
    without_core_ns: u64,
}

impl Timesheet {
    /// What is not booked yet; it has to be now. The kernel is asked for all time `without_core` so far.
    fn stretch(&mut self, now_ns: u64, without_core: impl FnOnce() -> u64) -> Stretch {
        let stretch_ns = now_ns.saturating_sub(self.since_ns);
        self.since_ns = now_ns;
        let mut without_core_ns = 0;
        if stretch_ns >= ASKING_NS_MIN {
            let before_ns = std::mem::replace(&mut self.without_core_ns, without_core());
            without_core_ns = self.without_core_ns.saturating_sub(before_ns).min(stretch_ns);
        }
        Stretch { spent_ns: stretch_ns - without_core_ns, without_core_ns }
    }
}

/// What a guest, or one of its connections, waits for while there is nothing to do for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    pub(super) source_disk: bool,
    pub(super) target_disk: bool,
    /// The network has not taken what there is to send, or not brought the rest of a payload.
    pub(super) line: bool,
    /// The peer may say something: that is waited for only where nothing else is.
    pub(super) peer: bool,
}

impl Waits {
    fn and(self, other: Self) -> Self {
        Self {
            source_disk: self.source_disk | other.source_disk,
            target_disk: self.target_disk | other.target_disk,
            line: self.line | other.line,
            peer: self.peer | other.peer,
        }
    }
}

impl<C: Completions> Guest<C> {
    fn worked(&mut self, stretch: Stretch) {
        let worked_ns = stretch.spent_ns;
        let writing_ns = std::mem::take(&mut self.writing_ns).min(worked_ns);
        let seeking_ns = std::mem::take(&mut self.seeking_ns).min(worked_ns - writing_ns);
        self.shared.counters.add(Counter::HashingNs, (worked_ns - writing_ns - seeking_ns).min(WORK_NS_MAX));
        self.shared.counters.add(Counter::SourceDiskNs, seeking_ns.min(DISK_NS_MAX));
        self.shared.counters.add(Counter::TargetDiskNs, writing_ns.min(DISK_NS_MAX));
        self.shared.counters.add(Counter::WithoutCoreNs, stretch.without_core_ns);
    }

    fn waited(&self, waits: Waits, stretch: Stretch) {
        let Waits { source_disk, target_disk, line, peer } = waits;
        let peer = (line || (peer && !source_disk && !target_disk)) && stretch.spent_ns <= PEER_NS_MAX;
        let booked =
            [(Counter::SourceDiskNs, source_disk), (Counter::TargetDiskNs, target_disk), (Counter::PeerNs, peer)];
        for (counter, _) in booked.into_iter().filter(|(_, waited)| *waited) {
            self.shared.counters.add(counter, stretch.spent_ns.min(DISK_NS_MAX));
        }
        self.shared.counters.add(Counter::WithoutCoreNs, stretch.without_core_ns);
    }
}

impl<C: Completions> Worker<C> {
    /// From now on the worker's time is this guest's.
    pub(super) fn work_for(&mut self, slot: usize) {
        if self.timesheet.slot != slot {
            self.book_work(self.backend.now_ns());
            self.timesheet.slot = slot;
        }
    }

    /// Books what was done up to now.
    pub(super) fn book_work(&mut self, now_ns: u64) {
        let worked = self.timesheet.stretch(now_ns, || self.backend.without_core_ns());
        if let Some((guest, _)) = self.parties[self.timesheet.slot].as_deref_mut() {
            guest.worked(worked);
        }
    }

    /// Books a turn of the kernel's: what was waited for in it. One that only had to copy is work, unless it took longer than
    /// copying does: to ask for what is not in the page cache may wait as well.
    pub(super) fn book_turn(&mut self, may_wait: bool, copies: bool, now_ns: u64) {
        let turn_ns = now_ns.saturating_sub(self.timesheet.since_ns);
        if may_wait || (copies && turn_ns >= COPYING_NS_MAX) {
            let waited = self.timesheet.stretch(now_ns, || self.backend.without_core_ns());
            self.waits().for_each(|(guest, waits)| guest.waited(waits, waited));
        } else if turn_ns >= BOOK_NS {
            self.book_work(now_ns);
        }
    }

    /// Some of what was pushed last may be in the page cache, and is then done within the kernel's turn: that is copying, and
    /// no wait.
    pub(super) fn copies(&self) -> bool {
        let cached = |file: &Option<OpenFile>| file.as_ref().is_some_and(|file| file.mode == Mode::Buffered);
        self.waits().any(|(guest, waits)| {
            (waits.source_disk && cached(&guest.source)) || (waits.target_disk && cached(&guest.target))
        })
    }

    /// What each guest waits for. What is in memory is done as soon as it is asked for.
    fn waits(&self) -> impl Iterator<Item = (&Guest<C>, Waits)> {
        let on_disk = |file: &Option<OpenFile>| file.as_ref().is_some_and(|file| file.mode != Mode::Memory);
        self.parties.iter().filter_map(Option::as_deref).map(move |(guest, connections)| {
            let mut waits = connections.iter().map(Connection::waits).reduce(Waits::and).unwrap_or_default();
            waits.source_disk &= on_disk(&guest.source);
            waits.target_disk &= on_disk(&guest.target);
            (guest, waits)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_without_a_core_is_in_no_stretch_and_short_ones_do_not_ask_for_it() {
        const MS: u64 = 1_000_000;
        let mut timesheet = Timesheet::default();
        let mut check = |now_ns, without_ns: Option<u64>, want: [u64; 2]| {
            let stretch = timesheet.stretch(now_ns, || without_ns.expect("nobody asks"));
            assert_eq!([stretch.spent_ns, stretch.without_core_ns], want, "until {now_ns}");
        };
        check(5 * MS, Some(0), [5 * MS, 0]);
        check(105 * MS, Some(95 * MS), [5 * MS, 95 * MS]); // a quota of a twentieth
        check(105 * MS + 10, None, [10, 0]);
        check(107 * MS + 10, Some(96 * MS), [MS, MS]);
        check(108 * MS + 10, Some(99 * MS), [0, MS]); // told late: no more than there is
        check(110 * MS, Some(0), [2 * MS - 10, 0]); // a kernel that has lost count
    }
}
