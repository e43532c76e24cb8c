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

/// Who is here, with the pool that their extents come from.
#[derive(Debug, Default)]
pub(super) struct Shares {
    guests: [Option<Pool>; SESSIONS_MAX],
    /// Small-frame buffers that connections of all guests may need.
    frames: usize,
}

impl Shares {
    /// Sets a session's minimum aside. `None`: it is not free.
    pub(super) fn admit(&mut self, extents: Pool, frames: usize) -> Option<Account> {
        let slot = self.guests.iter().position(Option::is_none)?;
        let reserved: usize = self.reserved(extents);
        let fits = reserved + SESSION_EXTENTS_MIN <= extents.buffers()
            && self.reserved(Pool::Payload) + SESSION_PAYLOADS_MIN <= Pool::Payload.buffers()
            && self.frames + frames <= Pool::Frame.buffers();
        if !fits {
            return None;
        }
        self.guests[slot] = Some(extents);
        self.frames += frames;
        u8::try_from(slot).ok().map(Account)
    }

    /// Gives it back.
    pub(super) fn dismiss(&mut self, account: Account, frames: usize) {
        let guest = self.guests[usize::from(account.0)].take();
        assert!(guest.is_some());
        self.frames -= frames;
    }

    fn reserved(&self, pool: Pool) -> usize {
        self.guests.iter().flatten().map(|extents| minimum(pool, *extents)).sum()
    }

    /// A buffer for this guest, if its share allows one more. Small frames are counted at the door.
    pub(super) fn lease<C: Completions>(&self, machine: &mut C, pool: Pool, account: Account) -> Option<C::Buffer> {
        if pool == Pool::Frame || self.allows(machine, pool, account) { machine.lease(pool, account) } else { None }
    }

    fn allows<C: Completions>(&self, machine: &C, pool: Pool, account: Account) -> bool {
        let own = self.guests[usize::from(account.0)].expect("a guest");
        let mine = machine.leased(pool, account);
        let minimum_of_mine = minimum(pool, own);
        if mine < minimum_of_mine {
            return true;
        }
        let rest = pool.buffers() - self.reserved(pool);
        if mine - minimum_of_mine >= rest.div_ceil(2) {
            return false;
        }
        // What is free must stay enough for the minimum of everybody else.
        let owed: usize = (0u8..)
            .zip(&self.guests)
            .filter(|(slot, _)| *slot != account.0)
            .filter_map(|(slot, guest)| guest.map(|extents| (slot, minimum(pool, extents))))
            .map(|(slot, least)| least.saturating_sub(machine.leased(pool, Account(slot))))
            .sum();
        machine.free(pool) > owed
    }
}
