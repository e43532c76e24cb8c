//! How a session starts, with anybody at the other end: what is said inside TLS, which is not fuzzed itself.
//!
//! The bytes make a Hello, and a server's circumstances or a hostile server's Welcome, of numbers just inside and outside
//! of the limits; or they are what the peer says, byte for byte. What has to hold always: no panic; an honest Welcome fits
//! every Hello that was accepted, in one message, and both ends follow the same from it; what anybody has agreed to is
//! inside the limits, and gives the peer nothing that was not asked for.

use crate::completion::DirectPolicy;
use crate::entry::{Metadata, Timestamp};
use crate::extent::Layout;
use crate::limits::{
    BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, CONNECTIONS_MAX, FILE_BYTES_MAX, NAME_BYTES_MAX, PATH_BYTES_MAX,
    STRIPE_BYTES_MAX, STRIPE_BYTES_MIN, TEXT_BYTES_MAX, WORKERS_MAX,
};
use crate::method::Method;
use crate::seal::Cipher;
use crate::session::handshake::{Agreed, Offer, agree, check_hello, welcome};
use crate::wire::fuzz::Dice;
use crate::wire::{Hello, Message, Options, Welcome, frame_message, parse_message};
use bytes::BytesMut;

/// Any bytes as a client, or as a server.
pub fn fuzz_handshake(bytes: &[u8]) {
    let mut dice = Dice(bytes);
    match dice.below(4) {
        0 => {
            let circumstances = dice.take(16);
            if let Some(Message::Hello(hello)) = heard(dice.0) {
                serve(&hello, &mut Dice(circumstances));
            }
        }
        1 => serve(&hello(&mut dice), &mut dice),
        2 => {
            let hello = hello(&mut Dice(dice.take(32)));
            if let Some(Message::Welcome(welcome)) = heard(dice.0) {
                follow(&hello, &welcome);
            }
        }
        _ => {
            let hello = hello(&mut dice);
            if check_hello(&hello).is_ok() {
                let mut welcome = welcome(&hello, offer(&hello, &mut dice));
                spoil(&mut welcome, &mut dice);
                follow(&hello, &welcome);
            }
        }
    }
}

/// The first message of a peer that says this.
fn heard(bytes: &[u8]) -> Option<Message> {
    parse_message(&mut BytesMut::from(bytes)).ok().flatten()
}

/// An honest server hears a Hello, and an honest client its answer.
fn serve(hello: &Hello, dice: &mut Dice<'_>) {
    if check_hello(hello).is_err() {
        return;
    }
    assert!((1..=PATH_BYTES_MAX).contains(&hello.path.len()));
    assert!(hello.source_name.len() <= NAME_BYTES_MAX);
    assert!(![&hello.path, &hello.source_name].iter().any(|name| name.contains(&0)));
    assert!(!hello.source_name.contains(&b'/'));
    let offer = offer(hello, dice);
    let (most, plaintext) = (offer.connections_max, offer.plaintext);
    let welcome = welcome(hello, offer);
    assert_eq!(heard(&frame_message(&Message::Welcome(welcome.clone()))), Some(Message::Welcome(welcome.clone())));
    let agreed = agree(hello, &welcome).expect("an honest Welcome fits every Hello that was accepted");
    assert!(agreed.connections <= most);
    assert!(welcome.cipher.is_some() || plaintext, "nobody but its user makes a server send anything unsealed");
    check(hello, &welcome, &agreed);
}

/// An honest client hears some Welcome.
fn follow(hello: &Hello, welcome: &Welcome) {
    if check_hello(hello).is_ok()
        && let Ok(agreed) = agree(hello, welcome)
    {
        check(hello, welcome, &agreed);
    }
}

fn check(hello: &Hello, welcome: &Welcome, agreed: &Agreed) {
    let Agreed { terms, connections } = *agreed;
    let layout = terms.layout;
    assert_eq!(connections, welcome.connections);
    assert!(connections <= if hello.connections == 0 { CONNECTIONS_MAX } else { hello.connections });
    assert_eq!(connections == 0, layout.file_bytes() == 0);
    assert!(u64::from(connections) <= layout.stripes());
    assert_eq!(layout.file_bytes(), welcome.source.bytes);
    assert_eq!(layout.block().bytes(), hello.options.block_bytes);
    assert!((1..=WORKERS_MAX).contains(&welcome.workers));
    assert!(welcome.cores.len() <= WORKERS_MAX as usize);
    assert!(hello.source.is_none_or(|source| source == welcome.source));
    assert!(welcome.taken_name.is_empty() || welcome.taken_name == hello.source_name);
    match welcome.cipher {
        None => assert!(hello.plaintext, "nobody but its user makes a client send anything unsealed"),
        Some(cipher) => assert!(hello.aes || cipher != Cipher::Aes256Gcm),
    }
    // What all open stripes of one worker cost.
    let per_worker = u64::from(connections.div_ceil(hello.workers.min(welcome.workers)));
    let stripe_bytes = layout.stripe_bytes();
    assert!(stripe_bytes == STRIPE_BYTES_MIN || per_worker * stripe_bytes <= STRIPE_BYTES_MAX);
    check_layout(&layout);
}

