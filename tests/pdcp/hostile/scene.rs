//! Where attacks take place: files, both roles, and what has to be true afterwards. Every attack is played against a
//! server and against a client, and must look the same to both.

use super::peer::{Ambush, Peer, client};
use super::victim::{Client, Server};
use pdcp::completion::DirectPolicy;
use pdcp::entry::{Metadata, Timestamp};
use pdcp::failure::{Failure, Kind};
use pdcp::method::Method;
use pdcp::session::handshake::{Offer, welcome};
use pdcp::wire::{FailureMessage, Hello, Message, Options};
use std::fs::{File, FileTimes};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

pub(super) const BLOCK: usize = 16 << 10;
const MIB: usize = 1 << 20;
/// Five stripes of one MiB, the last one short: more than may be open at a time.
pub(super) const SOURCE_BYTES: usize = 4 * MIB + 100;
pub(super) const STRIPES: usize = 5;
/// All of the first stripe, four blocks of the second.
const BASIS_BYTES: usize = MIB + 4 * BLOCK;
/// Stripes of 32 MiB: hashing one takes far longer than a frame takes to arrive.
pub(super) const LARGE_BYTES: u64 = 1 << 30;
/// What a lying source sends; neither the basis nor the source has it.
pub(super) const LIE: u8 = 0xee;
const SOURCE_MTIME: i64 = 1_600_000_000;
const BASIS_MTIME: i64 = 1_500_000_000;

/// What the victim has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scene {
    /// A target to be updated; every second block of it differs.
    Update,
    /// No target yet.
    New,
    /// As `Update`, but nothing may be written.
    DryRun,
    /// As `Update`, over two data connections.
    TwoLines,
    /// A large target, all zeros.
    Large,
}

/// How a victim has to end.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// With this exit code, and this in what it says.
    Fails(u8, &'static str),
    /// The target equals the source.
    Succeeds,
}

/// One attack: a peer in a session that has begun, and what it does.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) scene: Scene,
    pub(super) play: fn(&mut Peer),
    pub(super) end: End,
}

/// Made once: it takes its time.
pub(super) fn source_content() -> Vec<u8> {
    static CONTENT: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..SOURCE_BYTES).map(|at| u8::try_from((at / BLOCK * 7 + at) % 199).unwrap()).collect());
    CONTENT.clone()
}

fn basis_content() -> Vec<u8> {
    let mut content = source_content();
    content.truncate(BASIS_BYTES);
    content.chunks_mut(BLOCK).skip(1).step_by(2).for_each(|block| block.fill(0xbb));
    content
}

pub(super) fn metadata(bytes: u64) -> Metadata {
    Metadata { bytes, mode: 0o644, mtime: Timestamp::whole(SOURCE_MTIME), device_node: false }
}

/// What an honest client says, for one connection. `source`: it pushes.
pub(super) fn hello(path: &Path, source: Option<Metadata>) -> Hello {
    Hello {
        program: "an enemy".into(),
        source,
        path: path.as_os_str().as_bytes().to_vec(),
        source_name: if source.is_some() { b"name".to_vec() } else { Vec::new() },
        options: Options {
            block_bytes: 16 << 10,
            method: Method::Blake3,
            whole_file: false,
            dry_run: false,
            verify: false,
            inplace: false,
            fsync: false,
            direct: DirectPolicy::Never,
        },
        connections: 1,
        workers: 1,
        aes: false,
        plaintext: true,
        former: None,
    }
}

/// What an honest server answers with. `source`: it has the source.
pub(super) fn offer(source: Option<Metadata>) -> Offer {
    Offer {
        session: [7; 16],
        source,
        basis_bytes: None,
        taken_name: Vec::new(),
        workers: 1,
        same_address: false,
        connections_max: 128,
        aes: false,
        plaintext: true,
        cores: Vec::new(),
    }
}

impl Scene {
    fn lines(self) -> u32 {
        if self == Self::TwoLines { 2 } else { 1 }
    }

    fn source_bytes(self) -> u64 {
        if self == Self::Large { LARGE_BYTES } else { SOURCE_BYTES as u64 }
    }

    fn content(self) -> Vec<u8> {
        if self == Self::Large { Vec::new() } else { source_content() }
    }

