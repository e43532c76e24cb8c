//! The ring against the real kernel: files in memory and on disk, sockets over loopback.

#[path = "../../tests/pdcp/rig/freezer.rs"]
mod freezer;

use super::*;
use crate::completion::{Access, Part};
use crate::limits::{FRAME_BUFFER_BYTES, FRAME_BUFFERS, PAYLOAD_BUFFERS, SLOW_WRITE_MS, SUBMISSIONS};
use freezer::Freezer;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const HOUR_MS: u64 = 3_600_000;
const EVERY_MODE: [Mode; 3] = [Mode::Memory, Mode::Buffered, Mode::Direct];

fn ring() -> Option<Ring> {
    Ring::new().inspect_err(|error| eprintln!("SKIPPED: {error}")).ok()
}

/// One directory in memory, one (most often) on a disk.
fn directories() -> [PathBuf; 2] {
    let executable = std::env::current_exe().unwrap();
    [PathBuf::from("/dev/shm"), executable.parent().unwrap().to_path_buf()]
}

/// Bytes that differ from place to place.
fn pattern(bytes: usize) -> Vec<u8> {
    (0u8..=250).cycle().take(bytes).collect()
}

fn file(directory: &Path, content: &[u8]) -> (File, Arc<OwnedFd>) {
    let file = tempfile::tempfile_in(directory).unwrap();
    file.write_all_at(content, 0).unwrap();
    let held = Arc::new(file.try_clone().unwrap().into());
    (file, held)
}

fn open(ring: &mut Ring, file: &Arc<OwnedFd>, access: Access, mode: Mode) -> Option<FileId> {
    let opened = OpenFile::open(file, access, mode);
    if mode == Mode::Direct && matches!(opened, Err(Errno(libc::EINVAL))) {
        eprintln!("SKIPPED: this file system has no direct I/O");
        return None;
    }
    Some(ring.adopt_file(opened.unwrap()))
}

/// Bytes of a pattern in a leased buffer, the rest of it zeros.
fn shared(ring: &mut Ring, pool: Pool, content: &[u8]) -> Shared {
    let mut buffer = ring.lease(pool, Account(0)).unwrap();
    buffer[..content.len()].copy_from_slice(content);
    buffer[content.len()..].fill(0);
    Ring::share(buffer)
}

fn part(data: Shared, range: std::ops::Range<u32>) -> Part<Shared> {
    Part { data, from: range.start, until: range.end }
}

fn finish(ring: &mut Ring) -> Completion<Buffer, Shared> {
    loop {
        if let Some(completion) = ring.pop() {
            return completion;
        }
        ring.turn(HOUR_MS).unwrap();
    }
}

fn read(ring: &mut Ring, file: FileId, offset: u64, until: u32) -> Result<Vec<u8>, Errno> {
    let buffer = ring.lease(Pool::Small, Account(0)).unwrap();
    ring.push(Tag { owner: 1, about: 0 }, Operation::Read { file, offset, buffer, from: 0, until });
    let completion = finish(ring);
    assert_eq!(completion.tag, Tag { owner: 1, about: 0 });
    let Operation::Read { buffer, .. } = completion.operation else { panic!("not the operation that was pushed") };
    completion.result.map(|moved| buffer[..index(moved)].to_vec())
}

fn write(ring: &mut Ring, file: FileId, offset: u64, content: &[u8]) -> Result<u32, Errno> {
    let data = shared(ring, Pool::Small, content);
    let until = u32::try_from(content.len()).unwrap();
    ring.push(
        Tag { owner: 2, about: 0 },
        Operation::Write { file, offset, part: part(data, 0..until), how: Writing::AtOnce },
    );
    finish(ring).result
}

fn punch(ring: &mut Ring, file: FileId, offset: u64, bytes: u32) -> Result<u32, Errno> {
    ring.push(Tag { owner: 3, about: 0 }, Operation::Punch { file, offset, bytes });
    finish(ring).result
}

fn connection() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (dialled.into(), listener.accept().unwrap().0.into())
}

