// SPDX-License-Identifier: MPL-2.0
//! A camera's thread: its state, its retries, and who has asked it what.

mod connection;
mod questions;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gstreamer as gst;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::connection::{FIRST_WAIT, LONGEST_WAIT};
use self::questions::Asked;
use super::source::Source;
use super::standing::Stand;
use super::watcher::{Video, Watcher};
use super::{Input, Sender, reason, says};
use crate::backoff::Backoff;
use crate::config::CameraConfig;
use crate::history::History;
use crate::hub::{self, CameraState, Event, Health, Hub, Live};
use crate::picture::LivePicture;

const TICK: Duration = Duration::from_millis(500);

/// What a camera has from the rest of the wall.
#[derive(Clone)]
pub struct Around {
    pub hub: Hub,
    pub history: History,
    pub host: String,
    pub model: Option<String>,
    pub memory: Option<PathBuf>,
    pub live: LivePicture,
    pub video: Arc<Mutex<Option<Video>>>,
}

/// The thread's own.
pub struct Camera {
    config: CameraConfig,
    around: Around,
    inputs: Receiver<Input>,
    sender: Sender,
    watcher: Option<Watcher>,
    /// How many there have been, the present one included.
    watchers: u64,
    source: Option<Source>,
    sources: u64,
    /// When the next source is tried.
    retry: Option<(Instant, Timestamp)>,
    backoff: Backoff,
    /// Since when frames come.
    flowing: Option<Instant>,
    connecting: Instant,
    model_loaded: bool,
    loading: Option<String>,
    /// By the element's number.
    asked: HashMap<u64, Asked>,
    standing: Vec<Stand>,
    state: (CameraState, Option<String>),
    since: Timestamp,
    health: Health,
    next_tick: Instant,
    stopping: Option<oneshot::Sender<()>>,
    /// What came in while the pipeline was being stopped.
    later: VecDeque<Input>,
}

impl Camera {
    pub fn new(
        config: CameraConfig,
        standing: Vec<Stand>,
        around: Around,
        inputs: Receiver<Input>,
        sender: Sender,
    ) -> Self {
        let now = Instant::now();
        Camera {
            config,
            around,
            inputs,
            sender,
            watcher: None,
            watchers: 0,
            source: None,
            sources: 0,
            retry: Some((now, Timestamp::now())),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            flowing: None,
            connecting: now,
            model_loaded: false,
            loading: None,
            asked: HashMap::new(),
            standing,
            state: (CameraState::Starting, None),
            since: Timestamp::now(),
            health: Health::default(),
            next_tick: now,
            stopping: None,
            later: VecDeque::new(),
        }
    }

    /// Watches until it is stopped. A fault of the wall itself is one of this camera's states, too.
    pub fn run(mut self) {
        self.publish();
        loop {
            let watch = std::panic::AssertUnwindSafe(|| self.watch());
            if std::panic::catch_unwind(watch).is_ok() {
                break;
            }
            self.fail_pipeline("a fault in the wall itself; its log says where".into());
        }
        self.tear_down();
        self.set(CameraState::Stopped, None);
        if let Some(told) = self.stopping.take() {
            let _ = told.send(());
        }
    }

