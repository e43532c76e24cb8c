//! The parts, one at a time: what a core does a second of each thing that happens to every block, frame or message.
//!
//! The bytes lie in a core's cache, unless it says so, so this is the part alone; `compare` measures the whole.

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use pdcp::completion::DirectPolicy;
use pdcp::digest::{Digest, Signature, fold_file, fold_stripe, hash_blocks, hash_hole, sign_blocks};
use pdcp::entry::Metadata;
use pdcp::extent::{BlockSize, Layout, Run};
use pdcp::failure::{Failure, Kind};
use pdcp::limits::{
    CHALLENGE_LEN, CONNECTIONS_MAX, FRAME_LEN_MAX, HEADER_LEN, PAYLOAD_BYTES_MAX, PIECES_MAX, RUN_LEN, RUNS_MAX,
    SIGNATURES_MAX, STRIPE_BYTES_MAX, WORKERS_MAX,
};
use pdcp::method::Method;
use pdcp::seal::{Cipher, Duplex, FrameNumber, SECRET_LEN, Seals, Secret, Side};
use pdcp::wire::{
    Beat, Begin, Committed, FailureMessage, Frame, Hello, Message, Options, Proof, Scratch, Welcome, decode, encode,
    frame_message, header, parse_message,
};
use std::hint::black_box;

criterion_group!(parts, digests, signatures, seals, folds, frames, messages);
criterion_main!(parts);

/// What is protected along with a piece: a header, and a run of the table.
const ABOUT: &[u8] = &[7; HEADER_LEN + RUN_LEN];
/// More than any cache holds.
const UNCACHED_BYTES: u32 = 512 << 20;
/// Sealed pieces that lie ready to be opened: they stay in a core's cache.
const PIECES_CACHED: u64 = 16;

/// A file of 1 TiB in 16 KiB blocks and stripes of 32 MiB.
fn layout() -> Layout {
    Layout::checked(1 << 40, BlockSize::default(), STRIPE_BYTES_MAX).expect("allowed")
}

/// The first blocks of it, so many bytes.
fn run(layout: &Layout, bytes: u32) -> Run {
    Run { first: 0, count: bytes / layout.block().bytes() }
}

fn content(bytes: u32) -> Vec<u8> {
    (0..bytes).map(|index| u8::try_from(index % 251).expect("small")).collect()
}

fn digests(criterion: &mut Criterion) {
    let layout = layout();
    let mut group = criterion.benchmark_group("digests");
    for (name, extent_bytes) in [("extent of 64 KiB", 64 << 10), ("extent of 1 MiB", 1 << 20)] {
        let (run, bytes) = (run(&layout, extent_bytes), content(extent_bytes));
        let mut digests = vec![Digest::default(); run.count as usize];
        group.throughput(Throughput::Bytes(extent_bytes.into()));
        group.bench_function(name, |b| b.iter(|| hash_blocks(&layout, run, black_box(&bytes), &mut digests)));
        let zeros = vec![0; bytes.len()];
        group.bench_function(format!("{name}, zeros"), |b| {
            b.iter(|| hash_blocks(&layout, run, black_box(&zeros), &mut digests));
        });
        group.bench_function(format!("{name}, hole"), |b| b.iter(|| hash_hole(&layout, run, &mut digests)));
        let bytes = content(UNCACHED_BYTES);
        let mut extents = bytes.chunks(extent_bytes as usize).cycle();
        let mut next = || extents.next().expect("endless");
        group.bench_function(format!("{name}, in no cache"), |b| {
            b.iter(|| hash_blocks(&layout, run, black_box(next()), &mut digests));
        });
    }
}

fn signatures(criterion: &mut Criterion) {
    let (layout, extent_bytes) = (layout(), 64 << 10);
    let (run, bytes) = (run(&layout, extent_bytes), content(extent_bytes));
    let digests = vec![Digest::default(); run.count as usize];
    let mut signatures = vec![Signature::default(); run.count as usize];
    let mut group = criterion.benchmark_group("signatures of 64 KiB");
    group.throughput(Throughput::Bytes(extent_bytes.into()));
    for name in Method::NAMES {
        let method = Method::parse(name).expect("its own name");
        group.bench_function(name, |b| {
            b.iter(|| sign_blocks(method, &layout, black_box(&bytes), &digests, &mut signatures));
        });
    }
}

/// A piece of one block.
fn seals(criterion: &mut Criterion) {
    let piece = content(BlockSize::default().bytes());
    let mut group = criterion.benchmark_group("a piece of 16 KiB");
    group.throughput(Throughput::Bytes(piece.len() as u64));
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let (sending, frame) = ready(cipher, Side::Client);
        let mut sealed = piece.clone();
        group.bench_function(format!("{cipher:?}, seal"), |b| b.iter(|| sending.seal(frame, 0, ABOUT, &mut sealed)));
        group.bench_function(format!("{cipher:?}, seal into"), |b| {
            b.iter(|| sending.seal_into(frame, 0, ABOUT, black_box(&piece), &mut sealed));
        });
        let tag = sending.seal_into(frame, 0, ABOUT, &piece, &mut sealed);
        let (receiving, frame) = ready(cipher, Side::Server);
        group.bench_function(format!("{cipher:?}, open"), |b| {
            let open = |bytes: &mut Vec<u8>| receiving.open(frame, 0, ABOUT, &tag, bytes).expect("our own");
            b.iter_batched_ref(|| sealed.clone(), open, BatchSize::NumIterations(PIECES_CACHED));
        });
    }
}

