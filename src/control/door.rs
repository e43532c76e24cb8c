//! The door of a server: who stands in front of it without having said who he is, who has failed to prove it, who is in.
//!
//! Nobody is trusted here, so everything is bounded: how many wait, from accept on and for how long, and how many are
//! remembered. One address cannot fill the door: who holds most of it makes room. Silence costs its place and nothing
//! else; a failed proof costs its address some seconds, unless somebody of that address is in.

use super::identity::{Grant, RoleKey};
use crate::failure::{Failure, Kind};
use crate::limits::{HELLO_MS, PENALTIES_MAX, PENALTY_FORGOTTEN_MS, PENALTY_MS_MAX, PENALTY_MS_MIN, STRANGERS_MAX};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr, Shutdown, TcpStream};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Where somebody comes from, as far as a limit is concerned: an IPv4 address, or a network of IPv6 with 64 bits, all
/// addresses of which one host can have.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
            ipv4 => ipv4,
        })
    }
}

/// The door.
#[derive(Debug)]
pub(super) struct Door {
    /// Strangers at most.
    most: usize,
    /// In the order in which they came.
    strangers: RefCell<BTreeMap<u64, (Origin, Rc<Notify>)>>,
    arrivals: Cell<u64>,
    /// Strangers that hold something, also those who were asked to go.
    present: Cell<usize>,
    /// One of them has gone.
    left: Notify,
    penalties: RefCell<HashMap<Origin, Penalty>>,
    guests: RefCell<Vec<(RoleKey, Origin)>>,
}

/// What an address has to wait that has failed to prove who it is.
#[derive(Clone, Copy, Debug)]
struct Penalty {
    failures: u32,
    until: Instant,
}

impl Door {
    /// `most` strangers, and no more than [`STRANGERS_MAX`].
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.clamp(1, STRANGERS_MAX),
            strangers: RefCell::default(),
            arrivals: Cell::default(),
            present: Cell::default(),
            left: Notify::default(),
            penalties: RefCell::default(),
            guests: RefCell::default(),
        }
    }

    /// Waits until there is room for one more: until those who were asked to go have gone. So descriptors are bounded, and
    /// a burst waits in the kernel's queue.
    pub(super) async fn room(&self) {
        while self.present.get() > self.most {
            self.left.notified().await;
        }
    }

    /// Somebody comes, on a connection of which this is a handle. Where as many are as may be, the oldest of those from where
    /// most are makes room.
    pub(super) fn enter(self: &Rc<Self>, origin: Origin, handle: TcpStream) -> Stranger {
        let mut strangers = self.strangers.borrow_mut();
        if strangers.len() >= self.most
            && let Some((_, asked)) = oldest_of_most(&strangers).and_then(|oldest| strangers.remove(&oldest))
        {
            asked.notify_one();
        }
        let number = self.arrivals.get();
        self.arrivals.set(number + 1);
        self.present.set(self.present.get() + 1);
        let asked = Rc::new(Notify::new());
        strangers.insert(number, (origin, Rc::clone(&asked)));
        let deadline = Instant::now() + Duration::from_millis(HELLO_MS);
        Stranger { door: Rc::clone(self), handle, number, origin, asked, deadline }
    }

    /// Somebody of this address has failed to prove who he is.
    pub(super) fn blame(&self, origin: Origin) {
        let now = Instant::now();
        let mut penalties = self.penalties.borrow_mut();
        penalties.retain(|_, penalty| penalty.until + Duration::from_millis(PENALTY_FORGOTTEN_MS) > now);
        if penalties.len() >= PENALTIES_MAX
            && !penalties.contains_key(&origin)
            && let Some(first) = penalties.iter().min_by_key(|(_, penalty)| penalty.until).map(|(origin, _)| *origin)
        {
            penalties.remove(&first);
        }
        let penalty = penalties.entry(origin).or_insert(Penalty { failures: 0, until: now });
        penalty.until = now + delay(penalty.failures);
        penalty.failures = penalty.failures.saturating_add(1);
    }

    /// Until when somebody of this address has to wait; `None` if he has not.
    fn penalty(&self, origin: Origin) -> Option<Instant> {
        if self.guests.borrow().iter().any(|(_, inside)| *inside == origin) {
            return None; // he may share the address with whoever fails
        }
        self.penalties.borrow().get(&origin).map(|penalty| penalty.until)
    }

    /// Lets one more session of this key in, if it may have one.
    pub(super) fn admit(self: &Rc<Self>, grant: &Grant, origin: Origin) -> Result<Visit, Failure> {
        let mut guests = self.guests.borrow_mut();
        let count = guests.iter().filter(|(guest, _)| *guest == grant.key).count();
        if grant.sessions_max.is_some_and(|most| count >= most as usize) {
            return Err(Failure::new(Kind::Busy, "this key has as many sessions as it may have; try again later"));
        }
        let inside = (grant.key, origin);
        guests.push(inside);
        Ok(Visit { door: Rc::clone(self), inside })
    }
}

/// What one more failure costs behind so many.
fn delay(failures: u32) -> Duration {
    let doubled = PENALTY_MS_MIN.saturating_mul(1_u64.checked_shl(failures).unwrap_or(u64::MAX));
    Duration::from_millis(doubled.min(PENALTY_MS_MAX))
}

