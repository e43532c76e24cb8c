//! What a worker asks of the machine below it: operations in, completions out.
//!
//! Behind this trait are the kernel's ring (`ring`) and, in tests, a simulator with a seed (`sim`). Whatever goes in is
//! *moved* in and comes back with its completion, buffers above all; what is refused comes back at once. Operations
//! complete in any order, late, or with fewer bytes than asked for; whoever pushed them copes.

use crate::limits::{
    FRAME_BUFFER_BYTES, FRAME_BUFFERS, LARGE_BUFFER_BYTES, LARGE_BUFFERS, PAYLOAD_BUFFERS, PAYLOAD_BYTES_MAX,
    SMALL_BUFFER_BYTES, SMALL_BUFFERS,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// An open file, named within one implementation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileId(pub u32);

/// A socket, named within one implementation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketId(pub u32);

/// Whose operation it is and what about. Comes back with the completion; means nothing here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tag {
    /// Whose.
    pub owner: u64,
    /// What about.
    pub about: u64,
}

/// On whose account a buffer is leased.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Account(pub u8);

/// The kernel's error number.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Errno(pub i32);

/// The highest number of an error that Linux has.
const ERRNO_MAX: i32 = 133;

/// Those that are known by name outside of the floors that ask the kernel; x86 and ARM number them alike.
impl Errno {
    /// `EIO`.
    pub const IO: Self = Self(5);
    /// `ENOSPC`: the disk takes no more.
    pub const NO_SPACE: Self = Self(28);
    /// `EPIPE`: sent to where nobody listens any more.
    pub const PIPE: Self = Self(32);
    /// `EBADMSG`: bytes that cannot be what was sent.
    pub const BAD_MESSAGE: Self = Self(74);
    /// `ECONNRESET`: the other end has gone.
    pub const RESET: Self = Self(104);
    /// `ETIMEDOUT`: nothing comes from there.
    pub const TIMED_OUT: Self = Self(110);
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // std appends " (os error 28)", which says nothing to a person.
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        f.write_str(text.split(" (os error").next().unwrap_or_default())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({}: {self})", self.0)
    }
}

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        // Libraries wrap what the system has told them, and leave only its kind: EACCES and EPERM are one.
        let alike = |errno: &i32| std::io::Error::from_raw_os_error(*errno).kind() == error.kind();
        error.raw_os_error().or_else(|| (1..=ERRNO_MAX).rev().find(alike)).map_or(Self::IO, Self)
    }
}

/// How a connection gets on, as its kernel knows: what tells a slow one from a dead one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// Bytes that the peer's kernel took or gave so far.
    pub moved: u64,
    /// Something is on its way to the peer's kernel, which has not said that it came.
    pub awaits_peer: bool,
}

/// Pools are disjoint by role, so that no role ever waits for another's buffers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pool {
    /// Small frames, both directions.
    Frame,
    /// Extents of up to 128 KiB: being read, hashed, held.
    Small,
    /// Extents of up to 1 MiB: being read, hashed, held.
    Large,
    /// Payloads: being received, hashed, written.
    Payload,
}

impl Pool {
    /// Number of buffers of this pool.
    pub fn buffers(self) -> usize {
        match self {
            Pool::Frame => FRAME_BUFFERS,
            Pool::Small => SMALL_BUFFERS,
            Pool::Large => LARGE_BUFFERS,
            Pool::Payload => PAYLOAD_BUFFERS,
        }
    }

    /// Length of every buffer of this pool, a multiple of 4096; buffers begin at a multiple of 4096.
    pub fn buffer_bytes(self) -> usize {
        match self {
            Pool::Frame => FRAME_BUFFER_BYTES,
            Pool::Small => SMALL_BUFFER_BYTES,
            Pool::Large => LARGE_BUFFER_BYTES,
            Pool::Payload => PAYLOAD_BYTES_MAX as usize,
        }
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Only read: a source, a dry run, a read-back.
    Read,
    /// Read and written: a target.
    Update,
}

/// Whether a file is to be read and written past the page cache.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum DirectPolicy {
    /// Where most of the file is not cached.
    #[default]
    Auto,
    /// Wherever the file system can.
    Always,
    /// Nowhere.
    Never,
}

/// How a file is read and written. One mode a file, on all workers, decided when it is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Through the page cache, reads asynchronous where they must wait for the disk.
    Buffered,
    /// In memory (tmpfs): nothing ever waits, so nothing is gained by asking for it asynchronously.
    Memory,
    /// Past the page cache: offsets and places in buffers are multiples of 4096. Lengths too, but at the file's tail, where
    /// more is moved than asked for, up to the next multiple: a read may overwrite its buffer so far, and a write writes
    /// what lies in its buffer so far, which its owner has made zeros. Who wrote cuts the file to its length in the end.
    /// What was asked for is reported.
    Direct,
}

/// How a write is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Writing {
    /// By a plain call where that is faster, though it may wait for the disk: nobody is there who would wait in vain.
    AtOnce,
    /// While the worker does something else.
    Meanwhile,
    /// The same, past the page cache: room is set aside there first, so that such writes need not wait for each other. A file
    /// system that cannot do so is not an error.
    MeanwhileWithRoom,
}

/// Bytes `from..until` of a shared buffer.
#[derive(Clone, Debug)]
pub struct Part<S> {
    /// The buffer.
    pub data: S,
    /// First byte.
    pub from: u32,
    /// The byte after the last one.
    pub until: u32,
}

