//! The line of type `summary` that a run with `--json` ends with.
//!
//! Its keys, their order and their meaning are in README.md and fixed; every key is always there, null where unknown.

use crate::bottleneck::Limit;
use crate::control::{Direction, Summary};
use crate::failure::{Failure, Kind, harmless_json, raw};
use crate::seal::Sealing;
use serde::Serialize;

/// Version of the lines. A key may be added without a new one; none changes or goes.
pub(super) const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Line {
    r#type: &'static str,
    schema: u32,
    status: &'static str,
    exit_code: u8,
    dry_run: Option<bool>,
    direction: Option<&'static str>,
    source: Option<String>,
    target: Option<String>,
    source_bytes: Option<u64>,
    matched_bytes: Option<u64>,
    changed_bytes: Option<u64>,
    hole_bytes: Option<u64>,
    wire_sent_bytes: Option<u64>,
    wire_received_bytes: Option<u64>,
    similarity: Option<f64>,
    changed: Option<bool>,
    elapsed_seconds: f64,
    digest: Option<String>,
    verified: bool,
    read_back: bool,
    sealing: Option<&'static str>,
    limit: Option<&'static str>,
    errors: Vec<ErrorLine>,
    source_raw: Option<String>,
    target_raw: Option<String>,
}

#[derive(Serialize)]
struct ErrorLine {
    path: Option<String>,
    kind: Kind,
    message: String,
}

/// Without the newline, of which it contains none.
pub(super) fn line(summary: &Summary) -> String {
    let status = summary.failures.first().map_or("ok", |failure| failure.kind.status());
    let line = Line {
        r#type: "summary",
        schema: SCHEMA,
        status,
        exit_code: summary.exit_code(),
        dry_run: summary.dry_run,
        direction: summary.direction.map(Direction::name),
        source: name(&summary.source),
        target: name(&summary.target),
        source_bytes: summary.source_bytes,
        matched_bytes: summary.matched_bytes,
        changed_bytes: summary.changed_bytes,
        hole_bytes: summary.hole_bytes,
        wire_sent_bytes: summary.wire_sent_bytes,
        wire_received_bytes: summary.wire_received_bytes,
        similarity: summary.similarity,
        changed: summary.changed,
        elapsed_seconds: summary.elapsed_seconds,
        digest: summary.digest.map(|digest| format!("blake3:{digest}")),
        verified: summary.verified,
        read_back: summary.read_back,
        sealing: summary.sealing.map(Sealing::name),
        limit: summary.limit.map(Limit::name),
        errors: summary.failures.iter().map(error).collect(),
        source_raw: raw(&summary.source),
        target_raw: raw(&summary.target),
    };
    harmless_json(&serde_json::to_string(&line).expect("strings and numbers only"))
}

fn error(failure: &Failure) -> ErrorLine {
    ErrorLine { path: name(&failure.subject), kind: failure.kind, message: failure.text.clone() }
}

