//! Seconds of each program as bars, in a group a row, with the least seconds of the machine as a line across each group.
//!
//! Programs differ by thirty times and more, and pdcp by tenths from the ceiling; to show both the axis is logarithmic,
//! and says so. The length of a bar then means little; where it ends, and the figure there, do.

use super::{BACKGROUND, Drawing, FAINT_TEXT, GRID, HEAD, Point, TEXT, TEXT_SIZE, bold, canvas, colour, plain, write};
use crate::goals::Ceiling;
use crate::report::{Machine, ReportError, Run, Shape, megabytes};
use crate::sample::{Figure, median};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use std::path::Path;

/// A row with its bars.
#[derive(Debug)]
pub(super) struct Group {
    row: String,
    /// Programs and their seconds.
    bars: Vec<(String, f64)>,
    ceiling: Option<f64>,
}

const BAR_HEIGHT: i32 = 17;
const BAR_GAP: i32 = 2;
const GROUP_GAP: i32 = 16;
/// Where bars begin and end; names stand left of them, the figure of the longest bar right of it.
const LEFT: i32 = 235;
const RIGHT: i32 = 790;
/// What the axis takes, with its name, and the machine's below it.
const FOOT: i32 = 84;
const SPACE: i32 = 6;
/// Of a figure behind a bar. Guessed for digits of common fonts.
const FIGURE_WIDTH: i32 = 45;
const BLACK_LINES: &str = " Black lines: the least time, by the parts; cold, what fio takes to read.";

pub(super) fn groups(run: &Run) -> Vec<Group> {
    let mut groups = Vec::new();
    for table in run.tables.iter().filter(|table| table.shape == Shape::Bars) {
        for row in &table.rows {
            let seconds = |program: &String| median(&run.samples, &row.name, program, Figure::Seconds);
            let bars = table.programs.iter().filter_map(|program| Some((program.clone(), seconds(program)?)));
            groups.push(Group {
                row: row.name.clone(),
                bars: bars.collect(),
                ceiling: run.ceiling(&row.name).map(Ceiling::seconds),
            });
        }
    }
    groups.retain(|group| !group.bars.is_empty());
    groups
}

pub(super) fn draw(groups: &[Group], machine: &Machine, path: &Path) -> Result<(), ReportError> {
    let scale = Scale::of(groups);
    let bottom = HEAD + groups.iter().map(|group| group.height() + GROUP_GAP).sum::<i32>();
    let height = u32::try_from(bottom + FOOT).expect("heights are positive");
    let black_lines = if groups.iter().any(|group| group.ceiling.is_some()) { BLACK_LINES } else { "" };
    let explanation = format!("By how much of the file had changed; shorter is faster.{black_lines}");
    let drawing = canvas(path, height, "Seconds until the target is up to date", &explanation)?;
    draw_axis(&drawing, &scale, bottom)?;
    let mut top = HEAD;
    for group in groups {
        draw_group(&drawing, &scale, group, top)?;
        top += group.height() + GROUP_GAP;
    }
    let Machine { cpu, cores, file_bytes, date, .. } = machine;
    let foot = format!("{}, {cpu}, {cores} cores, {date}", megabytes(*file_bytes));
    let y = bottom + FOOT - SPACE;
    write(&drawing, &foot, (super::MARGIN, y), &plain(FAINT_TEXT, HPos::Left, VPos::Bottom))?;
    Ok(drawing.present()?)
}

fn draw_axis(drawing: &Drawing, scale: &Scale, bottom: i32) -> Result<(), ReportError> {
    for seconds in scale.doublings() {
        let x = scale.x(seconds);
        line(drawing, (x, HEAD - SPACE), (x, bottom), GRID, 1)?;
        write(drawing, &seconds.to_string(), (x, bottom + SPACE), &plain(FAINT_TEXT, HPos::Center, VPos::Top))?;
    }
    let name = "seconds, logarithmic: each line is twice the one before";
    let middle = (LEFT + RIGHT) / 2;
    write(drawing, name, (middle, bottom + SPACE + TEXT_SIZE + SPACE), &plain(FAINT_TEXT, HPos::Center, VPos::Top))
}

fn draw_group(drawing: &Drawing, scale: &Scale, group: &Group, top: i32) -> Result<(), ReportError> {
    let name = bold(TEXT_SIZE, HPos::Left, VPos::Center);
    write(drawing, &group.row, (super::MARGIN, top + BAR_HEIGHT / 2), &name)?;
    let mut y = top;
    for (program, seconds) in &group.bars {
        let middle = y + BAR_HEIGHT / 2;
        let end = scale.x(*seconds);
        write(drawing, program, (LEFT - SPACE, middle), &plain(TEXT, HPos::Right, VPos::Center))?;
        drawing.draw(&Rectangle::new([(LEFT, y), (end, y + BAR_HEIGHT)], colour(program).filled()))?;
        // A line of the ceiling just behind the bar would run through the figure.
        let behind_line =
            group.ceiling.map(|ceiling| scale.x(ceiling)).filter(|x| (end..end + FIGURE_WIDTH).contains(x));
        let at = behind_line.unwrap_or(end) + SPACE;
        write(drawing, &Figure::Seconds.show(*seconds), (at, middle), &plain(TEXT, HPos::Left, VPos::Center))?;
        y += BAR_HEIGHT + BAR_GAP;
    }
    if let Some(ceiling) = group.ceiling {
        let x = scale.x(ceiling);
        let (from, to) = ((x, top - BAR_GAP * 2), (x, top + group.height() + BAR_GAP));
        line(drawing, from, to, BACKGROUND, 5)?; // to be seen on dark bars
        line(drawing, from, to, TEXT, 2)?;
    }
    Ok(())
}

fn line(drawing: &Drawing, from: Point, to: Point, colour: RGBColor, width: u32) -> Result<(), ReportError> {
    Ok(drawing.draw(&PathElement::new([from, to], colour.stroke_width(width)))?)
}

impl Group {
    fn height(&self) -> i32 {
        let bars = i32::try_from(self.bars.len()).expect("a handful of programs");
        bars * (BAR_HEIGHT + BAR_GAP) - BAR_GAP
    }
}

/// From a power of two to another, with all measured seconds between them.
struct Scale {
    least: f64,
    most: f64,
    axis: LogCoord<f64>,
}

impl Scale {
    fn of(groups: &[Group]) -> Self {
        let all =
            || groups.iter().flat_map(|group| group.bars.iter().map(|(_, seconds)| *seconds).chain(group.ceiling));
        let least = all().fold(f64::INFINITY, f64::min).max(1e-3); // a logarithm of 0 s would go on for ever
        let most = all().fold(least, f64::max);
        let least = (least / 1.3).log2().floor().exp2(); // the shortest bar has some length
        let most = most.log2().ceil().exp2();
        Self { least, most, axis: (least..most).log_scale().into() }
    }

    fn x(&self, seconds: f64) -> i32 {
        self.axis.map(&seconds.max(self.least), (LEFT, RIGHT))
    }

    fn doublings(&self) -> impl Iterator<Item = f64> {
        let most = self.most;
        std::iter::successors(Some(self.least), |seconds| Some(seconds * 2.0))
            .take_while(move |seconds| *seconds <= most)
    }
}
