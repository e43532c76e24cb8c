//! One end of a copy as typed: a path on this host, or a path on a server.
//!
//! A colon before the first `/` makes a name remote, as rsync has it, also where a local file has that name: what a
//! command means must not depend on what happens to exist. Names are bytes, nothing is decoded. Every refusal shows the
//! right form made of the user's own words.

use crate::control::{Place, Remote};
use crate::failure::{Failure, Kind};
use crate::limits::PATH_BYTES_MAX;
use std::ffi::OsStr;
use std::fs::metadata;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What source and target mean, and that they make sense together. What has to be asked of a server, or may change
/// before the copy begins, is for `control` to find out.
pub(super) fn pair(source_typed: &OsStr, target_typed: &OsStr) -> Result<(Place, Place), Failure> {
    let source = place(source_typed)?;
    let target = place(target_typed)?;
    let about_source = |text: String| Err(Failure::about(Kind::Usage, source_typed.as_bytes(), text));
    match (&source, &target) {
        (Place::Remote(there), Place::Remote(_)) => {
            let (there, target) = (shown(&there.path), shown(target_typed.as_bytes()));
            let text = format!("is remote, and so is {target}; run pdcp on one of the hosts: pdcp {there} {target}");
            about_source(text)
        }
        (Place::Local(here), _) if here.is_dir() => {
            about_source("is a directory; pdcp copies one file: name it".into())
        }
        (Place::Local(here), Place::Local(there)) => match same_file(here, there) {
            Some(same) => about_source(format!("is the same file as {}", shown(same.as_os_str().as_bytes()))),
            None => Ok((source, target)),
        },
        _ => Ok((source, target)),
    }
}

/// The file that a copy would both read and write, by the target's name for it: one that is a directory takes the source's.
fn same_file(source: &Path, target: &Path) -> Option<PathBuf> {
    let identity = |path: &Path| metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let inside = source.file_name().map(|name| target.join(name)).filter(|_| target.is_dir());
    let target = inside.unwrap_or_else(|| target.to_owned());
    identity(source).filter(|source| identity(&target) == Some(*source)).map(|_| target)
}

pub(super) fn place(typed: &OsStr) -> Result<Place, Failure> {
    let bytes = typed.as_bytes();
    let remote = match bytes {
        b"" => Err("an empty name is no file; give a file's name, or HOST:PORT:PATH".into()),
        b"-" => Err("pdcp copies files, not standard input or output; a file of this name is ./-".into()),
        _ => match scheme(bytes) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"pdcp") => url(rest),
            Some((scheme, rest)) => Err(other_scheme(scheme, rest)),
            None if !split_at(bytes, b'/').0.contains(&b':') => return Ok(Place::Local(PathBuf::from(typed))),
            None => colons(bytes).map_err(|text| format!("{text}; a local file is ./{}", shown(bytes))),
        },
    };
    remote.map(Place::Remote).map_err(|text| Failure::about(Kind::Usage, bytes, text))
}

/// HOST:PORT:PATH.
fn colons(typed: &[u8]) -> Result<Remote, String> {
    if let Some(form) = bare_ipv6(typed) {
        return Err(format!("an IPv6 address goes in brackets: {form}"));
    }
    let (host, rest) = split_host(typed);
    if host.is_empty() {
        return Err(format!("the host is missing: localhost{}", shown(typed)));
    }
    let (port, path) = split_at(rest, b':');
    let path = path.strip_prefix(b":").unwrap_or(path);
    // `host:/path`, `host:path` and `host::module/path` are rsync's: what follows the host is all path.
    let first = rest.iter().position(|&byte| byte != b':').unwrap_or(rest.len());
    let (port, path) = if is_number(port) { (port, path) } else { (&b""[..], &rest[first..]) };
    remote(host, port, path, |host, port, path| format!("{host}:{port}:{path}"))
}

/// What follows `pdcp://`.
fn url(rest: &[u8]) -> Result<Remote, String> {
    let (authority, path) = split_at(rest, b'/');
    let (host, port) = split_host(authority);
    remote(host, port, path, |host, port, path| format!("pdcp://{host}:{port}{path}"))
}

