// SPDX-License-Identifier: MPL-2.0
//! Qwen2.5-VL against Hugging Face transformers, and its streams against themselves. The fixtures
//! hold what the same checkpoint, frames and questions give there (`tools/fixtures/README.md`).

mod common;

use candle_core::{Device, Tensor};
use common::against::{Causal, Fixture, ask, first_logits, flat, ids, internal};
use common::{assert_close, fixture};
use gststreamkvqa::model::DTypeChoice;
use gststreamkvqa::model::prompt::PromptStyle;
use gststreamkvqa::model::rope::{Place, Positions};
use gststreamkvqa::{
    Cancel, EngineError, Frame, LoadOptions, Recipe, Result, Stream, StreamOptions, VideoLlm,
};
use serde_json::Value;

/// Odd and even numbers of frames, wide, high and small ones; one a second, three, and so few that
/// time runs ahead of any question; and a model that ships, whose weights are trained and in f16.
const ALL: [&str; 4] = ["qwen-wide", "qwen-hub", "qwen-tree", "everyday-qwen"];

/// The two rules for the position of what follows a video, as the fixtures name them.
const RULES: [(&str, bool); 2] = [("", false), ("compat_", true)];

#[test]
fn pixels_are_those_of_the_processor() {
    for name in ALL {
        Fixture::open(name).assert_pixels(name);
    }
}

#[test]
fn unit_tokens_agree_in_a_batch_and_alone() {
    for name in ALL {
        Fixture::open(name).assert_units(name);
    }
}

#[test]
fn prompt_ids_positions_and_all_logits_agree() {
    for name in ALL {
        let fixture = Fixture::open(name);
        let (model, units, picture) = (&fixture.model, fixture.units(), fixture.picture());
        let video = units.dims()[0] * units.dims()[1];
        for (i, question, text) in fixture.questions() {
            let opening = model.prompts().opening(PromptStyle::Hf, None, "").unwrap();
            let tail = model.prompts().tail(PromptStyle::Hf, None, text).unwrap().ids;
            let wanted = ids(&question["input_ids"]);
            assert_eq!(opening, wanted[..opening.len()], "{name} {text}");
            assert_eq!(tail, wanted[opening.len() + video..], "{name} {text}");

            let decoder = model.decoder();
            let units = units.reshape((video, ())).unwrap();
            let (before, after) = (decoder.embed(&opening).unwrap(), decoder.embed(&tail).unwrap());
            let embeds = Tensor::cat(&[&before, &units, &after], 0).unwrap();
            for (rule, compat) in RULES {
                let layout = model.layout(&picture, fixture.rate(), compat);
                let placed = layout.stretch(opening.len(), 0..video);
                let positions = Positions::run(0, opening.len())
                    .then(&placed.positions)
                    .then(&Positions::run(placed.next, tail.len()));
                let expected = &fixture.tensors[&format!("{rule}positions_q{i}")];
                let expected = expected.to_vec2::<i64>().unwrap();
                let found: Vec<[i64; 3]> = positions
                    .places()
                    .iter()
                    .map(|&Place { t, h, w }| [t as i64, h as i64, w as i64])
                    .collect();
                let expected: Vec<[i64; 3]> =
                    (0..wanted.len()).map(|j| [0, 1, 2].map(|axis| expected[axis][j])).collect();
                assert_eq!(found, expected, "{name} {rule}{text}");

                let hidden = decoder.forward(&embeds, &mut Causal { model, positions }).unwrap();
                let expected = &fixture.tensors[&format!("{rule}logits_q{i}")];
                let rows = expected.dims()[0];
                let hidden = hidden.narrow(0, wanted.len() - rows, rows).unwrap();
                let logits = flat(&decoder.logits(&hidden).unwrap());
                assert_close(&logits, &flat(expected), 1e-4, &format!("{name} {rule}{text}"));
            }
        }
    }
}

#[test]
fn a_stream_that_keeps_everything_answers_like_stock_generate() {
    for name in ALL {
        let fixture = Fixture::open(name);
        for rule in RULES {
            fixture.assert_answers(rule, 12, name);
        }
    }
}

