//! What this process is asked from outside: Ctrl-C, SIGTERM, and SIGHUP of a terminal that is closed, unless it was started so
//! that this is ignored (`nohup`). SIGXFSZ is taken too, so that a file that grows too large is an error and not our end.

use std::io;
use std::sync::mpsc::sync_channel;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

const SIGHUP: i32 = 1;
const SIGXFSZ: i32 = 25;

/// Signals that do nothing by themselves from now on.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// `None`: nobody heeds it, or no longer.
    hangup: Option<Signal>,
    _too_large: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: is_heeded(SIGHUP).then(|| signal(SignalKind::hangup())).transpose()?,
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

    /// The number of the next one that asks us to stop. A terminal that is closed is told of by its shell, and again by the
    /// kernel, and systemd does so after SIGTERM: SIGHUP is never the second.
    pub(super) async fn next(&mut self) -> i32 {
        let number = tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            () = hung_up(&mut self.hangup) => SIGHUP,
        };
        self.hangup = None; // still taken, and heard by nobody
        number
    }
}

async fn hung_up(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => _ = hangup.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether this process does not ignore a signal: taken, it would no longer be ignored. Where the kernel does not tell, it is
/// left as it is.
fn is_heeded(number: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask >> (number - 1) & 1 == 0)
}
