//! What this process is asked from outside: Ctrl-C and SIGTERM. SIGXFSZ is taken too, so that a file that grows too large
//! is an error and not our end.

use std::io;
use std::sync::mpsc::sync_channel;
use tokio::runtime::{Builder, Runtime};
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

    /// Has them heeded by a thread that lives as long as the process, whatever else is kept waiting: by a terminal that is
    /// stopped, for one.
    pub(super) fn each(mut heed: impl FnMut(i32) + Send + 'static) -> io::Result<()> {
        let (hand, handed) = sync_channel::<(Runtime, Self)>(1);
        // First, as there may be no thread, and who is inside a runtime must not drop another one.
        std::thread::Builder::new().spawn(move || {
            let Ok((runtime, mut signals)) = handed.recv() else { return };
            runtime.block_on(async {
                loop {
                    heed(signals.next().await);
                }
            });
        })?;
        let runtime = Builder::new_current_thread().enable_io().build()?;
        // Taken here and not by the thread, which runs when it is its turn.
        let signals = {
            let _runtime = runtime.enter();
            Self::new()?
        };
        _ = hand.send((runtime, signals));
        Ok(())
    }

    /// The number of the next one that asks us to stop.
    pub(super) async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
        }
    }
}
