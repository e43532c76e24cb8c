//! `authorized_keys` and `known_servers`, line by line, and what a check says of them.

use super::super::error::LineError;
use super::super::error::Problem;
use super::super::key::KeyTextError;
use super::super::{fuzz_authorized_keys, fuzz_key_file, fuzz_known_servers};
use super::*;
use crate::control::{Listen, WorkersConfig};
use crate::limits::KEY_LIST_BYTES_MAX;
use proptest::prelude::*;
use std::num::NonZeroU32;

fn public() -> PublicKey {
    Secret::random().public()
}

#[test]
fn a_key_and_its_conditions_stand_in_any_order() {
    let key = public();
    let check = |line: &str, want: &Guest| {
        let list = Authorized::parse(line.replace("KEY", &key.to_string()).as_bytes()).unwrap();
        assert_eq!(list.guests(), std::slice::from_ref(want), "{line}");
    };
    let plain = Guest { key, root: None, read_only: false, no_delete: false, from: Vec::new(), sessions_max: None };
    check("KEY", &plain);
    check("  KEY\t# a colleague", &plain);
    check("ro KEY", &Guest { read_only: true, ..plain.clone() });
    check("KEY nodelete\n\n", &Guest { no_delete: true, ..plain.clone() });
    check("root=/srv/a#b KEY", &Guest { root: Some("/srv/a#b".into()), ..plain.clone() });
    check("max-sessions=3 KEY", &Guest { sessions_max: NonZeroU32::new(3), ..plain.clone() });
    check(
        "from=10.0.0.0/8,fd00::/8 KEY",
        &Guest { from: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], ..plain.clone() },
    );
    check(
        "ro root=/srv KEY nodelete max-sessions=1 from=::1",
        &Guest {
            root: Some("/srv".into()),
            read_only: true,
            no_delete: true,
            from: vec!["::1/128".parse().unwrap()],
            sessions_max: NonZeroU32::new(1),
            ..plain
        },
    );
}

