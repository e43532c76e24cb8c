//! The last lines of a run, for people: two or three where it went well, what is wrong and what to do where it did not.

use super::{HumanBytes, bytes_per_second, printable};
use crate::control::{Aftermath, Summary};
use crate::failure::Kind;
use indicatif::FormattedDuration;
use std::time::Duration;

/// From here on a duration is easier to read as hours, minutes and seconds.
const CLOCK_FROM: Duration = Duration::from_secs(120);
/// What took less tells the speed of starting a program.
const PACE_FROM: Duration = Duration::from_millis(10);

/// For standard output. None for what failed, and none for a server.
pub(super) fn lines(summary: &Summary) -> Vec<String> {
    if !summary.failures.is_empty() || summary.direction.is_none() {
        return Vec::new();
    }
    if summary.aftermath == Some(Aftermath::Level) {
        let again = level_again(summary);
        return std::iter::once(again).chain(summary.digest.map(|digest| format!("blake3:{digest}"))).collect();
    }
    let outcome = if summary.dry_run == Some(true) { would_move(summary) } else { moved(summary) };
    let mut lines = vec![outcome, pace(summary)];
    // Alone on its line, which then fits 80 columns. There is no success without both ends having agreed on it.
    lines.extend(summary.digest.map(|digest| format!("blake3:{digest}")));
    lines
}

/// For standard error: what went wrong, and what became of the target.
pub(super) fn troubles(summary: &Summary) -> Vec<String> {
    let mut lines: Vec<String> = summary.failures.iter().map(ToString::to_string).collect();
    let Some(first) = summary.failures.first() else { return lines };
    let target = printable(&summary.target);
    match &summary.aftermath {
        None => {}
        Some(Aftermath::Level) => return [lines, vec![level_again(summary)]].concat(),
        Some(Aftermath::Mutated { remedy }) => {
            let remedy = printable(remedy);
            return [lines, vec![format!("{target} may be left mutated; this brings it back: {remedy}")]].concat();
        }
    }
    let writes = summary.direction.is_some() && summary.dry_run != Some(true) && first.kind != Kind::Usage;
    match summary.changed {
        _ if !writes => {}
        Some(true) if summary.kept.is_some() => {
            let name = summary.kept.as_deref().unwrap_or_default();
            lines.push(format!(
                "{target} is kept as {name} beside it{}; the same command goes on from there",
                done(summary)
            ));
        }
        Some(true) => {
            lines.push(format!("{target} is unfinished{}; the same command goes on from there", done(summary)))
        }
        Some(false) if first.kind == Kind::Interrupted => lines.push(format!("{target} is as it was")),
        // Cut off from a target that bytes were on their way to.
        None if summary.matched_bytes.is_some() => {
            lines.push(format!("{target} may be unfinished; the same command goes on from there"));
        }
        _ => {}
    }
    lines
}

fn level_again(summary: &Summary) -> String {
    format!("{} equals {} again", printable(&summary.target), printable(&summary.source))
}

fn moved(summary: &Summary) -> String {
    let equal = HumanBytes(summary.matched_bytes.unwrap_or(0));
    let changed = summary.changed_bytes.unwrap_or(0);
    let holes = match summary.hole_bytes.unwrap_or(0) {
        0 => String::new(),
        bytes => format!(", {} made as holes", HumanBytes(bytes)),
    };
    match (changed, &holes[..], summary.changed) {
        (0, "", Some(false)) => format!("nothing to do, all {equal} were there already"),
        (0, "", _) if summary.source_bytes == Some(0) => String::from("the source is empty, and now the target is too"),
        (0, "", _) => format!("no data moved, all {equal} were there already; only length or times were set"),
        // Nothing was compared: what was there, if anything, is not known.
        _ if summary.similarity.is_none() => format!("{} moved{holes}", HumanBytes(changed)),
        _ => format!("{} moved{holes}, {equal} were there already", HumanBytes(changed)),
    }
}

fn would_move(summary: &Summary) -> String {
    let (similarity, differ) = match summary.similarity {
        Some(similarity) => (format!("{} equal", percent(similarity)), " differ"),
        None => (String::from("nothing compared"), ""),
    };
    let blocks = summary.changed_blocks.unwrap_or(0);
    let bytes = HumanBytes(summary.changed_bytes.unwrap_or(0));
    let holes = match summary.hole_bytes.unwrap_or(0) {
        0 => String::new(),
        bytes => format!(", {} would be made as holes", HumanBytes(bytes)),
    };
    match (blocks, summary.changed) {
        (0, Some(false)) => format!("{similarity}: nothing would be done"),
        (0, _) if summary.source_bytes == Some(0) => String::from("the source is empty, and the target would be too"),
        (0, _) => format!("{similarity}: no data would move, only length or times would be set"),
        (1, _) if summary.similarity.is_some() => format!("{similarity}: 1 block differs, {bytes} would move{holes}"),
        (1, _) => format!("{similarity}: 1 block, {bytes} would move{holes}"),
        _ => format!("{similarity}: {blocks} blocks{differ}, {bytes} would move{holes}"),
    }
}

