//! A lane: one core that carries bytes from a source to a target, both ends of its connection on it, in one thread.
//!
//! That is the least work there is: between reading a piece and writing it nothing leaves the core's own cache, no thread
//! waits for another, and nothing is decided. What a lane does with each piece, its [`Duty`], is data, so that whole rows
//! and their parts are measured by the same loop.

use core_affinity::CoreId;
use pdcp::digest::{Digest, hash_blocks};
use pdcp::extent::{BlockSize, Layout, Run};
use pdcp::limits::{FILE_BYTES_MAX, STRIPE_BYTES_MAX};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::File;
use std::hint::black_box;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes of a piece. With 64 KiB reading and hashing are fastest, as source's, kernel's and target's copy of a piece fit
/// the smallest L2 caches of servers together.
pub(super) const PIECE_BYTES: usize = 64 << 10;
/// Blocks of a piece.
const PIECE_BLOCKS: u32 = 4;

/// Where a piece lies. On a page of its own: copying to 16 bytes behind one, where an allocator likes to put things, is a
/// third slower on some processors.
#[repr(align(4096))]
struct Piece([u8; PIECE_BYTES]);

impl Piece {
    fn new() -> Box<Self> {
        Box::new(Self([1; PIECE_BYTES]))
    }
}
/// What is read at one place before the next: long enough for going there to cost nothing.
pub(super) const CHUNK_BYTES: u64 = 1 << 20;
const CHUNK_PIECES: u64 = CHUNK_BYTES / PIECE_BYTES as u64;
/// How long a lane runs. Short, so that all that is measured in one repetition sees the same machine.
const RUN: Duration = Duration::from_millis(60);

/// What is done with each piece, in this order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Duty {
    /// The source's is read and hashed.
    pub(super) source: bool,
    pub(super) basis: Basis,
    /// It is sent, received, and hashed if it was at the source.
    pub(super) carried: bool,
    pub(super) written: Written,
}

/// What is done with the basis's piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Basis {
    Unread,
    /// Read, and found to differ in its first bytes.
    Read,
    /// Read, and compared to its end.
    Compared,
    /// Read and hashed.
    Hashed,
}

/// Where the piece is written to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Written {
    Nowhere,
    /// Over what is there.
    Over,
    /// Where nothing is.
    New,
}

/// What a lane works on.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) core: CoreId,
    pub(super) source: Arc<File>,
    /// Holds what the source holds in the places of `sample`.
    pub(super) target: Arc<File>,
    pub(super) sample: Sample,
    /// Chunks that were visited: each walk goes on where the last one of this lane has ended, so that none finds in a cache
    /// what the one before has read.
    pub(super) visits: Arc<AtomicU64>,
}

/// A lane's part of the files: chunks spread evenly over all of the source, and close together in the target.
///
/// How fast a file is in the page cache differs by a third from place to place, with the memory that it happens to lie in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// The lane's number, and how many there are: they take the chunks in turn.
    pub(super) lane: u64,
    pub(super) lanes: u64,
    /// Chunks of a lane: a power of two.
    pub(super) chunks: u64,
    /// From one chunk of the source to the next, whole pieces.
    pub(super) source_step_bytes: u64,
}

impl Sample {
    /// Where the chunk visited as number `visit` lies in source and target. A part of the visits goes all over the file,
    /// as the golden ratio does: an odd step that is near it leads through all of a power of two.
    pub(super) fn chunk(&self, visit: u64) -> (u64, u64) {
        let step = (self.chunks * 618 / 1000) | 1;
        let chunk = visit * step % self.chunks * self.lanes + self.lane;
        (chunk * self.source_step_bytes, chunk * CHUNK_BYTES)
    }
}

