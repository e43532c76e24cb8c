//! `proto-spec.md` says what the program does: its examples, its bounds and its computed values are read from the text and
//! compared. A block of the text is found by the words behind its opening fence.

use pdcp::bottleneck::Spent;
use pdcp::completion::DirectPolicy;
use pdcp::digest::{Digest, Signature, fold_file, fold_stripe, hash_blocks};
use pdcp::entry::{Metadata, Timestamp};
use pdcp::extent::{BlockSize, Deal, Layout, Run};
use pdcp::failure::Kind;
use pdcp::limits;
use pdcp::method::Method;
use pdcp::seal::{Cipher, SECRET_LEN, Secret, Side};
use pdcp::wire::*;
use std::collections::BTreeSet;

const SPECIFICATION: &str = include_str!("../../proto-spec.md");

/// What a `hex` block of the text is an example of.
enum Example {
    Greeting(Challenge),
    Preamble(Purpose),
    Join(Join),
    Frame(Frame<'static>),
    Message(Message),
}

#[test]
fn the_examples_of_the_specification_are_what_we_write_and_read() {
    let written = blocks("hex");
    let known = examples();
    let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
    assert_eq!(written.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
    for ((name, text), (_, example)) in written.iter().zip(&known) {
        let bytes = bytes(text);
        assert_eq!(hex(&encoded(example)), hex(&bytes), "{name}: the text has what is on the right");
        assert_decodes(&bytes, example);
    }
}

#[test]
fn every_frame_and_message_has_an_example() {
    let mut kinds = BTreeSet::new();
    let mut messages = BTreeSet::new();
    for (_, example) in examples() {
        let bytes = encoded(&example);
        match example {
            Example::Frame(_) => _ = kinds.insert(bytes[0]),
            Example::Message(_) => _ = messages.insert(bytes[4]),
            _ => (),
        }
    }
    let is_frame = |kind: &u8| !matches!(header(&front(*kind)), Err(DecodeError::UnknownKind(_)));
    assert!(kinds.into_iter().eq((0..=u8::MAX).filter(is_frame)));
    // The first message without an example is none: whatever follows its number, it is refused.
    assert!(messages.iter().copied().eq(0..8));
    for length in 4..100 {
        let mut bytes = [&u32::to_le_bytes(length)[..], &8u32.to_le_bytes()].concat();
        bytes.resize(4 + length as usize, 0);
        assert_eq!(parse_message(&mut bytes::BytesMut::from(&bytes[..])), Err(DecodeError::Message));
    }
}

#[test]
fn the_bounds_of_the_specification_are_ours() {
    macro_rules! bounds {
        ($($name:ident)*) => { vec![$((stringify!($name), u64::try_from(limits::$name).unwrap())),*] };
    }
    let ours = bounds![
        BLOCK_BYTES_MIN BLOCK_BYTES_MAX STRIPE_BYTES_MIN STRIPE_BYTES_MAX STRIPES_OPEN_MAX
        STRIPES_PER_CONNECTION_WANTED CONNECTIONS_MAX CONNECTIONS_DEFAULT_MAX WORKERS_MAX FILE_BYTES_MAX
        PAYLOAD_BYTES_MAX PIECES_MAX RUNS_MAX SIGNATURES_MAX HEADER_LEN PIECE_LEN RUN_LEN SIGNATURE_LEN HEAD_BYTES DIGEST_LEN
        TAG_LEN FRAME_LEN_MAX MESSAGE_LEN_MAX PATH_BYTES_MAX NAME_BYTES_MAX TEXT_BYTES_MAX CHALLENGE_LEN PROOF_LEN
        KEY_BYTES_MAX STRANGER_BYTES_MAX DISCARDED_BYTES_MAX STRANGERS_MAX PENALTY_MS_MAX NEIGHBOUR_MS HELLO_MS WELCOME_MS LOCK_MS JOIN_MS
        BEGIN_MS HEARTBEAT_MS NO_PROGRESS_MS BLAME_MS GOODBYE_MS
    ];
    let rows = SPECIFICATION.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("| `")?.split_once("` | ")?;
        let value = rest.split(" |").next()?.parse().ok()?;
        Some((name, value))
    });
    assert_eq!(rows.collect::<Vec<(&str, u64)>>(), ours);
}

