//! Sessions in which one thing once went wrong, or would: what happens, what it damages, and what has to come of it.

use super::*;
use crate::limits::{LOOK_MS, NO_PROGRESS_MS, PAYLOAD_BUFFERS, SESSIONS_MAX, STRIPES_A_TURN};

/// Stripes for some turns of each connection. Also when one is cut, in its turn or not: the others have all of it in the end.
#[test]
fn connections_take_turns_and_whoever_is_lost_is_passed_over() {
    const STRIPES: usize = 4 * STRIPES_A_TURN;
    let source = Disk::new(vec![7; STRIPES * MIB]);
    let whole = Scenario { basis: Some(source.clone()), source, at_once: 1, rough: false, ..plain(3) };
    let report = run(&whole);
    judge(&whole, &report);
    let asked_most = report.asked_bytes[0];
    // The first one has two turns.
    assert!(
        report.asked_bytes[1..].iter().all(|asked| asked.abs_diff(asked_most / 2) < 200),
        "{:?}",
        report.asked_bytes
    );
    for connection in 0..3 {
        for after in [1, 3_000, asked_most / 2, asked_most * 3 / 4] {
            let cut = Scenario { fault: Fault::Cut { connection, after }, ..whole.clone() };
            let report = run(&cut);
            judge(&cut, &report);
            assert!(report.committed.is_some(), "connection {connection} after {after}: {:?}", report.ends);
        }
    }
}

/// Trigger: more connections than a session has buffers of a kind. Damage: whoever gave one back took it again, before those
/// who waited for one; these moved nothing until all else was done, and over a slow network were taken for dead. Cure: who
/// holds none and waits longest has the next.
#[test]
fn who_waits_for_a_buffer_comes_before_those_who_had_one() {
    const CONNECTIONS: usize = 14;
    const { assert!(CONNECTIONS > PAYLOAD_BUFFERS / 2 + 1, "more than a session alone may have") };
    let source = Disk::new(vec![7; 6 * CONNECTIONS * MIB]);
    let cipher = Some(Cipher::Aes256Gcm);
    for block_bytes in [16 << 10, 1 << 20] {
        for mode in [Mode::Buffered, Mode::Memory, Mode::Direct] {
            let block = BlockSize::checked(block_bytes).unwrap();
            let (source, modes) = (source.clone(), [mode; 2]);
            let scenario = Scenario { block, source, modes, cipher, rough: false, ..plain(CONNECTIONS) };
            let report = run(&scenario);
            judge(&scenario, &report);
            // All have three stripes open before any buffer is short.
            let least = *report.sent_bytes.iter().min().unwrap();
            assert!(least >= 4 * MIB as u64, "{mode:?}, {block_bytes}: {:?}", report.sent_bytes);
        }
    }
}

/// Trigger: as many connections that wait for an extent as there are, and those that have had one let go of it. Damage: they
/// let others go first, whom nobody told, and all stood still. Cure: whose turn it is is looked at when it can have what it wants.
#[test]
fn whose_turn_it_is_is_told_when_there_is_a_buffer() {
    let source = Disk::new(vec![7; 100 * MIB]);
    for connections in [18, 24, 40] {
        for mode in [Mode::Buffered, Mode::Memory, Mode::Direct] {
            for cipher in [None, Some(Cipher::Aes256Gcm)] {
                for basis in [None, Some(source.clone())] {
                    let (source, modes) = (source.clone(), [mode; 2]);
                    let scenario = Scenario { source, basis, modes, cipher, rough: false, ..plain(connections) };
                    let report = run(&scenario);
                    judge(&scenario, &report);
                    assert!(report.committed.is_some(), "{connections}, {mode:?}: {:?}", report.ends);
                }
            }
        }
    }
}

/// Trigger: one path of several is dead, and nobody says so. Damage: the stripes that were open there were never done, and the
/// session was given up after a minute, all else done. Cure: who stands still while the others get on is lost.
#[test]
fn what_a_connection_was_at_that_stands_still_the_others_do() {
    let source = Disk::new(content(&mut Dice(1), 24 * MIB));
    for whole_file in [true, false] {
        for cipher in [None, Some(Cipher::Aes256Gcm)] {
            for after in [1, 300, 70_000, 1_500_000, 5_000_000] {
                let fault = Fault::Stall { connection: 1, after };
                let (basis, source) = (Some(source.clone()), source.clone());
                let scenario = Scenario { basis, source, whole_file, cipher, fault, rough: false, ..plain(3) };
                let report = run(&scenario);
                judge(&scenario, &report);
                assert!(report.committed.is_some(), "{whole_file}, {after}: {:?}", report.ends);
            }
        }
    }
}

