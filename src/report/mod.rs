//! The only printer: what happens while a copy or a server runs, and how it ended.
//!
//! Results go to standard output (closing lines for people, or JSON), everything else to standard error. A stream that cannot
//! be written never changes a copy, or what the other stream gets. Whoever asked for what is on standard output (JSON, a table,
//! help, a key) is told by the exit code that he has not got it, unless he went away himself. What the lines say is made in
//! `closing` and `json`, without any output.

mod benchmark;
mod closing;
mod json;
mod meter;
mod pace;
mod row;
mod session;

use crate::completion::Errno;
use crate::control::{Progress, Record, Summary, Watch};
use crate::failure::{Failure, Kind, printable};
use indicatif::{HumanBytes, HumanDuration};
use meter::Meter;
use pace::Pace;
use std::fmt::Display;
use std::io::{self, Write, stdout};
use std::net::SocketAddr;
use std::time::Duration;

/// Tells people and programs how one run goes.
#[derive(Debug)]
pub struct Report {
    details: bool,
    closing: bool,
    json: bool,
    meter: Meter,
    /// The overview of a benchmark has its heading.
    headed: bool,
    /// Why not all that was asked for is on standard output.
    unwritten: Option<Errno>,
}

impl Report {
    /// `verbosity`: above 0 with details, below 0 neither progress nor closing lines. `json`: a line for programs instead
    /// of the closing lines.
    pub fn new(verbosity: i32, json: bool) -> Self {
        let meter = if verbosity < 0 { Meter::hidden() } else { Meter::new() };
        Self { details: verbosity > 0, closing: verbosity >= 0, json, meter, headed: false, unwritten: None }
    }

    /// Help, a key and the like, as they are. The exit code.
    pub fn say(&mut self, text: &str) -> u8 {
        self.print_result(text.trim_end());
        self.exit_code(0)
    }

    /// Lines that help after a refusal; may be empty.
    pub fn hint(&mut self, text: &str) {
        if !text.is_empty() {
            self.meter.print_above(text);
        }
    }

    /// How it ended. The last words of a run, and its exit code.
    pub fn end(&mut self, summary: &Summary) -> u8 {
        self.meter.end();
        for line in closing::troubles(summary) {
            self.meter.print_above(format_args!("pdcp: {line}"));
        }
        if self.json {
            self.print_result(json::line(summary));
        } else if self.closing {
            closing::lines(summary).iter().for_each(|line| print_to(stdout(), line));
        }
        self.exit_code(summary.exit_code())
    }

    /// One line of what was asked for. Who reads no further has had enough.
    fn print_result(&mut self, line: impl Display) {
        let error = try_print_to(stdout(), line).err().map(Errno::from);
        self.unwritten = self.unwritten.or(error.filter(|error| *error != Errno::PIPE));
    }

    /// This, or, if it is 0 and something that was asked for could not be written, another one. Says so.
    fn exit_code(&self, code: u8) -> u8 {
        let Some(error) = self.unwritten else { return code };
        let failure = Failure::about(Kind::Other, b"standard output", error.to_string());
        self.meter.print_above(format_args!("pdcp: {failure}"));
        if code == 0 { failure.kind.exit_code() } else { code }
    }
}

impl Watch for Report {
    fn warn(&mut self, line: &str) {
        self.meter.print_above(format_args!("pdcp: {}", printable(line.as_bytes())));
    }

    fn listening(&mut self, address: SocketAddr) {
        self.meter.print_above(format_args!("listening on {address}"));
    }

    fn session(&mut self, record: &Record) {
        self.meter.print_above(format_args!("pdcp: {}", session::line(record)));
    }

    fn detail(&mut self, line: &str) {
        if self.details {
            self.warn(line);
        }
    }

    fn waiting(&mut self, whom: &str) {
        // Programs have no use for it.
        if !self.json {
            self.meter.wait(printable(whom.as_bytes()));
        }
    }

    fn progress(&mut self, progress: Progress) {
        self.meter.show(progress);
    }
}

/// One line where a failure to write is nobody's business.
fn print_to(stream: impl Write, line: impl Display) {
    _ = try_print_to(stream, line);
}

/// The same of a text as it is.
fn write_to(stream: impl Write, text: &str) {
    _ = try_write_to(stream, text);
}

/// One write a line, so that lines of several processes do not mix.
fn try_print_to(stream: impl Write, line: impl Display) -> io::Result<()> {
    try_write_to(stream, &format!("{line}\n"))
}

