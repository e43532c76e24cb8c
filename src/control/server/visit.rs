//! One client's visit: what it asks for, whether there is room and it may, the files, its data connections, and what it came to.

use super::{Server, peer_name, stopping};
use crate::completion::DirectPolicy;
use crate::control::client::blocking;
use crate::control::crew::random;
use crate::control::dial::Seated;
use crate::control::door::{Origin, Stranger, Visit};
use crate::control::drive::{Session, drive};
use crate::control::files::ClosedAside;
use crate::control::identity::{Fingerprint, Grant};
use crate::control::link::{Link, random_bytes};
use crate::control::neighbour::Rendezvous;
use crate::control::room::Lease;
use crate::control::{Done, Names, Progress, Record, Request, count, files};
use crate::extent::Deal;
use crate::failure::{Failure, Kind};
use crate::limits::{BEGIN_MS, HELLO_MS, NEIGHBOUR_MS, WORKER_SILENT_MS};
use crate::ring::now_ns;
use crate::root::{Inode, Source, Target, TargetRequest};
use crate::seal::{Sealing, Side, has_aes};
use crate::session::ProtocolError;
use crate::session::handshake::{Offer, agree, check_hello, wanted_connections, welcome};
use crate::wire::{Begin, FailureMessage, Hello, Message, Welcome};
use std::net::SocketAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

/// One session's record, told also if its task panics.
struct Telling<'a> {
    server: &'a Server,
    peer: SocketAddr,
    began: Instant,
    key: Fingerprint,
    request: Request,
    sealing: Option<Sealing>,
    is_told: bool,
}

impl Telling<'_> {
    fn tell(mut self, result: Result<Done, Failure>) {
        self.tell_once(result);
    }

    fn tell_once(&mut self, result: Result<Done, Failure>) {
        let (key, request, sealing) = (Some(self.key), Some(self.request.clone()), self.sealing);
        self.server.teller.session(Record { key, request, sealing, ..Record::new(self.peer, self.began, result) });
        self.is_told = true;
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if !self.is_told && std::thread::panicking() {
            let text = "an internal error ended the session; please report it";
            self.tell_once(Err(Failure::new(Kind::Other, text)));
        }
    }
}

/// A session's files, opened.
#[derive(Debug, Default)]
struct Opened {
    source: Option<ClosedAside<Source>>,
    target: Option<Target>,
}