#[test]
fn what_is_written_is_read_back_in_every_mode() {
    let Some(mut ring) = ring() else { return };
    for (directory, mode) in directories().iter().flat_map(|directory| EVERY_MODE.map(|mode| (directory, mode))) {
        let (kept, held) = file(directory, b"");
        let Some(id) = open(&mut ring, &held, Access::Update, mode) else { continue };
        let content = pattern((3 << 16) + 5000); // the last piece is no multiple of 4096
        for (chunk, offset) in content.chunks(1 << 16).zip((0..).step_by(1 << 16)) {
            assert_eq!(write(&mut ring, id, offset, chunk), Ok(u32::try_from(chunk.len()).unwrap()));
        }
        let padded = u64::try_from(content.len().next_multiple_of(4096)).unwrap();
        let length = kept.metadata().unwrap().len();
        assert!(length == u64::try_from(content.len()).unwrap() || (mode == Mode::Direct && length == padded));
        kept.set_len(u64::try_from(content.len()).unwrap()).unwrap();
        for (chunk, offset) in content.chunks(1 << 16).zip((0..).step_by(1 << 16)) {
            let asked = u32::try_from(chunk.len()).unwrap();
            assert!(read(&mut ring, id, offset, asked).unwrap() == chunk, "{mode:?} in {directory:?}");
        }
        ring.close(id);
    }
}

#[test]
fn a_read_is_short_only_where_the_file_ends() {
    let Some(mut ring) = ring() else { return };
    for (directory, mode) in directories().iter().flat_map(|directory| EVERY_MODE.map(|mode| (directory, mode))) {
        let content = pattern(10_000);
        let (_kept, held) = file(directory, &content);
        let Some(id) = open(&mut ring, &held, Access::Read, mode) else { continue };
        for (offset, asked, want) in [
            (0, 0, 0),
            (0, 1, 1),
            (0, 4096, 4096),
            (0, 9999, 9999),
            (0, 10_000, 10_000),
            (0, 65_536, 10_000),
            (8192, 4096, 1808),
            (12_288, 4096, 0),
        ] {
            let got = read(&mut ring, id, offset, asked).unwrap();
            let from = usize::try_from(offset).unwrap().min(content.len());
            assert!(got == content[from..from + want], "{asked} at {offset}, {mode:?} in {directory:?}");
        }
        ring.close(id);
    }
}

#[test]
fn a_refused_operation_comes_back_with_its_buffer() {
    let Some(mut ring) = ring() else { return };
    for mode in EVERY_MODE {
        let (_kept, held) = file(&directories()[1], &pattern(4096));
        let Some(id) = open(&mut ring, &held, Access::Read, mode) else { continue };
        let data = shared(&mut ring, Pool::Frame, b"text");
        let where_it_was = data.as_ptr();
        ring.push(
            Tag { owner: 9, about: 0 },
            Operation::Write { file: id, offset: 0, part: part(data, 0..4096), how: Writing::AtOnce },
        );
        let completion = finish(&mut ring);
        assert_eq!(completion.tag, Tag { owner: 9, about: 0 });
        assert_eq!(completion.result, Err(Errno(libc::EBADF)));
        let Operation::Write { part, .. } = completion.operation else { panic!("another operation") };
        assert_eq!(part.data.as_ptr(), where_it_was);
        assert_eq!(&part.data[..4], b"text");
        ring.close(id);
    }
}

#[test]
fn more_operations_than_the_submission_queue_holds_can_be_pushed_in_one_turn() {
    assert!(FRAME_BUFFERS > index(SUBMISSIONS));
    let Some(mut ring) = ring() else { return };
    let content = pattern(FRAME_BUFFERS * 4096);
    let (_kept, held) = file(&directories()[1], &content);
    let id = open(&mut ring, &held, Access::Read, Mode::Buffered).unwrap();
    let mut number = 0;
    while let Some(buffer) = ring.lease(Pool::Frame, Account(0)) {
        ring.push(
            Tag { owner: number, about: 0 },
            Operation::Read { file: id, offset: number * 4096, buffer, from: 4096, until: 8192 },
        );
        number += 1;
    }
    assert_eq!(number, u64::try_from(FRAME_BUFFERS).unwrap());
    for _ in 0..number {
        let completion = finish(&mut ring);
        assert_eq!(completion.result, Ok(4096));
        let Operation::Read { buffer, .. } = completion.operation else { panic!("another operation") };
        let from = usize::try_from(completion.tag.owner).unwrap() * 4096;
        assert_eq!(buffer[4096..], content[from..from + 4096]);
    }
    assert!(ring.pop().is_none());
    assert!(ring.lease(Pool::Frame, Account(0)).is_some());
}