    /// Makes the target as it is before.
    fn set(self, target: &Path) {
        if self == Self::New {
            return;
        }
        let file = File::create(target).unwrap();
        match self {
            Self::Large => file.set_len(LARGE_BYTES).unwrap(),
            _ => std::io::Write::write_all(&mut &file, &basis_content()).unwrap(),
        }
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(BASIS_MTIME.unsigned_abs());
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    /// Nothing is at the target that nobody agreed on, and it looks finished only if it is.
    #[track_caller]
    fn check(self, target: &Path, agreed: &[u8], end: End) {
        let names = std::fs::read_dir(target.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
        let strange = |name: &std::ffi::OsString| *name != target.file_name().unwrap() && !is_temporary(name);
        let strange: Vec<_> = names.filter(strange).collect();
        assert!(strange.is_empty(), "made {strange:?}");
        if let End::Succeeds = end {
            return assert!(std::fs::read(target).unwrap() == agreed, "the target is not what was agreed on");
        }
        let modified = target.metadata().ok().map(|metadata| metadata.modified().unwrap());
        let modified = modified.map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
        assert_ne!(modified, Some(SOURCE_MTIME.unsigned_abs()), "it looks finished");
        match self {
            Self::New => assert!(!target.exists(), "an unfinished target has its name"),
            Self::Large => {}
            Self::DryRun => {
                assert!(std::fs::read(target).unwrap() == basis_content(), "a dry run has written");
                assert_eq!(modified, Some(BASIS_MTIME.unsigned_abs()));
            }
            Self::Update | Self::TwoLines => {
                let (basis, source) = (basis_content(), source_content());
                for (at, block) in std::fs::read(target).unwrap().chunks(BLOCK).enumerate() {
                    let same = |of: &[u8]| of.get(at * BLOCK..at * BLOCK + block.len()) == Some(block);
                    let lie = block.iter().all(|byte| [0, LIE].contains(byte));
                    assert!(same(&basis) || same(&source) || lie, "block {at} has foreign bytes");
                }
            }
        }
    }
}

fn is_temporary(name: &std::ffi::OsString) -> bool {
    name.as_bytes().starts_with(b".pdcp-") && name.len() == 22
}

impl Attack {
    /// Against a server that is to write.
    pub(super) fn on_target_server(&self, server: &Server) {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        self.scene.set(&target);
        let mut hello = hello(&target, Some(metadata(self.scene.source_bytes())));
        hello.connections = self.scene.lines();
        hello.options.dry_run = self.scene == Scene::DryRun;
        let peer = client(server.address, &hello, self.scene.content());
        let agreed = self.play_on_server(peer, &target);
        self.scene.check(&target, &agreed, self.end);
    }

    /// Against a server that is to read.
    pub(super) fn on_source_server(&self, server: &Server) {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        std::fs::write(&source, source_content()).unwrap();
        let mut hello = hello(&source, None);
        hello.options.dry_run = self.scene == Scene::DryRun;
        let peer = client(server.address, &hello, self.scene.content());
        self.play_on_server(peer, &source);
    }

    /// What the peer said that the source has.
    fn play_on_server(&self, mut peer: Peer, victims: &Path) -> Vec<u8> {
        peer.path = victims.to_path_buf();
        (self.play)(&mut peer);
        match (self.end, peer.hear_failure()) {
            (End::Fails(code, says), Some(failure)) => {
                assert_eq!(failure.kind.exit_code(), code, "{failure:?}");
                assert!(!failure.subject.starts_with(b"127.0.0.1"), "the peer's own address: {failure:?}");
                assert!(failure.text.contains(says), "{failure:?}");
            }
            (End::Fails(10 | 43, _), None) => {} // who has cut control, or has failed himself, is told nothing
            (End::Fails(..), None) => panic!("it ends without saying why"),
            (End::Succeeds, None) => {}
            (End::Succeeds, Some(failure)) => panic!("{failure:?}"),
        }
        peer.content
    }

    /// Against a client that pulls.
    pub(super) fn on_target_client(&self) {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        self.scene.set(&target);
        let ambush = Ambush::lay();
        let remote = format!("127.0.0.1:{}:/source", ambush.port());
        let client = self.lure(&[Path::new(&remote), &target]);
        let source = metadata(self.scene.source_bytes());
        let peer = ambush.take(|hello| welcome(hello, offer(Some(source))), self.scene.content());
        drop(ambush); // a session that is lost is dialled again: nobody is there any more
        let agreed = self.play_on_client(client, peer, &target);
        self.scene.check(&target, &agreed, self.end);
    }

    /// Against a client that pushes.
    pub(super) fn on_source_client(&self) {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("source");
        std::fs::write(&source, source_content()).unwrap();
        let ambush = Ambush::lay();
        let remote = format!("127.0.0.1:{}:/target", ambush.port());
        let client = self.lure(&[&source, Path::new(&remote)]);
        let peer = ambush.take(|hello| welcome(hello, offer(None)), self.scene.content());
        drop(ambush);
        self.play_on_client(client, peer, &source);
    }

    fn lure(&self, places: &[&Path]) -> Client {
        let lines = self.scene.lines().to_string();
        let dry_run: &[&str] = if self.scene == Scene::DryRun { &["-n"] } else { &[] };
        let options = [&["--plaintext", "-c", "1", "--no-fsync", "--connections", &lines], dry_run].concat();
        Client::start(options.iter().map(std::ffi::OsStr::new).chain(places.iter().map(|place| place.as_os_str())))
    }

    fn play_on_client(&self, client: Client, mut peer: Peer, victims: &Path) -> Vec<u8> {
        peer.path = victims.to_path_buf();
        (self.play)(&mut peer);
        let told = peer.hear_failure();
        let content = std::mem::take(&mut peer.content);
        drop(peer);
        let ran = client.end();
        match self.end {
            End::Fails(code, says) => {
                assert_eq!(ran.code, Some(code.into()), "{ran:?}");
                assert!(ran.stderr.contains(says), "{ran:?}");
                let about_us = told.as_ref().is_some_and(|failure| failure.subject.starts_with(b"127.0.0.1"));
                assert!(!about_us, "the peer's own name: {told:?}");
                let code = told.map_or(code, |failure| failure.kind.exit_code());
                assert_eq!(ran.code, Some(code.into()), "told another reason");
            }
            End::Succeeds => assert_eq!(ran.code, Some(0), "{ran:?}"),
        }
        content
    }
}

// --- all of them ---

/// Runs all cases, a few at a time, and says which went wrong.
#[track_caller]
pub(super) fn all<C: Sync>(cases: &[C], name: impl Fn(&C) -> String + Sync, run: impl Fn(&C) + Sync) {
    at_once(4, cases, name, run);
}

/// The same, all of them at a time: where all they do is wait.
#[track_caller]
pub(super) fn all_at_once<C: Sync>(cases: &[C], name: impl Fn(&C) -> String + Sync, run: impl Fn(&C) + Sync) {
    at_once(cases.len(), cases, name, run);
}

/// The same, `width` at a time.
#[track_caller]
pub(super) fn at_once<C: Sync>(width: usize, cases: &[C], name: impl Fn(&C) -> String + Sync, run: impl Fn(&C) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let run = std::panic::AssertUnwindSafe(|| run(case));
            if std::panic::catch_unwind(run).is_err() {
                wrong.push(name(case));
            }
        }
        wrong
    };
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..width).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(wrong.is_empty(), "{} went wrong, see above: {wrong:#?}", wrong.len());
}

