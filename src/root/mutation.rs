//! Changes a share of a benchmark's target, so that a copy has something to bring back.
//!
//! A byte is changed to its complement, which differs from it whatever it is. Holes stay holes: the disk does not fill. The
//! file is held and marked like any target, and still marked when this is done, so it looks unfinished until a copy has
//! proven it. Whoever stops midway leaves what the same copy heals.

use super::{Facts, Inode, RootError, Target};
use crate::completion::Errno as AnyErrno;
use crate::entry::Timestamp;
use crate::extent::BlockSize;
use crate::limits::{MUTATION_BYTES_MAX, MUTATION_PIECES_WANTED};
use rustix::fs::{SeekFrom, fdatasync, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// How much is to be mutated: so many parts of a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
    /// At most `whole`; 0 is nothing.
    pub part: u32,
    /// At least 1.
    pub whole: u32,
}

/// A target that is about to be mutated. Dropped, it leaves everything as it was.
#[derive(Debug)]
pub struct Mutation {
    target: Target,
    file: Arc<OwnedFd>,
    basis: Facts,
    share: Share,
    data_bytes: u64,
    piece_bytes: u64,
    pieces: u64,
}

/// What was mutated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mutated {
    /// Bytes that are different now, every one of them.
    pub bytes: u64,
    /// Bytes that could have been: all that are in no hole.
    pub data_bytes: u64,
    /// The modification time that it had.
    pub mtime_before: Timestamp,
    /// The one that says 'unfinished', as the file system keeps it.
    pub mtime_marked: Timestamp,
}

impl Target {
    /// Which file was found; `None` if there was none.
    pub fn inode(&self) -> Option<Inode> {
        self.basis.filter(|_| !self.is_new()).map(|basis| basis.inode)
    }

    /// Prepares to mutate a share of the file `inode`, which must be this target, in pieces of whole blocks.
    pub fn mutation(self, inode: Inode, share: Share, block: BlockSize) -> Result<Mutation, RootError> {
        let found = self.basis.filter(|basis| basis.inode == inode).zip(self.file().cloned());
        let Some((basis, file)) = found.filter(|_| !self.is_new()) else {
            self.abandon(false);
            return Err(RootError::Replaced);
        };
        let mut data_bytes = 0;
        walk(&file, basis.bytes, u64::from(MUTATION_BYTES_MAX), |_, range| {
            data_bytes += range.end - range.start;
            Ok(())
        })?;
        if data_bytes == 0 {
            return Err(RootError::NoData);
        }
        let piece_bytes = piece_bytes(data_bytes, block);
        let pieces = walk(&file, basis.bytes, piece_bytes, |_, _| Ok(()))?;
        Ok(Mutation { target: self, file, basis, share, data_bytes, piece_bytes, pieces })
    }

    /// Gives it a modification time, and lets go of it.
    pub fn set_time(self, mtime: Timestamp) -> Result<(), RootError> {
        self.work.as_ref().map_or(Ok(()), |work| work.set_mtime(Some(mtime)))
    }
}

impl Mutation {
    /// Does it, on disk, as long as `go_on` says so, which is asked before each piece.
    pub fn make(mut self, go_on: impl Fn() -> bool) -> Result<Mutated, RootError> {
        let result = self.mark_and_complement(go_on);
        // Writes have moved the mark; abandoning sets it again.
        self.target.abandon(true);
        Ok(Mutated {
            bytes: result?,
            data_bytes: self.data_bytes,
            mtime_before: self.basis.mtime,
            mtime_marked: Facts::of(&self.file)?.mtime,
        })
    }

    fn mark_and_complement(&mut self, go_on: impl Fn() -> bool) -> Result<u64, RootError> {
        let work = self.target.work.as_mut().expect("a dry run mutates nothing");
        work.mark_unfinished(self.basis.mtime)?;
        let file = File::from(self.file.try_clone().map_err(|error| os(&error))?);
        let chosen_pieces = self.share.pieces_of(self.pieces);
        let mut buffer = vec![0; MUTATION_BYTES_MAX as usize];
        let mut bytes = 0;
        walk(&self.file, self.basis.bytes, self.piece_bytes, |piece, range| {
            if is_chosen(piece, chosen_pieces, self.pieces) && go_on() {
                bytes += range.end - range.start;
                complement(&file, range, &mut buffer).map_err(|error| os(&error))?;
            }
            Ok(())
        })?;
        // Or the copy would pay for it.
        work.synced(|file| fdatasync(file))?;
        Ok(bytes)
    }
}

impl Share {
    /// The nearest number of pieces; of something at least one.
    fn pieces_of(self, pieces: u64) -> u64 {
        let (part, whole) = (u128::from(self.part), u128::from(self.whole));
        let nearest = (u128::from(pieces) * part * 2 + whole) / (whole * 2);
        let least = u64::from(self.part > 0).min(pieces);
        u64::try_from(nearest).unwrap_or(pieces).clamp(least, pieces)
    }
}