/// The oldest of the address that holds most; of several that hold as many, the oldest of all.
fn oldest_of_most(strangers: &BTreeMap<u64, (Origin, Rc<Notify>)>) -> Option<u64> {
    let mut held: HashMap<Origin, (usize, u64)> = HashMap::new();
    for (number, (origin, _)) in strangers {
        held.entry(*origin).or_insert((0, *number)).0 += 1;
    }
    held.into_values().max_by_key(|(count, oldest)| (*count, std::cmp::Reverse(*oldest))).map(|(_, oldest)| oldest)
}

/// A connection of somebody who has not said who he is, until this is dropped.
#[derive(Debug)]
pub(super) struct Stranger {
    door: Rc<Door>,
    handle: TcpStream,
    number: u64,
    pub(super) origin: Origin,
    /// To go.
    asked: Rc<Notify>,
    /// One for all that comes before trust, not one for each step.
    deadline: Instant,
}

impl Stranger {
    /// Waits for what he does. `None`: the time was up, or he had to make room; the connection is over.
    pub(super) async fn patience<T>(&self, done: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = done => return Some(done),
            () = self.asked.notified() => {}
            () = tokio::time::sleep_until(self.deadline) => {}
        }
        _ = self.handle.shutdown(Shutdown::Both); // also what is under way on it ends
        None
    }

    /// Waits as long as others of his address have earned it for him. `None` as for [`Stranger::patience`].
    pub(super) async fn penance(&self) -> Option<()> {
        match self.door.penalty(self.origin) {
            Some(until) => self.patience(tokio::time::sleep_until(until)).await,
            None => Some(()),
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.door.strangers.borrow_mut().remove(&self.number);
        self.door.present.set(self.door.present.get() - 1);
        self.door.left.notify_waiters();
    }
}

/// One session of a key, until this is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    door: Rc<Door>,
    inside: (RoleKey, Origin),
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut guests = self.door.guests.borrow_mut();
        if let Some(at) = guests.iter().position(|guest| *guest == self.inside) {
            guests.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Somebody at this address, with a connection of his own.
    fn somebody(door: &Rc<Door>, address: &str) -> Stranger {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        door.enter(origin(address), socket)
    }

    fn origin(address: &str) -> Origin {
        Origin::from(address.parse::<IpAddr>().unwrap())
    }

    /// Whether he was asked to go.
    async fn has_to_go(stranger: &Stranger) -> bool {
        stranger.patience(tokio::task::yield_now()).await.is_none() || stranger.patience(yield_twice()).await.is_none()
    }

    async fn yield_twice() {
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn the_oldest_of_the_address_that_holds_most_makes_room() {
        run(async {
            let door = Rc::new(Door::new(STRANGERS_MAX));
            let lonely = somebody(&door, "192.0.2.1");
            let crowd: Vec<_> = (1..STRANGERS_MAX).map(|_| somebody(&door, "192.0.2.2")).collect();
            door.room().await;
            let late = somebody(&door, "192.0.2.3");
            let room = door.room();
            tokio::pin!(room);
            assert!(tokio::time::timeout(Duration::ZERO, &mut room).await.is_err(), "he has not gone yet");
            assert!(has_to_go(&crowd[0]).await);
            for stays in [&lonely, &crowd[1], &late] {
                assert!(!has_to_go(stays).await);
            }
            drop(crowd);
            room.await;
        });
    }

    #[test]
    fn a_failed_proof_costs_its_address_seconds_unless_somebody_of_it_is_in() {
        run(async {
            let door = Rc::new(Door::new(STRANGERS_MAX));
            let (guilty, other) = (origin("2001:db8::1"), origin("2001:db8:0:1::1"));
            assert_eq!(guilty, origin("2001:db8::2"), "one host can have both");
            assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
            door.blame(guilty);
            let first = door.penalty(guilty).unwrap();
            (0..40).for_each(|_| door.blame(guilty));
            let last = door.penalty(guilty).unwrap();
            assert!(first < last && last <= Instant::now() + Duration::from_millis(PENALTY_MS_MAX));
            assert_eq!(door.penalty(other), None);
            let key = RoleKey([7; 32]);
            let grant = Grant { key, root: None, read_only: false, no_delete: false, sessions_max: Some(1) };
            let guest = door.admit(&grant, guilty).unwrap();
            assert_eq!(door.penalty(guilty), None);
            assert_eq!(door.admit(&grant, other).unwrap_err().kind, Kind::Busy);
            drop(guest);
            assert_eq!(door.penalty(guilty), Some(last));
        });
    }

    #[test]
    fn penalties_are_bounded_and_so_is_how_many_are_remembered() {
        assert_eq!(delay(0), Duration::from_millis(PENALTY_MS_MIN));
        assert_eq!(delay(1), Duration::from_millis(2 * PENALTY_MS_MIN));
        for failures in [10, 63, 64, u32::MAX] {
            assert_eq!(delay(failures), Duration::from_millis(PENALTY_MS_MAX));
        }
        run(async {
            let door = Door::new(STRANGERS_MAX);
            for address in 0..u32::try_from(PENALTIES_MAX).unwrap() + 10 {
                door.blame(Origin::from(IpAddr::from(address.to_be_bytes())));
            }
            assert_eq!(door.penalties.borrow().len(), PENALTIES_MAX);
        });
    }
}
