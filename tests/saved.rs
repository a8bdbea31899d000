// SPDX-License-Identifier: MPL-2.0
//! A stream's memory in a file: what is read back answers with the same words and goes on, whatever the
//! method; what is damaged or foreign is refused and stays; whoever is killed leaves the newest whole
//! file; and taking a snapshot holds nobody up.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Copy, fixture, painted};
use gststreamkvqa::memory::store::codec::Codec;
use gststreamkvqa::memory::store::{Budget, StoreOptions};
use gststreamkvqa::stream::StreamStats;
use gststreamkvqa::{
    EngineError, Frame, LoadOptions, Question, Recipe, SkipOptions, Stream, StreamOptions, VideoLlm,
};

fn model(name: &str) -> VideoLlm {
    VideoLlm::load(fixture(name), &LoadOptions::default()).unwrap()
}

fn video(seed: u64, frames: usize) -> Vec<Frame> {
    let options = toyworld::StreamOptions { frames, ..toyworld::StreamOptions::default() };
    painted(&toyworld::Stream::generate(seed, &options))
}

/// An answer in all that it says, and what is remembered, but for caches and what counts their use.
fn told(stream: &Stream) -> (Vec<u32>, String, StreamStats) {
    let question = Question::new("what did you see?").max_tokens(6);
    let answer = stream.ask(&question, |_| {}).unwrap();
    let mut stats = stream.stats();
    (stats.store.hits, stats.store.loads) = (0, 0);
    if stats.store.host + stats.store.disk > 0 {
        (stats.bytes, stats.store.device, stats.store.overhead) = (0, 0, 0);
    }
    (answer.ids, format!("{} {:?} {:?}", answer.text, answer.evidence, answer.layers), stats)
}

#[track_caller]
fn survives(model: &VideoLlm, recipe: &Recipe, options: &StreamOptions, frames: &[Frame]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory");
    let mut stream = Stream::open(model.clone(), recipe.clone(), options.clone()).unwrap();
    let (earlier, later) = frames.split_at(frames.len() * 2 / 3);
    stream.push_frames(earlier).unwrap();
    let before = told(&stream);
    let bytes = stream.save(&file).unwrap();
    assert_eq!(bytes, std::fs::metadata(&file).unwrap().len());
    let open = || Stream::load(model.clone(), recipe.clone(), options.clone(), &file).unwrap();
    let mut again = open();
    assert_eq!(told(&again), before, "{}", recipe.name());
    stream.push_frames(later).unwrap();
    again.push_frames(later).unwrap();
    assert_eq!(told(&again), told(&stream), "{} goes on", recipe.name());
    assert_eq!(again.end(), stream.end());
    // A file in the place of the first.
    again.save(&file).unwrap();
    assert_eq!(told(&open()), told(&again), "{} once more", recipe.name());
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing lies beside it: {names:?}");
}

#[test]
fn every_method_answers_after_a_restart_as_before() {
    let (model, frames) = (model("ov-even"), video(5, 33));
    for name in Recipe::names() {
        let mut recipe = Recipe::for_model(name, &model).unwrap();
        // Where another model ranks too, it comes along.
        if recipe.outside_expert().is_err() {
            recipe.set("external-model", fixture("pair-siglip").to_str().unwrap()).unwrap();
        }
        survives(&model, &recipe, &StreamOptions::default(), &frames);
    }
}

#[test]
fn every_family_comes_back_with_the_frames_that_wait_for_their_unit() {
    for name in ["ov-odd", "qwen-wide", "qwen2-wide", "qwen3-wide", "intern-three"] {
        let model = model(name);
        // An odd number of frames on both sides.
        let frames = video(6, 11);
        let recipe = Recipe::for_model("auto", &model).unwrap();
        survives(&model, &recipe, &StreamOptions::default(), &frames);
    }
}

