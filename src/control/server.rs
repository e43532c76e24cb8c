//! The serving side: listens, finds out who calls, serves sessions, forgets them.
//!
//! Every session is a task of its own; a lie or a failure costs that session and no other. Workers belong to the process
//! and serve all of them.

use super::access::{Access, second_walls};
use super::audit::Audit;
use super::client::{Stop, blocking};
use super::crew::{Crew, Plan, random};
use super::dial::Seated;
use super::door::{Door, Origin, Stranger, Visit};
use super::drive::{Session, drive};
use super::identity::{Fingerprint, Grant, Roots, ServerIdentity};
use super::link::{self, Caller, DataSocket, Link, LinkError, identify, random_bytes};
use super::listen::Listeners;
use super::neighbour::Rendezvous;
use super::notify::{self, Count};
use super::room::{Lease, Room};
use super::seats::{NoSeat, Seats};
use super::signals::Signals;
use super::teller::Teller;
use super::user::become_user;
use super::{Done, Names, Progress, Record, Request, ServeConfig, Summary, Watch, count, files};
use crate::completion::{DirectPolicy, Errno};
use crate::extent::Deal;
use crate::failure::{Failure, Kind};
use crate::limits::{
    ACCEPT_PAUSE_MS, BEGIN_MS, GOODBYE_MS, GRACE_MS, HELLO_MS, NEIGHBOUR_MS, STRANGERS_MAX, WORKER_BUFFER_BYTES,
};
use crate::ring::Ring;
use crate::root::{Source, Target, TargetRequest, Withheld, raise_wall};
use crate::seal::{Sealing, Side, has_aes};
use crate::session::ProtocolError;
use crate::session::handshake::{Offer, agree, check_hello, wanted_connections, welcome};
use crate::wire::{FailureMessage, Hello, Join, Message, Welcome};
use crate::worker::inbox::Mailbox;
use rustls::ServerConfig;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch as told};

/// Descriptors that a stranger costs at most: the socket, a handle to end it by, one of TLS's own.
const DESCRIPTORS_PER_STRANGER: usize = 3;

/// Serves until it is asked to stop. What went wrong is in the summary; being asked to stop is not wrong. `last_words` takes it
/// where there is no way back: something hangs in the kernel, a disk for example, there is no waiting for that, and the process
/// ends here.
pub fn serve(config: ServeConfig, watch: Box<dyn Watch + Send>, last_words: &mut dyn FnMut(&Summary)) -> Summary {
    let began = Instant::now();
    let summary = |failure: Option<Failure>| Summary {
        failures: failure.into_iter().collect(),
        elapsed_seconds: began.elapsed().as_secs_f64(),
        ..Summary::default()
    };
    let hangs = || last_words(&summary(None));
    summary(link::run(listen_and_serve(config, watch, hangs)).and_then(|result| result).err())
}

