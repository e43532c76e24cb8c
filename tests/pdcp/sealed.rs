//! Two hosts, as far as pdcp can tell: two network namespaces, the key copied from one to the other. Whoever is on the way
//! sees everything and learns nothing.

use crate::rig::{MIB, Part, Process, Run, Server, assert_equal, bytes, make, pdcp, remote};
use pdcp::digest::{Digest, hash_blocks};
use pdcp::extent::{BlockSize, Layout, Run as Blocks};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// A network namespace with nothing in it but loopback.
struct Host {
    name: String,
}

impl Host {
    /// `None`: that is not possible here.
    fn new(name: &str) -> Option<Self> {
        let ip = |arguments: &[&str]| Command::new("ip").args(arguments).output().is_ok_and(|run| run.status.success());
        let name = format!("pdcp-{name}-{}", std::process::id());
        let host = ip(&["netns", "add", &name]).then_some(Self { name })?;
        assert!(ip(&["-n", &host.name, "link", "set", "lo", "up"]));
        Some(host)
    }

    /// The program on this host, of a user with this key.
    fn pdcp(&self, key: &Path, arguments: &[OsString]) -> Command {
        let own = pdcp(arguments);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(own.get_program()).args(own.get_args());
        command.env("PDCP_KEY_FILE", key).stdin(std::process::Stdio::null());
        command
    }

    fn space(&self) -> Space {
        Space(File::open(Path::new("/run/netns").join(&self.name)).unwrap())
    }
}

/// A network namespace, whether or not it still has a name.
struct Space(File);

impl Space {
    /// Makes something whose sockets are in it.
    fn make<T: Send>(&self, make: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                make()
            });
            made.join().unwrap()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// The only way from one host to the other, and what went over it.
struct Wire {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    fn between(here: &Host, there: &Host, address: SocketAddr) -> Self {
        let listener = here.space().make(|| TcpListener::bind("127.0.0.1:0").unwrap());
        // Not the host itself: this thread outlives the test, which is to take the name away.
        let there = there.space();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&heard);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = there.make(|| TcpStream::connect(address)) else { return };
                carry(near.try_clone().unwrap(), far.try_clone().unwrap(), Arc::clone(&notes));
                carry(far, near, Arc::clone(&notes));
            }
        });
        Self { port, heard }
    }

    fn shows(&self, bytes: &[u8], window: usize) -> bool {
        let heard = self.heard.lock().unwrap();
        let windows: HashSet<&[u8]> = bytes.chunks_exact(window).collect();
        heard.windows(window).any(|shown| windows.contains(shown))
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, notes: Arc<Mutex<Vec<u8>>>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            notes.lock().unwrap().extend_from_slice(&buffer[..read]);
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        _ = to.shutdown(Shutdown::Write);
    });
}

/// The key of the other host's user, copied.
fn copied(key: &Path, to: PathBuf) -> PathBuf {
    fs::copy(key, &to).unwrap(); // with its mode
    to
}

#[test]
fn between_hosts_a_copied_key_is_enough_and_nothing_shows() {
    let (Some(here), Some(there)) = (Host::new("here"), Host::new("there")) else {
        return eprintln!("SKIPPED: network namespaces want root and the program 'ip'");
    };
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let source = path("source");
    make(&source, &[Part::Data(1, 3 * MIB)]);
    let serve = ["--serve".into(), "127.0.0.1:0".into()];
    let server = Server::of(there.pdcp(&path("key"), &serve));
    let wire = Wire::between(&here, &there, server.address.parse().unwrap());
    let copy = |key: &Path, more: &[&str], source: OsString, target: OsString| -> Run {
        let arguments = ["--json".into(), "-v".into()].into_iter().chain(more.iter().map(OsString::from));
        let arguments: Vec<OsString> = arguments.chain([source, target]).collect();
        Process::start(here.pdcp(key, &arguments)).wait()
    };
    let key = copied(&path("key"), path("copied-key"));
    let content = bytes(&[Part::Data(1, 3 * MIB)]);

    // A basis that is half right, so that there are signatures to be seen.
    make(&path("target"), &[Part::Data(2, MIB)]);
    let basis = bytes(&[Part::Data(2, MIB)]);
    let pushed = copy(&key, &["--connections", "3"], source.clone().into(), remote(wire.port, path("target")));
    let sealing = pushed.ends_with(0).text("sealing").to_owned();
    assert!(["AES-256-GCM", "ChaCha20-Poly1305"].contains(&sealing.as_str()), "{pushed}");
    pushed.tells(&format!("sealed with {sealing}"));
    assert_equal(&source, &path("target"));
    let pulled = copy(&key, &["--connections", "3"], remote(wire.port, &source), path("pulled").into());
    pulled.ends_with(0);
    assert_equal(&source, &path("pulled"));
    assert!(wire.heard.lock().unwrap().len() as u64 > 6 * MIB, "all of it went over the wire");
    assert!(!wire.shows(&content, 16), "content shows");
    let layout = Layout::checked(3 * MIB, BlockSize::default(), MIB).unwrap();
    let mut digests = vec![Digest::default(); 64];
    hash_blocks(&layout, Blocks { first: 0, count: 64 }, &basis, &mut digests);
    let signatures: Vec<u8> = digests.iter().flat_map(|digest| digest.0[..8].to_vec()).collect();
    assert!(!wire.shows(&signatures, 8), "a signature shows");
    assert!(!wire.shows(source.as_os_str().as_encoded_bytes(), source.as_os_str().len()), "a path shows");

    // What one end alone wants does not happen.
    let pushed = copy(&key, &["--plaintext"], source.clone().into(), remote(wire.port, path("another")));
    pushed.ends_with(0);
    pushed.tells("sealed with ");
    assert!(!wire.shows(&content, 16));

    Process::start(here.pdcp(&path("own-key"), &["--keygen".into()])).wait();
    let refused = copy(&path("own-key"), &[], source.clone().into(), remote(wire.port, path("never")));
    refused.ends_with(5);
    refused.tells("the server has another key than this user's");
    assert!(!path("never").exists());
    copy(&path("no-key"), &[], source.into(), remote(wire.port, path("never"))).ends_with(5);
    assert!(!path("never").exists());

    // The test itself can see what is there to be seen.
    drop(server);
    let serve = ["--plaintext".into(), "--serve".into(), "127.0.0.1:0".into()];
    let server = Server::of(there.pdcp(&path("key"), &serve));
    let wire = Wire::between(&here, &there, server.address.parse().unwrap());
    let pushed = copy(&key, &["--plaintext"], path("source").into(), remote(wire.port, path("third")));
    assert_eq!(pushed.ends_with(0).text("sealing"), "plaintext");
    pushed.tells("not sealed: --plaintext at both ends");
    assert!(wire.shows(&content, 16));
    server.process.signal(Signal::TERM);
    server.process.wait().tells(", in plaintext, ");
}
