// SPDX-License-Identifier: MPL-2.0
//! Measures how well methods answer: fresh test-seed videos of the toy world, questions with known
//! answers, the Rust engine from pixels to text. Prints a table and writes JSON.
//!
//! ```text
//! cargo run --example evaluate -- --methods full,rekv,streamkv,sliding-window --frames 32,64,128
//! ```

mod bench;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use gststreamkvqa::{LoadOptions, VideoLlm};
use toyworld::{Kind, seeds};

use crate::bench::{Cell, Plan, Work};

#[derive(Parser)]
#[command(about = "Answer questions about fresh toy-world videos with each method and count")]
struct Args {
    /// Hugging Face directory of the model.
    #[arg(long, default_value = "models/toyworld")]
    model: PathBuf,
    /// Methods, each optionally with options: `rekv:recent=4+chunk=2`. `blind` asks without video.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "full,streamkv,rekv:recent=4,sliding-window"
    )]
    methods: Vec<String>,
    /// Lengths of the videos in frames (one a second).
    #[arg(long, value_delimiter = ',', default_value = "32,64,128")]
    frames: Vec<usize>,
    /// Frames' worth of context that an answer may look at, per layer.
    #[arg(long, value_delimiter = ',', default_value = "16")]
    budgets: Vec<usize>,
    /// Videos per length.
    #[arg(long, default_value_t = 100)]
    streams: u64,
    /// Questions of each kind per video; fewer where a video has fewer.
    #[arg(long, default_value_t = 2)]
    per_kind: usize,
    /// Only these kinds of question; default: all.
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    kinds: Vec<Kind>,
    /// Ask after the last frame, or after random frames.
    #[arg(long, value_enum, default_value = "end")]
    when: When,
    /// Use the colour-shape combinations that training never showed.
    #[arg(long)]
    held_out: bool,
    /// Use the wordings that training never read.
    #[arg(long)]
    held_out_wording: bool,
    /// Which seeds: `test` for published numbers, `validation` to choose by.
    #[arg(long, value_enum, default_value = "test")]
    split: Split,
    /// First seed within the split.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the JSON goes.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Videos evaluated at the same time; default: one per core.
    #[arg(long)]
    jobs: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum When {
    End,
    Anytime,
}

#[derive(Clone, Copy, ValueEnum)]
enum Split {
    Validation,
    Test,
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        format!("known kinds: {}", known.join(", "))
    })
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evaluate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let model = VideoLlm::load(&args.model, &LoadOptions::default())?;
    let work = Work {
        streams: args.streams,
        first_seed: args.seed
            + match args.split {
                Split::Validation => seeds::VALIDATION.start,
                Split::Test => seeds::TEST.start,
            },
        per_kind: args.per_kind,
        kinds: args.kinds.clone(),
        when: match args.when {
            When::End => toyworld::When::End,
            When::Anytime => toyworld::When::Anytime,
        },
        held_out: args.held_out,
        wording: if args.held_out_wording {
            toyworld::Wording::HeldOut
        } else {
            toyworld::Wording::Trained
        },
        jobs: args
            .jobs
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
    };
    let mut cells: Vec<Cell> = Vec::new();
    for &frames in &args.frames {
        for &budget in &args.budgets {
            for method in &args.methods {
                let plan = Plan::parse(method, &model, frames, budget)?;
                cells.push(bench::evaluate(&model, &plan, &work)?);
                eprintln!("{}", report::line(cells.last().into_iter()));
            }
        }
    }
    println!("{}", report::table(&cells));
    if let Some(path) = &args.out {
        let report = report::Report::new(&args.model, &work, &cells);
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    }
    Ok(())
}
