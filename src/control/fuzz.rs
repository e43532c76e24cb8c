//! Sessions that wait for their data connections, and everybody who wants to sit there: for the fuzzer (`fuzz/`), for the
//! replay of its corpus and for tests.
//!
//! The bytes choose what happens next: sessions come and go, connections join with the right proof or with another, are let
//! in or are lost, and sessions begin with some of them. What has to hold always: no panic; a seat is given for the one
//! proof that belongs to it and to the challenge, once; what was seated is handed on once, to its session, in the order
//! asked for.

use super::seats::Seats;
use crate::limits::CHALLENGE_LEN;
use crate::seal::{SECRET_LEN, Secret, Side};
use crate::wire::fuzz::Dice;
use crate::wire::{Challenge, JOIN_LEN, Join, SessionId, decode_join, encode_join};
use std::collections::HashSet;
use std::task::Poll;

/// Sessions that have a secret. Names of sessions are not used again.
const SESSIONS: u8 = 4;
/// Numbers that are named; sessions have fewer seats.
const NUMBERS: u32 = 6;

/// Any bytes as what happens to the sessions of a server.
pub fn fuzz_join(bytes: &[u8]) {
    let mut dice = Dice(bytes);
    let mut hall = Hall::default();
    while let Some(event) = dice.roll() {
        match event % 8 {
            0 => hall.open(&mut dice),
            1 => hall.close(&mut dice),
            2 => hall.settle(&mut dice),
            3 | 4 => hall.take(&mut dice),
            _ => hall.claim(&mut dice),
        }
    }
}

/// What a seat is, as plainly as can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Model {
    Free,
    Admitting,
    Taken(u32),
    Spent,
}

/// The seats, and what they should be.
#[derive(Default)]
struct Hall {
    seats: Seats<u32>,
    /// Sessions that are open, and the seats of each.
    model: Vec<(u8, Vec<Model>)>,
    opened: u8,
    /// Claims that are to be settled.
    admitting: Vec<(u8, u32)>,
    given: HashSet<(u8, u32)>,
    /// The last one whose connection is counted.
    seated: u32,
    handed_on: HashSet<u32>,
}

impl Hall {
    fn open(&mut self, dice: &mut Dice<'_>) {
        if self.opened < SESSIONS {
            let count = u32::try_from(dice.below(5)).expect("below 5");
            self.seats.open(id(self.opened), secret(self.opened), count);
            self.model.push((self.opened, (0..count).map(|_| Model::Free).collect()));
            self.opened += 1;
        }
    }

    fn close(&mut self, dice: &mut Dice<'_>) {
        let session = some_session(dice);
        self.seats.close(&id(session));
        self.model.retain(|(open, _)| *open != session);
    }

    fn claim(&mut self, dice: &mut Dice<'_>) {
        let (session, number, challenge) = (some_session(dice), some_number(dice), some_challenge(dice));
        let Some(join) = some_join(session, number, &challenge, dice) else { return };
        let right = secret_of(&join.session).map(|secret| secret.connection(&challenge, join.number));
        let proven = right.as_ref().is_some_and(|right| right.proof(Side::Client) == join.proof);
        let named = named(&join.session);
        let seat = named.and_then(|session| self.seat(session, join.number));
        let may = proven && seat.as_deref() == Some(&Model::Free);
        if let Some(seat) = seat.filter(|_| may) {
            *seat = Model::Admitting;
        }
        let given = self.seats.claim(&join, &challenge);
        assert_eq!(given.is_ok(), may, "{join:?}");
        if let (Ok(given), Some(right), Some(session)) = (given, right, named) {
            assert_eq!(given.proof(Side::Server), right.proof(Side::Server));
            assert!(self.given.insert((session, join.number)), "a seat is given once");
            self.admitting.push((session, join.number));
        }
    }

    fn settle(&mut self, dice: &mut Dice<'_>) {
        if self.admitting.is_empty() {
            return;
        }
        let (session, number) = self.admitting.swap_remove(dice.below(self.admitting.len()));
        self.seated += 1;
        let admitted = dice.coin().then_some(self.seated);
        self.seats.settle(&id(session), number, admitted);
        if let Some(seat) = self.seat(session, number) {
            *seat = admitted.map_or(Model::Spent, Model::Taken);
        }
    }

