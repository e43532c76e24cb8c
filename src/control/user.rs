//! Becomes another user, for good (`--run-as`): a server that took a low port, or read a key, needs no more rights.
//!
//! All threads of the process change, and none can change back. What is open stays open.

use crate::failure::{Failure, Kind};
use nix::errno::Errno;
use nix::unistd::{Uid, User, geteuid, initgroups, setresgid, setresuid};
use std::ffi::CString;

/// Takes the user's groups, group and number, in this order: each step needs the rights that the next one gives up.
///
/// # Errors
/// Where there is no such user, or this process may not become it. It must not go on then.
pub(super) fn become_user(name: &str) -> Result<(), Failure> {
    let user = known(name)?;
    let groups_of = CString::new(user.name.as_str()).map_err(|_| failed(name, "there is no such user"))?;
    initgroups(&groups_of, user.gid)
        .and_then(|()| setresgid(user.gid, user.gid, user.gid))
        .and_then(|()| setresuid(user.uid, user.uid, user.uid))
        .map_err(|errno| match errno {
            Errno::EPERM => failed(name, ONLY_ROOT),
            other => failed(name, &format!("cannot become this user: {other}")),
        })
}

const ONLY_ROOT: &str = "only root can become another user";

/// Whether this process could become that user, as far as can be told without doing it.
///
/// # Errors
/// As [`become_user`].
pub(super) fn check_user(name: &str) -> Result<(), Failure> {
    known(name)?;
    if geteuid().is_root() { Ok(()) } else { Err(failed(name, ONLY_ROOT)) }
}

fn known(name: &str) -> Result<User, Failure> {
    let user = find(name).map_err(|errno| failed(name, &format!("cannot be looked up: {errno}")))?;
    user.ok_or_else(|| failed(name, "there is no such user"))
}

/// By name, or else by number.
fn find(name: &str) -> Result<Option<User>, Errno> {
    match (User::from_name(name)?, name.parse()) {
        (None, Ok(number)) => User::from_uid(Uid::from_raw(number)),
        (found, _) => Ok(found),
    }
}

fn failed(name: &str, text: &str) -> Failure {
    Failure::new(Kind::Usage, format!("--run-as {name}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_not_there_cannot_be_become() {
        for name in ["nobody-of-this-name", "", "a:b", "4000000000", "0x0", "-1"] {
            for failure in [become_user(name).unwrap_err(), check_user(name).unwrap_err()] {
                assert!(failure.text.contains("there is no such user"), "{name}: {failure}");
            }
        }
    }

    #[test]
    fn a_user_has_a_name_or_a_number() {
        let root = find("root").unwrap().expect("every system has one");
        assert_eq!(find("0").unwrap().map(|user| user.uid), Some(root.uid));
    }
}
