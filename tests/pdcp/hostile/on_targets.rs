//! What a lying source does to a target, frame by frame and message by message.

use super::peer::{Peer, data, frame};
use super::scene::{Attack, BLOCK, End, LIE, STRIPES, Scene, novel, strange_failure};
use pdcp::bottleneck::Spent;
use pdcp::digest::{Digest, Signature};
use pdcp::extent::Run;
use pdcp::limits::{MESSAGE_LEN_MAX, PAYLOAD_BYTES_MAX, PIECE_LEN, RUN_LEN, TAG_LEN};
use pdcp::wire::{Beat, Committed, Frame, Message, Proof};
use std::io::Write;
use std::net::Shutdown;

pub(super) const ATTACKS: &[Attack] = &[
    // --- no frames at all ---
    fails("a frame of an unknown kind", |p| p.send(&head(99, 0, 0, 0, 0)), 12, "unknown kind 99"),
    fails("kind 0", |p| p.send(&head(0, 0, 0, 0, 0)), 12, "unknown kind 0"),
    fails("a reserved byte that is not zero", |p| p.send(&head(6, 1, 0, 56, 0)), 12, "not zero"),
    fails("a frame as long as a length can be", |p| p.send(&head(6, 0, 0, u32::MAX, 0)), 12, "too long"),
    fails("a frame one byte too long for its kind", |p| p.send(&head(6, 0, 0, 57, 0)), 12, "too long"),
    fails("a frame one byte too short for its kind", |p| p.send(&head(6, 0, 0, 55, 0)), 12, "shorter"),
    fails("data without pieces", |p| p.send(&head(3, 0, 0, 0, 1)), 12, "0 entries"),
    fails("data of a piece too many", |p| p.send(&head(3, 0, 65, 65 * PIECE_LEN, 1)), 12, "65 entries"),
    fails("holes without runs", |p| p.send(&head(4, 0, 0, TAG_LEN, 0)), 12, "0 entries"),
    fails("holes of a run too many", |p| p.send(&head(4, 0, 129, 129 * RUN_LEN + TAG_LEN, 0)), 12, "129 entries"),
    fails("data without payload", |p| p.send(&head(3, 0, 1, PIECE_LEN, 0)), 12, "shorter"),
    fails("a payload one byte too long", |p| p.send(&head(3, 0, 1, PIECE_LEN, PAYLOAD_BYTES_MAX + 1)), 12, "too long"),
    fails("a payload where none belongs", |p| p.send(&head(6, 0, 0, 56, 1)), 12, "too long"),
    fails("a tag on what is not sealed", |p| p.send(&with_last_byte(p.done(0))), 12, "not zero"),
    fails("a tag on a piece", tag_on_a_piece, 12, "not zero"),
    fails("a header that is cut off", |p| hang_up_after(p, &head(3, 0, 1, PIECE_LEN, 1)[..7]), 10, "connection"),
    fails("a payload that is cut off", cut_payload, 10, "connection"),
    // --- frames that may not come now ---
    fails(
        "a Want",
        |p| p.send(&frame(&Frame::Want { stripe: 0, basis_blocks: 0, heads: false })),
        12,
        "may not come now",
    ),
    fails("a signature", |p| p.send(&signature()), 12, "may not come now"),
    fails("Differs outside a dry run", |p| first(p, &frame(&Frame::Differs { runs: &[RUN] })), 12, "may not come now"),
    attack("data in a dry run", Scene::DryRun, |p| first(p, &data(&[RUN], &[LIE; BLOCK])), lie("may not come now")),
    attack("data before its signature", Scene::Large, data_before_its_signature, lie("without its signature")),
    attack("a stripe ended before it is signed", Scene::Large, done_before_signatures, lie("may not come now")),
    fails("another stripe ended", |p| first(p, &p.done(1)), 12, "a stripe's digest may not come now"),
    fails("a stripe ended that is not there", done_for_no_stripe, 12, "may not come now"),
    // --- blocks that may not be named ---
    fails("data of another stripe", |p| first(p, &data(&[run(64, 1)], &[LIE; BLOCK])), 12, "outside"),
    fails("data over a stripe's end", |p| first(p, &data(&[run(63, 2)], &[LIE; 2 * BLOCK])), 12, "outside"),
    fails("data of the last block there could be", |p| first(p, &data(&[run(u64::MAX, 1)], &[LIE; 9])), 12, "outside"),
    fails("a piece of no blocks", |p| first(p, &data(&[run(0, 0)], &[LIE; BLOCK])), 12, "outside"),
    fails("a piece of all blocks", |p| first(p, &data(&[run(0, u32::MAX)], &[LIE; BLOCK])), 12, "outside"),
    fails("a hole over a stripe's end", |p| first(p, &holes(&[run(60, 5)])), 12, "outside"),
    fails("a hole as long as can be", |p| first(p, &holes(&[run(1, u32::MAX)])), 12, "outside"),
    fails("data named twice", |p| first(p, &data(&[RUN, RUN], &[LIE; 2 * BLOCK])), 12, "twice or out of order"),
    fails("data in descending order", data_descending, 12, "twice or out of order"),
    fails("a hole where there were data", hole_over_data, 12, "twice or out of order"),
    fails("data longer than its pieces", |p| first(p, &data(&[RUN], &[LIE; 2 * BLOCK])), 12, "differ in length"),
    fails("data shorter than its pieces", |p| first(p, &data(&[run(0, 2)], &[LIE; BLOCK])), 12, "differ in length"),
    attack("blocks left out that the target has not", Scene::New, leave_out, lie("left out")),
    attack("a stripe ended with blocks left out", Scene::New, |p| first(p, &p.done(0)), lie("left out")),
    // --- bytes that are not what they are said to be ---
    fails("a wrong digest, twice", wrong_digest_twice, 40, "is not what the source has"),
    fails("wrong bytes, twice", wrong_bytes_twice, 40, "is not what the source has"),
    attack("wrong bytes once", Scene::Update, wrong_bytes_once, End::Succeeds),
    attack("wrong bytes once, in a new file, and a hole the second time", Scene::New, hole_over_lie, End::Succeeds),
    attack("a lie on a lost connection, and a hole on the next", Scene::TwoLines, hole_after_loss, End::Succeeds),
    fails("a wrong proof", wrong_proof, 40, "do not agree"),
    attack("a wrong proof of a new file", Scene::New, wrong_proof, End::Fails(40, "do not agree")),
    // --- messages that may not come now ---
    fails("a proof before 'received'", |p| p.say(&p.proof()), 12, "a message of this kind may not come now"),
    fails("'received' to a target", |p| p.say(&Message::Received), 12, "may not come now"),
    fails("'committed' to a target", |p| p.say(&Message::Committed(Committed::default())), 12, "may not come now"),
    fails("two proofs", two_proofs, 12, "may not come now"),
    fails("a message of an unknown kind", |p| control(p, &[4, 0, 0, 0, 99, 0, 0, 0]), 12, "cannot be read"),
    fails("a message with a byte too many", |p| control(p, &[5, 0, 0, 0, 4, 0, 0, 0, 0]), 12, "cannot be read"),
    fails("an empty message", |p| control(p, &[0; 4]), 12, "cannot be read"),
    fails("a message as long as can be", |p| control(p, &[0xff; 4]), 12, "too long"),
    fails("a message one byte too long", |p| control(p, &(MESSAGE_LEN_MAX + 1).to_le_bytes()), 12, "too long"),
    fails("a failure that wants to steer the terminal", |p| p.say(&strange_failure()), 43, "too long too long"),
    fails("a failure with more to say than may be", |p| p.say(&novel()), 12, "cannot be read"),
    // --- strange, but no lies ---
    attack(
        "heartbeats with absurd numbers",
        Scene::Update,
        |p| absurd_beats_and(p, Peer::serve_the_rest),
        End::Succeeds,
    ),
    attack("a flood of heartbeats", Scene::Update, flood_of_beats, End::Succeeds),
    attack("a frame byte by byte", Scene::Update, dribble, End::Succeeds),
    attack("one of two connections lost in the middle of a payload", Scene::TwoLines, lose_one, End::Succeeds),
    attack("all of two connections lost", Scene::TwoLines, lose_all, End::Fails(10, "connection")),
    fails("control lost", |p| _ = p.control.shutdown(Shutdown::Both), 10, "connection"),
];

