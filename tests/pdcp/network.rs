//! What the network does to a copy: what passes is what is told, a lost connection is made up for, a lost session goes
//! on, and a byte that comes out as another one never ends in a target that is called right.

use crate::rig::{MIB, Part, Rig, Server, Valve, Way, assert_equal, mtime};
use rustix::process::Signal;

const SOURCE: [Part; 2] = [Part::Data(1, 8 * MIB), Part::Data(2, 4 * MIB)];
const OLD: [Part; 2] = [Part::Data(1, 8 * MIB), Part::Data(3, 4 * MIB)];

#[test]
fn the_bytes_that_are_told_are_those_that_pass() {
    for way in Way::REMOTE {
        for (basis, arguments) in [
            (None, &["--connections", "3"][..]),
            (Some(&OLD), &["--connections", "3"]),
            (Some(&SOURCE), &[]),
            (Some(&OLD), &["-W", "--connections", "1"]),
            (Some(&OLD), &["-n"]),
        ] {
            let rig = Rig::in_memory();
            rig.make("source", &SOURCE);
            if let Some(basis) = basis {
                rig.make("target", basis);
            }
            let valve = Valve::new(rig.server.port, usize::MAX);
            let run = rig.start_by(valve.port, way, "source", "target", arguments).wait();
            let summary = run.ends_with(0);
            let told = [summary.number("wire_sent_bytes"), summary.number("wire_received_bytes")];
            assert_eq!(told, valve.passed_bytes(), "{run}");
        }
    }
}

#[test]
fn a_server_takes_as_many_connections_as_it_was_told_at_most() {
    let mut rig = Rig::in_memory();
    rig.server = Server::start(&["127.0.0.1:0", "--connections", "2"]);
    for way in Way::REMOTE {
        let source = rig.make("source", &SOURCE);
        let valve = Valve::new(rig.server.port, usize::MAX);
        rig.start_by(valve.port, way, "source", "target", &["--connections", "16"]).wait().ends_with(0);
        assert_eq!(valve.connections(), 3, "one for control and two for data");
        assert_equal(&source, &rig.path("target"));
        rig.remove("target");
    }
}

#[test]
fn what_a_lost_connection_was_at_the_others_do() {
    for way in Way::REMOTE {
        for basis in [None, Some(OLD)] {
            let rig = Rig::in_memory();
            let source = rig.make("source", &SOURCE);
            basis.map(|basis| rig.make("target", &basis));
            let valve = Valve::new(rig.server.port, 1_000_000);
            let copy = rig.start_by(valve.port, way, "source", "target", &["--connections", "3"]);
            valve.wait_until_held();
            valve.cut_one();
            valve.open();
            copy.wait().ends_with(0);
            assert_equal(&source, &rig.path("target"));
            assert_eq!(mtime(&source), mtime(&rig.path("target")));
        }
    }
}

type Loss = fn(&mut Rig, &Valve);

#[test]
fn a_lost_session_is_dialled_again_and_goes_on() {
    let kill_server: Loss = |rig, valve| {
        let killed = std::mem::replace(&mut rig.server, Server::start(&["127.0.0.1:0"]));
        valve.lead_to(rig.server.port);
        killed.process.signal(Signal::KILL);
    };
    let lose_data: Loss = |_, valve| valve.cut_one();
    let check = |way: Way, lose: Loss| {
        let mut rig = Rig::in_memory();
        let source = rig.make("source", &SOURCE);
        rig.make("target", &OLD);
        let valve = Valve::new(rig.server.port, 3_000_000);
        let mut copy = rig.start_by(valve.port, way, "source", "target", &["--connections", "1"]);
        valve.wait_until_held();
        lose(&mut rig, &valve);
        copy.line_with("dialling again");
        valve.open();
        copy.wait().ends_with(0);
        assert_equal(&source, &rig.path("target"));
    };
    std::thread::scope(|scope| {
        for way in Way::REMOTE {
            for lose in [kill_server, lose_data] {
                scope.spawn(move || check(way, lose));
            }
        }
    });
}

#[test]
fn a_byte_that_was_changed_on_the_way_is_never_called_right() {
    // All of them beyond what a control connection carries.
    for spoilt in [20_000, 65_536, 100_000, 500_000, 1_048_576, 1_500_000, 2_500_000] {
        for way in Way::REMOTE {
            for arguments in [&[][..], &["-W"], &["--connections", "1"]] {
                let rig = Rig::in_memory();
                let source = rig.make("source", &SOURCE);
                let target = rig.make("target", &OLD);
                let valve = Valve::spoiling(rig.server.port, spoilt);
                let run = rig.start_by(valve.port, way, "source", "target", arguments).wait();
                match run.code {
                    // It was asked for again.
                    0 => assert_equal(&source, &target),
                    // It was no payload, or struck twice.
                    12 | 40 => assert_ne!(mtime(&target), mtime(&source), "{run}"),
                    _ => panic!("{run}"),
                }
                run.summary();
            }
        }
    }
}
