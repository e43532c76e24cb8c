//! Files of our own, in which no peer has a word: keys, lists of keys, the audit log.
//!
//! A file is judged by its open descriptor, never by its name, so nobody changes it between look and use; and so is its
//! directory, where others could take it away or put theirs in its place. A link in the file's place is refused; those on
//! the way to it are followed, as who typed the path meant them.

use crate::completion::Errno as Cause;
use crate::failure::{Failure, Kind};
use crate::root::open_own;
use rustix::fs::{CWD, FileType, OFlags};
use rustix::io::Errno;
use std::fmt;
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is asked of a file before it is used.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rights {
    /// Nobody but this user reads or writes it.
    Secret,
    /// systemd made it: root may own it, and what looks like a group's right to read is the mask of an access list that
    /// lets this service in.
    Credential,
    /// Nobody but this user and root writes it.
    List,
    /// The same, and it has no other name: in `/tmp` anybody may have linked another file of ours to where the log is to be.
    Log,
}

/// Why a file is not used, and which: it, or its directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct OwnError {
    pub(super) path: PathBuf,
    pub(super) flaw: Flaw,
}

/// See [`OwnError`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Flaw {
    /// It does not exist.
    Missing,
    /// It is a symbolic link.
    Symlink,
    /// It is a directory, a FIFO, a device.
    NotRegular,
    /// It has other names, which may be others' doing.
    Linked,
    /// It belongs to somebody else.
    Foreign { owner: u32, own: u32 },
    /// Others can read or write it.
    Readable { mode: u32 },
    /// Others can write it, or what is in it.
    Writable { mode: u32 },
    /// The system said no.
    Io(Cause),
}

/// Opens a file whose rights are in order, and those of its directory.
///
/// # Errors
/// About the one or the other.
pub(super) fn open(path: &Path, rights: Rights, flags: OFlags) -> Result<File, OwnError> {
    let about = |path: &Path| {
        let path = path.to_owned();
        |flaw| OwnError { path, flaw }
    };
    let directory_path = directory_of(path);
    let directory = open_in(CWD, directory_path, OFlags::PATH | OFlags::DIRECTORY)
        .and_then(|directory| judge_directory(&directory.metadata()?).map(|()| directory))
        .map_err(about(directory_path))?;
    let name = Path::new(path.file_name().unwrap_or_default());
    // Opening a FIFO must not wait, and opening a terminal must not adopt it.
    open_in(&directory, name, flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY)
        .and_then(|file| judge(&file.metadata()?, rights).map(|()| file))
        .map_err(about(path))
}

/// Whether others could take away or exchange what is in this directory.
///
/// # Errors
/// Where they could.
pub(super) fn judge_directory(found: &Metadata) -> Result<(), Flaw> {
    const STICKY: u32 = 0o1000; // nobody takes away what is another's, as in /tmp
    let (owner, own, mode) = (found.uid(), own_user(), found.mode() & 0o7777);
    match owner == own || owner == 0 {
        false => Err(Flaw::Foreign { owner, own }),
        true if mode & 0o022 != 0 && mode & STICKY == 0 => Err(Flaw::Writable { mode }),
        true => Ok(()),
    }
}

pub(super) fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

pub(super) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn open_in(directory: impl AsFd, name: &Path, flags: OFlags) -> Result<File, Flaw> {
    match open_own(directory, name, flags) {
        Ok(descriptor) => Ok(File::from(descriptor)),
        Err(Errno::LOOP) => Err(Flaw::Symlink),
        Err(Errno::NXIO | Errno::ISDIR) => Err(Flaw::NotRegular),
        Err(error) => Err(std::io::Error::from(error).into()),
    }
}

