//! The key file: where it is found, when it is refused, how it is made.

use super::super::error::{IdentityError, LineError, Problem};
use super::super::key::KeyTextError;
use super::*;
use crate::control::own::Flaw;
use crate::limits::{KEY_FILE_BYTES_MAX, KEYS_MAX};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::ffi::OsString;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, symlink};
use std::sync::Barrier;

fn am_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn place(path: &Path, environment: &[(&str, &str)]) -> KeyPlace {
    KeyPlace::find_in(Some(path), &lookup(environment)).unwrap()
}

fn lookup(environment: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
    let environment: Vec<_> = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    move |name| environment.iter().find(|(set, _)| set == name).map(|(_, value)| value.into())
}

#[test]
fn the_first_place_that_is_named_counts() {
    #[track_caller]
    fn check(asked: Option<&str>, environment: &[(&str, &str)], want: Option<&str>) {
        let found = KeyPlace::find_in(asked.map(Path::new), &lookup(environment));
        assert_eq!(found.as_ref().ok().map(|place| place.path()), want.map(Path::new), "{asked:?} {environment:?}");
    }
    let handed = Home::new(&[]);
    handed.write("pdcp-key", "");
    let handed_key = handed.path("pdcp-key");
    let (credentials, handed_key) = (handed.0.path().to_str().unwrap(), handed_key.to_str().unwrap());
    let all = [
        ("PDCP_KEY_FILE", "named"),
        ("CREDENTIALS_DIRECTORY", credentials),
        ("XDG_CONFIG_HOME", "/config"),
        ("HOME", "/home/u"),
    ];
    check(Some("asked"), &all, Some("asked"));
    check(None, &all, Some("named"));
    check(None, &all[1..], Some(handed_key));
    check(None, &all[2..], Some("/config/pdcp/key"));
    check(None, &all[3..], Some("/home/u/.config/pdcp/key"));
    check(None, &[], None);
    check(None, &[("PDCP_KEY_FILE", ""), ("XDG_CONFIG_HOME", ""), ("HOME", "/h")], Some("/h/.config/pdcp/key"));
    // A relative one would mean another file in every directory.
    check(None, &[("XDG_CONFIG_HOME", "config"), ("HOME", "/h")], Some("/h/.config/pdcp/key"));
    check(None, &[("HOME", "h")], None);
    // Credentials for somebody else.
    check(None, &[("CREDENTIALS_DIRECTORY", "/nonexistent"), ("HOME", "/h")], Some("/h/.config/pdcp/key"));
}

#[test]
fn a_service_without_a_home_is_told_what_to_do() {
    let failure = Failure::from(KeyPlace::find_in(None, &lookup(&[])).unwrap_err());
    for told in ["--key-file", "PDCP_KEY_FILE", "LoadCredential=pdcp-key:"] {
        assert!(failure.text.contains(told), "{failure}");
    }
}

#[test]
fn a_key_file_that_others_reach_or_that_is_none_is_refused() {
    #[track_caller]
    fn check(make: impl FnOnce(&Path), want: &Problem, told: &str) {
        let home = Home::new(&[&Secret::random()]);
        let path = home.path("key");
        make(&path);
        let error = place(&path, &[]).load().unwrap_err();
        assert_eq!(error, want.clone().about(&path));
        assert!(error.problem.to_string().contains(told), "{}", error.problem);
        // Nor is it replaced by a server that would make one.
        if *want != Problem::Flaw(Flaw::Missing) {
            assert_eq!(ServerIdentity::load(Some(&path)).unwrap_err(), error.into());
        }
    }
    let mode = |mode| move |path: &Path| set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    check(remove, &Problem::Flaw(Flaw::Missing), "--keygen");
    for shared in [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o4711, 0o777] {
        check(mode(shared), &Problem::Flaw(Flaw::Readable { mode: shared }), &format!("has mode {shared:03o}"));
    }
    check(
        |path| {
            std::fs::rename(path, path.with_file_name("other")).unwrap();
            symlink("other", path).unwrap();
        },
        &Problem::Flaw(Flaw::Symlink),
        "symbolic link",
    );
    let fifo = |path: &Path| {
        remove(path);
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    };
    check(fifo, &Problem::Flaw(Flaw::NotRegular), "regular");
    let directory = |path: &Path| {
        remove(path);
        std::fs::DirBuilder::new().mode(0o700).create(path).unwrap();
    };
    check(directory, &Problem::Flaw(Flaw::NotRegular), "regular");
    let socket = |path: &Path| {
        remove(path);
        drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    };
    check(socket, &Problem::Flaw(Flaw::NotRegular), "regular");
    if am_root() {
        check(
            |path| chown(path, Some(12345), None).unwrap(),
            &Problem::Flaw(Flaw::Foreign { owner: 12345, own: 0 }),
            "user 12345",
        );
    }
}

