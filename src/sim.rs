//! The simulator: disks in memory, a bad network and a seed below real workers, for tests only.
//!
//! Both machines of every connection, the hub and the worker's loop run as they are; only what is below
//! [`Completions`] is made up: operations complete in any order, late, short, or with an error, connections deliver in
//! drips and are cut. Everything follows from the seed: the same seed is the same run. Freed buffers are poisoned, so that
//! a byte of them on the wire or in the target shows.

use crate::completion::{
    Account, Completion, Completions, Errno, FileId, Mode, Operation, Pool, SocketId, Tag, Traffic, Waker,
};
use crate::extent::Run;
use crate::limits::FRAME_LEN_MAX;
use crate::wire::{Frame, encode};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::sync::Arc;

mod harness;

/// Granularity of holes.
const PAGE: usize = 4096;
/// What is in a buffer that nobody has written to.
const POISON: u8 = 0xdb;
/// What a pipe holds before its sender has to wait.
const PIPE_BYTES: usize = 200_000;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough to be unpredictable to a reader.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % n as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A file in memory; pages that were never written are holes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Disk {
    bytes: Vec<u8>,
    data: Vec<bool>,
    writes: u64,
    /// Nothing may be written before this is set.
    may_change: bool,
}

impl Disk {
    fn new(bytes: Vec<u8>) -> Self {
        let data = vec![true; bytes.len().div_ceil(PAGE)];
        Self { bytes, data, writes: 0, may_change: false }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(self.may_change, "written before it was marked unfinished");
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
            self.data.resize(end.div_ceil(PAGE), false);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.data[offset / PAGE..end.div_ceil(PAGE)].fill(true);
        self.writes += 1;
    }

    fn punch(&mut self, offset: usize, end: usize) {
        assert!(self.may_change, "punched before it was marked unfinished");
        let end = end.min(self.bytes.len());
        if offset < end {
            self.bytes[offset..end].fill(0);
            let last = if end == self.bytes.len() { end.div_ceil(PAGE) } else { end / PAGE };
            self.data[offset.div_ceil(PAGE)..last].fill(false);
        }
        self.writes += 1;
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    closed: bool,
    carried: u64,
}

/// What goes wrong, and when: at the `n`-th operation of its kind.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Fault {
    #[default]
    None,
    ReadFails {
        disk: usize,
        countdown: u32,
    },
    WriteFails {
        countdown: u32,
    },
    /// The connection breaks when it has carried so many bytes.
    Cut {
        connection: usize,
        after: u64,
    },
    /// The connection carries so many bytes and no more; neither end is told.
    Stall {
        connection: usize,
        after: u64,
    },
    /// All break when one has carried so many bytes.
    AllCut {
        after: u64,
    },
    /// A byte of the `n`-th send is changed on the way.
    Flip {
        countdown: u32,
    },
    /// The head of a data frame is put before the `n`-th send, or what follows of one.
    Forge {
        countdown: u32,
    },
    /// The source's file has become shorter.
    Shrinks {
        countdown: u32,
    },
    /// The source's file is not as it was when it is looked at in the end.
    Changes {
        countdown: u32,
    },
    /// The control connection breaks at its `n`-th message.
    ControlCut {
        countdown: u32,
    },
}

/// Disks, network and fate, below all workers of a run.
#[derive(Debug)]
struct World {
    dice: Dice,
    disks: Vec<Disk>,
    /// Socket `2 i` and `2 i + 1` are the ends of connection `i`; pipe `s` is what socket `s` receives from.
    pipes: Vec<Pipe>,
    fault: Fault,
    happened: bool,
    now_ms: u64,
    /// A digest of all that happened, to compare runs by.
    trace: u64,
    /// Short transfers and delays; off, everything completes at once and in full.
    rough: bool,
    /// All that was sent.
    heard: Vec<u8>,
    /// Heads that were read.
    heads: u64,
}

