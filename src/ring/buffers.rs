//! The buffers of one worker: four pools, each one mapping, all taken at start.
//!
//! What always holds: a slot is free and in the list once, or has a count of holders; a [`Buffer`] is its slot's only
//! holder. The list is last in, first out, so the next buffer is the one that is most likely still in the core's cache.
//! Leasing, sharing, cloning and dropping allocate nothing. A mapping is undone when its last buffer and its pool are gone.

use crate::completion::{Account, Pool};
use crate::limits::{FRAME_BUFFER_BYTES, SESSIONS_MAX};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::rc::Rc;

/// What a freed buffer is filled with in tests, and where assertions are on: whoever still relies on it is found out.
const POISON: u8 = 0xDB;

/// A leased buffer, written by its only holder. Returns to its pool when dropped.
pub struct Buffer(Slot);

/// A buffer that nobody changes any more. Returns to its pool when the last holder drops it.
#[derive(Clone)]
pub struct Shared(Slot);

impl Buffer {
    pub(super) fn share(self) -> Shared {
        Shared(self.0)
    }

    /// Where byte `at` lies. Touches no memory, so it may be called while the kernel writes there.
    pub(super) fn address(&self, at: u32) -> *mut u8 {
        self.0.address().wrapping_add(super::index(at))
    }
}

impl Shared {
    /// Where byte `at` lies, to be read only.
    pub(super) fn address(&self, at: u32) -> *const u8 {
        self.0.address().wrapping_add(super::index(at))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the slot's bytes are initialised, inside the mapping that `memory` keeps, and change only through `&mut
        // self`: a `Buffer` is its slot's only holder, and one that the kernel writes to is owned by `InFlight`.
        unsafe { std::slice::from_raw_parts(self.0.address(), self.0.memory.buffer_bytes) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; no other reference to these bytes exists, as this is their only holder, borrowed uniquely.
        unsafe { std::slice::from_raw_parts_mut(self.0.address(), self.0.memory.buffer_bytes) }
    }
}

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the slot's bytes are initialised, inside the mapping that `memory` keeps, and nobody writes to them: the
        // right to was given up with the `Buffer`, and `InFlight` lets the kernel only read a `Shared`.
        unsafe { std::slice::from_raw_parts(self.0.address(), self.0.memory.buffer_bytes) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({})", self.0.number)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({})", self.0.number)
    }
}

/// All pools of one worker.
pub(super) struct Pools([Rc<Memory>; 4]);

impl Pools {
    /// Maps all of it; pages come when they are first touched.
    pub(super) fn new() -> Result<Self, rustix::io::Errno> {
        let map = |pool: Pool| Memory::map(pool.buffer_bytes(), pool.buffers()).map(Rc::new);
        Ok(Self([map(Pool::Frame)?, map(Pool::Small)?, map(Pool::Large)?, map(Pool::Payload)?]))
    }

    fn of(&self, pool: Pool) -> &Rc<Memory> {
        let [frame, small, large, payload] = &self.0;
        match pool {
            Pool::Frame => frame,
            Pool::Small => small,
            Pool::Large => large,
            Pool::Payload => payload,
        }
    }

    pub(super) fn lease(&self, pool: Pool, account: Account) -> Option<Buffer> {
        let memory = self.of(pool);
        let number = memory.free.borrow_mut().pop()?;
        assert_eq!(memory.holders[number].replace(1), 0);
        memory.accounts[number].set(account);
        let leased = memory.leased(account);
        leased.set(leased.get() + 1);
        Some(Buffer(Slot { memory: Rc::clone(memory), number }))
    }

    pub(super) fn free(&self, pool: Pool) -> usize {
        self.of(pool).free.borrow().len()
    }

    pub(super) fn leased(&self, pool: Pool, account: Account) -> usize {
        self.of(pool).leased(account).get()
    }
}

/// One mapping, cut into buffers.
struct Memory {
    start: NonNull<u8>,
    buffer_bytes: usize,
    free: RefCell<Vec<usize>>,
    /// For each buffer: how many hold it. 0 means free.
    holders: Box<[Cell<u32>]>,
    /// For each buffer: on whose account it was leased last.
    accounts: Box<[Cell<Account>]>,
    /// For each account: buffers that are not free.
    leased: [Cell<usize>; SESSIONS_MAX],
}

impl Memory {
    fn map(buffer_bytes: usize, count: usize) -> Result<Self, rustix::io::Errno> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new private mapping at an address of the kernel's choice touches no memory that anybody has.
        let start = unsafe { libc::mmap(ptr::null_mut(), buffer_bytes * count, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            let error = std::io::Error::last_os_error();
            return Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::NOMEM));
        }
        if buffer_bytes > FRAME_BUFFER_BYTES {
            // A disk takes a request in so many pieces of contiguous memory (virtio: 254). In small pages an extent of 1 MiB
            // is 256 of them, hence two requests; cold, that took twice the time. Without huge pages all works too.
            // SAFETY: advice on the mapping just made, whose content it leaves as it is.
            unsafe { libc::madvise(start, buffer_bytes * count, libc::MADV_HUGEPAGE) };
        }
        Ok(Self {
            start: NonNull::new(start.cast()).expect("the kernel maps nothing at address 0 unless asked to"),
            buffer_bytes,
            free: RefCell::new((0..count).rev().collect()),
            holders: vec![Cell::new(0); count].into_boxed_slice(),
            accounts: vec![Cell::new(Account(0)); count].into_boxed_slice(),
            leased: [const { Cell::new(0) }; SESSIONS_MAX],
        })
    }

    fn leased(&self, account: Account) -> &Cell<usize> {
        &self.leased[usize::from(account.0)]
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `map`, undone once. Every buffer of it held an `Rc` of this, so none is left,
        // neither here nor, as `InFlight` holds buffers until the kernel is done, in the kernel's hands.
        let undone = unsafe { libc::munmap(self.start.as_ptr().cast(), self.buffer_bytes * self.holders.len()) };
        debug_assert_eq!(undone, 0);
    }
}