#[test]
fn a_send_larger_than_the_socket_buffer_arrives_whole_in_order_and_without_what_is_skipped() {
    let Some(mut ring) = ring() else { return };
    let content = pattern(1 << 20);
    for skip in [0u32, 1, 4999, 5000, 5001, 3_000_000] {
        let (near, far) = connection();
        let near = ring.adopt(near);
        let payload = shared(&mut ring, Pool::Payload, &content);
        let mut parts = vec![part(payload.clone(), 0..0), part(payload.clone(), 100..5100)];
        parts.extend((0..16).map(|_| part(payload.clone(), 7..1 << 20)));
        let mut sent = Vec::new();
        for part in &parts {
            sent.extend_from_slice(&part.data[index(part.from)..index(part.until)]);
        }
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            TcpStream::from(far).read_to_end(&mut received).unwrap();
            received
        });
        ring.push(Tag { owner: 3, about: 0 }, Operation::Send { socket: near, parts, skip });
        assert_eq!(finish(&mut ring).result, Ok(u32::try_from(sent.len()).unwrap() - skip));
        assert!(ring.traffic(near).moved > 0);
        ring.shut(near);
        assert!(reader.join().unwrap() == sent[index(skip)..]);
        ring.release(near);
    }
}

#[test]
fn a_send_of_nothing_is_done_at_once() {
    let Some(mut ring) = ring() else { return };
    let (near, _far) = UnixStream::pair().unwrap();
    let near = ring.adopt(near.into());
    let data = shared(&mut ring, Pool::Frame, b"text");
    for (parts, skip) in [(vec![], 0), (vec![part(data.clone(), 2..2)], 0), (vec![part(data.clone(), 0..4)], 4)] {
        ring.push(Tag { owner: 0, about: 0 }, Operation::Send { socket: near, parts, skip });
        assert_eq!(ring.pop().unwrap().result, Ok(0));
    }
    assert_eq!(ring.traffic(near).moved, 0, "no TCP connection");
}

#[test]
fn more_parts_than_the_kernel_takes_are_a_short_send() {
    let Some(mut ring) = ring() else { return };
    let (near, far) = UnixStream::pair().unwrap();
    let near = ring.adopt(near.into());
    let data = shared(&mut ring, Pool::Frame, b"text");
    let parts = vec![part(data, 0..4); 1025];
    ring.push(Tag { owner: 0, about: 0 }, Operation::Send { socket: near, parts, skip: 1 });
    assert_eq!(finish(&mut ring).result, Ok(4 * 1024 - 1));
    drop(far);
}

#[test]
fn a_send_to_nobody_fails_and_kills_nobody() {
    let Some(mut ring) = ring() else { return };
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    let near = ring.adopt(near.into());
    let data = shared(&mut ring, Pool::Frame, b"text");
    ring.push(Tag { owner: 0, about: 0 }, Operation::Send { socket: near, parts: vec![part(data, 0..4)], skip: 0 });
    let completion = finish(&mut ring);
    assert_eq!(completion.result, Err(Errno(libc::EPIPE)));
    let Operation::Send { parts, .. } = completion.operation else { panic!("another operation") };
    assert_eq!(&parts[0].data[..4], b"text");
}

