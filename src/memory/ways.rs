// SPDX-License-Identifier: MPL-2.0
//! The ways in and out against golden vectors and by their invariants, through one layer of a decoder
//! that is nothing but its attention.

use candle_core::{Device, Tensor};

use super::VideoMemory;
use super::answer::Answering;
use super::find::Retrieve;
use super::intake::{Behind, Encoded, Guide, InChanged, InPieces, InWindow};
use super::kv::{Kv, read};
use super::recipe::{Recipe, Similarity, Sparse};
use super::store::Stretch;
use super::testing::{geometry, random_tensor};
use super::unit::{Kind, Unit};
use super::weigh::select::Choice;
use crate::cancel::Cancel;
use crate::model::decoder::Attend;
use crate::model::rope::{Positions, Rope};

/// One layer of a decoder that is nothing but its attention.
fn memory(heads: usize, kv_heads: usize, dim: usize, unit: usize, recipe: &Recipe) -> VideoMemory {
    VideoMemory::new(geometry(1, (heads, kv_heads, dim), unit), recipe)
}

fn rekv(window: usize, compat: bool) -> Recipe {
    let mut recipe = Recipe::named("rekv").unwrap();
    recipe.set("window", &window.to_string()).unwrap();
    recipe.set("compat", &compat.to_string()).unwrap();
    recipe
}

/// Rows `from..from + n` of q, k, v.
type Rows = (Tensor, Tensor, Tensor);

fn rows((q, k, v): &Rows, from: usize, n: usize) -> Rows {
    let part = |t: &Tensor| t.narrow(1, from, n).unwrap().contiguous().unwrap();
    (part(q), part(k), part(v))
}

fn open(memory: &mut VideoMemory, (q, k, v): &Rows) -> Vec<Vec<f32>> {
    let cancel = Cancel::new();
    let mut ingest =
        InWindow::new(memory.before(), Positions::run(memory.seen, q.dim(1).unwrap()), &cancel);
    let out = ingest.attend(0, q, k, v).unwrap();
    let (raw, rotated) = ingest.into_layers().remove(0);
    memory.seen += q.dim(1).unwrap();
    memory.stored.layers[0].window.append(&rotated).unwrap();
    memory.stored.layers[0].open(Stretch::whole(raw).unwrap()).unwrap();
    out.get(0).unwrap().to_vec2().unwrap()
}

fn ingest(memory: &mut VideoMemory, (q, k, v): &Rows) -> Vec<Vec<f32>> {
    let cancel = Cancel::new();
    let mut ingest =
        InWindow::new(memory.before(), Positions::run(memory.seen, q.dim(1).unwrap()), &cancel);
    let out = ingest.attend(0, q, k, v).unwrap();
    let fresh = ingest.into_layers();
    let per_unit = memory.geometry.unit_tokens;
    let units = (0..q.dim(1).unwrap() / per_unit).map(|i| Unit {
        id: memory.next_unit + i as u64,
        kind: Kind::Frame,
        segment: memory.next_segment,
        frames: 0..1,
        start: 0.0,
        end: 0.0,
        at: i * per_unit,
        time: i as f64,
        patches: None,
        words: Default::default(),
        told: 0.0,
        embedding: None,
    });
    let units = units.collect();
    let fresh = fresh.into_iter().map(|(raw, rotated)| (raw, Some(rotated))).collect();
    let encoded = Encoded::cut(memory.held(), units, fresh).unwrap();
    memory.commit(encoded).unwrap();
    out.get(0).unwrap().to_vec2().unwrap()
}

fn golden_rows() -> Rows {
    let row = |f: &dyn Fn(f32) -> [f32; 2]| {
        let values: Vec<f32> = (0..9).flat_map(|t| f(t as f32)).collect();
        Tensor::from_vec(values, (1, 9, 2), &Device::Cpu).unwrap()
    };
    (
        row(&|t| [1.0 + 0.5 * t, 0.25 * t]),
        row(&|t| [(0.7 * t).cos(), (0.7 * t).sin()]),
        row(&|t| [t, 10.0 - 0.1 * t * t]),
    )
}

fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 2e-5, "{what}[{i}]: {a} is not {b}");
    }
}

const GOLDEN_OUT: [[f32; 9]; 2] = [
    [0., 0.62265, 1.24623, 1.88287, 2.53164, 3.05983, 3.87147, 4.25874, 5.38287],
    [10., 9.93773, 9.81196, 9.61147, 9.32011, 9.04569, 8.48112, 8.14936, 7.00197],
];

fn golden_memory(chunk: usize) -> (VideoMemory, Vec<Vec<f32>>) {
    let mut memory = memory(1, 1, 2, 2, &rekv(4, true));
    let all = golden_rows();
    let mut out = open(&mut memory, &rows(&all, 0, 1));
    for from in (1..9).step_by(chunk) {
        out.extend(ingest(&mut memory, &rows(&all, from, chunk)));
    }
    (memory, out)
}

#[test]
fn ingest_matches_the_golden_vectors_in_any_chunking() {
    for chunk in [2, 4, 8] {
        let (memory, out) = golden_memory(chunk);
        for (channel, expected) in GOLDEN_OUT.iter().enumerate() {
            let found: Vec<f32> = out.iter().map(|row| row[channel]).collect();
            assert_close(&found, expected, &format!("chunk {chunk}, o[:,{channel}]"));
        }
        let reps: Vec<f32> = memory.stored.layers[0].blocks.mean_keys().read().unwrap().to_vec();
        let expected = [0.4674, 0.81483, -0.72353, 0.5991, -0.71336, -0.61118, 0.48104, -0.80686];
        assert_close(&reps, &expected, "representatives");
    }
}

#[test]
fn without_compat_no_sink_counts_twice() {
    let all = golden_rows();
    let run = |compat| {
        let mut memory = memory(1, 1, 2, 2, &rekv(4, compat));
        let mut out = open(&mut memory, &rows(&all, 0, 1));
        out.extend(ingest(&mut memory, &rows(&all, 1, 8)));
        out.into_iter().flatten().collect::<Vec<f32>>()
    };
    let (quirk, clean) = (run(true), run(false));
    // Token 3 still has the sink in its window; only there do the two differ.
    for (i, (a, b)) in quirk.iter().zip(&clean).enumerate() {
        assert_eq!((a - b).abs() > 1e-6, i / 2 == 3, "token {}", i / 2);
    }
}

#[test]
fn retrieval_and_answering_match_the_golden_vectors() {
    let (mut memory, _) = golden_memory(2);
    // StreamKV's question attention: everything in sight.
    memory.recipe.windowed_answers = false;
    let cancel = Cancel::new();
    let view = memory.view(None);
    let question =
        |rows: &[[f32; 2]; 3]| Tensor::from_vec(rows.concat(), (1, 3, 2), &Device::Cpu).unwrap();
    let q = question(&[[1.0, 0.5], [-0.5, 2.0], [0.2, 0.1]]);
    let k = question(&[[0.3, 0.1], [0.2, -0.4], [0.0, 1.0]]);
    let v = question(&[[100., 0.], [200., 0.], [300., 0.]]);

    let mut retrieve = Retrieve::new(
        view,
        vec![2],
        Choice { chunk: 1, ..Choice::default() },
        Similarity::Dot,
        &cancel,
    );
    let out = retrieve.attend(0, &q, &k, &v).unwrap();
    assert_close(&retrieve.scores[0], &[0.81525, 0.35039, -0.69614, -0.58704], "scores");
    let contexts = retrieve.contexts;
    let context = contexts[0].as_ref().unwrap();
    assert_eq!(context.owners, [[(0, 2), (1, 2)]]);
    assert_eq!(context.tokens(), 5);

    let mut answering = Answering::new(memory.held(), &contexts, 3, &cancel);
    let answer = answering.attend(0, &q, &k, &v).unwrap();
    for (what, out) in [("question pass", out), ("answer pass", answer)] {
        let out: Vec<Vec<f32>> = out.get(0).unwrap().to_vec2().unwrap();
        let first: Vec<f32> = out.iter().map(|row| row[0]).collect();
        for (a, b) in first.iter().zip([18.79612, 19.87049, 75.97926]) {
            assert!((a - b).abs() < 1e-3, "{what}: {a} is not {b}");
        }
    }
}