fn judge(found: &Metadata, rights: Rights) -> Result<(), Flaw> {
    let (owner, own, mode) = (found.uid(), own_user(), found.mode() & 0o7777);
    if !FileType::from_raw_mode(found.mode()).is_file() {
        return Err(Flaw::NotRegular);
    }
    let roots_is_fine = !matches!(rights, Rights::Secret);
    if owner != own && !(owner == 0 && roots_is_fine) {
        return Err(Flaw::Foreign { owner, own });
    }
    match rights {
        Rights::Secret if mode & 0o077 != 0 => Err(Flaw::Readable { mode }),
        Rights::Credential if mode & 0o037 != 0 => Err(Flaw::Readable { mode }),
        Rights::List | Rights::Log if mode & 0o022 != 0 => Err(Flaw::Writable { mode }),
        Rights::Log if found.nlink() != 1 => Err(Flaw::Linked),
        _ => Ok(()),
    }
}

impl From<std::io::Error> for Flaw {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Io(Cause::from(error)),
        }
    }
}

impl From<OwnError> for Failure {
    fn from(error: OwnError) -> Self {
        Failure::about(Kind::Refused, error.path.as_os_str().as_bytes(), error.flaw.to_string())
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("does not exist"),
            Self::Symlink => f.write_str("is a symbolic link; name the file itself"),
            Self::NotRegular => f.write_str("is not a regular file"),
            Self::Linked => f.write_str("has several hard links; see which other names it has, then remove this one"),
            Self::Foreign { owner, own } => {
                write!(
                    f,
                    "belongs to user {owner}, and this is user {own}; run pdcp as its owner, or name another file"
                )
            }
            Self::Readable { mode } => write!(
                f,
                "has mode {mode:03o}, so others can reach the key; if nobody has used that, 'chmod 600' it, else make a \
                 new one"
            ),
            Self::Writable { mode } => {
                write!(f, "has mode {mode:03o}, so others can write to it; see what it holds, then 'chmod go-w' it")
            }
            Self::Io(cause) => cause.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, hard_link, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_log_is_appended_to_only_where_nobody_else_has_a_word() {
        #[track_caller]
        fn check(make: impl FnOnce(&Path), want: Option<Flaw>) {
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join("log");
            make(&path);
            let opened = open(&path, Rights::Log, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE);
            assert_eq!(opened.err().map(|error| error.flaw), want);
        }
        let mode = |mode| {
            move |path: &Path| {
                write(path, "").unwrap();
                set_permissions(path, Permissions::from_mode(mode)).unwrap();
            }
        };
        let in_mode =
            |mode| move |path: &Path| set_permissions(directory_of(path), Permissions::from_mode(mode)).unwrap();
        check(|_| {}, None);
        check(mode(0o600), None);
        check(mode(0o644), None);
        check(mode(0o660), Some(Flaw::Writable { mode: 0o660 }));
        check(mode(0o602), Some(Flaw::Writable { mode: 0o602 }));
        check(in_mode(0o755), None);
        check(in_mode(0o1777), None);
        check(in_mode(0o777), Some(Flaw::Writable { mode: 0o777 }));
        check(in_mode(0o770), Some(Flaw::Writable { mode: 0o770 }));
        check(|path| std::os::unix::fs::symlink("other", path).unwrap(), Some(Flaw::Symlink));
        check(|path| std::fs::create_dir(path).unwrap(), Some(Flaw::NotRegular));
        check(
            |path| {
                write(path, "").unwrap();
                hard_link(path, path.with_file_name("other")).unwrap();
            },
            Some(Flaw::Linked),
        );
    }

    #[test]
    fn what_is_made_is_its_owners() {
        let scratch = tempfile::tempdir().unwrap();
        let made = open(&scratch.path().join("log"), Rights::Log, OFlags::WRONLY | OFlags::CREATE).unwrap();
        assert_eq!(made.metadata().unwrap().mode() & 0o177, 0);
        let missing = scratch.path().join("no/log");
        let error = open(&missing, Rights::Log, OFlags::WRONLY | OFlags::CREATE).unwrap_err();
        assert_eq!(error, OwnError { path: scratch.path().join("no"), flaw: Flaw::Missing });
    }
}
