//! What limits a copy, made out from where the workers of both ends spent their time.
//!
//! Each end counts only what it sees itself, so the two are laid side by side: the limit is what was busy, or waited for,
//! the longest on either side. An end that waits for the other one waits for what that is busy with; only where both wait
//! is it the network, and where one waits and the other has nothing to show for it, the other end had something else to
//! do. Who has no core to work on lacks cores, and is the peer that the other end waits for. The peer's numbers are any
//! numbers: they decide about a word for people and nothing else.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Less than this tells more about starting than about copying.
const ELAPSED_US_MIN: u64 = 200_000;
/// A limit is at work for this many thousandths of the time at least; else nothing is known. Guessed: with six things to
/// choose from, less is no answer.
const SHARE_MIN: u64 = 200;

/// What limits a copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// Reading the source.
    SourceDisk,
    /// Reading and writing the target, and waiting until it is on disk.
    TargetDisk,
    /// Both ends wait for what is on its way.
    Network,
    /// The cores: hashing, and copying what is in memory; or others have this end's.
    Hashing,
    /// The other end has something else to do, or no core to do it on, or cannot be seen.
    Peer,
}

impl Limit {
    /// Its name, also in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::SourceDisk => "source disk",
            Self::TargetDisk => "target disk",
            Self::Network => "network",
            Self::Hashing => "hashing",
            Self::Peer => "peer",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the time of one end's workers went, of all of them together. Who waits for two things counts both.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Spent {
    /// At work, but for writing.
    pub hashing_us: u64,
    /// Waiting for the source's disk.
    pub source_disk_us: u64,
    /// Waiting for the target's disk, or writing.
    pub target_disk_us: u64,
    /// Waiting for the other end, or for the network to take what there is to send.
    pub peer_us: u64,
    /// They could have run, and had no core.
    pub without_core_us: u64,
}

impl Spent {
    #[must_use]
    fn since(self, before: Self) -> Self {
        Self {
            hashing_us: self.hashing_us.saturating_sub(before.hashing_us),
            source_disk_us: self.source_disk_us.saturating_sub(before.source_disk_us),
            target_disk_us: self.target_disk_us.saturating_sub(before.target_disk_us),
            peer_us: self.peer_us.saturating_sub(before.peer_us),
            without_core_us: self.without_core_us.saturating_sub(before.without_core_us),
        }
    }
}

/// One end of a copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Side {
    /// Workers that it has for this copy.
    pub workers: u32,
    /// Where their time went.
    pub spent: Spent,
}

impl Side {
    /// What its workers did with their time, for people.
    pub fn of(self, elapsed_us: u64) -> String {
        let Spent { hashing_us, source_disk_us, target_disk_us, peer_us, without_core_us } = self.shares(elapsed_us);
        let [hashing, source, target, peer, without] =
            [hashing_us, source_disk_us, target_disk_us, peer_us, without_core_us].map(|share| share / 10);
        let without = if without > 0 { format!(", {without}% without a core") } else { String::new() };
        format!(
            "{hashing}% hashing, {source}% source disk, {target}% target disk, {peer}% waiting for the other end{without}"
        )
    }

    /// The same workers, with what was spent since they were at `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { workers: self.workers, spent: self.spent.since(before.spent) }
    }

    /// Each as thousandths of all the time that its workers had.
    fn shares(self, elapsed_us: u64) -> Spent {
        let all_us = elapsed_us.saturating_mul(u64::from(self.workers)).max(1);
        let share = |us: u64| (us.saturating_mul(1000) / all_us).min(1000);
        Spent {
            hashing_us: share(self.spent.hashing_us),
            source_disk_us: share(self.spent.source_disk_us),
            target_disk_us: share(self.spent.target_disk_us),
            peer_us: share(self.spent.peer_us),
            without_core_us: share(self.spent.without_core_us),
        }
    }
}

