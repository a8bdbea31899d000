// SPDX-License-Identifier: MPL-2.0
//! What is wrong is said once, with its name and the remedy.

use std::collections::BTreeSet;

use gst::prelude::*;
use gstreamer as gst;

use crate::copy::Copy;
use crate::pipeline::*;

/// The state change fails and the bus says why.
#[track_caller]
fn refused(properties: &str) -> glib::Error {
    let rig = Rig::raw(&format!("videotestsrc {BALL} ! streamkvqa {properties} ! fakesink"));
    assert!(rig.pipeline.set_state(gst::State::Paused).is_err(), "{properties}");
    let error = rig.error();
    let more = rig.bus.pop_filtered(&[gst::MessageType::Error]);
    assert!(more.is_none(), "{properties}: more than one error: {error}, {more:?}");
    error
}

/// The state change succeeds, loading fails, and the first error on the bus says why.
#[track_caller]
fn fails(properties: &str) -> glib::Error {
    let rig = Rig::raw(&format!("videotestsrc {BALL} ! streamkvqa {properties} ! fakesink"));
    let _ = rig.pipeline.set_state(gst::State::Playing);
    rig.error()
}

#[track_caller]
fn names(error: &glib::Error, words: &[&str]) {
    for word in words {
        assert!(error.message().contains(word), "{word}: {error}");
    }
}

/// The models of this repository, which tests have as if they were installed.
fn installed() -> String {
    let folders = std::fs::read_dir(path("models")).unwrap();
    let names = folders.map(|folder| folder.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = names.collect();
    assert!(names.contains("everyday") && names.contains("toyworld"), "{names:?}");
    Vec::from_iter(names).join(", ")
}

#[test]
fn no_model_path_says_what_to_set() {
    // Only if the environment does not set one.
    if std::env::var_os("STREAMKVQA_MODEL").is_none() {
        let installed = installed();
        names(&refused(""), &["model-path", "models/toyworld", "STREAMKVQA_MODEL", &installed]);
    }
}

#[test]
fn a_name_that_no_model_has_says_which_are_installed() {
    let error = refused("model-path=nothing-of-the-kind");
    let (there, installed) = (format!("in {}", path("models")), installed());
    names(&error, &["nothing-of-the-kind", &there, &format!("Installed: {installed}"), "hf:"]);
    assert!(error.matches(gst::ResourceError::NotFound), "{error:?}");
}

#[test]
fn a_missing_folder_is_not_found() {
    let error = refused("model-path=/nowhere/model");
    names(&error, &["/nowhere/model"]);
    assert!(error.matches(gst::ResourceError::NotFound), "{error:?}");
}

#[test]
fn a_file_is_not_a_model_folder() {
    let file = temporary("");
    let path = file.path().display();
    names(&refused(&format!("model-path={path}")), &[&path.to_string(), "folder"]);
}

#[test]
fn a_hub_model_that_is_not_cached_says_how_to_get_it() {
    let error = refused("model-path=hf:nobody-at-all/nothing-of-the-kind");
    names(&error, &["hf:nobody-at-all/nothing-of-the-kind", "allow-download", "hf download"]);
    assert!(error.matches(gst::ResourceError::NotFound), "{error:?}");
    names(&refused("model-path=hf:nothing"), &["hf:owner/name"]);
}

#[test]
fn a_folder_without_a_config_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    names(&fails(&format!("model-path={}", folder.path().display())), &["config.json"]);
}

#[test]
fn another_architecture_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = "{\"model_type\": \"gpt2\", \"architectures\": [\"GPT2LMHeadModel\"]}";
    std::fs::write(folder.path().join("config.json"), config).unwrap();
    let error = fails(&format!("model-path={}", folder.path().display()));
    names(&error, &["gpt2", "config.json"]);
}

#[test]
fn an_unknown_method_lists_the_known_ones() {
    let error = refused(&format!("model-path={} method=magic", model()));
    names(&error, &["magic", "streamkv", "rekv", "sliding-window", "full"]);
}

