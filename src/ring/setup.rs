//! Asks the kernel for a ring as a worker needs it, and explains a refusal.
//!
//! A refusal is normal, in containers above all, so it is said in one line that names the likely cause.

use crate::completion::Errno;
use crate::limits::{COMPLETIONS, SUBMISSIONS};
use io_uring::register::Restriction;
use io_uring::{IoUring, opcode};
use std::fmt;
use std::io;

/// Why there is no ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RingError {
    /// This process may not; with what `kernel.io_uring_disabled` says, where that can be read.
    NotPermitted { disabled: Option<u32> },
    /// This kernel, or what pretends to be one, does not know io_uring.
    Unknown,
    /// The kernel knows io_uring, but not what we ask of it.
    TooOld,
    /// No memory for the ring or for the worker's buffers.
    NoMemory,
    /// Anything else.
    Other(Errno),
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RingError::NotPermitted { disabled: Some(value @ 1..) } => {
                write!(f, "io_uring is not permitted: kernel.io_uring_disabled is {value}")
            }
            RingError::NotPermitted { .. } => {
                f.write_str("io_uring is not permitted, probably by a container's seccomp profile (Docker, containerd)")
            }
            RingError::Unknown => f.write_str("this kernel has no io_uring, or a sandbox hides it"),
            RingError::TooOld => f.write_str("io_uring lacks what is needed: the kernel is older than Linux 6.1"),
            RingError::NoMemory => {
                f.write_str("no memory for io_uring and its buffers: a memory limit, or RLIMIT_MEMLOCK (ulimit -l)")
            }
            RingError::Other(errno) => write!(f, "io_uring cannot be set up: {errno}"),
        }
    }
}

impl std::error::Error for RingError {}

/// What a worker does with its ring: whatever else it may once be made to ask for, the kernel refuses.
const OPERATIONS: &[u8] = &[
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::Fallocate::CODE,
    opcode::Close::CODE,
    opcode::Recv::CODE,
    opcode::SendMsg::CODE,
    opcode::PollAdd::CODE,
    opcode::AsyncCancel2::CODE,
];
/// `IORING_UNREGISTER_FILES`, `IORING_REGISTER_FILES_UPDATE`, `IORING_REGISTER_FILES2` (no crate we keep names them):
/// the table of files that outlive us.
const REGISTRATIONS: &[u8] = &[3, 6, 13];

/// Whether workers will get their rings, to be asked before anybody is dialled; `true`: and restricted ones. Any thread
/// may.
pub fn probe() -> Result<bool, RingError> {
    make().map(|(_, restricted)| restricted)
}

/// A ring for the calling thread, and whether the kernel could restrict it to what we do with it.
pub(super) fn make() -> Result<(IoUring, bool), RingError> {
    let ring = IoUring::builder()
        // One thread asks and reaps, and completions wait until it does: no interrupts, no locks.
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        // One bad entry does not hold up those behind it.
        .setup_submit_all()
        .setup_cqsize(COMPLETIONS)
        // Until it is enabled, so that it can be restricted.
        .setup_r_disabled()
        .build(SUBMISSIONS)
        .map_err(|error| explain(&error))?;
    let operations = OPERATIONS.iter().map(|code| Restriction::sqe_op(*code));
    let registrations = REGISTRATIONS.iter().map(|code| Restriction::register_op(*code));
    let mut restrictions: Vec<_> = operations.chain(registrations).collect();
    let restricted = ring.submitter().register_restrictions(&mut restrictions).is_ok();
    ring.submitter().register_enable_rings().map_err(|error| explain(&error))?;
    Ok((ring, restricted))
}

/// Why a ring, or what belongs to it, cannot be had.
pub(super) fn explain(error: &io::Error) -> RingError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => RingError::NotPermitted { disabled: disabled() },
        Some(libc::ENOSYS) => RingError::Unknown,
        Some(libc::EINVAL) => RingError::TooOld,
        Some(libc::ENOMEM) => RingError::NoMemory,
        errno => RingError::Other(Errno(errno.unwrap_or(libc::EIO))),
    }
}

/// 0: allowed. 1: only to privileged processes and one group. 2: to nobody.
fn disabled() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::opcode::AsyncCancel;
    use io_uring::squeue;
    use io_uring::types::Fd;

    /// Above all nothing with names: whoever could make a worker ask for that would be past the jail.
    #[test]
    fn a_ring_does_what_a_worker_asks_and_nothing_else() {
        let (mut ring, restricted) = make().unwrap();
        if !restricted {
            return eprintln!("SKIPPED: this kernel restricts no rings");
        }
        let mut result_of = |entry: squeue::Entry| {
            // SAFETY: the entry points to nothing.
            unsafe { ring.submission().push(&entry) }.unwrap();
            ring.submit_and_wait(1).unwrap();
            ring.completion().next().unwrap().result()
        };
        let (here, name) = (Fd(libc::AT_FDCWD), std::ptr::null());
        for refused in [
            opcode::Nop::new().build(),
            opcode::OpenAt::new(here, name).build(),
            opcode::OpenAt2::new(here, name, std::ptr::null()).build(),
            opcode::Statx::new(here, name, std::ptr::null_mut()).build(),
            opcode::UnlinkAt::new(here, name).build(),
            opcode::RenameAt::new(here, name, here, name).build(),
            opcode::LinkAt::new(here, name, here, name).build(),
            opcode::SymlinkAt::new(here, name, name).build(),
            opcode::MkDirAt::new(here, name).build(),
            opcode::SetXattr::new(name, std::ptr::null(), name, 0).build(),
            opcode::Fsync::new(Fd(-1)).build(),
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
            opcode::Connect::new(Fd(-1), std::ptr::null(), 0).build(),
        ] {
            let shown = format!("{refused:?}");
            assert_eq!(result_of(refused), -libc::EACCES, "{shown}");
        }
        let nothing = AsyncCancel::new(1).build();
        assert_eq!(result_of(nothing.clone()), -libc::ENOENT);
        assert_eq!(result_of(nothing.flags(squeue::Flags::ASYNC)), -libc::EACCES);
        assert!(ring.submitter().register_files_sparse(1).is_ok());
        let eventfd = ring.submitter().register_eventfd(-1).unwrap_err();
        assert_eq!(eventfd.raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn a_refusal_names_its_likely_cause() {
        #[track_caller]
        fn check(error: RingError, want: &str) {
            assert!(error.to_string().contains(want), "{error}");
        }
        check(RingError::NotPermitted { disabled: Some(2) }, "kernel.io_uring_disabled is 2");
        check(RingError::NotPermitted { disabled: Some(0) }, "seccomp");
        check(RingError::NotPermitted { disabled: None }, "seccomp");
        check(explain(&io::Error::from_raw_os_error(libc::ENOSYS)), "no io_uring");
        check(explain(&io::Error::from_raw_os_error(libc::EINVAL)), "older than Linux 6.1");
        check(explain(&io::Error::from_raw_os_error(libc::ENOMEM)), "RLIMIT_MEMLOCK");
        check(RingError::Other(Errno(libc::EMFILE)), "Too many open files");
    }
}
