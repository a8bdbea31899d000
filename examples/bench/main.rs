// SPDX-License-Identifier: MPL-2.0
//! What a model costs on this machine: time by stage, first token and tokens a second at growing
//! lengths of a stream, memory. Any checkpoint, or made-up weights of a published shape.
//!
//! ```text
//! cargo run --example bench -- --shape llava-onevision-0.5b --stored 16,32 --json before.json
//! cargo run --example bench -- --shape llava-onevision-0.5b --stored 16,32 --baseline before.json
//! cargo run --example bench -- --model hf:llava-hf/llava-onevision-qwen2-0.5b-ov-hf --dtype bf16
//! cargo run --example bench -- check models/toyworld tests/fixtures/ov-even
//! ```
//!
//! `check` compares a device with the CPU: see its own help.

mod check;
mod machine;
mod report;
mod shape;
mod speed;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use gststreamkvqa::memory::store::codec::Codec;
use gststreamkvqa::memory::store::{Budget, StoreOptions};
use gststreamkvqa::model::{DTypeChoice, DeviceChoice, HubOptions};
use gststreamkvqa::{LoadOptions, Recipe, StreamOptions, VideoLlm};

use report::Report;
use shape::Shape;

#[derive(Parser)]
#[command(
    about = "Print what a model costs in time and memory",
    args_conflicts_with_subcommands = true,
    args_override_self = true
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    speed: Speed,
}

#[derive(Subcommand)]
enum Command {
    /// Compare what a device computes with what the CPU computes in f32, for every method.
    Check(check::Args),
}

