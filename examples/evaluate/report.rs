// SPDX-License-Identifier: MPL-2.0
//! The figures as a table to read, as JSON to plot and to go on from, and as a section of a page.

use std::path::Path;

use gststreamkvqa::Recipe;
use serde::{Deserialize, Serialize};

use crate::bench::{Cell, Count, Work};
use crate::world::Name;

/// All that was measured, and on what. Cells of one report were asked the same questions.
#[derive(Serialize, Deserialize)]
pub struct Report {
    #[serde(default = "toyworld")]
    world: String,
    model: String,
    first_seed: u64,
    streams: u64,
    per_kind: usize,
    held_out: bool,
    held_out_wording: bool,
    asked: String,
    pub cells: Vec<Cell>,
}

/// What reports were about before there was another world.
fn toyworld() -> String {
    Name::Toyworld.text().into()
}

impl Report {
    pub fn new(world: Name, model: &Path, work: &Work) -> Self {
        Self {
            world: world.text().into(),
            model: model.display().to_string(),
            first_seed: work.first_seed,
            streams: work.streams,
            per_kind: work.per_kind,
            held_out: work.held_out,
            held_out_wording: work.held_out_wording,
            asked: if work.at_end { "end" } else { "anytime" }.into(),
            cells: Vec::new(),
        }
    }