/// Trigger: somebody on the way puts the head of a data frame before what a target sends. Damage: a source does not expect any,
/// so it called the target a liar before it had tried a tag, and ended the session. Cure: it costs the connection.
#[test]
fn what_is_put_between_frames_costs_the_connection() {
    let source = Disk::new(content(&mut Dice(1), 6 * MIB));
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        for countdown in 0..12 {
            let (fault, source) = (Fault::Forge { countdown }, source.clone());
            let scenario = Scenario { source, cipher: Some(cipher), fault, rough: false, ..plain(3) };
            let report = run(&scenario);
            judge(&scenario, &report);
            assert!(report.happened && report.committed.is_some(), "{countdown}: {:?}", report.ends);
        }
    }
}

/// Trigger: all connections are closed, of which some await their turn. Damage: these were taken for done, so nobody missed
/// them, and the session stood still for a minute. Cure: a target that was not told to stop is never done.
#[test]
fn connections_that_are_closed_while_they_await_their_turn_are_missed() {
    let source = Disk::new(vec![7; 3 * STRIPES_A_TURN * MIB]);
    let fault = Fault::AllCut { after: 3_000 };
    let scenario = Scenario { basis: Some(source.clone()), source, at_once: 1, fault, rough: false, ..plain(3) };
    let report = run(&scenario);
    judge(&scenario, &report);
    let lost = |end: &Result<(), Failure>| end.as_ref().is_err_and(|failure| failure.kind == Kind::ConnectionLost);
    assert!(report.ends.iter().all(lost), "{:?}", report.ends);
}

/// Trigger: a connection has something to write before the target is marked, and others have their turn when it is. Damage:
/// only these were told, so the first one never wrote. Cure: all are.
#[test]
fn whoever_waits_to_write_is_told_also_when_it_is_not_his_turn() {
    let source = Disk::new(vec![7; (2 * STRIPES_A_TURN - 1) * MIB]); // the second one keeps its turn
    let mut basis = source.clone();
    basis.bytes[0] = 8;
    let plain = plain(2);
    let scenario = Scenario { basis: Some(basis), source, at_once: 1, mark_rounds: 20_000, rough: false, ..plain };
    let report = run(&scenario);
    judge(&scenario, &report);
    assert!(report.committed.is_some(), "{:?}", report.ends);
}

/// Trigger: a source's control is held up, and more stripes are finished than it can be told. Damage: the target said that it
/// has all, and was called a liar, as control had not heard of the last ones. Cure: nothing is sent before control can hear of it.
#[test]
fn a_source_whose_control_is_held_up_believes_the_target() {
    let source = Disk::new(vec![7; 8 * OUTCOMES_MAX * MIB]);
    for connections in 1..=4 {
        let (basis, source) = (Some(source.clone()), source.clone());
        let scenario = Scenario { basis, source, deaf_source: true, rough: false, ..plain(connections) };
        let report = run(&scenario);
        judge(&scenario, &report);
        assert!(report.committed.is_some(), "{connections}: {:?}", report.ends);
    }
}

