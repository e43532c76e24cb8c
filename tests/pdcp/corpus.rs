//! Replays what the fuzzer found worth keeping (`fuzz/corpus`): small inputs, one file each, for every fuzz target.

use std::path::Path;

#[test]
fn every_kept_input_of_the_fuzzer_is_survived() {
    #[track_caller]
    fn check(name: &str, body: fn(&[u8])) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&directory).unwrap() {
            body(&std::fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "no inputs in {}", directory.display());
    }
    check("deframe", pdcp::wire::fuzz::fuzz_deframe);
    check("message", pdcp::wire::fuzz::fuzz_message);
    check("preamble", pdcp::wire::fuzz::fuzz_preamble);
    check("sealed", pdcp::wire::fuzz::fuzz_sealed);
    check("paths", pdcp::root::fuzz::fuzz_paths);
    check("handshake", pdcp::session::fuzz::fuzz_handshake);
    check("course", pdcp::session::fuzz::fuzz_course);
    check("join", pdcp::control::fuzz::fuzz_join);
    check("typed", pdcp::cli::fuzz::fuzz_typed);
    check("key-file", pdcp::control::identity::fuzz_key_file);
    check("authorized-keys", pdcp::control::identity::fuzz_authorized_keys);
    check("known-servers", pdcp::control::identity::fuzz_known_servers);
    check("machines", pdcp::session::fuzz::fuzz_machines);
}
