// SPDX-License-Identifier: MPL-2.0
//! The four ways a decoder looks at the memory: taking in video, scoring a segment by a guidance
//! prompt, retrieving for a question, answering. Each is an [`Attend`]; the decoder knows none of
//! them.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Tensor};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::memory::position::Context;
use crate::memory::rank::rrf;
use crate::memory::recipe::Expert;
use crate::memory::resident::Layer;
use crate::memory::score::{MeanQuery, Similarity, representative};
use crate::memory::select::{Choice, ranked, top};
use crate::memory::store::{Kv, Tail};
use crate::memory::{VideoMemory, View};
use crate::model::attention::{self, Stage, Visible};
use crate::model::decoder::Attend;
use crate::model::rope::{Positions, Rope};

/// Wider than any stream.
pub(super) const UNBOUNDED: usize = usize::MAX / 4;

/// Video in: each token sees the window before it and, once the window has moved past them, the
/// prefix tokens as attention sinks at a constant distance (ReKV §3.1 and code).
pub struct Ingest<'a> {
    memory: &'a VideoMemory,
    cancel: &'a Cancel,
    /// Per layer: un-rotated, and keys rotated at their place in the stream.
    layers: Vec<(Kv, Kv)>,
}

impl<'a> Ingest<'a> {
    pub fn new(memory: &'a VideoMemory, cancel: &'a Cancel) -> Self {
        Self { memory, cancel, layers: Vec::new() }
    }

    /// Per layer the un-rotated keys and values of everything taken in, and the same with keys
    /// rotated.
    pub fn into_layers(self) -> Vec<(Kv, Kv)> {
        self.layers
    }

    /// Which of the `n` new rows see the sinks.
    fn sinks_visible(&self, width: usize, n: usize) -> Option<Visible> {
        let seen = self.memory.seen;
        if seen + n <= width {
            return None;
        }
        if !self.memory.compat {
            // Exactly the sinks that have left the window.
            return Some(Visible::Beyond { offset: seen, width });
        }
        // The reference decides per sub-block of one unit, and does not mind that the first such
        // sub-block may still have sinks inside its window.
        let unit = self.memory.geometry.unit_tokens.max(1);
        let first = (0..n)
            .step_by(unit)
            .find(|start| seen + start + unit.min(n - start) > width)
            .unwrap_or(n);
        Some(Visible::FromRow(first))
    }
}

impl Attend for Ingest<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let memory = self.memory;
        let n = q.dim(1)?;
        let here = memory.upcoming(n);
        let width = memory.window.unwrap_or(UNBOUNDED);
        let fresh = Kv { k: memory.rope.rotate(k, &here)?, v: v.clone() };
        let q_here = memory.rope.rotate(q, &here)?;
        let store = &memory.layers[layer];

        let past = store.window.view()?;
        let mut stages = Vec::with_capacity(3);
        if let Some(past) = &past {
            let offset = past.tokens()?;
            let visible = Visible::Window { offset, width };
            stages.push(Stage { q: &q_here, k: &past.k, v: &past.v, visible });
        }
        let visible = Visible::Window { offset: 0, width };
        stages.push(Stage { q: &q_here, k: &fresh.k, v: &fresh.v, visible });

        // All sinks share one position, at the far end of the window.
        let q_sink;
        if let (Some(sinks), Some(visible)) = (&store.prefix, self.sinks_visible(width, n)) {
            let far = memory.layout.reach(width - 1);
            q_sink = memory.rope.rotate(q, &Positions::constant(far, n))?;
            stages.push(Stage { q: &q_sink, k: &sinks.k, v: &sinks.v, visible });
        }
        let context = attention::attend(&stages, memory.geometry.scale)?;
        self.layers.push((Kv { k: k.clone(), v: v.clone() }, fresh));
        Ok(context)
    }
}

/// The guidance prompt over one encoded segment: sees nothing before it, leaves only its mean
/// queries (StreamKV 3.3).
pub struct Guide<'a> {
    memory: &'a VideoMemory,
    segment: Vec<&'a Kv>,
    cancel: &'a Cancel,
    queries: Vec<MeanQuery>,
}