fn try_write_to(mut stream: impl Write, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    stream.flush()
}

/// What a log shows instead of a bar.
fn progress_line(progress: Progress, pace: Pace) -> String {
    let Progress { source_bytes, done_bytes, .. } = progress;
    let (speed, left) = (speed(pace), left(pace));
    [
        format!(
            "{} of {} done ({}%)",
            HumanBytes(done_bytes),
            HumanBytes(source_bytes),
            percent(done_bytes, source_bytes)
        ),
        speed,
        equal_share(progress),
        left,
        limit(progress),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect::<Vec<_>>()
    .join(", ")
}

/// How fast, or that it stands still. Empty where there is nothing left to be done.
fn speed(pace: Pace) -> String {
    match pace {
        Pace::Moving { bytes_per_second, .. } => format!("{}/s", HumanBytes(bytes_per_second)),
        Pace::Still(still) => format!("nothing has moved for {} s", still.as_secs()),
        Pace::Done => String::new(),
    }
}

/// How long it may still take, if that can be told at all: not of a disk that is synced, or read back.
fn left(pace: Pace) -> String {
    match pace {
        Pace::Moving { left: Some(left), .. } => format!("ETA {:#}", HumanDuration(left)),
        Pace::Moving { left: None, .. } => String::from("ETA unknown"),
        Pace::Done => String::from("finishing"),
        Pace::Still(_) => String::new(),
    }
}

/// What limits it at present, behind everything else, as it comes and goes.
fn limit(progress: Progress) -> String {
    progress.limit.map_or_else(String::new, |limit| format!("limit: {limit}"))
}

/// How much of what is done was equal; nothing is claimed before something is done.
fn equal_share(progress: Progress) -> String {
    format!("{}% equal", percent(progress.matched_bytes, progress.done_bytes.max(1)))
}

/// Cut off, not rounded: 100 is all of it. Of nothing, all is done.
fn percent(part: u64, whole: u64) -> u64 {
    let percent = (u128::from(part) * 100).checked_div(u128::from(whole)).unwrap_or(100);
    u64::try_from(percent).unwrap_or(u64::MAX)
}

fn bytes_per_second(bytes: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000 / elapsed.as_micros().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bottleneck::Limit;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_plain_line_tells_bytes_done_rate_equal_share_and_what_is_left() {
        #[track_caller]
        fn check(done_bytes: u64, matched_bytes: u64, pace: Pace, want: &str) {
            let progress = Progress { source_bytes: 1000 * MIB, done_bytes, matched_bytes, ..Progress::default() };
            assert_eq!(progress_line(progress, pace), want);
        }
        let moving = |rate, left_s| Pace::Moving { bytes_per_second: rate, left: Some(Duration::from_secs(left_s)) };
        let begun = Pace::Moving { bytes_per_second: 0, left: None };
        check(0, 0, begun, "0 B of 1000.00 MiB done (0%), 0 B/s, 0% equal, ETA unknown");
        check(
            300 * MIB,
            0,
            moving(10 * MIB, 70),
            "300.00 MiB of 1000.00 MiB done (30%), 10.00 MiB/s, 0% equal, ETA 70s",
        );
        let still = Pace::Still(Duration::from_millis(15_900));
        check(300 * MIB, 0, still, "300.00 MiB of 1000.00 MiB done (30%), nothing has moved for 15 s, 0% equal");
        check(1000 * MIB, 1000 * MIB, Pace::Done, "1000.00 MiB of 1000.00 MiB done (100%), 100% equal, finishing");
        let limited = Progress { limit: Some(Limit::SourceDisk), ..Progress::default() };
        assert!(progress_line(limited, begun).ends_with("ETA unknown, limit: source disk"));
    }

    #[test]
    fn arithmetic_for_people_survives_every_number() {
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(percent(u64::MAX, 1), u64::MAX);
        assert_eq!(bytes_per_second(u64::MAX, Duration::ZERO), u64::MAX);
        assert_eq!(bytes_per_second(0, Duration::ZERO), 0);
        let (done_bytes, matched_bytes) = (u64::MAX, u64::MAX);
        let progress = Progress { source_bytes: 1, done_bytes, matched_bytes, ..Progress::default() };
        assert!(progress_line(progress, Pace::Done).contains("100% equal"));
    }

    #[test]
    fn a_stream_that_cannot_be_written_is_nobodys_business() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        print_to(full, "a line");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        print_to(writer, "a line");
    }
}