/// Good copies to and from a server, one after the other, while `attack` goes on: all of them must succeed.
#[track_caller]
pub(super) fn beside_good_copies(server: &Server, attack: impl FnOnce()) {
    let over = AtomicBool::new(false);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("source"), source_content()).unwrap();
    std::thread::scope(|scope| {
        let copies = scope.spawn(|| {
            loop {
                let remote = PathBuf::from(format!("{}:{}", server.address, path("there").display()));
                for (source, target) in [(path("source"), remote.clone()), (remote, path("back"))] {
                    let ran = Client::start([source, target]).end();
                    assert_eq!(ran.code, Some(0), "a good copy fails: {ran:?}");
                }
                assert!(std::fs::read(path("back")).unwrap() == source_content());
                [path("there"), path("back")].iter().for_each(|made| std::fs::remove_file(made).unwrap());
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        // Also when an attack goes wrong the copies have to end.
        let attacked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attack));
        over.store(true, Ordering::Relaxed);
        copies.join().unwrap();
        attacked.unwrap();
    });
}

/// A failure that nobody else would send.
pub(super) fn strange_failure() -> Message {
    let failure = Failure::about(
        Kind::Busy,
        b"\x1b[2Jpath",
        format!("\x1b[31m{}", "too long ".repeat(113)), // with its escape as long as may be
    );
    let Failure { kind, subject, text } = failure;
    Message::Failed(FailureMessage { kind, subject, text, untouched: false })
}

/// A failure that nobody reads to its end.
pub(super) fn novel() -> Message {
    let kind = Kind::Busy;
    Message::Failed(FailureMessage { kind, subject: Vec::new(), text: "t".repeat(1025), untouched: false })
}
