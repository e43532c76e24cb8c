//! The files that are copied: made once, put into a known state before each run, compared byte for byte after it.
//!
//! A [`Pair`] is a source, which never changes, and a target. All lie in one scratch directory, which a janitor removes when
//! its [`Scene`] goes. Content is BLAKE3's stream, so nothing in it repeats, and no two changes have the same bytes.

use crate::janitor::Janitor;
use crate::process::{Error, Result};
use procfs::{Current, Meminfo};
use rustix::fs::{Advice, FsWord};
use std::fs::{File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What is read, written and changed at a time.
pub(crate) const PIECE_BYTES: u64 = 1 << 20;
/// A change that is smaller than most blocks.
const PAGE_BYTES: u64 = 4 << 10;

/// Before a target is removed, and before bounds are measured: two seconds after memory was freed a virtual machine's kernel gives it back to the host (free
/// page reporting). If that happens while a first copy runs, some of its pages cost ten times as much; by chance, so that
/// programs are no longer comparable. Nothing is freed while we rest, and what comes then has two seconds for itself.
pub(crate) const REST: Duration = Duration::from_millis(2500);

/// What the programs themselves take at most. Guessed: both ends of pdcp with two workers each have 256 MiB of buffers.
const PROGRAMS_BYTES: u64 = 1 << 30;

/// Of linux/magic.h.
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// What the target holds before a run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Basis {
    /// The source's bytes, but for this share of its pieces of 1 MiB, spread evenly.
    Changed { percent: u8 },
    /// The source's bytes, but for 4 KiB in every MiB: what the size of a block is felt by.
    Scattered,
    /// There is no target.
    Missing,
    /// The bytes of this file.
    Copied(PathBuf),
}

/// What a source is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Texture {
    Data,
    /// Of sixteen pieces one is data.
    Holes,
}

impl Texture {
    fn is_data(self, offset: u64) -> bool {
        self == Self::Data || (offset / PIECE_BYTES).is_multiple_of(16)
    }
}

#[derive(Debug)]
pub(crate) struct Scene {
    directory: PathBuf,
    _janitor: Janitor,
}

#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) texture: Texture,
    /// Whether the target is known to equal the source.
    is_equal: bool,
}

impl Scene {
    /// In a new directory below `parent`. A server takes paths from `/`, so they begin there, here and below.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new()
            .prefix("pdcp-bench-")
            .tempdir_in(std::path::absolute(parent)?)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", parent.display())))?;
        let janitor = Janitor::hire("rm -rf -- \"$1\"", [directory.path()])?;
        Ok(Self { directory: directory.keep(), _janitor: janitor })
    }

    /// Whether what it holds can be nowhere but in the page cache.
    pub(crate) fn is_in_memory(&self) -> Result<bool> {
        Ok(rustix::fs::statfs(self.directory())?.f_type == TMPFS_MAGIC)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// That so many bytes more find room: a disk that is full in the middle costs minutes, and memory that is full costs
    /// other programs their lives.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<()> {
        let space = rustix::fs::statvfs(self.directory())?;
        let mut free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
        if self.is_in_memory()? {
            let available_bytes = Meminfo::current().ok().and_then(|memory| memory.mem_available);
            free_bytes = free_bytes.min(available_bytes.unwrap_or(u64::MAX).saturating_sub(PROGRAMS_BYTES));
        }
        if bytes <= free_bytes {
            return Ok(());
        }
        let [wanted, free] = [bytes, free_bytes].map(|bytes| bytes as f64 / 1e9);
        let place = self.directory().parent().unwrap_or(self.directory()).display();
        let help = "a smaller --size or another --directory would do";
        Err(Error::Usage(format!("{place}: {wanted:.2} GB are needed, and {free:.2} GB are free; {help}")))
    }

    /// A new source of `bytes` that nothing was ever like, and room for its target.
    pub(crate) fn pair(&self, name: &str, bytes: u64, texture: Texture) -> Result<Pair> {
        let source = self.directory().join(format!("{name}.source"));
        let file = File::create(&source)?;
        file.set_len(bytes)?;
        for (offset, length) in pieces(bytes).filter(|(offset, _)| texture.is_data(*offset)) {
            file.write_all_at(&content(offset, length), offset)?;
        }
        file.sync_all()?;
        Ok(Pair { texture, ..self.pair_of(name, source)? })
    }

    /// A pair whose source is there already.
    pub(crate) fn pair_of(&self, name: &str, source: PathBuf) -> Result<Pair> {
        let source = std::path::absolute(source)?;
        let bytes = source.metadata()?.len();
        let target = self.directory().join(format!("{name}.target"));
        Ok(Pair { source, target, bytes, texture: Texture::Data, is_equal: false })
    }
}

