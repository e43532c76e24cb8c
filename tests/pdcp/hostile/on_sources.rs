//! What a lying target does to a source, frame by frame and message by message.

use super::on_targets::{absurd_beats_and, control, hang_up_after, head};
use super::peer::{Heard, Peer, data, frame, hear_frame};
use super::scene::{Attack, BLOCK, End, LIE, SOURCE_BYTES, STRIPES, Scene, novel, strange_failure};
use pdcp::digest::Signature;
use pdcp::extent::Run;
use pdcp::limits::{HEADER_LEN, SIGNATURE_LEN, TAG_LEN};
use pdcp::method::Method;
use pdcp::wire::{Committed, Frame, Message};
use std::net::Shutdown;

pub(super) const ATTACKS: &[Attack] = &[
    // --- no frames at all ---
    fails("a frame of an unknown kind", |p| p.send(&head(0, 0, 0, 0, 0)), 12, "unknown kind 0"),
    fails("a frame as long as a length can be", |p| p.send(&head(1, 0, 0, u32::MAX, 0)), 12, "too long"),
    fails("a Want with entries", |p| p.send(&head(1, 0, 1, 32, 0)), 12, "1 entries"),
    fails("a Want with a payload", |p| p.send(&head(1, 0, 0, 32, 1)), 12, "too long"),
    fails("a Want with a tag", tagged_want, 12, "not zero"),
    fails("a Want with a flag that nobody knows", flagged_want, 12, "not zero"),
    fails("no signatures", |p| p.send(&head(2, 0, 0, 8 + TAG_LEN, 0)), 12, "0 entries"),
    fails(
        "a signature too many",
        |p| p.send(&head(2, 0, 513, 8 + 513 * SIGNATURE_LEN + TAG_LEN, 0)),
        12,
        "513 entries",
    ),
    fails("a header that is cut off", |p| hang_up_after(p, &head(1, 0, 0, 32, 0)[..7]), 10, "connection"),
    fails("a body that is cut off", |p| hang_up_after(p, &want(0, 0)[..20]), 10, "connection"),
    // --- what may not be wanted ---
    fails("a stripe behind the last one", |p| p.want(STRIPES as u64, 0), 12, "outside"),
    fails("the last stripe there could be", |p| p.want(u64::MAX, 0), 12, "outside"),
    fails("more blocks of a basis than a stripe has", |p| p.want(0, 65), 12, "outside"),
    fails("more blocks of a basis than the short stripe has", |p| p.want(STRIPES as u64 - 1, 2), 12, "outside"),
    fails("as many blocks of a basis as can be", |p| p.want(0, u32::MAX), 12, "outside"),
    fails("four stripes at a time", |p| (0..4).for_each(|stripe| p.want(stripe, 1)), 12, "too many stripes"),
    fails("one stripe twice at a time", |p| (0..2).for_each(|_| p.want(0, 1)), 12, "twice or out of order"),
    // --- signatures ---
    fails("a signature before a Want", |p| sign(p, 0, 1), 12, "a signature may not come now"),
    fails("a signature where there is no basis", |p| want_and_sign(p, 0, 0, 1), 12, "a signature may not come now"),
    fails("a signature of a block left out", |p| want_and_sign(p, 64, 1, 1), 12, "out of order"),
    fails("a signature of another stripe", |p| want_and_sign(p, 2, 64, 1), 12, "out of order"),
    fails("a signature of the last block there could be", |p| want_and_sign(p, 2, u64::MAX, 1), 12, "out of order"),
    fails("a signature too many for a stripe", |p| want_and_sign(p, 64, 0, 65), 12, "outside"),
    fails("a signature twice", sign_twice, 12, "out of order"),
    fails("a signature that needs no more", sign_after_all, 12, "a signature may not come now"),
    // --- frames of a source ---
    fails("data", |p| p.send(&data(&[Run { first: 0, count: 1 }], &[LIE; BLOCK])), 12, "may not come now"),
    fails("a hole", |p| p.send(&frame(&Frame::Holes { runs: &[Run { first: 0, count: 1 }] })), 12, "may not come now"),
    fails("the end of a stripe", |p| p.send(&p.done(0)), 12, "may not come now"),
    // --- messages that may not come now ---
    fails("'received' before anything was sent", |p| p.say(&Message::Received), 12, "'received' may not come now"),
    fails("'received' before all was sent", received_early, 12, "'received' may not come now"),
    fails("'committed' before anything was sent", |p| p.say(&COMMITTED), 12, "may not come now"),
    fails("'committed' before 'received'", committed_early, 12, "may not come now"),
    fails("'received' twice", received_twice, 12, "may not come now"),
    fails("more done than there is", |p| end_with(p, SOURCE_BYTES as u64 + 1, 0), 12, "count of what is done"),
    fails("less done than there is", |p| end_with(p, SOURCE_BYTES as u64 - 1, 0), 12, "count of what is done"),
    fails("more done than can be counted", |p| end_with(p, u64::MAX, u64::MAX), 12, "count of what is done"),
    fails("more blocks than there are", |p| end_with_blocks(p, u64::MAX), 12, "count of what is done"),
    fails("read back what was not to be", end_read_back, 12, "read back"),
    fails("a proof", |p| p.say(&p.proof()), 12, "may not come now"),
    fails("a message of an unknown kind", |p| control(p, &[4, 0, 0, 0, 99, 0, 0, 0]), 12, "cannot be read"),
    fails("a message as long as can be", |p| control(p, &[0xff; 4]), 12, "too long"),
    fails("a failure that wants to steer the terminal", |p| p.say(&strange_failure()), 43, "too long too long"),
    fails("a failure with more to say than may be", |p| p.say(&novel()), 12, "cannot be read"),
    // --- strange, but no lies ---
    attack("heartbeats with absurd numbers", |p| absurd_beats_and(p, honest), End::Succeeds),
    attack("a stripe again and again", again_and_again, End::Succeeds),
    attack("a stripe by the heads of its blocks", by_heads, End::Succeeds),
    attack("one signature for all blocks", equal_signatures, End::Succeeds),
    fails("control lost", |p| _ = p.control.shutdown(Shutdown::Both), 10, "connection"),
    fails("control lost instead of 'committed'", lose_control_at_the_end, 10, "connection"),
    // --- not the peer's fault ---
    fails("a source that becomes shorter", shrink, 24, "shorter"),
];

