//! One simulated session after another: control's part in small, and what has to hold whatever happens.

use super::{Dice, Disk, Fault, PAGE, POISON, Sim, World};
use crate::completion::{Completions, Mode, Waker};
use crate::counters::Counter;
use crate::digest::{Digest, hash_blocks};
use crate::extent::{BlockSize, Layout, Run};
use crate::failure::{Failure, Kind};
use crate::limits::CHALLENGE_LEN;
use crate::method::Method;
use crate::seal::{Cipher, SECRET_LEN, Secret, Side};
use crate::session::Terms;
use crate::session::course::{Action, Course, Event, Role, Start as CourseStart};
use crate::wire::{Beat, Committed, Message};
use crate::worker::inbox::{Ends, FileTerms, Job, Joined, Mailbox, Outcome, SessionKey, SessionShared, Start};
use crate::worker::{Worker, WorkerError};
use crossbeam_channel::Receiver;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

mod stories;

const MIB: usize = 1 << 20;
/// Rounds after which a run that has not ended never will: hundreds of times what the slowest needs.
const ROUNDS_MAX: usize = 400_000;
/// As few as possible, so that workers often have more to say than finds room: who cannot start says two things at once.
const OUTCOMES_MAX: usize = 2;

/// What one run is made of.
#[derive(Clone, Debug)]
struct Scenario {
    seed: u64,
    block: BlockSize,
    stripe_bytes: usize,
    source: Disk,
    /// `None`: there is no target yet.
    basis: Option<Disk>,
    /// How the source is read, and the target read and written.
    modes: [Mode; 2],
    connections: usize,
    workers: usize,
    /// Connections of a worker that take stripes at a time.
    at_once: usize,
    /// Rounds until the target is marked unfinished.
    mark_rounds: usize,
    /// The source's control is held up: it listens to its workers only when the target says something.
    deaf_source: bool,
    whole_file: bool,
    dry_run: bool,
    /// Both ends in one process, without a network.
    local: bool,
    /// What frames are sealed with, if they are.
    cipher: Option<Cipher>,
    verify: bool,
    method: Method,
    fault: Fault,
    rough: bool,
}

/// How a run ended.
#[derive(Debug)]
struct Report {
    /// How each side ended; the target's is the last.
    ends: Vec<Result<(), Failure>>,
    /// The target was made final, with this said of it.
    committed: Option<Committed>,
    target: Disk,
    digest: Option<Digest>,
    wire_bytes: u64,
    /// What each connection's source sent.
    sent_bytes: Vec<u64>,
    /// What each connection's target sent.
    asked_bytes: Vec<u64>,
    /// All that went over the network.
    heard: Vec<u8>,
    /// Heads that the target read.
    heads: u64,
    happened: bool,
    trace: u64,
}

/// One side's control: a course, its workers, and what it has to say to the other side.
struct End {
    course: Course,
    shared: Arc<SessionShared>,
    outcomes: Receiver<Outcome>,
    mailboxes: Vec<Mailbox<Sim>>,
    mark_rounds: usize,
    /// It listens to its workers only when the other side says something, until that is more than a beat.
    deaf: bool,
    /// Rounds until the target is marked, once that has begun.
    marking: Option<usize>,
    /// The session on the workers; another one while it reads back.
    key: SessionKey,
    terms: Terms,
    said: VecDeque<Message>,
    end: Option<Result<(), Failure>>,
    committed: Option<Committed>,
}

