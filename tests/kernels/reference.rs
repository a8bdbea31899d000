// SPDX-License-Identifier: MPL-2.0
//! The kernels in plain loops, as their contract (`tools/kernels/README.md`) has them: a launcher for
//! the CPU's tensors that any change of an argument's place, a stride, a grid or a join breaks.

use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor};
use gststreamkvqa::model::kernels::launch::{Arg, Launch, Launcher};
use half::{bf16, f16};

pub struct Reference;

impl Launcher for Reference {
    fn generation(&self) -> u32 {
        80
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        launch.check()?;
        let mut call = Call::new(launch)?;
        match launch.variant.kernel.as_str() {
            "attend" => call.attend(true),
            "scores" => call.attend(false),
            "join" => call.join(),
            "join_lse" => call.join_lse(),
            "mass" => call.mass(),
            "rotate" => call.rotate(false),
            "gather_rotate" => call.rotate(true),
            "gather" => call.gather(),
            "mean_keys" => call.mean_keys(),
            "add_norm" => call.add_norm(),
            "silu_mul" => call.silu_mul(),
            "bias_gelu" => call.bias_gelu(),
            "not_finite" => call.not_finite(),
            "top_k" | "top_k_merge" => call.top_k(),
            "rank" => call.rank(),
            "chosen" => call.chosen(),
            other => return Err(Error::msg(format!("no reference for the kernel {other}"))),
        }
        call.store(launch)
    }
}

const NOTHING: f32 = -1e30;

/// A launch with its numbers at hand: what is read, what will be written, counts and factors, all by
/// the place of the argument.
struct Call {
    values: Vec<Values>,
    numbers: Vec<i64>,
    factors: Vec<f32>,
    grid: [usize; 3],
    tile: Box<dyn Fn(&str) -> usize>,
}

#[derive(Default)]
struct Values {
    read: Vec<f32>,
    indices: Vec<i64>,
    written: Vec<(usize, f32)>,
    keys: Vec<(usize, i64)>,
    round: Option<fn(f32) -> f32>,
}

impl Values {
    /// As the number format of this argument has it.
    fn rounded(&self, x: f32) -> f32 {
        self.round.map_or(x, |round| round(x))
    }
}

impl Call {
    fn new(launch: &Launch<'_>) -> Result<Self> {
        let mut call = Self {
            values: Vec::new(),
            numbers: Vec::new(),
            factors: Vec::new(),
            grid: launch.grid.map(|n| n as usize),
            tile: {
                let variant = launch.variant.clone();
                Box::new(move |name| variant.constant(name))
            },
        };
        for arg in launch.args {
            let (mut values, mut number, mut factor) = (Values::default(), 0, 0.0);
            match *arg {
                Arg::Read(x) | Arg::Write(x) => values = read(x)?,
                Arg::I32(n) => number = i64::from(n),
                Arg::I64(n) => number = n,
                Arg::F32(x) => factor = x,
            }
            call.values.push(values);
            call.numbers.push(number);
            call.factors.push(factor);
        }
        Ok(call)
    }

    fn store(self, launch: &Launch<'_>) -> Result<()> {
        for (arg, values) in launch.args.iter().zip(self.values) {
            if let Arg::Write(x) = arg {
                x.inplace_op1(&Writes(values.written, values.keys))?;
            } else {
                assert!(values.written.is_empty(), "{} wrote what it reads", launch.variant.kernel);
            }
        }
        Ok(())
    }

    fn n(&self, arg: usize) -> usize {
        usize::try_from(self.numbers[arg]).unwrap()
    }

    fn at(&self, arg: usize, index: usize) -> f32 {
        self.values[arg].read[index]
    }

    fn put(&mut self, arg: usize, index: usize, x: f32) {
        let x = self.values[arg].rounded(x);
        self.values[arg].written.push((index, x));
    }