impl<'a> Guide<'a> {
    /// `segment`: per layer the un-rotated keys and values of the segment.
    pub fn new(memory: &'a VideoMemory, segment: Vec<&'a Kv>, cancel: &'a Cancel) -> Self {
        Self { memory, segment, cancel, queries: Vec::new() }
    }

    pub fn into_queries(self) -> Vec<MeanQuery> {
        self.queries
    }
}

impl Attend for Guide<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        self.queries.push(MeanQuery::of(q, self.memory.geometry.kv_heads)?);
        let (rope, segment) = (&self.memory.rope, self.segment[layer]);
        // Positions restart at the segment.
        let placed = self.memory.layout.stretch(0, 0..segment.tokens()?);
        let keys = rope.rotate(&segment.k, &placed.positions)?;
        let context = Kv { k: keys, v: segment.v.clone() };
        let scale = self.memory.geometry.scale;
        let behind = Behind { rope, scale, context: Some(&context), window: None };
        behind.attend_fresh(placed.next, q, k, v)
    }
}

/// How far the rows behind a context see (ReKV's question attention).
#[derive(Clone, Copy)]
struct AnswerWindow<'a> {
    /// Tokens a row sees, itself included.
    width: usize,
    /// The un-rotated prefix that it sees beyond.
    sinks: Option<&'a Kv>,
    /// How far away that seems.
    far: usize,
}

/// Fresh rows behind a finished context: what they see of it, of each other, and, where answers
/// keep to a window, of the sinks behind that window.
struct Behind<'a> {
    rope: &'a Rope,
    scale: f64,
    /// Keys rotated.
    context: Option<&'a Kv>,
    /// How far a row sees; `None`: everything before it.
    window: Option<AnswerWindow<'a>>,
}

impl Behind<'_> {
    /// `raw_q` and `q` are the rows before and after RoPE; `own` holds everything behind the
    /// context, the rows themselves included, keys rotated.
    fn attend(&self, raw_q: &Tensor, q: &Tensor, own: &Kv) -> Result<Tensor> {
        let n = q.dim(1)?;
        let context = self.context.map_or(Ok(0), Kv::tokens)?;
        let offset = own.tokens()? - n;
        let width = self.window.map_or(UNBOUNDED, |window| window.width);
        let mut stages = Vec::with_capacity(3);
        if let Some(Kv { k, v }) = self.context {
            let visible = Visible::Window { offset: context + offset, width };
            stages.push(Stage { q, k, v, visible });
        }
        let visible = Visible::Window { offset, width };
        stages.push(Stage { q, k: &own.k, v: &own.v, visible });
        let q_sink;
        if let Some(AnswerWindow { sinks: Some(Kv { k, v }), far, .. }) = self.window
            && context + offset + n > width
        {
            q_sink = self.rope.rotate(raw_q, &Positions::constant(far, n))?;
            let visible = Visible::Beyond { offset: context + offset, width };
            stages.push(Stage { q: &q_sink, k, v, visible });
        }
        attention::attend(&stages, self.scale)
    }

    /// Rows that begin at position `start`, with nothing between them and the context.
    fn attend_fresh(&self, start: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let here = Positions::run(start, q.dim(1)?);
        let own = Kv { k: self.rope.rotate(k, &here)?, v: v.clone() };
        self.attend(q, &self.rope.rotate(q, &here)?, &own)
    }
}

impl VideoMemory {
    fn behind<'a>(&'a self, layer: usize, context: Option<&'a Context>) -> Behind<'a> {
        let sinks = self.layers.get(layer).and_then(|store| store.prefix.as_ref());
        Behind {
            rope: &self.rope,
            scale: self.geometry.scale,
            context: context.map(|context| &context.kv),
            window: self.answer_window.map(|width| AnswerWindow {
                width,
                sinks,
                far: self.layout.reach(width - 1),
            }),
        }
    }
}

