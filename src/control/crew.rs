//! The workers of this process: threads, each pinned to its core, each with its ring.

use super::WorkersConfig;
use crate::failure::{Failure, Kind};
use crate::limits::{WORKERS_DEFAULT_MAX, WORKERS_MAX};
use crate::ring::{Ring, probe};
use crate::root::Wall;
use crate::worker::Worker;
use crate::worker::inbox::{Job, Mailbox};
use core_affinity::CoreId;
use crossbeam_channel::bounded;
use std::collections::BTreeSet;
use std::thread::JoinHandle;

/// Workers at work.
#[derive(Debug)]
pub(super) struct Crew {
    mailboxes: Vec<Mailbox<Ring>>,
    threads: Vec<JoinHandle<()>>,
    /// Where each is pinned; empty if they are not.
    cores: Vec<u32>,
    /// What each has raised around itself.
    walls: Vec<Wall>,
}

/// How many workers there will be, and on which cores they may be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// At least 1.
    pub(super) count: u32,
    /// The cores that may be used, beginning at a random one; empty if workers are not pinned.
    pub(super) cores: Vec<u32>,
    /// The kernel lets the workers' rings do nothing but what we do with them.
    pub(super) restricted: bool,
}

impl Plan {
    /// What the configuration comes to on this machine.
    ///
    /// # Errors
    /// Where io_uring is refused, or none of the cores asked for may be used.
    pub(super) fn new(config: &WorkersConfig) -> Result<Self, Failure> {
        let restricted = probe().map_err(|error| Failure::new(Kind::Other, error.to_string()))?;
        let mut cores: Vec<u32> = core_affinity::get_core_ids()
            .unwrap_or_default()
            .into_iter()
            .filter(|core| config.cpus.as_ref().is_none_or(|cpus| cpus.contains(&core.id)))
            .filter_map(|core| u32::try_from(core.id).ok())
            .collect();
        if cores.is_empty() && config.cpus.is_some() {
            return Err(Failure::new(Kind::Usage, "--cpus names no core that this process may use"));
        }
        // Cores by affinity, cgroup quota included.
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        let usable = if config.cpus.is_some() { usable.min(cores.len()) } else { usable };
        let default = u32::try_from(usable).unwrap_or(WORKERS_DEFAULT_MAX).min(WORKERS_DEFAULT_MAX);
        let count = config.count.unwrap_or(default).clamp(1, WORKERS_MAX);
        if config.pin && !cores.is_empty() {
            let first = random() % cores.len();
            cores.rotate_left(first); // two pdcp at once do not both take the first
        } else {
            cores.clear();
        }
        Ok(Self { count, cores, restricted })
    }

    /// The plan for so many workers beside those of a server on the same host, on cores of `theirs`: on other cores, where
    /// there are as many as its workers keep busy; else worker i where its worker i is.
    pub(super) fn beside(mut self, workers: u32, theirs: &[u32]) -> Self {
        if self.cores.is_empty() || theirs.is_empty() || !theirs.iter().all(|core| self.cores.contains(core)) {
            return self;
        }
        let busy = theirs.iter().collect::<BTreeSet<_>>().len().min(workers as usize);
        self.cores.retain(|core| !theirs.contains(core));
        if self.cores.len() < busy {
            self.cores.splice(..0, theirs.iter().copied());
        }
        self
    }
}

/// A number that nobody can foresee; for spreading, not for secrets.
pub(super) fn random() -> usize {
    let mut bytes = [0; 8];
    _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    usize::try_from(u64::from_le_bytes(bytes) >> 1).unwrap_or(0)
}

impl Crew {
    /// Starts `count` workers, each of which raises a wall around itself before it gets anything to do.
    ///
    /// # Errors
    /// Where a thread or its ring cannot be made.
    pub(super) fn start(
        plan: &Plan,
        count: u32,
        raise_wall: impl Fn() -> Wall + Clone + Send + 'static,
    ) -> Result<Self, Failure> {
        let mut crew = Self { mailboxes: Vec::new(), threads: Vec::new(), cores: Vec::new(), walls: Vec::new() };
        for index in 0..count as usize {
            let core = (!plan.cores.is_empty()).then(|| plan.cores[index % plan.cores.len()]);
            let (ready, made) = bounded(1);
            let raise_wall = raise_wall.clone();
            let work = move || {
                if let Some(core) = core {
                    core_affinity::set_for_current(CoreId { id: core as usize });
                }
                let ring = match Ring::new() {
                    Ok(ring) => ring,
                    Err(error) => return drop(ready.send(Err(error.to_string()))),
                };
                let (mailbox, inbox) = Mailbox::new(crate::completion::Completions::waker(&ring));
                let worker = Worker::new(ring, inbox);
                // Only now: a ring that is made opens the kernel's account of its thread, which no wall lets in.
                _ = ready.send(Ok((mailbox, raise_wall())));
                drop(ready);
                // A panic outside a machine leaves the ring in a state that nobody knows: nothing can be saved.
                let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run()));
                if !matches!(worked, Ok(Ok(()))) {
                    std::process::abort();
                }
            };
            let thread = std::thread::Builder::new().name(format!("pdcp-worker-{index}")).spawn(work);
            let thread =
                thread.map_err(|error| Failure::new(Kind::Other, format!("no thread for a worker: {error}")))?;
            crew.threads.push(thread);
            let made = made.recv().unwrap_or_else(|_| Err("a worker did not start".into()));
            let (mailbox, wall) = made.map_err(|text| Failure::new(Kind::Other, text))?;
            crew.mailboxes.push(mailbox);
            crew.walls.push(wall);
            crew.cores.extend(core);
        }
        Ok(crew)
    }

    /// Where to post jobs, one for each worker.
    pub(super) fn mailboxes(&self) -> &[Mailbox<Ring>] {
        &self.mailboxes
    }

    /// Whether each is behind such a wall.
    pub(super) fn all_behind(&self, wall: Wall) -> bool {
        self.walls.iter().all(|theirs| *theirs == wall)
    }

    /// Cores of the workers, in order; empty if they are not pinned.
    pub(super) fn cores(&self) -> &[u32] {
        &self.cores
    }
}

impl Drop for Crew {
    /// Waits until the last session's last operation has ended.
    fn drop(&mut self) {
        self.mailboxes.iter().for_each(|mailbox| mailbox.post(Job::Leave));
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beside_a_server_cores_are_shared_only_where_there_are_too_few() {
        #[track_caller]
        fn check(own: &[u32], workers: u32, theirs: &[u32], want: &[u32]) {
            let plan = Plan { count: 4, cores: own.into(), restricted: false };
            assert_eq!(plan.beside(workers, theirs).cores, want);
        }
        check(&[1, 0], 2, &[0, 1], &[0, 1]);
        check(&[1, 0], 2, &[0], &[1]); // it has one core: the other one is ours
        check(&[1, 0], 2, &[0, 0], &[1]);
        check(&[1, 0], 1, &[1], &[0]); // one connection: both ends at the same time
        check(&[2, 3, 0, 1], 2, &[3, 0], &[2, 1]);
        check(&[2, 3, 0, 1], 3, &[3, 0], &[2, 1]);
        check(&[2, 3, 0, 1], 4, &[3, 0, 1], &[3, 0, 1, 2]);
        check(&[1, 0], 1, &[], &[1, 0]); // not pinned, either of them
        check(&[], 1, &[0], &[]);
        check(&[1, 0], 1, &[7], &[1, 0]); // it may use cores that we may not
    }
}
