// SPDX-License-Identifier: MPL-2.0
//! Folders and videos as people have them: settings in the wrong file, a head that the config denies, more
//! tokens than rows, pictures of any size, one frame alone, an hour on the clock.

mod common;

use candle_core::Device;
use common::against::{Fixture, ask, differ, first_logits, flat, internal};
use common::{Copy, assert_close};
use gststreamkvqa::model::prompt::{Form, PromptStyle};
use gststreamkvqa::model::vision::Moment;
use gststreamkvqa::{Frame, Recipe, Stream, VideoLlm};
use serde_json::{Value, json};

fn full(model: VideoLlm) -> Stream {
    Stream::new(model, Recipe::named("full").unwrap()).unwrap()
}

/// What a model says first of a fixture's frames.
fn said_first(model: VideoLlm, frames: &[Frame]) -> Vec<f32> {
    let mut stream = full(model);
    stream.push_frames(frames).unwrap();
    first_logits(&stream, "what?")
}

/// Where config and weights disagree, transformers 5 believes the weights.
#[test]
fn a_head_that_is_not_the_embeddings_counts_for_more_than_the_config() {
    let fixture = Fixture::open("qwen3-one");
    let frames = fixture.frames();
    let folder = |tied: bool, other: bool| {
        let copy = Copy::of("qwen3-one");
        copy.edit("config.json", |config| config["tie_word_embeddings"] = tied.into());
        if other {
            copy.change("lm_head.weight", |i, x| if i % 3 == 0 { -x } else { x });
        }
        copy.load()
    };
    let (same, other) = (folder(true, false), folder(true, true));
    assert!(other.weight_bytes() > same.weight_bytes(), "a copy is not held twice");
    let told = said_first(other, &frames);
    assert_close(&told, &said_first(folder(false, true), &frames), 1e-6, "as if untied");
    assert!(differ(&told, &said_first(same, &frames)));
}

#[test]
fn a_head_that_is_asked_for_and_not_there_is_named() {
    let copy = Copy::of("qwen3-wide");
    copy.edit("config.json", |config| config["tie_word_embeddings"] = false.into());
    copy.refused(&["lm_head.weight", "missing"]);
}

/// The published folders of InternVL3.5 say 384 pixels and CLIP's colours for videos, of a tower that takes
/// 448 and was trained with others.
#[test]
fn settings_that_the_tower_cannot_take_are_passed_over() {
    let fixture = Fixture::open("intern-hub");
    let pixels = |copy: &Copy| {
        let (model, frames) = (copy.load(), fixture.frames());
        let picture = model.picture(&frames[0]).unwrap();
        flat(&model.vision().pixels(&frames, &picture, &Device::Cpu).unwrap())
    };
    let said = |side: u32, mean: f64| {
        let size = json!({"height": side, "width": side});
        let colours = [mean; 3];
        json!({"size": size, "image_mean": colours, "image_std": [0.5, 0.5, 0.5],
               "video_processor_type": "InternVLVideoProcessor"})
    };
    let expected = flat(&fixture.tensors["pixel_values"]);
    let copy = Copy::of("intern-hub");
    copy.write("video_preprocessor_config.json", &said(48, 0.1).to_string());
    assert_close(&pixels(&copy), &expected, 1e-5, "those for still images fit");
    // Without a size it is the class's, 384.
    copy.edit("video_preprocessor_config.json", |said| said["size"] = Value::Null);
    assert_close(&pixels(&copy), &expected, 1e-5, "those for still images fit");
    copy.write("video_preprocessor_config.json", &said(56, 0.1).to_string());
    assert!(differ(&pixels(&copy), &expected), "what fits is best as ever");
    copy.write("video_preprocessor_config.json", &said(48, 0.1).to_string());
    copy.edit("preprocessor_config.json", |said| said["size"] = json!({"height": 40, "width": 40}));
    copy.refused(&["video_preprocessor_config.json", "`size` is 48", "takes 56"]);
    copy.write("video_preprocessor_config.json", "{\"size\": \"large\"}");
    copy.refused(&["video_preprocessor_config.json"]);
}

#[test]
fn a_folder_without_settings_says_which_files_may_have_them() {
    for name in ["qwen3-wide", "qwen2-hub", "intern-three"] {
        let copy = Copy::of(name);
        for file in
            ["processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"]
        {
            let _ = std::fs::remove_file(copy.path(file));
        }
        copy.refused(&["no processor settings", "preprocessor_config.json"]);
    }
}

