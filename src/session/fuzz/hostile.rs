//! Frames that no honest machine sent: often what may come next, often nearly so, rarely with huge numbers.

use super::Packet;
use super::referee::Referee;
use super::world::{World, signatures};
use crate::digest::Digest;
use crate::extent::Run;
use crate::limits::PAYLOAD_BYTES_MAX;
use crate::wire::Frame;
use crate::wire::fuzz::Dice;

/// What a hostile target might say.
pub(super) fn to_source(world: &World, heard: &Referee, dice: &mut Dice<'_>) -> Packet {
    let layout = &world.terms.layout;
    match dice.below(8) {
        0 => Packet::new(&Frame::Done { stripe: 0, digest: Digest::default() }, Vec::new()),
        1..4 => {
            let stripe = number(dice.below(5) as u64, dice);
            let blocks = layout.stripe(stripe).map_or(0, |run| run.count);
            let basis_blocks = match dice.below(16) {
                0 => u32::MAX,
                1 => blocks + 1,
                2..4 => 0,
                4..8 => blocks / 2,
                _ => blocks,
            };
            let heads = dice.below(if world.terms.dry_run { 16 } else { 2 }) == 1;
            Packet::new(&Frame::Want { stripe, basis_blocks, heads }, Vec::new())
        }
        _ => {
            let next = heard.open.iter().find_map(|open| open.unsigned()).unwrap_or_default();
            let contents: Vec<u8> = (0..=dice.below(40)).map(|_| dice.roll().unwrap_or(0) & 7).collect();
            Packet::new(&Frame::Signatures { first: number(next, dice), values: &signatures(&contents) }, Vec::new())
        }
    }
}

/// What a hostile source might say.
pub(super) fn to_target(world: &World, heard: &Referee, dice: &mut Dice<'_>) -> Packet {
    let layout = &world.terms.layout;
    let (stripe, mut next, end) = heard.open.first().map_or((0, 0, 1), |open| (open.stripe, open.next, open.run.end()));
    let kind = dice.below(16);
    let mut runs = Vec::new();
    for _ in 0..=dice.below(3) {
        let first = number(next, dice);
        let rest = u32::try_from(end.saturating_sub(first)).unwrap_or(u32::MAX);
        let count = match dice.below(32) {
            0 => 0,
            1 => rest.saturating_add(1),
            2 => u32::MAX,
            3..18 => 1,
            18..24 => rest / 2 + 1,
            _ => rest,
        };
        runs.push(Run { first, count });
        next = first.saturating_add(count.into());
    }
    let frame = match kind {
        0 => Frame::Want { stripe, basis_blocks: 1, heads: false },
        1..5 => {
            let stripe = number(stripe, dice);
            let known = layout.stripe(stripe).is_some() && dice.below(2) == 0;
            let digest = if known { world.stripe_digest(stripe, &world.target) } else { Digest::default() };
            Frame::Done { stripe, digest }
        }
        5..8 => Frame::Holes { runs: &runs },
        8 if !world.terms.dry_run => Frame::Differs { runs: &runs },
        9.. if world.terms.dry_run => Frame::Differs { runs: &runs },
        _ => {
            let whole = Run { first: 0, count: u32::try_from(layout.blocks()).expect("small") };
            let inside = |run: &Run| layout.checked_run(run.first, run.count, whole);
            let bytes: u64 = runs.iter().filter_map(inside).map(|run| layout.run_bytes(run)).sum();
            let bytes = match dice.below(32) {
                0 => bytes + 1,
                1 => bytes.saturating_sub(1),
                _ => bytes,
            };
            let payload_bytes = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, PAYLOAD_BYTES_MAX);
            Frame::Data { pieces: &runs, payload_bytes }
        }
    };
    Packet::new(&frame, (0..dice.below(4)).map(|_| dice.roll().unwrap_or(0) & 7).collect())
}

/// A number: mostly the one that is expected, sometimes near it, rarely a huge one.
fn number(expected: u64, dice: &mut Dice<'_>) -> u64 {
    match dice.roll().unwrap_or(0) {
        255 => u64::MAX,
        254 => u64::MAX / 4096,
        252..254 => expected.saturating_sub(1),
        near @ 240..252 => expected.saturating_add(u64::from(near - 239)),
        _ => expected,
    }
}
