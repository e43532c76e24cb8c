//! A server that more want something of than it has room for: strangers who say nothing, and clients that all come at once.
//!
//! A tenth of the crowd comes in an ordinary run; `PDCP_CROWD=1000` brings a thousand clients and ten times as many
//! strangers, and needs as many descriptors.

use crate::rig::{KIB, MIB, Part, Rig, Way, allow_descriptors, assert_equal, key_file};
use pdcp::control::identity::{ClientIdentity, server_name};
use pdcp::limits::{STRANGERS_MAX, WORKER_BUFFER_BYTES};
use pdcp::wire::{Purpose, encode_preamble};
use rustls::ClientConnection;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Clients of an ordinary run.
const CLIENTS: usize = 100;
/// For each client.
const STRANGERS: usize = 10;
/// Descriptors that a stranger costs at most: the socket, a handle to end it by, one of TLS's own.
const DESCRIPTORS: usize = 3;
/// What the server's own things may need beside the pool, and each session.
const MEMORY_BYTES: u64 = 64 * MIB;
const SESSION_BYTES: u64 = 256 * KIB;
/// The workers of a rig's server.
const WORKERS: u64 = 2;

#[test]
fn in_a_crowd_everybody_is_served_or_told_that_there_is_no_room() {
    let clients = std::env::var("PDCP_CROWD").map_or(CLIENTS, |clients| clients.parse().unwrap());
    allow_descriptors();
    let rig = Rig::in_memory();
    let source = rig.make("source", &[Part::Data(1, MIB + 1)]);
    let push = |name: &str| rig.start(Way::Push, "source", name, &["--no-fsync", "-c", "1"]);
    push("alone").wait().ends_with(0);
    let at_rest = descriptors(&rig);

    let hello = client_hello();
    let strangers: Vec<_> = (0..clients * STRANGERS).map(|number| stranger(&rig, number, &hello)).collect();
    push("beside-strangers").wait().ends_with(0);
    let most = at_rest + DESCRIPTORS * (STRANGERS_MAX + 1);
    assert!(descriptors(&rig) <= most, "{} descriptors, {at_rest} at rest", descriptors(&rig));

    let names: Vec<_> = (0..clients).map(|number| format!("target-{number}")).collect();
    let started: Vec<_> = names.iter().map(|name| push(name)).collect();
    let mut served = 0;
    for (name, client) in names.iter().zip(started) {
        let ran = client.wait();
        if ran.code == 0 {
            assert_equal(&source, &rig.path(name));
            served += 1;
        } else {
            ran.ends_with(43);
            ran.tells("try again later");
            assert!(!rig.path(name).exists(), "{name} was opened for nobody");
        }
    }
    assert!(served > 0, "of {clients} nobody was served");

    let used = u64::try_from(clients).unwrap() * SESSION_BYTES;
    let most = MEMORY_BYTES + WORKERS * u64::try_from(WORKER_BUFFER_BYTES).unwrap() + used;
    let peak = peak_bytes(&rig);
    assert!(peak < most, "{peak} bytes, and {most} were to be enough");
    drop(strangers);
    let deadline = Instant::now() + Duration::from_secs(30);
    while descriptors(&rig) != at_rest {
        assert!(Instant::now() < deadline, "{} descriptors, {at_rest} at rest", descriptors(&rig));
        std::thread::sleep(Duration::from_millis(20));
    }
    push("afterwards").wait().ends_with(0);
    eprintln!("{served} of {clients} clients were served, {} MiB at most", peak / MIB);
}

/// Somebody who says nothing, or a little.
fn stranger(rig: &Rig, number: usize, client_hello: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(&rig.server.address).unwrap();
    let greeting = match number % 4 {
        0 => Vec::new(),
        1 => encode_preamble(Purpose::Control).to_vec(),
        2 => [&encode_preamble(Purpose::Control)[..], client_hello].concat(), // is answered, and says no more
        _ => [&encode_preamble(Purpose::Control)[..], &[22, 3, 1, 1, 0]].concat(), // and the head of a TLS record
    };
    _ = socket.write_all(&greeting); // he may have been turned out already
    socket
}

/// What TLS says first.
fn client_hello() -> Vec<u8> {
    let config = ClientIdentity::load(Some(key_file())).unwrap().client_config("127.0.0.1", 9000);
    let mut words = Vec::new();
    ClientConnection::new(config, server_name()).unwrap().write_tls(&mut words).unwrap();
    words
}

fn descriptors(rig: &Rig) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", rig.server.process.id())).unwrap().count()
}

fn peak_bytes(rig: &Rig) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.server.process.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * KIB
}