#[test]
fn an_unknown_method_option_lists_the_known_ones() {
    let with = |options: &str| {
        refused(&format!("model-path={} method=rekv method-options={options}", model()))
    };
    names(&with("magic=7"), &["magic"]);
    names(&with("retrieve"), &["retrieve", "key=value"]);
    names(&with("retrieve=many"), &["retrieve"]);
}

#[test]
fn an_outside_expert_that_is_not_there_is_named_by_its_option() {
    let with = |options: &str| {
        let rig = Rig::new(&format!(
            "videotestsrc num-buffers=20 {BALL} ! QA method=memstream \
             method-options=\"{options}\" question=what? ! fakesink"
        ));
        let _ = rig.pipeline.set_state(gst::State::Playing);
        rig.error()
    };
    names(&with("retrieve=4"), &["external-model", "experts=internal"]);
    names(&with("external-model=/nowhere/pair"), &["/nowhere/pair", "no such folder"]);
    names(&with(&format!("external-model={}", model())), &["model_type", "siglip or clip"]);
}

#[test]
fn an_unknown_device_says_what_is_right() {
    names(&refused(&format!("model-path={} device=tpu", model())), &["tpu", "cuda:N"]);
}

#[test]
fn a_missing_questions_file_is_not_found() {
    let error = refused(&format!("model-path={} questions-file=/nowhere/q.jsonl", model()));
    names(&error, &["questions-file", "/nowhere/q.jsonl"]);
    assert!(error.matches(gst::ResourceError::NotFound), "{error:?}");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().display();
    let error = refused(&format!("model-path={} questions-file={folder}", model()));
    assert!(error.matches(gst::ResourceError::OpenRead), "{error:?}");
}

#[test]
fn a_malformed_questions_file_is_named_with_its_line() {
    let file = temporary("{\"question\": \"fine?\"}\n\n{\"question\": \"broken?\", \"at\": }\n");
    let path = file.path().display();
    let error = refused(&format!("model-path={} questions-file={path}", model()));
    names(&error, &[&path.to_string(), "line 3", "{\"question\":"]);
}

#[test]
fn a_failed_start_can_be_repaired() {
    let rig =
        Rig::raw(&format!("videotestsrc num-buffers=20 {BALL} ! streamkvqa name=qa ! fakesink"));
    rig.qa().set_property("model-path", "/nowhere");
    assert!(rig.pipeline.set_state(gst::State::Playing).is_err());
    rig.stop();
    rig.bus.set_flushing(true);
    rig.bus.set_flushing(false);
    rig.qa().set_property("model-path", model());
    rig.qa().set_property("question", "what?");
    assert_eq!(rig.play().answers().len(), 1);
}

#[test]
fn a_model_that_does_not_load_ends_waiting_questions_with_its_fault() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::raw(&format!(
        "videotestsrc {BALL} ! streamkvqa name=qa model-path={} ! fakesink",
        folder.path().display()
    ));
    rig.ask("what?");
    rig.play();
    rig.error();
    // Stopping does not wait for it either.
    rig.stop();
}

#[test]
fn a_bounded_disk_without_a_path_is_refused() {
    let error = refused(&format!("model-path={} max-disk=1000", model()));
    names(&error, &["max-disk", "disk-path"]);
}

/// Frames are answered from to the end, and the bus has warned of `words`.
#[track_caller]
fn warns_and_goes_on(properties: &str, words: &[&str]) -> Rig {
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers=80 {BALL} ! QA question=what? sample-rate=10/1 \
         method=rekv max-memory=1 store=f32 {properties} ! fakesink"
    ));
    rig.play();
    // So small a bound is itself one warning.
    let of_bound = |warning: &glib::Error| warning.message().contains("max-memory of 1 bytes");
    let warning = Some(rig.warning()).filter(|first| !of_bound(first));
    names(&warning.unwrap_or_else(|| rig.warning()), words);
    let answers = rig.answers();
    assert!(!answers.is_empty() && answers.iter().all(|answer| answer.status() == "ok"));
    rig
}