async fn listen_and_serve(
    config: ServeConfig,
    watch: Box<dyn Watch + Send>,
    hangs: impl FnOnce(),
) -> Result<(), Failure> {
    let plan = Plan::new(&config.workers)?;
    let strangers = strangers_max(allow_descriptors());
    let identity = ServerIdentity::load(config.key_file.as_deref())?;
    // All that needs rights which are given up below, or is outside of what is served.
    let listeners = Listeners::open(&config.listen)?;
    let audit = config.audit_log.as_deref().map(Audit::open).transpose()?;
    let withheld = Withheld::new(identity.files().into_iter().chain(config.audit_log.clone()).collect());
    let root = config.served.open()?;
    let (mut roots, shut) = identity.roots(&root);
    roots.insert(Vec::new(), root.clone());
    if let Some(user) = &config.run_as {
        become_user(user)?;
    }
    let (walled, read_only) = (root.clone(), config.access.read_only);
    let crew = Crew::start(&plan, plan.count, move || raise_wall(&walled, read_only))?;
    let wall = raise_wall(&root, read_only);
    if !crew.all_behind(wall) {
        return Err(Failure::new(Kind::Other, format!("workers are not as confined as they should be: {wall}")));
    }
    let no_thread = |error| Failure::new(Kind::Other, format!("no thread to tell of anything: {error}"));
    let teller = Teller::start(watch, audit).map_err(no_thread)?;
    teller.warn(config.access.start_line(&config.served, config.run_as.as_deref()));
    second_walls(&root, wall, plan.restricted).into_iter().for_each(|line| teller.detail(line));
    let mib = (u64::from(plan.count) * WORKER_BUFFER_BYTES as u64) >> 20;
    teller.detail(format!("workers: {}, on cores {:?}; buffers: {mib} MiB, fixed", plan.count, crew.cores()));
    if let Some(path) = identity.made() {
        let path = path.display();
        teller.warn(format!("made a key: {path}; copy it to the same place on hosts that are to be let in"));
    }
    if config.plaintext {
        teller.warn("warning: what clients with --plaintext send and get can be read and changed on the way");
    }
    identity.doors().into_iter().for_each(|line| teller.detail(line));
    shut.iter().for_each(|failure| teller.warn(format!("warning: {failure}")));
    if strangers < STRANGERS_MAX {
        teller.warn(format!(
            "warning: so few files may be open that {strangers} callers at most can be met at a time, not {STRANGERS_MAX}; \
             raise 'ulimit -n' or LimitNOFILE= to {}",
            STRANGERS_MAX * DESCRIPTORS_PER_STRANGER
        ));
    }
    let (stop, stopped) = told::channel(None);
    let server = Rc::new(Server {
        roots,
        access: config.access,
        direct: config.direct,
        plaintext: config.plaintext,
        tls: identity.server_config(),
        identity,
        connections_max: config.connections_max,
        mailboxes: crew.mailboxes().to_vec(),
        cores: crew.cores().to_vec(),
        withheld,
        seats: RefCell::default(),
        arrived: Notify::new(),
        door: Rc::new(Door::new(strangers)),
        room: Rc::new(Room::new(crew.mailboxes().len())),
        count: told::Sender::default(),
        stopped,
        teller,
    });
    let mut signals = Signals::new().map_err(|error| Failure::new(Kind::Other, error.to_string()))?;
    listeners.addresses().into_iter().for_each(|address| server.teller.listening(address));
    if let Err(error) = notify::ready() {
        server.teller.warn(format!("warning: systemd cannot be told that this server is ready: {error}"));
    }
    link::spawn(notify::keep_told(server.count.subscribe()));
    let mut accepts = true;
    let number = loop {
        tokio::select! {
            accepted = async { server.door.room().await; listeners.accept().await } => {
                let greeted = accepted.and_then(|(socket, peer)| server.greet(socket, peer));
                if let Err(error) = greeted {
                    if accepts {
                        let error = Errno::from(error);
                        server.teller.warn(format!("cannot accept connections: {error}; may more files be open (ulimit -n)?"));
                    }
                    accepts = false;
                    // Sessions that end, and strangers who are turned out, give descriptors back.
                    tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                } else {
                    accepts = true;
                }
            },
            number = signals.next() => break number,
        }
    };
    drop(listeners);
    notify::stopping();
    let all_gone = server.finish(number, &stop, &mut signals).await;
    server.teller.end();
    if !all_gone {
        hangs();
        std::process::exit(0);
    }
    Ok(())
}

/// As many descriptors as the system lets us have: shells give their children few, for programs that cannot count beyond.
/// How many that is; `None`: no bound.
fn allow_descriptors() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }); // refused: fewer are accepted at a time
    getrlimit(Resource::Nofile).current
}

/// How many strangers there may be, with so many descriptors, a quarter of which is left to others.
fn strangers_max(descriptors: Option<u64>) -> usize {
    let descriptors = descriptors.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    (descriptors / 4 * 3 / DESCRIPTORS_PER_STRANGER).clamp(1, STRANGERS_MAX)
}

/// What all sessions share.
#[derive(Debug)]
struct Server {
    /// Where paths begin: all that is served, and the directories of those who have one of their own.
    roots: Roots,
    access: Access,
    direct: DirectPolicy,
    plaintext: bool,
    identity: ServerIdentity,
    tls: Arc<ServerConfig>,
    connections_max: u32,
    mailboxes: Vec<Mailbox<Ring>>,
    cores: Vec<u32>,
    /// Files of our own.
    withheld: Withheld,
    /// Of sessions that were welcomed.
    seats: RefCell<Seats<Seated>>,
    /// Some seat was settled.
    arrived: Notify,
    door: Rc<Door>,
    room: Rc<Room>,
    count: told::Sender<Count>,
    stopped: told::Receiver<Stop>,
    teller: Teller,
}

/// One session that runs, until this is dropped: also if its task panics.
struct Running<'a>(&'a Server);

