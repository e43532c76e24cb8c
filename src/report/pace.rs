//! How fast a copy is at present, and how long it may still take, from what is told of it several times a second.
//!
//! That is the rate of the last few seconds: a rate that remembers longer shows a stall as an ever slower copy, and takes as
//! long again to forget it. Where nothing moves there is neither a rate nor a rest, but a word that it is so. Reads no clock.

use super::bytes_per_second;
use crate::control::Progress;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Whose rate is shown: ten heartbeats, as whoever pushes hears only with them what is done, and no longer than a person
/// looks before he believes a number. Guessed.
const WINDOW: Duration = Duration::from_secs(5);
/// It is longer where less often something was done. Bytes are done by the stripe, and one of 32 MiB may take a slow network
/// half a minute: in five seconds there is none, or too much. Guessed: more of them remember for longer what is over.
const STEPS_MIN: usize = 4;
/// Ten come a second at most, over the window; some more.
const STEPS_MAX: usize = 64;
/// From here on nobody would call it moving. A lost packet that is sent again, or a disk that empties its cache, takes less.
const STILL_FROM: Duration = Duration::from_secs(3);

/// How a copy gets on, for people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Pace {
    Moving {
        bytes_per_second: u64,
        /// `None`: nobody can say.
        left: Option<Duration>,
    },
    /// Nothing has moved for so long.
    Still(Duration),
    /// All bytes are; what comes has no rate.
    Done,
}

/// Judges the pace of one copy.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    /// When how much was done: only where it was more than before.
    steps: VecDeque<(Instant, u64)>,
}

impl Pacer {
    /// Takes note of how far it is now.
    pub(super) fn pace(&mut self, now: Instant, progress: Progress) -> Pace {
        let Progress { source_bytes, done_bytes, still, .. } = progress;
        let is_still = still >= STILL_FROM;
        // What was before a stall, or before a session that was dialled again, says nothing of what comes.
        if is_still || self.steps.back().is_some_and(|(_, before)| *before > done_bytes) {
            self.steps.clear();
        }
        if self.steps.back().is_none_or(|(_, before)| *before < done_bytes) {
            self.steps.push_back((now, done_bytes));
        }
        while self.steps.len() > STEPS_MAX
            || (self.steps.len() > STEPS_MIN && now.duration_since(self.steps[1].0) >= WINDOW)
        {
            self.steps.pop_front();
        }
        if is_still {
            return Pace::Still(still);
        }
        let rest = source_bytes.saturating_sub(done_bytes);
        if rest == 0 {
            return Pace::Done;
        }
        let (since, before) = self.steps[0];
        let bytes_per_second = bytes_per_second(done_bytes - before, now.duration_since(since));
        let left = (bytes_per_second > 0).then(|| Duration::from_secs(rest.div_ceil(bytes_per_second)));
        Pace::Moving { bytes_per_second, left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A copy of 1000 MiB, from its begin on.
    struct Copy {
        began: Instant,
        pacer: Pacer,
    }

    impl Copy {
        fn new() -> Self {
            Self { began: Instant::now(), pacer: Pacer::default() }
        }

        fn at(&mut self, ms: u64, done_bytes: u64, still_ms: u64) -> Pace {
            let still = Duration::from_millis(still_ms);
            let progress = Progress { source_bytes: 1000 * MIB, done_bytes, still, ..Progress::default() };
            self.pacer.pace(self.began + Duration::from_millis(ms), progress)
        }

        /// Ten times a second, from a time to another; the last pace.
        fn goes(&mut self, from_ms: u64, to_ms: u64, done_bytes: impl Fn(u64) -> u64) -> Pace {
            (from_ms..=to_ms).step_by(100).map(|ms| self.at(ms, done_bytes(ms), 0)).last().unwrap()
        }
    }

    fn moving(bytes_per_second: u64, left_s: u64) -> Pace {
        Pace::Moving { bytes_per_second, left: Some(Duration::from_secs(left_s)) }
    }

    const UNKNOWN: Pace = Pace::Moving { bytes_per_second: 0, left: None };

    /// Trigger: a server that is stopped for a while. Damage: the rate faded to some bytes a second and the rest grew to days;
    /// when it went on, they were wrong for 20 s. Cure: the last seconds, without the stall.
    #[test]
    fn a_stall_is_called_so_and_forgotten_as_soon_as_it_is_over() {
        let mut copy = Copy::new();
        let ten = |ms: u64| ms * 10 * MIB / 1000;
        assert_eq!(copy.goes(0, 30_000, ten), moving(10 * MIB, 70));
        assert_eq!(copy.at(32_900, ten(30_000), 2_900), moving(21 * MIB / 5, 167));
        assert_eq!(copy.at(33_000, ten(30_000), 3_000), Pace::Still(Duration::from_secs(3)));
        assert_eq!(copy.at(60_000, ten(30_000), 30_000), Pace::Still(Duration::from_secs(30)));
        assert_eq!(copy.at(61_000, ten(31_000), 0), moving(10 * MIB, 69));
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut copy = Copy::new();
        assert_eq!(copy.at(0, 0, 0), UNKNOWN);
        assert_eq!(copy.at(100, 0, 0), UNKNOWN);
        copy.goes(200, 10_000, |ms| ms * 50 * MIB / 1000);
        let slower = |ms: u64| 500 * MIB + (ms - 10_000) * 2 * MIB / 1000;
        assert_eq!(copy.goes(10_100, 15_100, slower), moving(2 * MIB, 245));
    }

    /// Here a stripe of 32 MiB is done every 16 s, and something moves all the time.
    #[test]
    fn bytes_that_are_done_by_the_stripe_have_a_rate_too() {
        let mut copy = Copy::new();
        let stripes = |ms: u64| ms / 16_000 * 32 * MIB;
        assert_eq!(copy.goes(0, 160_000, stripes), moving(2 * MIB, 340));
        let Pace::Moving { bytes_per_second, .. } = copy.goes(160_100, 175_900, stripes) else { unreachable!() };
        assert!((3 * MIB / 2..2 * MIB).contains(&bytes_per_second), "{bytes_per_second}");
    }

    #[test]
    fn what_is_all_done_has_no_rate_but_may_stand_still() {
        let mut copy = Copy::new();
        assert_eq!(copy.at(0, 0, 0), UNKNOWN);
        assert_eq!(copy.at(1000, 1000 * MIB, 0), Pace::Done);
        assert_eq!(copy.at(9000, 1000 * MIB, 2000), Pace::Done);
        assert_eq!(copy.at(15_000, 1000 * MIB, 8000), Pace::Still(Duration::from_secs(8)));
        assert_eq!(copy.at(16_000, u64::MAX, 0), Pace::Done); // a peer's number
    }

    #[test]
    fn a_session_that_is_dialled_again_begins_anew() {
        let mut copy = Copy::new();
        copy.goes(0, 10_000, |ms| ms * 50 * MIB / 1000);
        assert_eq!(copy.at(12_000, 0, 0), UNKNOWN);
        assert_eq!(copy.at(13_000, 100 * MIB, 0), moving(100 * MIB, 9));
    }
}
