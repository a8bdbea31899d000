// SPDX-License-Identifier: MPL-2.0
//! The tiled kernel against candle's own operations, and both against the definition.

use candle_core::{Device, Tensor};

use super::*;

fn random(shape: (usize, usize, usize)) -> Tensor {
    Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let values = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
    let values = values.to_vec1::<f32>().unwrap();
    assert!(values.iter().all(|v| v.is_finite()));
    values.into_iter().fold(0.0, f32::max)
}

/// (keys, rule) per stage.
type Stages = Vec<(usize, Visible)>;

fn compare(heads: usize, kv_heads: usize, rows: usize, dim: usize, stages: &Stages) {
    let data: Vec<_> = stages
        .iter()
        .map(|&(keys, visible)| {
            let q = random((heads, rows, dim));
            (q, random((kv_heads, keys, dim)), random((kv_heads, keys, dim)), visible)
        })
        .collect();
    let stages: Vec<_> =
        data.iter().map(|(q, k, v, visible)| Stage { q, k, v, visible: *visible }).collect();
    let fast = attend(&stages, 0.3).unwrap();
    let slow = attend_composed(&stages, 0.3).unwrap();
    let found = difference(&fast, &slow);
    let rules: Vec<_> = data.iter().map(|d| (d.1.dims()[1], d.3)).collect();
    assert!(found < 2e-5, "H {heads} Hk {kv_heads} nq {rows} d {dim} {rules:?}: {found}");
}

#[test]
fn one_stage_of_any_shape() {
    for (heads, kv_heads) in [(1, 1), (4, 2), (14, 2), (6, 6)] {
        for rows in [1, 2, 3, 5, 63, 64, 130, 300] {
            for keys in [1, 7, 511, 513, 1300] {
                compare(heads, kv_heads, rows, 16, &vec![(keys, Visible::All)]);
            }
        }
    }
    compare(2, 1, 9, 72, &vec![(100, Visible::All)]);
    compare(2, 1, 9, 10, &vec![(100, Visible::All)]);
}

#[test]
fn every_rule_of_sight() {
    for rows in [1usize, 4, 70, 200] {
        for keys in [1usize, 33, 600, 1100] {
            for visible in [
                Visible::Window { offset: 0, width: 1 },
                Visible::Window { offset: 0, width: 50 },
                Visible::Window { offset: keys.saturating_sub(rows), width: usize::MAX },
                Visible::Window { offset: keys.saturating_sub(rows), width: 37 },
                Visible::Window { offset: keys + 40, width: 30 },
                Visible::Window { offset: 5, width: 0 },
                Visible::Beyond { offset: 3, width: 0 },
                Visible::Beyond { offset: keys / 2, width: 17 },
                Visible::Beyond { offset: 0, width: 500 },
                Visible::FromRow(0),
                Visible::FromRow(rows / 2),
                Visible::FromRow(rows),
            ] {
                compare(4, 2, rows, 8, &vec![(keys, visible)]);
            }
        }
    }
}

#[test]
fn several_stages_share_one_softmax() {
    for rows in [1, 3, 40, 150] {
        compare(
            4,
            2,
            rows,
            16,
            &vec![
                (13, Visible::FromRow(rows / 3)),
                (0, Visible::All),
                (2600, Visible::All),
                (rows + 90, Visible::Window { offset: 90, width: 60 }),
                (70, Visible::Beyond { offset: 40, width: 20 }),
            ],
        );
    }
}

#[test]
fn one_key_set_cut_into_stages_is_the_whole() {
    let (q, k, v) = (random((4, 50, 16)), random((2, 900, 16)), random((2, 900, 16)));
    let whole = attend(&[Stage { q: &q, k: &k, v: &v, visible: Visible::All }], 0.25).unwrap();
    let part = |x: &Tensor, start, n| x.narrow(1, start, n).unwrap();
    let parts =
        [(0, 100), (100, 1), (101, 799)].map(|(start, n)| (part(&k, start, n), part(&v, start, n)));
    let stages: Vec<_> =
        parts.iter().map(|(k, v)| Stage { q: &q, k, v, visible: Visible::All }).collect();
    assert!(difference(&whole, &attend(&stages, 0.25).unwrap()) < 1e-5);
}