/// What can be asked for. `B` is a buffer that only its holder may touch, `S` one that many hold and nobody changes.
#[derive(Debug)]
pub enum Operation<B, S> {
    /// Reads the file's bytes from `offset` on into `buffer[from..until]`. Fewer than asked for: the file ends there, or
    /// the kernel was short.
    Read { file: FileId, offset: u64, buffer: B, from: u32, until: u32 },
    /// Writes `part` at `offset`.
    Write { file: FileId, offset: u64, part: Part<S>, how: Writing },
    /// Makes `bytes` from `offset` on read as zeros: as a hole, or as zeros written where holes are refused. 0 bytes moved.
    Punch { file: FileId, offset: u64, bytes: u32 },
    /// Receives into `buffer[from..until]`: some bytes, or with `whole` all of them unless the connection ends. 0 bytes:
    /// the peer will send no more, so never ask for none.
    Receive { socket: SocketId, buffer: B, from: u32, until: u32, whole: bool },
    /// Sends `parts`, without their first `skip` bytes, in order. At most one is in flight on a socket.
    Send { socket: SocketId, parts: Vec<Part<S>>, skip: u32 },
}

/// An operation that has ended, as it went in, and how many bytes it moved.
#[derive(Debug)]
pub struct Completion<B, S> {
    /// As pushed.
    pub tag: Tag,
    /// As pushed, with its buffers.
    pub operation: Operation<B, S>,
    /// Bytes moved.
    pub result: Result<u32, Errno>,
}

/// Wakes the worker that waits in [`Completions::turn`], from any thread.
#[derive(Clone)]
pub struct Waker(pub Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// The worker's present or next wait ends.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// The machine below one worker.
pub trait Completions {
    /// A leased buffer, written by its only holder. Returns to its pool when dropped.
    type Buffer: DerefMut<Target = [u8]> + fmt::Debug;
    /// A buffer that nobody changes any more. Returns to its pool when the last holder drops it.
    type Shared: Clone + Deref<Target = [u8]> + fmt::Debug;
    /// A file as control hands it over: opened for this worker alone, so that no worker waits for that.
    type File: Send + fmt::Debug;
    /// A connected socket as control hands it over, with nothing in flight.
    type Socket: Send + fmt::Debug;

    /// A free buffer of the pool, with whatever its last holder left in it. `None` means wait.
    fn lease(&mut self, pool: Pool, account: Account) -> Option<Self::Buffer>;
    /// Buffers of the pool that nobody holds.
    fn free(&self, pool: Pool) -> usize;
    /// Buffers of the pool that are held on this account, shared and in flight ones included.
    fn leased(&self, pool: Pool, account: Account) -> usize;
    /// Gives up the right to write.
    fn share(buffer: Self::Buffer) -> Self::Shared;

    /// How a file is read and written.
    fn mode(file: &Self::File) -> Mode;
    /// Takes a file over.
    fn adopt_file(&mut self, file: Self::File) -> FileId;
    /// Closes it, at the latest with the next turn. Nothing may be in flight on it.
    fn close(&mut self, file: FileId);
    /// Takes a socket over.
    fn adopt(&mut self, socket: Self::Socket) -> SocketId;
    /// Ends both directions: whatever is in flight on it completes soon.
    fn shut(&mut self, socket: SocketId);
    /// Closes it. Nothing may be in flight on it.
    fn release(&mut self, socket: SocketId);
    /// How it gets on.
    fn traffic(&self, socket: SocketId) -> Traffic;

    /// Reads the file's first bytes from `offset` on, as many as `into` has, if that takes no waiting for a disk. `false`:
    /// it does, or the file ends before. A plain call.
    fn peek(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<bool, Errno>;
    /// The first hole of the file from `offset` on, as beginning and end: the one that `offset` lies in, or the next. A plain
    /// call, which may have to go through all that the file system knows of the data before it.
    fn next_hole(&mut self, file: FileId, offset: u64) -> Result<Option<(u64, u64)>, Errno>;

    /// Starts an operation, at the latest with the next turn. At most [`crate::limits::OPERATIONS_MAX`] are in flight.
    fn push(&mut self, tag: Tag, operation: Operation<Self::Buffer, Self::Shared>);
    /// Lets the kernel work, and waits up to `wait_ms` (0: not at all) until something completes or somebody wakes.
    fn turn(&mut self, wait_ms: u64) -> Result<(), Errno>;
    /// The next completion.
    fn pop(&mut self) -> Option<Completion<Self::Buffer, Self::Shared>>;

    /// Ends this worker's present or next wait, from any thread.
    fn waker(&self) -> Waker;
    /// Nanoseconds since some fixed moment.
    fn now_ns(&self) -> u64;
    /// The same in milliseconds.
    fn now_ms(&self) -> u64 {
        self.now_ns() / 1_000_000
    }
    /// For how long this thread could have run and had no core, in all: others had them, or a quota was used up. 0 where
    /// nobody knows. A plain call.
    fn without_core_ns(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn what_the_system_has_said_is_found_also_where_a_library_has_wrapped_it() {
        let missing = std::path::Path::new("/proc/no/such/directory");
        assert_eq!(Errno::from(std::fs::read(missing).unwrap_err()), Errno(2));
        assert_eq!(Errno::from(tempfile::NamedTempFile::new_in(missing).unwrap_err()), Errno(2));
        let wrapped = |kind| Errno::from(io::Error::new(kind, "wrapped"));
        assert_eq!(wrapped(io::ErrorKind::PermissionDenied), Errno(13));
        assert_eq!(wrapped(io::ErrorKind::StorageFull), Errno::NO_SPACE);
        assert_eq!(wrapped(io::ErrorKind::Other), Errno::IO);
    }
}