impl World {
    /// In which nothing has happened yet.
    fn new(seed: u64, disks: Vec<Disk>, connections: usize, fault: Fault, rough: bool) -> Self {
        let pipes = (0..2 * connections).map(|_| Pipe::default()).collect();
        let (dice, heard) = (Dice(seed), Vec::new());
        Self { dice, disks, pipes, fault, happened: false, now_ms: 0, trace: 0, rough, heard, heads: 0 }
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace ^ what).wrapping_mul(0x100_0000_01b3);
    }

    /// Whether the fault's countdown ends with this operation.
    fn strikes(&mut self, select: impl Fn(&mut Fault) -> Option<&mut u32>) -> bool {
        let Some(countdown) = select(&mut self.fault) else { return false };
        if *countdown > 0 {
            *countdown -= 1;
            return false;
        }
        self.happened = true;
        true
    }

    /// Whether control has no time now for what its workers say.
    fn is_behind(&mut self) -> bool {
        self.rough && !self.dice.one_in(8)
    }

    /// Whether nothing moves any more on this socket, and nobody knows.
    fn stalls(&self, socket: usize) -> bool {
        let pipes = &self.pipes[socket & !1..=socket | 1];
        matches!(self.fault, Fault::Stall { connection, after }
            if connection == socket / 2 && pipes.iter().any(|pipe| pipe.carried >= after))
    }

    /// How many of `most` bytes an operation moves this time, at least 1.
    fn some_of(&mut self, most: usize) -> usize {
        if most <= 1 || !self.rough || self.dice.one_in(3) { most } else { 1 + self.dice.below(most) }
    }

    /// The same of a file; past the page cache whole pages, but for its last.
    fn some_of_file(&mut self, most: usize, direct: bool) -> usize {
        let some = self.some_of(most);
        if direct { some.next_multiple_of(PAGE).min(most) } else { some }
    }
}

#[derive(Debug)]
struct Lease {
    pool: usize,
    account: u8,
    leases: Rc<RefCell<Vec<(usize, u8)>>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.leases.borrow_mut();
        let at = leases.iter().position(|lease| *lease == (self.pool, self.account)).unwrap();
        leases.swap_remove(at);
    }
}

/// A leased buffer.
#[derive(Debug)]
struct SimBuffer {
    bytes: Vec<u8>,
    _lease: Lease,
}

impl Deref for SimBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for SimBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// A buffer that nobody changes any more.
#[derive(Clone, Debug)]
struct SimShared(Rc<SimBuffer>);

impl Deref for SimShared {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

type SimOperation = Operation<SimBuffer, SimShared>;

/// What is below one simulated worker.
#[derive(Debug)]
struct Sim {
    world: Rc<RefCell<World>>,
    /// The disk of each, and whether it is read and written past the page cache.
    files: Vec<Option<(usize, bool)>>,
    sockets: Vec<Option<usize>>,
    /// Operations in flight, and what a receive of everything has got so far.
    pending: Vec<(Tag, SimOperation, u32)>,
    done: VecDeque<Completion<SimBuffer, SimShared>>,
    leases: Rc<RefCell<Vec<(usize, u8)>>>,
}

impl Sim {
    fn new(world: &Rc<RefCell<World>>) -> Self {
        Self {
            world: Rc::clone(world),
            files: Vec::new(),
            sockets: Vec::new(),
            pending: Vec::new(),
            done: VecDeque::new(),
            leases: Rc::default(),
        }
    }