    fn take(&mut self, dice: &mut Dice<'_>) {
        let session = some_session(dice);
        let numbers: Vec<u32> = (0..dice.below(5)).map(|_| some_number(dice)).collect();
        let taken = self.seats.take(&id(session), &numbers);
        let admitting = |number: &u32| self.model_of(session, *number) == Some(Model::Admitting);
        if numbers.iter().any(admitting) {
            assert_eq!(taken, Poll::Pending);
            return;
        }
        let open = self.model.iter().any(|(open, _)| *open == session);
        let mut want = open.then(Vec::new);
        for number in numbers {
            let seat = self.seat(session, number).map(|seat| std::mem::replace(seat, Model::Spent));
            let Some(Model::Taken(seated)) = seat else {
                want = None;
                break;
            };
            want.as_mut().expect("it is open").push(seated);
        }
        for seated in want.iter().flatten() {
            assert!(self.handed_on.insert(*seated), "handed on once");
        }
        assert_eq!(taken, Poll::Ready(want));
    }

    fn seat(&mut self, session: u8, number: u32) -> Option<&mut Model> {
        let (_, seats) = self.model.iter_mut().find(|(open, _)| *open == session)?;
        seats.get_mut(number as usize)
    }

    fn model_of(&self, session: u8, number: u32) -> Option<Model> {
        let (_, seats) = self.model.iter().find(|(open, _)| *open == session)?;
        seats.get(number as usize).copied()
    }
}

fn id(session: u8) -> SessionId {
    [session; 16]
}

fn secret(session: u8) -> Secret {
    Secret::new([session; SECRET_LEN])
}

/// Whose name that is, if it is one's.
fn named(id: &SessionId) -> Option<u8> {
    (0..SESSIONS).find(|session| self::id(*session) == *id)
}

fn secret_of(id: &SessionId) -> Option<Secret> {
    named(id).map(secret)
}

fn some_session(dice: &mut Dice<'_>) -> u8 {
    dice.roll().unwrap_or(0) % (SESSIONS + 1)
}

fn some_number(dice: &mut Dice<'_>) -> u32 {
    u32::from(dice.roll().unwrap_or(0)) % NUMBERS
}

fn some_challenge(dice: &mut Dice<'_>) -> Challenge {
    [dice.roll().unwrap_or(0) % 4; CHALLENGE_LEN]
}

/// A join for this seat and challenge, or one that was made for another, by another, or of anything.
fn some_join(session: u8, number: u32, challenge: &Challenge, dice: &mut Dice<'_>) -> Option<Join> {
    let honest = |session: u8, number: u32, challenge: &Challenge, side: Side| {
        secret(session).connection(challenge, number).proof(side)
    };
    let mut proof = honest(session, number, challenge, Side::Client);
    let mut number = number;
    match dice.below(12) {
        0 => proof = honest(some_session(dice), number, challenge, Side::Client),
        1 => proof = honest(session, some_number(dice), challenge, Side::Client),
        2 => proof = honest(session, number, &some_challenge(dice), Side::Client),
        3 => proof = honest(session, number, challenge, Side::Server),
        4 => number = dice.among(&[u32::MAX, 1 << 31, 128, number ^ 1]),
        5 => {
            let mut bytes = encode_join(&Join { session: id(session), number, proof });
            bytes[usize::from(dice.roll().unwrap_or(0)) % JOIN_LEN] ^= 1 << dice.below(8);
            return decode_join(&bytes).ok();
        }
        6 => return decode_join(dice.take(JOIN_LEN).first_chunk()?).ok(),
        _ => {}
    }
    let join = Join { session: id(session), number, proof };
    assert_eq!(decode_join(&encode_join(&join)), Ok(join));
    Some(join)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_happens_a_seat_is_given_once_and_to_a_proof(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            fuzz_join(&bytes);
        }
    }
}