const fn attack(name: &'static str, scene: Scene, play: fn(&mut Peer), end: End) -> Attack {
    Attack { name, scene, play, end }
}

const fn fails(name: &'static str, play: fn(&mut Peer), code: u8, says: &'static str) -> Attack {
    attack(name, Scene::Update, play, End::Fails(code, says))
}

const fn lie(says: &'static str) -> End {
    End::Fails(12, says)
}

/// The first block that differs.
const RUN: Run = run(1, 1);

const fn run(first: u64, count: u32) -> Run {
    Run { first, count }
}

/// A frame's header with these numbers.
pub(super) fn head(kind: u8, reserved: u8, count: u16, body_bytes: impl TryInto<u32>, payload_bytes: u32) -> Vec<u8> {
    let body_bytes = body_bytes.try_into().ok().unwrap();
    let mut bytes = vec![kind, reserved];
    bytes.extend(count.to_le_bytes());
    bytes.extend(body_bytes.to_le_bytes());
    bytes.extend(payload_bytes.to_le_bytes());
    bytes.extend([0; 4]);
    bytes
}

fn with_last_byte(mut frame: Vec<u8>) -> Vec<u8> {
    *frame.last_mut().unwrap() = 1;
    frame
}

fn signature() -> Vec<u8> {
    frame(&Frame::Signatures { first: 0, values: &[Signature::default()] })
}

