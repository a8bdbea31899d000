// SPDX-License-Identifier: MPL-2.0
//! Numbers that are none: what is NaN or infinite is not remembered and not said, and what comes
//! after it is fine.

mod common;

use common::{Copy, assert_close};
use gststreamkvqa::{EngineError, Frame, Question, Recipe, Stream, VideoLlm};
use serde_json::json;

fn stream(model: &VideoLlm, method: &str) -> Stream {
    let mut recipe = Recipe::named(method).unwrap();
    // The text-image pair is a model of its own.
    if recipe.outside_expert().is_err() {
        recipe.set("experts", "internal").unwrap();
    }
    Stream::new(model.clone(), recipe).unwrap()
}

/// A picture without red, or one that is nothing but.
fn picture(level: u8, time: f64) -> Frame {
    let pixel = if level == RED { [255, 0, 0] } else { [0, level, 255 - level] };
    Frame::new(pixel.repeat(70 * 70), 70, 70, time).unwrap()
}

const RED: u8 = 255;

fn ask(stream: &Stream) -> Result<Vec<f32>, EngineError> {
    let question = Question { keep_logits: true, ..Question::new("what?").max_tokens(3) };
    Ok(stream.ask(&question, |_| {})?.first_logits.unwrap())
}

/// A model that overflows over red: 196 red pixels of a patch add up in one channel.
fn dazzled() -> VideoLlm {
    let copy = Copy::of("ov-odd");
    copy.edit("processor_config.json", |file| {
        file["video_processor"]["image_mean"] = json!([0.0, 0.0, 0.0]);
    });
    let huge = |i, x| if i / 588 == 5 && i % 588 < 196 { 1e36 } else { x };
    copy.change("embeddings.patch_embedding.weight", huge);
    copy.load()
}

#[test]
fn a_weight_that_is_no_number_makes_answers_errors_and_one_warning() {
    for name in [
        "vision_tower.embeddings.patch_embedding.weight",
        "vision_tower.encoder.layers.1.mlp.fc1.weight",
        "multi_modal_projector.linear_2.bias",
        "layers.0.input_layernorm.weight",
        "layers.1.self_attn.k_proj.weight",
        "layers.2.self_attn.v_proj.bias",
        "layers.2.mlp.down_proj.weight",
    ] {
        for bad in [f32::NAN, f32::INFINITY] {
            let copy = Copy::of("ov-odd");
            copy.change(name, |i, x| if i == 7 { bad } else { x });
            let model = copy.load();
            for method in ["auto", "full", "streamkv", "infinipot-v"] {
                let mut stream = stream(&model, method);
                for i in 0..4 {
                    stream.push(&picture(100 + i, f64::from(i))).unwrap();
                }
                let Err(error) = ask(&stream) else { panic!("{name} {bad} {method}") };
                assert!(matches!(error, EngineError::NotFinite { .. }), "{name} {method}: {error}");
                let message = error.to_string();
                assert!(message.contains("not finite") && message.contains("f32"), "{message}");
                assert!(ask(&stream).is_err());
                let warnings = stream.take_warnings();
                assert_eq!(warnings.len(), 1, "{name} {method}: {warnings:?}");
                let told = stream.nothing_to_see().unwrap().to_string();
                assert!(told.contains("not finite"), "{name} {method}: {told}");
            }
        }
    }
}

#[test]
fn scores_that_are_no_numbers_are_an_error_and_the_memory_stays() {
    let copy = Copy::of("ov-even-bf16");
    copy.change("lm_head.weight", |i, x| if i == 3 { f32::NAN } else { x });
    let mut stream = stream(&copy.load(), "full");
    stream.push(&picture(90, 0.0)).unwrap();
    for _ in 0..2 {
        let error = ask(&stream).unwrap_err().to_string();
        assert!(error.contains("scores of the next token"), "{error}");
    }
    assert_eq!(stream.stats().units, 1);
    assert_eq!(stream.take_warnings().len(), 1);
}

