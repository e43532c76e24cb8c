//! A server as a service: its audit log, what it says to systemd and takes from it, the units in `contrib`.

use crate::rig::{DEADLINE, MIB, Part, Process, Rig, Run, Server, Way, is_root, key_file, pdcp, remote};
use pdcp::control::identity::keygen;
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use serde_json::Value;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCE: [Part; 1] = [Part::Data(1, MIB)];

/// A server with a log; asked to stop, it gives back what is in it.
struct Logging {
    server: Server,
    log: PathBuf,
}

impl Logging {
    #[track_caller]
    fn start(rig: &Rig) -> Self {
        let log = rig.path("audit.jsonl");
        let server = Server::start(&["127.0.0.1:0", "-c", "1", "--audit-log", log.to_str().unwrap()]);
        Self { server, log }
    }

    fn stop(self) -> (Run, Vec<Value>) {
        let ended = stop(self.server);
        let text = fs::read_to_string(&self.log).unwrap();
        (ended, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }
}

fn stop(server: Server) -> Run {
    server.process.signal(Signal::TERM);
    server.process.wait()
}

#[test]
fn each_session_is_a_line_of_the_audit_log_however_it_ended() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    fs::create_dir(rig.path("to")).unwrap();
    let logging = Logging::start(&rig);
    let port = logging.server.port;
    let copy = |way, source: &OsStr, target: &OsStr, options: &[&str]| {
        rig.start_by(port, way, Path::new(source), Path::new(target), options).wait().code
    };
    let source = OsStr::new("source");
    let (newline, no_text) = (OsStr::new("to/a\n\"b"), OsStr::from_bytes(b"to/\xff"));
    assert_eq!(copy(Way::Push, source, newline, &[]), 0);
    assert_eq!(copy(Way::Push, source, newline, &["-n"]), 0);
    assert_eq!(copy(Way::Pull, newline, "back".as_ref(), &[]), 0);
    assert_eq!(copy(Way::Push, source, no_text, &[]), 0);
    assert_eq!(copy(Way::Pull, "missing".as_ref(), "back".as_ref(), &[]), 3);
    let held = File::open(rig.path(newline)).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    assert_eq!(copy(Way::Push, source, newline, &[]), 43);

    assert_eq!(fs::metadata(&logging.log).unwrap().permissions().mode() & 0o7777, 0o600);
    let (ended, lines) = logging.stop();
    let path = |name: &OsStr| Value::from(rig.path(name).to_string_lossy());
    let want = [
        ("push", newline, false, 0, Value::from(MIB)),
        ("push", newline, true, 0, 0.into()),
        ("pull", newline, false, 0, MIB.into()),
        ("push", no_text, false, 0, MIB.into()),
        ("pull", "missing".as_ref(), false, 3, Value::Null),
        ("push", newline, false, 43, Value::Null),
    ];
    assert_eq!(lines.len(), want.len(), "{lines:?}");
    for (line, (direction, name, dry_run, code, changed_bytes)) in lines.iter().zip(want) {
        assert_eq!(
            (&line["type"], &line["direction"], &line["dry_run"]),
            (&"session".into(), &direction.into(), &dry_run.into())
        );
        assert_eq!((&line["path"], &line["exit_code"]), (&path(name), &code.into()));
        assert_eq!((line["status"] == "ok", &line["changed_bytes"]), (code == 0, &changed_bytes));
        assert_eq!((line["kind"].is_null(), line["message"].is_null()), (code == 0, code == 0), "{line}");
        assert_eq!((line["key"] == lines[0]["key"], line["key"].is_string()), (true, true), "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
        assert!(line["elapsed_seconds"].as_f64().unwrap() >= 0.0, "{line}");
        assert_eq!(line["sealing"], if code == 0 { "same kernel".into() } else { Value::Null }, "{line}");
    }
    let raw: String = rig.path(no_text).as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&lines[0]["path_raw"], &lines[3]["path_raw"]), (&Value::Null, &raw.into()));
    assert_eq!(lines[5]["kind"], "busy");
    // The same is told to people, a line each.
    assert_eq!(
        ended.stderr.lines().filter(|line| line.contains(" key ") && line.contains(" pu")).count(),
        lines.len(),
        "{ended}"
    );
    ended.tells("/to/a\\n\"b: ok, 1048576 bytes changed");
}

