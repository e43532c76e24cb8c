//! The asking side: one copy, told from its first step to its last.

use super::crew::{Crew, Plan};
use super::dial::Seated;
use super::drive::{Ending, Session, drive};
use super::files::ClosedAside;
use super::identity::ClientIdentity;
use super::link::{self, Link, LinkError, before_welcome};
use super::signals::Signals;
use super::{CopyConfig, Direction, Names, Place, Progress, Remote, Summary, Watch, dial, files, neighbour};
use crate::entry::Metadata;
use crate::extent::{Deal, Layout};
use crate::failure::{Failure, Kind};
use crate::limits::{GOODBYE_MS, HELD_MS, REDIAL_PAUSE_MS, REDIAL_PAUSES_MS, WELCOME_MS, WORKER_BUFFER_BYTES};
use crate::root::{Inode, NOTHING_WITHHELD, Root, RootError, Source, Target, TargetRequest, Wall, last_name};
use crate::seal::{Sealing, Side, has_aes};
use crate::session::handshake::{Agreed, agree};
use crate::session::{PROGRAM, Terms};
use crate::wire::{Begin, FailureMessage, Hello, Message, Options, SessionId, Welcome};
use crate::worker::inbox::Joined;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};
use tokio::sync::watch as told;

/// Makes one copy. Never fails itself: what went wrong is in the summary.
pub fn copy(config: CopyConfig, watch: &mut dyn Watch) -> Summary {
    let began = Instant::now();
    let mut copy = Copying::new(config);
    let run = async { copy.run(watch, until_signalled()?).await };
    let failure = link::run(run).and_then(|result| result).err();
    copy.end(failure, began)
}

/// The same as a part of something longer: inside a runtime, until told to stop.
pub(super) async fn copy_until(config: CopyConfig, watch: &mut dyn Watch, stopped: told::Receiver<Stop>) -> Summary {
    let began = Instant::now();
    let mut copy = Copying::new(config);
    let failure = copy.run(watch, stopped).await.err();
    copy.end(failure, began)
}

/// One copy on its way.
#[derive(Debug)]
struct Copying {
    config: CopyConfig,
    summary: Summary,
    target: Option<Target>,
    basis_bytes: Option<u64>,
    /// The session was lost, and may be dialled again.
    lost: bool,
    /// Whether sessions so far have changed anything about the target, as far as it is known.
    changed: Option<bool>,
    /// The last session that a server welcomed.
    former: Option<SessionId>,
}

/// The other end of a session, where it is not here.
struct Peer<'a> {
    link: &'a mut Link,
    /// Workers that it has for the session.
    workers: u32,
    /// It is on this host, as far as anybody knows.
    same_host: bool,
    /// Connections that take stripes at a time.
    at_once: u32,
}

/// A remote session that was agreed on.
#[derive(Debug)]
struct Remotely {
    link: Link,
    hello: Hello,
    welcome: Welcome,
    agreed: Agreed,
    seated: Vec<Seated>,
    sealing: Sealing,
    /// Both ends have the same address.
    same_address: bool,
    /// The server's file, where that is on this kernel.
    neighbours_file: Option<Inode>,
}

impl Copying {
    fn new(config: CopyConfig) -> Self {
        Self {
            summary: blank(&config),
            config,
            target: None,
            basis_bytes: None,
            lost: false,
            changed: Some(false),
            former: None,
        }
    }

    fn end(mut self, failure: Option<Failure>, began: Instant) -> Summary {
        self.summary.failures.extend(failure);
        self.summary.elapsed_seconds = began.elapsed().as_secs_f64();
        self.summary
    }

