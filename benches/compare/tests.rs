//! The tests of the comparison's arithmetic, and of what it lets count, for `cargo test`: a bench without harness runs none.

#![expect(dead_code, reason = "the comparison uses more of it than its tests do")]
#![allow(clippy::unwrap_used, reason = "a test may end at the first surprise")]

#[macro_use]
#[expect(unused_macros, reason = "findings are shown by the comparison alone")]
mod say;

mod arguments;
mod goals;
mod innodb;
mod janitor;
#[path = "ceiling/lane.rs"]
mod lane;
mod peers;
mod process;
mod report;
mod rows;
mod sample;
mod scene;
#[path = "../../src/cli/size.rs"]
mod size;
mod subject;

use goals::{Ceiling, Goal, Outcome, Times, as_fast_as_the_yardstick, faster, judge, less_cpu, near_ceiling};
use sample::{Figure, Log, Sample, median};

mod medians {
    use super::*;
    /// A run that took `seconds`, and used as much on each side.
    pub(super) fn sample(row: &str, program: &str, seconds: f64) -> Sample {
        Sample {
            row: row.into(),
            program: program.into(),
            run: 0,
            seconds,
            moved_bytes: None,
            client_cpu_seconds: seconds,
            server_cpu_seconds: Some(seconds),
            client_peak_bytes: None,
            server_peak_bytes: None,
        }
    }

    #[track_caller]
    fn check(seconds: &[f64], want: Option<f64>) {
        let mut samples: Vec<Sample> = seconds.iter().map(|seconds| sample("10 %", "cp", *seconds)).collect();
        samples.push(sample("10 %", "rsync local", 100.0));
        samples.push(sample("50 %", "cp", 200.0));
        assert_eq!(median(&samples, "10 %", "cp", Figure::Seconds), want);
    }

    #[test]
    fn a_median_is_the_middle_one_or_between_the_two_middle_ones() {
        check(&[], None);
        check(&[3.0], Some(3.0));
        check(&[3.0, 1.0], Some(2.0));
        check(&[3.0, 1.0, 2.5], Some(2.5));
        check(&[9.0, 1.0, 2.0, 3.0], Some(2.5));
    }

    #[test]
    fn what_a_program_does_not_tell_has_no_median() {
        let samples = [sample("10 %", "cp", 1.0)];
        assert_eq!(median(&samples, "10 %", "cp", Figure::MovedBytes), None);
        assert_eq!(median(&samples, "10 %", "cp", Figure::CpuSeconds), Some(2.0));
    }
}

mod logs {
    use super::*;
    use std::fs;

    #[test]
    fn each_sample_is_on_disk_as_soon_as_it_is_told() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("run/raw.csv");
        let mut log = Log::to(Some(path.clone()));
        assert!(!path.exists(), "a run without a sample leaves nothing");
        for (told, seconds) in [(1, 2.5), (2, 3.5)] {
            log.tell(&medians::sample("10 %", "cp", seconds)).unwrap();
            let written = fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = written.lines().collect();
            assert!(lines[0].starts_with("row,program,run,seconds,"), "{written}");
            assert_eq!(lines.len(), 1 + told, "{written}");
            assert!(lines[told].starts_with(&format!("10 %,cp,0,{seconds},")), "{written}");
        }
    }
}

mod verdicts {
    use super::medians::sample;
    use super::*;
    /// `push` is what pdcp's push took in row `10 %`, where rsync took 10 s, the yardstick 2 s, and the ceiling is 1 s.
    #[track_caller]
    fn check(goal: Goal, push: f64, want: Outcome) {
        let samples = [
            sample("10 %", "pdcp push", push),
            sample("50 %", "pdcp push", 4.0),
            sample("10 %", "rsync delta", 10.0),
            sample("10 %", "yardstick", 2.0),
        ];
        let ceilings = [Ceiling::new("10 %", 1.0, &[])];
        let verdicts = judge(&[goal], &samples, &ceilings);
        let outcomes: Vec<_> = verdicts.iter().map(|verdict| verdict.outcome).collect();
        assert_eq!(outcomes, [want], "{verdicts:?}");
    }