#[test]
fn a_receive_takes_what_is_there_or_waits_for_all_or_sees_the_end() {
    let Some(mut ring) = ring() else { return };
    let (near, far) = connection();
    // A descriptor that somebody made non-blocking must wait all the same.
    rustix::io::ioctl_fionbio(&near, true).unwrap();
    let mut far = TcpStream::from(far);
    let near = ring.adopt(near);
    let receive = |ring: &mut Ring, from, until, whole| {
        let buffer = ring.lease(Pool::Payload, Account(0)).unwrap();
        ring.push(Tag { owner: 4, about: 0 }, Operation::Receive { socket: near, buffer, from, until, whole });
        ring.turn(0).unwrap();
    };
    let received = |ring: &mut Ring| {
        let completion = finish(ring);
        let Operation::Receive { buffer, from, .. } = completion.operation else { panic!("another operation") };
        completion.result.map(|moved| buffer[index(from)..index(from + moved)].to_vec())
    };

    receive(&mut ring, 10, 100, false);
    far.write_all(b"some").unwrap();
    assert_eq!(received(&mut ring).unwrap(), b"some");

    receive(&mut ring, 10, 14, true);
    for byte in b"whol" {
        assert!(ring.pop().is_none(), "not all of it is there");
        far.write_all(&[*byte]).unwrap();
        ring.turn(1).unwrap();
    }
    assert_eq!(received(&mut ring).unwrap(), b"whol");

    receive(&mut ring, 0, 1 << 20, true);
    far.write_all(b"the end").unwrap();
    drop(far);
    assert_eq!(received(&mut ring).unwrap(), b"the end");
    receive(&mut ring, 0, 1, true);
    assert_eq!(received(&mut ring).unwrap(), b"");
    assert!(ring.traffic(near).moved >= 4 + 4 + 7, "TCP counts the beginning and the end as well");
    ring.release(near);
}

#[test]
fn shutting_a_socket_ends_what_is_in_flight_on_it() {
    let Some(mut ring) = ring() else { return };
    let (near, _far) = connection();
    let near = ring.adopt(near);
    let buffer = ring.lease(Pool::Frame, Account(0)).unwrap();
    ring.push(Tag { owner: 5, about: 0 }, Operation::Receive { socket: near, buffer, from: 0, until: 1, whole: true });
    ring.turn(0).unwrap();
    assert!(ring.pop().is_none());
    ring.shut(near);
    assert_eq!(finish(&mut ring).result, Ok(0));
    ring.release(near);
}

#[test]
fn a_wake_from_another_thread_ends_a_wait_again_and_again() {
    let Some(mut ring) = ring() else { return };
    let waker = ring.waker();
    for _ in 0..3 {
        let waker = waker.clone();
        let other = std::thread::spawn(move || waker.wake());
        ring.turn(HOUR_MS).unwrap();
        assert!(ring.pop().is_none());
        other.join().unwrap();
    }
    waker.wake(); // while nobody waits
    ring.turn(HOUR_MS).unwrap();
    assert!(ring.pop().is_none());
    ring.turn(1).unwrap(); // nobody woke: ends when its time has come
}

#[test]
fn a_dropped_ring_waits_for_the_kernel_and_frees_every_buffer() {
    let Some(mut ring) = ring() else { return };
    let (near, _far) = connection();
    let near = ring.adopt(near);
    let (local, _remote) = UnixStream::pair().unwrap();
    let local = ring.adopt(local.into());
    let (_kept, held) = file(&directories()[1], &pattern(1 << 20));
    let id = open(&mut ring, &held, Access::Read, Mode::Buffered).unwrap();
    let mut survivor = ring.lease(Pool::Payload, Account(0)).unwrap();
    for _ in 0..2 {
        for socket in [near, local] {
            let buffer = ring.lease(Pool::Payload, Account(0)).unwrap();
            ring.push(
                Tag { owner: 0, about: 0 },
                Operation::Receive { socket, buffer, from: 0, until: 1 << 20, whole: true },
            );
        }
        let buffer = ring.lease(Pool::Large, Account(0)).unwrap();
        ring.push(Tag { owner: 0, about: 0 }, Operation::Read { file: id, offset: 0, buffer, from: 0, until: 1 << 20 });
        // The first round is in flight, the second not even submitted.
        if ring.in_flight.len() == 3 {
            ring.turn(0).unwrap();
        }
    }
    let data = shared(&mut ring, Pool::Payload, &pattern(1 << 20));
    let parts = (0..64).map(|_| part(data.clone(), 0..1 << 20)).collect(); // nobody reads them
    ring.push(Tag { owner: 0, about: 0 }, Operation::Send { socket: near, parts, skip: 0 });
    drop(ring);
    assert!(data[..] == pattern(1 << 20));
    survivor.fill(1); // still mapped
}