const fn attack(name: &'static str, play: fn(&mut Peer), end: End) -> Attack {
    Attack { name, scene: Scene::New, play, end }
}

const fn fails(name: &'static str, play: fn(&mut Peer), code: u8, says: &'static str) -> Attack {
    attack(name, play, End::Fails(code, says))
}

const COMMITTED: Message = Message::Committed(Committed {
    matched_bytes: 0,
    changed_bytes: 0,
    hole_bytes: 0,
    changed_blocks: 0,
    changed: true,
    read_back: true,
});

fn want(stripe: u64, basis_blocks: u32) -> Vec<u8> {
    frame(&Frame::Want { stripe, basis_blocks, heads: false })
}

fn tagged_want(peer: &mut Peer) {
    let mut bytes = want(0, 0);
    *bytes.last_mut().unwrap() = 1;
    peer.send(&bytes);
}

fn flagged_want(peer: &mut Peer) {
    let mut bytes = want(0, 0);
    bytes[HEADER_LEN + 8 + 4] = 2;
    peer.send(&bytes);
}

/// A basis in which every other block begins with something else: those come, and no others.
fn by_heads(peer: &mut Peer) {
    let run = peer.layout.stripe(0).unwrap();
    let sign = |block: &[u8]| Signature(Method::Xxh3.signature(&block[..64]));
    let mut values: Vec<Signature> = peer.bytes(run).chunks(BLOCK).map(sign).collect();
    values.iter_mut().skip(1).step_by(2).for_each(|signature| *signature = sign(&[LIE; BLOCK]));
    peer.send(&frame(&Frame::Want { stripe: 0, basis_blocks: run.count, heads: true }));
    peer.send(&frame(&Frame::Signatures { first: 0, values: &values }));
    let mut came = Vec::new();
    while let Some(Heard::Data { pieces, payload }) = hear_frame(&mut peer.lines[0].socket) {
        let expected: Vec<u8> = pieces.iter().flat_map(|run| peer.bytes(*run).to_vec()).collect();
        assert!(payload == expected);
        came.extend(pieces.iter().flat_map(|run| run.first..run.end()));
    }
    assert!(came.into_iter().eq((run.first..run.end()).skip(1).step_by(2)));
    honest(peer);
}

