//! Where in the file the changes lay: a line of at most 64 cells, for people.
//!
//! Filled from finished stripes, on either side: the target knows what came, the source what it sent. A cell is never
//! finer than a stripe. What was sent twice counts twice, as far as its cell goes.

use super::Finished;
use crate::extent::Layout;
use crate::limits::CHANGES_CELLS_MAX;
use std::fmt;

/// See the module.
#[derive(Debug)]
pub struct Changes {
    layout: Layout,
    /// Bytes that changed, by cell.
    changed_bytes: Vec<u64>,
}

impl Changes {
    /// Of a file of which nothing has changed yet.
    pub fn new(layout: Layout) -> Self {
        let cells = usize::try_from(layout.stripes().min(CHANGES_CELLS_MAX)).expect("few");
        Self { layout, changed_bytes: vec![0; cells] }
    }

    /// Takes note of what changed in a stripe.
    pub fn note(&mut self, finished: &Finished) {
        let cells = self.changed_bytes.len() as u64;
        let cell = usize::try_from(finished.stripe * cells / self.layout.stripes()).expect("few");
        let bytes = finished.changed_bytes.saturating_add(finished.hole_bytes);
        self.changed_bytes[cell] = self.changed_bytes[cell].saturating_add(bytes);
    }

    /// Bytes of a cell.
    fn bytes(&self, cell: u64) -> u64 {
        let cells = self.changed_bytes.len() as u64;
        let begin = |cell: u64| (cell * self.layout.stripes()).div_ceil(cells) * self.layout.stripe_bytes();
        begin(cell + 1).min(self.layout.file_bytes()) - begin(cell)
    }
}

/// `.` nothing, `:` less than half, `+` half and more, `#` all of it.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (cell, changed_bytes) in (0..).zip(&self.changed_bytes) {
            let bytes = self.bytes(cell);
            f.write_str(match *changed_bytes {
                0 => ".",
                changed if changed >= bytes => "#",
                changed if changed >= bytes.div_ceil(2) => "+",
                _ => ":",
            })?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::extent::BlockSize;

    const MIB: u64 = 1 << 20;

    /// `finished`: stripe, bytes that changed, bytes made holes.
    #[track_caller]
    fn check(file_bytes: u64, stripe_bytes: u64, finished: &[(u64, u64, u64)], want: &str) {
        let layout = Layout::checked(file_bytes, BlockSize::default(), stripe_bytes).unwrap();
        let mut changes = Changes::new(layout);
        for (stripe, changed_bytes, hole_bytes) in finished.iter().copied() {
            let digest = Digest::default();
            changes.note(&Finished { stripe, digest, matched_bytes: 0, changed_bytes, hole_bytes, changed_blocks: 0 });
        }
        assert_eq!(changes.to_string(), want);
    }

    #[test]
    fn a_cell_tells_how_much_of_it_changed() {
        check(0, MIB, &[], "[]");
        check(1, MIB, &[], "[.]");
        check(1, MIB, &[(0, 1, 0)], "[#]");
        check(4 * MIB, MIB, &[(3, 1, 0), (2, MIB / 2 - 1, 0), (1, MIB / 2, 0)], "[.+::]");
        check(4 * MIB, MIB, &[(3, MIB, 0), (2, MIB - 1, 0), (1, 1, MIB - 1), (0, 0, MIB / 4)], "[:#+#]");
        check(4 * MIB - 7, MIB, &[(3, MIB - 7, 0), (2, MIB - 7, 0)], "[..+#]");
    }

    #[test]
    fn cells_are_shared_by_stripes_where_there_are_more_than_fit() {
        let (none, half) = (".".repeat(64), ".".repeat(32));
        check(64 * MIB, MIB, &[], &format!("[{none}]"));
        check(65 * MIB, MIB, &[], &format!("[{none}]"));
        // The first of 64 cells has two of 65 stripes, all others one.
        check(65 * MIB, MIB, &[(0, MIB, 0)], &format!("[+{}]", &none[1..]));
        check(65 * MIB, MIB, &[(1, MIB, 0), (0, MIB, 0), (64, MIB, 0)], &format!("[#{}#]", &none[2..]));
        check(128 * MIB, MIB, &[(64, MIB, 0)], &format!("[{half}+{}]", &half[1..]));
        check(1 << 62, 32 * MIB, &[((1 << 37) - 1, 1, 0)], &format!("[{}:]", &none[1..]));
    }

    #[test]
    fn what_counts_twice_is_never_more_than_all() {
        check(2 * MIB, MIB, &[(0, MIB, 0), (0, MIB, 0), (1, u64::MAX, u64::MAX)], "[##]");
    }
}