#[test]
fn a_directory_where_others_could_exchange_the_key_is_refused() {
    #[track_caller]
    fn check(mode: u32, want: Option<&Problem>) {
        let home = Home::new(&[&Secret::random()]);
        set_permissions(home.0.path(), Permissions::from_mode(mode)).unwrap();
        let want = want.map(|problem| problem.clone().about(home.0.path()));
        assert_eq!(place(&home.path("key"), &[]).load().err(), want, "{mode:03o}");
        assert_eq!(place(&home.path("new"), &[]).make().err(), want, "{mode:03o}");
    }
    check(0o700, None);
    check(0o755, None);
    check(0o1777, None);
    check(0o775, Some(&Problem::Flaw(Flaw::Writable { mode: 0o775 })));
    check(0o757, Some(&Problem::Flaw(Flaw::Writable { mode: 0o757 })));
    if am_root() {
        let home = Home::new(&[&Secret::random()]);
        chown(home.0.path(), Some(12345), None).unwrap();
        let want = Problem::Flaw(Flaw::Foreign { owner: 12345, own: 0 }).about(home.0.path());
        assert_eq!(place(&home.path("key"), &[]).load().unwrap_err(), want);
    }
}

#[test]
fn what_systemd_hands_over_is_taken_as_it_comes() {
    #[track_caller]
    fn check(mode: u32, want: Option<&Problem>) {
        let home = Home::new(&[&Secret::random()]);
        let path = home.path("key");
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let directory = home.0.path().to_str().unwrap();
        let found = place(&path, &[("CREDENTIALS_DIRECTORY", directory)]).load();
        assert_eq!(found.err().map(|error| error.problem).as_ref(), want, "{mode:03o}");
    }
    check(0o400, None);
    check(0o440, None);
    check(0o600, None);
    check(0o444, Some(&Problem::Flaw(Flaw::Readable { mode: 0o444 })));
    check(0o460, Some(&Problem::Flaw(Flaw::Readable { mode: 0o460 })));
    check(0o450, Some(&Problem::Flaw(Flaw::Readable { mode: 0o450 })));
}

