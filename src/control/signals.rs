//! What this process is asked from outside: Ctrl-C and SIGTERM. SIGXFSZ is taken too, so that a file that grows too large
//! is an error and not our end.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

const SIGXFSZ: i32 = 25;

/// Signals that do nothing by themselves from now on.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    _too_large: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            _too_large: signal(SignalKind::from_raw(SIGXFSZ))?,
        })
    }

    /// The number of the next one that asks us to stop.
    pub(super) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}
