//! One simulated session after another: control's part in small, and what has to hold whatever happens.

use super::{Dice, Disk, Fault, PAGE, Pipe, Sim, World};
use crate::completion::{Completions, Mode, Waker};
use crate::counters::Counter;
use crate::digest::{Digest, fold_file};
use crate::extent::{BlockSize, Layout};
use crate::method::Method;
use crate::session::Terms;
use crate::worker::inbox::{Ends, FileTerms, Job, Mailbox, Outcome, SessionKey, SessionShared, Start};
use crate::worker::{Worker, WorkerError};
use crossbeam_channel::Receiver;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

const MIB: usize = 1 << 20;
/// Rounds after which a run that has not ended never will: hundreds of times what the slowest needs.
const ROUNDS_MAX: usize = 400_000;

/// What one run is made of.
#[derive(Clone, Debug)]
struct Scenario {
    seed: u64,
    block: BlockSize,
    source: Disk,
    /// `None`: there is no target yet.
    basis: Option<Disk>,
    connections: usize,
    workers: usize,
    whole_file: bool,
    dry_run: bool,
    /// Both ends in one process, without a network.
    local: bool,
    method: Method,
    fault: Fault,
    rough: bool,
}

/// How a run ended.
#[derive(Debug)]
struct Report {
    proven: bool,
    failure: Option<WorkerError>,
    target: Disk,
    digest: Option<Digest>,
    counts: [u64; 3],
    wire_bytes: u64,
    happened: bool,
    trace: u64,
}

/// One side's control: what it does with its workers' outcomes.
struct Side {
    shared: Arc<SessionShared>,
    outcomes: Receiver<Outcome>,
    mailboxes: Vec<Mailbox<Sim>>,
    stripes: Vec<Option<Digest>>,
    lost: usize,
    ended: usize,
    failure: Option<WorkerError>,
    is_target: bool,
}

const KEY: SessionKey = SessionKey(7);

impl Side {
    fn post(&self, job: fn() -> Job<Sim>) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.post(job()));
    }

    fn listen(&mut self, world: &RefCell<World>) {
        while let Ok(outcome) = self.outcomes.try_recv() {
            match outcome {
                Outcome::Stripe(finished) => {
                    let slot = &mut self.stripes[usize::try_from(finished.stripe).unwrap()];
                    assert!(slot.is_none() || !self.is_target, "a stripe is finished once");
                    *slot = Some(finished.digest);
                }
                Outcome::ReadBack(stripe) => self.stripes[usize::try_from(stripe).unwrap()] = Some(Digest::default()),
                Outcome::WantsToWrite => {
                    world.borrow_mut().disks[1].may_change = true;
                    self.shared.allow_writing();
                    self.post(|| Job::Resume(KEY));
                }
                Outcome::Lost { .. } => {
                    self.lost += 1;
                    if self.is_target {
                        self.post(|| Job::Resume(KEY));
                    }
                }
                Outcome::Failed(error) => self.failure = self.failure.or(Some(error)),
                Outcome::Ended => self.ended += 1,
            }
        }
    }

    fn complete(&self) -> bool {
        self.stripes.iter().all(Option::is_some)
    }
}

