//! Digests of blocks, stripes and files: nodes of one BLAKE3 tree, the source file's own.
//!
//! A block's digest is the node above its chunks, a stripe's the node above its blocks, the file's the root: what `b3sum`
//! prints. The node at the very top of the file carries BLAKE3's root flag, also where that is a single stripe or a single
//! block. A value depends on its offset, so it cannot be used to find moved blocks.

use crate::extent::{Layout, Run, StripeIndex};
use crate::limits::{BLOCK_BYTES_MAX, DIGEST_LEN, HEAD_BYTES, SIGNATURE_LEN};
use crate::method::Method;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use std::fmt;

#[cfg(target_arch = "x86_64")]
mod lanes;

/// Zeros hashed at once, in whole blocks.
const HOLE_BYTES: u32 = 128 << 10;

/// 32 bytes of BLAKE3.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct Digest(pub [u8; DIGEST_LEN]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// What a block is compared by: 8 bytes of its digest, or of another method's hash.
///
/// Two different blocks may agree in 64 bits, by chance or malice; the stripe's full digest catches that.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Signature(pub [u8; SIGNATURE_LEN]);

impl Signature {
    /// One that differs from it.
    pub fn other(self) -> Self {
        Self(self.0.map(|byte| !byte))
    }
}

/// The digest of an empty file.
pub fn empty_file() -> Digest {
    Digest(*blake3::hash(b"").as_bytes())
}

/// Digests of the blocks of `run`, whose bytes are given, into `digests`, one each.
pub fn hash_blocks(layout: &Layout, run: Run, bytes: &[u8], digests: &mut [Digest]) {
    assert_eq!(bytes.len() as u64, layout.run_bytes(run));
    assert_eq!(digests.len(), run.count as usize);
    let block_bytes = layout.block().bytes() as usize;
    let mut offset = layout.offset(run);
    let hashed = if layout.blocks() > 1 { hash_in_lanes(block_bytes, offset, bytes, digests) } else { 0 };
    offset += (hashed * block_bytes) as u64;
    for (block, digest) in bytes.chunks(block_bytes).zip(digests).skip(hashed) {
        *digest = hash_block(layout, offset, block);
        offset += block.len() as u64;
    }
}

/// As many of the first blocks, none of which is the root, as the CPU's lanes take together. Says how many.
#[cfg(target_arch = "x86_64")]
fn hash_in_lanes(block_bytes: usize, offset: u64, bytes: &[u8], digests: &mut [Digest]) -> usize {
    use lanes::{CHUNK_BYTES, GROUP_BYTES, Lanes};
    let Some(lanes) = Lanes::detect() else { return 0 };
    // A run of small blocks may begin within a group.
    if !offset.is_multiple_of(GROUP_BYTES as u64) {
        return 0;
    }
    if block_bytes <= GROUP_BYTES {
        let bytes = &bytes[..bytes.len() - bytes.len() % GROUP_BYTES];
        let blocks = bytes.len() / block_bytes;
        lanes.hash(offset, bytes, (block_bytes / CHUNK_BYTES).ilog2(), &mut digests[..blocks]);
        return blocks;
    }
    let mut nodes = [Digest::default(); BLOCK_BYTES_MAX as usize / GROUP_BYTES];
    let nodes = &mut nodes[..block_bytes / GROUP_BYTES];
    let blocks = bytes.chunks_exact(block_bytes);
    for (offset, (block, digest)) in (offset..).step_by(block_bytes).zip(blocks.zip(digests)) {
        lanes.hash(offset, block, (GROUP_BYTES / CHUNK_BYTES).ilog2(), nodes);
        *digest = fold(nodes, false);
    }
    bytes.len() / block_bytes
}

/// No lanes that are known here.
#[cfg(not(target_arch = "x86_64"))]
fn hash_in_lanes(_: usize, _: u64, _: &[u8], _: &mut [Digest]) -> usize {
    0
}

/// Of all zeros. In the program's read-only pages, which the kernel gives as they are read.
static ZEROS: [u8; BLOCK_BYTES_MAX as usize] = [0; BLOCK_BYTES_MAX as usize];

/// Digests of the blocks of `run` if they are all zeros, hashed from a few pages that stay in the cache.
pub fn hash_hole(layout: &Layout, run: Run, digests: &mut [Digest]) {
    assert_eq!(digests.len(), run.count as usize);
    let at_once = (HOLE_BYTES / layout.block().bytes()).max(1);
    for (first, digests) in (run.first..).step_by(at_once as usize).zip(digests.chunks_mut(at_once as usize)) {
        let run = Run { first, count: u32::try_from(digests.len()).expect("at most `at_once`") };
        let bytes = usize::try_from(layout.run_bytes(run)).expect("at most a block of 1 MiB");
        hash_blocks(layout, run, &ZEROS[..bytes], digests);
    }
}

