//! The rules of the house, checked in every file of the tree: what one crate and its lints cannot enforce.
//!
//! A rule looks at one file, its path from the root of the repository and its text, and says which lines break it. Each
//! has a test of its own with a text that does: a rule that cannot fail is none.

mod tokens;

use std::path::Path;
use tokens::{Token, tokens};

/// The modules of `src`, from the ground up: a file names only floors below its own. The words, one floor to the
/// reader, are in an order of their own. Above all, and named by nobody, are `lib`, `main` and the simulator.
const FLOORS: &[&[&str]] = &[
    &["limits"],
    &["extent"],
    &["method"],
    &["digest"],
    &["delta"],
    &["path"],
    &["entry"],
    &["failure"],
    &["counters"],
    &["bottleneck"],
    &["completion"],
    &["seal"],
    &["wire", "ring", "threads", "root"],
    &["session", "tree"],
    &["worker"],
    &["control"],
    &["cli", "report"],
    &["lib", "main", "sim"],
];

/// Words that may stand in one place of `src` only.
const HOMES: &[(&str, &str)] = &[
    ("unsafe", "src/ring/"),
    ("io_uring", "src/ring/"),
    ("libc", "src/ring/"),
    ("tokio_uring", "src/control/link.rs"),
    ("tokio", "src/control/"),
    ("rustls", "src/control/"),
    ("bincode", "src/wire/message.rs"),
    ("landlock", "src/root/wall.rs"),
    ("fearless_simd", "src/digest/lanes.rs"),
    // Whoever opens a name, or follows one, does it where a jail may be in the way.
    ("openat2", "src/root/jail.rs"),
    ("openat", "src/root/"),
    ("readlinkat", "src/root/"),
    ("mkdirat", "src/root/"),
    ("renameat_with", "src/root/"),
    ("linkat", "src/root/"),
    ("unlinkat", "src/root/"),
];

/// Who prints.
const MOUTHS: &[&str] = &["src/report/mod.rs", "src/main.rs"];

/// Where nothing is read, written or timed, and what would.
const PURE: &[&str] = &["src/session", "src/wire"];
const IMPURE_OF_STD: &[&str] = &["fs", "net"];
const IMPURE: &[&str] = &["Instant", "SystemTime", "rustix"];

/// Longer files have more than one thing to say. Guessed.
const LINES_MAX: usize = 800;
/// Lines of a file's first comment. The map of the house, `lib.rs`, takes what it needs.
const INTRODUCTION_LINES_MAX: usize = 12;

/// What is larger was not written by hand: a disk image that somebody tries the program on.
const BYTES_MAX: u64 = 1 << 20;
/// Directories that are made, not written.
const MADE: &[&str] = &[".git", "target", "artifacts", "corpus"];
/// How paths of the machines begin that this was written on. In two parts, so as not to find themselves.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/var/tm", "p/w"), concat!("/ro", "ot/")];
/// Marks of unfinished work, in comments as well.
const UNFINISHED_MARKS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X")];

/// Looks at one file, `path` and `text`.
type Rule = fn(&str, &str) -> Vec<Complaint>;

#[derive(Debug)]
struct Complaint {
    line: usize,
    what: String,
}

const RULES: &[Rule] = &[
    it_begins_with_what_it_is,
    it_names_lower_floors_only,
    it_leaves_words_at_home,
    it_leaves_printing_to_the_mouth,
    it_is_pure_where_it_should_be,
    it_is_finished,
    it_is_not_too_long,
    it_names_no_machine,
    it_gives_a_reason_for_each_dependency,
];

