//! What goes wrong is told by the fixed exit codes, at the end that asked, with the path or the peer and the cause; and
//! a target that is not finished never looks finished.
//!
//! How a copy is cut midway is in `stopping`.

use crate::rig::sandbox::{CLONE3, EAGAIN, ENOSYS, THREAD, refusing};
use crate::rig::{KIB, MIB, Part, Process, Rig, Run, Server, Valve, Way, assert_equal, bytes, ends, is_root, key_file};
use crate::rig::{Loop, mtime, pdcp, state};
use pdcp::limits::SESSIONS_MAX;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const SOURCE: [Part; 1] = [Part::Data(1, 8 * MIB)];
const OLD: [Part; 1] = [Part::Data(2, 8 * MIB)];

#[test]
fn a_missing_source_is_3_and_named_at_whichever_end_it_is_missing() {
    for way in Way::ALL {
        let rig = Rig::in_memory();
        let target = rig.make("target", &OLD);
        let before = state(&target);
        for (source, target) in [("missing", "target"), ("missing", "new"), ("no/parent", "new/new")] {
            for arguments in [&[][..], &["-n"], &["-W"]] {
                let run = rig.copy(way, source, target, arguments);
                let summary = run.ends_with(3);
                assert!(summary.error().0.ends_with(source), "{run}");
                run.tells("no such file or directory");
            }
        }
        assert_eq!(state(&target), before);
        assert_eq!(fs::read_dir(rig.directory()).unwrap().count(), 1, "something was made");
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let rig = Rig::in_memory();
    rig.make("file", &SOURCE);
    mknodat(CWD, rig.path("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(rig.path("socket")).unwrap();
    for way in Way::ALL {
        #[track_caller]
        fn check(run: &Run, code: i32, told: &str) {
            run.ends_with(code);
            run.tells(told);
        }
        check(&rig.copy(way, "fifo", "target", &[]), 3, "is a FIFO");
        check(&rig.copy(way, "socket", "target", &[]), 3, "is a socket");
        check(&rig.copy(way, "/dev/null", "target", &[]), 3, "is a character device");
        check(&rig.copy(way, "file", "fifo", &[]), 5, "is a FIFO");
        check(&rig.copy(way, "file", "socket", &[]), 5, "is a socket");
        check(&rig.copy(way, "file", "/dev/null", &[]), 5, "is a character device");
    }
    assert!(!rig.path("target").exists());
}

#[test]
fn a_target_that_somebody_holds_is_43() {
    std::thread::scope(|scope| {
        for way in Way::ALL {
            scope.spawn(move || {
                let rig = Rig::in_memory();
                rig.make("source", &SOURCE);
                let target = rig.make("target", &OLD);
                let holder = File::open(&target).unwrap();
                holder.lock().unwrap();
                let before = state(&target);
                let run = rig.copy(way, "source", "target", &[]);
                let summary = run.ends_with(43);
                assert!(summary.error().0.ends_with("target"), "{run}");
                run.tells("is in use by another process");
                assert_eq!(state(&target), before);
                // Looking is no harm.
                rig.copy(way, "source", "target", &["-n"]).ends_with(0);
                holder.unlock().unwrap();
                rig.copy(way, "source", "target", &[]).ends_with(0);
            });
        }
    });
}

#[test]
fn a_target_that_another_copy_is_at_is_43_and_ends_right() {
    std::thread::scope(|scope| {
        for target in ["new", "existing"] {
            for second in [Way::Push, Way::Local] {
                scope.spawn(move || {
                    let rig = Rig::in_memory();
                    let source = rig.make("source", &SOURCE);
                    rig.make("existing", &OLD);
                    let valve = Valve::new(rig.server.port, 100_000);
                    let first = rig.start_by(valve.port, Way::Push, "source", target, &[]);
                    valve.wait_until_held();
                    rig.copy(second, "source", target, &[]).ends_with(43);
                    valve.open();
                    first.wait().ends_with(0);
                    assert_equal(&source, &rig.path(target));
                });
            }
        }
    });
}

#[test]
fn a_target_whose_name_leads_elsewhere_at_the_end_is_43_and_nothing_is_lost() {
    for way in Way::REMOTE {
        let rig = Rig::in_memory();
        let source = rig.make("source", &SOURCE);
        let other = rig.make("other", &[Part::Data(7, KIB)]);
        let held = |target: &str| {
            let valve = Valve::new(rig.server.port, 100_000);
            let copy = rig.start_by(valve.port, way, "source", target, &[]);
            valve.wait_until_held();
            (valve, copy)
        };
        let (valve, copy) = held("target");
        fs::copy(&other, rig.path("target")).unwrap();
        valve.open();
        let run = copy.wait();
        run.ends_with(43);
        run.tells("both are kept");
        assert_equal(&other, &rig.path("target"));

        rig.copy(way, "source", "target", &[]).ends_with(0);
        rig.make("target", &OLD);
        let (valve, copy) = held("target");
        fs::rename(&other, rig.path("target")).unwrap();
        valve.open();
        copy.wait().ends_with(43);
        assert_eq!(fs::read(rig.path("target")).unwrap(), bytes(&[Part::Data(7, KIB)]));

        rig.copy(way, "source", "target", &[]).ends_with(0);
        assert_equal(&source, &rig.path("target"));
    }
}

#[test]
fn a_server_that_is_full_is_43_and_takes_the_next_when_somebody_has_left() {
    let mut rig = Rig::in_memory();
    rig.server = Server::start(&["127.0.0.1:0", "-c", "1"]);
    rig.make("source", &[Part::Data(1, MIB)]);
    let valve = Valve::new(rig.server.port, 100_000);
    let arguments = ["-c", "1", "--connections", "1"];
    let clients: Vec<Process> = (0..pdcp::limits::SESSIONS_MAX)
        .map(|number| {
            let client = rig.start_by(valve.port, Way::Push, "source", format!("target {number}"), &arguments);
            valve.wait_until_held();
            client
        })
        .collect();
    let run = rig.copy(Way::Push, "source", "one more", &arguments);
    run.ends_with(43);
    valve.open();
    for client in clients {
        client.wait().ends_with(0);
    }
    rig.copy(Way::Push, "source", "one more", &arguments).ends_with(0);
}

#[test]
fn a_temporary_that_is_not_ours_is_refused_and_left() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    let victim = rig.make("victim", &OLD);
    let temporary = format!(".pdcp-{:.16}", blake3::hash(b"target").to_hex());
    std::os::unix::fs::symlink(&victim, rig.path(&temporary)).unwrap();
    for way in Way::ALL {
        let run = rig.copy(way, "source", "target", &[]);
        run.ends_with(5);
        run.tells(&temporary);
        assert_eq!(fs::read(&victim).unwrap(), bytes(&OLD));
    }
}

/// Trigger: fourteen clients at once. Damage: the first took so many buffers that some of the others were told that there is
/// no room, where each worker has room for sixteen. Cure: they wait a moment.
#[test]
fn several_clients_at_once_get_what_they_asked_for() {
    for way in Way::REMOTE {
        let rig = Rig::in_memory();
        let numbers = 0..14;
        let names = |number: u8| (format!("source {number}"), format!("target {number}"));
        for number in numbers.clone() {
            rig.make(names(number).0, &[Part::Data(number, 16 * MIB + u64::from(number))]);
            rig.make(names(number).1, &[Part::Data(number, 2 * MIB)]);
        }
        let clients: Vec<Process> = numbers
            .clone()
            .map(|number| rig.start(way, names(number).0, names(number).1, &["-c", "1", "--connections", "2"]))
            .collect();
        for (number, client) in numbers.zip(clients) {
            client.wait().ends_with(0);
            assert_equal(&rig.path(names(number).0), &rig.path(names(number).1));
        }
    }
    // And several at one target: it ends right, and who was in the way is told so.
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let clients: Vec<Process> = (0..4).map(|_| rig.start(Way::Push, "source", "target", &["-c", "1"])).collect();
    let codes: Vec<i32> = clients.into_iter().map(|client| client.wait().code).collect();
    assert!(codes.contains(&0) && codes.iter().all(|code| [0, 43].contains(code)), "{codes:?}");
    assert_equal(&source, &rig.path("target"));
}

/// Sessions of clients that take nothing hold all that they may of a worker's buffers. Who comes then waits a moment, and is
/// told; he may go, and is served when one of them has got on.
#[test]
fn who_waits_for_room_is_told_may_go_and_gets_it() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &[Part::Data(1, 32 * MIB)]);
    let mut server = Server::start(&["127.0.0.1:0", "-c", "1"]);
    let pull = |port, name: &str| {
        rig.start_by(port, Way::Pull, "source", name, &["-c", "1", "--connections", "1", "--no-fsync", "-v"])
    };
    let mut held = Vec::new();
    let told = loop {
        let valve = Valve::new(server.port, 2_000_000);
        let client = pull(valve.port, &format!("target {}", held.len()));
        while !valve.is_held() && !client.has_ended() {
            std::thread::sleep(Duration::from_millis(10));
        }
        if client.has_ended() {
            break client.wait();
        }
        held.push((valve, client));
    };
    told.ends_with(43);
    told.tells("has no room for another session now; try again later");
    assert!((4..SESSIONS_MAX).contains(&held.len()), "{} fill a worker", held.len());

    let mut impatient = pull(server.port, "never");
    impatient.line_with("not sealed"); // the last line before it waits
    impatient.signal(Signal::TERM);
    impatient.wait().ends_with(143);
    server.process.line_with("interrupted");
    let patient = pull(server.port, "new");
    held.iter().for_each(|(valve, _)| valve.open());
    patient.wait().ends_with(0);
    assert_equal(&source, &rig.path("new"));
    for (number, (_, client)) in held.into_iter().enumerate() {
        client.wait().ends_with(0);
        assert_equal(&source, &rig.path(format!("target {number}")));
    }
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.wait().code, 0);
}