#[test]
fn units_stand_at_their_own_times_whatever_the_nominal_rate() {
    let fixture = Fixture::open("qwen-hub");
    let frames = [fixture.frames(), fixture.frames()].concat();
    let logits = |sample_rate, seconds: &dyn Fn(usize) -> f64| {
        let options = StreamOptions { sample_rate, ..StreamOptions::default() };
        let recipe = Recipe::named("full").unwrap();
        let mut stream = Stream::open(fixture.model.clone(), recipe, options).unwrap();
        for (i, frame) in frames.iter().enumerate() {
            let (rgb, time) = (frame.rgb().to_vec(), 100.0 + seconds(i));
            let frame = Frame::new(rgb, frame.width(), frame.height(), time).unwrap();
            stream.push(&frame).unwrap();
        }
        first_logits(&stream, "what?")
    };
    let apart = |seconds: f64| move |i: usize| i as f64 * seconds;
    let (near, far) = (logits(Some(1.0), &apart(1.0)), logits(Some(0.2), &apart(5.0)));
    assert!(near.iter().zip(&far).any(|(a, b)| (a - b).abs() > 1e-3), "time shows");
    assert_close(&logits(Some(1.0), &apart(5.0)), &far, 1e-5, "frames 5 s apart at one a second");
    assert_close(&logits(None, &apart(5.0)), &far, 1e-5, "as far apart as the frames are");
    assert_close(&logits(Some(5.0), &apart(1.0)), &near, 1e-5, "frames 1 s apart at five a second");
    // Two frames were dropped: what follows stands two seconds later, and not a unit earlier.
    let dropped = |i: usize| if i < 4 { i as f64 } else { i as f64 + 2.0 };
    let late = logits(Some(1.0), &dropped);
    assert!(near.iter().zip(&late).any(|(a, b)| (a - b).abs() > 1e-4), "the gap shows");
    // Clocks round.
    let rounded = |i: usize| (i as f64 / 3.0 * 1e3).round() / 1e3;
    assert_close(&logits(Some(3.0), &rounded), &logits(Some(3.0), &apart(1.0 / 3.0)), 1e-5, "ms");
}

#[test]
fn a_clock_that_jumps_does_not_take_the_rest_of_the_stream_with_it() {
    let fixture = Fixture::open("qwen-hub");
    let frames = [fixture.frames(), fixture.frames()].concat();
    let times = |seconds: &dyn Fn(usize) -> f64| -> Vec<f64> {
        let options = StreamOptions { sample_rate: Some(1.0), ..StreamOptions::default() };
        let recipe = Recipe::named("full").unwrap();
        let mut stream = Stream::open(fixture.model.clone(), recipe, options).unwrap();
        for (i, frame) in frames.iter().enumerate() {
            let (rgb, time) = (frame.rgb().to_vec(), seconds(i));
            stream.push(&Frame::new(rgb, frame.width(), frame.height(), time).unwrap()).unwrap();
        }
        stream.memory().units().map(|unit| unit.time).collect()
    };
    let regular = times(&|i| i as f64);
    assert!(regular.len() >= 3);
    assert_eq!(regular, (0..regular.len()).map(|i| i as f64).collect::<Vec<_>>());
    assert_eq!(times(&|i| if i < 4 { 1000.0 + i as f64 } else { i as f64 - 4.0 }), regular);
    assert_eq!(times(&|i| if i < 4 { i as f64 } else { 1e9 + i as f64 }), regular);
}

