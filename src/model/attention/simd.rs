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
    // Adding 1.5 * 2^23 rounds to an integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
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

#[cfg(test)]
mod tests {
    use super::*;

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
