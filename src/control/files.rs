//! A session's files: how a target is waited for that somebody else has, and how each is to be read and written by workers.

use super::client::blocking;
use crate::completion::{DirectPolicy, Mode};
use crate::failure::{Failure, Kind};
use crate::limits::{LOCK_MS, LOCK_RETRY_MS};
use crate::ring::choose_mode;
use crate::root::{Source, Target};
use crate::worker::inbox::{Ends, FileTerms};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Opens a target by `attempt`, again and again while somebody else has it; busy only after [`LOCK_MS`]. Between two
/// attempts no thread is held: those that may block are few, and others' syncs need them.
pub(super) async fn open_target(
    attempt: impl Fn() -> Result<Target, Failure> + Send + Sync + 'static,
) -> Result<Target, Failure> {
    let attempt = Arc::new(attempt);
    let deadline = Instant::now() + Duration::from_millis(LOCK_MS);
    loop {
        let attempt = Arc::clone(&attempt);
        match blocking(move || attempt()).await {
            Err(failure) if failure.kind == Kind::Busy && Instant::now() < deadline => {}
            other => return other,
        }
        tokio::time::sleep(Duration::from_millis(LOCK_RETRY_MS)).await;
    }
}

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
/// memory is written past the cache, which would keep it until the end and then write it all. (First copies on a machine of 25
/// GB, medians: of 1 GB 0.92 s past the cache and 0.71 through it, of 2.5 GB 1.90 and 3.86, of 4 GB 3.3 and 6.5; benches/NOTES.md.)
fn choose(file: &OwnedFd, bytes: u64, source_bytes: u64, direct: DirectPolicy) -> (Mode, &'static str) {
    let (mode, reason) = choose_mode(file, direct);
    let memory = rustix::system::sysinfo();
    let memory_bytes = memory.totalram.saturating_mul(memory.mem_unit.into());
    // So much may wait in the cache before Linux begins to write it (`vm.dirty_background_ratio`).
    let large = bytes == 0 && source_bytes > memory_bytes / 10;
    if direct == DirectPolicy::Auto
        && mode == Mode::Buffered
        && large
        && choose_mode(file, DirectPolicy::Always).0 == Mode::Direct
    {
        return (Mode::Direct, "it will be large against the memory");
    }
    (mode, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::{NOTHING_WITHHELD, Root, TargetRequest};
    use std::os::unix::ffi::OsStrExt;
    use tokio::sync::mpsc;
    use tokio::task::{LocalSet, spawn_local};

    /// Trigger: pushes to a target that somebody holds. Each slept in a thread for 5 s, so that hundreds left none to those
    /// who had something to do there.
    #[test]
    fn hundreds_that_wait_for_a_target_leave_the_only_thread_to_who_need_not_wait() {
        const WAITING: usize = 600;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap();
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("free").as_os_str().as_bytes().to_vec();
        let (ended, mut endings) = mpsc::unbounded_channel();
        let open = |attempt: fn(&[u8]) -> Result<Target, Failure>, path: &[u8]| {
            let (ended, path) = (ended.clone(), path.to_vec());
            spawn_local(async move {
                let opened = open_target(move || attempt(&path)).await;
                _ = ended.send(opened.map(drop).map_err(|failure| failure.kind));
            });
        };
        let all = async {
            (0..WAITING).for_each(|_| open(|_| Err(Failure::new(Kind::Busy, "held")), b""));
            open(open_free, &path);
            assert_eq!(endings.recv().await, Some(Ok(())), "first");
            for _ in 0..WAITING {
                assert_eq!(endings.recv().await, Some(Err(Kind::Busy)));
            }
        };
        LocalSet::new().block_on(&runtime, all);
    }

    fn open_free(path: &[u8]) -> Result<Target, Failure> {
        let request = TargetRequest {
            root: Root::Typed,
            path,
            source_name: b"",
            source: None,
            withheld: &NOTHING_WITHHELD,
            dry_run: false,
            inplace: false,
            fsync: false,
        };
        Target::open(&request).map_err(|error| error.of_target(path))
    }
}
