//! What is seen on a terminal while a copy runs, or while it waits. Nothing here looks at how long anything takes.

use crate::rig::{DEADLINE, MIB, Part, Rig, Valve, Way, ends, pdcp, terminal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// A program on a terminal, and what it has written there. It ends with the test.
struct Watched {
    child: Child,
    screen: File,
    seen: String,
}

impl Watched {
    fn start(mut command: Command, columns: u16) -> Self {
        let (screen, terminal) = terminal();
        tcsetwinsize(&terminal, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        command.env("TERM", "xterm").stdout(Stdio::null()).stderr(terminal);
        Self { child: command.spawn().unwrap(), screen, seen: String::new() }
    }

    /// Something more, if it has not ended.
    #[track_caller]
    fn look(&mut self) -> bool {
        let patience = Timespec { tv_sec: i64::try_from(DEADLINE.as_secs()).unwrap(), tv_nsec: 0 };
        let there = poll(&mut [PollFd::new(&self.screen, PollFlags::IN)], Some(&patience)).unwrap();
        assert!(there > 0, "it hangs: {:?}", self.seen);
        let mut some = [0; 4096];
        // Nobody there any more is an error.
        let read = self.screen.read(&mut some).unwrap_or(0);
        self.seen.push_str(&String::from_utf8_lossy(&some[..read]));
        read > 0
    }

    #[track_caller]
    fn until(&mut self, wanted: &str) {
        while !self.seen.contains(wanted) {
            assert!(self.look(), "no '{wanted}' in {:?}", self.seen);
        }
    }

    /// Its exit code, and all that was seen.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, String) {
        while self.look() {}
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.seen))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// A copy on a terminal so wide, by a network that lets nothing more pass until it is opened.
fn held(rig: &Rig, way: Way, columns: u16) -> (Watched, Valve) {
    let valve = Valve::new(rig.server.port, 2_000_000);
    let source = rig.make("source", &[Part::Data(1, 8 * MIB)]);
    let (from, to) = ends(valve.port, way, &source, &rig.path("target"));
    let copy = Watched::start(pdcp(&[from, to]), columns);
    valve.wait_until_held();
    (copy, valve)
}

/// Trigger: a server that is stopped. Damage: the rate faded, and the rest grew to days. Cure: it is called what it is.
#[test]
fn a_copy_that_stands_still_says_so() {
    for way in Way::REMOTE {
        let rig = Rig::in_memory();
        let (mut copy, valve) = held(&rig, way, 80);
        copy.until("nothing has moved for ");
        valve.open();
        assert_eq!(copy.end().0, Some(0));
    }
}

/// Trigger: 40 columns. Damage: the row went on in the next one or two, and what was above was erased with it. Cure: what
/// finds no room is left out.
#[test]
fn no_row_is_wider_than_the_terminal() {
    for columns in [20, 40, 80, 120] {
        let rig = Rig::in_memory();
        let (mut copy, valve) = held(&rig, Way::Push, columns);
        copy.until("%");
        valve.open();
        let (code, seen) = copy.end();
        assert_eq!(code, Some(0));
        for row in seen.split(['\r', '\n']).map(|row| row.trim_start_matches("\x1b[K\x1b[J")) {
            assert!(row.len() < usize::from(columns), "{columns}: {row:?}");
        }
    }
}

/// Trigger: a server that is stopped. Damage: an empty terminal for 30 s. Cure: a word about who is waited for, which goes
/// away, and which no program is told.
#[test]
fn a_server_that_does_not_answer_is_seen_to_be_waited_for() {
    let rig = Rig::in_memory();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let (from, to) = ends(port, Way::Pull, &rig.path("source"), &rig.path("target"));
    let mut waits = Watched::start(pdcp(&[&from, &to]), 80);
    let mut waits_quietly = Watched::start(pdcp(&["--json".as_ref(), &*from, &*to]), 80);
    let callers = [silent.accept().unwrap(), silent.accept().unwrap()];
    waits.until(&format!("\x1b[Jwaiting for 127.0.0.1:{port}, "));
    drop((silent, callers));
    for copy in [&mut waits, &mut waits_quietly] {
        while copy.look() {}
        assert_eq!(copy.child.wait().unwrap().code(), Some(35), "{:?}", copy.seen);
    }
    let last = waits.seen.rsplit("\x1b[J").next().unwrap();
    assert!(last.starts_with("pdcp: "), "{last:?}");
    assert!(!waits_quietly.seen.contains("waiting"), "{:?}", waits_quietly.seen);
}