/// `<video>` of InternVL3 stands behind the last row of its embeddings. The token is never fed.
#[test]
fn a_placeholder_without_an_embedding_is_no_harm() {
    let fixture = Fixture::open("intern-hub");
    let copy = Copy::of("intern-hub");
    let text = std::fs::read_to_string(copy.path("tokenizer.json")).unwrap();
    let words: Value = serde_json::from_str(&text).unwrap();
    let added = words["added_tokens"].as_array().unwrap();
    let video = added.iter().find(|token| token["content"] == "<video>").unwrap()["id"].clone();
    let rows = video.as_u64().unwrap() as usize;
    copy.edit("config.json", |config| config["text_config"]["vocab_size"] = rows.into());
    for file in std::fs::read_dir(copy.dir()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let mut tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
        for (name, tensor) in &mut tensors {
            if name.ends_with("embed_tokens.weight") || name.ends_with("lm_head.weight") {
                *tensor = tensor.narrow(0, 0, rows).unwrap().contiguous().unwrap();
            }
        }
        candle_core::safetensors::save(&tensors, path).unwrap();
    }
    let mut stream = full(copy.load());
    stream.push_frames(&fixture.frames()).unwrap();
    let mut whole = fixture.stream(internal("full"), false);
    whole.push_frames(&fixture.frames()).unwrap();
    let question = "is <video> a word?";
    assert_eq!(ask(&stream, question, 16).ids, ask(&whole, question, 16).ids);
}

/// Without DeepStack it is a tower as any other.
#[test]
fn deepstack_may_name_no_layer() {
    let copy = Copy::of("qwen3-one");
    copy.edit("config.json", |config| {
        config["vision_config"]["deepstack_visual_indexes"] = json!([]);
    });
    copy.refused(&["has no place for", "deepstack_merger_list.0"]);
    copy.rewrite(|tensors| tensors.retain(|(name, _)| !name.contains("deepstack")));
    let fixture = Fixture::open("qwen3-one");
    let model = copy.load();
    assert_eq!(model.vision().vectors(), 1);
    let own = said_first(model, &fixture.frames());
    assert!(differ(&own, &said_first(fixture.model.clone(), &fixture.frames())));
}

fn painted((width, height): (usize, usize), seed: usize, time: f64) -> Frame {
    let rgb = (0..3 * width * height).map(|i| (i * 31 + seed * 77) as u8).collect();
    Frame::new(rgb, width, height, time).unwrap()
}

/// A point, a line across, a line down, portrait: each is seen, or said to be too thin.
#[test]
fn pictures_of_any_size_are_seen_or_refused_by_name() {
    for name in ["qwen3-wide", "qwen3-hub", "qwen2-wide", "intern-three"] {
        let model = Fixture::open(name).model;
        for size in [(1, 1), (4000, 30), (30, 4000), (7, 3), (45, 80), (1, 199), (2000, 9)] {
            let mut stream = full(model.clone());
            let frames: Vec<Frame> = (0..3).map(|i| painted(size, i, i as f64)).collect();
            let pushed = frames.iter().try_for_each(|frame| stream.push(frame));
            if let Err(fault) = pushed {
                let thin = size.0.max(size.1) > 200 * size.0.min(size.1);
                assert!(
                    thin && fault.to_string().contains("at most 200"),
                    "{name} {size:?} {fault}"
                );
                continue;
            }
            let logits = first_logits(&stream, "what?");
            assert!(logits.iter().all(|x| x.is_finite()), "{name} {size:?}");
        }
    }
}

/// A frame that waits for its partner is a unit of its own, at its own time: as if it came twice.
#[test]
fn one_frame_alone_is_a_unit() {
    for name in ["qwen3-wide", "qwen2-wide"] {
        let model = Fixture::open(name).model;
        let frame = painted((90, 64), 1, 7261.5);
        let alone = said_first(model.clone(), std::slice::from_ref(&frame));
        let twice = said_first(model.clone(), &[frame.clone(), frame]);
        assert_close(&alone, &twice, 1e-5, name);
    }
}

#[test]
fn an_hour_and_a_day_are_told_in_seconds() {
    let fixture = Fixture::open("qwen3-wide");
    let prompts = fixture.model.prompts();
    for (seconds, told) in [
        (7261.5, "<7261.5 seconds>"),
        (86_399.96, "<86400.0 seconds>"),
        (0.05, "<0.1 seconds>"),
        (0.25, "<0.2 seconds>"),
        (1e6 + 0.04, "<1000000.0 seconds>"),
    ] {
        let [front, _] = prompts.around(Moment { frame: 0, seconds }).unwrap().unwrap();
        assert_eq!(prompts.decode(&front).unwrap(), told);
    }
    let frames = fixture.frames_from(7200.0);
    let mut stream = fixture.stream(internal("full"), false);
    stream.push_frames(&frames).unwrap();
    let answer = ask(&stream, "what?", 4);
    assert!(answer.evidence.iter().all(|found| found.end > 7199.0), "{:?}", answer.evidence);
}