impl<'a> Running<'a> {
    fn enter(server: &'a Server) -> Self {
        server.count.send_modify(|count| count.running += 1);
        Self(server)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.count.send_modify(|count| count.running -= 1);
    }
}

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
    source: Option<Source>,
    target: Option<Target>,
}

impl Server {
    /// Finds out who calls, within a time, and serves them.
    fn greet(self: &Rc<Self>, socket: tokio::net::TcpStream, peer: SocketAddr) -> io::Result<()> {
        let socket = socket.into_std()?;
        let handle = socket.try_clone()?;
        let stranger = self.door.enter(Origin::from(peer.ip()), handle);
        let server = Rc::clone(self);
        link::spawn(async move {
            if socket.set_nonblocking(false).is_err() || stranger.penance().await.is_none() {
                return;
            }
            match stranger.patience(identify(socket, Arc::clone(&server.tls))).await.flatten() {
                Some(Caller::Control(link)) => server.serve(link, peer, stranger).await,
                Some(Caller::Data(join, socket)) => server.seat(join, socket, peer).await,
                None => {}
            }
        });
        Ok(())
    }

    /// Asked to stop: lets sessions finish within a grace time, then ends them. A second signal ends the program at once.
    /// Whether all have ended.
    async fn finish(&self, number: i32, stop: &told::Sender<Stop>, signals: &mut Signals) -> bool {
        let mut count = self.count.subscribe();
        let gone = count.wait_for(|count| count.running == 0);
        tokio::pin!(gone);
        let grace = tokio::time::sleep(Duration::from_millis(GRACE_MS));
        tokio::select! {
            _ = &mut gone => return true,
            () = grace => {}
            second = signals.next() => std::process::exit(128 + second),
        }
        let failure = Failure::new(Kind::Interrupted, "the server is stopping; try again when it is back");
        _ = stop.send(Some((failure, number)));
        tokio::select! {
            _ = &mut gone => true,
            () = tokio::time::sleep(Duration::from_millis(2 * GOODBYE_MS)) => false,
            second = signals.next() => std::process::exit(128 + second),
        }
    }

    /// A data connection wants to join.
    async fn seat(&self, join: Join, socket: DataSocket, peer: SocketAddr) {
        let began = Instant::now();
        let claimed = self.seats.borrow_mut().claim(&join, &socket.challenge);
        let secret = match claimed {
            Ok(secret) => secret,
            Err(NoSeat::Unproven) => {
                self.door.blame(Origin::from(peer.ip()));
                let text = "a data connection has not proved that it belongs to its session";
                return self.refused(peer, began, None, Failure::new(Kind::Refused, text));
            }
            Err(NoSeat::Unknown | NoSeat::Taken) => return,
        };
        let number = join.number;
        let admitted = socket.admit(&secret.proof(Side::Server)).await;
        let seated = admitted.map(|socket| Seated { number, socket, secret });
        self.seats.borrow_mut().settle(&join.session, number, seated);
        self.arrived.notify_waiters();
    }

    /// One session, from Hello to goodbye.
    async fn serve(&self, mut link: Link, peer: SocketAddr, stranger: Stranger) {
        let began = Instant::now();
        let name = peer_name(peer);
        let Some(said) = stranger.patience(link.receive()).await else { return };
        let origin = stranger.origin;
        let mut stranger = Some(stranger); // for as long as nothing else bounds how many there are
        let _running = Running::enter(self);
        match said {
            Ok(Message::Hello(hello)) => {
                match link.about_peer(|tls| self.identity.grant(tls, peer.ip().to_canonical())) {
                    Ok(grant) => self.visit(&mut link, peer, began, &hello, &grant, &mut stranger).await,
                    Err(denied) => {
                        let told = Failure::new(Kind::Refused, "does not let this user in; who runs it can say why");
                        link.send(&Message::Failed(FailureMessage::new(told, &name)));
                        self.refused(peer, began, denied.key, Failure::about(Kind::Refused, &name, denied.text));
                    }
                }
            }
            said => {
                if matches!(&said, Err(LinkError::Tls(error)) if error.is_failed_proof()) {
                    self.door.blame(origin);
                }
                let failure = said.map_or_else(
                    |error| Failure::new(error.kind(), error.to_string()),
                    |_| Failure::new(Kind::Protocol, "a Hello was expected"),
                );
                link.send(&Message::Failed(FailureMessage::new(failure.clone(), &name)));
                // Who says nothing, or goes away, is nobody.
                if matches!(failure.kind, Kind::Protocol | Kind::Refused) {
                    self.refused(peer, began, None, failure);
                }
            }
        }
        match stranger {
            Some(stranger) => _ = stranger.patience(link.close(GOODBYE_MS)).await,
            None => _ = link.close(GOODBYE_MS).await,
        }
    }

