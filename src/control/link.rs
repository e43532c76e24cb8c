//! One control connection on tokio-uring: messages in, messages out. The only file that names tokio-uring, with the start
//! of its runtime.
//!
//! A task reads and a task writes, so that nobody who waits for a message is held up by a peer that does not read. Both end
//! with the socket. Nothing here knows what messages mean.

use crate::completion::Errno;
use crate::failure::{Failure, Kind};
use crate::limits::{
    KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES, LOCAL_SEND_BUFFER_BYTES, MESSAGE_LEN_MAX, MESSAGES_MAX,
    TCP_USER_TIMEOUT_MS,
};
use crate::wire::{
    DecodeError, JOIN_LEN, Join, Message, PREAMBLE_LEN, Preamble, Purpose, decode_join, decode_preamble, encode_joined,
    encode_preamble, frame_message, parse_message,
};
use bytes::{Bytes, BytesMut};
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_uring::buf::BoundedBuf;

/// Runs the control plane until `future` is done.
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
    Ok(runtime.block_on(future))
}

/// Starts a task beside the one that runs.
pub(super) fn spawn(task: impl Future<Output = ()> + 'static) {
    drop(tokio_uring::spawn(task));
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
    /// Nothing came in time.
    Silent,
}

impl LinkError {
    /// What it means for a session that has not begun.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Closed | Self::Broken(_) => Kind::ConnectionLost,
            Self::Decode(_) => Kind::Protocol,
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
    /// Ends when everything is written, or nothing more can be.
    written: oneshot::Receiver<()>,
    bytes: Rc<Cell<LinkBytes>>,
    /// Another descriptor of the same socket, to end it with.
    socket: TcpStream,
}

impl Link {
    /// A client's link: greets, and expects the server's greeting before its first message.
    pub(super) fn dial(socket: TcpStream) -> io::Result<Self> {
        let link = Self::start(socket, true)?;
        link.greet();
        Ok(link)
    }

    /// A server's link, its client's greeting already read: greets back.
    fn answer(socket: TcpStream) -> io::Result<Self> {
        let link = Self::start(socket, false)?;
        let greeting = PREAMBLE_LEN as u64;
        link.bytes.set(LinkBytes { received: greeting, ..link.bytes.get() });
        link.greet();
        Ok(link)
    }

    fn start(socket: TcpStream, greeting: bool) -> io::Result<Self> {
        tune(&socket)?;
        let stream = Rc::new(tokio_uring::net::TcpStream::from_std(socket.try_clone()?));
        let (inbox_sender, inbox) = mpsc::channel(MESSAGES_MAX);
        let (outbox, outbox_receiver) = mpsc::channel(MESSAGES_MAX);
        let bytes = Rc::new(Cell::new(LinkBytes::default()));
        spawn(read(Rc::clone(&stream), inbox_sender, Rc::clone(&bytes), greeting));
        let (writes, written) = oneshot::channel();
        spawn(write(stream, outbox_receiver, Rc::clone(&bytes), writes));
        Ok(Self { inbox, outbox, written, bytes, socket })
    }

    fn greet(&self) {
        let greeting = encode_preamble(Preamble::ours(Purpose::Control));
        _ = self.outbox.try_send(Bytes::copy_from_slice(&greeting));
    }

    /// Sends a message, in its turn. A peer that reads so slowly that messages pile up is cut off.
    pub(super) fn send(&self, message: &Message) {
        if self.outbox.try_send(frame_message(message)).is_err() {
            self.cut();
        }
    }

    /// The next message. Nothing is lost if this is dropped while it waits.
    pub(super) async fn receive(&mut self) -> Result<Message, LinkError> {
        self.inbox.recv().await.unwrap_or(Err(LinkError::Closed))
    }

    /// The next message, if it comes in time.
    pub(super) async fn receive_within(&mut self, ms: u64) -> Result<Message, LinkError> {
        tokio::time::timeout(Duration::from_millis(ms), self.receive()).await.unwrap_or(Err(LinkError::Silent))
    }

    /// Ends it: what was sent goes out, and the peer has `ms` to read it and to close its end. What went over it in all.
    pub(super) async fn close(self, ms: u64) -> LinkBytes {
        let Self { mut inbox, outbox, written, socket, bytes, .. } = self;
        drop(outbox); // the writer ends this direction when it has written everything
        let both_close = async {
            _ = written.await;
            while inbox.recv().await.is_some() {}
        };
        _ = tokio::time::timeout(Duration::from_millis(ms), both_close).await;
        _ = socket.shutdown(Shutdown::Both);
        bytes.get()
    }

    /// Whether the peer is on this host, as far as can be told; for people.
    pub(super) fn is_one_host(&self) -> bool {
        is_one_host(&self.socket).unwrap_or(false)
    }