/// Pushed frame by frame, in odd batches, and all at once.
#[test]
fn how_frames_are_pushed_does_not_matter() {
    let fixture = Fixture::open("qwen-wide");
    let frames = [fixture.frames(), fixture.frames()].concat();
    for method in ["full", "rekv", "streamkv"] {
        let run = |sizes: &[usize]| {
            let mut stream = fixture.stream(internal(method), false);
            let mut rest = &frames[..];
            for &size in sizes.iter().cycle() {
                let (now, later) = rest.split_at(size.min(rest.len()));
                stream.push_frames(now).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            assert_eq!(stream.stats().frames, frames.len() as u64);
            first_logits(&stream, "what?")
        };
        let whole = run(&[frames.len()]);
        for sizes in [&[1][..], &[2], &[3], &[1, 4, 2]] {
            assert_close(&run(sizes), &whole, 1e-4, &format!("{method} {sizes:?}"));
        }
    }
}

#[test]
fn a_frame_without_a_partner_is_seen_and_still_gets_one() {
    let fixture = Fixture::open("qwen-wide");
    let frames = fixture.frames();
    for method in ["full", "streamkv"] {
        let mut stream = fixture.stream(internal(method), false);
        stream.push_frames(&frames[..4]).unwrap();
        let before = first_logits(&stream, "what?");
        stream.push(&frames[4]).unwrap();
        let units = stream.stats().units;
        let with_last = first_logits(&stream, "what?");
        assert_ne!(before, with_last, "the last frame is seen at once");
        assert_eq!(first_logits(&stream, "what?"), with_last, "asking changes nothing");
        assert_eq!(stream.stats().units, units, "and keeps nothing");
        // Frame 5 joins frame 4: the same as if nobody had asked in between.
        stream.push(&frames[0]).unwrap();
        let mut unasked = fixture.stream(internal(method), false);
        unasked.push_frames(&[&frames[..], &frames[..1]].concat()).unwrap();
        let (asked, unasked) = (first_logits(&stream, "what?"), first_logits(&unasked, "what?"));
        assert_close(&asked, &unasked, 1e-4, method);
    }
}

#[test]
fn the_end_of_the_stream_takes_the_last_frame_in() {
    let fixture = Fixture::open("qwen-wide");
    let mut stream = fixture.stream(internal("rekv"), false);
    stream.push_frames(&fixture.frames()).unwrap();
    let open = ask(&stream, "what?", 4);
    stream.flush().unwrap();
    let stats = stream.stats();
    assert_eq!((stats.frames, stats.units, stats.open_frames), (5, 3, 0));
    let closed = ask(&stream, "what?", 4);
    assert_eq!(open.ids, closed.ids);
    assert_close(&open.first_logits.unwrap(), &closed.first_logits.unwrap(), 1e-5, "flushed");
    let last = stream.memory().units().last().unwrap();
    assert_eq!((last.frames.clone(), last.start, last.end), (4..5, 4.0, 4.0));
}

#[test]
fn every_method_answers_and_keeps_units_whole_unless_it_thins_them() {
    const THINNED: [&str; 6] = ["auto", "mukv", "cacheflow", "livevlm", "fluxmem", "savemem"];
    let fixture = Fixture::open("qwen-wide");
    let frames: Vec<Frame> = (0..8).flat_map(|_| fixture.frames()).collect();
    let tokens = fixture.picture().tokens();
    for &method in Recipe::names() {
        let mut stream = fixture.stream(internal(method), false);
        stream.push_frames(&frames).unwrap();
        let answer = ask(&stream, "What color was the ring?", 6);
        assert!(!answer.ids.is_empty() && !answer.evidence.is_empty(), "{method}");
        let prefix = stream.memory().held().prefix_tokens();
        for layer in &answer.layers {
            assert!(!layer.retrieved.is_empty(), "{method}");
            let context = layer.context_tokens - prefix;
            let whole = layer.retrieved.len() * tokens;
            assert!(context == whole || THINNED.contains(&method) && context > 0, "{method}");
        }
    }
}

#[test]
fn retrieving_everything_equals_keeping_everything() {
    let fixture = Fixture::open("qwen-wide");
    let logits = |method| {
        let mut stream = fixture.stream(internal(method), false);
        stream.push_frames(&fixture.frames()).unwrap();
        first_logits(&stream, "What color was the ring?")
    };
    assert_close(&logits("rekv"), &logits("full"), 1e-5, "rekv");
    assert_close(&logits("sliding-window"), &logits("full"), 1e-5, "sliding-window");
}

/// Units that were not retrieved leave no gap in time: the answer is that of a stream of the
/// retrieved ones alone. A window of one token keeps units from seeing each other.
#[test]
fn retrieved_units_are_packed_by_rank() {
    let fixture = Fixture::open("qwen-wide");
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
    let differences = newest(&frames[..2]);
    assert!(newest(&frames[2..4]).iter().zip(differences).any(|(a, b)| (a - b).abs() > 1e-2));
}

/// A clock may be wrong by any amount.
#[test]
fn frames_ages_apart_are_seen_and_asked_about() {
    let fixture = Fixture::open("qwen-wide");
    for spacing in [1e18, 1e30, 1e308, -1e18, -1e308, 5e-324] {
        for &method in Recipe::names() {
            let mut stream = fixture.stream(internal(method), false);
            for (i, frame) in fixture.frames().into_iter().enumerate() {
                let time = (i as f64 - 2.0) * spacing;
                let rgb = frame.rgb().to_vec();
                let Ok(frame) = Frame::new(rgb, frame.width(), frame.height(), time) else {
                    assert!(time.is_infinite());
                    continue;
                };
                stream.push(&frame).unwrap();
            }
            let logits = first_logits(&stream, "what?");
            assert!(logits.iter().all(|x| x.is_finite()), "{method} {spacing}");
        }
    }
}

#[test]
fn half_formats_run() {
    for dtype in [DTypeChoice::Bf16, DTypeChoice::F16] {
        let options = LoadOptions { dtype, ..LoadOptions::default() };
        let model = VideoLlm::load(fixture("qwen-hub"), &options).unwrap();
        let exact = Fixture::open("qwen-hub");
        let tokens = model.encode_frames(&exact.frames(), &exact.picture(), &Cancel::new());
        assert_close(&flat(&tokens.unwrap()), &flat(&exact.units()), 0.2, &format!("{dtype:?}"));
        let mut stream = Stream::new(model, Recipe::named("full").unwrap()).unwrap();
        stream.push_frames(&exact.frames()).unwrap();
        assert!(!ask(&stream, "what?", 2).ids.is_empty());
    }
}

#[test]
fn a_frame_of_another_shape_is_fitted_in_between_black_bars() {
    let fixture = Fixture::open("qwen-wide");
    let picture = fixture.picture();
    let (width, height) = (picture.cols * 28, picture.rows * 28);
    let white = |w, h| Frame::new(vec![255; 3 * w * h], w, h, 0.0).unwrap();
    let vision = fixture.model.vision();
    let bright = |frame: Frame| {
        let pixels = flat(&vision.pixels(&[frame], &picture, &Device::Cpu).unwrap());
        assert_eq!(pixels.len(), 3 * 2 * width * height);
        pixels.iter().filter(|&&level| level > 0.0).count() as f64 / pixels.len() as f64
    };
    assert_eq!(bright(white(90, 64)), 1.0, "the shape that the stream began with");
    assert_eq!(bright(white(900, 640)), 1.0, "the same shape in another size");
    let portrait = bright(white(64, 90));
    let expected = (64.0 / 90.0) * (64.0 / 90.0);
    assert!((portrait - expected).abs() < 0.02, "{portrait} is not {expected}");

    let mut stream = fixture.stream(internal("rekv"), false);
    stream.push_frames(&fixture.frames()).unwrap();
    stream.push_frames(&[white(64, 90), white(1, 150), white(300, 20)]).unwrap();
    assert_eq!(ask(&stream, "what?", 2).layers[0].retrieved.len(), 4);
}

#[test]
fn a_new_stream_may_have_another_shape() {
    let fixture = Fixture::open("qwen-wide");
    let mut stream = fixture.stream(internal("full"), false);
    let high = |time| Frame::new(vec![90; 3 * 60 * 170], 60, 170, time).unwrap();
    stream.push_frames(&[high(0.0), high(1.0)]).unwrap();
    let prefix = stream.memory().held().prefix_tokens();
    assert_eq!(ask(&stream, "what?", 1).layers[0].context_tokens, prefix + 6 * 2);
    stream.clear().unwrap();
    stream.push_frames(&fixture.frames()).unwrap();
    assert_eq!(ask(&stream, "what?", 1).layers[0].context_tokens, prefix + 3 * 6);
    let mut fresh = fixture.stream(internal("full"), false);
    fresh.push_frames(&fixture.frames()).unwrap();
    assert_eq!(first_logits(&stream, "what?"), first_logits(&fresh, "what?"));
}

#[test]
fn a_frame_that_is_no_picture_is_refused() {
    let fixture = Fixture::open("qwen-wide");
    let mut stream = fixture.stream(internal("full"), false);
    let thin = Frame::new(vec![0; 3 * 2 * 500], 500, 2, 1.5).unwrap();
    let message = stream.push(&thin).unwrap_err().to_string();
    assert!(message.contains("1.500 s") && message.contains("500x2"), "{message}");
}

#[test]
fn the_system_message_goes_where_the_template_puts_it() {
    for name in ALL {
        let fixture = Fixture::open(name);
        let prompts = fixture.model.prompts();
        let rendered = fixture.expected["system_prompt"].as_str().unwrap();
        let (before, after) = rendered.split_once("<|video_pad|>").unwrap();
        for (style, system, default) in
            [(PromptStyle::Hf, Some("Be brief."), ""), (PromptStyle::Rekv, None, "Be brief.")]
        {
            let opening = prompts.opening(style, system, default).unwrap();
            let tail = prompts.tail(style, system, "what?").unwrap();
            // Control tokens are left out by both.
            let words = |text: &str| {
                let controls = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"];
                controls.iter().fold(text.to_owned(), |text, control| text.replace(control, ""))
            };
            assert_eq!(prompts.decode(&opening).unwrap(), words(before), "{name} {style:?}");
            assert_eq!(prompts.decode(&tail.ids).unwrap(), words(after), "{name} {style:?}");
        }
    }
}

/// A copy of `qwen-hub` whose config was changed by `change`.
fn load_changed(change: impl Fn(&mut Value)) -> Result<VideoLlm> {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture("qwen-hub")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, config.to_string()).unwrap();
    VideoLlm::load(dir.path(), &LoadOptions::default())
}