impl End {
    fn post(&self, job: fn(SessionKey) -> Job<Sim>) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.post(job(self.key)));
    }

    /// Gives the course what the workers said.
    fn listen(&mut self) {
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.course.handle(match outcome {
                Outcome::Stripe(finished) => Event::Stripe(finished),
                Outcome::ReadBack(stripe) => Event::ReadBack(stripe),
                Outcome::WantsToWrite => Event::WantsToWrite,
                Outcome::Lost { .. } => Event::Lost("cut".into()),
                Outcome::Failed(error) => Event::Failed(Failure::new(kind(error), error.to_string())),
                Outcome::Ended => Event::WorkerEnded,
            });
        }
    }

    /// Listens, unless control is kept from it, and does what the course asks for.
    fn act(&mut self, world: &RefCell<World>) {
        if !self.deaf && !world.borrow_mut().is_behind() {
            self.listen();
        }
        if let Some(rounds) = self.marking.take() {
            self.marking = rounds.checked_sub(1);
            if self.marking.is_none() {
                world.borrow_mut().disks[1].may_change = true;
                self.course.handle(Event::Marked);
            }
        }
        while let Some(action) = self.course.poll() {
            self.perform(action, world);
        }
    }

    fn perform(&mut self, action: Action, world: &RefCell<World>) {
        match action {
            Action::Send(message) => self.said.push_back(message),
            Action::Mark => self.marking = Some(self.mark_rounds),
            Action::AllowWriting => {
                self.shared.allow_writing();
                self.post(Job::Resume);
            }
            Action::Resume => self.post(Job::Resume),
            Action::StopWorkers => self.post(Job::Stop),
            Action::CheckSource => {
                let changed = world.borrow_mut().strikes(|fault| match fault {
                    Fault::Changes { countdown } => Some(countdown),
                    _ => None,
                });
                self.course.handle(if changed {
                    Event::Failed(Failure::new(Kind::SourceChanged, "changed while it was read"))
                } else {
                    Event::SourceUnchanged
                });
            }
            Action::ReadBack(stripes) => {
                let (shared, outcomes) = SessionShared::new(stripes.len() as u64, OUTCOMES_MAX, Waker(Arc::new(|| {})));
                self.key = SessionKey(self.key.0 + 1);
                let bytes = self.terms.layout.file_bytes();
                world.borrow_mut().disks[1].bytes.resize(usize::try_from(bytes).unwrap(), 0);
                let ends = Ends::ReadBack { file: file(1, Mode::Direct, bytes), expected: stripes.into() };
                for mailbox in &self.mailboxes {
                    mailbox.post(Job::Start(Box::new(Start {
                        key: self.key,
                        shared: Arc::clone(&shared),
                        terms: self.terms,
                        ends: ends.clone(),
                        sockets: Vec::new(),
                        at_once: 1,
                    })));
                }
                self.course.reading_back(u32::try_from(self.mailboxes.len()).unwrap());
                self.outcomes = outcomes;
            }
            Action::Commit { wrote } => {
                let mut world = world.borrow_mut();
                let bytes = usize::try_from(self.terms.layout.file_bytes()).unwrap();
                let changed = wrote || world.disks[1].bytes.len() != bytes;
                if !self.terms.dry_run {
                    world.disks[1].bytes.resize(bytes, 0);
                }
                let count = |counter| self.shared.counters.read(counter);
                let committed = Committed {
                    matched_bytes: count(Counter::MatchedBytes),
                    changed_bytes: count(Counter::ChangedBytes),
                    hole_bytes: count(Counter::HoleBytes),
                    changed_blocks: count(Counter::ChangedBlocks),
                    changed,
                    read_back: false,
                };
                self.committed = Some(committed);
                self.course.handle(Event::Committed(committed));
            }
            Action::End(result) => self.end = Some(result),
        }
    }

    fn tick(&mut self, now_ms: u64) {
        let count = |counter| self.shared.counters.read(counter);
        let beat = Beat { progress: count(Counter::Progress), ..Beat::default() };
        self.course.handle(Event::Tick { now_ms, beat, busy: false });
    }
}

fn kind(error: WorkerError) -> Kind {
    match error {
        WorkerError::Source(_) => Kind::Source,
        WorkerError::SourceShrank => Kind::SourceChanged,
        WorkerError::Target(_) | WorkerError::TargetShrank => Kind::Target,
        WorkerError::Protocol(_) => Kind::Protocol,
        WorkerError::Unequal(_) => Kind::Verification,
        WorkerError::Busy => Kind::Busy,
        WorkerError::Panic => Kind::Other,
    }
}

