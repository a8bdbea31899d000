// SPDX-License-Identifier: MPL-2.0
//! What was measured: rows of one figure each, as a table and as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub what: String,
    /// Empty where it concerns no method.
    #[serde(default)]
    pub method: String,
    /// Frames that had been taken in.
    #[serde(default)]
    pub stored: u64,
    pub value: f64,
    pub unit: String,
    /// Half the distance between largest and smallest of the runs, as a share of the value.
    #[serde(default)]
    pub spread: f64,
    #[serde(default)]
    pub runs: usize,
}

impl Row {
    /// Whether more of it is better; else less is.
    fn more_is_better(&self) -> bool {
        self.unit.contains("/s") || self.unit == "share"
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What was measured and on what, in words.
    pub about: BTreeMap<String, String>,
    pub rows: Vec<Row>,
    /// Why rows are missing, if any are.
    #[serde(default)]
    pub notes: Vec<String>,
    #[serde(skip)]
    path: Option<PathBuf>,
    #[serde(skip)]
    baseline: Option<Box<Report>>,
}

impl Report {
    pub fn new(path: Option<PathBuf>, baseline: Option<&Path>) -> Result<Self, String> {
        let read = |path: &Path| -> Result<Box<Self>, String> {
            let text = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
            serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))
        };
        Ok(Self { path, baseline: baseline.map(read).transpose()?, ..Self::default() })
    }

    pub fn about(&mut self, what: &str, value: impl std::fmt::Display) {
        println!("{what:<34} {value}");
        self.about.insert(what.into(), value.to_string());
    }

    pub fn note(&mut self, note: String) {
        println!("note: {note}");
        self.notes.push(note);
    }

    /// Adds a figure and writes the file anew: what was measured before something hangs is not lost.
    /// The value is the median of the runs.
    pub fn row(&mut self, (what, method, stored): (&str, &str, u64), runs: &[f64], unit: &str) {
        let Some(value) = median(runs) else { return };
        let (least, most) = runs.iter().fold((value, value), |(a, b), &x| (a.min(x), b.max(x)));
        let row = Row {
            what: what.into(),
            method: method.into(),
            stored,
            value,
            unit: unit.into(),
            spread: (most - least) / 2.0 / value.abs().max(f64::MIN_POSITIVE),
            runs: runs.len(),
        };
        let place = if stored > 0 { format!("{method} at {stored}") } else { method.to_owned() };
        let spread = match runs.len() {
            1 => String::new(),
            _ => format!("±{:.0} %", 100.0 * row.spread),
        };
        let value = shown(value, unit);
        let line = format!("{what:<32} {place:<20} {value:>17} {spread:>7} {}", self.gain(&row));
        println!("{}", line.trim_end());
        self.rows.push(row);
        if let Err(fault) = self.write() {
            eprintln!("bench: {fault}");
        }
    }

    /// How many times as good as the baseline's figure, in words.
    fn gain(&self, row: &Row) -> String {
        let same = |other: &&Row| {
            (&other.what, &other.method, other.stored) == (&row.what, &row.method, row.stored)
        };
        let before = self.baseline.as_ref().and_then(|before| before.rows.iter().find(same));
        let Some(Row { value: before, .. }) = before else { return String::new() };
        let gain = if row.more_is_better() { row.value / before } else { before / row.value };
        format!("x {gain:.2}")
    }

    pub fn write(&self) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        let text = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        std::fs::write(path, text + "\n").map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// Three digits that say something, and the unit.
fn shown(value: f64, unit: &str) -> String {
    if unit == "bytes" {
        const STEPS: [(f64, &str); 3] = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
        if let Some((size, unit)) = STEPS.into_iter().find(|(size, _)| value >= *size) {
            return format!("{:.3} {unit}", value / size);
        }
    }
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0} {unit}"),
        size if size >= 10.0 => format!("{value:.1} {unit}"),
        size if size >= 1.0 => format!("{value:.2} {unit}"),
        _ => format!("{value:.3} {unit}"),
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted.get(middle.checked_sub(1)?)? + upper) / 2.0)
}

pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
