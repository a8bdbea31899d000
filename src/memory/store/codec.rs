// SPDX-License-Identifier: MPL-2.0
//! How keys and values are written down: as floats, or quantised the way KIVI does it
//! (arXiv 2402.02750): keys per channel, in groups of up to 32 tokens; values per token, in groups
//! of up to 32 channels. A group is its smallest value and its step, both f16, and one code of 8, 4
//! or 2 bits per element, the first in the lowest bits.
//!
//! Two things differ from KIVI. Groups end at the end of a block, because blocks are fetched one by
//! one. And the smallest value is rounded down to f16 and the step up, before the codes are taken,
//! so that no element is further from its code than half a step.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use crate::error::{EngineError, Result};
use crate::memory::kv::Kv;

/// Elements that share a smallest value and a step, at most.
const GROUP: usize = 32;

/// A number format of stored keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    F32,
    F16,
    Bf16,
    Q8,
    Q4,
    Q2,
}

impl Codec {
    pub const ALL: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::Q8, Self::Q4, Self::Q2];

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
            Self::Q2 => "q2",
        }
    }

    /// The format that holds what a model of this type computes, bit for bit.
    pub fn exact(dtype: DType) -> Self {
        match dtype {
            DType::F16 => Self::F16,
            DType::BF16 => Self::Bf16,
            _ => Self::F32,
        }
    }

    pub fn is_exact(self, dtype: DType) -> bool {
        self == Self::F32 || self == Self::exact(dtype)
    }

    /// Bits of a code; `None`: not quantised.
    fn bits(self) -> Option<usize> {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => None,
            Self::Q8 => Some(8),
            Self::Q4 => Some(4),
            Self::Q2 => Some(2),
        }
    }

    /// Bytes of keys and values of that shape.
    pub fn bytes(self, shape: Shape) -> usize {
        let elements = shape.heads * shape.tokens * shape.dim;
        match self {
            Self::F32 => 8 * elements,
            Self::F16 | Self::Bf16 => 4 * elements,
            Self::Q8 | Self::Q4 | Self::Q2 => {
                let bits = self.bits().unwrap_or(8);
                let line = |len: usize| -> usize {
                    (0..len).step_by(GROUP).map(|at| group_bytes(GROUP.min(len - at), bits)).sum()
                };
                shape.heads * (shape.dim * line(shape.tokens) + shape.tokens * line(shape.dim))
            }
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = EngineError;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|codec| codec.name()).collect();
            EngineError::Option {
                key: "store".into(),
                reason: format!("`{name}` is none of {}", known.join(", ")),
            }
        })
    }
}

/// `[Hk, n, d]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub heads: usize,
    pub tokens: usize,
    pub dim: usize,
}

/// What has to be known to read encoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub codec: Codec,
    /// Type of the decoded tensors.
    pub dtype: DType,
    pub shape: Shape,
}

/// One block's keys and values, encoded: all keys, then all values.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    pub form: Form,
    pub bytes: Vec<u8>,
}

/// Writes keys and values in a format, or in the model's own where they hold something that the
/// format cannot (not a number, or beyond the range of f16).
pub fn encode(codec: Codec, kv: &Kv) -> Result<Packed> {
    let (heads, tokens, dim) = kv.k.dims3()?;
    let form = Form { codec, dtype: kv.k.dtype(), shape: Shape { heads, tokens, dim } };
    let (k, v) = (values(&kv.k)?, values(&kv.v)?);
    let mut bytes = Vec::with_capacity(codec.bytes(form.shape));
    let fits = match codec {
        Codec::F32 => {
            bytes.extend(k.iter().chain(&v).flat_map(|x| x.to_le_bytes()));
            true
        }
        Codec::F16 => {
            let halves = || k.iter().chain(&v).map(|&x| f16::from_f32(x));
            bytes.extend(halves().flat_map(f16::to_le_bytes));
            codec.is_exact(form.dtype) || halves().all(f16::is_finite)
        }
        Codec::Bf16 => {
            let halves = || k.iter().chain(&v).map(|&x| bf16::from_f32(x));
            bytes.extend(halves().flat_map(bf16::to_le_bytes));
            codec.is_exact(form.dtype) || halves().all(bf16::is_finite)
        }
        Codec::Q8 | Codec::Q4 | Codec::Q2 => {
            let bits = codec.bits().unwrap_or(8);
            key_groups(form.shape).all(|group| quantise(&k, group, bits, &mut bytes))
                && value_groups(form.shape).all(|group| quantise(&v, group, bits, &mut bytes))
        }
    };
    if fits { Ok(Packed { form, bytes }) } else { encode(Codec::exact(form.dtype), kv) }
}

