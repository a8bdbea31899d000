// SPDX-License-Identifier: MPL-2.0
//! A memory that is kept in a file from one run to the next.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;

use crate::copy::Copy;
use crate::pipeline::*;

const QUESTION: &str = "what was there?";

fn file(folder: &tempfile::TempDir) -> String {
    folder.path().join("yard.memory").to_str().unwrap().to_owned()
}

/// `frames` of a file, seen to the last one.
fn watched(file: &str, frames: u64, properties: &str) -> Rig {
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers={frames} {BALL} ! QA sample-rate=10/1 memory-path={file} {properties} ! \
         fakesink"
    ));
    rig.play();
    rig
}

/// A message of the memory's.
fn told(rig: &Rig, status: &str) -> gst::Structure {
    rig.wait(status, |message| {
        let structure = message.structure()?;
        let is = structure.name() == "streamkvqa/memory"
            && structure.get::<&str>("status").unwrap() == status;
        is.then(|| structure.to_owned())
    })
}

/// All that an answer says of the video, but for when it was asked.
fn said(answer: &Answer) -> (String, Vec<[u64; 2]>, Vec<bool>) {
    let evidence = answer.0.get::<gst::List>("evidence").unwrap();
    let spans: Vec<gst::Structure> =
        evidence.iter().map(|span| span.get::<gst::Structure>().unwrap()).collect();
    let times = |span: &gst::Structure| ["start", "end"].map(|name| span.get::<u64>(name).unwrap());
    let restored = |span: &gst::Structure| span.get::<bool>("restored").unwrap_or(false);
    (answer.text("answer"), spans.iter().map(times).collect(), spans.iter().map(restored).collect())
}

fn asked(rig: &Rig) -> Answer {
    rig.ask(QUESTION);
    let answer = rig.answer();
    assert_eq!(answer.status(), "ok", "{:?}", answer.0);
    answer
}

#[test]
fn a_restart_answers_with_the_same_words_and_time_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder);
    let rig = watched(&file, 24, "");
    rig.eos();
    let before = said(&asked(&rig));
    assert!(before.2.iter().all(|restored| !restored));
    let frames = rig.stat("encoded");
    assert_eq!(frames, 24, "the end of the stream waits for what is kept");
    rig.stop();
    assert!(Path::new(&file).is_file());
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");

    // Another process would do the same: nothing is left of the first.
    let rig = watched(&file, 8, "active=false");
    let restored = told(&rig, "restored");
    assert_eq!(restored.get::<u64>("frames").unwrap(), frames);
    assert_eq!(restored.get::<&str>("path").unwrap(), file);
    let after = said(&asked(&rig));
    assert_eq!((&after.0, &after.1), (&before.0, &before.1));
    assert!(after.2.iter().all(|restored| *restored), "{after:?}");
    rig.stop();

    // What comes now is this run's, by running time too, and what was is found from now.
    let rig = watched(&file, 8, "");
    rig.eos();
    let of = |from: f64| {
        let ask = gst::Structure::builder("ask").field("question", QUESTION);
        rig.qa().emit_by_name::<u64>("ask-full", &[&ask.field("from", from).build()]);
        said(&rig.answer())
    };
    let (_, times, restored) = of(0.0);
    assert!(!restored.is_empty() && restored.iter().all(|restored| !restored), "{restored:?}");
    assert!(times.iter().all(|[_, end]| *end <= 800_000_000), "{times:?}");
    let (_, _, restored) = of(-3600.0);
    assert!(restored.contains(&true), "{restored:?}");
    assert_eq!(rig.stat("units"), 32);
}

