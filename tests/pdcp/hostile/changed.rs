//! What a man in the middle does to a session between two real ends: he can end it, and that is all. Whatever he has
//! touched is noticed by who gets it, before anything is done with it.

use super::middle::{Change, ELSEWHERE, Middle, Stream, TO_BE_LET_IN, TO_JOIN, flip, frames};
use super::scene::{BLOCK, at_once, source_content};
use super::victim::{Client, Ran, Server};
use pdcp::limits::{CHALLENGE_LEN, HEADER_LEN, TAG_LEN};
use pdcp::wire::{GREETING_LEN, PREAMBLE_LEN};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex};
use tempfile::TempDir;

/// Which of the bytes of TLS are changed, one after the other; all of them where `PDCP_EVERY_BYTE` is set. That none of
/// them can be changed is checked in `control/identity` each time; here it is what becomes of the two programs.
const STEP: usize = 13;
/// Sessions at once: most of their time they wait. Fewer than a worker of the server has room for.
const WIDTH: usize = 12;
/// The same of those that never get as far as a worker.
const STRANGERS_WIDTH: usize = 24;

/// Bytes of a greeting before its challenge.
const MAGIC_LEN: usize = GREETING_LEN - CHALLENGE_LEN;

// --- before a session ---

/// One byte after the other of a control connection on which nothing is agreed: all of it is handshake, Hello and answer.
/// What the challenge is for comes later: see [`joins`].
pub(super) fn handshakes(server: &Server) {
    let step = if std::env::var_os("PDCP_EVERY_BYTE").is_some() { 1 } else { STEP };
    for to_server in [true, false] {
        let stream = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&stream);
        let record = move |bytes: Vec<u8>| {
            kept.lock().unwrap().extend_from_slice(&bytes);
            bytes
        };
        let mut record = Some(Box::new(record) as Change);
        let untouched = ask(server, move |stream| record.take_if(|_| stream.to_server == to_server));
        assert_eq!(untouched.code, Some(3), "{untouched:?}");
        let stream = std::mem::take(&mut *stream.lock().unwrap());
        let (own, tls) = if to_server { (PREAMBLE_LEN, PREAMBLE_LEN) } else { (MAGIC_LEN, GREETING_LEN) };
        let (harmless, goodbye) = harmless(&stream[tls..]);
        let goodbye = tls + goodbye..stream.len();
        let positions = (0..own).chain((tls..goodbye.start).step_by(step)).chain(goodbye.clone());
        at_once(
            STRANGERS_WIDTH,
            &positions.collect::<Vec<usize>>(),
            |at| format!("byte {at} of {}, to server {to_server}", stream.len()),
            |at| {
                let at = *at;
                let ran = ask(server, move |stream| (stream.to_server == to_server).then(|| flip(at)));
                // A length that grew is waited for, as far as there is time for a Hello: 30, or 43 from who has hung up.
                let is_noticed = [5, 10, 12, 30, 35, 43].map(Some).contains(&ran.code);
                let may_be_as_before = at >= tls && harmless.contains(&(at - tls)) || goodbye.contains(&at);
                assert!(is_noticed || may_be_as_before && ran.code == untouched.code, "{ran:?}");
            },
        );
    }
}

/// A client that asks for what is not there, through a man who changes streams.
fn ask(server: &Server, change: impl FnMut(Stream) -> Option<Change> + Send + 'static) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    let middle = Middle::before(server.address, ELSEWHERE, change);
    let ran = Client::start([middle.remote(&directory.path().join("missing")).into(), directory.path().join("target")]);
    let ran = ran.end();
    assert!(!directory.path().join("target").exists(), "{ran:?}");
    ran
}

/// What TLS leaves unprotected of the heads of records, as nothing depends on it: the lower half of the version, and the
/// type of a sealed record, whose true one is inside. And where the last record begins, TLS's goodbye.
fn harmless(mut stream: &[u8]) -> (Vec<usize>, usize) {
    const SEALED: u8 = 0x17;
    let whole = stream.len();
    let (mut positions, mut record) = (Vec::new(), 0);
    while let [kind, _, _, high, low, rest @ ..] = stream {
        record = whole - stream.len();
        positions.push(record + 2);
        positions.extend((*kind == SEALED).then_some(record));
        stream = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..).unwrap_or_default();
    }
    (positions, record)
}

