//! A session's part on one worker: its files, its share of buffers, and what it has to tell control; not its connections.

use super::connection::{Hunger, Machines};
use super::holes::Holes;
use super::inbox::{Ends, FileTerms, Outcome, SessionKey, SessionShared, Start};
use super::turns::Turns;
use crate::completion::{Account, Completions, FileId, Mode, Pool};
use crate::digest::Digest;
use crate::extent::StripeIndex;
use crate::limits::BUFFERED_READS_MAX;
use crate::session::Terms;
use crate::session::readback::ReadBack;
use crate::session::source::Source;
use crate::session::target::Target;
use std::collections::VecDeque;
use std::sync::Arc;

/// A guest's file on this worker.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) id: FileId,
    pub(super) mode: Mode,
    pub(super) bytes: u64,
    /// Extents that one connection may have read and not hashed.
    pub(super) reads_max: usize,
    /// Of a source.
    pub(super) holes: Holes,
}

/// A session on this worker.
#[derive(Debug)]
pub(super) struct Guest<C: Completions> {
    pub(super) key: SessionKey,
    pub(super) account: Account,
    pub(super) shared: Arc<SessionShared>,
    pub(super) terms: Terms,
    pub(super) source: Option<OpenFile>,
    pub(super) target: Option<OpenFile>,
    /// What is to be read back.
    pub(super) expected: Arc<[(StripeIndex, Digest)]>,
    /// Where extents come from, as long as there are any ...
    pub(super) extent_pool: Pool,
    /// ... and where the two come from that are set aside.
    pub(super) least_pool: Pool,
    pub(super) frames: usize,
    pub(super) turns: Turns,
    /// Connections that wait for such a buffer and hold none, in the order in which they get the next.
    pub(super) hungry: [VecDeque<usize>; Hunger::COUNT],
    pub(super) asked_to_write: bool,
    pub(super) stopping: bool,
    pub(super) ended: bool,
    /// What [`SessionShared::lively`] was when we last looked.
    pub(super) lively: u64,
    /// Of the time at work that is not yet counted: writing, but to a file system that is memory ...
    pub(super) writing_ns: u64,
    /// ... and looking for holes, with the same exception.
    pub(super) seeking_ns: u64,
    pub(super) outbox: VecDeque<Outcome>,
    /// Control was behind, and connections may wait for it although all is told by now.
    pub(super) held_up: bool,
    backend: std::marker::PhantomData<C>,
}

impl<C: Completions> Guest<C> {
    /// What `start` asks for, without its files yet. `account` has room for it.
    pub(super) fn new(start: &Start<C>, account: Account) -> Self {
        let (ends, least_pool) = (&start.ends, least_pool(&start.terms));
        let is_target = matches!(ends, Ends::Target { .. } | Ends::Both { .. });
        Self {
            key: start.key,
            account,
            shared: Arc::clone(&start.shared),
            terms: start.terms,
            source: None,
            target: None,
            expected: match ends {
                Ends::ReadBack { expected, .. } => Arc::clone(expected),
                _ => Arc::default(),
            },
            extent_pool: if ends.files().into_iter().any(is_direct::<C>) { Pool::Large } else { least_pool },
            least_pool,
            frames: frames(start),
            turns: Turns::new(start.sockets.len().max(1), if is_target { start.at_once } else { usize::MAX }),
            hungry: Default::default(),
            asked_to_write: false,
            stopping: false,
            ended: false,
            lively: 0,
            writing_ns: 0,
            seeking_ns: 0,
            outbox: VecDeque::new(),
            held_up: false,
            backend: std::marker::PhantomData,
        }
    }

    pub(super) fn adopt_files(&mut self, ends: Ends<C::File>, backend: &mut C) {
        [self.source, self.target] = ends.into_files().map(|file| file.map(|file| adopt(file, backend)));
    }

    pub(super) fn close_files(&mut self, backend: &mut C) {
        for file in [self.source.take(), self.target.take()].into_iter().flatten() {
            backend.close(file.id);
        }
    }

    /// Those of one of its connections.
    pub(super) fn machines(&self, ends: &Ends<C::File>) -> Machines {
        let none = Machines::default();
        match ends {
            Ends::Source { sparse, .. } => Machines { source: Some(Source::new(self.terms, *sparse)), ..none },
            Ends::Target { file } => {
                // Past the page cache a few bytes cost a page.
                let heads = file.as_ref().is_some_and(|file| C::mode(&file.file) != Mode::Direct);
                Machines { target: Some(Target::new(self.terms, heads)), ..none }
            }
            Ends::Both { sparse, .. } => Machines {
                source: Some(Source::new(self.terms, *sparse)),
                target: Some(Target::new(self.terms, false)), // the basis is compared with what the source holds
                ..none
            },
            Ends::ReadBack { .. } => Machines { readback: Some(ReadBack::new(self.terms.layout)), ..none },
        }
    }

    /// Where such buffers come from, the best first.
    pub(super) fn pools(&self, what: Hunger) -> [Pool; 2] {
        match what {
            Hunger::Payload => [Pool::Payload; 2],
            Hunger::Extent => [self.extent_pool, self.least_pool],
        }
    }

    /// The next stripe for a connection; `None` until further notice, and where it is not its turn.
    pub(super) fn take_stripe(&mut self, index: usize) -> Option<StripeIndex> {
        let stripe = if self.turns.is_of(index) { self.shared.cursor.take() } else { None };
        if stripe.is_some() {
            self.turns.took();
        }
        stripe
    }

    /// Tells control, at the latest when it has room.
    pub(super) fn tell(&mut self, outcome: Outcome) {
        self.outbox.push_back(outcome);
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        while let Some(outcome) = self.outbox.pop_front() {
            if let Err(outcome) = self.shared.tell(outcome) {
                self.outbox.push_front(outcome);
                self.held_up = true;
                break;
            }
        }
    }
}

/// Where a session's extents come from: buffers that hold at least a block.
pub(super) fn least_pool(terms: &Terms) -> Pool {
    let block_bytes = terms.layout.block().bytes() as usize;
    if block_bytes <= Pool::Small.buffer_bytes() { Pool::Small } else { Pool::Large }
}

/// Small-frame buffers that its connections need.
pub(super) fn frames<C: Completions>(start: &Start<C>) -> usize {
    2 * start.sockets.len()
}

fn is_direct<C: Completions>(file: Option<&FileTerms<C::File>>) -> bool {
    file.is_some_and(|file| C::mode(&file.file) == Mode::Direct)
}

fn adopt<C: Completions>(FileTerms { file, bytes }: FileTerms<C::File>, backend: &mut C) -> OpenFile {
    let mode = C::mode(&file);
    let reads_max = match mode {
        Mode::Memory => 1, // done at once, so it is hashed while it is in the cache
        Mode::Buffered => BUFFERED_READS_MAX,
        Mode::Direct => usize::MAX,
    };
    OpenFile { id: backend.adopt_file(file), mode, bytes, reads_max, holes: Holes::default() }
}
