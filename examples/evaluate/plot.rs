// SPDX-License-Identifier: MPL-2.0
//! The figures as pictures: accuracy over stream length, and over the bytes that it takes.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::bench::{Cell, Count};
use crate::world::Name;

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Lines that a reader tells apart without reading: colours repeat with another mark.
const COLOURS: &[RGBColor] = &[
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(127, 127, 127),
];

/// Four panels, one a group of kinds, one line a method, at one budget; `trained` frames are marked.
pub fn over_length(
    world: Name,
    cells: &[Cell],
    budget: usize,
    trained: usize,
    path: &Path,
) -> Drawn {
    let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.budget == budget).collect();
    let methods = methods(&cells);
    let root = SVGBackend::new(path, (1040, 720)).into_drawing_area();
    root.fill(&WHITE)?;
    let (panels, legend) = root.split_horizontally(860);
    for ((title, kinds), area) in world.groups().iter().zip(panels.split_evenly((2, 2))) {
        let points = |method: &str| -> Vec<(f64, f64)> {
            let cells = cells.iter().filter(|cell| cell.method == method);
            cells.map(|cell| (cell.frames as f64, share(cell, kinds))).collect()
        };
        let lengths = cells.iter().map(|cell| cell.frames as f64);
        panel(&area, title, "frames", span(lengths), &methods, points, Some(trained as f64))?;
    }
    explain(&legend, &methods)?;
    Ok(root.present()?)
}

/// Accuracy over all kinds against stored bytes a minute, one line a method through its budgets.
pub fn over_bytes(cells: &[Cell], frames: usize, path: &Path) -> Drawn {
    let cells: Vec<&Cell> = cells.iter().filter(|cell| cell.frames == frames).collect();
    let methods = methods(&cells);
    let root = SVGBackend::new(path, (900, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let (area, legend) = root.split_horizontally(720);
    let points = |method: &str| -> Vec<(f64, f64)> {
        let cells = cells.iter().filter(|cell| cell.method == method);
        cells.map(|cell| (kib_per_minute(cell), cell.overall().share())).collect()
    };
    let bytes = span(cells.iter().map(|cell| kib_per_minute(cell)));
    let title = format!("all questions, {frames} frames; marks are budgets");
    panel(&area, &title, "stored KiB per minute of video", bytes, &methods, points, None)?;
    explain(&legend, &methods)?;
    Ok(root.present()?)
}

fn methods<'a>(cells: &[&'a Cell]) -> Vec<&'a str> {
    let mut methods: Vec<&str> = Vec::new();
    for cell in cells {
        if !methods.contains(&cell.method.as_str()) {
            methods.push(&cell.method);
        }
    }
    methods
}

fn share(cell: &Cell, kinds: &[&str]) -> f64 {
    let count: Count = cell.kinds_where(|kind| kinds.contains(&kind));
    count.share()
}

fn kib_per_minute(cell: &Cell) -> f64 {
    cell.stored_bytes_per_minute / 1024.0
}

/// From the least to the most, with a little room for the marks on a logarithmic axis.
fn span(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    if low <= high { (low * 0.9, high * 1.1) } else { (1.0, 2.0) }
}

fn panel(
    area: &DrawingArea<SVGBackend, Shift>,
    title: &str,
    axis: &str,
    (low, high): (f64, f64),
    methods: &[&str],
    points: impl Fn(&str) -> Vec<(f64, f64)>,
    mark: Option<f64>,
) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(40)
        .build_cartesian_2d((low..high).log_scale().base(2.0), 0.0..1.02)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(axis)
        .y_desc("answered rightly")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.1}"))
        .draw()?;
    if let Some(mark) = mark {
        let dashes =
            DashedLineSeries::new([(mark, 0.0), (mark, 1.02)], 4, 4, BLACK.mix(0.5).into());
        chart.draw_series(dashes)?;
    }
    for (index, method) in methods.iter().enumerate() {
        let mut points = points(method);
        points.retain(|(_, share)| share.is_finite());
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (colour, hollow) = style(index);
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        let marks = points.into_iter().map(|point| {
            let fill = if hollow { WHITE.filled() } else { colour.filled() };
            EmptyElement::at(point) + Circle::new((0, 0), 4, fill) + Circle::new((0, 0), 4, colour)
        });
        chart.draw_series(marks)?;
    }
    Ok(())
}

/// A method's colour, and whether its marks are hollow.
fn style(index: usize) -> (RGBColor, bool) {
    (COLOURS[index % COLOURS.len()], index >= COLOURS.len())
}

fn explain(area: &DrawingArea<SVGBackend, Shift>, methods: &[&str]) -> Drawn {
    for (index, method) in methods.iter().enumerate() {
        let (colour, hollow) = style(index);
        let y = 40 + 24 * index as i32;
        area.draw(&PathElement::new([(8, y), (32, y)], colour.stroke_width(2)))?;
        let fill = if hollow { WHITE.filled() } else { colour.filled() };
        area.draw(&Circle::new((20, y), 4, fill))?;
        area.draw(&Circle::new((20, y), 4, colour))?;
        area.draw_text(method, &("sans-serif", 14).into_text_style(area), (40, y - 8))?;
    }
    Ok(())
}