fn random_rows(seed: u64, n: usize) -> Rows {
    let t = |seed, heads| random_tensor(seed, (heads, n, 4));
    (t(seed, 4), t(seed + 1, 2), t(seed + 2, 2))
}

/// Prefix of three tokens, then units of two.
fn run(all: &Rows, chunk: usize, window: usize) -> (VideoMemory, Vec<Vec<f32>>) {
    let mut memory = memory(4, 2, 4, 2, &rekv(window, false));
    let mut out = open(&mut memory, &rows(all, 0, 3));
    let n = all.0.dim(1).unwrap();
    for from in (3..n).step_by(chunk) {
        out.extend(ingest(&mut memory, &rows(all, from, chunk.min(n - from))));
    }
    (memory, out)
}

#[test]
fn chunking_changes_neither_outputs_nor_blocks() {
    let all = random_rows(5, 43);
    let (one, one_out) = run(&all, 40, 10);
    for chunk in [2, 4, 10, 20] {
        let (many, many_out) = run(&all, chunk, 10);
        for (i, (a, b)) in one_out.iter().zip(&many_out).enumerate() {
            assert_close(a, b, &format!("chunk {chunk}, token {i}"));
        }
        let keys = |memory: &VideoMemory| {
            memory.stored.layers[0].blocks.mean_keys().read().unwrap().into_owned()
        };
        assert_eq!(keys(&one), keys(&many));
        for (a, b) in one.stored.layers[0].blocks.iter().zip(many.stored.layers[0].blocks.iter()) {
            assert_eq!(a.unit, b.unit);
        }
    }
}

/// The same rows with row `at` of keys and values replaced.
fn disturbed(all: &Rows, at: usize) -> Rows {
    let (q, k, v) = all;
    let replace = |t: &Tensor| {
        let (heads, n, dim) = t.dims3().unwrap();
        let other = random_tensor(99, (heads, 1, dim));
        Tensor::cat(
            &[&t.narrow(1, 0, at).unwrap(), &other, &t.narrow(1, at + 1, n - at - 1).unwrap()],
            1,
        )
        .unwrap()
    };
    (q.clone(), replace(k), replace(v))
}

#[test]
fn a_token_behind_the_window_does_not_matter_unless_it_is_a_sink() {
    let (window, last) = (10, 42);
    let all = random_rows(6, 43);
    let last_out = |rows: &Rows| run(rows, 4, window).1[last].clone();
    let undisturbed = last_out(&all);
    let differs = |at| last_out(&disturbed(&all, at)) != undisturbed;
    assert!(!differs(last - window), "a video token that has left the window");
    assert!(differs(last - window + 1), "the oldest token in the window");
    assert!(differs(1), "a sink");
}

#[test]
fn earlier_tokens_do_not_see_later_ones() {
    let all = random_rows(7, 43);
    let (a, b) = (run(&all, 8, 10).1, run(&disturbed(&all, 30), 8, 10).1);
    assert_eq!(a[..30], b[..30]);
    assert_ne!(a[30], b[30]);
}

