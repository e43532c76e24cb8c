//! Sessions that run, by name, so that one which its client has lost is ended when that client dials it again. Else it would
//! hold its target, and its place, until silence tells that nobody is there any more.
//!
//! A name is known to the two ends of a session only; another client's key ends nothing all the same.

use super::identity::RoleKey;
use crate::limits::LOCK_MS;
use crate::wire::SessionId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// The sessions of a server.
#[derive(Debug, Default)]
pub(super) struct Formers {
    running: RefCell<HashMap<SessionId, Caller>>,
    /// One of them has ended.
    ended: Notify,
}

/// Whose session it is, and what it is ended by: its control connection.
#[derive(Debug)]
struct Caller {
    key: RoleKey,
    control: Rc<TcpStream>,
}

/// One session that runs, until this is dropped.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    formers: &'a Formers,
    session: SessionId,
}

impl Formers {
    /// A session begins.
    pub(super) fn enter(&self, session: SessionId, key: RoleKey, control: Rc<TcpStream>) -> Entry<'_> {
        self.running.borrow_mut().insert(session, Caller { key, control });
        Entry { formers: self, session }
    }

    /// Ends this one, if it runs and is of this key, and waits for its end. `false`: not for ever, as it may be at its commit.
    pub(super) async fn end(&self, session: &SessionId, key: &RoleKey) -> bool {
        match self.running.borrow().get(session) {
            Some(caller) if caller.key == *key => _ = caller.control.shutdown(Shutdown::Both),
            _ => return true,
        }
        let gone = async {
            loop {
                let ended = self.ended.notified();
                if !self.running.borrow().contains_key(session) {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(Duration::from_millis(LOCK_MS), gone).await.is_ok()
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.formers.running.borrow_mut().remove(&self.session);
        self.formers.ended.notify_waiters();
    }
}
