//! Courses that once went as they should not: what happened, step by step.

use super::*;
use crate::extent::BlockSize;
use crate::limits::{FILE_BYTES_MAX, STRIPE_BYTES_MIN};

const DIGEST: Digest = Digest([1; 32]);

/// A session of one connection and one worker, and of one stripe unless said otherwise.
struct Story(Course);

impl Story {
    fn of(role: Role) -> Self {
        Self::of_stripes(1, role)
    }

    fn of_stripes(stripes: u64, role: Role) -> Self {
        let layout = Layout::checked(stripes * STRIPE_BYTES_MIN, BlockSize::default(), STRIPE_BYTES_MIN).unwrap();
        let (peer, target) = (b"peer".to_vec(), b"target".to_vec());
        let (connections, workers, now_ms) = (1, 1, 0);
        let start = Start {
            role,
            layout,
            dry_run: false,
            verify: false,
            again: false,
            connections,
            workers,
            peer,
            target,
            now_ms,
        };
        Self(Course::new(start, false))
    }

    /// Something happens, and this follows from it.
    #[track_caller]
    fn tell(&mut self, event: Event, want: &[Action]) {
        self.0.handle(event);
        let actions: Vec<Action> = std::iter::from_fn(|| self.0.poll()).collect();
        assert_eq!(actions, want);
    }

    fn root(&self) -> Message {
        Message::Proof(Proof::from(fold_file(&self.0.start.layout, &[DIGEST])))
    }
}

/// The one stripe is finished, and was equal.
fn equal() -> Event {
    let (matched_bytes, changed_bytes, hole_bytes, changed_blocks) = (STRIPE_BYTES_MIN, 0, 0, 0);
    Event::Stripe(Finished { stripe: 0, digest: DIGEST, matched_bytes, changed_bytes, hole_bytes, changed_blocks })
}

fn done() -> Committed {
    Committed { matched_bytes: STRIPE_BYTES_MIN, ..Committed::default() }
}

#[test]
fn a_target_that_is_being_marked_is_not_made_final_meanwhile() {
    // A source sends a block, and then breaks the connection; on the next one the block is equal. The target was in the
    // marking thread's hands when it was to be committed: the session's task panicked.
    let mut story = Story::of(Role::Target);
    let root = story.root();
    story.tell(Event::WantsToWrite, &[Action::Mark]);
    story.tell(equal(), &[Action::StopWorkers]);
    story.tell(Event::WorkerEnded, &[]);
    story.tell(Event::Marked, &[Action::AllowWriting, Action::Send(Message::Received)]);
    story.tell(Event::Message(root), &[Action::Commit { wrote: false }]);
}

/// Trigger: a connection, or a session before this one, was lost when it had written, and what it wrote is equal now: in memory.
/// Damage: with `--verify` it was not read back, and the target was said to have been.
#[test]
fn what_a_lost_connection_or_session_may_have_written_is_read_back_too() {
    for (again, lost) in [(false, false), (false, true), (true, false)] {
        let mut story = Story::of(Role::Target);
        (story.0.start.verify, story.0.start.again, story.0.start.connections) = (true, again, 2);
        if lost {
            story.tell(Event::Lost("reset".into()), &[Action::Resume]);
        }
        let root = story.root();
        story.tell(equal(), &[Action::StopWorkers]);
        story.tell(Event::WorkerEnded, &[Action::Send(Message::Received)]);
        let next = if again || lost { Action::ReadBack(vec![(0, DIGEST)]) } else { Action::Commit { wrote: false } };
        story.tell(Event::Message(root), &[next]);
    }
}

#[test]
fn a_session_that_has_failed_marks_nothing_any_more() {
    // Two workers: one has failed, the other has its first write ready. The untouched target lost its time.
    let mut story = Story::of(Role::Target);
    let failure = Failure::new(Kind::Source, "cannot be read");
    let told = Action::Send(Message::Failed(FailureMessage::new(failure.clone(), b"peer")));
    story.tell(Event::Failed(failure.clone()), &[told, Action::StopWorkers]);
    story.tell(Event::WantsToWrite, &[]);
    story.tell(Event::WorkerEnded, &[Action::End(Err(failure))]);
}

#[test]
fn a_commit_that_has_begun_decides_whatever_the_peer_says() {
    // A source says a word too much while the target takes its name: the target was there, and its user was told that
    // the protocol was broken.
    let mut story = Story::of(Role::Target);
    let root = story.root();
    story.tell(equal(), &[Action::StopWorkers]);
    story.tell(Event::WorkerEnded, &[Action::Send(Message::Received)]);
    story.tell(Event::Message(root.clone()), &[Action::Commit { wrote: false }]);
    story.tell(Event::Message(root), &[]);
    let beat = Action::Send(Message::Beat(Beat::default()));
    let committed = Action::Send(Message::Committed(done()));
    story.tell(Event::Committed(done()), &[beat, committed, Action::End(Ok(()))]);
}

