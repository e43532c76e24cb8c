//! Every bound and protocol constant, with the reason for its number.
//!
//! A number that leans on another one is checked here, at compile time. Nothing in this file is negotiable by a peer:
//! what a peer may lower says so.

/// Smallest block. BLAKE3 starves its vector lanes below (2.7 GB/s a core at 4 KiB, 5.8 at 16), and direct I/O wants it.
pub const BLOCK_BYTES_MIN: u32 = 4 << 10;
/// Largest block: one block must fit the payload of one data frame.
pub const BLOCK_BYTES_MAX: u32 = 1 << 20;
/// An InnoDB page. In 64 KiB blocks a real table with 5,000 changed rows moves 2.6 times as much.
pub const BLOCK_BYTES_DEFAULT: u32 = 16 << 10;

/// One stripe where every connection has a worker of its own. Long enough to read sequentially, short enough to share.
pub const STRIPE_BYTES_MAX: u64 = 32 << 20;
/// Stripes are never shorter: below, a `Want` and a digest would cost as much as the work between them.
pub const STRIPE_BYTES_MIN: u64 = 1 << 20;
/// A file should have this many stripes for each connection. What is open when the cursor has no more stays where it is,
/// also where another connection is faster, as with TCP they always are: [`STRIPES_OPEN_MAX`] of these, a tenth. With 4
/// the last tenth of a gigabyte took 2 s on a path of 50 ms and 1 Gbit/s, with 32 it takes 1 s.
pub const STRIPES_PER_CONNECTION_WANTED: u64 = 32;
/// Open stripes on a connection: one being signed, two awaiting data, digest or writes. With one, every stripe would cost
/// a round trip.
pub const STRIPES_OPEN_MAX: usize = 3;

/// Stripes that a connection within one kernel takes before the next one has its turn: where one is followed by another, what
/// both have on their way is more than the caches hold. With 4 instead of 16 a copy over 16 connections takes 4 % longer.
pub const STRIPES_A_TURN: usize = 16;

/// Connections of one session. More than some 30 never helped anyone (wdt, mscp); 128 leaves room to try.
pub const CONNECTIONS_MAX: u32 = 128;
/// Connections when nobody asked for a number.
pub const CONNECTIONS_DEFAULT_MAX: u32 = 32;
/// Workers of one process when nobody asked for a number; above, memory bandwidth is the limit anyway.
pub const WORKERS_DEFAULT_MAX: u32 = 16;
/// Workers of one process that can be asked for.
pub const WORKERS_MAX: u32 = 256;

/// Cores that can be named (`--cpus`): as many as a `cpu_set_t` holds.
pub const CPUS_MAX: usize = 1024;
/// Symbolic links followed on the way to a target (Linux' own limit).
pub const SYMLINKS_MAX: usize = 40;
/// How often a path is walked because somebody renamed something meanwhile: the first half by the kernel, the rest by hand.
/// Guessed: who renames without pause wins some of them, not all.
pub const RESOLVE_TRIES_MAX: usize = 64;
/// Directories below each other that are walked by hand, where the kernel does not resolve for us: each is a descriptor.
pub const WALK_DEPTH_MAX: usize = 128;

/// A file's length. The kernel's offsets are signed.
pub const FILE_BYTES_MAX: u64 = i64::MAX.unsigned_abs();