fn holes(runs: &[Run]) -> Vec<u8> {
    frame(&Frame::Holes { runs })
}

/// Waits until all of the first stripe is signed, then sends these bytes.
fn first(peer: &mut Peer, bytes: &[u8]) {
    let (stripe, basis_blocks) = peer.wanted();
    assert_eq!(stripe, 0);
    peer.await_signatures(0, stripe, basis_blocks);
    peer.send(bytes);
}

pub(super) fn control(peer: &mut Peer, bytes: &[u8]) {
    _ = peer.control.write_all(bytes);
}

pub(super) fn hang_up_after(peer: &mut Peer, bytes: &[u8]) {
    peer.send(bytes);
    _ = peer.lines[0].socket.shutdown(Shutdown::Write);
}

fn tag_on_a_piece(peer: &mut Peer) {
    let mut bytes = data(&[RUN], &[LIE; BLOCK]);
    bytes[16 + 12] = 1;
    first(peer, &bytes);
}

fn cut_payload(peer: &mut Peer) {
    first(peer, &data(&[RUN], &[LIE; BLOCK])[..BLOCK]);
    _ = peer.lines[0].socket.shutdown(Shutdown::Write);
}

fn data_before_its_signature(peer: &mut Peer) {
    peer.send(&data(&[run(2047, 1)], &[LIE; BLOCK]));
}

fn done_before_signatures(peer: &mut Peer) {
    peer.send(&frame(&Frame::Done { stripe: 0, digest: Digest::default() }));
}

fn done_for_no_stripe(peer: &mut Peer) {
    first(peer, &frame(&Frame::Done { stripe: u64::MAX, digest: Digest::default() }));
}

fn data_descending(peer: &mut Peer) {
    first(peer, &data(&[run(3, 1)], &[LIE; BLOCK]));
    peer.send(&data(&[run(1, 1)], &[LIE; BLOCK]));
}

fn hole_over_data(peer: &mut Peer) {
    first(peer, &data(&[run(3, 1)], &[LIE; BLOCK]));
    peer.send(&holes(&[run(3, 1)]));
}

fn leave_out(peer: &mut Peer) {
    first(peer, &data(&[run(0, 1), run(2, 1)], &[LIE; 2 * BLOCK]));
}

/// Serves what is wanted until the first stripe is wanted again.
fn until_again(peer: &mut Peer) {
    loop {
        let (stripe, basis_blocks) = peer.wanted();
        if stripe == 0 {
            assert_eq!(basis_blocks, 0, "asked for again, it is asked for whole");
            return;
        }
        peer.await_signatures(0, stripe, basis_blocks);
        peer.send(&[peer.data(stripe), peer.done(stripe)].concat());
    }
}

fn wrong_digest_twice(peer: &mut Peer) {
    let wrong = frame(&Frame::Done { stripe: 0, digest: Digest::default() });
    first(peer, &[peer.data(0), wrong.clone()].concat());
    until_again(peer);
    peer.send(&[peer.data(0), wrong].concat());
}

fn lies_for(peer: &Peer, stripe: u64) -> Vec<u8> {
    let run = peer.layout.stripe(stripe).unwrap();
    let lies = vec![LIE; usize::try_from(peer.layout.run_bytes(run)).unwrap()];
    [data(&[run], &lies), peer.done(stripe)].concat()
}

fn wrong_bytes_twice(peer: &mut Peer) {
    let wrong = lies_for(peer, 0);
    first(peer, &wrong);
    until_again(peer);
    peer.send(&wrong);
}