fn file(disk: usize, mode: Mode, bytes: u64) -> FileTerms<(usize, Mode)> {
    FileTerms { file: (disk, mode), bytes }
}

/// Both sides of a scenario with all their workers.
fn set_up(scenario: &Scenario, world: &Rc<RefCell<World>>) -> (Vec<End>, Vec<Worker<Sim>>) {
    let source_bytes = scenario.source.bytes.len() as u64;
    let basis_bytes = scenario.basis.as_ref().map_or(0, |basis| basis.bytes.len() as u64);
    let layout = Layout::checked(source_bytes, scenario.block, scenario.stripe_bytes as u64).unwrap();
    let compared = if scenario.whole_file { 0 } else { basis_bytes };
    let terms = Terms { layout, method: scenario.method, basis_bytes: compared, dry_run: scenario.dry_run };
    let source = file(0, scenario.modes[0], source_bytes);
    let target = (scenario.basis.is_some() || !scenario.dry_run).then(|| file(1, scenario.modes[1], basis_bytes));
    let sparse = scenario.source.data.iter().any(|data| !data);
    let ends: Vec<(Role, Ends<(usize, Mode)>)> = if scenario.local {
        vec![(Role::Both, Ends::Both { source, sparse, target })]
    } else {
        vec![(Role::Source, Ends::Source { file: source, sparse }), (Role::Target, Ends::Target { file: target })]
    };
    let connections = if scenario.local { 0 } else { scenario.connections };
    let mut workers = Vec::new();
    let mut sides = Vec::new();
    for (role, ends) in ends {
        let (shared, outcomes) = SessionShared::new(layout.stripes(), OUTCOMES_MAX, Waker(Arc::new(|| {})));
        let key = SessionKey(workers.len() as u64 * 10);
        let mut mailboxes = Vec::new();
        for worker in 0..scenario.workers {
            let sockets: Vec<Joined<usize>> = (0..connections)
                .filter(|number| number % scenario.workers == worker)
                .map(|index| {
                    let number = u32::try_from(index).unwrap();
                    let secret = Secret::new([7; SECRET_LEN]).connection(&[9; CHALLENGE_LEN], number);
                    let side = if role == Role::Target { Side::Server } else { Side::Client };
                    let seals = scenario.cipher.map(|cipher| secret.duplex(side, cipher));
                    Joined { number, socket: 2 * index + usize::from(role == Role::Target), seals }
                })
                .collect();
            if role != Role::Both && sockets.is_empty() {
                continue; // as control does
            }
            let backend = Sim::new(world);
            let (mailbox, inbox) = Mailbox::new(backend.waker());
            let shared = Arc::clone(&shared);
            let (ends, at_once) = (ends.clone(), scenario.at_once);
            mailbox.post(Job::Start(Box::new(Start { key, shared, terms, ends, sockets, at_once })));
            mailboxes.push(mailbox);
            workers.push(Worker::new(backend, inbox));
        }
        let start = CourseStart {
            role,
            layout,
            dry_run: scenario.dry_run,
            verify: scenario.verify,
            again: false,
            connections: u32::try_from(connections).unwrap(),
            workers: u32::try_from(mailboxes.len()).unwrap(),
            peer: b"peer".to_vec(),
            target: b"target".to_vec(),
            now_ms: 0,
        };
        let (said, course) = (VecDeque::new(), Course::new(start, false));
        let (mark_rounds, marking) = (scenario.mark_rounds, None);
        sides.push(End {
            course,
            shared,
            outcomes,
            mailboxes,
            mark_rounds,
            deaf: scenario.deaf_source && role == Role::Source,
            marking,
            key,
            terms,
            said,
            end: None,
            committed: None,
        });
    }
    (sides, workers)
}

