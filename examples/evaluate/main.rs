// SPDX-License-Identifier: MPL-2.0
//! Measures how well methods answer: fresh test-seed videos of a seeded world, questions with known
//! answers, the Rust engine from pixels to text. Prints a table and writes JSON.
//!
//! ```text
//! cargo run --example evaluate -- --methods auto,full,rekv,sliding-window --frames 32,64,128
//! cargo run --example evaluate -- --world everyday --model models/everyday --methods full --frames 64
//! ```

mod bench;
mod goals;
mod plan;
mod plot;
mod report;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use gststreamkvqa::model::DTypeChoice;
use gststreamkvqa::{EngineError, LoadOptions, Recipe, VideoLlm};

use crate::bench::Work;
use crate::plan::Plan;
use crate::report::Report;
use crate::world::{Name, World};

#[derive(Parser)]
#[command(about = "Answer questions about fresh videos with each method and count")]
struct Args {
    /// Hugging Face directory of the model.
    #[arg(long, default_value = "models/toyworld")]
    model: PathBuf,
    /// What the videos show.
    #[arg(long, value_enum, default_value = "toyworld")]
    world: Name,
    /// The drawings of the everyday world, from tools/everyday/atlas.sh.
    #[arg(long)]
    atlas: Option<PathBuf>,
    /// Whose drawings of the everyday world; default: those that training shows.
    #[arg(long, value_delimiter = ',', value_parser = style)]
    styles: Vec<everyday::Style>,
    /// Number format of the weights: auto, f32, bf16, f16 or q8.
    #[arg(long, default_value = "auto")]
    dtype: DTypeChoice,
    /// Methods as published, each optionally with options: `rekv:recent=4+chunk=2`; `rekv+recent`
    /// takes the value that the model's folder recommends. `blind` asks without video, `oracle` sees the frames
    /// that hold the answer and no others, `all` stands for
    /// every method there is, as published and, where the folder makes it another, as recommended.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "auto,full,streamkv,rekv:recent=4,sliding-window"
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
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<String>,
    /// Ask after the last frame, or after random frames.
    #[arg(long, value_enum, default_value = "end")]
    when: When,
    /// Show what training never showed: pairs of colour and shape, or things in a scenery.
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
    /// Where the JSON goes, after every cell.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on from the cells that `--out` already holds.
    #[arg(long, requires = "out")]
    resume: bool,
    /// A page whose section `<!-- compare -->`, or of any other model than toyworld's
    /// `<!-- compare-NAME -->` with its folder's name, takes the tables.
    #[arg(long)]
    page: Option<PathBuf>,
    /// A folder for `accuracy-over-length.svg` and `accuracy-over-bytes.svg`, with the name behind as in
    /// the page.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// The budget and the length that tables and pictures compare at.
    #[arg(long, default_value_t = 16)]
    at_budget: usize,
    #[arg(long, default_value_t = 256)]
    at_frames: usize,
    /// Print, too, how well is answered by how long ago what is asked about was last seen.
    #[arg(long)]
    by_age: bool,
    /// Measure nothing, and say how far `auto` has come in these reports: files of `--out`, with `@UNITS`
    /// behind one whose model takes so many units for 16 frames. With `--page` into its section
    /// `<!-- goals -->`.
    #[arg(long, value_delimiter = ',')]
    goals: Vec<goals::Source>,
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

fn style(name: &str) -> Result<everyday::Style, String> {
    let found = everyday::Style::ALL.iter().copied().find(|style| style.word() == name);
    found.ok_or_else(|| format!("known styles: {}", everyday::Style::WORDS.join(", ")))
}

/// Kinds that this world has no question of are refused.
fn check_kinds(world: Name, kinds: &[String]) -> Result<(), String> {
    let known = world.kinds();
    match kinds.iter().find(|kind| !known.contains(&kind.as_str())) {
        Some(kind) => Err(format!("no kind `{kind}`; known kinds: {}", known.join(", "))),
        None => Ok(()),
    }
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

/// The methods asked for, `all` spelled out.
fn methods(asked: &[String], model: &VideoLlm) -> Result<Vec<String>, EngineError> {
    let mut methods = Vec::new();
    for name in asked {
        if name != "all" {
            methods.push(name.clone());
            continue;
        }
        for name in Recipe::names() {
            // Whoever names it is told the same and gets no table.
            if let Err(why) = Recipe::published_for(name, model)?.outside_expert() {
                eprintln!("{name} is left out: {why}");
                continue;
            }
            methods.push((*name).to_owned());
            let added = Recipe::added_by(name, model)?;
            if !added.is_empty() {
                methods.push(format!("{name}+{}", added.join("+")));
            }
        }
    }
    Ok(methods)
}

/// A section or a picture of a model, by its folder's name; the first model's have plain names.
fn of_model(name: &str, folder: &Path) -> String {
    match folder.file_name().and_then(std::ffi::OsStr::to_str) {
        Some("toyworld") | None => name.into(),
        Some(model) => format!("{name}-{model}"),
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    if !args.goals.is_empty() {
        let tables = goals::tables(&args.goals)?;
        if let Some(page) = &args.page {
            report::replace_section(page, "goals", &tables)?;
        }
        println!("{tables}");
        return Ok(());
    }
    check_kinds(args.world, &args.kinds)?;
    let world = World::open(args.world, args.atlas.clone(), args.styles.clone())?;
    let model =
        VideoLlm::load(&args.model, &LoadOptions { dtype: args.dtype, ..LoadOptions::default() })?;
    let work = Work {
        streams: args.streams,
        first_seed: args.seed
            + match args.split {
                Split::Validation => everyday::seeds::VALIDATION.start,
                Split::Test => everyday::seeds::TEST.start,
            },
        per_kind: args.per_kind,
        kinds: args.kinds.clone(),
        at_end: matches!(args.when, When::End),
        held_out: args.held_out,
        held_out_wording: args.held_out_wording,
        jobs: args
            .jobs
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
    };
    let mut report = Report::new(args.world, &args.model, &work);
    if let (true, Some(path)) = (args.resume, &args.out) {
        report.resume(path)?;
    }
    let methods = methods(&args.methods, &model)?;
    for &frames in &args.frames {
        for &budget in &args.budgets {
            for method in &methods {
                if report.holds(method, frames, budget) {
                    continue;
                }
                let plan = Plan::parse(method, &model, frames, budget)?;
                let cell = bench::evaluate(&model, &world, &plan, &work)?;
                eprintln!("{}", report::line(&cell));
                report.put(cell);
                if let Some(path) = &args.out {
                    report.save(path)?;
                }
            }
        }
    }
    let cells = &report.cells;
    println!("{}", report::table(args.world, cells));
    if args.by_age {
        println!("\n{}", report::ages(cells));
    }
    let trained = model.recommendations().trained_frames.unwrap_or(0);
    if let Some(page) = &args.page {
        let text = format!(
            "{}\n**What budgets change: all questions, by frames of video**\n\n{}\n",
            report::section(args.world, cells, args.at_budget, trained),
            report::budgets(cells, args.at_frames)
        );
        report::replace_section(page, &of_model("compare", &args.model), &text)?;
    }
    if let Some(folder) = &args.plots {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        let picture = |name| folder.join(of_model(name, &args.model) + ".svg");
        let length = picture("accuracy-over-length");
        plot::over_length(args.world, cells, args.at_budget, trained, &length)?;
        let bytes = picture("accuracy-over-bytes");
        plot::over_bytes(cells, args.at_frames, &bytes)?;
    }
    Ok(())
}