    fn watch(&mut self) {
        loop {
            let now = Instant::now();
            if self.retry.is_some_and(|(at, _)| at <= now) {
                self.retry = None;
                self.connect();
            }
            if self.next_tick <= now {
                self.next_tick = now + TICK;
                self.tick();
            }
            let until = self.retry.map_or(self.next_tick, |(at, _)| at.min(self.next_tick));
            let next = match self.later.pop_front() {
                Some(input) => Ok(input),
                None => self.inputs.recv_timeout(until.saturating_duration_since(Instant::now())),
            };
            match next {
                Ok(Input::Stop(told)) => {
                    self.stopping = Some(told);
                    return;
                }
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Message(number, message) if number == self.watchers => self.message(&message),
            Input::Token(number, id, text) if number == self.watchers => self.token(id, text),
            Input::Flowing(number) if number == self.watchers => self.first_frame(),
            Input::SourceEnded(number) if self.is_source(number) => self.source_ended(),
            Input::SourceFailed(number, why) if self.is_source(number) => self.fail_source(why),
            Input::Ask(question, reply) => {
                let _ = reply.send(self.ask(question));
            }
            Input::AddStanding(standing, reply) => {
                let _ = reply.send(self.add_standing(&standing));
            }
            Input::RemoveStanding(id, reply) => {
                let _ = reply.send(self.remove_standing(&id));
            }
            Input::Configure(config) => self.configure(*config),
            _ => {}
        }
    }

    fn is_source(&self, number: u64) -> bool {
        self.source.as_ref().is_some_and(|source| source.number == number)
    }

    fn message(&mut self, message: &gst::Message) {
        let Some(watcher) = &self.watcher else { return };
        match message.view() {
            gst::MessageView::Error(error) => {
                let Some(object) = message.src() else { return };
                let why = reason::of(Some(object), &error.error(), error.debug().as_deref());
                let is_of_source = self.source.as_ref().is_some_and(|source| source.has(object));
                if watcher.is_element(object) {
                    self.fail_pipeline(why);
                } else if is_of_source {
                    self.fail_source(why);
                } else if !is_of_viewer(object) && object.has_as_ancestor(watcher.pipeline()) {
                    self.fail_pipeline(why);
                }
            }
            // Sources tell of theirs, too.
            gst::MessageView::Progress(progress)
                if message.src().is_some_and(|object| watcher.is_element(object)) =>
            {
                let (kind, _, text) = progress.get();
                self.progress(kind, text);
            }
            gst::MessageView::Element(_) => {
                let Some(structure) = message.structure() else { return };
                let now = watcher.now();
                match structure.name().as_str() {
                    "streamkvqa/answer" => {
                        if let Some(said) = says::answer(structure, now) {
                            self.answered(said);
                        }
                    }
                    "streamkvqa/alert" => {
                        if let Some(news) = says::alert(structure, now) {
                            self.alert(news);
                        }
                    }
                    "streamkvqa/stats" => {
                        self.model_loaded |= structure.get("model-loaded").unwrap_or(false);
                        self.health = says::health(structure);
                        let (camera, health) = (self.config.id.clone(), self.health.clone());
                        self.around.hub.publish(Event::Health { camera, health });
                        self.settle();
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn progress(&mut self, kind: gst::ProgressType, text: &str) {
        match kind {
            gst::ProgressType::Start | gst::ProgressType::Continue => {
                self.loading = Some(text.to_owned())
            }
            _ => self.loading = None,
        }
        self.model_loaded |= kind == gst::ProgressType::Complete;
        if self.state.0 == CameraState::Starting {
            self.set(CameraState::Starting, self.loading.clone());
        }
        self.settle();
    }

    fn first_frame(&mut self) {
        if self.source.is_some() {
            self.flowing = Some(Instant::now());
            self.settle();
        }
    }

    /// Whether all is there that makes a camera live.
    fn settle(&mut self) {
        let is_waited_for = matches!(self.state.0, CameraState::Starting | CameraState::Stalled);
        if !is_waited_for || self.flowing.is_none() || self.source.is_none() {
            return;
        }
        if self.model_loaded {
            self.set(CameraState::Live, None);
        } else if self.state.0 == CameraState::Starting && self.loading.is_none() {
            self.set(CameraState::Starting, Some("the model is being loaded".into()));
        }
    }

    fn set(&mut self, state: CameraState, reason: Option<String>) {
        if self.state.0 != state {
            self.since = Timestamp::now();
        }
        let next = (state, reason);
        if self.state != next || state == CameraState::Waiting {
            self.state = next;
            self.publish();
        }
    }

    /// Tells everyone how the camera is.
    fn publish(&self) {
        let (state, reason) = self.state.clone();
        self.around.hub.publish(Event::Camera(hub::Camera {
            id: self.config.id.clone(),
            name: self.config.name.clone().unwrap_or_else(|| self.config.id.clone()),
            state,
            reason,
            next_try: self.retry.filter(|_| state == CameraState::Waiting).map(|(_, at)| at),
            since: self.since,
            host: self.around.host.clone(),
            live: Live { whep: crate::picture::whep::is_available(), mjpeg: true },
            standing: self.standing.iter().map(|stand| stand.standing.clone()).collect(),
            health: self.health.clone(),
        }));
    }
}

/// What people look at through a bin of their own is their own fault.
fn is_of_viewer(object: &gst::Object) -> bool {
    let mut next = Some(object.clone());
    while let Some(object) = next {
        if object.name().starts_with("viewer") {
            return true;
        }
        next = object.parent();
    }
    false
}
