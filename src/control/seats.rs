//! The places of data connections in the sessions that wait for them: who may take one, and what was brought to it.
//!
//! Pure: no sockets, no clock. A session opens with its secret and so many seats. A seat is given to who proves to know that
//! secret, for the challenge of his own connection and for this seat's number, and to nobody after him, whatever becomes of
//! him: two connections of one number would have the same keys. What is seated is handed on once, when the session begins.

use crate::seal::{ConnectionSecret, Secret, Side, same_proof};
use crate::wire::{Challenge, Join, SessionId};
use std::collections::HashMap;
use std::task::Poll;

/// The sessions that wait for their data connections. `S` is what sits there.
#[derive(Debug)]
pub(super) struct Seats<S>(HashMap<SessionId, Waiting<S>>);

#[derive(Debug)]
struct Waiting<S> {
    secret: Secret,
    seats: Vec<Seat<S>>,
}

/// Why somebody does not get a seat.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum NoSeat {
    /// There is no such session, or it has no such seat.
    Unknown,
    /// He has not proven to belong to the session.
    Unproven,
    /// Somebody has had it.
    Taken,
}

#[derive(Debug)]
enum Seat<S> {
    /// Nobody has proven that it is his.
    Free,
    /// Who has is being let in.
    Admitting,
    Taken(S),
    /// What sat there was handed on, or was lost while it was let in.
    Spent,
}

impl<S> Default for Seats<S> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<S> Seats<S> {
    /// A session waits for `count` connections, numbered from 0.
    pub(super) fn open(&mut self, session: SessionId, secret: Secret, count: u32) {
        let seats = (0..count).map(|_| Seat::Free).collect();
        self.0.insert(session, Waiting { secret, seats });
    }

    /// It waits no longer: who is still being let in comes too late.
    pub(super) fn close(&mut self, session: &SessionId) {
        self.0.remove(session);
    }

    /// A connection that was challenged so wants to join. If it may, it has the seat now, to be settled by [`Self::settle`],
    /// and these are its secrets. Who may not can try again: a wrong proof costs the seat nothing.
    pub(super) fn claim(&mut self, join: &Join, challenge: &Challenge) -> Result<ConnectionSecret, NoSeat> {
        let waiting = self.0.get_mut(&join.session).ok_or(NoSeat::Unknown)?;
        let secret = waiting.secret.connection(challenge, join.number);
        if !same_proof(&join.proof, &secret.proof(Side::Client)) {
            return Err(NoSeat::Unproven);
        }
        match waiting.seat(join.number).ok_or(NoSeat::Unknown)? {
            seat @ Seat::Free => *seat = Seat::Admitting,
            _ => return Err(NoSeat::Taken),
        }
        Ok(secret)
    }

    /// Who has claimed a seat was let in, or was lost meanwhile.
    pub(super) fn settle(&mut self, session: &SessionId, number: u32, admitted: Option<S>) {
        if let Some(seat) = self.0.get_mut(session).and_then(|waiting| waiting.seat(number)) {
            assert!(matches!(seat, Seat::Admitting), "only a claim is settled, and once");
            *seat = admitted.map_or(Seat::Spent, Seat::Taken);
        }
    }

    /// Hands on what sits on these seats, in this order; pending while somebody is being let in to one of them. `None`: nobody
    /// sits on one of them, or it is named twice.
    pub(super) fn take(&mut self, session: &SessionId, numbers: &[u32]) -> Poll<Option<Vec<S>>> {
        let Some(waiting) = self.0.get_mut(session) else { return Poll::Ready(None) };
        if numbers.iter().any(|number| matches!(waiting.seat(*number), Some(Seat::Admitting))) {
            return Poll::Pending;
        }
        Poll::Ready(numbers.iter().map(|number| waiting.seat(*number)?.take()).collect())
    }
}

impl<S> Waiting<S> {
    fn seat(&mut self, number: u32) -> Option<&mut Seat<S>> {
        self.seats.get_mut(usize::try_from(number).ok()?)
    }
}

