// SPDX-License-Identifier: MPL-2.0
//! A pipeline under test: built from a description, awaited by its messages, never by sleeping.
#![allow(dead_code)] // each test binary uses its part

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;

use crate::leaks;

/// Longer than anything here takes on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A source of small frames, ten a second.
pub const BALL: &str = "pattern=ball ! video/x-raw,width=56,height=56,framerate=10/1";

pub fn init() {
    static INIT: Once = Once::new();
    INIT.call_once(|| {
        // The user's registry is none of a test's business. Nothing else runs yet.
        let registry = std::env::temp_dir().join(format!("streamkvqa-{}.bin", std::process::id()));
        unsafe { std::env::set_var("GST_REGISTRY", registry) };
        // As if the models of this repository were installed.
        unsafe { std::env::set_var("STREAMKVQA_MODELS", path("models")) };
        unsafe { std::env::set_var(leaks::VARIABLE.0, leaks::VARIABLE.1) };
        gst::init().unwrap();
        leaks::watch();
        gststreamkvqa::plugin_register_static().unwrap();
    });
}

/// A checkpoint with random weights: its answers mean nothing, and come fast.
pub fn model() -> String {
    path("tests/fixtures/ov-even")
}

pub fn path(relative: &str) -> String {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(relative).to_str().unwrap().to_owned()
}

pub fn temporary(content: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}

/// The word `QA` of a description becomes `element`; the same letters in a file's random name do not.
pub fn with_element(description: &str, element: &str) -> String {
    let word = |word| if word == "QA" { element } else { word };
    description.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// One `streamkvqa/answer`.
#[derive(Clone, Debug)]
pub struct Answer(pub gst::Structure);

impl Answer {
    pub fn of(message: &gst::Message) -> Option<Self> {
        let structure = message.structure().filter(|s| s.name() == "streamkvqa/answer")?;
        Some(Self(structure.to_owned()))
    }

    #[track_caller]
    pub fn text(&self, field: &str) -> String {
        self.0.get(field).unwrap()
    }

    #[track_caller]
    pub fn id(&self) -> u64 {
        self.0.get("id").unwrap()
    }

    pub fn question(&self) -> String {
        self.text("question")
    }

    pub fn status(&self) -> String {
        self.text("status")
    }

    /// Milliseconds of running time.
    #[track_caller]
    pub fn ms(&self, field: &str) -> u64 {
        self.0.get::<u64>(field).unwrap() / 1_000_000
    }
}

pub struct Rig {
    pub pipeline: gst::Pipeline,
    pub bus: gst::Bus,
}

impl Rig {
    /// `QA` in the description becomes the element `qa` with its model.
    #[track_caller]
    pub fn new(description: &str) -> Self {
        let element = format!("streamkvqa name=qa max-tokens=3 model-path={}", model());
        Self::raw(&with_element(description, &element))
    }

    #[track_caller]
    pub fn raw(description: &str) -> Self {
        init();
        let pipeline =
            gst::parse::launch(description).unwrap().downcast::<gst::Pipeline>().unwrap();
        let bus = pipeline.bus().unwrap();
        Self { pipeline, bus }
    }

    #[track_caller]
    pub fn element(&self, name: &str) -> gst::Element {
        self.pipeline.by_name(name).unwrap()
    }

    pub fn qa(&self) -> gst::Element {
        self.element("qa")
    }

    #[track_caller]
    pub fn play(&self) -> &Self {
        if self.pipeline.set_state(gst::State::Playing).is_err() {
            panic!("does not play: {:?}", self.bus.pop_filtered(&[gst::MessageType::Error]));
        }
        self
    }

    /// Prerolls.
    #[track_caller]
    pub fn pause(&self) -> &Self {
        self.pipeline.set_state(gst::State::Paused).unwrap();
        self.wait("preroll", |message| {
            matches!(message.view(), gst::MessageView::AsyncDone(_)).then_some(())
        });
        self
    }

    /// The first message that `find` wants. An error that it does not want fails the test.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut find: impl FnMut(&gst::Message) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = gst::ClockTime::try_from(left).unwrap();
            let message = self.bus.timed_pop(left).unwrap_or_else(|| panic!("no {what} came"));
            if let Some(found) = find(&message) {
                return found;
            }
            if let gst::MessageView::Error(error) = message.view() {
                panic!("waiting for {what}: {} {:?}", error.error(), error.debug());
            }
        }
    }

    #[track_caller]
    pub fn answer(&self) -> Answer {
        self.wait("answer", Answer::of)
    }

    #[track_caller]
    pub fn eos(&self) {
        self.answers();
    }

    /// All answers up to the end of the stream.
    #[track_caller]
    pub fn answers(&self) -> Vec<Answer> {
        let mut answers = Vec::new();
        self.wait("end of stream", |message| {
            answers.extend(Answer::of(message));
            matches!(message.view(), gst::MessageView::Eos(_)).then_some(())
        });
        answers
    }

    #[track_caller]
    pub fn error(&self) -> glib::Error {
        self.wait("error", |message| match message.view() {
            gst::MessageView::Error(error) => Some(error.error()),
            _ => None,
        })
    }

    #[track_caller]
    pub fn warning(&self) -> glib::Error {
        self.wait("warning", |message| match message.view() {
            gst::MessageView::Warning(warning) => Some(warning.error()),
            _ => None,
        })
    }

    /// Waits for what only `stats` tells.
    #[track_caller]
    pub fn until(&self, what: &str, mut done: impl FnMut(&gst::Structure) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.stats()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.stats());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn stats(&self) -> gst::Structure {
        self.qa().property("stats")
    }

    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        self.stats().get(name).unwrap()
    }

    /// Units of memory, the frames of the open segment included.
    pub fn remembered(&self) -> u64 {
        self.stat("units") + self.stat("open-frames")
    }

    pub fn ask(&self, question: &str) -> u64 {
        self.qa().emit_by_name("ask", &[&question])
    }

    pub fn ask_full(&self, structure: gst::Structure) -> u64 {
        self.qa().emit_by_name("ask-full", &[&structure])
    }

    /// A question that keeps the model busy for longer than a test is patient; returns when the
    /// model is at it. With `method=streamkv` it does: random weights end an answer by chance, and
    /// what they see decides when.
    pub fn ask_long(&self) -> u64 {
        let structure = gst::Structure::builder("ask")
            .field("question", "what?")
            .field("max-tokens", 1_000_000u32)
            .build();
        let (sender, tokens) = std::sync::mpsc::channel();
        let handler = self.qa().connect("token", false, move |args| {
            let _ = sender.send(args[1].get::<u64>().unwrap());
            None
        });
        let id = self.ask_full(structure);
        while tokens.recv_timeout(PATIENCE).expect("no token came") != id {}
        self.qa().disconnect(handler);
        id
    }

    /// How long stopping takes.
    pub fn stop(&self) -> Duration {
        let started = Instant::now();
        self.pipeline.set_state(gst::State::Null).unwrap();
        started.elapsed()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Collects what passes a pad, in the words of `note`.
pub fn watch<T: Send + 'static>(
    pad: &gst::Pad,
    mask: gst::PadProbeType,
    note: impl Fn(&gst::PadProbeInfo) -> Option<T> + Send + Sync + 'static,
) -> Arc<Mutex<Vec<T>>> {
    let notes = Arc::new(Mutex::new(Vec::new()));
    let sink = notes.clone();
    pad.add_probe(mask, move |_, info| {
        if let Some(note) = note(info) {
            sink.lock().unwrap().push(note);
        }
        gst::PadProbeReturn::Ok
    });
    notes
}
