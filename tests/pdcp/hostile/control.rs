//! A raw peer's control connection, in either role: greeting, preamble and TLS on a socket that blocks.
//!
//! Its TLS is honest, with whatever key it is given; what is said over it need not be. Ended like the socket below it,
//! without TLS's own goodbye.

use pdcp::control::identity::{ClientIdentity, ServerIdentity, server_name};
use pdcp::seal::{EXPORTER_LABEL, SECRET_LEN, Secret};
use pdcp::wire::{
    Challenge, GREETING_LEN, PREAMBLE_LEN, Purpose, decode_greeting, decode_preamble, encode_greeting, encode_preamble,
};
use rustls::{ClientConnection, Connection, ServerConnection};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// What raw servers greet every connection with. Challenges need not differ to be answered rightly.
pub(super) const CHALLENGE: Challenge = [5; 32];

/// Exactly so many bytes; `None` if there are no more.
pub(super) fn exactly<const N: usize>(from: &mut impl Read) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).ok().map(|()| bytes)
}

/// The server's greeting.
#[track_caller]
pub(super) fn greeted(socket: &mut TcpStream) -> Challenge {
    decode_greeting(&exactly::<GREETING_LEN>(socket).expect("a greeting")).unwrap()
}

pub(super) struct Control {
    tls: Connection,
    challenge: Challenge,
    socket: TcpStream,
}

impl Control {
    /// A client's, with the key of this file. A server that does not accept it says so only after the handshake.
    pub(super) fn dial(mut socket: TcpStream, key_file: &Path) -> io::Result<Self> {
        let challenge = greeted(&mut socket);
        socket.write_all(&encode_preamble(Purpose::Control))?;
        let address = socket.peer_addr()?;
        let config = ClientIdentity::load(Some(key_file)).unwrap().client_config("127.0.0.1", address.port());
        let tls = ClientConnection::new(config, server_name()).unwrap().into();
        Self { tls, challenge, socket }.shake()
    }

    /// A server's, with the key of this file.
    pub(super) fn accept(mut socket: TcpStream, key_file: &Path) -> io::Result<Self> {
        socket.write_all(&encode_greeting(&CHALLENGE))?;
        let preamble = exactly::<PREAMBLE_LEN>(&mut socket).ok_or(ErrorKind::UnexpectedEof)?;
        assert_eq!(decode_preamble(&preamble), Ok(Purpose::Control));
        let config = ServerIdentity::load(Some(key_file)).unwrap().server_config();
        let tls = ServerConnection::new(config).unwrap().into();
        Self { tls, challenge: CHALLENGE, socket }.shake()
    }

    fn shake(mut self) -> io::Result<Self> {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.socket)?;
        }
        Ok(self)
    }

    /// What grows into the keys of the session.
    pub(super) fn secret(&self) -> Secret {
        let bytes = [0; SECRET_LEN];
        Secret::new(self.tls.export_keying_material(bytes, EXPORTER_LABEL, Some(&self.challenge)).unwrap())
    }

    /// Something is there to be read, whether or not the socket has more.
    pub(super) fn has_more(&mut self) -> bool {
        self.tls.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }

    /// TLS's goodbye with these bytes behind it, in one segment. What is left is the socket, open in both directions.
    pub(super) fn say_goodbye(mut self, behind: &[u8]) -> TcpStream {
        self.tls.send_close_notify();
        let mut words = Vec::new();
        self.tls.write_tls(&mut words).unwrap();
        self.socket.write_all(&[&words, behind].concat()).unwrap();
        self.socket
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }
}

impl Read for Control {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                end => return end,
            }
            self.tls.complete_io(&mut self.socket)?;
        }
    }
}

impl Write for Control {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.tls.writer().write(bytes)?;
        self.flush().map(|()| taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
