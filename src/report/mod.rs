//! The only printer: what happens while a copy or a server runs, and how it ended.
//!
//! Results go to standard output (closing lines for people, or JSON), everything else to standard error. Nothing here
//! can fail: a stream that cannot be written never changes a copy, its exit code, or what the other stream gets. What the
//! lines say is made in `closing` and `json`, without any output.

mod benchmark;
mod closing;
mod json;
mod session;

use crate::control::{Progress, Record, Summary, Watch};
use crate::failure::printable;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use rustix::termios::tcgetwinsize;
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Between two plain lines of progress where standard error is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// From here on a line of progress has room for everything.
const WIDE_COLUMNS: u16 = 100;

/// Tells people and programs how one run goes.
#[derive(Debug)]
pub struct Report {
    details: bool,
    closing: bool,
    json: bool,
    meter: Meter,
    /// The overview of a benchmark has its heading.
    headed: bool,
}

/// How progress is shown.
#[derive(Debug)]
enum Meter {
    Nothing,
    Bar(ProgressBar),
    Lines { began: Instant, due: Instant },
}

impl Meter {
    fn new() -> Self {
        let now = Instant::now();
        if stderr().is_terminal() {
            Meter::Bar(bar(ProgressDrawTarget::stderr()))
        } else {
            Meter::Lines { began: now, due: now + LINE_INTERVAL }
        }
    }
}

impl Report {
    /// `verbosity`: above 0 with details, below 0 neither progress nor closing lines. `json`: a line for programs instead
    /// of the closing lines.
    pub fn new(verbosity: i32, json: bool) -> Self {
        let meter = if verbosity < 0 { Meter::Nothing } else { Meter::new() };
        Self { details: verbosity > 0, closing: verbosity >= 0, json, meter, headed: false }
    }

    /// Help and version, as they are.
    pub fn say(&self, text: &str) {
        print_to(stdout(), text.trim_end());
    }

    /// Lines that help after a refusal; may be empty.
    pub fn hint(&mut self, text: &str) {
        if !text.is_empty() {
            self.told(text);
        }
    }

    /// How it ended. The last words of a run.
    pub fn end(&mut self, summary: &Summary) {
        if let Meter::Bar(bar) = &self.meter {
            bar.finish_and_clear();
        }
        for line in closing::troubles(summary) {
            self.told(&format!("pdcp: {line}"));
        }
        if self.json {
            print_to(stdout(), json::line(summary));
        } else if self.closing {
            closing::lines(summary).iter().for_each(|line| print_to(stdout(), line));
        }
    }

    /// One line on standard error; a bar stays below it.
    fn told(&mut self, line: &str) {
        match &self.meter {
            // Before its first progress there is none: a server never has any, and what is refused never gets so far.
            Meter::Bar(bar) if bar.length().is_some() => bar.suspend(|| print_to(stderr(), line)),
            Meter::Bar(_) | Meter::Nothing | Meter::Lines { .. } => print_to(stderr(), line),
        }
    }
}

impl Watch for Report {
    fn warn(&mut self, line: &str) {
        self.told(&format!("pdcp: {}", printable(line.as_bytes())));
    }

    fn listening(&mut self, address: SocketAddr) {
        self.told(&format!("listening on {address}"));
    }

    fn session(&mut self, record: &Record) {
        self.told(&format!("pdcp: {}", session::line(record)));
    }

    fn detail(&mut self, line: &str) {
        if self.details {
            self.warn(line);
        }
    }

    fn progress(&mut self, progress: Progress) {
        match &mut self.meter {
            Meter::Nothing => {}
            Meter::Bar(bar) => {
                bar.set_length(progress.source_bytes);
                bar.set_message(equal_share(progress));
                bar.set_prefix(limit(progress));
                bar.set_position(progress.done_bytes);
            }
            Meter::Lines { began, due } => {
                let now = Instant::now();
                if now >= *due {
                    *due = now + LINE_INTERVAL;
                    let line = progress_line(progress, now - *began);
                    self.told(&format!("pdcp: {line}"));
                }
            }
        }
    }
}

/// One write a line, so that lines of several processes do not mix. A failure to write is nobody's business here.
fn print_to(mut stream: impl Write, line: impl Display) {
    let _ = stream.write_all(format!("{line}\n").as_bytes());
    let _ = stream.flush();
}