fn run(scenario: &Scenario) -> Report {
    let world = Rc::new(RefCell::new(World {
        dice: Dice(scenario.seed ^ 0x5eed),
        disks: vec![scenario.source.clone(), scenario.basis.clone().unwrap_or_default()],
        pipes: (0..2 * scenario.connections).map(|_| Pipe::default()).collect(),
        fault: scenario.fault,
        happened: false,
        now_ms: 0,
        trace: 0,
        rough: scenario.rough,
    }));
    let source_bytes = scenario.source.bytes.len() as u64;
    let basis_bytes = scenario.basis.as_ref().map_or(0, |basis| basis.bytes.len() as u64);
    let layout = Layout::checked(source_bytes, scenario.block, MIB as u64).unwrap();
    let compared = if scenario.whole_file { 0 } else { basis_bytes };
    let terms = Terms { layout, method: scenario.method, basis_bytes: compared, dry_run: scenario.dry_run };
    let file = |disk: usize, bytes: u64| FileTerms { file: disk, mode: Mode::Buffered, bytes };
    let source = file(0, source_bytes);
    let target = (scenario.basis.is_some() || !scenario.dry_run).then(|| file(1, basis_bytes));
    let sparse = scenario.source.data.iter().any(|data| !data);

    let mut workers = Vec::new();
    let mut sides = Vec::new();
    let ends: Vec<(bool, Ends<usize>)> = if scenario.local {
        vec![(true, Ends::Both { source, sparse, target })]
    } else {
        vec![(false, Ends::Source { file: source, sparse }), (true, Ends::Target { file: target })]
    };
    for (is_target, ends) in ends {
        let (shared, outcomes) = SessionShared::new(layout.stripes(), Waker(Arc::new(|| {})));
        let mut mailboxes = Vec::new();
        for worker in 0..scenario.workers {
            let backend = Sim::new(&world);
            let (mailbox, jobs) = Mailbox::new(backend.waker());
            let sockets = (0..scenario.connections)
                .filter(|number| number % scenario.workers == worker && !scenario.local)
                .map(|number| (u32::try_from(number).unwrap(), 2 * number + usize::from(is_target)))
                .collect();
            let shared = Arc::clone(&shared);
            mailbox.post(Job::Start(Box::new(Start { key: KEY, shared, terms, ends: ends.clone(), sockets })));
            mailboxes.push(mailbox);
            workers.push(Worker::new(backend, jobs));
        }
        let stripes = vec![None; usize::try_from(layout.stripes()).unwrap()];
        sides.push(Side { shared, outcomes, mailboxes, stripes, lost: 0, ended: 0, failure: None, is_target });
    }

    let mut stopped = false;
    for round in 0.. {
        assert!(round < ROUNDS_MAX, "it goes on for ever: {:?}", (scenario.seed, scenario.fault));
        let next = world.borrow_mut().dice.below(workers.len());
        workers[next].turn(1).unwrap();
        sides.iter_mut().for_each(|side| side.listen(&world));
        let target = sides.last().unwrap();
        let lost = sides.iter().any(|side| side.lost == scenario.connections && !scenario.local);
        let failed = sides.iter().any(|side| side.failure.is_some());
        if !stopped && (target.complete() || failed || lost) {
            stopped = true;
            sides.iter().for_each(|side| side.post(|| Job::Stop(KEY)));
        }
        if stopped && sides.iter().all(|side| side.ended == scenario.workers) {
            break;
        }
    }
    workers.iter_mut().for_each(|worker| worker.assert_empty());
    assert!(sides.iter().all(|side| side.ended == scenario.workers), "each worker ends once");

    let target = sides.last().unwrap();
    let proven = target.complete() && sides.iter().all(|side| side.failure.is_none());
    let digests: Option<Vec<Digest>> = target.stripes.iter().copied().collect();
    let count = |counter| target.shared.counters.read(counter);
    let mut world = world.borrow_mut();
    Report {
        proven,
        failure: sides.iter().find_map(|side| side.failure),
        digest: digests.filter(|_| !scenario.dry_run).map(|digests| fold_file(&layout, &digests)),
        counts: [count(Counter::MatchedBytes), count(Counter::ChangedBytes), count(Counter::HoleBytes)],
        wire_bytes: world.pipes.iter().map(|pipe| pipe.carried).sum(),
        happened: world.happened,
        trace: world.trace,
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
    for _ in 0..dice.below(6) {
        let pages = disk.data.len();
        if pages > 0 {
            let from = dice.below(pages);
            let until = from + dice.below(pages - from + 1);
            disk.may_change = true;
            disk.punch(from * PAGE, until * PAGE);
            disk.may_change = false;
            disk.writes = 0;
        }
    }
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
    let fault = match dice.below(12) {
        0 | 1 => Fault::ReadFails { disk: dice.below(2), countdown: countdown(&mut dice) },
        2 => Fault::WriteFails { countdown: countdown(&mut dice) },
        3 | 4 => Fault::Cut { socket: dice.below(2), after: 1 + dice.roll() % [300, 1_500_000][dice.below(2)] },
        5 => Fault::Flip { countdown: countdown(&mut dice) },
        6 => Fault::Shrinks { countdown: countdown(&mut dice) },
        _ => Fault::None,
    };
    Scenario {
        seed,
        block,
        source,
        basis,
        connections: 1 + dice.below(4),
        workers: 1 + dice.below(2),
        whole_file: dice.one_in(6),
        dry_run: dice.one_in(8),
        local: dice.one_in(5),
        method: if dice.one_in(4) { Method::Xxh3 } else { Method::Blake3 },
        fault,
        rough: !dice.one_in(4),
    }
}

/// What has to hold after any run.
fn judge(scenario: &Scenario, report: &Report) {
    let Scenario { source, basis, dry_run, .. } = scenario;
    let before = basis.clone().unwrap_or_default();
    if !report.happened {
        assert_eq!(report.failure, None);
        assert!(report.proven, "without a fault it succeeds");
    }
    if scenario.local && report.wire_bytes > 0 {
        panic!("both ends local: no wire");
    }
    if *dry_run {
        assert_eq!(report.target.writes, 0, "a dry run writes nothing");
        assert_eq!(report.target.bytes, before.bytes);
    }
    if !report.proven {
        return;
    }
    let [matched, changed, holes] = report.counts;
    assert_eq!(matched + changed + holes, source.bytes.len() as u64);
    if !dry_run {
        let mut target = report.target.bytes.clone();
        target.resize(source.bytes.len(), 0); // control sets the length
        assert!(target == source.bytes, "proven and not equal");
        assert_eq!(report.digest.unwrap().0, *blake3::hash(&source.bytes).as_bytes());
    }
    let equal = before.bytes.starts_with(&source.bytes) && basis.is_some() && !scenario.whole_file;
    if equal && !report.happened {
        assert_eq!(report.target.writes, 0, "what is equal is not written");
        assert_eq!(matched, source.bytes.len() as u64);
        let signatures = 8 * source.bytes.len().div_ceil(scenario.block.bytes() as usize) as u64;
        let stripes = source.bytes.len().div_ceil(MIB) as u64;
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
        assert!(judged.is_ok(), "PDCP_SIM_SEED={seed} runs it again: {:?}", report.failure);
        happened[usize::from(report.happened)] += 1;
    }
    if seeds.is_none() {
        assert!(happened[0] > 500, "runs without a fault");
        assert!(happened[1] > 500, "runs in which a fault struck");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..40 {
        let scenario = scenario(seed);
        assert_eq!(run(&scenario).trace, run(&scenario).trace);
    }
}
