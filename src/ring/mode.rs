//! How a file is best read and written: through the page cache, past it, or as the memory that it is.
//!
//! One mode a file, for reads and writes, decided when control opens it.

use super::calls::cached_pages;
use super::files::{file_type, reopen};
use crate::completion::{Access, DirectPolicy, Mode};
use crate::limits::DIRECT_ALIGNMENT;
use rustix::fs::{AtFlags, FileType, SeekFrom, StatxFlags, fstatfs, seek, statx};
use rustix::io::{pread, retry_on_intr};
use std::os::fd::OwnedFd;

/// `f_type` of file systems whose files are memory: tmpfs, ramfs, hugetlbfs. The ring would give each of their reads and
/// writes to a thread of the kernel's.
const MEMORY_FILE_SYSTEMS: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

/// What a file system in user space is asked for at a time, by default.
const TRIED_BYTES: usize = 128 << 10;

/// The mode for a file that is to be read, or written as well, and why, for those who ask with `-v`.
pub fn choose_mode(file: &OwnedFd, access: Access, policy: DirectPolicy) -> (Mode, &'static str) {
    let in_memory = is_memory(file);
    let direct = match policy {
        DirectPolicy::Never => Err("direct I/O is switched off"),
        DirectPolicy::Auto if in_memory => Err("nothing to gain"),
        DirectPolicy::Auto => is_worth_direct(file),
        DirectPolicy::Always => can_direct(file, Unreported::TriedFor(access)).map(|()| "direct I/O is asked for"),
    };
    match direct {
        Ok(reason) => (Mode::Direct, reason),
        Err(_) if in_memory => (Mode::Memory, "its file system is memory"),
        Err(reason) => (Mode::Buffered, reason),
    }
}

/// Only for regular files: a block device's node lies in memory as well.
fn is_memory(file: &OwnedFd) -> bool {
    let in_memory = fstatfs(file)
        .is_ok_and(|system| MEMORY_FILE_SYSTEMS.iter().any(|&magic| i128::from(system.f_type) == i128::from(magic)));
    in_memory && file_type(file).is_ok_and(|kind| kind == FileType::RegularFile)
}

fn is_worth_direct(file: &OwnedFd) -> Result<&'static str, &'static str> {
    let bytes = file_bytes(file).ok_or("its length is not known")?;
    if bytes == 0 {
        return Err("it is empty");
    }
    let cached = cached_pages(file).ok_or("the kernel does not say how much of it is cached")?;
    let pages = bytes.div_ceil(u64::try_from(rustix::param::page_size()).unwrap_or(4096));
    if cached >= pages.div_ceil(2) {
        return Err("half of it or more is cached");
    }
    can_direct(file, Unreported::Refused).map(|()| "most of it is not cached")
}

/// What to make of a file system that does not say what direct I/O wants.
#[derive(Clone, Copy)]
enum Unreported {
    TriedFor(Access),
    Refused,
}

fn can_direct(file: &OwnedFd, unreported: Unreported) -> Result<(), &'static str> {
    let open = || reopen(file, Access::Read, true).map_err(|_| "opening it for direct I/O is refused");
    match (direct_alignment(file), unreported) {
        (Some(1..=DIRECT_ALIGNMENT), _) => open().map(drop),
        (Some(0), _) => Err("its file system cannot do direct I/O"),
        (Some(_), _) => Err("direct I/O wants more than 4096 bytes alignment here"),
        (None, Unreported::Refused) => Err("its file system does not say what direct I/O wants"),
        // Whether it takes writes would be known too late (mergerfs reads, and takes none).
        (None, Unreported::TriedFor(Access::Update)) if is_in_user_space(file) => {
            Err("its file system is in user space, and may refuse direct I/O")
        }
        (None, Unreported::TriedFor(_)) => try_direct(&open()?),
    }
}