/// Carries one message from each side to the other, or loses the control connection.
fn carry(sides: &mut [End], world: &RefCell<World>, control_lives: &mut bool) {
    let [source, target] = sides else { return };
    for (from, to) in [(0, 1), (1, 0)] {
        let (from, to) = if from < to { (&mut *source, &mut *target) } else { (&mut *target, &mut *source) };
        let Some(message) = from.said.pop_front() else { continue };
        let cut = world.borrow_mut().strikes(|fault| match fault {
            Fault::ControlCut { countdown } => Some(countdown),
            _ => None,
        });
        if cut {
            *control_lives = false;
        }
        if *control_lives {
            to.listen(); // what its workers said comes first
            to.deaf &= matches!(message, Message::Beat(_));
            to.course.handle(Event::Message(message));
        }
    }
}

fn run(scenario: &Scenario) -> Report {
    let disks = vec![scenario.source.clone(), scenario.basis.clone().unwrap_or_default()];
    let world = World::new(scenario.seed ^ 0x5eed, disks, scenario.connections, scenario.fault, scenario.rough);
    let world = Rc::new(RefCell::new(world));
    let (mut sides, mut workers) = set_up(scenario, &world);
    let mut outwritten = vec![false; workers.len()];
    let mut control_lives = true;
    let mut gone_told = false;
    for round in 0.. {
        assert!(round < ROUNDS_MAX, "it goes on for ever: {:?}", (scenario.seed, scenario.fault));
        let next = world.borrow_mut().dice.below(workers.len().max(1));
        if let Some(worker) = workers.get_mut(next) {
            // As if another worker wrote; never for long, since in the end a worker waits for it.
            outwritten[next] = !outwritten[next] && world.borrow_mut().dice.one_in(4);
            let target = Arc::clone(&sides.last().unwrap().shared);
            let _pen = outwritten[next].then(|| target.pen.take(false).unwrap());
            worker.turn(1).unwrap();
        }
        sides.iter_mut().for_each(|side| side.act(&world));
        carry(&mut sides, &world, &mut control_lives);
        // Whoever ends closes the control connection when the other has heard everything.
        let one_left = sides.iter().any(|side| side.end.is_some() && side.said.is_empty());
        if (!control_lives || one_left) && !gone_told {
            gone_told = true;
            for side in &mut sides {
                side.listen();
                side.course.handle(Event::PeerGone("closed".into()));
            }
        }
        let now_ms = world.borrow().now_ms;
        if round % 20 == 0 {
            sides.iter_mut().for_each(|side| side.tick(now_ms));
        }
        sides.iter_mut().for_each(|side| side.act(&world));
        if sides.iter().all(|side| side.end.is_some()) {
            break;
        }
    }
    workers.iter_mut().for_each(|worker| worker.assert_empty());
    let target = sides.last().unwrap();
    let mut world = world.borrow_mut();
    Report {
        committed: target.committed,
        digest: target.course.digest(),
        ends: sides.iter_mut().map(|side| side.end.take().unwrap()).collect(),
        wire_bytes: world.pipes.iter().map(|pipe| pipe.carried).sum(),
        sent_bytes: world.pipes.iter().skip(1).step_by(2).map(|pipe| pipe.carried).collect(),
        asked_bytes: world.pipes.iter().step_by(2).map(|pipe| pipe.carried).collect(),
        happened: world.happened,
        heard: std::mem::take(&mut world.heard),
        trace: world.trace,
        heads: world.heads,
        target: std::mem::take(&mut world.disks[1]),
    }
}

/// Content that differs everywhere, from one seed.
fn content(dice: &mut Dice, bytes: usize) -> Vec<u8> {
    let mut content: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(|_| dice.roll().to_le_bytes()).collect();
    content.truncate(bytes);
    content
}

/// A size around one of the boundaries, of blocks, extents, stripes.
fn size(dice: &mut Dice, block_bytes: usize) -> usize {
    let edges = [0, 1, 1024, PAGE, block_bytes, 2 * block_bytes, 64 << 10, MIB, 2 * MIB, 3 * MIB];
    let edge = edges[dice.below(edges.len())];
    match dice.below(4) {
        0 => edge.saturating_sub(1),
        1 => edge,
        2 => edge + 1,
        _ => dice.below(3 * MIB),
    }
}