/// A remote of its parts; `form` writes them as the user should have.
fn remote(host: &[u8], port: &[u8], path: &[u8], form: fn(&str, &str, &str) -> String) -> Result<Remote, String> {
    // With zeros before it, what looks like an address without brackets would be none.
    let port_number = shown(port).parse().ok().filter(|_: &u16| is_number(port) && !port.starts_with(b"0"));
    let right = |host: &str| {
        let port = port_number.map_or("9000".into(), |number| number.to_string());
        let path = if path.is_empty() { "/path".into() } else { shown(path) };
        form(host, &port, &path)
    };
    let Some(name) = host_name(host) else {
        return Err(format!("'{}' is no host name or address; a remote is like {}", shown(host), right("host")));
    };
    let right = right(&shown(host));
    match port_number {
        None if port.is_empty() => Err(format!("pdcp needs a port: {right}")),
        None => Err(format!("a port is a number from 1 to 65535: {right}")),
        Some(_) if path.is_empty() => Err(format!("the path is missing: {right}")),
        Some(_) if path.len() > PATH_BYTES_MAX => Err(format!("a path has at most {PATH_BYTES_MAX} bytes")),
        Some(port) => Ok(Remote { host: name, port, path: path.to_vec() }),
    }
}

/// The host as typed, an IPv6 address with its brackets, and what follows the colon after it.
fn split_host(text: &[u8]) -> (&[u8], &[u8]) {
    let end = if text.starts_with(b"[") { text.iter().position(|&byte| byte == b']').map(|at| at + 1) } else { None };
    let (host, rest) = match end {
        Some(end) => text.split_at(end),
        None => split_at(text, b':'),
    };
    (host, rest.strip_prefix(b":").unwrap_or(rest))
}

/// What the resolver is asked for. A name never begins with `-`: it may once become another program's argument.
fn host_name(typed: &[u8]) -> Option<String> {
    let host = str::from_utf8(typed).ok()?;
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        // A zone is the name of an interface, or its number.
        let (unscoped, zone) = address.split_once('%').unwrap_or((address, "none"));
        let is_zone = !zone.is_empty() && zone.chars().all(|c| c.is_ascii_graphic());
        return (is_zone && unscoped.parse::<Ipv6Addr>().is_ok()).then(|| address.to_owned());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!host.is_empty() && !host.starts_with('-') && host.chars().all(allowed)).then(|| host.to_owned())
}

/// The right form where an IPv6 address came without its brackets: `::1:9000:/path`, `::1:/path`.
fn bare_ipv6(typed: &[u8]) -> Option<String> {
    let (head, path) = split_at(typed, b'/');
    let head = str::from_utf8(head.strip_suffix(b":")?).ok()?;
    let path = shown(path);
    let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    match head.rsplit_once(':') {
        Some((address, port)) if is_address(address) && is_number(port.as_bytes()) => {
            Some(format!("[{address}]:{port}:{path}"))
        }
        _ => is_address(head).then(|| format!("[{head}]:9000:{path}")),
    }
}

/// `http` of `http://...`, and what follows the slashes.
fn scheme(typed: &[u8]) -> Option<(&[u8], &[u8])> {
    let (scheme, rest) = split_at(typed, b':');
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let rest = rest.strip_prefix(b"://")?;
    (scheme.first()?.is_ascii_alphabetic() && scheme.iter().all(allowed)).then_some((scheme, rest))
}

fn other_scheme(scheme: &[u8], rest: &[u8]) -> String {
    let (authority, path) = split_at(rest, b'/');
    let (scheme, path) = (shown(scheme), if path.is_empty() { "/path".into() } else { shown(path) });
    if authority.is_empty() {
        return format!("{scheme}:// is not spoken here; a local file is {path}");
    }
    let (host, port) = split_host(authority);
    let port = if is_number(port) { shown(port) } else { "9000".into() };
    format!("{scheme}:// is not spoken here, only pdcp://: pdcp://{}:{port}{path}", shown(host))
}