#[test]
fn who_is_not_let_in_is_a_line_too_and_who_says_nothing_is_none() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    let logging = Logging::start(&rig);
    drop(TcpStream::connect(&logging.server.address).unwrap());
    // A client that knows this server, so that it is the server which refuses: what its client refuses it may not yet have
    // heard when it is stopped.
    let key = rig.path("keys/other");
    keygen(Some(&key), false).unwrap();
    let known = format!("127.0.0.1:{} {}", logging.server.port, keygen(Some(key_file()), true).unwrap());
    fs::write(rig.path("keys/known_servers"), known).unwrap();
    let there = remote(logging.server.port, rig.path("target"));
    let mut command = pdcp(&[OsString::from("--json"), rig.path("source").into(), there]);
    command.env("PDCP_KEY_FILE", &key);
    Process::start(command).wait().ends_with(5);
    let (ended, lines) = logging.stop();
    let [line] = &lines[..] else { panic!("{lines:?}, {ended}") };
    for unknown in ["key", "direction", "path", "path_raw", "dry_run", "changed_bytes", "limit"] {
        assert_eq!(line.get(unknown), Some(&Value::Null), "{line}");
    }
    assert_eq!((&line["type"], &line["exit_code"], &line["kind"]), (&"refused".into(), &5.into(), &"refused".into()));
    ended.tells(line["message"].as_str().unwrap());
}

#[test]
fn a_log_where_others_could_put_theirs_refuses_the_start() {
    #[track_caller]
    fn check(make: impl FnOnce(&Path), told: &str) {
        let scratch = tempfile::tempdir().unwrap();
        let log = scratch.path().join("log");
        make(&log);
        let before = fs::read(&log).ok();
        let log_name = log.to_str().unwrap();
        for check in [None, Some("--check")] {
            let options = ["--json", "--serve", "127.0.0.1:0", "--audit-log", log_name].into_iter().chain(check);
            let refused = crate::rig::run(&options.collect::<Vec<_>>());
            refused.ends_with(5);
            refused.tells(told);
        }
        assert_eq!(fs::read(&log).ok(), before);
    }
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    check(|log| mode(log.parent().unwrap(), 0o777), "has mode 777, so others can write to it");
    check(|log| symlink("elsewhere", log).unwrap(), "is a symbolic link");
    check(|log| fs::create_dir(log).unwrap(), "is not a regular file");
    check(
        |log| {
            fs::write(log, "old").unwrap();
            mode(log, 0o666);
        },
        "has mode 666, so others can write to it",
    );
    check(
        |log| {
            fs::write(log, "old").unwrap();
            fs::hard_link(log, log.with_file_name("other")).unwrap();
        },
        "has several hard links",
    );
    check(|log| fs::remove_dir(log.parent().unwrap()).unwrap(), "does not exist");
}

#[test]
fn a_check_makes_no_log() {
    let rig = Rig::in_memory();
    let log = rig.path("audit.jsonl");
    let checked = crate::rig::run(&["--serve", ":9000", "--check", "--audit-log", log.to_str().unwrap()]);
    assert_eq!((checked.code, log.exists()), (0, false), "{checked}");
    assert!(checked.stdout.contains(&format!("would append to {}", log.display())), "{checked}");
}

