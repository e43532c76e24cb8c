//! One control connection on tokio-uring: messages in, messages out, TLS between them and the socket. The only file that
//! names tokio-uring, with the start of its runtime.
//!
//! A task reads and a task writes, so that nobody who waits for a message is held up by a peer that does not read. Both end
//! with the socket. Nothing here knows what messages mean, or whose keys are good: who is not let in fails in TLS, and no
//! message of his is ever seen.

use super::identity::{HandshakeError, server_name};
use crate::completion::Errno;
use crate::failure::{Failure, Kind};
use crate::limits::{
    DISCARDED_BYTES_MAX, KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES, LOCAL_SEND_BUFFER_BYTES,
    MESSAGE_LEN_MAX, MESSAGES_MAX, PROOF_LEN, STRANGER_BYTES_MAX, TCP_USER_TIMEOUT_MS,
};
use crate::seal::{EXPORTER_LABEL, SECRET_LEN, Secret};
use crate::wire::{
    Challenge, DecodeError, GREETING_LEN, JOIN_LEN, Join, Message, PREAMBLE_LEN, Purpose, decode_greeting, decode_join,
    decode_preamble, encode_greeting, encode_preamble, frame_message, parse_message,
};
use bytes::{Bytes, BytesMut};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_uring::buf::BoundedBuf;

/// Runs the control plane until `future` is done. Blocking calls that nobody awaits by then are not waited for: a disk, or a
/// host, may never answer.
///
/// # Errors
/// Where io_uring is refused.
pub(super) fn run<F: Future>(future: F) -> Result<F::Output, Failure> {
    // `tokio_uring::start` would panic where io_uring is refused.
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).map_err(|error| {
        // The ring of our own knows best how to explain it.
        let text = crate::ring::probe().err().map_or_else(|| error.to_string(), |refused| refused.to_string());
        Failure::new(Kind::Other, text)
    })?;
    let output = runtime.block_on(future);
    std::mem::forget(runtime); // its end waits for such calls
    Ok(output)
}

/// Starts a task beside the one that runs.
pub(super) fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(tokio_uring::spawn(task));
}

/// Begins a blocking call on a thread of its own. An error where there may be no more threads, of which a runtime panics.
pub(super) fn detached<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = io::Result<T>> {
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().spawn(move || tell.send(call()));
    async {
        thread?;
        Ok(told.await.expect("a blocking call does not panic"))
    }
}

/// Why a link is of no more use.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum LinkError {
    /// The peer has closed it.
    Closed,
    /// The network has lost it.
    Broken(Errno),
    /// The peer said something that makes no sense.
    Decode(DecodeError),
    /// The two ends do not trust each other, or somebody has changed what was said.
    Tls(HandshakeError),
    /// The peer has talked on without saying who it is.
    Verbose,
    /// Nothing came in time.
    Silent,
}

impl LinkError {
    /// What it means for a session that has not begun.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Closed | Self::Broken(_) => Kind::ConnectionLost,
            Self::Decode(_) | Self::Verbose => Kind::Protocol,
            Self::Tls(_) => Kind::Refused,
            Self::Silent => Kind::NoProgress,
        }
    }
}

impl std::fmt::Display for LinkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("the other end closed it"),
            Self::Broken(error) => error.fmt(f),
            Self::Decode(error) => error.fmt(f),
            Self::Tls(error) => error.fmt(f),
            Self::Verbose => write!(f, "said {STRANGER_BYTES_MAX} bytes, and not who it is"),
            Self::Silent => f.write_str("the other end does not answer"),
        }
    }
}

/// What was given to and taken from a link's socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkBytes {
    pub(super) sent: u64,
    pub(super) received: u64,
}

/// One control connection.
#[derive(Debug)]
pub(super) struct Link {
    inbox: mpsc::Receiver<Result<Message, LinkError>>,
    outbox: mpsc::Sender<Bytes>,
    tls: Rc<RefCell<Tls>>,
    /// Ends when everything is written, or nothing more can be.
    written: oneshot::Receiver<()>,
    bytes: Rc<Cell<LinkBytes>>,
    /// Either side has said that it has failed: there is nothing more to say.
    failed: Cell<bool>,
    /// Another descriptor of the same socket, to end it with.
    socket: Rc<TcpStream>,
}

