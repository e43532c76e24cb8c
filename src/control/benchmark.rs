//! A benchmark: the same copy at rising amounts of change, told from its first step to its last.
//!
//! The local target is brought level with its source. Then, level by level, a share of it is mutated, and a copy like any
//! other, which is what counts, brings it back; rsync may then do the same, and is checked by one more copy. Only the file
//! that was asked about is mutated, only after somebody agreed, and only once a few bytes of it, changed and remembered, have
//! shown that the source is no other view of it. While it is mutated it looks unfinished, and the plain copy heals it.

use super::client::{self, Stop, blocking, told_to_stop};
use super::{Aftermath, CopyConfig, Place, Summary, Watch, files, link};
use crate::completion::DirectPolicy;
use crate::failure::{Failure, Kind, printable};
use crate::limits::GOODBYE_MS;
use crate::root::{
    Inode, Mutated, Mutation, NOTHING_WITHHELD, Root, RootError, Share, Source, Target, TargetRequest, last_name,
};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Child;
use tokio::sync::watch as told;

/// One benchmark to run.
#[derive(Clone, Debug)]
pub struct BenchmarkConfig {
    /// The copy that is measured. Its target is local, and it is no dry run.
    pub copy: CopyConfig,
    /// `-B`: how many levels of change, the last of them everything.
    pub levels: u32,
    /// `--yes`: nobody needs to be asked.
    pub agreed: bool,
    /// `--rsync-source`: the same source, as rsync knows it.
    pub rsync_source: Option<OsString>,
}

/// One level, done.
#[derive(Clone, Copy, Debug)]
pub struct Level<'a> {
    /// From 0, where nothing is changed but the target's time.
    pub number: u32,
    /// How many there are above 0.
    pub levels: u32,
    /// Bytes of the target that had been changed, every one of them.
    pub delta_bytes: u64,
    /// Bytes of the target that can be changed: those in no hole.
    pub data_bytes: u64,
    /// The copy that brought them back.
    pub copy: &'a Summary,
    /// What rsync took to do the same, start included.
    pub rsync_seconds: Option<f64>,
}

/// Who is asked first, and told how it goes.
pub trait Audience: Watch {
    /// Asks a person whether to go on. `None`: nobody is there.
    fn agrees(&mut self, what_will_happen: &str) -> Option<bool>;
    /// The next step begins: a copy with progress of its own, or what goes before it.
    fn step(&mut self, what: &str);
    /// A level is done.
    fn level(&mut self, level: &Level);
}

/// Runs one benchmark. Never fails itself: what went wrong is in the summary, which otherwise is that of the last copy.
pub fn run(config: BenchmarkConfig, audience: &mut dyn Audience) -> Summary {
    let began = Instant::now();
    let mut benchmark = Benchmark { summary: client::blank(&config.copy), aftermath: None, config };
    let result = benchmark
        .admit(audience)
        .and_then(|inode| link::run(benchmark.measure(inode, audience)))
        .and_then(|measured| measured);
    Summary {
        verified: benchmark.summary.verified && result.is_ok(),
        failures: result.err().into_iter().collect(),
        aftermath: benchmark.aftermath,
        elapsed_seconds: began.elapsed().as_secs_f64(),
        ..benchmark.summary
    }
}

/// One benchmark on its way.
#[derive(Debug)]
struct Benchmark {
    config: BenchmarkConfig,
    summary: Summary,
    aftermath: Option<Aftermath>,
}

impl Benchmark {
    /// Before anything is made or changed: it can be done, and somebody wants it. Which file it is about.
    fn admit(&mut self, audience: &mut dyn Audience) -> Result<Inode, Failure> {
        if self.config.rsync_source.is_some() {
            rsync_is_there()?;
        }
        let source = match &self.config.copy.source {
            Place::Local(path) => {
                let path = path.as_os_str().as_bytes();
                let source =
                    Source::open(Root::Typed, path, &NOTHING_WITHHELD).map_err(|error| error.of_source(path))?;
                Some(source.facts().inode)
            }
            Place::Remote(_) => None,
        };
        let target = open(&self.config.copy, source, true)?;
        self.summary.target = target.taken_path().to_vec();
        let refused = |text: String| Failure::about(Kind::Refused, &self.summary.target, text);
        let Some(inode) = target.inode() else {
            let text = format!("a benchmark makes no file; copy it first: {}", shown(&self.remedy()));
            return Err(refused(text));
        };
        let levels = self.config.levels;
        let what = format!(
            "{} is overwritten at {levels} levels, up to all of it; at the end it equals {}",
            shown(&self.summary.target),
            shown(&self.summary.source),
        );
        match self.config.agreed.then_some(true).or_else(|| audience.agrees(&what)) {
            Some(true) => Ok(inode),
            Some(false) => Err(refused("nothing was done".into())),
            None => {
                let text = format!("is overwritten at {levels} levels, and nobody is here to be asked: --yes agrees");
                Err(refused(text))
            }
        }
    }

