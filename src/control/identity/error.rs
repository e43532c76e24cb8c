//! Why there is no identity, or no list of whom to let in: which file, which line, what to do.

use super::key::KeyTextError;
use crate::control::own::Flaw;
use crate::failure::{Failure, Kind};
use crate::limits::KEYS_MAX;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What is wrong, with which file. The start is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct IdentityError {
    /// The file; empty if it is not known where it should be.
    pub(super) path: PathBuf,
    pub(super) problem: Problem,
}

/// What is wrong with a file of keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Problem {
    /// Nothing says where the key file is.
    NoPlace,
    /// It, or its directory, is not as a file of our own must be.
    Flaw(Flaw),
    /// It exists, where one was to be made.
    Exists,
    /// It holds no key.
    Empty,
    /// It is longer than such a file may be.
    TooLong { bytes_max: usize },
    /// A line, counted from 1, is not understood.
    Line(usize, LineError),
}

/// Why a line is not understood. Never with the line itself: it may be a secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum LineError {
    NotText,
    Control,
    Key(KeyTextError),
    /// Something beside the one key of a key file.
    Beside,
    NoKey,
    TwoKeys,
    KeyTwice,
    TooManyKeys,
    UnknownOption,
    OptionTwice(&'static str),
    Root,
    From,
    FromBits,
    MaxSessions,
    Server,
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => Self::Exists,
            _ => Self::Flaw(error.into()),
        }
    }
}

impl Problem {
    pub(super) fn about(self, path: &Path) -> IdentityError {
        IdentityError { path: path.to_owned(), problem: self }
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        Failure::about(Kind::Refused, error.path.as_os_str().as_bytes(), error.problem.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPlace => f.write_str(
                "nothing says where the key file is, as HOME and XDG_CONFIG_HOME are not set; name it by --key-file FILE, \
                 by PDCP_KEY_FILE, or in a unit of systemd by LoadCredential=pdcp-key:FILE",
            ),
            Self::Flaw(Flaw::Missing) => f.write_str(
                "there is no key; copy the server's key file to here (mode 600), or make one by 'pdcp --keygen' and put \
                 the line that 'pdcp --keygen --public' prints into the server's authorized_keys",
            ),
            Self::Flaw(flaw) => flaw.fmt(f),
            Self::Exists => f.write_str(
                "exists and is kept; to replace the key, add the line of a new one behind it on every host, then move that \
                 to the front on every host (the first is presented, all are accepted), then take the old one away",
            ),
            Self::Empty => f.write_str("holds no key; remove it, and 'pdcp --keygen' makes a new one"),
            Self::TooLong { bytes_max } => write!(f, "is longer than {} KiB", bytes_max >> 10),
            Self::Line(number, error) => write!(f, "line {number} {error}"),
        }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotText => f.write_str("is not UTF-8"),
            Self::Control => f.write_str("has a control character; lines end in LF, not in CR LF"),
            Self::Key(error) => error.fmt(f),
            Self::Beside => f.write_str("has something beside its key; a comment begins with #"),
            Self::NoKey => f.write_str("has no public key, such as 'pdcp --keygen --public' prints"),
            Self::TwoKeys => f.write_str("has two public keys"),
            Self::KeyTwice => f.write_str("has a key that an earlier line has"),
            Self::TooManyKeys => write!(f, "has one key more than {KEYS_MAX}"),
            Self::UnknownOption => {
                f.write_str("has a word that is none of: ro, nodelete, root=DIR, from=CIDR,..., max-sessions=N")
            }
            Self::OptionTwice(name) => write!(f, "has {name} twice"),
            Self::Root => f.write_str("has a root= that is not an absolute directory, without '..' and blanks"),
            Self::From => {
                f.write_str("has a from= that is not a list of networks like 10.0.0.0/8,fd00::/8; names are not taken")
            }
            Self::FromBits => f.write_str("has a from= with bits set behind the network's prefix; which is meant?"),
            Self::MaxSessions => f.write_str("has a max-sessions= that is not a number above 0"),
            Self::Server => f.write_str("is not HOST:PORT PUBLIC-KEY, or [IPV6]:PORT PUBLIC-KEY"),
        }
    }
}