    #[test]
    fn a_goal_is_reached_up_to_its_tolerance() {
        use Outcome::{NotMeasured, Reached, Short};
        check(faster("10 %", "rsync delta", 5.0), 2.05, Reached);
        check(faster("10 %", "rsync delta", 5.0), 2.07, Short);
        check(as_fast_as_the_yardstick("10 %"), 2.05, Reached);
        check(as_fast_as_the_yardstick("10 %"), 2.07, Short);
        check(near_ceiling("10 %", 1.2), 1.23, Reached);
        check(near_ceiling("10 %", 1.2), 1.24, Short);
        let twice = Goal { row: "10 %", figure: Figure::Seconds, at_most: 0.5, times: Times::Row("50 %") };
        check(twice, 2.05, Reached);
        check(twice, 2.07, Short);
        check(faster("10 %", "pdiffcopy", 5.0), 1.0, NotMeasured);
        check(faster("20 %", "rsync delta", 5.0), 1.0, NotMeasured);
    }

    #[test]
    fn nobody_is_asked_to_come_nearer_to_the_ceiling_than_a_tenth() {
        check(faster("10 %", "rsync delta", 100.0), 1.13, Outcome::Reached);
        check(faster("10 %", "rsync delta", 100.0), 1.14, Outcome::Short);
        // That is for time, and for other people's programs.
        check(less_cpu("10 %", "rsync delta", 100.0), 1.13, Outcome::Short);
        check(Goal { at_most: 0.1, ..as_fast_as_the_yardstick("10 %") }, 1.13, Outcome::Short);
    }

    /// Trigger: parts measured in louder moments than the row. Damage: a least time twice as long as what pdcp took, by which
    /// it could have become twice as slow and still have reached its goals.
    #[test]
    fn what_a_program_took_is_the_ceiling_where_the_parts_take_longer() {
        let samples = [sample("10 %", "cp", 0.5), sample("10 %", "pdcp push", 1.0), sample("50 %", "cp", 0.1)];
        let check = |parts_seconds, want, want_by: Option<&str>| {
            let ceiling = Ceiling::new("10 %", parts_seconds, &samples);
            assert_eq!((ceiling.seconds(), ceiling.distances(&samples)), (want, vec![("pdcp push", 1.0 / want)]));
            assert_eq!(ceiling.beaten_by, want_by.map(|by| (by.into(), want)));
        };
        check(0.4, 0.4, None);
        check(0.51, 0.51, None);
        check(0.52, 0.5, Some("cp"));
        check(2.0, 0.5, Some("cp"));
    }

    #[test]
    fn each_way_of_pdcp_is_judged_by_itself() {
        let samples =
            [sample("10 %", "pdcp push", 1.0), sample("10 %", "pdcp pull", 9.0), sample("10 %", "rsync delta", 10.0)];
        let verdicts = judge(&[faster("10 %", "rsync delta", 5.0)], &samples, &[]);
        let outcomes: Vec<_> = verdicts.iter().map(|verdict| verdict.outcome).collect();
        assert_eq!(outcomes, [Outcome::Reached, Outcome::Short]);
        assert_eq!(verdicts[1].text, "10 %, seconds: rsync delta / 5.0: pdcp pull 9.000, asked for 2.000");
    }
}

mod differences {
    use super::innodb::differing_bytes;

    #[track_caller]
    fn check(basis: &str, wanted: &str, want: u64) {
        assert_eq!(differing_bytes(basis.as_bytes(), wanted.as_bytes(), 4), want);
    }

    #[test]
    fn a_block_differs_whole_or_not_at_all_and_what_the_basis_does_not_have_differs() {
        check("", "", 0);
        check("aaaabbbb", "aaaabbbb", 0);
        check("aaaabbbb", "aaaabbbc", 4);
        check("aaaabb", "aaaabc", 2);
        check("aaaabbbb", "aaaabb", 2);
        check("aaaabb", "aaaabbbb", 4);
        check("aaaa", "aaaabbbbcc", 6);
        check("aaaabbbb", "aaaa", 0);
    }
}

mod proofs {
    use super::peers::Program;
    use super::process::Error;
    use super::scene::{Basis, Scene, Texture};
    use std::fs;
    use std::path::Path;

