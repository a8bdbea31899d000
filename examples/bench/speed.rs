// SPDX-License-Identifier: MPL-2.0
//! Frames into a stream, questions to it, and what both take at growing lengths.

use std::time::{Duration, Instant};

use candle_core::Device;
use gststreamkvqa::memory::recipe::Cut;
use gststreamkvqa::memory::recipe::Recipe;
use gststreamkvqa::{Cancel, Frame, Question, Result, Stream, StreamOptions, VideoLlm};

use crate::report::{Report, median, milliseconds};

/// What is asked of every method.
pub struct Plan {
    /// Frames that are handed over together.
    pub chunk: usize,
    /// Frames in the stream when it is asked, growing.
    pub stored: Vec<usize>,
    pub repeat: usize,
    pub question: String,
    pub tokens: usize,
    pub frame_size: (usize, usize),
    /// Seconds between frames.
    pub interval: f64,
    pub options: StreamOptions,
    /// When a method stops growing.
    pub limit: Option<Duration>,
    /// Bytes a second of the device's memory, and those that a token reads of the weights.
    pub roofline: (f64, f64),
}

/// A clip without end.
pub struct Camera {
    pictures: Vec<Vec<u8>>,
    size: (usize, usize),
    interval: f64,
    next: usize,
}

impl Camera {
    /// More pictures would take memory and change nothing.
    const PICTURES: usize = 32;

    pub fn new(size: (usize, usize), interval: f64, seed: u64) -> Self {
        let options = toyworld::StreamOptions { frames: Self::PICTURES, ..Default::default() };
        let clip = toyworld::Stream::generate(seed, &options);
        let pictures = (0..Self::PICTURES).map(|i| clip.frame(i, size.0, size.1)).collect();
        Self { pictures, size, interval, next: 0 }
    }

    pub fn frames(&mut self, count: usize) -> Result<Vec<Frame>> {
        let frame = |i: usize| {
            let rgb = self.pictures.get(i % Self::PICTURES).cloned().unwrap_or_default();
            Frame::new(rgb, self.size.0, self.size.1, i as f64 * self.interval)
        };
        let frames = (self.next..self.next + count).map(frame).collect();
        self.next += count;
        frames
    }
}

/// How long something takes until the device has done it.
fn timed<T>(device: &Device, work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    device.synchronize()?;
    let started = Instant::now();
    let done = work()?;
    device.synchronize()?;
    Ok((done, started.elapsed()))
}

/// Frames a second through preprocessing, and through tower and projector. Seconds that a frame takes
/// of both.
pub fn stages(model: &VideoLlm, plan: &Plan, report: &mut Report) -> Result<f64> {
    let frames = Camera::new(plan.frame_size, plan.interval, 1).frames(plan.chunk)?;
    let Some(first) = frames.first() else { return Ok(0.0) };
    let picture = model.picture(first)?;
    let (vision, device) = (model.vision(), model.device());
    let (mut pixels, mut tower) = (Vec::new(), Vec::new());
    let cancel = Cancel::default();
    // The first run of each warms up.
    for run in 0..=plan.repeat {
        let make = || Ok(vision.pixels(&frames, &picture, device)?.to_dtype(model.dtype())?);
        let (made, preprocessing) = timed(device, make)?;
        let see = || vision.tokens(&vision.features(&made, &picture, &cancel)?, &picture);
        let (_, seeing) = timed(device, see)?;
        if run > 0 {
            pixels.push(frames.len() as f64 / preprocessing.as_secs_f64());
            tower.push(frames.len() as f64 / seeing.as_secs_f64());
        }
    }
    report.row(("preprocess", "", 0), &pixels, "frames/s");
    report.row(("tower and projector", "", 0), &tower, "frames/s");
    Ok([pixels, tower].iter().filter_map(|rates| median(rates)).map(f64::recip).sum())
}