/// TLS, and what the server's greeting has said before it.
#[derive(Debug)]
struct Tls {
    connection: rustls::Connection,
    /// `None`: the greeting has not come yet.
    challenge: Option<Challenge>,
    /// We have said goodbye: what still comes is not looked at. TLS would want to answer what makes no sense, which nobody
    /// may who has said goodbye.
    over: bool,
}

impl Tls {
    /// What is to be written to the socket now.
    fn take_output(&mut self) -> Option<Bytes> {
        let mut output = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut output).ok()?;
        }
        (!output.is_empty()).then(|| output.into())
    }

    /// The last words.
    fn say_goodbye(&mut self) -> Option<Bytes> {
        self.over = true;
        self.connection.send_close_notify();
        self.take_output()
    }

    /// Takes bytes of the socket, and appends what they mean to `plain`. Behind the peer's goodbye TLS takes no more.
    fn take_input(&mut self, mut bytes: &[u8], plain: &mut BytesMut) -> Result<(), LinkError> {
        while !bytes.is_empty() && !self.over {
            // A slice cannot fail; a connection that takes no more has messages to be processed.
            let taken = self.connection.read_tls(&mut bytes);
            let state = self.connection.process_new_packets().map_err(|error| LinkError::Tls((&error).into()))?;
            let there = state.plaintext_bytes_to_read();
            let start = plain.len();
            plain.resize(start + there, 0);
            let read = self.connection.reader().read_exact(&mut plain[start..]);
            if taken.is_err() || read.is_err() || state.peer_has_closed() {
                return Err(LinkError::Closed);
            }
        }
        Ok(())
    }
}

impl Link {
    /// A client's link: greets, and expects the server's greeting.
    pub(super) fn dial(socket: TcpStream, config: Arc<ClientConfig>) -> io::Result<Self> {
        let connection = ClientConnection::new(config, server_name()).map_err(io::Error::other)?;
        let tls = Tls { connection: connection.into(), challenge: None, over: false };
        let greeting = Bytes::copy_from_slice(&encode_preamble(Purpose::Control));
        Self::start(socket, tls, Some(greeting))
    }

    /// A server's link, both greetings said.
    fn answer(socket: TcpStream, config: Arc<ServerConfig>, challenge: Challenge) -> io::Result<Self> {
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let tls = Tls { connection: connection.into(), challenge: Some(challenge), over: false };
        let link = Self::start(socket, tls, None)?;
        link.bytes.set(LinkBytes { received: PREAMBLE_LEN as u64, sent: GREETING_LEN as u64 });
        Ok(link)
    }

    fn start(socket: TcpStream, mut tls: Tls, greeting: Option<Bytes>) -> io::Result<Self> {
        tune(&socket)?;
        let stream = Rc::new(tokio_uring::net::TcpStream::from_std(socket.try_clone()?));
        let (inbox_sender, inbox) = mpsc::channel(MESSAGES_MAX);
        let (outbox, outbox_receiver) = mpsc::channel(MESSAGES_MAX);
        for first in [greeting, tls.take_output()].into_iter().flatten() {
            _ = outbox.try_send(first);
        }
        let tls = Rc::new(RefCell::new(tls));
        let bytes = Rc::new(Cell::new(LinkBytes::default()));
        let reader = Reader {
            stream: Rc::clone(&stream),
            tls: Rc::clone(&tls),
            inbox: inbox_sender,
            outbox: outbox.downgrade(),
            bytes: Rc::clone(&bytes),
        };
        spawn(reader.read());
        let (writes, written) = oneshot::channel();
        spawn(write(stream, outbox_receiver, Rc::clone(&bytes), writes));
        Ok(Self { inbox, outbox, tls, written, bytes, failed: Cell::new(false), socket: Rc::new(socket) })
    }

    /// What the two ends of this connection share and nobody else: once a message of the peer's has come.
    pub(super) fn secret(&self) -> Option<Secret> {
        let tls = self.tls.borrow();
        let bytes = [0; SECRET_LEN];
        let challenge = tls.challenge?;
        tls.connection.export_keying_material(bytes, EXPORTER_LABEL, Some(&challenge)).ok().map(Secret::new)
    }

    /// Asks about the peer's key: once a message of the peer's has come.
    pub(super) fn about_peer<T>(&self, ask: impl FnOnce(&rustls::CommonState) -> T) -> T {
        ask(&self.tls.borrow().connection)
    }

