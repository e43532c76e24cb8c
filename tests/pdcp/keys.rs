//! Keys from the command line: how one is made, where it is looked for, what a check of a server says.

use crate::rig::{Process, Run, Server, is_root, pdcp};
use rustix::process::Signal;
use std::fs::{Permissions, create_dir, create_dir_all, set_permissions, write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;

/// Runs it as a user with this home and these variables.
#[track_caller]
fn run_at(home: &Path, variables: &[(&str, &Path)], arguments: &[&str]) -> Run {
    let mut command = pdcp(arguments);
    for unset in ["PDCP_KEY_FILE", "CREDENTIALS_DIRECTORY", "XDG_CONFIG_HOME"] {
        command.env_remove(unset);
    }
    command.env("HOME", home).envs(variables.iter().copied());
    Process::start(command).wait()
}

#[test]
fn a_key_is_made_once_and_its_public_line_is_all_that_is_printed() {
    let home = TempDir::new().unwrap();
    let key = home.path().join(".config/pdcp/key");
    let before = run_at(home.path(), &[], &["--keygen", "--public"]);
    assert_eq!((before.code, &before.stdout[..]), (5, ""), "{before}");
    before.tells("there is no key");
    assert!(!key.exists());

    let made = run_at(home.path(), &[], &["--keygen"]);
    assert_eq!(made.code, 0, "{made}");
    assert!(made.stdout.starts_with("key ") && made.stdout.ends_with(&format!(" made: {}\n", key.display())), "{made}");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o7777, 0o600);

    let public = run_at(home.path(), &[], &["--keygen", "--public"]);
    assert_eq!((public.code, &public.stderr[..]), (0, ""), "{public}");
    assert!(public.stdout.starts_with("pdcp1-public-") && public.stdout.lines().count() == 1, "{public}");

    let again = run_at(home.path(), &[], &["--keygen"]);
    assert_eq!(again.code, 5, "{again}");
    again.tells("exists and is kept");
    assert_eq!(run_at(home.path(), &[], &["--keygen", "--public"]).stdout, public.stdout);
}

#[test]
fn the_key_file_is_looked_for_where_it_is_named() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    let public = |variables: &[(&str, &Path)], arguments: &[&str]| {
        run_at(home.path(), variables, &[&["--keygen", "--public"], arguments].concat()).stdout
    };
    let made = |name: &str| {
        assert_eq!(run_at(home.path(), &[("PDCP_KEY_FILE", &path(name))], &["--keygen"]).code, 0);
        public(&[], &["--key-file", path(name).to_str().unwrap()])
    };
    let (named, handed, config) = (made("named"), made("credentials/pdcp-key"), made("config/pdcp/key"));
    let (named_path, credentials, config_path) = (path("named"), path("credentials"), path("config"));
    let all: [(&str, &Path); 3] =
        [("PDCP_KEY_FILE", &named_path), ("CREDENTIALS_DIRECTORY", &credentials), ("XDG_CONFIG_HOME", &config_path)];
    assert_eq!(public(&all, &[]), named);
    assert_eq!(public(&all[1..], &[]), handed);
    assert_eq!(public(&all[2..], &[]), config);
    assert_eq!(public(&all, &["--key-file", path("config/pdcp/key").to_str().unwrap()]), config);
}

#[test]
fn a_check_says_whom_a_server_would_serve_or_why_it_would_not() {
    let home = TempDir::new().unwrap();
    let key = home.path().join("key");
    let check = |options: &[&str]| {
        let arguments = [&["--serve", ":9000", "--check", "--key-file", key.to_str().unwrap()], options].concat();
        run_at(home.path(), &[], &arguments)
    };
    let none = check(&[]);
    assert_eq!((none.code, key.exists()), (0, false), "{none}");
    assert!(none.stdout.contains("would make a key"), "{none}");

    run_at(home.path(), &[("PDCP_KEY_FILE", &key)], &["--keygen"]);
    let some = check(&[]);
    assert_eq!(some.code, 0, "{some}");
    assert!(some.stdout.contains("port 9000 of all addresses") && some.stdout.contains("whoever has "), "{some}");

    write(home.path().join("authorized_keys"), "\nrw\n").unwrap();
    let wrong = check(&["--json"]);
    wrong.ends_with(5);
    wrong.tells("authorized_keys: line 2 has a word that is none of");

    set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let shared = check(&[]);
    assert_eq!(shared.code, 5, "{shared}");
    shared.tells("has mode 644, so others can reach the key");
}

