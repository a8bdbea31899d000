// SPDX-License-Identifier: MPL-2.0
//! What `trace` reads: frames and questions. Whatever is wrong with a file, it is told what was
//! expected.

use std::fmt::Display;
use std::fs;
use std::path::Path;

use gststreamkvqa::{Frame, Question};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Deserialize;

use super::Fallible;

/// What the files hold.
const FRAMES: &str = "expected a safetensors file with `frames`, u8 [n, h, w, 3], and optionally \
                      `times`, f64 [n], in seconds";
const QUESTIONS: &str = "expected a JSON list of {\"question\": \"...\", \"after_frame\": n, \
                         \"max_tokens\": n}, of which only `question` is needed; after_frame counts \
                         from 0, and -1 is behind the last";

/// One question of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    pub question: String,
    #[serde(default = "all_frames")]
    pub after_frame: i64,
    #[serde(default = "default_max_tokens")]
    pub max_tokens: usize,
}

fn all_frames() -> i64 {
    -1
}

fn default_max_tokens() -> usize {
    Question::DEFAULT_MAX_TOKENS
}

/// The value of `--fps`.
pub fn frames_per_second(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fps) if fps.is_finite() && fps > 0.0 => Ok(fps),
        _ => Err("expected a positive number of frames a second".into()),
    }
}

fn read(path: &Path) -> Fallible<Vec<u8>> {
    fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()).into())
}

/// The frames of a file, `fps` a second where it has no times.
pub fn read_frames(path: &Path, fps: f64) -> Fallible<Vec<Frame>> {
    let fault = |reason: String| fault(path, reason, FRAMES);
    let bytes = read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| fault(e.to_string()))?;
    let frames = file.tensor("frames").map_err(|_| fault("no tensor `frames`".into()))?;
    let &[n, height, width, 3] = frames.shape() else {
        return Err(fault(format!("`frames` is {:?}", frames.shape())).into());
    };
    if frames.dtype() != Dtype::U8 {
        return Err(fault(format!("`frames` is {:?}", frames.dtype())).into());
    }
    if n == 0 || width * height == 0 {
        return Err(fault("`frames` is empty".into()).into());
    }
    let times = match file.tensor("times") {
        Ok(times) => read_times(&times, n).map_err(fault)?,
        Err(_) => (0..n).map(|i| i as f64 / fps).collect(),
    };
    let pictures = frames.data().chunks_exact(height * width * 3);
    let frames = pictures.zip(times).map(|(rgb, time)| {
        Frame::new(rgb.to_vec(), width, height, time).map_err(|e| fault(e.to_string()))
    });
    Ok(frames.collect::<Result<_, _>>()?)
}

fn read_times(times: &TensorView<'_>, n: usize) -> Result<Vec<f64>, String> {
    if times.dtype() != Dtype::F64 || times.shape() != [n] {
        return Err(format!("`times` is {:?} {:?} for {n} frames", times.dtype(), times.shape()));
    }
    let eight = |bytes: &[u8]| bytes.try_into().map(f64::from_le_bytes).unwrap_or(f64::NAN);
    Ok(times.data().chunks_exact(8).map(eight).collect())
}

/// The questions about so many frames.
pub fn read_questions(path: &Path, frames: usize) -> Fallible<Vec<Asked>> {
    let questions: Vec<Asked> =
        serde_json::from_slice(&read(path)?).map_err(|e| fault(path, e, QUESTIONS))?;
    for Asked { question, after_frame, max_tokens } in &questions {
        let in_range =
            *after_frame == -1 || usize::try_from(*after_frame).is_ok_and(|frame| frame < frames);
        let reason = if !in_range {
            format!("\"after_frame\": {after_frame} is neither -1 nor one of the {frames} frames")
        } else if !(1..=Question::MAX_TOKENS).contains(max_tokens) {
            format!("\"max_tokens\": {max_tokens} is not within 1 to {}", Question::MAX_TOKENS)
        } else {
            continue;
        };
        return Err(fault(path, format!("{reason} (`{question}`)"), QUESTIONS).into());
    }
    Ok(questions)
}

/// What is wrong with a file, and what should be in it.
fn fault(path: &Path, reason: impl Display, expected: &str) -> String {
    format!("{}: {reason}; {expected}", path.display())
}
