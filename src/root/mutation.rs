//! Changes a share of a benchmark's target, so that a copy has something to bring back.
//!
//! A byte is changed to its complement, which differs from it whatever it is. Holes stay holes: the disk does not fill. The
//! file is held and marked like any target, and still marked when this is done, so it looks unfinished until a copy has
//! proven it. Whoever stops midway leaves what the same copy heals, if the source is another file: a [`Probe`] shows that.

use super::commit::set_mtime;
use super::{Facts, Inode, RootError, Target};
use crate::completion::Errno as AnyErrno;
use crate::entry::Timestamp;
use crate::extent::BlockSize;
use crate::limits::{MUTATION_BYTES_MAX, MUTATION_PIECES_WANTED, PROBE_PLACES_MAX};
use rustix::fs::{FlockOperation, SeekFrom, fdatasync, flock, fsync, seek};
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
}

/// A byte changed here and there, to see whether the source changes with it: so few that each is remembered.
/// It keeps the file open, but not locked: a copy has to come between.
#[derive(Debug)]
pub struct Probe {
    file: Arc<OwnedFd>,
    /// Where, and what was there.
    places: Vec<(u64, u8)>,
    mtime_before: Timestamp,
    mtime_marked: Timestamp,
}

impl Target {
    /// Prepares to mutate the file `inode`, which must be this target, in pieces of whole blocks.
    pub fn mutation(self, inode: Inode, block: BlockSize) -> Result<Mutation, RootError> {
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
        Ok(Mutation { target: self, file, basis, data_bytes, piece_bytes, pieces })
    }
}

impl Mutation {
    /// Mutates a share of it, on disk, as long as `go_on` says so, which is asked before each piece.
    pub fn make(mut self, share: Share, go_on: impl Fn() -> bool) -> Result<Mutated, RootError> {
        let mut buffer = vec![0; MUTATION_BYTES_MAX as usize];
        let mut bytes = 0;
        let result = self.change(share.pieces_of(self.pieces), |file, _, range| {
            if go_on() {
                bytes += range.end - range.start;
                complement(file, range, &mut buffer)?;
            }
            Ok(())
        });
        // Writes have moved the mark; abandoning sets it again.
        self.target.abandon(true);
        result.map(|_| Mutated { bytes, data_bytes: self.data_bytes })
    }

    /// Changes a byte here and there, on disk.
    pub fn probe(mut self) -> Result<Probe, RootError> {
        let (mut places, mut last) = (Vec::new(), None);
        let result = self.change(self.pieces.min(PROBE_PLACES_MAX), |file, piece, range| {
            let mut byte = [0];
            if last.replace(piece) != Some(piece) {
                file.read_exact_at(&mut byte, range.start)?;
                places.push((range.start, byte[0]));
                file.write_all_at(&[!byte[0]], range.start)?;
            }
            Ok(())
        });
        self.target.abandon(true);
        let (mtime_before, mtime_marked) = (self.basis.mtime, *result.as_ref().unwrap_or(&self.basis.mtime));
        let probe = Probe { file: self.file, places, mtime_before, mtime_marked };
        let unlocked = result.and_then(|_| Ok(flock(&probe.file, FlockOperation::Unlock)?));
        if unlocked.is_err() {
            probe.take_back()?;
        }
        unlocked.map(|()| probe)
    }

    /// Marks it, and has `change` do its part with each run of data in `chosen` of the pieces. The mark, as it is kept.
    fn change(
        &mut self,
        chosen: u64,
        mut change: impl FnMut(&File, u64, Range<u64>) -> io::Result<()>,
    ) -> Result<Timestamp, RootError> {
        let work = self.target.work.as_mut().expect("a dry run mutates nothing");
        work.mark_unfinished(self.basis.mtime)?;
        let mark = Facts::of(&self.file)?.mtime;
        let file = File::from(self.file.try_clone().map_err(|error| os(&error))?);
        walk(&self.file, self.basis.bytes, self.piece_bytes, |piece, range| {
            match is_chosen(piece, chosen, self.pieces) {
                true => change(&file, piece, range).map_err(|error| os(&error)),
                false => Ok(()),
            }
        })?;
        // Or the copy would pay for it.
        work.synced(|file| fdatasync(file))?;
        Ok(mark)
    }
}

impl Probe {
    /// Takes it back where no copy has, on disk; the time stays that of an unfinished file. Whether that was anywhere.
    pub fn take_back(&self) -> Result<bool, RootError> {
        let file = File::from(self.file.try_clone().map_err(|error| os(&error))?);
        let mut left = false;
        for &(offset, byte) in &self.places {
            let mut now = [byte];
            // Nothing is there where a copy has cut it off.
            if file.read_at(&mut now, offset).map_err(|error| os(&error))? == 1 && now == [!byte] {
                file.write_all_at(&[byte], offset).map_err(|error| os(&error))?;
                left = true;
            }
        }
        if left {
            set_mtime(&self.file, Some(self.mtime_marked))?;
            fsync(&self.file)?;
        }
        Ok(left)
    }

    /// The time that says 'unfinished', as the file system keeps it.
    pub fn mtime_marked(&self) -> Timestamp {
        self.mtime_marked
    }

    /// Gives the file the modification time that it had.
    pub fn restore_time(&self) -> Result<(), RootError> {
        set_mtime(&self.file, Some(self.mtime_before))
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