    /// Sends a message, in its turn; none after either side's Failed. A peer that reads so slowly that messages pile up is
    /// cut off.
    pub(super) fn send(&self, message: &Message) {
        if self.failed.replace(matches!(message, Message::Failed(_)) || self.failed.get()) {
            return;
        }
        let mut tls = self.tls.borrow_mut();
        if tls.connection.writer().write_all(&frame_message(message)).is_err() {
            return; // TLS has failed: its alert, which is on its way, is the last word
        }
        if tls.take_output().is_some_and(|output| self.outbox.try_send(output).is_err()) {
            self.cut();
        }
    }

    /// The next message. Nothing is lost if this is dropped while it waits.
    pub(super) async fn receive(&mut self) -> Result<Message, LinkError> {
        let message = self.inbox.recv().await.unwrap_or(Err(LinkError::Closed));
        if matches!(message, Ok(Message::Failed(_))) {
            self.failed.set(true);
        }
        message
    }

    /// The next message, if it comes in time.
    pub(super) async fn receive_within(&mut self, ms: u64) -> Result<Message, LinkError> {
        tokio::time::timeout(Duration::from_millis(ms), self.receive()).await.unwrap_or(Err(LinkError::Silent))
    }

    /// Ends it: what was sent goes out, and the peer has `ms` to read it and to close its end. What went over it in all.
    pub(super) async fn close(self, ms: u64) -> LinkBytes {
        let Self { mut inbox, outbox, tls, written, socket, bytes, failed: _ } = self;
        if let Some(goodbye) = tls.borrow_mut().say_goodbye() {
            _ = outbox.try_send(goodbye);
        }
        drop(outbox); // the writer ends this direction when it has written everything
        let both_close = async {
            _ = written.await;
            while inbox.recv().await.is_some() {}
        };
        _ = tokio::time::timeout(Duration::from_millis(ms), both_close).await;
        _ = socket.shutdown(Shutdown::Both);
        bytes.get()
    }

    /// Whether the server has said its greeting.
    pub(super) fn is_greeted(&self) -> bool {
        self.tls.borrow().challenge.is_some()
    }

    /// Whether both ends have the same address, so that there is no network between them: stripes are dealt for that, and no
    /// network is held to limit the copy.
    pub(super) fn same_address(&self) -> bool {
        same_address(&self.socket).unwrap_or(false)
    }

    /// What somebody else may cut it with, also when it is no more.
    pub(super) fn socket(&self) -> Rc<TcpStream> {
        Rc::clone(&self.socket)
    }

    /// See [`is_near`].
    pub(super) fn is_near(&self) -> bool {
        is_near(&self.socket).unwrap_or(false)
    }

    /// Ends it at once.
    pub(super) fn cut(&self) {
        _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Both ends have the same address: what goes from one to the other never leaves the kernel.
pub(super) fn same_address(socket: &TcpStream) -> io::Result<bool> {
    Ok(socket.peer_addr()?.ip() == socket.local_addr()?.ip())
}

/// The ends may be neighbours: they have the same address, or each one of those that lead back to the host, as the host's own
/// name often does to 127.0.1.1.
pub(super) fn is_near(socket: &TcpStream) -> io::Result<bool> {
    let leads_back = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    Ok(same_address(socket)? || (leads_back(socket.peer_addr()?) && leads_back(socket.local_addr()?)))
}

/// A dead peer is found by its control connection: data connections may stand still for good reason.
fn tune(socket: &TcpStream) -> io::Result<()> {
    tune_data(socket)?;
    rustix::net::sockopt::set_tcp_user_timeout(socket, TCP_USER_TIMEOUT_MS)?;
    Ok(())
}

/// What every connection is set to. Sizes of socket buffers are left to the kernel, which tunes them to the path as long as
/// nobody else does. Within one host there is no path: whatever a megabyte of queue holds has left the core's cache by the
/// time the other end takes it.
pub(super) fn tune_data(socket: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, Duration::from_secs(KEEPALIVE_IDLE_S.into()))?;
    sockopt::set_tcp_keepintvl(socket, Duration::from_secs(KEEPALIVE_INTERVAL_S.into()))?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_PROBES)?;
    if same_address(socket)? {
        sockopt::set_socket_send_buffer_size(socket, LOCAL_SEND_BUFFER_BYTES)?;
    }
    Ok(())
}

/// The task that reads.
struct Reader {
    stream: Rc<tokio_uring::net::TcpStream>,
    tls: Rc<RefCell<Tls>>,
    inbox: mpsc::Sender<Result<Message, LinkError>>,
    /// TLS answers by itself. Weak: the writer ends when the link has nothing more to say.
    outbox: mpsc::WeakSender<Bytes>,
    bytes: Rc<Cell<LinkBytes>>,
}

