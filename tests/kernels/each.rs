// SPDX-License-Identifier: MPL-2.0
//! Every kernel against the CPU's own, on odd sizes, groups of heads, strides, splits and intervals
//! in which nothing is seen.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{Activation, Module};
use gststreamkvqa::model::attention::{
    Sizes, Stage, Visible, attend, attend_composed, attention_mass_by_head,
    attention_mass_composed, attention_mass_tensor, cpu,
};
use gststreamkvqa::model::kernels::{self, Kernels};
use gststreamkvqa::model::rope::{Place, Positions, Rope};

/// All of these, or so few that the interpreter, which takes a while, is through in minutes; its own
/// check (`tools/kernels/check.py`) has them all.
fn some<T: Copy>(all: &[T]) -> Vec<T> {
    let step = if std::env::var("STREAMKVQA_EMULATOR").is_ok() { 4 } else { 1 };
    all.iter().rev().step_by(step).copied().collect()
}

fn ours() -> Kernels {
    kernels::on(&Device::Cpu).expect("a launcher is installed")
}

fn random(shape: (usize, usize, usize)) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
}

#[track_caller]
fn assert_near(found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims());
    let flat = |x: &Tensor| -> Vec<f32> {
        let x = x.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
        x.to_vec1().unwrap()
    };
    for (i, (a, b)) in flat(found).into_iter().zip(flat(expected)).enumerate() {
        assert!((a - b).abs() <= tolerance, "[{i}]: {a} is not {b}");
    }
}

/// Rows of a buffer in which they lie apart, as those of a product of queries, keys and values do.
fn apart(x: &Tensor) -> Tensor {
    let (heads, rows, dim) = x.dims3().unwrap();
    let wide = random((rows, heads + 3, dim));
    wide.slice_set(&x.transpose(0, 1).unwrap().contiguous().unwrap(), 1, 2).unwrap();
    wide.narrow(1, 2, heads).unwrap().transpose(0, 1).unwrap()
}

const RULES: [Visible; 9] = [
    Visible::All,
    Visible::Window { offset: 4, width: usize::MAX },
    Visible::Window { offset: 0, width: usize::MAX / 4 },
    Visible::Window { offset: 30, width: 7 },
    Visible::Window { offset: 500, width: 3 },
    Visible::Beyond { offset: 0, width: 2 },
    Visible::Beyond { offset: 40, width: 90 },
    Visible::FromRow(3),
    Visible::FromRow(900),
];

#[test]
fn attention_is_that_of_the_cpu() {
    for (heads, kv_heads, dim) in some(&[(4, 4, 16), (7, 1, 32), (14, 2, 24)]) {
        for rows in some(&[1, 70, 5]) {
            for visible in some(&RULES) {
                let keys = [0, 1, 33, 300];
                let q = random((heads, rows, dim));
                let kv: Vec<(Tensor, Tensor)> = keys
                    .iter()
                    .map(|&n| (apart(&random((kv_heads, n, dim))), random((kv_heads, n, dim))))
                    .collect();
                let (q, own) = (apart(&q), Visible::Window { offset: 0, width: 40 });
                let rules = [own, visible, Visible::All, visible];
                let stages: Vec<Stage> = kv
                    .iter()
                    .zip(rules)
                    .map(|((k, v), visible)| Stage { q: &q, k, v, visible })
                    .collect();
                let found = attend(&stages, 0.3).unwrap();
                assert_near(&found, &attend_composed(&stages, 0.3).unwrap(), 2e-5);
                // One stage of nothing but keys that are out of sight, and of none.
                for stage in &stages {
                    let alone = std::slice::from_ref(stage);
                    let expected = attend_composed(alone, 0.3).unwrap();
                    assert_near(&attend(alone, 0.3).unwrap(), &expected, 2e-5);
                }
            }
        }
    }
}

#[test]
fn attention_mass_is_that_of_the_cpu() {
    for (heads, kv_heads, dim) in some(&[(4, 4, 16), (7, 1, 32), (14, 2, 24)]) {
        for (rows, keys) in some(&[(70, 5), (9, 33), (3, 0), (1, 1300)]) {
            let (q, k) = (random((heads, rows, dim)), random((kv_heads, keys, dim)));
            let whole = (q.contiguous().unwrap(), k.contiguous().unwrap());
            let (q, k) = (apart(&q), apart(&k));
            for visible in some(&RULES) {
                let found = attention_mass_tensor(&q, &k, visible, 0.3).unwrap();
                let sizes = Sizes::of(&q, &k).unwrap();
                let expected =
                    cpu::attention_mass(&whole.0, &whole.1, visible, sizes, 0.3).unwrap();
                let expected = Tensor::from_vec(expected, keys, &Device::Cpu).unwrap();
                assert_near(&found, &expected, 2e-5);
                let by_head = attention_mass_by_head(&q, &k, visible, 0.3).unwrap();
                assert_near(&by_head.mean(0).unwrap(), &expected, 2e-5);
                for head in 0..kv_heads {
                    let group = heads / kv_heads;
                    let q = whole.0.narrow(0, head * group, group).unwrap();
                    let k = whole.1.narrow(0, head, 1).unwrap();
                    let own = attention_mass_composed(&q, &k, visible, 0.3).unwrap();
                    let own = Tensor::from_vec(own, keys, &Device::Cpu).unwrap();
                    assert_near(&by_head.get(head).unwrap(), &own, 2e-5);
                }
            }
        }
    }
}

