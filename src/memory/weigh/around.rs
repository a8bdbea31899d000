// SPDX-License-Identifier: MPL-2.0
//! Tokens compared with those around them, in the picture before or behind and in their own: what FluxMem
//! (2603.02096) drops in its middle tier (§3.2, temporal adjacency) and merges in its last (§3.2, spatial
//! consolidation), as the released code does it.

use super::otsu;
use super::score::cosine;

/// What is left of a picture: token vectors, and their places in a grid of so many columns.
#[derive(Clone, Copy)]
pub struct Picture<'a> {
    /// `[n, C]`
    pub tokens: &'a [f32],
    /// `[n]`
    pub patches: &'a [u32],
}

impl<'a> Picture<'a> {
    fn dim(self) -> usize {
        self.tokens.len().checked_div(self.patches.len()).unwrap_or(0)
    }

    fn token(self, at: usize) -> &'a [f32] {
        let dim = self.dim();
        self.tokens.get(at * dim..(at + 1) * dim).unwrap_or_default()
    }

    /// Where the tokens at a patch and around it are in the list.
    fn around(self, patch: u32, columns: u32) -> impl Iterator<Item = usize> {
        let columns = columns.max(1);
        let (row, column) = (patch / columns, patch % columns);
        let rows = row.saturating_sub(1)..=row + 1;
        let of_row = move |row: u32| {
            let last = (column + 1).min(columns - 1);
            let first = row.saturating_mul(columns);
            (column.saturating_sub(1)..=last).map(move |column| first.saturating_add(column))
        };
        rows.flat_map(of_row).filter_map(move |patch| self.patches.binary_search(&patch).ok())
    }
}

/// How much each token is like the one most like it around the same place of another picture; `None`
/// where there is nothing around it.
pub fn likeness(of: Picture<'_>, other: Picture<'_>, columns: u32) -> Vec<Option<f32>> {
    if of.dim() != other.dim() {
        return vec![None; of.patches.len()];
    }
    let likest = |(at, &patch): (usize, &u32)| {
        let near = other.around(patch, columns);
        near.map(|near| cosine(of.token(at), other.token(near))).max_by(f32::total_cmp)
    };
    of.patches.iter().enumerate().map(likest).collect()
}

/// Which tokens of a picture stay when it leaves the newest ones: those that are far from what is around
/// them in the picture behind it, or in the one before it, by a [threshold](otsu) of their own for each;
/// and in no case those that are more like the picture behind than `same` says of each.
///
/// `before`: how much each token was like the picture before, when it came.
pub fn changed(
    before: &[Option<f32>],
    behind: &[Option<f32>],
    same: impl Fn(usize) -> f32,
) -> Vec<bool> {
    let far = |likeness: &[Option<f32>]| -> Vec<Option<bool>> {
        let distances: Vec<f32> = likeness.iter().flatten().map(|alike| 1.0 - alike).collect();
        let threshold = otsu::threshold_or_median(&distances);
        let is_far = |alike: &Option<f32>| Some(1.0 - (*alike)? >= threshold?);
        likeness.iter().map(is_far).collect()
    };
    let (was, is) = (far(before), far(behind));
    let stays = |(at, behind): (usize, &Option<f32>)| match (behind, is.get(at)) {
        (Some(alike), Some(Some(far))) => {
            let was = was.get(at).copied().flatten().unwrap_or(false);
            *alike <= same(at) && (*far || was)
        }
        _ => true,
    };
    behind.iter().enumerate().map(stays).collect()
}

