// SPDX-License-Identifier: MPL-2.0
//! What it costs and saves that patches which did not change are not run through the vision tower again
//! (`tower-reuse`): the relative error of a frame's tokens, and its time.
//!
//! ```text
//! cargo run --example reuse
//! cargo run --example reuse -- --model FOLDER --videos 0 --shares 0,0.1,0.2
//! ```

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use gststreamkvqa::model::DTypeChoice;
use gststreamkvqa::model::vision::reuse::Reuse;
use gststreamkvqa::{Cancel, Frame, LoadOptions, ReuseOptions, VideoLlm};

#[derive(Parser)]
#[command(about = "Print what tower-reuse costs in exactness and saves in time")]
struct Args {
    /// Hugging Face folder of a LLaVA-OneVision.
    #[arg(long, default_value = "models/toyworld")]
    model: PathBuf,
    /// auto, f32, bf16, f16 or q8.
    #[arg(long, default_value = "f32")]
    dtype: DTypeChoice,
    /// Videos of the toy world, of validation seeds, and frames in each.
    #[arg(long, default_value_t = 20)]
    videos: u64,
    #[arg(long, default_value_t = 64)]
    frames: usize,
    /// Frames in a row that take patches from an earlier one.
    #[arg(long, default_value_t = 16)]
    most: usize,
    #[arg(long, value_delimiter = ',', default_value = "0,1,2,3,4,6,8,12")]
    tolerances: Vec<f32>,
    /// Shares of a frame that change, of which the time is taken.
    #[arg(long, value_delimiter = ',', default_value = "0,0.05,0.1,0.2")]
    shares: Vec<f64>,
    /// Pairs of a whole frame and one that is taken in part.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
}

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("reuse: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Fallible<()> {
    let options = LoadOptions { dtype: args.dtype, ..LoadOptions::default() };
    let model = VideoLlm::load(&args.model, &options)?;
    if model.vision().reusing().is_none() {
        return Err("the tower of this model cannot take patches from an earlier frame".into());
    }
    if args.videos > 0 {
        errors(&model, args)?;
    }
    times(&model, args)
}

/// The tokens of each frame.
fn tokens(model: &VideoLlm, frames: &[Frame], reuse: &mut Reuse) -> Fallible<Vec<Vec<f32>>> {
    let first = frames.first().ok_or("no frame")?;
    let tokens = model.encode_reusing(frames, &model.picture(first)?, reuse, &Cancel::new())?;
    Ok(tokens.to_dtype(candle_core::DType::F32)?.flatten_from(1)?.to_vec2()?)
}

fn errors(model: &VideoLlm, args: &Args) -> Fallible<()> {
    const SIZE: (usize, usize) = (160, 120);
    let options = toyworld::StreamOptions { frames: args.frames, ..Default::default() };
    let mut videos = Vec::new();
    for seed in 0..args.videos {
        let video = toyworld::Stream::generate(toyworld::seeds::VALIDATION.start + seed, &options);
        let paint =
            |index| Frame::new(video.frame(index, SIZE.0, SIZE.1), SIZE.0, SIZE.1, index as f64);
        let frames: Vec<Frame> = (0..args.frames).map(paint).collect::<Result<_, _>>()?;
        let whole = tokens(model, &frames, &mut Reuse::default())?;
        videos.push((frames, whole));
    }
    println!(
        "{} videos of {} frames, at most {} frames in a row take from one:",
        args.videos, args.frames, args.most
    );
    println!("tolerance  patches taken  relative error of a frame's tokens: mean   worst");
    for &tolerance in &args.tolerances {
        let (mut taken, mut all, mut sum, mut worst) = (0, 0, 0.0, 0f64);
        for (frames, whole) in &videos {
            let mut reuse = Reuse::new(ReuseOptions { most: args.most, tolerance });
            for (found, right) in tokens(model, frames, &mut reuse)?.iter().zip(whole) {
                let error = relative_error(found, right);
                sum += error;
                worst = worst.max(error);
                all += 1;
            }
            taken += reuse.total();
        }
        let picture = videos.first().and_then(|(frames, _)| frames.first());
        let picture = model.picture(picture.ok_or("no frame")?)?;
        let share = taken as f64 / (all * model.vision().patches(&picture)) as f64;
        println!("{tolerance:9}  {:12.1} %  {:41.4}  {worst:6.4}", share * 100.0, sum / all as f64);
    }
    Ok(())
}

/// Length of the difference over the length of what is right.
fn relative_error(found: &[f32], right: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = found.iter().zip(right).map(|(a, b)| square(a - b)).sum();
    (difference / right.iter().copied().map(square).sum::<f64>()).sqrt()
}

/// Whole frames and frames of which the upper part is new, in turn.
fn times(model: &VideoLlm, args: &Args) -> Fallible<()> {
    let (width, height) = model.resolution(640, 640);
    let video =
        toyworld::Stream::generate(1, &toyworld::StreamOptions { frames: 1, ..Default::default() });
    let rgb = video.frame(0, width, height);
    let first = [Frame::new(rgb.clone(), width, height, 0.0)?];
    let patches = model.vision().patches(&model.picture(&first[0])?);
    let mut reuse = Reuse::new(ReuseOptions { most: usize::MAX, tolerance: 0.0 });
    tokens(model, &first, &mut reuse)?;
    println!(
        "\npatches that changed   a whole frame   in part   share of the time (medians of pairs)"
    );
    for &share in &args.shares {
        let rows = (share * height as f64).round() as usize;
        let mut part = rgb.clone();
        part.iter_mut().take(3 * width * rows).for_each(|grey| *grey = !*grey);
        let part = [Frame::new(part, width, height, 1.0)?];
        let before = reuse.total();
        tokens(model, &part, &mut reuse)?;
        let changed = patches - (reuse.total() - before) as usize;
        if changed == patches {
            return Err(format!("{share} of a frame is so much that it is seen as a whole").into());
        }
        let (mut whole, mut partly) = (Vec::new(), Vec::new());
        for _ in 0..args.repeat.max(1) {
            // It keeps what later frames need, as every frame does that others take from.
            let mut fresh = Reuse::new(ReuseOptions { most: 1, tolerance: 0.0 });
            whole.push(timed(|| tokens(model, &part, &mut fresh))?);
            partly.push(timed(|| tokens(model, &part, &mut reuse))?);
        }
        let ratios = whole.iter().zip(&partly).map(|(a, b)| b.as_secs_f64() / a.as_secs_f64());
        let ratio = median(ratios.collect());
        let [whole, partly] =
            [whole, partly].map(|times| median(times.iter().map(Duration::as_secs_f64).collect()));
        println!(
            "{changed:9} of {patches:<9} {:10.1} ms  {:7.1} ms   {ratio:.3}",
            whole * 1e3,
            partly * 1e3
        );
    }
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> Fallible<T>) -> Fallible<Duration> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed())
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}