/// The same frames through one method at all lengths. `seeing`: seconds of a frame's other stages.
pub fn method(
    model: &VideoLlm,
    recipe: &Recipe,
    seeing: f64,
    plan: &Plan,
    report: &mut Report,
) -> Result<()> {
    let name = recipe.name();
    let device = model.device();
    let mut camera = Camera::new(plan.frame_size, plan.interval, 1);
    let mut stream = Stream::open(model.clone(), recipe.clone(), plan.options.clone())?;
    let started = Instant::now();
    let out_of_time = || plan.limit.is_some_and(|limit| started.elapsed() > limit);
    let (mut frames, mut bytes) = (0, stream.stats().bytes);
    let mut first_rate = None;
    for &stored in &plan.stored {
        let before = (frames, bytes);
        let mut rates = Vec::new();
        let mut spent = Duration::ZERO;
        while frames < stored {
            let chunk = camera.frames(plan.chunk.min(stored - frames))?;
            let (_, took) = timed(device, || stream.push_frames(&chunk))?;
            frames += chunk.len();
            spent += took;
            rates.push(chunk.len() as f64 / took.as_secs_f64());
            if out_of_time() {
                break;
            }
        }
        let stored = frames as u64;
        // Where nothing waits for the end of a segment every chunk costs the same; elsewhere only all
        // of them together say what a frame costs.
        let rates = match recipe.cut {
            Cut::Never => rates.split_off(rates.len().saturating_sub(plan.repeat)),
            _ => vec![(frames - before.0) as f64 / spent.as_secs_f64()],
        };
        report.row(("ingest", name, stored), &rates, "frames/s");
        if let Some(rate) = median(&rates) {
            // What is left of the time: less than the decoder takes, where stages run side by side.
            let rest = rate.recip() - seeing;
            if rest > 0.0 {
                report.row(("decoder and memory", name, stored), &[rest.recip()], "frames/s");
            }
            match first_rate {
                None => first_rate = Some((rate, stored)),
                Some((first, at)) => {
                    let what = format!("time of a frame over that at {at}");
                    report.row((&what, name, stored), &[first / rate], "times");
                }
            }
        }
        bytes = stream.stats().bytes;
        let more = bytes.saturating_sub(before.1) as f64 / (frames - before.0).max(1) as f64;
        report.row(("memory of one more frame", name, stored), &[more], "bytes");
        report.row(("memory of the video", name, stored), &[bytes as f64], "bytes");
        ask(&stream, plan, stored, report)?;
        for warning in stream.take_warnings() {
            report.note(format!("{name} at {stored}: {warning}"));
        }
        if out_of_time() && stored < plan.stored.iter().copied().max().unwrap_or(0) as u64 {
            report.note(format!("{name}: out of time at {stored} frames"));
            break;
        }
    }
    Ok(())
}

/// A question, and the tokens of its answer.
fn ask(stream: &Stream, plan: &Plan, stored: u64, report: &mut Report) -> Result<()> {
    let name = stream.recipe().name();
    let question = Question::new(plan.question.as_str());
    // Asking changes nothing, so one question can be asked again and again. The first time warms up.
    stream.ask(&question.clone().max_tokens(1), |_| ())?;
    let (mut branch, mut retrieve, mut prefill) = (Vec::new(), Vec::new(), Vec::new());
    let (mut first, mut speed, mut context) = (Vec::new(), Vec::new(), 0);
    for _ in 0..plan.repeat {
        let answer = stream.ask(&question.clone().max_tokens(plan.tokens), |_| ())?;
        let times = answer.timings;
        branch.push(milliseconds(times.branch));
        retrieve.push(milliseconds(times.retrieve));
        prefill.push(milliseconds(times.prefill));
        first.push(milliseconds(times.first_token));
        if answer.ids.len() > 1 {
            speed.push((answer.ids.len() - 1) as f64 / times.decode.as_secs_f64());
        }
        context = answer.layers.iter().map(|layer| layer.context_tokens).sum::<usize>()
            / answer.layers.len().max(1);
    }
    report.row(("first token", name, stored), &first, "ms");
    report.row(("first token: open segment", name, stored), &branch, "ms");
    report.row(("first token: looking up", name, stored), &retrieve, "ms");
    report.row(("first token: reading", name, stored), &prefill, "ms");
    report.row(("context of a layer", name, stored), &[context as f64], "tokens");
    report.row(("decode", name, stored), &speed, "tokens/s");
    // A token reads the decoder's weights and its context once.
    let decoder = stream.model().decoder();
    let kv = 2 * decoder.layers() * decoder.kv_heads() * decoder.head_dim();
    let kv = (context * kv * stream.model().dtype().size_in_bytes()) as f64;
    let (bandwidth, weights) = plan.roofline;
    let share: Vec<f64> = speed.iter().map(|speed| speed * (weights + kv) / bandwidth).collect();
    report.row(("decode over the memory roofline", name, stored), &share, "share");
    Ok(())
}