    async fn run(&mut self, watch: &mut dyn Watch, stopped: told::Receiver<Stop>) -> Result<(), Failure> {
        let mut result = self.attempt(watch, stopped.clone()).await;
        let (mut lost_at, mut pauses) = (Instant::now(), REDIAL_PAUSES_MS.into_iter());
        // A session that was lost is dialled again, and goes on: what is there already is the next one's basis. Whatever else is
        // told meanwhile is final.
        let may_pass = |failure: &&Failure| matches!(failure.kind, Kind::ConnectionLost | Kind::Busy);
        while let Some(failure) = result.as_ref().err().filter(may_pass).filter(|_| self.lost) {
            // A server that does not know yet that it was lost holds its target, and its place.
            let is_held = failure.kind == Kind::Busy && lost_at.elapsed() < Duration::from_millis(HELD_MS);
            let Some(pause_ms) = pauses.next().or(is_held.then_some(REDIAL_PAUSE_MS)) else { break };
            watch.warn(&format!("{failure}; dialling again in {} s", pause_ms / 1000));
            let pause = Duration::from_millis(pause_ms);
            let mut stop = stopped.clone();
            let again = tokio::select! {
                () = tokio::time::sleep(pause) => self.attempt(watch, stopped.clone()).await,
                failure = told_to_stop(&mut stop) => {
                    result = Err(failure);
                    break;
                }
            };
            match again.as_ref().map_err(|failure| failure.kind) {
                Err(Kind::Unreachable) => continue, // nobody there yet: what was lost is still the session
                Err(Kind::ConnectionLost) => lost_at = Instant::now(),
                _ => {}
            }
            result = again;
        }
        self.summary.signal = stopped.borrow().as_ref().map(|(_, signal)| *signal);
        result
    }

    async fn attempt(&mut self, watch: &mut dyn Watch, stopped: told::Receiver<Stop>) -> Result<(), Failure> {
        let result = self.copy(watch, stopped).await;
        if let Some(target) = self.target.take() {
            // It never got as far as being driven.
            _ = tokio::task::spawn_blocking(move || target.abandon(false)).await;
        }
        result
    }

    async fn copy(&mut self, watch: &mut dyn Watch, stopped: told::Receiver<Stop>) -> Result<(), Failure> {
        let plan = Plan::new(&self.config.workers)?;
        let mut stop = stopped.clone();
        match (self.config.source.clone(), self.config.target.clone()) {
            (Place::Local(source), Place::Local(target)) => {
                let source = unless_told(&mut stop, open_source(source.as_os_str().as_bytes())).await?;
                let metadata = source.facts().metadata();
                let name = last_name(&self.config.source_typed).unwrap_or_default().to_vec();
                watch.waiting("the target");
                let inode = Some(source.facts().inode);
                let opening = self.open_target(target.as_os_str().as_bytes().to_vec(), name, inode);
                unless_told(&mut stop, opening).await?;
                self.drive_locally(watch, stopped, plan, source, metadata).await
            }
            (Place::Local(source), Place::Remote(remote)) => {
                let source = unless_told(&mut stop, open_source(source.as_os_str().as_bytes())).await?;
                let metadata = source.facts().metadata();
                let connecting = self.connect(watch, &remote, &plan, Some(metadata));
                let connected = unless_told(&mut stop, connecting).await?;
                if connected.neighbours_file == Some(source.facts().inode) {
                    let failure = RootError::SameFile.of_target(&self.summary.target);
                    return Err(refuse(connected.link, &remote.name(), failure).await);
                }
                self.drive_remotely(watch, stopped, plan, &remote, connected, Some(source)).await
            }
            (Place::Remote(remote), Place::Local(target)) => {
                let connected = unless_told(&mut stop, self.connect(watch, &remote, &plan, None)).await?;
                let name = last_name(&remote.path).unwrap_or_default().to_vec();
                watch.waiting("the target");
                let theirs = connected.neighbours_file;
                let opening = self.open_target(target.as_os_str().as_bytes().to_vec(), name, theirs);
                if let Err(failure) = unless_told(&mut stop, opening).await {
                    return Err(refuse(connected.link, &remote.name(), failure).await);
                }
                self.drive_remotely(watch, stopped, plan, &remote, connected, None).await
            }
            (Place::Remote(_), Place::Remote(_)) => Err(Failure::new(Kind::Usage, "one of the two must be local")),
        }
    }

