//! A copy that is cut midway, by a signal or by a death at either end: it says so, a target that is not finished never has
//! the source's time, and the same command heals it.

use crate::rig::freezer::Freezer;
use crate::rig::{MIB, Part, Process, Rig, Run, Server, Valve, Way, assert_equal, ends, mtime, pdcp};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

const SOURCE: [Part; 1] = [Part::Data(1, 8 * MIB)];
const OLD: [Part; 2] = [Part::Data(1, 2 * MIB), Part::Data(2, 6 * MIB)];

/// Copies that are held midway, after a part has come, and then cut: both ways, onto nothing and onto an old target. All at
/// the same time, since some of them have to wait.
fn check(code: i32, cut: impl Fn(&mut Rig, Process) -> Run + Sync) {
    std::thread::scope(|scope| {
        for way in Way::REMOTE {
            for basis in [None, Some(OLD)] {
                let cut = &cut;
                scope.spawn(move || check_one(way, basis, code, cut));
            }
        }
    });
}

/// A target that is older than its source, not made in the same tick of the kernel's clock.
fn make_old(rig: &Rig, basis: &[Part]) {
    let target = fs::File::options().append(true).open(rig.make("target", basis)).unwrap();
    target.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
}

fn check_one(way: Way, basis: Option<[Part; 2]>, code: i32, cut: impl FnOnce(&mut Rig, Process) -> Run) {
    let mut rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let target = rig.path("target");
    if let Some(basis) = basis {
        make_old(&rig, &basis);
    }
    let valve = Valve::new(rig.server.port, 2_000_000);
    let copy = rig.start_by(valve.port, way, "source", "target", &["--connections", "2"]);
    valve.wait_until_held();
    let run = cut(&mut rig, copy);
    assert_eq!(run.code, code, "{run}");
    if code > 0 {
        run.summary();
    }
    valve.open();
    assert_eq!(target.exists(), basis.is_some(), "a new target has its name only when it is whole: {run}");
    assert!(!target.exists() || mtime(&target) != mtime(&source), "an unfinished target looks finished: {run}");

    rig.copy(way, "source", "target", &[]).ends_with(0);
    assert_equal(&source, &target);
    assert_eq!(mtime(&source), mtime(&target));
    assert_eq!(fs::read_dir(rig.directory()).unwrap().count(), 2, "something was left behind");
}

fn signalled(signal: Signal) -> impl Fn(&mut Rig, Process) -> Run {
    move |_, copy| {
        copy.signal(signal);
        copy.wait()
    }
}

#[test]
fn an_interrupted_client_ends_with_129_130_or_143_and_the_same_command_heals() {
    check(129, signalled(Signal::HUP));
    check(130, signalled(Signal::INT));
    check(143, signalled(Signal::TERM));
}

#[test]
fn a_killed_client_leaves_what_the_same_command_heals() {
    check(-9, signalled(Signal::KILL));
}

#[test]
fn a_killed_server_is_a_lost_connection() {
    check(10, |rig, copy| {
        let killed = std::mem::replace(&mut rig.server, Server::start(&["127.0.0.1:0"]));
        killed.process.signal(Signal::KILL);
        assert_eq!(killed.process.wait().code, -9);
        let run = copy.wait();
        run.tells("connection lost");
        run
    });
}

#[test]
fn a_server_that_is_stopped_ends_well_and_its_clients_are_told() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        check(10, |rig, copy| {
            let stopped = std::mem::replace(&mut rig.server, Server::start(&["127.0.0.1:0"]));
            stopped.process.signal(signal);
            let run = copy.wait();
            run.tells("the server is stopping");
            let end = stopped.process.wait();
            assert_eq!(end.code, 0, "{end}");
            run
        });
    }
}

#[test]
fn a_server_that_is_stopped_finishes_what_takes_no_longer_than_its_grace() {
    let mut rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let valve = Valve::new(rig.server.port, 3_000_000);
    let copy = rig.start_by(valve.port, Way::Push, "source", "target", &[]);
    valve.wait_until_held();
    let stopped = std::mem::replace(&mut rig.server, Server::start(&["127.0.0.1:0"]));
    // A closed terminal: the shell says so, and then the kernel, which is not to be the second signal.
    stopped.process.signal(Signal::HUP);
    std::thread::sleep(Duration::from_millis(300)); // or both are one
    stopped.process.signal(Signal::HUP);
    valve.open();
    copy.wait().ends_with(0);
    assert_equal(&source, &rig.path("target"));
    assert_eq!(stopped.process.wait().code, 0);
}

