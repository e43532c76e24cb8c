//! What was in a server's memory is nobody else's: one client's file goes through its buffers again and again, meanwhile
//! another client copies files of its own, and every byte that goes to it or comes from it is looked at.
//!
//! Nothing is sealed, or nothing would show. Where assertions are on, freed buffers are poisoned besides.

use super::middle::Middle;
use super::scene::all;
use super::victim::{Client, Server};
use crate::rig::key_file;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What all of the first client's file is.
const SECRET: u8 = 0xa7;
/// What freed buffers are filled with.
const POISON: u8 = 0xdb;
/// So many of them in a row are no chance.
const RUN_LEN: usize = 16;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A file of the second client's.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    bytes: usize,
    /// From where to where it has no data.
    hole: (usize, usize),
    /// What it is cut to once some of it is on its way.
    cut: Option<usize>,
}

const fn of(name: &'static str, bytes: usize) -> Shape {
    Shape { name, bytes, hole: (0, 0), cut: None }
}

const SHAPES: &[Shape] = &[
    of("a byte", 1),
    of("a byte less than a page", 4 * KIB - 1),
    of("a block and a byte", 16 * KIB + 1),
    of("an extent and a byte", 64 * KIB + 1),
    of("two stripes and a bit", 2 * MIB + 4 * KIB + 77),
    Shape { hole: (64 * KIB, 3 * MIB), ..of("a hole, and a byte behind it", 3 * MIB + 1) },
    Shape { hole: (0, 3 * MIB + 5), ..of("nothing but a hole", 3 * MIB + 5) },
    Shape { cut: Some(9 * MIB), ..of("cut at a stripe", 10 * MIB) },
    Shape { cut: Some(9 * MIB + 5003), ..of("cut in the midst of a block", 10 * MIB) },
    Shape { cut: Some(0), ..of("cut to nothing", 10 * MIB) },
];

/// Bytes of which few in a row are equal.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from((at / 256 * 7 + at) % 150).unwrap()).collect()
}

#[test]
fn no_byte_of_one_session_shows_in_another() {
    for direct in ["always", "never"] {
        let server = Server::start_with(key_file(), &["-c", "1", "--direct", direct]);
        let cases: Vec<(&Shape, bool)> = SHAPES.iter().flat_map(|shape| [(shape, true), (shape, false)]).collect();
        let name = |(shape, push): &(&Shape, bool)| format!("{}, push {push}, direct {direct}", shape.name);
        beside_a_secret(&server, || all(&cases, name, |(shape, push)| check(&server, **shape, *push)));
        server.stop();
    }
}

/// While the first client's file goes there and back: more than all buffers of a worker hold.
fn beside_a_secret(server: &Server, play: impl FnOnce()) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("secret"), vec![SECRET; 34 * MIB]).unwrap();
    let remote = PathBuf::from(format!("{}:{}", server.address, path("secret-there").display()));
    let round = || {
        for places in [[path("secret"), remote.clone()], [remote.clone(), path("secret-back")]] {
            let options = ["-W", "--no-fsync"].map(PathBuf::from);
            assert_eq!(Client::start(options.into_iter().chain(places)).end().code, Some(0));
        }
    };
    round();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                round();
            }
        });
        let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(play));
        over.store(true, Ordering::Relaxed);
        played.unwrap();
    });
}

/// One copy of the second client's.
fn check(server: &Server, shape: Shape, push: bool) {
    let directory = tempfile::tempdir().unwrap();
    let (source, target) = (directory.path().join("source"), directory.path().join("target"));
    shape.make(&source);
    std::fs::write(&target, vec![0; shape.bytes / 2]).unwrap(); // there are signatures
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let middle = shape.listen(server, &source, Arc::clone(&heard));
    let remote = |path: &Path| PathBuf::from(middle.remote(path));
    let places = if push { [source.clone(), remote(&target)] } else { [remote(&source), target.clone()] };
    let options = ["-v", "-c", "1", "--connections", "1", "--no-fsync"].map(PathBuf::from);
    let ran = Client::start(options.into_iter().chain(places)).end();
    assert!(ran.stderr.contains("not sealed"), "{ran:?}");
    assert_eq!(ran.code, Some(if shape.cut.is_some() { 24 } else { 0 }), "{ran:?}");
    let heard = heard.lock().unwrap();
    assert!(heard.len() > shape.cut.map_or(shape.bytes - (shape.hole.1 - shape.hole.0), |_| MIB), "little was heard");
    for run in heard.chunk_by(|one, next| one == next).filter(|run| run.len() >= RUN_LEN) {
        assert!(![SECRET, POISON].contains(&run[0]), "{} bytes of {:#x}", run.len(), run[0]);
    }
}

impl Shape {
    fn make(&self, path: &Path) {
        let Self { bytes, hole: (from, until), .. } = *self;
        let (file, content) = (File::create(path).unwrap(), content(bytes));
        file.set_len(bytes as u64).unwrap();
        file.write_all_at(&content[..from], 0).unwrap();
        file.write_all_at(&content[until..], until as u64).unwrap();
    }

    /// In the middle of the data connection: keeps what goes over it, and cuts the source when some of it has.
    fn listen(&self, server: &Server, source: &Path, heard: Arc<Mutex<Vec<u8>>>) -> Middle {
        let (cut, source) = (self.cut, source.to_path_buf());
        Middle::before(server.address, "127.0.0.1:0", move |stream| {
            if stream.connection != 1 {
                return None;
            }
            let (heard, source) = (Arc::clone(&heard), source.clone());
            Some(Box::new(move |bytes| {
                let mut heard = heard.lock().unwrap();
                heard.extend_from_slice(&bytes);
                if let Some(cut) = cut.filter(|_| heard.len() > MIB) {
                    File::options().write(true).open(&source).unwrap().set_len(cut as u64).unwrap();
                }
                bytes
            }))
        })
    }
}
