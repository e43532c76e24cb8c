//! The audit log of a server (`--audit-log`): a line of JSON for each session, and for each caller who was not let in.
//!
//! The file is opened once, as it must be for a file of our own, before the server gives up rights and confines itself: it
//! could not be opened again afterwards. So it is not: who rotates it truncates it, and what is appended next begins at its
//! new end. Its keys are in README.md. A log that cannot be written stops no session.

use super::own::{self, Flaw, OwnError, Rights};
use super::{Direction, Record};
use crate::bottleneck::Limit;
use crate::completion::Errno;
use crate::failure::{Failure, Kind, harmless_json, raw};
use crate::seal::Sealing;
use rustix::fs::OFlags;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

/// Version of the lines. A key may be added without a new one; none changes or goes.
const SCHEMA: u32 = 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Audit {
    file: File,
    /// Lines that could not be written, and of which the log does not know yet.
    unwritten: u64,
    /// The file may end within a line.
    torn: bool,
}

impl Audit {
    /// Opens it, and makes it if need be.
    ///
    /// # Errors
    /// Where it is not as a file of our own must be.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let file = own::open(path, Rights::Log, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?;
        Ok(Self { file, unwritten: 0, torn: false })
    }

    /// Whether it could be opened. Makes nothing.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn check(path: &Path) -> Result<(), Failure> {
        match own::open(path, Rights::Log, OFlags::WRONLY | OFlags::APPEND) {
            Err(OwnError { flaw: Flaw::Missing, path: missing }) if missing == path => Ok(()),
            found => Ok(found.map(drop)?),
        }
    }

    /// Appends the line of a record. What everybody should know, if anything.
    pub(super) fn append(&mut self, record: &Record) -> Option<String> {
        self.append_for(1, &line(record))
    }

    /// Appends that so many of something have no line. What everybody should know, if anything.
    pub(super) fn append_count(&mut self, count: u64, what: &'static str) -> Option<String> {
        self.append_for(count, &missing(count, what))
    }

    /// Appends a line that tells of so many. Where it cannot be written they are counted, and the first line that can be says so.
    fn append_for(&mut self, count: u64, line: &str) -> Option<String> {
        let failed_before = self.unwritten > 0;
        let error = self.make_up().and_then(|()| self.write(line)).err()?;
        self.unwritten += count;
        let text = format!("warning: the audit log lacks lines, as it cannot be written: {}", Errno::from(error));
        (!failed_before).then_some(text)
    }

    fn make_up(&mut self) -> io::Result<()> {
        if self.unwritten > 0 {
            self.write(&missing(self.unwritten, "lines are missing here; they could not be written"))?;
            self.unwritten = 0;
        }
        Ok(())
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let line = if self.torn { format!("\n{line}\n") } else { format!("{line}\n") };
        // In one write, so that lines of several servers do not mix.
        let written = self.file.write(line.as_bytes())?;
        let whole = written == line.len();
        self.torn = !whole && (self.torn || written > 0);
        if whole { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
    }
}

/// So many of something have no line.
#[derive(Serialize)]
struct Missing {
    r#type: &'static str,
    schema: u32,
    at: String,
    count: u64,
    message: &'static str,
}

fn missing(count: u64, message: &'static str) -> String {
    let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let line = Missing { r#type: "missing", schema: SCHEMA, at, count, message };
    serde_json::to_string(&line).expect("strings and numbers only")
}

#[derive(Serialize)]
struct Line<'a> {
    r#type: &'static str,
    schema: u32,
    began: String,
    elapsed_seconds: f64,
    peer: String,
    key: Option<String>,
    direction: Option<&'static str>,
    path: Option<String>,
    path_raw: Option<String>,
    dry_run: Option<bool>,
    status: &'static str,
    exit_code: u8,
    changed_bytes: Option<u64>,
    limit: Option<&'static str>,
    sealing: Option<&'static str>,
    kind: Option<&'a Kind>,
    message: Option<String>,
}

/// Without the newline, of which it contains none.
fn line(record: &Record) -> String {
    let (done, failure) = (record.outcome.as_ref().ok(), record.outcome.as_ref().err());
    let request = record.request.as_ref();
    let line = Line {
        r#type: if request.is_some() { "session" } else { "refused" },
        schema: SCHEMA,
        began: humantime::format_rfc3339_millis(record.began).to_string(),
        elapsed_seconds: record.elapsed.as_secs_f64(),
        peer: record.peer.to_string(),
        key: record.key.map(|key| key.to_string()),
        direction: request.map(|request| request.direction).map(Direction::name),
        path: request.map(|request| String::from_utf8_lossy(&request.path).into_owned()),
        path_raw: request.and_then(|request| raw(&request.path)),
        dry_run: request.map(|request| request.dry_run),
        status: failure.map_or("ok", |failure| failure.kind.status()),
        exit_code: failure.map_or(0, |failure| failure.kind.exit_code()),
        changed_bytes: done.map(|done| done.changed_bytes),
        limit: done.and_then(|done| done.limit).map(Limit::name),
        sealing: record.sealing.map(Sealing::name),
        kind: failure.map(|failure| &failure.kind),
        message: record.trouble(),
    };
    harmless_json(&serde_json::to_string(&line).expect("strings and numbers only"))
}

