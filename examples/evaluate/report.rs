// SPDX-License-Identifier: MPL-2.0
//! The figures as a table to read and as JSON to plot.

use std::path::Path;

use serde::Serialize;
use toyworld::Kind;

use crate::bench::{Cell, Work};

#[derive(Serialize)]
pub struct Report<'a> {
    model: String,
    first_seed: u64,
    streams: u64,
    held_out: bool,
    asked: &'static str,
    cells: &'a [Cell],
}

impl<'a> Report<'a> {
    pub fn new(model: &Path, work: &Work, cells: &'a [Cell]) -> Self {
        Self {
            model: model.display().to_string(),
            first_seed: work.first_seed,
            streams: work.streams,
            held_out: work.held_out,
            asked: match work.when {
                toyworld::When::End => "end",
                toyworld::When::Anytime => "anytime",
            },
            cells,
        }
    }
}

/// One cell in one line, for the progress log.
pub fn line<'a>(cells: impl Iterator<Item = &'a Cell>) -> String {
    let line = |cell: &Cell| {
        let overall = cell.overall();
        format!(
            "{:<28} {:>4} frames, budget {:>3}: {:.3} of {}",
            cell.method,
            cell.frames,
            cell.budget,
            overall.share(),
            overall.n
        )
    };
    cells.map(line).collect::<Vec<_>>().join("\n")
}

/// All cells as a Markdown table: accuracy by kind, then what it cost.
pub fn table(cells: &[Cell]) -> String {
    let mut rows = vec![header(), rule()];
    rows.extend(cells.iter().map(row));
    rows.push(chance_row(cells));
    rows.join("\n")
}

fn header() -> String {
    let kinds: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    format!(
        "| method | frames | budget | all (SE) | {} | n/kind | evidence | ms/frame | first token ms | KiB/min |",
        kinds.join(" | ")
    )
}

fn rule() -> String {
    format!("|---|---|---|---|{}---|---|---|---|---|", "---|".repeat(Kind::ALL.len()))
}

fn row(cell: &Cell) -> String {
    let overall = cell.overall();
    let kinds: Vec<String> = Kind::ALL
        .iter()
        .map(|kind| cell.kinds.get(kind).map_or("-".into(), |c| format!("{:.3}", c.share())))
        .collect();
    let fewest = cell.kinds.values().map(|count| count.n).min().unwrap_or(0);
    format!(
        "| {} | {} | {} | {:.3} ({:.3}) | {} | >={} | {:.2} | {:.2} | {:.1} | {:.0} |",
        cell.method,
        cell.frames,
        cell.budget,
        overall.share(),
        overall.error(),
        kinds.join(" | "),
        fewest,
        cell.evidence.share(),
        cell.ingest_ms_per_frame,
        cell.first_token_ms,
        cell.stored_bytes_per_minute / 1024.0
    )
}

fn chance_row(cells: &[Cell]) -> String {
    let chance = |kind: &Kind| {
        let chances = cells.iter().filter_map(|cell| cell.chance.get(kind));
        chances.copied().reduce(f64::min).map_or("-".into(), |c| format!("{c:.3}"))
    };
    let kinds: Vec<String> = Kind::ALL.iter().map(chance).collect();
    format!("| chance | | | | {} | | | | | |", kinds.join(" | "))
}
