//! BLAKE3 of sixteen chunks at once, each in a lane of AVX-512's registers.
//!
//! The library does that too, but waits for memory: its lanes read sixteen places at once, which no prefetcher of a CPU
//! sees through. Bytes that no cache has, as those from a disk, it hashes at two thirds of the speed of others. Here the next
//! sixteen chunks are fetched while these are hashed, which takes a quarter off the CPU time of a cold, equal file
//! (benches/NOTES.md); it is not for what is in a cache, where both are as fast.
//!
//! The library has everything else: roots, what is left over at a file's end, CPUs without these registers. Names are
//! those of BLAKE3's specification, section 2.

use super::Digest;
use crate::limits::DIGEST_LEN;
use fearless_simd::{Avx512, Level, prelude::*, u8x64, u32x16};
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

const LANES: usize = 16;
const WORDS: usize = DIGEST_LEN / 4;
/// Bytes of a leaf.
pub(super) const CHUNK_BYTES: usize = 1 << 10;
/// What is hashed at once, a chunk a lane.
pub(super) const GROUP_BYTES: usize = LANES * CHUNK_BYTES;
/// What a compression takes of each lane: a line of the cache.
const LINE_LEN: u32 = 64;
const LINE_BYTES: usize = LINE_LEN as usize;
/// Lines of a chunk.
const LINES: usize = CHUNK_BYTES / LINE_BYTES;
const LINE_LAST: usize = LINES - 1;