#[test]
fn a_server_that_cannot_be_reached_is_35_and_the_command_that_is_missing_is_shown() {
    let rig = Rig::in_memory();
    rig.make("file", &SOURCE);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for way in Way::REMOTE {
        let run = rig.start_by(free, way, "file", "new", &[]).wait();
        let summary = run.ends_with(35);
        assert_eq!(summary.error().0, format!("127.0.0.1:{free}"));
        run.tells(&format!("pdcp --serve :{free}"));
    }
    let nobody = crate::rig::run(&["--json", "x.invalid:9000:/x", "new"]);
    nobody.ends_with(35);
    nobody.tells("x.invalid");
    nobody.tells("failed to lookup address information: "); // and why
}

/// Trigger: no more processes are allowed (`ulimit -u`, pids.max). Damage: a panic instead of a word, and no summary.
#[test]
fn who_may_make_no_thread_says_so() {
    let rig = Rig::in_memory();
    let (source, target) = (rig.make("source", &SOURCE), rig.path("new"));
    for arguments in [[source.as_os_str(), target.as_os_str()], ["--serve", "127.0.0.1:0"].map(OsStr::new)] {
        let mut command = pdcp(&[&[OsStr::new("--json")], &arguments[..]].concat());
        let run = refusing(&[CLONE3], ENOSYS, || refusing(&[THREAD], EAGAIN, || command.output().unwrap()));
        let [stdout, stderr] = [run.stdout, run.stderr].map(|said| String::from_utf8(said).unwrap());
        let run = Run { code: run.status.code().unwrap(), stdout, stderr, shown: format!("{command:?}") };
        run.ends_with(1);
        run.tells("temporarily unavailable");
        assert!(!run.stderr.contains("panicked"), "{run}");
    }
}

