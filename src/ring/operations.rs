//! The operations that the kernel is working on, and what it is told of them.
//!
//! What always holds: every address that the kernel was told belongs to a buffer or a [`Message`] that a slot here owns, until
//! that slot's completion, or to zeros that are always there. Slots lend nothing, and buffers and messages do not move when
//! slots do. Nothing is allocated for an operation but, once for each that may send at the same time, a message.

use super::buffers::{Buffer, Shared};
use super::slots::Slots;
use crate::completion::{Completion, Errno, Operation, Part, Tag, Writing};
use crate::limits::{DIRECT_ALIGNMENT, SEND_PARTS_MAX};
use io_uring::types::Fd;
use io_uring::{opcode, squeue};
use std::mem;
use std::os::fd::RawFd;

/// See the module.
pub(super) struct InFlight {
    slots: Slots<Slot>,
    /// Messages whose send has ended.
    #[expect(clippy::vec_box, reason = "a message keeps its address while it moves from here to a slot and back")]
    spare: Vec<Box<Message>>,
}

struct Slot {
    tag: Tag,
    operation: Operation<Buffer, Shared>,
    /// Bytes asked for; past the page cache the kernel may move more, rounded up.
    asked: u32,
    message: Option<Box<Message>>,
    then: Then,
}

/// What the kernel is to be asked next for an operation, through this descriptor.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// Nothing.
    Nothing,
    /// To write, when room has been set aside.
    Write(Fd),
    /// To write these zeros, if it can make no hole there.
    Zeros { descriptor: Fd, offset: u64, left: u32 },
    /// To write the rest of these zeros, some of which are on their way.
    MoreZeros { descriptor: Fd, offset: u64, left: u32 },
}

/// Zeros, aligned for direct I/O.
#[repr(align(4096))]
struct Zeros([u8; 64 << 10]);

static ZEROS: Zeros = Zeros([0; 64 << 10]);

