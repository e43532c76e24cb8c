//! A session's files: how a target is waited for that somebody else has, and how each is opened for workers, and closed.
//!
//! Whatever a file system may let us wait for happens on threads that may block: neither control nor a worker waits with it.

use super::Names;
use super::client::{Stop, blocking, told_to_stop};
use crate::completion::{Access, DirectPolicy, Errno, Mode};
use crate::digest::Digest;
use crate::extent::StripeIndex;
use crate::failure::{Failure, Kind};
use crate::limits::{LOCK_MS, LOCK_RETRY_MS};
use crate::ring::{OpenFile, choose_mode};
use crate::root::{RootError, Source, Target};
use crate::session::Terms;
use crate::worker::inbox::{Ends, FileTerms};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

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

/// What this process has of a session, opened for each of so many workers, or why it cannot be; and for those who ask with `-v` how
/// its files are read and written. Not waited for any more once somebody asks us to stop.
pub(super) async fn ends(
    source: Option<&Source>,
    target: Option<&Target>,
    terms: &Terms,
    direct: DirectPolicy,
    workers: usize,
    names: &Names,
    stop: &mut watch::Receiver<Stop>,
) -> (Result<Vec<Ends<OpenFile>>, Failure>, Vec<String>) {
    let update = if terms.dry_run { Access::Read } else { Access::Update };
    let source = source.map(|source| (Arc::clone(source.file()), source.facts().bytes, source.facts().sparse));
    let target = target.map(|target| (target.file().map(Arc::clone), target.basis_bytes().unwrap_or(0)));
    let (source_bytes, names) = (terms.layout.file_bytes(), names.clone());
    let opened = blocking(move || {
        let mut notes = Vec::new();
        let mut wanted = |what: &str, file: Arc<OwnedFd>, bytes: u64, access: Access| {
            let (mode, reason) = choose(&file, access, bytes, source_bytes, direct);
            notes.push(format!("{what}: {mode:?}, {reason}").to_lowercase());
            Wanted { file, access, mode, bytes }
        };
        let source = source.map(|(file, bytes, sparse)| (wanted("source", file, bytes, Access::Read), sparse));
        let target = target.map(|(file, bytes)| file.map(|file| wanted("target", file, bytes, update)));
        let source_file =
            |wanted: &Wanted| wanted.open().map_err(|errno| RootError::from(errno).of_source(&names.source));
        let target_file = |wanted: &Option<Wanted>| match wanted {
            Some(wanted) => wanted.open().map(Some).map_err(|errno| RootError::from(errno).of_target(&names.target)),
            None => Ok(None),
        };
        let each = |_| {
            Ok(match (&source, &target) {
                (Some((source, sparse)), Some(target)) => {
                    Ends::Both { source: source_file(source)?, sparse: *sparse, target: target_file(target)? }
                }
                (Some((source, sparse)), None) => Ends::Source { file: source_file(source)?, sparse: *sparse },
                (None, Some(target)) => Ends::Target { file: target_file(target)? },
                (None, None) => unreachable!("a session has something here"),
            })
        };
        let workers = if source_bytes == 0 { 0 } else { workers }; // they have nothing to do
        ((0..workers).map(each).collect(), notes)
    });
    tokio::select! {
        opened = opened => opened,
        failure = told_to_stop(stop) => (Err(failure), Vec::new()),
    }
}

/// What was written, opened once more for each of so many workers, so that its bytes come from the disk. To be called on a thread that
/// may block.
pub(super) fn read_back(
    file: Arc<OwnedFd>,
    bytes: u64,
    stripes: Vec<(StripeIndex, Digest)>,
    workers: usize,
) -> Result<Vec<Ends<OpenFile>>, Errno> {
    let (mode, _) = choose_mode(&file, Access::Read, DirectPolicy::Always);
    if mode == Mode::Buffered {
        _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    }
    let wanted = Wanted { file, access: Access::Read, mode, bytes };
    let expected: Arc<[_]> = stripes.into();
    (0..workers).map(|_| Ok(Ends::ReadBack { file: wanted.open()?, expected: Arc::clone(&expected) })).collect()
}

/// A file that workers are to have.
struct Wanted {
    file: Arc<OwnedFd>,
    access: Access,
    mode: Mode,
    bytes: u64,
}

impl Wanted {
    fn open(&self) -> Result<FileTerms<OpenFile>, Errno> {
        Ok(FileTerms { file: OpenFile::open(&self.file, self.access, self.mode)?, bytes: self.bytes })
    }
}

/// What a thread that may block closes when it is dropped: where a disk does not answer, closing a file may wait for it.
#[derive(Debug)]
pub(super) struct ClosedAside<T: Send + 'static>(Option<T>);

impl<T: Send> ClosedAside<T> {
    pub(super) fn new(file: T) -> Self {
        Self(Some(file))
    }
}

impl<T: Send> Deref for ClosedAside<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: Send> Drop for ClosedAside<T> {
    fn drop(&mut self) {
        let file = self.0.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(file)));
        }
    }
}

/// As the ring chooses, but for a file that is still to be made: nothing of it is cached, and one that is large against the
/// memory is written past the cache, which would keep it until the end and then write it all. (First copies on a machine of 25
/// GB, medians: of 1 GB 0.92 s past the cache and 0.71 through it, of 2.5 GB 1.90 and 3.86, of 4 GB 3.3 and 6.5; benches/NOTES.md.)
fn choose(file: &OwnedFd, access: Access, bytes: u64, source_bytes: u64, direct: DirectPolicy) -> (Mode, &'static str) {
    let (mode, reason) = choose_mode(file, access, direct);
    let memory = rustix::system::sysinfo();
    let memory_bytes = memory.totalram.saturating_mul(memory.mem_unit.into());
    // So much may wait in the cache before Linux begins to write it (`vm.dirty_background_ratio`).
    let large = bytes == 0 && source_bytes > memory_bytes / 10;
    if direct == DirectPolicy::Auto
        && mode == Mode::Buffered
        && large
        && choose_mode(file, access, DirectPolicy::Always).0 == Mode::Direct
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