/// A server that says this to everybody, and then nothing.
fn stranger(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            if !answer.is_empty() {
                // Reading to the end first would wait for a client that waits for us; not at all would reset it.
                _ = socket.write_all(answer);
                _ = socket.shutdown(std::net::Shutdown::Write);
                _ = socket.read_to_end(&mut Vec::new());
            }
        }
    });
    port
}

#[test]
fn a_server_that_is_no_pdcp_is_12_and_one_that_says_nothing_is_35() {
    let rig = Rig::in_memory();
    rig.make("file", &SOURCE);
    for (answer, code) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], 12),
        (b"220 mail.example ESMTP\r\n", 12),
        (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 12),
        (b"", 35),
    ] {
        for way in Way::REMOTE {
            let run = rig.start_by(stranger(answer), way, "file", "new", &[]).wait();
            run.ends_with(code);
            run.tells("127.0.0.1:");
        }
    }
    assert!(!rig.path("new").exists());
}

#[test]
fn what_is_no_pdcp_is_turned_away_and_the_server_lives() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    for said in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\0",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", rig.server.port)).unwrap();
        socket.write_all(said).unwrap();
        _ = socket.shutdown(std::net::Shutdown::Write); // it may have been cut off already
        _ = socket.read_to_end(&mut Vec::new());
    }
    rig.copy(Way::Push, "source", "target", &[]).ends_with(0);
}

