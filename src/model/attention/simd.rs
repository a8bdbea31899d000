// SPDX-License-Identifier: MPL-2.0
//! The row operations of the CPU kernels, compiled for the widest instruction set the machine
//! turns out to have.
//!
//! Each operation is one plain loop over lanes that the compiler vectorises; it is instantiated
//! three times, and [`Level::detect`] picks at run time. So one binary is fast on every x86-64
//! machine without `-C target-cpu`.

use half::bf16;

/// The instruction sets a row operation is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Whatever the target guarantees (SSE2 on x86-64, NEON on AArch64).
    Base,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best level of this machine; the standard library caches the answer.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Base
    }

    #[cfg(test)]
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut levels = vec![Self::Base];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                levels.push(Self::Avx512);
            }
        }
        levels
    }
}

/// One vector of AVX-512, two of AVX2, four of SSE2; enough independent lanes for each.
const LANES: usize = 16;

/// Compiles `$body` per level and dispatches to it.
macro_rules! leveled {
    ($(#[$doc:meta])* $name:ident, $body:ident, ($($arg:ident: $ty:ty),*) $(-> $ret:ty)?) => {
        $(#[$doc])*
        #[inline]
        pub(crate) fn $name(level: Level, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? { $body::<true>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? { $body::<true>($($arg),*) }
                match level {
                    // SAFETY: `Level::detect` is the only source of these two values outside of
                    // tests, and it has seen the features on this machine.
                    Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Base => {}
                }
            }
            let Level::Base = level else { unreachable!() };
            $body::<false>($($arg),*)
        }
    };
}

leveled!(
    /// The largest element of a row; minus infinity for an empty one.
    max, max_body, (row: &[f32]) -> f32
);
leveled!(
    /// `row[j] = exp(row[j] - shift)`; returns the sum.
    exp_sum, exp_sum_body, (row: &mut [f32], shift: f32) -> f32
);
leveled!(
    /// `sums[j] += weight * exp(row[j] - shift)`.
    add_exp, add_exp_body, (row: &[f32], shift: f32, weight: f32, sums: &mut [f32])
);
leveled!(
    /// `row[j] *= factor`.
    scale, scale_body, (row: &mut [f32], factor: f32)
);
leveled!(
    /// The dot product of two rows of equal length.
    dot, dot_body, (a: &[f32], b: &[f32]) -> f32
);
leveled!(
    /// `sum[j] += factor * row[j]`.
    add_scaled, add_scaled_body, (sum: &mut [f32], row: &[f32], factor: f32)
);
leveled!(
    /// `wide[j] = row[j]`, which is exact.
    widen, widen_body, (row: &[bf16], wide: &mut [f32])
);

leveled!(
    /// The smallest and the largest of a row and zero; no numbers where one of them is none.
    spread, spread_body, (row: &[f32]) -> (f32, f32)
);
leveled!(
    /// `codes[j] = row[j] * factor + zero`, rounded, within `0..=top`; `how` is those three.
    codes, codes_body, (row: &[f32], how: (f32, f32, f32), codes: &mut [u8])
);
leveled!(
    /// [`codes`] of more than a byte: `high[j] * base + low[j]`.
    pairs, pairs_body,
    (row: &[f32], how: (f32, f32, f32), base: i32, high: &mut [u8], low: &mut [u8])
);
leveled!(
    /// `y[j] += step * scales[j] * (counts[j] - zero * sums[j])`; `weights` is `(sums, scales)`.
    add_counts, add_counts_body,
    (counts: &[i32], scale: Scale, weights: (&[i32], &[f32]), y: &mut [f32])
);
leveled!(
    /// [`add_counts`] where `counts` is of high bytes and of low ones, `of` the base and the scale.
    add_pairs, add_pairs_body,
    (counts: (&[i32], &[i32]), of: (i32, Scale), weights: (&[i32], &[f32]), y: &mut [f32])
);
leveled!(
    /// GELU by its approximation with a hyperbolic tangent.
    gelu_tanh, gelu_tanh_body, (row: &mut [f32])
);
leveled!(
    /// `y[j] = silu(gate[j]) * up[j]`.
    silu_mul, silu_mul_body, (gate: &[f32], up: &[f32], y: &mut [f32])
);

/// What whole numbers stand for: `step * (code - zero)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    pub step: f32,
    pub zero: i32,
}

#[inline(always)]
fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    // Without the instruction `mul_add` would be a call into the maths library.
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` for `x <= 0` to about 2 ulp; 0 below -87.3 and for minus infinity.
///
/// Cody-Waite: `x = n ln 2 + r`, a polynomial for `e^r`, the exponent put in by its bits.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOWEST: f32 = -87.336_54;
    let clamped = if x > LOWEST { x } else { LOWEST };
    let shifted = mul_add::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add::<FMA>(n, -0.693_359_4, clamped);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_2e-4;
    p = mul_add::<FMA>(p, r, 1.398_2e-3);
    p = mul_add::<FMA>(p, r, 8.333_452e-3);
    p = mul_add::<FMA>(p, r, 4.166_579_6e-2);
    p = mul_add::<FMA>(p, r, 1.666_666_5e-1);
    p = mul_add::<FMA>(p, r, 0.5);
    let p = mul_add::<FMA>(p * r, r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x > LOWEST { p * power } else { 0.0 }
}

#[inline(always)]
fn max_body<const FMA: bool>(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &x| m.max(x))
}

#[inline(always)]
fn exp_sum_body<const FMA: bool>(row: &mut [f32], shift: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = exp::<FMA>(*x - shift);
            *lane += *x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *x = exp::<FMA>(*x - shift);
        *lane += *x;
    }
    lanes.iter().sum()
}

#[inline(always)]
fn add_exp_body<const FMA: bool>(row: &[f32], shift: f32, weight: f32, sums: &mut [f32]) {
    for (sum, &x) in sums.iter_mut().zip(row) {
        *sum = mul_add::<FMA>(weight, exp::<FMA>(x - shift), *sum);
    }
}

#[inline(always)]
fn scale_body<const FMA: bool>(row: &mut [f32], factor: f32) {
    for x in row {
        *x *= factor;
    }
}

#[inline(always)]
fn dot_body<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = mul_add::<FMA>(a, b, *lane);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn add_scaled_body<const FMA: bool>(sum: &mut [f32], row: &[f32], factor: f32) {
    for (sum, &x) in sum.iter_mut().zip(row) {
        *sum = mul_add::<FMA>(factor, x, *sum);
    }
}

#[inline(always)]
fn widen_body<const FMA: bool>(row: &[bf16], wide: &mut [f32]) {
    for (wide, x) in wide.iter_mut().zip(row) {
        *wide = f32::from_bits(u32::from(x.to_bits()) << 16);
    }
}

/// Adding 1.5 * 2^23 rounds to an integer in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;

#[inline(always)]
fn spread_body<const FMA: bool>(row: &[f32]) -> (f32, f32) {
    let (mut low, mut high, mut none) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut take = |lane: usize, x: f32| {
        low[lane] = if x < low[lane] { x } else { low[lane] };
        high[lane] = if x > high[lane] { x } else { high[lane] };
        // Stays zero as long as all are finite.
        none[lane] += x * 0.0;
    };
    for chunk in chunks {
        for (lane, &x) in chunk.iter().enumerate() {
            take(lane, x);
        }
    }
    for (lane, &x) in rest.iter().enumerate() {
        take(lane, x);
    }
    let none: f32 = none.iter().sum();
    let low = low.iter().fold(0f32, |a, &b| a.min(b));
    let high = high.iter().fold(0f32, |a, &b| a.max(b));
    (low + none, high + none)
}

/// A whole number of `0..=top` in the low bits of the result; 0 of what is no number.
#[inline(always)]
fn code<const FMA: bool>(x: f32, (factor, zero, top): (f32, f32, f32)) -> u32 {
    let x = mul_add::<FMA>(x, factor, zero);
    let x = if x > 0.0 { x } else { 0.0 };
    let x = if x < top { x } else { top };
    (x + ROUND).to_bits() & 0xFFFF
}

#[inline(always)]
fn codes_body<const FMA: bool>(row: &[f32], how: (f32, f32, f32), codes: &mut [u8]) {
    for (to, &x) in codes.iter_mut().zip(row) {
        *to = code::<FMA>(x, how) as u8;
    }
}

#[inline(always)]
fn pairs_body<const FMA: bool>(
    row: &[f32],
    how: (f32, f32, f32),
    base: i32,
    high: &mut [u8],
    low: &mut [u8],
) {
    let (shift, mask) = (base.trailing_zeros(), base as u32 - 1);
    for ((high, low), &x) in high.iter_mut().zip(low).zip(row) {
        let code = code::<FMA>(x, how);
        *high = (code >> shift) as u8;
        *low = (code & mask) as u8;
    }
}

#[inline(always)]
fn add_counts_body<const FMA: bool>(
    counts: &[i32],
    Scale { step, zero }: Scale,
    (sums, scales): (&[i32], &[f32]),
    y: &mut [f32],
) {
    for (((y, &count), &sum), &scale) in y.iter_mut().zip(counts).zip(sums).zip(scales) {
        *y = mul_add::<FMA>(count.wrapping_sub(zero.wrapping_mul(sum)) as f32, step * scale, *y);
    }
}

#[inline(always)]
fn add_pairs_body<const FMA: bool>(
    (high, low): (&[i32], &[i32]),
    (base, Scale { step, zero }): (i32, Scale),
    (sums, scales): (&[i32], &[f32]),
    y: &mut [f32],
) {
    let (zero_high, zero_low, base) = (zero / base, zero % base, base as f32);
    for ((((y, &high), &low), &sum), &scale) in
        y.iter_mut().zip(high).zip(low).zip(sums).zip(scales)
    {
        // Each of the two is a whole number that fits; together they would not.
        let high = high.wrapping_sub(zero_high.wrapping_mul(sum)) as f32;
        let low = low.wrapping_sub(zero_low.wrapping_mul(sum)) as f32;
        *y = mul_add::<FMA>(mul_add::<FMA>(high, base, low), step * scale, *y);
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    let power = exp::<FMA>(-x.abs());
    let share = 1.0 / (1.0 + power);
    // What is no number compares as nothing and stays one.
    let share = if x < 0.0 { power * share } else { share };
    if x.is_nan() { x } else { share }
}

#[inline(always)]
fn gelu_tanh_body<const FMA: bool>(row: &mut [f32]) {
    /// Twice the root of 2 / pi: `(1 + tanh u) / 2` is the sigmoid of `2 u`.
    const FACTOR: f32 = 1.595_769;
    for x in row {
        let cubic = mul_add::<FMA>(0.044_715 * *x * *x, *x, *x);
        *x *= sigmoid::<FMA>(FACTOR * cubic);
    }
}

#[inline(always)]
fn silu_mul_body<const FMA: bool>(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, &gate), &up) in y.iter_mut().zip(gate).zip(up) {
        *y = gate * sigmoid::<FMA>(gate) * up;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_stand_for_what_they_were_made_of_at_every_level() {
        let row: Vec<f32> = (0..37).map(|i| ((i * 13) % 29) as f32 * 0.3 - 2.0).collect();
        for level in Level::available() {
            let (low, high) = spread(level, &row);
            assert_eq!((low, high), (-2.0, 28.0 * 0.3 - 2.0));
            assert_eq!(spread(level, &[1.0; 20]), (0.0, 1.0));
            for none in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut row = row.clone();
                row[36] = none;
                let (low, high) = spread(level, &row);
                assert!(!(high - low).is_finite(), "{none}: {low} {high}");
            }
            let step = (high - low) / 255.0;
            let zero = (-low / step).round();
            let mut bytes = [0u8; 37];
            codes(level, &row, (1.0 / step, zero, 255.0), &mut bytes);
            for (code, x) in bytes.iter().zip(&row) {
                assert!((step * (f32::from(*code) - zero) - x).abs() <= step * 1.001);
            }
            let step = (high - low) / 65535.0;
            let zero = (-low / step).round();
            let (mut highs, mut lows) = ([0u8; 37], [0u8; 37]);
            pairs(level, &row, (1.0 / step, zero, 65535.0), 256, &mut highs, &mut lows);
            for ((high, low), x) in highs.iter().zip(&lows).zip(&row) {
                let code = f32::from(*high) * 256.0 + f32::from(*low);
                assert!((step * (code - zero) - x).abs() <= step * 1.1, "{x}");
            }
            codes(level, &[f32::NAN, -9.0, 900.0], (1.0, 3.0, 127.0), &mut bytes);
            assert_eq!(bytes[..3], [0, 0, 127]);
        }
    }

    #[test]
    fn activations_are_close_at_every_level() {
        let xs: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.01).chain([1e30, -1e30]).collect();
        for level in Level::available() {
            let (mut gelu, mut silu) = (xs.clone(), vec![0.0; xs.len()]);
            gelu_tanh(level, &mut gelu);
            silu_mul(level, &xs, &vec![2.0; xs.len()], &mut silu);
            for ((&x, gelu), silu) in xs.iter().zip(&gelu).zip(&silu) {
                let x = f64::from(x);
                let u = 0.797_884_560_802_865_4 * (x + 0.044715 * x * x * x);
                let expected = 0.5 * x * (1.0 + u.tanh());
                assert!((f64::from(*gelu) - expected).abs() <= 2e-6 * x.abs().max(0.1), "{x}");
                let expected = 2.0 * x / (1.0 + (-x).exp());
                assert!((f64::from(*silu) - expected).abs() <= 2e-6 * x.abs().max(0.1), "{x}");
            }
            let mut none = [f32::NAN; 3];
            gelu_tanh(level, &mut none);
            assert!(none.iter().all(|x| x.is_nan()));
            silu_mul(level, &[f32::NAN; 3], &[1.0; 3], &mut none);
            assert!(none.iter().all(|x| x.is_nan()));
        }
    }

    #[test]
    fn the_exponential_is_close_at_every_level() {
        for level in Level::available() {
            for step in 0..20_000 {
                let x = -(step as f32) * 0.005;
                let mut row = [x; 19];
                let sum = exp_sum(level, &mut row, 0.0);
                let expected = f64::from(x).exp();
                let tolerance = expected * 4e-7 + 2e-38;
                assert!((f64::from(row[18]) - expected).abs() <= tolerance, "{level:?} {x}");
                assert!((f64::from(sum) - 19.0 * expected).abs() <= 19.0 * tolerance + 1e-6);
            }
            assert_eq!(exp_sum(level, &mut [f32::NEG_INFINITY; 20], 0.0), 0.0);
        }
    }
}