#[test]
fn a_text_that_is_no_key_file_is_refused_by_its_line() {
    #[track_caller]
    fn check(text: &str, want: Result<usize, Problem>) {
        let home = Home::empty();
        let found = place(&home.write("key", text), &[]).load();
        assert_eq!(found.map(|secrets| secrets.len()).map_err(|error| error.problem), want, "{text:?}");
    }
    let line = |number, error| Err(Problem::Line(number, error));
    let secrets: Vec<_> = (0..=KEYS_MAX).map(|_| Secret::random().text().to_string()).collect();
    let [one, two, ..] = &secrets[..] else { unreachable!() };
    check(one, Ok(1));
    check(&format!("{one}\n"), Ok(1));
    check(&format!("# a comment\n\n  {one}\t# mine\n#\n{two}"), Ok(2));
    check(&secrets[..KEYS_MAX].join("\n"), Ok(KEYS_MAX));
    check(&secrets.join("\n"), line(KEYS_MAX + 1, LineError::TooManyKeys));
    check("", Err(Problem::Empty));
    check("\n# nothing\n", Err(Problem::Empty));
    check(&format!("{one}\n{two}\n{one}\n"), line(3, LineError::KeyTwice));
    check(&format!("{one} {two}\n"), line(1, LineError::Beside));
    check(&format!("\n{one} mine\n"), line(2, LineError::Beside));
    check(&format!("{one}\r\n"), line(1, LineError::Control));
    check(&format!("{one}\n\0"), line(2, LineError::Control));
    check(&format!("{one}\n# \x1b[2J\n"), line(2, LineError::Control));
    check(&one[1..], line(1, LineError::Key(KeyTextError::NoKey)));
    check(&one[..one.len() - 1], line(1, LineError::Key(KeyTextError::Damaged)));
    check(&Secret::random().public().to_string(), line(1, LineError::Key(KeyTextError::Public)));
    check(&"-----BEGIN OPENSSH PRIVATE KEY-----\n".repeat(2), line(1, LineError::Beside));
    let padding = "#".repeat(KEY_FILE_BYTES_MAX - one.len() - 1);
    check(&format!("{one}\n{padding}"), Ok(1));
    check(&format!("{one}\n{padding}#"), Err(Problem::TooLong { bytes_max: KEY_FILE_BYTES_MAX }));
    let home = Home::empty();
    write(home.path("key"), b"\xff").unwrap();
    set_permissions(home.path("key"), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(place(&home.path("key"), &[]).load().unwrap_err().problem, Problem::Line(1, LineError::NotText));
}

#[test]
fn a_refusal_never_shows_a_secret() {
    let secret = Secret::random().text();
    let home = Home::empty();
    for text in [format!("{} {}", *secret, *secret), secret[1..].into(), secret[..secret.len() - 1].into()] {
        let error = place(&home.write("key", &text), &[]).load().unwrap_err();
        let shown = format!("{error:?} {}", Failure::from(error.clone()));
        assert!(!shown.contains(&secret[20..30]), "{shown}");
    }
}

#[test]
fn a_server_makes_the_key_once_and_only_for_its_user() {
    let home = Home::empty();
    let path = home.path("config/pdcp/key");
    let made = ServerIdentity::load(Some(&path)).unwrap();
    assert_eq!(made.made(), Some(&*path));
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
    for directory in [path.parent().unwrap(), &home.path("config")] {
        assert_eq!(directory.metadata().unwrap().mode() & 0o7777, 0o700);
    }
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    let again = ServerIdentity::load(Some(&path)).unwrap();
    assert_eq!((again.made(), &again.keys.public), (None, &made.keys.public));
    assert_eq!(ClientIdentity::load(Some(&path)).unwrap().keys.public, made.keys.public);
}

#[test]
fn a_client_makes_no_key() {
    let home = Home::empty();
    let failure = ClientIdentity::load(Some(&home.path("pdcp/key"))).unwrap_err();
    assert!(failure.text.contains("copy the server's key file"), "{failure}");
    assert!(!home.path("pdcp").exists());
}

#[test]
fn a_key_is_not_made_under_another_users_directory() {
    if am_root() {
        let home = Home::empty();
        chown(home.0.path(), Some(12345), None).unwrap();
        let error = place(&home.path("pdcp/key"), &[]).load_or_make().unwrap_err();
        assert_eq!(error, Problem::Flaw(Flaw::Foreign { owner: 12345, own: 0 }).about(home.0.path()));
    }
}

#[test]
fn servers_that_start_at_once_agree_on_one_key() {
    const SERVERS: usize = 8;
    for _ in 0..20 {
        let home = Home::empty();
        let path = home.path("pdcp/key");
        let start = Barrier::new(SERVERS);
        let load = || {
            start.wait();
            let identity = ServerIdentity::load(Some(&path)).unwrap();
            (identity.keys.presented.public().to_string(), identity.made().is_some())
        };
        let found: Vec<_> = std::thread::scope(|scope| {
            let servers: Vec<_> = (0..SERVERS).map(|_| scope.spawn(load)).collect();
            servers.into_iter().map(|server| server.join().unwrap()).collect()
        });
        assert!(found.iter().all(|(key, _)| *key == found[0].0), "{found:?}");
        assert_eq!(found.iter().filter(|(_, made)| *made).count(), 1, "{found:?}");
        assert_eq!(std::fs::read_dir(home.path("pdcp")).unwrap().count(), 1);
    }
}

#[test]
fn keygen_makes_a_key_once_and_shows_the_public_one() {
    let home = Home::empty();
    let path = home.path("pdcp/key");
    assert!(keygen(Some(&path), true).unwrap_err().text.contains("there is no key"));
    let said = keygen(Some(&path), false).unwrap();
    let public = keygen(Some(&path), true).unwrap();
    let key = PublicKey::parse(&public).unwrap();
    assert_eq!(said, format!("key {} made: {}", key.fingerprint(), path.display()));
    let before = std::fs::read(&path).unwrap();
    assert!(keygen(Some(&path), false).unwrap_err().text.contains("exists and is kept"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_failed_file_names_itself() {
    let error = IdentityError { path: "/k".into(), problem: Problem::Line(3, LineError::KeyTwice) };
    assert_eq!(Failure::from(error).to_string(), "/k: line 3 has a key that an earlier line has");
}
