//! How the sessions of one worker share its buffers: a minimum for each, and of the rest never more than half.
//!
//! A session that has its minimum always gets on, so no session can starve another; why is in proto-spec.md, section 9. Some minima
//! stay free for those who come next: peers that read nothing may hold all else for as long as they like.

use crate::completion::{Account, Completions, Pool};
use crate::limits::{
    LARGE_BUFFER_BYTES, LARGE_BUFFERS, PAYLOAD_BUFFERS, SESSION_EXTENTS_MIN, SESSION_PAYLOADS_MIN, SESSIONS_MAX,
    SIGNATURE_BATCH_BYTES, SMALL_BUFFER_BYTES, SMALL_BUFFERS,
};

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
    /// It gets one buffer beyond its minimum and no more.
    confined: bool,
}

/// Why there is no room for one more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Full {
    /// Those who are here hold its minimum; it comes back as they get on.
    Now,
    /// As many are here as there are minima.
    Altogether,
}

/// Who is here.
#[derive(Debug, Default)]
pub(super) struct Shares {
    guests: [Option<Share>; SESSIONS_MAX],
    /// Small-frame buffers that connections of all guests may need.
    frames: usize,
}

impl Shares {
    /// Sets a session's minimum aside, with extents of this pool.
    pub(super) fn admit<C: Completions>(&mut self, machine: &C, extents: Pool, frames: usize) -> Result<Account, Full> {
        let slot = self.guests.iter().position(Option::is_none).ok_or(Full::Altogether)?;
        let pools = [extents, Pool::Payload];
        let fits = |pool| self.reserved(pool) + minimum(pool, extents) <= pool.buffers();
        if !pools.into_iter().all(fits) || self.frames + frames > Pool::Frame.buffers() {
            return Err(Full::Altogether);
        }
        // What others hold is theirs for as long as their peers like.
        let is_free = |pool| self.owed(machine, pool, None) + minimum(pool, extents) <= machine.free(pool);
        if !pools.into_iter().all(is_free) {
            return Err(Full::Now);
        }
        self.guests[slot] = Some(Share { extents, confined: false });
        self.frames += frames;
        u8::try_from(slot).map(Account).map_err(|_| Full::Altogether)
    }

    /// Gives it back.
    pub(super) fn dismiss(&mut self, account: Account, frames: usize) {
        let guest = self.guests[usize::from(account.0)].take();
        assert!(guest.is_some());
        self.frames -= frames;
    }

    /// Whether it gets one buffer beyond its minimum and no more: it holds one that hardly fills.
    pub(super) fn confine(&mut self, account: Account, confined: bool) {
        if let Some(guest) = &mut self.guests[usize::from(account.0)] {
            guest.confined = confined;
        }
    }

    /// Nobody else is here.
    pub(super) fn has_one_guest(&self) -> bool {
        self.guests.iter().flatten().nth(1).is_none()
    }

    fn reserved(&self, pool: Pool) -> usize {
        self.guests.iter().flatten().map(|guest| minimum(pool, guest.extents)).sum()
    }

    /// A buffer for this guest, if its share allows one more. Small frames are counted at the door.
    pub(super) fn lease<C: Completions>(&self, machine: &mut C, pool: Pool, account: Account) -> Option<C::Buffer> {
        if pool == Pool::Frame || self.allows(machine, pool, account) { machine.lease(pool, account) } else { None }
    }

    /// Whether its share allows one more, and there is one.
    pub(super) fn allows<C: Completions>(&self, machine: &C, pool: Pool, account: Account) -> bool {
        let own = self.guests[usize::from(account.0)].expect("a guest");
        let mine = machine.leased(pool, account);
        let minimum_of_mine = minimum(pool, own.extents);
        if mine < minimum_of_mine {
            return true;
        }
        let rest = pool.buffers() - self.reserved(pool);
        let most = if own.confined { 1 } else { rest.div_ceil(2) };
        if mine - minimum_of_mine >= most {
            return false;
        }
        // What is free must stay enough for the minimum of everybody else, and for newcomers.
        machine.free(pool) > self.owed(machine, pool, Some(account)) + self.kept(pool)
    }

    /// What stays free for newcomers: their minima, as far as a quarter of the pool goes.
    fn kept(&self, pool: Pool) -> usize {
        let newcomers = self.guests.iter().filter(|guest| guest.is_none()).count();
        (newcomers * minimum(pool, pool)).min(pool.buffers() / 4)
    }