/// Signatures in as few frames as can be.
fn sign(peer: &mut Peer, first: u64, count: usize) {
    let values = vec![Signature::default(); count];
    peer.send(&frame(&Frame::Signatures { first, values: &values }));
}

fn want_and_sign(peer: &mut Peer, basis_blocks: u32, first: u64, count: usize) {
    peer.want(0, basis_blocks);
    sign(peer, first, count);
}

fn sign_twice(peer: &mut Peer) {
    want_and_sign(peer, 64, 0, 1);
    sign(peer, 0, 1);
}

fn sign_after_all(peer: &mut Peer) {
    want_and_sign(peer, 1, 0, 1);
    sign(peer, 1, 1);
}

fn fetch_all(peer: &mut Peer) {
    (0..STRIPES as u64).for_each(|stripe| peer.fetch(stripe));
}

fn honest(peer: &mut Peer) {
    end_with(peer, SOURCE_BYTES as u64, 0);
}

/// These counts at the end.
fn end_with(peer: &mut Peer, matched_bytes: u64, changed_bytes: u64) {
    end(peer, Committed { matched_bytes, changed_bytes, ..Committed::default() });
}

fn end_with_blocks(peer: &mut Peer, changed_blocks: u64) {
    end(peer, Committed { changed_bytes: SOURCE_BYTES as u64, changed_blocks, ..Committed::default() });
}

fn end_read_back(peer: &mut Peer) {
    end(peer, Committed { matched_bytes: SOURCE_BYTES as u64, read_back: true, ..Committed::default() });
}

/// Fetches all, says 'received', and this.
fn end(peer: &mut Peer, committed: Committed) {
    fetch_all(peer);
    peer.say(&Message::Received);
    assert_eq!(peer.hear(), Some(peer.proof()));
    peer.say(&Message::Committed(committed));
}

fn received_early(peer: &mut Peer) {
    (0..STRIPES as u64 - 1).for_each(|stripe| peer.fetch(stripe));
    peer.say(&Message::Received);
}

fn committed_early(peer: &mut Peer) {
    fetch_all(peer);
    peer.say(&COMMITTED);
}

fn received_twice(peer: &mut Peer) {
    fetch_all(peer);
    peer.say(&Message::Received);
    peer.say(&Message::Received);
}

fn again_and_again(peer: &mut Peer) {
    (0..100).for_each(|_| peer.fetch(STRIPES as u64 - 1));
    honest(peer);
}

/// Where blocks are looked up by their signatures, this makes each look-up go through all of them.
fn equal_signatures(peer: &mut Peer) {
    want_and_sign(peer, 64, 0, 64);
    peer.take(0);
    honest(peer);
}

fn lose_control_at_the_end(peer: &mut Peer) {
    fetch_all(peer);
    peer.say(&Message::Received);
    assert_eq!(peer.hear(), Some(peer.proof()));
    _ = peer.control.shutdown(Shutdown::Both);
}

/// Trigger: the source becomes shorter while it is read, and ends in the midst of 4 KiB. Damage: a read that came back
/// short was asked for again from the last 4 KiB boundary on, for ever: the worker never left its loop. Cure: a read that
/// brings nothing new is the end of the file.
fn shrink(peer: &mut Peer) {
    peer.fetch(0);
    let file = std::fs::OpenOptions::new().write(true).open(&peer.path).unwrap();
    file.set_len((4 << 20) - 3000).unwrap();
    peer.want(3, 0);
}