fn bar(target: ProgressDrawTarget) -> ProgressBar {
    let template = "{binary_bytes:>10}{total} [{wide_bar}] {percent:>3}%  \
        {binary_bytes_per_sec}  {msg} equal  ETA {left}{prefix}";
    let style = ProgressStyle::with_template(template).expect("a template that a test parses");
    let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // Before anything is done its estimate is 0 s.
        _ = match state.pos() {
            0 => out.write_str("unknown"),
            _ => write!(out, "{:#}", HumanDuration(state.eta())),
        };
    };
    let total = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let columns = tcgetwinsize(stderr()).map_or(0, |size| size.ws_col);
        _ = out.write_str(&total(state.len().unwrap_or(0), columns));
    };
    let style = style.with_key("left", left).with_key("total", total).progress_chars("=> ");
    ProgressBar::with_draw_target(None, target).with_style(style).with_message("0%")
}

/// Of how much, where so many columns leave room for it beside a bar and the longest rest; a share is told in any case.
fn total(bytes: u64, columns: u16) -> String {
    if columns < WIDE_COLUMNS { String::new() } else { format!(" of {}", HumanBytes(bytes)) }
}

/// What a log shows instead of a bar.
fn progress_line(progress: Progress, elapsed: Duration) -> String {
    let Progress { source_bytes, done_bytes, .. } = progress;
    let rate = bytes_per_second(done_bytes, elapsed);
    let eta = match (source_bytes.saturating_sub(done_bytes), rate) {
        (0, _) => String::from("0s"),
        (_, 0) => String::from("unknown"),
        (rest, rate) => format!("{:#}", HumanDuration(Duration::from_secs(rest.div_ceil(rate)))),
    };
    format!(
        "{} of {} done ({}%), {}/s, {} equal, ETA {eta}{}",
        HumanBytes(done_bytes),
        HumanBytes(source_bytes),
        percent(done_bytes, source_bytes),
        HumanBytes(rate),
        equal_share(progress),
        limit(progress),
    )
}

/// What limits it at present, behind everything else, as it comes and goes.
fn limit(progress: Progress) -> String {
    progress.limit.map_or_else(String::new, |limit| format!(", limit: {limit}"))
}

/// How much of what is done was equal; nothing is claimed before something is done.
fn equal_share(progress: Progress) -> String {
    format!("{}%", percent(progress.matched_bytes, progress.done_bytes.max(1)))
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
        fn check(done_bytes: u64, matched_bytes: u64, elapsed_s: u64, want: &str) {
            let progress = Progress { source_bytes: 1000 * MIB, done_bytes, matched_bytes, limit: None };
            assert_eq!(progress_line(progress, Duration::from_secs(elapsed_s)), want);
        }
        check(0, 0, 30, "0 B of 1000.00 MiB done (0%), 0 B/s, 0% equal, ETA unknown");
        check(300 * MIB, 0, 30, "300.00 MiB of 1000.00 MiB done (30%), 10.00 MiB/s, 0% equal, ETA 70s");
        check(999 * MIB, 998 * MIB, 30, "999.00 MiB of 1000.00 MiB done (99%), 33.30 MiB/s, 99% equal, ETA 1s");
        check(1000 * MIB, 1000 * MIB, 10, "1000.00 MiB of 1000.00 MiB done (100%), 100.00 MiB/s, 100% equal, ETA 0s");
        let limited = Progress { limit: Some(Limit::SourceDisk), ..Progress::default() };
        assert!(progress_line(limited, Duration::ZERO).ends_with("ETA 0s, limit: source disk"));
    }

    #[test]
    fn a_narrow_terminal_has_a_bar_too() {
        assert_eq!(total(5 * MIB, 100), " of 5.00 MiB");
        assert_eq!(total(5 * MIB, 80), "");
    }

    #[test]
    fn arithmetic_for_people_survives_every_number() {
        assert_eq!(percent(0, 0), 100);
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
        assert_eq!(percent(u64::MAX, 1), u64::MAX);
        assert_eq!(bytes_per_second(u64::MAX, Duration::ZERO), u64::MAX);
        assert_eq!(bytes_per_second(0, Duration::ZERO), 0);
        let progress = Progress { source_bytes: 1, done_bytes: u64::MAX, matched_bytes: u64::MAX, limit: None };
        assert!(progress_line(progress, Duration::ZERO).contains("ETA 0s"));
    }

    #[test]
    fn the_bar_stands_at_the_bytes_done() {
        let meter = Meter::Bar(bar(ProgressDrawTarget::hidden()));
        let mut report = Report { details: false, closing: false, json: false, meter, headed: false };
        let limit = Some(Limit::Network);
        report.progress(Progress { source_bytes: 4 * MIB, done_bytes: MIB, matched_bytes: MIB / 2, limit });
        let Meter::Bar(bar) = &report.meter else { unreachable!("made so above") };
        assert_eq!((bar.position(), bar.length(), bar.message()), (MIB, Some(4 * MIB), "50%".into()));
        assert_eq!(bar.prefix(), ", limit: network");
        report.end(&Summary::default());
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