/// Trigger: `root=` with a mistake in it. The check said that all is well, and the key's user was refused later.
#[test]
fn a_directory_that_cannot_be_served_is_told_by_the_check_and_at_the_start() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let key = path("key");
    let public = |key: &str| {
        run_at(home.path(), &[], &["--keygen", "--key-file", key]);
        run_at(home.path(), &[], &["--keygen", "--public", "--key-file", key]).stdout.trim_end().to_owned()
    };
    let (guest, _) = (public(&path("guest")), public(&key));
    create_dir(path("served")).unwrap();
    create_dir(path("served/alice")).unwrap();
    write(path("served/file"), "").unwrap();
    symlink("..", path("served/up")).unwrap();
    let check = |served: Option<&str>, below: &str, want: Option<&str>| {
        write(path("authorized_keys"), format!("{guest} root={below}\n")).unwrap();
        let mut options = vec!["--serve", "127.0.0.1:0", "--check", "--json", "--key-file", &key];
        options.extend(served.iter().flat_map(|served| ["--root", served]));
        let ran = run_at(home.path(), &[], &options);
        let Some(want) = want else { return assert_eq!(ran.code, 0, "{ran}") };
        ran.ends_with(2);
        ran.tells(want);
        if served.is_none_or(|served| Path::new(served).is_dir()) {
            options.retain(|option| *option != "--check");
            let server = Server::of(pdcp(&options));
            server.process.signal(Signal::TERM);
            let said = server.process.wait();
            said.tells("warning: ");
            said.tells(want);
        }
    };
    let served = path("served");
    check(Some(&served), "/alice", None);
    check(Some(&served), "/", None);
    check(Some(&served), "/bob", Some("/bob: cannot be served to key"));
    check(Some(&served), "/bob", Some("no such file or directory"));
    check(Some(&served), "/file", Some("/file: cannot be served to key"));
    check(Some(&served), "/up", Some("leads out of the directory that is served"));
    check(None, &path("served/alice"), None);
    check(None, &path("served/bob"), Some("cannot be served to key"));
    check(Some(&path("missing")), "/", Some("missing: cannot be served: no such file or directory"));
    check(Some(&path("served/file")), "/", Some("cannot be served"));
}

/// Trigger: a guest who may read, or one whose root has the server's directory of keys in it. Damage: he had the server's key,
/// and with it all that its owner may do. Cure: what is the server's own is nobody's source or target.
#[test]
fn a_server_serves_neither_its_keys_nor_its_lists_nor_its_log() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    create_dir(path("own")).unwrap();
    assert_eq!(run_at(home.path(), &[("PDCP_KEY_FILE", &path("own/key"))], &["--keygen"]).code, 0);
    let key = std::fs::read(path("own/key")).unwrap();
    std::fs::copy(path("own/key"), path("key")).unwrap(); // the client's
    std::fs::hard_link(path("own/key"), path("twin")).unwrap();
    symlink("own/key", path("link")).unwrap();
    write(path("own/other"), "other").unwrap();
    write(path("mine"), "mine").unwrap();
    let (whole, log) = (home.path().to_str().unwrap(), path("log"));
    for root in [&[][..], &["--root", whole]] {
        let mut command = pdcp(&["--serve", "127.0.0.1:0", "-c", "1", "--audit-log", log.to_str().unwrap()]);
        command.args(root).env("PDCP_KEY_FILE", path("own/key"));
        let server = Server::of(command);
        let remote = |name: &str| {
            let below = if root.is_empty() { path(name).to_str().unwrap().to_owned() } else { name.to_owned() };
            format!("127.0.0.1:{}:{below}", server.port)
        };
        let copy = |source: &str, target: &str, want: i32| {
            let mut command = pdcp(&["-c", "1", source, target]);
            command.env("PDCP_KEY_FILE", path("key"));
            let run = Process::start(command).wait();
            assert_eq!(run.code, want, "{run}");
            if want == 5 {
                run.tells("which it never serves");
            }
        };
        let (mine, back) = (path("mine"), path("back"));
        let (mine, back) = (mine.to_str().unwrap(), back.to_str().unwrap());
        for name in ["own/key", "twin", "link", "log"] {
            copy(&remote(name), back, 5);
            copy(mine, &remote(name), 5);
        }
        for name in ["own/authorized_keys", "own/known_servers"] {
            copy(mine, &remote(name), 5);
            assert!(!path(name).exists(), "{name}");
        }
        copy(&remote("own/other"), back, 0);
        copy(mine, &remote("own/other"), 0);
        // Exchanged while it runs: what has the name now is one of them, too.
        std::fs::rename(path("own/key"), path("own/old")).unwrap();
        write(path("own/key"), "new").unwrap();
        copy(&remote("own/key"), back, 5);
        copy(&remote("own/old"), back, 5);
        std::fs::rename(path("own/old"), path("own/key")).unwrap();
        server.process.signal(Signal::TERM);
        server.process.wait();
        assert_eq!(std::fs::read(path("own/key")).unwrap(), key);
        assert!(std::fs::read_to_string(&log).unwrap().lines().count() > 10);
        std::fs::remove_file(&log).unwrap();
        std::fs::remove_file(back).unwrap();
    }
}