#[test]
fn the_table_of_frames_is_ours() {
    let rows: Vec<[&str; 6]> = SPECIFICATION
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let cells: [&str; 6] = cells.try_into().ok()?;
            cells[0].parse::<u8>().is_ok().then_some(cells)
        })
        .collect();
    assert_eq!(rows.len(), 6);
    for [kind, _, _, count, body, payload] in rows {
        let kind: u8 = kind.parse().unwrap();
        let (count_min, count_max) = count.split_once("..=").unwrap_or((count, count));
        let (_, payload_max) = payload.split_once("..=").unwrap_or((payload, payload));
        let (count_min, count_max): (u16, u16) = (count_min.parse().unwrap(), count_max.parse().unwrap());
        let payload_max: u32 = payload_max.parse().unwrap();
        let body_bytes = |count: u16| {
            let sum = body.split(" + ").map(|term| match term.strip_suffix(" × count") {
                Some(factor) => factor.parse::<u32>().unwrap() * u32::from(count),
                None => term.parse().unwrap(),
            });
            sum.sum::<u32>()
        };
        let accepts = |count: u16, body_bytes: u32, payload_bytes: u32| {
            let mut bytes = front(kind);
            bytes[2..4].copy_from_slice(&count.to_le_bytes());
            bytes[4..8].copy_from_slice(&body_bytes.to_le_bytes());
            bytes[8..12].copy_from_slice(&payload_bytes.to_le_bytes());
            header(&bytes).is_ok()
        };
        for count in [count_min, count_max] {
            assert!(accepts(count, body_bytes(count), payload_max));
            assert!(!accepts(count, body_bytes(count) + 1, payload_max));
            assert!(!accepts(count, body_bytes(count), payload_max + 1));
        }
        assert!(!accepts(count_max + 1, body_bytes(count_max + 1), payload_max));
    }
}

/// The challenge of the text's examples.
const CHALLENGE: Challenge = {
    let mut bytes = [0xc0; limits::CHALLENGE_LEN];
    let mut at: u8 = 0;
    while (at as usize) < bytes.len() {
        bytes[at as usize] += at;
        at += 1;
    }
    bytes
};

/// The session's secret of the text's examples.
fn secret() -> Secret {
    Secret::new(std::array::from_fn(|index| u8::try_from(index).unwrap()))
}

#[test]
fn keys_and_seals_are_made_as_the_specification_says() {
    let (_, text) = only("keys");
    assert_eq!(text, keys(), "for the text:\n{}", keys().join("\n"));
}

/// The lines of the `keys` block.
fn keys() -> Vec<String> {
    let run = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let connection = secret().connection(&CHALLENGE, 3);
    let mut lines = vec![
        format!(
            "session's secret {}",
            run(&std::array::from_fn::<u8, SECRET_LEN, _>(|index| u8::try_from(index).unwrap()))
        ),
        format!("challenge {}", run(&CHALLENGE)),
        format!("connection 3, client's proof {}", run(&connection.proof(Side::Client))),
        format!("connection 3, server's proof {}", run(&connection.proof(Side::Server))),
        format!("rendezvous {}", run(&secret().rendezvous())),
        format!("client's greeting, user 1000 {}", run(&secret().greeting(Side::Client, 1000))),
        format!("server's greeting, user 0 {}", run(&secret().greeting(Side::Server, 0))),
    ];
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let mut client = connection.duplex(Side::Client, cipher).sending;
        let mut want = encoded(&Example::Frame(Frame::Want { stripe: 7, basis_blocks: 64, heads: false }));
        seal_frame(&mut client, &mut want);
        lines.push(format!("{cipher:?}, client's frame 0, Want of section 8 {}", run(&want)));
        let pieces = &[Run { first: 512, count: 1 }];
        let mut head = encoded(&Example::Frame(Frame::Data { pieces, payload_bytes: 4 }));
        let mut payload = [0; 4];
        seal_data(&mut client, &mut head, std::iter::once(&b"data"[..]), &mut payload);
        lines.push(format!(
            "{cipher:?}, client's frame 1, Data of block 512, \"data\" {}{}",
            run(&head),
            run(&payload)
        ));
    }
    lines
}

#[test]
fn connections_and_stripes_are_dealt_as_the_specification_says() {
    let (_, text) = only("deal");
    assert!(!text.is_empty());
    for line in text {
        let numbers: Vec<u64> = line.replace("->", "").split_whitespace().map(|word| word.parse().unwrap()).collect();
        let [file_bytes, small @ .., stripe_bytes] = &numbers[..] else { panic!("{line}") };
        let small: Vec<u32> = small.iter().map(|number| u32::try_from(*number).unwrap()).collect();
        let [asked, source_workers, target_workers, hosts, connections] = small[..] else { panic!("{line}") };
        let deal = Deal::new(*file_bytes, asked, source_workers, target_workers, hosts == 1);
        assert_eq!(deal, Deal { connections, stripe_bytes: *stripe_bytes }, "{line}");
    }
}

