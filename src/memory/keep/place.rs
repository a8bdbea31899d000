// SPDX-License-Identifier: MPL-2.0
//! Where tokens stand when they are looked at: side by side, where they stood in the stream, or
//! squeezed. Keys are turned only then, so a rule is nothing but a choice of places.

use crate::memory::recipe::Places;
use crate::memory::unit::{BEHIND, FRONT, Row, offset};
use crate::model::rope::{Kept, Layout, Place, Placed, Positions};

/// Where rows stand when they are used behind a prefix.
pub fn place(rows: &[Row], rule: Places, layout: Layout, prefix: usize) -> Placed {
    match rule {
        Places::Packed => side_by_side(rows, layout, prefix),
        Places::Kept | Places::Lazy { .. } | Places::Scaled => {
            let places: Vec<Place> = rows.iter().map(|row| row.place).collect();
            let end = places.iter().map(Place::max).max().map_or(prefix, |last| last + 1);
            Placed { positions: Positions::listed(places), next: end }
        }
        Places::Local if layout == Layout::Run => {
            let alone = |rows: &[Row]| {
                let patches = offsets(rows);
                layout.places_in(prefix, (0, 0.0), kept(rows, &patches))
            };
            let units = rows.chunk_by(|a, b| a.unit == b.unit).flat_map(alone);
            let positions = Positions::listed(units.collect());
            let next = prefix + rows.len();
            Placed { positions, next }
        }
        Places::Local => {
            let alone = |rows: &[Row]| side_by_side(rows, layout, prefix).positions;
            let units = rows.chunk_by(|a, b| a.unit == b.unit).map(alone);
            let positions = units.fold(Positions::run(0, 0), |all, unit| all.then(&unit));
            let next = prefix + rows.len();
            Placed { positions, next }
        }
    }
}

fn side_by_side(rows: &[Row], layout: Layout, prefix: usize) -> Placed {
    let units: Vec<&[Row]> = rows.chunk_by(|a, b| a.unit == b.unit).collect();
    let patches: Vec<Vec<usize>> = units.iter().map(|rows| offsets(rows)).collect();
    layout.packed(prefix, units.iter().zip(&patches).map(|(rows, patches)| kept(rows, patches)))
}

/// What is left of one unit. `patches`: its [`offsets`].
fn kept<'a>(rows: &[Row], patches: &'a [usize]) -> Kept<'a> {
    let front = rows.iter().filter(|row| (FRONT..BEHIND).contains(&row.patch)).count();
    Kept::some(patches).within(front, rows.len() - front - patches.len())
}

/// The offsets in one unit's picture of what is not words.
fn offsets(rows: &[Row]) -> Vec<usize> {
    rows.iter().filter(|row| !row.is_word()).map(|row| offset(row.patch)).collect()
}

/// A place at another time. Where there is one axis, time is all of it; where time is told in words,
/// pictures stand by what is in front of them, and so move on all axes.
pub fn at_time(place: Place, t: usize, layout: Layout) -> Place {
    match layout {
        Layout::Run => Place::text(t),
        Layout::Grid { .. } => Place { t, ..place },
        Layout::Lines { .. } => {
            let moved = |at: usize| (t + at).saturating_sub(place.t);
            Place { t, h: moved(place.h), w: moved(place.w) }
        }
    }
}

/// The times of what is left of a stretch of `n` tokens, squeezed to that fraction of it
/// (ReTaKe): `t' = first + trunc((t - first) * kept / n)`, `first` being the first kept one's.
pub fn squeezed(times: &[usize], n: usize) -> Vec<usize> {
    let first = times.iter().copied().min().unwrap_or(0);
    let squeeze = |t: usize| first + (t - first) * times.len() / n.max(1);
    times.iter().map(|&t| squeeze(t)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::unit::RESIDUE;

    fn row(unit: u64, patch: u32) -> Row {
        Row { unit, patch, step: 0, place: Place::text(0), score: 0.0 }
    }

    #[test]
    fn units_at_one_place_keep_the_offsets_of_their_patches() {
        let rows = [row(0, 1), row(1, 0), row(1, 3), row(2, RESIDUE)];
        let Placed { positions, next } = place(&rows, Places::Local, Layout::Run, 5);
        let times: Vec<usize> = positions.places().iter().map(|place| place.t).collect();
        assert_eq!(times, [6, 5, 8, 5]);
        assert_eq!(next, 9);
    }
}
