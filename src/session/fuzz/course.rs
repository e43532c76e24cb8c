//! The course of a session, driven by any bytes: what workers, files, clock and peer do next is their choice.
//!
//! The peer is honest, or says anything at any time. What has to hold always: no panic; one thing that may block is asked
//! for at a time; nothing is made final but what is complete, drained and proven, and once; a commit that has begun is
//! waited for, and decides; a failure is said once, and an end is the last word. With an honest peer and nothing wrong here
//! it ends well by itself, however long things take and whatever connection is lost that is not the last one in use.

use crate::digest::{Digest, fold_file};
use crate::extent::{BlockSize, Layout, StripeIndex};
use crate::failure::{Failure, Kind};
use crate::limits::STRIPE_BYTES_MIN;
use crate::session::Finished;
use crate::session::course::{Action, Course, Event, Role, Start};
use crate::wire::fuzz::Dice;
use crate::wire::{Beat, Begin, Committed, FailureMessage, Message, Proof};

/// Any bytes as the course of one session.
pub fn fuzz_course(bytes: &[u8]) {
    let mut dice = Dice(bytes);
    let mut stage = Stage::new(&mut dice);
    stage.perform();
    while let Some(choice) = dice.roll() {
        if stage.ended.is_some() {
            return;
        }
        stage.step(choice, &mut dice);
        stage.perform();
    }
    if stage.honest {
        stage.run_out();
    }
}

/// What may block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Blocking {
    Mark,
    CheckSource,
    /// So many stripes.
    ReadBack(usize),
    Commit,
}

/// What surrounds the course.
struct Stage {
    course: Course,
    start: Start,
    /// Neither the peer nor anything here does wrong.
    honest: bool,
    finished: Vec<bool>,
    /// Workers that have not ended, whether they were asked to, and whether they read back.
    workers: u32,
    stopping: bool,
    reading_back: bool,
    /// Stripes that they have not read back yet.
    unread: usize,
    connections: u32,
    may_write: bool,
    blocking: Option<Blocking>,
    now_ms: u64,
    said: Said,
    /// An honest target has asked for the proof.
    asked: bool,
    /// The peer's word that it waits for: a proof that is right, a count that is.
    peer_agrees: bool,
    committed: Option<bool>,
    ended: Option<Result<(), Failure>>,
}

/// What this side has told the peer.
#[derive(Default)]
struct Said {
    received: bool,
    proof: bool,
    committed: bool,
    failed: bool,
}

impl Stage {
    fn new(dice: &mut Dice<'_>) -> Self {
        let role = dice.among(&[Role::Source, Role::Target, Role::Both]);
        let stripes = dice.below(4) as u64;
        let block = BlockSize::checked(1 << 18).expect("allowed");
        let layout = Layout::checked(stripes * STRIPE_BYTES_MIN, block, STRIPE_BYTES_MIN).expect("allowed");
        let connections = if role == Role::Both || stripes == 0 { 0 } else { 1 + u32::from(dice.coin()) };
        let workers = if stripes == 0 { 0 } else { 1 + u32::from(dice.coin()) };
        let start = Start {
            role,
            layout,
            dry_run: dice.below(4) == 1,
            verify: dice.coin(),
            again: dice.coin(),
            connections,
            workers,
            peer: b"peer".to_vec(),
            target: b"target".to_vec(),
            now_ms: 0,
        };
        let may_write = dice.coin();
        Self {
            course: Course::new(start.clone(), may_write),
            start,
            honest: dice.coin(),
            finished: (0..stripes).map(|_| false).collect(),
            workers,
            stopping: false,
            connections,
            may_write,
            reading_back: false,
            unread: 0,
            blocking: None,
            now_ms: 0,
            said: Said::default(),
            asked: false,
            peer_agrees: false,
            committed: None,
            ended: None,
        }
    }

    fn all_finished(&self) -> bool {
        self.finished.iter().all(|finished| *finished)
    }

    /// The file's digest.
    fn root(&self) -> Digest {
        if self.start.dry_run {
            return Digest::default();
        }
        let digests: Vec<Digest> = (0..self.start.layout.stripes()).map(digest).collect();
        fold_file(&self.start.layout, &digests)
    }

    /// Something happens, if it can.
    fn step(&mut self, choice: u8, dice: &mut Dice<'_>) {
        match choice % 10 {
            0 | 1 => self.stripe(dice),
            2 if self.copies() && self.start.role != Role::Source && !self.start.dry_run => {
                self.course.handle(Event::WantsToWrite);
            }
            3 => self.worker_ended(dice),
            4 => self.unblock(!self.honest && dice.below(8) == 1),
            5 => self.lose(),
            6 => self.tick(u64::from(dice.wide())),
            7 if self.unread > 0 && self.workers > 0 => {
                self.unread -= 1;
                self.course.handle(Event::ReadBack(0));
            }
            8 | 9 if self.start.role != Role::Both => self.hear(dice),
            _ if !self.honest => {
                // A user may stop it at any time; a disk fails those who use it.
                let kind = if self.workers > 0 && dice.coin() { Kind::Target } else { Kind::Interrupted };
                self.course.handle(Event::Failed(Failure::new(kind, "something here")));
            }
            _ => {}
        }
    }

