//! Where a server listens: sockets of its own, or those that systemd has opened for it (`--serve systemd`).
//!
//! What is handed over is asked for by name, and an address typed is never taken for it: there is one place to look for
//! where a server listens, the command line or the socket's unit.

use super::Listen;
use crate::completion::Errno;
use crate::failure::{Failure, Kind};
use crate::limits::BACKLOG;
use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// Sockets that listen, at least one.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<tokio::net::TcpListener>,
    /// Who is asked first: each in turn, so that a crowd at one does not keep out who comes by another.
    first: Cell<usize>,
}

impl Listeners {
    /// # Errors
    /// Where the port is not to be had, or systemd has handed over nothing that can be listened on.
    pub(super) fn open(place: &Listen) -> Result<Self, Failure> {
        let sockets = match place {
            Listen::At { address, port } => vec![own(*address, *port)?],
            Listen::Systemd => handed_over(ListenFd::from_env())?,
        };
        let adopt = |socket| tokio::net::TcpListener::from_std(socket);
        let sockets = sockets.into_iter().map(adopt).collect::<io::Result<_>>();
        let failed = |error| Failure::new(Kind::Other, format!("cannot listen: {}", Errno::from(error)));
        Ok(Self { sockets: sockets.map_err(failed)?, first: Cell::new(0) })
    }

    /// Where they listen, ports chosen by the kernel included.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// The next connection. Nothing is lost if this is dropped while it waits.
    ///
    /// # Errors
    /// Where there is one that cannot be accepted.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let (before, after) = self.sockets.split_at(self.first.get());
        self.first.set((self.first.get() + 1) % self.sockets.len());
        let accepted = after.iter().chain(before).map(|socket| socket.poll_accept(context));
        accepted.into_iter().find(Poll::is_ready).unwrap_or(Poll::Pending)
    }
}

/// What systemd has opened. Only asked for before any thread is started: it takes variables out of the environment.
fn handed_over(mut handed: ListenFd) -> Result<Vec<TcpListener>, Failure> {
    let count = handed.len();
    if count == 0 {
        let text =
            "systemd has handed over no socket; start pdcp by its socket's unit, or name an address: --serve :PORT";
        return Err(Failure::new(Kind::Usage, text));
    }
    let unfit = |index, text: &str| {
        let text = format!("socket {} that systemd has handed over {text}", index + 1);
        Failure::new(Kind::Usage, text)
    };
    let take = |index| {
        let socket =
            handed.take_tcp_listener(index).ok().flatten().ok_or_else(|| unfit(index, "is not a TCP socket"))?;
        match sockopt::socket_acceptconn(&socket) {
            Ok(true) => {}
            _ => return Err(unfit(index, "does not listen: its unit needs ListenStream= and Accept=no")),
        }
        socket.set_nonblocking(true).map_err(|error| unfit(index, &Errno::from(error).to_string()))?;
        Ok(socket)
    };
    (0..count).map(take).collect()
}

/// A socket of our own. No address means all of them: IPv6 and IPv4, or IPv4 where there is no IPv6.
fn own(address: Option<IpAddr>, port: u16) -> Result<TcpListener, Failure> {
    let bound = match address {
        Some(address) => bound(SocketAddr::new(address, port)),
        None => bound(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).or_else(|error| match error.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
            _ => bound(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
        }),
    };
    bound.map_err(|error| {
        let text = match error.kind() {
            io::ErrorKind::AddrInUse => format!("port {port} is in use; another pdcp --serve?"),
            io::ErrorKind::PermissionDenied => format!("this user may not listen on port {port}; take one above 1023"),
            _ => format!("cannot listen on port {port}: {}", Errno::from(error)),
        };
        Failure::new(Kind::Other, text)
    })
}

fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // A restarted server need not wait for the connections of the one before.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !address.ip().is_unspecified())?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}