#[test]
fn the_house_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    list(root, &mut paths);
    let mut complaints = Vec::new();
    for file in &paths {
        let path = file.strip_prefix(root).unwrap().to_string_lossy();
        let text = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        for Complaint { line, what } in RULES.iter().flat_map(|rule| rule(&path, &text)) {
            complaints.push(format!("{path}:{line}: {what}"));
        }
    }
    assert!(paths.contains(&root.join("src/lib.rs")), "looked in the wrong place");
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn list(directory: &Path, paths: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() && !MADE.contains(&entry.file_name().to_string_lossy().as_ref()) {
            list(&entry.path(), paths);
        } else if kind.is_file() && entry.metadata().unwrap().len() <= BYTES_MAX {
            paths.push(entry.path());
        }
    }
}

// --- the rules ---

fn it_begins_with_what_it_is(path: &str, text: &str) -> Vec<Complaint> {
    let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
    if !path.ends_with(".rs") {
        vec![]
    } else if lines == 0 {
        complaint(1, "begins without `//!`: what it is, what always holds, what is not here")
    } else if lines > INTRODUCTION_LINES_MAX && path != "src/lib.rs" {
        complaint(INTRODUCTION_LINES_MAX + 1, "introduces itself in more than a dozen lines")
    } else {
        vec![]
    }
}

fn it_names_lower_floors_only(path: &str, text: &str) -> Vec<Complaint> {
    let Some(own) = module(path) else { return vec![] };
    let floor = |module: &str| FLOORS.iter().position(|floor| floor.contains(&module));
    let Some(own_floor) = floor(own) else { return complaint(1, "is on no floor: see FLOORS in tidy.rs") };
    let tokens = tokens(text);
    let mut complaints = Vec::new();
    for named in ["crate", "pdcp"].iter().flat_map(|root| children(&tokens, root)) {
        match floor(named.text) {
            _ if named.text == own => (),
            None => complaints.extend(complaint(named.line, format!("names `{}`, which is on no floor", named.text))),
            Some(floor) if floor < own_floor => (),
            Some(_) => complaints.extend(complaint(named.line, format!("names `{}`, not below it", named.text))),
        }
    }
    // `super` would be a way around: below a module's own top file one step stays inside, two may not.
    let is_top = path == format!("src/{own}.rs") || path == format!("src/{own}/mod.rs");
    let around: &[&str] = if is_top { &["super", ":", ":"] } else { &["super", ":", ":", "super"] };
    for line in lines_with(product(path, &tokens), around) {
        complaints.extend(complaint(line, "says `super::` where it means `crate::`"));
    }
    complaints
}

fn it_leaves_words_at_home(path: &str, text: &str) -> Vec<Complaint> {
    if module(path).is_none() {
        return vec![];
    }
    let tokens = tokens(text);
    let mut complaints = Vec::new();
    for (word, home) in HOMES.iter().filter(|(_, home)| !path.starts_with(home)) {
        for line in lines_with(&tokens, &[word]) {
            complaints.extend(complaint(line, format!("says `{word}`, which belongs in {home}")));
        }
    }
    complaints
}

fn it_leaves_printing_to_the_mouth(path: &str, text: &str) -> Vec<Complaint> {
    if module(path).is_none() || MOUTHS.contains(&path) {
        return vec![];
    }
    let tokens = tokens(text);
    let mut complaints = Vec::new();
    for print in ["print", "println", "eprint", "eprintln", "dbg"] {
        for line in lines_with(product(path, &tokens), &[print, "!"]) {
            complaints.extend(complaint(line, format!("prints by `{print}!`: only {} do", MOUTHS.join(" and "))));
        }
    }
    complaints
}

fn it_is_pure_where_it_should_be(path: &str, text: &str) -> Vec<Complaint> {
    if !PURE.iter().any(|pure| path.starts_with(pure)) {
        return vec![];
    }
    let tokens = tokens(text);
    let of_std = children(&tokens, "std").into_iter().filter(|named| IMPURE_OF_STD.contains(&named.text));
    let words = tokens.iter().filter(|token| IMPURE.contains(&token.text)).copied();
    let complain =
        |named: Token| complaint(named.line, format!("names `{}`, but does no I/O, reads no clock", named.text));
    of_std.chain(words).flat_map(complain).collect()
}

