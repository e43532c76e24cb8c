//! Sweeps as lines: a figure against a number that doubles from point to point.

use super::{BACKGROUND, Drawing, FAINT_TEXT, GRID, HEAD, MARGIN, TEXT, bold, canvas, colour, plain, write};
use crate::report::page::capitalized;
use crate::report::{ReportError, Row, Run, Table};
use crate::sample::{Figure, median};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use std::path::Path;

/// Draws a table, if there is anything to draw; says whether there was.
pub(super) type Draw = fn(&Run, &Table, &Path) -> Result<bool, ReportError>;

/// What was swept over, and the figure that came out.
type Points = Vec<(f64, f64)>;

/// One side of a chart, or all of it.
struct Panel {
    title: &'static str,
    x_name: &'static str,
    x_label: fn(&f64) -> String,
    y_decimals: usize,
    /// By program.
    lines: Vec<(String, Points)>,
}

const HEIGHT: u32 = 400;
/// What the names of an axis' points take.
const X_LABELS: i32 = 48;
const Y_LABELS: i32 = 56;
const PANEL_TITLE_SIZE: i32 = 17;
const DOT: u32 = 4;
const LEGEND_Y: i32 = 54;
/// From one name of the legend to the next.
const LEGEND_STEP: i32 = 130;
const LEGEND_SWATCH: i32 = 22;
const LEGEND_GAP: i32 = 5;

pub(super) fn draw_block_sizes(run: &Run, table: &Table, path: &Path) -> Result<bool, ReportError> {
    let (x_name, x_label) = ("KiB in a block", |bytes: &f64| format!("{}", bytes / 1024.0));
    let moved = lines(table, |row, program| Some(median(&run.samples, row, program, Figure::MovedBytes)? / 1e6));
    let seconds = lines(table, |row, program| median(&run.samples, row, program, Figure::Seconds));
    let moved = Panel { title: "MB moved", x_name, x_label, y_decimals: 0, lines: moved };
    let seconds = Panel { title: "Seconds", x_name, x_label, y_decimals: 2, lines: seconds };
    draw(&[moved, seconds], &table.title, path)
}

pub(super) fn draw_connections(run: &Run, table: &Table, path: &Path) -> Result<bool, ReportError> {
    let rate = lines(table, |row, program| {
        let moved_bytes = median(&run.samples, row, program, Figure::MovedBytes)?;
        Some(moved_bytes / median(&run.samples, row, program, Figure::Seconds)? / 1e6)
    });
    let title = "File bytes moved, in MB a second from start to exit";
    let panel = Panel { title, x_name: "TCP connections", x_label: f64::to_string, y_decimals: 0, lines: rate };
    draw(&[panel], &table.title, path)
}

/// The number that a row's name ends with is what was swept over.
fn lines(table: &Table, figure: impl Fn(&str, &str) -> Option<f64>) -> Vec<(String, Points)> {
    let mut lines = Vec::new();
    for program in &table.programs {
        let point = |row: &Row| Some((row.name.rsplit(' ').next()?.parse().ok()?, figure(&row.name, program)?));
        let points: Points = table.rows.iter().filter_map(point).collect();
        if !points.is_empty() {
            lines.push((program.clone(), points));
        }
    }
    lines
}

fn draw(panels: &[Panel], title: &str, path: &Path) -> Result<bool, ReportError> {
    if panels.iter().any(|panel| panel.lines.is_empty()) {
        return Ok(false);
    }
    let drawing = canvas(path, HEIGHT, &capitalized(title), "")?;
    let programs = panels[0].lines.iter().map(|(program, _)| program);
    let mut x = MARGIN;
    for program in programs {
        let swatch = PathElement::new([(x, LEGEND_Y), (x + LEGEND_SWATCH, LEGEND_Y)], colour(program).stroke_width(3));
        drawing.draw(&swatch)?;
        write(&drawing, program, (x + LEGEND_SWATCH + LEGEND_GAP, LEGEND_Y), &plain(TEXT, HPos::Left, VPos::Center))?;
        x += LEGEND_STEP;
    }
    let (_, body) = drawing.split_vertically(HEAD);
    for (panel, area) in panels.iter().zip(body.split_evenly((1, panels.len()))) {
        draw_panel(panel, &area)?;
    }
    drawing.present()?;
    Ok(true)
}

fn draw_panel(panel: &Panel, area: &Drawing) -> Result<(), ReportError> {
    let points = || panel.lines.iter().flat_map(|(_, points)| points);
    let numbers: Vec<f64> = panel.lines[0].1.iter().map(|(x, _)| *x).collect();
    let (least, most) = points().fold((f64::INFINITY, 1.0), |(least, most), (x, _)| (x.min(least), x.max(most)));
    let highest = points().fold(1e-3, |highest, (_, y)| y.max(highest));
    // Room beside the outermost points and above the highest.
    let x_axis = (least / 1.25..most * 1.25).log_scale().with_key_points(numbers);
    let mut chart = ChartBuilder::on(area)
        .margin(MARGIN)
        .margin_top(0)
        .caption(panel.title, bold(PANEL_TITLE_SIZE, HPos::Left, VPos::Top))
        .x_label_area_size(X_LABELS)
        .y_label_area_size(Y_LABELS)
        .build_cartesian_2d(x_axis, 0.0..highest * 1.1)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(BACKGROUND)
        .axis_style(FAINT_TEXT)
        .label_style(plain(TEXT, HPos::Left, VPos::Top))
        .axis_desc_style(plain(FAINT_TEXT, HPos::Left, VPos::Top))
        .x_desc(panel.x_name)
        .x_label_formatter(&panel.x_label)
        .y_labels(6)
        .y_label_formatter(&|value| format!("{value:.*}", panel.y_decimals))
        .draw()?;
    // The first on top and the thinnest, so that all are seen where they are the same.
    for (index, (program, points)) in panel.lines.iter().enumerate().rev() {
        let index = u32::try_from(index).expect("a handful of programs");
        let colour = colour(program);
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2 + 3 * index)))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, DOT + 2 * index, colour.filled())))?;
    }
    Ok(())
}