#[test]
fn it_is_saved_when_asked_and_by_itself_and_each_time_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder);
    let live = |properties: &str| {
        let rig = Rig::new(&format!(
            "videotestsrc is-live=true {BALL} ! QA sample-rate=10/1 memory-path={file} {properties} ! \
             fakesink"
        ));
        rig.play();
        rig
    };
    let rig = live("autosave-interval=0");
    rig.until("a frame", |stats| stats.get::<u64>("encoded").unwrap() > 2);
    assert!(!Path::new(&file).exists());
    assert!(rig.qa().emit_by_name::<bool>("save-memory", &[]));
    let saved = told(&rig, "saved");
    let frames = saved.get::<u64>("frames").unwrap();
    assert!(frames > 2);
    assert_eq!(saved.get::<u64>("bytes").unwrap(), std::fs::metadata(&file).unwrap().len());
    assert_eq!(saved.get::<&str>("element").unwrap(), "qa");
    // Many at once are few, and the last one has all.
    for _ in 0..20 {
        assert!(rig.qa().emit_by_name::<bool>("save-memory", &[]));
    }
    told(&rig, "saved");
    assert!(rig.stat("saves") < 12, "{}", rig.stat("saves"));
    // A second one must not put its memory in the place of the first's.
    let other =
        Rig::new(&format!("videotestsrc num-buffers=2 {BALL} ! QA memory-path={file} ! fakesink"));
    assert!(other.pipeline.set_state(gst::State::Playing).is_err());
    let error = other.error().to_string();
    assert!(error.contains("memory-path") && error.contains("another stream"), "{error}");
    rig.stop();

    let rig = live("autosave-interval=100000000");
    for _ in 0..3 {
        told(&rig, "saved");
    }
    assert!(told(&rig, "saved").get::<u64>("frames").unwrap() > frames);
    // Nothing new, nothing to save.
    rig.qa().set_property("active", false);
    rig.until("the last frame", |stats| stats.get::<u64>("queue").unwrap() == 0);
    std::thread::sleep(Duration::from_millis(400));
    let saves = rig.stat("saves");
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(rig.stat("saves"), saves);
}

#[test]
fn what_cannot_be_written_is_a_warning_and_the_one_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder);
    watched(&file, 8, "").eos();
    // The pipeline is dropped, and with it the run ends.
    let before = std::fs::read(&file).unwrap();
    // A folder in the place of the new file: whoever may do anything cannot write it either.
    let rig = watched(&file, 8, "");
    rig.until("a frame", |stats| stats.get::<u64>("encoded").unwrap() > 0);
    std::fs::create_dir(format!("{file}.tmp")).unwrap();
    assert!(rig.qa().emit_by_name::<bool>("save-memory", &[]));
    let warning = rig.warning().to_string();
    for part in ["memory-path", &file, "untouched"] {
        assert!(warning.contains(part), "`{part}` is not in: {warning}");
    }
    assert!(std::fs::read(&file).unwrap() == before);
    // It goes on.
    asked(&rig);
    // What no file has is saved at the stop, though nothing more was seen.
    std::fs::remove_dir(format!("{file}.tmp")).unwrap();
    rig.stop();
    assert!(std::fs::read(&file).unwrap() != before);
    // Without a file there is nothing to save to.
    let rig = Rig::new(&format!("videotestsrc num-buffers=2 {BALL} ! QA ! fakesink"));
    rig.play();
    assert!(!rig.qa().emit_by_name::<bool>("save-memory", &[]));
}

/// The start fails with one error of these parts, and the file is as it was.
#[track_caller]
fn refused(file: &str, properties: &str, parts: &[&str]) {
    let content = std::fs::read(file).ok();
    let rig = watched(file, 8, properties);
    let error = rig.error().to_string();
    for part in ["memory-path", file].iter().chain(parts) {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    // The source has a word of its own on that nobody takes its frames.
    let bus = rig.pipeline.bus().unwrap();
    let wait = gst::ClockTime::from_mseconds(100);
    while let Some(message) = bus.timed_pop_filtered(wait, &[gst::MessageType::Error]) {
        assert!(message.src() != Some(rig.qa().upcast_ref()), "{message:?}");
    }
    rig.stop();
    assert!(std::fs::read(file).ok() == content, "the file has changed");
}

#[test]
fn a_foreign_or_damaged_file_fails_the_start_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder);
    watched(&file, 8, "method=rekv").eos();
    refused(&file, "method=streamkv", &["method rekv", "set method=rekv"]);
    refused(&file, "method=rekv method-options=window=9", &["set method-options=window="]);
    refused(&file, "method=rekv system-prompt=Look.", &["system-prompt"]);
    let other = Copy::of("ov-even");
    other.nudge("model-00002-of-00003.safetensors");
    let properties = format!("method=rekv model-path={}", other.dir().display());
    refused(&file, &properties, &["of another model", "model-path"]);
    let mut content = std::fs::read(&file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&file, &content).unwrap();
    refused(&file, "method=rekv", &["is damaged", "move it away"]);
    std::fs::write(&file, &content[..middle]).unwrap();
    refused(&file, "method=rekv", &["is damaged"]);
    std::fs::write(&file, "a letter to somebody").unwrap();
    refused(&file, "method=rekv", &["no memory of a stream"]);
}