/// What candle makes of tables that are worked out here.
fn turned(x: &Tensor, places: &[Place], sections: Option<[usize; 3]>, theta: f64) -> Tensor {
    let (_, n, dim) = x.dims3().unwrap();
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    for place in places {
        for pair in 0..dim / 2 {
            let axis = match sections {
                None => place.t,
                Some([t, h, _]) => match pair {
                    pair if pair < t => place.t,
                    pair if pair < t + h => place.h,
                    _ => place.w,
                },
            };
            let frequency = 1.0 / (theta as f32).powf((2 * pair) as f32 / dim as f32);
            let angle = axis as f64 * f64::from(frequency);
            cos.push(angle.cos() as f32);
            sin.push(angle.sin() as f32);
        }
    }
    let table = |x| Tensor::from_vec(x, (n, dim / 2), &Device::Cpu).unwrap();
    let x = x.contiguous().unwrap().unsqueeze(0).unwrap();
    candle_nn::rotary_emb::rope(&x, &table(cos), &table(sin)).unwrap().squeeze(0).unwrap()
}

#[test]
fn rows_are_turned_where_they_stand() {
    let (plain, three) = (
        Rope::new(24, 1e4, &Device::Cpu).unwrap(),
        Rope::multimodal([3, 5, 4], 1e4, &Device::Cpu).unwrap(),
    );
    let x = apart(&random((3, 37, 24)));
    let place = |i: usize| Place { t: 7 * i, h: i % 5, w: 100 - i };
    for start in [0, 3000, 70_000] {
        let run: Vec<Place> = (start..start + 37).map(Place::text).collect();
        let one = vec![Place::text(start); 37];
        let grid: Vec<Place> =
            (0..37).map(|i| Place { t: start + place(i).t, ..place(i) }).collect();
        for (rope, sections) in [(&plain, None), (&three, Some([3, 5, 4]))] {
            let found = rope.rotate(&x, &Positions::run(start, 37)).unwrap();
            assert_near(&found, &turned(&x, &run, sections, 1e4), 1e-6);
            let found = rope.rotate(&x, &Positions::constant(start, 37)).unwrap();
            assert_near(&found, &turned(&x, &one, sections, 1e4), 1e-6);
            let scattered: Vec<Place> = run.iter().rev().copied().collect();
            let found = rope.rotate(&x, &Positions::listed(scattered.clone())).unwrap();
            assert_near(&found, &turned(&x, &scattered, sections, 1e4), 1e-6);
        }
        let found = three.rotate(&x, &Positions::listed(grid.clone())).unwrap();
        assert_near(&found, &turned(&x, &grid, Some([3, 5, 4]), 1e4), 1e-6);
    }
}

#[test]
fn chosen_rows_of_a_pool_come_turned_or_as_they_are() -> Result<()> {
    // Pages of 5 rows: [pages, heads, 5, dim], in which a head's rows are not one behind the other.
    let (pages, heads, tokens, dim) = (6, 3, 5, 16);
    let pool = Tensor::randn(0f32, 1.0, (pages, heads, tokens, dim), &Device::Cpu)?;
    let chosen = [(4, 0), (4, 1), (0, 4), (5, 2), (5, 3), (1, 0), (2, 2)];
    let from: Vec<i64> =
        chosen.iter().map(|&(p, t)| ((p * heads * tokens + t) * dim) as i64).collect();
    let from = Tensor::from_vec(from, chosen.len(), &Device::Cpu)?;
    let rows: Vec<Tensor> =
        chosen.iter().map(|&(p, t)| pool.get(p)?.narrow(1, t, 1)).collect::<Result<_>>()?;
    let expected = Tensor::cat(&rows, 1)?;
    let heads_of_a_page = pool.get(0)?;
    assert_near(&ours().gather(&heads_of_a_page, &from)?.unwrap(), &expected, 0.0);
    let rope = Rope::new(dim, 1e4, &Device::Cpu).unwrap();
    let at = Positions::run(11, chosen.len());
    let found = rope.gather_rotated(&heads_of_a_page, &from, &at).unwrap().unwrap();
    assert_near(&found, &turned(&expected, &at.places(), None, 1e4), 1e-6);
    Ok(())
}

