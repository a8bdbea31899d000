// SPDX-License-Identifier: MPL-2.0
//! Which seconds an answer looked at: the attention of its first token, gathered by stored unit,
//! turned into stretches of stream time.

use std::collections::BTreeMap;

use crate::memory::unit::{Kind, Unit};

/// A stretch of stream time that an answer looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// Seconds of stream time.
    pub start: f64,
    /// Seconds of stream time; at least `start`.
    pub end: f64,
    /// Share of the answer's attention to the video that fell on this stretch, in 0..=1.
    pub score: f64,
}

/// A unit belongs to the evidence if it got at least this share of what the strongest one got.
const NOTABLE: f64 = 0.5;

/// Merges the notable units of `mass` (attention by unit id) into stretches of neighbouring
/// frames, strongest first.
///
/// The summary of a segment stands for all its frames, so its share goes to those of them that
/// are there; a summary that is alone speaks for its segment's whole span.
pub fn stretches<'a>(
    mass: &BTreeMap<u64, f64>,
    unit: impl Fn(u64) -> Option<&'a Unit>,
) -> Vec<Evidence> {
    let mut looked: Vec<(&Unit, f64)> =
        mass.iter().filter_map(|(&id, &mass)| Some((unit(id)?, mass))).collect();
    spread_summaries(&mut looked);
    let total: f64 = looked.iter().map(|(_, mass)| mass).sum();
    let most = looked.iter().map(|(_, mass)| *mass).fold(0.0, f64::max);
    if !total.is_normal() {
        return Vec::new();
    }
    let mut stretches: Vec<Evidence> = Vec::new();
    let mut last_frame = None;
    for (unit, mass) in looked.into_iter().filter(|(_, mass)| *mass >= NOTABLE * most) {
        let score = mass / total;
        match stretches.last_mut() {
            Some(open) if last_frame.is_some_and(|last| unit.frames.start <= last) => {
                open.end = open.end.max(unit.end);
                open.score += score;
            }
            _ => stretches.push(Evidence { start: unit.start, end: unit.end, score }),
        }
        last_frame = last_frame.max(Some(unit.frames.end));
    }
    stretches.sort_by(|a, b| b.score.total_cmp(&a.score));
    stretches
}

fn spread_summaries(looked: &mut Vec<(&Unit, f64)>) {
    let summaries: Vec<(u64, f64)> = looked
        .iter()
        .filter(|(unit, _)| unit.kind == Kind::Summary)
        .map(|(unit, mass)| (unit.segment, *mass))
        .collect();
    for (segment, mass) in summaries {
        let of_segment = |unit: &Unit| unit.segment == segment && unit.kind == Kind::Frame;
        let frames = looked.iter().filter(|(unit, _)| of_segment(unit)).count();
        if frames == 0 {
            continue;
        }
        for (_, share) in looked.iter_mut().filter(|(unit, _)| of_segment(unit)) {
            *share += mass / frames as f64;
        }
        looked.retain(|(unit, _)| unit.segment != segment || unit.kind == Kind::Frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(id: u64, kind: Kind, segment: u64, frames: std::ops::Range<u64>) -> Unit {
        let (start, end) = (frames.start as f64, frames.end as f64 - 1.0);
        Unit {
            id,
            kind,
            segment,
            start,
            end,
            frames,
            at: 0,
            time: 0.0,
            patches: None,
            words: Default::default(),
            told: 0.0,
            embedding: None,
        }
    }

    fn evidence(units: &[Unit], mass: &[f64]) -> Vec<Evidence> {
        let mass = units.iter().map(|u| u.id).zip(mass.iter().copied()).collect();
        stretches(&mass, |id| units.iter().find(|unit| unit.id == id))
    }

    #[test]
    fn neighbours_merge_and_the_strongest_stretch_comes_first() {
        let units: Vec<Unit> = (0..6).map(|i| unit(i, Kind::Frame, 0, i..i + 1)).collect();
        let found = evidence(&units, &[0.6, 0.0, 0.0, 1.0, 0.9, 0.1]);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].start, found[0].end), (3.0, 4.0));
        assert_eq!((found[1].start, found[1].end), (0.0, 0.0));
        assert!((found[0].score - 1.9 / 2.6).abs() < 1e-9);
    }

    #[test]
    fn a_summary_speaks_through_its_frames_or_for_its_span() {
        let units = [
            unit(0, Kind::Frame, 0, 0..1),
            unit(1, Kind::Summary, 0, 0..4),
            unit(2, Kind::Summary, 1, 4..8),
        ];
        let found = evidence(&units, &[0.2, 0.4, 0.1]);
        assert_eq!(found, [Evidence { start: 0.0, end: 0.0, score: 0.6 / 0.7 }]);
        let found = evidence(&units, &[0.0, 0.0, 0.5]);
        assert_eq!(found, [Evidence { start: 4.0, end: 7.0, score: 1.0 }]);
    }

    #[test]
    fn nothing_looked_at_is_no_evidence() {
        assert!(evidence(&[], &[]).is_empty());
        let units = [unit(0, Kind::Frame, 0, 0..1)];
        assert!(evidence(&units, &[0.0]).is_empty());
    }
}