    /// Ends it at once.
    pub(super) fn cut(&self) {
        _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Both ends have the same address: what goes from one to the other never leaves the kernel.
fn is_one_host(socket: &TcpStream) -> io::Result<bool> {
    Ok(socket.peer_addr()?.ip() == socket.local_addr()?.ip())
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
    if is_one_host(socket)? {
        sockopt::set_socket_send_buffer_size(socket, LOCAL_SEND_BUFFER_BYTES)?;
    }
    Ok(())
}

async fn read(
    stream: Rc<tokio_uring::net::TcpStream>,
    inbox: mpsc::Sender<Result<Message, LinkError>>,
    bytes: Rc<Cell<LinkBytes>>,
    mut greeting: bool,
) {
    let mut pending = BytesMut::with_capacity(MESSAGE_LEN_MAX as usize);
    let mut buffer = vec![0; MESSAGE_LEN_MAX as usize];
    loop {
        let result;
        (result, buffer) = stream.read(buffer).await;
        let end = match result {
            Ok(0) => Some(LinkError::Closed),
            Ok(read) => {
                bytes.set(LinkBytes { received: bytes.get().received + read as u64, ..bytes.get() });
                pending.extend_from_slice(&buffer[..read]);
                None
            }
            Err(error) => Some(LinkError::Broken(error.into())),
        };
        if greeting {
            // What is no pdcp shows in its first bytes, also if it says little and closes.
            match decode_preamble(&pending) {
                Err(DecodeError::TooShort) => {}
                Err(error) => {
                    tell_last(&inbox, LinkError::Decode(error)).await;
                    return discard(&stream, buffer).await;
                }
                Ok(_) => {
                    drop(pending.split_to(PREAMBLE_LEN));
                    greeting = false;
                }
            }
        }
        if !greeting {
            loop {
                match parse_message(&mut pending) {
                    Ok(None) => break,
                    Ok(Some(message)) => {
                        if inbox.send(Ok(message)).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tell_last(&inbox, LinkError::Decode(error)).await;
                        return discard(&stream, buffer).await;
                    }
                }
            }
        }
        if let Some(end) = end {
            return tell_last(&inbox, end).await;
        }
    }
}

/// Reads what nobody can understand any more, until the link is closed: bytes left unread would make the kernel reset the
/// connection, and take our last words from the peer.
async fn discard(stream: &tokio_uring::net::TcpStream, mut buffer: Vec<u8>) {
    loop {
        let result;
        (result, buffer) = stream.read(buffer).await;
        if !matches!(result, Ok(read) if read > 0) {
            return;
        }
    }
}

async fn tell_last(inbox: &mpsc::Sender<Result<Message, LinkError>>, error: LinkError) {
    _ = inbox.send(Err(error)).await;
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
    stream: tokio_uring::net::TcpStream,
    socket: TcpStream,
}

impl std::fmt::Debug for DataSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.socket.fmt(f)
    }
}

impl DataSocket {
    /// Lets it in. The socket, with nothing in flight on it.
    pub(super) async fn admit(self) -> Option<OwnedFd> {
        let (result, _) = self.stream.write_all(encode_joined().to_vec()).await;
        result.ok()?;
        tune_data(&self.socket).ok()?;
        Some(self.socket.into())
    }
}

/// Finds out what a new connection is. `None`: it is of no use; it has been answered as far as that makes sense.
pub(super) async fn identify(socket: TcpStream) -> Option<Caller> {
    let stream = tokio_uring::net::TcpStream::from_std(socket.try_clone().ok()?);
    let greeting = read_exactly(&stream, PREAMBLE_LEN).await?;
    match decode_preamble(&greeting) {
        Ok(Preamble { purpose: Purpose::Control, .. }) => Link::answer(socket).ok().map(Caller::Control),
        Ok(Preamble { purpose: Purpose::Data, .. }) => {
            let join = read_exactly(&stream, JOIN_LEN).await?;
            let join = decode_join(join.first_chunk()?).ok()?;
            Some(Caller::Data(join, DataSocket { stream, socket }))
        }
        Err(DecodeError::NoCommonVersion(..)) => {
            // So that the other end can say which versions there are.
            let ours = encode_preamble(Preamble::ours(Purpose::Control));
            _ = stream.write_all(ours.to_vec()).await;
            None
        }
        Err(_) => None,
    }
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
pub(super) fn before_welcome(error: &LinkError, peer: &[u8]) -> Failure {
    let (kind, text) = match error {
        LinkError::Decode(DecodeError::NotPdcp) => (Kind::Protocol, "what answers there is no pdcp server".into()),
        LinkError::Decode(error) => (Kind::Protocol, error.to_string()),
        LinkError::Closed => (Kind::Unreachable, "the server closed the connection before it said a word".into()),
        LinkError::Broken(error) => (Kind::Unreachable, format!("the connection was lost: {error}")),
        LinkError::Silent => (Kind::Unreachable, "the server does not answer".into()),
    };
    Failure::about(kind, peer, text)
}
