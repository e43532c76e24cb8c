//! The kernel's ring: what a worker asks of files and sockets, done by io_uring.
//!
//! The only folder with `unsafe`, and the only one that names `io_uring` and `libc`. It is sound because:
//! 1. A [`Buffer`] is moved in with its operation and comes back with the completion: meanwhile nobody can touch it.
//! 2. `InFlight` owns all memory that the kernel may change, lends none of it, and gives it up only for the kernel's own
//!    completion of that very operation. It lives on the heap, so nothing moves when the ring does.
//! 3. Dropping the ring cancels, then waits for every completion; only then is memory freed.
//! 4. Operations in flight, each one entry at a time, never outnumber completion slots (`limits`): no completion is lost.
//! 5. `Ring`, [`Buffer`] and [`Shared`] are not `Send`: counts are plain, and the kernel is asked by one thread only.
//! 6. A pool lives as long as any buffer of it, whoever holds that.
//!
//! It knows no frames and no roles, and decides nothing but where asking the kernel asynchronously gains nothing.

#![expect(unsafe_code, reason = "the kernel reads and writes memory behind the compiler's back; the argument is above")]

mod buffers;
mod calls;
mod files;
mod mode;
mod operations;
mod setup;
mod slots;
#[cfg(test)]
mod tests;

pub use buffers::{Buffer, Shared};
pub use files::OpenFile;
pub use mode::choose_mode;
pub use setup::{RingError, probe};

use crate::completion::{
    Account, Completion, Completions, Errno, FileId, Mode, Operation, Pool, SocketId, Tag, Traffic, Waker, Writing,
};
use crate::limits::{CANCEL_AGAIN_MS, FILES_REGISTERED_MAX, OPERATIONS_MAX};
use buffers::Pools;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use operations::InFlight;
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::time::{ClockId, clock_gettime};
use slots::Slots;
use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// `user_data` of the poll that [`Waker`] ends. Slots of `InFlight` are far smaller.
const WAKE: u64 = u64::MAX;
/// `user_data` of what nobody waits for: a cancel, the closing of a file.
const UNAWAITED: u64 = u64::MAX - 1;
/// Nothing of the world makes the kernel refuse a well-formed ring.
const REFUSED: &str = "a ring takes operations";

/// One worker's ring, buffers, files and sockets. Stays on the thread that made it.
///
/// ```compile_fail
/// fn needs_send<T: Send>() {}
/// needs_send::<pdcp::ring::Ring>();
/// ```
pub struct Ring {
    // `drop` has waited for everything in flight before any field goes; the order of the fields says so once more.
    kernel: IoUring,
    in_flight: InFlight,
    /// What was done at once, within `push`.
    done: VecDeque<Completion<Buffer, Shared>>,
    files: Slots<OpenFile>,
    sockets: Slots<Socket>,
    wake: Arc<OwnedFd>,
    /// What the kernel keeps of this thread; `None` where it keeps nothing, or shows nobody.
    schedstat: Option<File>,
    pools: Pools,
}

struct Socket {
    descriptor: OwnedFd,
    /// Pushed and not yet popped.
    in_flight: u32,
}

