//! One row of a terminal that is written over and over, and what stands in it while a copy runs.
//!
//! Between two writes the cursor stands where the row begins. A terminal that is made narrower breaks a row in two, and one
//! that is made wider joins them again; the cursor goes with what it stands on. So all that is to be erased is from there on,
//! and nothing of what is above, whatever the width was. A `^C` that is typed is erased with it. (indicatif fills a row to its
//! end, leaves the cursor there, and erases as many rows as it once had: parts of old ones stay, or the shell's go.)

use super::pace::Pace;
use super::{equal_share, left, limit, percent, speed};
use crate::control::Progress;
use indicatif::HumanBytes;
use std::fmt::Display;
use std::time::Duration;

/// To the begin of the row; erases it, then what is below: tmux keeps a copy of what is erased from the top of the screen down.
const ERASE: &str = "\r\x1b[K\x1b[J";

/// Where a terminal does not say how wide it is.
const COLUMNS: u16 = 80;
/// From here on there is room for how many bytes there are, beside a bar and the longest rest. A share is told in any case.
const WIDE_COLUMNS: u16 = 100;
/// Of a bar, with its frame and the blank behind it. A shorter one shows nothing.
const BAR_COLUMNS_MIN: usize = 8;

/// Whether something stands there now.
#[derive(Debug, Default)]
pub(super) struct Row(bool);

/// Each returns what is to be written, in one piece.
impl Row {
    pub(super) fn show(&mut self, text: &str) -> String {
        self.0 = true;
        format!("{ERASE}{text}\r")
    }

    /// A line that stays, in place of what is there: that may be too long by now, and the next comes soon.
    pub(super) fn end_with(&mut self, line: impl Display) -> String {
        format!("{}{line}\n", self.clear())
    }

    pub(super) fn clear(&mut self) -> &'static str {
        if std::mem::take(&mut self.0) { ERASE } else { "" }
    }
}

/// How many columns of so many may be used: in the last one some terminals go on to the next row. `0`: nobody knows.
fn room(columns: u16) -> usize {
    usize::from(if columns == 0 { COLUMNS } else { columns }) - 1
}

/// Who is waited for, and since when, in one row of so many columns.
pub(super) fn waiting(whom: &str, since: Duration, columns: u16) -> String {
    format!("waiting for {whom}, {} s", since.as_secs()).chars().take(room(columns)).collect()
}

/// How far a copy is, in one row of so many columns. What is missed least is left out where there is no room.
pub(super) fn progress(progress: Progress, pace: Pace, columns: u16) -> String {
    let Progress { source_bytes, done_bytes, .. } = progress;
    let behind = |separator: &str, part: String| if part.is_empty() { part } else { format!("{separator}{part}") };
    let [mut done, mut all, mut share, mut fast, mut equal, mut rest, mut limited] = [const { String::new() }; 7];
    let mut room = room(columns);
    for (place, part) in [
        (&mut share, format!("{:>3}%", percent(done_bytes, source_bytes))),
        (&mut fast, behind("  ", speed(pace))),
        (&mut done, format!("{:>10} ", HumanBytes(done_bytes).to_string())),
        (&mut rest, behind("  ", left(pace))),
        (&mut equal, behind("  ", equal_share(progress))),
        (&mut limited, behind(", ", limit(progress))),
        (&mut all, if columns < WIDE_COLUMNS { String::new() } else { format!("of {} ", HumanBytes(source_bytes)) }),
    ] {
        if part.len() <= room {
            room -= part.len();
            *place = part;
        }
    }
    let has_bar = !done.is_empty() && room >= BAR_COLUMNS_MIN;
    let bar = if has_bar { bar(done_bytes, source_bytes, room - "[] ".len()) } else { String::new() };
    [done, all, bar, share, fast, equal, rest, limited].concat()
}