#[test]
fn digests_are_made_as_the_specification_says() {
    let written = blocks("digest");
    assert!(!written.is_empty());
    for (sizes, text) in written {
        let sizes: Vec<u64> = sizes.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let block = BlockSize::checked(u32::try_from(sizes[1]).unwrap()).unwrap();
        let layout = Layout::checked(sizes[0], block, sizes[2]).unwrap();
        assert_eq!(text, digests(&layout), "for the text: {:#?}", digests(&layout));
    }
}

/// The lines of a `digest` block.
fn digests(layout: &Layout) -> Vec<String> {
    let content: Vec<u8> = (0..=250).cycle().take(usize::try_from(layout.file_bytes()).unwrap()).collect();
    let (mut lines, mut stripes) = (Vec::new(), Vec::new());
    for stripe in 0..layout.stripes() {
        let run = layout.stripe(stripe).unwrap();
        let from = usize::try_from(layout.offset(run)).unwrap();
        let until = from + usize::try_from(layout.run_bytes(run)).unwrap();
        let mut blocks = vec![Digest::default(); run.count as usize];
        hash_blocks(layout, run, &content[from..until], &mut blocks);
        lines.extend((run.first..).zip(&blocks).map(|(block, digest)| format!("block {block} {digest}")));
        stripes.push(fold_stripe(layout, stripe, &blocks));
        lines.push(format!("stripe {stripe} {}", stripes.last().unwrap()));
    }
    let file = fold_file(layout, &stripes);
    assert_eq!(file.to_string(), blake3::hash(&content).to_string());
    lines.push(format!("file {file}"));
    lines
}

// --- the examples, in the order of the text ---

fn examples() -> Vec<(&'static str, Example)> {
    let session: SessionId = std::array::from_fn(|index| 0xa0 + u8::try_from(index).unwrap());
    let digest: [u8; 32] = std::array::from_fn(|index| 0x20 + u8::try_from(index).unwrap());
    let source = Metadata {
        bytes: 100_000_000,
        mode: 0o640,
        mtime: Timestamp::checked(1_700_000_000, 250_000_000).unwrap(),
        device_node: false,
    };
    let mut examples = vec![
        ("Greeting", Example::Greeting(CHALLENGE)),
        ("Preamble", Example::Preamble(Purpose::Control)),
        (
            "Join",
            Example::Join(Join { session, number: 3, proof: secret().connection(&CHALLENGE, 3).proof(Side::Client) }),
        ),
    ];
    examples.extend(messages(session, digest, source).map(|(name, message)| (name, Example::Message(message))));
    examples.extend(frames(digest).map(|(name, frame)| (name, Example::Frame(frame))));
    examples
}