/// Trigger: a `root=` to which only root can go, and `--run-as`. Damage: the check passed it, and the server, which opened it as
/// the user that it had become, refused the key. Cure: it is held before, as every root is.
#[test]
fn a_guests_directory_may_be_where_only_root_can_go() {
    if !is_root() {
        return eprintln!("SKIPPED: a directory where only root can go: needs root");
    }
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    let (key, guest) = (path("server/key"), path("guest/key"));
    let public = |key: &Path| run_at(home.path(), &[("PDCP_KEY_FILE", key)], &["--keygen", "--public"]).stdout;
    for key in [&key, &guest] {
        assert_eq!(run_at(home.path(), &[("PDCP_KEY_FILE", key)], &["--keygen"]).code, 0);
    }
    write(path("server/authorized_keys"), format!("root=/closed/open {}", public(&guest))).unwrap();
    create_dir_all(path("served/closed/open")).unwrap();
    write(path("served/closed/open/file"), "public").unwrap();
    set_permissions(path("served/closed"), Permissions::from_mode(0o700)).unwrap();
    let served = path("served").display().to_string();
    let options = ["--serve", "127.0.0.1:0", "--root", &served, "--run-as", "nobody"];
    let checked = run_at(home.path(), &[("PDCP_KEY_FILE", &key)], &[&options[..], &["--check"]].concat());
    assert_eq!(checked.code, 0, "{checked}");
    let mut command = pdcp(&options);
    command.env("PDCP_KEY_FILE", &key);
    let server = Server::of(command);
    write(path("guest/known_servers"), format!("127.0.0.1:{} {}", server.port, public(&key))).unwrap();
    let (back, remote) = (path("back"), format!("127.0.0.1:{}:file", server.port));
    let run = run_at(home.path(), &[("PDCP_KEY_FILE", &guest)], &[&remote, back.to_str().unwrap()]);
    assert_eq!(run.code, 0, "{run}");
    assert_eq!(std::fs::read_to_string(back).unwrap(), "public");
}

/// Trigger: a guest owns a part of the way to its `root=`, moves it aside while the server runs, and puts a link there. Damage:
/// it was served what the link led to. Cure: the directory is opened at the start, and held.
#[test]
fn a_guest_who_moves_its_directory_stays_in_it() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name);
    let key_of = |name: &str| ("PDCP_KEY_FILE", path(name).join("key"));
    for name in ["server", "guest", "drop", "private"] {
        create_dir(path(name)).unwrap();
    }
    for name in ["server", "guest"] {
        let (variable, key) = key_of(name);
        assert_eq!(run_at(home.path(), &[(variable, &key)], &["--keygen"]).code, 0);
    }
    let public = |name| {
        let (variable, key) = key_of(name);
        run_at(home.path(), &[(variable, &key)], &["--keygen", "--public"]).stdout.trim().to_owned()
    };
    write(path("server/authorized_keys"), format!("{} root=/drop", public("guest"))).unwrap();
    write(path("private/file"), "secret").unwrap();
    write(path("drop/file"), "public").unwrap();
    let mut command = pdcp(&["--serve", "127.0.0.1:0", "-c", "1", "--root", home.path().to_str().unwrap()]);
    let (variable, key) = key_of("server");
    command.env(variable, key);
    let server = Server::of(command);
    write(path("guest/known_servers"), format!("127.0.0.1:{} {}", server.port, public("server"))).unwrap();
    let pull = || {
        let (back, remote) = (path("back"), format!("127.0.0.1:{}:file", server.port));
        let (variable, key) = key_of("guest");
        let run = run_at(home.path(), &[(variable, &key)], &["-c", "1", &remote, back.to_str().unwrap()]);
        assert_eq!(run.code, 0, "{run}");
        std::fs::read_to_string(back).unwrap()
    };
    assert_eq!(pull(), "public");
    std::fs::rename(path("drop"), path("moved")).unwrap();
    symlink("private", path("drop")).unwrap();
    assert_eq!(pull(), "public");
}