const LANE_NUMBERS: [u32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

const IV: [u32; WORDS] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
/// Where each word of a round's message stood in that of the round before.
const PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
const ROUNDS: usize = 7;
const CHUNK_START: u32 = 1 << 0;
const CHUNK_END: u32 = 1 << 1;
const PARENT: u32 = 1 << 2;

/// A word of each lane.
type Word = u32x16<Avx512>;
/// A quarter of a compression's state.
type Row = [Word; 4];
/// A node in each lane.
type Nodes = [Word; WORDS];
type Group = [u8; GROUP_BYTES];

/// A CPU that has such registers (Intel since Ice Lake, AMD since Zen 4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes(Avx512);

impl Lanes {
    /// `None` where there are none: the library hashes alone.
    pub(super) fn detect() -> Option<Self> {
        Level::new().as_avx512().map(Self)
    }

    /// The nodes `height` levels above the chunks of `bytes`, which begin at `offset` of their file and are whole groups.
    /// None of them is the file's root. `height` is at most 4: the node above a whole group.
    pub(super) fn hash(self, offset: u64, bytes: &[u8], height: u32, digests: &mut [Digest]) {
        let (groups, rest) = bytes.as_chunks();
        assert!(rest.is_empty() && offset.is_multiple_of(GROUP_BYTES as u64) && height <= LANES.ilog2());
        assert_eq!(digests.len(), (bytes.len() / CHUNK_BYTES) >> height);
        // Inlined as a whole, or each operation would be a call.
        self.0.vectorize(
            #[inline(always)]
            || hash(self.0, offset / CHUNK_BYTES as u64, groups, height, digests),
        );
    }
}

#[inline(always)]
fn hash(cpu: Avx512, first_chunk: u64, groups: &[Group], height: u32, digests: &mut [Digest]) {
    let mut nodes = [[Word::splat(cpu, 0); WORDS]; LANES];
    let mut chunk = first_chunk;
    // Sixteen groups at a time: of the nodes above a group, there is one for each lane.
    for (batch, digests) in digests.chunks_mut((LANES * LANES) >> height).enumerate() {
        let first = batch * LANES;
        let mut count = LANES.min(groups.len() - first);
        for (index, nodes) in nodes[..count].iter_mut().enumerate() {
            *nodes = chunks(cpu, chunk, &groups[first + index], groups.get(first + index + 1));
            chunk += LANES as u64;
        }
        // Half as many at each level, in the same order. Where they are odd, the last has nodes that nobody asks for.
        for _ in 0..height {
            count = count.div_ceil(2);
            for index in 0..count {
                nodes[index] = parents(cpu, &nodes[2 * index], &nodes[2 * index + 1]);
            }
        }
        for (nodes, digests) in nodes.iter().zip(digests.chunks_mut(LANES)) {
            store(nodes, digests);
        }
    }
}

/// The first of `nodes`, as many as there are digests.
#[inline(always)]
fn store(nodes: &Nodes, digests: &mut [Digest]) {
    let mut words = [[0; LANES]; WORDS];
    for (words, word) in words.iter_mut().zip(nodes) {
        word.store_slice(words);
    }
    for (lane, digest) in digests.iter_mut().enumerate() {
        for (words, bytes) in words.iter().zip(digest.0.as_chunks_mut().0) {
            *bytes = words[lane].to_le_bytes();
        }
    }
}

/// The nodes of a group's chunks. `next` comes after it, and is fetched meanwhile.
#[inline(always)]
fn chunks(cpu: Avx512, chunk: u64, group: &Group, next: Option<&Group>) -> Nodes {
    let mut nodes = initial(cpu);
    // A group begins at a multiple of sixteen, so that a lane's number carries nothing over.
    let [low, high] = [chunk & u64::from(u32::MAX), chunk >> 32].map(|half| u32::try_from(half).expect("half of it"));
    let counter = [Word::splat(cpu, low) | Word::from_slice(cpu, &LANE_NUMBERS), Word::splat(cpu, high)];
    for line in 0..LINES {
        if let Some(next) = next {
            prefetch(cpu, next, line);
        }
        let mut rows = [counter[0]; LANES];
        for lane in 0..LANES {
            let bytes = &group[lane * CHUNK_BYTES + line * LINE_BYTES..][..LINE_BYTES];
            rows[lane] = u8x64::from_slice(cpu, bytes).bitcast();
        }
        let flags = match line {
            0 => CHUNK_START,
            LINE_LAST => CHUNK_END,
            _ => 0,
        };
        nodes = compress(cpu, nodes, transposed(rows), counter, flags);
    }
    nodes
}

fearless_simd::kernel!(
    /// Asks for a sixteenth of `group`, in the order of its bytes.
    #[inline(always)]
    fn prefetch(cpu: Avx512, group: &Group, part: usize) {
        for line in 0..LANES {
            _mm_prefetch::<_MM_HINT_T0>((&raw const group[(part * LANES + line) * LINE_BYTES]).cast());
        }
    }
);

/// Rows into columns: four perfect shuffles of sixteen times sixteen words.
#[inline(always)]
fn transposed(mut rows: [Word; LANES]) -> [Word; LANES] {
    for _ in 0..LANES.ilog2() {
        let half = rows;
        for row in 0..LANES / 2 {
            rows[2 * row] = half[row].zip_low(half[row + LANES / 2]);
            rows[2 * row + 1] = half[row].zip_high(half[row + LANES / 2]);
        }
    }
    rows
}

/// The nodes above each two neighbours, those of `left` first.
#[inline(always)]
fn parents(cpu: Avx512, left: &Nodes, right: &Nodes) -> Nodes {
    let zero = Word::splat(cpu, 0);
    let mut message = [zero; 2 * WORDS];
    for word in 0..WORDS {
        message[word] = left[word].unzip_low(right[word]);
        message[WORDS + word] = left[word].unzip_high(right[word]);
    }
    compress(cpu, initial(cpu), message, [zero, zero], PARENT)
}

#[inline(always)]
fn initial(cpu: Avx512) -> Nodes {
    let mut nodes = [Word::splat(cpu, 0); WORDS];
    for word in 0..WORDS {
        nodes[word] = Word::splat(cpu, IV[word]);
    }
    nodes
}

#[inline(always)]
fn compress(cpu: Avx512, nodes: Nodes, mut message: [Word; 16], counter: [Word; 2], flags: u32) -> Nodes {
    let [h0, h1, h2, h3, h4, h5, h6, h7] = nodes;
    let [iv0, iv1, iv2, iv3, ..] = initial(cpu);
    let (mut a, mut b, mut c) = ([h0, h1, h2, h3], [h4, h5, h6, h7], [iv0, iv1, iv2, iv3]);
    let mut d = [counter[0], counter[1], Word::splat(cpu, LINE_LEN), Word::splat(cpu, flags)];
    for _ in 0..ROUNDS {
        let [m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, ma, mb, mc, md, me, mf] = message;
        mix(&mut a, &mut b, &mut c, &mut d, [m0, m2, m4, m6], [m1, m3, m5, m7]);
        // Diagonals become columns, and back.
        (b, c, d) = (rotated::<1>(b), rotated::<2>(c), rotated::<3>(d));
        mix(&mut a, &mut b, &mut c, &mut d, [m8, ma, mc, me], [m9, mb, md, mf]);
        (b, c, d) = (rotated::<3>(b), rotated::<2>(c), rotated::<1>(d));
        let before = message;
        for word in 0..message.len() {
            message[word] = before[PERMUTATION[word]];
        }
    }
    [a[0] ^ c[0], a[1] ^ c[1], a[2] ^ c[2], a[3] ^ c[3], b[0] ^ d[0], b[1] ^ d[1], b[2] ^ d[2], b[3] ^ d[3]]
}

/// G on four columns. Step by step on all four, as the CPU has room for what does not wait for each other.
#[inline(always)]
fn mix(a: &mut Row, b: &mut Row, c: &mut Row, d: &mut Row, x: Row, y: Row) {
    add(a, &x);
    add(a, b);
    xor_rotate::<16>(d, a);
    add(c, d);
    xor_rotate::<12>(b, c);
    add(a, &y);
    add(a, b);
    xor_rotate::<8>(d, a);
    add(c, d);
    xor_rotate::<7>(b, c);
}

#[inline(always)]
fn add(to: &mut Row, row: &Row) {
    for column in 0..4 {
        to[column] += row[column];
    }
}

#[inline(always)]
fn xor_rotate<const RIGHT: u32>(to: &mut Row, row: &Row) {
    for column in 0..4 {
        let word = to[column] ^ row[column];
        to[column] = (word >> RIGHT) | (word << (u32::BITS - RIGHT));
    }
}

/// `row`, from its element `FIRST` on.
#[inline(always)]
fn rotated<const FIRST: usize>(row: Row) -> Row {
    [row[FIRST % 4], row[(FIRST + 1) % 4], row[(FIRST + 2) % 4], row[(FIRST + 3) % 4]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use blake3::hazmat::HasherExt;

    #[test]
    fn a_node_of_any_height_anywhere_is_the_librarys() {
        let Some(lanes) = Lanes::detect() else {
            eprintln!("*** NOT SHOWN HERE: lanes of AVX-512: this CPU has none ***");
            return;
        };
        let content = crate::digest::tests::content(33 * GROUP_BYTES as u64);
        // Counters are two words: before, at and behind where the upper one begins to count.
        let four_tib = CHUNK_BYTES as u64 * (1 << 32);
        let group = GROUP_BYTES as u64;
        for offset in [0, group, four_tib - group, four_tib, 5 * four_tib + group] {
            for height in 0..=4 {
                let node_bytes = CHUNK_BYTES << height;
                for groups in [0, 1, 2, 3, 15, 16, 17, 33] {
                    let bytes = &content[..groups * GROUP_BYTES];
                    let want: Vec<Digest> = (offset..)
                        .step_by(node_bytes)
                        .zip(bytes.chunks(node_bytes))
                        .map(|(offset, bytes)| {
                            let mut hasher = blake3::Hasher::new();
                            Digest(hasher.set_input_offset(offset).update(bytes).finalize_non_root())
                        })
                        .collect();
                    let mut digests = vec![Digest::default(); want.len()];
                    lanes.hash(offset, bytes, height, &mut digests);
                    assert_eq!(digests, want, "{groups} groups from {offset}, {height} levels up");
                }
            }
        }
    }
}