#[test]
fn a_file_stays_locked_until_it_is_closed_here() {
    let Some(mut ring) = ring() else { return };
    let path = tempfile::NamedTempFile::new_in(&directories()[1]).unwrap();
    let other = File::open(path.path()).unwrap();
    let held: Arc<OwnedFd> = Arc::new(path.reopen().unwrap().into());
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    let id = open(&mut ring, &held, Access::Update, Mode::Buffered).unwrap();
    drop(held);
    assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
    ring.close(id);
    flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
}

/// Trigger: a file of another host (NFS) is closed, which writes all that is left of it. Damage: with the worker all its sessions
/// waited. Cure: the ring closes it, so that a thread of the kernel's waits.
#[test]
fn a_file_is_not_closed_by_a_plain_call() {
    let Some(mut ring) = ring() else { return };
    let (_kept, held) = file(&directories()[1], b"text");
    let id = open(&mut ring, &held, Access::Update, Mode::Buffered).unwrap();
    let opened = format!("/proc/self/fd/{}", ring.files.at(id.0).descriptor.as_raw_fd());
    let leads_to = std::fs::read_link(&opened).unwrap();
    let is_open = || std::fs::read_link(&opened).is_ok_and(|now| now == leads_to);
    ring.close(id);
    assert!(is_open());
    while is_open() {
        ring.turn(1).unwrap();
    }
}

#[test]
fn holes_are_found_and_made() {
    let Some(mut ring) = ring() else { return };
    for directory in directories() {
        let (kept, held) = file(&directory, &pattern(64 << 10));
        kept.write_all_at(&pattern(64 << 10), 1 << 20).unwrap();
        kept.set_len(2 << 20).unwrap();
        let id = open(&mut ring, &held, Access::Update, Mode::Buffered).unwrap();
        let (first, second, end) = (64 << 10, (1 << 20) + (64 << 10), 2 << 20);
        if ring.next_hole(id, 0) == Ok(None) {
            eprintln!("SKIPPED: no holes in {directory:?}");
            continue;
        }
        for (offset, want) in [
            (0, Some((first, 1 << 20))),
            (first, Some((first, 1 << 20))),
            (first + 5, Some((first + 5, 1 << 20))),
            (1 << 20, Some((second, end))),
            (second, Some((second, end))),
            (end, None),
        ] {
            assert_eq!(ring.next_hole(id, offset), Ok(want), "from {offset} on in {directory:?}");
        }
        assert_eq!(punch(&mut ring, id, 0, 64 << 10), Ok(0));
        assert_eq!(punch(&mut ring, id, end, 4096), Ok(0)); // behind the end: the length stays
        assert_eq!(ring.next_hole(id, 0), Ok(Some((0, 1 << 20))));
        assert_eq!(kept.metadata().unwrap().len(), end);
        assert_eq!(read(&mut ring, id, 0, 65_536).unwrap(), vec![0; 65_536]);
        ring.close(id);
    }
}

#[test]
fn a_file_without_holes_has_none() {
    let Some(mut ring) = ring() else { return };
    for directory in directories() {
        for bytes in [0, 1, 4096, 5000] {
            let (_kept, held) = file(&directory, &pattern(bytes));
            let id = open(&mut ring, &held, Access::Read, Mode::Buffered).unwrap();
            assert_eq!(ring.next_hole(id, 0), Ok(None));
            ring.close(id);
        }
    }
}

#[test]
#[should_panic(expected = "while something is in flight")]
fn a_socket_is_never_closed_under_an_operation() {
    let Some(mut ring) = ring() else { panic!("while something is in flight: SKIPPED") };
    let (near, _far) = connection();
    let near = ring.adopt(near);
    let buffer = ring.lease(Pool::Frame, Account(0)).unwrap();
    ring.push(Tag { owner: 0, about: 0 }, Operation::Receive { socket: near, buffer, from: 0, until: 1, whole: false });
    ring.release(near);
}