/// One hold on one buffer.
struct Slot {
    memory: Rc<Memory>,
    number: usize,
}

impl Slot {
    fn address(&self) -> *mut u8 {
        self.memory.start.as_ptr().wrapping_add(self.number * self.memory.buffer_bytes)
    }
}

impl Clone for Slot {
    fn clone(&self) -> Self {
        let holders = &self.memory.holders[self.number];
        holders.set(holders.get().checked_add(1).expect("far fewer holders than 2^32"));
        Self { memory: Rc::clone(&self.memory), number: self.number }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let holders = &self.memory.holders[self.number];
        holders.set(holders.get() - 1);
        if holders.get() > 0 {
            return;
        }
        if cfg!(any(test, debug_assertions)) {
            // SAFETY: the bytes lie inside the mapping, and the last hold on them is this one, which ends here.
            unsafe { ptr::write_bytes(self.address(), POISON, self.memory.buffer_bytes) };
        }
        let leased = self.memory.leased(self.memory.accounts[self.number].get());
        leased.set(leased.get() - 1);
        self.memory.free.borrow_mut().push(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Account = Account(0);

    #[test]
    fn an_exhausted_pool_says_none_and_gives_the_latest_freed_first() {
        #[track_caller]
        fn check(pool: Pool) {
            let count = pool.buffers();
            let pools = Pools::new().unwrap();
            let mut leased: Vec<Buffer> = std::iter::from_fn(|| pools.lease(pool, ME)).collect();
            assert_eq!(leased.len(), count);
            assert!(leased.iter().all(|buffer| buffer.len() == pool.buffer_bytes()));
            assert!(leased.iter().all(|buffer| buffer.as_ptr().addr().is_multiple_of(4096)));
            let (first, second) = (leased.remove(0), leased.remove(count - 2));
            let want = [second.as_ptr(), first.as_ptr()];
            drop(first);
            drop(second);
            let again = [pools.lease(pool, ME).unwrap(), pools.lease(pool, ME).unwrap()];
            assert_eq!([again[0].as_ptr(), again[1].as_ptr()], want);
            assert!(pools.lease(pool, ME).is_none());
        }
        check(Pool::Frame);
        check(Pool::Small);
        check(Pool::Large);
        check(Pool::Payload);
    }

    #[test]
    fn a_shared_buffer_returns_with_its_last_holder() {
        let pools = Pools::new().unwrap();
        let mut leased: Vec<Buffer> = std::iter::from_fn(|| pools.lease(Pool::Payload, ME)).collect();
        let mut buffer = leased.pop().unwrap();
        buffer[7] = 7;
        let one = buffer.share();
        let other = one.clone();
        drop(one);
        assert_eq!(other[7], 7);
        assert!(pools.lease(Pool::Payload, ME).is_none());
        drop(other);
        assert!(pools.lease(Pool::Payload, ME).is_some());
    }

    #[test]
    fn what_is_leased_is_counted_by_account_until_its_last_holder_is_gone() {
        let pools = Pools::new().unwrap();
        let mine = pools.lease(Pool::Small, ME).unwrap().share();
        let theirs = pools.lease(Pool::Small, Account(1)).unwrap();
        let clone = mine.clone();
        drop(mine);
        assert_eq!([pools.leased(Pool::Small, ME), pools.leased(Pool::Small, Account(1))], [1, 1]);
        assert_eq!(pools.free(Pool::Small), Pool::Small.buffers() - 2);
        drop((clone, theirs));
        assert_eq!([pools.leased(Pool::Small, ME), pools.leased(Pool::Small, Account(1))], [0, 0]);
        assert_eq!(pools.free(Pool::Small), Pool::Small.buffers());
    }

    #[test]
    fn buffers_do_not_overlap_and_outlive_their_pools() {
        let pools = Pools::new().unwrap();
        let mut leased: Vec<Buffer> = std::iter::from_fn(|| pools.lease(Pool::Payload, ME)).collect();
        drop(pools);
        for (buffer, fill) in leased.iter_mut().zip(0..) {
            buffer.fill(fill);
        }
        for (buffer, fill) in leased.iter().zip(0..) {
            assert!(buffer.iter().all(|&byte| byte == fill));
        }
    }

    #[test]
    fn a_freed_buffer_is_poisoned() {
        let pools = Pools::new().unwrap();
        drop(pools.lease(Pool::Frame, ME).unwrap());
        assert!(pools.lease(Pool::Frame, ME).unwrap().iter().all(|&byte| byte == POISON));
    }
}
