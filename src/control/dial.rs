//! Reaching a server: names to addresses to sockets, and data connections joined to their session. Plain blocking calls, on
//! threads that may block.

use crate::limits::{CONNECT_MS, JOIN_MS};
use crate::wire::{
    JOIN_LEN, JOINED_LEN, Join, PREAMBLE_LEN, Preamble, Purpose, SessionId, decode_joined, encode_join, encode_preamble,
};
use crate::worker::inbox::Joined;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Bytes that a data connection sends and receives to join.
pub(super) const JOIN_BYTES: (u64, u64) = ((PREAMBLE_LEN + JOIN_LEN) as u64, JOINED_LEN as u64);

/// Connects to the first of the host's addresses that answers.
pub(super) fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses = (host, port).to_socket_addrs().map_err(|_| format!("there is no host named {host}"))?;
    let mut last = format!("{host} has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, Duration::from_millis(CONNECT_MS)) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = explain(&error, address),
        }
    }
    Err(last)
}

fn explain(error: &io::Error, address: SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nobody listens at {address}; is 'pdcp --serve :{}' running there?", address.port())
        }
        io::ErrorKind::TimedOut => format!("{address} does not answer; a firewall, or the wrong address?"),
        _ => format!("cannot reach {address}: {}", crate::completion::Errno::from(io::Error::from(error.kind()))),
    }
}

/// Makes data connections `0..count` and joins them, all at once. Those that made it, and why the last of the others did
/// not.
pub(super) async fn join(address: SocketAddr, session: SessionId, count: u32) -> (Vec<Joined<OwnedFd>>, String) {
    let dialled: Vec<_> = (0..count)
        .map(|number| tokio::task::spawn_blocking(move || join_one(address, Join { session, number })))
        .collect();
    let mut joined = Vec::with_capacity(dialled.len());
    let mut last_error = String::new();
    for (number, socket) in (0..count).zip(dialled) {
        match socket.await {
            Ok(Ok(socket)) => joined.push(Joined { number, socket, seals: None }),
            Ok(Err(error)) => last_error = error.to_string(),
            Err(_) => last_error = "an internal error".into(),
        }
    }
    (joined, last_error)
}

fn join_one(address: SocketAddr, join: Join) -> io::Result<OwnedFd> {
    let patience = Duration::from_millis(JOIN_MS);
    let deadline = Instant::now() + patience;
    let mut socket = TcpStream::connect_timeout(&address, patience)?;
    super::link::tune_data(&socket)?;
    let greeting = encode_preamble(Preamble::ours(Purpose::Data));
    socket.write_all(&[&greeting[..], &encode_join(join)].concat())?;
    let mut answer = [0; JOINED_LEN];
    let mut got = 0;
    while got < answer.len() {
        // Of all of it, not of each byte.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut answer[got..]) {
            _ if Instant::now() >= deadline => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => got += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    decode_joined(&answer).map_err(io::Error::other)?;
    socket.set_read_timeout(None)?;
    Ok(socket.into())
}
