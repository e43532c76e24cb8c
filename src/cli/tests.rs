//! The command line, form by form.

use super::*;
use crate::control::{Listen, Place, Remote};
use std::os::unix::ffi::OsStringExt;

/// Arguments are separated by `|`, because some contain spaces; an empty line is none at all.
fn invoke(line: &str) -> Invocation {
    parse(line.split('|').filter(|_| !line.is_empty()).map(OsString::from))
}

#[track_caller]
fn copy_of(line: &str) -> CopyConfig {
    match invoke(line).command {
        Command::Copy(config) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn serve_of(line: &str) -> ServeConfig {
    match invoke(line).command {
        Command::Serve(config) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn refusal_of(line: &str) -> (Summary, &'static str) {
    match invoke(line).command {
        Command::Refuse { summary, hint } => {
            assert_eq!(summary.failures.len(), 1, "{line}");
            assert_eq!(summary.exit_code(), 2, "{line}");
            (*summary, hint)
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[track_caller]
fn said_by(line: &str) -> String {
    match invoke(line).command {
        Command::Say(text) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn a_copy_has_the_written_defaults() {
    let config = copy_of("no-such-a|host:9000:/b");
    assert_eq!(config.source, Place::Local("no-such-a".into()));
    assert_eq!(config.source_typed, b"no-such-a");
    assert_eq!(config.target, Place::Remote(Remote { host: "host".into(), port: 9000, path: b"/b".into() }));
    assert_eq!(config.target_typed, b"host:9000:/b");
    assert_eq!(config.block_size.bytes(), 16 << 10);
    assert_eq!(config.method, Method::Blake3);
    assert_eq!((config.whole_file, config.dry_run, config.verify), (false, false, false));
    assert_eq!((config.inplace, config.fsync), (false, true));
    assert_eq!((config.direct, config.connections), (DirectPolicy::Auto, None));
    assert_eq!(config.workers, WorkersConfig { count: None, cpus: None, pin: true });
}

#[test]
fn each_option_of_a_copy_does_its_one_thing_before_or_after_the_paths() {
    #[track_caller]
    fn check(options: &str, seen: impl Fn(&CopyConfig) -> bool) {
        assert!(!seen(&copy_of("a|h:1:b")), "{options}");
        assert!(seen(&copy_of(&format!("{options}|a|h:1:b"))), "{options}");
        assert!(seen(&copy_of(&format!("a|h:1:b|{options}"))), "{options}");
        assert!(seen(&copy_of(&format!("a|{options}|h:1:b"))), "{options}");
    }
    check("-b|64KiB", |config| config.block_size.bytes() == 64 << 10);
    check("-b64k", |config| config.block_size.bytes() == 64 << 10);
    check("--block-size=1 mebibyte", |config| config.block_size.bytes() == 1 << 20);
    check("--block-size|1.5GiB", |config| config.block_size.bytes() == 1 << 20);
    check("--block|4096", |config| config.block_size.bytes() == 4096);
    check("-b|8192|-b|1", |config| config.block_size.bytes() == 4096);
    check("-m|xxh3", |config| config.method == Method::Xxh3);
    check("--hash-method=xxh3", |config| config.method == Method::Xxh3);
    check("-W", |config| config.whole_file);
    check("--whole-file", |config| config.whole_file);
    check("-n", |config| config.dry_run);
    check("--dry-run", |config| config.dry_run);
    check("-n|-n", |config| config.dry_run);
    check("-nh", |config| config.dry_run);
    check("-Wnvvq", |config| config.dry_run && config.whole_file);
    check("--verify", |config| config.verify);
    check("--inplace", |config| config.inplace);
    check("--no-fsync", |config| !config.fsync);
    check("--direct|always", |config| config.direct == DirectPolicy::Always);
    check("--direct=never", |config| config.direct == DirectPolicy::Never);
    check("--connections|1", |config| config.connections == Some(1));
    check("--connections|7|--connections|128", |config| config.connections == Some(128));
    check("--key-file|k", |config| config.key_file == Some("k".into()));
    check("-c|3", |config| config.workers.count == Some(3));
    check("--concurrency=256", |config| config.workers.count == Some(256));
    check("--no-pin", |config| !config.workers.pin);
    check("--cpus|0-3,8", |config| config.workers.cpus == Some(vec![0, 1, 2, 3, 8]));
    check("--cpus=8,1,0-1", |config| config.workers.cpus == Some(vec![0, 1, 8]));
    check("--cpus|1023", |config| config.workers.cpus == Some(vec![1023]));
}

#[test]
fn a_benchmark_is_a_copy_and_what_is_asked_beside_it() {
    #[track_caller]
    fn check(options: &str, levels: u32, agreed: bool, rsync_source: Option<&str>) {
        let Command::Benchmark(config) = invoke(&format!("{options}|h:1:a|b|-W")).command else { panic!("{options}") };
        assert_eq!((config.levels, config.agreed), (levels, agreed), "{options}");
        assert_eq!(config.rsync_source, rsync_source.map(OsString::from), "{options}");
        assert!(config.copy.whole_file && config.copy.target == Place::Local("b".into()), "{options}");
    }
    check("-B1", 1, false, None);
    check("-B|100|--yes", 100, true, None);
    check("--benchmark=7|--yes", 7, true, None);
    check("-B|7|-B|8|--rsync-source|rsync://h/m/a", 8, false, Some("rsync://h/m/a"));
    assert!(refusal_of("-B|2|a|h:1:b").0.failures[0].text.contains("is remote, but a benchmark"));
    assert!(refusal_of("-B|2|--rsync-source||h:1:a|b").0.failures[0].text.contains("rsync://HOST"));
}

#[test]
fn names_are_bytes_and_may_begin_with_a_dash_after_two_dashes() {
    let name = OsString::from_vec(b"\xff\xfe".to_vec());
    let invocation = parse([name.clone(), "h:1:b".into()]);
    assert!(matches!(invocation.command, Command::Copy(config) if config.source == Place::Local(name.into())));
    assert_eq!(copy_of("--|-a|--json").target_typed, b"--json");
    assert!(!invoke("--|-a|--json").json);
    assert_eq!(copy_of("-n|./-|./b:c").target, Place::Local("./b:c".into()));
}

#[test]
fn a_server_listens_where_it_is_told() {
    #[track_caller]
    fn check(address: &str, want: Option<&str>, port: u16) {
        let want = Listen::At { address: want.map(|address| address.parse().unwrap()), port };
        for option in ["--serve", "-l", "--listen"] {
            let config = serve_of(&format!("{option}|{address}"));
            assert_eq!(config.listen, want, "{option} {address}");
        }
    }
    check(":9000", None, 9000);
    check("9000", None, 9000);
    check(":0", None, 0);
    check("0", None, 0);
    check("65535", None, 65535);
    check("127.0.0.1:9000", Some("127.0.0.1"), 9000);
    check("0.0.0.0:1", Some("0.0.0.0"), 1);
    check("[::1]:9000", Some("::1"), 9000);
    check("[::]:0", Some("::"), 0);
    assert_eq!(serve_of("--serve|systemd").listen, Listen::Systemd);
    let config = serve_of("--serve=:9000|-c|2|--direct|never|--no-pin|--cpus|1");
    assert_eq!((config.connections_max, config.direct), (128, DirectPolicy::Never));
    assert_eq!(config.workers, WorkersConfig { count: Some(2), cpus: Some(vec![1]), pin: false });
    assert_eq!(serve_of("--serve|:1|--connections|4").connections_max, 4);
    assert_eq!(serve_of("--serve|:1").key_file, None);
    assert_eq!(serve_of("--serve|:1|--key-file|k").key_file, Some("k".into()));
    assert_eq!(serve_of("--serve|:1").audit_log, None);
    assert_eq!(serve_of("--serve|:1|--audit-log|l").audit_log, Some("l".into()));
    assert!(
        matches!(invoke("--check|--serve|systemd").command, Command::Check(config) if config.listen == Listen::Systemd)
    );
}

#[test]
fn a_key_is_made_or_its_public_line_shown() {
    #[track_caller]
    fn check(line: &str, want_file: Option<&str>, want_public: bool) {
        let Command::Keygen { key_file, public } = invoke(line).command else { panic!("{line}") };
        assert_eq!((key_file, public), (want_file.map(PathBuf::from), want_public), "{line}");
    }
    check("--keygen", None, false);
    check("--public|--keygen", None, true);
    check("--keygen|--key-file=k|--public", Some("k"), true);
}

#[test]
fn a_server_serves_what_it_is_told() {
    #[track_caller]
    fn check(options: &str, served: Served, read_only: bool, no_delete: bool, run_as: Option<&str>) {
        let config = serve_of(&format!("--serve|:1{options}"));
        assert_eq!(config.served, served, "{options}");
        assert_eq!(config.access, Access { below: Vec::new(), read_only, no_delete }, "{options}");
        assert_eq!(config.run_as.as_deref(), run_as, "{options}");
    }
    let directory = |path: &str| Served::Directory(path.into());
    check("", Served::Everything, false, false, None);
    check("|--root|/srv", directory("/srv"), false, false, None);
    check("|--root=srv|--read-only|--no-delete", directory("srv"), true, true, None);
    check("|--root|./a=b|--run-as|www-data", directory("./a=b"), false, false, Some("www-data"));
    let named = |name: &str, path: &str| (name.as_bytes().to_vec(), path.into());
    check("|--root|a=/srv/a=b", Served::Named(vec![named("a", "/srv/a=b")]), false, false, None);
    let both = Served::Named(vec![named("a", "/srv/a"), named("b c", "b")]);
    check("|--root|a=/srv/a|--root|b c=b", both, false, false, None);
}

#[test]
fn a_usage_error_says_what_is_wrong_with_what_was_typed() {
    #[track_caller]
    fn check(line: &str, want: &str) {
        let text = refusal_of(line).0.failures[0].to_string();
        assert!(text.contains(want), "{line}: {text}");
        assert!(!text.contains('\n') && !text.contains("\\n"), "{line}: {text}");
    }
    check("", "SOURCE and TARGET are missing");
    check("-n", "SOURCE and TARGET are missing");
    check("a", "a: only one path is given");
    check("a|b|c|d", "c: more than two paths");
    check("--serve|:1|a", "a: a server is given no paths");
    check("-h|a", "a: only one path is given");
    check("--keygen|a", "a: a key is made of no paths");
    check("--keygen|--serve|:1", "cannot be used with");
    check("--public", "--keygen");
    check("--check|a|b", "--serve <ADDRESS>");
    check("--yes|a|b", "were not provided: --benchmark <COUNT>");
    check("--key-file", "a value is required for '--key-file <FILE>'");
    check("a|host:/path", "host:/path: pdcp needs a port: host:9000:/path");
    check("h:1:a|h:2:b", "h:1:a: is remote, and so is h:2:b");
    check("/|b", "/: is a directory");
    check("--jsom|a|b", "unexpected argument '--jsom' found; tip: a similar argument exists: '--json'");
    check("--serve|:1|--root|/a|--root|/b", "of several --root each needs a name");
    check("--serve|:1|--root|a=/a|--root|/b", "of several --root each needs a name");
    check("--serve|:1|--root|a=/a|--root|a=/b", "two --root have the name a");
    for root in ["", "a=", "=/a", "..=/a", ".=/a"] {
        check(&format!("--serve|:1|--root={root}"), "to serve is");
    }
    for option in ["--root|/a", "--read-only", "--no-delete", "--run-as|nobody", "--audit-log|l"] {
        check(&format!("{option}|a|b"), "--serve <ADDRESS>");
    }
    check("-B|a|b", "invalid value 'a' for '--benchmark <COUNT>'");
    check("-B|0|a|b", "0 is not in 1..=100");
    check("-B|101|a|b", "101 is not in 1..=100");
    check("-B|2|-n|a|b", "cannot be used with '--dry-run'");
    check("-B|2|--serve|:1", "cannot be used with");
    check("--yes|a|b", "--benchmark <COUNT>");
    check("--rsync-source|h:/a|a|b", "--benchmark <COUNT>");
    check("-Z|a|b", "unexpected argument '-Z' found");
    check("--no|a|b", "unexpected argument '--no' found");
    for size in ["1x", "", "K", "-5", "1e3", "0", "0.9", "0KiB"] {
        check(&format!("-b|{size}|a|b"), "a size is like 4096, 64KiB or 1.5M");
    }
    check("-b", "a value is required for '--block-size <SIZE>'");
    check("-m|sha9|a|b", "invalid value 'sha9' for '--hash-method <METHOD>'");
    check("-m|shake_128|a|b", "possible values: blake3");
    check("--direct|maybe|a|b", "possible values: auto, always, never");
    for connections in ["0", "-1", "129", "x", "1.5", "99999999999999999999"] {
        check(&format!("--connections|{connections}|a|b"), "--connections <N>");
    }
    for workers in ["0", "-1", "257", "x", ""] {
        check(&format!("-c|{workers}|a|b"), "--concurrency <N>");
    }
    for cpus in ["", ",", "1-", "-1", "3-1", "0-1024", "0-99999999999", "1,,2", "a", "+1"] {
        check(&format!("--cpus={cpus}|a|b"), "cores are listed like 0-3,8");
    }
    for address in
        ["", ":", "localhost:9000", "::1:9000", "[::1]", "[1.2.3.4]:9", ":65536", ":+1", "1.2.3.4", "a b", "Systemd"]
    {
        check(&format!("--serve={address}"), "listen on :PORT");
    }
    for option in ["-n", "-W", "-b|1", "-m|xxh3", "--verify", "--inplace", "--no-fsync"] {
        check(&format!("--serve|:1|{option}"), "'--serve <ADDRESS>'");
    }
}

#[test]
fn only_who_gave_the_wrong_number_of_paths_is_shown_the_forms() {
    #[track_caller]
    fn check(line: &str, want: &str) {
        assert_eq!(refusal_of(line).1, want);
    }
    check("", FORMS);
    check("a", FORMS);
    check("a|b|c", FORMS);
    check("--serve|:1|a", FORMS);
    check("--bogus", SEE_HELP);
    check("host:/path|b", "");
}

#[test]
fn a_refusal_keeps_what_was_understood() {
    let (summary, _) = refusal_of("-n|host:/path|b");
    assert_eq!(
        (summary.dry_run, &summary.source[..], &summary.target[..]),
        (Some(true), &b"host:/path"[..], &b"b"[..])
    );
    let (summary, _) = refusal_of("-n|--bogus|a|b");
    assert_eq!((summary.dry_run, &summary.source[..], &summary.target[..]), (None, &b""[..], &b""[..]));
}

#[test]
fn json_is_heard_also_beside_nonsense() {
    #[track_caller]
    fn check(line: &str, want: bool) {
        assert_eq!(invoke(line).json, want, "{line}");
    }
    check("--json|a|b", true);
    check("a|b|--json", true);
    check("--json", true);
    check("--bogus|--json", true);
    check("--json|-b|0|a|b", true);
    check("--bogus|--|--json", false);
    check("--bogus", false);
    check("a|b", false);
}

#[test]
fn verbosity_is_times_v_less_times_q() {
    #[track_caller]
    fn check(options: &str, want: i32) {
        assert_eq!(invoke(&format!("a|h:1:b{options}")).verbosity, want, "{options}");
    }
    check("", 0);
    check("|-v", 1);
    check("|-vv|--verbose", 3);
    check("|-q", -1);
    check("|-qv", 0);
    check("|--quiet|-q", -2);
}

#[test]
fn a_block_size_that_is_not_taken_literally_is_noted() {
    #[track_caller]
    fn check(size: &str, want: &[&str]) {
        assert_eq!(invoke(&format!("-b|{size}|a|h:1:b")).notes, want);
    }
    check("4KiB", &[]);
    check("1MiB", &[]);
    check("1", &["block size 1 is taken as 4 KiB: a block is a power of two from 4 KiB to 1 MiB"]);
    check("5K", &["block size 5000 is taken as 8 KiB: a block is a power of two from 4 KiB to 1 MiB"]);
    check("1M", &["block size 1000000 is taken as 1024 KiB: a block is a power of two from 4 KiB to 1 MiB"]);
    check("2MiB", &["block size 2097152 is taken as 1024 KiB: that is the largest block"]);
    assert!(invoke("a|h:1:b").notes.is_empty());
}

#[test]
fn h_is_help_only_without_paths() {
    #[track_caller]
    fn check_help(line: &str) {
        let help = said_by(line);
        assert!(help.contains("pdcp --serve :9000"), "{line}: {help}");
        assert!(help.contains("--block-size <SIZE>"), "{line}: {help}");
    }
    check_help("-h");
    check_help("-nh");
    check_help("--help");
    check_help("--help|a|b");
    check_help("a|b|--help");
    check_help("-h|--help|a|b");
    assert!(!copy_of("-h|a|h:1:b").dry_run);
    assert!(copy_of("a|h:1:b|-nh").dry_run);
    assert_eq!(said_by("-V"), said_by("--version"));
    assert_eq!(said_by("-V"), format!("pdcp {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_fits_a_terminal() {
    for line in said_by("--help").lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
    <Typed as clap::CommandFactory>::command().debug_assert();
}
