// SPDX-License-Identifier: MPL-2.0
//! One element with a source that comes and goes, and with somebody who asks it.

use std::collections::HashSet;
use std::fmt;
use std::iter::Sum;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;
use worlds::Rng;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/toyworld");
/// So small that it is full long before the process has to stop growing.
const MEMORY: u64 = 4 << 20;
/// Between two things that happen to a camera.
const PAUSE: Duration = Duration::from_millis(100);
const AUTOSAVE: Duration = Duration::from_secs(3);
/// How long a question may wait for its last word when all has been stopped.
const LAST_WORDS: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub frames: u64,
    pub questions: u64,
    pub answers: u64,
    pub connections: u64,
    pub starts: u64,
    /// Starts that went on with the memory of the run before.
    pub restores: u64,
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |a, b| Self {
            frames: a.frames + b.frames,
            questions: a.questions + b.questions,
            answers: a.answers + b.answers,
            connections: a.connections + b.connections,
            starts: a.starts + b.starts,
            restores: a.restores + b.restores,
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { frames, questions, answers, connections, starts, restores } = self;
        write!(
            f,
            "{frames} frames, {questions} questions, {answers} answers, {connections} connections, \
             {starts} starts, {restores} restores"
        )
    }
}

/// What happens to a camera.
enum Deed {
    Ask,
    AskChoice,
    /// Asks for as long as the camera is there, and takes the last such question back.
    Stand,
    Cancel,
    Forget,
    /// The source is gone from one moment to the next, as when its process is killed.
    PullOut,
    /// The pipeline is stopped and started, with whatever is waiting.
    Restart,
    /// Pipeline and element are thrown away, and others take their place and go on with the memory.
    Replace,
}

impl Deed {
    fn by_chance(rng: &mut Rng) -> Self {
        match rng.below(100) {
            0..=49 => Self::Ask,
            50..=64 => Self::AskChoice,
            65..=72 => Self::Stand,
            73..=82 => Self::Cancel,
            83 => Self::Forget,
            84..=93 => Self::PullOut,
            94..=97 => Self::Restart,
            _ => Self::Replace,
        }
    }
}

/// Questions without a last word, and the answers so far.
#[derive(Default)]
struct Heard {
    open: HashSet<u64>,
    answers: u64,
    /// A handler may hear the last word before whoever asked knows the number.
    early: HashSet<u64>,
}

/// Frames and units of a memory, as the element tells of them.
type Held = (u64, u64);

pub struct Camera {
    name: &'static str,
    memory: PathBuf,
    /// What the newest file of the memory holds.
    saved: Option<Held>,
    pipeline: gst::Pipeline,
    qa: gst::Element,
    source: Option<gst::Bin>,
    heard: Arc<Mutex<Heard>>,
    standing: Option<u64>,
    last: u64,
    counts: Counts,
    next: Instant,
}

impl Camera {
    /// `folder`: where its memory is kept.
    pub fn start(name: &'static str, folder: &Path) -> Result<Self> {
        let memory = folder.join(name);
        let (pipeline, qa) = pipeline(name, &memory)?;
        let heard = listen(&qa);
        let mut camera = Self {
            name,
            memory,
            saved: None,
            pipeline,
            qa,
            source: None,
            heard,
            standing: None,
            last: 0,
            counts: Counts::default(),
            next: Instant::now(),
        };
        camera.play()?;
        Ok(camera)
    }

    pub fn counts(&self) -> Counts {
        let frames = self.counts.frames + self.frames();
        let answers = self.counts.answers + self.heard(|heard| heard.answers);
        Counts { frames, answers, ..self.counts }
    }

    fn frames(&self) -> u64 {
        self.stat("encoded")
    }

    fn stat(&self, name: &str) -> u64 {
        self.qa.property::<gst::Structure>("stats").get(name).unwrap_or_default()
    }

    /// Units of its memory, and the kilobytes that it says they take.
    pub fn remembered(&self) -> String {
        format!("{} units in {} kB", self.stat("units"), self.stat("memory-bytes") >> 10)
    }