    /// Opens the local target, once the source is known to be there; which that is, where it is on this host.
    async fn open_target(&mut self, path: Vec<u8>, name: Vec<u8>, source: Option<Inode>) -> Result<(), Failure> {
        let (dry_run, inplace, fsync) = (self.config.dry_run, self.config.inplace, self.config.fsync);
        let opened = files::open_target(move || {
            let request = TargetRequest {
                root: Root::Typed,
                path: &path,
                source_name: &name,
                source,
                withheld: &NOTHING_WITHHELD,
                dry_run,
                inplace,
                fsync,
            };
            Target::open(&request).map_err(|error| error.of_target(&path))
        });
        let opened = opened.await?;
        self.summary.target = opened.taken_path().to_vec();
        self.basis_bytes = opened.basis_bytes();
        self.target = Some(opened);
        Ok(())
    }

    async fn drive_locally(
        &mut self,
        watch: &mut dyn Watch,
        stopped: told::Receiver<Stop>,
        plan: Plan,
        source: ClosedAside<Source>,
        metadata: Metadata,
    ) -> Result<(), Failure> {
        let hello = self.hello(Some(metadata), b"", &plan);
        let deal = Deal::new(metadata.bytes, plan.count, plan.count, plan.count, true);
        let layout = Layout::checked(metadata.bytes, self.config.block_size, deal.stripe_bytes);
        let layout = layout.ok_or_else(|| Failure::new(Kind::Source, "is longer than a file can be"))?;
        let terms = Terms { layout, method: hello.options.method, basis_bytes: 0, dry_run: hello.options.dry_run };
        let workers = plan.count.min(deal.connections).max(1);
        let names = Names {
            source: self.config.source_typed.clone(),
            target: self.summary.target.clone(),
            peer: Vec::new(),
            own: b"this pdcp".to_vec(),
            target_is_here: true,
        };
        let crew = self.crew(watch, &plan, workers, &deal.connections.to_string())?;
        let (sent, received) = (0, 0);
        let ending = self.drive(watch, stopped, &crew, terms, metadata, Some(source), Vec::new(), None, names).await;
        self.conclude(ending, metadata, sent, received)
    }

    async fn drive_remotely(
        &mut self,
        watch: &mut dyn Watch,
        stopped: told::Receiver<Stop>,
        plan: Plan,
        remote: &Remote,
        connected: Remotely,
        source: Option<ClosedAside<Source>>,
    ) -> Result<(), Failure> {
        let Remotely { mut link, hello, welcome, agreed, seated, sealing, same_address, .. } = connected;
        let sockets: Vec<_> = seated.into_iter().map(|seated| seated.joined(Side::Client, sealing.cipher())).collect();
        let workers = plan.count.min(agreed.connections).max(1);
        // Where there are fewer connections than workers, the last ones get none.
        let theirs = &welcome.cores[..welcome.cores.len().min(agreed.connections as usize)];
        let plan = if same_address { plan.beside(workers, theirs) } else { plan };
        let metadata = welcome.source;
        let joined = u64::try_from(sockets.len()).unwrap_or(0);
        let names = Names {
            source: self.summary.source.clone(),
            target: self.summary.target.clone(),
            peer: remote.name(),
            own: b"this pdcp".to_vec(),
            target_is_here: hello.source.is_none(),
        };
        let same_kernel = sealing == Sealing::SameKernel;
        let at_once = Deal::at_once(agreed.connections, workers, welcome.workers, same_kernel);
        let connections = match agreed.connections {
            connections if at_once < connections => format!("{connections}, {at_once} at a time"),
            connections => connections.to_string(),
        };
        let crew = match self.crew(watch, &plan, workers, &connections) {
            Ok(crew) => crew,
            Err(failure) => return Err(refuse(link, &remote.name(), failure).await),
        };
        let same_host = sealing.stays_on_host(same_address);
        let peer = Peer { link: &mut link, workers: welcome.workers.min(agreed.connections), same_host, at_once };
        let ending =
            self.drive(watch, stopped, &crew, agreed.terms, metadata, source, sockets, Some(peer), names).await;
        let bytes = link.close(GOODBYE_MS).await;
        let (sent, received) = dial::JOIN_BYTES;
        self.conclude(ending, metadata, bytes.sent + joined * sent, bytes.received + joined * received)
    }

