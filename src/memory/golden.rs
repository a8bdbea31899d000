// SPDX-License-Identifier: MPL-2.0
//! The golden vectors of the other methods (`tests/fixtures/golden_vectors.json`): what the
//! released codes, or where there is none a reading of the papers, select on seeded numbers.

use candle_core::{Device, Tensor};
use serde_json::Value;

use crate::memory::keep::evict::evict;
use crate::memory::keep::place::squeezed;
use crate::memory::keep::shrink::shrink_to;
use crate::memory::keep::{Held, Layer};
use crate::memory::kv::{Kv, by_token, mean_heads, read};
use crate::memory::recipe::{Places, Recipe, Resident};
use crate::memory::testing::{Lcg, geometry};
use crate::memory::unit::{Geometry, Row};
use crate::memory::weigh::change::{choose, importance};
use crate::memory::weigh::depth;
use crate::memory::weigh::novelty::least_alike;
use crate::memory::weigh::rank::{self, coarse_context, leaning, similarities};
use crate::memory::weigh::select::{ranked, top};
use crate::model::attention::{Visible, attention_mass};
use crate::model::rope::{Layout, Place, Positions, Rope};

fn golden(key: &str) -> Value {
    let text = include_str!("../../tests/fixtures/golden_vectors.json");
    serde_json::from_str::<Value>(text).unwrap()[key].clone()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn list(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn tensor(lcg: &mut Lcg, shape: (usize, usize, usize)) -> Tensor {
    let values: Vec<f32> = (0..shape.0 * shape.1 * shape.2).map(|_| lcg.next()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f32> = logits.iter().map(|l| (l - top).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// Rows of units of `unit` tokens, as they come.
fn rows(n: usize, unit: usize) -> Vec<Row> {
    let row = |i: usize| Row {
        unit: (i / unit) as u64,
        patch: (i % unit) as u32,
        step: 0,
        place: Place::text(i),
        score: 0.0,
    };
    (0..n).map(row).collect()
}

fn infinipot(key: &str, pooling: bool) {
    let golden = golden(key);
    let of = |name: &str| number(&golden[name]);
    let mut lcg = Lcg(golden["rng_seed"].as_u64().unwrap());
    let (depth, heads, dim) = (of("layers"), of("H_kv"), of("D"));
    let (prefix, unit, frames) = (of("prefix"), of("tokens_per_frame"), of("frames"));
    let n = frames * unit;
    let mut draw = || -> Vec<Tensor> {
        (0..depth).map(|_| tensor(&mut lcg, (heads, prefix + n, dim))).collect()
    };
    let (keys, values) = (draw(), draw());
    let video = |t: &Tensor| t.narrow(1, prefix, n).unwrap().contiguous().unwrap();
    let recipe = Resident {
        cap: frames,
        floor: of("compress_frames") as f64 / frames as f64,
        share: golden["tar_ratio"].as_f64().unwrap(),
        recent: golden["query_ratio"].as_f64().unwrap(),
        pooling,
        ..Recipe::named("infinipot-v").unwrap().resident.unwrap()
    };
    let layers: Vec<Layer> = keys
        .iter()
        .zip(&values)
        .map(|(k, v)| {
            let kv = Kv { k: video(k), v: video(v) };
            Layer::default().with(&kv, &[rows(n, unit)]).unwrap()
        })
        .collect();
    let grid_rows = of("grid_rows");
    let layout = Layout::Grid { rows: grid_rows, cols: unit / grid_rows, step: 1.0, compat: false };
    let geometry = Geometry { layout, ..geometry(depth, (heads, heads, dim), unit) };
    let budget = shrink_to(&recipe, (0, n), n, unit).unwrap();
    assert_eq!(budget, of("compress_frames") * unit);
    let method = Recipe { places: Places::Kept, ..Recipe::named("infinipot-v").unwrap() };
    let held = Held { geometry: &geometry, recipe: &method, layers: &[], resident: None };
    let shrunk = evict(held, &layers, &recipe, budget, None).unwrap();
    let expected = golden["kept_abs_indices[layer][head]"].as_array().unwrap();
    for (at, layer) in shrunk.iter().enumerate() {
        for (head, rows) in layer.lists().iter().enumerate() {
            let kept: Vec<usize> = (0..prefix)
                .chain(
                    rows.iter().map(|row| prefix + row.unit as usize * unit + row.patch as usize),
                )
                .collect();
            assert_eq!(kept, list(&expected[at][head]), "{key}: layer {at}, head {head}");
            // Gathered, not recomputed.
            let kv = layer.kv().unwrap();
            let found: Vec<Vec<f32>> = kv.v.get(head).unwrap().to_vec2().unwrap();
            let all: Vec<Vec<f32>> = values[at].get(head).unwrap().to_vec2().unwrap();
            let wanted: Vec<_> = kept[prefix..].iter().map(|&i| all[i].clone()).collect();
            assert_eq!(found, wanted);
        }
        assert_eq!(layer.lists().len(), heads);
    }
}

#[test]
fn infinipotv() {
    infinipot("infinipotv", false);
}

#[test]
fn infinipotv_pooled() {
    infinipot("infinipotv_pooled", true);
}

#[test]
fn infinipotv_schedule() {
    let golden = golden("infinipotv_schedule");
    let resident = Recipe::named("infinipot-v").unwrap().resident.unwrap();
    for total in [33, 40, 45, 100] {
        let recipe = Resident { total, ..resident.clone() };
        let (mut seen, mut held, mut steps) = (0, 0, Vec::new());
        while seen < total {
            let n = (recipe.cap - held).min(total - seen).min(if seen == 0 { total } else { 8 });
            held += n;
            let before = held;
            let to = shrink_to(&recipe, (0, held), seen + n, 1).filter(|_| seen + n < total);
            held = to.unwrap_or(held);
            steps.push((seen, seen + n, before, to));
            seen += n;
        }
        let expected: Vec<_> = golden[total.to_string()]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| {
                (number(&s[0]), number(&s[1]), number(&s[2]), s[3].as_u64().map(|x| x as usize))
            })
            .collect();
        assert_eq!(steps, expected, "{total} frames");
    }
}

#[test]
fn hermes_code_variant() {
    let golden = golden("hermes_code_variant");
    let of = |name: &str| number(&golden[name]);
    let mut lcg = Lcg(golden["rng_seed"].as_u64().unwrap());
    let (depth, prefix, n) = (of("layers"), of("prefix"), of("visual_tokens"));
    assert_eq!(depth::shallow_to(depth), of("short_layers"));
    assert_eq!(depth::deep_from(depth), of("deep_from"));
    // Mean attention over heads and rows of prompts of 4, 5 and 9 tokens, video columns only.
    let mut attention = |rows: usize| -> Vec<f32> {
        let mut sum = vec![0.0; n];
        for _ in 0..3 * rows {
            let logits: Vec<f32> = (0..prefix + n + rows).map(|_| 3.0 * lcg.next()).collect();
            let weights = softmax(&logits);
            sum.iter_mut().zip(&weights[prefix..]).for_each(|(s, w)| *s += w / (3 * rows) as f32);
        }
        sum
    };
    let mut draw = |rows: usize| -> Vec<Vec<f32>> { (0..depth).map(|_| attention(rows)).collect() };
    let (local, global, mixed) = (draw(4), draw(5), draw(9));
    let of_depth = |layer: usize| match layer {
        l if l < depth::shallow_to(depth) => local[l].clone(),
        l if l >= depth::deep_from(depth) => global[l].clone(),
        l => mixed[l].clone(),
    };
    let scores = depth::by_depth(&(0..depth).map(of_depth).collect::<Vec<_>>());
    for (layer, scores) in scores.iter().enumerate() {
        let budget = of("budget") - usize::from(layer >= depth::deep_from(depth));
        let kept: Vec<usize> =
            (0..prefix).chain(top(scores, budget).into_iter().map(|i| prefix + i)).collect();
        assert_eq!(kept, list(&golden["kept"][layer]), "layer {layer}");
    }
}

#[test]
fn retake_pivotkv() {
    let golden = golden("retake_pivotkv");
    let mut lcg = Lcg(golden["rng_seed"].as_u64().unwrap());
    let (q, k) = (tensor(&mut lcg, (4, 12, 8)), tensor(&mut lcg, (2, 12, 8)));
    let scores = attention_mass(&q, &k, Visible::All, 1.0 / 8f64.sqrt()).unwrap();
    let kept = top(&scores, 6);
    assert_eq!(kept, list(&golden["kept"]));
    let start = number(&golden["start_pos"]);
    let times: Vec<usize> = kept.iter().map(|i| start + i).collect();
    assert_eq!(squeezed(&times, 12), list(&golden["new_positions"]));
}

#[test]
fn rope() {
    let golden = golden("rope");
    let theta = golden["theta"].as_f64().unwrap();
    let rope = Rope::new(number(&golden["dim"]), theta, &Device::Cpu).unwrap();
    let input = Tensor::from_vec(floats(&golden["input"]), (1, 1, 8), &Device::Cpu).unwrap();
    let at = Positions::run(number(&golden["pos"]), 1);
    let found: Vec<f32> =
        rope.rotate(&input, &at).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    for (a, b) in found.iter().zip(floats(&golden["output"])) {
        assert!((a - b).abs() < 2e-6, "{a} is not {b}");
    }
}

#[test]
fn mukv_score() {
    let golden = golden("mukv_score");
    let mut lcg = Lcg(golden["seed"].as_u64().unwrap());
    let keys = tensor(&mut lcg, (2, 12, 4));
    let logits: Vec<f32> = (0..4 * 12 * 15).map(|_| lcg.next()).collect();
    let prefix = number(&golden["init_len"]);
    let mut received = vec![0.0; 12];
    for row in 0..4 * 12 {
        let visible = prefix + row % 12 + 1;
        let weights = softmax(&logits[row * 15..row * 15 + visible]);
        received.iter_mut().zip(&weights[prefix..]).for_each(|(sum, w)| *sum += w / 4.0);
    }
    let keys = read(&mean_heads(&keys).unwrap()).unwrap();
    let alpha = golden["alpha"].as_f64().unwrap();
    let importance = importance(&received, &keys, alpha);
    for (found, expected) in importance.iter().zip(floats(&golden["importance"])) {
        assert!((found - expected).abs() < 1e-5, "{found} is not {expected}");
    }
    assert_eq!(choose(&importance, &keys, 6, 1.0), list(&golden["kept_sorted"]));
}

#[test]
fn mukv_rerank() {
    let golden = golden("mukv_rerank");
    let mut lcg = Lcg(golden["seed"].as_u64().unwrap());
    let mut draw = |n: usize| -> Vec<Vec<f32>> {
        (0..n).map(|_| (0..6).map(|_| lcg.next()).collect()).collect()
    };
    let query = draw(1).remove(0);
    let (coarse, medium, fine) = (draw(4), draw(6), draw(6));
    let of = |x: &Vec<Vec<f32>>| -> Vec<f32> {
        similarities(&query, &x.iter().map(Vec::as_slice).collect::<Vec<_>>())
    };
    let scores = of(&coarse);
    assert_eq!(ranked(&scores), list(&golden["coarse_order"]));
    let vectors: Vec<&[f32]> = coarse.iter().map(Vec::as_slice).collect();
    let context = coarse_context(&query, &vectors, &scores, number(&golden["top_n"]));
    let weight = golden["lambda"].as_f64().unwrap();
    let leant = |x: &Vec<Vec<f32>>| -> Vec<f32> {
        let vectors: Vec<&[f32]> = x.iter().map(Vec::as_slice).collect();
        leaning(&of(x), &vectors, &context, weight)
    };
    let found = leant(&medium);
    assert_eq!(ranked(&found), list(&golden["medium_order"]));
    let in_order: Vec<f32> = ranked(&found).into_iter().map(|i| found[i]).collect();
    for (a, b) in in_order.iter().zip(floats(&golden["medium_scores"])) {
        assert!((a - b).abs() < 1e-5, "{a} is not {b}");
    }
    assert_eq!(ranked(&leant(&fine)), list(&golden["fine_order"]));
}

#[test]
fn rrf() {
    let golden = golden("rrf");
    let ranking = |x: &Value| list(x).into_iter().map(|id| id as u64).collect::<Vec<_>>();
    let rankings: Vec<_> = golden["rankings"].as_array().unwrap().iter().map(ranking).collect();
    let fused = rank::rrf(&rankings, golden["k"].as_f64().unwrap());
    let expected = golden["fused"].as_array().unwrap();
    assert_eq!(fused.len(), expected.len());
    for ((id, score), expected) in fused.iter().zip(expected) {
        assert_eq!(*id, expected[0].as_u64().unwrap());
        assert!((score - expected[1].as_f64().unwrap()).abs() < 1e-12);
    }
}

#[test]
fn aks_guess_variant_a() {
    let golden = golden("aks_guess_variant_A");
    let mut lcg = Lcg(golden["rng_seed"].as_u64().unwrap());
    let shape = list(&golden["K_shape"]);
    let units: Vec<Vec<f32>> = (0..shape[0])
        .map(|_| by_token(&tensor(&mut lcg, (shape[1], shape[2], shape[3]))).unwrap())
        .collect();
    let count = number(&golden["k"]);
    let expected = golden["kept_patches_per_frame"].as_array().unwrap();
    for (at, unit) in units.iter().enumerate() {
        let before = at.checked_sub(1).map_or(&[][..], |before| &units[before]);
        let kept = least_alike(unit, before, shape[1] * shape[3], count);
        assert_eq!(kept, list(&expected[at]), "unit {at}");
    }
}