#[test]
#[should_panic(expected = "more in flight than limits.rs allows")]
fn never_more_is_in_flight_than_there_are_completion_slots() {
    let Some(mut ring) = ring() else { panic!("more in flight than limits.rs allows: SKIPPED") };
    let (_kept, held) = file(&directories()[0], b"");
    let id = open(&mut ring, &held, Access::Update, Mode::Memory).unwrap();
    let data = shared(&mut ring, Pool::Frame, b"");
    for _ in 0..=OPERATIONS_MAX {
        ring.push(
            Tag { owner: 0, about: 0 },
            Operation::Write { file: id, offset: 0, part: part(data.clone(), 0..0), how: Writing::AtOnce },
        );
    }
}

#[test]
fn a_worker_has_the_buffers_that_limits_promise() {
    let Some(mut ring) = ring() else { return };
    let leased: Vec<Buffer> = std::iter::from_fn(|| ring.lease(Pool::Payload, Account(0))).collect();
    assert_eq!(leased.len(), PAYLOAD_BUFFERS);
    assert_eq!(ring.lease(Pool::Frame, Account(0)).unwrap().len(), FRAME_BUFFER_BYTES);
}

#[test]
fn the_second_number_of_schedstat_is_the_time_without_a_core() {
    assert_eq!(run_delay_ns(b"5000 7999 3\n"), Some(7999));
    for odd in [&b""[..], b"5000", b"5000 x 3", b"\xff 5 6", b"5000 -1 3", b"5 18446744073709551616 3"] {
        assert_eq!(run_delay_ns(odd), None, "{odd:?}");
    }
}

#[test]
fn of_two_threads_on_one_core_each_is_without_it_for_a_while() {
    let account = std::fs::read_to_string("/proc/thread-self/schedstat");
    if !account.is_ok_and(|text| !text.starts_with("0 0 0")) {
        return eprintln!("SKIPPED: this kernel keeps no account of who waits for a core");
    }
    let core = core_affinity::get_core_ids().unwrap()[0];
    let start = Arc::new(std::sync::Barrier::new(2));
    let spin = move || {
        core_affinity::set_for_current(core);
        let ring = ring();
        start.wait();
        let before_ns = ring.as_ref().map_or(0, Ring::without_core_ns);
        let until = Instant::now() + Duration::from_millis(100);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        ring.map(|ring| ring.without_core_ns() - before_ns)
    };
    let threads = [std::thread::spawn(spin.clone()), std::thread::spawn(spin)];
    for without_ns in threads.map(|thread| thread.join().unwrap()).into_iter().flatten() {
        assert!(without_ns > 0, "both had the core all the time");
    }
}

/// Thaws as soon as `done` is, or the thread waits for the disk, and has for longer than a disk that is not slow lets it.
fn thaw_after(freezer: &Freezer, thread: rustix::thread::Pid, done: &AtomicBool) {
    let stat = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    let waits = || std::fs::read_to_string(&stat).unwrap().rsplit_once(") ").unwrap().1.starts_with('D');
    while !done.load(Ordering::Acquire) && !waits() {
        std::thread::yield_now();
    }
    std::thread::park_timeout(Duration::from_millis(10 * SLOW_WRITE_MS));
    assert!(freezer.thaw());
}