/// Every byte that a data connection says before its first frame, and the challenge of the control connection, from which
/// all keys grow.
pub(super) fn joins(server: &Server) {
    let copy = Pair::new(false);
    let streams = [(0, false, MAGIC_LEN..GREETING_LEN), (1, true, 0..TO_JOIN), (1, false, 0..TO_BE_LET_IN)];
    for (connection, to_server, positions) in streams {
        at_once(
            WIDTH,
            &positions.collect::<Vec<usize>>(),
            |at| format!("byte {at} of connection {connection}, to server {to_server}"),
            |at| {
                let at = *at;
                let is_meant = move |stream: &Stream| (stream.connection, stream.to_server) == (connection, to_server);
                let middle = Middle::before(server.address, ELSEWHERE, move |s| is_meant(&s).then(|| flip(at)));
                let ran = copy.run(&middle, &["--connections", "1"]);
                assert_eq!(ran.code, Some(10), "{ran:?}");
                assert!(ran.stderr.contains("data connections could not be made"), "{ran:?}");
            },
        );
    }
    assert!(copy.is_untouched());
}

// --- in a session ---

/// A kind of frame: its name, its number, whether a source says it, and whether in a dry run.
type Kind = (&'static str, u8, bool, bool);

const KINDS: &[Kind] = &[
    ("a Want", 1, false, false),
    ("signatures", 2, false, false),
    ("data", 3, true, false),
    ("holes", 4, true, false),
    ("what differs", 5, true, true),
    ("the end of a stripe", 6, true, false),
];

/// What is done to the first frame of a kind.
#[derive(Clone, Copy)]
enum Trick {
    /// One bit of it changes, in the byte that this says.
    Flip(fn(&[u8]) -> usize),
    Twice,
    LeftOut,
    /// It comes behind the next one.
    Late,
}

const TRICKS: &[(&str, Trick)] = &[
    ("has another kind", Trick::Flip(|_| 0)),
    ("has another length", Trick::Flip(|_| 4)),
    ("has another payload", Trick::Flip(|_| 8)),
    ("begins otherwise", Trick::Flip(|_| HEADER_LEN)),
    ("ends otherwise", Trick::Flip(|frame| frame.len() - 1)),
    ("has another tag", Trick::Flip(tag)),
    ("comes twice", Trick::Twice),
    ("does not come", Trick::LeftOut),
    ("comes late", Trick::Late),
];

/// Where the first tag of a sealed frame lies: in the first entry of a data frame's table, else behind the body.
fn tag(frame: &[u8]) -> usize {
    let is_data = frame[0] == 3;
    if is_data { HEADER_LEN + 8 + 4 } else { frame.len() - TAG_LEN }
}

/// Whatever becomes of a frame on its way: the connection is lost for it, the session with it, and another one finishes.
pub(super) fn sealed_frames(server: &Server) {
    let mut cases = Vec::new();
    for kind in KINDS {
        for trick in TRICKS {
            cases.extend([(kind, trick, true), (kind, trick, false)]);
        }
    }
    at_once(
        WIDTH,
        &cases,
        |((kind, ..), (trick, _), push)| format!("{kind} {trick}, push {push}"),
        |((_, kind, by_source, dry_run), (_, trick), push)| {
            let (kind, trick, to_server) = (*kind, *trick, by_source == push);
            let copy = Pair::new(*push);
            let middle = Middle::before(server.address, ELSEWHERE, move |stream| {
                let is_meant = stream.connection == 1 && stream.to_server == to_server;
                is_meant.then(|| frames(to_server, play(kind, trick)))
            });
            copy.check_that_it_is_noticed(&middle, 1, *dry_run);
        },
    );
}

fn play(kind: u8, trick: Trick) -> impl FnMut(Vec<u8>) -> Vec<u8> {
    let mut done = false;
    let mut late = Vec::new();
    move |mut frame| {
        if done || frame[0] != kind {
            return [frame, std::mem::take(&mut late)].concat();
        }
        done = true;
        match trick {
            Trick::Flip(at) => {
                let at = at(&frame);
                frame[at] ^= 1;
            }
            Trick::Twice => frame = frame.repeat(2),
            Trick::LeftOut => frame.clear(),
            Trick::Late => late = std::mem::take(&mut frame),
        }
        frame
    }
}

/// Frames that are good ones, but of another connection, or of the other direction.
pub(super) fn strange_frames(server: &Server) {
    at_once(
        WIDTH,
        &[true, false],
        |push| format!("Wants exchanged, push {push}"),
        |push| {
            let (push, to_server) = (*push, !*push);
            let exchange = Arc::new(Exchange::default());
            let middle = Middle::before(server.address, ELSEWHERE, move |stream| {
                let is_meant = [1, 2].contains(&stream.connection) && stream.to_server == to_server;
                let exchange = Arc::clone(&exchange);
                is_meant.then(|| frames(to_server, first(move |frame| exchange.swap(stream.connection - 1, frame))))
            });
            Pair::new(push).check_that_it_is_noticed(&middle, 2, false);
        },
    );
    at_once(
        WIDTH,
        &[true, false],
        |push| format!("a target's own frame comes back to it, push {push}"),
        |push| {
            let (push, to_source) = (*push, !*push);
            let exchange = Arc::new(Exchange::default());
            let middle = Middle::before(server.address, ELSEWHERE, move |stream| {
                let (exchange, back) = (Arc::clone(&exchange), stream.to_server != to_source);
                let reflect = move |frame: Vec<u8>| {
                    if back {
                        return exchange.take(0);
                    }
                    exchange.put(0, frame.clone());
                    frame
                };
                (stream.connection == 1).then(|| frames(stream.to_server, first(reflect)))
            });
            Pair::new(push).check_that_it_is_noticed(&middle, 1, false);
        },
    );
}

/// Does something to the first frame only.
fn first(change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> impl FnMut(Vec<u8>) -> Vec<u8> {
    let mut change = Some(change);
    move |frame| change.take().map_or_else(|| frame.clone(), |change| change(frame.clone()))
}

/// Where two streams meet.
#[derive(Default)]
struct Exchange {
    frames: Mutex<[Option<Vec<u8>>; 2]>,
    there: Condvar,
}

impl Exchange {
    fn put(&self, stream: usize, frame: Vec<u8>) {
        self.frames.lock().unwrap()[stream] = Some(frame);
        self.there.notify_all();
    }

    /// A stream's frame, once it is there.
    fn take(&self, stream: usize) -> Vec<u8> {
        let frames = self.there.wait_while(self.frames.lock().unwrap(), |frames| frames[stream].is_none());
        frames.unwrap()[stream].clone().unwrap()
    }

    /// Gives a frame, and takes the other stream's.
    fn swap(&self, stream: usize, frame: Vec<u8>) -> Vec<u8> {
        self.put(stream, frame);
        self.take(1 - stream)
    }
}

/// A source with holes, and a target that differs from it in every second block.
struct Pair {
    directory: TempDir,
    push: bool,
}

/// What the target was before.
fn basis() -> Vec<u8> {
    let mut content = source_content();
    content.chunks_mut(BLOCK).skip(1).step_by(2).for_each(|block| block.fill(0xbb));
    content
}

impl Pair {
    fn new(push: bool) -> Self {
        let pair = Self { directory: tempfile::tempdir().unwrap(), push };
        let hole = 8 * BLOCK..12 * BLOCK;
        let content = source_content();
        let source = std::fs::File::create(pair.path("source")).unwrap();
        source.write_all_at(&content[..hole.start], 0).unwrap();
        source.write_all_at(&content[hole.end..], hole.end as u64).unwrap();
        std::fs::write(pair.path("target"), basis()).unwrap();
        pair
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, middle: &Middle, options: &[&str]) -> Ran {
        let (source, target) = (self.path("source"), self.path("target"));
        let places = if self.push {
            [source.into_os_string(), middle.remote(&target).into()]
        } else {
            [middle.remote(&source).into(), target.into_os_string()]
        };
        let options = options.iter().chain(&["-v", "-c", "1", "--no-fsync"]).map(Into::into);
        Client::start(options.chain(places)).end()
    }

    fn is_untouched(&self) -> bool {
        std::fs::read(self.path("target")).unwrap() == basis()
    }

    /// The first session is lost, and nothing else happens: the next one, with which nobody meddles, does it all.
    #[track_caller]
    fn check_that_it_is_noticed(&self, middle: &Middle, connections: usize, dry_run: bool) {
        let connections = connections.to_string();
        let mut options = vec!["--connections", &connections];
        options.extend(dry_run.then_some("-n"));
        let ran = self.run(middle, &options);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stderr.contains("sealed with "), "{ran:?}");
        assert!(ran.stderr.contains("connection lost") && ran.stderr.contains("dialling again"), "{ran:?}");
        let same = |name: &str| std::fs::read(self.path(name)).unwrap();
        assert!(if dry_run { self.is_untouched() } else { same("source") == same("target") });
    }
}
