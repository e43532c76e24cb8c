//! A kernel that refuses system calls, as containers, systemd's settings and age make it.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

pub(crate) const EPERM: u32 = 1;
pub(crate) const EAGAIN: u32 = 11;
pub(crate) const EINVAL: u32 = 22;
pub(crate) const ENOSYS: u32 = 38;
pub(crate) const EOPNOTSUPP: u32 = 95;

/// A call, by its number, which most have on every architecture; perhaps only with one value of one argument.
pub(crate) type Refused = (i64, Option<(u8, u64)>);

pub(crate) const OPENAT2: Refused = (437, None);
/// `landlock_create_ruleset`.
pub(crate) const LANDLOCK: Refused = (444, None);
/// `io_uring_register` with `IORING_REGISTER_RESTRICTIONS`.
pub(crate) const RING_RESTRICTIONS: Refused = (427, Some((1, 11)));

const fn by_arch(x86_64: i64, others: i64) -> i64 {
    if cfg!(target_arch = "x86_64") { x86_64 } else { others }
}

pub(crate) const FCHMOD: Refused = (by_arch(91, 52), None);
pub(crate) const LINKAT: Refused = (by_arch(265, 37), None);
pub(crate) const RENAMEAT2: Refused = (by_arch(316, 276), None);

/// `clone3`, without which the C library takes `clone`.
pub(crate) const CLONE3: Refused = (435, None);
/// `clone`, which differs, with the flags by which the C library makes a thread.
pub(crate) const THREAD: Refused = (by_arch(56, 220), Some((0, 0x003d_0f00)));

/// Starts something that is refused these calls with this error, and so is what it starts.
pub(crate) fn refusing<T: Send>(calls: &[Refused], errno: u32, start: impl FnOnce() -> T + Send) -> T {
    let rules = calls.iter().map(|(number, argument)| {
        let condition =
            |(index, value)| SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap();
        let conditions = argument.map(|argument| SeccompRule::new(vec![condition(argument)]).unwrap());
        (*number, conditions.into_iter().collect())
    });
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(errno));
    let filter = BpfProgram::try_from(SeccompFilter::new(rules.collect(), allow, refuse, arch).unwrap()).unwrap();
    let started = || {
        apply_filter(&filter).unwrap();
        start()
    };
    // The filter is a thread's own, and that of the programs that it starts.
    std::thread::scope(|scope| scope.spawn(started).join()).unwrap()
}