#[test]
fn a_place_that_is_none_fails_the_state_change() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere/yard.memory");
    for (path, part) in [(missing.as_path(), "no folder"), (folder.path(), "is a folder")] {
        let rig = Rig::new(&format!(
            "videotestsrc num-buffers=2 {BALL} ! QA memory-path={} ! fakesink",
            path.display()
        ));
        assert!(rig.pipeline.set_state(gst::State::Playing).is_err());
        let error = rig.error().to_string();
        assert!(error.contains("memory-path") && error.contains(part), "{error}");
    }
}

/// Who is killed, and where it saves.
const KILLED: &str = "STREAMKVQA_ELEMENT_KILLED";

#[test]
fn a_pipeline_that_is_killed() {
    let Some(file) = std::env::var_os(KILLED) else { return };
    let rig = Rig::new(&format!(
        "videotestsrc is-live=true {BALL} ! QA sample-rate=10/1 memory-path={} \
         autosave-interval=1000000 ! fakesink",
        file.to_str().unwrap()
    ));
    rig.play();
    loop {
        told(&rig, "saved");
    }
}

#[test]
fn a_pipeline_that_was_killed_goes_on_where_it_last_saved() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder);
    let mut known = 0;
    for round in 0..4u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "saved::a_pipeline_that_is_killed"])
            .env(KILLED, &file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let changed = || std::fs::metadata(&file).and_then(|meta| meta.modified()).ok();
        let (first, begun) = (changed(), Instant::now());
        while changed() == first && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(83 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let rig = watched(&file, 2, "active=false");
        let frames = told(&rig, "restored").get::<u64>("frames").unwrap();
        assert!(frames > known, "{frames} after {known}");
        known = frames;
        asked(&rig);
    }
}

/// The figure of the docs: what a save keeps waiting, with frames and questions beside it.
#[test]
fn saving_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(&folder);
    let rig = watched(&file, 640, "max-queue=64 autosave-interval=0");
    rig.eos();
    let pause =
        || rig.qa().property::<gst::Structure>("stats").get::<f64>("save-pause-ms").unwrap();
    assert!(rig.qa().emit_by_name::<bool>("save-memory", &[]));
    let begun = Instant::now();
    asked(&rig);
    let answered = begun.elapsed();
    rig.until("the file", |stats| stats.get::<u64>("saves").unwrap() > 0);
    println!(
        "{} units: paused for {:.2} ms, answered within {answered:.1?}",
        rig.stat("units"),
        pause()
    );
    assert!(pause() > 0.0 && pause() < 50.0, "{}", pause());
}

#[test]
fn the_video_passes_while_it_is_saved_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::new(&format!(
        "videotestsrc is-live=true num-buffers=200 pattern=ball ! \
         video/x-raw,width=56,height=56,framerate=50/1 ! \
         QA sample-rate=10/1 memory-path={} autosave-interval=1000000 ! fakesink",
        file(&folder)
    ));
    let entered = Arc::new(Mutex::new(Instant::now()));
    let passed = Arc::new(Mutex::new(Vec::new()));
    let (enter, leave, all) = (Arc::clone(&entered), entered, Arc::clone(&passed));
    let probe = |pad: &str, note: Box<dyn Fn() + Send + Sync>| {
        let pad = rig.qa().static_pad(pad).unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            note();
            gst::PadProbeReturn::Ok
        });
    };
    probe("sink", Box::new(move || *enter.lock().unwrap() = Instant::now()));
    probe("src", Box::new(move || all.lock().unwrap().push(leave.lock().unwrap().elapsed())));
    rig.play();
    rig.until("the end", |stats| stats.get::<u64>("frames-in").unwrap() == 200);
    let saves = rig.stat("saves");
    rig.eos();
    assert!(saves > 10, "{saves}");
    let mut passed = passed.lock().unwrap().clone();
    passed.sort_unstable();
    // The slowest may have waited for a processor, beside other tests.
    let late = passed[passed.len() * 9 / 10];
    assert!(late < Duration::from_millis(5), "{passed:?}");
}