/// A basis that shares something with the source, changed block by block here and there.
fn basis(dice: &mut Dice, source: &Disk) -> Disk {
    let mut bytes = source.bytes.clone();
    match dice.below(4) {
        0 => bytes.truncate(dice.below(bytes.len() + 1)),
        1 => bytes.extend(content(dice, 70_000)),
        _ => {}
    }
    let changes = [0, 1, 5, 300][dice.below(4)];
    for _ in 0..changes {
        if !bytes.is_empty() {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1;
        }
    }
    Disk::new(bytes)
}

fn make_holes(dice: &mut Dice, disk: &mut Disk) {
    let pages = disk.data.len();
    disk.may_change = true;
    if dice.one_in(3) {
        // A comb: each extent of data is short.
        let tooth = 1 + dice.below(8);
        (0..pages).step_by(2 * tooth).for_each(|from| disk.punch(from * PAGE, (from + tooth).min(pages) * PAGE));
    }
    for _ in 0..dice.below(6) {
        if pages > 0 {
            let from = dice.below(pages);
            let until = from + dice.below(pages - from + 1);
            disk.punch(from * PAGE, until * PAGE);
        }
    }
    disk.may_change = false;
    disk.writes = 0;
}

fn scenario(seed: u64) -> Scenario {
    let mut dice = Dice(seed);
    let block = BlockSize::checked(4096 << dice.below(9)).unwrap();
    let bytes = size(&mut dice, block.bytes() as usize);
    let mut source = Disk::new(content(&mut dice, bytes));
    if dice.one_in(3) {
        make_holes(&mut dice, &mut source);
    }
    let basis = (!dice.one_in(5)).then(|| basis(&mut dice, &source));
    // Half of them early, so that they strike in small files too.
    let countdown = |dice: &mut Dice| {
        let most = [3, 60][dice.below(2)];
        u32::try_from(dice.below(most)).unwrap()
    };
    let fault = match dice.below(16) {
        0 | 1 => Fault::ReadFails { disk: dice.below(2), countdown: countdown(&mut dice) },
        2 => Fault::WriteFails { countdown: countdown(&mut dice) },
        3 | 4 => Fault::Cut { connection: dice.below(2), after: 1 + dice.roll() % [300, 1_500_000][dice.below(2)] },
        5 => Fault::Flip { countdown: countdown(&mut dice) },
        6 => Fault::Shrinks { countdown: countdown(&mut dice) },
        7 => Fault::ControlCut { countdown: countdown(&mut dice) / 4 },
        8 => Fault::Changes { countdown: 0 },
        9 => Fault::AllCut { after: 1 + dice.roll() % [300, 1_500_000][dice.below(2)] },
        10 => Fault::Stall { connection: dice.below(2), after: 1 + dice.roll() % [300, 1_500_000][dice.below(2)] },
        _ => Fault::None,
    };
    let mut mode = || [Mode::Buffered, Mode::Memory, Mode::Direct][dice.below(3)];
    let modes = [mode(), mode()];
    Scenario {
        seed,
        block,
        stripe_bytes: MIB << dice.below(3),
        source,
        basis,
        modes,
        connections: 1 + dice.below(4),
        workers: 1 + dice.below(2),
        whole_file: dice.one_in(6),
        dry_run: dice.one_in(8),
        local: dice.one_in(5),
        cipher: [None, Some(Cipher::Aes256Gcm), Some(Cipher::ChaCha20Poly1305)][dice.below(3)],
        verify: dice.one_in(4),
        method: if dice.one_in(4) { Method::Xxh3 } else { Method::Blake3 },
        fault,
        rough: !dice.one_in(4),
        at_once: 1 + dice.below(4),
        mark_rounds: [0, 20, 500][dice.below(3)],
        deaf_source: false,
    }
}