    fn heard<T>(&self, with: impl FnOnce(&mut Heard) -> T) -> T {
        with(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn play(&mut self) -> Result<()> {
        self.pipeline.set_state(gst::State::Playing)?;
        self.counts.starts += 1;
        self.connect(0)
    }

    /// A source of its own size that ends, or fails, after so many frames and some.
    fn connect(&mut self, chance: usize) -> Result<()> {
        let sides = [(160, 120), (120, 160), (128, 128)];
        let (width, height) = sides[chance % sides.len()];
        let frames = 40 + chance % 200;
        let end = if chance.is_multiple_of(2) { "eos-after" } else { "error-after" };
        let description = format!(
            "videotestsrc pattern=ball ! video/x-raw,width={width},height={height},framerate=10/1 ! \
             identity {end}={frames}"
        );
        let source = gst::parse::bin_from_description(&description, true)?;
        self.pipeline.add(&source)?;
        let pad = source.static_pad("src").ok_or("a source without a pad")?;
        // The end of a connection is not the end of the stream.
        let (bus, bin) = (self.pipeline.bus().ok_or("no bus")?, source.downgrade());
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let end = info.event().is_some_and(|event| event.type_() == gst::EventType::Eos);
            if !end {
                return gst::PadProbeReturn::Ok;
            }
            if let Some(bin) = bin.upgrade() {
                let gone = gst::Structure::new_empty("soak/ended");
                let _ = bus.post(gst::message::Application::builder(gone).src(&bin).build());
            }
            // The bindings let go of an event that is dropped, and GStreamer 1.22 would do so once more.
            gst::PadProbeReturn::Handled
        });
        let sink = self.qa.static_pad("sink").ok_or("an element without a sink pad")?;
        pad.link(&sink)?;
        source.sync_state_with_parent()?;
        self.source = Some(source);
        self.counts.connections += 1;
        Ok(())
    }

    fn disconnect(&mut self) -> Result<()> {
        if let Some(source) = self.source.take() {
            source.set_state(gst::State::Null)?;
            self.pipeline.remove(&source)?;
        }
        Ok(())
    }

    /// Takes what comes on the bus; a source that is gone gets a successor.
    pub fn hear(&mut self, patience: Duration) -> Result<()> {
        let bus = self.pipeline.bus().ok_or("no bus")?;
        let mut wait = gst::ClockTime::try_from(patience)?;
        while let Some(message) = bus.timed_pop(wait) {
            wait = gst::ClockTime::ZERO;
            let of_source = |source: &gst::Bin| {
                let sender = message.src();
                sender.is_some_and(|sender| sender == source || sender.has_as_ancestor(source))
            };
            let gone = match message.view() {
                gst::MessageView::Error(error) => {
                    let old =
                        message.src().is_none_or(|sender| !sender.has_as_ancestor(&self.pipeline));
                    if !old && !self.source.as_ref().is_some_and(of_source) {
                        return Err(format!("{}: {}", self.name, error.error()).into());
                    }
                    self.source.as_ref().is_some_and(of_source)
                }
                gst::MessageView::Application(_) => self.source.as_ref().is_some_and(of_source),
                gst::MessageView::Element(element) => {
                    element.structure().map_or(Ok(()), |structure| self.remember(structure))?;
                    false
                }
                _ => false,
            };
            if gone {
                self.disconnect()?;
                self.connect(self.counts.connections as usize * 37)?;
            }
        }
        Ok(())
    }

    /// Takes what the element tells of the file of its memory: what it gives back is what went in last.
    fn remember(&mut self, told: &gst::StructureRef) -> Result<()> {
        if told.name() != "streamkvqa/memory" {
            return Ok(());
        }
        let held = (told.get("frames")?, told.get("units")?);
        match told.get("status")? {
            "saved" => self.saved = Some(held),
            _ if self.saved == Some(held) => self.counts.restores += 1,
            _ => {
                let (name, saved) = (self.name, self.saved);
                return Err(format!("{name}: {held:?} was restored, {saved:?} saved").into());
            }
        }
        Ok(())
    }