#[derive(clap::Args)]
struct Speed {
    /// Hugging Face folder of the model, or hf:owner/name.
    #[arg(long, conflicts_with = "shape")]
    model: Option<PathBuf>,
    /// Download hf:owner/name if it is not in the Hugging Face cache.
    #[arg(long)]
    allow_download: bool,
    /// Made-up weights of a published model's sizes, made on the device.
    #[arg(long, value_enum)]
    shape: Option<Shape>,
    /// Pixels of a side of the pictures of a LLaVA-OneVision shape: with fewer, a frame has fewer tokens and a
    /// long stream is soon there.
    #[arg(long, value_name = "N", requires = "shape")]
    image_size: Option<usize>,
    /// auto, f32, bf16, f16 or q8.
    #[arg(long, default_value = "auto")]
    dtype: DTypeChoice,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    #[arg(long, value_delimiter = ',', default_value = "rekv")]
    method: Vec<String>,
    /// Overrides an option of all methods that have it, e.g. `--set retrieve=16`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Tokens that a new token sees.
    #[arg(long)]
    window: Option<usize>,
    /// Number format of what is remembered: f32, f16, bf16, q8, q4 or q2.
    #[arg(long)]
    store: Option<Codec>,
    /// Bytes that the device may hold of a video, and the host.
    #[arg(long)]
    max_memory: Option<u64>,
    #[arg(long)]
    max_host_memory: Option<u64>,
    /// Frames that are handed over together.
    #[arg(long, default_value_t = 8)]
    chunk: usize,
    /// Frames that are in the stream when it is asked; it grows from one to the next.
    #[arg(long, value_delimiter = ',', default_value = "8")]
    stored: Vec<usize>,
    /// Runs of which the median is taken.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Frames a second.
    #[arg(long, default_value_t = 1.0)]
    fps: f64,
    /// Width and height of the frames.
    #[arg(long, value_delimiter = 'x', num_args = 1, default_value = "640x480")]
    frame_size: Vec<usize>,
    #[arg(long, default_value = "What happens in the video?")]
    question: String,
    /// Tokens of an answer.
    #[arg(long, default_value_t = 16)]
    tokens: usize,
    /// Compare one camera of N frames a second with N cameras of one.
    #[arg(long, value_name = "N")]
    cameras: Option<usize>,
    /// Keep a stream of each length, and take in frames and ask them in turn: what a long stream costs
    /// over a short one, whatever else the machine does.
    #[arg(long)]
    in_turn: bool,
    /// Let no method's stream grow for more than so many seconds.
    #[arg(long)]
    seconds: Option<f64>,
    /// Fail if loading takes more than so many times the memory of the weights (CPU only).
    #[arg(long)]
    load_limit: Option<f64>,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// An earlier file to compare with.
    #[arg(long)]
    baseline: Option<PathBuf>,
}

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.command {
        Some(Command::Check(args)) => check::run(&args),
        None => measure(&args.speed),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("bench: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Speed) -> Fallible<()> {
    let (&[width, height], true) = (args.frame_size.as_slice(), args.chunk * args.repeat > 0)
    else {
        return Err("--frame-size is WIDTHxHEIGHT, --chunk and --repeat are at least 1".into());
    };
    let mut report = Report::new(args.json.clone(), args.baseline.as_deref())?;
    let model = load(args, &mut report)?;
    let recipes = args.method.iter().map(|name| recipe(name, args, &model));
    let recipes: Vec<Recipe> = recipes.collect::<Fallible<_>>()?;
    let plan = speed::Plan {
        chunk: args.chunk,
        stored: args.stored.clone(),
        repeat: args.repeat,
        question: args.question.clone(),
        tokens: args.tokens,
        frame_size: (width, height),
        interval: 1.0 / args.fps,
        options: StreamOptions {
            store: StoreOptions {
                codec: args.store,
                budget: Budget { device: args.max_memory, host: args.max_host_memory, disk: None },
                ..StoreOptions::default()
            },
            sample_rate: Some(args.fps),
            ..StreamOptions::default()
        },
        limit: args.seconds.map(Duration::try_from_secs_f64).transpose()?,
        roofline: (machine::bandwidth(model.device())?, decoder_bytes(&model)),
    };
    report.row(("memory bandwidth", "", 0), &[plan.roofline.0 / 1e9], "GB/s");
    let working = machine::cpu_time();
    let began = Instant::now();
    let seeing = speed::stages(&model, &plan, &mut report)?;
    for recipe in &recipes {
        if args.in_turn {
            speed::in_turn(&model, recipe, &plan, &mut report)?;
            continue;
        }
        // One that fails is a note, and the others are measured all the same.
        if let Err(fault) = speed::method(&model, recipe, seeing, &plan, &mut report) {
            report.note(format!("{}: {fault}", recipe.name()));
        }
        if let Some(cameras) = args.cameras {
            speed::cameras(&model, recipe, (cameras, args.repeat), &plan, &mut report)?;
        }
    }
    let cores = (machine::cpu_time() - working) / began.elapsed().as_secs_f64();
    report.row(("cores kept busy", "", 0), &[cores], "cores");
    if let Some(peak) = machine::peak_memory() {
        report.row(("peak memory of the process", "", 0), &[peak as f64], "bytes");
    }
    report.write()?;
    if report.rows.iter().any(|row| row.what == "ingest" || args.in_turn) {
        return Ok(());
    }
    Err("nothing could be measured".into())
}

/// Loads the model, and says what that took.
fn load(args: &Speed, report: &mut Report) -> Fallible<VideoLlm> {
    let folder = tempfile::tempdir()?;
    let path = match (&args.model, args.shape) {
        (Some(path), _) => path.as_path(),
        (None, Some(shape)) => {
            shape.write(args.image_size, folder.path())?;
            folder.path()
        }
        (None, None) => return Err("one of --model and --shape is needed".into()),
    };
    let file = AtomicUsize::new(0);
    let options = LoadOptions {
        device: args.device,
        dtype: args.dtype,
        made_up: args.shape.map(|_| 1),
        // One line a file.
        progress: Some(Arc::new(move |at| {
            if file.swap(at.number, Ordering::Relaxed) != at.number {
                eprintln!("{:?} {} ({} of {})", at.step, at.file, at.number, at.files);
            }
        })),
        hub: HubOptions { download: args.allow_download, ..HubOptions::default() },
        ..LoadOptions::default()
    };
    let before = machine::peak_memory();
    let started = Instant::now();
    let model = VideoLlm::load(path, &options)?;
    model.device().synchronize()?;
    let loading = started.elapsed().as_secs_f64();
    if let Some(why) = model.device_fallback() {
        eprintln!("bench: {why}; the model runs on the CPU");
    }
    let weights = model.weight_bytes();
    let name = args.shape.and_then(|shape| shape.to_possible_value());
    let name = name.map(|name| format!("{}, made-up weights", name.get_name()));
    report.about("model", name.unwrap_or_else(|| path.display().to_string()));
    report.about("device", machine::device(model.device()));
    report.about("processor", machine::processor());
    report.about("weights in", model.weights_format());
    report.about("frames handed over together", args.chunk);
    if let Some(window) = args.window {
        report.about("window", format!("{window} tokens"));
    }
    report.row(("load", "", 0), &[loading], "s");
    report.row(("weights", "", 0), &[weights as f64], "bytes");
    if let (Some(before), Some(after), true) =
        (before, machine::peak_memory(), model.device().is_cpu())
    {
        let share = after.saturating_sub(before) as f64 / weights as f64;
        report.row(("peak of loading over the weights", "", 0), &[share], "times");
        if let Some(limit) = args.load_limit.filter(|limit| share >= *limit) {
            return Err(format!(
                "loading took {share:.2} times the memory of the weights, which is \
                                not below {limit}"
            )
            .into());
        }
    }
    Ok(model)
}

/// A method as the model's folder recommends it, with the options that were asked for and that it has.
fn recipe(name: &str, args: &Speed, model: &VideoLlm) -> Fallible<Recipe> {
    let mut recipe = Recipe::for_model(name, model)?;
    let window = args.window.map(|window| ("window", window.to_string()));
    let mut wanted: Vec<(&str, String)> = window.into_iter().collect();
    for pair in &args.set {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("--set {pair}: expected KEY=VALUE"))?;
        wanted.push((key, value.into()));
    }
    for (key, value) in wanted {
        let has = recipe.options().iter().any(|option| option.name == key);
        if has || args.method.len() == 1 {
            recipe.set(key, &value)?;
        }
    }
    Ok(recipe)
}

/// Bytes of the weights that a token reads: those of the layers, and the head's.
fn decoder_bytes(model: &VideoLlm) -> f64 {
    let decoder = model.decoder();
    let hidden = decoder.hidden_size();
    let kv = decoder.kv_heads() * decoder.head_dim();
    let attention = 2 * hidden * hidden + 2 * hidden * kv;
    let layers = decoder.layers() * (attention + 3 * hidden * decoder.inner_size());
    let head = hidden * decoder.vocab_size();
    let bytes = match model.weights_format() {
        "q8" => 1,
        _ => model.weights_dtype().size_in_bytes(),
    };
    ((layers + head) * bytes) as f64
}