impl Reader {
    async fn read(self) {
        let mut raw = BytesMut::new();
        let mut plain = BytesMut::new();
        let mut buffer = Vec::new();
        loop {
            let most = match self.most() {
                Ok(most) => most,
                Err(error) => return self.end(error, buffer).await,
            };
            if buffer.len() < most {
                buffer = vec![0; most];
            }
            let (result, slice) = self.stream.read(buffer.slice(..most)).await;
            buffer = slice.into_inner();
            let mut end = match result {
                Ok(0) => Some(LinkError::Closed),
                Ok(read) => {
                    self.bytes.set(LinkBytes { received: self.bytes.get().received + read as u64, ..self.bytes.get() });
                    raw.extend_from_slice(&buffer[..read]);
                    None
                }
                Err(error) => Some(LinkError::Broken(error.into())),
            };
            // What is no pdcp shows in its first bytes, also if it says little and closes.
            if let Err(error) = self.take(&mut raw, &mut plain) {
                end = Some(error);
            }
            loop {
                match parse_message(&mut plain) {
                    Ok(None) => break,
                    Ok(Some(message)) => {
                        if self.inbox.send(Ok(message)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        end = Some(LinkError::Decode(error));
                        break;
                    }
                }
            }
            if let Some(end) = end {
                return self.end(end, buffer).await;
            }
            if self.tls.borrow().over {
                return discard(&self.stream, buffer).await;
            }
        }
    }

    /// How much may be read at a time: of who has not said who he is, no more than he may say in all.
    fn most(&self) -> Result<usize, LinkError> {
        if !self.tls.borrow().connection.is_handshaking() {
            return Ok(MESSAGE_LEN_MAX as usize);
        }
        let left = STRANGER_BYTES_MAX.saturating_sub(self.bytes.get().received);
        usize::try_from(left).ok().filter(|left| *left > 0).ok_or(LinkError::Verbose)
    }

    /// Tells why nothing more comes. What the peer says all the same is read for a while.
    async fn end(self, why: LinkError, buffer: Vec<u8>) {
        let goes_on = matches!(why, LinkError::Decode(_) | LinkError::Tls(_) | LinkError::Verbose);
        _ = self.inbox.send(Err(why)).await;
        if goes_on {
            discard(&self.stream, buffer).await;
        }
    }

    /// Gives TLS what has come, and the socket what TLS says to it.
    fn take(&self, raw: &mut BytesMut, plain: &mut BytesMut) -> Result<(), LinkError> {
        let mut tls = self.tls.borrow_mut();
        if tls.challenge.is_none() {
            match decode_greeting(raw) {
                Err(DecodeError::TooShort) => return Ok(()),
                Err(error) => return Err(LinkError::Decode(error)),
                Ok(challenge) => tls.challenge = Some(challenge),
            }
            drop(raw.split_to(GREETING_LEN));
        }
        let taken = tls.take_input(&raw.split(), plain);
        if let Some(output) = tls.take_output()
            && let Some(outbox) = self.outbox.upgrade()
        {
            _ = outbox.try_send(output);
        }
        taken
    }
}

/// Reads what nobody looks at any more, until the link is closed: bytes left unread would make the kernel reset the
/// connection, and take our last words from the peer. Who pours is reset.
async fn discard(stream: &tokio_uring::net::TcpStream, mut buffer: Vec<u8>) {
    let mut left = DISCARDED_BYTES_MAX;
    while left > 0 {
        let result;
        (result, buffer) = stream.read(buffer).await;
        match result {
            Ok(read) if read > 0 => left = left.saturating_sub(read),
            _ => return,
        }
    }
}

/// `_writes` is dropped at the end: that is what it says.
async fn write(
    stream: Rc<tokio_uring::net::TcpStream>,
    mut outbox: mpsc::Receiver<Bytes>,
    bytes: Rc<Cell<LinkBytes>>,
    _writes: oneshot::Sender<()>,
) {
    while let Some(message) = outbox.recv().await {
        let length = message.len() as u64;
        let (result, _) = stream.write_all(message).await;
        if result.is_err() {
            return; // the reader is told the same, and tells it on
        }
        bytes.set(LinkBytes { sent: bytes.get().sent + length, ..bytes.get() });
    }
    _ = stream.shutdown(Shutdown::Write);
}

/// What a connection turned out to be that a server accepted.
#[derive(Debug)]
pub(super) enum Caller {
    /// A client with a session in mind.
    Control(Link),
    /// A data connection; nothing beyond its join has been read.
    Data(Join, DataSocket),
}

/// A data connection that wants to join.
pub(super) struct DataSocket {
    /// What it was greeted with.
    pub(super) challenge: Challenge,
    stream: tokio_uring::net::TcpStream,
    socket: TcpStream,
}

impl std::fmt::Debug for DataSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.socket.fmt(f)
    }
}