/// Streams of all lengths, frames and questions to them in turn.
pub fn in_turn(model: &VideoLlm, recipe: &Recipe, plan: &Plan, report: &mut Report) -> Result<()> {
    let (name, device) = (recipe.name(), model.device());
    let question = Question::new(plan.question.as_str()).max_tokens(1);
    let mut streams = Vec::new();
    for &stored in &plan.stored {
        let mut camera = Camera::new(plan.frame_size, plan.interval, 1);
        let mut stream = Stream::open(model.clone(), recipe.clone(), plan.options.clone())?;
        for start in (0..stored).step_by(plan.chunk) {
            stream.push_frames(&camera.frames(plan.chunk.min(stored - start))?)?;
        }
        stream.ask(&question, |_| ())?;
        streams.push((stream, camera, stored as u64, Vec::new(), Vec::new()));
    }
    for _ in 0..plan.repeat {
        for (stream, camera, _, frames, questions) in &mut streams {
            let chunk = camera.frames(plan.chunk)?;
            let (_, took) = timed(device, || stream.push_frames(&chunk))?;
            frames.push(milliseconds(took) / chunk.len() as f64);
            questions.push(milliseconds(stream.ask(&question, |_| ())?.timings.first_token));
        }
    }
    let Some((_, _, first, first_frames, first_questions)) = streams.first() else { return Ok(()) };
    for (_, _, stored, frames, questions) in &streams {
        report.row(("a frame, in turn", name, *stored), frames, "ms");
        report.row(("first token, in turn", name, *stored), questions, "ms");
        if stored == first {
            continue;
        }
        for (what, own, before) in
            [("a frame", frames, first_frames), ("first token", questions, first_questions)]
        {
            if let (Some(own), Some(before)) = (median(own), median(before)) {
                let what = format!("{what}, in turn, over that at {first}");
                report.row((&what, name, *stored), &[own / before], "times");
            }
        }
    }
    Ok(())
}

/// As many frames a second, from one camera and from many. `rounds` frames come of each of many.
pub fn cameras(
    model: &VideoLlm,
    recipe: &Recipe,
    (cameras, rounds): (usize, usize),
    plan: &Plan,
    report: &mut Report,
) -> Result<()> {
    let device = model.device();
    let open = || Stream::open(model.clone(), recipe.clone(), plan.options.clone());
    let (mut one, mut many) = (open()?, Vec::new());
    for seed in 0..cameras {
        many.push((open()?, Camera::new(plan.frame_size, plan.interval, seed as u64)));
    }
    let mut single = Camera::new(plan.frame_size, plan.interval, 1);
    let (mut together, mut apart) = (Duration::ZERO, Duration::ZERO);
    // The first round warms up. Of a method that cuts only all of them say what a frame costs.
    for round in 0..=rounds {
        let frames = single.frames(cameras)?;
        let (_, took) = timed(device, || one.push_frames(&frames))?;
        let news: Vec<_> =
            many.iter_mut().map(|(_, camera)| camera.frames(1)).collect::<Result<_>>()?;
        // Each on a thread of its own, as elements are: who comes while a pass runs joins the next.
        let push = || {
            std::thread::scope(|scope| {
                let pushes = many.iter_mut().zip(&news);
                let pushes: Vec<_> = pushes
                    .map(|((stream, _), new)| scope.spawn(move || stream.push_frames(new)))
                    .collect();
                pushes.into_iter().try_for_each(|push| match push.join() {
                    Ok(pushed) => pushed,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
            })
        };
        let (_, all) = timed(device, push)?;
        if round > 0 {
            together += took;
            apart += all;
        }
    }
    let name = recipe.name();
    let frames = (cameras * rounds) as f64;
    let (together, apart) = (together.as_secs_f64(), apart.as_secs_f64());
    report.row(("ingest of one camera", name, 0), &[frames / together], "frames/s");
    report.row((&format!("ingest of {cameras} cameras"), name, 0), &[frames / apart], "frames/s");
    report.row(
        (&format!("time of {cameras} cameras over one"), name, 0),
        &[apart / together],
        "times",
    );
    Ok(())
}
