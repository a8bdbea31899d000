// SPDX-License-Identifier: MPL-2.0
//! What `auto` is to reach on every model, and what it reached: a table over the reports of several models.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use gststreamkvqa::{LoadOptions, VideoLlm};

use crate::bench::{Cell, Count};
use crate::report::{Report, header, line_of};

/// Below `full` within the trained length, and below the best other method anywhere, by no more than this.
const NOT_BELOW: f64 = 0.02;
/// Above every other bounded method at four times the trained length and more, by this much.
const ABOVE: f64 = 0.10;
const NOW: f64 = 0.95;
const BYTES: f64 = 1.0;

/// A report, and the units of its model that 16 frames' worth are: `FILE` or `FILE@UNITS`.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    budget: usize,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, budget) = text.rsplit_once('@').unwrap_or((text, "16"));
        let budget = budget.parse().map_err(|_| format!("`{budget}` is no number of units"))?;
        Ok(Self { path: path.into(), budget })
    }
}

/// A difference between two methods on the same questions, and its standard error.
#[derive(Clone, Copy, Debug)]
struct Lead {
    by: f64,
    error: f64,
}

impl Lead {
    /// Videos are drawn, not questions, so the error is that of the mean over videos; of reports that do not
    /// have them apart, that of as many questions drawn twice, which is larger.
    fn of(own: &Cell, other: &Cell) -> Self {
        let (one, two) = (own.overall(), other.overall());
        let by = one.share() - two.share();
        let alike = !own.videos.is_empty() && own.videos.keys().eq(other.videos.keys());
        let pairs = own.videos.values().zip(other.videos.values());
        let error = match own.videos.len() as f64 {
            many if alike && many > 1.0 => {
                let apart = |(own, other): (&Count, &Count)| {
                    let ahead = own.right as f64 - other.right as f64;
                    (ahead - by * own.n as f64).powi(2)
                };
                let sum: f64 = pairs.map(apart).sum();
                (sum * many / (many - 1.0)).sqrt() / one.n as f64
            }
            _ => one.error().hypot(two.error()),
        };
        Self { by, error }
    }

    /// Whether it is at least so much; if not, by how much it is short, and whether that is more than chance.
    fn verdict(self, wanted: f64) -> String {
        let short = wanted - self.by;
        match short <= 1e-9 {
            true => "met".into(),
            false if short <= 2.0 * self.error => format!("short by {short:.3}, within the error"),
            false => format!("**short by {short:.3}**"),
        }
    }
}

impl std::fmt::Display for Lead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:+.3} ({:.3})", self.by, self.error)
    }
}

/// Those with a bounded context that are no part or version of `auto`.
fn others<'a>(cells: &'a [Cell], at: &'a Cell) -> impl Iterator<Item = &'a Cell> {
    let is_other = |method: &str| {
        let name = method.split(['+', ':']).next().unwrap_or_default();
        !["auto", "full", "blind", "oracle"].contains(&name)
    };
    cells.iter().filter(move |cell| {
        (cell.frames, cell.budget) == (at.frames, at.budget) && is_other(&cell.method)
    })
}

fn best<'a>(cells: &'a [Cell], at: &'a Cell) -> Option<&'a Cell> {
    others(cells, at).max_by(|a, b| a.overall().share().total_cmp(&b.overall().share()))
}

fn ratio(own: f64, other: f64, goal: f64) -> String {
    let ratio = own / other;
    if ratio <= goal { format!("{ratio:.2}") } else { format!("**{ratio:.2}**") }
}

/// What each report says of `auto`, a row a length; then the other budgets.
///
/// # Errors
/// A file is no report, or its model is gone.
pub fn tables(sources: &[Source]) -> Result<String, Box<dyn std::error::Error>> {
    let mut rows = header(&[
        "model",
        "frames",
        "`auto`",
        "over `full`",
        "over the best other",
        "under `oracle`",
        "goal",
        "at no length below the best",
        "`now`",
        "bytes / `rekv`",
    ]);
    let mut narrow = header(&["model", "budget", "worst lead over the best other", "at", "goal"]);
    for Source { path, budget } in sources {
        let report = Report::read(path)?;
        let folder = Path::new(report.model());
        let model = VideoLlm::load(folder, &LoadOptions::default())?;
        let trained = model.recommendations().trained_frames.unwrap_or(0);
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let cells = &report.cells;
        let own = |budget: usize| {
            cells.iter().filter(move |cell| cell.method == "auto" && cell.budget == budget)
        };
        for auto in own(*budget) {
            rows.push(line_of(&row(&name, trained, cells, auto)));
        }
        let mut budgets: Vec<usize> = cells.iter().map(|cell| cell.budget).collect();
        budgets.sort_unstable();
        budgets.dedup();
        for budget in budgets {
            let leads = own(budget).filter_map(|auto| {
                let best = best(cells, auto)?;
                Some((Lead::of(auto, best), best, auto.frames))
            });
            let Some((lead, other, frames)) = leads.min_by(|a, b| a.0.by.total_cmp(&b.0.by)) else {
                continue;
            };
            narrow.push(line_of(&[
                name.clone(),
                budget.to_string(),
                format!("{lead} `{}`", other.method),
                format!("{frames} frames"),
                lead.verdict(-NOT_BELOW),
            ]));
        }
    }
    Ok(format!("{}\n\n{}\n", rows.join("\n"), narrow.join("\n")))
}

fn row(name: &str, trained: usize, cells: &[Cell], auto: &Cell) -> Vec<String> {
    let none = || "-".to_owned();
    let of = |method: &str| {
        let same = |cell: &&Cell| {
            cell.method == method && (cell.frames, cell.budget) == (auto.frames, auto.budget)
        };
        cells.iter().find(same)
    };
    let over = |method: &str| of(method).map(|cell| Lead::of(auto, cell));
    let best = best(cells, auto);
    let lead = best.map(|best| Lead::of(auto, best));
    let (full, oracle, rekv) = (over("full"), over("oracle"), of("rekv"));
    let goal = match auto.frames {
        frames if frames <= trained => {
            full.map(|full| format!("not below `full`: {}", full.verdict(-NOT_BELOW)))
        }
        frames if frames >= 4 * trained => lead.map(|lead| {
            let near = oracle.filter(|oracle| oracle.by >= -NOT_BELOW);
            let said = near.map_or_else(|| lead.verdict(ABOVE), |_| "met, by `oracle`".into());
            format!("{ABOVE:.2} above: {said}")
        }),
        _ => None,
    };
    let now = auto.kinds.get("now").map(|count| count.share());
    let times = auto.frames as f64 / trained.max(1) as f64;
    vec![
        name.to_owned(),
        format!("{} ({times}x)", auto.frames),
        format!("{:.3}", auto.overall().share()),
        full.map_or_else(none, |lead| lead.to_string()),
        best.zip(lead).map_or_else(none, |(best, lead)| format!("{lead} `{}`", best.method)),
        oracle.map_or_else(none, |lead| lead.to_string()),
        goal.unwrap_or_else(none),
        lead.map_or_else(none, |lead| lead.verdict(-NOT_BELOW)),
        now.map_or_else(none, |now| {
            if now >= NOW { format!("{now:.2}") } else { format!("**{now:.2}**") }
        }),
        rekv.map_or_else(none, |rekv| {
            ratio(auto.stored_bytes_per_minute, rekv.stored_bytes_per_minute, BYTES)
        }),
    ]
}
