// SPDX-License-Identifier: MPL-2.0
//! A window into the engine, for anyone who wants to compare it with another implementation: runs
//! frames and questions through a method and writes down what each layer kept and retrieved.
//!
//! ```text
//! cargo run --example trace -- --model models/toyworld --frames frames.safetensors \
//!     --questions questions.json --method auto --set retrieve=16 --out trace.json
//! ```

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use gststreamkvqa::memory::store::codec::Codec;
use gststreamkvqa::memory::store::{Budget, StoreOptions};
use gststreamkvqa::memory::unit::{Kind, Unit};
use gststreamkvqa::model::prompt::PromptStyle;
use gststreamkvqa::model::{DeviceChoice, HubOptions, LoadStep};
use gststreamkvqa::{
    Answer, Frame, LoadOptions, Question, Recipe, Stream, StreamOptions, VideoLlm,
};
use indicatif::{ProgressBar, ProgressStyle};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

#[derive(Parser)]
#[command(about = "Run frames and questions through the engine and write down what it did")]
struct Args {
    /// Hugging Face directory of the model, or hf:owner/name for one in the Hugging Face cache.
    #[arg(long)]
    model: PathBuf,
    /// Download hf:owner/name if it is not in the cache.
    #[arg(long)]
    allow_download: bool,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Safetensors file with `frames` u8 [n, h, w, 3] and optionally `times` f64 [n], in seconds.
    #[arg(long)]
    frames: PathBuf,
    /// Frames per second where the file has no `times`.
    #[arg(long, default_value_t = 1.0)]
    fps: f64,
    /// JSON list of {"question": str, "after_frame": int (-1: all), "max_tokens": int}.
    #[arg(long)]
    questions: PathBuf,
    #[arg(long, default_value = "auto")]
    method: String,
    /// Overrides a method option, e.g. `--set retrieve=16`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Ignore what the model's folder recommends and start from the published defaults.
    #[arg(long)]
    published: bool,
    /// Stock Hugging Face prompting, or the separately tokenised pieces of ReKV and StreamKV.
    #[arg(long, value_enum, default_value = "hf")]
    prompt_style: Style,
    #[arg(long)]
    system_prompt: Option<String>,
    /// Place the question as transformers 5 does: behind the first picture (Qwen2.5-VL).
    #[arg(long)]
    mrope_compat: bool,
    /// Number format of what is remembered: f32, f16, bf16, q8, q4 or q2; default: as the element's
    /// `store=auto`.
    #[arg(long)]
    store: Option<Codec>,
    /// Newest tokens of each layer that a coarser format leaves alone.
    #[arg(long, default_value_t = StoreOptions::DEFAULT_RESIDUAL)]
    store_residual: usize,
    /// Bytes that each tier may hold.
    #[arg(long)]
    max_memory: Option<u64>,
    #[arg(long)]
    max_host_memory: Option<u64>,
    #[arg(long, requires = "disk_path")]
    max_disk: Option<u64>,
    /// Folder for segment files.
    #[arg(long)]
    disk_path: Option<PathBuf>,
    /// Where the JSON goes.
    #[arg(long)]
    out: PathBuf,
    /// Where the logits of each answer's first token go: `q{i}` f32 [vocab].
    #[arg(long)]
    logits: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Style {
    Hf,
    Rekv,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    question: String,
    #[serde(default = "all_frames")]
    after_frame: i64,
    #[serde(default = "default_max_tokens")]
    max_tokens: usize,
}

fn all_frames() -> i64 {
    -1
}

fn default_max_tokens() -> usize {
    Question::DEFAULT_MAX_TOKENS
}

#[derive(Serialize)]
struct Trace {
    model: String,
    method: String,
    options: Vec<(String, String)>,
    questions: Vec<QuestionTrace>,
    stream: StreamTrace,
}

#[derive(Serialize)]
struct QuestionTrace {
    question: String,
    after_frame: i64,
    answer: String,
    ids: Vec<u32>,
    finish: &'static str,
    layers: Vec<LayerTrace>,
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
struct StreamTrace {
    frames: u64,
    /// Every unit that some layer holds.
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

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trace: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Fallible<()> {
    let frames = read_frames(&args.frames, args.fps)?;
    let questions = read_questions(&args.questions, frames.len())?;
    let model = VideoLlm::load(&args.model, &load_options(args))?;
    if let Some(why) = model.device_fallback() {
        eprintln!("trace: {why}; the model runs on the CPU");
    }
    let recipe = recipe(args, &model)?;
    let options = recipe.options().into_iter().map(|o| (o.name.to_string(), o.value)).collect();
    let stream_options = StreamOptions {
        system_prompt: args.system_prompt.clone(),
        prompt_style: match args.prompt_style {
            Style::Hf => PromptStyle::Hf,
            Style::Rekv => PromptStyle::Rekv,
        },
        mrope_compat: args.mrope_compat,
        store: StoreOptions {
            codec: args.store,
            residual: args.store_residual,
            budget: Budget {
                device: args.max_memory,
                host: args.max_host_memory,
                disk: args.max_disk,
            },
            disk_path: args.disk_path.clone(),
        },
        ..StreamOptions::default()
    };
    let mut stream = Stream::open(model, recipe, stream_options)?;
    let mut answers: Vec<Option<Answer>> = questions.iter().map(|_| None).collect();
    let bar = progress(frames.len() as u64, "frames");
    for (index, frame) in frames.iter().enumerate() {
        stream.push(frame)?;
        bar.inc(1);
        for (asked, answer) in questions.iter().zip(&mut answers) {
            if usize::try_from(asked.after_frame).unwrap_or(frames.len() - 1) == index {
                let question = Question::new(asked.question.as_str()).max_tokens(asked.max_tokens);
                let question = Question { keep_logits: args.logits.is_some(), ..question };
                *answer = Some(stream.ask(&question, |_| {})?);
            }
        }
    }
    bar.finish_and_clear();
    for warning in stream.take_warnings() {
        eprintln!("trace: {warning}");
    }
    let answers: Vec<Answer> = answers.into_iter().flatten().collect();
    let trace = Trace {
        model: args.model.display().to_string(),
        method: args.method.clone(),
        options,
        questions: questions.iter().zip(&answers).map(question_trace).collect(),
        stream: stream_trace(&stream),
    };
    write(&args.out, serde_json::to_string_pretty(&trace)?.as_bytes())?;
    if let Some(path) = &args.logits {
        write_logits(path, &answers)?;
    }
    Ok(())
}

fn recipe(args: &Args, model: &VideoLlm) -> Fallible<Recipe> {
    let mut recipe = if args.published {
        Recipe::named(&args.method)?
    } else {
        Recipe::for_model(&args.method, model)?
    };
    for pair in &args.set {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("--set {pair}: expected KEY=VALUE"))?;
        recipe.set(key.trim(), value)?;
    }
    Ok(recipe)
}

fn load_options(args: &Args) -> LoadOptions {
    let bar = progress(0, "bytes of the model");
    LoadOptions {
        progress: Some(Arc::new(move |at| {
            bar.set_length(at.total);
            bar.set_position(at.done);
            if at.step == LoadStep::Read && at.done >= at.total {
                bar.finish_and_clear();
            }
        })),
        hub: HubOptions { download: args.allow_download, ..HubOptions::default() },
        device: args.device,
        ..LoadOptions::default()
    }
}

fn progress(length: u64, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar.with_message(what.to_owned())
}

fn read(path: &Path) -> Fallible<Vec<u8>> {
    fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()).into())
}