    #[expect(clippy::too_many_arguments, reason = "what a session is made of, from two callers")]
    async fn drive(
        &mut self,
        watch: &mut dyn Watch,
        mut stopped: told::Receiver<Stop>,
        crew: &Crew,
        mut terms: Terms,
        metadata: Metadata,
        source: Option<ClosedAside<Source>>,
        sockets: Vec<Joined<OwnedFd>>,
        peer: Option<Peer<'_>>,
        names: Names,
    ) -> Ending {
        let target = self.target.take();
        if !self.config.whole_file {
            terms.basis_bytes = target.as_ref().and_then(Target::basis_bytes).unwrap_or(0);
        }
        let (of, to, workers) = (source.as_deref(), target.as_ref(), crew.mailboxes().len());
        let (ends, notes) = files::ends(of, to, &terms, self.config.direct, workers, &names, &mut stopped).await;
        notes.iter().for_each(|note| watch.detail(note));
        let same_host = peer.as_ref().is_none_or(|peer| peer.same_host);
        let (peer_workers, at_once) = peer.as_ref().map_or((0, 1), |peer| (peer.workers, peer.at_once));
        let session = Session {
            terms,
            verify: self.config.verify,
            again: self.lost,
            metadata,
            ends,
            source,
            target,
            mailboxes: crew.mailboxes().to_vec(),
            sockets,
            link: peer.map(|peer| peer.link),
            peer_workers,
            same_host,
            at_once,
            names,
            stop: stopped,
        };
        let ending = drive(session, &mut |progress: Progress| watch.progress(progress)).await;
        ending.notes.iter().for_each(|note| watch.detail(note));
        ending
    }

    fn crew(&self, watch: &mut dyn Watch, plan: &Plan, workers: u32, connections: &str) -> Result<Crew, Failure> {
        let crew = Crew::start(plan, workers, || Wall::NotWanted)?;
        if workers < plan.count {
            watch.detail(&format!("{workers} of {} workers: there is no more to share out", plan.count));
        }
        let cores = if crew.cores().is_empty() { "not pinned".into() } else { format!("on cores {:?}", crew.cores()) };
        let mib = (u64::from(workers) * WORKER_BUFFER_BYTES as u64) >> 20;
        watch.detail(&format!("workers: {workers}, {cores}; connections: {connections}; buffers: {mib} MiB, fixed"));
        Ok(crew)
    }