// --- a source that changes ---

type Change = fn(&Path);

#[test]
fn a_source_that_changes_while_it_is_read_is_24_at_either_end() {
    let changes: [(&str, Change); 4] = [
        ("append", |path| File::options().append(true).open(path).unwrap().write_all(b"more").unwrap()),
        ("rewrite", |path| File::options().write(true).open(path).unwrap().write_all(b"other").unwrap()),
        ("replace", |path| {
            let next = path.with_extension("next");
            fs::write(&next, b"another file").unwrap();
            fs::rename(next, path).unwrap();
        }),
        ("shorten", |path| File::options().write(true).open(path).unwrap().set_len(5 * MIB).unwrap()),
    ];
    let rig = Rig::in_memory();
    for way in Way::REMOTE {
        for (what, change) in changes {
            for basis in [None, Some(OLD)] {
                let source = rig.make("source", &SOURCE);
                rig.remove("target");
                basis.map(|basis| rig.make("target", &basis));
                let valve = Valve::new(rig.server.port, 100_000);
                let copy = rig.start_by(valve.port, way, "source", "target", &["--connections", "1"]);
                valve.wait_until_held();
                change(&source);
                valve.open();
                let run = copy.wait();
                let summary = run.ends_with(24);
                assert!(summary.error().0.ends_with("source"), "{what}: {run}");
                assert_unfinished(&rig.path("target"), &source);
                rig.copy(way, "source", "target", &[]).ends_with(0);
                assert_equal(&source, &rig.path("target"));
            }
        }
    }
}

#[test]
fn a_source_that_shrinks_during_a_local_copy_is_24() {
    let rig = Rig::new();
    // So long that it takes a while, and nothing but a hole, so that it costs nothing.
    let source = rig.make("source", &[Part::Data(1, MIB), Part::Hole(64 << 30)]);
    let mut copy = rig.start(Way::Local, "source", "target", &["-v"]);
    copy.line_with("workers:");
    File::options().write(true).open(&source).unwrap().set_len(4 * MIB).unwrap();
    copy.wait().ends_with(24);
    assert_unfinished(&rig.path("target"), &source);
    rig.copy(Way::Local, "source", "target", &[]).ends_with(0);
    assert_equal(&source, &rig.path("target"));
}

/// It is missing, or has a time that its source has not.
#[track_caller]
fn assert_unfinished(target: &Path, source: &Path) {
    if target.exists() {
        assert_ne!(mtime(target), mtime(source), "an unfinished target looks finished");
    }
}

// --- a target that cannot be written ---

