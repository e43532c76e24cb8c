//! Stands between client and server, and is the network that a test wants: it holds each connection after so many bytes
//! until it is opened, cuts one that is held, changes a byte, counts what passes.
//!
//! A control connection never carries as much as is let pass, so both ends live and talk while a copy is held. What one
//! end closes is closed for the other end too.

use super::DEADLINE;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};

/// See the module.
#[derive(Debug)]
pub(crate) struct Valve {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    held: Receiver<()>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes that pass in one direction of one connection before it is held.
    pass_bytes: usize,
    /// Which byte of each direction of each connection becomes another one.
    spoilt: Option<usize>,
}

#[derive(Debug)]
struct State {
    server_port: u16,
    open: bool,
    /// Held connections that are to be cut.
    cuts: usize,
    connections: usize,
    /// Directions of connections that are not closed.
    passing: usize,
    /// To the server, to the client.
    passed_bytes: [u64; 2],
}

impl Valve {
    /// A valve in front of the server at this port.
    pub(crate) fn new(server_port: u16, pass_bytes: usize) -> Self {
        Self::start(server_port, pass_bytes, None)
    }

    /// One that holds nothing, but changes this byte of each direction of each connection.
    pub(crate) fn spoiling(server_port: u16, spoilt: usize) -> Self {
        Self::start(server_port, usize::MAX, Some(spoilt))
    }

    fn start(server_port: u16, pass_bytes: usize, spoilt: Option<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State { server_port, open: false, cuts: 0, connections: 0, passing: 0, passed_bytes: [0; 2] };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), pass_bytes, spoilt });
        let (sender, held) = channel();
        let accepting = Arc::clone(&shared);
        // Ends with the test process; a listener without callers costs nothing.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                accept(&accepting, &client, &sender);
            }
        });
        Self { port, shared, held }
    }

    /// Waits until some connection has carried all that may pass.
    #[track_caller]
    pub(crate) fn wait_until_held(&self) {
        self.held.recv_timeout(DEADLINE).expect("a copy that is large enough to be held");
    }

    /// The same, if it is so by now.
    pub(crate) fn is_held(&self) -> bool {
        self.held.try_recv().is_ok()
    }

    /// Lets everything pass from now on.
    pub(crate) fn open(&self) {
        self.change(|state| state.open = true);
    }

    /// Cuts one of the connections that are held.
    pub(crate) fn cut_one(&self) {
        self.change(|state| state.cuts += 1);
        self.wait(|state| state.cuts == 0);
    }

    /// From now on connections lead to another server.
    pub(crate) fn lead_to(&self, server_port: u16) {
        self.change(|state| state.server_port = server_port);
    }

    /// Connections that were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().connections
    }

    /// All that has passed to the server and to the client, once both have closed everything.
    pub(crate) fn passed_bytes(&self) -> [u64; 2] {
        self.wait(|state| state.passing == 0);
        self.shared.state.lock().unwrap().passed_bytes
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state.lock().unwrap());
        self.shared.changed.notify_all();
    }

    fn wait(&self, until: impl Fn(&State) -> bool) {
        let state = self.shared.state.lock().unwrap();
        let (_state, waited) = self.shared.changed.wait_timeout_while(state, DEADLINE, |state| !until(state)).unwrap();
        assert!(!waited.timed_out());
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.open();
    }
}

fn accept(shared: &Arc<Shared>, client: &TcpStream, held: &Sender<()>) {
    let server_port = {
        let mut state = shared.state.lock().unwrap();
        state.connections += 1;
        state.server_port
    };
    let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) else { return };
    shared.state.lock().unwrap().passing += 2;
    for (direction, from, to) in [(0, client, &server), (1, &server, client)] {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let (shared, held) = (Arc::clone(shared), held.clone());
        std::thread::spawn(move || {
            pass(direction, &from, &to, &shared, &held);
            _ = from.shutdown(Shutdown::Read);
            _ = to.shutdown(Shutdown::Write);
            shared.state.lock().unwrap().passing -= 1;
            shared.changed.notify_all();
        });
    }
}

/// Passes on what comes, until either end is closed.
fn pass(direction: usize, mut from: &TcpStream, mut to: &TcpStream, shared: &Shared, held: &Sender<()>) {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        let chunk = passed..passed + got;
        passed = chunk.end;
        if let Some(spoilt) = shared.spoilt.filter(|spoilt| chunk.contains(spoilt)) {
            buffer[spoilt - chunk.start] ^= 1;
        }
        if chunk.start < shared.pass_bytes && chunk.end >= shared.pass_bytes {
            _ = held.send(());
        }
        let mut state = shared.state.lock().unwrap();
        if chunk.end >= shared.pass_bytes {
            state = shared.changed.wait_while(state, |state| !state.open && state.cuts == 0).unwrap();
            if !state.open {
                state.cuts -= 1;
                _ = from.shutdown(Shutdown::Both);
                _ = to.shutdown(Shutdown::Both);
                shared.changed.notify_all();
                return;
            }
        }
        state.passed_bytes[direction] += got as u64;
        drop(state);
        if to.write_all(&buffer[..got]).is_err() {
            return;
        }
    }
}