#[test]
fn an_idle_server_ends_with_0_when_it_is_asked_to() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let server = Server::start(&["127.0.0.1:0"]);
        server.process.signal(signal);
        let run = server.process.wait();
        assert_eq!((run.code, &run.stdout[..]), (0, ""), "{run}");
        for more in [&[][..], &["--root", "/dev/shm"]] {
            let server = Server::start(&[&["127.0.0.1:0", "--json"], more].concat());
            server.process.signal(signal);
            ended_well(&server.process.wait());
        }
    }
}

/// A server, with its one line of JSON.
#[track_caller]
fn ended_well(run: &Run) {
    let summary: serde_json::Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    assert_eq!((run.code, &summary["type"], &summary["status"]), (0, &"summary".into(), &"ok".into()), "{run}");
}

/// Trigger: a server is asked to stop while a disk hangs. Damage: it ended without its summary, and without a word about the
/// session, neither here nor in its log nor to the client. Cure: its last words come first, and who hangs is given up aloud.
#[test]
fn a_server_in_which_something_hangs_ends_with_0_and_a_summary_and_tells_of_the_session() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    // Who opens it waits for a word that nobody says.
    let guard = Fanotify::init(InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC, EventFFlags::O_RDONLY);
    let marked = guard.and_then(|guard| {
        let (add, asked) = (MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN_PERM);
        guard.mark(add, asked, rustix::fs::CWD, Some(&source)).map(|()| guard)
    });
    let Ok(guard) = marked else {
        return eprintln!("SKIPPED: a file whose opening hangs: needs root, and a kernel with fanotify");
    };
    let log = rig.path("audit.jsonl");
    let server = Server::start(&["127.0.0.1:0", "--json", "--audit-log", log.to_str().unwrap()]);
    let copy = rig.start_by(server.port, Way::Pull, "source", "target", &[]);
    let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&guard, PollFlags::IN)], Some(&patience)), Ok(1), "nobody opens it");
    server.process.signal(Signal::TERM);
    let run = copy.wait();
    run.ends_with(10);
    run.tells("the server is stopping");
    let ended = server.process.wait();
    ended_well(&ended);
    ended.tells("source: the server is stopping");
    let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(log).unwrap()).unwrap();
    assert_eq!((&line["type"], &line["status"]), (&"session".into(), &"interrupted".into()), "{line}");
}

/// The same where all is written, and what hangs is the commit, which is waited for otherwise.
#[test]
fn a_server_in_which_a_commit_hangs_tells_of_the_session_as_well() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let mut server = Server::start(&["127.0.0.1:0", "--json"]);
    // Dropped first: a server in which something hangs cannot even be killed.
    let Some(freezer) = Freezer::new() else { return eprintln!("SKIPPED: {}", Freezer::NEEDS) };
    let target = freezer.disk.join("target");
    fs::copy(&source, &target).unwrap();
    assert!(freezer.freeze());
    let mut copy = rig.start_by(server.port, Way::Push, "source", &target, &["-v"]);
    copy.line_with("workers:");
    server.process.signal(Signal::TERM);
    let run = copy.wait();
    run.ends_with(10);
    run.tells("the server is stopping");
    server.process.line_with("target: the server is stopping");
    assert!(freezer.thaw());
    ended_well(&server.process.wait());
}

/// As `nohup` starts it. Who heeded it would end with 129, or, as Ctrl-C would be the second, without a summary.
#[test]
fn who_is_started_with_sighup_ignored_goes_on_ignoring_it() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &[Part::Data(1, MIB), Part::Hole(256 << 30)]);
    let program = pdcp::<&str>(&[]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" -v --json \"$@\""]).arg(program.get_program());
    command.arg(source).arg(rig.path("target"));
    let mut copy = Process::start(command);
    copy.line_with("workers:");
    copy.signal(Signal::HUP);
    copy.signal(Signal::INT);
    copy.wait().ends_with(130);
}

