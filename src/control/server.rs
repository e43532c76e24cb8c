//! The serving side: listens, finds out who calls, serves sessions, forgets them.
//!
//! Every session is a task of its own; a lie or a failure costs that session and no other. Workers belong to the process
//! and serve all of them.

mod visit;

use super::access::{Access, second_walls};
use super::audit::Audit;
use super::client::Stop;
use super::crew::{Crew, Plan};
use super::dial::Seated;
use super::door::{Door, Origin, Stranger};
use super::former::Formers;
use super::identity::{Fingerprint, Roots, ServerIdentity};
use super::link::{self, Caller, DataSocket, Link, LinkError, identify};
use super::listen::Listeners;
use super::notify::{self, Count};
use super::room::Room;
use super::seats::{NoSeat, Seats};
use super::signals::Signals;
use super::teller::Teller;
use super::user::become_user;
use super::{Record, ServeConfig, Summary, Watch};
use crate::completion::{DirectPolicy, Errno};
use crate::failure::{Failure, Kind};
use crate::limits::{ACCEPT_PAUSE_MS, GOODBYE_MS, GRACE_MS, STRANGERS_MAX, WORKER_BUFFER_BYTES};
use crate::ring::Ring;
use crate::root::{Root, Wall, Withheld, raise_wall};
use crate::seal::Side;
use crate::wire::{FailureMessage, Join, Message};
use crate::worker::inbox::Mailbox;
use rustls::ServerConfig;
use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch as told};

/// Descriptors that a stranger costs at most: the socket, a handle to end it by, one of TLS's own.
const DESCRIPTORS_PER_STRANGER: usize = 3;

/// Serves until it is asked to stop. What went wrong is in the summary; being asked to stop is not wrong. `last_words` takes it
/// where there is no way back, and says the exit code: something hangs in the kernel, a disk for example, there is no waiting
/// for that, and the process ends here.
pub fn serve(config: ServeConfig, watch: Box<dyn Watch + Send>, last_words: &mut dyn FnMut(&Summary) -> u8) -> Summary {
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
    hangs: impl FnOnce() -> u8,
) -> Result<(), Failure> {
    let (mut prepared, listeners) = Prepared::new(&config)?;
    if let Some(user) = &config.run_as {
        become_user(user)?;
    }
    // Whether SIGHUP is ignored is read where no wall lets anybody in.
    let mut signals = Signals::new().map_err(|error| Failure::new(Kind::Other, error.to_string()))?;
    let (crew, wall) = prepared.start_workers(config.access.read_only)?;
    let no_thread = |error| Failure::new(Kind::Other, format!("no thread to tell of anything: {error}"));
    let teller = Teller::start(watch, prepared.audit.take()).map_err(no_thread)?;
    prepared.tell(&config, &crew, wall, &teller);
    let (stop, stopped) = told::channel(None);
    let server = Rc::new(Server::new(&config, prepared, &crew, teller, stopped));
    listeners.addresses().into_iter().for_each(|address| server.teller.listening(address));
    if let Err(error) = notify::ready() {
        server.teller.warn(format!("warning: systemd cannot be told that this server is ready: {error}"));
    }
    link::spawn(notify::keep_told(server.count.subscribe()));
    let number = tokio::select! {
        never = server.accept_all(&listeners) => match never {},
        number = signals.next() => number,
    };
    drop(listeners);
    notify::stopping();
    let all_gone = server.finish(number, &stop, &mut signals).await;
    server.teller.end();
    if !all_gone {
        std::process::exit(hangs().into());
    }
    Ok(())
}

/// All that needs rights which are given up afterwards, or is outside of what is served.
struct Prepared {
    plan: Plan,
    strangers: usize,
    identity: ServerIdentity,
    audit: Option<Audit>,
    withheld: Withheld,
    root: Root,
    roots: Roots,
    /// Directories of keys that cannot be served.
    shut: Vec<Failure>,
}

impl Prepared {
    fn new(config: &ServeConfig) -> Result<(Self, Listeners), Failure> {
        let plan = Plan::new(&config.workers)?;
        let strangers = strangers_max(allow_descriptors());
        let identity = ServerIdentity::load(config.key_file.as_deref())?;
        let listeners = Listeners::open(&config.listen)?;
        let audit = config.audit_log.as_deref().map(Audit::open).transpose()?;
        let withheld = Withheld::new(identity.files().into_iter().chain(config.audit_log.clone()).collect());
        let root = config.served.open()?;
        let (mut roots, shut) = identity.roots(&root);
        roots.insert(Vec::new(), root.clone());
        Ok((Self { plan, strangers, identity, audit, withheld, root, roots, shut }, listeners))
    }