#[test]
fn what_lies_encoded_on_the_host_and_on_the_disk_comes_back_where_it_lay() {
    let (model, frames) = (model("ov-even"), video(7, 40));
    let disk = tempfile::tempdir().unwrap();
    for codec in [Codec::F32, Codec::Q8, Codec::Q2] {
        let store = StoreOptions {
            codec: Some(codec),
            residual: 16,
            budget: Budget { device: Some(1 << 30), host: Some(8_000), disk: None },
            disk_path: Some(disk.path().to_owned()),
            ..StoreOptions::default()
        };
        let options = StreamOptions { store, ..StreamOptions::default() };
        survives(&model, &Recipe::for_model("rekv", &model).unwrap(), &options, &frames);
    }
}

#[test]
fn what_was_skipped_is_still_told_of() {
    let model = model("ov-even");
    let frames: Vec<Frame> = (0..12)
        .map(|i| Frame::new(vec![(i / 4) as u8 * 80; 3 * 56 * 56], 56, 56, f64::from(i)).unwrap())
        .collect();
    let skip = SkipOptions { most: 3, tolerance: 0.0 };
    let options = StreamOptions { skip, ..StreamOptions::default() };
    survives(&model, &Recipe::for_model("auto", &model).unwrap(), &options, &frames);
}

/// A file of some frames.
fn saved(model: &VideoLlm, method: &str, file: &Path) {
    let mut stream = Stream::new(model.clone(), Recipe::for_model(method, model).unwrap()).unwrap();
    stream.push_frames(&video(8, 9)).unwrap();
    stream.save(file).unwrap();
}

/// Reading a file fails with a message of these parts, and the file is as it was.
#[track_caller]
fn refused(model: &VideoLlm, recipe: &Recipe, options: StreamOptions, file: &Path, parts: &[&str]) {
    let content = std::fs::read(file).unwrap();
    let error = Stream::load(model.clone(), recipe.clone(), options, file).err();
    let error = error.unwrap_or_else(|| panic!("it is read: {parts:?}"));
    assert!(matches!(error, EngineError::Snapshot { .. }), "{error:?}");
    let message = error.to_string();
    for part in ["memory-path", file.to_str().unwrap()].iter().chain(parts) {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(std::fs::read(file).unwrap() == content, "the file has changed");
}

#[test]
fn another_model_method_option_or_prompt_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory");
    let own = model("ov-even");
    saved(&own, "rekv", &file);
    let rekv = Recipe::for_model("rekv", &own).unwrap();
    let plain = StreamOptions::default;
    let other = Copy::of("ov-even");
    other.nudge("model-00002-of-00003.safetensors");
    refused(&other.load(), &rekv, plain(), &file, &["of another model", "model-path"]);
    let other = Copy::of("ov-even");
    other.edit("config.json", |config| config["text_config"]["rms_norm_eps"] = 1e-5.into());
    refused(&other.load(), &rekv, plain(), &file, &["of another model"]);
    // Of the same content, wherever it lies.
    Stream::load(Copy::of("ov-even").load(), rekv.clone(), plain(), &file).unwrap();
    let streamkv = Recipe::for_model("streamkv", &own).unwrap();
    refused(&own, &streamkv, plain(), &file, &["method rekv", "set method=rekv"]);
    let mut wider = rekv.clone();
    wider.set("window", "77").unwrap();
    let window = rekv.options().into_iter().find(|option| option.name == "window").unwrap().value;
    refused(&own, &wider, plain(), &file, &["method-options", &format!("window={window}")]);
    let options = StreamOptions { system_prompt: Some("Look.".into()), ..plain() };
    refused(&own, &rekv, options, &file, &["system-prompt"]);
    // And a stream that has seen something keeps that.
    let mut busy = Stream::new(own.clone(), rekv.clone()).unwrap();
    busy.push_frames(&video(9, 3)).unwrap();
    let before = told(&busy);
    assert!(busy.restore(&file).unwrap_err().to_string().contains("has seen frames"));
    assert_eq!(told(&busy), before);
}