    /// Now and then one thing happens.
    pub fn happen(&mut self, rng: &mut Rng) -> Result<()> {
        if Instant::now() < self.next {
            return Ok(());
        }
        self.next = Instant::now() + PAUSE;
        match Deed::by_chance(rng) {
            Deed::Ask => {
                self.ask("question, question=\"what color is the circle?\", max-tokens=(uint)6")
            }
            Deed::AskChoice => {
                self.ask("question, question=\"is there a circle now?\", choices={ yes, no }")
            }
            Deed::Stand => {
                if let Some(id) = self.standing.take() {
                    self.qa.emit_by_name::<bool>("cancel", &[&id]);
                }
                self.ask("question, question=\"is there a square now?\", interval=1.0, when=yes, on-change=true")?;
                self.standing = Some(self.last);
                Ok(())
            }
            Deed::Cancel => {
                self.qa.emit_by_name::<bool>("cancel", &[&self.last]);
                Ok(())
            }
            Deed::Forget => {
                self.qa.emit_by_name::<()>("clear-memory", &[]);
                Ok(())
            }
            Deed::PullOut => {
                self.disconnect()?;
                self.connect(rng.below(1000))
            }
            Deed::Restart => {
                self.stop()?;
                self.play()
            }
            Deed::Replace => {
                self.stop()?;
                self.counts = Counts { frames: self.counts.frames, ..self.counts() };
                (self.pipeline, self.qa) = pipeline(self.name, &self.memory)?;
                self.heard = listen(&self.qa);
                self.play()
            }
        }
    }

    fn ask(&mut self, structure: &str) -> Result<()> {
        let structure: gst::Structure = structure.parse()?;
        let id = self.qa.emit_by_name::<u64>("ask-full", &[&structure]);
        if id == 0 {
            return Err(format!("{}: a question was refused", self.name).into());
        }
        self.heard(|heard| {
            if !heard.early.remove(&id) {
                heard.open.insert(id);
            }
        });
        self.counts.questions += 1;
        self.last = id;
        Ok(())
    }

    /// Stops the pipeline; every question has its last word then.
    fn stop(&mut self) -> Result<()> {
        self.counts.frames += self.frames();
        self.disconnect()?;
        // The bus is emptied on the way from there.
        self.pipeline.set_state(gst::State::Ready)?;
        self.hear(Duration::ZERO)?;
        self.pipeline.set_state(gst::State::Null)?;
        self.standing = None;
        let deadline = Instant::now() + LAST_WORDS;
        while self.heard(|heard| !heard.open.is_empty()) {
            if Instant::now() > deadline {
                let open = self.heard(|heard| format!("{:?}", heard.open));
                return Err(format!("{}: no last word for the questions {open}", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub fn end(mut self) -> Result<()> {
        self.stop()
    }
}

fn pipeline(name: &str, memory: &Path) -> Result<(gst::Pipeline, gst::Element)> {
    let description = format!(
        "streamkvqa name=qa model-path={MODEL} max-memory={MEMORY} sample-rate=10/1 \
         memory-path=\"{}\" autosave-interval={} \
         ! fakesink sync=false async=false qa.text ! fakesink sync=false async=false",
        memory.display(),
        AUTOSAVE.as_nanos(),
    );
    let pipeline = gst::parse::launch(&description)?;
    let pipeline = pipeline.downcast::<gst::Pipeline>().map_err(|_| "not a pipeline")?;
    let qa = pipeline.by_name("qa").ok_or_else(|| format!("{name} has no element"))?;
    Ok((pipeline, qa))
}

fn listen(qa: &gst::Element) -> Arc<Mutex<Heard>> {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let own = heard.clone();
    qa.connect("answer", false, move |values| {
        let answer = values.get(1)?.get::<gst::Structure>().ok()?;
        let mut heard = own.lock().unwrap_or_else(PoisonError::into_inner);
        heard.answers += u64::from(answer.get::<&str>("status").ok()? == "ok");
        if answer.get::<bool>("last").ok()? {
            let id = answer.get::<u64>("id").ok()?;
            if !heard.open.remove(&id) {
                heard.early.insert(id);
            }
        }
        None
    });
    heard
}