    /// Workers, and this thread, behind the same wall.
    fn start_workers(&self, read_only: bool) -> Result<(Crew, Wall), Failure> {
        let root = self.root.clone();
        let crew = Crew::start(&self.plan, self.plan.count, move || raise_wall(&root, read_only))?;
        let wall = raise_wall(&self.root, read_only);
        if !crew.all_behind(wall) {
            return Err(Failure::new(Kind::Other, format!("workers are not as confined as they should be: {wall}")));
        }
        Ok((crew, wall))
    }

    /// Says at the start what is served, and how.
    fn tell(&self, config: &ServeConfig, crew: &Crew, wall: Wall, teller: &Teller) {
        let Self { plan, strangers, identity, root, shut, .. } = self;
        teller.warn(config.access.start_line(&config.served, config.run_as.as_deref()));
        second_walls(root, wall, plan.restricted).into_iter().for_each(|line| teller.detail(line));
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
        if *strangers < STRANGERS_MAX {
            teller.warn(format!(
                "warning: so few files may be open that {strangers} callers at most can be met at a time, not \
                 {STRANGERS_MAX}; raise 'ulimit -n' or LimitNOFILE= to {}",
                STRANGERS_MAX * DESCRIPTORS_PER_STRANGER
            ));
        }
    }
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
    formers: Formers,
    door: Rc<Door>,
    room: Rc<Room>,
    count: told::Sender<Count>,
    stopped: told::Receiver<Stop>,
    /// Sessions are waited for no longer.
    given_up: told::Sender<bool>,
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

impl Server {
    fn new(
        config: &ServeConfig,
        prepared: Prepared,
        crew: &Crew,
        teller: Teller,
        stopped: told::Receiver<Stop>,
    ) -> Self {
        let Prepared { strangers, identity, withheld, roots, .. } = prepared;
        Self {
            roots,
            access: config.access.clone(),
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
            formers: Formers::default(),
            door: Rc::new(Door::new(strangers)),
            room: Rc::new(Room::new(crew.mailboxes().len())),
            count: told::Sender::default(),
            stopped,
            given_up: told::Sender::default(),
            teller,
        }
    }

    /// Lets in whoever comes, for ever.
    async fn accept_all(self: &Rc<Self>, listeners: &Listeners) -> Infallible {
        let mut accepts = true;
        loop {
            self.door.room().await;
            let accepted = listeners.accept().await;
            let Err(error) = accepted.and_then(|(socket, peer)| self.greet(socket, peer)) else {
                accepts = true;
                continue;
            };
            if std::mem::take(&mut accepts) {
                let error = Errno::from(error);
                self.teller.warn(format!("cannot accept connections: {error}; may more files be open (ulimit -n)?"));
            }
            // Sessions that end, and strangers who are turned out, give descriptors back.
            tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
        }
    }

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

    /// Asked to stop: lets sessions finish within a grace time, then ends them, and in the end gives up what hangs. A second
    /// signal ends the program at once. Whether all have ended.
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
        _ = stop.send(Some((stopping(), number)));
        tokio::select! {
            _ = &mut gone => return true,
            () = tokio::time::sleep(Duration::from_millis(2 * GOODBYE_MS)) => {}
            second = signals.next() => std::process::exit(128 + second),
        }
        self.given_up.send_replace(true);
        tokio::select! {
            _ = &mut gone => {} // but not what hangs in the kernel
            () = tokio::time::sleep(Duration::from_millis(GOODBYE_MS)) => {}
            second = signals.next() => std::process::exit(128 + second),
        }
        false
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

    /// Somebody was not let in, who may have proved to have this key.
    fn refused(&self, peer: SocketAddr, began: Instant, key: Option<Fingerprint>, failure: Failure) {
        self.teller.refused(Record { key, ..Record::new(peer, began, Err(failure)) });
    }
}

/// Why sessions end that a server has when it is asked to stop.
fn stopping() -> Failure {
    Failure::new(Kind::Interrupted, "the server is stopping; try again when it is back")
}

fn peer_name(peer: SocketAddr) -> Vec<u8> {
    SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string().into_bytes()
}