#[test]
fn an_interrupted_local_copy_ends_with_129_130_or_143_and_the_same_command_heals() {
    for (signal, code) in [(Signal::HUP, 129), (Signal::INT, 130), (Signal::TERM, 143)] {
        for basis in [None, Some(OLD)] {
            let rig = Rig::new();
            // So long that it takes a while, and mostly a hole, so that it costs nothing.
            let source = rig.make("source", &[Part::Data(1, MIB), Part::Hole(256 << 30)]);
            if let Some(basis) = basis {
                make_old(&rig, &basis);
            }
            let mut copy = rig.start(Way::Local, "source", "target", &["-v"]);
            copy.line_with("workers:");
            copy.signal(signal);
            let run = copy.wait();
            run.ends_with(code);
            let target = rig.path("target");
            assert!(!target.exists() || mtime(&target) != mtime(&source), "{run}");
            fs::File::options().write(true).open(&source).unwrap().set_len(3 * MIB).unwrap();
            rig.copy(Way::Local, "source", "target", &[]).ends_with(0);
            assert_equal(&source, &target);
        }
    }
}

#[test]
fn an_interrupted_wait_ends_as_well() {
    // A server that accepts and says nothing: before Welcome.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    for way in Way::REMOTE {
        let copy = rig.start_by(port, way, "source", "target", &[]);
        let accepted = silent.accept().unwrap();
        copy.signal(Signal::INT);
        copy.wait().ends_with(130);
        drop(accepted);
    }
}

#[test]
fn a_resumed_copy_does_not_move_what_has_arrived() {
    for way in Way::REMOTE {
        let rig = Rig::in_memory();
        rig.make("source", &[Part::Data(1, 12 * MIB)]);
        // A connection has three stripes open, here of 2 MiB: what comes behind them comes when earlier ones are done.
        let valve = Valve::new(rig.server.port, 9_000_000);
        let copy = rig.start_by(valve.port, way, "source", "target", &["--connections", "1"]);
        valve.wait_until_held();
        copy.signal(Signal::INT);
        copy.wait().ends_with(130);
        let summary = rig.copy(way, "source", "target", &[]).ends_with(0);
        assert!(summary.number("matched_bytes") >= 2 * MIB, "{:?}", summary.parts());
    }
}

/// Trigger: Ctrl-C while somebody else has the target. Damage: it was waited for all the same, for 5 s, and then called in use.
#[test]
fn who_is_told_to_stop_waits_for_no_target_that_somebody_else_has() {
    for way in [Way::Pull, Way::Local] {
        let rig = Rig::in_memory();
        rig.make("source", &SOURCE);
        let target = fs::File::open(rig.make("target", &OLD)).unwrap();
        flock(&target, FlockOperation::LockExclusive).unwrap();
        let copy = rig.start(way, "source", "target", &[]);
        let reader = if way == Way::Pull { &rig.server.process } else { &copy };
        let since = Instant::now();
        while !has_open(reader, &rig.path("source")) {
            assert!(since.elapsed() < Duration::from_secs(30), "nobody opens the source");
        }
        std::thread::park_timeout(Duration::from_millis(300)); // the target comes next
        copy.signal(Signal::INT);
        copy.wait().ends_with(130);
    }
}

fn has_open(process: &Process, path: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|open| open == path))
}

/// Trigger: the terminal is stopped (Ctrl-S) while the bar is drawn. Damage: control waited for the terminal, so the copy stood
/// still, its peer heard nothing, and no signal was heeded. Cure: a thread draws, another one heeds signals.
#[test]
fn a_terminal_that_is_stopped_stops_no_copy_and_no_signal() {
    for way in Way::ALL {
        let rig = Rig::in_memory();
        let source = rig.make("source", &SOURCE);
        let target = rig.path("target");
        let (from, to) = ends(rig.server.port, way, &source, &target);
        let copy = Process::start_on_terminal(pdcp(&[from, to]), b"\x13");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !target.exists() {
            assert!(Instant::now() < deadline, "{way:?}: it waits for the terminal");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        assert_equal(&source, &target);
        while !copy.has_ended() {
            copy.signal(Signal::TERM); // the first may come while something is left to be done
            assert!(Instant::now() < deadline, "{way:?}: signals are not heeded");
            std::thread::park_timeout(Duration::from_millis(200));
        }
    }
}
