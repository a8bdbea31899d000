// SPDX-License-Identifier: MPL-2.0
//! Weights of eight bits give the answers of the same weights as floats.

use gststreamkvqa::model::{DTypeChoice, DeviceChoice};
use gststreamkvqa::{EngineError, Frame, LoadOptions, Question, Recipe, Stream, VideoLlm};

fn load(dtype: DTypeChoice) -> VideoLlm {
    let options = LoadOptions { dtype, device: DeviceChoice::Cpu, ..Default::default() };
    VideoLlm::load(concat!(env!("CARGO_MANIFEST_DIR"), "/models/toyworld"), &options).unwrap()
}

/// The ids of an answer, and the scores of its first token.
type Said = (Vec<u32>, Vec<f32>);

/// What is said of a clip of the toy world by who remembers all of it, so that nothing but the numbers can
/// differ: ids, and the scores of the first token.
fn answers(model: &VideoLlm, seed: u64) -> Result<Vec<Said>, EngineError> {
    let options = toyworld::StreamOptions { frames: 24, ..Default::default() };
    let clip = toyworld::Stream::generate(seed, &options);
    let mut stream = Stream::new(model.clone(), Recipe::for_model("full", model)?)?;
    for i in 0..options.frames {
        stream.push(&Frame::new(clip.frame(i, 56, 56), 56, 56, i as f64)?)?;
    }
    ["what color is the object?", "what is the background?", "where is the object?"]
        .into_iter()
        .map(|text| {
            let mut question = Question::new(text);
            question.keep_logits = true;
            let answer = stream.ask(&question, |_| ())?;
            Ok((answer.ids, answer.first_logits.unwrap_or_default()))
        })
        .collect()
}

#[test]
fn a_trained_model_says_the_same_in_eight_bits_and_takes_them_only_if_told() {
    let (eight, own) = (load(DTypeChoice::Q8), load(DTypeChoice::Auto));
    assert_eq!((eight.weights_format(), own.weights_format()), ("q8", "f32"));
    let mut sure = 0;
    for seed in 0..4 {
        let (found, expected) = (answers(&eight, seed).unwrap(), answers(&own, seed).unwrap());
        for ((ids, scores), (own_ids, own_scores)) in found.iter().zip(&expected) {
            let apart = scores.iter().zip(own_scores).map(|(a, b)| (a - b).abs());
            let apart = apart.fold(0f32, f32::max);
            println!("stream {seed}: {apart} beside a margin of {}", margin(own_scores));
            assert!(apart > 0.0 && apart < 1.5, "stream {seed}: {apart}");
            // A question without an answer here leaves the model between two words.
            if margin(own_scores) > 1.5 {
                assert_eq!(ids, own_ids, "stream {seed}");
                sure += 1;
            }
        }
    }
    assert!(sure >= 6, "{sure} of 12 answers are sure");
}

/// From the best score to the second.
fn margin(scores: &[f32]) -> f32 {
    let mut scores = scores.to_vec();
    scores.sort_by(|a, b| b.total_cmp(a));
    scores[0] - scores[1]
}
