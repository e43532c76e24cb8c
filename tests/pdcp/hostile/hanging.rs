//! Files on a file system that stops answering at the worst of times: whoever uses it waits, and nobody else.

use super::peer::client_after;
use super::scene::{beside_good_copies, hello, metadata, source_content};
use super::victim::Server;
use crate::rig::union::Union;

/// Trigger: a file system in user space, or of another host, stops answering when a file of it has been opened, and is to be opened
/// for workers, or closed. Damage: it was the server itself that waited; it heard nobody any more, SIGTERM neither. Cure: threads
/// that may block do both.
#[test]
fn a_file_system_that_does_not_answer_holds_up_nobody_but_who_uses_it() {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let server = Server::start();
    // Dropped first: a server in which something hangs cannot even be killed.
    let Some(union) = Union::below(directory.path()) else { return eprintln!("SKIPPED: {}", Union::NEEDS) };
    let (source, target) = (union.top.join("source"), union.top.join("target"));
    std::fs::write(&source, source_content()).unwrap();
    beside_good_copies(&server, || ());
    let before = server.descriptors();

    let push = hello(&target, Some(metadata(source_content().len() as u64)));
    let mut peer = client_after(|| union.freeze(), server.address, &push, source_content());
    beside_good_copies(&server, || ());
    union.thaw();
    peer.serve_the_rest();
    assert!(std::fs::read(&target).unwrap() == source_content());
    drop(peer);

    let pull = hello(&source, None);
    let mut peer = client_after(|| union.freeze(), server.address, &pull, source_content());
    beside_good_copies(&server, || ());
    union.thaw();
    peer.fetch(0);
    union.freeze();
    drop(peer);
    beside_good_copies(&server, || ());
    union.thaw();
    server.assert_descriptors_return_to(before);
    server.stop();
}