/// Trigger: a disk lets those wait who write to it through the page cache. Damage: with the worker all its sessions waited, and took 20
/// times as long. Cure: the ring writes first, and for a while again when somebody had to wait.
#[test]
fn a_disk_that_lets_writers_wait_holds_up_nobody_else() {
    let Some(mut ring) = ring() else { return };
    let Some(freezer) = Freezer::new() else {
        return eprintln!("SKIPPED: {}", Freezer::NEEDS);
    };
    let (kept, held) = file(&freezer.disk, &[0; 4096]);
    let id = open(&mut ring, &held, Access::Update, Mode::Buffered).unwrap();
    let push = |ring: &mut Ring, content: &[u8; 4]| {
        let data = shared(ring, Pool::Small, content);
        let (thread, done) = (rustix::thread::gettid(), AtomicBool::new(false));
        assert!(freezer.freeze());
        let was_done_at_once = std::thread::scope(|scope| {
            scope.spawn(|| thaw_after(&freezer, thread, &done));
            ring.push(
                Tag { owner: 2, about: 0 },
                Operation::Write { file: id, offset: 0, part: part(data, 0..4), how: Writing::AtOnce },
            );
            let turned = ring.turn(0);
            done.store(true, Ordering::Release);
            turned.unwrap();
            !ring.done.is_empty()
        });
        assert_eq!(finish(ring).result, Ok(4));
        let mut written = [0; 4];
        kept.read_exact_at(&mut written, 0).unwrap();
        assert_eq!(&written, content);
        was_done_at_once
    };
    assert!(!push(&mut ring, b"hung"), "nobody knew whether it answers");
    assert!(push(&mut ring, b"once"), "it had answered");
    assert!(!push(&mut ring, b"more"), "it was waited for again");
    ring.close(id);
}

/// Trigger: a new file is written past the page cache, and each run had room set aside for it by a plain call, which waits for
/// the file system's journal. Damage: with the worker all its sessions waited.
#[test]
fn a_disk_that_lets_those_wait_who_set_room_aside_holds_up_nobody_either() {
    let Some(mut ring) = ring() else { return };
    let Some(freezer) = Freezer::new() else {
        return eprintln!("SKIPPED: {}", Freezer::NEEDS);
    };
    let (_kept, held) = file(&freezer.disk, b"");
    let Some(id) = open(&mut ring, &held, Access::Update, Mode::Direct) else { return };
    let push = |ring: &mut Ring, offset: u64| {
        let part = part(shared(ring, Pool::Small, &pattern(5000)), 0..5000);
        ring.push(
            Tag { owner: 2, about: 0 },
            Operation::Write { file: id, offset, part, how: Writing::MeanwhileWithRoom },
        );
        ring.turn(0).unwrap();
    };
    assert!(freezer.freeze());
    push(&mut ring, 1 << 20);
    assert!(ring.pop().is_none());
    assert!(freezer.thaw());
    assert_eq!(finish(&mut ring).result, Ok(5000));
    assert_eq!(read(&mut ring, id, 1 << 20, 5000).unwrap(), pattern(5000));

    let filler = tempfile::tempfile_in(&freezer.disk).unwrap();
    while filler.try_clone().unwrap().write(&[7; 4096]).is_ok() {}
    push(&mut ring, 4 << 20);
    assert_eq!(finish(&mut ring).result, Err(Errno::NO_SPACE));
    ring.close(id);
}

/// Trigger: a hole is made on a disk that hangs. Damage: as above.
#[test]
fn a_disk_that_lets_those_wait_who_make_holes_holds_up_nobody_either() {
    let Some(mut ring) = ring() else { return };
    let Some(freezer) = Freezer::new() else {
        return eprintln!("SKIPPED: {}", Freezer::NEEDS);
    };
    let (_kept, held) = file(&freezer.disk, &pattern(64 << 10));
    let id = open(&mut ring, &held, Access::Update, Mode::Buffered).unwrap();
    assert!(freezer.freeze());
    ring.push(Tag { owner: 2, about: 0 }, Operation::Punch { file: id, offset: 4096, bytes: 8192 });
    ring.turn(0).unwrap();
    assert!(ring.pop().is_none());
    assert!(freezer.thaw());
    assert_eq!(finish(&mut ring).result, Ok(0));
    assert_eq!(ring.next_hole(id, 0), Ok(Some((4096, 3 * 4096))));
    ring.close(id);
}