#[test]
fn a_line_of_authorized_keys_that_is_not_understood_refuses_all() {
    let (key, other) = (public(), public());
    let check = |line: &str, want: LineError| {
        let line = line.replace("KEY", &key.to_string()).replace("OTHER", &other.to_string());
        let found = Authorized::parse(format!("# first\n{other}\n{line}\n").as_bytes());
        assert_eq!(found, Err(Problem::Line(3, want)), "{line}");
    };
    check("ro", LineError::NoKey);
    check("KEY KEY", LineError::TwoKeys);
    check("OTHER", LineError::KeyTwice);
    check("ro OTHER nodelete", LineError::KeyTwice);
    check(&Secret::random().text(), LineError::Key(KeyTextError::Secret));
    check(&key.to_string()[..50], LineError::Key(KeyTextError::Damaged));
    check("ssh-ed25519 AAAA", LineError::UnknownOption);
    for option in ["rw", "RO", "ro=1", "nodelete=", "root", "from", "max-sessions", "=", "a=b", "Root=/", ","] {
        check(&format!("{option} KEY"), LineError::UnknownOption);
    }
    for (option, name) in [
        ("ro", "ro"),
        ("nodelete", "nodelete"),
        ("root=/a", "root="),
        ("from=::1", "from="),
        ("max-sessions=1", "max-sessions="),
    ] {
        check(&format!("{option} KEY {option}"), LineError::OptionTwice(name));
    }
    for root in ["", "a", "./a", "~/a", "/a/../b", "/..", "\"/a\""] {
        check(&format!("root={root} KEY"), LineError::Root);
    }
    check("root=/a b KEY", LineError::UnknownOption);
    for from in
        ["", ",", "::1,", "host", "host/8", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/-1", "*", "10.0.0.0/"]
    {
        check(&format!("from={from} KEY"), LineError::From);
    }
    for from in ["10.0.0.1/8", "::1/8", "10.0.0.0/8,10.0.0.1/31"] {
        check(&format!("from={from} KEY"), LineError::FromBits);
    }
    for number in ["", "0", "-1", "+1", "x", "1.5", "4294967296"] {
        check(&format!("max-sessions={number} KEY"), LineError::MaxSessions);
    }
    check("KEY\r", LineError::Control);
    check("KEY # \x1b[2J", LineError::Control);
    check("KEY \0", LineError::Control);
}

#[test]
fn a_guest_comes_from_the_networks_of_its_line_only() {
    let key = public();
    let check = |from: &str, address: &str, want: bool| {
        let list = Authorized::parse(format!("from={from} {key}").as_bytes()).unwrap();
        assert_eq!(list.guests()[0].may_come_from(address.parse().unwrap()), want, "{from} {address}");
    };
    check("10.0.0.0/8", "10.255.255.255", true);
    check("10.0.0.0/8", "11.0.0.0", false);
    check("10.0.0.0/8", "::ffff:10.1.2.3", true);
    check("::ffff:10.0.0.0/104", "10.1.2.3", true);
    check("::ffff:10.0.0.0/104", "::ffff:11.0.0.0", false);
    check("0.0.0.0/0", "::1", false);
    check("::/0", "::1", true);
    check("::/0", "10.0.0.1", false);
    check("::/0,0.0.0.0/0", "10.0.0.1", true);
    check("10.1.2.3", "10.1.2.3", true);
    check("10.1.2.3", "10.1.2.4", false);
    check("fd00::/8,192.0.2.7", "fdff::1", true);
    check("fd00::/8,192.0.2.7", "fe80::1", false);
}

#[test]
fn a_server_is_known_by_host_and_port() {
    let [one, two, three] = [public(), public(), public()];
    let text = format!("host:9000 {one}\nHost:9000 {two}\n[2001:DB8:0::1]:9000 {three}\n192.0.2.1:1 {one}");
    let list = KnownServers::parse(text.as_bytes()).unwrap();
    let check = |host: &str, port: u16, want: &[PublicKey]| {
        let want: Vec<_> = want.iter().map(|key| key.server).collect();
        assert_eq!(list.keys_of(host, port).collect::<Vec<_>>(), want, "{host} {port}");
    };
    check("host", 9000, &[one, two]);
    check("HOST", 9000, &[one, two]);
    check("host", 9001, &[]);
    check("hos", 9000, &[]);
    check("2001:db8::1", 9000, &[three]);
    check("192.0.2.1", 1, &[one]);
    check("::ffff:192.0.2.1", 1, &[one]);
}

#[test]
fn a_line_of_known_servers_that_is_not_understood_refuses_all() {
    let key = public();
    let check = |line: &str, want: LineError| {
        let line = line.replace("KEY", &key.to_string());
        let found = KnownServers::parse(format!("h:1 {key}\n{line}\n").as_bytes());
        assert_eq!(found, Err(Problem::Line(2, want)), "{line}");
    };
    for address in
        ["h", "h:", ":1", "h:0", "h:65536", "h:+1", "::1:9000", "[::1]", "[1.2.3.4]:1", "[::1:1", "a/b:1", "[]:1"]
    {
        check(&format!("{address} KEY"), LineError::Server);
    }
    check("h:2", LineError::Server);
    check("KEY h:2", LineError::Server);
    check("h:2 KEY ro", LineError::Server);
    check("h:2 KEY KEY", LineError::Server);
    check("H:1 KEY", LineError::KeyTwice);
    check("h:2 ssh-ed25519", LineError::Key(KeyTextError::NoKey));
    check(&format!("h:2 {}", *Secret::random().text()), LineError::Key(KeyTextError::Secret));
    check("h:2 KEY\r", LineError::Control);
}

#[test]
fn a_list_that_others_can_write_or_that_is_too_long_refuses_the_start() {
    let home = Home::new(&[&Secret::random()]);
    let key = home.path("key");
    #[track_caller]
    fn check(found: Option<Failure>, told: Option<&str>) {
        match (&found, told) {
            (None, None) => {}
            (Some(failure), Some(told)) if failure.to_string().contains(told) => {}
            _ => panic!("{found:?}, but {told:?}"),
        }
    }
    let server = || ServerIdentity::load(Some(&key)).err();
    let client = || ClientIdentity::load(Some(&key)).err();
    let list = home.write("authorized_keys", &format!("{}\n", public()));
    for (mode, told) in
        [(0o600, None), (0o644, None), (0o444, None), (0o664, Some("has mode 664")), (0o646, Some("has mode 646"))]
    {
        set_permissions(&list, Permissions::from_mode(mode)).unwrap();
        check(server(), told);
        check(client(), None);
    }
    home.write("authorized_keys", "nonsense\n");
    check(server(), Some("authorized_keys: line 1 has a word"));
    check(client(), None);
    home.write("known_servers", "nonsense\n");
    check(client(), Some("known_servers: line 1 is not HOST:PORT"));
    home.write("authorized_keys", &"#".repeat(KEY_LIST_BYTES_MAX + 1));
    check(server(), Some("is longer than 1024 KiB"));
    std::fs::remove_file(&list).unwrap();
    std::os::unix::fs::symlink("/dev/null", &list).unwrap();
    check(server(), Some("symbolic link"));
    std::fs::remove_file(&list).unwrap();
    std::fs::create_dir(&list).unwrap();
    check(server(), Some("not a regular file"));
}

#[test]
fn a_check_says_what_would_be_served_or_why_not() {
    let secrets = [Secret::random(), Secret::random()];
    let [first, second] = secrets.each_ref().map(|secret| secret.public().fingerprint());
    let home = Home::new(&[&secrets[0], &secrets[1]]);
    let config = |name: &str| ServeConfig {
        listen: Listen::At { address: None, port: 9000 },
        audit_log: None,
        key_file: Some(home.path(name)),
        plaintext: false,
        served: crate::control::access::Served::Everything,
        access: crate::control::access::Access::default(),
        run_as: None,
        direct: crate::completion::DirectPolicy::Auto,
        connections_max: 1,
        workers: WorkersConfig { count: None, cpus: None, pin: false },
    };
    let (guest, free) = (public(), public());
    home.write("authorized_keys", &format!("{guest} ro root=/srv from=10.0.0.0/8\n{free}\n"));
    let key = home.path("key");
    assert_eq!(
        check(&config("key")).unwrap().lines().collect::<Vec<_>>(),
        [
            "would listen at port 9000 of all addresses".to_string(),
            "would serve every file that this user can reach; --root DIR serves less".to_string(),
            format!("key {first}: whoever has {}", key.display()),
            format!("key {second}: whoever has {}", key.display()),
            format!("key {}: root=/srv ro from=10.0.0.0/8", guest.fingerprint()),
            format!("key {}: no conditions", free.fingerprint()),
        ]
    );
    let missing = check(&ServeConfig {
        listen: Listen::At { address: Some("::1".parse().unwrap()), port: 9000 },
        ..config("none")
    })
    .unwrap();
    assert!(missing.starts_with("would listen at [::1]:9000\n"), "{missing}");
    assert!(missing.contains("\nwould make a key: "), "{missing}");
    assert!(!home.path("none").exists());
    home.write("authorized_keys", "nonsense\n");
    assert_eq!(check(&config("key")).unwrap_err(), ServerIdentity::load(Some(&key)).unwrap_err());
    assert!(check(&config("none")).is_err());
    home.write("authorized_keys", "");
    assert!(check(&config("key")).unwrap().contains("nobody else; others would be in "));
}

/// Lines made of what lines are made of: nearly right, as no random bytes ever are.
fn nearly() -> impl Strategy<Value = String> {
    let key = proptest::sample::select(vec![public(), public(), public()]);
    let word = prop_oneof![
        key.prop_map(|key| key.to_string()),
        proptest::sample::select(vec![
            "ro",
            "nodelete",
            "root=/a",
            "root=/b/c",
            "from=::1",
            "from=10.0.0.0/8,::/0",
            "max-sessions=1",
            "h:1",
            "[::1]:2",
            "#",
            "# c",
            "\n",
            "\t",
        ])
        .prop_map(String::from),
        any::<String>(),
    ];
    proptest::collection::vec(word, 0..8).prop_map(|words| words.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_refused_or_written_out_the_same(text in nearly()) {
        fuzz_authorized_keys(text.as_bytes());
        fuzz_known_servers(text.as_bytes());
        fuzz_key_file(text.as_bytes());
    }

    #[test]
    fn any_bytes_are_refused_or_written_out_the_same(bytes: Vec<u8>) {
        fuzz_authorized_keys(&bytes);
        fuzz_known_servers(&bytes);
        fuzz_key_file(&bytes);
    }
}