    /// What the operation comes to now; `None` if it goes on.
    fn attempt(&self, operation: &mut SimOperation, taken: &mut u32) -> Option<Result<u32, Errno>> {
        let world = &mut *self.world.borrow_mut();
        let moved = match operation {
            Operation::Read { file, offset, buffer, from, until } => {
                let (disk, direct) = self.files[file.0 as usize].unwrap();
                if world.strikes(|fault| match fault {
                    Fault::ReadFails { disk: at, countdown } if *at == disk => Some(countdown),
                    _ => None,
                }) {
                    return Some(Err(Errno(5)));
                }
                if disk == 0
                    && world.strikes(|fault| match fault {
                        Fault::Shrinks { countdown } => Some(countdown),
                        _ => None,
                    })
                {
                    world.disks[0].bytes.truncate(usize::try_from(*offset).unwrap());
                }
                let offset = usize::try_from(*offset).unwrap().min(world.disks[disk].bytes.len());
                let there = world.disks[disk].bytes.len() - offset;
                let moved = there.min((*until - *from) as usize);
                let moved = world.some_of_file(moved, direct);
                let from = *from as usize;
                buffer[from..from + moved].copy_from_slice(&world.disks[disk].bytes[offset..offset + moved]);
                moved
            }
            Operation::Punch { file, offset, bytes } => {
                if world.strikes(|fault| match fault {
                    Fault::WriteFails { countdown } => Some(countdown),
                    _ => None,
                }) {
                    return Some(Err(Errno(28)));
                }
                let (disk, _) = self.files[file.0 as usize].unwrap();
                let offset = usize::try_from(*offset).unwrap();
                world.disks[disk].punch(offset, offset + *bytes as usize);
                0
            }
            Operation::Write { file, offset, part, .. } => {
                if world.strikes(|fault| match fault {
                    Fault::WriteFails { countdown } => Some(countdown),
                    _ => None,
                }) {
                    return Some(Err(Errno(28)));
                }
                let (disk, direct) = self.files[file.0 as usize].unwrap();
                let bytes = &part.data[part.from as usize..part.until as usize];
                let moved = world.some_of_file(bytes.len(), direct);
                world.disks[disk].write(usize::try_from(*offset).unwrap(), &bytes[..moved]);
                moved
            }
            Operation::Receive { socket, buffer, from, until, whole } => {
                let socket = self.sockets[socket.0 as usize].unwrap();
                let stalls = world.stalls(socket);
                world.happened |= stalls;
                let from = *from + *taken;
                let room = (*until - from) as usize;
                let there = if stalls { 0 } else { world.pipes[socket].bytes.len().min(room) };
                let moved = if *whole { there } else { world.some_of(there) };
                for (at, byte) in (from as usize..).zip(world.pipes[socket].bytes.drain(..moved)) {
                    buffer[at] = byte;
                }
                *taken += u32::try_from(moved).unwrap();
                let ready = if *whole { moved == room } else { moved > 0 };
                if !ready && !world.pipes[socket].closed {
                    return None; // a receive of everything has drained the pipe and waits on
                }
                *taken as usize
            }
            Operation::Send { socket, parts, skip } => {
                let socket = self.sockets[socket.0 as usize].unwrap();
                let to = socket ^ 1;
                if world.pipes[to].closed {
                    return Some(Err(Errno(32)));
                }
                let room = PIPE_BYTES.saturating_sub(world.pipes[to].bytes.len());
                if room == 0 || world.stalls(socket) {
                    return None;
                }
                let all: usize = parts.iter().map(|part| (part.until - part.from) as usize).sum();
                let moved = world.some_of((all - *skip as usize).min(room));
                let mut sent = Vec::with_capacity(moved);
                let mut skip = *skip as usize;
                for part in parts {
                    let bytes = &part.data[part.from as usize..part.until as usize];
                    let bytes = &bytes[skip.min(bytes.len())..];
                    skip = skip.saturating_sub((part.until - part.from) as usize);
                    sent.extend_from_slice(&bytes[..bytes.len().min(moved - sent.len())]);
                }
                if world.strikes(|fault| match fault {
                    Fault::Flip { countdown } => Some(countdown),
                    _ => None,
                }) {
                    world.fault = Fault::None;
                    let at = world.dice.below(moved);
                    sent[at] ^= 1 << world.dice.below(8);
                }
                if world.strikes(|fault| match fault {
                    Fault::Forge { countdown } => Some(countdown),
                    _ => None,
                }) {
                    world.fault = Fault::None;
                    let mut head = [0; FRAME_LEN_MAX];
                    let forged = Frame::Data { pieces: &[Run { first: 0, count: 1 }], payload_bytes: 1 };
                    let used = encode(&forged, &mut head).unwrap();
                    world.pipes[to].bytes.extend(&head[..used]);
                }
                world.heard.extend_from_slice(&sent);
                let pipe = &mut world.pipes[to];
                pipe.bytes.extend(sent);
                pipe.carried += moved as u64;
                let carried = world.pipes[to].carried;
                let broken = match world.fault {
                    Fault::Cut { connection, after } if connection == socket / 2 && carried >= after => {
                        2 * connection..2 * connection + 2
                    }
                    Fault::AllCut { after } if carried >= after => 0..world.pipes.len(),
                    _ => 0..0,
                };
                world.happened |= !broken.is_empty();
                for pipe in &mut world.pipes[broken] {
                    pipe.closed = true;
                    pipe.bytes.clear();
                }
                moved
            }
        };
        world.note(moved as u64);
        Some(Ok(u32::try_from(moved).unwrap()))
    }
}

impl Completions for Sim {
    type Buffer = SimBuffer;
    type Shared = SimShared;
    type File = (usize, Mode);
    type Socket = usize;

    fn lease(&mut self, pool: Pool, account: Account) -> Option<SimBuffer> {
        if self.free(pool) == 0 {
            return None;
        }
        self.leases.borrow_mut().push((pool as usize, account.0));
        let lease = Lease { pool: pool as usize, account: account.0, leases: Rc::clone(&self.leases) };
        Some(SimBuffer { bytes: vec![POISON; pool.buffer_bytes()], _lease: lease })
    }

