//! What a server tells people and its audit log, where nobody listens, and where too many give it something to tell.

use crate::rig::freezer::Freezer;
use crate::rig::{DEADLINE, KIB, MIB, Part, Rig, Server, Way, ends, key_file, pdcp};
use pdcp::cli::{self, Command as Asked};
use pdcp::control::{Progress, Record, Watch, client};
use pdcp::limits::{REFUSED_LINES_BURST, STRANGERS_MAX};
use pdcp::wire::{Purpose, encode_preamble};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command};
use std::time::Instant;

const SOURCE: [Part; 1] = [Part::Data(1, MIB)];

/// Ends with the test, whatever comes of it.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Calls, speaks no TLS, and waits until it is turned out.
fn stranger(port: u16) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(&[&encode_preamble(Purpose::Control)[..], b"GET / HTTP/1.1\r\n\r\n"].concat()).unwrap();
    _ = socket.read_to_end(&mut Vec::new());
}

/// Trigger: Ctrl-S on the server's terminal, a pipe that nobody reads, a log on a frozen disk. Damage: it served nobody any
/// more, and was not to be stopped, either; a stranger's call was enough. Cure: what it tells has a thread of its own.
#[test]
fn a_server_whose_words_nobody_takes_serves_and_stops_all_the_same() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    let (reader, writer) = std::io::pipe().unwrap();
    let full = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let mut full =
        OpenOptions::new().write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(full).unwrap();
    let mut command = pdcp(&["--serve", "127.0.0.1:0", "-c", "1"]);
    let mut server = Killed(command.stderr(writer).spawn().unwrap());
    let mut lines = BufReader::new(reader).lines();
    let listening = lines.find_map(|line| Some(line.unwrap().strip_prefix("listening on 127.0.0.1:")?.to_owned()));
    let port: u16 = listening.unwrap().parse().unwrap();

    while full.write(b"x").is_ok() {}
    (0..10).for_each(|_| stranger(port));
    for number in 0..10 {
        rig.start_by(port, Way::Push, "source", format!("target-{number}"), &["--no-fsync"]).wait().ends_with(0);
    }
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        match server.0.try_wait().unwrap() {
            Some(status) => break status,
            None => assert!(Instant::now() < deadline, "it cannot be stopped"),
        }
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
}

/// Trigger: callers by the thousand who speak no TLS. Damage: a line for each, in two places, until the disk was full; then
/// sessions had none. Cure: so many lines, and the number of those who have none.
#[test]
fn strangers_by_the_hundred_do_not_fill_the_log() {
    const STRANGERS: u64 = 3 * REFUSED_LINES_BURST as u64;
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    let log = rig.path("audit.jsonl");
    let server = Server::start(&["127.0.0.1:0", "-c", "1", "--audit-log", log.to_str().unwrap()]);
    (0..STRANGERS).for_each(|_| stranger(server.port));
    rig.start_by(server.port, Way::Push, "source", "target", &[]).wait().ends_with(0);
    server.process.signal(Signal::TERM);
    let ended = server.process.wait();
    ended.tells("more callers were not let in");

    let lines: Vec<Value> = BufReader::new(File::open(&log).unwrap())
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    assert_eq!(of("session").len(), 1);
    let refused = of("refused").len() as u64;
    assert!((u64::from(REFUSED_LINES_BURST)..STRANGERS).contains(&refused), "{refused} lines");
    let missing: u64 = of("missing").iter().map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!(refused + missing, STRANGERS);
}

/// Trigger: few files may be open, and more strangers call than there is room for. Damage: nobody else was let in, as nobody
/// was turned out. Cure: there are as many as descriptors allow.
#[test]
fn where_few_files_may_be_open_strangers_still_make_room() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    let pdcp = pdcp::<&str>(&[]);
    let script = "ulimit -n 256 && exec \"$0\" --serve 127.0.0.1:0 -c 1";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(pdcp.get_program()).env("PDCP_KEY_FILE", key_file());
    let server = Server::of(command);
    let _strangers: Vec<_> = (0..300).map(|_| TcpStream::connect(("127.0.0.1", server.port)).unwrap()).collect();
    rig.start_by(server.port, Way::Push, "source", "target", &[]).wait().ends_with(0);
    server.process.signal(Signal::TERM);
    let ended = server.process.wait();
    ended.tells(&format!("not {STRANGERS_MAX}; raise 'ulimit -n'"));
}

/// Sees how a copy gets on, and thaws its disk as soon as some of it is done, or nothing has come of it for long.
struct Onlooker<'a> {
    freezer: &'a Freezer,
    done_bytes: Vec<u64>,
    is_frozen: bool,
}

impl Watch for Onlooker<'_> {
    fn warn(&mut self, _line: &str) {}
    fn detail(&mut self, _line: &str) {}
    fn listening(&mut self, _address: std::net::SocketAddr) {}
    fn session(&mut self, _record: &Record) {}
    fn waiting(&mut self, _whom: &str) {}

    fn progress(&mut self, progress: Progress) {
        self.done_bytes.push(progress.done_bytes);
        let is_seen = progress.done_bytes > 0;
        if self.is_frozen && (is_seen || self.done_bytes.len() > 50) {
            self.is_frozen = !self.freezer.thaw();
            assert!(is_seen, "nothing was shown while it was frozen");
        }
    }
}

/// Trigger: the target's disk takes its time to mark it, to sync it, to name it. Damage: all that time the bar of a pull stood at 0,
/// as if nothing were done, since what the source had done was shown.
#[test]
fn a_pull_shows_what_is_done_while_its_target_s_disk_hangs() {
    let Some(freezer) = Freezer::new() else { return eprintln!("SKIPPED: {}", Freezer::NEEDS) };
    let rig = Rig::in_memory();
    let source = rig.make("source", &[Part::Data(1, 8 * MIB), Part::Data(2, KIB)]);
    let target = freezer.disk.join("target");
    let mut old = std::fs::read(&source).unwrap();
    *old.last_mut().unwrap() ^= 1;
    std::fs::write(&target, old).unwrap();
    File::open(&target).unwrap().sync_all().unwrap();
    let (from, to) = ends(rig.server.port, Way::Pull, &source, &target);
    let arguments = ["--key-file".into(), key_file().into(), "--json".into(), from, to];
    let Asked::Copy(config) = cli::parse(arguments).command else { panic!("a copy was asked for") };
    assert!(freezer.freeze());
    let mut onlooker = Onlooker { freezer: &freezer, done_bytes: Vec::new(), is_frozen: true };
    let summary = client::copy(*config, &mut onlooker);
    assert_eq!(summary.exit_code(), 0, "{:?}", summary.failures);
    assert!(!onlooker.is_frozen);
    assert!(onlooker.done_bytes.is_sorted(), "{:?}", onlooker.done_bytes);
}