/// What is before the first `separator`, and the rest that begins with it; all and nothing where there is none.
fn split_at(text: &[u8], separator: u8) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|&byte| byte == separator).unwrap_or(text.len()))
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Control characters are left for [`Failure`] to escape.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_colon_before_its_first_slash_is_local() {
        #[track_caller]
        fn check(typed: &[u8]) {
            let typed = OsStr::from_bytes(typed);
            assert_eq!(place(typed), Ok(Place::Local(typed.into())));
        }
        check(b"a");
        check(b"/a");
        check(b"./a:1:b");
        check(b"dir/host:9000:/p");
        check(b"/a:1:b");
        check(b"./-");
        check(b"--x");
        check(b"dir/");
        check(b"[x]");
        check(b"./http://h/p");
        check(b" ");
        check(b"\xff\n\xfe");
        check(&[b'n'; 255]);
    }

    #[test]
    fn a_remote_is_host_port_path_with_nothing_decoded() {
        #[track_caller]
        fn check(typed: &[u8], host: &str, port: u16, path: &[u8]) {
            let want = Remote { host: host.into(), port, path: path.into() };
            assert_eq!(place(OsStr::from_bytes(typed)), Ok(Place::Remote(want)));
        }
        check(b"host:9000:/path", "host", 9000, b"/path");
        check(b"host:9000:path", "host", 9000, b"path");
        check(b"host:1:p", "host", 1, b"p");
        check(b"host:65535:p", "host", 65535, b"p");
        check(b"host:9000:a:b", "host", 9000, b"a:b");
        check(b"host:9000::", "host", 9000, b":");
        check(b"127.0.0.1:9000:/a b%20?c#d", "127.0.0.1", 9000, b"/a b%20?c#d");
        check(b"my-host_1.example:9000:dir/", "my-host_1.example", 9000, b"dir/");
        check(b"[::1]:9000:/p", "::1", 9000, b"/p");
        check(b"[fe80::1%eth0]:9000:/p", "fe80::1%eth0", 9000, b"/p");
        check(b"host:9000:/\xff", "host", 9000, b"/\xff");
        check(b"pdcp://host:9000/path", "host", 9000, b"/path");
        check(b"PDCP://host:9000/", "host", 9000, b"/");
        check(b"pdcp://host:9000//p", "host", 9000, b"//p");
        check(b"pdcp://[::1]:9000/p:q", "::1", 9000, b"/p:q");
        check(&[&b"h:9:"[..], &[b'p'; PATH_BYTES_MAX]].concat(), "h", 9, &[b'p'; PATH_BYTES_MAX]);
    }

    #[test]
    fn a_refusal_shows_the_right_form_in_the_users_own_words() {
        #[track_caller]
        fn check(typed: &str, want: &str) {
            let failure = place(OsStr::new(typed)).unwrap_err();
            assert_eq!(failure.kind, Kind::Usage);
            assert_eq!(failure.to_string(), want);
        }
        let port = "pdcp needs a port";
        let number = "a port is a number from 1 to 65535";
        check("", "an empty name is no file; give a file's name, or HOST:PORT:PATH");
        check("-", "-: pdcp copies files, not standard input or output; a file of this name is ./-");
        check("host:/path", &format!("host:/path: {port}: host:9000:/path; a local file is ./host:/path"));
        check("host:path", &format!("host:path: {port}: host:9000:path; a local file is ./host:path"));
        check("a:b:c", &format!("a:b:c: {port}: a:9000:b:c; a local file is ./a:b:c"));
        check("host::mod/p", &format!("host::mod/p: {port}: host:9000:mod/p; a local file is ./host::mod/p"));
        check("host:", &format!("host:: {port}: host:9000:/path; a local file is ./host:"));
        check("host:+9:/p", &format!("host:+9:/p: {port}: host:9000:+9:/p; a local file is ./host:+9:/p"));
        check("[::1]", &format!("[::1]: {port}: [::1]:9000:/path; a local file is ./[::1]"));
        check("[::1]/p", &format!("[::1]/p: {port}: [::1]:9000:/p; a local file is ./[::1]/p"));
        check("h:0:/p", &format!("h:0:/p: {number}: h:9000:/p; a local file is ./h:0:/p"));
        check("h:01:/p", &format!("h:01:/p: {number}: h:9000:/p; a local file is ./h:01:/p"));
        check("h:65536:/p", &format!("h:65536:/p: {number}: h:9000:/p; a local file is ./h:65536:/p"));
        check("h:9000", "h:9000: the path is missing: h:9000:/path; a local file is ./h:9000");
        check("h:9000:", "h:9000:: the path is missing: h:9000:/path; a local file is ./h:9000:");
        check(":9000:/p", ":9000:/p: the host is missing: localhost:9000:/p; a local file is ./:9000:/p");
        let host = "is no host name or address; a remote is like";
        check("me@h:1:/p", &format!("me@h:1:/p: 'me@h' {host} host:1:/p; a local file is ./me@h:1:/p"));
        check("-h:1:/p", &format!("-h:1:/p: '-h' {host} host:1:/p; a local file is ./-h:1:/p"));
        check("[x]:1:/p", &format!("[x]:1:/p: '[x]' {host} host:1:/p; a local file is ./[x]:1:/p"));
        check("[::1%]:1:/p", &format!("[::1%]:1:/p: '[::1%]' {host} host:1:/p; a local file is ./[::1%]:1:/p"));
        check("[::1% 0]:1:/p", &format!("[::1% 0]:1:/p: '[::1% 0]' {host} host:1:/p; a local file is ./[::1% 0]:1:/p"));
        check("a b:c", &format!("a b:c: 'a b' {host} host:9000:c; a local file is ./a b:c"));
        let brackets = "an IPv6 address goes in brackets";
        check("::1:9000:/p", &format!("::1:9000:/p: {brackets}: [::1]:9000:/p; a local file is ./::1:9000:/p"));
        check("fe80::1:/p", &format!("fe80::1:/p: {brackets}: [fe80::1]:9000:/p; a local file is ./fe80::1:/p"));
        check(
            "1:2:3:4:5:6:7:8:9:/p",
            &format!(
                "1:2:3:4:5:6:7:8:9:/p: {brackets}: [1:2:3:4:5:6:7:8]:9:/p; a local file is ./1:2:3:4:5:6:7:8:9:/p"
            ),
        );
        check("pdcp://h/p", &format!("pdcp://h/p: {port}: pdcp://h:9000/p"));
        check("pdcp://h:/p", &format!("pdcp://h:/p: {port}: pdcp://h:9000/p"));
        check("pdcp://h:x/p", &format!("pdcp://h:x/p: {number}: pdcp://h:9000/p"));
        check("pdcp://h:70000/p", &format!("pdcp://h:70000/p: {number}: pdcp://h:9000/p"));
        check("pdcp://h:7", "pdcp://h:7: the path is missing: pdcp://h:7/path");
        check("pdcp:///p", &format!("pdcp:///p: '' {host} pdcp://host:9000/p"));
        let spoken = "is not spoken here";
        check("http://h:8080/p", &format!("http://h:8080/p: http:// {spoken}, only pdcp://: pdcp://h:8080/p"));
        check("https://h", &format!("https://h: https:// {spoken}, only pdcp://: pdcp://h:9000/path"));
        check("rsync://h/m/p", &format!("rsync://h/m/p: rsync:// {spoken}, only pdcp://: pdcp://h:9000/m/p"));
        check("http://[::1]/p", &format!("http://[::1]/p: http:// {spoken}, only pdcp://: pdcp://[::1]:9000/p"));
        check("file:///p", &format!("file:///p: file:// {spoken}; a local file is /p"));
        let long = format!("h:9:{}", "p".repeat(PATH_BYTES_MAX + 1));
        check(&long, &format!("{long}: a path has at most 4096 bytes; a local file is ./{long}"));
    }

    #[test]
    fn a_source_and_a_target_must_make_sense_together() {
        let scratch = tempfile::tempdir().unwrap();
        let name = |tail: &str| format!("{}/{tail}", scratch.path().display());
        std::fs::create_dir(name("dir")).unwrap();
        std::fs::write(name("dir/a"), "").unwrap();
        std::fs::write(name("b"), "").unwrap();
        std::fs::hard_link(name("b"), name("b2")).unwrap();
        std::os::unix::fs::symlink("b", name("b3")).unwrap();
        let check = |source: &str, target: &str, want: Option<&str>| {
            let told = pair(OsStr::new(source), OsStr::new(target)).err().map(|failure| failure.text);
            assert_eq!(told.as_deref(), want, "{source} {target}");
        };
        let directory = "is a directory; pdcp copies one file: name it";
        check(&name("b"), &name("new"), None);
        check(&name("missing"), &name("b"), None);
        check(&name("b"), &name("dir"), None);
        check(&name("b"), "h:1:/dir/", None);
        check("h:1:/p", &name("dir"), None);
        check(&name("dir"), "h:1:/p", Some(directory));
        check(&name("dir/"), &name("new"), Some(directory));
        check("h:1:/dir/", &name("b"), None); // whether it is one, the server knows
        check("h:1:/p", "i:2:/q", Some("is remote, and so is i:2:/q; run pdcp on one of the hosts: pdcp /p i:2:/q"));
        for same in ["b", "b2", "b3", "dir/../b"] {
            check(&name("b"), &name(same), Some(&format!("is the same file as {}", name(same))));
        }
        for directory in ["dir", "dir/"] {
            check(&name("dir/a"), &name(directory), Some(&format!("is the same file as {}", name("dir/a"))));
        }
    }
}
