// SPDX-License-Identifier: MPL-2.0
//! Qwen3-VL against Hugging Face transformers, and its streams against themselves. The fixtures hold what
//! the same checkpoint, frames and questions give there: units one behind the other as in 4.57, and
//! within one more pair of brackets as in 5.24 (`tools/fixtures/README.md`).

mod common;

use candle_core::{DType, Device, Tensor};
use common::against::{Causal, Fixture, ask, differ, first_logits, flat, ids, internal};
use common::{Copy, assert_close, fixture};
use gststreamkvqa::memory::unit::Kind;
use gststreamkvqa::model::prompt::{Form, PromptStyle};
use gststreamkvqa::model::rope::{Kept, Place, Positions};
use gststreamkvqa::model::{DTypeChoice, LoadOptions};
use gststreamkvqa::{Cancel, Frame, Recipe, Stream, StreamOptions, VideoLlm};
use serde_json::Value;

/// Odd and even numbers of frames, one unit and several, wide, high and small ones; one every three
/// seconds, three a second, and one every two.
const ALL: [&str; 3] = ["qwen3-wide", "qwen3-hub", "qwen3-one"];

/// The two forms of the words around units, as the fixtures name them.
const FORMS: [(&str, bool); 2] = [("", false), ("compat_", true)];

#[test]
fn pixels_are_those_of_the_processor() {
    for name in ALL {
        Fixture::open(name).assert_pixels(name);
    }
}

#[test]
fn unit_tokens_of_all_depths_agree_in_a_batch_and_alone() {
    for name in ALL {
        Fixture::open(name).assert_units(name);
    }
}

#[test]
fn prompt_ids_positions_and_all_logits_agree() {
    for name in ALL {
        let fixture = Fixture::open(name);
        assert_eq!(fixture.expected["flat_as_in"], "4.57.1");
        let (model, units, picture) = (&fixture.model, fixture.units(), fixture.picture());
        let (prompts, decoder) = (model.prompts(), model.decoder());
        for (i, question, text) in fixture.questions() {
            for (rule, nested) in FORMS {
                let what = format!("{name} {rule}{text}");
                let form = Form { style: PromptStyle::Hf, nested };
                let opening = prompts.opening(form, None, "").unwrap();
                let tail = prompts.tail(form, None, text).unwrap().ids;
                let wide = |ids: &[u32]| {
                    let own = decoder.embed(ids).unwrap();
                    let width = units.dims()[2] - own.dims()[1];
                    let others = Tensor::zeros((ids.len(), width), DType::F32, &Device::Cpu);
                    Tensor::cat(&[own, others.unwrap()], 1).unwrap()
                };
                let (mut all, mut embeds) = (opening.clone(), vec![wide(&opening)]);
                let mut kept = Vec::new();
                for (at, moment) in fixture.moments().into_iter().enumerate() {
                    let [front, behind] = prompts.around(moment).unwrap().unwrap();
                    kept.push(Kept::all(picture.tokens()).within(front.len(), behind.len()));
                    let pads = vec![prompts.video(); picture.tokens()];
                    embeds.extend([wide(&front), units.get(at).unwrap(), wide(&behind)]);
                    all.extend([front, pads, behind].concat());
                }
                all.extend(&tail);
                embeds.push(wide(&tail));
                assert_eq!(all, ids(&question[format!("{rule}input_ids")]), "{what}");

                let layout = model.layout(&picture, fixture.rate(), nested);
                let placed = layout.packed(opening.len(), kept);
                let positions = Positions::run(0, opening.len())
                    .then(&placed.positions)
                    .then(&Positions::run(placed.next, tail.len()));
                let expected = &fixture.tensors[&format!("{rule}positions_q{i}")];
                let expected = expected.to_vec2::<i64>().unwrap();
                let axes = |&Place { t, h, w }: &Place| [t as i64, h as i64, w as i64];
                let found: Vec<[i64; 3]> = positions.places().iter().map(axes).collect();
                let expected: Vec<[i64; 3]> =
                    (0..all.len()).map(|j| [0, 1, 2].map(|axis| expected[axis][j])).collect();
                assert_eq!(found, expected, "{what}");

                let embeds = Tensor::cat(&embeds, 0).unwrap();
                let hidden = decoder.forward(&embeds, &mut Causal { model, positions }).unwrap();
                let expected = &fixture.tensors[&format!("{rule}logits_q{i}")];
                let rows = expected.dims()[0];
                let hidden = hidden.narrow(0, all.len() - rows, rows).unwrap();
                assert_close(
                    &flat(&decoder.logits(&hidden).unwrap()),
                    &flat(expected),
                    1e-4,
                    &what,
                );
            }
        }
    }
}