    /// Everything up to the moment when both sides can start.
    async fn connect(
        &mut self,
        watch: &mut dyn Watch,
        remote: &Remote,
        plan: &Plan,
        source: Option<Metadata>,
    ) -> Result<Remotely, Failure> {
        let peer = remote.name();
        let identity = ClientIdentity::load(self.config.key_file.as_deref())?;
        watch.waiting(&String::from_utf8_lossy(&peer));
        let (host, port) = (remote.host.clone(), remote.port);
        let socket = link::detached(move || dial::connect(&host, port)).await;
        let socket = socket.unwrap_or_else(|error| Err(format!("no thread to reach it by: {error}")));
        let socket = socket.map_err(|text| Failure::about(Kind::Unreachable, &peer, text))?;
        let address =
            socket.peer_addr().map_err(|error| Failure::about(Kind::Unreachable, &peer, error.to_string()))?;
        let same_address = link::same_address(&socket).unwrap_or(false);
        let is_near = link::is_near(&socket).unwrap_or(false);
        let config = identity.client_config(&remote.host, port);
        let link = Link::dial(socket, config);
        let mut link = link.map_err(|error| Failure::about(Kind::Unreachable, &peer, error.to_string()))?;
        let hello = self.hello(source, &remote.path, plan);
        link.send(&Message::Hello(hello.clone()));
        let welcome = match link.receive_within(WELCOME_MS).await {
            Ok(Message::Welcome(welcome)) => welcome,
            Ok(Message::Failed(failure)) => {
                link.close(GOODBYE_MS).await;
                self.lost &= failure.kind != Kind::Interrupted; // it will not be there for a while
                return Err(failure.told_by(&peer));
            }
            Ok(_) => return Err(Failure::about(Kind::Protocol, &peer, "a Welcome was expected")),
            Err(LinkError::Tls(error)) => return Err(identity.explain(&error, &remote.host, port, &peer)),
            Err(error) => return Err(before_welcome(&error, link.is_greeted(), &peer)),
        };
        if let Err(error) = link.about_peer(|tls| identity.confirm(tls)) {
            return Err(refuse(link, &peer, identity.explain(&error, &remote.host, port, &peer)).await);
        }
        let agreed = match agree(&hello, &welcome) {
            Ok(agreed) => agreed,
            Err(error) => {
                return Err(refuse(link, &peer, Failure::about(Kind::Protocol, &peer, error.to_string())).await);
            }
        };
        watch.detail(&format!("the server is {}; stripes of {} MiB", welcome.program, welcome.stripe_bytes >> 20));
        self.learn(&hello, &welcome);
        self.former = Some(welcome.session);
        let Some(secret) = link.secret() else {
            return Err(Failure::about(Kind::Protocol, &peer, "TLS has no secret to share"));
        };
        let (seated, last_error) = dial::join(address, welcome.session, &secret, agreed.connections).await;
        let missing = agreed.connections as usize - seated.len();
        if missing > 0 {
            let text = format!("{missing} of {} data connections could not be made: {last_error}", agreed.connections);
            if seated.is_empty() {
                return Err(refuse(link, &peer, Failure::about(Kind::ConnectionLost, &peer, text)).await);
            }
            watch.warn(&text);
        }
        // Looked for only where it can be: the server does the same.
        let meet = async || link::detached(move || neighbour::meet(&secret)).await.ok().flatten();
        let neighbour = if is_near { meet().await } else { None };
        let same_kernel = same_address && neighbour.is_some();
        let sealing = Sealing::agreed(welcome.cipher, !same_kernel);
        watch.detail(&match sealing {
            Sealing::Sealed(_) => format!("sealed with {}", sealing.name()),
            Sealing::SameKernel => "not sealed: the server runs on this very kernel".to_owned(),
            Sealing::Plaintext => "not sealed: --plaintext at both ends".to_owned(),
        });
        self.summary.sealing = Some(sealing);
        let joined = seated.iter().map(|seated| seated.number).collect();
        link.send(&Message::Begin(Begin { joined, sealed: sealing.cipher().is_some() }));
        let neighbours_file = neighbour.and_then(|neighbour| neighbour.file);
        Ok(Remotely { link, hello, welcome, agreed, seated, sealing, same_address, neighbours_file })
    }

    /// What Welcome says that the summary needs.
    fn learn(&mut self, hello: &Hello, welcome: &Welcome) {
        self.summary.source_bytes = Some(welcome.source.bytes);
        if hello.source.is_some() {
            self.basis_bytes = welcome.basis_bytes;
            if !welcome.taken_name.is_empty() {
                let mut target = self.config.target_typed.clone();
                if !target.ends_with(b"/") {
                    target.push(b'/');
                }
                target.extend_from_slice(&welcome.taken_name);
                self.summary.target = target;
            }
        }
    }

    fn hello(&self, source: Option<Metadata>, path: &[u8], plan: &Plan) -> Hello {
        let config = &self.config;
        let source_name = match source {
            Some(_) => last_name(&config.source_typed).unwrap_or_default().to_vec(),
            None => Vec::new(),
        };
        Hello {
            program: PROGRAM.into(),
            source,
            path: path.to_vec(),
            source_name,
            options: Options {
                block_bytes: config.block_size.bytes(),
                method: config.method,
                whole_file: config.whole_file,
                dry_run: config.dry_run,
                verify: config.verify,
                inplace: config.inplace,
                fsync: config.fsync,
                direct: config.direct,
            },
            connections: config.connections.unwrap_or(0),
            workers: plan.count,
            aes: has_aes(),
            plaintext: config.plaintext,
            former: self.former,
        }
    }