#[test]
fn numbers_of_frames_go_on_counting() {
    let prompts = Fixture::open("intern-three");
    let prompts = prompts.model.prompts();
    for (frame, told) in [(0, "Frame1: "), (9, "Frame10: "), (123_455, "Frame123456: ")] {
        let [front, behind] = prompts.around(Moment { frame, seconds: 0.0 }).unwrap().unwrap();
        assert_eq!(prompts.decode(&front).unwrap(), told);
        assert_eq!(prompts.decode(&behind).unwrap(), "\n");
    }
}

/// A budget for all frames of a video is no bound of a frame's; colours that nobody names are the class's.
#[test]
fn a_frame_of_qwen3_vl_has_bounds_and_colours_of_its_own() {
    let fixture = Fixture::open("qwen3-hub");
    let copy = Copy::of("qwen3-hub");
    copy.edit("video_preprocessor_config.json", |said| {
        said["size"] = json!({"longest_edge": 25_165_824, "shortest_edge": 4096});
    });
    let model = copy.load();
    for (size, tokens) in [((1920, 1080), 20 * 36), ((4000, 4000), 27 * 27), ((48, 80), 4)] {
        assert_eq!(model.picture(&painted(size, 0, 0.0)).unwrap().tokens(), tokens, "{size:?}");
    }
    let copy = Copy::of("qwen3-hub");
    copy.edit("video_preprocessor_config.json", |said| {
        for name in ["image_mean", "image_std"] {
            assert!(said.as_object_mut().unwrap().remove(name).is_some());
        }
    });
    let (model, frames) = (copy.load(), fixture.frames());
    let made = model.vision().pixels(&frames, &fixture.picture(), &Device::Cpu).unwrap();
    assert_close(&flat(&made), &flat(&fixture.tensors["pixel_values"]), 1e-5, "0.5 and 0.5");
}

/// The settings for still images do for a video where there are no others, within a frame's bounds.
#[test]
fn settings_for_still_images_do_for_video() {
    let fixture = Fixture::open("qwen3-hub");
    let copy = Copy::of("qwen3-hub");
    std::fs::remove_file(copy.path("video_preprocessor_config.json")).unwrap();
    let model = copy.load();
    let picture = model.picture(&painted((1920, 1080), 0, 0.0)).unwrap();
    assert!(picture.tokens() <= 768, "{picture:?}");
    let picture = model.picture(&fixture.frames()[0]).unwrap();
    assert!(picture.tokens() >= 64, "65536 pixels: {picture:?}");
}

/// What the published templates are made of: tools, kinds of contents counted in a namespace, markup between
/// tags, turns of others.
const LONG: &str = "\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].content is string %}
        {{- messages[0].content }}
    {%- else %}
        {%- for content in messages[0].content %}
            {%- if 'text' in content %}{{- content.text }}{%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- set image_count = namespace(value=0) %}
{%- set video_count = namespace(value=0) %}
{%- for message in messages %}
    {%- if message.role == \"user\" %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- for content in message.content %}
            {%- if content.type == 'image' or 'image' in content or 'image_url' in content %}
                {%- set image_count.value = image_count.value + 1 %}
                {%- if add_vision_id %}Picture {{ image_count.value }}: {% endif -%}
                <|vision_start|><|image_pad|><|vision_end|>
            {%- elif content.type == 'video' or 'video' in content %}
                {%- set video_count.value = video_count.value + 1 %}
                {%- if add_vision_id %}Video {{ video_count.value }}: {% endif -%}
                <|vision_start|><|video_pad|><|vision_end|>
            {%- elif 'text' in content %}
                {{- content.text }}
            {%- endif %}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == \"tool\" %}
        {%- if loop.first or messages[loop.index0 - 1].role != \"tool\" %}{{- '<|im_start|>user' }}{%- endif %}
        {%- if loop.last or messages[loop.index0 + 1].role != \"tool\" %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
";

#[test]
fn a_template_as_long_as_the_published_says_the_same() {
    let fixture = Fixture::open("qwen3-hub");
    let copy = Copy::of("qwen3-hub");
    copy.write("chat_template.json", &json!({"chat_template": LONG}).to_string());
    let (long, short) = (copy.load(), &fixture.model);
    for nested in [false, true] {
        let form = Form { style: PromptStyle::Hf, nested };
        for system in [None, Some("Be brief.")] {
            let of = |model: &VideoLlm| {
                let prompts = model.prompts();
                let tail = prompts.tail(form, system, "what <|im_end|> now?").unwrap();
                (prompts.opening(form, system, "").unwrap(), tail.ids)
            };
            assert_eq!(of(&long), of(short), "{nested} {system:?}");
        }
    }
}
