//! Why a source or a target cannot be used, and what kind of failure that is on either side.
//!
//! The text is one sentence that says what to do. The path is not in it: the caller knows it as its user typed it.

use crate::completion::Errno;
use crate::failure::{Failure, Kind};
use rustix::process::geteuid;
use std::fmt;

/// Why a source or a target cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RootError {
    /// Nothing was named.
    EmptyPath,
    /// A name that no file can have: empty, `.`, `..`, or with a `/` or NUL in it.
    BadName,
    /// A name, or the whole path, is longer than the kernel takes.
    TooLong,
    /// There is nothing of that name.
    Missing,
    /// Leads out of the directory that is served.
    Outside,
    /// A key, a list or a log of the server's own.
    Withheld,
    /// Its first name is none of those that are served.
    NotServed,
    /// Something on the way is no directory, or the path of a file ends in `/`.
    NotDirectory,
    /// A directory where a file is wanted.
    IsDirectory,
    /// A FIFO, a socket, a character device: what it is.
    NotRegular(&'static str),
    /// A block device as target.
    BlockDeviceTarget,
    /// A block device without bytes.
    NoMedium,
    /// A symbolic link that leads nowhere.
    DanglingLink,
    /// The target has this many names, and `--inplace` was not given.
    HasLinks(u64),
    /// What has the temporary's name is not ours.
    ForeignTemporary(String),
    /// There is not one byte that a benchmark could mutate.
    NoData,
    /// Source and target are one file.
    SameFile,
    /// Somebody else has it.
    Busy,
    /// While a new target was made, somebody made one too.
    Appeared,
    /// While the target was updated, somebody gave its name to another file.
    Replaced,
    /// The kernel says that we may not.
    NotPermitted,
    /// Its times are only its owner's to set.
    NotOwner,
    /// The file system is read-only.
    ReadOnly,
    /// The disk is full.
    NoSpace,
    /// The user's share of the disk is full.
    NoQuota,
    /// Longer than the file system, or the process, may make a file.
    TooLarge,
    /// The file system does not know locks.
    CannotLock(Errno),
    /// Anything else.
    Os(Errno),
}

impl RootError {
    /// As its user is told it, about the source of this name.
    pub fn of_source(&self, path: &[u8]) -> Failure {
        let text = match self {
            Self::NotPermitted => denied("may not read it", ""),
            _ => self.to_string(),
        };
        Failure::about(self.source_kind(), path, text)
    }

    /// As its user is told it, about the target of this name.
    pub fn of_target(&self, path: &[u8]) -> Failure {
        let text = match self {
            Self::NotPermitted => {
                let what = "may not read and write it, or may not make files in its directory";
                denied(what, "; is it immutable (lsattr)?")
            }
            _ => self.to_string(),
        };
        Failure::about(self.target_kind(), path, text)
    }

    /// The kind of failure if this is about a source.
    pub fn source_kind(&self) -> Kind {
        match self {
            Self::EmptyPath | Self::BadName | Self::TooLong | Self::IsDirectory | Self::SameFile => Kind::Usage,
            Self::Outside | Self::Withheld | Self::NotServed => Kind::Refused,
            Self::Busy => Kind::Busy,
            _ => Kind::Source,
        }
    }

    /// The kind of failure if this is about a target.
    pub fn target_kind(&self) -> Kind {
        match self {
            Self::EmptyPath | Self::BadName | Self::TooLong | Self::IsDirectory | Self::SameFile => Kind::Usage,
            Self::Outside
            | Self::Withheld
            | Self::NotServed
            | Self::NotRegular(_)
            | Self::BlockDeviceTarget
            | Self::DanglingLink
            | Self::HasLinks(_)
            | Self::NoData
            | Self::ForeignTemporary(_) => Kind::Refused,
            Self::Busy | Self::Appeared | Self::Replaced => Kind::Busy,
            _ => Kind::Target,
        }
    }
}

/// Who may not, as the other end may be told it. Root may all that a mode forbids, so there is another reason.
fn denied(what: &str, reason: &str) -> String {
    match geteuid() {
        user if user.is_root() => format!("permission denied: even root {what}{reason}"),
        user => format!("permission denied: the user {user} {what}"),
    }
}