#[test]
fn every_kind_of_damage_is_noticed_and_nothing_of_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory");
    let model = model("ov-even");
    saved(&model, "auto", &file);
    let recipe = Recipe::for_model("auto", &model).unwrap();
    let whole = std::fs::read(&file).unwrap();
    let check = |content: &[u8], parts: &[&str]| {
        std::fs::write(&file, content).unwrap();
        refused(&model, &recipe, StreamOptions::default(), &file, parts);
    };
    // Each byte of what is in front, and some of the rest.
    for at in (12..200).chain((200..whole.len()).step_by(whole.len() / 150)) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        check(&flipped, &[]);
    }
    for length in (12..200).chain((200..whole.len()).step_by(whole.len() / 50)) {
        check(&whole[..length], &["is damaged", "move it away"]);
    }
    check(&[&whole[..], &[0]].concat(), &["is damaged"]);
    let mut other = whole.clone();
    other[8] = 2;
    check(&other, &["format 2", "reads format 1"]);
    check(b"not ours at all", &["no memory of a stream"]);
    check(b"", &["no memory of a stream"]);
    std::fs::write(&file, &whole).unwrap();
    let mut stream = Stream::new(model.clone(), recipe.clone()).unwrap();
    stream.restore(&file).unwrap();
    let gone = stream.restore(folder.path().join("other")).unwrap_err();
    assert!(matches!(gone, EngineError::Read { .. }), "{gone:?}");
    // What cannot be written leaves what is there.
    let away = stream.save(folder.path().join("no/memory")).unwrap_err().to_string();
    assert!(away.contains("no/memory") && away.contains("untouched"), "{away}");
}

/// Who is killed, and where it saves.
const KILLED: &str = "STREAMKVQA_TEST_KILLED";

/// Goes on where the file ends, saving again and again, until it is killed.
#[test]
fn a_child_that_is_killed() {
    let Some(file) = std::env::var_os(KILLED) else { return };
    let file = Path::new(&file);
    let model = model("ov-even");
    let recipe = Recipe::for_model("streamkv", &model).unwrap();
    let mut stream = match file.exists() {
        true => Stream::load(model, recipe, StreamOptions::default(), file).unwrap(),
        false => Stream::new(model, recipe).unwrap(),
    };
    let frames = video(10, 64);
    loop {
        stream.push(&numbered(&frames, stream.stats().frames)).unwrap();
        stream.save(file).unwrap();
        println!("saved {}", stream.stats().frames);
        std::io::stdout().flush().unwrap();
    }
}

/// A frame of a stream without end.
fn numbered(frames: &[Frame], number: u64) -> Frame {
    let frame = &frames[number as usize % frames.len()];
    Frame::new(frame.rgb().to_vec(), frame.width(), frame.height(), number as f64).unwrap()
}

#[test]
fn whoever_is_killed_leaves_the_newest_whole_memory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory");
    let model = model("ov-even");
    let recipe = Recipe::for_model("streamkv", &model).unwrap();
    let frames = video(10, 64);
    let mut other = Stream::new(model.clone(), recipe.clone()).unwrap();
    let (mut known, mut inside) = (0, 0);
    for round in 0..100u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_child_that_is_killed", "--nocapture"])
            .env(KILLED, &file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, heard) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            let saved = |line: String| line.strip_prefix("saved ")?.parse::<u64>().ok();
            lines.map_while(Result::ok).filter_map(saved).for_each(|n| said.send(n).unwrap());
        });
        // At any moment, beginning and restoring included.
        let random = round.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let first = (round % 5 > 0).then(|| heard.recv().unwrap());
        std::thread::sleep(Duration::from_micros(random % 30_000));
        child.kill().unwrap();
        child.wait().unwrap();
        reader.join().unwrap();
        known = first.into_iter().chain(heard).max().unwrap_or(known);
        inside += u64::from(folder.path().join("memory.tmp").exists());
        if !file.exists() {
            assert_eq!(known, 0, "round {round}: what was saved is gone");
            continue;
        }
        let again =
            Stream::load(model.clone(), recipe.clone(), StreamOptions::default(), &file).unwrap();
        let found = again.stats().frames;
        assert!(found == known || found == known + 1, "round {round}: {found} after {known}");
        known = found;
        while other.stats().frames < found {
            other.push(&numbered(&frames, other.stats().frames)).unwrap();
        }
        assert_eq!(told(&again), told(&other), "round {round}");
    }
    println!("{known} frames; {inside} of 100 were killed while they wrote");
    assert!(inside > 5, "{inside} killed while they wrote");
}