/// Bytes of one payload: what one RECV brings, and what one block at most needs.
pub const PAYLOAD_BYTES_MAX: u32 = 1 << 20;
/// Pieces of one data frame: as many 16 KiB blocks as a payload holds.
pub const PIECES_MAX: usize = 64;
/// Runs of one `Holes` or `Differs` frame. Guessed: a frame of them stays well below one signature frame.
pub const RUNS_MAX: usize = 128;
/// Signatures of one frame: 8 MiB of 16 KiB blocks; a stripe needs few, and a frame stays small enough to interleave.
pub const SIGNATURES_MAX: usize = 512;
/// Behind a stripe of which one block in so many differed, the next one is compared by heads, if they are in memory. Both ends
/// on two cores: everything changed takes 0.78 of the time, half 0.87, 30 % 0.92 and 20 % 0.96. At 10 % it gains nothing.
pub const HEADS_ONE_IN: u64 = 8;
/// Signatures are sent when they stand for this many bytes of the basis, or the stripe ends: a frame for each extent costs
/// a wake-up of the peer each, and the peer holds what it has read meanwhile.
pub const SIGNATURE_BATCH_BYTES: u32 = 1 << 20;

/// Bytes of an authentication tag: AES-256-GCM's and ChaCha20-Poly1305's.
pub const TAG_LEN: usize = 16;
/// What a stranger may send before TLS says who he is: a ClientHello with a key exchange of today is 1.6 KB, a key and its
/// proof a quarter of that.
pub const STRANGER_BYTES_MAX: u64 = 4 << 10;
/// What is still read of a control connection on which nothing is looked at any more, in all.
pub const DISCARDED_BYTES_MAX: usize = 256 << 10;
/// For each word of two neighbours: they share a kernel.
pub const NEIGHBOUR_MS: u64 = 500;
/// Bytes of a server's challenge to a connection.
pub const CHALLENGE_LEN: usize = 32;
/// Bytes of a proof that a connection belongs to its session.
pub const PROOF_LEN: usize = 32;
/// Bytes sealed with one key. AES-GCM with counted nonces bears far more; QUIC and TLS change earlier for less reason.
pub const KEY_BYTES_MAX: u64 = 64 << 30;
/// Parts of one send: IOV_MAX, what `sendmsg` takes at once. A data frame has its head and [`PIECES_MAX`] pieces.
pub const SEND_PARTS_MAX: usize = 1024;
/// Parts of one send in truth: the pieces of two data frames, and frames between them. More would wait for each other's pieces.
pub const LINE_PARTS_MAX: usize = 2 * PIECES_MAX + 8;
/// Direct I/O: offsets, lengths and addresses are multiples of this, which every file system and disk we know accepts.
pub const DIRECT_ALIGNMENT: u32 = 4096;
/// Files of one worker whose descriptions its ring holds as well, so that locks outlast a killed process' last writes:
/// source and target of each session, each perhaps opened twice. More can be open; they are just not held so.
pub const FILES_REGISTERED_MAX: u32 = 64;
/// The fixed front of every frame on a data connection.
pub const HEADER_LEN: usize = 16;
/// One entry of a data frame's table: first block, count, tag.
pub const PIECE_LEN: usize = 8 + 4 + TAG_LEN;
/// One run of a `Holes` or `Differs` frame.
pub const RUN_LEN: usize = 8 + 4;
/// One signature.
pub const SIGNATURE_LEN: usize = 8;
/// Bytes of a block's head: one line of the cache, where page formats of databases have their checksum or sequence number.
pub const HEAD_BYTES: usize = 64;
/// One digest.
pub const DIGEST_LEN: usize = 32;
/// Longest frame without its payload.
pub const FRAME_LEN_MAX: usize = HEADER_LEN + 8 + SIGNATURES_MAX * SIGNATURE_LEN + TAG_LEN;