    async fn measure(&mut self, inode: Inode, audience: &mut dyn Audience) -> Result<(), Failure> {
        let stopped = client::until_signalled()?;
        let result = self.climb(inode, &stopped, audience).await;
        self.summary.signal = stopped.borrow().as_ref().map(|(_, signal)| *signal);
        result
    }

    async fn climb(
        &mut self,
        inode: Inode,
        stopped: &told::Receiver<Stop>,
        audience: &mut dyn Audience,
    ) -> Result<(), Failure> {
        audience.step("bringing the target level with the source");
        // What this moves depends on what was there before: no figure of the benchmark's.
        self.level(stopped, audience).await?;
        let digest = self.summary.digest;
        self.two_files(inode, stopped, audience).await?;
        let levels = self.config.levels;
        for number in 0..=levels {
            let share = Share { part: number, whole: levels };
            audience.step(&format!("level {number} of {levels}: pdcp"));
            let mutated = self.mutate(inode, share, stopped).await?;
            let copy = self.copy(self.config.copy.clone(), stopped, audience).await?;
            if copy.digest != digest {
                let text = "has changed since the benchmark began: its levels cannot be compared";
                return Err(Failure::about(Kind::SourceChanged, &self.summary.source, text));
            }
            let rsync_seconds = match self.config.rsync_source.clone() {
                None => None,
                Some(source) => {
                    audience.step(&format!("level {number} of {levels}: rsync"));
                    self.mutate(inode, share, stopped).await?;
                    Some(self.rsync(&source, stopped, audience).await?)
                }
            };
            let (delta_bytes, data_bytes) = (mutated.bytes, mutated.data_bytes);
            audience.level(&Level { number, levels, delta_bytes, data_bytes, copy: &copy, rsync_seconds });
        }
        Ok(())
    }

    /// One copy. Whole: the target is level.
    async fn copy(
        &mut self,
        config: CopyConfig,
        stopped: &told::Receiver<Stop>,
        audience: &mut dyn Audience,
    ) -> Result<Summary, Failure> {
        go_on(stopped)?;
        self.summary = client::copy_until(config, audience, stopped.clone()).await;
        match self.summary.failures.first() {
            Some(failure) => Err(failure.clone()),
            None => {
                self.aftermath = Some(Aftermath::Level);
                Ok(self.summary.clone())
            }
        }
    }

    /// A copy that is not measured, and moves no more than it must. How much that was.
    async fn level(&mut self, stopped: &told::Receiver<Stop>, audience: &mut dyn Audience) -> Result<u64, Failure> {
        let config = CopyConfig { whole_file: false, ..self.config.copy.clone() };
        let copy = self.copy(config, stopped, audience).await?;
        Ok(copy.changed_bytes.unwrap_or(0) + copy.hole_bytes.unwrap_or(0))
    }

    async fn mutate(&mut self, inode: Inode, share: Share, stopped: &told::Receiver<Stop>) -> Result<Mutated, Failure> {
        go_on(stopped)?;
        let stop = stopped.clone();
        let mutated = self.change(inode, move |it| it.make(share, || stop.borrow().is_none())).await?;
        go_on(stopped)?;
        Ok(mutated)
    }