impl InFlight {
    pub(super) fn with_capacity(operations: usize) -> Self {
        Self { slots: Slots::with_capacity(operations), spare: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes an operation over. The entry may be given to the kernel once.
    pub(super) fn insert(
        &mut self,
        tag: Tag,
        operation: Operation<Buffer, Shared>,
        descriptor: RawFd,
        direct: bool,
    ) -> squeue::Entry {
        let descriptor = Fd(descriptor);
        let (mut message, mut then) = (None, Then::Nothing);
        let asked;
        let entry = match &operation {
            Operation::Read { offset, buffer, from, until, .. } => {
                asked = within(*from, *until, buffer.len());
                let bytes = if direct { whole_blocks(*offset, *from, asked) } else { asked };
                opcode::Read::new(descriptor, buffer.address(*from), bytes).offset(*offset).build()
            }
            Operation::Write { offset, part, how, .. } => {
                asked = part_bytes(part);
                if *how == Writing::MeanwhileWithRoom {
                    then = Then::Write(descriptor);
                    opcode::Fallocate::new(descriptor, asked.into()).offset(*offset).build()
                } else {
                    write(descriptor, *offset, part, direct)
                }
            }
            Operation::Punch { offset, bytes, .. } => {
                asked = *bytes;
                // Rounded up only at the file's very end.
                let left = if direct { whole_blocks(*offset, 0, asked) } else { asked };
                then = Then::Zeros { descriptor, offset: *offset, left };
                let how = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                opcode::Fallocate::new(descriptor, asked.into()).offset(*offset).mode(how).build()
            }
            Operation::Receive { buffer, from, until, whole, .. } => {
                asked = within(*from, *until, buffer.len());
                let flags = if *whole { libc::MSG_WAITALL } else { 0 };
                opcode::Recv::new(descriptor, buffer.address(*from), asked).flags(flags).build()
            }
            Operation::Send { parts, skip, .. } => {
                let message = message.insert(self.spare.pop().unwrap_or_default());
                asked = message.fill(parts, *skip);
                // WAITALL: the kernel goes on after a short send. NOSIGNAL: a closed connection is an error, no SIGPIPE.
                let flags = u32::try_from(libc::MSG_WAITALL | libc::MSG_NOSIGNAL).expect("flags are positive");
                opcode::SendMsg::new(descriptor, &raw const message.header).flags(flags).build()
            }
        };
        let slot = self.slots.insert(Slot { tag, operation, asked, message, then });
        entry.user_data(u64::from(slot))
    }

    /// What the kernel is to be asked next, after this result of what it was asked before; or how the operation ended, if this was
    /// all. The entry may be given to the kernel once.
    pub(super) fn go_on(&mut self, slot: u64, result: i32) -> Result<squeue::Entry, i32> {
        let held = self.slots.at_mut(u32::try_from(slot).expect("names a slot"));
        let is_one_of = |errors: &[i32]| errors.contains(&-result);
        let next = match mem::replace(&mut held.then, Then::Nothing) {
            Then::Nothing => return Err(result),
            // There may be no room; only what the write would fail with as well is an error of the operation.
            Then::Write(_) if is_one_of(&[libc::ENOSPC, libc::EDQUOT, libc::EFBIG, libc::EIO]) => return Err(result),
            Then::Write(descriptor) => {
                let Operation::Write { offset, part, .. } = &held.operation else { unreachable!("it wants room") };
                write(descriptor, *offset, part, true)
            }
            Then::Zeros { descriptor, offset, left } if is_one_of(&[libc::EOPNOTSUPP, libc::ENOSYS]) => {
                held.then = Then::MoreZeros { descriptor, offset, left };
                zeros(descriptor, offset, left)
            }
            Then::Zeros { .. } => return Err(result),
            Then::MoreZeros { descriptor, offset, left } => match u32::try_from(result) {
                Err(_) => return Err(result),
                Ok(0) => return Err(-libc::EIO),
                Ok(moved) if moved >= left => return Err(0),
                Ok(moved) => {
                    let (offset, left) = (offset + u64::from(moved), left - moved);
                    held.then = Then::MoreZeros { descriptor, offset, left };
                    zeros(descriptor, offset, left)
                }
            },
        };
        Ok(next.user_data(slot))
    }

    /// Gives an operation back: the kernel has said how it ended, and touches nothing of it any more.
    pub(super) fn remove(&mut self, slot: u64, result: i32) -> Completion<Buffer, Shared> {
        let slot = self.slots.remove(u32::try_from(slot).expect("names a slot"));
        self.spare.extend(slot.message);
        let result = match u32::try_from(result) {
            Ok(moved) => Ok(moved.min(slot.asked)),
            Err(_) => Err(Errno(-result)),
        };
        Completion { tag: slot.tag, operation: slot.operation, result }
    }
}

/// What `sendmsg` is told: boxed, since the kernel has its address.
struct Message {
    header: libc::msghdr,
    parts: Vec<libc::iovec>,
}

impl Default for Box<Message> {
    fn default() -> Self {
        // SAFETY: `msghdr` is numbers and pointers, for which all zeros is a value: no name, no parts, no control data.
        let header = unsafe { mem::zeroed() };
        Box::new(Message { header, parts: Vec::with_capacity(SEND_PARTS_MAX) })
    }
}

impl Message {
    /// Lists the parts without their first `skip` bytes. Returns how many bytes are listed: what goes beyond the kernel's
    /// limit of parts is left for the next send, as after any short one.
    fn fill(&mut self, parts: &[Part<Shared>], mut skip: u32) -> u32 {
        self.parts.clear();
        let mut listed = 0;
        for part in parts {
            let bytes = part_bytes(part);
            let skipped = skip.min(bytes);
            skip -= skipped;
            if skipped < bytes && self.parts.len() < SEND_PARTS_MAX {
                let start = part.data.address(part.from + skipped).cast_mut().cast(); // sending only reads
                self.parts.push(libc::iovec { iov_base: start, iov_len: super::index(bytes - skipped) });
                listed += bytes - skipped;
            }
        }
        self.header.msg_iov = self.parts.as_mut_ptr();
        #[allow(clippy::useless_conversion, reason = "musl counts in another type")]
        let count = self.parts.len().try_into().expect("at most SEND_PARTS_MAX");
        self.header.msg_iovlen = count;
        listed
    }
}

fn write(descriptor: Fd, offset: u64, part: &Part<Shared>, direct: bool) -> squeue::Entry {
    let asked = part_bytes(part);
    let bytes = if direct { whole_blocks(offset, part.from, asked) } else { asked };
    opcode::Write::new(descriptor, part.data.address(part.from), bytes).offset(offset).build()
}

/// Writes zeros, not more than so many.
fn zeros(descriptor: Fd, offset: u64, most: u32) -> squeue::Entry {
    let bytes = u32::try_from(ZEROS.0.len()).expect("some KiB").min(most);
    opcode::Write::new(descriptor, ZEROS.0.as_ptr(), bytes).offset(offset).build()
}

/// Bytes of all parts.
pub(super) fn parts_bytes(parts: &[Part<Shared>]) -> u32 {
    parts.iter().map(part_bytes).sum()
}

fn part_bytes(part: &Part<Shared>) -> u32 {
    within(part.from, part.until, part.data.len())
}

/// Length of a range that lies inside a buffer, or we are wrong: the kernel would touch what is not ours to give.
fn within(from: u32, until: u32, buffer_bytes: usize) -> u32 {
    assert!(from <= until, "a range begins before it ends");
    assert!(super::index(until) <= buffer_bytes, "a range lies inside its buffer");
    until - from
}

/// The length that direct I/O wants: rounded up. It stays inside the buffer, as `from` and every buffer's length are
/// multiples too.
fn whole_blocks(offset: u64, from: u32, bytes: u32) -> u32 {
    assert!(offset.is_multiple_of(u64::from(DIRECT_ALIGNMENT)), "direct I/O begins at a multiple of 4096");
    assert!(from.is_multiple_of(DIRECT_ALIGNMENT), "direct I/O begins at a multiple of 4096 in memory");
    bytes.next_multiple_of(DIRECT_ALIGNMENT)
}