    /// What the guests have not yet taken of their minimum.
    fn owed<C: Completions>(&self, machine: &C, pool: Pool, but_for: Option<Account>) -> usize {
        (0u8..)
            .map(Account)
            .zip(&self.guests)
            .filter(|(account, _)| Some(*account) != but_for)
            .filter_map(|(account, guest)| guest.map(|guest| (account, minimum(pool, guest.extents))))
            .map(|(account, least)| least.saturating_sub(machine.leased(pool, account)))
            .sum()
    }
}

const _: () = assert!(PAYLOAD_BUFFERS / 4 >= SESSION_PAYLOADS_MIN, "one newcomer's minimum is kept");
const _: () = assert!(LARGE_BUFFERS / 4 >= SESSION_EXTENTS_MIN, "one newcomer's minimum is kept");

/// Bytes of extents that a session has which is alone: one with both ends here always is.
const fn alone_bytes(buffers: usize, buffer_bytes: usize) -> usize {
    (SESSION_EXTENTS_MIN + (buffers - SESSION_EXTENTS_MIN) / 2) * buffer_bytes
}

const _: () = assert!(
    alone_bytes(SMALL_BUFFERS, SMALL_BUFFER_BYTES) >= SIGNATURE_BATCH_BYTES as usize + 2 * SMALL_BUFFER_BYTES,
    "with both ends here the source holds a batch of full extents and one more, until it is signed, and the target has one"
);
const _: () = assert!(
    alone_bytes(LARGE_BUFFERS, LARGE_BUFFER_BYTES) >= SIGNATURE_BATCH_BYTES as usize + 2 * LARGE_BUFFER_BYTES,
    "the same with larger blocks"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Ring;

    #[test]
    fn whoever_comes_gets_a_minimum_and_nobody_more_than_half_of_the_rest() {
        let mut ring = Ring::new().unwrap();
        let mut shares = Shares::default();
        let greedy = shares.admit(&ring, Pool::Small, 2).unwrap();
        let modest = shares.admit(&ring, Pool::Small, 2).unwrap();
        let all = |shares: &Shares, ring: &mut Ring, pool, who| -> Vec<_> {
            std::iter::from_fn(|| shares.lease(ring, pool, who)).collect()
        };
        let held = all(&shares, &mut ring, Pool::Small, greedy);
        assert_eq!(held.len(), SESSION_EXTENTS_MIN + (SMALL_BUFFERS - 2 * SESSION_EXTENTS_MIN) / 2);
        let payloads = all(&shares, &mut ring, Pool::Payload, greedy);
        assert_eq!(payloads.len(), SESSION_PAYLOADS_MIN + (PAYLOAD_BUFFERS - 2 * SESSION_PAYLOADS_MIN) / 2);
        let kept = all(&shares, &mut ring, Pool::Small, modest);
        assert!(kept.len() >= SESSION_EXTENTS_MIN);
        let mut rest = Vec::new();
        while let Ok(newcomer) = shares.admit(&ring, Pool::Small, 2) {
            rest.push((newcomer, all(&shares, &mut ring, Pool::Small, newcomer)));
        }
        assert_eq!(shares.admit(&ring, Pool::Small, 2), Err(Full::Now), "the greedy have more than their minimum");
        let kept_for = Pool::Small.buffers() / 4 / SESSION_EXTENTS_MIN;
        assert!(rest.len() >= kept_for, "{} came, and something is kept for {kept_for}", rest.len());
        assert!(rest.iter().all(|(_, held)| held.len() >= SESSION_EXTENTS_MIN));
        rest.into_iter().for_each(|(newcomer, _)| shares.dismiss(newcomer, 2));
        shares.confine(modest, true);
        assert_eq!(all(&shares, &mut ring, Pool::Payload, modest).len(), SESSION_PAYLOADS_MIN + 1);
    }

    #[test]
    fn who_comes_when_no_minimum_is_free_is_told() {
        let ring = Ring::new().unwrap();
        let mut shares = Shares::default();
        let guests: Vec<_> = std::iter::from_fn(|| shares.admit(&ring, Pool::Large, 2).ok()).collect();
        assert_eq!(guests.len(), Pool::Large.buffers() / SESSION_EXTENTS_MIN);
        assert_eq!(shares.admit(&ring, Pool::Large, 2), Err(Full::Altogether));
        assert!(shares.admit(&ring, Pool::Small, 2).is_ok(), "other extents are still free");
        shares.dismiss(guests[0], 2);
        assert!(shares.admit(&ring, Pool::Large, 2).is_ok());
        assert!(Shares::default().admit(&ring, Pool::Small, Pool::Frame.buffers() + 1).is_err());
    }
}
