//! Stands between client and server and holds a copy midway: each connection lets so many bytes pass in each direction,
//! then none until the valve is opened. Closing goes through at once.
//!
//! A control connection never carries that much, so both ends live and talk meanwhile.

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
    opened: Condvar,
}

#[derive(Debug)]
struct State {
    open: bool,
    connections: usize,
    server_port: u16,
}

impl Valve {
    /// A valve in front of the server at this port.
    pub(crate) fn new(server_port: u16, pass_bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State { open: false, connections: 0, server_port };
        let shared = Arc::new(Shared { state: Mutex::new(state), opened: Condvar::new() });
        let (sender, held) = channel();
        let accepting = Arc::clone(&shared);
        // Ends with the test process; a listener without callers costs nothing.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server_port = {
                    let mut state = accepting.state.lock().unwrap();
                    state.connections += 1;
                    state.server_port
                };
                let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let (shared, sender) = (Arc::clone(&accepting), sender.clone());
                    std::thread::spawn(move || pass(from, to, pass_bytes, &shared, &sender));
                }
            }
        });
        Self { port, shared, held }
    }

    /// Waits until some connection has carried all that may pass.
    #[track_caller]
    pub(crate) fn wait_until_held(&self) {
        self.held.recv_timeout(DEADLINE).expect("a copy that is large enough to be held");
    }

    pub(crate) fn open(&self) {
        self.shared.state.lock().unwrap().open = true;
        self.shared.opened.notify_all();
    }

    /// From now on connections lead to another server.
    pub(crate) fn lead_to(&self, server_port: u16) {
        self.shared.state.lock().unwrap().server_port = server_port;
    }

    /// Connections that were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().connections
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.open();
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, pass_bytes: usize, shared: &Shared, held: &Sender<()>) {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    while let Ok(got @ 1..) = from.read(&mut buffer) {
        if passed < pass_bytes && passed + got >= pass_bytes {
            _ = held.send(());
        }
        passed += got;
        if passed >= pass_bytes {
            let state = shared.state.lock().unwrap();
            drop(shared.opened.wait_while(state, |state| !state.open).unwrap());
        }
        if to.write_all(&buffer[..got]).is_err() {
            break;
        }
    }
    _ = from.shutdown(Shutdown::Read);
    _ = to.shutdown(Shutdown::Write);
}