/// How long, how fast where that is a speed of something, what it cost the network, and what kept it from being faster.
fn pace(summary: &Summary) -> String {
    let elapsed = Duration::try_from_secs_f64(summary.elapsed_seconds).unwrap_or_default();
    let long = if elapsed < CLOCK_FROM {
        format!("{:.2} s", elapsed.as_secs_f64())
    } else {
        FormattedDuration(elapsed).to_string()
    };
    let bytes = summary.source_bytes.unwrap_or(0);
    let looked_only = summary.dry_run == Some(true) && summary.similarity.is_none();
    let rate = if elapsed < PACE_FROM || bytes == 0 || looked_only {
        String::new()
    } else {
        format!(", {}/s", HumanBytes(bytes_per_second(bytes, elapsed)))
    };
    let wire = match (summary.wire_sent_bytes.unwrap_or(0), summary.wire_received_bytes.unwrap_or(0)) {
        (0, 0) => String::new(),
        (sent, received) => format!("; sent {}, received {}", HumanBytes(sent), HumanBytes(received)),
    };
    let read_back = if summary.read_back { ", read back" } else { "" };
    let limit = summary.limit.map_or_else(String::new, |limit| format!("; limit: {limit}"));
    format!("{} in {long}{rate}{read_back}{wire}{limit}", HumanBytes(bytes))
}

fn done(summary: &Summary) -> String {
    match (summary.source_bytes, summary.matched_bytes, summary.changed_bytes, summary.hole_bytes) {
        (Some(all), Some(matched), Some(changed), Some(holes)) => {
            let done = matched.saturating_add(changed).saturating_add(holes);
            format!(" ({} of {} done)", HumanBytes(done), HumanBytes(all))
        }
        _ => String::new(),
    }
}

