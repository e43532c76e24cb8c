//! Which connections of a guest take stripes, where not all do at a time.
//!
//! Between hosts more connections than workers carry more. Within one kernel they do not, and as each has a payload and a
//! queue of its own on its way, they drive each other's bytes out of the cores' caches. So they take turns there.

use crate::limits::STRIPES_A_TURN;

/// Whose turn it is among the connections of one guest: always neighbours, the first following the last.
#[derive(Debug)]
pub(super) struct Turns {
    connections: usize,
    at_once: usize,
    /// The first of those whose turn it is.
    first: usize,
    /// Stripes they have taken in it.
    taken: usize,
}

impl Turns {
    /// So many `connections`, at least one, of which `at_once` have their turn at a time.
    pub(super) fn new(connections: usize, at_once: usize) -> Self {
        assert!(connections > 0 && at_once > 0);
        Self { connections, at_once: at_once.min(connections), first: 0, taken: 0 }
    }

    /// Whether it is the turn of connection `index`.
    pub(super) fn is_of(&self, index: usize) -> bool {
        (index + self.connections - self.first) % self.connections < self.at_once
    }

    /// Those whose turn it is.
    pub(super) fn theirs(&self) -> impl Iterator<Item = usize> + use<> {
        let Self { connections, at_once, first, .. } = *self;
        (0..at_once).map(move |nth| (first + nth) % connections)
    }

    /// One of them has taken a stripe.
    pub(super) fn took(&mut self) {
        self.taken += 1;
    }

    /// Goes on to the next ones if a turn is over, because they have taken enough or none of them can take any more; where all
    /// have their turn it never is. `true`: others have it now.
    pub(super) fn pass(&mut self, can_take: impl Fn(usize) -> bool) -> bool {
        let all = self.at_once == self.connections;
        if all || (self.taken < self.at_once * STRIPES_A_TURN && self.theirs().any(&can_take)) {
            return false;
        }
        for _ in 0..self.connections {
            self.first = (self.first + self.at_once) % self.connections;
            if self.theirs().any(&can_take) {
                self.taken = 0;
                return true;
            }
        }
        false // nobody can: their guest is about to end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_theirs(turns: &Turns, want: &[usize]) {
        assert_eq!(turns.theirs().collect::<Vec<_>>(), want);
        for index in 0..turns.connections {
            assert_eq!(turns.is_of(index), want.contains(&index));
        }
    }

    #[test]
    fn turns_go_around_a_few_stripes_each() {
        #[track_caller]
        fn check(connections: usize, at_once: usize, want: &[&[usize]]) {
            let mut turns = Turns::new(connections, at_once);
            for want in want {
                assert_theirs(&turns, want);
                for _ in 0..STRIPES_A_TURN * at_once {
                    assert!(!turns.pass(|_| true));
                    turns.took();
                }
                assert!(turns.pass(|_| true));
            }
        }
        check(3, 1, &[&[0], &[1], &[2], &[0]]);
        check(4, 2, &[&[0, 1], &[2, 3], &[0, 1]]);
        check(5, 2, &[&[0, 1], &[2, 3], &[4, 0], &[1, 2]]);
    }

    #[test]
    fn where_all_have_their_turn_it_never_ends() {
        for at_once in [2, 3, usize::MAX] {
            let mut turns = Turns::new(2, at_once);
            for _ in 0..5 * STRIPES_A_TURN {
                turns.took();
                assert!(!turns.pass(|_| true) && !turns.pass(|_| false));
            }
            assert_theirs(&turns, &[0, 1]);
        }
    }

    #[test]
    fn whoever_is_gone_is_passed_over() {
        let mut turns = Turns::new(5, 2);
        assert!(!turns.pass(|index| index != 0), "1 goes on alone");
        assert!(turns.pass(|index| index > 3));
        assert_theirs(&turns, &[4, 0]);
        assert!(!turns.pass(|_| false));
    }
}
