//! Charts as SVG, for a page with a light or a dark background: each brings its own.
//!
//! No fonts are asked for: who shows a chart has them, so nothing here knows how wide a text will be, and texts stand
//! where they have room. A program has the same colour in all charts, and is named beside what is drawn of it.

mod bars;
mod lines;

use super::{ReportError, Run, Shape};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::error::Error;
use std::path::Path;

/// A chart for the page.
#[derive(Debug)]
pub(super) struct Chart {
    /// In the directory of the page.
    pub(super) file: String,
    pub(super) caption: String,
}

type Drawing<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Point = (i32, i32);

/// As wide as a page shows without making it smaller.
const WIDTH: u32 = 860;
const BACKGROUND: RGBColor = RGBColor(0xff, 0xff, 0xff);
const TEXT: RGBColor = RGBColor(0x1f, 0x23, 0x28);
const FAINT_TEXT: RGBColor = RGBColor(0x59, 0x63, 0x6e);
const GRID: RGBColor = RGBColor(0xdd, 0xe1, 0xe6);
const MARGIN: i32 = 18;
/// What the title takes.
const HEAD: i32 = 74;
const TITLE_SIZE: i32 = 21;
const TEXT_SIZE: i32 = 16;

/// Those that have something to show, in the order of the page.
pub(super) fn draw(run: &Run, directory: &Path) -> Result<Vec<Chart>, ReportError> {
    let mut charts = Vec::new();
    let bars = bars::groups(run);
    if !bars.is_empty() {
        let file = String::from("seconds.svg");
        bars::draw(&bars, &run.machine, &directory.join(&file))?;
        let least = if run.ceilings.is_empty() { "" } else { ", and the least that this machine can do it in" };
        charts.push(Chart { file, caption: format!("Seconds of each program{least}") });
    }
    for (shape, name, draw) in [
        (Shape::BlockSizes, "block-size", lines::draw_block_sizes as lines::Draw),
        (Shape::Connections, "connections", lines::draw_connections),
    ] {
        for (index, table) in run.tables.iter().filter(|table| table.shape == shape).enumerate() {
            let file = if index == 0 { format!("{name}.svg") } else { format!("{name}-{}.svg", index + 1) };
            if draw(run, table, &directory.join(&file))? {
                charts.push(Chart { file, caption: table.title.clone() });
            }
        }
    }
    Ok(charts)
}

/// Blues are ours; nobody needs to tell the rest apart by colour alone.
fn colour(program: &str) -> RGBColor {
    match program {
        "pdcp push" | "pdcp local" => RGBColor(0x09, 0x54, 0xb5),
        "pdcp pull" => RGBColor(0x4f, 0x9b, 0xe8),
        "rsync delta" | "rsync local" => RGBColor(0xc6, 0x51, 0x02),
        "rsync whole" => RGBColor(0xee, 0x9b, 0x4f),
        "pdiffcopy" => RGBColor(0x86, 0x58, 0xa8),
        "yardstick" => RGBColor(0x6e, 0x77, 0x81),
        "b3sum" => RGBColor(0xa0, 0xa8, 0xb2),
        _ => RGBColor(0x2f, 0x8f, 0x6b),
    }
}

/// An empty chart with its title and, below, what it shows.
fn canvas<'a>(path: &'a Path, height: u32, title: &str, explanation: &str) -> Result<Drawing<'a>, ReportError> {
    let drawing = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    drawing.fill(&BACKGROUND)?;
    write(&drawing, title, (MARGIN, 16), &bold(TITLE_SIZE, HPos::Left, VPos::Top))?;
    write(&drawing, explanation, (MARGIN, 44), &plain(FAINT_TEXT, HPos::Left, VPos::Top))?;
    Ok(drawing)
}

fn write(drawing: &Drawing, text: &str, at: Point, style: &TextStyle) -> Result<(), ReportError> {
    Ok(drawing.draw_text(text, style, at)?)
}

fn plain(colour: RGBColor, across: HPos, along: VPos) -> TextStyle<'static> {
    text_style(TEXT_SIZE, FontStyle::Normal, colour, Pos::new(across, along))
}

fn bold(size: i32, across: HPos, along: VPos) -> TextStyle<'static> {
    text_style(size, FontStyle::Bold, TEXT, Pos::new(across, along))
}

fn text_style(size: i32, style: FontStyle, colour: RGBColor, pos: Pos) -> TextStyle<'static> {
    let font = FontDesc::new(FontFamily::SansSerif, f64::from(size), style);
    TextStyle { font, color: colour.to_backend_color(), pos }
}

impl<E: Error + Send + Sync> From<DrawingAreaErrorKind<E>> for ReportError {
    fn from(error: DrawingAreaErrorKind<E>) -> Self {
        Self::Chart(error.to_string())
    }
}