/// As many layers as a published 7B has, mean keys as long as its, and little else: of a frame one token.
fn deep() -> VideoLlm {
    let folder = tempfile::tempdir().unwrap();
    let read = |name: &str| {
        let text = std::fs::read_to_string(fixture("ov-shrunk").join(name)).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let mut config = read("config.json");
    for (field, value) in [
        ("hidden_size", 512),
        ("intermediate_size", 32),
        ("num_hidden_layers", 28),
        ("num_attention_heads", 4),
        ("num_key_value_heads", 4),
    ] {
        config["text_config"][field] = value.into();
    }
    config["vision_config"]["image_size"] = 28.into();
    config["image_grid_pinpoints"] = serde_json::json!([[28, 28]]);
    let mut processor = read("preprocessor_config.json");
    processor["size"] = serde_json::json!({"height": 28, "width": 28});
    for (name, value) in [
        ("config.json", config),
        ("preprocessor_config.json", processor),
        ("tokenizer.json", read("tokenizer.json")),
        ("tokenizer_config.json", read("tokenizer_config.json")),
        ("chat_template.json", read("chat_template.json")),
    ] {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    let options = LoadOptions { made_up: Some(1), ..LoadOptions::default() };
    VideoLlm::load(folder.path(), &options).unwrap()
}

#[test]
fn taking_a_snapshot_of_ten_thousand_units_holds_nobody_up() {
    const UNITS: u64 = 10_000;
    let mut recipe = Recipe::named("rekv").unwrap();
    recipe.set("window", "2000").unwrap();
    let mut stream = Stream::new(deep(), recipe).unwrap();
    let frames = video(11, 64);
    while stream.stats().units < UNITS {
        let from = stream.stats().frames;
        let batch: Vec<Frame> = (from..from + 64).map(|n| numbered(&frames, n)).collect();
        stream.push_frames(&batch).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory");
    let stats = stream.stats();
    let mut taken = Vec::new();
    // A frame that comes before anybody has begun to write pays for the windows.
    let mut taken_in = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let snapshot = stream.snapshot().unwrap();
        taken.push(begun.elapsed());
        let next = stream.stats().frames;
        let begun = Instant::now();
        stream.push(&numbered(&frames, next)).unwrap();
        taken_in.push(begun.elapsed());
        drop(snapshot);
    }
    let next = stream.stats().frames;
    let begun = Instant::now();
    stream.push(&numbered(&frames, next)).unwrap();
    let alone = begun.elapsed();
    taken.sort();
    taken_in.sort();
    let begun = Instant::now();
    let bytes = stream.save(&file).unwrap();
    println!(
        "{} units, {} blocks, {} MB: taken in {:.1?} (five times, up to {:.1?}), a frame at once in {:.1?}, \
         {alone:.1?} without; {} MB written in {:.1?}",
        stats.units,
        stats.store.blocks,
        stats.bytes / 1_000_000,
        taken[2],
        taken[4],
        taken_in[2],
        bytes / 1_000_000,
        begun.elapsed()
    );
    assert!(taken[2] < Duration::from_millis(50), "{taken:?}");
}