/// Trigger: two sessions on one worker, and another worker wrote for one of them when this one had something to write.
/// Damage: it wrote when its worker had nothing else to do, which beside busy sessions may be never. Cure: it tries again
/// in each turn, and waits for the pen after some.
#[test]
fn who_could_not_write_does_so_although_others_keep_its_worker_busy() {
    const BUSY_BYTES: usize = 32 * MIB;
    let (wanted, busy) = (content(&mut Dice(1), 70_000), vec![7; BUSY_BYTES]);
    let mut disks = [wanted.clone(), Vec::new(), busy.clone(), busy].map(Disk::new);
    disks[1].may_change = true;
    let world = Rc::new(RefCell::new(World::new(1, disks.into(), 0, Fault::None, false)));
    let backend = Sim::new(&world);
    let (mailbox, inbox) = Mailbox::new(backend.waker());
    let mut worker = Worker::new(backend, inbox);
    let session = |disk: usize, bytes: usize, basis_bytes: u64| {
        let layout = Layout::checked(bytes as u64, BlockSize::default(), MIB as u64).unwrap();
        let (shared, outcomes) = SessionShared::new(layout.stripes(), OUTCOMES_MAX, Waker(Arc::new(|| {})));
        let mode = Mode::Buffered;
        let (source, target) = (file(disk, mode, bytes as u64), Some(file(disk + 1, mode, basis_bytes)));
        mailbox.post(Job::Start(Box::new(Start {
            key: SessionKey(disk as u64),
            shared: Arc::clone(&shared),
            terms: Terms { layout, method: Method::Blake3, basis_bytes, dry_run: false },
            ends: Ends::Both { source, sparse: false, target },
            sockets: Vec::new(),
            at_once: 1,
        })));
        (shared, outcomes)
    };
    let (writer, _outcomes) = session(0, wanted.len(), 0);
    let (reader, _outcomes_of_reader) = session(2, BUSY_BYTES, BUSY_BYTES as u64);
    writer.allow_writing();
    let pen = writer.pen.take(false).unwrap();
    while writer.counters.read(Counter::ReadBytes) == 0 {
        worker.turn(1).unwrap();
    }
    drop(pen);
    (0..3).for_each(|_| assert!(worker.turn(1).unwrap()));
    assert!(world.borrow().disks[1].bytes == wanted, "it was not written");
    assert!(reader.counters.read(Counter::MatchedBytes) < BUSY_BYTES as u64, "the other session is still there");
}

/// Trigger: a worker has no room for a session of which another worker has told more than control has heard. Damage: that it
/// had failed and ended was said to nobody, so the session, its target and its place were held until the server ended. Cure:
/// it is said when control listens.
#[test]
fn whose_session_has_no_room_says_so_although_control_is_behind() {
    let world = Rc::new(RefCell::new(World::new(1, vec![Disk::default()], 0, Fault::None, false)));
    let backend = Sim::new(&world);
    let (mailbox, inbox) = Mailbox::new(backend.waker());
    let mut worker = Worker::new(backend, inbox);
    let layout = Layout::checked(MIB as u64, BlockSize::default(), MIB as u64).unwrap();
    let mut inboxes = Vec::new();
    for key in 0..=SESSIONS_MAX as u64 {
        let (shared, outcomes) = SessionShared::new(1, OUTCOMES_MAX, Waker(Arc::new(|| {})));
        (0..OUTCOMES_MAX).for_each(|_| shared.tell(Outcome::WantsToWrite).unwrap());
        inboxes.push(outcomes);
        mailbox.post(Job::Start(Box::new(Start {
            key: SessionKey(key),
            shared,
            terms: Terms { layout, method: Method::Blake3, basis_bytes: 0, dry_run: false },
            ends: Ends::Source { file: file(0, Mode::Buffered, MIB as u64), sparse: false },
            sockets: Vec::new(),
            at_once: 1,
        })));
        worker.turn(1).unwrap();
    }
    let last = inboxes.last().unwrap();
    let mut heard = Vec::new();
    for _ in 0..2 * OUTCOMES_MAX {
        heard.extend(last.try_iter());
        worker.turn(1).unwrap();
    }
    assert!(matches!(heard[OUTCOMES_MAX..], [Outcome::Failed(WorkerError::Busy), Outcome::Ended]), "{heard:?}");
}

/// Trigger: what was copied is to be read back, and meanwhile others have taken all places of the worker. Damage: the copy ended as
/// 'busy' after everything was done. Cure: it waits for a place, and says meanwhile that it lives.
#[test]
fn what_is_to_be_read_back_waits_until_there_is_room() {
    let world = Rc::new(RefCell::new(World::new(1, vec![Disk::new(vec![7; MIB])], 0, Fault::None, false)));
    let backend = Sim::new(&world);
    let (mailbox, inbox) = Mailbox::new(backend.waker());
    let mut worker = Worker::new(backend, inbox);
    let layout = Layout::checked(MIB as u64, BlockSize::default(), MIB as u64).unwrap();
    let digest = Digest(*blake3::hash(&vec![7; MIB]).as_bytes());
    let source = Ends::Source { file: file(0, Mode::Buffered, MIB as u64), sparse: false };
    let read_back = Ends::ReadBack { file: file(0, Mode::Direct, MIB as u64), expected: [(0, digest)].into() };
    let mut start = |key: u64, ends: &Ends<(usize, Mode)>| {
        let (shared, outcomes) = SessionShared::new(1, OUTCOMES_MAX, Waker(Arc::new(|| {})));
        mailbox.post(Job::Start(Box::new(Start {
            key: SessionKey(key),
            shared: Arc::clone(&shared),
            terms: Terms { layout, method: Method::Blake3, basis_bytes: 0, dry_run: false },
            ends: ends.clone(),
            sockets: Vec::new(),
            at_once: 1,
        })));
        worker.turn(1).unwrap();
        (shared, outcomes)
    };
    let others: Vec<_> = (0..SESSIONS_MAX as u64).map(|key| start(key, &source)).collect();
    let (shared, outcomes) = start(99, &read_back);
    while world.borrow().now_ms < NO_PROGRESS_MS {
        let before = shared.counters.read(Counter::Progress);
        let later_ms = world.borrow().now_ms + 2 * LOOK_MS;
        while world.borrow().now_ms < later_ms {
            worker.turn(1).unwrap();
        }
        assert!(shared.counters.read(Counter::Progress) > before);
        assert!(outcomes.try_recv().is_err(), "it waits");
    }
    mailbox.post(Job::Stop(SessionKey(3)));
    (0..100).for_each(|_| assert!(worker.turn(1).unwrap()));
    assert!(matches!(outcomes.try_recv(), Ok(Outcome::ReadBack(0))));
    drop(others);
}