/// A question looks for what it needs: every layer picks its own blocks by its own query and
/// attends to them, so that deeper layers ask with what shallower ones found (ReKV 3.2).
pub struct Retrieve<'a> {
    view: View<'a>,
    cancel: &'a Cancel,
    /// Units per layer.
    counts: Vec<usize>,
    choice: Choice,
    similarity: Similarity,
    /// An outside model's opinion of every unit, and how the two are fused.
    outside: Option<(&'a HashMap<u64, f32>, Expert)>,
    pub contexts: Vec<Option<Context>>,
    /// Per layer, the units that were candidates, in stream order.
    pub candidates: Vec<Vec<u64>>,
    /// Per layer, every candidate's score.
    pub scores: Vec<Vec<f32>>,
}

impl<'a> Retrieve<'a> {
    pub fn new(
        view: View<'a>,
        counts: Vec<usize>,
        choice: Choice,
        similarity: Similarity,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            view,
            cancel,
            counts,
            choice,
            similarity,
            outside: None,
            contexts: Vec::new(),
            candidates: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// The same with an outside opinion of every unit.
    pub fn asking(self, opinion: &'a HashMap<u64, f32>, expert: Expert) -> Self {
        Self { outside: Some((opinion, expert)), ..self }
    }

    /// Scores of a layer's blocks from the layer's own and the outside opinion. A unit of which
    /// there is none ranks last outside.
    fn fused(&self, units: &[u64], own: Vec<f32>) -> Vec<f32> {
        let Some((opinion, expert)) = self.outside else { return own };
        let outside: Vec<f32> = units
            .iter()
            .map(|unit| opinion.get(unit).copied().unwrap_or(f32::NEG_INFINITY))
            .collect();
        match expert {
            Expert::Internal => own,
            Expert::External => outside,
            Expert::Both { kappa } => {
                let ids = |scores: &[f32]| ranked(scores).into_iter().map(|i| units[i]).collect();
                let fused: HashMap<u64, f64> =
                    rrf(&[ids(&own), ids(&outside)], kappa).into_iter().collect();
                units.iter().map(|unit| fused.get(unit).map_or(0.0, |s| *s as f32)).collect()
            }
        }
    }
}

impl Attend for Retrieve<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let memory = self.view.memory;
        let query = MeanQuery::of(q, memory.geometry.kv_heads)?;
        let (units, scores, context) = loop {
            let blocks: Vec<_> = self.view.candidates(layer).collect();
            let scores: Vec<f32> =
                blocks.iter().map(|b| query.score(&b.representative, self.similarity)).collect();
            let units: Vec<u64> = blocks.iter().map(|block| block.unit).collect();
            let scores = self.fused(&units, scores);
            let chosen = self.choice.of(&scores, self.counts[layer]);
            let chosen: Vec<_> = chosen.into_iter().map(|i| blocks[i]).collect();
            let context = self.view.pack(layer, &chosen)?;
            // Without those that turned out to be lost, others would have been chosen.
            if !chosen.iter().any(|block| block.is_lost()) {
                break (units, scores, context);
            }
        };
        let start = context.as_ref().map_or(0, |context| context.next);
        let out = memory.behind(layer, context.as_ref()).attend_fresh(start, q, k, v)?;
        self.contexts.push(context);
        self.candidates.push(units);
        self.scores.push(scores);
        Ok(out)
    }
}

/// What stands behind one layer's context.
struct Own {
    tail: Tail,
    /// The position of the next token.
    next: usize,
}

/// A question with nothing but the prefix before it: how every layer asks.
pub struct Bare<'a> {
    view: View<'a>,
    cancel: &'a Cancel,
    /// Mean queries before RoPE, by layer.
    pub queries: Vec<MeanQuery>,
    /// The last token's key in the last layer, turned where it stands, `[Hk * d]`.
    pub key: Vec<f32>,
}

impl<'a> Bare<'a> {
    pub fn new(view: View<'a>, cancel: &'a Cancel) -> Self {
        Self { view, cancel, queries: Vec::new(), key: Vec::new() }
    }
}

