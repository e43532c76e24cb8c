//! Whether both ends of a session run on one kernel, in one network namespace: then nobody can listen between them, and
//! nothing needs sealing.
//!
//! They prove it live. The server listens on an abstract Unix socket whose name only the two know; such names exist in one
//! network namespace of one running kernel. Each end says there what only the other can check, its user id included, which
//! the kernel tells the listener too: so nobody can pass the words on between two hosts, unless he is that user on both.
//! Where anything of it fails, frames are sealed. Nothing else (addresses, boot ids) proves anything.
//!
//! Who shares a kernel may mean the same file: so the server says there which one it has.

use crate::limits::{NEIGHBOUR_MS, PROOF_LEN};
use crate::root::Inode;
use crate::seal::{Secret, Side, same_proof};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// The server's socket, until the client has come to it or the session begins without.
pub(super) struct Rendezvous {
    listener: tokio::net::UnixListener,
    secret: Secret,
    /// The server's file, if there is one.
    file: Option<Inode>,
}

/// A server on the client's kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbour {
    /// Its file, if there is one.
    pub(super) file: Option<Inode>,
}

impl Rendezvous {
    /// Listens under the session's own name.
    pub(super) fn new(secret: Secret, file: Option<Inode>) -> io::Result<Self> {
        let listener = UnixListener::bind_addr(&name(&secret)?)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: tokio::net::UnixListener::from_std(listener)?, secret, file })
    }

    /// Returns when somebody came who is the client for certain.
    pub(super) async fn met(self) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else { return std::future::pending().await };
            let (secret, file) = (self.secret.clone(), self.file);
            let greeted = stream.into_std().map(|stream| {
                tokio::task::spawn_blocking(move || {
                    stream.set_nonblocking(false)?;
                    listen(&stream, &secret, Side::Client)?;
                    speak(&stream, &secret, Side::Server, &said_of(file))
                })
            });
            if let Ok(greeted) = greeted
                && matches!(greeted.await, Ok(Ok(())))
            {
                return;
            }
        }
    }
}

/// The client's part: the server, if it is here. Blocks for a moment at most.
pub(super) fn meet(secret: &Secret) -> Option<Neighbour> {
    let met = || {
        let stream = UnixStream::connect_addr(&name(secret)?)?;
        speak(&stream, secret, Side::Client, &[])?;
        listen(&stream, secret, Side::Server)?;
        Ok::<_, io::Error>(Neighbour { file: hear(&stream)? })
    };
    met().ok()
}

fn name(secret: &Secret) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(secret.rendezvous())
}

/// The greeting, and what follows it.
fn speak(mut stream: &UnixStream, secret: &Secret, side: Side, more: &[u8]) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(NEIGHBOUR_MS)))?;
    stream.write_all(&[&secret.greeting(side, geteuid().as_raw()), more].concat())
}

fn listen(mut stream: &UnixStream, secret: &Secret, side: Side) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(NEIGHBOUR_MS)))?;
    let user = socket_peercred(stream)?.uid.as_raw();
    let mut said = [0; PROOF_LEN];
    stream.read_exact(&mut said)?;
    if same_proof(&said, &secret.greeting(side, user)) { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Which file: its file system and its number there; zeros for none.
fn said_of(file: Option<Inode>) -> Vec<u8> {
    let Inode { device, number } = file.unwrap_or(Inode { device: 0, number: 0 });
    [device.to_le_bytes(), number.to_le_bytes()].concat()
}

fn hear(mut stream: &UnixStream) -> io::Result<Option<Inode>> {
    let mut said = [[0; 8]; 2];
    stream.read_exact(said.as_flattened_mut())?;
    let [device, number] = said.map(u64::from_le_bytes);
    Ok((number != 0).then_some(Inode { device, number }))
}
