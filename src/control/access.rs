//! What is served, and what a peer may do with it.
//!
//! The server has an [`Access`] for all its peers. Who is more than a stranger may be given less, never more: by
//! [`Access::narrowed_by`], which loses no restriction of either. What a path means in a directory that is served, and that
//! it stays in there, is for `root` to say.

use crate::failure::{Failure, Kind};
use crate::root::{Jail, Root, RootError, Wall};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is served (`--root`).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Served {
    /// Every file of this host, by its path.
    #[default]
    Everything,
    /// What is in one directory.
    Directory(PathBuf),
    /// What is in several; the first name of a path says in which one.
    Named(Vec<(Vec<u8>, PathBuf)>),
}

/// What a peer may do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Access {
    /// Its paths begin in a directory of what is served, and stay in it: each is below the one before, the first is a path
    /// as any peer would give it. Empty: they begin where it begins.
    pub below: Vec<Vec<u8>>,
    /// It may pull, not push (`--read-only`).
    pub read_only: bool,
    /// Nothing that is served is removed for it (`--no-delete`). No request asks for that yet: a copy of one file removes
    /// no name but that of its own temporary.
    pub no_delete: bool,
}

impl Served {
    /// Holds the directories, before this process gives up the rights that it may need for that.
    ///
    /// # Errors
    /// Where one of them is no directory, or may not be entered.
    pub(super) fn open(&self) -> Result<Root, Failure> {
        let mut jail = Jail::default();
        let mut add = |name: &[u8], directory: &Path| {
            let about = |error: RootError| {
                Failure::about(Kind::Usage, directory.as_os_str().as_bytes(), format!("cannot be served: {error}"))
            };
            jail.add(name, directory).map_err(about)
        };
        match self {
            Served::Everything => return Ok(Root::System),
            Served::Directory(directory) => add(b"", directory)?,
            Served::Named(directories) => directories.iter().try_for_each(|(name, directory)| add(name, directory))?,
        }
        Ok(Root::Jail(Arc::new(jail)))
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Served::Everything => f.write_str("every file that this user can reach"),
            Served::Directory(directory) => write!(f, "{}", directory.display()),
            Served::Named(directories) => {
                for (index, (name, directory)) in directories.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{}={}", String::from_utf8_lossy(name), directory.display())?;
                }
                Ok(())
            }
        }
    }
}

impl Access {
    /// What is left where both hold: the narrower of the two in every respect, `other` below `self`.
    #[must_use]
    pub fn narrowed_by(&self, other: &Access) -> Access {
        Access {
            below: [self.below.as_slice(), &other.below].concat(),
            read_only: self.read_only || other.read_only,
            no_delete: self.no_delete || other.no_delete,
        }
    }

    /// Says no to a push where nothing may be written. To be asked before anything is opened.
    pub(super) fn admit_push(&self, path: &[u8]) -> Result<(), Failure> {
        if self.read_only {
            let text = "is served read-only: it can be pulled, not pushed";
            return Err(Failure::about(Kind::Refused, path, text));
        }
        Ok(())
    }

    /// What everybody should know who starts a server.
    pub(super) fn start_line(&self, served: &Served, run_as: Option<&str>) -> String {
        // Not a word of `no_delete`: no request deletes, with it or without, and a push may overwrite everything.
        let restricted = if self.read_only { " (read-only)" } else { "" };
        let user = run_as.map_or_else(String::new, |user| format!(" as {user}"));
        let hint = if *served == Served::Everything { "; --root DIR serves less" } else { "" };
        format!("serving {served}{restricted}{user}{hint}")
    }

    /// Where the peer's paths begin.
    pub(super) fn root(&self, served: &Root) -> Result<Root, RootError> {
        self.below.iter().try_fold(served.clone(), |root, directory| root.narrowed(directory))
    }
}