    /// `attend` and, without values, `scores`.
    fn attend(&mut self, with_values: bool) {
        // Where the strides begin: behind the pointers.
        let first = if with_values { 5 } else { 3 };
        let (q_head, q_row, k_head, k_row) =
            (self.n(first), self.n(first + 1), self.n(first + 2), self.n(first + 3));
        let (v_head, v_row, at) = match with_values {
            true => (self.n(first + 4), self.n(first + 5), first + 6),
            false => (0, 0, first + 4),
        };
        let (kv_heads, heads, rows, keys, dim) =
            (self.n(at), self.n(at + 1), self.n(at + 2), self.n(at + 3), self.n(at + 4));
        let (lo, hi, from) = (self.numbers[at + 5], self.numbers[at + 6], self.numbers[at + 7]);
        let (chunk, scale) = (self.n(at + 8), self.factors[at + 9]);
        let group = heads / kv_heads;
        let covered = self.grid[0] * (self.tile)("BM");
        assert!(covered >= group * rows, "the grid covers every row");
        assert_eq!(self.grid[1], kv_heads);
        assert!(self.grid[2] * chunk >= keys, "the parts cover every key");
        for part in 0..self.grid[2] {
            for head in 0..heads {
                for row in 0..rows {
                    let mut scores = Vec::new();
                    for key in part * chunk..keys.min((part + 1) * chunk) {
                        let (i, j) = (row as i64, key as i64);
                        if i >= from && j <= i + hi && j > i + lo {
                            let q = head * q_head + row * q_row;
                            let k = head / group * k_head + key * k_row;
                            let dot: f32 =
                                (0..dim).map(|c| self.at(0, q + c) * self.at(1, k + c)).sum();
                            scores.push((key, dot * scale));
                        }
                    }
                    let top = scores.iter().map(|s| s.1).fold(NOTHING, f32::max);
                    let total: f32 = scores.iter().map(|s| (s.1 - top).exp2()).sum();
                    let sum = if scores.is_empty() { NOTHING } else { top + total.log2() };
                    let out = (part * heads + head) * rows + row;
                    self.put(if with_values { 4 } else { 2 }, out, sum);
                    if with_values {
                        for c in 0..dim {
                            let value = |&(key, score): &(usize, f32)| {
                                let v = head / group * v_head + key * v_row + c;
                                (score - top).exp2() * self.at(2, v)
                            };
                            let sum: f32 = scores.iter().map(value).sum();
                            let context = if scores.is_empty() { 0.0 } else { sum / total };
                            self.put(3, out * dim + c, context);
                        }
                    }
                }
            }
        }
    }

    fn join(&mut self) {
        let (y_head, y_row) = (self.n(3), self.n(4));
        let (parts, heads, rows, dim) = (self.n(5), self.n(6), self.n(7), self.n(8));
        assert!(self.grid[0] * (self.tile)("BR") >= rows && self.grid[1] == heads);
        for head in 0..heads {
            for row in 0..rows {
                let place = |part: usize| (part * heads + head) * rows + row;
                let top = (0..parts).map(|p| self.at(1, place(p))).fold(NOTHING, f32::max);
                let weight = |part: usize| match self.at(1, place(part)) {
                    sum if sum <= NOTHING => 0.0,
                    sum => (sum - top).exp2(),
                };
                let total: f32 = (0..parts).map(weight).sum();
                let values: Vec<f32> = (0..dim)
                    .map(|c| {
                        let part = |p| weight(p) * self.at(0, place(p) * dim + c);
                        let sum: f32 = (0..parts).map(part).sum();
                        if total > 0.0 { sum / total } else { 0.0 }
                    })
                    .collect();
                let y = head * y_head + row * y_row;
                values.into_iter().enumerate().for_each(|(c, x)| self.put(2, y + c, x));
            }
        }
    }

    fn join_lse(&mut self) {
        let (parts, rows) = (self.n(2), self.n(3));
        assert!(self.grid[0] * (self.tile)("BR") >= rows);
        for row in 0..rows {
            let sums: Vec<f32> = (0..parts).map(|part| self.at(0, part * rows + row)).collect();
            let top = sums.iter().copied().fold(NOTHING, f32::max);
            let some = sums.iter().filter(|sum| **sum > NOTHING);
            let total: f32 = some.map(|sum| (sum - top).exp2()).sum();
            self.put(1, row, if total > 0.0 { top + total.log2() } else { NOTHING });
        }
    }

    fn mass(&mut self) {
        let (q_head, q_row, k_head, k_row) = (self.n(4), self.n(5), self.n(6), self.n(7));
        let (kv_heads, heads, rows, keys, dim) =
            (self.n(8), self.n(9), self.n(10), self.n(11), self.n(12));
        let (lo, hi, from) = (self.numbers[13], self.numbers[14], self.numbers[15]);
        let (scale, group) = (self.factors[16], heads / kv_heads);
        assert!(self.grid[0] * (self.tile)("BN") >= keys && self.grid[1] == kv_heads);
        for kv_head in 0..kv_heads {
            for key in 0..keys {
                let mut sum = 0.0;
                for head in kv_head * group..(kv_head + 1) * group {
                    for row in 0..rows {
                        let (i, j) = (row as i64, key as i64);
                        if i >= from && j <= i + hi && j > i + lo {
                            let (q, k) =
                                (head * q_head + row * q_row, kv_head * k_head + key * k_row);
                            let dot: f32 =
                                (0..dim).map(|c| self.at(0, q + c) * self.at(1, k + c)).sum();
                            sum += (dot * scale - self.at(2, head * rows + row)).exp2();
                        }
                    }
                }
                self.put(3, kv_head * keys + key, sum);
            }
        }
    }