impl fmt::Display for RootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::EmptyPath => "the path is empty; name a file",
            Self::BadName => "this is not a name that a file can have; name a file",
            Self::TooLong => "the path is too long: a name has at most 255 bytes, a path 4095",
            Self::Missing => "no such file or directory",
            Self::Outside => "leads out of the directory that is served; links in it must be relative, and stay in it",
            Self::Withheld => "is a key, a list of keys or the log of the server itself, which it never serves",
            Self::NotServed => "the first name of a path must be one of those that are served here",
            Self::NotDirectory => "a part of the path is a file where a directory is needed",
            Self::IsDirectory => "is a directory; name a file in it",
            Self::NotRegular(what) => return write!(f, "is {what}; only files can be copied"),
            Self::NoMedium => "is a device of no length; is anything attached to it?",
            Self::BlockDeviceTarget => "is a block device, which cannot be a target until a later version",
            Self::DanglingLink => {
                "is or leads through a symbolic link to nothing; make what it points to, or remove it"
            }
            Self::HasLinks(links) => {
                return write!(f, "has {links} names (hard links); --inplace updates the file behind all of them");
            }
            Self::ForeignTemporary(name) => {
                return write!(f, "the file is made as {name} beside it, but that is not a file of ours; remove it");
            }
            Self::NoData => "holds no data, as its source does not; there is nothing to measure with",
            Self::SameFile => "source and target are the same file",
            Self::Busy => "is in use by another process; try again when that is done",
            Self::Appeared => "somebody else made this file meanwhile; both are kept, try again to update it",
            Self::Replaced => "somebody else replaced or removed this file meanwhile; try again",
            Self::NotPermitted => "permission denied for this user",
            Self::NotOwner => "only the owner of a file may set its modification time; run as its owner",
            Self::ReadOnly => "the file system is read-only",
            Self::NoSpace => "no space left on the disk; make room and try again",
            Self::NoQuota => "the disk quota is used up; make room and try again",
            Self::TooLarge => "the file is larger than the file system or the process' limit allows",
            Self::CannotLock(errno) => return write!(f, "the file system cannot lock it: {errno}"),
            Self::Os(errno) => return write!(f, "{errno}"),
        };
        f.write_str(text)
    }
}

impl std::error::Error for RootError {}

impl From<rustix::io::Errno> for RootError {
    fn from(errno: rustix::io::Errno) -> Self {
        use rustix::io::Errno as E;
        match errno {
            E::NOENT => Self::Missing,
            E::NOTDIR => Self::NotDirectory,
            E::ISDIR => Self::IsDirectory,
            E::ACCESS | E::PERM => Self::NotPermitted,
            E::ROFS => Self::ReadOnly,
            E::NOSPC => Self::NoSpace,
            E::DQUOT => Self::NoQuota,
            E::FBIG | E::OVERFLOW => Self::TooLarge,
            E::NAMETOOLONG => Self::TooLong,
            // Only a jail's walk crosses anything: here nothing is moved from one file system to another.
            E::XDEV => Self::Outside,
            // A program that runs, or a swap file; somebody has a lease on it, or renames without end.
            E::TXTBSY | E::AGAIN => Self::Busy,
            other => Self::Os(Errno(other.raw_os_error())),
        }
    }
}

impl From<Errno> for RootError {
    /// For what a worker met on the same file.
    fn from(errno: Errno) -> Self {
        Self::from(rustix::io::Errno::from_raw_os_error(errno.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_a_kind_on_either_side() {
        #[track_caller]
        fn check(errno: i32, source: Kind, target: Kind) {
            let error = RootError::from(Errno(errno));
            assert_eq!((error.source_kind(), error.target_kind()), (source, target), "{error}");
        }
        check(2, Kind::Source, Kind::Target); // ENOENT
        check(5, Kind::Source, Kind::Target); // EIO
        check(13, Kind::Source, Kind::Target); // EACCES
        check(11, Kind::Busy, Kind::Busy); // EAGAIN
        check(18, Kind::Refused, Kind::Refused); // EXDEV
        check(21, Kind::Usage, Kind::Usage); // EISDIR
        check(26, Kind::Busy, Kind::Busy); // ETXTBSY
        check(28, Kind::Source, Kind::Target); // ENOSPC
        check(36, Kind::Usage, Kind::Usage); // ENAMETOOLONG
        check(122, Kind::Source, Kind::Target); // EDQUOT
    }

    #[test]
    fn who_may_not_is_named_and_root_is_told_what_stops_even_root() {
        let user = geteuid();
        let named = if user.is_root() { "even root may not".to_owned() } else { format!("the user {user} may not") };
        let [source, target] = [RootError::NotPermitted.of_source(b"file"), RootError::NotPermitted.of_target(b"file")];
        assert!(source.text.contains(&named) && target.text.contains(&named), "{source}; {target}");
        assert!(!source.text.contains("immutable"), "{source}"); // which may be read
        assert_eq!(target.text.contains("immutable (lsattr)?"), user.is_root(), "{target}");
    }

    #[test]
    fn what_protects_a_target_is_refused_and_says_how_to_go_on() {
        #[track_caller]
        fn check(error: RootError, kind: Kind, hint: &str) {
            assert_eq!(error.target_kind(), kind);
            assert!(error.to_string().contains(hint), "{error}");
        }
        check(RootError::Outside, Kind::Refused, "links in it must be relative");
        check(RootError::HasLinks(3), Kind::Refused, "--inplace");
        check(RootError::BlockDeviceTarget, Kind::Refused, "later version");
        check(RootError::NoMedium, Kind::Target, "attached");
        check(RootError::ForeignTemporary(".pdcp-0".into()), Kind::Refused, ".pdcp-0");
        check(RootError::NoData, Kind::Refused, "nothing to measure");
        check(RootError::NotRegular("a FIFO"), Kind::Refused, "a FIFO");
        check(RootError::Appeared, Kind::Busy, "both are kept");
        check(RootError::SameFile, Kind::Usage, "same file");
    }
}
