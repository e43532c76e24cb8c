//! The row of a real table: an InnoDB table of 3 million rows as MariaDB exports it, before and after 5,000 of them changed.
//!
//! What is in it comes from hashes of row numbers, so every machine gets the same rows, and none that compress. Changed
//! rows lie anywhere in the table, and one of the changed columns has an index: that is what an application does to it.
//!
//! The server is our own: made by nobody's installation, its data below the directory that was named, no network, and gone
//! when we are. What was made stays there for the next run, in a directory of its own with the statements that made it.

mod server;

use server::Server;
pub(crate) use server::ServerError;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const CREATE: &str = "
CREATE DATABASE bench;
USE bench;
CREATE TABLE account (
    id INT UNSIGNED NOT NULL PRIMARY KEY,
    owner INT UNSIGNED NOT NULL,
    visits INT UNSIGNED NOT NULL,
    balance BIGINT NOT NULL,
    payload VARBINARY(200) NOT NULL,
    KEY (owner)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;
INSERT INTO account
    SELECT seq, CRC32(seq) >> 1, seq % 100, seq * 7,
        CONCAT(UNHEX(SHA2(CONCAT('a', seq), 512)), UNHEX(SHA2(CONCAT('b', seq), 512)), LEFT(UNHEX(SHA2(seq, 512)), 40))
    FROM seq_1_to_3000000;
";
/// Which rows: those whose numbers have the least hashes. That is as good as chance, and the same every time.
const UPDATE: &str = "
UPDATE account JOIN (SELECT seq FROM seq_1_to_3000000 ORDER BY SHA1(seq) LIMIT 5000) AS picked ON id = seq
    SET owner = owner + 1, visits = visits + 1, balance = balance - 1;
";
/// Writes out all that the table has in memory, and keeps it as it is on disk until UNLOCK TABLES.
const EXPORT: &str = "FLUSH TABLES account FOR EXPORT;";
const TABLE_SPACE: &str = "bench/account.ibd";

/// A copy of the table, nearly: 767.6 MB as MariaDB 11.8 makes it.
pub(crate) const TABLE_BYTES: u64 = 800_000_000;

/// What making it takes: the server's data, its log and temporary files, and both copies. Seen: 3.7 GB.
const MAKING_BYTES: u64 = 4_000_000_000;
/// Below the directory that was named.
const MADE: &str = "pdcp-bench-table";
/// Beside the pair: what made it.
const RECIPE: &str = "made-by.sql";

/// What the blocks are looked at in, each a multiple of those before it.
const BLOCK_SIZES: [usize; 6] = [4 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10, 1 << 20];

/// The same table twice. The comparison brings a copy of `before` up to date with `after`.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) before: PathBuf,
    pub(crate) after: PathBuf,
}

/// How much of `after` lies in blocks that `before` does not have at the same place: the least that can be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Difference {
    pub(crate) block_bytes: usize,
    pub(crate) bytes: u64,
}

/// That [`provide`] has what it needs, before minutes are spent on anything else.
pub(crate) fn check(directory: &Path) -> Result<(), ServerError> {
    if fs::exists(directory.join(MADE))? {
        return check_made(directory);
    }
    Server::check()?;
    let space = rustix::fs::statvfs(directory).map_err(io::Error::from)?;
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    if free_bytes < MAKING_BYTES { Err(ServerError::NoRoom { free_bytes }) } else { Ok(()) }
}

/// Leaves what an earlier run made below `directory`, or makes it there: about a minute, and 4 GB for so long. Where it is,
/// [`Pair::below`] knows.
pub(crate) fn provide(directory: &Path) -> Result<(), ServerError> {
    if fs::exists(directory.join(MADE))? {
        return check_made(directory);
    }
    let scratch = tempfile::Builder::new().prefix("pdcp-bench-").tempdir_in(directory)?;
    make(&scratch.path().join("server"), &Pair::within(scratch.path()))?;
    fs::write(scratch.path().join(RECIPE), statements())?;
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755))?;
    Ok(fs::rename(scratch.path(), directory.join(MADE))?) // whole, or not at all
}

/// That it was made by these statements.
fn check_made(directory: &Path) -> Result<(), ServerError> {
    let made = directory.join(MADE);
    match fs::read_to_string(made.join(RECIPE)) {
        Ok(made_by) if made_by == statements() => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Err(ServerError::Other(made)),
    }
}

fn statements() -> String {
    [CREATE, EXPORT, UPDATE, EXPORT].concat()
}

fn make(scratch: &Path, pair: &Pair) -> Result<(), ServerError> {
    let mut server = Server::start(scratch)?;
    server.run(CREATE)?;
    export(&mut server, &pair.before)?;
    server.run(UPDATE)?;
    export(&mut server, &pair.after)
}

fn export(server: &mut Server, to: &Path) -> Result<(), ServerError> {
    server.run(EXPORT)?;
    fs::copy(server.data().join(TABLE_SPACE), to)?;
    server.run("UNLOCK TABLES;")
}

impl Pair {
    /// Where [`provide`] makes it.
    pub(crate) fn below(directory: &Path) -> Self {
        Self::within(&directory.join(MADE))
    }

    fn within(directory: &Path) -> Self {
        Self { before: directory.join("before.ibd"), after: directory.join("after.ibd") }
    }

    /// For each size of blocks, from the smallest on.
    pub(crate) fn differences(&self) -> io::Result<[Difference; BLOCK_SIZES.len()]> {
        let (mut before, mut after) = (File::open(&self.before)?, File::open(&self.after)?);
        let mut differences = BLOCK_SIZES.map(|block_bytes| Difference { block_bytes, bytes: 0 });
        loop {
            let (basis, wanted) = (next_piece(&mut before)?, next_piece(&mut after)?);
            if wanted.is_empty() {
                return Ok(differences);
            }
            for difference in &mut differences {
                difference.bytes += differing_bytes(&basis, &wanted, difference.block_bytes);
            }
        }
    }
}

/// As much as the largest block, less at the end only.
fn next_piece(file: &mut File) -> io::Result<Vec<u8>> {
    let [.., piece_bytes] = BLOCK_SIZES.map(as_u64);
    let mut piece = Vec::new();
    file.take(piece_bytes).read_to_end(&mut piece)?;
    Ok(piece)
}

/// Of `wanted`, in blocks that `basis` does not have at the same place.
pub(crate) fn differing_bytes(basis: &[u8], wanted: &[u8], block_bytes: usize) -> u64 {
    let beyond_the_end = std::iter::repeat(&[][..]);
    let blocks = wanted.chunks(block_bytes).zip(basis.chunks(block_bytes).chain(beyond_the_end));
    blocks.filter(|(wanted, basis)| wanted != basis).map(|(wanted, _)| as_u64(wanted.len())).sum()
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MB differ in blocks of {} KiB", self.bytes as f64 / 1e6, self.block_bytes >> 10)
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).expect("no memory is longer")
}