fn bar(part: u64, whole: u64, cells: usize) -> String {
    let cells_u64 = u64::try_from(cells).unwrap_or(0);
    let full = u128::from(part) * u128::from(cells_u64);
    let full = full.checked_div(u128::from(whole)).and_then(|full| usize::try_from(full).ok()).unwrap_or(cells);
    let head = if full < cells { ">" } else { "" };
    format!("[{:<cells$}] ", "=".repeat(full.min(cells)) + head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bottleneck::Limit;

    const MIB: u64 = 1 << 20;

    fn half() -> Progress {
        let (done_bytes, matched_bytes, limit) = (50 * MIB, 25 * MIB, Some(Limit::TargetDisk));
        Progress { source_bytes: 100 * MIB, done_bytes, matched_bytes, limit, ..Progress::default() }
    }

    fn moving() -> Pace {
        Pace::Moving { bytes_per_second: 5 * MIB, left: Some(Duration::from_secs(10)) }
    }

    #[test]
    fn a_row_has_what_there_is_room_for() {
        #[track_caller]
        fn check(columns: u16, pace: Pace, want: &str) {
            let row = progress(half(), pace, columns);
            assert_eq!(row, want);
            assert!(row.len() < usize::from(columns));
        }
        let still = Pace::Still(Duration::from_secs(15));
        check(10, moving(), " 50%");
        check(20, moving(), " 50%  5.00 MiB/s");
        check(20, still, " 50.00 MiB  50%");
        check(40, moving(), " 50.00 MiB  50%  5.00 MiB/s  ETA 10s");
        check(40, still, " 50%  nothing has moved for 15 s");
        check(41, Pace::Still(Duration::from_secs(9)), " 50%  nothing has moved for 9 s");
        check(50, moving(), " 50.00 MiB  50%  5.00 MiB/s  50% equal  ETA 10s");
        check(60, moving(), " 50.00 MiB [====>    ]  50%  5.00 MiB/s  50% equal  ETA 10s");
        let want = " 50.00 MiB [====>    ]  50%  5.00 MiB/s  50% equal  ETA 10s, limit: target disk";
        check(80, moving(), want);
        let want =
            " 50.00 MiB of 100.00 MiB [=======>       ]  50%  5.00 MiB/s  50% equal  ETA 10s, limit: target disk";
        check(100, moving(), want);
        check(80, Pace::Done, " 50.00 MiB [=========>         ]  50%  50% equal  finishing, limit: target disk");
    }

    #[test]
    fn no_row_is_as_long_as_the_terminal_is_wide() {
        let large = Progress { source_bytes: u64::MAX, done_bytes: u64::MAX / 2, ..half() };
        let small = Progress { source_bytes: 1, done_bytes: u64::MAX, matched_bytes: u64::MAX, ..half() };
        let paces = [moving(), Pace::Still(Duration::MAX), Pace::Done];
        for (columns, pace) in (1..300).flat_map(|columns| paces.map(|pace| (columns, pace))) {
            for progress_of in [half(), large, small, Progress::default()] {
                let row = progress(progress_of, pace, columns);
                assert!(row.len() < usize::from(columns), "{columns}: {row}");
            }
        }
        assert_eq!(progress(half(), moving(), 0), progress(half(), moving(), 80));
    }

    #[test]
    fn a_row_says_who_is_waited_for_as_far_as_there_is_room() {
        let since = Duration::from_millis(5900);
        assert_eq!(waiting("host:9000", since, 80), "waiting for host:9000, 5 s");
        assert_eq!(waiting("host:9000", since, 20), "waiting for host:90");
        assert_eq!(waiting("höst:9000", since, 16), "waiting for hös");
    }

    #[test]
    fn a_bar_is_full_only_when_all_is_done() {
        assert_eq!(bar(0, 10, 5), "[>    ] ");
        assert_eq!(bar(9, 10, 5), "[====>] ");
        assert_eq!(bar(10, 10, 5), "[=====] ");
        assert_eq!(bar(0, 0, 5), "[=====] ");
        assert_eq!(bar(u64::MAX, 1, 5), "[=====] ");
    }

    /// A terminal that breaks rows anew when its width changes, as most do: lines of any length, and where the cursor is in
    /// the last of them.
    struct Terminal {
        columns: usize,
        lines: Vec<String>,
        at: usize,
    }

    impl Terminal {
        fn new(columns: usize) -> Self {
            Self { columns, lines: vec![String::new()], at: 0 }
        }

        fn write(&mut self, text: &str) -> &mut Self {
            let mut rest = text;
            while let Some(letter) = rest.chars().next() {
                let line = self.lines.last_mut().unwrap();
                if let Some(after) = rest.strip_prefix("\x1b[K\x1b[J") {
                    line.truncate(self.at);
                    rest = after;
                    continue;
                }
                match letter {
                    '\r' => self.at -= self.at % self.columns,
                    '\n' => {
                        self.lines.push(String::new());
                        self.at = 0;
                    }
                    _ => {
                        let end = line.len().min(self.at + 1);
                        line.replace_range(self.at..end, &letter.to_string());
                        self.at += 1;
                    }
                }
                rest = &rest[letter.len_utf8()..];
            }
            self
        }

        fn widen(&mut self, columns: usize) -> &mut Self {
            self.columns = columns;
            self
        }
    }

    /// Trigger: a terminal that is made narrower, or wider again, while a copy runs; Ctrl-C. Damage: pieces of old rows stayed,
    /// and what stood above was erased. Cure: see the top of the file.
    #[test]
    fn a_row_is_erased_whole_and_alone_whatever_the_width_was() {
        let mut row = Row::default();
        let mut terminal = Terminal::new(80);
        terminal.write("$ pdcp a b\n");
        for (columns, letter) in [(80, "a"), (40, "b"), (80, "c"), (20, "d"), (200, "e"), (50, "f")] {
            terminal.widen(columns).write(&row.show(&letter.repeat(columns - 1)));
            assert_eq!(terminal.lines, ["$ pdcp a b".to_owned(), letter.repeat(columns - 1)]);
        }
        terminal.write("^C").widen(20).write(&row.end_with("pdcp: a warning"));
        assert_eq!(terminal.lines, ["$ pdcp a b", "pdcp: a warning", ""]);
        terminal.write(&row.show("g")).write("^C").write(row.clear()).write(&row.end_with("pdcp: interrupted"));
        assert_eq!(terminal.lines, ["$ pdcp a b", "pdcp: a warning", "pdcp: interrupted", ""]);
        assert_eq!(row.clear(), "", "nothing is there to be erased");
    }
}
