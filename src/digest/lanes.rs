//! BLAKE3 of thirty-two chunks at once: sixteen in the lanes of AVX-512's registers, and another sixteen between them.
//!
//! The library hashes sixteen at once too, but each step of a compression needs the one before, and the CPU has room for
//! twice as many as one compression has independent. It also waits for memory: its lanes read sixteen places at once, which
//! no prefetcher of a CPU sees through. Here two compressions go side by side, and the next chunks are fetched meanwhile
//! (benches/NOTES.md has the figures). Much of that hangs on what the compiler makes of it, which `cargo bench --bench parts
//! -- digests` shows.
//!
//! The library has everything else: roots, what is left over at a file's end, CPUs without these registers. Names are
//! those of BLAKE3's specification, section 2.

use super::{Digest, is_zeros};
use crate::limits::DIGEST_LEN;
use fearless_simd::{Avx512, Level, prelude::*, u8x32, u8x64, u32x16};
use std::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_shuffle_i32x4, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::array;
use std::hint::black_box;

const LANES: usize = 16;
const WORDS: usize = DIGEST_LEN / 4;
/// Bytes of a leaf.
pub(super) const CHUNK_BYTES: usize = 1 << 10;
/// A chunk a lane.
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
const ROUNDS: usize = 7;
/// Where each word of a round's message stands in the first round's.
const ORDER: [[usize; 16]; ROUNDS] = {
    /// Where it stood in that of the round before.
    const PERMUTATION: [usize; 16] = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
    let mut order = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]; ROUNDS];
    let mut at = 16;
    while at < 16 * ROUNDS {
        order[at / 16][at % 16] = order[at / 16 - 1][PERMUTATION[at % 16]];
        at += 1;
    }
    order
};
const CHUNK_START: u32 = 1 << 0;
const CHUNK_END: u32 = 1 << 1;
const PARENT: u32 = 1 << 2;

/// A word of each lane.
type Word = u32x16<Avx512>;
/// Which quarters of registers to take: every other one of either.
const EVEN: i32 = 0b10_00_10_00;
const ODD: i32 = 0b11_01_11_01;

type Message = [Word; 16];
/// A node in each lane.
type Nodes = [Word; WORDS];
type Line = [u8; LINE_BYTES];
type Group = [u8; GROUP_BYTES];
/// A quarter of the state of each of `SETS` compressions that go side by side. Of two, the state takes all registers.
type Row<const SETS: usize> = [[Word; 4]; SETS];
/// What a step of the groups to come after these fetches of each: as many lines as this step reads.
type Ahead<'a, const SETS: usize> = Option<[&'a [Line; LANES]; SETS]>;
/// One part before the first round, and one in each.
const PART_LINES: usize = LANES / (1 + ROUNDS);

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

    /// Parents of neighbours in `nodes`, over the first of these: sixteen at a time, as many as there are. Says how many.
    /// None of them is the file's root.
    pub(super) fn fold(self, nodes: &mut [Digest]) -> usize {
        self.0.vectorize(
            #[inline(always)]
            || fold(self.0, nodes),
        )
    }
}

