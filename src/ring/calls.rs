//! System calls that no crate we keep wraps safely: how much of a file is cached, how far a TCP connection is.
//!
//! Both only ask. Where the kernel does not know or may not say, so do they.

use crate::completion::Traffic;
use std::os::fd::{AsRawFd, OwnedFd};
use std::{mem, ptr};

/// The number of `cachestat(2)`, the same on every architecture (Linux 6.5; libc does not name it).
const CACHESTAT: libc::c_long = 451;

#[repr(C)]
struct CachestatRange {
    offset: u64,
    /// 0: to the end.
    bytes: u64,
}

#[repr(C)]
#[derive(Default)]
struct Cachestat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Pages of the file that are in the page cache. `None` where the kernel cannot or may not say.
pub(super) fn cached_pages(file: &OwnedFd) -> Option<u64> {
    let range = CachestatRange { offset: 0, bytes: 0 };
    let mut answer = Cachestat::default();
    // SAFETY: the kernel reads one range and writes one answer, both laid out as it defines them and alive across the call.
    let result = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut answer, 0) };
    (result == 0).then_some(answer.cached)
}

/// The front of the kernel's `struct tcp_info`, as far as it is asked for.
#[repr(C)]
#[derive(Default)]
struct TcpInfo {
    small: [u8; 8],
    words: [u32; 24],
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
}

/// Which of the words is `tcpi_unacked`: segments in flight. A peer that takes no more has none.
const UNACKED: usize = 4;

/// Bytes that the peer's kernel acknowledged or sent so far, and whether it has yet to acknowledge some; nothing of what is no
/// TCP connection.
pub(super) fn tcp_traffic(socket: &OwnedFd) -> Traffic {
    let mut info = TcpInfo::default();
    let mut bytes = libc::socklen_t::try_from(mem::size_of::<TcpInfo>()).expect("small");
    // SAFETY: the kernel writes at most `bytes` bytes to `info`, which is that long, plain numbers, and alive across the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            ptr::from_mut(&mut info).cast(),
            &raw mut bytes,
        )
    };
    if result != 0 {
        return Traffic::default();
    }
    Traffic { moved: info.bytes_acked.saturating_add(info.bytes_received), awaits_peer: info.words[UNACKED] > 0 }
}