#[test]
fn a_connection_that_nobody_needs_any_more_is_not_mourned() {
    // Connections break when the last stripe is through, but before the target says so; then its disk takes a while.
    // After five seconds the source blamed the network for it.
    let mut story = Story::of(Role::Source);
    let root = story.root();
    let beat = |progress| Action::Send(Message::Beat(Beat { progress, ..Beat::default() }));
    story.tell(equal(), &[]);
    story.tell(Event::Lost("reset".into()), &[]);
    story.tell(Event::Message(Message::Received), &[Action::StopWorkers]);
    story.tell(Event::WorkerEnded, &[Action::CheckSource]);
    story.tell(Event::SourceUnchanged, &[beat(0), Action::Send(root)]);
    story
        .tell(Event::Tick { now_ms: BLAME_MS, beat: Beat { progress: 1, ..Beat::default() }, busy: false }, &[beat(1)]);
    story.tell(Event::Message(Message::Committed(done())), &[Action::End(Ok(()))]);
}

/// What people are told of a stall, before it is one for good.
#[test]
fn nothing_has_moved_since_the_last_sign_of_life_of_either_end() {
    let mut story = Story::of(Role::Target);
    let beat = |progress| Beat { progress, ..Beat::default() };
    let tick = |now_ms, progress, busy| Event::Tick { now_ms, beat: beat(progress), busy };
    for (event, still_ms) in [
        (tick(100, 1, false), 0),
        (tick(300, 1, false), 200),
        (tick(400, 1, true), 0), // a sync of ours takes long
        (Event::Message(Message::Beat(beat(0))), 0),
        (tick(600, 1, false), 200),
        (Event::Message(Message::Beat(beat(0))), 200), // the peer lives, but does not get on
        (Event::Message(Message::Beat(beat(1))), 0),
        (tick(900, 1, false), 300),
        (tick(1000, 2, false), 0),
    ] {
        story.0.handle(event);
        assert_eq!(story.0.still_ms(), still_ms);
    }
}

/// Trigger: a target begins with the last stripe of a file that is one large hole. Damage: the source set memory aside
/// for all stripes before it, 33 bytes each: half a gigabyte at 16 TiB. Cure: what is kept follows the work.
#[test]
fn a_stripe_takes_no_more_memory_for_being_far_out() {
    let layout = Layout::checked(FILE_BYTES_MAX, BlockSize::default(), STRIPE_BYTES_MIN).unwrap();
    let start = Start {
        role: Role::Source,
        layout,
        dry_run: false,
        verify: false,
        again: false,
        connections: 1,
        workers: 1,
        peer: Vec::new(),
        target: Vec::new(),
        now_ms: 0,
    };
    let mut course = Course::new(start, true);
    let (digest, bytes) = (Digest::default(), STRIPE_BYTES_MIN);
    for stripe in [layout.stripes() - 1, 0] {
        let (matched_bytes, changed_bytes, hole_bytes, changed_blocks) = (0, 0, bytes, 64);
        let finished = Finished { stripe, digest, matched_bytes, changed_bytes, hole_bytes, changed_blocks };
        course.handle(Event::Stripe(finished));
    }
    assert_eq!(course.poll(), None, "it goes on");
    assert_eq!(course.finished(), 2);
}

/// Trigger: both ends here, a source of a terabyte that is one hole, and no target. Damage: nothing is read, written or
/// sent, so it was given up after a minute in the midst of hashing zeros. Cure: a stripe that is finished is progress.
#[test]
fn who_finishes_stripes_gets_on() {
    let mut story = Story::of_stripes(4, Role::Both);
    let hole = |stripe| {
        let (hole_bytes, changed_blocks) = (STRIPE_BYTES_MIN, 64);
        let (digest, matched_bytes, changed_bytes) = (DIGEST, 0, 0);
        Event::Stripe(Finished { stripe, digest, matched_bytes, changed_bytes, hole_bytes, changed_blocks })
    };
    let at = |now_ms| Event::Tick { now_ms, beat: Beat::default(), busy: false };
    for stripe in 0..3 {
        story.tell(hole(stripe), &[]);
        story.tell(at((stripe + 1) * (NO_PROGRESS_MS - 1)), &[]);
    }
    story.tell(hole(3), &[Action::StopWorkers]);
}