impl DataSocket {
    /// Lets it in, with the server's proof. The socket, with nothing in flight on it.
    pub(super) async fn admit(self, proof: &[u8; PROOF_LEN]) -> Option<OwnedFd> {
        let (result, _) = self.stream.write_all(proof.to_vec()).await;
        result.ok()?;
        tune_data(&self.socket).ok()?;
        Some(self.socket.into())
    }
}

/// Greets a new connection and finds out what it is. `None`: it is of no use.
pub(super) async fn identify(socket: TcpStream, config: Arc<ServerConfig>) -> Option<Caller> {
    let stream = tokio_uring::net::TcpStream::from_std(socket.try_clone().ok()?);
    let challenge = random_bytes();
    let (greeted, _) = stream.write_all(encode_greeting(&challenge).to_vec()).await;
    greeted.ok()?;
    let preamble = read_exactly(&stream, PREAMBLE_LEN).await?;
    match decode_preamble(&preamble).ok()? {
        Purpose::Control => Link::answer(socket, config, challenge).ok().map(Caller::Control),
        Purpose::Data => {
            let join = read_exactly(&stream, JOIN_LEN).await?;
            let join = decode_join(join.first_chunk()?).ok()?;
            Some(Caller::Data(join, DataSocket { challenge, stream, socket }))
        }
    }
}

/// Bytes that nobody can foresee.
pub(super) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(filled, Ok(N), "the kernel has random bytes");
    bytes
}

/// Exactly so many bytes; `None` if the connection ends before.
async fn read_exactly(stream: &tokio_uring::net::TcpStream, bytes: usize) -> Option<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    let mut got = 0;
    while got < bytes {
        let (result, slice) = stream.read(buffer.slice(got..)).await;
        buffer = slice.into_inner();
        match result {
            Ok(read) if read > 0 => got += read,
            _ => return None,
        }
    }
    Some(buffer)
}

/// What it means to a client that its link failed before it was welcome.
pub(super) fn before_welcome(error: &LinkError, is_greeted: bool, peer: &[u8]) -> Failure {
    let (kind, text) = match error {
        // It hangs up on whom it does not know where too many call.
        LinkError::Closed | LinkError::Broken(_) if is_greeted => {
            (Kind::Busy, "the server hung up; it has too many callers, or is being stopped; try again later".into())
        }
        LinkError::Decode(DecodeError::NotPdcp) => (Kind::Protocol, "what answers there is no pdcp server".into()),
        LinkError::Decode(_) | LinkError::Verbose => (Kind::Protocol, error.to_string()),
        LinkError::Tls(error) => (Kind::Refused, error.to_string()),
        LinkError::Closed => (Kind::Unreachable, "the server closed the connection before it said a word".into()),
        LinkError::Broken(error) => (Kind::Unreachable, format!("the connection was lost: {error}")),
        LinkError::Silent => (Kind::Unreachable, "the server does not answer".into()),
    };
    Failure::about(kind, peer, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// Trigger: Ctrl-C while a host does not answer. Damage: the end waited for the attempt, and signals had nobody left to
    /// hear them. Cure: the runtime does not end.
    #[test]
    fn nobody_waits_for_a_call_that_nobody_wants_any_more() {
        let (finish, finished) = channel::<()>();
        let (tell, told) = channel();
        let call = move || {
            _ = finished.recv_timeout(Duration::from_secs(20));
            _ = tell.send(());
        };
        let first = run(async {
            tokio::select! {
                biased;
                _ = tokio::task::spawn_blocking(call) => "the call",
                () = tokio::task::yield_now() => "the end",
            }
        });
        assert_eq!(first.unwrap(), "the end");
        assert!(told.try_recv().is_err(), "it was waited for");
        drop(finish);
        assert_eq!(told.recv(), Ok(()), "it does end");
    }
}