    fn rotate(&mut self, gathered: bool) {
        // One pointer more where rows are chosen.
        let p = usize::from(gathered);
        let (cos, sin, places, axes) = (2 + p, 3 + p, 4 + p, 5 + p);
        let (x_head, x_row, y_head, y_row) =
            (self.n(6 + p), self.n(7 + p), self.n(8 + p), self.n(9 + p));
        let (n, dim, of_axis, start) =
            (self.n(10 + p), self.n(11 + p), self.n(12 + p), self.n(13 + p));
        let mode = (self.tile)("MODE");
        assert!(self.grid[0] * (self.tile)("BR") >= n);
        for head in 0..self.grid[1] {
            for i in 0..n {
                let from = match gathered {
                    true => self.values[2].indices[i] as usize,
                    false => i * x_row,
                };
                for pair in 0..dim / 2 {
                    let place = match mode {
                        0 => start + i,
                        1 => start,
                        2 => self.values[places].indices[i] as usize,
                        _ => {
                            let axis = self.values[axes].indices[pair] as usize;
                            self.values[places].indices[axis * of_axis + i] as usize
                        }
                    };
                    let turn = place * (dim / 2) + pair;
                    let (c, s) = (self.at(cos, turn), self.at(sin, turn));
                    let x = head * x_head + from + pair;
                    let (a, b) = (self.at(0, x), self.at(0, x + dim / 2));
                    let y = head * y_head + i * y_row + pair;
                    self.put(1, y, a * c - b * s);
                    self.put(1, y + dim / 2, b * c + a * s);
                }
            }
        }
    }

    fn gather(&mut self) {
        let (x_head, y_head, y_row, n, dim) =
            (self.n(3), self.n(4), self.n(5), self.n(6), self.n(7));
        for head in 0..self.grid[1] {
            for i in 0..n {
                let from = head * x_head + self.values[2].indices[i] as usize;
                (0..dim).for_each(|c| {
                    let x = self.at(0, from + c);
                    self.put(1, head * y_head + i * y_row + c, x);
                });
            }
        }
    }

    fn mean_keys(&mut self) {
        let (k_head, k_row, heads, dim) = (self.n(3), self.n(4), self.n(5), self.n(6));
        assert_eq!(self.grid[1], heads);
        for unit in 0..self.grid[0] {
            let starts = &self.values[2].indices;
            let (start, end) = (starts[unit] as usize, starts[unit + 1] as usize);
            for head in 0..heads {
                for c in 0..dim {
                    let sum: f32 =
                        (start..end).map(|i| self.at(0, head * k_head + i * k_row + c)).sum();
                    let mean = sum / (end - start).max(1) as f32;
                    self.put(1, unit * heads * dim + head * dim + c, mean);
                }
            }
        }
    }

    fn add_norm(&mut self) {
        let (eps, x_row, h_row, width) = (self.factors[5], self.n(6), self.n(7), self.n(8));
        for row in 0..self.grid[0] {
            let sums: Vec<f32> = (0..width)
                .map(|c| {
                    let sum = self.at(0, row * x_row + c) + self.at(1, row * h_row + c);
                    self.values[3].rounded(sum)
                })
                .collect();
            let mean = sums.iter().map(|x| x * x).sum::<f32>() / width as f32;
            let factor = 1.0 / (mean + eps).sqrt();
            for (c, sum) in sums.into_iter().enumerate() {
                self.put(3, row * width + c, sum);
                let normed = self.values[4].rounded(sum * factor) * self.at(2, c);
                self.put(4, row * width + c, normed);
            }
        }
    }

    fn silu_mul(&mut self) {
        let (x_row, inner) = (self.n(2), self.n(3));
        assert!(self.grid[1] * (self.tile)("BN") >= inner);
        for row in 0..self.grid[0] {
            for c in 0..inner {
                let gate = self.at(0, row * x_row + c);
                let silu = self.values[1].rounded(gate / (1.0 + (-gate).exp()));
                let y = silu * self.at(0, row * x_row + inner + c);
                self.put(1, row * inner + c, y);
            }
        }
    }