#[test]
fn views_of_a_larger_buffer_are_read_in_place() {
    let (k, v) = (random((2, 1000, 16)), random((2, 1000, 16)));
    let (k, v) = (k.narrow(1, 100, 700).unwrap(), v.narrow(1, 100, 700).unwrap());
    let swapped = random((30, 4, 16)).transpose(0, 1).unwrap();
    let visible = Visible::Window { offset: 670, width: 300 };
    let stage = || [Stage { q: &swapped, k: &k, v: &v, visible }];
    let expected = attend_composed(&stage(), 0.25).unwrap();
    assert!(difference(&attend(&stage(), 0.25).unwrap(), &expected) < 1e-5);
}

#[test]
fn a_row_that_sees_nothing_is_zero() {
    let (q, k) = (random((2, 6, 8)), random((1, 5, 8)));
    for attend in [attend, attend_composed] {
        let visible = Visible::FromRow(4);
        let out = attend(&[Stage { q: &q, k: &k, v: &k, visible }], 1.0).unwrap();
        let out: Vec<Vec<Vec<f32>>> = out.to_vec3().unwrap();
        for head in out {
            assert!(head[..4].iter().flatten().all(|&x| x == 0.0));
            assert!(head[4..].iter().flatten().all(|&x| x != 0.0));
        }
        let none = k.narrow(1, 0, 0).unwrap();
        let stage = Stage { q: &q, k: &none, v: &none, visible: Visible::All };
        assert_eq!(difference(&attend(&[stage], 1.0).unwrap(), &q.zeros_like().unwrap()), 0.0);
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let q = (random((2, 40, 8)) * 100.0).unwrap();
    let k = (random((2, 700, 8)) * 100.0).unwrap();
    let v = random((2, 700, 8));
    let stage = || [Stage { q: &q, k: &k, v: &v, visible: Visible::All }];
    let expected = attend_composed(&stage(), 1.0).unwrap();
    assert!(difference(&attend(&stage(), 1.0).unwrap(), &expected) < 1e-3);
}

#[test]
fn column_sums_are_the_softmax_summed() {
    for (rows, keys) in [(1usize, 40usize), (7, 600), (150, 1300)] {
        for visible in [
            Visible::All,
            Visible::Window { offset: keys - rows.min(keys), width: 55 },
            Visible::FromRow(rows / 2),
        ] {
            let (q, k) = (random((4, rows, 16)), random((2, keys, 16)));
            let fast = attention_mass(&q, &k, visible, 0.5).unwrap();
            let slow = attention_mass_composed(&q, &k, visible, 0.5).unwrap();
            assert_eq!(fast.len(), keys);
            for (a, b) in fast.iter().zip(&slow) {
                assert!(
                    (a - b).abs() <= 1e-4 * (1.0 + b.abs()),
                    "{rows} {keys} {visible:?}: {a} {b}"
                );
            }
            let seeing = (0..rows).filter(|&i| visible.interval(i, keys) != (0, 0)).count();
            let total: f32 = fast.iter().sum();
            assert!((total - seeing as f32).abs() < 1e-3 * (1.0 + seeing as f32));
        }
    }
}

#[test]
fn intervals_are_the_rules_written_out() {
    for keys in 0..9usize {
        for i in 0..9usize {
            for offset in 0..9usize {
                for width in 0..9usize {
                    let distance = |j: usize| (i + offset) as i64 - j as i64;
                    let window = |j| (0..width as i64).contains(&distance(j));
                    let beyond = |j| distance(j) >= width as i64;
                    let check = |visible: Visible, rule: &dyn Fn(usize) -> bool| {
                        let (lo, hi) = visible.interval(i, keys);
                        for j in 0..keys {
                            assert_eq!((lo..hi).contains(&j), rule(j), "{visible:?} {i} {j}");
                        }
                        assert!(hi <= keys);
                    };
                    check(Visible::Window { offset, width }, &window);
                    check(Visible::Beyond { offset, width }, &beyond);
                }
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let (q, k) = (random((3, 4, 8)), random((2, 5, 8)));
    let stage = Stage { q: &q, k: &k, v: &k, visible: Visible::All };
    assert!(attend(&[stage], 1.0).is_err());
    assert!(attend(&[], 1.0).is_err());
    assert!(attention_mass(&q, &k, Visible::All, 1.0).is_err());
    let (q, v) = (random((2, 4, 8)), random((2, 6, 8)));
    assert!(attend(&[Stage { q: &q, k: &k, v: &v, visible: Visible::All }], 1.0).is_err());
}