    async fn change<T: Send + 'static>(
        &mut self,
        inode: Inode,
        make: impl FnOnce(Mutation) -> Result<T, RootError> + Send + 'static,
    ) -> Result<T, Failure> {
        let (config, block) = (self.config.copy.clone(), self.config.copy.block_size);
        let target = self.summary.target.clone();
        let about = |error: RootError| error.of_target(&target);
        let opened = files::open_target(move || open(&config, None, false)).await?;
        let mutation = blocking(move || opened.mutation(inode, block)).await.map_err(about)?;
        self.aftermath = Some(Aftermath::Mutated { remedy: self.remedy() });
        blocking(move || make(mutation)).await.map_err(about)
    }

    /// Says no where both names lead to the same bytes, as a loop device, a server on this host or a file system mounted
    /// twice can make it: what was mutated would be gone. Changes a few bytes, and looks whether a copy brings them back.
    async fn two_files(
        &mut self,
        inode: Inode,
        stopped: &told::Receiver<Stop>,
        audience: &mut dyn Audience,
    ) -> Result<(), Failure> {
        audience.step("looking whether source and target are two files");
        go_on(stopped)?;
        let probe = Arc::new(self.change(inode, Mutation::probe).await?);
        // A cache at the source may hold what was there before, for now.
        let direct = DirectPolicy::Always;
        let config = CopyConfig { whole_file: false, direct, ..self.config.copy.clone() };
        let copied = self.copy(config, stopped, audience).await;
        // Also where it failed, or was stopped: of one file this is the only way back.
        let target = self.summary.target.clone();
        let about = |error: RootError| error.of_target(&target);
        let placed = Arc::clone(&probe);
        let left = blocking(move || placed.take_back()).await.map_err(about)?;
        // A byte that was left says it, and so does the source's time, if it has the mark as well.
        if copied?.source_mtime != Some(probe.mtime_marked()) && !left {
            return Ok(());
        }
        blocking(move || probe.restore_time()).await.map_err(about)?;
        self.aftermath = None;
        Err(RootError::SameFile.of_target(&target))
    }

    /// rsync's part of a level, and the copy that shows whether it did it, and heals what it left.
    async fn rsync(
        &mut self,
        source: &OsStr,
        stopped: &told::Receiver<Stop>,
        audience: &mut dyn Audience,
    ) -> Result<f64, Failure> {
        let began = Instant::now();
        let ran = run_rsync(source, Path::new(OsStr::from_bytes(&self.summary.target)), stopped.clone()).await;
        let elapsed = began.elapsed().as_secs_f64();
        go_on(stopped)?;
        match (ran, self.level(stopped, audience).await) {
            (Ok(()), Ok(0)) => Ok(elapsed),
            (Ok(()), Ok(left_bytes)) => {
                let text = format!("rsync left {left_bytes} bytes that differ; is this the same source?");
                Err(Failure::about(Kind::Other, source.as_bytes(), text))
            }
            (Err(failure), Ok(_)) => Err(failure),
            (ran, Err(failure)) => {
                // What has become of the target is the graver news.
                ran.err().iter().for_each(|failure| audience.warn(&failure.to_string()));
                Err(failure)
            }
        }
    }

    /// The command that brings the target back, to be pasted.
    fn remedy(&self) -> Vec<u8> {
        let copy = &self.config.copy;
        let mut words: Vec<&[u8]> = vec![b"pdcp"];
        words.extend(copy.inplace.then_some(&b"--inplace"[..]));
        words.extend(copy.plaintext.then_some(&b"--plaintext"[..]));
        if let Some(key_file) = &copy.key_file {
            words.extend([b"--key-file", key_file.as_os_str().as_bytes()]);
        }
        let names = [&copy.source_typed[..], &copy.target_typed];
        words.extend(names.iter().any(|name| name.starts_with(b"-")).then_some(&b"--"[..]));
        words.extend(names);
        shlex::bytes::try_join(words).expect("what was typed holds no NUL")
    }
}

/// Opens the target as the copy will.
fn open(config: &CopyConfig, source: Option<Inode>, dry_run: bool) -> Result<Target, Failure> {
    let Place::Local(path) = &config.target else {
        return Err(Failure::about(Kind::Usage, &config.target_typed, "is remote; a benchmark's target is local"));
    };
    let path = path.as_os_str().as_bytes();
    let source_path = match &config.source {
        Place::Local(_) => &config.source_typed,
        Place::Remote(remote) => &remote.path,
    };
    let source_name = last_name(source_path).unwrap_or_default();
    let inplace = config.inplace;
    // Mutations always reach the disk, lest the copy pays for them.
    let request = TargetRequest {
        root: Root::Typed,
        path,
        source_name,
        source,
        withheld: &NOTHING_WITHHELD,
        dry_run,
        inplace,
        fsync: true,
    };
    Target::open(&request).map_err(|error| error.of_target(path))
}

fn go_on(stopped: &told::Receiver<Stop>) -> Result<(), Failure> {
    stopped.borrow().as_ref().map_or(Ok(()), |(failure, _)| Err(failure.clone()))
}

fn shown(name: &[u8]) -> String {
    printable(name)
}

fn rsync_is_there() -> Result<(), Failure> {
    let run = Command::new("rsync").arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status();
    match run {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(Kind::Other, format!("rsync does not work: {status}"))),
        Err(error) => {
            let text = format!("rsync cannot be started: {error}; install it, or leave out --rsync-source");
            Err(Failure::new(Kind::Other, text))
        }
    }
}

/// Runs rsync until it ends, or we are told to stop. What it has to say it says on standard error.
async fn run_rsync(source: &OsStr, target: &Path, mut stopped: told::Receiver<Stop>) -> Result<(), Failure> {
    let failed = |text: String| Failure::about(Kind::Other, source.as_bytes(), text);
    // Where a link leads: rsync would put a file in the link's place. And no colon can make that a host.
    let target = target.canonicalize().map_err(|error| failed(format!("rsync has no target: {error}")))?;
    let mut command = tokio::process::Command::new("rsync");
    command.args(["--inplace", "--no-whole-file", "--ignore-times", "--"]).arg(source).arg(target);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let mut rsync = command.spawn().map_err(|error| failed(format!("rsync cannot be started: {error}")))?;
    tokio::select! {
        ended = rsync.wait() => match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(format!("rsync failed: {status}"))),
            Err(error) => Err(failed(format!("rsync is lost: {error}"))),
        },
        failure = told_to_stop(&mut stopped) => {
            end(&mut rsync).await;
            Err(failure)
        }
    }
}

/// Asks rsync to end, so that it ends its other processes too, and makes sure of it.
async fn end(rsync: &mut Child) {
    if let Some(pid) = rsync.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
        _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(Duration::from_millis(GOODBYE_MS), rsync.wait()).await.is_err() {
        _ = rsync.kill().await;
    }
}
