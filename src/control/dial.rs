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
    // In the resolver's own words: that there is no such host, or that nobody could be asked.
    let addresses: Vec<_> = (host, port).to_socket_addrs().map_err(|error| error.to_string())?.collect();
    first_that_answers(&addresses, Duration::from_millis(CONNECT_MS))
}

/// So long for all of them: each has its share of what is left.
fn first_that_answers(addresses: &[SocketAddr], patience: Duration) -> Result<TcpStream, String> {
    let deadline = Instant::now() + patience;
    let mut last = "it has no address".into();
    for (at, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = explain(&error, *address),
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
        match socket.await.flatten() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    /// Trigger: a name with many addresses, as DNS may give it, and nobody at them. Damage: 15 s for each. Cure: one time for
    /// all, of which a dead one leaves enough to the next.
    #[test]
    fn many_addresses_that_do_not_answer_take_no_longer_than_one() {
        // Whose queue is full does not answer.
        let (dead, living) = (silent(), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let (nobody, somebody) = (dead.0, living.local_addr().unwrap());
        let began = Instant::now();
        let patience = Duration::from_millis(600);
        let error = first_that_answers(&[nobody; 20], patience).unwrap_err();
        assert!(error.contains("does not answer"), "{error}");
        let reached = first_that_answers(&[nobody, nobody, somebody], patience).unwrap();
        assert_eq!(reached.peer_addr().unwrap(), somebody);
        assert!(began.elapsed() < 5 * patience, "{:?}", began.elapsed());
        assert!(first_that_answers(&[], patience).is_err());
    }

    /// Trigger: `--connections 128` where there may be few processes (`ulimit -u`, pids.max). Damage: a panic, and no summary.
    /// Cure: without a thread there is one connection less.
    #[test]
    fn a_connection_without_a_thread_is_one_that_was_not_made() {
        let (server, _, _held) = silent();
        let secret = Secret::new([1; crate::seal::SECRET_LEN]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let join = || {
            refuse_threads();
            runtime.block_on(join(server, [2; 16], &secret, 3))
        };
        let (joined, error) = std::thread::scope(|scope| scope.spawn(join).join()).unwrap();
        assert_eq!(joined.len(), 0);
        assert!(error.contains("temporarily unavailable"), "{error}");
    }

    /// This thread can make no other any more.
    fn refuse_threads() {
        use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
        const CLONE3: i64 = 435; // on every architecture
        let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(11)); // EAGAIN
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new([(CLONE3, Vec::new())].into(), allow, refuse, arch).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    }

    /// An address that answers no connection, as long as its sockets are held.
    fn silent() -> (SocketAddr, Vec<TcpStream>, impl Sized) {
        use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        listen(&listener, 0).unwrap();
        let address: SocketAddr = getsockname(&listener).unwrap().try_into().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
        let waiting = (0..4).map_while(connect).collect();
        (address, waiting, listener)
    }
}