    fn free(&self, pool: Pool) -> usize {
        pool.buffers() - self.leases.borrow().iter().filter(|lease| lease.0 == pool as usize).count()
    }

    fn leased(&self, pool: Pool, account: Account) -> usize {
        self.leases.borrow().iter().filter(|lease| **lease == (pool as usize, account.0)).count()
    }

    fn share(buffer: SimBuffer) -> SimShared {
        SimShared(Rc::new(buffer))
    }

    fn mode((_, mode): &Self::File) -> Mode {
        *mode
    }

    fn adopt_file(&mut self, (disk, mode): Self::File) -> FileId {
        self.files.push(Some((disk, mode == Mode::Direct)));
        FileId(u32::try_from(self.files.len() - 1).unwrap())
    }

    fn close(&mut self, file: FileId) {
        assert!(self.files[file.0 as usize].take().is_some());
    }

    fn adopt(&mut self, socket: usize) -> SocketId {
        self.sockets.push(Some(socket));
        SocketId(u32::try_from(self.sockets.len() - 1).unwrap())
    }

    fn shut(&mut self, socket: SocketId) {
        let socket = self.sockets[socket.0 as usize].unwrap();
        let mut world = self.world.borrow_mut();
        world.pipes[socket].closed = true;
        world.pipes[socket].bytes.clear();
        world.pipes[socket ^ 1].closed = true;
    }

    fn release(&mut self, socket: SocketId) {
        assert!(self.sockets[socket.0 as usize].take().is_some());
    }

    fn traffic(&self, at: SocketId) -> Traffic {
        let is_sent = |operation: &SimOperation| matches!(operation, Operation::Send { socket, .. } if *socket == at);
        let socket = self.sockets[at.0 as usize].unwrap();
        let world = self.world.borrow();
        Traffic {
            moved: world.pipes[socket].carried + world.pipes[socket ^ 1].carried,
            awaits_peer: world.stalls(socket)
                && (!world.pipes[socket ^ 1].bytes.is_empty()
                    || self.pending.iter().any(|(_, operation, _)| is_sent(operation))),
        }
    }

    fn peek(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<bool, Errno> {
        let world = &mut *self.world.borrow_mut();
        let (disk, direct) = self.files[file.0 as usize].unwrap();
        let offset = usize::try_from(offset).unwrap();
        let Some(bytes) = world.disks[disk].bytes.get(offset..offset + into.len()) else { return Ok(false) };
        into.copy_from_slice(bytes);
        world.heads += 1;
        let is_cold = world.rough && world.dice.one_in(200);
        Ok(!direct && !is_cold)
    }

    fn next_hole(&mut self, file: FileId, offset: u64) -> Result<Option<(u64, u64)>, Errno> {
        let world = &mut *self.world.borrow_mut();
        world.now_ms += 1; // nothing else that a worker does takes time
        let disk = &world.disks[self.files[file.0 as usize].unwrap().0];
        let (mut at, end) = (usize::try_from(offset).unwrap(), disk.bytes.len());
        while at < end && disk.data[at / PAGE] {
            at = (at / PAGE + 1) * PAGE;
        }
        if at >= end {
            return Ok(None);
        }
        let from = at;
        while at < end && !disk.data[at / PAGE] {
            at = (at / PAGE + 1) * PAGE;
        }
        Ok(Some((from as u64, at.min(end) as u64)))
    }

    fn push(&mut self, tag: Tag, operation: SimOperation) {
        self.pending.push((tag, operation, 0));
    }

    fn turn(&mut self, wait_ms: u64) -> Result<(), Errno> {
        self.world.borrow_mut().now_ms += 5 * wait_ms.min(1);
        let mut attempts = self.pending.len();
        if self.world.borrow().rough {
            attempts = self.world.borrow_mut().dice.below(attempts + 1);
        }
        for _ in 0..attempts {
            let at = if self.world.borrow().rough { self.world.borrow_mut().dice.below(self.pending.len()) } else { 0 };
            let (tag, mut operation, mut taken) = self.pending.remove(at);
            match self.attempt(&mut operation, &mut taken) {
                Some(result) => self.done.push_back(Completion { tag, operation, result }),
                None => self.pending.push((tag, operation, taken)),
            }
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Completion<SimBuffer, SimShared>> {
        self.done.pop_front()
    }

    fn waker(&self) -> Waker {
        Waker(Arc::new(|| {}))
    }

    fn now_ns(&self) -> u64 {
        self.world.borrow().now_ms * 1_000_000
    }

    fn without_core_ns(&self) -> u64 {
        0
    }
}