/// U+FFFD stands for what is no UTF-8. No name is empty: an empty one is unknown.
fn name(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::failure::steers;

    #[track_caller]
    fn check(summary: &Summary, want: &str) {
        let want: String = want.lines().map(str::trim).collect();
        assert_eq!(line(summary), want.replace("HASH", &"0f".repeat(32)));
    }

    #[test]
    fn a_copy_is_one_line_with_every_key_in_the_written_order() {
        let summary = Summary {
            direction: Some(Direction::Pull),
            dry_run: Some(false),
            source: b"host:9000:/a".into(),
            target: b"dir/a\n".into(),
            source_bytes: Some(100),
            matched_bytes: Some(75),
            changed_bytes: Some(20),
            hole_bytes: Some(5),
            changed_blocks: Some(2),
            wire_sent_bytes: Some(30),
            wire_received_bytes: Some(u64::MAX),
            similarity: Some(0.75),
            changed: Some(true),
            digest: Some(Digest([0x0f; 32])),
            verified: true,
            read_back: true,
            sealing: Some(Sealing::Plaintext),
            limit: Some(Limit::TargetDisk),
            elapsed_seconds: 1.5,
            ..Summary::default()
        };
        check(
            &summary,
            r#"{"type":"summary","schema":1,"status":"ok","exit_code":0,"dry_run":false,"direction":"pull",
            "source":"host:9000:/a","target":"dir/a\n","source_bytes":100,"matched_bytes":75,"changed_bytes":20,
            "hole_bytes":5,"wire_sent_bytes":30,"wire_received_bytes":18446744073709551615,"similarity":0.75,
            "changed":true,"elapsed_seconds":1.5,"digest":"blake3:HASH","verified":true,"read_back":true,
            "sealing":"plaintext","limit":"target disk","errors":[],"source_raw":null,"target_raw":null}"#,
        );
    }

    #[test]
    fn what_is_unknown_is_null_but_there() {
        let summary = Summary {
            failures: vec![
                Failure::new(Kind::Usage, "what?"),
                Failure::about(Kind::SourceChanged, b"/\xff", "changed \"while\" read"),
            ],
            ..Summary::default()
        };
        check(
            &summary,
            r#"{"type":"summary","schema":1,"status":"failed","exit_code":2,"dry_run":null,"direction":null,
            "source":null,"target":null,"source_bytes":null,"matched_bytes":null,"changed_bytes":null,
            "hole_bytes":null,"wire_sent_bytes":null,"wire_received_bytes":null,"similarity":null,
            "changed":null,"elapsed_seconds":0.0,"digest":null,"verified":false,"read_back":false,
            "sealing":null,"limit":null,"errors":[
            {"path":null,"kind":"usage","message":"what?"},
            {"path":"/�","kind":"source_changed","message":"changed \"while\" read"}],
            "source_raw":null,"target_raw":null}"#,
        );
    }

    #[test]
    fn a_name_that_is_no_utf8_is_given_exactly() {
        let names = |bytes: &[u8]| (name(bytes), raw(bytes));
        assert_eq!(names(b"plain"), (Some("plain".into()), None));
        assert_eq!(names("gr\u{fc}n".as_bytes()), (Some("gr\u{fc}n".into()), None));
        assert_eq!(names(b"a\xff\x0a"), (Some("a\u{fffd}\n".into()), Some("61ff0a".into())));
        assert_eq!(names(b""), (None, None));
    }

    /// Trigger: a server that fails a copy in a text with U+009B, on a terminal. Damage: what a terminal takes orders from went
    /// there as it was. Cure: it is escaped, and what is read is what was said.
    #[test]
    fn what_a_peer_says_steers_no_terminal_and_stays_what_it_was() {
        for said in ["\u{9b}2J", "\u{7f}", "\u{202e}gpj.exe", "\x1b\n", "gr\u{fc}n", "\u{e0041}"] {
            let failures = vec![Failure::about(Kind::Other, said.as_bytes(), said)];
            let line = line(&Summary { source: said.into(), failures, ..Summary::default() });
            assert!(!line.contains(steers), "{line:?}");
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            let error = &read["errors"][0];
            assert_eq!([&read["source"], &error["path"], &error["message"]], [said; 3]);
        }
    }

    #[test]
    fn status_and_exit_code_follow_the_first_failure() {
        #[track_caller]
        fn check(kinds: &[Kind], signal: Option<i32>, want: &str) {
            let failures = kinds.iter().map(|&kind| Failure::new(kind, "")).collect();
            let line = line(&Summary { failures, signal, ..Summary::default() });
            assert!(line.contains(want), "{line}");
        }
        check(&[], None, r#""status":"ok","exit_code":0,"#);
        check(&[], Some(15), r#""status":"ok","exit_code":0,"#); // a server that was asked to stop
        check(&[Kind::Busy, Kind::Interrupted], None, r#""status":"failed","exit_code":43,"#);
        check(&[Kind::Interrupted], None, r#""status":"interrupted","exit_code":130,"#);
        check(&[Kind::Interrupted], Some(2), r#""status":"interrupted","exit_code":130,"#);
        check(&[Kind::Interrupted], Some(15), r#""status":"interrupted","exit_code":143,"#);
        check(&[Kind::NoProgress], None, r#""kind":"no_progress""#);
    }
}
