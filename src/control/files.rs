//! A session's files as its workers are given them: how each is to be read and written.

use crate::completion::{DirectPolicy, Mode};
use crate::ring::choose_mode;
use crate::root::{Source, Target};
use crate::worker::inbox::{Ends, FileTerms};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// What this process has of a session, and for those who ask with `-v` how its files are read and written.
pub(super) fn ends(
    source: Option<&Source>,
    target: Option<&Target>,
    source_bytes: u64,
    direct: DirectPolicy,
) -> (Ends<Arc<OwnedFd>>, Vec<String>) {
    let mut notes = Vec::new();
    let mut terms = |what: &str, file: &Arc<OwnedFd>, bytes: u64| {
        let (mode, reason) = choose(file, bytes, source_bytes, direct);
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

/// As the ring chooses, but for a file that is still to be made: nothing of it is cached, and one that is large against the
/// memory is written past the cache, which it would only fill and empty. (Overwriting 10 GiB with `-W` on a machine of 24:
/// 12.4 s past the cache, 22.8 through it; one run each, beside other work. A quarter is guessed.)
fn choose(file: &OwnedFd, bytes: u64, source_bytes: u64, direct: DirectPolicy) -> (Mode, &'static str) {
    let (mode, reason) = choose_mode(file, direct);
    let memory = rustix::system::sysinfo();
    let memory_bytes = memory.totalram.saturating_mul(memory.mem_unit.into());
    let large = bytes == 0 && source_bytes > memory_bytes / 4;
    if direct == DirectPolicy::Auto
        && mode == Mode::Buffered
        && large
        && choose_mode(file, DirectPolicy::Always).0 == Mode::Direct
    {
        return (Mode::Direct, "it will be large against the memory");
    }
    (mode, reason)
}
