//! What differs between the basis and the source: the idea of the whole program, in one small file.
//!
//! Both sides have cut their file at the same offsets and signed every block. Where the signatures of a block agree, the
//! target keeps what it has; everything else has to move. Blocks that were *moved* are not looked for: that would take a
//! rolling hash over every byte, and databases, images and disks change in place.

use crate::digest::Signature;
use crate::extent::Run;

/// The longest runs of blocks whose signatures differ, ascending. `basis` and `source` are those of the same blocks, from
/// block `first` of the file on.
pub fn differing(first: u64, basis: &[Signature], source: &[Signature]) -> impl Iterator<Item = Run> {
    assert_eq!(basis.len(), source.len(), "signatures of the same blocks");
    let mut blocks = basis.iter().zip(source).map(|(basis, source)| basis != source).zip(first..).peekable();
    std::iter::from_fn(move || {
        let (_, first) = blocks.find(|(differs, _)| *differs)?;
        let mut count = 1;
        while blocks.next_if(|(differs, _)| *differs).is_some() {
            count += 1;
        }
        Some(Run { first, count })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SIGNATURE_LEN;
    use proptest::prelude::*;

    fn signatures(values: &[u8]) -> Vec<Signature> {
        values.iter().map(|value| Signature([*value; SIGNATURE_LEN])).collect()
    }

    fn runs(first: u64, basis: &[u8], source: &[u8]) -> Vec<Run> {
        differing(first, &signatures(basis), &signatures(source)).collect()
    }

    /// Slow and plain: looks at every block alone, then joins neighbours.
    fn twin(first: u64, basis: &[u8], source: &[u8]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for index in 0..basis.len() {
            if basis[index] == source[index] {
                continue;
            }
            let block = first + u64::try_from(index).expect("small");
            match runs.last_mut() {
                Some(run) if run.end() == block => run.count += 1,
                _ => runs.push(Run { first: block, count: 1 }),
            }
        }
        runs
    }

    #[test]
    fn neighbours_that_differ_are_one_run_and_what_is_equal_is_in_none() {
        #[track_caller]
        fn check(basis: &[u8], source: &[u8], want: &[(u64, u32)]) {
            let got: Vec<_> = runs(100, basis, source).iter().map(|run| (run.first, run.count)).collect();
            assert_eq!(got, want);
        }
        check(b"", b"", &[]);
        check(b"a", b"a", &[]);
        check(b"a", b"b", &[(100, 1)]);
        check(b"abcd", b"abcd", &[]);
        check(b"abcd", b"wxyz", &[(100, 4)]);
        check(b"abcd", b"xbcx", &[(100, 1), (103, 1)]);
        check(b"abcd", b"axxd", &[(101, 2)]);
        check(b"abcd", b"dabc", &[(100, 4)]); // moved is different
    }

    #[test]
    fn one_bit_anywhere_in_a_signature_is_a_difference() {
        for bit in 0..64 {
            let basis = [Signature::default()];
            let source = [Signature((1_u64 << bit).to_be_bytes())];
            assert_eq!(differing(0, &basis, &source).count(), 1, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_a_slow_plain_twin_finds(
            first in 0_u64..1 << 50,
            pairs in prop::collection::vec((0_u8..3, 0_u8..3), 0..200),
        ) {
            let (basis, source): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            prop_assert_eq!(runs(first, &basis, &source), twin(first, &basis, &source));
        }
    }
}