fn hash_block(layout: &Layout, offset: u64, block: &[u8]) -> Digest {
    if layout.blocks() == 1 {
        return Digest(*blake3::hash(block).as_bytes());
    }
    Digest(blake3::Hasher::new().set_input_offset(offset).update(block).finalize_non_root())
}

/// Whether all of these bytes are zeros. Mostly the first few say no.
#[inline(always)] // whoever hashes in wide registers looks in these
pub fn is_zeros(bytes: &[u8]) -> bool {
    bytes.chunks(1 << 10).all(|bytes| bytes.iter().fold(0, |any, byte| any | byte) == 0)
}

/// What the blocks of `run` are compared by, into `signatures`, one each. `bytes` and `digests` are theirs.
pub fn sign_blocks(method: Method, layout: &Layout, bytes: &[u8], digests: &[Digest], signatures: &mut [Signature]) {
    assert_eq!(digests.len(), signatures.len());
    if method == Method::Blake3 {
        for (digest, signature) in digests.iter().zip(signatures) {
            signature.0.copy_from_slice(&digest.0[..SIGNATURE_LEN]);
        }
        return;
    }
    for (block, signature) in bytes.chunks(layout.block().bytes() as usize).zip(signatures) {
        *signature = Signature(method.signature(block));
    }
}

/// The same for blocks that are all zeros.
pub fn sign_hole(method: Method, layout: &Layout, run: Run, digests: &[Digest], signatures: &mut [Signature]) {
    if method == Method::Blake3 {
        return sign_blocks(method, layout, &[], digests, signatures);
    }
    assert_eq!(run.count as usize, signatures.len());
    let sign = |bytes: u64| Signature(method.signature(&ZEROS[..usize::try_from(bytes).expect("at most a block")]));
    let block_bytes = u64::from(layout.block().bytes());
    let short_bytes = layout.run_bytes(run) % block_bytes;
    let (whole, last) = signatures.split_at_mut(signatures.len() - usize::from(short_bytes > 0));
    if !whole.is_empty() {
        whole.fill(sign(block_bytes));
    }
    last.fill_with(|| sign(short_bytes));
}

/// What a block is compared by where that shall cost little: its first [`HEAD_BYTES`] bytes, or all of a shorter one.
pub fn sign_head(block: &[u8]) -> Signature {
    Signature(Method::Xxh3.signature(&block[..block.len().min(HEAD_BYTES)]))
}

/// A stripe's digest from those of its blocks.
pub fn fold_stripe(layout: &Layout, stripe: StripeIndex, blocks: &[Digest]) -> Digest {
    let run = layout.stripe(stripe).expect("a stripe of this file");
    assert_eq!(blocks.len(), run.count as usize);
    fold(&mut blocks.to_vec(), layout.stripes() == 1)
}

/// The file's digest from those of its stripes.
pub fn fold_file(layout: &Layout, stripes: &[Digest]) -> Digest {
    assert_eq!(stripes.len() as u64, layout.stripes());
    if stripes.is_empty() {
        return empty_file();
    }
    fold(&mut stripes.to_vec(), true)
}

/// The node above all of `nodes`, level by level, in their own place: a level's last node without a neighbour belongs to the
/// next one as it is.
fn fold(nodes: &mut [Digest], root: bool) -> Digest {
    let mut count = nodes.len();
    while count > 2 {
        let level = &mut nodes[..count];
        for parent in fold_in_lanes(level)..count / 2 {
            let [left, right] = [level[2 * parent].0, level[2 * parent + 1].0];
            level[parent] = Digest(merge_subtrees_non_root(&left, &right, Mode::Hash));
        }
        if !count.is_multiple_of(2) {
            level[count / 2] = level[count - 1];
        }
        count = count.div_ceil(2);
    }
    match &nodes[..count] {
        [left, right] if root => Digest(*merge_subtrees_root(&left.0, &right.0, Mode::Hash).as_bytes()),
        [left, right] => Digest(merge_subtrees_non_root(&left.0, &right.0, Mode::Hash)),
        only => only[0],
    }
}

/// As many of the first parents of a level as the CPU's lanes take together, over the level's first nodes. Says how many.
#[cfg(target_arch = "x86_64")]
fn fold_in_lanes(level: &mut [Digest]) -> usize {
    lanes::Lanes::detect().map_or(0, |lanes| lanes.fold(level))
}

