// SPDX-License-Identifier: MPL-2.0
//! How long values are, smoothed over picture and time (InfiniPot-V's VaN, §2.5).

use crate::model::rope::Layout;

/// Lengths of `n` vectors in a row.
pub fn norms(values: &[f32], n: usize) -> Vec<f32> {
    let dim = values.len().checked_div(n).unwrap_or(0).max(1);
    values.chunks_exact(dim).map(|v| v.iter().map(|x| x * x).sum::<f32>().sqrt()).collect()
}

/// How a run of tokens lies in time and picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub units: usize,
    pub rows: usize,
    pub cols: usize,
}

impl Grid {
    /// `n` tokens of pictures of `unit_tokens`; a picture whose sides are not known is square, or a
    /// single row.
    pub fn of(n: usize, unit_tokens: usize, layout: Layout) -> Self {
        let side = unit_tokens.isqrt().max(1);
        let (rows, cols) = match layout {
            Layout::Grid { rows, cols, .. } | Layout::Lines { rows, cols, .. } => (rows, cols),
            Layout::Run if side * side == unit_tokens => (side, side),
            Layout::Run => (1, unit_tokens.max(1)),
        };
        Self { units: n / (rows * cols).max(1), rows, cols }
    }

    fn tokens(self) -> usize {
        self.units * self.rows * self.cols
    }
}

/// An averaging kernel: over how many axes (1: along the tokens, 2: the picture, 3: picture and
/// time) and how wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub axes: usize,
    pub width: usize,
}

/// InfiniPot-V's smoothing of value norms, by quarters of the depth (§2.5).
pub fn kernel(layer: usize, depth: usize) -> Option<Kernel> {
    match layer / (depth / 4).max(1) {
        0 => Some(Kernel { axes: 3, width: 7 }),
        1 => Some(Kernel { axes: 2, width: 5 }),
        2 => Some(Kernel { axes: 1, width: 3 }),
        _ => None,
    }
}

/// Moving average with zeros around; the divisor is always the kernel's volume. Tokens that do not
/// fill the grid are left as they are.
pub fn pooled(values: &[f32], grid: Grid, kernel: Kernel) -> Vec<f32> {
    let Grid { units, rows, cols } = grid;
    if kernel.axes == 1 {
        return blurred(values, (1, 1, values.len()), (1, 1, kernel.width));
    }
    let mut width = kernel.width.min(units).min(rows).min(cols);
    width -= usize::from(width.is_multiple_of(2) && width > 0);
    if width < 2 || grid.tokens() != values.len() {
        return values.to_vec();
    }
    let deep = if kernel.axes == 3 { width } else { 1 };
    blurred(values, (units, rows, cols), (deep, width, width))
}

fn blurred(x: &[f32], shape: (usize, usize, usize), kernel: (usize, usize, usize)) -> Vec<f32> {
    let volume = (kernel.0 * kernel.1 * kernel.2) as f32;
    let span = |at: usize, width: usize, len: usize| {
        at.saturating_sub(width / 2)..(at + width / 2 + 1).min(len)
    };
    let mut out = Vec::with_capacity(x.len());
    for a in 0..shape.0 {
        for b in 0..shape.1 {
            for c in 0..shape.2 {
                let mut sum = 0.0;
                for i in span(a, kernel.0, shape.0) {
                    for j in span(b, kernel.1, shape.1) {
                        let row = (i * shape.1 + j) * shape.2;
                        sum += span(c, kernel.2, shape.2).map(|k| x[row + k]).sum::<f32>();
                    }
                }
                out.push(sum / volume);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moving_average_has_zeros_around_and_an_odd_width_that_fits_the_picture() {
        let grid = Grid { units: 4, rows: 4, cols: 4 };
        let found = pooled(&[9.0; 64], grid, Kernel { axes: 2, width: 5 });
        assert_eq!(found[..8], [4.0, 6.0, 6.0, 4.0, 6.0, 9.0, 9.0, 6.0]);
        // Two units are too few for a width of three.
        let grid = Grid { units: 2, rows: 4, cols: 4 };
        assert_eq!(pooled(&[9.0; 32], grid, Kernel { axes: 3, width: 7 }), [9.0; 32]);
        let found = pooled(&[3.0; 4], grid, Kernel { axes: 1, width: 3 });
        assert_eq!(found, [2.0, 3.0, 3.0, 2.0]);
    }
}
