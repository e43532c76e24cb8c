//! How the sessions of one worker share its buffers: a minimum for each, and of the rest never more than half.
//!
//! A session that has its minimum always gets on, so no session can starve another; how is in DESIGN section 4.

use crate::completion::{Account, Completions, Pool};
use crate::limits::{SESSION_EXTENTS_MIN, SESSION_PAYLOADS_MIN, SESSIONS_MAX};

/// What every session sets aside, by pool.
fn minimum(pool: Pool, extents: Pool) -> usize {
    match pool {
        Pool::Payload => SESSION_PAYLOADS_MIN,
        Pool::Small | Pool::Large if pool == extents => SESSION_EXTENTS_MIN,
        _ => 0,
    }
}

/// One session's share.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// Where the two extents come from that are set aside for it: those that hold at least a block.
    extents: Pool,
    /// It gets nothing beyond its minimum.
    confined: bool,
}

/// Who is here.
#[derive(Debug, Default)]
pub(super) struct Shares {
    guests: [Option<Share>; SESSIONS_MAX],
    /// Small-frame buffers that connections of all guests may need.
    frames: usize,
}

impl Shares {
    /// Sets a session's minimum aside, with extents of this pool. `None`: it is not free.
    pub(super) fn admit(&mut self, extents: Pool, frames: usize) -> Option<Account> {
        let slot = self.guests.iter().position(Option::is_none)?;
        let reserved: usize = self.reserved(extents);
        let fits = reserved + SESSION_EXTENTS_MIN <= extents.buffers()
            && self.reserved(Pool::Payload) + SESSION_PAYLOADS_MIN <= Pool::Payload.buffers()
            && self.frames + frames <= Pool::Frame.buffers();
        if !fits {
            return None;
        }
        self.guests[slot] = Some(Share { extents, confined: false });
        self.frames += frames;
        u8::try_from(slot).ok().map(Account)
    }

    /// Gives it back.
    pub(super) fn dismiss(&mut self, account: Account, frames: usize) {
        let guest = self.guests[usize::from(account.0)].take();
        assert!(guest.is_some());
        self.frames -= frames;
    }

    /// Whether it gets nothing beyond its minimum: it holds a buffer that hardly fills.
    pub(super) fn confine(&mut self, account: Account, confined: bool) {
        if let Some(guest) = &mut self.guests[usize::from(account.0)] {
            guest.confined = confined;
        }
    }

    fn reserved(&self, pool: Pool) -> usize {
        self.guests.iter().flatten().map(|guest| minimum(pool, guest.extents)).sum()
    }

    /// A buffer for this guest, if its share allows one more. Small frames are counted at the door.
    pub(super) fn lease<C: Completions>(&self, machine: &mut C, pool: Pool, account: Account) -> Option<C::Buffer> {
        if pool == Pool::Frame || self.allows(machine, pool, account) { machine.lease(pool, account) } else { None }
    }

    fn allows<C: Completions>(&self, machine: &C, pool: Pool, account: Account) -> bool {
        let own = self.guests[usize::from(account.0)].expect("a guest");
        let mine = machine.leased(pool, account);
        let minimum_of_mine = minimum(pool, own.extents);
        if mine < minimum_of_mine {
            return true;
        }
        let rest = pool.buffers() - self.reserved(pool);
        if own.confined || mine - minimum_of_mine >= rest.div_ceil(2) {
            return false;
        }
        // What is free must stay enough for the minimum of everybody else.
        let owed: usize = (0u8..)
            .zip(&self.guests)
            .filter(|(slot, _)| *slot != account.0)
            .filter_map(|(slot, guest)| guest.map(|guest| (slot, minimum(pool, guest.extents))))
            .map(|(slot, least)| least.saturating_sub(machine.leased(pool, Account(slot))))
            .sum();
        machine.free(pool) > owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{PAYLOAD_BUFFERS, SMALL_BUFFERS};
    use crate::ring::Ring;

    #[test]
    fn whoever_comes_gets_a_minimum_and_nobody_more_than_half_of_the_rest() {
        let mut ring = Ring::new().unwrap();
        let mut shares = Shares::default();
        let greedy = shares.admit(Pool::Small, 2).unwrap();
        let modest = shares.admit(Pool::Small, 2).unwrap();
        let all = |shares: &Shares, ring: &mut Ring, pool, who| -> Vec<_> {
            std::iter::from_fn(|| shares.lease(ring, pool, who)).collect()
        };
        let held = all(&shares, &mut ring, Pool::Small, greedy);
        assert_eq!(held.len(), SESSION_EXTENTS_MIN + (SMALL_BUFFERS - 2 * SESSION_EXTENTS_MIN) / 2);
        let payloads = all(&shares, &mut ring, Pool::Payload, greedy);
        assert_eq!(payloads.len(), SESSION_PAYLOADS_MIN + (PAYLOAD_BUFFERS - 2 * SESSION_PAYLOADS_MIN) / 2);
        assert!(all(&shares, &mut ring, Pool::Small, modest).len() >= SESSION_EXTENTS_MIN);
        shares.confine(modest, true);
        assert_eq!(all(&shares, &mut ring, Pool::Payload, modest).len(), SESSION_PAYLOADS_MIN);
    }

    #[test]
    fn who_comes_when_no_minimum_is_free_is_told() {
        let mut shares = Shares::default();
        let guests: Vec<_> = std::iter::from_fn(|| shares.admit(Pool::Large, 2)).collect();
        assert_eq!(guests.len(), Pool::Large.buffers() / SESSION_EXTENTS_MIN);
        assert!(shares.admit(Pool::Small, 2).is_some(), "other extents are still free");
        shares.dismiss(guests[0], 2);
        assert!(shares.admit(Pool::Large, 2).is_some());
        assert!(Shares::default().admit(Pool::Small, Pool::Frame.buffers() + 1).is_none());
    }
}