/// Cut off to one digit, so that 100 means all of it.
fn percent(share: f64) -> String {
    if share >= 1.0 { String::from("100%") } else { format!("{:.1}%", (share * 1000.0).floor() / 10.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bottleneck::Limit;
    use crate::control::Direction;
    use crate::digest::Digest;
    use crate::failure::Failure;

    const MIB: u64 = 1 << 20;

    /// A push of 768 MiB, of which 125 differed.
    fn pushed() -> Summary {
        Summary {
            direction: Some(Direction::Push),
            dry_run: Some(false),
            source: b"a".into(),
            target: b"host:9000:/a".into(),
            source_bytes: Some(768 * MIB),
            matched_bytes: Some(643 * MIB),
            changed_bytes: Some(125 * MIB),
            hole_bytes: Some(0),
            changed_blocks: Some(8000),
            wire_sent_bytes: Some(126 * MIB),
            wire_received_bytes: Some(MIB),
            similarity: Some(643.0 / 768.0),
            changed: Some(true),
            digest: Some(Digest([0xab; 32])),
            verified: true,
            elapsed_seconds: 2.0,
            ..Summary::default()
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Summary), want: &[&str]) {
        let mut summary = pushed();
        change(&mut summary);
        let want: Vec<String> = want.iter().map(|line| line.replace("HASH", &"ab".repeat(32))).collect();
        assert_eq!(lines(&summary), want);
    }

    #[test]
    fn a_copy_ends_with_what_moved_what_was_there_how_long_and_the_hash() {
        let pace = "768.00 MiB in 2.00 s, 384.00 MiB/s; sent 126.00 MiB, received 1.00 MiB";
        let hash = "blake3:HASH";
        check(|_| (), &["125.00 MiB moved, 643.00 MiB were there already", pace, hash]);
        check(
            |summary| summary.limit = Some(Limit::SourceDisk),
            &["125.00 MiB moved, 643.00 MiB were there already", &format!("{pace}; limit: source disk"), hash],
        );
        check(
            |summary| (summary.hole_bytes, summary.read_back) = (Some(MIB), true),
            &[
                "125.00 MiB moved, 1.00 MiB made as holes, 643.00 MiB were there already",
                "768.00 MiB in 2.00 s, 384.00 MiB/s, read back; sent 126.00 MiB, received 1.00 MiB",
                hash,
            ],
        );
        check(
            |summary| {
                (summary.matched_bytes, summary.changed_bytes, summary.changed) = (Some(MIB), Some(0), Some(false))
            },
            &["nothing to do, all 1.00 MiB were there already", pace, hash],
        );
        check(
            |summary| (summary.matched_bytes, summary.changed_bytes) = (Some(MIB), Some(0)),
            &["no data moved, all 1.00 MiB were there already; only length or times were set", pace, hash],
        );
        check(
            |summary| {
                (summary.elapsed_seconds, summary.wire_sent_bytes, summary.wire_received_bytes) =
                    (3723.4, Some(0), Some(0));
                summary.digest = None;
            },
            &["125.00 MiB moved, 643.00 MiB were there already", "768.00 MiB in 01:02:03, 211.21 KiB/s"],
        );
        check(
            |summary| summary.elapsed_seconds = f64::NAN,
            &[
                "125.00 MiB moved, 643.00 MiB were there already",
                "768.00 MiB in 0.00 s; sent 126.00 MiB, received 1.00 MiB",
                hash,
            ],
        );
        check(
            |summary| {
                (summary.similarity, summary.matched_bytes, summary.changed_bytes) = (None, Some(0), Some(768 * MIB))
            },
            &["768.00 MiB moved", pace, hash],
        );
        check(
            |summary| {
                (summary.source_bytes, summary.matched_bytes, summary.changed_bytes) = (Some(0), Some(0), Some(0))
            },
            &[
                "the source is empty, and now the target is too",
                "0 B in 2.00 s; sent 126.00 MiB, received 1.00 MiB",
                hash,
            ],
        );
        check(|summary| summary.direction = None, &[]);
        check(|summary| summary.failures.push(Failure::new(Kind::Other, "no")), &[]);
    }

    #[test]
    fn a_dry_run_ends_with_similarity_and_with_what_would_move() {
        #[track_caller]
        fn check(similarity: Option<f64>, blocks: u64, holes: u64, changed: bool, want: &str) {
            let summary = Summary {
                dry_run: Some(true),
                similarity,
                changed_blocks: Some(blocks),
                changed_bytes: Some(blocks << 14),
                hole_bytes: Some(holes),
                changed: Some(changed),
                ..pushed()
            };
            assert_eq!(lines(&summary)[0], want);
        }
        check(Some(0.83724), 8000, 0, true, "83.7% equal: 8000 blocks differ, 125.00 MiB would move");
        check(Some(0.99999), 1, 0, true, "99.9% equal: 1 block differs, 16.00 KiB would move");
        check(
            Some(0.0),
            2,
            MIB,
            true,
            "0.0% equal: 2 blocks differ, 32.00 KiB would move, 1.00 MiB would be made as holes",
        );
        check(Some(1.0), 0, 0, false, "100% equal: nothing would be done");
        check(Some(1.0), 0, 0, true, "100% equal: no data would move, only length or times would be set");
        check(None, 4, 0, true, "nothing compared: 4 blocks, 64.00 KiB would move");
        check(None, 1, 0, true, "nothing compared: 1 block, 16.00 KiB would move");
    }

    #[test]
    fn a_failure_is_told_with_its_subject_and_with_what_became_of_the_target() {
        #[track_caller]
        fn check(kind: Kind, change: impl FnOnce(&mut Summary), want: &[&str]) {
            let mut summary = Summary { failures: vec![Failure::about(kind, b"/a\x1b", "why")], ..pushed() };
            change(&mut summary);
            assert_eq!(troubles(&summary), want);
        }
        let why = "/a\\u{1b}: why";
        let goes_on = "the same command goes on from there";
        let all = format!("host:9000:/a is unfinished (768.00 MiB of 768.00 MiB done); {goes_on}");
        check(Kind::Interrupted, |_| (), &[why, &all]);
        check(Kind::ConnectionLost, |_| (), &[why, &all]);
        let unknown = format!("host:9000:/a is unfinished; {goes_on}");
        check(Kind::Interrupted, |summary| summary.hole_bytes = None, &[why, &unknown]);
        check(Kind::Interrupted, |summary| summary.changed = Some(false), &[why, "host:9000:/a is as it was"]);
        let maybe = format!("host:9000:/a may be unfinished; {goes_on}");
        check(Kind::Interrupted, |summary| summary.changed = None, &[why, &maybe]);
        check(Kind::ConnectionLost, |summary| summary.changed = None, &[why, &maybe]);
        let unwelcome = |summary: &mut Summary| (summary.changed, summary.matched_bytes) = (None, None);
        check(Kind::Interrupted, unwelcome, &[why]);
        check(Kind::Source, unwelcome, &[why]);
        check(Kind::Interrupted, |summary| summary.dry_run = Some(true), &[why]);
        check(Kind::Usage, |_| (), &[why]);
        let again = "host:9000:/a equals a again";
        check(Kind::Other, |summary| summary.aftermath = Some(Aftermath::Level), &[why, again]);
        let mutated = Some(Aftermath::Mutated { remedy: b"pdcp a b\n".into() });
        let heals = "host:9000:/a may be left mutated; this brings it back: pdcp a b\\n";
        check(Kind::Interrupted, |summary| summary.aftermath = mutated.clone(), &[why, heals]);
        check(Kind::Interrupted, |summary| summary.direction = None, &[why]);
        check(Kind::Other, |summary| summary.failures.clear(), &[]);
    }
}