#[test]
fn the_order_of_sinks_does_not_matter_once_they_left_the_window() {
    let all = random_rows(8, 43);
    let (q, k, v) = &all;
    let swap = |t: &Tensor| {
        let order =
            Tensor::new([1u32, 2, 0].into_iter().chain(3..43).collect::<Vec<u32>>(), &Device::Cpu);
        t.index_select(&order.unwrap(), 1).unwrap()
    };
    let swapped = (q.clone(), swap(k), swap(v));
    let (a, b) = (run(&all, 4, 10).1, run(&swapped, 4, 10).1);
    for i in 20..43 {
        assert_close(&a[i], &b[i], &format!("token {i}"));
    }
}

#[test]
fn inside_the_window_ingest_is_causal_attention() {
    let all = random_rows(9, 23);
    let (_, out) = run(&all, 4, 1000);
    let (q, k, v) = &all;
    let rope = Rope::new(4, 10_000.0, &Device::Cpu).unwrap();
    let plain = Behind { rope: &rope, scale: 0.5, context: None, window: None };
    let whole: Vec<Vec<f32>> =
        plain.attend_fresh(0, q, k, v).unwrap().get(0).unwrap().to_vec2().unwrap();
    for (i, (a, b)) in out.iter().zip(&whole).enumerate() {
        assert_close(a, b, &format!("token {i}"));
    }
}

#[test]
fn answering_in_pieces_equals_answering_at_once() {
    let all = random_rows(10, 43);
    let (memory, _) = run(&all, 4, 10);
    let view = memory.view(None);
    let cancel = Cancel::new();
    let (q, k, v) = random_rows(11, 6);
    let mut retrieve = Retrieve::new(
        view,
        vec![3],
        Choice { recent: 1, chunk: 1, ..Choice::default() },
        Similarity::Dot,
        &cancel,
    );
    retrieve.attend(0, &q, &k, &v).unwrap();
    let contexts = retrieve.contexts;
    let mut at_once = Answering::new(memory.held(), &contexts, 6, &cancel);
    let whole: Vec<Vec<f32>> =
        at_once.attend(0, &q, &k, &v).unwrap().get(1).unwrap().to_vec2().unwrap();
    let mut pieces = Answering::new(memory.held(), &contexts, 6, &cancel);
    let mut found: Vec<Vec<f32>> = Vec::new();
    for (from, n) in [(0, 3), (3, 1), (4, 2)] {
        let (q, k, v) = rows(&(q.clone(), k.clone(), v.clone()), from, n);
        let out = pieces.attend(0, &q, &k, &v).unwrap();
        found.extend(out.get(1).unwrap().to_vec2::<f32>().unwrap());
    }
    for (i, (a, b)) in found.iter().zip(&whole).enumerate() {
        assert_close(a, b, &format!("row {i}"));
    }
    let mass: f64 = at_once.into_mass().unwrap().values().sum();
    assert!(mass > 0.0 && mass <= 1.0 + 1e-6, "{mass}");
}

#[test]
fn the_selection_is_the_budget_in_stream_order() {
    let all = random_rows(12, 43);
    let (memory, _) = run(&all, 4, 10);
    let view = memory.view(None);
    let cancel = Cancel::new();
    let (q, k, v) = random_rows(13, 5);
    for count in [1, 3, 20, 50] {
        let mut retrieve = Retrieve::new(
            view,
            vec![count],
            Choice { chunk: 1, ..Choice::default() },
            Similarity::Dot,
            &cancel,
        );
        retrieve.attend(0, &q, &k, &v).unwrap();
        let units = retrieve.contexts[0].as_ref().unwrap().units();
        assert_eq!(units.len(), count.min(20));
        assert!(units.windows(2).all(|pair| pair[0] < pair[1]));
    }
}

