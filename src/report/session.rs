//! What a server tells people of one caller.

use crate::control::{Direction, Done, Record};
use crate::failure::printable;
use crate::seal::Sealing;

/// Who, what, how much changed and what limited it, or why not, how long.
pub(super) fn line(record: &Record) -> String {
    let key = record.key.map_or_else(String::new, |key| format!(" key {key}"));
    let what = record.request.as_ref().map_or_else(String::new, |request| {
        let what = if request.direction == Direction::Push { "push to" } else { "pull of" };
        let dry = if request.dry_run { " (dry run)" } else { "" };
        format!(" {what} {}{dry}", printable(&request.path))
    });
    let how = match (&record.outcome, record.trouble()) {
        (Ok(Done { changed_bytes, limit: None }), _) => format!("ok, {changed_bytes} bytes changed"),
        (Ok(Done { changed_bytes, limit: Some(limit) }), _) => {
            format!("ok, {changed_bytes} bytes changed, limit: {limit}")
        }
        (Err(_), trouble) => trouble.unwrap_or_default(),
    };
    let open = if record.sealing == Some(Sealing::Plaintext) { ", in plaintext" } else { "" };
    format!("{}{key}{what}: {how}{open}, {:.3} s", record.peer, record.elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bottleneck::Limit;
    use crate::control::Request;
    use crate::failure::{Failure, Kind};
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_caller_is_told_in_one_line_that_his_names_cannot_break() {
        #[track_caller]
        fn check(asked: Option<(Direction, &str, bool)>, outcome: Result<Done, Failure>, want: &str) {
            let request = asked.map(|(direction, path, dry_run)| Request { direction, path: path.into(), dry_run });
            let (began, elapsed) = (SystemTime::UNIX_EPOCH, Duration::from_millis(1500));
            let peer = "10.0.0.7:5".parse().unwrap();
            let record = Record { began, elapsed, peer, key: None, request, sealing: None, outcome };
            assert_eq!(line(&record), format!("10.0.0.7:5{want}, 1.500 s"));
            let open = Record { sealing: Some(Sealing::Plaintext), ..record };
            assert_eq!(line(&open), format!("10.0.0.7:5{want}, in plaintext, 1.500 s"));
        }
        let (push, pull) = ((Direction::Push, "/a", false), (Direction::Pull, "/a\nb", true));
        let failed = |subject: &str, text: &str| Err(Failure::about(Kind::Busy, subject.as_bytes(), text));
        check(Some(push), Ok(Done { changed_bytes: 7, limit: None }), " push to /a: ok, 7 bytes changed");
        let limit = Some(Limit::Network);
        check(
            Some(pull),
            Ok(Done { changed_bytes: 0, limit }),
            " pull of /a\\nb (dry run): ok, 0 bytes changed, limit: network",
        );
        check(Some(push), failed("/a", "is in use"), " push to /a: is in use");
        check(Some(push), failed("10.0.0.7:5", "is in use"), " push to /a: is in use");
        check(Some(push), failed("/\x1b", "is\nin use"), " push to /a: /\\u{1b}: is\\nin use");
        check(None, failed("", "its key is not known here"), ": its key is not known here");
    }
}