fn it_is_finished(path: &str, text: &str) -> Vec<Complaint> {
    if !path.ends_with(".rs") {
        return vec![];
    }
    let tokens = tokens(text);
    let mut complaints = Vec::new();
    for unfinished in [&["todo", "!"][..], &["unimplemented", "!"], &["#", "[", "ignore"]] {
        for line in lines_with(&tokens, unfinished) {
            complaints.extend(complaint(line, format!("has a `{}`", unfinished.concat())));
        }
    }
    for (line, content) in numbered(text) {
        for mark in UNFINISHED_MARKS.iter().filter(|mark| content.contains(**mark)) {
            complaints.extend(complaint(line, format!("has a mark of unfinished work: {mark}")));
        }
    }
    complaints
}

fn it_is_not_too_long(path: &str, text: &str) -> Vec<Complaint> {
    if path.ends_with(".rs") && text.lines().count() > LINES_MAX {
        return complaint(LINES_MAX + 1, format!("goes on after {LINES_MAX} lines"));
    }
    vec![]
}

fn it_names_no_machine(_: &str, text: &str) -> Vec<Complaint> {
    // What begins in the midst of a word is no absolute path: `src/root/mod.rs`.
    let begins = |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || "_.-~".contains(c));
    let mut complaints = Vec::new();
    for (line, content) in numbered(text) {
        for path in MACHINE_PATHS {
            if content.match_indices(path).any(|(at, _)| begins(&content[..at])) {
                complaints.extend(complaint(line, format!("names {path}, a place on one machine")));
            }
        }
    }
    complaints
}

fn it_gives_a_reason_for_each_dependency(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut listing = false;
    let mut reason_above = false;
    for (line, content) in numbered(text).filter(|_| path.ends_with("Cargo.toml")) {
        if content.starts_with('[') {
            listing = content.contains("dependencies]");
            if content.contains("dependencies.") {
                complaints.extend(complaint(line, "write a dependency as one line, with its reason"));
            }
        } else if listing && content.contains(" = ") && !content.contains(" # ") && !reason_above {
            complaints.extend(complaint(line, "a dependency without a reason"));
        }
        reason_above = content.starts_with('#');
    }
    complaints
}

// --- what they are made of ---

fn complaint(line: usize, what: impl Into<String>) -> Vec<Complaint> {
    vec![Complaint { line, what: what.into() }]
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines())
}

/// The module of the top level that a file of `src` belongs to.
fn module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    inside.strip_suffix(".rs")?.split('/').next()
}

/// What a file has for its users, without the tests at its end (that nothing follows them, clippy sees to).
fn product<'t, 'a>(path: &str, tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    if module(path) == Some("sim") || path.ends_with("/tests.rs") || path.contains("/tests/") {
        return &[];
    }
    let tests = ["#", "[", "cfg", "(", "test", ")", "]", "mod", "tests", "{"];
    let end = starts(tokens, &tests).next().unwrap_or(tokens.len());
    &tokens[..end]
}

fn starts(tokens: &[Token], wanted: &[&str]) -> impl Iterator<Item = usize> {
    let matches = move |window: &[Token]| window.iter().map(|token| token.text).eq(wanted.iter().copied());
    (0..).zip(tokens.windows(wanted.len())).filter(move |(_, window)| matches(window)).map(|(index, _)| index)
}

fn lines_with(tokens: &[Token], wanted: &[&str]) -> Vec<usize> {
    starts(tokens, wanted).map(|index| tokens[index].line).collect()
}

/// The names directly behind `root::`, also where it is `root::{a, b::c}`.
fn children<'a>(tokens: &[Token<'a>], root: &str) -> Vec<Token<'a>> {
    starts(tokens, &[root, ":", ":"]).flat_map(|index| group(&tokens[index + 3..])).collect()
}