/// What has to hold after any run.
fn judge(scenario: &Scenario, report: &Report) {
    let Scenario { source, basis, dry_run, .. } = scenario;
    let before = basis.clone().unwrap_or_default();
    if !report.happened {
        assert!(report.ends.iter().all(Result::is_ok), "without a fault it succeeds: {:?}", report.ends);
    }
    let blamed = |kind| report.ends.iter().any(|end| end.as_ref().is_err_and(|failure| failure.kind == kind));
    let honest = scenario.cipher.is_some() || !matches!(scenario.fault, Fault::Flip { .. } | Fault::Forge { .. });
    assert!(!(honest && blamed(Kind::Protocol)), "whoever changes bytes on the way makes no liar of the peer");
    assert!(!scenario.local || report.wire_bytes == 0, "both ends local: no wire");
    let poisoned = report.heard.chunks_exact(16).any(|bytes| bytes == [POISON; 16]);
    assert!(!poisoned, "what was in a buffer before is on the wire");
    if *dry_run {
        assert_eq!(report.target.writes, 0, "a dry run writes nothing");
        assert_eq!(report.target.bytes, before.bytes);
    }
    if report.ends.iter().any(Result::is_ok) {
        assert!(report.committed.is_some(), "nobody calls it done before it is");
    }
    let Some(committed) = report.committed else { return };
    let Committed { matched_bytes, changed_bytes, hole_bytes, .. } = committed;
    assert_eq!(matched_bytes + changed_bytes + hole_bytes, source.bytes.len() as u64);
    if !dry_run {
        assert!(report.target.bytes == source.bytes, "committed and not equal");
        assert_eq!(report.digest.unwrap().0, *blake3::hash(&source.bytes).as_bytes());
    }
    if !report.happened && !scenario.whole_file {
        let block_bytes = scenario.block.bytes() as usize;
        let mut blocks = source.bytes.chunks(block_bytes).zip(before.bytes.chunks(block_bytes));
        let equal = |(ours, theirs): (&[u8], &[u8])| if theirs.starts_with(ours) { ours.len() } else { 0 };
        let equal_bytes: usize = blocks.by_ref().map(equal).sum();
        assert_eq!(matched_bytes, equal_bytes as u64, "all that is equal stays, nothing else");
    }
    let equal = before.bytes.starts_with(&source.bytes) && basis.is_some() && !scenario.whole_file;
    if equal && !report.happened {
        assert_eq!(report.target.writes, 0, "what is equal is not written");
        assert_eq!(matched_bytes, source.bytes.len() as u64);
        let signatures = 8 * source.bytes.len().div_ceil(scenario.block.bytes() as usize) as u64;
        let stripes = source.bytes.len().div_ceil(scenario.stripe_bytes) as u64;
        assert!(report.wire_bytes <= signatures + stripes * 400, "an equal file costs its signatures");
    }
}

#[test]
fn whatever_happens_nothing_wrong_is_called_proven() {
    let seeds = std::env::var("PDCP_SIM_SEED").ok().map(|seed| seed.parse().unwrap());
    let (from, until) = seeds.map_or((0, 3000), |seed: u64| (seed, seed + 1));
    let mut happened = [0; 2];
    for seed in from..until {
        let scenario = scenario(seed);
        let report = std::panic::catch_unwind(|| run(&scenario));
        let report = report.unwrap_or_else(|_| panic!("PDCP_SIM_SEED={seed} runs it again"));
        let judged = std::panic::catch_unwind(|| judge(&scenario, &report));
        assert!(judged.is_ok(), "PDCP_SIM_SEED={seed} runs it again: {:?}", report.ends);
        happened[usize::from(report.happened)] += 1;
    }
    if seeds.is_none() {
        assert!(happened[0] > 500, "runs without a fault");
        assert!(happened[1] > 500, "runs in which a fault struck");
    }
}