fn refused(change: impl Fn(&mut Value)) -> EngineError {
    load_changed(change).err().expect("loads")
}

fn remove(config: &mut Value, path: &[&str]) {
    let (last, parents) = path.split_last().unwrap();
    let parent = parents.iter().fold(config, |value, name| &mut value[*name]);
    parent.as_object_mut().unwrap().remove(*last).unwrap();
}

/// The fixtures have these numbers in common, so that nothing else shows where they come from.
#[test]
fn time_and_windows_are_as_the_config_says() {
    let fixture = Fixture::open("qwen-hub");
    let picture = fixture.picture();
    let times = |model: &VideoLlm| {
        let video = model.layout(&picture, fixture.rate(), false);
        let places = video.stretch(0, 0..3 * picture.tokens()).positions.places();
        places.iter().step_by(picture.tokens()).map(|place| place.t).collect::<Vec<_>>()
    };
    // A unit is two frames of three a second.
    assert_eq!(times(&fixture.model), [0, 1, 2]);
    let with = |key: &str, value: Value| {
        load_changed(|config| config["vision_config"][key] = value.clone()).unwrap()
    };
    assert_eq!(times(&with("tokens_per_second", 5.into())), [0, 3, 6]);
    let default = load_changed(|config| remove(config, &["vision_config", "tokens_per_second"]));
    assert_eq!(times(&default.unwrap()), [0, 2, 5], "4, as in transformers");

    let units = |model: VideoLlm| {
        flat(&model.encode_frames(&fixture.frames(), &picture, &Cancel::new()).unwrap())
    };
    let own = flat(&fixture.units());
    let full = units(with("fullatt_block_indexes", vec![0, 1, 2, 3].into()));
    assert_close(&units(with("window_size", 280.into())), &full, 1e-5, "one window is all");
    let third = units(with("fullatt_block_indexes", vec![3].into()));
    for (other, what) in [(full, "full attention"), (third, "fewer full layers")] {
        assert!(own.iter().zip(other).any(|(a, b)| (a - b).abs() > 1e-2), "{what}");
    }
}

