//! Reaching a server: names to addresses to sockets, and data connections joined to their session. Plain blocking calls, on
//! threads that nobody waits for.

use super::link;
use crate::limits::{CONNECT_MS, JOIN_MS, PROOF_LEN};
use crate::seal::{Cipher, ConnectionSecret, Secret, Side, same_proof};
use crate::wire::{
    GREETING_LEN, JOIN_LEN, Join, PREAMBLE_LEN, Purpose, SessionId, decode_greeting, encode_join, encode_preamble,
};
use crate::worker::inbox::Joined;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Bytes that a data connection sends and receives to join.
pub(super) const JOIN_BYTES: (u64, u64) = ((PREAMBLE_LEN + JOIN_LEN) as u64, (GREETING_LEN + PROOF_LEN) as u64);

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
pub(super) async fn join(
    address: SocketAddr,
    session: SessionId,
    secret: &Secret,
    count: u32,
) -> (Vec<Seated>, String) {
    let dialled: Vec<_> = (0..count)
        .map(|number| {
            let secret = secret.clone();
            link::detached(move || join_one(address, session, &secret, number))
        })
        .collect();
    let mut joined = Vec::with_capacity(dialled.len());
    let mut last_error = String::new();
    for socket in dialled {
        match socket.await {
            Ok(seated) => joined.push(seated),
            Err(error) => last_error = error.to_string(),
        }
    }
    (joined, last_error)
}

/// A data connection whose both ends have proven to belong to the session.
#[derive(Debug)]
pub(super) struct Seated {
    pub(super) number: u32,
    pub(super) socket: OwnedFd,
    pub(super) secret: ConnectionSecret,
}

impl Seated {
    /// For the workers of a process on `side`; sealed, if there is a cipher.
    pub(super) fn joined(self, side: Side, cipher: Option<Cipher>) -> Joined<OwnedFd> {
        let seals = cipher.map(|cipher| self.secret.duplex(side, cipher));
        Joined { number: self.number, socket: self.socket, seals }
    }
}

fn join_one(address: SocketAddr, session: SessionId, secret: &Secret, number: u32) -> io::Result<Seated> {
    let patience = Duration::from_millis(JOIN_MS);
    let deadline = Instant::now() + patience;
    let mut socket = TcpStream::connect_timeout(&address, patience)?;
    link::tune_data(&socket)?;
    let greeting = read_by::<GREETING_LEN>(&mut socket, deadline)?;
    let challenge = decode_greeting(&greeting).map_err(io::Error::other)?;
    let secret = secret.connection(&challenge, number);
    let join = Join { session, number, proof: secret.proof(Side::Client) };
    socket.write_all(&[&encode_preamble(Purpose::Data)[..], &encode_join(&join)].concat())?;
    let proof = read_by::<PROOF_LEN>(&mut socket, deadline)?;
    if !same_proof(&proof, &secret.proof(Side::Server)) {
        return Err(io::Error::other("what answers there is not the server that the session is with"));
    }
    socket.set_read_timeout(None)?;
    Ok(Seated { number, socket: socket.into(), secret })
}

/// Exactly so many bytes, all of them before the deadline.
fn read_by<const N: usize>(socket: &mut TcpStream, deadline: Instant) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut got = 0;
    while got < N {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut bytes[got..]) {
            _ if Instant::now() >= deadline => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => got += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}