/// A basis that differs from the source in another way in every MiB.
fn mixed(dice: &mut Dice, source: &Disk, block_bytes: usize) -> Disk {
    let mut bytes = source.bytes.clone();
    let mut way = 0;
    for part in bytes.chunks_mut(MIB) {
        if dice.one_in(2) {
            way = dice.below(6);
        }
        match way {
            0 => {}
            1 => part.chunks_mut(block_bytes).for_each(|block| *block.last_mut().unwrap() ^= 1), // no head tells
            2 => part.chunks_mut(block_bytes).step_by(3).for_each(|block| block[0] ^= 1),
            _ => part.fill(7),
        }
    }
    Disk::new(bytes)
}

/// Stripe after stripe of one connection, so that heads are looked at: nothing equal moves, all that is not does.
#[test]
fn where_most_differs_heads_decide_and_nothing_else_changes() {
    let mut runs_with_heads = 0;
    for seed in 0..120 {
        let dice = &mut Dice(!seed);
        let random = scenario(seed);
        let bytes = 4 * MIB + dice.below(5 * MIB);
        let mut source = Disk::new(content(dice, bytes));
        if dice.one_in(3) {
            make_holes(dice, &mut source);
        }
        let basis = Some(mixed(dice, &source, random.block.bytes() as usize));
        let (connections, stripe_bytes, local) = (1 + dice.below(2), MIB, false);
        let scenario = Scenario { source, basis, connections, stripe_bytes, local, whole_file: false, ..random };
        let report = std::panic::catch_unwind(|| run(&scenario));
        let report = report.unwrap_or_else(|_| panic!("seed {seed}"));
        let judged = std::panic::catch_unwind(|| judge(&scenario, &report));
        assert!(judged.is_ok(), "seed {seed}: {:?}", report.ends);
        runs_with_heads += u32::from(report.heads > 0);
    }
    assert!(runs_with_heads > 20, "{runs_with_heads}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..40 {
        let scenario = scenario(seed);
        assert_eq!(run(&scenario).trace, run(&scenario).trace);
    }
}

#[test]
fn what_is_sealed_does_not_show() {
    const WINDOW: usize = 16;
    for (cipher, shows) in [(None, true), (Some(Cipher::Aes256Gcm), false), (Some(Cipher::ChaCha20Poly1305), false)] {
        let mut dice = Dice(1);
        let source = Disk::new(content(&mut dice, MIB + 5));
        let mut basis = source.clone();
        basis.bytes[..300_000].fill(7);
        let fault = Fault::None;
        let layout = Layout::checked(source.bytes.len() as u64, BlockSize::default(), MIB as u64).unwrap();
        let blocks = basis.bytes.chunks(16 << 10);
        let digests: Vec<Digest> = blocks
            .zip(0..)
            .map(|(bytes, first)| {
                let mut digest = [Digest::default()];
                hash_blocks(&layout, Run { first, count: 1 }, bytes, &mut digest);
                digest[0]
            })
            .collect();
        let report = run(&Scenario { source: source.clone(), basis: Some(basis), cipher, fault, ..plain(2) });
        assert!(report.committed.is_some());
        let heard: std::collections::HashSet<&[u8]> = report.heard.windows(WINDOW).collect();
        let shown = |bytes: &[u8]| bytes.chunks_exact(WINDOW).any(|window| heard.contains(window));
        assert_eq!(shown(&source.bytes[..300_000]), shows, "{cipher:?}: content");
        let heard: std::collections::HashSet<&[u8]> = report.heard.windows(8).collect();
        assert_eq!(digests.iter().any(|digest| heard.contains(&digest.0[..8])), shows, "{cipher:?}: a signature");
    }
}

/// A scenario in which nothing is special, over so many connections.
fn plain(connections: usize) -> Scenario {
    Scenario {
        seed: 0,
        block: BlockSize::default(),
        stripe_bytes: MIB,
        source: Disk::default(),
        basis: None,
        modes: [Mode::Buffered; 2],
        connections,
        workers: 1,
        at_once: usize::MAX,
        mark_rounds: 0,
        deaf_source: false,
        whole_file: false,
        dry_run: false,
        local: false,
        cipher: None,
        verify: false,
        method: Method::Blake3,
        fault: Fault::None,
        rough: true,
    }
}