/// Reads what [`encode`] wrote, to the host. `None` if the bytes are too few or too many for their form.
pub fn decode(form: Form, bytes: &[u8]) -> Result<Option<Kv>> {
    let Shape { heads, tokens, dim } = form.shape;
    if bytes.len() != form.codec.bytes(form.shape) {
        return Ok(None);
    }
    if form.codec == Codec::exact(form.dtype) {
        // As they were, byte by byte.
        let (k, v) = bytes.split_at(bytes.len() / 2);
        let tensor = |bytes: &[u8]| {
            let shape = [heads, tokens, dim];
            Tensor::from_raw_buffer(bytes, form.dtype, &shape, &Device::Cpu)
        };
        return Ok(Some(Kv { k: tensor(k)?, v: tensor(v)? }));
    }
    let elements = heads * tokens * dim;
    let mut all: Vec<f32> = match form.codec {
        Codec::F32 => words(bytes).map(f32::from_le_bytes).collect(),
        Codec::F16 => words(bytes).map(|word| f16::from_le_bytes(word).to_f32()).collect(),
        Codec::Bf16 => words(bytes).map(|word| bf16::from_le_bytes(word).to_f32()).collect(),
        Codec::Q8 | Codec::Q4 | Codec::Q2 => {
            let bits = form.codec.bits().unwrap_or(8);
            let mut all = vec![0.0; 2 * elements];
            let (keys, values) = all.split_at_mut(elements);
            let mut rest = bytes;
            for group in key_groups(form.shape) {
                rest = restore(rest, group, bits, keys);
            }
            for group in value_groups(form.shape) {
                rest = restore(rest, group, bits, values);
            }
            all
        }
    };
    let tensor = |values: Vec<f32>| -> Result<Tensor> {
        let tensor = Tensor::from_vec(values, (heads, tokens, dim), &Device::Cpu)?;
        Ok(tensor.to_dtype(form.dtype)?)
    };
    let values = all.split_off(elements);
    Ok(Some(Kv { k: tensor(all)?, v: tensor(values)? }))
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// Elements `start + i * stride` of a row-major `[Hk, n, d]`.
#[derive(Clone, Copy)]
struct Group {
    start: usize,
    stride: usize,
    len: usize,
}

impl Group {
    fn indices(self) -> impl Iterator<Item = usize> + Clone {
        (0..self.len).map(move |i| self.start + i * self.stride)
    }
}

/// Per head and run of tokens, one group a channel.
fn key_groups(Shape { heads, tokens, dim }: Shape) -> impl Iterator<Item = Group> {
    (0..heads).flat_map(move |head| {
        (0..tokens).step_by(GROUP).flat_map(move |token| {
            let start = (head * tokens + token) * dim;
            let len = GROUP.min(tokens - token);
            (0..dim).map(move |channel| Group { start: start + channel, stride: dim, len })
        })
    })
}

/// Per head and token, one group a run of channels.
fn value_groups(Shape { heads, tokens, dim }: Shape) -> impl Iterator<Item = Group> {
    (0..heads * tokens).flat_map(move |row| {
        (0..dim).step_by(GROUP).map(move |channel| Group {
            start: row * dim + channel,
            stride: 1,
            len: GROUP.min(dim - channel),
        })
    })
}

fn group_bytes(len: usize, bits: usize) -> usize {
    4 + (len * bits).div_ceil(8)
}

/// Where a group's values lie.
#[derive(Clone, Copy, Debug)]
struct Range {
    low: f32,
    high: f32,
}

impl Range {
    fn of(values: impl Iterator<Item = f32>) -> Self {
        let none = Self { low: f32::INFINITY, high: f32::NEG_INFINITY };
        values.fold(none, |range, x| Self { low: range.low.min(x), high: range.high.max(x) })
    }

    /// The finest scale in f16 that reaches from end to end. `None` if f16 cannot.
    fn stored_scale(self, bits: usize) -> Option<(f16, f16)> {
        let low = -round_up(-self.low);
        let step = round_up((self.high - low.to_f32()) / highest(bits));
        (low.is_finite() && step.is_finite()).then_some((low, step))
    }
}

fn highest(bits: usize) -> f32 {
    ((1u32 << bits) - 1) as f32
}

/// The smallest f16 that is not below `x`; not finite where that is out of range.
fn round_up(x: f32) -> f16 {
    let near = f16::from_f32(x);
    if near.to_f32() >= x || !near.is_finite() {
        return near;
    }
    let bits = near.to_bits();
    f16::from_bits(match bits {
        // Minus zero.
        0x8000 => 1,
        0x8001.. => bits - 1,
        _ => bits + 1,
    })
}

#[derive(Clone, Copy, Debug)]
struct Scale {
    low: f32,
    step: f32,
}

impl Scale {
    fn code(self, x: f32, bits: usize) -> u8 {
        if self.step > 0.0 {
            ((x - self.low) / self.step).clamp(0.0, highest(bits)).round_ties_even() as u8
        } else {
            0
        }
    }

    fn value(self, code: u8) -> f32 {
        f32::from(code) * self.step + self.low
    }
}

/// Codes side by side, the first in the lowest bits of the first byte.
fn pack(codes: impl Iterator<Item = u8>, bits: usize, out: &mut Vec<u8>) {
    let mut filled = 8;
    for code in codes {
        if filled == 8 {
            out.push(0);
            filled = 0;
        }
        if let Some(last) = out.last_mut() {
            *last |= code << filled;
        }
        filled += bits;
    }
}

fn unpack(bytes: &[u8], bits: usize) -> impl Iterator<Item = u8> {
    let mask = u8::MAX >> (8 - bits);
    bytes.iter().flat_map(move |byte| (0..8).step_by(bits).map(move |at| (byte >> at) & mask))
}

/// Appends one group; `false` if f16 cannot hold its scale.
fn quantise(x: &[f32], group: Group, bits: usize, out: &mut Vec<u8>) -> bool {
    let values = group.indices().map(|i| x[i]);
    if !values.clone().all(f32::is_finite) {
        return false;
    }
    let Some((low, step)) = Range::of(values.clone()).stored_scale(bits) else { return false };
    out.extend(low.to_le_bytes());
    out.extend(step.to_le_bytes());
    let scale = Scale { low: low.to_f32(), step: step.to_f32() };
    pack(values.map(|x| scale.code(x, bits)), bits, out);
    true
}

/// Reads one group into its places and returns what is behind it.
fn restore<'a>(bytes: &'a [u8], group: Group, bits: usize, out: &mut [f32]) -> &'a [u8] {
    let (mine, rest) = bytes.split_at(group_bytes(group.len, bits));
    let (scale, codes) = mine.split_at(4);
    let mut scale = words(scale).map(|half| f16::from_le_bytes(half).to_f32());
    let mut next = || scale.next().unwrap_or_default();
    let scale = Scale { low: next(), step: next() };
    for (i, code) in group.indices().zip(unpack(codes, bits)) {
        out[i] = scale.value(code);
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::testing::random_tensor;

    fn kv(seed: u64, heads: usize, tokens: usize, dim: usize) -> Kv {
        let tensor = |seed| random_tensor(seed, (heads, tokens, dim));
        Kv { k: tensor(seed), v: tensor(seed + 500) }
    }

    /// The scale of the paper.
    fn scale(range: Range, bits: usize) -> Scale {
        Scale { low: range.low, step: (range.high - range.low) / highest(bits) }
    }

    fn there_and_back(codec: Codec, kv: &Kv) -> (Packed, Kv) {
        let packed = encode(codec, kv).unwrap();
        let back = decode(packed.form, &packed.bytes).unwrap().unwrap();
        (packed, back)
    }

    const SHAPES: [(usize, usize, usize); 6] =
        [(1, 1, 1), (2, 9, 32), (1, 32, 32), (3, 33, 40), (2, 70, 8), (1, 196, 64)];

    #[test]
    fn quantising_matches_the_golden_vector() {
        // `kivi_k2`: 32 tokens of 32 channels, 2 bits, group of 32 along the tokens.
        let x = values(&random_tensor(41, (1, 32, 32))).unwrap();
        let shape = Shape { heads: 1, tokens: 32, dim: 32 };
        let first = key_groups(shape).next().unwrap();
        let scale = scale(Range::of(first.indices().map(|i| x[i])), 2);
        assert!((scale.step - 0.607_994_9).abs() < 1e-6, "{scale:?}");
        assert!((scale.low + 0.864_569_7).abs() < 1e-6, "{scale:?}");
        let codes: Vec<u8> = first.indices().map(|i| scale.code(x[i], 2)).collect();
        let expected = [
            1, 2, 2, 1, 0, 1, 3, 0, 1, 2, 1, 2, 3, 1, 3, 1, 0, 0, 3, 2, 1, 2, 0, 1, 2, 1, 3, 0, 3,
            0, 2, 2,
        ];
        assert_eq!(codes, expected);
        let mut packed = Vec::new();
        pack(codes.iter().copied(), 2, &mut packed);
        assert_eq!(i32::from_le_bytes(packed[..4].try_into().unwrap()), 2_006_529_129);
        assert_eq!(unpack(&packed, 2).collect::<Vec<_>>(), codes);
        // What is stored has the same codes, but for values that lie between two.
        let mut stored = Vec::new();
        assert!(quantise(&x, first, 2, &mut stored));
        assert_eq!(unpack(&stored[4..], 2).collect::<Vec<_>>(), codes);
    }

    #[test]
    fn no_element_is_off_by_more_than_half_a_step() {
        for (seed, (heads, tokens, dim)) in SHAPES.into_iter().enumerate() {
            let x = kv(seed as u64, heads, tokens, dim);
            // Large offsets as the keys of some channels have them.
            let x = Kv { k: (&x.k * 30.0).unwrap().affine(1.0, 200.0).unwrap(), v: x.v };
            let shape = Shape { heads, tokens, dim };
            for (codec, bits) in [(Codec::Q8, 8), (Codec::Q4, 4), (Codec::Q2, 2)] {
                let (packed, back) = there_and_back(codec, &x);
                assert_eq!(packed.form.codec, codec);
                let off = |a: &Tensor, b: &Tensor, groups: &mut dyn Iterator<Item = Group>| {
                    let (a, b) = (values(a).unwrap(), values(b).unwrap());
                    for group in groups {
                        let range = Range::of(group.indices().map(|i| a[i]));
                        let (_, step) = range.stored_scale(bits).unwrap();
                        for i in group.indices() {
                            // Half a step, and what the sum itself rounds.
                            let bound = step.to_f32() * 0.5 + range.high.abs() * 1e-6;
                            let error = (a[i] - b[i]).abs();
                            assert!(error <= bound, "{codec}: {error} > {bound}");
                        }
                    }
                };
                off(&x.k, &back.k, &mut key_groups(shape));
                off(&x.v, &back.v, &mut value_groups(shape));
            }
        }
    }

    #[test]
    fn the_stored_scale_is_close_to_the_papers() {
        let x = values(&random_tensor(3, (1, 32, 64))).unwrap();
        for group in key_groups(Shape { heads: 1, tokens: 32, dim: 64 }) {
            let range = Range::of(group.indices().map(|i| x[i]));
            for bits in [2, 4, 8] {
                let (paper, (_, step)) =
                    (scale(range, bits).step, range.stored_scale(bits).unwrap());
                let widened = step.to_f32() / paper;
                assert!((1.0..1.01).contains(&widened), "{bits} bits: {widened}");
            }
        }
    }

    #[test]
    fn floats_are_exact_in_their_own_type() {
        for (seed, (heads, tokens, dim)) in SHAPES.into_iter().enumerate() {
            for (dtype, codecs) in [
                (DType::F32, &[Codec::F32][..]),
                (DType::F16, &[Codec::F16, Codec::F32]),
                (DType::BF16, &[Codec::Bf16, Codec::F32]),
            ] {
                let x = kv(seed as u64, heads, tokens, dim);
                let x = Kv { k: x.k.to_dtype(dtype).unwrap(), v: x.v.to_dtype(dtype).unwrap() };
                for &codec in codecs {
                    let (_, back) = there_and_back(codec, &x);
                    assert_eq!(back.k.dtype(), dtype);
                    assert_eq!(values(&back.k).unwrap(), values(&x.k).unwrap());
                    assert_eq!(values(&back.v).unwrap(), values(&x.v).unwrap());
                }
            }
        }
    }

    #[test]
    fn the_size_is_known_beforehand() {
        for (heads, tokens, dim) in SHAPES {
            let x = kv(1, heads, tokens, dim);
            for codec in Codec::ALL {
                let packed = encode(codec, &x).unwrap();
                assert_eq!(packed.bytes.len(), codec.bytes(packed.form.shape), "{codec}");
            }
        }
        // Three bits an element at 2 bits with a scale for 32, as the paper counts.
        let shape = Shape { heads: 1, tokens: 32, dim: 32 };
        assert_eq!(Codec::Q2.bytes(shape) * 8, 3 * 2 * 32 * 32);
    }

    #[test]
    fn equal_values_come_back_equal() {
        for value in [0.0f32, 1.5, -3.25, 1e-7, 0.1] {
            let t = Tensor::full(value, (1, 40, 8), &Device::Cpu).unwrap();
            let (_, back) = there_and_back(Codec::Q2, &Kv { k: t.clone(), v: t });
            for x in values(&back.k).unwrap() {
                assert!((x - value).abs() <= value.abs() * 1e-3 + 1e-7, "{x} is not {value}");
            }
        }
    }

    #[test]
    fn what_a_format_cannot_hold_stays_as_it_is() {
        for wild in [1e6f32, f32::INFINITY, f32::NAN] {
            let mut x = kv(1, 1, 4, 4);
            let spoilt = Tensor::full(wild, (1, 1, 4), &Device::Cpu).unwrap();
            x.v = Tensor::cat(&[&x.v.narrow(1, 0, 3).unwrap(), &spoilt], 1).unwrap();
            for codec in [Codec::F16, Codec::Q8, Codec::Q4, Codec::Q2] {
                let (packed, back) = there_and_back(codec, &x);
                assert_eq!(packed.form.codec, Codec::F32, "{codec} of {wild}");
                let bits = |t| values(t).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
                assert_eq!(bits(&back.v), bits(&x.v));
            }
        }
    }

    #[test]
    fn bytes_of_another_length_are_refused() {
        let packed = encode(Codec::Q4, &kv(1, 2, 9, 8)).unwrap();
        let less = &packed.bytes[1..];
        assert!(decode(packed.form, less).unwrap().is_none());
    }
}
