//! What the tests run the real program with: a scratch directory, a server on loopback, files made of parts, and the
//! three ways a copy can go.
//!
//! Nothing outlives its test: a process is killed when it is dropped, and nobody waits for one longer than
//! [`DEADLINE`]. What a program says for other programs is judged in `summary`; how a copy is held midway is in `valve`.

pub(crate) mod freezer;
mod outside;
mod process;
mod race;
pub(crate) mod sandbox;
mod summary;
pub(crate) mod union;
mod valve;

pub(crate) use outside::Outside;
pub(crate) use process::{Process, Run, terminal};
pub(crate) use race::Race;
pub(crate) use summary::Summary;
pub(crate) use valve::Valve;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

/// Far beyond what any copy here takes, also on a machine that does ten other things.
pub(crate) const DEADLINE: Duration = Duration::from_secs(100);

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// Where the two ends of a copy are, seen from who asks for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Push,
    Pull,
    Local,
}

impl Way {
    pub(crate) const ALL: [Way; 3] = [Way::Push, Way::Pull, Way::Local];
    pub(crate) const REMOTE: [Way; 2] = [Way::Push, Way::Pull];

    pub(crate) fn direction(self) -> &'static str {
        match self {
            Way::Push => "push",
            Way::Pull => "pull",
            Way::Local => "local",
        }
    }
}

/// A scratch directory and a server that can be asked for what is in it.
#[derive(Debug)]
pub(crate) struct Rig {
    scratch: tempfile::TempDir,
    pub(crate) server: Server,
}

impl Rig {
    /// On whatever the system's temporary directory is on; mostly a disk.
    pub(crate) fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// In memory, where there is such a place.
    pub(crate) fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::within(memory) } else { Self::new() }
    }

    fn within(directory: &Path) -> Self {
        let scratch = tempfile::Builder::new().prefix("pdcp-test-").tempdir_in(directory).unwrap();
        Self { scratch, server: Server::start(&["127.0.0.1:0", "-c", "2"]) }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// A file of this name and these parts.
    pub(crate) fn make(&self, name: impl AsRef<Path>, parts: &[Part]) -> PathBuf {
        let path = self.path(name);
        make(&path, parts);
        path
    }

    pub(crate) fn remove(&self, name: impl AsRef<Path>) {
        let path = self.path(name);
        if path.symlink_metadata().is_ok() {
            fs::remove_file(path).unwrap();
        }
    }

    /// Copies, and says how that went. `--json` is among the arguments.
    #[track_caller]
    pub(crate) fn copy(&self, way: Way, source: impl AsRef<Path>, target: impl AsRef<Path>, arguments: &[&str]) -> Run {
        self.start(way, source, target, arguments).wait()
    }

    /// The same, not waited for.
    pub(crate) fn start(
        &self,
        way: Way,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        arguments: &[&str],
    ) -> Process {
        self.start_by(self.server.port, way, source, target, arguments)
    }

    /// The same by another port than the server's own.
    pub(crate) fn start_by(
        &self,
        port: u16,
        way: Way,
        source: impl AsRef<Path>,
        target: impl AsRef<Path>,
        arguments: &[&str],
    ) -> Process {
        let (source, target) = ends(port, way, &self.path(source), &self.path(target));
        let mut command = pdcp(arguments);
        command.arg("--json").arg(source).arg(target);
        Process::start(command)
    }
}

/// Source and target as they are typed. A trailing `/` is kept.
pub(crate) fn ends(port: u16, way: Way, source: &Path, target: &Path) -> (OsString, OsString) {
    let (here, there) = (|path: &Path| path.as_os_str().to_owned(), |path: &Path| remote(port, path));
    match way {
        Way::Push => (here(source), there(target)),
        Way::Pull => (there(source), here(target)),
        Way::Local => (here(source), here(target)),
    }
}

/// `127.0.0.1:PORT:PATH`.
pub(crate) fn remote(port: u16, path: impl AsRef<OsStr>) -> OsString {
    OsString::from_vec([format!("127.0.0.1:{port}:").as_bytes(), path.as_ref().as_bytes()].concat())
}

/// The program with these arguments, to be completed or run.
pub(crate) fn pdcp<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pdcp"));
    command.args(arguments).stdin(Stdio::null()).env("PDCP_KEY_FILE", key_file());
    command
}

