// SPDX-License-Identifier: MPL-2.0
//! What a model of any size costs on this machine: loads it, shows it a clip, asks a question, and
//! prints time and memory. Fails if loading took more than 1.3 times the memory of the weights.
//!
//! ```text
//! cargo run --example measure -- --model hf:llava-hf/llava-onevision-qwen2-0.5b-ov-hf --dtype bf16
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use gststreamkvqa::model::{DTypeChoice, DeviceChoice, HubOptions};
use gststreamkvqa::{EngineError, Frame, LoadOptions, Question, Recipe, Stream, VideoLlm};

#[derive(Parser)]
#[command(about = "Print what a model costs in time and memory")]
struct Args {
    /// Hugging Face folder of the model, or hf:owner/name.
    #[arg(long)]
    model: PathBuf,
    /// Download hf:owner/name if it is not in the Hugging Face cache.
    #[arg(long)]
    allow_download: bool,
    #[arg(long, value_enum, default_value = "auto")]
    dtype: Format,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Frames of the clip, 640x480, one a second.
    #[arg(long, default_value_t = 8)]
    frames: usize,
    #[arg(long, default_value = "full")]
    method: String,
    #[arg(long, default_value = "What happens in the video?")]
    question: String,
    #[arg(long, default_value_t = 16)]
    max_tokens: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Auto,
    F32,
    Bf16,
    F16,
}

/// The most memory that loading may take, in sizes of the weights.
const LIMIT: f64 = 1.3;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let before = peak_memory();
    let started = Instant::now();
    let model = VideoLlm::load(&args.model, &load_options(&args))?;
    let loading = started.elapsed();
    if let Some(why) = model.device_fallback() {
        eprintln!("{why}; the model runs on the CPU");
    }
    let weights = model.weight_bytes();
    let loaded = peak_memory();
    println!("model               {}", args.model.display());
    println!("weights             {} in {:?}", gigabytes(weights), model.weights_dtype());
    println!("load                {:.1} s", loading.as_secs_f64());
    let mut within = true;
    if let (Some(before), Some(loaded)) = (before, loaded) {
        let share = (loaded - before) as f64 / weights as f64;
        within = share < LIMIT || !model.device().is_cpu();
        println!("peak after loading  {}, {share:.2} of the weights", gigabytes(loaded));
    }

    let frames = clip(args.frames)?;
    let first = frames.first().ok_or("--frames must be at least 1")?;
    let (tokens, together) = (model.picture(first)?.tokens(), model.frames_per_unit());
    println!("frames              {}, {tokens} tokens for every {together}", frames.len());
    let mut stream = Stream::new(model.clone(), Recipe::for_model(&args.method, &model)?)?;
    let (started, working) = (Instant::now(), cpu_time());
    stream.push_frames(&frames)?;
    stream.flush()?;
    let count = frames.len() as f64;
    let per_frame = started.elapsed().as_secs_f64() / count;
    let cores = (cpu_time() - working) / count;
    println!("per frame           {per_frame:.2} s, {cores:.2} s of all cores together");
    // Asking changes nothing, so the same question with one token is what the rest comes on top of.
    let ask = |max_tokens| {
        let working = cpu_time();
        let question = Question::new(args.question.as_str()).max_tokens(max_tokens);
        let answer = stream.ask(&question, |_| ())?;
        Ok::<_, EngineError>((answer, cpu_time() - working))
    };
    let (_, first) = ask(1)?;
    let (answer, all) = ask(args.max_tokens)?;
    let more = (answer.ids.len().max(2) - 1) as f64;
    let per_token = answer.timings.decode.as_secs_f64() / more;
    let cores = (all - first) / more;
    println!("first token         {:.2} s", answer.timings.first_token.as_secs_f64());
    println!("per token           {per_token:.3} s, {cores:.3} s of all cores together");
    println!("memory of the video {}", gigabytes(stream.stats().bytes));
    if let Some(peak) = peak_memory() {
        println!(
            "peak after all      {}, {:.2} of the weights",
            gigabytes(peak),
            peak as f64 / weights as f64
        );
    }
    println!("answer              {:?}, {} tokens", answer.text, answer.ids.len());
    if !within {
        return Err(
            format!("loading took more than {LIMIT} times the memory of the weights").into()
        );
    }
    Ok(())
}

fn clip(frames: usize) -> Result<Vec<Frame>, EngineError> {
    const SIZE: (usize, usize) = (640, 480);
    let options = toyworld::StreamOptions { frames, ..Default::default() };
    let clip = toyworld::Stream::generate(1, &options);
    let frame = |i| Frame::new(clip.frame(i, SIZE.0, SIZE.1), SIZE.0, SIZE.1, i as f64);
    (0..frames).map(frame).collect()
}

fn load_options(args: &Args) -> LoadOptions {
    // One line a file.
    let file = AtomicUsize::new(0);
    LoadOptions {
        device: args.device,
        dtype: match args.dtype {
            Format::Auto => DTypeChoice::Auto,
            Format::F32 => DTypeChoice::F32,
            Format::Bf16 => DTypeChoice::Bf16,
            Format::F16 => DTypeChoice::F16,
        },
        progress: Some(Arc::new(move |at| {
            if file.swap(at.number, Ordering::Relaxed) != at.number {
                eprintln!("{:?} {} ({} of {})", at.step, at.file, at.number, at.files);
            }
        })),
        hub: HubOptions { download: args.allow_download, ..HubOptions::default() },
        ..LoadOptions::default()
    }
}

/// Seconds that all threads of this process have computed so far; 0 where there is no `/proc`.
fn cpu_time() -> f64 {
    /// Linux reports in hundredths of a second, whatever the kernel counts in.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name before the closing bracket may hold blanks; user and system time are fields 14, 15.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS
}

/// The most memory this process has held so far (`VmHWM`); Linux only.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.3} GB", bytes as f64 / 1e9)
}