/// The limit of the size of a file stands for a disk that is full, until somebody truncates the log.
#[test]
fn a_log_that_cannot_be_written_stops_no_session_is_warned_about_once_and_says_later_how_much_is_missing() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    let log = rig.path("audit.jsonl");
    fs::write(&log, vec![b'\n'; 8192]).unwrap();
    let mut command = shell("ulimit -f 8; exec \"$@\""); // of 512 or 1024 bytes
    command.args(["--serve", "127.0.0.1:0", "-c", "1", "--audit-log"]).arg(&log);
    let mut server = Server::of(command);
    let pull = |server: &mut Server| {
        rig.start_by(server.port, Way::Pull, "source", "back", &[]).wait().ends_with(0);
        server.process.line_with("ok, ");
    };
    (0..3).for_each(|_| pull(&mut server));
    assert_eq!(fs::metadata(&log).unwrap().len(), 8192);
    File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    pull(&mut server);
    let ended = stop(server);
    assert_eq!(ended.stderr.matches("the audit log lacks lines").count(), 1, "{ended}");
    assert_eq!(ended.stderr.matches("ok, ").count(), 4, "{ended}");
    let lines: Vec<Value> =
        fs::read_to_string(&log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["type"], "missing", "{lines:?}");
    // The third may have come after it was truncated: people are told before the log.
    assert_eq!(lines[0]["count"].as_u64().unwrap() + lines.len() as u64 - 1, 4, "{lines:?}");
}

#[test]
fn a_log_is_kept_also_after_rights_are_given_up_and_where_it_is_truncated() {
    if !is_root() {
        return eprintln!("SKIPPED: a log that only root may open: needs root");
    }
    let rig = Rig::in_memory();
    fs::set_permissions(rig.directory(), Permissions::from_mode(0o755)).unwrap();
    rig.make("served", &SOURCE);
    fs::create_dir(rig.path("logs")).unwrap();
    fs::set_permissions(rig.path("logs"), Permissions::from_mode(0o700)).unwrap();
    let log = rig.path("logs/audit.jsonl");
    let (log_name, root) = (log.to_str().unwrap(), rig.directory().to_str().unwrap());
    let server = Server::start(&["127.0.0.1:0", "--run-as", "nobody", "--root", root, "--audit-log", log_name]);
    let pull = || {
        let there = remote(server.port, "served");
        crate::rig::run(&[OsStr::new("--json"), &there, rig.path("back").as_os_str()]).ends_with(0);
    };
    pull();
    File::options().write(true).open(&log).unwrap().set_len(0).unwrap();
    pull();
    stop(server);
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.starts_with('{') && text.ends_with("}\n"), "{text:?}");
    assert!((1..=2).contains(&text.lines().count()), "{text:?}");
}

// --- systemd ---

/// The program, to be given arguments, started by a shell that does this first and ends with `exec "$@"`.
fn shell(script: &str) -> Command {
    let own = pdcp::<&str>(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(own.get_program()).stdin(Stdio::null());
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
fn systemd_is_told_when_it_listens_how_many_sessions_there_are_and_that_it_stops() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    let socket = UnixDatagram::bind(rig.path("notify")).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let told = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut command = pdcp(&["--serve", "127.0.0.1:0", "-c", "1"]);
    command.env("NOTIFY_SOCKET", rig.path("notify"));
    let server = Server::of(command);
    assert_eq!(told(), "READY=1\nSTATUS=0 sessions running, 0 ended\n");
    rig.start_by(server.port, Way::Push, "source", "target", &[]).wait().ends_with(0);
    while told() != "STATUS=0 sessions running, 1 ended\n" {}
    server.process.signal(Signal::TERM);
    while told() != "STOPPING=1\n" {}
    assert_eq!(server.process.wait().code, 0);
}

#[test]
fn a_server_that_was_not_started_by_systemd_tells_nobody() {
    let mut command = pdcp(&["--serve", "127.0.0.1:0", "-c", "1"]);
    command.env("NOTIFY_SOCKET", "/nonexistent/notify");
    let server = Server::of(command);
    stop(server).tells("warning: systemd cannot be told that this server is ready");
    let server = Server::start(&["127.0.0.1:0", "-c", "1"]);
    assert!(!stop(server).stderr.contains("systemd"));
}

/// `--serve systemd` with what comes as standard input, and as standard output, as systemd would hand it over.
fn handed(input: impl Into<Stdio>, output: Option<OwnedFd>) -> Command {
    let count = if output.is_some() { 2 } else { 1 };
    let mut command =
        shell(&format!("exec 3<&0 4>&1 0</dev/null 1>/dev/null; LISTEN_FDS={count} LISTEN_PID=$$ exec \"$@\""));
    command.args(["--serve", "systemd", "-c", "1"]).stdin(input);
    command.stdout(output.map_or_else(Stdio::null, Stdio::from));
    command
}

#[test]
fn a_server_listens_on_what_systemd_hands_over() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = sockets.each_ref().map(|socket| socket.local_addr().unwrap().port());
    let [first, second] = sockets.each_ref().map(|socket| OwnedFd::from(socket.try_clone().unwrap()));
    // Who calls before it runs is served when it does.
    let early = rig.start_by(ports[1], Way::Push, "source", "early", &[]);
    let mut process = Process::start_with_own_stdout(handed(first, Some(second)));
    for port in ports {
        process.line_with(&format!("listening on 127.0.0.1:{port}"));
    }
    early.wait().ends_with(0);
    for port in ports {
        rig.start_by(port, Way::Push, "source", "target", &[]).wait().ends_with(0);
    }
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code, 0);
    // The sockets are systemd's: they outlast the server.
    assert!(ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()));
}

