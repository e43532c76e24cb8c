//! A long path between two TUN devices: what one sends, the other gets late, no faster than the path's rate, and not at all
//! where the path's queue is full.
//!
//! It carries IP packets and ends no connection, so both ends see the round trip, the rate and the losses with their own
//! TCP. A packet leaves when those before it have left and its own bytes have passed at the path's rate, and arrives a
//! delay after that. One thread a direction: while packets come it looks a few thousand times a second and does all that
//! is due at once, since a wake-up for each of 83,000 packets a second would take the cores that are measured.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};
use tun_rs::SyncDevice;

/// What the path does to packets, in each direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// From the end of the queue to the other device.
    pub(super) delay: Duration,
    /// Of IP packets.
    pub(super) bits_per_second: u64,
    /// What waits for the rate; a packet that would wait longer is dropped.
    pub(super) queue: Duration,
}

/// The longest IP packet, as on an Ethernet.
pub(super) const MTU: usize = 1500;

/// Between two looks while packets come: a hundredth of the delay, and room for 17 packets at 1 Gbit/s.
const LOOK: Duration = Duration::from_micros(250);
/// Packets taken at one look, so that what is due is not kept waiting by a burst.
const TAKEN_MAX: usize = 512;
/// How long an idle direction sleeps at most before it looks whether it is to end.
const IDLE: Duration = Duration::from_millis(100);
/// Below any other process's: who shapes time must be on time, or what is measured is the scheduler.
const NICENESS: i32 = -20;

/// What passed in one direction.
#[derive(Debug, Default)]
struct Counts {
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    /// See [`Passed::late_max`].
    late_max_ns: AtomicU64,
}

/// What passed in one direction within some time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// The queue was full.
    pub(super) dropped: u64,
    /// The longest that a packet was kept beyond its time.
    pub(super) late_max: Duration,
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, bytes, dropped, late_max } = self;
        write!(f, "{packets} packets ({} MB), {dropped} dropped, up to {late_max:.1?} late", bytes / 1_000_000)
    }
}

/// The relay, at work until it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    ended: Arc<AtomicBool>,
    counts: [Arc<Counts>; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Carries packets between two devices, which are up.
    ///
    /// # Errors
    /// A device that cannot be made non-blocking.
    pub(super) fn start(near: SyncDevice, far: SyncDevice, shape: Shape) -> io::Result<Self> {
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        let (near, far) = (Arc::new(near), Arc::new(far));
        let ended = Arc::new(AtomicBool::new(false));
        let counts: [Arc<Counts>; 2] = Default::default();
        let ways = [(Arc::clone(&near), Arc::clone(&far)), (far, near)];
        let threads = ways.into_iter().zip(&counts).map(|((from, to), counts)| {
            let (ended, counts) = (Arc::clone(&ended), Arc::clone(counts));
            thread::spawn(move || carry(&from, &to, Line::new(shape), &counts, &ended))
        });
        let threads = threads.collect();
        Ok(Self { ended, counts, threads })
    }

    /// Since this was last asked: from near to far, and from far to near.
    pub(super) fn passed(&self) -> [Passed; 2] {
        self.counts.each_ref().map(|counts| Passed {
            packets: counts.packets.swap(0, Ordering::Relaxed),
            bytes: counts.bytes.swap(0, Ordering::Relaxed),
            dropped: counts.dropped.swap(0, Ordering::Relaxed),
            late_max: Duration::from_nanos(counts.late_max_ns.swap(0, Ordering::Relaxed)),
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            _ = thread.join();
        }
    }
}

/// One direction, to its end.
fn carry(from: &SyncDevice, to: &SyncDevice, mut line: Line, counts: &Counts, ended: &AtomicBool) {
    // Only root may, and only root gets here; if it is refused after all, `late_max` tells.
    _ = rustix::process::setpriority_process(None, NICENESS);
    let began = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        let now = began.elapsed();
        deliver(to, &mut line, now, counts);
        if take(from, &mut line, now, counts) {
            thread::sleep(LOOK);
        } else {
            let patience = line.first_due().map_or(IDLE, |due| due.saturating_sub(began.elapsed()));
            wait_for(from, patience);
        }
    }
}