/// No lanes that are known here.
#[cfg(not(target_arch = "x86_64"))]
fn fold_in_lanes(_: &mut [Digest]) -> usize {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extent::BlockSize;

    pub(super) fn content(bytes: u64) -> Vec<u8> {
        (0..bytes).map(|i| u8::try_from((i * i / 251 + i / 4096) % 251).expect("small")).collect()
    }

    fn file_digest(layout: &Layout, bytes: &[u8], hole: bool) -> Digest {
        let stripes: Vec<Digest> = (0..layout.stripes())
            .map(|index| {
                let run = layout.stripe(index).expect("inside");
                let from = usize::try_from(layout.offset(run)).expect("small");
                let until = from + usize::try_from(layout.run_bytes(run)).expect("small");
                let mut blocks = vec![Digest::default(); run.count as usize];
                if hole {
                    hash_hole(layout, run, &mut blocks);
                } else {
                    hash_blocks(layout, run, &bytes[from..until], &mut blocks);
                }
                fold_stripe(layout, index, &blocks)
            })
            .collect();
        fold_file(layout, &stripes)
    }

    #[test]
    fn the_files_digest_is_its_blake3_around_every_boundary() {
        const MIB: u64 = 1 << 20;
        for block_bytes in [4096, 16384, 1 << 20] {
            let block = BlockSize::checked(block_bytes).expect("allowed");
            let block_bytes = u64::from(block_bytes);
            for edge in [1024, block_bytes, 2 * block_bytes, MIB, 2 * MIB, 3 * MIB] {
                for bytes in [edge - 1, edge, edge + 1] {
                    let layout = Layout::checked(bytes, block, MIB).expect("allowed");
                    let content = content(bytes);
                    let want = blake3::hash(&content);
                    assert_eq!(file_digest(&layout, &content, false).0, *want.as_bytes(), "{bytes} of {block:?}");
                    let zeros = vec![0; content.len()];
                    let want = blake3::hash(&zeros);
                    assert_eq!(file_digest(&layout, &zeros, true).0, *want.as_bytes(), "{bytes} zeros of {block:?}");
                }
            }
        }
        let empty = Layout::checked(0, BlockSize::default(), MIB).expect("allowed");
        assert_eq!(file_digest(&empty, b"", false).to_string(), blake3::hash(b"").to_hex().as_str());
    }

    #[test]
    fn any_number_of_nodes_is_folded_into_the_files_tree() {
        let block = BlockSize::checked(4096).expect("allowed");
        let content = content(200 * 4096);
        for blocks in 1..=200 {
            for bytes in [blocks * 4096, blocks * 4096 - 1] {
                let layout = Layout::checked(bytes, block, 1 << 20).expect("allowed");
                let content = &content[..usize::try_from(bytes).expect("small")];
                let want = blake3::hash(content);
                assert_eq!(file_digest(&layout, content, false).0, *want.as_bytes(), "{blocks} blocks, {bytes} bytes");
            }
        }
    }

    #[test]
    fn a_run_has_the_same_digests_wherever_it_begins_and_ends() {
        for block_bytes in [4096, 8192, 16384, 32768] {
            let block = BlockSize::checked(block_bytes).expect("allowed");
            let bytes = 256 * 1024 + 5;
            let layout = Layout::checked(bytes, block, 1 << 20).expect("allowed");
            let (content, blocks) = (content(bytes), u32::try_from(layout.blocks()).expect("few"));
            let mut every = vec![Digest::default(); blocks as usize];
            hash_blocks(&layout, Run { first: 0, count: blocks }, &content, &mut every);
            for first in 0..blocks {
                for count in 1..=blocks - first {
                    let run = Run { first: first.into(), count };
                    let from = usize::try_from(layout.offset(run)).expect("small");
                    let until = from + usize::try_from(layout.run_bytes(run)).expect("small");
                    let mut digests = vec![Digest::default(); count as usize];
                    hash_blocks(&layout, run, &content[from..until], &mut digests);
                    assert_eq!(digests, every[first as usize..][..count as usize], "{run:?} of {block:?}");
                }
            }
        }
    }

    #[test]
    fn a_hole_is_compared_like_the_zeros_it_reads_as() {
        let layout = Layout::checked((64 << 10) + 5, BlockSize::default(), 1 << 20).expect("allowed");
        let run = layout.stripe(0).expect("not empty");
        let zeros = vec![0; (64 << 10) + 5];
        for method in [Method::Blake3, Method::Xxh3] {
            let mut digests = vec![Digest::default(); 5];
            hash_blocks(&layout, run, &zeros, &mut digests);
            let mut of_zeros = vec![Signature::default(); 5];
            sign_blocks(method, &layout, &zeros, &digests, &mut of_zeros);
            let mut of_hole = vec![Signature::default(); 5];
            sign_hole(method, &layout, run, &digests, &mut of_hole);
            assert_eq!(of_zeros, of_hole);
        }
    }
}
