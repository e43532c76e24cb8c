//! Where the holes of a source are. It goes through its file stripe by stripe, and asks about each; but who asks the kernel
//! has it go through all that it knows of the data before the next hole, which may be far behind that stripe. So what was
//! found is kept until it is passed, and all is gone through once.

/// The hole that was found last, of a file whose holes stay as they are.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// From where on it is the first one.
    asked: u64,
    /// Beginning and end; `u64::MAX` where there is none.
    hole: u64,
    until: u64,
}

impl Holes {
    /// The first hole from `offset` on, as beginning and end, which `find` knows if we do not.
    ///
    /// # Errors
    /// Those of `find`.
    pub(super) fn next<E>(
        &mut self,
        offset: u64,
        find: impl FnOnce(u64) -> Result<Option<(u64, u64)>, E>,
    ) -> Result<Option<(u64, u64)>, E> {
        if offset < self.asked || offset >= self.until {
            let (hole, until) = find(offset)?.unwrap_or((u64::MAX, u64::MAX));
            *self = Self { asked: offset, hole, until };
        }
        Ok((self.hole < u64::MAX).then_some((self.hole.max(offset), self.until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn the_way_to_a_hole_is_gone_once() {
        let all = [(10, 20), (30, 31), (500, 600)];
        let mut holes = Holes::default();
        let mut next = |offset| {
            let mut asked = false;
            let found = holes.next(offset, |from| {
                asked = true;
                let hole = all.into_iter().find(|(_, until)| *until > from);
                Ok::<_, Infallible>(hole.map(|(hole, until)| (hole.max(from), until)))
            });
            (found.expect("cannot fail"), asked)
        };
        for (offset, want, asks) in [
            (0, Some((10, 20)), true),
            (5, Some((10, 20)), false),
            (15, Some((15, 20)), false),
            (20, Some((30, 31)), true),
            (31, Some((500, 600)), true),
            (100, Some((500, 600)), false),
            (499, Some((500, 600)), false),
            // A stripe that was given back.
            (12, Some((12, 20)), true),
            (600, None, true),
            (700, None, false),
            (0, Some((10, 20)), true),
        ] {
            assert_eq!(next(offset), (want, asks), "from {offset} on");
        }
    }
}
