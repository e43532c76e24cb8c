//! Who stands between two real ends: all connections of a client to its server go through him, and he makes of what goes
//! over them what he likes.
//!
//! He has no key. In data connections he tells frames apart as anybody can: their headers are not hidden.

use pdcp::limits::{HEADER_LEN, PROOF_LEN};
use pdcp::wire::{GREETING_LEN, JOIN_LEN, PREAMBLE_LEN};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

/// Another address of this host than the server's: so neither end takes them for neighbours, and frames are sealed.
pub(super) const ELSEWHERE: &str = "127.0.0.2:0";

/// Bytes that go to the server before the frames of a data connection, and those that come from it.
pub(super) const TO_JOIN: usize = PREAMBLE_LEN + JOIN_LEN;
pub(super) const TO_BE_LET_IN: usize = GREETING_LEN + PROOF_LEN;

/// One direction of one connection. A client's first connection is its control connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) connection: usize,
    pub(super) to_server: bool,
}

/// What goes on instead of the bytes that came. It sees all of one stream, in order, in pieces of any length.
pub(super) type Change = Box<dyn FnMut(Vec<u8>) -> Vec<u8> + Send>;

pub(super) struct Middle {
    pub(super) address: SocketAddr,
}

impl Middle {
    /// Listens at `place`. `change` says what becomes of a stream; `None`: it goes on as it is.
    pub(super) fn before(
        server: SocketAddr,
        place: &str,
        mut change: impl FnMut(Stream) -> Option<Change> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(place).unwrap();
        let address = listener.local_addr().unwrap();
        // Ends with the test process; a listener without callers costs nothing.
        std::thread::spawn(move || {
            for (connection, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let Ok(far) = TcpStream::connect(server) else { return };
                for (to_server, from, to) in [(true, &client, &far), (false, &far, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let change = change(Stream { connection, to_server });
                    std::thread::spawn(move || pass(&from, &to, change));
                }
            }
        });
        Self { address }
    }

    /// `HOST:PORT:path` for a client that is to go this way.
    pub(super) fn remote(&self, path: &std::path::Path) -> String {
        format!("{}:{}", self.address, path.display())
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, mut change: Option<Change>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        let came = buffer[..got].to_vec();
        let goes_on = if let Some(change) = &mut change { change(came) } else { came };
        if to.write_all(&goes_on).is_err() {
            break;
        }
    }
    _ = from.shutdown(Shutdown::Read);
    _ = to.shutdown(Shutdown::Write);
}

/// One byte of a stream becomes another.
pub(super) fn flip(at: usize) -> Change {
    let mut passed = 0;
    Box::new(move |mut bytes| {
        if let Some(byte) = at.checked_sub(passed).and_then(|at| bytes.get_mut(at)) {
            *byte ^= 1 << (at % 8);
        }
        passed += bytes.len();
        bytes
    })
}

/// The frames of a data connection, one by one; what `change` makes of a frame goes on in its place.
pub(super) fn frames(to_server: bool, mut change: impl FnMut(Vec<u8>) -> Vec<u8> + Send + 'static) -> Change {
    let mut head = if to_server { TO_JOIN } else { TO_BE_LET_IN };
    let mut waiting = Vec::new();
    Box::new(move |bytes| {
        waiting.extend(bytes);
        let mut passed: Vec<u8> = waiting.drain(..head.min(waiting.len())).collect();
        head -= passed.len();
        while let Some(length) = frame_bytes(&waiting).filter(|length| head == 0 && waiting.len() >= *length) {
            passed.extend(change(waiting.drain(..length).collect()));
        }
        passed
    })
}

/// Length of the first frame, payload included, once its header is there.
fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let number = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()) as usize;
    (bytes.len() >= HEADER_LEN).then(|| HEADER_LEN + number(4) + number(8))
}
