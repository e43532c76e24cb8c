//! What systemd is told of a server that it has started (`Type=notify`): that it listens, how many sessions there are, that
//! it stops. Anybody else's server tells nobody.

use crate::limits::STATUS_PAUSE_MS;
use sd_notify::{NotifyState, notify};
use std::io;
use std::time::Duration;
use tokio::sync::watch;

/// Sessions of a server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Count {
    pub(super) running: usize,
    pub(super) ended: u64,
}

impl Count {
    fn status(self) -> String {
        let Self { running, ended } = self;
        format!("{running} sessions running, {ended} ended")
    }
}

/// It accepts connections.
///
/// # Errors
/// Where systemd does not hear it, and will end this process for being late.
pub(super) fn ready() -> io::Result<()> {
    notify(&[NotifyState::Ready, NotifyState::Status(&Count::default().status())])
}

/// It accepts no more.
pub(super) fn stopping() {
    _ = notify(&[NotifyState::Stopping]);
}

/// Tells changes, for as long as there are any: at most one at a time, and without anybody waiting for systemd.
pub(super) async fn keep_told(mut count: watch::Receiver<Count>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    while count.changed().await.is_ok() {
        let status = count.borrow_and_update().status();
        _ = tokio::task::spawn_blocking(move || notify(&[NotifyState::Status(&status)])).await;
        tokio::time::sleep(Duration::from_millis(STATUS_PAUSE_MS)).await;
    }
}