/// The key of all ends in these tests, whose user's own is nobody's business.
pub(crate) fn key_file() -> &'static Path {
    static KEY: LazyLock<PathBuf> = LazyLock::new(|| {
        // Of its own directory, into which nobody else may write whatever the umask is.
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("user");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).unwrap();
        let path = directory.join("key");
        if !path.exists() {
            pdcp::control::identity::keygen(Some(&path), false).unwrap();
        }
        path
    });
    &KEY
}

/// Runs it with these arguments and nothing else.
#[track_caller]
pub(crate) fn run<A: AsRef<OsStr>>(arguments: &[A]) -> Run {
    Process::start(pdcp(arguments)).wait()
}

/// A server that accepts.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    /// As it says it itself.
    pub(crate) address: String,
    pub(crate) port: u16,
}

impl Server {
    /// `arguments` are what follows `--serve`.
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = pdcp(&["-v", "--serve"]);
        command.args(arguments);
        Self::of(command)
    }

    #[track_caller]
    pub(crate) fn of(command: Command) -> Self {
        let mut process = Process::start(command);
        let line = process.line_with("listening on ");
        let address = line.split_once("listening on ").unwrap().1.to_owned();
        let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
        Self { process, address, port }
    }
}

// --- files ---

/// A part of a file. Where a number stands for bytes, equal numbers give equal bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// Bytes without a pattern: which, and how many.
    Data(u8, u64),
    /// Zeros that are written.
    Zeros(u64),
    /// Zeros that are not.
    Hole(u64),
}

/// Makes a file of these parts, in place of whatever has the name.
pub(crate) fn make(path: &Path, parts: &[Part]) {
    let file = fs::File::create(path).unwrap();
    let mut offset = 0;
    for part in parts {
        match *part {
            Part::Data(..) | Part::Zeros(_) => file.write_all_at(&bytes(&[*part]), offset).unwrap(),
            Part::Hole(_) => {}
        }
        offset += part.bytes();
    }
    file.set_len(offset).unwrap();
}

/// What a file of these parts reads as.
pub(crate) fn bytes(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        let mut more = vec![0; usize::try_from(part.bytes()).unwrap()];
        if let Part::Data(which, _) = part {
            blake3::Hasher::new().update(&[*which]).finalize_xof().fill(&mut more);
        }
        bytes.append(&mut more);
    }
    bytes
}

impl Part {
    fn bytes(self) -> u64 {
        match self {
            Part::Data(_, bytes) | Part::Zeros(bytes) | Part::Hole(bytes) => bytes,
        }
    }
}

/// What must not change where nothing may be written: inode, length, mode, times, allocated blocks.
pub(crate) fn state(path: &Path) -> (u64, u64, u32, [i64; 4], u64) {
    let found = fs::metadata(path).unwrap();
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    (found.ino(), found.len(), found.mode(), times, found.blocks())
}

pub(crate) fn mtime(path: &Path) -> (i64, i64) {
    let found = fs::metadata(path).unwrap();
    (found.mtime(), found.mtime_nsec())
}

/// Two files that read the same. Long ones are not shown when they do not.
#[track_caller]
pub(crate) fn assert_equal(one: &Path, other: &Path) {
    let (left, right) = (fs::read(one).unwrap(), fs::read(other).unwrap());
    assert_eq!(left.len(), right.len(), "lengths of {one:?} and {other:?}");
    let first = left.iter().zip(&right).position(|(left, right)| left != right);
    assert_eq!(first, None, "the first byte where {one:?} and {other:?} differ");
}

/// What `b3sum` prints, as `--json` shows it.
pub(crate) fn digest(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut fs::File::open(path).unwrap(), &mut hasher).unwrap();
    format!("blake3:{}", hasher.finalize().to_hex())
}

/// As many descriptors for this process as the system lets it have.
pub(crate) fn allow_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// A loop device, gone when dropped.
pub(crate) struct Loop(pub(crate) PathBuf);

impl Loop {
    /// `None`: not allowed here. The caller says so.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
        made.status.success().then(|| Self(String::from_utf8(made.stdout).unwrap().trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// Whether the tests run as root, and may mount and make devices.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