impl Attend for Bare<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let memory = self.view.memory;
        self.queries.push(MeanQuery::of(q, memory.geometry.kv_heads)?);
        let context = self.view.pack_nothing(layer)?;
        let start = context.as_ref().map_or(0, |context| context.next);
        let n = k.dim(1)?;
        let last = k.narrow(1, n - 1, 1)?.contiguous()?;
        let last = memory.rope.rotate(&last, &Positions::run(start + n - 1, 1))?;
        self.key = last.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        memory.behind(layer, context.as_ref()).attend_fresh(start, q, k, v)
    }
}

/// A question picks pages of what is resident, layer by layer, by their mean keys without
/// positions (LiveVLM 4.3).
pub struct PickPages<'a> {
    view: View<'a>,
    cancel: &'a Cancel,
    tokens: usize,
    share: f64,
    /// Newest tokens that are taken in any case.
    recent: usize,
    similarity: Similarity,
    pub contexts: Vec<Option<Context>>,
}

impl<'a> PickPages<'a> {
    pub fn new(
        view: View<'a>,
        (tokens, share, recent): (usize, f64, usize),
        similarity: Similarity,
        cancel: &'a Cancel,
    ) -> Self {
        Self { view, cancel, tokens, share, recent, similarity, contexts: Vec::new() }
    }

    fn picked(&self, resident: &Layer, query: &MeanQuery) -> Result<Vec<usize>> {
        let (n, Some(kv)) = (resident.tokens(), resident.kv()) else { return Ok(Vec::new()) };
        let old = n - self.recent.min(n);
        let mut scores = Vec::with_capacity(old.div_ceil(self.tokens));
        for start in (0..old).step_by(self.tokens) {
            let len = self.tokens.min(old - start);
            let page = representative(&kv.k.narrow(1, start, len)?)?;
            scores.push(query.score(&page, self.similarity));
        }
        let count = (scores.len() as f64 * self.share).ceil() as usize;
        let pages = top(&scores, count).into_iter();
        let rows = pages.flat_map(|p| p * self.tokens..((p + 1) * self.tokens).min(old));
        Ok(rows.chain(old..n).collect())
    }
}

impl Attend for PickPages<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let memory = self.view.memory;
        let query = MeanQuery::of(q, memory.geometry.kv_heads)?;
        let picked = match self.view.resident(layer) {
            Some(resident) => Some(resident.keep(&[self.picked(resident, &query)?])?),
            None => None,
        };
        let blocks: Vec<_> = self.view.candidates(layer).collect();
        let context = self.view.pack_beside(layer, picked.as_ref(), &blocks)?;
        let start = context.as_ref().map_or(0, |context| context.next);
        let out = memory.behind(layer, context.as_ref()).attend_fresh(start, q, k, v)?;
        self.contexts.push(context);
        Ok(out)
    }
}

/// The answer: prompt and generated tokens behind each layer's context. Grows a tail of its own
/// and writes nothing to the memory.
pub struct Answering<'a> {
    memory: &'a VideoMemory,
    contexts: &'a [Option<Context>],
    cancel: &'a Cancel,
    room: usize,
    own: Vec<Own>,
    /// Attention of the row that says the first answer token, summed over layers, by unit.
    mass: BTreeMap<u64, f64>,
}

impl<'a> Answering<'a> {
    /// `room`: tokens of the prompt and the longest answer.
    pub fn new(
        memory: &'a VideoMemory,
        contexts: &'a [Option<Context>],
        room: usize,
        cancel: &'a Cancel,
    ) -> Self {
        Self { memory, contexts, cancel, room, own: Vec::new(), mass: BTreeMap::new() }
    }

    /// How much the first answer token looked at each unit, summed over layers.
    pub fn into_mass(self) -> BTreeMap<u64, f64> {
        self.mass
    }