/// A picture whose tokens that are next to each other and alike became one, the mean, where the token
/// that is nearest to it was: what is left, `[m, C]`, and where that stood in the list. `None` where
/// nothing is to be merged.
pub fn merged(picture: Picture<'_>, columns: u32) -> Option<(Vec<f32>, Vec<usize>)> {
    let n = picture.patches.len();
    let edges: Vec<(usize, usize, f32)> = (0..n)
        .flat_map(|at| {
            let patch = picture.patches.get(at).copied().unwrap_or_default();
            let next = picture.around(patch, columns).filter(move |&near| near > at);
            next.map(move |near| (at, near, 1.0 - cosine(picture.token(at), picture.token(near))))
        })
        .collect();
    let distances: Vec<f32> = edges.iter().map(|(.., distance)| *distance).collect();
    let threshold = otsu::threshold(&distances)?;
    let mut label: Vec<usize> = (0..n).collect();
    for &(a, b, distance) in &edges {
        if distance.clamp(0.0, 2.0) <= threshold {
            let (a, b) = (root(&label, a), root(&label, b));
            label[a.max(b)] = a.min(b);
        }
    }
    let groups: Vec<Vec<usize>> = (0..n)
        .filter(|&at| label[at] == at)
        .map(|first| (first..n).filter(|&at| root(&label, at) == first).collect())
        .collect();
    if groups.len() == n {
        return None;
    }
    let mut left: Vec<(usize, Vec<f32>)> =
        groups.iter().map(|group| anchored(picture, group)).collect();
    left.sort_by_key(|(at, _)| *at);
    let (places, tokens): (Vec<usize>, Vec<Vec<f32>>) = left.into_iter().unzip();
    Some((tokens.concat(), places))
}

fn root(label: &[usize], mut at: usize) -> usize {
    while label[at] != at {
        at = label[at];
    }
    at
}

/// Of a group the mean, and which of it is nearest to that, the first of equals. Two are equals, whatever
/// rounding says.
fn anchored(picture: Picture<'_>, group: &[usize]) -> (usize, Vec<f32>) {
    if let [alone] = group {
        return (*alone, picture.token(*alone).to_vec());
    }
    let mut mean = vec![0.0; picture.dim()];
    for &at in group {
        mean.iter_mut().zip(picture.token(at)).for_each(|(sum, x)| *sum += x);
    }
    mean.iter_mut().for_each(|x| *x /= group.len() as f32);
    let far = |at: usize| -> f32 {
        picture.token(at).iter().zip(&mean).map(|(a, b)| (a - b) * (a - b)).sum()
    };
    let nearest = match group {
        [first, _] => Some(*first),
        _ => group.iter().copied().min_by(|&a, &b| far(a).total_cmp(&far(b))),
    };
    (nearest.unwrap_or_default(), mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [u32; 4] = [0, 1, 2, 3];

    #[test]
    fn what_moved_to_a_place_beside_it_is_found_there() {
        // Two rows of two; the first token went down and right.
        let (a, b) = ([1., 0., 0., 1., 0., 1., 0., 1.], [0., 1., 0., 1., 0., 1., 1., 0.]);
        let (of, other) =
            (Picture { tokens: &a, patches: &ALL }, Picture { tokens: &b, patches: &ALL });
        assert_eq!(likeness(of, other, 2), [Some(1.0); 4]);
        // In one row of four it is too far away.
        assert_eq!(likeness(of, other, 4)[0], Some(0.0));
        let gone = Picture { tokens: &b[6..], patches: &ALL[3..] };
        assert_eq!(likeness(of, gone, 4), [None, None, Some(0.0), Some(0.0)]);
    }

    #[test]
    fn tokens_that_were_new_or_are_gone_later_stay() {
        let (alike, unlike) = (Some(0.7), Some(0.1));
        let before = [alike, unlike, alike, None];
        let behind = [alike, alike, unlike, None];
        assert_eq!(changed(&before, &behind, |_| 0.8), [false, true, true, true]);
        assert_eq!(changed(&before, &behind, |_| 0.6), [false, false, true, true]);
        let same = |at| if at == 1 { 0.8 } else { 0.05 };
        assert_eq!(changed(&before, &behind, same), [false, true, false, true]);
    }

    #[test]
    fn neighbours_that_are_alike_become_their_mean_at_one_of_their_places() {
        let tokens = [1.0, 0.0, 0.9, 0.1, 1.0, 0.05, 0.0, 1.0];
        let (left, places) = merged(Picture { tokens: &tokens, patches: &ALL }, 4).unwrap();
        assert_eq!(places, [2, 3]);
        let mean = [2.9 / 3.0, 0.15 / 3.0, 0.0, 1.0];
        assert!(left.iter().zip(mean).all(|(a, b)| (a - b).abs() < 1e-6), "{left:?}");
        assert_eq!(merged(Picture { tokens: &tokens[..2], patches: &ALL[..1] }, 4), None);
    }
}