fn wrong_bytes_once(peer: &mut Peer) {
    first(peer, &lies_for(peer, 0));
    until_again(peer);
    peer.send(&[peer.data(0), peer.done(0)].concat());
    peer.serve_the_rest();
}

/// Its bytes are zeros in the end.
fn make_last_stripe_zeros(peer: &mut Peer) -> Run {
    let run = peer.layout.stripe(STRIPES as u64 - 1).unwrap();
    let from = usize::try_from(peer.layout.offset(run)).unwrap();
    peer.content[from..].fill(0);
    run
}

/// Trigger: blocks beyond the basis are sent, do not fit their digest, and are said to be a hole when they are asked for
/// again. Damage: a hole beyond the basis was not made, as nothing could be there; the first bytes stayed, under a proof
/// of zeros. Cure: where anything was written before, it is made.
fn hole_over_lie(peer: &mut Peer) {
    let last = make_last_stripe_zeros(peer);
    for _ in 0..STRIPES - 1 {
        peer.serve_on(0);
    }
    let (stripe, _) = peer.wanted();
    peer.send(&lies_for(peer, stripe));
    assert_eq!(peer.wanted(), (stripe, 0));
    peer.send(&[holes(&[last]), peer.done(stripe)].concat());
    peer.prove();
}

/// The same, but the lie comes over a connection that is lost then.
fn hole_after_loss(peer: &mut Peer) {
    let last = make_last_stripe_zeros(peer);
    let mut lied = false;
    let said = peer.serve_with(|peer, _, stripe| {
        if stripe != STRIPES as u64 - 1 {
            return ([peer.data(stripe), peer.done(stripe)].concat(), true);
        }
        let lie = !std::mem::replace(&mut lied, true);
        // What it ends with is of no stripe, so that the connection is lost and not just closed.
        let bytes = if lie { lies_for(peer, stripe) } else { [holes(&[last]), peer.done(stripe)].concat() };
        if lie { (bytes[..bytes.len() - 1].to_vec(), false) } else { (bytes, true) }
    });
    peer.prove_after(said);
}

fn wrong_proof(peer: &mut Peer) {
    (0..STRIPES).for_each(|_| _ = peer.serve_on(0));
    assert_eq!(peer.hear(), Some(Message::Received));
    peer.say(&Message::Proof(Proof { digest: [LIE; 32] }));
}

fn two_proofs(peer: &mut Peer) {
    let proof = peer.proof();
    peer.say(&proof);
    peer.say(&proof);
}

const ABSURD: Beat = Beat {
    progress: u64::MAX,
    matched_bytes: u64::MAX,
    changed_bytes: u64::MAX,
    hole_bytes: u64::MAX,
    spent: Spent {
        hashing_us: u64::MAX,
        source_disk_us: u64::MAX,
        target_disk_us: u64::MAX,
        peer_us: u64::MAX,
        without_core_us: u64::MAX,
    },
};

/// Trigger: heartbeats whose counts add up to more than a u64. Damage: the sum overflowed, and the panic left the session
/// on its workers for ever; eight of them, and the server was busy for good. Cure: counts of a peer's add up as far as
/// numbers go.
pub(super) fn absurd_beats_and(peer: &mut Peer, then: fn(&mut Peer)) {
    peer.say(&Message::Beat(ABSURD));
    peer.await_beats(2);
    then(peer);
}

fn flood_of_beats(peer: &mut Peer) {
    for progress in 0..100_000 {
        peer.say(&Message::Beat(Beat { progress, ..Beat::default() }));
    }
    peer.serve_the_rest();
}

fn dribble(peer: &mut Peer) {
    let (stripe, basis_blocks) = peer.wanted();
    peer.await_signatures(0, stripe, basis_blocks);
    let bytes = [peer.data(stripe), peer.done(stripe)].concat();
    let (slow, fast) = bytes.split_at(6);
    for byte in slow {
        peer.send(&[*byte]);
        peer.await_beats(2); // a second
    }
    peer.send(fast);
    peer.serve_the_rest();
}

fn lose_one(peer: &mut Peer) {
    let (stripe, basis_blocks) = peer.wanted_on(1);
    peer.await_signatures(1, stripe, basis_blocks);
    let bytes = peer.data(stripe);
    _ = peer.lines[1].socket.write_all(&bytes[..bytes.len() / 2]);
    peer.hang_up(1);
    peer.serve_the_rest();
}

fn lose_all(peer: &mut Peer) {
    for line in 0..2 {
        peer.wanted_on(line);
        _ = peer.lines[line].socket.shutdown(Shutdown::Both);
    }
}