    /// Adds up where the last row of `q` (rotated) looks in the context.
    fn note_mass(&mut self, q: &Tensor, context: &Context) -> Result<()> {
        let last = q.narrow(1, q.dim(1)? - 1, 1)?.contiguous()?;
        let scale = self.memory.geometry.scale;
        for (head, units) in context.owners.iter().enumerate() {
            // One list of owners speaks for all heads, several for a KV head each.
            let (first, count) = match context.owners.len() {
                1 => (0, self.memory.geometry.kv_heads),
                _ => (head, 1),
            };
            let group = last.dim(0)? / self.memory.geometry.kv_heads;
            let q = last.narrow(0, first * group, count * group)?;
            let k = context.kv.k.narrow(0, first, count)?;
            let mass = attention::attention_mass(&q, &k, Visible::All, scale)?;
            let mut at = context.prefix;
            for &(unit, tokens) in units {
                let share: f32 = mass.iter().skip(at).take(tokens).sum();
                let share = share / context.owners.len() as f32;
                *self.mass.entry(unit).or_default() += f64::from(share);
                at += tokens;
            }
        }
        Ok(())
    }
}

impl Attend for Answering<'_> {
    fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        self.cancel.check()?;
        let geometry = &self.memory.geometry;
        let context = self.contexts[layer].as_ref();
        if self.own.len() == layer {
            let (kv_heads, dim) = (geometry.kv_heads, geometry.head_dim);
            self.own.push(Own {
                tail: Tail::new(kv_heads, self.room, dim, k.dtype(), k.device())?,
                next: context.map_or(0, |context| context.next),
            });
        }
        let n = q.dim(1)?;
        let here = Positions::run(self.own[layer].next, n);
        let rotated = self.memory.rope.rotate(q, &here)?;
        if let (0, Some(context)) = (self.own[layer].tail.tokens(), context) {
            self.note_mass(&rotated, context)?;
        }
        let own = &mut self.own[layer];
        own.tail.append(&self.memory.rope.rotate(k, &here)?, v)?;
        own.next += n;
        self.memory.behind(layer, context).attend(q, &rotated, &own.tail.view()?)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::memory::grains::Alone;
    use crate::memory::recipe::Recipe;
    use crate::memory::sparse::{self, IngestSparse, Sparse};
    use crate::memory::testing::random_tensor;
    use crate::memory::{Encoded, Geometry, Kind, Unit};

    /// One layer of a decoder that is nothing but its attention.
    fn memory(
        heads: usize,
        kv_heads: usize,
        dim: usize,
        unit: usize,
        recipe: &Recipe,
    ) -> VideoMemory {
        let geometry = Geometry {
            layers: 1,
            heads,
            kv_heads,
            head_dim: dim,
            unit_tokens: unit,
            scale: 1.0 / (dim as f64).sqrt(),
            dtype: DType::F32,
            device: Device::Cpu,
        };
        let rope = Rope::new(dim, 10_000.0, &Device::Cpu).unwrap();
        VideoMemory::new(geometry, rope.into(), recipe)
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
        let mut ingest = Ingest::new(memory, &cancel);
        let out = ingest.attend(0, q, k, v).unwrap();
        let (raw, rotated) = ingest.into_layers().remove(0);
        memory.seen += q.dim(1).unwrap();
        memory.layers[0].window.append(&rotated).unwrap();
        memory.layers[0].prefix = Some(raw);
        out.get(0).unwrap().to_vec2().unwrap()
    }

    fn ingest(memory: &mut VideoMemory, (q, k, v): &Rows) -> Vec<Vec<f32>> {
        let cancel = Cancel::new();
        let mut ingest = Ingest::new(memory, &cancel);
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
            patches: None,
            embedding: None,
        });
        let units = units.collect();
        let encoded: Encoded = memory.encoded(units, fresh).unwrap();
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
            let reps: Vec<f32> =
                memory.layers[0].blocks.iter().flat_map(|b| b.representative.clone()).collect();
            let expected =
                [0.4674, 0.81483, -0.72353, 0.5991, -0.71336, -0.61118, 0.48104, -0.80686];
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
        memory.answer_window = None;
        let cancel = Cancel::new();
        let view = View { memory: &memory, branch: None };
        let question = |rows: &[[f32; 2]; 3]| {
            Tensor::from_vec(rows.concat(), (1, 3, 2), &Device::Cpu).unwrap()
        };
        let q = question(&[[1.0, 0.5], [-0.5, 2.0], [0.2, 0.1]]);
        let k = question(&[[0.3, 0.1], [0.2, -0.4], [0.0, 1.0]]);
        let v = question(&[[100., 0.], [200., 0.], [300., 0.]]);

        let mut retrieve = Retrieve::new(
            view,
            vec![2],
            Choice { recent: 0, chunk: 1, spread: 0.0 },
            Similarity::Dot,
            &cancel,
        );
        let out = retrieve.attend(0, &q, &k, &v).unwrap();
        assert_close(&retrieve.scores[0], &[0.81525, 0.35039, -0.69614, -0.58704], "scores");
        let contexts = retrieve.contexts;
        let context = contexts[0].as_ref().unwrap();
        assert_eq!(context.owners, [[(0, 2), (1, 2)]]);
        assert_eq!(context.tokens(), 5);

        let mut answering = Answering::new(&memory, &contexts, 3, &cancel);
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
            for (a, b) in one.layers[0].blocks.iter().zip(&many.layers[0].blocks) {
                assert_eq!(a.representative, b.representative);
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
            let order = Tensor::new(
                [1u32, 2, 0].into_iter().chain(3..43).collect::<Vec<u32>>(),
                &Device::Cpu,
            );
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
        let view = View { memory: &memory, branch: None };
        let cancel = Cancel::new();
        let (q, k, v) = random_rows(11, 6);
        let mut retrieve = Retrieve::new(
            view,
            vec![3],
            Choice { recent: 1, chunk: 1, spread: 0.0 },
            Similarity::Dot,
            &cancel,
        );
        retrieve.attend(0, &q, &k, &v).unwrap();
        let contexts = retrieve.contexts;
        let mut at_once = Answering::new(&memory, &contexts, 6, &cancel);
        let whole: Vec<Vec<f32>> =
            at_once.attend(0, &q, &k, &v).unwrap().get(1).unwrap().to_vec2().unwrap();
        let mut pieces = Answering::new(&memory, &contexts, 6, &cancel);
        let mut found: Vec<Vec<f32>> = Vec::new();
        for (from, n) in [(0, 3), (3, 1), (4, 2)] {
            let (q, k, v) = rows(&(q.clone(), k.clone(), v.clone()), from, n);
            let out = pieces.attend(0, &q, &k, &v).unwrap();
            found.extend(out.get(1).unwrap().to_vec2::<f32>().unwrap());
        }
        for (i, (a, b)) in found.iter().zip(&whole).enumerate() {
            assert_close(a, b, &format!("row {i}"));
        }
        let mass: f64 = at_once.into_mass().values().sum();
        assert!(mass > 0.0 && mass <= 1.0 + 1e-6, "{mass}");
    }

    #[test]
    fn the_selection_is_the_budget_in_stream_order() {
        let all = random_rows(12, 43);
        let (memory, _) = run(&all, 4, 10);
        let view = View { memory: &memory, branch: None };
        let cancel = Cancel::new();
        let (q, k, v) = random_rows(13, 5);
        for count in [1, 3, 20, 50] {
            let mut retrieve = Retrieve::new(
                view,
                vec![count],
                Choice { recent: 0, chunk: 1, spread: 0.0 },
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
        let empty = [sparse::Layer::default()];
        let mut sparse = IngestSparse::new(&memory, rule, &empty, &[1; 20], &cancel);
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
            let mut alone = Alone::new(memory, 4, &cancel);
            let out = alone.attend(0, &rows.0, &rows.1, &rows.2).unwrap();
            let received = alone.into_layers().remove(0).received;
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
    fn a_raised_flag_stops_within_one_layer() {
        let cancel = Cancel::new();
        let memory = memory(4, 2, 4, 2, &rekv(10, false));
        let (q, k, v) = random_rows(14, 4);
        let mut ingest = Ingest::new(&memory, &cancel);
        assert!(ingest.attend(0, &q, &k, &v).is_ok());
        cancel.raise();
        let stopped = ingest.attend(0, &q, &k, &v);
        assert!(matches!(stopped, Err(crate::EngineError::Cancelled)));
    }
}