    /// A client that may have a session has one, if there is room.
    async fn visit(
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
        let result = match self.let_in(hello, &name, grant, Origin::from(peer.ip())) {
            Ok(inside) => {
                *stranger = None;
                self.session(link, hello, &name, grant, inside, &mut telling).await
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &result {
            link.send(&Message::Failed(FailureMessage::new(failure.clone(), &name)));
        }
        self.count.send_modify(|count| count.ended += 1);
        telling.tell(result);
    }

    /// Whether there is room for what this client wants.
    fn let_in(&self, hello: &Hello, name: &[u8], grant: &Grant, origin: Origin) -> Result<(Visit, Lease), Failure> {
        check_hello(hello).map_err(|error| Failure::about(Kind::Protocol, name, error.to_string()))?;
        let visit = self.door.admit(grant, origin)?;
        let wanted = wanted_connections(hello, count(&self.mailboxes)).min(self.connections_max);
        let full = || Failure::new(Kind::Busy, "has no room for another session now; try again later");
        Ok((visit, self.room.take(wanted, random()).ok_or_else(full)?))
    }

    /// Somebody was not let in, who may have proved to have this key.
    fn refused(&self, peer: SocketAddr, began: Instant, key: Option<Fingerprint>, failure: Failure) {
        self.teller.refused(Record { key, ..Record::new(peer, began, Err(failure)) });
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
        let result = self.begin(link, name, welcome).await;
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
        let (ends, _) = files::ends(opened.source.as_ref(), opened.target.as_ref(), welcome.source.bytes, direct);
        let names = Names {
            source: hello.path.clone(),
            target: opened.target.as_ref().map_or_else(Vec::new, |target| target.taken_path().to_vec()),
            peer: name.to_vec(),
            own: Vec::new(), // the client puts its own name of us before it
            target_is_here: opened.target.is_some(),
        };
        let own_workers = count(&lease.workers);
        let session = Session {
            terms,
            verify: hello.options.verify,
            metadata: welcome.source,
            ends,
            source: opened.source,
            target: opened.target,
            mailboxes: lease.workers.iter().map(|at| self.mailboxes[*at].clone()).collect(),
            sockets,
            link: Some(link),
            peer_workers: hello.workers.min(welcome.connections),
            at_once: Deal::at_once(welcome.connections, own_workers, hello.workers, sealing == Sealing::SameKernel),
            names,
            stop: self.stopped.clone(),
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
            return Ok(Opened { source: Some(source.await?), target: None });
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
    ) -> Result<(Welcome, Sealing, Vec<Seated>), Failure> {
        let unready = || Failure::new(Kind::Protocol, "TLS has no secret to share");
        let secret = link.secret().ok_or_else(unready)?;
        let rendezvous = if link.same_address() { Rendezvous::new(secret.clone()).ok() } else { None };
        self.seats.borrow_mut().open(welcome.session, secret, welcome.connections);
        link.send(&Message::Welcome(welcome.clone()));
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
            Ok(_) => return Err(Failure::new(Kind::Protocol, "a Begin was expected")),
            Err(error) => return Err(Failure::new(error.kind(), error.to_string())),
        };
        if begin.sealed && welcome.cipher.is_none() {
            return Err(Failure::new(Kind::Protocol, "a Begin wants frames sealed without a cipher"));
        }
        if !begin.sealed && welcome.cipher.is_some() && !same_kernel {
            // The client knows first that they have met, and its Begin may overtake our own thread's word.
            let met = tokio::time::timeout(Duration::from_millis(NEIGHBOUR_MS), met).await;
            let text = "a Begin wants nothing sealed, and nothing proves that nobody listens";
            met.map_err(|_| Failure::new(Kind::Protocol, text))?;
        }
        if !begin.joined.is_sorted_by(|one, next| one < next) {
            return Err(Failure::new(Kind::Protocol, "a Begin names connections twice, or not in order"));
        }
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

fn peer_name(peer: SocketAddr) -> Vec<u8> {
    SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string().into_bytes()
}