/// Trigger: both ends here, the source read ahead from a disk, the target in memory or the page cache, stripes of more than
/// a session may hold of it. Damage: the source's reads counted as the target's, which never got to read; the source held all
/// buffers, and both waited for ever. Cure: each end's reads are counted for themselves.
#[test]
fn both_ends_get_on_in_one_worker_however_each_is_read() {
    const BYTES: usize = 10 * MIB;
    let modes = [Mode::Buffered, Mode::Memory, Mode::Direct];
    let source = Disk::new(content(&mut Dice(1), BYTES));
    let mut changed = source.clone();
    (0..BYTES).step_by(MIB / 3).for_each(|at| changed.bytes[at] ^= 1);
    for modes in modes.into_iter().flat_map(|source| modes.map(|target| [source, target])) {
        for (block_bytes, rough) in [(4096, false), (16 << 10, false), (16 << 10, true), (MIB, false), (MIB, true)] {
            for basis in [&source, &changed] {
                let block = BlockSize::checked(u32::try_from(block_bytes).unwrap()).unwrap();
                let (source, basis) = (source.clone(), Some(basis.clone()));
                let (stripe_bytes, local) = (4 * MIB, true);
                let scenario = Scenario { block, stripe_bytes, source, basis, modes, local, rough, ..plain(1) };
                judge(&scenario, &run(&scenario));
            }
        }
    }
}

/// Trigger: a file system that takes its time to say where holes are. Damage: that was called hashing.
#[test]
fn who_looks_for_holes_waits_for_the_source_unless_it_is_memory() {
    const STRIPES: u64 = 4;
    for mode in [Mode::Buffered, Mode::Direct, Mode::Memory] {
        let disks = vec![Disk::new(vec![7; 4 * MIB]); 2];
        let world = Rc::new(RefCell::new(World::new(1, disks, 0, Fault::None, false)));
        let backend = Sim::new(&world);
        let (mailbox, inbox) = Mailbox::new(backend.waker());
        let mut worker = Worker::new(backend, inbox);
        let layout = Layout::checked(STRIPES * MIB as u64, BlockSize::default(), MIB as u64).unwrap();
        let (shared, outcomes) = SessionShared::new(layout.stripes(), OUTCOMES_MAX, Waker(Arc::new(|| {})));
        let bytes = layout.file_bytes();
        mailbox.post(Job::Start(Box::new(Start {
            key: SessionKey(0),
            shared: Arc::clone(&shared),
            terms: Terms { layout, method: Method::Blake3, basis_bytes: bytes, dry_run: false },
            ends: Ends::Both { source: file(0, mode, bytes), sparse: true, target: Some(file(1, mode, bytes)) },
            sockets: Vec::new(),
            at_once: 1,
        })));
        for _ in 0..10_000 {
            worker.turn(1).unwrap();
            while outcomes.try_recv().is_ok() {}
        }
        assert_eq!(shared.counters.read(Counter::MatchedBytes), bytes);
        let spent_ms = |counter| shared.counters.read(counter) / 1_000_000;
        let in_memory = mode == Mode::Memory;
        assert_eq!(spent_ms(Counter::SourceDiskNs) == 0, in_memory, "{mode:?}");
        assert_eq!(spent_ms(Counter::HashingNs), u64::from(in_memory), "{mode:?}");
    }
}