/// Chooses exactly `chosen` of `pieces`, spread evenly, the first always among them.
fn is_chosen(piece: u64, chosen: u64, pieces: u64) -> bool {
    u128::from(piece) * u128::from(chosen) % u128::from(pieces) < u128::from(chosen)
}

/// Small files are mutated in smaller pieces, but never in less than what is compared at once.
fn piece_bytes(data_bytes: u64, block: BlockSize) -> u64 {
    let wanted = (data_bytes / MUTATION_PIECES_WANTED).max(1);
    (1 << wanted.ilog2()).clamp(u64::from(block.bytes()), u64::from(MUTATION_BYTES_MAX))
}

/// Visits each run of data inside each piece of the file, in order, with the piece's number among those that hold data.
/// Says how many do.
fn walk(
    file: &OwnedFd,
    file_bytes: u64,
    piece_bytes: u64,
    mut visit: impl FnMut(u64, Range<u64>) -> Result<(), RootError>,
) -> Result<u64, RootError> {
    let (mut pieces, mut last, mut at) = (0, None, 0);
    while let Some(data) = data_from(file, at, file_bytes)? {
        at = data.start;
        while at < data.end {
            let piece = at / piece_bytes;
            if last.replace(piece) != Some(piece) {
                pieces += 1;
            }
            let end = data.end.min((piece + 1) * piece_bytes);
            visit(pieces - 1, at..end)?;
            at = end;
        }
    }
    Ok(pieces)
}

/// The next run of data. A file system that knows no holes has one run. Nobody else uses the description's position.
fn data_from(file: &OwnedFd, offset: u64, file_bytes: u64) -> Result<Option<Range<u64>>, RootError> {
    if offset >= file_bytes {
        return Ok(None);
    }
    let start = match seek(file, SeekFrom::Data(offset)) {
        Err(Errno::NXIO) => return Ok(None),
        other => other?,
    };
    let end = seek(file, SeekFrom::Hole(start))?.min(file_bytes);
    Ok((start < end).then_some(start..end))
}

/// `range` fits the buffer.
fn complement(file: &File, range: Range<u64>, buffer: &mut [u8]) -> io::Result<()> {
    let length = usize::try_from(range.end - range.start).expect("at most a piece");
    let bytes = &mut buffer[..length];
    file.read_exact_at(bytes, range.start)?;
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(bytes, range.start)
}

/// Where the kernel gave no reason, somebody has cut the file short.
fn os(error: &io::Error) -> RootError {
    error.raw_os_error().map_or(RootError::Replaced, |number| RootError::from(AnyErrno(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_chooses_its_share_of_pieces_and_something_always() {
        #[track_caller]
        fn check(pieces: u64, whole: u32, want: &[u64]) {
            let chosen = |part| Share { part, whole }.pieces_of(pieces);
            assert_eq!((0..=whole).map(chosen).collect::<Vec<_>>(), want);
        }
        check(1000, 4, &[0, 250, 500, 750, 1000]);
        check(100, 3, &[0, 33, 67, 100]);
        check(1, 3, &[0, 1, 1, 1]);
        check(2, 4, &[0, 1, 1, 2, 2]);
        check(5, 1, &[0, 5]);
        check(u64::MAX, 1, &[0, u64::MAX]);
    }

    #[test]
    fn chosen_pieces_are_exactly_as_many_and_spread_evenly() {
        for pieces in 1..80 {
            for chosen in 0..=pieces {
                let list: Vec<u64> = (0..pieces).filter(|&piece| is_chosen(piece, chosen, pieces)).collect();
                assert_eq!(list.len() as u64, chosen, "{chosen} of {pieces}");
                let gaps: Vec<u64> = list.windows(2).map(|pair| pair[1] - pair[0]).collect();
                let (least, most) = (gaps.iter().min(), gaps.iter().max());
                assert!(least.zip(most).is_none_or(|(least, most)| most - least <= 1), "{list:?} of {pieces}");
                assert!(chosen == 0 || list[0] == 0, "a short last piece is never all of it");
            }
        }
    }

    #[test]
    fn pieces_are_whole_blocks_of_at_most_a_mebibyte() {
        #[track_caller]
        fn check(data_bytes: u64, block_bytes: u64, want: u64) {
            assert_eq!(piece_bytes(data_bytes, BlockSize::nearest(block_bytes).unwrap()), want);
        }
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        check(1, 16 * KIB, 16 * KIB);
        check(100 * 32 * KIB - 1, 16 * KIB, 16 * KIB);
        check(100 * 32 * KIB, 16 * KIB, 32 * KIB);
        check(100 * MIB - 1, 16 * KIB, 512 * KIB);
        check(100 * MIB, 16 * KIB, MIB);
        check(u64::MAX, 4 * KIB, MIB);
        check(1, MIB, MIB);
    }
}
