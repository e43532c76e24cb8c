//! A session's files as its workers are given them: how each is to be read and written.

use crate::completion::DirectPolicy;
use crate::ring::choose_mode;
use crate::root::{Source, Target};
use crate::worker::inbox::{Ends, FileTerms};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What this process has of a session, and for those who ask with `-v` how its files are read and written.
pub(super) fn ends(
    source: Option<&Source>,
    target: Option<&Target>,
    direct: DirectPolicy,
) -> (Ends<Arc<OwnedFd>>, Vec<String>) {
    let mut notes = Vec::new();
    let mut terms = |what: &str, file: &Arc<OwnedFd>, bytes: u64| {
        let (mode, reason) = choose_mode(file, direct);
        notes.push(format!("{what}: {mode:?}, {reason}").to_lowercase());
        FileTerms { file: Arc::clone(file), mode, bytes }
    };
    let source = source.map(|source| (terms("source", source.file(), source.facts().bytes), source.facts().sparse));
    let has_target = target.is_some();
    let target = target.and_then(|target| Some(terms("target", target.file()?, target.basis_bytes().unwrap_or(0))));
    let ends = match (source, has_target) {
        (Some((source, sparse)), true) => Ends::Both { source, sparse, target },
        (Some((file, sparse)), false) => Ends::Source { file, sparse },
        (None, _) => Ends::Target { file: target },
    };
    (ends, notes)
}
