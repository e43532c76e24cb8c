//! The room of a server: which workers have how many sessions, and how many connections.
//!
//! Who comes when there is none is told at once, before a file is opened for him. The worker itself has the last word: it
//! knows what its buffers are doing.

use crate::limits::{CONNECTIONS_PER_WORKER_MAX, SESSIONS_MAX};
use std::cell::RefCell;
use std::rc::Rc;

/// What the workers of a server have taken on, by worker.
#[derive(Debug)]
pub(super) struct Room(RefCell<Vec<Load>>);

/// In the order in which workers are chosen: those with the fewest sessions first.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Load {
    sessions: usize,
    connections: u32,
}

impl Room {
    pub(super) fn new(workers: usize) -> Self {
        Self(RefCell::new(vec![Load::default(); workers]))
    }

    /// A lease for a session that wants so many connections: perhaps fewer, on as many workers as they can use, of those that
    /// answer. Of workers that have as much to do, `turn` says who begins, so that not all sessions meet on the first. `None`:
    /// there is none.
    pub(super) fn take(self: &Rc<Self>, wanted: u32, turn: usize, answers: impl Fn(usize) -> bool) -> Option<Lease> {
        let mut loads = self.0.borrow_mut();
        let count = loads.len();
        let has_room = |load: &Load| load.sessions < SESSIONS_MAX && load.connections < CONNECTIONS_PER_WORKER_MAX;
        let mut workers: Vec<_> = (0..count).map(|at| (turn + at) % count).collect();
        workers.retain(|at| has_room(&loads[*at]) && answers(*at));
        workers.sort_by_key(|at| loads[*at]);
        workers.truncate(wanted.max(1) as usize);
        let each = workers.iter().map(|at| CONNECTIONS_PER_WORKER_MAX - loads[*at].connections).min()?;
        let spread = u32::try_from(workers.len()).ok()?;
        let each = each.min(wanted.div_ceil(spread));
        for at in &workers {
            loads[*at].sessions += 1;
            loads[*at].connections += each;
        }
        Some(Lease { room: Rc::clone(self), workers, each, connections: wanted.min(each * spread) })
    }
}

/// What one session has taken, until this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    room: Rc<Room>,
    /// Its workers, in the order in which its connections use them.
    pub(super) workers: Vec<usize>,
    /// Connections set aside on each of them.
    each: u32,
    /// Its connections at most.
    pub(super) connections: u32,
}

impl Lease {
    /// It turns out that fewer connections are enough: gives back the workers that get none, and of the others what is not
    /// needed.
    pub(super) fn settle(&mut self, connections: u32) {
        while self.workers.len() > (connections as usize).max(1) {
            let last = self.workers.pop();
            last.into_iter().for_each(|at| self.give_back(at));
        }
        let spread = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        let surplus = self.each.saturating_sub(connections.div_ceil(spread));
        self.each -= surplus;
        let mut loads = self.room.0.borrow_mut();
        self.workers.iter().for_each(|at| loads[*at].connections -= surplus);
    }

    fn give_back(&self, at: usize) {
        let mut loads = self.room.0.borrow_mut();
        loads[at].sessions -= 1;
        loads[at].connections -= self.each;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.workers.iter().for_each(|at| self.give_back(*at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_go_where_fewest_are_until_there_is_no_room_and_come_back() {
        let room = Rc::new(Room::new(2));
        let one = room.take(1, 1, |_| true).unwrap();
        assert_eq!((&one.workers[..], one.connections), (&[1][..], 1));
        assert_eq!(room.take(1, 1, |_| true).unwrap().workers, [0], "the other has less to do");
        let both = room.take(3, 1, |_| true).unwrap();
        assert_eq!((&both.workers[..], both.connections), (&[0, 1][..], 3));
        drop((one, both));
        let mut leases: Vec<_> = std::iter::from_fn(|| room.take(2, 0, |_| true)).collect();
        assert_eq!(leases.len(), SESSIONS_MAX);
        leases[0].settle(1);
        assert_eq!(room.take(2, 0, |_| true).unwrap().workers.len(), 1, "a worker was given back");
        drop(leases);
        assert!(room.0.borrow().iter().all(|load| *load == Load::default()));
    }

    #[test]
    fn sessions_do_not_go_where_nobody_answers() {
        let room = Rc::new(Room::new(3));
        assert_eq!(room.take(3, 0, |at| at != 1).unwrap().workers, [0, 2]);
        assert!(room.take(1, 0, |_| false).is_none());
    }

    #[test]
    fn who_wants_more_connections_than_are_left_gets_fewer() {
        let room = Rc::new(Room::new(2));
        let mut leases = Vec::new();
        for want in [128, 128, 128, 128] {
            let lease = room.take(128, 0, |_| true).unwrap();
            assert_eq!(lease.connections, want);
            leases.push(lease);
        }
        assert!(room.take(1, 0, |_| true).is_none());
        leases.truncate(3);
        let odd = room.take(101, 0, |_| true).unwrap();
        assert_eq!((odd.connections, odd.each), (101, 51));
        assert_eq!(room.take(128, 0, |_| true).unwrap().connections, 26);
    }

    #[test]
    fn connections_that_turn_out_not_to_be_needed_are_there_for_others() {
        let room = Rc::new(Room::new(2));
        let mut lease = room.take(128, 0, |_| true).unwrap();
        lease.settle(7);
        assert_eq!((lease.workers.len(), lease.each), (2, 4));
        lease.settle(128);
        assert_eq!(lease.each, 4, "what is given back is gone");
        let load = Load { sessions: 1, connections: 4 };
        assert_eq!(*room.0.borrow(), [load, load]);
        lease.settle(0);
        drop(lease);
        assert!(room.0.borrow().iter().all(|load| *load == Load::default()));
    }

    #[test]
    fn an_empty_file_has_a_lease_without_connections() {
        let room = Rc::new(Room::new(1));
        let lease = room.take(0, 0, |_| true).unwrap();
        assert_eq!((lease.workers.len(), lease.connections), (1, 0));
    }
}