#[test]
fn a_config_is_checked_and_its_faults_are_named() {
    for path in [
        &["hidden_size"][..],
        &["num_attention_heads"],
        &["vision_config"],
        &["vision_config", "out_hidden_size"],
        &["rope_scaling", "mrope_section"],
    ] {
        let message = refused(|config| remove(config, path)).to_string();
        assert!(
            message.contains("config.json") && message.contains(path[path.len() - 1]),
            "{message}"
        );
    }
    // The class has a default, of which these weights are not.
    let message = refused(|config| remove(config, &["vision_config", "depth"])).to_string();
    assert!(message.contains("`visual.blocks.10."), "{message}");
    for (path, value, named) in [
        ("/rope_scaling/mrope_section", "[2, 3, 4]", "add up to 8"),
        ("/rope_scaling/type", "\"yarn\"", "`yarn`"),
        ("/vision_config/out_hidden_size", "32", "`hidden_size` is 64"),
        ("/vision_config/fullatt_block_indexes", "[1, 9]", "layer 9 of 4"),
        ("/vision_config/window_size", "20", "window_size"),
        ("/vision_config/num_heads", "3", "num_heads"),
        ("/model_type", "\"qwen1_vl\"", "`qwen1_vl`"),
    ] {
        let value: Value = serde_json::from_str(value).unwrap();
        let change = |config: &mut Value| *config.pointer_mut(path).unwrap() = value.clone();
        let message = refused(change).to_string();
        assert!(message.contains("config.json") && message.contains(named), "{path}: {message}");
    }
}