/// What seals the frames that a client sends, or opens them at the server, at the first frame.
fn ready(cipher: Cipher, side: Side) -> (Seals, FrameNumber) {
    let connection = Secret::new([1; SECRET_LEN]).connection(&[2; CHALLENGE_LEN], 3);
    let Duplex { sending, receiving } = connection.duplex(side, cipher);
    let mut seals = if side == Side::Client { sending } else { receiving };
    let frame = seals.next_frame(0);
    (seals, frame)
}

fn folds(criterion: &mut Criterion) {
    let layout = layout();
    let blocks = vec![Digest::default(); layout.stripe_blocks() as usize];
    let stripes = vec![Digest::default(); usize::try_from(layout.stripes()).expect("small")];
    let mut group = criterion.benchmark_group("folds");
    group.throughput(Throughput::Bytes(layout.stripe_bytes()));
    group.bench_function("stripe of 32 MiB", |b| b.iter(|| fold_stripe(&layout, 0, black_box(&blocks))));
    group.throughput(Throughput::Bytes(layout.file_bytes()));
    group.bench_function("file of 1 TiB", |b| b.iter(|| fold_file(&layout, black_box(&stripes))));
}

fn frames(criterion: &mut Criterion) {
    let values = [Signature::default(); SIGNATURES_MAX];
    let runs = [Run { first: 1, count: 1 }; RUNS_MAX];
    let pieces = &runs[..PIECES_MAX];
    let mut group = criterion.benchmark_group("frames");
    for (name, frame) in [
        ("want", Frame::Want { stripe: 1, basis_blocks: 1, heads: false }),
        ("signatures", Frame::Signatures { first: 1, values: &values }),
        ("data, one piece", Frame::Data { pieces: &pieces[..1], payload_bytes: PAYLOAD_BYTES_MAX }),
        ("data, 64 pieces", Frame::Data { pieces, payload_bytes: PAYLOAD_BYTES_MAX }),
        ("holes", Frame::Holes { runs: &runs }),
        ("differs", Frame::Differs { runs: &runs }),
        ("done", Frame::Done { stripe: 1, digest: Digest::default() }),
    ] {
        bench_frame(&mut group, name, &frame);
    }
}

fn bench_frame(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, frame: &Frame<'_>) {
    let mut bytes = [0; FRAME_LEN_MAX];
    let length = encode(frame, &mut bytes).expect("the longest frame fits");
    group.throughput(Throughput::Bytes(length as u64));
    group.bench_function(format!("{name}, encode"), |b| {
        let mut into = [0; FRAME_LEN_MAX];
        b.iter(|| encode(black_box(frame), &mut into));
    });
    let bytes = &bytes[..length];
    group.bench_function(format!("{name}, header"), |b| b.iter(|| header(black_box(bytes))));
    let header = header(bytes).expect("our own").expect("whole");
    group.bench_function(format!("{name}, decode"), |b| {
        let mut scratch = Scratch::default();
        b.iter(|| _ = black_box(decode(header, black_box(bytes), &mut scratch)));
    });
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("messages");
    for (name, message) in every_message() {
        let framed = frame_message(&message);
        group.throughput(Throughput::Bytes(framed.len() as u64));
        group.bench_function(format!("{name}, frame"), |b| b.iter(|| frame_message(black_box(&message))));
        group.bench_function(format!("{name}, parse"), |b| {
            b.iter_batched_ref(|| bytes::BytesMut::from(&framed[..]), parse_message, BatchSize::SmallInput);
        });
    }
}

/// One of each, as long as a large machine makes it.
fn every_message() -> [(&'static str, Message); 8] {
    let options = Options {
        block_bytes: BlockSize::default().bytes(),
        method: Method::Blake3,
        whole_file: false,
        dry_run: false,
        verify: false,
        inplace: false,
        fsync: true,
        direct: DirectPolicy::Auto,
    };
    let hello = Hello {
        program: "pdcp 0.1.0".into(),
        source: Some(Metadata::default()),
        path: b"srv/images/disk.img".into(),
        source_name: b"disk.img".into(),
        options,
        connections: 16,
        workers: 16,
        aes: true,
        plaintext: false,
        former: None,
    };
    let welcome = Welcome {
        program: "pdcp 0.1.0".into(),
        session: [7; 16],
        source: Metadata::default(),
        basis_bytes: Some(1 << 40),
        taken_name: b"disk.img".into(),
        connections: 16,
        stripe_bytes: STRIPE_BYTES_MAX,
        cores: (0..WORKERS_MAX).collect(),
        workers: WORKERS_MAX,
        cipher: Some(Cipher::Aes256Gcm),
    };
    let failure = Failure::about(Kind::Other, b"srv/images/disk.img", "the disk is full");
    [
        ("hello", Message::Hello(hello)),
        ("welcome", Message::Welcome(welcome)),
        ("begin", Message::Begin(Begin { joined: (0..CONNECTIONS_MAX).collect(), sealed: true })),
        ("beat", Message::Beat(Beat::default())),
        ("received", Message::Received),
        ("proof", Message::Proof(Proof { digest: [7; 32] })),
        ("committed", Message::Committed(Committed::default())),
        ("failed", Message::Failed(FailureMessage::new(failure, b""))),
    ]
}