/// Some (unionfs) open every file so, and read none.
fn try_direct(file: &OwnedFd) -> Result<(), &'static str> {
    #[repr(align(4096))]
    struct Aligned([u8; TRIED_BYTES]);
    let mut buffer = Box::new(Aligned([0; TRIED_BYTES]));
    retry_on_intr(|| pread(file, &mut buffer.0, 0)).map(drop).map_err(|_| "reading it by direct I/O is refused")
}

fn is_in_user_space(file: &OwnedFd) -> bool {
    fstatfs(file).is_ok_and(|system| i128::from(system.f_type) == i128::from(libc::FUSE_SUPER_MAGIC))
}

/// The alignment that direct I/O wants on this file, in memory and in the file: 0 if it is impossible, `None` if the file
/// system does not say.
fn direct_alignment(file: &OwnedFd) -> Option<u32> {
    let answer = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let reported = StatxFlags::from_bits_retain(answer.stx_mask).contains(StatxFlags::DIOALIGN);
    let (memory, offset) = (answer.stx_dio_mem_align, answer.stx_dio_offset_align);
    reported.then(|| if memory == 0 || offset == 0 { 0 } else { memory.max(offset) })
}

fn file_bytes(file: &OwnedFd) -> Option<u64> {
    if file_type(file).ok()? == FileType::BlockDevice {
        return seek(file, SeekFrom::End(0)).ok(); // its length is not in `stat`; nobody uses the position
    }
    u64::try_from(rustix::fs::fstat(file).ok()?.st_size).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Advice, fadvise};
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    /// A file of 1 MiB, all of it in the page cache and on disk.
    fn warm(directory: &Path) -> File {
        let file = tempfile::tempfile_in(directory).unwrap();
        file.write_all_at(&vec![1; 1 << 20], 0).unwrap();
        file.sync_all().unwrap();
        file
    }

    #[test]
    fn a_mode_is_chosen_by_what_the_file_is_and_where_it_is_cached() {
        #[track_caller]
        fn check(file: &File, policy: DirectPolicy, want: &[Mode]) {
            let (mode, reason) = choose_mode(&file.try_clone().unwrap().into(), Access::Update, policy);
            assert!(want.contains(&mode), "{mode:?} since {reason}");
            assert!(!reason.is_empty());
        }
        let executable = std::env::current_exe().unwrap();
        let disk = executable.parent().unwrap();
        let empty = tempfile::tempfile_in(disk).unwrap();
        check(&empty, DirectPolicy::Auto, &[Mode::Buffered, Mode::Memory]);
        check(&warm(disk), DirectPolicy::Auto, &[Mode::Buffered, Mode::Memory]);
        check(&warm(disk), DirectPolicy::Never, &[Mode::Buffered, Mode::Memory]);

        let memory = Path::new("/dev/shm");
        check(&warm(memory), DirectPolicy::Auto, &[Mode::Memory]);
        check(&warm(memory), DirectPolicy::Never, &[Mode::Memory]);
        check(&warm(memory), DirectPolicy::Always, &[Mode::Memory, Mode::Direct]);
        check(&File::open("/dev/null").unwrap(), DirectPolicy::Auto, &[Mode::Buffered]);
    }

    #[test]
    fn a_file_that_is_not_cached_is_read_directly() {
        let executable = std::env::current_exe().unwrap();
        let file = warm(executable.parent().unwrap());
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let file = OwnedFd::from(file);
        if cached_pages(&file) != Some(0) || can_direct(&file, Unreported::Refused).is_err() {
            return eprintln!("SKIPPED: no cachestat, or no direct I/O here");
        }
        assert_eq!(choose_mode(&file, Access::Update, DirectPolicy::Auto).0, Mode::Direct);
        assert_eq!(choose_mode(&file, Access::Update, DirectPolicy::Always).0, Mode::Direct);
        assert_eq!(choose_mode(&file, Access::Update, DirectPolicy::Never).0, Mode::Buffered);
    }
}