/// Stripes are the file, and end where it ends, however long it is.
fn check_layout(layout: &Layout) {
    let stripes = layout.stripes();
    let mut before = None;
    for index in [0, 1, stripes / 2, stripes.saturating_sub(2), stripes.saturating_sub(1)] {
        let Some(run) = layout.stripe(index) else {
            assert!(index >= stripes);
            continue;
        };
        assert!((1..=layout.stripe_blocks()).contains(&run.count));
        assert_eq!(layout.offset(run), index * layout.stripe_bytes());
        assert!(layout.run_bytes(run) > 0);
        if let Some((last, end)) = before.replace((index, run.end())) {
            assert!(index != last + 1 || run.first == end);
        }
        assert_eq!(index == stripes - 1, layout.offset(run) + layout.run_bytes(run) == layout.file_bytes());
    }
    assert_eq!(layout.stripe(stripes), None);
    assert_eq!(layout.stripe(u64::MAX), None);
}

/// A number about which something changes, or any.
fn number(near: u64, dice: &mut Dice<'_>) -> u64 {
    match dice.below(8) {
        0 => 0,
        1 => 1,
        2 => near.saturating_sub(1),
        3 => near,
        4 => near.saturating_add(1),
        5 => u64::MAX,
        6 => near / (1 + u64::from(dice.wide())),
        _ => u64::from(dice.wide()),
    }
}

fn small(near: u32, dice: &mut Dice<'_>) -> u32 {
    u32::try_from(number(near.into(), dice)).unwrap_or(u32::MAX)
}

/// So many bytes, the last of which is a choice.
fn name(near: usize, dice: &mut Dice<'_>) -> Vec<u8> {
    let length = near.saturating_add_signed([-1, 0, 1][dice.below(3)]);
    let mut name = vec![b'n'; if dice.coin() { length } else { dice.below(4) }];
    if let Some(last) = name.last_mut() {
        *last = dice.among(&[b'n', b'/', 0, b'.', 0xff]);
    }
    name
}

fn metadata(dice: &mut Dice<'_>) -> Metadata {
    let mtime = Timestamp::whole(i64::from(dice.wide()));
    Metadata { bytes: number(FILE_BYTES_MAX, dice), mode: u32::from(dice.wide()), mtime, device_node: dice.coin() }
}

fn hello(dice: &mut Dice<'_>) -> Hello {
    Hello {
        program: "p".repeat(name(TEXT_BYTES_MAX, dice).len()),
        source: dice.coin().then(|| metadata(dice)),
        path: name(PATH_BYTES_MAX, dice),
        source_name: name(NAME_BYTES_MAX, dice),
        options: Options {
            block_bytes: if dice.coin() { BLOCK_BYTES_MIN << dice.below(10) } else { small(BLOCK_BYTES_MAX, dice) },
            method: Method::default(),
            whole_file: dice.coin(),
            dry_run: dice.coin(),
            verify: dice.coin(),
            inplace: dice.coin(),
            fsync: dice.coin(),
            direct: DirectPolicy::Auto,
        },
        connections: small(CONNECTIONS_MAX, dice),
        workers: small(WORKERS_MAX, dice),
        aes: dice.coin(),
        plaintext: dice.coin(),
        former: dice.coin().then(|| [u8::from(dice.coin()); 16]),
    }
}

/// What an honest server may find itself to be, and find on its disk.
fn offer(hello: &Hello, dice: &mut Dice<'_>) -> Offer {
    let workers = small(WORKERS_MAX, dice).clamp(1, WORKERS_MAX);
    let pull = hello.source.is_none();
    let found = metadata(dice);
    let found = Metadata { bytes: found.bytes.min(FILE_BYTES_MAX), ..found };
    Offer {
        session: [7; 16],
        source: pull.then_some(found),
        basis_bytes: (!pull && dice.coin()).then_some(found.bytes),
        taken_name: if dice.coin() { hello.source_name.clone() } else { Vec::new() },
        workers,
        same_address: dice.coin(),
        connections_max: small(CONNECTIONS_MAX, dice).clamp(1, CONNECTIONS_MAX),
        aes: dice.coin(),
        plaintext: dice.coin(),
        cores: if dice.coin() { (0..workers).collect() } else { Vec::new() },
    }
}

/// What a hostile server might say instead.
fn spoil(welcome: &mut Welcome, dice: &mut Dice<'_>) {
    while let Some(what) = dice.roll() {
        match what % 8 {
            0 => welcome.source.bytes = number(FILE_BYTES_MAX, dice),
            1 => welcome.connections = small(CONNECTIONS_MAX, dice),
            2 => welcome.stripe_bytes = number(STRIPE_BYTES_MAX, dice),
            3 => welcome.stripe_bytes = STRIPE_BYTES_MIN << dice.below(8),
            4 => welcome.workers = small(WORKERS_MAX, dice),
            5 => welcome.cores.truncate(dice.below(256)),
            6 => welcome.taken_name = name(NAME_BYTES_MAX, dice),
            _ => welcome.cipher = dice.among(&[None, Some(Cipher::Aes256Gcm), Some(Cipher::ChaCha20Poly1305)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_is_said_what_is_agreed_is_inside_the_limits(
            role in 0..4_u8, choices in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            fuzz_handshake(&[&[role], choices.as_slice()].concat());
        }
    }
}
