// SPDX-License-Identifier: MPL-2.0
//! What `trace` writes down.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use gststreamkvqa::memory::unit::{Kind, Unit};
use gststreamkvqa::{Answer, Stream};
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use super::Fallible;
use super::input::Asked;

#[derive(Serialize)]
pub struct Trace {
    pub model: String,
    pub method: String,
    pub options: Vec<(String, String)>,
    pub questions: Vec<QuestionTrace>,
    pub stream: StreamTrace,
}

impl Trace {
    pub fn write(&self, path: &Path) -> Fallible<()> {
        write(path, serde_json::to_string_pretty(self)?.as_bytes())
    }
}

#[derive(Serialize)]
pub struct QuestionTrace {
    question: String,
    after_frame: i64,
    answer: String,
    ids: Vec<u32>,
    finish: &'static str,
    layers: Vec<LayerTrace>,
    /// Units of the segment that was open then, as the answer saw them.
    open_units: Vec<UnitTrace>,
    evidence: Vec<EvidenceTrace>,
    milliseconds: TimingTrace,
}

#[derive(Serialize)]
struct LayerTrace {
    retrieved: Vec<u64>,
    context_tokens: usize,
}

#[derive(Serialize)]
struct EvidenceTrace {
    start: f64,
    end: f64,
    score: f64,
}

#[derive(Serialize)]
struct TimingTrace {
    branch: f64,
    retrieve: f64,
    prefill: f64,
    decode: f64,
    first_token: f64,
}

#[derive(Serialize)]
pub struct StreamTrace {
    frames: u64,
    /// Every unit that some layer holds, and behind them those that answers saw and that were
    /// never stored because their segment was still open.
    units: Vec<UnitTrace>,
    segments: Vec<SegmentTrace>,
    layers: Vec<HeldTrace>,
    /// Frames in the segment that was still open at the end.
    open_frames: u64,
    bytes: BytesTrace,
}

#[derive(Serialize)]
struct UnitTrace {
    id: u64,
    kind: &'static str,
    segment: u64,
    /// First frame and the one behind the last.
    frames: [u64; 2],
    start: f64,
    end: f64,
    /// Whether it is none of what the memory holds.
    open: bool,
}

#[derive(Serialize)]
struct SegmentTrace {
    id: u64,
    frames: [u64; 2],
}

#[derive(Serialize)]
struct HeldTrace {
    /// Ids of the units kept.
    units: Vec<u64>,
    /// Frames that those of them stand for which are frames.
    frames: Vec<[u64; 2]>,
}

#[derive(Serialize)]
struct BytesTrace {
    device: u64,
    host: u64,
    disk: u64,
}

fn write(path: &Path, bytes: &[u8]) -> Fallible<()> {
    fs::write(path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()).into())
}

pub fn question((asked, answer): (&Asked, &Answer)) -> QuestionTrace {
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let timings = &answer.timings;
    QuestionTrace {
        question: asked.question.clone(),
        after_frame: asked.after_frame,
        answer: answer.text.clone(),
        ids: answer.ids.clone(),
        finish: answer.finish.name(),
        layers: answer
            .layers
            .iter()
            .map(|layer| LayerTrace {
                retrieved: layer.retrieved.clone(),
                context_tokens: layer.context_tokens,
            })
            .collect(),
        open_units: answer.open_units.iter().map(|unit| unit_trace(unit, true)).collect(),
        evidence: answer
            .evidence
            .iter()
            .map(|e| EvidenceTrace { start: e.start, end: e.end, score: e.score })
            .collect(),
        milliseconds: TimingTrace {
            branch: ms(timings.branch),
            retrieve: ms(timings.retrieve),
            prefill: ms(timings.prefill),
            decode: ms(timings.decode),
            first_token: ms(timings.first_token),
        },
    }
}

/// The stream as it is in the end, after these answers.
pub fn stream(stream: &Stream, answers: &[Answer]) -> StreamTrace {
    let memory = stream.memory();
    let units: HashMap<u64, &Unit> = memory.units().map(|unit| (unit.id, unit)).collect();
    let stats = stream.stats();
    let layers = (0..stream.model().decoder().layers()).map(|layer| {
        let held = memory.held().units(layer);
        let frames = held.iter().filter_map(|id| units.get(id));
        let frames = frames.filter(|unit| unit.kind == Kind::Frame);
        HeldTrace {
            frames: frames.map(|unit| [unit.frames.start, unit.frames.end]).collect(),
            units: held,
        }
    });
    let mut listed: Vec<UnitTrace> = memory.units().map(|unit| unit_trace(unit, false)).collect();
    for unit in answers.iter().flat_map(|answer| &answer.open_units) {
        if !listed.iter().any(|known| known.id == unit.id) {
            listed.push(unit_trace(unit, true));
        }
    }
    StreamTrace {
        frames: stats.frames,
        segments: segments(memory.units()),
        layers: layers.collect(),
        units: listed,
        open_frames: stats.open_frames,
        bytes: BytesTrace {
            device: stats.store.device,
            host: stats.store.host,
            disk: stats.store.disk,
        },
    }
}

fn segments<'a>(units: impl Iterator<Item = &'a Unit>) -> Vec<SegmentTrace> {
    let mut segments: Vec<SegmentTrace> = Vec::new();
    for unit in units {
        match segments.last_mut() {
            Some(last) if last.id == unit.segment => {
                last.frames[1] = last.frames[1].max(unit.frames.end);
            }
            _ => segments.push(SegmentTrace {
                id: unit.segment,
                frames: [unit.frames.start, unit.frames.end],
            }),
        }
    }
    segments
}

fn unit_trace(unit: &Unit, open: bool) -> UnitTrace {
    UnitTrace {
        id: unit.id,
        kind: match unit.kind {
            Kind::Frame => "frame",
            Kind::Summary => "summary",
            Kind::Piece { .. } => "piece",
        },
        segment: unit.segment,
        frames: [unit.frames.start, unit.frames.end],
        start: unit.start,
        end: unit.end,
        open,
    }
}

pub fn write_logits(path: &Path, answers: &[Answer]) -> Fallible<()> {
    let bytes: Vec<(String, usize, Vec<u8>)> = answers
        .iter()
        .enumerate()
        .map(|(i, answer)| {
            let logits = answer.first_logits.as_deref().unwrap_or_default();
            let bytes = logits.iter().flat_map(|l| l.to_le_bytes()).collect();
            (format!("q{i}"), logits.len(), bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, len, bytes)| {
        Ok((name.as_str(), TensorView::new(Dtype::F32, vec![*len], bytes)?))
    });
    let views: Vec<_> = views.collect::<Result<_, safetensors::SafeTensorError>>()?;
    write(path, &safetensors::serialize(views, None)?)
}
