//! The command line as a user meets it: help, usage errors, what is printed where, and how a server is told where to
//! listen. What single arguments mean, `cli` itself tests.

use crate::rig::{KIB, MIB, Part, Process, Rig, Run, Server, Way, assert_equal, digest, key_file, pdcp, remote, run};
use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

const SOURCE: [Part; 1] = [Part::Data(1, MIB)];

#[test]
fn help_and_version_are_asked_for_and_end_with_0() {
    #[track_caller]
    fn check(arguments: &[&str], wanted: &str) {
        let run = run(arguments);
        assert_eq!(run.code, 0, "{run}");
        assert!(run.stdout.contains(wanted) && run.stderr.is_empty(), "{run}");
    }
    check(&["-h"], "pdcp --serve :9000");
    check(&["--help"], "pdcp --serve :9000");
    check(&["-V"], env!("CARGO_PKG_VERSION"));
    check(&["--version"], env!("CARGO_PKG_VERSION"));
    check(&["-h", "--json"], "pdcp --serve :9000");
}

#[test]
fn h_with_paths_copies() {
    let rig = Rig::in_memory();
    let (source, target) = (rig.make("source", &SOURCE), rig.path("target"));
    let run = run(&["-h".as_ref(), "--json".as_ref(), source.as_os_str(), target.as_os_str()]);
    run.ends_with(0);
    assert_equal(&source, &target);
}

#[test]
fn nonsense_is_2_for_people_and_for_programs() {
    #[track_caller]
    fn check(arguments: &[&str], told: &str) {
        let people = run(arguments);
        assert_eq!((people.code, &people.stdout[..]), (2, ""), "{people}");
        people.tells(told);
        let programs = run(&[&["--json"], arguments].concat());
        programs.ends_with(2);
        programs.tells(told);
    }
    check(&[], "SOURCE and TARGET are missing");
    check(&["one"], "only one path");
    check(&["one", "two", "three"], "more than two paths");
    check(&["-Z", "one", "two"], "-Z");
    check(&["--nonsense", "one", "two"], "--nonsense");
    check(&["-b", "0", "one", "two"], "above 0");
    check(&["-m", "shake_128", "one", "two"], "shake_128");
    check(&["-c", "0", "one", "two"], "0");
    check(&["--connections", "0", "one", "two"], "0");
    check(&["--connections", "129", "one", "two"], "128");
    check(&["--direct", "sometimes", "one", "two"], "always");
    check(&["--cpus", "none", "one", "two"], "0-3,8");
    check(&["--cpus", "1023", "one", "two"], "names no core");
    check(&["--serve", "nonsense"], "[IPV6]:PORT");
    check(&["--serve", ":70000"], "[IPV6]:PORT");
    check(&["--serve", "localhost:0"], "[IPV6]:PORT");
    check(&["--serve", ":0", "path"], "a server is given no paths");
    check(&["host:/path", "two"], "host:9000:/path");
    check(&["http://host:8080/path", "two"], "pdcp://host:8080/path");
    check(&["host:1:/path", "host:2:/path"], "run pdcp on one of the hosts");
    check(&["-", "two"], "./-");
    check(&["", "two"], "HOST:PORT:PATH");
    check(&["host:1:", "two"], "the path is missing");
}

#[test]
fn a_person_is_told_what_moved_how_long_and_the_hash() {
    let rig = Rig::in_memory();
    for way in Way::ALL {
        let source = rig.make("source", &SOURCE);
        rig.remove("target");
        let (from, to) = crate::rig::ends(rig.server.port, way, &source, &rig.path("target"));
        let check = |arguments: &[&str], first: &str| {
            let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).chain([&from[..], &to]).collect();
            let run = run(&arguments);
            let lines: Vec<&str> = run.stdout.lines().collect();
            assert_eq!((run.code, &run.stderr[..], lines.len()), (0, "", 3), "{run}");
            assert!(lines[0].contains(first), "{run}");
            assert!(lines[1].starts_with("1.00 MiB in "), "{run}");
            assert_eq!(lines[2], digest(&source), "{run}");
        };
        check(&[], "1.00 MiB moved");
        check(&[], "nothing to do, all 1.00 MiB were there already");
        rig.make("target", &[Part::Data(1, MIB / 2)]);
        check(&[], "512.00 KiB moved, 512.00 KiB were there already");
        rig.make("target", &SOURCE);
        check(&["--verify"], "only length or times were set");
    }
}

