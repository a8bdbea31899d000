// SPDX-License-Identifier: MPL-2.0
//! Where a list of distances falls into near and far: Otsu's threshold, as FluxMem (2603.02096, §3.3) has
//! it for distances `1 - cosine`.

/// Bins over `0..=2`, in which all such distances lie.
const BINS: usize = 128;
const WIDEST: f32 = 2.0;
const ROUNDING: f64 = 1e-9;
/// Distances that vary less than this do not fall apart.
const STILL: f64 = 1e-12;

/// The middle of the bin behind which the two parts differ most; `None` where there are no two parts.
pub fn threshold(distances: &[f32]) -> Option<f32> {
    let step = f64::from(WIDEST) / BINS as f64;
    let mut counts = [0usize; BINS];
    for distance in distances {
        let share = distance.clamp(0.0, WIDEST) / WIDEST * BINS as f32;
        counts[(share as usize).min(BINS - 1)] += 1;
    }
    let total = distances.len() as f64;
    let middle = |bin: usize| (bin as f64 + 0.5) * step;
    let mean: f64 = counts.iter().enumerate().map(|(bin, &n)| n as f64 * middle(bin)).sum();
    let mean = mean / total;
    let (mut near, mut weighted) = (0.0, 0.0);
    let mut best: Option<(f64, usize)> = None;
    for (bin, &count) in counts.iter().enumerate() {
        near += count as f64 / total;
        weighted += count as f64 / total * middle(bin);
        if near < 1e-6 || 1.0 - near < 1e-6 {
            continue;
        }
        let between = (mean * near - weighted).powi(2) / (near * (1.0 - near));
        // Of thresholds that part as well the nearest one, whatever rounding says.
        if between > best.map_or(0.0, |(best, _)| best * (1.0 + ROUNDING)) {
            best = Some((between, bin));
        }
    }
    best.map(|(_, bin)| middle(bin) as f32)
}

/// The same; of distances that do not fall apart, the middle one (of an even number the smaller of two).
pub fn threshold_or_median(distances: &[f32]) -> Option<f32> {
    let (n, of) = (distances.len() as f64, |x: &f32| f64::from(x.clamp(0.0, WIDEST)));
    let mean = distances.iter().map(of).sum::<f64>() / n;
    let squares = distances.iter().map(|x| (of(x) - mean).powi(2)).sum::<f64>();
    let still = distances.len() > 1 && squares / (n - 1.0) <= STILL;
    threshold(distances).filter(|_| !still).or_else(|| {
        let mut sorted: Vec<f32> = distances.iter().map(|x| x.clamp(0.0, WIDEST)).collect();
        sorted.sort_by(f32::total_cmp);
        sorted.get(distances.len().saturating_sub(1) / 2).copied()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_heaps_are_parted_in_the_last_bin_of_the_nearer_one() {
        let heaps = [0.1, 0.11, 0.12, 0.1, 1.4, 1.41];
        let at = threshold(&heaps).unwrap();
        assert!((0.109..0.125).contains(&at), "{at}");
        assert_eq!(threshold_or_median(&heaps), Some(at));
    }

    /// Three at equal distances are parted behind the first as well as behind the second.
    #[test]
    fn of_two_thresholds_that_are_as_good_the_nearest_is_taken() {
        assert_eq!(threshold(&[0.1724, 0.2083, 0.2379]), Some(11.5 * WIDEST / BINS as f32));
    }

    #[test]
    fn what_does_not_fall_apart_has_a_middle() {
        assert_eq!(threshold(&[]), None);
        assert_eq!(threshold_or_median(&[]), None);
        assert_eq!(threshold(&[0.3; 5]), None);
        assert_eq!(threshold_or_median(&[0.3; 5]), Some(0.3));
        // In two bins, and yet as good as equal.
        let (low, high) = (WIDEST / BINS as f32 - 1e-7, WIDEST / BINS as f32);
        assert!(threshold(&[low, high]).is_some());
        assert_eq!(threshold_or_median(&[high, low]), Some(low));
        assert_eq!(threshold_or_median(&[0.7]), Some(0.7));
    }
}