    /// Puts into the summary how it ended.
    fn conclude(&mut self, ending: Ending, source: Metadata, sent: u64, received: u64) -> Result<(), Failure> {
        let counts = ending.counts;
        // Seen here or told by the peer: where both ends lose it, it is chance who speaks first.
        // Dialled again, it may find that the lost one still has what it needs.
        let lost = match ending.failure.as_ref().map(|failure| failure.kind) {
            Some(Kind::ConnectionLost) => true,
            Some(Kind::Busy) => self.lost,
            _ => false,
        };
        self.lost = lost && !ending.peer_stopped;
        self.changed = match (self.changed, ending.changed) {
            (Some(false), now) => now,
            (None, now) => now.filter(|changed| *changed),
            (Some(true), _) => Some(true),
        };
        let (sent_before, received_before) = (self.summary.wire_sent_bytes, self.summary.wire_received_bytes);
        let compared = self.basis_bytes.is_some() && !self.config.whole_file;
        self.summary = Summary {
            source_bytes: Some(source.bytes),
            source_mtime: (!source.device_node).then_some(source.mtime),
            matched_bytes: Some(counts.matched_bytes),
            changed_bytes: Some(counts.changed_bytes),
            hole_bytes: Some(counts.hole_bytes),
            changed_blocks: Some(counts.changed_blocks),
            wire_sent_bytes: Some(sent_before.unwrap_or(0) + sent + ending.wire_bytes.0),
            wire_received_bytes: Some(received_before.unwrap_or(0) + received + ending.wire_bytes.1),
            similarity: compared.then(|| similarity(counts.matched_bytes, source.bytes)),
            changed: self.changed,
            kept: ending.kept,
            digest: ending.digest,
            verified: ending.proven && ending.failure.is_none(),
            read_back: counts.read_back,
            limit: ending.limit,
            ..std::mem::take(&mut self.summary)
        };
        ending.failure.map_or(Ok(()), Err)
    }
}

/// What is known of a copy before its first step.
pub(super) fn blank(config: &CopyConfig) -> Summary {
    let direction = match (&config.source, &config.target) {
        (Place::Local(_), Place::Local(_)) => Direction::Local,
        (Place::Local(_), Place::Remote(_)) => Direction::Push,
        (Place::Remote(_), _) => Direction::Pull,
    };
    Summary {
        direction: Some(direction),
        dry_run: Some(config.dry_run),
        source: config.source_typed.clone(),
        target: config.target_typed.clone(),
        ..Summary::default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share for people")]
fn similarity(matched_bytes: u64, source_bytes: u64) -> f64 {
    if source_bytes == 0 { 1.0 } else { matched_bytes as f64 / source_bytes as f64 }
}

/// Somebody asks us to stop: why, and the signal.
pub(super) type Stop = Option<(Failure, i32)>;

/// Signals are heeded from now on: the first stops the copy and leaves it resumable; the second, or one that comes when there
/// is nothing to stop any more, ends the program at once.
pub(super) fn until_signalled() -> Result<told::Receiver<Stop>, Failure> {
    let (stop, stopped) = told::channel(None);
    let heed = move |number| {
        let is_second = stop.borrow().is_some();
        if is_second || stop.send(Some((Failure::new(Kind::Interrupted, "interrupted"), number))).is_err() {
            std::process::exit(128 + number);
        }
    };
    Signals::each(heed).map_err(|error| Failure::new(Kind::Other, error.to_string()))?;
    Ok(stopped)
}

pub(super) async fn told_to_stop(stop: &mut told::Receiver<Stop>) -> Failure {
    loop {
        if let Some((failure, _)) = &*stop.borrow_and_update() {
            return failure.clone();
        }
        if stop.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What `work` comes to, unless somebody asks us to stop before.
async fn unless_told<T>(
    stop: &mut told::Receiver<Stop>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        result = work => result,
        failure = told_to_stop(stop) => Err(failure),
    }
}

async fn open_source(path: &[u8]) -> Result<ClosedAside<Source>, Failure> {
    let subject = path.to_vec();
    let path = subject.clone();
    let opened = blocking(move || Source::open(Root::Typed, &path, &NOTHING_WITHHELD)).await;
    opened.map(ClosedAside::new).map_err(|error| error.of_source(&subject))
}

pub(super) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(call).await.expect("a blocking call does not panic")
}

/// Tells the server of this name why it goes no further, and ends the link.
async fn refuse(link: Link, peer: &[u8], failure: Failure) -> Failure {
    link.send(&Message::Failed(FailureMessage::new(failure.clone(), peer)));
    link.close(GOODBYE_MS).await;
    failure
}

impl Remote {
    /// `host:port`, for people.
    fn name(&self) -> Vec<u8> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{host}:{}", self.port).into_bytes()
    }
}