#[test]
fn runs_of_keys_are_averaged() -> Result<()> {
    let keys = apart(&random((2, 20, 24)));
    let found = ours().mean_keys(&keys, &[3, 1, 9])?.unwrap();
    let mut start = 0;
    for (run, length) in [3, 1, 9].into_iter().enumerate() {
        let mean = keys.narrow(1, start, length)?.mean(1)?.flatten_all()?;
        assert_near(&found.get(run)?, &mean, 1e-6);
        start += length;
    }
    Ok(())
}

#[test]
fn what_stands_between_products_is_candles() -> Result<()> {
    let wide = |rows, width| Tensor::randn(0f32, 1.5, (rows, width), &Device::Cpu);
    for (rows, width) in [(1, 128), (7, 96), (3, 896)] {
        let (x, h, weight) = (wide(rows, width)?, wide(rows, width)?, wide(1, width)?.squeeze(0)?);
        if let Some((sum, normed)) = ours().add_norm(&x, &h, &weight, 1e-6)? {
            assert_near(&sum, &(&x + &h)?, 0.0);
            let expected = candle_nn::ops::rms_norm(&(&x + &h)?, &weight, 1e-6)?;
            assert_near(&normed, &expected, 2e-6);
        }
        let both = wide(rows, 2 * width)?;
        let (gate, up) = (both.narrow(1, 0, width)?, both.narrow(1, width, width)?);
        let expected = (Activation::Silu.forward(&gate)? * up)?;
        assert_near(&ours().silu_mul(&both)?.unwrap(), &expected, 2e-6);
        for (tanh, act) in [(true, Activation::GeluPytorchTanh), (false, Activation::Gelu)] {
            let expected = act.forward(&x.broadcast_add(&weight)?)?;
            assert_near(&ours().bias_gelu(&x, &weight, tanh)?.unwrap(), &expected, 2e-6);
        }
    }
    Ok(())
}

#[test]
fn one_number_that_is_none_sets_the_flag() -> Result<()> {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0] {
        let mut values = vec![0.5f32; 5000];
        values[4321] = bad;
        let x = Tensor::from_vec(values, (5, 1000), &Device::Cpu)?;
        let flag = ours().flag()?;
        assert!(ours().note_not_finite(&x.narrow(0, 0, 4)?, &flag)?);
        assert_eq!(flag.to_vec1::<i32>()?, [0]);
        assert!(ours().note_not_finite(&x, &flag)?);
        assert_eq!(flag.to_vec1::<i32>()?, [i32::from(!bad.is_finite())], "{bad}");
        let last = x.narrow(D::Minus1, 999, 1)?;
        assert!(ours().note_not_finite(&last, &flag)?, "a flag that is set stays so");
    }
    Ok(())
}

#[test]
fn the_best_come_first_and_of_equals_the_first() -> Result<()> {
    for (n, k) in some(&[(1, 1), (5, 9), (700, 64), (70_000, 3), (5000, 64)]) {
        let scores = Tensor::randn(0f32, 1.0, n, &Device::Cpu)?;
        // Many equals, and both zeros.
        let scores = ((scores * 8.0)?.round()? / 8.0)?;
        let values = scores.to_vec1::<f32>()?;
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| (values[b] + 0.0).total_cmp(&(values[a] + 0.0)).then(a.cmp(&b)));
        let best = ours().best(&scores, k)?.unwrap();
        assert_eq!(best, order[..k.min(n)], "{k} of {n}");
    }
    assert!(ours().best(&Tensor::zeros(5000, DType::F32, &Device::Cpu)?, 4000)?.is_none());
    Ok(())
}

#[test]
fn any_number_of_each_row_is_chosen_in_order() -> Result<()> {
    let (rows, n) = (2, 1100);
    let scores = (Tensor::randn(0f32, 1.0, (rows, n), &Device::Cpu)? * 8.0)?.round()?;
    for k in some(&[1, 1099, 1100, 600]) {
        let chosen = ours().chosen(&scores, k)?.unwrap().to_vec2::<u32>()?;
        for (values, chosen) in scores.to_vec2::<f32>()?.iter().zip(chosen) {
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|&a, &b| (values[b] + 0.0).total_cmp(&(values[a] + 0.0)).then(a.cmp(&b)));
            let mut expected: Vec<u32> = order[..k].iter().map(|&i| i as u32).collect();
            expected.sort_unstable();
            assert_eq!(chosen, expected, "{k} of {n}");
        }
    }
    Ok(())
}