fn messages(session: SessionId, digest: [u8; 32], source: Metadata) -> [(&'static str, Message); 9] {
    let program = || String::from("pdcp 0.1.0");
    let options = Options {
        block_bytes: 16384,
        method: Method::Blake3,
        whole_file: false,
        dry_run: false,
        verify: false,
        inplace: false,
        fsync: true,
        direct: DirectPolicy::Auto,
    };
    let push = Hello {
        program: program(),
        source: Some(source),
        path: b"/srv/".into(),
        source_name: b"big.img".into(),
        options,
        connections: 16,
        workers: 4,
        aes: true,
        plaintext: false,
        former: None,
    };
    let options =
        Options { block_bytes: 65536, method: Method::Sha256, dry_run: true, direct: DirectPolicy::Never, ..options };
    let pull = Hello {
        program: program(),
        source: None,
        path: b"/srv/big.img".into(),
        source_name: Vec::new(),
        options,
        connections: 0,
        workers: 2,
        aes: false,
        plaintext: true,
        former: Some(session),
    };
    let welcome = Welcome {
        program: program(),
        session,
        source,
        basis_bytes: Some(99_000_000),
        taken_name: b"big.img".into(),
        connections: 16,
        stripe_bytes: 1 << 20,
        cores: vec![6, 7],
        workers: 2,
        cipher: Some(Cipher::Aes256Gcm),
    };
    let spent =
        Spent { hashing_us: 2000, source_disk_us: 0, target_disk_us: 60_000, peer_us: 1500, without_core_us: 700 };
    let beat = Beat { progress: 4711, matched_bytes: 94_371_840, changed_bytes: 49152, hole_bytes: 16384, spent };
    let committed = Committed {
        matched_bytes: 99_934_464,
        changed_bytes: 49152,
        hole_bytes: 16384,
        changed_blocks: 4,
        changed: true,
        read_back: false,
    };
    let text = String::from("No space left on device");
    let failed = FailureMessage { kind: Kind::Target, subject: b"/srv/big.img".into(), text, untouched: true };
    [
        ("Hello push", Message::Hello(push)),
        ("Hello pull", Message::Hello(pull)),
        ("Welcome", Message::Welcome(welcome)),
        ("Begin", Message::Begin(Begin { joined: vec![0, 1, 3], sealed: true })),
        ("Beat", Message::Beat(beat)),
        ("Received", Message::Received),
        ("Proof", Message::Proof(Proof { digest })),
        ("Committed", Message::Committed(committed)),
        ("Failed", Message::Failed(failed)),
    ]
}

fn frames(digest: [u8; 32]) -> [(&'static str, Frame<'static>); 6] {
    let values = &[Signature([1, 2, 3, 4, 5, 6, 7, 8]), Signature([17, 18, 19, 20, 21, 22, 23, 24])];
    let pieces = &[Run { first: 512, count: 2 }, Run { first: 600, count: 1 }];
    let holes = &[Run { first: 450, count: 3 }, Run { first: 460, count: 1 }];
    [
        ("Want", Frame::Want { stripe: 7, basis_blocks: 64, heads: false }),
        ("Signatures", Frame::Signatures { first: 448, values }),
        ("Data", Frame::Data { pieces, payload_bytes: 49152 }),
        ("Holes", Frame::Holes { runs: holes }),
        ("Differs", Frame::Differs { runs: &[Run { first: 451, count: 61 }] }),
        ("Done", Frame::Done { stripe: 7, digest: Digest(digest) }),
    ]
}

fn encoded(example: &Example) -> Vec<u8> {
    match example {
        Example::Greeting(challenge) => encode_greeting(challenge).to_vec(),
        Example::Preamble(purpose) => encode_preamble(*purpose).to_vec(),
        Example::Join(join) => encode_join(join).to_vec(),
        Example::Message(message) => frame_message(message).to_vec(),
        Example::Frame(frame) => {
            let mut bytes = vec![0; limits::FRAME_LEN_MAX];
            let length = encode(frame, &mut bytes).unwrap();
            bytes.truncate(length);
            bytes
        }
    }
}

fn assert_decodes(bytes: &[u8], example: &Example) {
    match example {
        Example::Greeting(challenge) => assert_eq!(decode_greeting(bytes), Ok(*challenge)),
        Example::Preamble(purpose) => assert_eq!(decode_preamble(bytes), Ok(*purpose)),
        Example::Join(join) => assert_eq!(decode_join(bytes.try_into().unwrap()), Ok(*join)),
        Example::Message(message) => {
            let mut left = bytes::BytesMut::from(bytes);
            assert_eq!(parse_message(&mut left), Ok(Some(message.clone())));
            assert!(left.is_empty());
        }
        Example::Frame(frame) => {
            let header = header(bytes).unwrap().unwrap();
            assert_eq!(header.frame_bytes(), bytes.len());
            assert_eq!(decode(header, bytes, &mut Scratch::default()), Ok(*frame));
        }
    }
}

// --- reading the text ---

/// The fenced blocks whose opening fence begins with `word`: what follows it there, and their lines.
fn blocks(word: &str) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut found = Vec::new();
    let mut lines = SPECIFICATION.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let inside: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        let (first, rest) = info.split_once(' ').unwrap_or((info, ""));
        if first == word {
            found.push((rest, inside));
        }
    }
    found
}

fn only(word: &str) -> (&'static str, Vec<&'static str>) {
    let mut found = blocks(word);
    assert_eq!(found.len(), 1);
    found.remove(0)
}

/// The bytes of a `hex` block; what follows a `#` is for people.
fn bytes(lines: &[&str]) -> Vec<u8> {
    let words = lines.iter().flat_map(|line| line.split('#').next().unwrap().split_whitespace());
    words.map(|word| u8::from_str_radix(word, 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

/// A header of this kind and otherwise of zeros.
fn front(kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; limits::HEADER_LEN];
    bytes[0] = kind;
    bytes
}