/// What stands behind the jail, for those who want details.
pub(super) fn second_walls(root: &Root, wall: Wall, rings_restricted: bool) -> Vec<String> {
    let by_hand = matches!(root, Root::Jail(jail) if jail.walks_by_hand());
    let walk = by_hand.then(|| "openat2 is refused here: paths are walked by hand".into());
    let rings = if rings_restricted { "are restricted to the operations used" } else { "cannot be restricted here" };
    walk.into_iter().chain([wall.to_string(), format!("the workers' rings {rings}")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(below: &[&str], read_only: bool, no_delete: bool) -> Access {
        Access { below: below.iter().map(|path| path.as_bytes().to_vec()).collect(), read_only, no_delete }
    }

    #[test]
    fn what_two_restrict_is_restricted_and_nothing_is_given_back() {
        #[track_caller]
        fn check(server: Access, key: Access, want: Access) {
            assert_eq!(server.narrowed_by(&key), want);
            assert_eq!(want.narrowed_by(&Access::default()), want);
            assert_eq!(Access::default().narrowed_by(&want), want);
        }
        check(access(&[], false, false), access(&[], false, false), access(&[], false, false));
        check(access(&[], true, false), access(&[], false, false), access(&[], true, false));
        check(access(&[], false, false), access(&[], true, false), access(&[], true, false));
        check(access(&[], true, true), access(&[], true, false), access(&[], true, true));
        check(access(&[], false, true), access(&[], true, false), access(&[], true, true));
        check(access(&[], false, false), access(&["alice"], false, false), access(&["alice"], false, false));
        // One below the other, each a jail of its own: `..` of the second does not leave the first.
        check(access(&["a"], false, false), access(&["../b"], false, false), access(&["a", "../b"], false, false));
    }

    #[test]
    fn who_may_not_write_may_not_push() {
        #[track_caller]
        fn check(access: Access, may: bool) {
            assert_eq!(
                access.admit_push(b"file").map_err(|failure| failure.kind),
                may.then_some(()).ok_or(Kind::Refused)
            );
        }
        check(access(&[], false, false), true);
        check(access(&[], false, true), true);
        check(access(&[], true, false), false);
        check(access(&["a"], true, true), false);
    }

    #[test]
    fn a_directory_of_what_is_served_is_a_jail_of_its_own() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(scratch.path().join("served/alice/deep")).unwrap();
        std::fs::create_dir_all(scratch.path().join("served/bob")).unwrap();
        std::os::unix::fs::symlink("../bob", scratch.path().join("served/alice/link")).unwrap();
        let directory = scratch.path().join("served");
        let named = Served::Named(vec![(b"name".to_vec(), directory.clone())]).open().unwrap();
        let one = Served::Directory(directory.clone()).open().unwrap();
        let all = Served::Everything.open().unwrap();
        let absolute = directory.join("alice").display().to_string();
        let check = |served: &Root, below: &[&str], want: Result<(), RootError>| {
            assert_eq!(access(below, false, false).root(served).map(|_| ()), want, "{below:?}");
        };
        check(&one, &[], Ok(()));
        check(&one, &["alice"], Ok(()));
        check(&one, &["/alice/", "deep"], Ok(()));
        check(&one, &["alice/../bob"], Ok(()));
        check(&one, &["alice/link"], Ok(()));
        check(&one, &["alice", "link"], Err(RootError::Outside));
        check(&one, &["alice", "../bob"], Err(RootError::Outside));
        check(&one, &["../served"], Err(RootError::Outside));
        check(&one, &["carol"], Err(RootError::Missing));
        check(&one, &[""], Err(RootError::EmptyPath));
        check(&named, &["name/alice", "deep"], Ok(()));
        check(&named, &["alice"], Err(RootError::NotServed));
        check(&named, &["name/alice", ".."], Err(RootError::Outside));
        check(&all, &[&absolute], Ok(()));
        check(&all, &[&absolute, "../bob"], Err(RootError::Outside));
    }

    #[test]
    fn the_start_line_says_what_is_served() {
        #[track_caller]
        fn check(served: Served, access: Access, run_as: Option<&str>, want: &str) {
            assert_eq!(access.start_line(&served, run_as), format!("serving {want}"));
        }
        let named = Served::Named(vec![(b"a".to_vec(), "/srv/a".into()), (b"b".to_vec(), "/b".into())]);
        let everything = "every file that this user can reach";
        let hint = "; --root DIR serves less";
        check(Served::Everything, access(&[], false, false), None, &format!("{everything}{hint}"));
        check(Served::Everything, access(&[], true, false), None, &format!("{everything} (read-only){hint}"));
        check(Served::Directory("/srv".into()), access(&[], true, true), None, "/srv (read-only)");
        check(Served::Directory("/srv".into()), access(&[], false, true), Some("me"), "/srv as me");
        check(named, access(&[], false, false), None, "a=/srv/a, b=/b");
    }
}
