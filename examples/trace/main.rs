// SPDX-License-Identifier: MPL-2.0
//! A window into the engine, for anyone who wants to compare it with another implementation: runs
//! frames and questions through a method and writes down what each layer kept and retrieved.
//!
//! ```text
//! cargo run --example trace -- --model models/toyworld --frames frames.safetensors \
//!     --questions questions.json --method auto --set retrieve=16 --out trace.json
//! ```

mod input;
mod output;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use gststreamkvqa::memory::store::codec::Codec;
use gststreamkvqa::memory::store::{Budget, StoreOptions};
use gststreamkvqa::model::prompt::PromptStyle;
use gststreamkvqa::model::{DeviceChoice, HubOptions, LoadStep};
use gststreamkvqa::{Answer, LoadOptions, Question, Recipe, Stream, StreamOptions, VideoLlm};
use indicatif::{ProgressBar, ProgressStyle};

use input::{frames_per_second, read_frames, read_questions};

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
    #[arg(long, default_value_t = 1.0, value_parser = frames_per_second)]
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
            share: None,
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
    let trace = output::Trace {
        model: args.model.display().to_string(),
        method: args.method.clone(),
        options,
        questions: questions.iter().zip(&answers).map(output::question).collect(),
        stream: output::stream(&stream, &answers),
    };
    trace.write(&args.out)?;
    if let Some(path) = &args.logits {
        output::write_logits(path, &answers)?;
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