#[test]
fn a_window_of_units_of_which_all_is_seen_is_a_window() {
    let (window, all) = (5, random_rows(16, 23));
    let dense = run(&all, 2, window).1;
    let mut memory = memory(4, 2, 4, 1, &rekv(window, false));
    open(&mut memory, &rows(&all, 0, 3));
    let cancel = Cancel::new();
    let rule = Sparse { units: window - 1, keep: 1.0, pairs: false };
    let mut sparse =
        InChanged::new(memory.before(), rule, (Positions::run(3, 20), &[1; 20]), &cancel);
    let (q, k, v) = rows(&all, 3, 20);
    let out = sparse.attend(0, &q, &k, &v).unwrap().get(0).unwrap();
    let out: Vec<Vec<f32>> = out.to_vec2().unwrap();
    // Until then the windows begin within the prefix.
    for at in 3 + window..23 {
        assert_close(&out[at - 3], &dense[at], &format!("token {at}"));
    }
}

#[test]
fn pieces_see_the_prefix_and_themselves() {
    let piece = |memory: &VideoMemory, rows: &Rows| {
        let cancel = Cancel::new();
        let mut alone = InPieces::new(memory.held(), 4, &cancel);
        let out = alone.attend(0, &rows.0, &rows.1, &rows.2).unwrap();
        let received = read(&alone.into_layers().remove(0).received.unwrap()).unwrap();
        (out.get(0).unwrap().to_vec2::<f32>().unwrap(), received)
    };
    let all = random_rows(15, 11);
    let frames = rows(&all, 3, 8);
    let without = memory(4, 2, 4, 2, &rekv(10, false));
    let mut with = memory(4, 2, 4, 2, &rekv(10, false));
    open(&mut with, &rows(&all, 0, 3));

    let (out, received) = piece(&with, &frames);
    // The first piece is nothing to the second.
    let (changed, _) = piece(&with, &disturbed(&frames, 1));
    assert_ne!(out[..4], changed[..4]);
    assert_eq!(out[4..], changed[4..]);
    // The prefix draws attention that the pieces would have.
    let (_, whole) = piece(&without, &frames);
    for (mass, whole) in received.chunks(4).zip(whole.chunks(4)) {
        let (mass, whole) = (mass.iter().sum::<f32>(), whole.iter().sum::<f32>());
        assert!(mass > 0.0 && mass < 0.9 * whole, "{mass} of {whole}");
    }
}

#[test]
fn guidance_sees_its_segment_or_as_the_reference_has_it_a_window_back() {
    let all = random_rows(21, 12);
    let out = |compat: bool, segment: &Rows| -> Vec<Vec<f32>> {
        let recipe = Recipe { window: Some(5), compat, ..Recipe::named("streamkv").unwrap() };
        let memory = memory(4, 2, 4, 2, &recipe);
        let (_, k, v) = rows(segment, 0, 8);
        let kv = Kv { k, v };
        let cancel = Cancel::new();
        let mut guide = Guide::new(memory.held(), vec![&kv], &cancel);
        let (q, k, v) = rows(&all, 8, 3);
        guide.attend(0, &q, &k, &v).unwrap().get(0).unwrap().to_vec2().unwrap()
    };
    for (token, row, seen) in
        [(0, 0, false), (3, 0, false), (4, 0, true), (4, 1, false), (7, 2, true)]
    {
        let other = disturbed(&all, token);
        assert_eq!(out(true, &all)[row] != out(true, &other)[row], seen, "{token} by {row}");
        assert_ne!(out(false, &all)[row], out(false, &other)[row], "{token} by {row}");
    }
}

#[test]
fn a_raised_flag_stops_within_one_layer() {
    let cancel = Cancel::new();
    let memory = memory(4, 2, 4, 2, &rekv(10, false));
    let (q, k, v) = random_rows(14, 4);
    let mut ingest =
        InWindow::new(memory.before(), Positions::run(memory.seen, q.dim(1).unwrap()), &cancel);
    assert!(ingest.attend(0, &q, &k, &v).is_ok());
    cancel.raise();
    let stopped = ingest.attend(0, &q, &k, &v);
    assert!(matches!(stopped, Err(crate::EngineError::Cancelled)));
}