fn write(path: &Path, bytes: &[u8]) -> Fallible<()> {
    fs::write(path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()).into())
}

fn read_frames(path: &Path, fps: f64) -> Fallible<Vec<Frame>> {
    let fault = |reason: String| format!("{}: {reason}", path.display());
    let bytes = read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| fault(e.to_string()))?;
    let frames = file.tensor("frames").map_err(|_| fault("no tensor `frames`".into()))?;
    let &[n, height, width, 3] = frames.shape() else {
        return Err(fault(format!("`frames` is {:?}, not [n, h, w, 3]", frames.shape())).into());
    };
    if frames.dtype() != Dtype::U8 {
        return Err(fault(format!("`frames` is {:?}, not u8", frames.dtype())).into());
    }
    if n == 0 || width * height == 0 {
        return Err(fault("`frames` is empty".into()).into());
    }
    let times = match file.tensor("times") {
        Ok(times) => read_times(&times, n).map_err(fault)?,
        Err(_) => (0..n).map(|i| i as f64 / fps).collect(),
    };
    let pictures = frames.data().chunks_exact(height * width * 3);
    let frames =
        pictures.zip(times).map(|(rgb, time)| Frame::new(rgb.to_vec(), width, height, time));
    Ok(frames.collect::<Result<_, _>>()?)
}

fn read_times(times: &TensorView<'_>, n: usize) -> Result<Vec<f64>, String> {
    if times.dtype() != Dtype::F64 || times.shape() != [n] {
        return Err(format!("`times` is {:?} {:?}, not F64 [{n}]", times.dtype(), times.shape()));
    }
    let eight = |bytes: &[u8]| bytes.try_into().map(f64::from_le_bytes).unwrap_or(f64::NAN);
    Ok(times.data().chunks_exact(8).map(eight).collect())
}

fn read_questions(path: &Path, frames: usize) -> Fallible<Vec<Asked>> {
    let questions: Vec<Asked> =
        serde_json::from_slice(&read(path)?).map_err(|e| format!("{}: {e}", path.display()))?;
    for asked in &questions {
        let in_range = asked.after_frame == -1
            || usize::try_from(asked.after_frame).is_ok_and(|frame| frame < frames);
        if !in_range {
            return Err(format!(
                "{}: \"after_frame\": {} of `{}` is neither -1 nor one of the {frames} frames",
                path.display(),
                asked.after_frame,
                asked.question
            )
            .into());
        }
    }
    Ok(questions)
}

fn question_trace((asked, answer): (&Asked, &Answer)) -> QuestionTrace {
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

fn stream_trace(stream: &Stream) -> StreamTrace {
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
    StreamTrace {
        frames: stats.frames,
        segments: segments(memory.units()),
        layers: layers.collect(),
        units: memory.units().map(unit_trace).collect(),
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

fn unit_trace(unit: &Unit) -> UnitTrace {
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
    }
}

fn write_logits(path: &Path, answers: &[Answer]) -> Fallible<()> {
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