#[test]
fn a_stream_that_keeps_everything_answers_like_stock_generate() {
    for name in ALL {
        let fixture = Fixture::open(name);
        for rule in FORMS {
            fixture.assert_answers(rule, 32, name);
        }
    }
}

/// Alone, in odd batches, and all at once; asked while a frame waits for its partner.
#[test]
fn how_frames_are_pushed_does_not_matter() {
    let fixture = Fixture::open("qwen3-wide");
    let frames = fixture.frames();
    for method in ["full", "rekv", "streamkv", "auto"] {
        let run = |sizes: &[usize]| {
            let mut stream = fixture.stream(internal(method), false);
            let mut rest = &frames[..];
            for &size in sizes.iter().cycle() {
                let (now, later) = rest.split_at(size.min(rest.len()));
                stream.push_frames(now).unwrap();
                ask(&stream, "what?", 1);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            first_logits(&stream, "what?")
        };
        let whole = run(&[frames.len()]);
        for sizes in [&[1][..], &[2], &[3], &[1, 4, 2]] {
            assert_close(&run(sizes), &whole, 1e-4, &format!("{method} {sizes:?}"));
        }
    }
}

/// Time is in the words: the same frames an hour later are another video, whatever the nominal rate.
#[test]
fn units_tell_their_own_time() {
    let fixture = Fixture::open("qwen3-hub");
    let logits = |start: f64, sample_rate| {
        let options = StreamOptions { sample_rate, ..StreamOptions::default() };
        let recipe = Recipe::named("full").unwrap();
        let mut stream = Stream::open(fixture.model.clone(), recipe, options).unwrap();
        stream.push_frames(&fixture.frames_from(start)).unwrap();
        let told: Vec<f64> = stream.memory().units().map(|unit| unit.told - start).collect();
        let middles = [1.0 / 6.0, 5.0 / 6.0, 9.0 / 6.0];
        assert!(told.iter().zip(middles).all(|(a, b)| (a - b).abs() < 1e-6), "{told:?}");
        first_logits(&stream, "what?")
    };
    let (now, later) = (logits(0.0, None), logits(3600.0, None));
    assert!(differ(&now, &later));
    assert_close(&logits(0.0, Some(1.0)), &now, 1e-5, "another nominal rate");
}

/// Units that became one, and a segment's summary: each says the middle of what it stands for.
#[test]
fn what_was_merged_tells_a_time_of_its_own() {
    let fixture = Fixture::open("qwen3-wide");
    let frame = &fixture.frames()[0];
    let mut recipe = Recipe::named("streamkv").unwrap();
    for (key, value) in
        [("segment-min", "1"), ("segment-max", "2"), ("segment-seconds", "11"), ("keep-ratio", "1")]
    {
        recipe.set(key, value).unwrap();
    }
    let mut stream = Stream::new(fixture.model.clone(), recipe).unwrap();
    for second in 0..24 {
        let rgb = frame.rgb().to_vec();
        let at = f64::from(second);
        stream.push(&Frame::new(rgb, frame.width(), frame.height(), at).unwrap()).unwrap();
    }
    let (mut merged, mut summaries) = (0, 0);
    for unit in stream.memory().units() {
        let span = unit.frames.end - unit.frames.start;
        if unit.kind == Kind::Frame && span > 2 {
            merged += 1;
            assert_eq!(unit.told, (unit.start + unit.end) / 2.0);
        }
        if unit.kind == Kind::Summary {
            summaries += 1;
            let own = stream
                .memory()
                .units()
                .filter(|own| own.kind == Kind::Frame && own.segment == unit.segment);
            let told: Vec<f64> = own.map(|own| own.told).collect();
            let (first, last) = (told[0], told[told.len() - 1]);
            assert!(first < last, "{told:?}");
            assert_eq!(unit.told, (first + last) / 2.0);
        }
    }
    assert!(merged > 0 && summaries > 0, "{merged} {summaries}");
}

/// Clocks may say anything; the words stay short.
#[test]
fn frames_ages_apart_are_seen_and_asked_about() {
    let fixture = Fixture::open("qwen3-wide");
    for spacing in [1e18, 1e308, -1e18, 5e-324] {
        for &method in Recipe::names() {
            let mut stream = fixture.stream(internal(method), false);
            for (i, frame) in fixture.frames().into_iter().enumerate() {
                let time = (i as f64 - 2.0) * spacing;
                let rgb = frame.rgb().to_vec();
                let Ok(frame) = Frame::new(rgb, frame.width(), frame.height(), time) else {
                    continue;
                };
                stream.push(&frame).unwrap();
            }
            let answer = ask(&stream, "what?", 1);
            let prefix = stream.memory().held().prefix_tokens();
            for layer in &answer.layers {
                assert!(layer.context_tokens - prefix < 400, "{method} {spacing}");
            }
            assert!(answer.first_logits.unwrap().iter().all(|x| x.is_finite()), "{method}");
        }
    }
}

#[test]
fn retrieving_everything_equals_keeping_everything() {
    for compat in [false, true] {
        let fixture = Fixture::open("qwen3-wide");
        let logits = |method| {
            let mut stream = fixture.stream(internal(method), compat);
            stream.push_frames(&fixture.frames()).unwrap();
            first_logits(&stream, "What color was the ring?")
        };
        for method in ["rekv", "sliding-window", "auto"] {
            assert_close(&logits(method), &logits("full"), 1e-5, method);
        }
    }
}

/// Units that were not retrieved leave no gap but their time: the answer is that of a stream of the
/// retrieved ones alone, at their times. A window of one token keeps units from seeing each other.
#[test]
fn retrieved_units_stand_side_by_side_and_keep_their_words() {
    let fixture = Fixture::open("qwen3-wide");
    let frames = fixture.frames();
    let newest = |frames: &[Frame]| {
        let mut recipe = Recipe::named("streamkv").unwrap();
        for (key, value) in [
            ("window", "1"),
            ("segment-frames", "1"),
            ("summary", "false"),
            ("keep-ratio", "1"),
            ("retrieve-temperature", "0"),
            ("retrieve", "1"),
            ("recent", "1"),
        ] {
            recipe.set(key, value).unwrap();
        }
        let mut stream = Stream::new(fixture.model.clone(), recipe).unwrap();
        stream.push_frames(frames).unwrap();
        let answer = ask(&stream, "what?", 1);
        assert_eq!(answer.layers[0].retrieved.len(), 1);
        answer.first_logits.unwrap()
    };
    assert_close(&newest(&frames[..4]), &newest(&frames[2..4]), 1e-5, "behind another unit");
    assert!(differ(&newest(&frames[2..4]), &newest(&frames[..2])));
}

/// Frames of the fixture again and again, one every three seconds.
fn long(fixture: &Fixture, times: usize) -> Vec<Frame> {
    let span = fixture.frames().len() as f64 / fixture.rate();
    (0..times).flat_map(|i| fixture.frames_from(i as f64 * span)).collect()
}

#[test]
fn every_method_answers_and_keeps_words_with_their_pictures() {
    let fixture = Fixture::open("qwen3-wide");
    let frames = long(&fixture, 8);
    for &method in Recipe::names() {
        let mut recipe = internal(method);
        // Small enough that resident caches shrink.
        if recipe.options().iter().any(|option| option.name == "cap") {
            recipe.set("cap", "6").unwrap();
        }
        let mut stream = fixture.stream(recipe, false);
        stream.push_frames(&frames).unwrap();
        let before = stream.stats().bytes;
        let answer = ask(&stream, "What color was the ring?", 6);
        assert_eq!(stream.stats().bytes, before, "{method}: asking changes nothing");
        assert_eq!(ask(&stream, "What color was the ring?", 6).ids, answer.ids, "{method}");
        assert!(!answer.ids.is_empty() && !answer.evidence.is_empty(), "{method}");
        assert!(answer.layers.iter().all(|layer| !layer.retrieved.is_empty()), "{method}");
        let held = stream.memory().held();
        for layer in held.resident.into_iter().flatten() {
            assert!(layer.tokens() <= 6 * held.geometry.unit_tokens, "{method}");
            for rows in layer.lists() {
                for unit in rows.chunk_by(|a, b| a.unit == b.unit) {
                    let words = unit.iter().filter(|row| row.is_word()).count();
                    let known = stream.memory().units().find(|known| known.id == unit[0].unit);
                    let all = known.unwrap().words.tokens();
                    // What was made up for tokens that are gone may stand alone.
                    let seen = unit.iter().any(|row| !row.is_word() && row.patch != u32::MAX);
                    assert!(!seen || words == all, "{method}");
                }
            }
        }
    }
}

#[test]
fn half_formats_run() {
    for dtype in [DTypeChoice::Bf16, DTypeChoice::F16] {
        let options = LoadOptions { dtype, ..LoadOptions::default() };
        let model = VideoLlm::load(fixture("qwen3-hub"), &options).unwrap();
        let exact = Fixture::open("qwen3-hub");
        let tokens = model.encode_frames(&exact.frames(), &exact.picture(), &Cancel::new());
        assert_close(&flat(&tokens.unwrap()), &flat(&exact.units()), 0.3, &format!("{dtype:?}"));
        let mut stream = Stream::new(model, Recipe::named("full").unwrap()).unwrap();
        stream.push_frames(&exact.frames()).unwrap();
        assert!(!ask(&stream, "what?", 2).ids.is_empty());
    }
}

#[test]
fn the_system_message_goes_where_the_template_puts_it() {
    for name in ALL {
        let fixture = Fixture::open(name);
        let prompts = fixture.model.prompts();
        let rendered = fixture.expected["system_prompt"].as_str().unwrap();
        let (before, after) = rendered.split_once("<|video_pad|>").unwrap();
        for nested in [false, true] {
            let form = Form { style: PromptStyle::Hf, nested };
            let opening = prompts.opening(form, Some("Be brief."), "").unwrap();
            let tail = prompts.tail(form, Some("Be brief."), "what?").unwrap();
            // Control tokens are left out by both.
            let words = |text: &str| {
                let controls = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"];
                controls.iter().fold(text.to_owned(), |text, control| text.replace(control, ""))
            };
            assert_eq!(prompts.decode(&opening).unwrap(), words(before), "{name}");
            assert_eq!(prompts.decode(&tail.ids).unwrap(), words(after), "{name}");
        }
    }
}

#[test]
fn a_config_is_checked_and_its_faults_are_named() {
    for (path, value, named) in [
        ("/text_config/rope_scaling/mrope_section", "[5, 2, 2]", "add up to 8"),
        ("/text_config/rope_scaling/mrope_section", "[1, 6, 1]", "a third each"),
        ("/text_config/rope_scaling/mrope_interleaved", "false", "mrope_interleaved"),
        ("/text_config/rope_scaling/rope_type", "\"yarn\"", "`yarn`"),
        ("/text_config/rope_theta", "null", "rope_theta"),
        ("/text_config/attention_bias", "true", "attention_bias"),
        ("/text_config/head_dim", "15", "head dim 15"),
        ("/text_config/model_type", "\"qwen3_moe\"", "qwen3_vl_text"),
        ("/vision_config/out_hidden_size", "32", "`hidden_size` is 64"),
        ("/vision_config/deepstack_visual_indexes", "[1, 9]", "layers of 4"),
        ("/vision_config/deepstack_visual_indexes", "[3, 1]", "ascending"),
        ("/vision_config/deepstack_visual_indexes", "[0, 1, 2, 3]", "more than the decoder has"),
        ("/vision_config/num_position_embeddings", "50", "square number"),
        ("/vision_config/num_heads", "3", "num_heads"),
        ("/vision_config/hidden_act", "\"silu\"", "gelu_pytorch_tanh"),
        ("/vision_config/patch_size", "14", "pos_embed"),
    ] {
        let copy = Copy::of("qwen3-hub");
        let value: Value = serde_json::from_str(value).unwrap();
        copy.edit("config.json", |config| *config.pointer_mut(path).unwrap() = value.clone());
        let message = copy.error().to_string();
        let expected = if path.ends_with("patch_size") { "patch_size" } else { named };
        assert!(message.contains(expected), "{path}: {message}");
    }
}

#[test]
fn a_tokenizer_without_the_brackets_is_refused() {
    let copy = Copy::of("qwen3-hub");
    let text = std::fs::read_to_string(copy.path("tokenizer.json")).unwrap();
    copy.write("tokenizer.json", &text.replace("<|vision_end|>", "<|vision_fin|>"));
    copy.refused(&["tokenizer.json", "`<|vision_end|>`"]);
}