#[test]
fn a_disk_path_that_cannot_be_written_is_a_warning() {
    let file = temporary("");
    let path = format!("{}/memory", file.path().display());
    warns_and_goes_on(&format!("disk-path={path}"), &[&path]);
}

#[test]
fn a_full_disk_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let rig = warns_and_goes_on(&format!("disk-path={path} max-disk=60000"), &["max-disk", &path]);
    let stats = rig.qa().property::<gst::Structure>("stats");
    let count = |name| stats.get::<u64>(name).unwrap();
    assert!(count("disk-bytes") > 0 && count("disk-bytes") <= 60_000, "{stats}");
    assert!(count("loads") > 0 && count("blocks") > 0, "{stats}");
    assert_eq!(count("host-bytes") + count("lost-blocks"), 0, "{stats}");
}

#[test]
fn a_segment_file_that_is_gone_is_a_warning_and_the_question_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers=80 {BALL} ! QA sample-rate=10/1 method=rekv max-memory=1 \
         store=f32 disk-path={path} ! fakesink"
    ));
    rig.play().eos();
    let files = |path: &std::path::Path| {
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    let gone: Vec<_> = files(folder.path()).iter().flat_map(|own| files(own)).collect();
    assert!(!gone.is_empty());
    gone.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    rig.ask("what was it?");
    let (mut warned, mut status) = (None, None);
    rig.wait("warning and answer", |message| {
        match message.view() {
            gst::MessageView::Warning(warning) => warned = Some(warning.error()),
            _ => status = status.take().or(Answer::of(message).map(|answer| answer.status())),
        }
        (warned.is_some() && status.is_some()).then_some(())
    });
    names(&warned.unwrap(), &[&path]);
    assert_eq!(status.as_deref(), Some("ok"));
    assert!(rig.stat("lost-blocks") > 0, "{}", rig.stats());
}

/// A copy of a fixture in which some numbers of a tensor are none.
fn broken(tensor: &str) -> Copy {
    let copy = Copy::of("ov-even-bf16");
    copy.change(tensor, |i, x| if i == 3 { f32::NAN } else { x });
    copy
}

#[test]
fn a_model_that_makes_no_numbers_answers_with_errors_and_the_video_goes_on() {
    for tensor in ["fc1.weight", "layers.1.mlp.up_proj.weight", "lm_head.weight"] {
        let copy = broken(tensor);
        let rig = Rig::raw(&format!(
            "videotestsrc num-buffers=20 {BALL} ! streamkvqa name=qa sample-rate=10/1 \
             model-path={} ! fakesink",
            copy.dir().display()
        ));
        rig.qa().set_property("question", "what?");
        rig.play();
        let mut warnings = Vec::new();
        let mut answers = Vec::new();
        rig.wait("end of stream", |message| {
            answers.extend(Answer::of(message));
            if let gst::MessageView::Warning(warning) = message.view() {
                warnings.push(warning.error().to_string());
            }
            matches!(message.view(), gst::MessageView::Eos(_)).then_some(())
        });
        let [answer] = answers.as_slice() else { panic!("{tensor}: {answers:?}") };
        assert_eq!(answer.status(), "error", "{tensor}: {answer:?}");
        assert!(answer.text("error").contains("not finite"), "{tensor}: {answer:?}");
        assert_eq!(warnings.len(), 1, "{tensor}: {warnings:?}");
        assert!(warnings[0].contains("not finite"), "{tensor}: {warnings:?}");
    }
}

#[test]
fn words_without_end_are_named_by_their_property() {
    let long = "word ".repeat(20_000);
    let rig = Rig::new(&format!("videotestsrc {BALL} ! QA ! fakesink"));
    rig.qa().set_property("system-prompt", &long);
    let started = std::time::Instant::now();
    let _ = rig.pipeline.set_state(gst::State::Playing);
    let error = rig.error();
    names(&error, &["system-prompt", "100000", "8192"]);
    assert!(error.matches(gst::ResourceError::Settings), "{error:?}");
    rig.stop();
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
}