    fn bias_gelu(&mut self) {
        let (n, width) = (self.n(3), self.n(4));
        assert!(self.grid[0] * (self.tile)("BN") >= n);
        for i in 0..n {
            let x = self.at(0, i) + self.at(1, i % width);
            let y = match (self.tile)("TANH") {
                1 => 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh()),
                _ => candle_gelu(x),
            };
            self.put(2, i, y);
        }
    }

    fn top_k(&mut self) {
        let (n, k, block) = (self.n(2), self.n(3), (self.tile)("BN"));
        assert_eq!(self.grid[0], n.div_ceil(block));
        let keys: Vec<i64> = match self.values[0].indices.is_empty() {
            true => (0..n).map(|i| key(self.at(0, i), i)).collect(),
            false => self.values[0].indices[..n].to_vec(),
        };
        for (at, block) in keys.chunks(block).enumerate() {
            let mut best = block.to_vec();
            best.sort_unstable_by(|a, b| b.cmp(a));
            // Keys that stand for nothing.
            best.resize(k.max(best.len()), i64::MIN);
            let best = best.into_iter().take(k).enumerate();
            self.values[1].keys.extend(best.map(|(i, key)| (at * k + i, key)));
        }
    }

    fn rank(&mut self) {
        let n = self.n(2);
        for row in 0..self.grid[1] {
            let keys: Vec<i64> = (0..n).map(|i| key(self.at(0, row * n + i), i)).collect();
            for (i, own) in keys.iter().enumerate() {
                let beaten = keys.iter().filter(|key| *key > own).count();
                self.values[1].keys.push((row * n + i, beaten as i64));
            }
        }
    }

    fn chosen(&mut self) {
        let (n, k) = (self.n(2), self.n(3));
        for row in 0..self.grid[1] {
            let ranks = &self.values[0].indices[row * n..(row + 1) * n];
            let kept = (0..n).filter(|&i| ranks[i] < k as i64).enumerate();
            let kept: Vec<_> = kept.map(|(at, i)| (row * k + at, i as i64)).collect();
            self.values[1].keys.extend(kept);
        }
    }

    fn not_finite(&mut self) {
        let n = self.n(2);
        if self.values[0].read[..n].iter().any(|x| !x.is_finite()) {
            self.values[1].written.push((0, 1.0));
        }
    }
}

/// A score and its index as one number: the higher score is the larger, of equals the lower index.
fn key(score: f32, index: usize) -> i64 {
    let bits = (score + 0.0).to_bits() as i32;
    let ordered = bits ^ ((bits >> 31) & 0x7fff_ffff);
    (i64::from(ordered) << 32) | i64::from(!(index as u32))
}

fn candle_gelu(x: f32) -> f32 {
    let x = Tensor::new(&[x], &candle_core::Device::Cpu).unwrap();
    x.gelu_erf().unwrap().to_vec1().unwrap()[0]
}

/// Everything from a view's first element on.
fn read(x: &Tensor) -> Result<Values> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { return Err(Error::msg("not on the CPU")) };
    let from = layout.start_offset();
    let floats =
        |read: Vec<f32>, round: Option<fn(f32) -> f32>| Values { read, round, ..Values::default() };
    let integers = |indices: Vec<i64>| Values { indices, ..Values::default() };
    Ok(match storage {
        CpuStorage::F32(x) => floats(x[from..].to_vec(), None),
        CpuStorage::F16(x) => floats(
            x[from..].iter().map(|x| x.to_f32()).collect(),
            Some(|x| f16::from_f32(x).to_f32()),
        ),
        CpuStorage::BF16(x) => floats(
            x[from..].iter().map(|x| x.to_f32()).collect(),
            Some(|x| bf16::from_f32(x).to_f32()),
        ),
        CpuStorage::I32(x) => integers(x[from..].iter().map(|&x| i64::from(x)).collect()),
        CpuStorage::I64(x) => integers(x[from..].to_vec()),
        CpuStorage::U32(x) => integers(x[from..].iter().map(|&x| i64::from(x)).collect()),
        _ => return Err(Error::msg("a format that kernels do not know")),
    })
}

/// Numbers at places, counted from a view's first element.
struct Writes(Vec<(usize, f32)>, Vec<(usize, i64)>);

impl candle_core::InplaceOp1 for Writes {
    fn name(&self) -> &'static str {
        "writes"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let from = layout.start_offset();
        for &(place, x) in &self.0 {
            match storage {
                CpuStorage::F32(all) => all[from + place] = x,
                CpuStorage::F16(all) => all[from + place] = f16::from_f32(x),
                CpuStorage::BF16(all) => all[from + place] = bf16::from_f32(x),
                CpuStorage::I32(all) => all[from + place] = x as i32,
                _ => return Err(Error::msg("a format that kernels do not write")),
            }
        }
        for &(place, key) in &self.1 {
            match storage {
                CpuStorage::I64(all) => all[from + place] = key,
                CpuStorage::I32(all) => all[from + place] = key as i32,
                CpuStorage::U32(all) => all[from + place] = key as u32,
                _ => return Err(Error::msg("a format that kernels do not write")),
            }
        }
        Ok(())
    }
}