#[test]
fn one_frame_that_overflows_is_left_out_and_the_next_is_fine() {
    let model = dazzled();
    for method in Recipe::names() {
        let mut with = stream(&model, method);
        let mut without = stream(&model, method);
        for (i, level) in [128u8, RED, 40, 200, RED, RED, 3, 90, 254].into_iter().enumerate() {
            with.push(&picture(level, i as f64)).unwrap();
            if level != RED {
                without.push(&picture(level, i as f64)).unwrap();
            }
            let left_out = [1, 4].contains(&i);
            let warnings = with.take_warnings();
            assert_eq!(warnings.len(), usize::from(left_out), "{method} {i}: {warnings:?}");
            for warning in &warnings {
                let told = format!("frame at {i}.000 s");
                assert!(warning.to_string().contains(&told), "{warning}");
            }
            let found = ask(&with).unwrap_or_else(|e| panic!("{method} {i}: {e}"));
            assert!(found.iter().all(|x| x.is_finite()), "{method}");
            assert_close(&found, &ask(&without).unwrap(), 1e-5, method);
        }
        let (with, without) = (with.stats(), without.stats());
        assert_eq!(
            (with.units, with.open_frames),
            (without.units, without.open_frames),
            "{method}"
        );
        assert_eq!((with.frames, without.frames), (9, 6), "{method}");
    }
}

#[test]
fn a_batch_loses_no_more_than_the_frames_that_overflow() {
    let model = dazzled();
    for method in ["full", "streamkv", "rekv"] {
        let mut stream = stream(&model, method);
        let frames: Vec<Frame> = [128, RED, 40, RED]
            .iter()
            .zip(0..)
            .map(|(&level, i)| picture(level, f64::from(i)))
            .collect();
        stream.push_frames(&frames).unwrap();
        stream.flush().unwrap();
        let kept: Vec<_> = stream.memory().units().map(|unit| unit.frames.start).collect();
        assert_eq!(
            kept.iter().filter(|start| [1, 3].contains(*start)).count(),
            0,
            "{method}: {kept:?}"
        );
        assert!(kept.contains(&0) && kept.contains(&2), "{method}: {kept:?}");
        ask(&stream).unwrap();
    }
}

/// Where a stream has seen nothing but what is left out, its answer says so; after a new beginning
/// nothing is remembered of that.
#[test]
fn a_stream_of_nothing_but_overflow_tells_why_it_cannot_answer() {
    let mut stream = stream(&dazzled(), "auto");
    assert!(stream.nothing_to_see().unwrap().to_string().contains("no frame has been seen"));
    stream.push_frames(&[picture(RED, 0.0), picture(RED, 1.0)]).unwrap();
    assert!(ask(&stream).unwrap_err().to_string().contains("frame at"));
    stream.push(&picture(128, 2.0)).unwrap();
    ask(&stream).unwrap();
    assert!(stream.nothing_to_see().is_none());
    stream.clear().unwrap();
    assert!(stream.nothing_to_see().unwrap().to_string().contains("no frame has been seen"));
}

/// Words in front of the video that the decoder makes no numbers of: nothing is taken in, and the
/// pipeline need not know.
#[test]
fn a_token_that_is_no_number_is_an_error_where_it_is_read() {
    let copy = Copy::of("ov-odd");
    // Row 510, `<image>`, is in no prompt; then that of the token in front of every turn.
    copy.change("embed_tokens.weight", |i, x| if i == 510 * 64 { f32::NAN } else { x });
    let mut fine = stream(&copy.load(), "full");
    fine.push(&picture(90, 0.0)).unwrap();
    assert!(matches!(ask(&fine), Err(EngineError::NotFinite { .. })), "tied: it is in the scores");

    copy.change("embed_tokens.weight", |i, x| if i == 508 * 64 { f32::NAN } else { x });
    let mut stream = stream(&copy.load(), "full");
    stream.push(&picture(90, 0.0)).unwrap();
    assert!(ask(&stream).unwrap_err().to_string().contains("not finite"));
    assert_eq!(stream.take_warnings().len(), 1);
}
