//! What a benchmark asks and tells: one question before, and its overview, a row for each level as soon as it is done.
//!
//! The overview is what the run was for, so it is printed also with `-q`.

use super::{HumanBytes, Report, print_to};
use crate::control::Watch;
use crate::control::benchmark::{Audience, Level};
use crate::failure::printable;
use crate::limits::ANSWER_BYTES_MAX;
use serde::Serialize;
use std::io::{BufRead, IsTerminal, Read, Write, stderr, stdin};

impl Audience for Report {
    fn agrees(&mut self, what_will_happen: &str) -> Option<bool> {
        if !(stdin().is_terminal() && stderr().is_terminal()) {
            return None;
        }
        let mut screen = stderr();
        _ = write!(screen, "{}; go on? [y/N] ", printable(what_will_happen.as_bytes()));
        _ = screen.flush();
        let mut answer = String::new();
        let read = stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut answer);
        if !answer.ends_with('\n') {
            print_to(screen, "");
        }
        let is_yes = ["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes));
        Some(read.is_ok() && is_yes)
    }

    fn step(&mut self, what: &str) {
        self.meter.begin_again();
        self.detail(what);
    }

    fn level(&mut self, level: &Level) {
        self.meter.begin_again();
        if self.json {
            return self.print_result(line(level));
        }
        if !self.headed {
            self.print_result(heading(level.rsync_seconds.is_some()));
            self.headed = true;
        }
        self.print_result(row(level));
    }
}

/// As pdiffcopy's users know it.
fn heading(with_rsync: bool) -> String {
    let rsync = if with_rsync { " | Runtime of rsync" } else { "" };
    format!("Delta size | Data transferred | Runtime of pdcp{rsync}")
}

fn row(level: &Level) -> String {
    let percent = nearest_percent(level.delta_bytes, level.data_bytes);
    let moved = HumanBytes(level.copy.changed_bytes.unwrap_or(0)).to_string();
    let rsync = level.rsync_seconds.map(|seconds| format!(" | {seconds:>14.3} s")).unwrap_or_default();
    format!("{percent:>9}% | {moved:>16} | {:>13.3} s{rsync}", level.copy.elapsed_seconds)
}

fn nearest_percent(part: u64, whole: u64) -> u64 {
    let whole = u128::from(whole.max(1));
    u64::try_from((u128::from(part) * 200 + whole) / (whole * 2)).unwrap_or(u64::MAX)
}

/// The line of type `level`; README.md has its keys.
#[derive(Serialize)]
struct Line {
    r#type: &'static str,
    schema: u32,
    level: u32,
    levels: u32,
    data_bytes: u64,
    delta_bytes: u64,
    matched_bytes: Option<u64>,
    changed_bytes: Option<u64>,
    hole_bytes: Option<u64>,
    wire_sent_bytes: Option<u64>,
    wire_received_bytes: Option<u64>,
    elapsed_seconds: f64,
    rsync_seconds: Option<f64>,
}

fn line(level: &Level) -> String {
    let copy = level.copy;
    let line = Line {
        r#type: "level",
        schema: super::json::SCHEMA,
        level: level.number,
        levels: level.levels,
        data_bytes: level.data_bytes,
        delta_bytes: level.delta_bytes,
        matched_bytes: copy.matched_bytes,
        changed_bytes: copy.changed_bytes,
        hole_bytes: copy.hole_bytes,
        wire_sent_bytes: copy.wire_sent_bytes,
        wire_received_bytes: copy.wire_received_bytes,
        elapsed_seconds: copy.elapsed_seconds,
        rsync_seconds: level.rsync_seconds,
    };
    serde_json::to_string(&line).expect("strings and numbers only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Summary;

    fn copy() -> Summary {
        Summary {
            matched_bytes: Some(691 << 20),
            changed_bytes: Some(77 << 20),
            hole_bytes: Some(0),
            wire_sent_bytes: Some(1),
            wire_received_bytes: Some(2),
            elapsed_seconds: 1.5,
            ..Summary::default()
        }
    }

    #[test]
    fn a_row_stands_under_its_heading() {
        #[track_caller]
        fn check(delta_bytes: u64, rsync_seconds: Option<f64>, want: &str) {
            let level =
                Level { number: 1, levels: 10, delta_bytes, data_bytes: 768 << 20, copy: &copy(), rsync_seconds };
            assert_eq!(row(&level), want);
            assert_eq!(row(&level).len(), heading(rsync_seconds.is_some()).len());
        }
        check(0, None, "        0% |        77.00 MiB |         1.500 s");
        check(77 << 20, None, "       10% |        77.00 MiB |         1.500 s");
        check(768 << 20, Some(1234.567), "      100% |        77.00 MiB |         1.500 s |       1234.567 s");
    }

    #[test]
    fn a_level_is_one_line_with_every_key_in_the_written_order() {
        let copy = copy();
        let level = Level { number: 1, levels: 10, delta_bytes: 5, data_bytes: 6, copy: &copy, rsync_seconds: None };
        let want = r#"{"type":"level","schema":1,"level":1,"levels":10,"data_bytes":6,"delta_bytes":5,
            "matched_bytes":724566016,"changed_bytes":80740352,"hole_bytes":0,"wire_sent_bytes":1,
            "wire_received_bytes":2,"elapsed_seconds":1.5,"rsync_seconds":null}"#;
        assert_eq!(line(&level), want.lines().map(str::trim).collect::<String>());
        assert!(line(&Level { rsync_seconds: Some(2.5), ..level }).ends_with(r#""rsync_seconds":2.5}"#));
    }

    #[test]
    fn a_share_is_told_in_the_nearest_percent() {
        assert_eq!(nearest_percent(1, 3), 33);
        assert_eq!(nearest_percent(2, 3), 67);
        assert_eq!(nearest_percent(1, 200), 1);
        assert_eq!(nearest_percent(0, 0), 0);
        assert_eq!(nearest_percent(u64::MAX, u64::MAX), 100);
    }
}