#[inline(always)]
fn hash(cpu: Avx512, first_chunk: u64, groups: &[Group], height: u32, digests: &mut [Digest]) {
    let mut nodes = [[Word::splat(cpu, 0); WORDS]; LANES];
    let mut chunk = first_chunk;
    // Sixteen groups at a time: of the nodes above a group, there is one for each lane.
    for (batch, digests) in digests.chunks_mut((LANES * LANES) >> height).enumerate() {
        let groups = &groups[batch * LANES..];
        let mut count = LANES.min(groups.len());
        let (pairs, odd) = groups[..count].as_chunks();
        for (index, pair) in pairs.iter().enumerate() {
            let next = &groups[2 * index + 2..];
            // Zeros need not be added, and some files have long stretches of them.
            let zeros = is_zeros(pair.as_flattened());
            [nodes[2 * index], nodes[2 * index + 1]] =
                if zeros { chunks(cpu, chunk, None, &[]) } else { chunks(cpu, chunk, Some(pair), next) };
            chunk += 2 * LANES as u64;
        }
        if let Some(odd) = odd.first_chunk() {
            [nodes[count - 1]] = chunks(cpu, chunk, Some(odd), &[]);
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

#[inline(always)]
fn fold(cpu: Avx512, nodes: &mut [Digest]) -> usize {
    let parents = nodes.len() / 2 / LANES * LANES;
    for parent in (0..parents).step_by(LANES) {
        let pair = |lane: usize| {
            let [left, right] = [0, 1].map(|side| u8x32::from_slice(cpu, &nodes[2 * (parent + lane) + side].0));
            left.combine(right).bitcast()
        };
        let message = transposed(cpu, array::from_fn(pair));
        store(&above(cpu, message), &mut nodes[parent..][..LANES]);
    }
    parents
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

/// The nodes of the chunks of `groups`, or of zeros. The first of `next` will be wanted after them, and are fetched meanwhile.
#[inline(always)]
fn chunks<const SETS: usize>(cpu: Avx512, chunk: u64, groups: Option<&[Group; SETS]>, next: &[Group]) -> [Nodes; SETS] {
    let mut nodes = [initial(cpu); SETS];
    let counters = array::from_fn(|set| counter(cpu, chunk + (set * LANES) as u64));
    let next = next.first_chunk::<SETS>();
    for line in 0..LINES {
        let ahead = next.map(|groups| array::from_fn(|set| &groups[set].as_chunks().0.as_chunks().0[line]));
        fetch::<SETS>(cpu, ahead, 0);
        let flags = Word::splat(
            cpu,
            match line {
                0 => CHUNK_START,
                LINE_LAST => CHUNK_END,
                _ => 0,
            },
        );
        let mut messages = [[flags; 16]; SETS];
        if let Some(groups) = groups {
            for set in 0..SETS {
                messages[set] = lines(cpu, &groups[set], line);
            }
        }
        nodes = compress(cpu, &nodes, groups.map(|_| &messages), &counters, flags, ahead);
    }
    nodes
}

/// Numbers of the chunks in the lanes, lower halves first.
#[inline(always)]
fn counter(cpu: Avx512, chunk: u64) -> [Word; 2] {
    // A group begins at a multiple of sixteen, so that a lane's number carries nothing over.
    let [low, high] = [chunk & u64::from(u32::MAX), chunk >> 32].map(|half| u32::try_from(half).expect("half of it"));
    [Word::splat(cpu, low) | Word::from_slice(cpu, &LANE_NUMBERS), Word::splat(cpu, high)]
}

/// The `line`th of each chunk, as columns: a word in each lane.
#[inline(always)]
fn lines(cpu: Avx512, group: &Group, line: usize) -> Message {
    let mut rows = [Word::splat(cpu, 0); LANES];
    for (row, chunk) in rows.iter_mut().zip(group.as_chunks::<CHUNK_BYTES>().0) {
        *row = u8x64::from_slice(cpu, &chunk[line * LINE_BYTES..][..LINE_BYTES]).bitcast();
    }
    transposed(cpu, rows)
}

/// The `part`th of `ahead`. A few lines at a time: a core has only so many misses open, and what it wants now would wait
/// behind them.
#[inline(always)]
fn fetch<const SETS: usize>(cpu: Avx512, ahead: Ahead<'_, SETS>, part: usize) {
    if let Some(ahead) = ahead {
        for lines in ahead {
            for line in &lines[part * PART_LINES..][..PART_LINES] {
                prefetch(cpu, line);
            }
        }
    }
}

fearless_simd::kernel!(
    #[inline(always)]
    fn prefetch(cpu: Avx512, line: &Line) {
        _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
    }
);

fearless_simd::kernel!(
    /// Rows into columns: within each four rows by unpacking, then their quarters by shuffling. No step takes words
    /// from all over two registers: one that does takes five times as long here.
    #[inline(always)]
    fn transposed(cpu: Avx512, rows: Message) -> Message {
        let mut columns = rows;
        let mut quarters: [[__m512i; 4]; 4] = [[rows[0].into(); 4]; 4];
        for (four, quarter) in rows.as_chunks::<4>().0.iter().zip(&mut quarters) {
            let [a, b, c, d]: [__m512i; 4] = [four[0].into(), four[1].into(), four[2].into(), four[3].into()];
            let [ab, cd] = [_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d)];
            quarter[0] = _mm512_unpacklo_epi64(ab, cd);
            quarter[1] = _mm512_unpackhi_epi64(ab, cd);
            let [ab, cd] = [_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d)];
            quarter[2] = _mm512_unpacklo_epi64(ab, cd);
            quarter[3] = _mm512_unpackhi_epi64(ab, cd);
        }
        // A quarter of a register now has a word of four rows each; registers that belong together, columns four apart.
        let [a, b, c, d] = quarters;
        for column in 0..4 {
            let [a, b, c, d] = [a[column], b[column], c[column], d[column]];
            let [ab, cd] = [_mm512_shuffle_i32x4::<EVEN>(a, b), _mm512_shuffle_i32x4::<EVEN>(c, d)];
            columns[column] = _mm512_shuffle_i32x4::<EVEN>(ab, cd).simd_into(cpu);
            columns[column + 8] = _mm512_shuffle_i32x4::<ODD>(ab, cd).simd_into(cpu);
            let [ab, cd] = [_mm512_shuffle_i32x4::<ODD>(a, b), _mm512_shuffle_i32x4::<ODD>(c, d)];
            columns[column + 4] = _mm512_shuffle_i32x4::<EVEN>(ab, cd).simd_into(cpu);
            columns[column + 12] = _mm512_shuffle_i32x4::<ODD>(ab, cd).simd_into(cpu);
        }
        columns
    }
);

/// The nodes above each two neighbours, those of `left` first.
#[inline(always)]
fn parents(cpu: Avx512, left: &Nodes, right: &Nodes) -> Nodes {
    let zero = Word::splat(cpu, 0);
    let mut message = [zero; 2 * WORDS];
    for word in 0..WORDS {
        message[word] = left[word].unzip_low(right[word]);
        message[WORDS + word] = left[word].unzip_high(right[word]);
    }
    above(cpu, message)
}

/// The nodes above two neighbours each, whose values are the message.
#[inline(always)]
fn above(cpu: Avx512, message: Message) -> Nodes {
    let zero = Word::splat(cpu, 0);
    let [nodes] = compress(cpu, &[initial(cpu)], Some(&[message]), &[[zero, zero]], Word::splat(cpu, PARENT), None);
    nodes
}

#[inline(always)]
fn initial(cpu: Avx512) -> Nodes {
    array::from_fn(|word| Word::splat(cpu, IV[word]))
}

#[inline(always)]
fn compress<const SETS: usize>(
    cpu: Avx512,
    nodes: &[Nodes; SETS],
    messages: Option<&[Message; SETS]>,
    counters: &[[Word; 2]; SETS],
    flags: Word,
    ahead: Ahead<'_, SETS>,
) -> [Nodes; SETS] {
    let iv = initial(cpu);
    let length = Word::splat(cpu, LINE_LEN);
    let state = &mut State {
        a: nodes.map(|[h0, h1, h2, h3, ..]| [h0, h1, h2, h3]),
        b: nodes.map(|[.., h4, h5, h6, h7]| [h4, h5, h6, h7]),
        c: [[iv[0], iv[1], iv[2], iv[3]]; SETS],
        d: counters.map(|[low, high]| [low, high, length, flags]),
    };
    // Written out: where each word of a message stands is then known to the compiler.
    round::<0, SETS>(cpu, state, messages, ahead);
    round::<1, SETS>(cpu, state, messages, ahead);
    round::<2, SETS>(cpu, state, messages, ahead);
    round::<3, SETS>(cpu, state, messages, ahead);
    round::<4, SETS>(cpu, state, messages, ahead);
    round::<5, SETS>(cpu, state, messages, ahead);
    round::<6, SETS>(cpu, state, messages, ahead);
    let State { a, b, c, d } = state;
    xor(a, c);
    xor(b, d);
    array::from_fn(|set| {
        let ([h0, h1, h2, h3], [h4, h5, h6, h7]) = (a[set], b[set]);
        [h0, h1, h2, h3, h4, h5, h6, h7]
    })
}

struct State<const SETS: usize> {
    a: Row<SETS>,
    b: Row<SETS>,
    c: Row<SETS>,
    d: Row<SETS>,
}

#[inline(always)]
fn round<const ROUND: usize, const SETS: usize>(
    cpu: Avx512,
    state: &mut State<SETS>,
    messages: Option<&[Message; SETS]>,
    ahead: Ahead<'_, SETS>,
) {
    fetch::<SETS>(cpu, ahead, 1 + ROUND);
    let order = const { &ORDER[ROUND] };
    // The compiler sees no reason to let compressions go side by side, as it counts registers: it would put one behind
    // the other. It has to believe that the messages may have changed, so that no round's loads leave it.
    let messages = messages.map(black_box);
    let words = |first: usize| {
        messages.map(|messages| array::from_fn(|set| array::from_fn(|column| messages[set][order[first + 2 * column]])))
    };
    let State { a, b, c, d } = state;
    mix(a, b, c, d, words(0), words(1));
    // Diagonals become columns, and back.
    (*b, *c, *d) = (rotated::<1, SETS>(b), rotated::<2, SETS>(c), rotated::<3, SETS>(d));
    mix(a, b, c, d, words(8), words(9));
    (*b, *c, *d) = (rotated::<3, SETS>(b), rotated::<2, SETS>(c), rotated::<1, SETS>(d));
}

/// G on four columns. Step by step on all, as the CPU has room for what does not wait for each other.
#[inline(always)]
fn mix<const SETS: usize>(
    a: &mut Row<SETS>,
    b: &mut Row<SETS>,
    c: &mut Row<SETS>,
    d: &mut Row<SETS>,
    x: Option<Row<SETS>>,
    y: Option<Row<SETS>>,
) {
    if let Some(x) = &x {
        add(a, x);
    }
    add(a, b);
    xor(d, a);
    rotate_right::<16, SETS>(d);
    add(c, d);
    xor(b, c);
    rotate_right::<12, SETS>(b);
    if let Some(y) = &y {
        add(a, y);
    }
    add(a, b);
    xor(d, a);
    rotate_right::<8, SETS>(d);
    add(c, d);
    xor(b, c);
    rotate_right::<7, SETS>(b);
}

#[inline(always)]
fn add<const SETS: usize>(to: &mut Row<SETS>, row: &Row<SETS>) {
    for set in 0..SETS {
        for column in 0..4 {
            to[set][column] += row[set][column];
        }
    }
}

#[inline(always)]
fn xor<const SETS: usize>(to: &mut Row<SETS>, row: &Row<SETS>) {
    for set in 0..SETS {
        for column in 0..4 {
            to[set][column] ^= row[set][column];
        }
    }
}

#[inline(always)]
fn rotate_right<const BITS: u32, const SETS: usize>(row: &mut Row<SETS>) {
    for row in row {
        for word in row {
            *word = (*word >> BITS) | (*word << (u32::BITS - BITS));
        }
    }
}

/// `row`, from its column `FIRST` on.
#[inline(always)]
fn rotated<const FIRST: usize, const SETS: usize>(row: &Row<SETS>) -> Row<SETS> {
    row.map(|row| [row[FIRST % 4], row[(FIRST + 1) % 4], row[(FIRST + 2) % 4], row[(FIRST + 3) % 4]])
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
        let mut content = crate::digest::tests::content(33 * GROUP_BYTES as u64);
        // Pairs that are zeros, and one of which only the first half is.
        content[4 * GROUP_BYTES..9 * GROUP_BYTES].fill(0);
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