/// What limited a copy, or a part of one, that took this long; without a `peer` both ends are here. `None`: it was too
/// short, or nothing stands out.
pub fn limit(elapsed_us: u64, own: Side, peer: Option<Side>, same_host: bool) -> Option<Limit> {
    if elapsed_us < ELAPSED_US_MIN {
        return None;
    }
    let own = own.shares(elapsed_us);
    let theirs = peer.map(|peer| peer.shares(elapsed_us)).unwrap_or_default();
    // Both waited at the same time: for the shorter of the two times at most, and for what is too much for taking turns at
    // least. Half way between them is as good a guess as any.
    let at_most = own.peer_us.min(theirs.peer_us);
    let at_least = (own.peer_us + theirs.peer_us).saturating_sub(1000);
    // On one host they wait for the cores to turn from one to the other: what they did then is what there is to say.
    let network = if same_host { 0 } else { at_most.midpoint(at_least) };
    let at_work = theirs.hashing_us + theirs.source_disk_us + theirs.target_disk_us;
    let unseen = if peer.is_some() { own.peer_us.saturating_sub(at_most + at_work) } else { 0 };
    // Beyond what they lack here: on one host these may be the same cores.
    let starved = theirs.without_core_us.saturating_sub(own.without_core_us);
    let shares = [
        (Limit::SourceDisk, own.source_disk_us.max(theirs.source_disk_us)),
        (Limit::TargetDisk, own.target_disk_us.max(theirs.target_disk_us)),
        (Limit::Network, network),
        (Limit::Hashing, own.hashing_us.max(own.without_core_us).max(theirs.hashing_us)),
        (Limit::Peer, unseen.max(starved)),
    ];
    let most = shares.iter().map(|(_, share)| *share).max().filter(|share| *share >= SHARE_MIN)?;
    shares.iter().find(|(_, share)| *share == most).map(|(limit, _)| *limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Limit::{Hashing, Network, Peer, SourceDisk, TargetDisk};

    /// Percent of the time of two workers: hashing, source's disk, target's disk, waiting for the peer.
    type Percent = [u64; 4];

    fn side(percent: Percent) -> Side {
        let [hashing_us, source_disk_us, target_disk_us, peer_us] = percent.map(|percent| percent * 2 * 10_000);
        let spent = Spent { hashing_us, source_disk_us, target_disk_us, peer_us, without_core_us: 0 };
        Side { workers: 2, spent }
    }

    /// The same, with so much in which they had no core.
    fn without_core(percent: u64, rest: Percent) -> Side {
        let Side { workers, spent } = side(rest);
        Side { workers, spent: Spent { without_core_us: percent * 2 * 10_000, ..spent } }
    }

    /// A second of a copy, as both ends see it.
    #[track_caller]
    fn check(source: Percent, target: Percent, want: Limit) {
        assert_eq!(limit(1_000_000, side(source), Some(side(target)), false), Some(want), "to the source");
        assert_eq!(limit(1_000_000, side(target), Some(side(source)), false), Some(want), "to the target");
    }

    #[test]
    fn the_limit_is_what_was_busy_or_waited_for_the_longest_on_either_side() {
        check([5, 95, 0, 5], [5, 0, 0, 95], SourceDisk);
        check([5, 5, 0, 90], [5, 0, 90, 10], TargetDisk);
        check([30, 0, 0, 70], [30, 0, 60, 10], TargetDisk);
        check([95, 5, 0, 0], [60, 0, 0, 40], Hashing);
        check([40, 0, 0, 60], [90, 0, 5, 5], Hashing);
        check([5, 5, 0, 95], [5, 0, 5, 90], Network);
        check([20, 40, 0, 80], [20, 0, 40, 80], Network); // the disks are busy too, with what the network brings
    }

    #[test]
    fn ends_that_take_turns_on_the_same_cores_do_not_wait_for_the_network() {
        check([50, 0, 0, 50], [50, 0, 0, 50], Hashing);
        check([45, 0, 0, 55], [45, 0, 0, 55], Hashing);
        check([25, 0, 0, 75], [25, 0, 0, 75], Network);
    }

    #[test]
    fn on_one_host_there_is_no_network_to_wait_for() {
        let (source, target) = (side([34, 0, 0, 64]), side([18, 0, 28, 52]));
        assert_eq!(limit(1_000_000, source, Some(target), false), Some(Network));
        assert_eq!(limit(1_000_000, source, Some(target), true), Some(Hashing));
        assert_eq!(limit(1_000_000, target, Some(source), true), Some(Hashing));
    }

    #[test]
    fn who_waits_for_an_end_that_has_nothing_to_show_waits_for_the_peer() {
        #[track_caller]
        fn check(own: Percent, peer: Percent, want: Option<Limit>) {
            assert_eq!(limit(1_000_000, side(own), Some(side(peer)), false), want);
        }
        check([5, 0, 0, 95], [10, 0, 0, 10], Some(Peer));
        check([5, 0, 0, 95], [0, 0, 0, 0], Some(Peer));
        check([5, 0, 0, 95], [30, 0, 30, 20], Some(TargetDisk));
        // Here it is this end that has something else to do: for the other one to say.
        check([5, 0, 0, 5], [5, 0, 0, 95], None);
    }

    /// Trigger: one end has a quota of a twentieth to a quarter of a core, or neighbours of higher priority; with 2 workers,
    /// 500 MB in memory, between two namespaces. Damage: it seemed to hash, or the network to be slow.
    #[test]
    fn who_has_no_core_lacks_cores_and_is_waited_for_by_the_other_end() {
        #[track_caller]
        fn check(starved: Percent, without: u64, other: Percent) {
            let starved = without_core(without, starved);
            assert_eq!(limit(1_000_000, side(other), Some(starved), false), Some(Peer), "{starved:?}");
            assert_eq!(limit(1_000_000, starved, Some(side(other)), false), Some(Hashing), "{starved:?}");
        }
        check([2, 0, 1, 1], 93, [1, 0, 0, 97]);
        check([5, 0, 0, 3], 91, [7, 0, 0, 89]);
        check([13, 0, 0, 9], 76, [10, 0, 0, 83]);
        check([1, 0, 0, 3], 96, [0, 0, 0, 98]);
        check([44, 0, 0, 4], 51, [10, 0, 0, 88]); // half a core: it hashes most of the time that it has
        // Here both wait for 1 Gbit/s, and are two hosts in name only: one turns to the core later than it might.
        let (late, other) = (without_core(16, [27, 0, 0, 57]), side([17, 0, 0, 69]));
        assert_eq!(limit(1_000_000, late, Some(other), false), Some(Network));
        assert_eq!(limit(1_000_000, other, Some(late), false), Some(Network));
    }

    #[test]
    fn where_both_ends_lack_cores_it_is_the_cores() {
        let (own, theirs) = (without_core(44, [46, 0, 0, 10]), without_core(52, [42, 0, 0, 6]));
        assert_eq!(limit(1_000_000, own, Some(theirs), true), Some(Hashing));
        assert_eq!(limit(1_000_000, theirs, Some(own), true), Some(Hashing));
    }

    #[test]
    fn where_both_ends_are_here_there_is_neither_network_nor_peer() {
        #[track_caller]
        fn check(own: Percent, want: Option<Limit>) {
            assert_eq!(limit(1_000_000, side(own), None, true), want);
        }
        check([20, 70, 60, 0], Some(SourceDisk));
        check([20, 60, 70, 0], Some(TargetDisk));
        check([60, 30, 30, 0], Some(Hashing));
        check([50, 50, 50, 0], Some(SourceDisk));
        check([0, 0, 0, 100], None);
    }

    #[test]
    fn what_was_too_short_or_shows_nothing_has_no_limit() {
        #[track_caller]
        fn check(elapsed_us: u64, hashing: u64, want: Option<Limit>) {
            let spent = Spent { hashing_us: elapsed_us * hashing / 1000, ..Spent::default() };
            assert_eq!(limit(elapsed_us, Side { workers: 1, spent }, None, true), want);
        }
        check(ELAPSED_US_MIN - 1, 1000, None);
        check(ELAPSED_US_MIN, 1000, Some(Hashing));
        check(1_000_000, SHARE_MIN - 1, None);
        check(1_000_000, SHARE_MIN, Some(Hashing));
        check(0, 0, None);
    }

    #[test]
    fn any_numbers_of_a_peer_make_a_word_and_nothing_else() {
        const MOST: u64 = u64::MAX;
        let spent = Spent {
            hashing_us: MOST,
            source_disk_us: MOST,
            target_disk_us: MOST,
            peer_us: MOST,
            without_core_us: MOST,
        };
        for workers in [0, 1, u32::MAX] {
            for elapsed_us in [ELAPSED_US_MIN, MOST] {
                let liar = Side { workers, spent };
                _ = (limit(elapsed_us, side([5, 0, 0, 95]), Some(liar), false), liar.of(elapsed_us));
            }
        }
        assert_eq!(Spent::default().since(spent), Spent::default());
    }
}