/// A control message without its length. Welcome names up to [`WORKERS_MAX`] cores; everything else is shorter.
pub const MESSAGE_LEN_MAX: u32 = 16 << 10;
/// Bytes of a path that goes over the wire (Linux' PATH_MAX).
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes of one name in a directory (Linux' NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a text that explains a failure; longer ones are cut by their sender.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Connections to a server that have not said who they are. A client's data connections come all at once, and some hundred
/// clients together on two cores need a second or so each; where more come, the oldest go, as who means well is done in
/// no time. Each holds two descriptors or three.
pub const STRANGERS_MAX: usize = 1024;
/// Connections that wait to be accepted: some clients' data connections, which come at once.
pub const BACKLOG: i32 = 8 * CONNECTIONS_MAX.cast_signed();
/// Addresses that are remembered because somebody there failed to prove who he is. Guessed; who ends first is forgotten first.
pub const PENALTIES_MAX: usize = 4096;
/// What the next connection from there waits for its greeting, doubled with each failure. Guessed: a person with the wrong
/// key hardly feels it.
pub const PENALTY_MS_MIN: u64 = 250;
/// See [`PENALTY_MS_MIN`].
pub const PENALTY_MS_MAX: u64 = 5_000;
/// Without a failure for so long, the next one is the first again.
pub const PENALTY_FORGOTTEN_MS: u64 = 60_000;

// --- keys ---

/// Keys of one key file: the one in use, and old ones while all hosts learn the new one.
pub const KEYS_MAX: usize = 16;
/// A key file: its keys with as much comment as anybody may want. Guessed.
pub const KEY_FILE_BYTES_MAX: usize = 16 << 10;
/// A list of keys (`authorized_keys`, `known_servers`): some thousands. It is read at every start, so it is bounded.
pub const KEY_LIST_BYTES_MAX: usize = 1 << 20;

// --- buffers of one worker, all taken at start ---

/// Buffer for small frames, one for each direction of a connection.
pub const FRAME_BUFFER_BYTES: usize = 8 << 10;
/// Small frames of all connections of one worker.
pub const FRAME_BUFFERS: usize = 512;
/// Connections of one worker.
pub const CONNECTIONS_PER_WORKER_MAX: u32 = 256;
/// An extent read through the page cache: some of them fit a core's L2 cache (3.5 GB/s a core with 64 KiB, 2.7 with 1 MiB).
/// With 128 KiB, and signatures for twice as much in a frame, equal files took 8 % less time than with 64.
pub const SMALL_BUFFER_BYTES: usize = 128 << 10;
/// See [`SMALL_BUFFER_BYTES`].
pub const SMALL_BUFFERS: usize = 32;
/// Extents of a file, read through the page cache, that one connection may have read and not hashed: what is hashed soon is
/// still in the core's cache. A file in memory has one, and one past the page cache as many as there are buffers.
pub const BUFFERED_READS_MAX: usize = 4;
/// An extent read past the page cache, or one block larger than [`SMALL_BUFFER_BYTES`].
pub const LARGE_BUFFER_BYTES: usize = 1 << 20;
/// See [`LARGE_BUFFER_BYTES`].
pub const LARGE_BUFFERS: usize = 8;
/// Payloads being received, hashed and written; every session has one set aside.
pub const PAYLOAD_BUFFERS: usize = 16;
/// All of these.
pub const WORKER_BUFFER_BYTES: usize = FRAME_BUFFERS * FRAME_BUFFER_BYTES
    + SMALL_BUFFERS * SMALL_BUFFER_BYTES
    + LARGE_BUFFERS * LARGE_BUFFER_BYTES
    + PAYLOAD_BUFFERS * PAYLOAD_BYTES_MAX as usize;
/// What a session sets aside on each worker it uses: one payload ...
pub const SESSION_PAYLOADS_MIN: usize = 1;
/// ... and two extents that hold at least a block. Everything beyond comes from the shared rest, of which it never holds
/// more than half.
pub const SESSION_EXTENTS_MIN: usize = 2;

/// Bytes hashed before a worker looks at its completions again, so that the disk never runs dry.
pub const HASH_QUANTUM_BYTES: u32 = 512 << 10;

// --- benchmark ---

/// Levels of one benchmark: a percent each.
pub const BENCHMARK_LEVELS_MAX: u32 = 100;
/// What a benchmark mutates at once: as pdiffcopy does, and as changes to large files often lie.
pub const MUTATION_BYTES_MAX: u32 = 1 << 20;
/// Pieces that a target should have, so that a percent is at least one. Shorter files are mutated in shorter pieces.
pub const MUTATION_PIECES_WANTED: u64 = 100;
/// Bytes that show whether source and target are one file. One would do, if nobody ever read what was there before from a
/// cache or wrote it there again; more would cost more where a benchmark is killed with them in place. Guessed.
pub const PROBE_PLACES_MAX: u64 = 16;
/// An answer to yes or no, and then some.
pub const ANSWER_BYTES_MAX: u64 = 256;

/// What a socket may queue where both ends are on one host; the kernel doubles it. Everything sent, both ends on two cores:
/// 1.40 s with the kernel's own choice, 1.02 with 150 KiB, 1.08 with 256 or 400; a first copy takes 4 % less with 128 KiB
/// than with 192. With 32 KiB there is room for one segment of loopback, and each waits for a delayed acknowledgement.
pub const LOCAL_SEND_BUFFER_BYTES: usize = 128 << 10;

/// Turns on end in which a connection lets another worker write before it sleeps until that one is done: a turn with nothing
/// to do is some microseconds, less than waking up late costs. With 4 a first copy with both ends local takes 0.72 s instead
/// of 0.64 and more CPU time; with 256 it takes as long, over 16 connections 3 % longer; with no end it takes 0.62, but twice
/// as long where workers share cores. Between two processes 1 to 1,024 differ by less than can be seen.
pub const OUTWRITTEN_TURNS_MAX: u32 = 64;

/// A plain write through the page cache that took so long had to wait for the disk, or for a core: one of a payload takes 0.1 to
/// 0.3 ms.
pub const SLOW_WRITE_MS: u64 = 10;
/// For so many times as long as it took, writes to that file are given to the ring, which has a thread of the kernel's wait.
/// That costs a third of the rate where nothing has to be waited for (7.1 GB/s a core instead of 11.2).
pub const SLOW_WRITE_REST: u32 = 64;

// --- operations of one worker ---

/// Submission queue of a worker's ring. Full means: submit, then go on.
pub const SUBMISSIONS: u32 = 256;
/// Operations in flight at most: reads, writes (a payload or a held extent may be written in pieces), 2 a receive and
/// 2 a send for each small-frame pair, a hole for each connection, the wake-up and cancels.
pub const OPERATIONS_MAX: usize = SMALL_BUFFERS
    + LARGE_BUFFERS
    + (PAYLOAD_BUFFERS + LARGE_BUFFERS + SMALL_BUFFERS) * PIECES_MAX
    + 2 * FRAME_BUFFERS
    + CONNECTIONS_PER_WORKER_MAX as usize
    + 2;
/// Completion queue: one slot for each operation in flight, so that nothing is ever lost by overflow.
pub const COMPLETIONS: u32 = 8192;
/// Sessions of one worker; each sets aside at least one payload.
pub const SESSIONS_MAX: usize = PAYLOAD_BUFFERS;

// --- time ---

/// From accept to Hello or Join complete.
pub const HELLO_MS: u64 = 10_000;
/// From connect to Welcome: the server may wait [`LOCK_MS`] for the end of a session that is dialled again, and once more for
/// the target's lock, before it answers.
pub const WELCOME_MS: u64 = 30_000;
/// To reach the server at all, by whichever of its addresses.
pub const CONNECT_MS: u64 = 15_000;
/// A session starts with the connections that joined within this time.
pub const JOIN_MS: u64 = 10_000;
/// Whose minimum of buffers is in use when it comes waits this long for it. Among peers that read, milliseconds are enough.
pub const ADMISSION_MS: u64 = 1_000;
/// Trying to lock a target before it is called busy: a killed process' last writes may still hold it.
pub const LOCK_MS: u64 = 5_000;
/// Between two tries. Guessed: short against what a person notices, long against what a try costs, also where a hundred try.
pub const LOCK_RETRY_MS: u64 = 50;
/// Between two heartbeats, and between two looks at what goes on.
pub const HEARTBEAT_MS: u64 = 500;
/// Between two looks of control at a session: often enough for a progress bar.
pub const TICK_MS: u64 = 100;
/// How long a worker waits at most before it looks whether bytes move that it does not see.
pub const LOOK_MS: u64 = 1_000;
/// A worker that has not finished a turn for so long waits for a disk that does not answer, or has no core: it gets no more
/// sessions until it does.
pub const WORKER_SILENT_MS: u64 = 3 * LOOK_MS;
/// The same where control has no room for what it is to be told, and does not say when it has. Guessed.
pub const HELD_UP_MS: u64 = 10;
/// Between two cancels of what is still in flight when a ring is dropped: one may miss an operation that is just on its way
/// from one queue of the kernel's to another. Guessed.
pub const CANCEL_AGAIN_MS: u64 = 100;
/// Nothing moved, neither here nor there: the session is over.
pub const NO_PROGRESS_MS: u64 = 60_000;
/// Who loses a data connection waits this long for control's word before it blames the network.
pub const BLAME_MS: u64 = 5_000;
/// From Welcome to Begin: the client connects and joins meanwhile.
pub const BEGIN_MS: u64 = JOIN_MS + 10_000;
/// Who has said its last word waits this long for the other end to close.
pub const GOODBYE_MS: u64 = 5_000;
/// After a connection could not be accepted.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Before a session that was lost is dialled again: once, twice, three times. Guessed: a switch that restarts takes longer,
/// but who watches wants to know.
pub const REDIAL_PAUSES_MS: [u64; 3] = [1_000, 2_000, 4_000];
/// Before it is dialled yet again because the server says that it is busy, perhaps with what was lost.
pub const REDIAL_PAUSE_MS: u64 = 4_000;
/// For so long it may be: until the server has missed the lost session for certain, and somewhat more.
pub const HELD_MS: u64 = NO_PROGRESS_MS + 15_000;
/// What a server that is asked to stop gives to running sessions.
pub const GRACE_MS: u64 = 2_000;
/// Between two words about sessions to systemd, which is not to be kept busy with them. Guessed.
pub const STATUS_PAUSE_MS: u64 = 1_000;
/// Keepalive of every connection: idle, between probes, number of probes.
pub const KEEPALIVE_IDLE_S: u32 = 15;
/// See [`KEEPALIVE_IDLE_S`].
pub const KEEPALIVE_INTERVAL_S: u32 = 5;
/// See [`KEEPALIVE_IDLE_S`].
pub const KEEPALIVE_PROBES: u32 = 3;
/// How long the control connection's data may stay unacknowledged. Not for data connections: there it kills a socket whose
/// window is closed on purpose.
pub const TCP_USER_TIMEOUT_MS: u32 = 30_000;
/// A session of which a payload takes longer than this gets one buffer beyond its minimum, in which others of its own may
/// come, and no more.
pub const DRIBBLE_MS: u64 = 10_000;
/// A data connection that stands still while others of its session get on is given up when there are so many signs. A second
/// is one where the peer is to send or to take something, and two where it has sent a part of it, or its kernel does not
/// acknowledge. So after 20 s, when TCP's own tries are 13 s apart, or after 40: a source that reads a whole stripe in vain,
/// from a slow disk over many connections, takes some. The session itself is given up after [`NO_PROGRESS_MS`].
pub const STILL_SIGNS_MAX: u32 = 40;

/// Messages of one control connection that wait, in each direction. Two a second and a handful at the end are usual.
pub const MESSAGES_MAX: usize = 64;
/// What waits to be told and written by a server. What comes when there are so many is counted instead.
pub const TOLD_MAX: usize = 1024;
/// How long a server that stops waits for who reads its last lines.
pub const TELL_MS: u64 = 1_000;
/// Lines of callers who were not let in: so many at once ...
pub const REFUSED_LINES_BURST: u32 = 100;
/// ... then one in this time. At most 100,000 a day, some 30 MB.
pub const REFUSED_LINES_MS: u64 = 1_000;
/// Between two lines that say how many more there were.
pub const TELL_COUNTS_MS: u64 = 60_000;
/// Outcomes of one session on their way to control. A worker that finds the queue full holds them, takes no new stripe and
/// sends nothing.
pub const OUTCOMES_MAX: usize = 1024;
/// Cells of the map of what has changed: they fit a line of 80 columns with some words before them.
pub const CHANGES_CELLS_MAX: u64 = 64;
/// Jobs on their way to one worker.
pub const JOBS_MAX: usize = 1024;

const _: () = assert!(BLOCK_BYTES_MIN.is_power_of_two());
const _: () = assert!(MUTATION_BYTES_MAX >= BLOCK_BYTES_MAX, "a mutated piece is whole blocks");
const _: () = assert!(BLOCK_BYTES_MAX.is_power_of_two());
const _: () = assert!(BLOCK_BYTES_MAX <= PAYLOAD_BYTES_MAX, "a block must fit one payload");
const _: () = assert!(BLOCK_BYTES_MAX as u64 <= STRIPE_BYTES_MIN, "a stripe holds at least one block");
const _: () = assert!(BLOCK_BYTES_MAX as usize <= LARGE_BUFFER_BYTES, "an extent holds at least one block");
const _: () = assert!(HEADER_LEN + PIECES_MAX * PIECE_LEN <= FRAME_LEN_MAX, "a data frame's table must fit");
const _: () = assert!(HEADER_LEN + RUNS_MAX * RUN_LEN + TAG_LEN <= FRAME_LEN_MAX, "a frame of runs must fit");
const _: () = assert!(FRAME_LEN_MAX <= FRAME_BUFFER_BYTES, "the longest frame must fit the buffer it is received into");
const _: () = assert!(2 * CONNECTIONS_PER_WORKER_MAX as usize <= FRAME_BUFFERS, "a small frame in each direction");
const _: () = assert!(PENALTY_MS_MAX < HELLO_MS, "who waits for his greeting can still answer it");
const _: () = assert!(OPERATIONS_MAX <= COMPLETIONS as usize, "a completion must never be lost by overflow");
const _: () = assert!(
    (SIGNATURE_BATCH_BYTES / BLOCK_BYTES_MIN) as usize <= SIGNATURES_MAX,
    "a batch of signatures must fit one frame"
);
const _: () = assert!(SESSIONS_MAX * SESSION_EXTENTS_MIN <= SMALL_BUFFERS, "every session has its minimum");
const _: () = assert!(WORKER_BUFFER_BYTES <= 32 << 20, "what a worker may use");
const _: () = assert!(PIECES_MAX < LINE_PARTS_MAX, "a data frame, its head included, must fit one send");
const _: () = assert!(LINE_PARTS_MAX <= SEND_PARTS_MAX, "the kernel must take a send at once");
const _: () = assert!(SESSIONS_MAX * 4 <= FILES_REGISTERED_MAX as usize, "every file of a session is held");
const _: () = assert!(
    FRAME_BUFFER_BYTES.is_multiple_of(DIRECT_ALIGNMENT as usize)
        && SMALL_BUFFER_BYTES.is_multiple_of(DIRECT_ALIGNMENT as usize)
        && LARGE_BUFFER_BYTES.is_multiple_of(DIRECT_ALIGNMENT as usize)
        && PAYLOAD_BYTES_MAX.is_multiple_of(DIRECT_ALIGNMENT),
    "a length rounded up for direct I/O stays inside its buffer"
);
const _: () = assert!(2 * LOCK_MS < WELCOME_MS, "waiting for a lock must not look like silence");