#[cfg(test)]
mod tests {
    use super::super::identity::Fingerprint;
    use super::super::{Done, Request};
    use super::*;
    use crate::failure::steers;
    use crate::seal::Cipher;
    use std::time::{Duration, SystemTime};

    fn record(request: Option<Request>, outcome: Result<Done, Failure>) -> Record {
        let began = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_391_413_341);
        let (elapsed, peer) = (Duration::from_millis(1500), "10.0.0.7:5".parse().unwrap());
        Record { began, elapsed, peer, key: None, request, sealing: None, outcome }
    }

    /// The same of somebody who has proved who he is.
    fn known(record: Record) -> Record {
        Record { key: Some(Fingerprint(0x9eb4_69ae_c95e_7768_u64.to_be_bytes())), ..record }
    }

    #[test]
    fn a_line_has_every_key_in_the_written_order() {
        #[track_caller]
        fn check(record: &Record, want: &str) {
            let want: String = want.lines().map(str::trim).collect();
            assert_eq!(line(record), want);
        }
        let request = |path: &[u8]| Some(Request { direction: Direction::Push, path: path.into(), dry_run: false });
        let done = Done { changed_bytes: 7, limit: Some(Limit::TargetDisk) };
        check(
            &Record { sealing: Some(Sealing::Sealed(Cipher::Aes256Gcm)), ..known(record(request(b"/a"), Ok(done))) },
            r#"{"type":"session","schema":1,"began":"2026-11-22T23:50:13.341Z","elapsed_seconds":1.5,"peer":"10.0.0.7:5",
            "key":"9eb469aec95e7768","direction":"push","path":"/a","path_raw":null,"dry_run":false,"status":"ok","exit_code":0,
            "changed_bytes":7,"limit":"target disk","sealing":"AES-256-GCM","kind":null,"message":null}"#,
        );
        check(
            &known(record(request(b"/a\xff"), Err(Failure::about(Kind::Interrupted, b"/a\xff", "it\nstops")))),
            r#"{"type":"session","schema":1,"began":"2026-11-22T23:50:13.341Z","elapsed_seconds":1.5,"peer":"10.0.0.7:5",
            "key":"9eb469aec95e7768","direction":"push","path":"/a�","path_raw":"2f61ff","dry_run":false,"status":"interrupted",
            "exit_code":130,"changed_bytes":null,"limit":null,"sealing":null,"kind":"interrupted","message":"it\\nstops"}"#,
        );
        check(
            &record(None, Err(Failure::new(Kind::Refused, "no"))),
            r#"{"type":"refused","schema":1,"began":"2026-11-22T23:50:13.341Z","elapsed_seconds":1.5,"peer":"10.0.0.7:5",
            "key":null,"direction":null,"path":null,"path_raw":null,"dry_run":null,"status":"failed",
            "exit_code":5,"changed_bytes":null,"limit":null,"sealing":null,"kind":"refused","message":"no"}"#,
        );
    }

    #[test]
    fn a_name_can_neither_break_a_line_nor_steer_a_terminal_and_stays_what_it_was() {
        for name in ["a\nb", "a\"b\\", "\r\t\0", "\u{7f}", "\u{9b}2J", "gr\u{fc}n", "\u{202e}\u{2028}\u{e0041}"] {
            let request = Request { direction: Direction::Pull, path: name.into(), dry_run: true };
            let line = line(&record(Some(request), Err(Failure::new(Kind::Busy, "busy"))));
            assert!(!line.contains(steers), "{line}");
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!((read["path"].as_str(), &read["path_raw"]), (Some(name), &serde_json::Value::Null));
        }
    }

    /// Trigger: a full disk that has room again. Damage: nothing in the log said that lines were missing. Cure: they are
    /// counted, and how many they are is the next line.
    #[test]
    fn a_log_that_cannot_be_written_is_told_once_and_its_next_line_is_whole_and_says_how_many_are_missing() {
        let failed = record(None, Err(Failure::new(Kind::Refused, "no")));
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("log");
        let mut audit = Audit::open(&path).unwrap();
        assert_eq!(audit.append(&failed), None);
        let good = std::mem::replace(&mut audit.file, File::options().write(true).open("/dev/full").unwrap());
        let warning = audit.append(&failed).unwrap();
        assert!(warning.contains("lacks lines"), "{warning}");
        assert_eq!(audit.append(&failed), None);
        assert_eq!(audit.append_count(7, "more callers"), None);
        (audit.file, audit.torn) = (good, true);
        assert_eq!(audit.append(&failed), None);
        assert_eq!(audit.append(&failed), None);
        let written = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        let line = line(&failed);
        assert_eq!([lines[0], lines[1], lines[3], lines[4]], [&line, "", &line, &line], "{written}");
        assert!(lines[2].starts_with(r#"{"type":"missing","schema":1,"at":"#), "{written}");
        assert!(lines[2].contains(r#","count":9,"message":"lines are missing here; they could not be written"}"#));
        assert_eq!((lines.len(), written.ends_with('\n')), (5, true), "{written}");
    }
}