#[test]
fn less_and_more_are_said_when_asked_for() {
    let rig = Rig::in_memory();
    let (source, target) = (rig.make("source", &SOURCE), rig.path("target"));
    let check = |arguments: &[&str]| -> Run {
        let run =
            run(&arguments.iter().map(OsStr::new).chain([source.as_os_str(), target.as_os_str()]).collect::<Vec<_>>());
        assert_eq!(run.code, 0, "{run}");
        run
    };
    let quiet = check(&["-q"]);
    assert_eq!((&quiet.stdout[..], &quiet.stderr[..]), ("", ""));
    let loud = check(&["-v", "-b", "100K"]);
    for told in ["block size 100000 is taken as 128 KiB", "workers:", "buffers:", "source:", "target:"] {
        loud.tells(told);
    }
    check(&["-v", "-b", "2M"]).tells("block size 2000000 is taken as 1024 KiB");
    check(&["-v", "--no-pin"]).tells("not pinned");
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// Trigger: `pdcp --keygen --public >>server/authorized_keys` where the disk is full. Damage: exit code 0, and no key there.
/// Cure: who asked for it is told. Not who went away: `pdcp --help | head -1`.
#[test]
fn what_was_asked_for_and_cannot_be_written_is_1_and_said() {
    let scratch = tempfile::tempdir().unwrap();
    let (source, target) = (scratch.path().join("source"), scratch.path().join("target"));
    crate::rig::make(&source, &SOURCE);
    crate::rig::make(&target, &SOURCE);
    let check = |arguments: &[&OsStr]| {
        let run = |stdout: Stdio| {
            let mut command = pdcp(arguments);
            command.stdout(stdout);
            Process::start_with_own_stdout(command).wait()
        };
        let unwritten = run(full());
        assert_eq!(unwritten.code, 1, "{unwritten}");
        unwritten.tells("pdcp: standard output: No space left on device");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let unread = run(writer.into());
        assert_eq!((unread.code, unread.stderr.contains("standard output")), (0, false), "{unread}");
    };
    check(&["--help".as_ref()]);
    check(&["--version".as_ref()]);
    check(&["--keygen".as_ref(), "--public".as_ref()]);
    check(&["--serve".as_ref(), ":0".as_ref(), "--check".as_ref()]);
    check(&["--json".as_ref(), source.as_os_str(), target.as_os_str()]);
    check(&["-qB".as_ref(), "1".as_ref(), "--yes".as_ref(), source.as_os_str(), target.as_os_str()]);
}

#[test]
fn a_standard_output_that_cannot_be_written_changes_no_copy() {
    let rig = Rig::in_memory();
    let shell = |redirection: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}"), env!("CARGO_BIN_EXE_pdcp")]);
        command.env("PDCP_KEY_FILE", key_file());
        command
    };
    for json in [true, false] {
        for way in Way::ALL {
            for closed in [">&-", "2>&-", ">&- 2>&- <&-", ""] {
                let source = rig.make("source", &SOURCE);
                rig.remove("target");
                let check = |source: &OsStr, target: &OsStr, code: i32| {
                    let mut command = shell(closed);
                    command.args(json.then_some("--json")).arg(source).arg(target).stdout(full());
                    let run = Process::start_with_own_stdout(command).wait();
                    assert_eq!(run.code, code, "{closed} {run}");
                };
                let (from, to) = crate::rig::ends(rig.server.port, way, &source, &rig.path("target"));
                // Who closes standard output wants nothing of it.
                check(&from, &to, i32::from(json && !closed.starts_with('>')));
                assert_equal(&source, &rig.path("target"));
                let (from, to) = crate::rig::ends(rig.server.port, way, &rig.path("missing"), &rig.path("new"));
                check(&from, &to, 3);
                check(&from, "-".as_ref(), 2);
            }
        }
    }
}

