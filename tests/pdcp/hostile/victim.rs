//! The real program as a hostile peer meets it: a server that goes on serving, a client with its exit code.
//!
//! Nothing here waits for ever: a program that does not end in time is killed, by its id, and its test fails.

use crate::rig::{key_file, pdcp};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than every deadline that these tests run into; the longest is that of a session in which nothing moves.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

fn program() -> Command {
    let mut command = pdcp::<&OsStr>(&[]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A server under attack. However often it was lied to, it must stop in good order.
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Server {
    /// It seals nothing for who asks for that.
    pub(super) fn start() -> Self {
        Self::start_with(key_file(), &["-c", "2"])
    }

    /// The same with another key, and with these options.
    pub(super) fn start_with(key: &Path, options: &[&str]) -> Self {
        let mut command = program();
        command.args(["--serve", "127.0.0.1:0", "--plaintext", "-v"]).args(options).env("PDCP_KEY_FILE", key);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let line = lines.next().expect("a server says where it listens").unwrap();
            if let Some(address) = line.strip_prefix("listening on ") {
                break address.parse().unwrap();
            }
        };
        let kept = Arc::clone(&log);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, address, log, reader: Some(reader) }
    }

    /// Descriptors that it has open.
    pub(super) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Everything that its clients made it open is closed again. Closing cannot be awaited from here, so it is asked for.
    #[track_caller]
    pub(super) fn assert_descriptors_return_to(&self, before: usize) {
        let deadline = Instant::now() + Duration::from_secs(15);
        while self.descriptors() > before {
            assert!(Instant::now() < deadline, "{} descriptors, {before} before", self.descriptors());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// It tells, before long, a line with all of these words.
    #[track_caller]
    pub(super) fn assert_tells(&self, words: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(15);
        let is_told = || self.log.lock().unwrap().lines().any(|line| words.iter().all(|word| line.contains(word)));
        while !is_told() {
            assert!(Instant::now() < deadline, "not a word of {words:?}: {}", self.log.lock().unwrap());
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// It lives, says no word of a panic, and stops in good order.
    #[track_caller]
    pub(super) fn stop(mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it ended by itself: {}", self.log.lock().unwrap());
        signal(&self.child, rustix::process::Signal::TERM);
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        let log = self.log.lock().unwrap().clone();
        assert_eq!(status.code(), Some(0), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        // Nothing that a peer says begins a line, or steers the terminal.
        assert!(log.lines().all(|line| line.starts_with("pdcp: ") && !line.contains(char::is_control)), "{log:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    _ = rustix::process::kill_process(id, signal);
}

/// How a run of the program ended.
#[derive(Debug)]
pub(super) struct Ran {
    /// `None`: killed by a signal, an abort for instance.
    pub(super) code: Option<i32>,
    pub(super) stderr: String,
}

/// A client that runs.
pub(super) struct Client {
    child: Child,
    stderr: mpsc::Receiver<String>,
}

impl Client {
    pub(super) fn start<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Self {
        let mut child = program().stdout(Stdio::null()).args(arguments).spawn().unwrap();
        let mut from = child.stderr.take().unwrap();
        let (ended, stderr) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            _ = from.read_to_end(&mut text);
            _ = ended.send(String::from_utf8_lossy(&text).into_owned());
        });
        Self { child, stderr }
    }

    /// Waits for its end; kills it when that does not come.
    #[track_caller]
    pub(super) fn end(mut self) -> Ran {
        let stderr = self.stderr.recv_timeout(PATIENCE).expect("a client ends");
        assert!(stderr.lines().all(|line| !line.contains(char::is_control)), "{stderr:?}");
        Ran { code: self.child.wait().unwrap().code(), stderr }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