fn group<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut name_is_next = true;
    for token in tokens {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => name_is_next = true,
            _ if name_is_next => {
                names.push(*token);
                name_is_next = false;
            }
            _ => (),
        }
        if depth == 0 {
            break;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: Rule, path: &str, text: &str, want_lines: &[usize]) {
        let complaints = rule(path, text);
        let lines: Vec<_> = complaints.iter().map(|complaint| complaint.line).collect();
        assert_eq!(lines, want_lines, "{complaints:?}");
    }

    #[test]
    fn a_file_without_an_introduction_or_with_a_long_one_is_found() {
        let rule = it_begins_with_what_it_is;
        check(rule, "src/wire/mod.rs", "//! Frames.\n", &[]);
        check(rule, "src/wire/mod.rs", "", &[1]);
        check(rule, "src/wire/mod.rs", "\n//! Frames.\n", &[1]);
        check(rule, "src/wire/mod.rs", "// Frames.\n", &[1]);
        check(rule, "src/wire/mod.rs", &"//! Frames.\n".repeat(12), &[]);
        check(rule, "src/wire/mod.rs", &"//! Frames.\n".repeat(13), &[13]);
        check(rule, "src/lib.rs", &"//! The map.\n".repeat(13), &[]);
        check(rule, "README.md", "# pdcp\n", &[]);
    }

    #[test]
    fn a_file_that_names_its_own_floor_or_a_higher_one_is_found() {
        let rule = it_names_lower_floors_only;
        check(rule, "src/session/target.rs", "use crate::wire::Frame;\nuse crate::session::Role;", &[]);
        check(rule, "src/session/target.rs", "\nuse crate::tree::Plan;", &[2]);
        check(rule, "src/wire/frame.rs", "fn f(_: crate::session::Role) {}", &[1]);
        check(rule, "src/wire/mod.rs", "use crate::{limits::*, root::{Root, session}, extent};", &[1]);
        check(rule, "src/delta.rs", "use crate::digest::Signature;", &[]);
        check(rule, "src/extent.rs", "use crate::digest::Digest;", &[1]);
        check(rule, "src/extent.rs", "// crate::worker\nconst TEXT: &str = \"crate::worker\";", &[]);
        check(rule, "src/report/mod.rs", "use pdcp::control::Summary;\nuse pdcp::cli::Cli;", &[2]);
        check(rule, "src/worker/mod.rs", "use crate::sim::Sim;", &[1]);
        check(rule, "src/worker/mod.rs", "use crate::helper::help;", &[1]);
        check(rule, "src/helper.rs", "//! Helps.", &[1]);
        check(rule, "src/main.rs", "use pdcp::cli;", &[]);
    }

    #[test]
    fn a_way_around_the_floors_is_found() {
        let rule = it_names_lower_floors_only;
        check(rule, "src/wire/frame.rs", "use super::codec;", &[]);
        check(rule, "src/wire/frame.rs", "use super::super::session;", &[1]);
        check(rule, "src/wire/mod.rs", "use super::session;", &[1]);
        check(rule, "src/path.rs", "use super::wire;", &[1]);
        check(rule, "src/path.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n}", &[]);
    }

    #[test]
    fn a_word_away_from_home_is_found() {
        let rule = it_leaves_words_at_home;
        for (word, home, elsewhere) in [
            ("unsafe", "src/ring/mod.rs", "src/root.rs"),
            ("io_uring", "src/ring/setup.rs", "src/worker/mod.rs"),
            ("libc", "src/ring/mod.rs", "src/root.rs"),
            ("tokio_uring", "src/control/link.rs", "src/control/client.rs"),
            ("tokio", "src/control/client.rs", "src/worker/mod.rs"),
            ("rustls", "src/control/identity/tls.rs", "src/seal.rs"),
            ("bincode", "src/wire/message.rs", "src/wire/frame.rs"),
            ("openat2", "src/root/jail.rs", "src/root/place.rs"),
            ("unlinkat", "src/root/commit.rs", "src/control/server.rs"),
        ] {
            let text = format!("// {word}\n{word}::f();\nlet {word}_code = \"{word}\";");
            check(rule, home, &text, &[]);
            check(rule, elsewhere, &text, &[2]);
        }
    }

    #[test]
    fn printing_away_from_the_mouth_is_found() {
        let rule = it_leaves_printing_to_the_mouth;
        for print in ["print", "println", "eprint", "eprintln", "dbg"] {
            let text = format!("\n{print}!(\"\");");
            check(rule, "src/worker/mod.rs", &text, &[2]);
            check(rule, "src/report/mod.rs", &text, &[]);
            check(rule, "tests/pdcp/push.rs", &text, &[]);
            check(rule, "src/worker/mod.rs", &format!("#[cfg(test)]\nmod tests {{\n{text}\n}}"), &[]);
            check(rule, "src/sim.rs", &text, &[]);
        }
    }

    #[test]
    fn io_and_clocks_in_the_machines_and_the_wire_are_found() {
        let rule = it_is_pure_where_it_should_be;
        check(rule, "src/session/source.rs", "use std::fs;", &[1]);
        check(rule, "src/session/source.rs", "use std::{fmt, net::TcpStream};", &[1]);
        check(rule, "src/wire/mod.rs", "use std::time::Instant;", &[1]);
        check(rule, "src/wire/mod.rs", "std::time::SystemTime::now();", &[1]);
        check(rule, "src/wire/mod.rs", "rustix::fs::fsync(f);", &[1]);
        check(rule, "src/wire/mod.rs", "use std::time::Duration;", &[]);
        check(rule, "src/control/link.rs", "use std::net::TcpStream;", &[]);
    }

    #[test]
    fn unfinished_work_is_found() {
        let rule = it_is_finished;
        check(rule, "src/wire/mod.rs", "fn f() {\n    todo!()\n}", &[2]);
        check(rule, "src/wire/mod.rs", "unimplemented!(\"later\")", &[1]);
        check(rule, "tests/pdcp/push.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}", &[2]);
        check(rule, "src/wire/mod.rs", "let todo = ignore;", &[]);
        for mark in UNFINISHED_MARKS {
            check(rule, "src/wire/mod.rs", &format!("\n// {mark} later"), &[2]);
        }
    }

    #[test]
    fn a_long_file_is_found() {
        check(it_is_not_too_long, "src/wire/mod.rs", &"\n".repeat(LINES_MAX), &[]);
        check(it_is_not_too_long, "src/wire/mod.rs", &"\n".repeat(LINES_MAX + 1), &[LINES_MAX + 1]);
        check(it_is_not_too_long, "Cargo.lock", &"\n".repeat(LINES_MAX + 1), &[]);
    }

    #[test]
    fn a_place_on_one_machine_is_found() {
        for path in MACHINE_PATHS {
            check(it_names_no_machine, "README.md", &format!("\ncd {path}main"), &[2]);
            check(it_names_no_machine, "README.md", &format!("host:9000:{path}main"), &[1]);
            check(it_names_no_machine, "README.md", &format!("see src{path}mod.rs"), &[]);
        }
    }

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        let rule = it_gives_a_reason_for_each_dependency;
        check(rule, "Cargo.toml", "[dependencies]\nblake3 = \"1\" # every digest\n", &[]);
        check(rule, "Cargo.toml", "[dependencies]\n# every digest\nblake3 = \"1\"\n", &[]);
        check(rule, "Cargo.toml", "[dependencies]\nblake3 = \"1\"\n", &[2]);
        check(rule, "Cargo.toml", "[target.'cfg(unix)'.dependencies]\nblake3 = \"1\"\n", &[2]);
        check(rule, "fuzz/Cargo.toml", "[dev-dependencies]\n\nblake3 = \"1\"\n", &[3]);
        check(rule, "Cargo.toml", "[dependencies.blake3]\nversion = \"1\"\n", &[1]);
        check(rule, "Cargo.toml", "[package]\nname = \"pdcp\"\n", &[]);
    }
}