impl Lane {
    /// Writes to all of its new space and gives it back, on its own core, which gets it again for what it writes next: memory
    /// that a virtual machine's host has yet to give would be up to ten times slower, and no bound.
    fn touch_new_space(&self) -> io::Result<()> {
        let piece = Piece::new();
        let targets = (0..self.sample.chunks).map(|visit| self.sample.chunk(visit).1);
        for target_at in targets.clone() {
            let pieces = (target_at..target_at + CHUNK_BYTES).step_by(PIECE_BYTES);
            pieces.into_iter().try_for_each(|at| self.target.write_all_at(&piece.0, at))?;
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        targets.into_iter().try_for_each(|target_at| Ok(fallocate(&self.target, hole, target_at, CHUNK_BYTES)?))
    }
}

/// Bytes that the lanes carry in a second, together.
pub(super) fn rate(lanes: &[Lane], duty: Duty) -> io::Result<f64> {
    let walks: Vec<Walk<'_>> = lanes.iter().map(|lane| Walk::new(lane, duty)).collect::<io::Result<_>>()?;
    let start = Barrier::new(walks.len());
    let rates = on_cores(walks.into_iter().map(|mut walk| {
        let start = &start;
        (walk.lane.core, move || {
            let ready = if duty.written == Written::New { walk.lane.touch_new_space() } else { Ok(()) };
            start.wait();
            ready?;
            per_second(|| walk.step())
        })
    }))?;
    Ok(rates.iter().sum())
}

/// Bytes that connections carry in a second, together: one for each sender, to the receiver in the same place.
pub(super) fn rate_across(senders: &[CoreId], receivers: &[CoreId]) -> io::Result<f64> {
    let pairs: Vec<Pair> = senders.iter().map(|_| Pair::new(false)).collect::<io::Result<_>>()?;
    let start = Barrier::new(2 * pairs.len());
    let ends = pairs.into_iter().zip(senders.iter().zip(receivers)).flat_map(|(pair, (&sender, &receiver))| {
        let (start, Pair { mut sending, mut receiving }) = (&start, pair);
        let send: Box<dyn FnOnce() -> io::Result<f64> + Send> = Box::new(move || {
            let piece = Piece::new();
            start.wait();
            per_second(|| sending.write_all(&piece.0).map(|()| Some(0)))
        });
        let receive: Box<dyn FnOnce() -> io::Result<f64> + Send> = Box::new(move || {
            let mut piece = Piece::new();
            start.wait();
            // Until the sender closes: it must not be left waiting for room.
            per_second_until(Duration::MAX, || Ok(Some(receiving.read(&mut piece.0)?).filter(|&received| received > 0)))
        });
        [(sender, send), (receiver, receive)]
    });
    Ok(on_cores(ends)?.iter().sum())
}

/// Runs each on its core, at the same time.
fn on_cores<F>(work: impl Iterator<Item = (CoreId, F)>) -> io::Result<Vec<f64>>
where
    F: FnOnce() -> io::Result<f64> + Send,
{
    thread::scope(|scope| {
        let threads: Vec<_> = work
            .map(|(core, work)| {
                scope.spawn(move || {
                    core_affinity::set_for_current(core);
                    work()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a lane does not panic")).collect()
    })
}

fn per_second(step: impl FnMut() -> io::Result<Option<usize>>) -> io::Result<f64> {
    per_second_until(RUN, step)
}

/// Takes steps until time is up or there are no more, and says how many bytes a second they carried.
fn per_second_until(time: Duration, mut step: impl FnMut() -> io::Result<Option<usize>>) -> io::Result<f64> {
    let start = Instant::now();
    let mut bytes = 0;
    while start.elapsed() < time {
        let Some(step_bytes) = step()? else { break };
        bytes += step_bytes;
    }
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

/// A lane at work.
struct Walk<'a> {
    lane: &'a Lane,
    duty: Duty,
    layout: Layout,
    pair: Pair,
    /// The lane's first visit that is this walk's.
    first_visit: u64,
    /// Pieces so far.
    pieces: u64,
    wanted: Box<Piece>,
    received: Box<Piece>,
}

impl<'a> Walk<'a> {
    fn new(lane: &'a Lane, duty: Duty) -> io::Result<Self> {
        let layout = Layout::checked(FILE_BYTES_MAX, BlockSize::default(), STRIPE_BYTES_MAX).expect("allowed");
        let first_visit = lane.visits.load(Ordering::Relaxed);
        let (wanted, received) = (Piece::new(), Piece::new());
        Ok(Self { lane, duty, layout, pair: Pair::new(true)?, first_visit, pieces: 0, wanted, received })
    }

    /// Does its duty with the next piece. `None` where there is no more new space; else it goes round and round.
    fn step(&mut self) -> io::Result<Option<usize>> {
        let (visit, within) = (self.pieces / CHUNK_PIECES, self.pieces % CHUNK_PIECES * PIECE_BYTES as u64);
        if self.duty.written == Written::New && visit == self.lane.sample.chunks {
            return Ok(None);
        }
        let (source_chunk, target_chunk) = self.lane.sample.chunk(self.first_visit + visit);
        let (source_at, target_at) = (source_chunk + within, target_chunk + within);
        if self.duty.source {
            self.lane.source.read_exact_at(&mut self.wanted.0, source_at)?;
            hash(&self.layout, source_at, &self.wanted.0);
        }
        if self.duty.basis != Basis::Unread {
            self.lane.target.read_exact_at(&mut self.received.0, target_at)?;
        }
        match self.duty.basis {
            Basis::Unread | Basis::Read => {}
            Basis::Compared => assert!(self.wanted.0 == self.received.0, "the target is a copy of the source"),
            Basis::Hashed => hash(&self.layout, source_at, &self.received.0),
        }
        if self.duty.carried {
            self.pair.carry(&self.wanted.0, &mut self.received.0)?;
            if self.duty.source {
                hash(&self.layout, source_at, &self.received.0);
            }
        }
        if self.duty.written != Written::Nowhere {
            let piece = if self.duty.carried { &self.received.0 } else { &self.wanted.0 };
            self.lane.target.write_all_at(piece, target_at)?;
        }
        self.pieces += 1;
        self.lane.visits.store(self.first_visit + self.pieces.div_ceil(CHUNK_PIECES), Ordering::Relaxed);
        Ok(Some(PIECE_BYTES))
    }
}

fn hash(layout: &Layout, offset: u64, bytes: &[u8]) {
    let run = Run { first: offset / u64::from(layout.block().bytes()), count: PIECE_BLOCKS };
    let mut digests = [Digest::default(); PIECE_BLOCKS as usize];
    hash_blocks(layout, run, bytes, &mut digests);
    black_box(digests);
}

/// Both ends of one TCP connection over loopback.
struct Pair {
    sending: TcpStream,
    receiving: TcpStream,
}

impl Pair {
    fn new(in_one_thread: bool) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let sending = TcpStream::connect(listener.local_addr()?)?;
        let (receiving, _) = listener.accept()?;
        for end in [&sending, &receiving] {
            end.set_nodelay(true)?;
            end.set_nonblocking(in_one_thread)?;
        }
        Ok(Self { sending, receiving })
    }

    /// Sends what the window takes and receives what has come, in turn, until the piece is there.
    fn carry(&mut self, from: &[u8], into: &mut [u8]) -> io::Result<()> {
        let (mut sent, mut received) = (0, 0);
        while received < into.len() {
            if sent < from.len() {
                sent += unless_blocked(self.sending.write(&from[sent..]))?;
            }
            received += unless_blocked(self.receiving.read(&mut into[received..]))?;
        }
        Ok(())
    }
}

fn unless_blocked(moved: io::Result<usize>) -> io::Result<usize> {
    match moved {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        moved => moved,
    }
}