    /// Workers copy.
    fn copies(&self) -> bool {
        self.workers > 0 && !self.reading_back
    }

    fn stripe(&mut self, dice: &mut Dice<'_>) {
        let (index, differs) = (dice.below(4), dice.coin());
        // A target may ask for a stripe twice.
        let again = !self.honest && self.start.role == Role::Source;
        let open = self.finished.get(index).is_some_and(|finished| !finished || again);
        let may = self.start.role == Role::Source || self.start.dry_run || self.may_write || !differs;
        if self.copies() && open && may {
            self.finished[index] = true;
            let finished = finished(index as u64, differs, self.start.layout.stripe_bytes());
            self.course.handle(Event::Stripe(finished));
        }
    }

    fn worker_ended(&mut self, dice: &mut Dice<'_>) {
        if self.workers > 0 && (self.stopping || (!self.honest && dice.below(16) == 1)) {
            self.workers -= 1;
            self.course.handle(Event::WorkerEnded);
        }
    }

    fn unblock(&mut self, fails: bool) {
        let Some(blocking) = self.blocking.take() else { return };
        if blocking == Blocking::Commit {
            self.committed = Some(!fails);
        }
        let event = match blocking {
            _ if fails => Event::Failed(Failure::new(Kind::Target, "the disk")),
            Blocking::Mark => Event::Marked,
            Blocking::CheckSource => Event::SourceUnchanged,
            Blocking::Commit => Event::Committed(Committed::default()),
            Blocking::ReadBack(stripes) => {
                (self.reading_back, self.unread, self.workers, self.stopping) = (true, stripes, 1, false);
                return self.course.reading_back(1);
            }
        };
        self.course.handle(event);
    }

    fn lose(&mut self) {
        let spare = self.connections > 1 || self.all_finished();
        if self.connections > 0 && (spare || !self.honest) {
            self.connections -= 1;
            self.course.handle(Event::Lost("reset".into()));
            // The target is done with it, and says so in time.
            if self.honest && self.connections == 0 && self.start.role == Role::Source {
                self.hear(&mut Dice(&[]));
            }
        }
    }

    fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        let beat = Beat { progress: self.now_ms, ..Beat::default() };
        self.course.handle(Event::Tick { now_ms: self.now_ms, beat, busy: self.blocking.is_some() });
    }

    /// The peer says something, or is gone.
    fn hear(&mut self, dice: &mut Dice<'_>) {
        if self.honest {
            if let Some(message) = self.honest_word() {
                self.peer_agrees |= message != Message::Received;
                self.course.handle(Event::Message(message));
            }
            return;
        }
        let half = self.start.layout.file_bytes() / 2;
        let (right, any) = (self.root(), u64::MAX >> dice.below(64));
        let message = match dice.below(10) {
            0 => Message::Beat(Beat { progress: any, matched_bytes: any, changed_bytes: any, ..Beat::default() }),
            1 => Message::Received,
            2 | 3 => Message::Proof(Proof::from(right)),
            4 => Message::Proof(Proof { digest: [9; 32] }),
            5 => Message::Committed(Committed { matched_bytes: half, changed_bytes: half, ..Committed::default() }),
            6 => Message::Committed(Committed { matched_bytes: any, hole_bytes: any, ..Committed::default() }),
            7 => Message::Begin(Begin { joined: vec![0], sealed: false }),
            8 => {
                let kind = dice.among(&[Kind::Source, Kind::Interrupted]);
                let text = "something there".into();
                Message::Failed(FailureMessage { kind, subject: Vec::new(), text, untouched: dice.coin() })
            }
            _ => return self.course.handle(Event::PeerGone("closed".into())),
        };
        self.peer_agrees |= match &message {
            Message::Proof(proof) => self.said.received && proof.digest == right.0,
            Message::Committed(done) => self.said.proof && done.matched_bytes == half && done.changed_bytes == half,
            _ => false,
        };
        self.course.handle(Event::Message(message));
    }

    /// What an honest peer says next, once.
    fn honest_word(&mut self) -> Option<Message> {
        let matched_bytes = self.start.layout.file_bytes();
        match self.start.role {
            Role::Target => std::mem::take(&mut self.said.received).then(|| Message::Proof(Proof::from(self.root()))),
            Role::Source if std::mem::take(&mut self.said.proof) => {
                Some(Message::Committed(Committed { matched_bytes, ..Committed::default() }))
            }
            Role::Source if self.all_finished() && !std::mem::replace(&mut self.asked, true) => Some(Message::Received),
            Role::Source => None,
            Role::Both => None,
        }
    }

    /// Does what the course asks for, as far as that does not block.
    fn perform(&mut self) {
        while let Some(action) = self.course.poll() {
            assert_eq!(self.ended, None, "{action:?} after the end");
            match action {
                Action::Send(message) => self.send(&message),
                Action::Mark => self.block(Blocking::Mark),
                Action::AllowWriting => {
                    assert!(self.blocking != Some(Blocking::Mark), "nothing is written to what is not marked");
                    self.may_write = true;
                }
                Action::Resume => assert!(self.connections > 0),
                Action::StopWorkers => {
                    assert!(self.workers > 0);
                    self.stopping = true;
                }
                Action::CheckSource => {
                    assert!(self.start.role != Role::Target && self.all_finished() && self.workers == 0);
                    self.block(Blocking::CheckSource);
                }
                Action::ReadBack(stripes) => {
                    assert!(self.start.verify && !self.start.dry_run && self.workers == 0);
                    assert!(stripes.iter().all(|(stripe, known)| *known == digest(*stripe)));
                    self.block(Blocking::ReadBack(stripes.len()));
                }
                Action::Commit { .. } => {
                    assert!(self.start.role != Role::Source && self.all_finished() && self.workers == 0);
                    assert!(self.start.role == Role::Both || self.peer_agrees, "nothing is final that is not proven");
                    assert_eq!((self.committed, self.unread), (None, 0));
                    self.block(Blocking::Commit);
                }
                Action::End(result) => self.end(result),
            }
        }
        assert_eq!(self.course.ended(), self.ended.is_some());
    }

    fn send(&mut self, message: &Message) {
        assert_ne!(self.start.role, Role::Both, "there is nobody to tell");
        match message {
            Message::Beat(_) => {}
            Message::Received => {
                assert!(self.start.role == Role::Target && self.all_finished() && self.workers == 0);
                self.said.received = true;
            }
            Message::Proof(proof) => {
                assert_eq!((self.start.role, proof.digest), (Role::Source, self.root().0));
                self.said.proof = true;
            }
            Message::Committed(_) => {
                assert_eq!(self.committed, Some(true));
                assert!(!std::mem::replace(&mut self.said.committed, true));
            }
            Message::Failed(_) => assert!(!std::mem::replace(&mut self.said.failed, true), "a failure is said once"),
            other => panic!("{other:?} is of the handshake"),
        }
    }

    fn block(&mut self, blocking: Blocking) {
        assert_eq!(self.blocking.replace(blocking), None, "one thing at a time");
    }

    fn end(&mut self, result: Result<(), Failure>) {
        assert_eq!(self.workers, 0, "it ends when nothing is left of it");
        assert_ne!(self.blocking, Some(Blocking::Commit), "a commit that has begun is waited for");
        let good = match self.start.role {
            Role::Source => self.peer_agrees,
            Role::Target | Role::Both => self.committed == Some(true),
        };
        assert!(good || result.is_err());
        assert!(result.is_ok() || self.committed != Some(true), "a commit decides");
        assert!(result.is_ok() || !self.honest, "{result:?}");
        self.ended = Some(result);
    }

    /// Everybody does what is left to be done.
    fn run_out(&mut self) {
        let differs = [1];
        for _ in 0..100 {
            if self.ended.is_some() {
                return;
            }
            if self.copies() && !self.may_write && self.start.role != Role::Source && !self.start.dry_run {
                self.course.handle(Event::WantsToWrite);
                self.perform();
            }
            for (choice, dice) in [(4, &[][..]), (6, &differs), (8, &[]), (3, &[]), (7, &[])] {
                self.step(choice, &mut Dice(dice));
                self.perform();
            }
            for index in 0..4 {
                self.step(0, &mut Dice(&[index, 1]));
                self.perform();
            }
        }
        panic!("it stands still");
    }
}

fn digest(stripe: StripeIndex) -> Digest {
    Digest([stripe.to_le_bytes()[0]; 32])
}

fn finished(stripe: StripeIndex, differs: bool, bytes: u64) -> Finished {
    let (matched_bytes, changed_bytes) = if differs { (0, bytes) } else { (bytes, 0) };
    let changed_blocks = u64::from(differs);
    Finished { stripe, digest: digest(stripe), matched_bytes, changed_bytes, hole_bytes: 0, changed_blocks }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_course_ends_once_and_as_it_should(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_course(&bytes);
        }
    }
}