/// A file system in memory of this size, gone when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None`: not allowed here. The caller says so.
    fn tmpfs(path: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir(&path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).output().ok()?;
        mount.status.success().then_some(Self(path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Trigger: `--verify` writes through the cache what the disk then does not take; Linux calls it clean all the same. Damage: the same
/// command, when there was room, found it in memory, equal, and said that it had been read back. On the disk was nothing of it.
/// Cure: what a failed sync leaves in the cache is thrown away.
#[test]
fn what_the_disk_has_not_taken_is_not_found_there_by_the_next_run() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let Some(backing) = Mount::tmpfs(rig.path("backing"), "size=64m") else {
        return eprintln!("SKIPPED: this user may not mount");
    };
    let resize = |bytes: u64| {
        let size = format!("remount,size={bytes}");
        assert!(Command::new("mount").args(["-o", &size]).arg(&backing.0).status().unwrap().success());
    };
    let image = backing.0.join("image");
    fs::File::create(&image).unwrap().set_len(48 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-O", "^has_journal", "-E", "nodiscard"]).arg(&image).output();
    let disk = rig.path("disk");
    fs::create_dir(&disk).unwrap();
    let mount = || {
        let mounted = Command::new("mount").args(["-o", "loop,noauto_da_alloc"]).args([&image, &disk]).output().ok()?;
        mounted.status.success().then(|| Mount(disk.clone()))
    };
    let Some(mounted) = made.ok().filter(|made| made.status.success()).and_then(|_| mount()) else {
        return eprintln!("SKIPPED: a disk that fills up needs loop devices and mkfs.ext4");
    };
    // There is room for all of it on the disk, and none in what the disk is made of.
    let target = fs::File::create(rig.path("disk/target")).unwrap();
    let bytes = fs::metadata(&source).unwrap().len();
    rustix::fs::fallocate(&target, rustix::fs::FallocateFlags::empty(), 0, bytes).unwrap();
    rustix::fs::syncfs(&target).unwrap();
    drop(target);
    let taken = rustix::fs::statvfs(&backing.0).unwrap();
    resize((taken.f_blocks - taken.f_bfree) * taken.f_frsize + (1 << 20));
    let options = ["--verify", "--direct", "never"];
    rig.copy(Way::Local, "source", "disk/target", &options).ends_with(11);
    resize(64 << 20);
    rig.copy(Way::Local, "source", "disk/target", &options).ends_with(0);
    drop(mounted);
    let _mounted = mount().unwrap();
    assert_equal(&source, &rig.path("disk/target"));
}

#[test]
fn a_full_disk_at_the_target_is_11_and_told_as_that_at_the_asking_end() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    let Some(mount) = Mount::tmpfs(rig.path("small"), "size=5m") else {
        return eprintln!("SKIPPED: this user may not mount");
    };
    for way in Way::ALL {
        for arguments in [&[][..], &["--direct", "always"], &["--verify"], &["-c", "1", "--connections", "1"]] {
            let run = rig.copy(way, "source", "small/new", arguments);
            let summary = run.ends_with(11);
            run.tells("no space left on the disk");
            assert!(summary.error().0.ends_with("small/new"), "{run}");
            assert!(!rig.path("small/new").exists());
            for left in fs::read_dir(&mount.0).unwrap() {
                fs::remove_file(left.unwrap().path()).unwrap(); // what the next run would have begun with
            }
        }
        // One that is there stays, unfinished, and room heals it.
        let old = [Part::Data(2, MIB), Part::Hole(7 * MIB)];
        let target = rig.make("small/existing", &old);
        rig.copy(way, "source", "small/existing", &[]).ends_with(11);
        assert_unfinished(&target, &source);
        let more = Command::new("mount").args(["-o", "remount,size=20m"]).arg(&mount.0).status().unwrap();
        assert!(more.success());
        rig.copy(way, "source", "small/existing", &[]).ends_with(0);
        assert_equal(&source, &target);
        fs::remove_file(&target).unwrap();
        let less = Command::new("mount").args(["-o", "remount,size=5m"]).arg(&mount.0).status().unwrap();
        assert!(less.success());
    }
}

#[test]
fn a_read_only_file_system_is_11() {
    let rig = Rig::in_memory();
    rig.make("source", &SOURCE);
    let Some(mount) = Mount::tmpfs(rig.path("mounted"), "size=20m") else {
        return eprintln!("SKIPPED: this user may not mount");
    };
    rig.make("mounted/existing", &OLD);
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(&mount.0).status().unwrap().success());
    for way in Way::ALL {
        for target in ["mounted/existing", "mounted/new", "mounted/new/new"] {
            let run = rig.copy(way, "source", target, &[]);
            run.ends_with(11);
            run.tells("read-only");
        }
        rig.copy(way, "mounted/existing", "target", &[]).ends_with(0);
    }
}

/// `nobody`, who may read what all may, and write nothing.
const NOBODY: u32 = 65534;

#[test]
fn what_this_user_may_not_do_is_3_for_the_source_and_11_for_the_target() {
    if !is_root() {
        return eprintln!("SKIPPED: only root can become somebody else");
    }
    let mut rig = Rig::new();
    fs::set_permissions(rig.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = rig.path("pdcp");
    fs::copy(env!("CARGO_BIN_EXE_pdcp"), &program).unwrap();
    let home = rig.path("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).uid(NOBODY).gid(NOBODY).current_dir("/").env("PDCP_KEY_FILE", home.join("key"));
        command
    };
    rig.server = Server::of(as_nobody(&["--serve", "127.0.0.1:0"]));
    let public = rig.make("public", &SOURCE);
    fs::set_permissions(&public, fs::Permissions::from_mode(0o644)).unwrap();
    let secret = rig.make("secret", &OLD);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let copy = |way: Way, source: &str, target: &str| {
        let (source, target) = ends(rig.server.port, way, &rig.path(source), &rig.path(target));
        let mut command = as_nobody(&["--json"]);
        command.arg(source).arg(target);
        Process::start(command).wait()
    };
    for way in Way::ALL {
        for (source, target, code) in
            [("secret", "new", 3), ("public", "new", 11), ("public", "secret", 11), ("public", "new/new", 11)]
        {
            let run = copy(way, source, target);
            run.ends_with(code);
            run.tells(&format!("permission denied: the user {NOBODY} may not"));
        }
    }
    assert_eq!(fs::read(&secret).unwrap(), bytes(&OLD));

    // Equal already, and writable, but its time is not ours to set: that was called unfinished, though nothing was touched.
    let shared = rig.make("shared", &SOURCE);
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o666)).unwrap();
    let before = state(&shared);
    for way in Way::ALL {
        let run = copy(way, "public", "shared");
        assert!(!run.ends_with(11).flag("changed"), "{run}");
        run.tells("only the owner");
        assert!(!run.stderr.contains("unfinished"), "{run}");
    }
    assert_eq!(state(&shared), before);
}