impl Server {
    /// A client that may have a session has one, if there is room.
    pub(super) async fn visit(
        &self,
        link: &mut Link,
        peer: SocketAddr,
        began: Instant,
        hello: &Hello,
        grant: &Grant,
        stranger: &mut Option<Stranger>,
    ) {
        let name = peer_name(peer);
        let (key, request) = (grant.key.fingerprint(), Request::from(hello));
        let mut telling = Telling { server: self, peer, began, key, request, sealing: None, is_told: false };
        let has_ended = match &hello.former {
            Some(former) => self.formers.end(former, &grant.key).await,
            None => true,
        };
        let finishing = || Failure::new(Kind::Busy, "is still finishing the session that was lost; try again later");
        let let_in = || self.let_in(hello, &name, grant, Origin::from(peer.ip()));
        let result = match has_ended.then(let_in).unwrap_or_else(|| Err(finishing())) {
            Ok(inside) => {
                *stranger = None;
                self.unless_given_up(self.session(link, hello, &name, grant, inside, &mut telling)).await
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &result {
            link.send(&Message::Failed(FailureMessage::new(failure.clone(), &name)));
        }
        self.count.send_modify(|count| count.ended += 1);
        telling.tell(result);
    }

    /// What a session comes to; where a stopping server waits for it no longer, as something of it hangs in the kernel, that it
    /// was interrupted.
    async fn unless_given_up(&self, session: impl Future<Output = Result<Done, Failure>>) -> Result<Done, Failure> {
        let mut given_up = self.given_up.subscribe();
        let mut session = Box::pin(session);
        tokio::select! {
            result = &mut session => result,
            _ = given_up.wait_for(|given_up| *given_up) => {
                // Not dropped: who closes a file of a disk that hangs may hang too, and the process ends now.
                std::mem::forget(session);
                Err(stopping())
            }
        }
    }

    /// Whether there is room for what this client wants.
    fn let_in(&self, hello: &Hello, name: &[u8], grant: &Grant, origin: Origin) -> Result<(Visit, Lease), Failure> {
        check_hello(hello).map_err(|error| Failure::about(Kind::Protocol, name, error.to_string()))?;
        let visit = self.door.admit(grant, origin)?;
        let wanted = wanted_connections(hello, count(&self.mailboxes)).min(self.connections_max);
        let now_ms = now_ns() / 1_000_000;
        let answers = |at: usize| now_ms.saturating_sub(self.mailboxes[at].last_turn_ms()) < WORKER_SILENT_MS;
        let full = || {
            Failure::new(
                Kind::Busy,
                match (0..self.mailboxes.len()).any(answers) {
                    true => "has no room for another session now; try again later",
                    false => "waits for a disk that does not answer; try again later",
                },
            )
        };
        Ok((visit, self.room.take(wanted, random(), answers).ok_or_else(full)?))
    }

    /// What it came to.
    async fn session(
        &self,
        link: &mut Link,
        hello: &Hello,
        name: &[u8],
        grant: &Grant,
        (_visit, mut lease): (Visit, Lease),
        telling: &mut Telling<'_>,
    ) -> Result<Done, Failure> {
        let mut opened = self.open(hello, grant).await?;
        let welcome = self.welcome(hello, &opened, &lease, link.same_address());
        lease.settle(welcome.connections);
        let session = welcome.session;
        let _entry = self.formers.enter(session, grant.key, link.socket());
        let file = opened.source.as_ref().map(|source| source.facts().inode);
        let file = file.or_else(|| opened.target.as_ref().and_then(Target::inode));
        let result = self.begin(link, name, welcome, file).await;
        self.seats.borrow_mut().close(&session);
        let (welcome, sealing, seated) = match result {
            Ok(begun) => begun,
            Err(failure) => {
                if let Some(target) = opened.target.take() {
                    _ = tokio::task::spawn_blocking(move || target.abandon(false)).await;
                }
                return Err(failure);
            }
        };
        telling.sealing = Some(sealing);
        let sockets = seated.into_iter().map(|seated| seated.joined(Side::Server, sealing.cipher())).collect();
        let lied = |error: ProtocolError| Failure::about(Kind::Protocol, name, error.to_string());
        let agreed = agree(hello, &welcome).map_err(lied)?;
        let mut terms = agreed.terms;
        if !hello.options.whole_file {
            terms.basis_bytes = welcome.basis_bytes.unwrap_or(0);
        }
        let direct = if self.direct == DirectPolicy::Auto { hello.options.direct } else { self.direct };
        let names = Names {
            source: hello.path.clone(),
            target: opened.target.as_ref().map_or_else(Vec::new, |target| target.taken_path().to_vec()),
            peer: name.to_vec(),
            own: Vec::new(), // the client puts its own name of us before it
            target_is_here: opened.target.is_some(),
        };
        let (source, target, mut stop) = (opened.source.as_deref(), opened.target.as_ref(), self.stopped.clone());
        let (ends, _) = files::ends(source, target, &terms, direct, lease.workers.len(), &names, &mut stop).await;
        let own_workers = count(&lease.workers);
        let same_host = sealing.stays_on_host(link.same_address());
        let session = Session {
            terms,
            verify: hello.options.verify,
            again: hello.former.is_some(),
            metadata: welcome.source,
            ends,
            source: opened.source,
            target: opened.target,
            mailboxes: lease.workers.iter().map(|at| self.mailboxes[*at].clone()).collect(),
            sockets,
            link: Some(link),
            peer_workers: hello.workers.min(welcome.connections),
            same_host,
            at_once: Deal::at_once(welcome.connections, own_workers, hello.workers, sealing == Sealing::SameKernel),
            names,
            stop,
        };
        let driven = drive(session, &mut |_: Progress| {}).await;
        driven.failure.map_or(Ok(Done { changed_bytes: driven.counts.changed_bytes, limit: driven.limit }), Err)
    }

    /// Opens what the client names, its source or its target, if it may.
    async fn open(&self, hello: &Hello, grant: &Grant) -> Result<Opened, Failure> {
        let access = self.access.narrowed_by(&grant.access());
        let root = self.roots.get(&access.below).cloned().ok_or_else(|| {
            let text = "the directory of this key could not be served when the server started";
            Failure::about(Kind::Refused, &hello.path, text)
        })?;
        let (wanted, withheld) = (hello.clone(), self.withheld.clone());
        if wanted.source.is_none() {
            let source = blocking(move || {
                let source = Source::open(root, &wanted.path, &withheld);
                source.map_err(|error| error.of_source(&wanted.path))
            });
            return Ok(Opened { source: Some(ClosedAside::new(source.await?)), target: None });
        }
        access.admit_push(&wanted.path)?;
        let target = files::open_target(move || {
            let request = TargetRequest {
                root: root.clone(),
                path: &wanted.path,
                source_name: &wanted.source_name,
                source: None,
                withheld: &withheld,
                dry_run: wanted.options.dry_run,
                inplace: wanted.options.inplace,
                fsync: wanted.options.fsync,
            };
            Target::open(&request).map_err(|error| error.of_target(&wanted.path))
        });
        Ok(Opened { source: None, target: Some(target.await?) })
    }

    fn welcome(&self, hello: &Hello, opened: &Opened, lease: &Lease, same_address: bool) -> Welcome {
        let taken = opened.target.as_ref().is_some_and(|target| target.taken_path() != hello.path);
        let offer = Offer {
            session: random_bytes(),
            source: opened.source.as_ref().map(|source| source.facts().metadata()),
            basis_bytes: opened.target.as_ref().and_then(Target::basis_bytes),
            taken_name: if taken { hello.source_name.clone() } else { Vec::new() },
            workers: count(&lease.workers),
            same_address,
            connections_max: lease.connections,
            aes: has_aes(),
            plaintext: self.plaintext,
            cores: lease.workers.iter().filter_map(|at| self.cores.get(*at).copied()).collect(),
        };
        welcome(hello, offer)
    }

    /// Welcomes, and waits until the client says which of its data connections have joined.
    async fn begin(
        &self,
        link: &mut Link,
        name: &[u8],
        welcome: Welcome,
        file: Option<Inode>,
    ) -> Result<(Welcome, Sealing, Vec<Seated>), Failure> {
        let unready = || Failure::new(Kind::Protocol, "TLS has no secret to share");
        let secret = link.secret().ok_or_else(unready)?;
        let rendezvous = if link.is_near() { Rendezvous::new(secret.clone(), file).ok() } else { None };
        self.seats.borrow_mut().open(welcome.session, secret, welcome.connections);
        link.send(&Message::Welcome(welcome.clone()));
        let begin = hear_begin(link, name, rendezvous, welcome.cipher.is_some()).await?;
        let admitted = self.admitted(&welcome, &begin.joined);
        let sockets = tokio::time::timeout(Duration::from_millis(HELLO_MS), admitted).await;
        let sockets = sockets.ok().flatten().filter(|sockets| !sockets.is_empty() || welcome.connections == 0);
        let sockets = sockets
            .ok_or_else(|| Failure::new(Kind::Protocol, "a Begin names connections that have not joined, or none"))?;
        let sealing = Sealing::agreed(welcome.cipher, begin.sealed);
        Ok((welcome, sealing, sockets))
    }

    /// The sockets of these connections, once those under way are in. `None`: some never asked to join.
    async fn admitted(&self, welcome: &Welcome, joined: &[u32]) -> Option<Vec<Seated>> {
        loop {
            let arrived = self.arrived.notified();
            if let Poll::Ready(seated) = self.seats.borrow_mut().take(&welcome.session, joined) {
                return seated;
            }
            arrived.await;
        }
    }
}

/// The client's Begin, if it may say so: where there is a cipher, that nothing is sealed only if we have met in one kernel.
async fn hear_begin(
    link: &mut Link,
    name: &[u8],
    rendezvous: Option<Rendezvous>,
    has_cipher: bool,
) -> Result<Begin, Failure> {
    let lie = |text: &str| Err(Failure::new(Kind::Protocol, text));
    let met = async {
        match rendezvous {
            Some(rendezvous) => rendezvous.met().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(met);
    let mut same_kernel = false;
    let said = {
        let said = link.receive_within(BEGIN_MS);
        tokio::pin!(said);
        loop {
            tokio::select! {
                biased;
                () = &mut met, if !same_kernel => same_kernel = true,
                said = &mut said => break said,
            }
        }
    };
    let begin = match said {
        Ok(Message::Begin(begin)) => begin,
        Ok(Message::Failed(failure)) => return Err(failure.told_by(name)),
        Ok(_) => return lie("a Begin was expected"),
        Err(error) => return Err(Failure::new(error.kind(), error.to_string())),
    };
    if begin.sealed && !has_cipher {
        return lie("a Begin wants frames sealed without a cipher");
    }
    if !begin.sealed && has_cipher && !same_kernel {
        // The client knows first that they have met, and its Begin may overtake our own thread's word.
        let met = tokio::time::timeout(Duration::from_millis(NEIGHBOUR_MS), met).await;
        if met.is_err() {
            return lie("a Begin wants nothing sealed, and nothing proves that nobody listens");
        }
    }
    if !begin.joined.is_sorted_by(|one, next| one < next) {
        return lie("a Begin names connections twice, or not in order");
    }
    Ok(begin)
}