#[test]
fn a_server_listens_where_it_is_told_to() {
    #[track_caller]
    fn check(arguments: &[&str], address: &str, hosts: &[&str]) {
        let rig = Rig::in_memory();
        let source = rig.make("source", &SOURCE);
        let mut server = pdcp(arguments);
        server.arg("-v");
        let server = Server::of(server);
        assert_eq!(server.address, format!("{address}:{}", server.port));
        for host in hosts {
            let there = format!("{host}:{}:{}", server.port, rig.path("target").display());
            run(&["--json".as_ref(), source.as_os_str(), there.as_ref()]).ends_with(0);
            assert_equal(&source, &rig.path("target"));
            rig.remove("target");
        }
        server.process.signal(rustix::process::Signal::TERM);
        let end = server.process.wait();
        assert_eq!(end.stderr.matches("listening on").count(), 1, "{end}");
    }
    check(&["--serve", "127.0.0.1:0"], "127.0.0.1", &["127.0.0.1"]);
    check(&["--listen", "127.0.0.1:0"], "127.0.0.1", &["127.0.0.1"]);
    check(&["-l", "127.0.0.1:0"], "127.0.0.1", &["127.0.0.1"]);
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("SKIPPED: there is no IPv6 here");
    }
    check(&["--serve", "[::1]:0"], "[::1]", &["[::1]"]);
    for all in [":0", "0"] {
        check(&["--serve", all], "[::]", &["127.0.0.1", "[::1]", "localhost"]);
    }
}

#[test]
fn a_port_that_is_taken_is_1_and_said() {
    let server = Server::start(&["127.0.0.1:0"]);
    let run = run(&["--json", "--serve", &server.address]);
    run.ends_with(1);
    run.tells(&format!("port {} is in use", server.port));
}

#[test]
fn a_server_tells_who_asks_what_was_done() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    let mut server = Server::start(&["127.0.0.1:0"]);
    let there = remote(server.port, rig.path("target"));
    run(&["--json".as_ref(), rig.path("source").as_os_str(), &there]).ends_with(0);
    let line = server.process.line_with("push to");
    assert!(line.contains("ok, 1048576 bytes changed"), "{line}");
}

#[test]
fn a_map_tells_who_wants_details_where_the_changes_lay() {
    let rig = Rig::in_memory();
    let source = [Part::Data(1, MIB), Part::Data(2, MIB), Part::Hole(MIB), Part::Data(3, MIB)];
    let target = [
        Part::Data(1, MIB),
        Part::Data(4, MIB),
        Part::Data(5, MIB),
        Part::Data(3, 768 * KIB),
        Part::Data(6, 256 * KIB),
    ];
    rig.make("source", &source);
    for way in Way::ALL {
        rig.make("target", &target);
        let run = rig.copy(way, rig.path("source"), rig.path("target"), &["-v"]);
        run.ends_with(0);
        run.tells("changes: [.##:]");
    }
}

#[test]
fn where_both_files_are_in_memory_no_disk_is_said_to_limit() {
    if !Path::new("/dev/shm").is_dir() {
        return eprintln!("SKIPPED: there is no /dev/shm, so no place in memory");
    }
    let rig = Rig::in_memory();
    rig.make("source", &[Part::Data(1, 64 * MIB)]);
    for way in Way::ALL {
        rig.remove("target");
        let run = rig.copy(way, "source", "target", &["-v"]);
        run.ends_with(0);
        let shares = run.stderr.lines().filter(|line| line.contains("time of the ")).map(disk_percent);
        let most = shares.max().expect("-v tells them");
        assert!(most < 10, "but for giving it its name, {run}");
    }
}

/// Of `12% hashing, 3% source disk, 4% target disk, 5% waiting for the other end` the second and the third, together.
fn disk_percent(shares: &str) -> u32 {
    let percent = |of: &str| shares.split(", ").find_map(|share| share.strip_suffix(of)?.parse::<u32>().ok());
    percent("% source disk").unwrap() + percent("% target disk").unwrap()
}