#[test]
fn zeros_are_written_where_holes_are_refused() {
    let Some(mut ring) = ring() else { return };
    for mode in [Mode::Buffered, Mode::Direct] {
        let (kept, held) = file(&directories()[1], &vec![7; 300 << 10]);
        let Some(id) = open(&mut ring, &held, Access::Update, mode) else { continue };
        for (offset, bytes) in [(8 << 10, 200 << 10), (256 << 10, (44 << 10) - 5)] {
            let descriptor = ring.files.at(id.0).descriptor.as_raw_fd();
            let operation = Operation::Punch { file: id, offset, bytes };
            *ring.users(&operation) += 1;
            let punch = ring.in_flight.insert(Tag { owner: 2, about: 0 }, operation, descriptor, mode == Mode::Direct);
            // What file systems say that have no holes.
            let zeros = ring.in_flight.go_on(punch.get_user_data(), -libc::EOPNOTSUPP).unwrap();
            ring.post(&zeros).unwrap();
            assert_eq!(finish(&mut ring).result, Ok(0));
        }
        let mut bytes = vec![1; 300 << 10];
        kept.read_exact_at(&mut bytes, 0).unwrap();
        let first_zeros = (8 << 10)..(208 << 10);
        for (at, byte) in bytes.iter().enumerate().take((300 << 10) - 5) {
            assert_eq!(*byte == 0, first_zeros.contains(&at) || at >= 256 << 10, "{at} in {mode:?}");
        }
        assert_eq!(kept.metadata().unwrap().len(), 300 << 10);
        ring.close(id);
    }
}

#[test]
fn a_hole_that_is_neither_made_nor_written_is_an_error() {
    for (said, want) in [
        (&[-libc::ENOSPC][..], -libc::ENOSPC),
        (&[-libc::EOPNOTSUPP, -libc::ENOSPC], -libc::ENOSPC),
        (&[-libc::ENOSYS, 4096, 0], -libc::EIO),
        (&[-libc::EOPNOTSUPP, 4096, 4096], 0),
        (&[0], 0),
    ] {
        let mut in_flight = InFlight::with_capacity(1);
        let punch = Operation::Punch { file: FileId(0), offset: 0, bytes: 8192 };
        let _fallocate = in_flight.insert(Tag { owner: 2, about: 0 }, punch, -1, false);
        let (last, before) = said.split_last().unwrap();
        assert!(before.iter().all(|said| in_flight.go_on(0, *said).is_ok()), "{said:?}");
        assert_eq!(in_flight.go_on(0, *last).err(), Some(want), "{said:?}");
    }
}

#[test]
fn only_what_a_write_would_fail_with_as_well_fails_where_room_is_set_aside() {
    let Some(mut ring) = ring() else { return };
    for (error, goes_on) in [
        (0, true),
        (-libc::EOPNOTSUPP, true),
        (-libc::EPERM, true),
        (-libc::ENOSPC, false),
        (-libc::EDQUOT, false),
        (-libc::EFBIG, false),
        (-libc::EIO, false),
    ] {
        let data = shared(&mut ring, Pool::Small, b"text");
        let write =
            Operation::Write { file: FileId(0), offset: 0, part: part(data, 0..4), how: Writing::MeanwhileWithRoom };
        let mut in_flight = InFlight::with_capacity(1);
        let _fallocate = in_flight.insert(Tag { owner: 2, about: 0 }, write, -1, true);
        assert_eq!(in_flight.go_on(0, error).is_ok(), goes_on, "{error}");
        assert!(!goes_on || in_flight.go_on(0, 4).err() == Some(4), "it was written");
        assert_eq!(in_flight.remove(0, 4).result, Ok(4));
    }
}

#[test]
fn a_disk_that_is_fast_again_is_written_to_at_once_again() {
    let Some(mut ring) = ring() else { return };
    let (_kept, held) = file(&directories()[1], b"");
    let id = open(&mut ring, &held, Access::Update, Mode::Buffered).unwrap();
    ring.files.at_mut(id.0).answers = true;
    for (slow_for, is_done_at_once) in [(Duration::from_secs(3600), false), (Duration::ZERO, true)] {
        ring.files.at_mut(id.0).slow_until = Some(Instant::now() + slow_for);
        let data = shared(&mut ring, Pool::Small, b"text");
        ring.push(
            Tag { owner: 2, about: 0 },
            Operation::Write { file: id, offset: 0, part: part(data, 0..4), how: Writing::AtOnce },
        );
        assert_eq!(!ring.done.is_empty(), is_done_at_once);
        assert_eq!(finish(&mut ring).result, Ok(4));
    }
    ring.close(id);
}
