// SPDX-License-Identifier: MPL-2.0
//! Rows of numbers in the host's memory, in pieces: whoever writes them to a file holds on to the pieces, and more
//! rows may come meanwhile.

use std::borrow::Cow;
use std::sync::Arc;

/// Rows of a piece. A piece that somebody else holds is copied before it changes, so they are few; what looks
/// at several rows together (`Rows::run`) divides them.
pub const PIECE: usize = 256;

/// Rows `[n, dim]` that grow by appending. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    dim: usize,
    /// Full ones of `PIECE` rows each, and one that fills.
    pieces: Vec<Arc<Vec<f32>>>,
}

impl Rows {
    /// None yet, of this length each.
    pub fn new(dim: usize) -> Self {
        Self { dim, ..Self::default() }
    }

    /// These, one behind the other.
    pub fn of(values: Vec<f32>, dim: usize) -> Self {
        let mut rows = Self::new(dim);
        if dim > 0 && values.len() <= PIECE * dim {
            rows.pieces.push(Arc::new(values));
        } else {
            rows.extend(&values);
        }
        rows
    }

    pub fn len(&self) -> usize {
        let last =
            self.pieces.last().map_or(0, |last| last.len().checked_div(self.dim).unwrap_or(0));
        self.pieces.len().saturating_sub(1) * PIECE + last
    }

    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Rows for which there is room.
    #[cfg(test)]
    pub fn room(&self) -> usize {
        let room: usize = self.pieces.iter().map(|piece| piece.capacity()).sum();
        room.checked_div(self.dim).unwrap_or(0)
    }

    /// Takes whole rows in behind these.
    pub fn extend(&mut self, mut more: &[f32]) {
        if self.dim == 0 {
            return;
        }
        while !more.is_empty() {
            match self.pieces.last_mut().filter(|last| last.len() < PIECE * self.dim) {
                Some(last) => {
                    let (fitting, rest) =
                        more.split_at(more.len().min(PIECE * self.dim - last.len()));
                    Arc::make_mut(last).extend_from_slice(fitting);
                    more = rest;
                }
                None => self.pieces.push(Arc::default()),
            }
        }
    }

    /// Writes over the rows from `from` on, as far as there are any.
    pub fn set(&mut self, from: usize, rows: &[f32]) {
        let dim = self.dim.max(1);
        for (row, values) in (from..).zip(rows.chunks_exact(dim)) {
            let piece = self.pieces.get_mut(row / PIECE).map(Arc::make_mut);
            let start = row % PIECE * dim;
            if let Some(own) = piece.and_then(|piece| piece.get_mut(start..start + dim)) {
                own.copy_from_slice(values);
            }
        }
    }

    /// Rows `from..from + count`, if they are there and of one piece, as those are that begin at a
    /// multiple of `count`.
    pub fn run(&self, from: usize, count: usize) -> Option<&[f32]> {
        let start = from % PIECE * self.dim;
        self.pieces.get(from / PIECE)?.get(start..start + count * self.dim)
    }

    /// The rows from `from` on.
    pub fn from(&self, from: usize) -> RowsFrom<'_> {
        RowsFrom { rows: self, from }
    }
}

/// Rows from one on.
#[derive(Clone, Copy, Debug)]
pub struct RowsFrom<'a> {
    rows: &'a Rows,
    from: usize,
}

impl<'a> RowsFrom<'a> {
    /// What lies together, in order: `PIECE` rows at most.
    pub fn pieces(self) -> impl Iterator<Item = &'a [f32]> {
        let Self { rows, from } = self;
        let pieces = rows.pieces.iter().enumerate().skip(from / PIECE);
        pieces.map(move |(number, piece)| {
            let first = from.saturating_sub(number * PIECE);
            piece.get(first * rows.dim..).unwrap_or_default()
        })
    }

    /// Each row.
    pub fn each(self) -> impl Iterator<Item = &'a [f32]> {
        self.pieces().flat_map(move |piece| piece.chunks_exact(self.rows.dim.max(1)))
    }

    /// The row with this index among these.
    pub fn get(self, index: usize) -> Option<&'a [f32]> {
        self.rows.run(self.from + index, 1)
    }

    /// All in one piece.
    pub fn joined(self) -> Cow<'a, [f32]> {
        let mut pieces = self.pieces();
        match (pieces.next(), pieces.next()) {
            (None, _) => Cow::Borrowed(&[]),
            (Some(only), None) => Cow::Borrowed(only),
            _ => Cow::Owned(self.pieces().collect::<Vec<_>>().concat()),
        }
    }

    /// These alone, sharing nothing.
    pub fn apart(self) -> Rows {
        let mut rows = Rows::new(self.rows.dim);
        self.pieces().for_each(|piece| rows.extend(piece));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(count: usize, dim: usize) -> Vec<f32> {
        (0..count * dim).map(|n| n as f32).collect()
    }

    #[test]
    fn rows_are_what_one_array_of_them_is() {
        let dim = 3;
        let all = numbered(3 * PIECE + 10, dim);
        for step in [1, 7, PIECE, PIECE + 1, 3 * PIECE + 10] {
            let mut rows = Rows::new(dim);
            all.chunks(step * dim).for_each(|part| rows.extend(part));
            assert_eq!(rows.len(), 3 * PIECE + 10);
            for from in [0, 1, PIECE - 1, PIECE, 2 * PIECE + 5, rows.len()] {
                let rest = rows.from(from);
                assert_eq!(*rest.joined(), all[from * dim..]);
                assert_eq!(rest.each().collect::<Vec<_>>().concat(), all[from * dim..]);
                assert_eq!(*rest.apart().from(0).joined(), all[from * dim..]);
                let last = (rows.len() - from).checked_sub(1);
                assert_eq!(
                    last.and_then(|last| rest.get(last)),
                    last.map(|_| &all[all.len() - dim..])
                );
                assert!(rest.get(rows.len() - from).is_none());
            }
            assert_eq!(rows.run(64, 64), Some(&all[64 * dim..128 * dim]));
            assert_eq!(rows.run(3 * PIECE, 64), None);
        }
        assert_eq!(*Rows::of(all.clone(), dim).from(0).joined(), all[..]);
        assert!(Rows::of(Vec::new(), 0).from(0).joined().is_empty());
    }

    #[test]
    fn what_somebody_holds_stays_as_it_is_and_only_pieces_that_change_are_copied() {
        let dim = 2;
        let mut rows = Rows::of(numbered(2 * PIECE + 1, dim), dim);
        let before = rows.from(0).joined().into_owned();
        let held = rows.clone();
        rows.extend(&[-1.0, -2.0]);
        rows.set(PIECE - 1, &[5.0, 6.0, 7.0, 8.0]);
        assert_eq!(*held.from(0).joined(), before[..]);
        assert_eq!(rows.from(0).get(PIECE - 1), Some(&[5.0, 6.0][..]));
        assert_eq!(rows.from(0).get(PIECE), Some(&[7.0, 8.0][..]));
        assert_eq!(rows.from(2 * PIECE + 1).joined(), &[-1.0, -2.0][..]);
        let mut rows = Rows::of(numbered(3 * PIECE, dim), dim);
        let held = rows.clone();
        rows.set(PIECE, &[5.0, 6.0]);
        let same = |at: usize| Arc::ptr_eq(&rows.pieces[at], &held.pieces[at]);
        assert_eq!([same(0), same(1), same(2)], [true, false, true]);
    }
}
