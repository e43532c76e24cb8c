//! What a server did for one caller: what is told to people and what is written to the audit log are made of this.

use super::Direction;
use super::identity::Fingerprint;
use crate::bottleneck::Limit;
use crate::failure::{Failure, printable};
use crate::seal::Sealing;
use crate::wire::Hello;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

/// One session, or one caller who was not let in.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it began.
    pub began: SystemTime,
    /// How long it took.
    pub elapsed: Duration,
    /// Who called; an IPv4 address as such.
    pub peer: SocketAddr,
    /// The key that the peer has proved to have. `None`: it has not.
    pub key: Option<Fingerprint>,
    /// What it asked for. `None`: it was not let in.
    pub request: Option<Request>,
    /// What kept others from what went over the network. `None`: it did not get so far.
    pub sealing: Option<Sealing>,
    /// What came of it.
    pub outcome: Result<Done, Failure>,
}

/// What was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// Push or pull.
    pub direction: Direction,
    /// The peer's path, as it was sent.
    pub path: Vec<u8>,
    /// Nothing was to be written.
    pub dry_run: bool,
}

/// What a session did that went well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Done {
    /// Bytes that moved because they differed.
    pub changed_bytes: u64,
    /// What limited it, if anything stands out.
    pub limit: Option<Limit>,
}

impl Record {
    /// It ends now.
    pub(super) fn new(peer: SocketAddr, began: Instant, outcome: Result<Done, Failure>) -> Self {
        let elapsed = began.elapsed();
        let now = SystemTime::now();
        Self {
            began: now.checked_sub(elapsed).unwrap_or(now),
            elapsed,
            peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
            key: None,
            request: None,
            sealing: None,
            outcome,
        }
    }

    /// Why it failed, safe to be shown: without what it is about, where the record says that anyway.
    pub fn trouble(&self) -> Option<String> {
        let failure = self.outcome.as_ref().err()?;
        let about_peer = failure.subject == self.peer.to_string().as_bytes();
        let about_path = self.request.as_ref().is_some_and(|request| failure.subject == request.path);
        Some(if about_peer || about_path { printable(failure.text.as_bytes()) } else { failure.to_string() })
    }
}

impl From<&Hello> for Request {
    fn from(hello: &Hello) -> Self {
        Self {
            direction: if hello.source.is_some() { Direction::Push } else { Direction::Pull },
            path: hello.path.clone(),
            dry_run: hello.options.dry_run,
        }
    }
}