    /// Trigger: a program that does nothing, where nothing had to be done. Damage: the best figure of all.
    #[test]
    fn a_program_that_does_not_say_what_it_moved_was_not_at_work() {
        #[track_caller]
        fn check(program: Program, printed: &str, want: Option<u64>) {
            assert_eq!(program.moved_bytes(printed).ok().flatten(), want, "{printed:?}");
        }
        check(Program::RsyncDelta, "", None);
        check(Program::RsyncDelta, "Number of files: 1\nLiteral data: 1,048,576 bytes\n", Some(1 << 20));
        check(Program::Pdiffcopy, "", None);
        check(Program::Pdiffcopy, "Nothing to do!", Some(0));
        check(Program::Pdiffcopy, "Will upload 3 blocks totaling 3 MiB.", Some(3 << 20));
        check(Program::PdcpPush, "", None);
        check(Program::PdcpPush, r#"{"changed_bytes":5}"#, None);
        check(Program::PdcpPush, r#"{"changed_bytes":5,"verified":false}"#, None);
        check(Program::PdcpPush, r#"{"changed_bytes":5,"verified":true}"#, Some(5));
        assert!(matches!(Program::Cp.moved_bytes(""), Ok(None)), "it never tells");
    }

    #[test]
    fn only_the_sources_bytes_are_a_result() {
        let scratch = tempfile::tempdir().unwrap();
        let scene = Scene::new(scratch.path()).unwrap();
        let mut pair = scene.pair("file", 3 << 20, Texture::Data).unwrap();
        let mut check = |change: &dyn Fn(&Path), want: &str| {
            pair.set(&Basis::Changed { percent: 0 }).unwrap();
            change(&pair.target);
            match (pair.compare(), want) {
                (Ok(()), "") => (),
                (Err(Error::Program(what)), want) if what == want => (),
                (result, want) => panic!("{result:?}, wanted {want:?}"),
            }
        };
        check(&|_| (), "");
        check(&|target| fs::remove_file(target).unwrap(), "made no target");
        check(&|target| fs::write(target, "").unwrap(), "the result is wrong");
        check(
            &|target| {
                let mut content = fs::read(target).unwrap();
                content[2 << 20] ^= 1;
                fs::write(target, content).unwrap();
            },
            "the result is wrong",
        );
    }

    /// Trigger: a file of less than a hundred pieces. Damage: nothing was changed in the row '10 %'.
    #[test]
    fn a_share_of_a_small_file_is_something() {
        let scratch = tempfile::tempdir().unwrap();
        let pair = Scene::new(scratch.path()).unwrap().pair("file", 4 << 20, Texture::Data).unwrap();
        for (percent, pieces) in [(0, 0), (1, 1), (10, 1), (50, 2), (100, 4)] {
            assert_eq!(pair.changed_bytes(&Basis::Changed { percent }), Some(pieces << 20), "{percent} %");
        }
    }

    #[test]
    fn a_janitor_works_when_it_is_dropped_unless_it_was_dismissed() {
        let scratch = tempfile::tempdir().unwrap();
        let hire = || super::janitor::Janitor::hire("rmdir \"$1\"", [scratch.path()]).unwrap();
        hire().dismiss();
        assert!(scratch.path().exists());
        drop(hire());
        assert!(!scratch.path().exists());
    }

    /// Trigger: a directory of somebody's that has the table's name. Damage: his files would have been replaced.
    #[test]
    fn what_is_in_the_place_of_the_table_and_was_not_made_by_us_is_left_alone() {
        let scratch = tempfile::tempdir().unwrap();
        let own = scratch.path().join("pdcp-bench-table/before.ibd");
        fs::create_dir(own.parent().unwrap()).unwrap();
        fs::write(&own, "precious").unwrap();
        let told = super::innodb::provide(scratch.path()).unwrap_err().to_string();
        assert!(told.contains("is not this table"), "{told}");
        assert_eq!(fs::read_to_string(own).unwrap(), "precious");
    }
}

mod reports {
    use super::medians::sample;
    use super::report::{Machine, Row, Run, Shape, Table, write};
    use super::*;
    use std::fs;
    use std::path::Path;

    fn table(title: &str, shape: Shape, rows: &[(&str, Option<u64>)]) -> Table {
        let rows = rows.iter().map(|(name, changed_bytes)| Row { name: (*name).into(), changed_bytes: *changed_bytes });
        let programs = vec!["pdcp push".into(), "rsync delta".into()];
        Table { title: title.into(), shape, rows: rows.collect(), programs, notes: vec!["by moonlight".into()] }
    }

    fn run(tables: Vec<Table>, samples: Vec<Sample>) -> Run {
        let ceilings = vec![Ceiling::new("10 %", 0.5, &samples)];
        let machine = Machine::look(Path::new("/"), 20_000_000, None, std::iter::empty());
        let (failures, skipped) = (vec!["10 %: cp failed".into()], vec!["sealed: not here".into()]);
        Run { machine, tables, samples, ceilings, verdicts: Vec::new(), failures, skipped }
    }

    /// Names of the charts, and the page.
    fn written(run: &Run) -> (Vec<String>, String) {
        let scratch = tempfile::tempdir().unwrap();
        write(run, scratch.path()).unwrap();
        let names =
            fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let charts = names.filter(|name| name.ends_with(".svg")).collect();
        (charts, fs::read_to_string(scratch.path().join("README.md")).unwrap())
    }

    #[test]
    fn a_page_has_medians_and_ceilings_by_row_and_program() {
        let samples = vec![
            sample("10 %", "pdcp push", 1.0),
            sample("10 %", "pdcp push", 2.0),
            sample("10 %", "rsync delta", 7.0),
            sample("50 %", "rsync delta", 8.0),
        ];
        let rows = [("10 %", Some(2_000_000)), ("50 %", None)];
        let (_, page) = written(&run(vec![table("two ends", Shape::Bars, &rows)], samples));
        for line in [
            "## Two ends",
            "| file | 20.0 MB |",
            "- by moonlight",
            "| seconds | data size | pdcp push | rsync delta | ceiling | pdcp / ceiling |",
            "| 10 % | 2.0 MB | 1.500 | 7.000 | 0.500 | 3.00 |",
            "| 50 % |  |  | 8.000 |  |  |",
            "| 10 % | 3.000 | 14.000 |",
            "- 10 %: cp failed",
            "- sealed: not here",
        ] {
            assert!(page.lines().any(|have| have == line), "no line {line:?} in:\n{page}");
        }
        assert!(!page.contains("MB moved"), "nobody told:\n{page}");
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let moved = |row: &str, bytes| Sample { moved_bytes: Some(bytes), ..sample(row, "pdcp push", 1.0) };
        let check = |shape, samples: Vec<Sample>, want: &[&str]| {
            let (have, page) =
                written(&run(vec![table("one", shape, &[("--sweep 1", None), ("--sweep 2", None)])], samples));
            assert_eq!(have, want, "{shape:?}");
            assert!(want.iter().all(|chart| page.contains(&format!("]({chart})"))), "{page}");
        };
        check(Shape::Bars, vec![], &[]);
        check(Shape::Bars, vec![sample("--sweep 1", "pdcp push", 0.0)], &["seconds.svg"]);
        check(Shape::Undrawn, vec![sample("--sweep 1", "pdcp push", 1.0)], &[]);
        check(Shape::BlockSizes, vec![sample("--sweep 1", "pdcp push", 1.0)], &[]);
        check(Shape::Connections, vec![sample("--sweep 1", "pdcp push", 1.0)], &[]);
        for points in [vec![moved("--sweep 1", 0)], vec![moved("--sweep 1", 0), moved("--sweep 2", 1)]] {
            check(Shape::BlockSizes, points.clone(), &["block-size.svg"]);
            check(Shape::Connections, points, &["connections.svg"]);
        }
    }
}

mod lanes {
    use super::lane::{Basis, CHUNK_BYTES, Duty, Lane, Sample, Written, rate};
    use std::collections::HashSet;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn a_lane_visits_each_of_its_chunks_before_it_comes_back() {
        for chunks in [1, 2, 8, 1024] {
            let sample = |lane| Sample { lane, lanes: 2, chunks, source_step_bytes: CHUNK_BYTES };
            let visits = |lane| (0..chunks).map(move |visit| sample(lane).chunk(visit));
            let visited: HashSet<_> = visits(0).chain(visits(1)).collect();
            assert_eq!(visited.len() as u64, 2 * chunks);
            assert_eq!(sample(1).chunk(chunks), sample(1).chunk(0));
            assert!(visited.iter().all(|(source_at, target_at)| *source_at.max(target_at) < 2 * chunks * CHUNK_BYTES));
        }
    }

    /// Trigger: each measurement began at the same chunks. Damage: a large cache held them, and the ceiling was a fifth
    /// above what a copy of the whole file can do.
    #[test]
    fn a_lane_goes_on_where_its_last_measurement_has_ended() {
        let file = || Arc::new(tempfile::tempfile().unwrap());
        let (source, target, visits) = (file(), file(), Arc::new(AtomicU64::default()));
        source.set_len(2 * CHUNK_BYTES).unwrap();
        let sample = Sample { lane: 0, lanes: 1, chunks: 2, source_step_bytes: CHUNK_BYTES };
        let core = core_affinity::get_core_ids().unwrap()[0];
        let lanes = [Lane { core, source, target, sample, visits: Arc::clone(&visits) }];
        let duty = Duty { source: true, basis: Basis::Unread, carried: false, written: Written::Nowhere };
        let before = 1 << 40; // more than a measurement has time for
        visits.store(before, Ordering::Relaxed);
        assert!(rate(&lanes, duty).unwrap() > 0.0);
        assert!(visits.load(Ordering::Relaxed) > before);
    }
}