    /// What an earlier run has saved.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        serde_json::from_str(&text)
            .map_err(|error| format!("{} is no report: {error}", path.display()))
    }

    /// The folder of the model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Takes over the cells of an earlier run of the same work; there may be none.
    pub fn resume(&mut self, path: &Path) -> Result<(), String> {
        if !path.exists() {
            return Ok(());
        }
        let earlier = Self::read(path)?;
        let work = |report: &Self| {
            let Self {
                world,
                model,
                first_seed,
                streams,
                per_kind,
                held_out,
                held_out_wording,
                asked,
                ..
            } = report;
            format!(
                "{world} {model} {first_seed} {streams} {per_kind} {held_out} {held_out_wording} {asked}"
            )
        };
        if work(&earlier) != work(self) {
            return Err(format!("{} measured other work; remove it first", path.display()));
        }
        self.cells = earlier.cells;
        Ok(())
    }

    pub fn holds(&self, method: &str, frames: usize, budget: usize) -> bool {
        let same =
            |cell: &Cell| cell.method == method && cell.frames == frames && cell.budget == budget;
        self.cells.iter().any(same)
    }

    /// Takes a cell in, in the order of lengths, budgets and the table of methods.
    pub fn put(&mut self, cell: Cell) {
        self.cells.push(cell);
        self.cells.sort_by_key(|cell| (cell.frames, cell.budget, rank(&cell.method)));
    }

    pub fn save(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

/// Where a method stands among all, with what a folder adds right behind it; those with options come
/// last, in order of arrival.
fn rank(method: &str) -> (usize, bool) {
    let (name, added) = method.split_once('+').map_or((method, false), |(name, _)| (name, true));
    (Recipe::names().iter().position(|known| *known == name).unwrap_or(usize::MAX), added)
}

/// One cell in one line, for the progress log.
pub fn line(cell: &Cell) -> String {
    let overall = cell.overall();
    format!(
        "{:<28} {:>4} frames, budget {:>3}: {:.3} of {}",
        cell.method,
        cell.frames,
        cell.budget,
        overall.share(),
        overall.n
    )
}

/// All cells as a Markdown table: accuracy by kind, then what it cost.
pub fn table(world: Name, cells: &[Cell]) -> String {
    let kinds = world.kinds();
    let columns = [&["method", "frames", "budget", "all (SE)"], &kinds[..], COSTS].concat();
    let mut rows = header(&columns);
    for cell in cells {
        let mut row = vec![cell.method.clone(), cell.frames.to_string(), cell.budget.to_string()];
        row.push(overall(cell));
        row.extend(kinds.iter().map(|kind| percent(cell.kinds.get(*kind).copied())));
        row.extend(costs(cell));
        rows.push(line_of(&row));
    }
    rows.push(chance_row(&kinds, cells));
    rows.join("\n")
}

/// One table a length at one budget, kinds in groups.
pub fn section(world: Name, cells: &[Cell], budget: usize, trained: usize) -> String {
    let mut lengths: Vec<usize> = cells.iter().map(|cell| cell.frames).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let tables = lengths.into_iter().map(|frames| {
        let place = if frames <= trained { "inside" } else { "outside" };
        let times = frames as f64 / trained.max(1) as f64;
        let at = |cell: &&Cell| cell.frames == frames && cell.budget == budget;
        let cells: Vec<&Cell> = cells.iter().filter(at).collect();
        format!(
            "**{frames} frames, {times}x the trained length ({place}), budget {budget}**\n\n{}\n",
            grouped(world, &cells)
        )
    });
    tables.collect::<Vec<_>>().join("\n")
}

/// What budgets change: accuracy over all kinds by length, and what is stored at one length.
pub fn budgets(cells: &[Cell], frames: usize) -> String {
    let mut lengths: Vec<usize> = cells.iter().map(|cell| cell.frames).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut groups: Vec<(&str, usize)> =
        cells.iter().map(|cell| (cell.method.as_str(), cell.budget)).collect();
    groups.sort_by_key(|&(method, budget)| (rank(method), method.to_owned(), budget));
    groups.dedup();
    let mut columns = vec!["method".to_owned(), "budget".into()];
    columns.extend(lengths.iter().map(usize::to_string));
    columns.push(format!("KiB/min at {frames}"));
    columns.push(format!("peak KiB at {frames}"));
    let mut rows = header(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    rows.extend(groups.into_iter().map(|(method, budget)| {
        let at = |frames: usize| {
            cells.iter().find(|c| c.method == method && c.budget == budget && c.frames == frames)
        };
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let mut row = vec![method.to_owned(), budget.to_string()];
        row.extend(lengths.iter().map(|&frames| or_none(at(frames).map(overall))));
        let kib = |bytes: f64| format!("{:.0}", bytes / 1024.0);
        row.push(or_none(at(frames).map(|cell| kib(cell.stored_bytes_per_minute))));
        row.push(or_none(at(frames).map(|cell| kib(cell.peak_bytes as f64))));
        line_of(&row)
    }));
    rows.join("\n")
}

/// How well is answered by how long ago what is asked about was last seen, in frames.
pub fn ages(cells: &[Cell]) -> String {
    let mut ages: Vec<usize> = cells.iter().flat_map(|cell| cell.ages.keys().copied()).collect();
    ages.sort_unstable();
    ages.dedup();
    let mut columns = vec!["method".to_owned(), "frames".into(), "budget".into()];
    columns.extend(ages.iter().map(|age| format!("to {age} ago")));
    columns.push("peak KiB".into());
    let mut rows = header(&columns.iter().map(String::as_str).collect::<Vec<_>>());
    rows.extend(cells.iter().map(|cell| {
        let mut row = vec![cell.method.clone(), cell.frames.to_string(), cell.budget.to_string()];
        let at = |age: &usize| match cell.ages.get(age).filter(|count| count.n > 0) {
            Some(count) => format!("{:.2} ({:.2})", count.share(), count.error()),
            None => "-".into(),
        };
        row.extend(ages.iter().map(at));
        row.push(format!("{:.0}", cell.peak_bytes as f64 / 1024.0));
        line_of(&row)
    }));
    rows.join("\n")
}

/// Replaces what stands between a page's `<!-- name -->` and `<!-- /name -->`.
pub fn replace_section(page: &Path, name: &str, text: &str) -> Result<(), String> {
    let fault = |error: String| format!("{}: {error}", page.display());
    let old = std::fs::read_to_string(page).map_err(|error| fault(error.to_string()))?;
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let (Some((before, rest)), Some((_, after))) = (old.split_once(&begin), old.split_once(&end))
    else {
        return Err(fault(format!("no section between `{begin}` and `{end}`")));
    };
    if !rest.contains(&end) {
        return Err(fault(format!("`{end}` stands before `{begin}`")));
    }
    std::fs::write(page, format!("{before}{begin}\n\n{text}\n{end}{after}"))
        .map_err(|error| fault(error.to_string()))
}

const COSTS: &[&str] =
    &["n", "evidence", "tokens", "ms/frame", "first token ms", "KiB/min", "peak KiB"];

fn costs(cell: &Cell) -> Vec<String> {
    vec![
        cell.overall().n.to_string(),
        format!("{:.2}", cell.evidence.share()),
        cell.context_tokens.map_or("-".into(), |tokens| format!("{tokens:.0}")),
        format!("{:.2}", cell.ingest_ms_per_frame),
        format!("{:.1}", cell.first_token_ms),
        format!("{:.0}", cell.stored_bytes_per_minute / 1024.0),
        format!("{:.0}", cell.peak_bytes as f64 / 1024.0),
    ]
}

fn grouped(world: Name, cells: &[&Cell]) -> String {
    let groups: Vec<&str> = world.groups().iter().map(|(name, _)| *name).collect();
    let mut rows = header(&[&["method", "all (SE)"], &groups[..], COSTS].concat());
    rows.extend(cells.iter().map(|cell| {
        let share = |kinds: &[&str]| percent(Some(cell.kinds_where(|kind| kinds.contains(&kind))));
        let mut row = vec![cell.method.clone(), overall(cell)];
        row.extend(world.groups().iter().map(|(_, kinds)| share(kinds)));
        row.extend(costs(cell));
        line_of(&row)
    }));
    rows.join("\n")
}

pub fn header(columns: &[&str]) -> Vec<String> {
    vec![format!("| {} |", columns.join(" | ")), format!("|{}", "---|".repeat(columns.len()))]
}

pub fn line_of(columns: &[String]) -> String {
    format!("| {} |", columns.join(" | "))
}

fn overall(cell: &Cell) -> String {
    let overall = cell.overall();
    format!("{:.3} ({:.3})", overall.share(), overall.error())
}

fn percent(count: Option<Count>) -> String {
    count.filter(|count| count.n > 0).map_or("-".into(), |count| format!("{:.2}", count.share()))
}

fn chance_row(kinds: &[&str], cells: &[Cell]) -> String {
    let chance = |kind: &&str| {
        let chances = cells.iter().filter_map(|cell| cell.chance.get(*kind));
        chances.copied().reduce(f64::min).map_or("-".into(), |chance| format!("{chance:.2}"))
    };
    let kinds: Vec<String> = kinds.iter().map(chance).collect();
    format!("| chance | | | | {} |{}", kinds.join(" | "), " |".repeat(COSTS.len()))
}