#[test]
fn what_cannot_be_listened_on_is_refused_and_so_is_nothing() {
    #[track_caller]
    fn check(command: Command, told: &str) {
        let refused = Process::start_with_own_stdout(command).wait();
        assert_eq!(refused.code, 2, "{refused}");
        refused.tells(told);
    }
    check(pdcp(&["--serve", "systemd"]), "systemd has handed over no socket");
    check(handed(File::open("/dev/null").unwrap(), None), "socket 1 that systemd has handed over is not a TCP socket");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    check(handed(OwnedFd::from(connected), None), "does not listen: its unit needs ListenStream= and Accept=no");
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    check(handed(OwnedFd::from(datagrams), None), "is not a TCP socket");
}

// --- the units ---

fn contrib() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib")
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|run| run.status.success())
}

#[test]
fn the_units_are_understood_and_the_service_has_few_rights() {
    if !is_installed("systemd-analyze") {
        return eprintln!("SKIPPED: what systemd thinks of the units: systemd-analyze is not installed");
    }
    let analyze = |arguments: &[&OsStr]| {
        let run = Command::new("systemd-analyze").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
        assert!(run.status.success(), "{said}");
        said
    };
    // 15 tenths.
    let service = contrib().join("pdcp.service");
    analyze(&["security".as_ref(), "--offline=yes".as_ref(), "--threshold=15".as_ref(), service.as_ref()]);
    // It must be there that is to be started.
    let scratch = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(&service).unwrap().replace("/usr/local/bin/pdcp", env!("CARGO_BIN_EXE_pdcp"));
    fs::write(scratch.path().join("pdcp.service"), text).unwrap();
    fs::copy(contrib().join("pdcp.socket"), scratch.path().join("pdcp.socket")).unwrap();
    let units = ["pdcp.service", "pdcp.socket"].map(|name| scratch.path().join(name));
    let said = analyze(&["verify".as_ref(), "--man=no".as_ref(), units[0].as_ref(), units[1].as_ref()]);
    assert!(!said.contains("pdcp"), "{said}");
}

#[test]
fn the_units_run_where_systemd_can_run() {
    let systemd = Path::new("/usr/lib/systemd/systemd");
    if !is_root() || !systemd.exists() {
        return eprintln!("SKIPPED: the units under a systemd of their own: needs root, and systemd installed");
    }
    let scratch = tempfile::tempdir().unwrap();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pdcp/operation");
    fs::copy(directory.join("check.sh"), scratch.path().join("check.sh")).unwrap();
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "90", "bash"]).arg(directory.join("boot.sh")).arg(scratch.path());
    command.arg(env!("CARGO_BIN_EXE_pdcp")).arg(contrib()).stdin(Stdio::null());
    let run = command.output().unwrap();
    let read = |name: &str| fs::read_to_string(scratch.path().join(name)).unwrap_or_default();
    let said = [&read("check.log"), "--", &read("server.log"), "--", &String::from_utf8_lossy(&run.stderr)].join("\n");
    if !scratch.path().join("booted").exists() {
        return eprintln!("SKIPPED: the units under a systemd of their own: it does not start here\n{said}");
    }
    assert!(said.contains("all well"), "{said}");
}