impl<S> Seat<S> {
    /// What sits here. Nobody sits here any more, nor ever will.
    fn take(&mut self) -> Option<S> {
        match std::mem::replace(self, Seat::Spent) {
            Seat::Taken(seated) => Some(seated),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CHALLENGE_LEN, PROOF_LEN};
    use crate::seal::SECRET_LEN;

    const SESSION: SessionId = [1; 16];
    const CHALLENGE: Challenge = [2; CHALLENGE_LEN];

    fn secret() -> Secret {
        Secret::new([3; SECRET_LEN])
    }

    fn seats() -> Seats<u32> {
        let mut seats = Seats::default();
        seats.open(SESSION, secret(), 2);
        seats
    }

    /// An honest one.
    fn join(number: u32) -> Join {
        Join { session: SESSION, number, proof: secret().connection(&CHALLENGE, number).proof(Side::Client) }
    }

    #[test]
    fn a_seat_is_given_to_a_proof_for_this_challenge_session_number_and_side() {
        #[track_caller]
        fn check(join: Join, challenge: Challenge, want: Result<(), NoSeat>) {
            let mut seats = seats();
            assert_eq!(seats.claim(&join, &challenge).map(drop), want);
            if want.is_err() {
                assert!(seats.claim(&self::join(0), &CHALLENGE).is_ok(), "what failed costs the seat nothing");
                assert!(seats.claim(&self::join(1), &CHALLENGE).is_ok());
            }
        }
        let proof = |secret: Secret, side| secret.connection(&CHALLENGE, 0).proof(side);
        check(join(0), CHALLENGE, Ok(()));
        check(join(1), CHALLENGE, Ok(()));
        check(join(2), CHALLENGE, Err(NoSeat::Unknown));
        check(join(u32::MAX), CHALLENGE, Err(NoSeat::Unknown));
        check(Join { session: [9; 16], ..join(0) }, CHALLENGE, Err(NoSeat::Unknown));
        check(Join { number: 1, ..join(0) }, CHALLENGE, Err(NoSeat::Unproven));
        check(join(0), [9; CHALLENGE_LEN], Err(NoSeat::Unproven)); // replayed on another connection
        check(Join { proof: proof(secret(), Side::Server), ..join(0) }, CHALLENGE, Err(NoSeat::Unproven)); // reflected
        check(
            Join { proof: proof(Secret::new([9; SECRET_LEN]), Side::Client), ..join(0) },
            CHALLENGE,
            Err(NoSeat::Unproven),
        );
        check(Join { proof: [0; PROOF_LEN], ..join(0) }, CHALLENGE, Err(NoSeat::Unproven));
    }

    #[test]
    fn a_seat_is_given_once_whatever_becomes_of_it() {
        #[track_caller]
        fn check(then: impl FnOnce(&mut Seats<u32>)) {
            let mut seats = seats();
            assert!(seats.claim(&join(0), &CHALLENGE).is_ok());
            then(&mut seats);
            assert!(matches!(seats.claim(&join(0), &CHALLENGE), Err(NoSeat::Taken | NoSeat::Unknown)));
        }
        check(|_| {}); // it is being let in
        check(|seats| seats.settle(&SESSION, 0, Some(7)));
        check(|seats| seats.settle(&SESSION, 0, None));
        check(|seats| {
            seats.settle(&SESSION, 0, Some(7));
            assert_eq!(seats.take(&SESSION, &[0]), Poll::Ready(Some(vec![7])));
        });
        check(|seats| seats.close(&SESSION));
    }

    #[test]
    fn what_sits_there_is_handed_on_once_and_when_all_are_in() {
        #[track_caller]
        fn check(seats: &mut Seats<u32>, numbers: &[u32], want: Poll<Option<&[u32]>>) {
            let taken = seats.take(&SESSION, numbers);
            assert_eq!(taken, want.map(|want| want.map(<[u32]>::to_vec)));
        }
        /// Both have claimed their seats, and some of them were let in.
        fn settled(first: Option<Option<u32>>, second: Option<Option<u32>>) -> Seats<u32> {
            let mut seats = seats();
            for (number, settled) in [(0, first), (1, second)] {
                assert!(seats.claim(&join(number), &CHALLENGE).is_ok());
                if let Some(admitted) = settled {
                    seats.settle(&SESSION, number, admitted);
                }
            }
            seats
        }
        check(&mut seats(), &[], Poll::Ready(Some(&[])));
        check(&mut seats(), &[0], Poll::Ready(None));
        check(&mut settled(None, Some(Some(8))), &[0, 1], Poll::Pending);
        check(&mut settled(None, Some(Some(8))), &[1], Poll::Ready(Some(&[8])));
        check(&mut settled(Some(None), Some(Some(8))), &[0, 1], Poll::Ready(None));
        let both = || settled(Some(Some(7)), Some(Some(8)));
        check(&mut both(), &[0, 1], Poll::Ready(Some(&[7, 8])));
        check(&mut both(), &[1, 0], Poll::Ready(Some(&[8, 7])));
        check(&mut both(), &[0, 0], Poll::Ready(None));
        check(&mut both(), &[0, 2], Poll::Ready(None));
        check(&mut both(), &[u32::MAX], Poll::Ready(None));
        let mut seats = both();
        check(&mut seats, &[0], Poll::Ready(Some(&[7])));
        check(&mut seats, &[0], Poll::Ready(None));
        seats.close(&SESSION);
        check(&mut seats, &[1], Poll::Ready(None));
        seats.settle(&SESSION, 1, Some(8)); // too late
    }
}
