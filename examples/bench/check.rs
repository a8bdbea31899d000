// SPDX-License-Identifier: MPL-2.0
//! Whether a device computes what the CPU computes in f32: logits and greedy answers of every method.

use std::path::{Path, PathBuf};

use gststreamkvqa::memory::recipe::Expert;
use gststreamkvqa::model::{DTypeChoice, DeviceChoice};
use gststreamkvqa::{EngineError, Frame, LoadOptions, Question, Recipe, Stream, VideoLlm};
use serde::Serialize;

use crate::Fallible;

#[derive(clap::Args)]
pub struct Args {
    /// Folders of small models. Of one that is called toyworld the greedy answers have to be the same in
    /// f32; elsewhere two tokens may be equally good.
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Methods; all of them if none is named.
    #[arg(long, value_delimiter = ',')]
    method: Vec<String>,
    #[arg(long, default_value_t = 24)]
    frames: usize,
    #[arg(long, default_value_t = 8)]
    tokens: usize,
    /// How far logits may be off in bf16, as a share of their length.
    #[arg(long, default_value_t = 1e-2)]
    limit: f64,
    /// The same in f32.
    #[arg(long, default_value_t = 1e-3)]
    limit_f32: f64,
    /// Where the figures go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What a method came to: logits of the first token and greedy ids, or why there are none.
type Outcome = Result<(Vec<f32>, Vec<u32>), String>;

#[derive(Serialize)]
struct Row {
    model: String,
    method: String,
    dtype: &'static str,
    /// Distance of the logits from those of the CPU, which computes in f32 with the same weights, as a
    /// share of their length.
    error: Option<f64>,
    /// The same from those of weights that were never rounded; that is the checkpoint's doing.
    unrounded: Option<f64>,
    same_ids: bool,
    fault: Option<String>,
    ok: bool,
}

pub fn run(args: &Args) -> Fallible<()> {
    let mut rows = Vec::new();
    for folder in &args.models {
        check(folder, args, &mut rows)?;
        if let Some(path) = &args.json {
            std::fs::write(path, serde_json::to_string_pretty(&rows)? + "\n")?;
        }
    }
    let wrong = rows.iter().filter(|row| !row.ok).count();
    if wrong > 0 {
        return Err(format!("{wrong} of {} comparisons are off", rows.len()).into());
    }
    println!("all {} comparisons are right", rows.len());
    Ok(())
}

fn check(folder: &Path, args: &Args, rows: &mut Vec<Row>) -> Fallible<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let outcomes = |device, dtype| -> Fallible<Vec<(String, Outcome)>> {
        let model = VideoLlm::load(folder, &LoadOptions { device, dtype, ..Default::default() })?;
        if let Some(why) = model.device_fallback() {
            eprintln!("bench: {why}; the CPU is compared with itself");
        }
        let methods: Vec<&str> = if args.method.is_empty() {
            Recipe::names().to_vec()
        } else {
            args.method.iter().map(String::as_str).collect()
        };
        let run = |method: &str| answer(&model, method, args).map_err(|fault| fault.to_string());
        Ok(methods.iter().map(|&method| (method.to_owned(), run(method))).collect())
    };
    let wide = outcomes(DeviceChoice::Cpu, DTypeChoice::F32)?;
    let narrow = outcomes(DeviceChoice::Cpu, DTypeChoice::Bf16)?;
    for (dtype, choice, limit, same_weights) in [
        ("f32", DTypeChoice::F32, args.limit_f32, &wide),
        ("bf16", DTypeChoice::Bf16, args.limit, &narrow),
    ] {
        let must_agree = dtype == "f32" && name == "toyworld";
        let found = outcomes(args.device, choice)?;
        let first = rows.len();
        for (((method, found), (_, wide)), (_, same)) in
            found.into_iter().zip(&wide).zip(same_weights)
        {
            let (model, error) = (name.clone(), distance(&found, same));
            let same_ids = matches!((&found, same), (Ok(a), Ok(b)) if a.1 == b.1);
            let near = error.is_some_and(|error| error <= limit);
            rows.push(Row {
                model,
                method,
                dtype,
                error,
                unrounded: distance(&found, wide),
                same_ids,
                ok: near && (same_ids || !must_agree),
                fault: found.err(),
            });
        }
        print(&name, dtype, limit, rows.get(first..).unwrap_or_default());
    }
    Ok(())
}

/// One line for all methods, and one for each that is off.
fn print(name: &str, dtype: &str, limit: f64, rows: &[Row]) {
    let worst = |of: fn(&Row) -> Option<f64>| {
        let all = rows.iter().filter_map(|row| Some((of(row)?, row.method.as_str())));
        all.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::NAN, "none"))
    };
    let (error, unrounded) = (worst(|row| row.error), worst(|row| row.unrounded));
    let count = |of: fn(&Row) -> bool| rows.iter().filter(|row| of(row)).count();
    println!(
        "{name:<14} {dtype:<5} within {limit:.0e}: {:>2} of {}, worst {:.1e} ({}); same ids: {:>2}; \
         weights not rounded: {:.1e}",
        count(|row| row.ok),
        rows.len(),
        error.0,
        error.1,
        count(|row| row.same_ids),
        unrounded.0,
    );
    for row in rows.iter().filter(|row| !row.ok) {
        let why = row.fault.clone().unwrap_or_else(|| {
            let ids = if row.same_ids { "same ids" } else { "other ids" };
            format!("{:.1e} off, {ids}", row.error.unwrap_or(f64::NAN))
        });
        println!("    {}: {why}", row.method);
    }
}

/// `|a - b| / |b|` of two answers' logits.
fn distance(found: &Outcome, expected: &Outcome) -> Option<f64> {
    let (Ok((found, _)), Ok((expected, _))) = (found, expected) else { return None };
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let pairs = found.iter().zip(expected);
    let off = squares(&mut pairs.map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let all = squares(&mut expected.iter().map(|&b| f64::from(b)));
    (found.len() == expected.len()).then(|| (off / all).sqrt())
}

fn answer(
    model: &VideoLlm,
    method: &str,
    args: &Args,
) -> Result<(Vec<f32>, Vec<u32>), EngineError> {
    const SIZE: (usize, usize) = (160, 120);
    let options = toyworld::StreamOptions { frames: args.frames, ..Default::default() };
    let clip = toyworld::Stream::generate(5, &options);
    let mut recipe = Recipe::for_model(method, model)?;
    // Most folders name no text-image model, and most methods are whole without one.
    if recipe.external_model.is_empty() && recipe.expert != Expert::Internal {
        recipe.set("experts", "internal")?;
    }
    let mut stream = Stream::new(model.clone(), recipe)?;
    let frame = |i| Frame::new(clip.frame(i, SIZE.0, SIZE.1), SIZE.0, SIZE.1, i as f64);
    let frames: Vec<Frame> = (0..args.frames).map(frame).collect::<Result<_, _>>()?;
    // In several pushes, so that windows slide and segments stay open.
    for chunk in frames.chunks(5) {
        stream.push_frames(chunk)?;
    }
    let asked = clip.questions(1, &toyworld::QuestionOptions { count: 1, ..Default::default() });
    let text = asked.first().map_or("what color is the object?", |asked| asked.text.as_str());
    let mut question = Question::new(text).max_tokens(args.tokens);
    question.keep_logits = true;
    let answer = stream.ask(&question, |_| ())?;
    Ok((answer.first_logits.unwrap_or_default(), answer.ids))
}