/// Hands over what is due.
fn deliver(to: &SyncDevice, line: &mut Line, now: Duration, counts: &Counts) {
    while let Some((due, packet)) = line.due(now) {
        // A device that takes no packet drops it, as a network card would.
        match to.send(packet) {
            Ok(_) => {
                counts.packets.fetch_add(1, Ordering::Relaxed);
                counts.bytes.fetch_add(packet.len() as u64, Ordering::Relaxed);
            }
            Err(_) => drop(counts.dropped.fetch_add(1, Ordering::Relaxed)),
        }
        let late_ns = u64::try_from((now - due).as_nanos()).unwrap_or(u64::MAX);
        counts.late_max_ns.fetch_max(late_ns, Ordering::Relaxed);
        line.delivered();
    }
}

/// Takes what has come. Whether anything had.
fn take(from: &SyncDevice, line: &mut Line, now: Duration, counts: &Counts) -> bool {
    for taken in 0..TAKEN_MAX {
        // Also that a device is gone: its namespace ended before the relay, which then idles until it is dropped.
        let Ok(bytes) = from.recv(line.room()) else { return taken > 0 };
        if !line.enter(bytes, now) {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
    true
}

fn wait_for(device: &SyncDevice, patience: Duration) {
    let patience = Timespec::try_from(patience.min(IDLE)).expect("a tenth of a second");
    // An interrupted wait is only a short one.
    _ = poll(&mut [PollFd::new(device, PollFlags::IN)], Some(&patience));
}

/// The packets of one direction that are on their way, in memory taken at the start.
#[derive(Debug)]
struct Line {
    shape: Shape,
    /// When the last packet has passed the rate.
    departure: Duration,
    packets: VecDeque<Packet>,
    /// Packets one behind the other, each in one piece; the next one begins at `next`, where an MTU fits always.
    bytes: Box<[u8]>,
    next: usize,
}

#[derive(Debug)]
struct Packet {
    due: Duration,
    from: usize,
    bytes: usize,
}

impl Line {
    fn new(shape: Shape) -> Self {
        // Twice of what queue and delay hold at most: what is late needs room, too, and is dropped beyond that.
        let bytes = 2 * passes_bytes(shape, shape.queue + shape.delay) + 2 * MTU;
        // Twenty bytes is the shortest packet, forty that of a TCP connection.
        let packets = VecDeque::with_capacity(bytes / 40);
        Self { shape, departure: Duration::ZERO, packets, bytes: vec![0; bytes].into(), next: 0 }
    }

    /// Where the next packet is read to.
    fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.next..self.next + MTU]
    }

    /// The packet that was read to [`Self::room`] enters the queue, unless that is full.
    fn enter(&mut self, bytes: usize, now: Duration) -> bool {
        let passing = Duration::from_nanos(bytes as u64 * 8 * 1_000_000_000 / self.shape.bits_per_second);
        let departure = self.departure.max(now) + passing;
        let from = self.next;
        let next = if from + bytes + MTU <= self.bytes.len() { from + bytes } else { 0 };
        if departure > now + self.shape.queue || self.packets.len() == self.packets.capacity() || !self.is_free(next) {
            return false;
        }
        self.departure = departure;
        self.next = next;
        self.packets.push_back(Packet { due: departure + self.shape.delay, from, bytes });
        true
    }

    /// Whether a packet can be read to `next` without touching the oldest.
    fn is_free(&self, next: usize) -> bool {
        self.packets.front().is_none_or(|oldest| oldest.from < next || oldest.from >= next + MTU)
    }

    /// The first packet, if its time has come.
    fn due(&self, now: Duration) -> Option<(Duration, &[u8])> {
        let packet = self.packets.front().filter(|packet| packet.due <= now)?;
        Some((packet.due, &self.bytes[packet.from..packet.from + packet.bytes]))
    }

    fn delivered(&mut self) {
        self.packets.pop_front();
    }

    fn first_due(&self) -> Option<Duration> {
        self.packets.front().map(|packet| packet.due)
    }
}

fn passes_bytes(shape: Shape, time: Duration) -> usize {
    let bytes = u128::from(shape.bits_per_second) * time.as_nanos() / 8_000_000_000;
    usize::try_from(bytes).expect("a path is shorter than memory")
}