#[test]
fn a_file_that_may_not_grow_that_long_is_11() {
    let rig = Rig::in_memory();
    let source = rig.make("source", &SOURCE);
    // In units of 512 bytes for one shell and of 1024 for another: below the source's length in both.
    let limited = |arguments: &[&std::ffi::OsStr]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f 4096; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_pdcp")]).args(arguments);
        command.env("PDCP_KEY_FILE", key_file());
        command
    };
    let target = rig.path("target");
    for existing in [false, true] {
        rig.remove("target");
        if existing {
            rig.make("target", &[Part::Data(2, KIB)]);
        }
        let run = Process::start(limited(&["--json".as_ref(), source.as_os_str(), target.as_os_str()])).wait();
        run.ends_with(11);
        run.tells("larger than the file system or the process' limit allows");
        assert_unfinished(&target, &source);
    }
    rig.remove("target");
    let server = Server::of(limited(&["--serve".as_ref(), "127.0.0.1:0".as_ref()]));
    let run = rig.start_by(server.port, Way::Push, "source", "target", &[]).wait();
    run.ends_with(11);
    run.tells("larger than the file system or the process' limit allows");
    assert!(!target.exists());
}

// --- block devices ---

#[test]
fn a_block_device_is_copied_as_the_file_that_it_is_and_refused_as_target() {
    let rig = Rig::new();
    // Whole sectors, but no whole block at the end.
    let image = rig.make("image", &[Part::Data(1, 3 * MIB + 512), Part::Zeros(KIB)]);
    File::open(&image).unwrap().sync_all().unwrap();
    let Some(device) = Loop::of(&image) else {
        return eprintln!("SKIPPED: this user may not make loop devices");
    };
    for way in Way::ALL {
        for arguments in [&[][..], &["--direct", "always"], &["--direct", "never"], &["--verify"]] {
            rig.remove("target");
            let summary = rig.copy(way, &device.0, "target", arguments).ends_with(0);
            let target = rig.path("target");
            assert_eq!(summary.number("source_bytes"), 3 * MIB + 512 + KIB, "{way:?} {arguments:?}");
            assert_equal(&image, &target);
            assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o600);
            let made = fs::metadata(&target).unwrap().modified().unwrap();
            assert!(made >= fs::metadata(&image).unwrap().modified().unwrap(), "it has the present time");

            // Times are not compared: once equal, it is not touched, whatever its time.
            let before = state(&target);
            let again = rig.copy(way, &device.0, "target", arguments).ends_with(0);
            assert!(!again.flag("changed"));
            assert_eq!(state(&target), before);

            fs::write(&target, bytes(&[Part::Data(1, MIB)])).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
            rig.copy(way, &device.0, "target", arguments).ends_with(0);
            assert_equal(&image, &target);
            assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o644);
        }
        let run = rig.copy(way, "target", &device.0, &[]);
        run.ends_with(5);
        run.tells("is a block device");
    }
}