impl Pair {
    /// Brings the target into the state that a run begins with. Its time is not the source's. It is on disk then: of all
    /// programs only those that sync would pay for what was written here, and by the program before.
    pub(crate) fn set(&mut self, basis: &Basis) -> Result<()> {
        let was_equal = std::mem::replace(&mut self.is_equal, false);
        match basis {
            Basis::Missing => {
                std::thread::sleep(REST);
                return Ok(remove_if_there(&self.target)?);
            }
            Basis::Copied(from) => copy(from, &self.target, self.texture)?,
            Basis::Changed { .. } | Basis::Scattered => {
                if !was_equal {
                    copy(&self.source, &self.target, self.texture)?;
                }
                self.change(basis)?;
            }
        }
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let target = OpenOptions::new().write(true).open(&self.target)?;
        target.set_times(FileTimes::new().set_modified(old))?;
        Ok(target.sync_all()?)
    }

    fn change(&self, basis: &Basis) -> Result<()> {
        let target = OpenOptions::new().write(true).open(&self.target)?;
        let seed = fastrand::u64(1 << 60..); // beyond all offsets: never the source's bytes
        for (offset, bytes) in self.changes(basis) {
            target.write_all_at(&content(seed + offset, bytes), offset)?;
        }
        Ok(())
    }

    /// How many bytes `basis` differs in; `None` where that is not for us to know.
    pub(crate) fn changed_bytes(&self, basis: &Basis) -> Option<u64> {
        match basis {
            Basis::Missing => Some(self.bytes),
            Basis::Copied(_) => None,
            Basis::Changed { .. } | Basis::Scattered => Some(self.changes(basis).map(|(_, bytes)| bytes).sum()),
        }
    }

    /// Offset and length of each, in rising order.
    fn changes(&self, basis: &Basis) -> impl Iterator<Item = (u64, u64)> {
        let pieces = self.bytes.div_ceil(PIECE_BYTES);
        let (count, bytes) = match basis {
            // Of something at least one: a row is what it is called.
            Basis::Changed { percent: 0 } => (0, PIECE_BYTES),
            Basis::Changed { percent } => ((pieces * u64::from(*percent) / 100).max(1), PIECE_BYTES),
            Basis::Scattered => (pieces, PAGE_BYTES),
            Basis::Missing | Basis::Copied(_) => (0, 0),
        };
        (0..count).map(move |index| {
            let offset = index * pieces / count * PIECE_BYTES;
            (offset, bytes.min(self.bytes - offset))
        })
    }

    /// Puts both files out of the page cache, and nothing else: programs stay warm.
    pub(crate) fn cool(&self) -> Result<()> {
        for path in [&self.source, &self.target] {
            let Ok(file) = File::open(path) else { continue }; // a target that is missing
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        }
        Ok(())
    }

    /// That the target has become the source, byte for byte.
    ///
    /// # Errors
    /// [`Error::Program`] if it has not.
    pub(crate) fn compare(&mut self) -> Result<()> {
        if !self.target.try_exists()? {
            return Err(Error::Program("made no target".into()));
        }
        self.is_equal = are_equal(&self.source, &self.target)?;
        if self.is_equal { Ok(()) } else { Err(Error::Program("the result is wrong".into())) }
    }
}

/// Offset and length of each piece of a file.
fn pieces(bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let offsets = (0..bytes.div_ceil(PIECE_BYTES)).map(|index| index * PIECE_BYTES);
    offsets.map(move |offset| (offset, PIECE_BYTES.min(bytes - offset)))
}

/// `bytes` of one endless stream, from `offset` on. At most a piece.
fn content(offset: u64, bytes: u64) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(bytes).expect("at most a piece")];
    let mut stream = blake3::Hasher::new().finalize_xof();
    stream.set_position(offset);
    stream.fill(&mut content);
    content
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// By plain reads and writes: a shared extent (reflink) would make the next write to it dearer. Over what is there: a file
/// that is cut off first gets its memory anew, in another order each time, and is up to a fifth slower to read than the
/// source and the ceiling's files, which keep theirs. Only what is to have holes is cut off: data may be where they shall be.
fn copy(from: &Path, to: &Path, texture: Texture) -> io::Result<()> {
    let from = File::open(from)?;
    let to = OpenOptions::new().write(true).create(true).truncate(texture == Texture::Holes).open(to)?;
    let bytes = from.metadata()?.len();
    to.set_len(bytes)?;
    let mut buffer = piece();
    for (offset, length) in pieces(bytes).filter(|(offset, _)| texture.is_data(*offset)) {
        let piece = &mut buffer[..usize::try_from(length).expect("at most a piece")];
        from.read_exact_at(piece, offset)?;
        to.write_all_at(piece, offset)?;
    }
    Ok(())
}

fn are_equal(left: &Path, right: &Path) -> io::Result<bool> {
    let (left, right) = (File::open(left)?, File::open(right)?);
    let bytes = left.metadata()?.len();
    if right.metadata()?.len() != bytes {
        return Ok(false);
    }
    let (mut of_left, mut of_right) = (piece(), piece());
    for (offset, length) in pieces(bytes) {
        let length = usize::try_from(length).expect("at most a piece");
        left.read_exact_at(&mut of_left[..length], offset)?;
        right.read_exact_at(&mut of_right[..length], offset)?;
        if of_left[..length] != of_right[..length] {
            return Ok(false);
        }
    }
    Ok(true)
}

fn piece() -> Vec<u8> {
    vec![0; usize::try_from(PIECE_BYTES).expect("1 MiB")]
}