impl Ring {
    /// Takes all memory of one worker. To be called on the thread that will use it, already pinned.
    pub fn new() -> Result<Self, RingError> {
        let (kernel, _) = setup::make()?;
        // Best effort: without the table, a killed process' last writes no longer hold the lock of their file.
        let _ = kernel.submitter().register_files_sparse(FILES_REGISTERED_MAX);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| setup::explain(&error.into()))?;
        let mut ring = Self {
            kernel,
            in_flight: InFlight::with_capacity(OPERATIONS_MAX),
            done: VecDeque::with_capacity(OPERATIONS_MAX),
            files: Slots::with_capacity(0),
            sockets: Slots::with_capacity(0),
            wake: Arc::new(wake),
            schedstat: File::open("/proc/thread-self/schedstat").ok(),
            pools: Pools::new().map_err(|error| setup::explain(&error.into()))?,
        };
        ring.await_wake().map_err(|error| setup::explain(&error))?;
        Ok(ring)
    }

    /// Asks to be told when the eventfd becomes readable. A poll, as it needs no memory of ours.
    fn await_wake(&mut self) -> Result<(), io::Error> {
        let readable = u32::from(PollFlags::IN.bits());
        self.post(&opcode::PollAdd::new(Fd(self.wake.as_raw_fd()), readable).build().user_data(WAKE))
    }

    /// Puts an entry into the submission queue, submitting what is there if the queue is full.
    fn post(&mut self, entry: &squeue::Entry) -> Result<(), io::Error> {
        // SAFETY: whatever the entry points to is owned by `in_flight`, which made it, or it points to nothing (poll,
        // cancel). `in_flight` keeps it unmoved and unlent until the kernel's completion, also while the ring is dropped.
        while unsafe { self.kernel.submission().push(entry) }.is_err() {
            // Bounded: the kernel takes entries whatever they say, unless it is out of memory, which passes or kills.
            self.submit()?;
        }
        Ok(())
    }

    /// Hands what is queued to the kernel, and lets it finish what it has deferred.
    fn submit(&mut self) -> Result<(), io::Error> {
        unless_passing(self.kernel.submit())
    }

    /// Does an operation now if nothing is gained by asking for it asynchronously.
    fn do_at_once(&mut self, operation: &mut Operation<Buffer, Shared>) -> Option<Result<u32, Errno>> {
        match operation {
            Operation::Read { file, offset, buffer, from, until } => {
                let file = self.files.at(file.0);
                (file.mode == Mode::Memory || from == until)
                    .then(|| file.read(&mut buffer[index(*from)..index(*until)], *offset))
            }
            Operation::Write { part, .. } if part.from == part.until => Some(Ok(0)),
            Operation::Write { file, offset, part, how: Writing::AtOnce } => {
                self.files.at_mut(file.0).write_at_once(&part.data[index(part.from)..index(part.until)], *offset)
            }
            Operation::Write { .. } => None,
            Operation::Receive { from, until, .. } => {
                assert!(from < until, "0 bytes received would look like the end of the connection");
                None
            }
            Operation::Send { parts, skip, .. } => (operations::parts_bytes(parts) <= *skip).then_some(Ok(0)),
            Operation::Punch { bytes, .. } => (*bytes == 0).then_some(Ok(0)),
        }
    }

    /// The count of what is in flight on the operation's file or socket.
    fn users(&mut self, operation: &Operation<Buffer, Shared>) -> &mut u32 {
        match operation {
            Operation::Read { file, .. } | Operation::Write { file, .. } | Operation::Punch { file, .. } => {
                &mut self.files.at_mut(file.0).in_flight
            }
            Operation::Receive { socket, .. } | Operation::Send { socket, .. } => {
                &mut self.sockets.at_mut(socket.0).in_flight
            }
        }
    }

    /// The descriptor an operation works on, and whether past the page cache.
    fn descriptor(&self, operation: &Operation<Buffer, Shared>) -> (RawFd, bool) {
        match operation {
            Operation::Read { file, .. } | Operation::Write { file, .. } | Operation::Punch { file, .. } => {
                let file = self.files.at(file.0);
                (file.descriptor.as_raw_fd(), file.mode == Mode::Direct)
            }
            Operation::Receive { socket, .. } | Operation::Send { socket, .. } => {
                (self.sockets.at(socket.0).descriptor.as_raw_fd(), false)
            }
        }
    }

    /// The next completion of the kernel's; wake-ups are swallowed, they have ended the wait already.
    fn reap(&mut self) -> Option<Completion<Buffer, Shared>> {
        loop {
            let entry = self.kernel.completion().next()?;
            match entry.user_data() {
                WAKE => {
                    let mut count = [0; 8];
                    let _ = rustix::io::read(&self.wake, &mut count); // so that it can become readable again
                    self.await_wake().expect(REFUSED);
                }
                UNAWAITED => {}
                slot => match self.in_flight.go_on(slot, entry.result()) {
                    Ok(next) => self.post(&next).expect(REFUSED),
                    Err(result) => {
                        let completion = self.in_flight.remove(slot, result);
                        if let Operation::Write { file, .. } = completion.operation {
                            self.files.at_mut(file.0).answers = true;
                        }
                        return Some(completion);
                    }
                },
            }
        }
    }

    /// Submits, and waits for one completion at most this long. `Ok` also if there is none.
    fn wait(&mut self, most: Duration) -> Result<(), io::Error> {
        let timeout = Timespec::from(most);
        unless_passing(self.kernel.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)))
    }

    /// Ends everything in flight and waits until the kernel has let go of all memory: however long a disk takes.
    fn drain(&mut self) -> Result<(), io::Error> {
        self.submit()?; // files that are still to be closed
        for socket in self.sockets.iter() {
            shut_down(socket);
        }
        while !self.in_flight.is_empty() {
            self.post(&opcode::AsyncCancel2::new(CancelBuilder::any().all()).build().user_data(UNAWAITED))?;
            self.wait(Duration::from_millis(CANCEL_AGAIN_MS))?;
            while let Some(entry) = self.kernel.completion().next() {
                if entry.user_data() != WAKE && entry.user_data() != UNAWAITED {
                    drop(self.in_flight.remove(entry.user_data(), entry.result()));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.drain().is_err() {
            // Nobody can tell any more when the kernel lets go of this memory, so it is never freed.
            mem::forget(mem::replace(&mut self.in_flight, InFlight::with_capacity(0)));
        }
        // The kernel takes a closed ring apart later, in its own time; the locks of registered files must not last so long.
        let _ = self.kernel.submitter().unregister_files();
    }
}

impl Completions for Ring {
    type Buffer = Buffer;
    type Shared = Shared;
    type File = OpenFile;
    type Socket = OwnedFd;

    fn lease(&mut self, pool: Pool, account: Account) -> Option<Buffer> {
        self.pools.lease(pool, account)
    }

    fn free(&self, pool: Pool) -> usize {
        self.pools.free(pool)
    }

    fn leased(&self, pool: Pool, account: Account) -> usize {
        self.pools.leased(pool, account)
    }

    fn share(buffer: Buffer) -> Shared {
        buffer.share()
    }

    fn mode(file: &OpenFile) -> Mode {
        file.mode
    }

    fn adopt_file(&mut self, file: OpenFile) -> FileId {
        let held = file.held.as_raw_fd();
        let id = self.files.insert(file);
        // Best effort, as is the table.
        let _ = self.kernel.submitter().register_files_update(id, &[held]);
        FileId(id)
    }

    fn close(&mut self, file: FileId) {
        let closed = self.files.remove(file.0);
        assert_eq!(closed.in_flight, 0, "a file is closed while something is in flight on it");
        let _ = self.kernel.submitter().register_files_update(file.0, &[-1]);
        // File systems of other hosts (NFS) write all that is left when a file is closed: the ring has a thread wait for that.
        let descriptor = closed.descriptor.into_raw_fd();
        self.post(&opcode::Close::new(Fd(descriptor)).build().user_data(UNAWAITED)).expect(REFUSED);
    }

    fn adopt(&mut self, socket: OwnedFd) -> SocketId {
        SocketId(self.sockets.insert(Socket { descriptor: socket, in_flight: 0 }))
    }

    fn shut(&mut self, socket: SocketId) {
        shut_down(self.sockets.at(socket.0));
    }

    fn release(&mut self, socket: SocketId) {
        let released = self.sockets.remove(socket.0);
        assert_eq!(released.in_flight, 0, "a socket is closed while something is in flight on it");
    }

    fn traffic(&self, socket: SocketId) -> Traffic {
        calls::tcp_traffic(&self.sockets.at(socket.0).descriptor)
    }

    fn peek(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> Result<bool, Errno> {
        self.files.at(file.0).peek(into, offset)
    }

    fn next_hole(&mut self, file: FileId, offset: u64) -> Result<Option<(u64, u64)>, Errno> {
        self.files.at(file.0).next_hole(offset)
    }

    fn push(&mut self, tag: Tag, mut operation: Operation<Buffer, Shared>) {
        assert!(self.in_flight.len() + self.done.len() < OPERATIONS_MAX, "more in flight than limits.rs allows");
        *self.users(&operation) += 1;
        if let Some(result) = self.do_at_once(&mut operation) {
            self.done.push_back(Completion { tag, operation, result });
            return;
        }
        let (descriptor, direct) = self.descriptor(&operation);
        let entry = self.in_flight.insert(tag, operation, descriptor, direct);
        self.post(&entry).expect(REFUSED);
    }

    fn turn(&mut self, wait_ms: u64) -> Result<(), Errno> {
        if wait_ms > 0 && self.done.is_empty() && self.kernel.completion().is_empty() {
            return self.wait(Duration::from_millis(wait_ms)).map_err(Errno::from);
        }
        let submission = self.kernel.submission();
        // The kernel finishes deferred work only when it is entered; `taskrun` says that there is some.
        let idle = submission.is_empty() && !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        if idle { Ok(()) } else { self.submit().map_err(Errno::from) }
    }

    fn pop(&mut self) -> Option<Completion<Buffer, Shared>> {
        let completion = self.done.pop_front().or_else(|| self.reap())?;
        *self.users(&completion.operation) -= 1;
        Some(completion)
    }

    fn waker(&self) -> Waker {
        let wake = Arc::clone(&self.wake);
        Waker(Arc::new(move || {
            let _ = rustix::io::write(&wake, &1u64.to_ne_bytes()); // refused only where it is readable anyway
        }))
    }

    fn now_ns(&self) -> u64 {
        now_ns()
    }

    fn without_core_ns(&self) -> u64 {
        let mut text = [0; 64];
        let read = self.schedstat.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        run_delay_ns(&text[..read]).unwrap_or(0)
    }
}

/// The second of schedstat's three numbers: nanoseconds on a core, waiting for one, and how often.
fn run_delay_ns(schedstat: &[u8]) -> Option<u64> {
    str::from_utf8(schedstat).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("in_flight", &self.in_flight.len()).finish_non_exhaustive()
    }
}

/// Ends both directions. Only a socket that is no longer connected refuses, and it has nothing left to end.
fn shut_down(socket: &Socket) {
    let _ = rustix::net::shutdown(&socket.descriptor, rustix::net::Shutdown::Both);
}

/// Entering the kernel may fail without anything being wrong: nothing came in time, a signal, or a short want of memory.
/// Entries that were not taken stay in the queue.
fn unless_passing(entered: Result<usize, io::Error>) -> Result<(), io::Error> {
    let errno = entered.as_ref().err().and_then(io::Error::raw_os_error);
    match errno {
        Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
        _ => entered.map(drop),
    }
}

/// Every ring's clock, so that control can tell how long a worker has been silent: nanoseconds since the machine was started,
/// without those in which it was suspended.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let [seconds, nanos] = [now.tv_sec, now.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    seconds * 1_000_000_000 + nanos
}

/// A place in a buffer, as a slice wants it.
fn index(place: u32) -> usize {
    usize::try_from(place).expect("a buffer is far below 4 GiB")
}

/// The kernel's error number, as the trait wants it.
fn errno(error: rustix::io::Errno) -> Errno {
    Errno(error.raw_os_error())
}
