// SPDX-License-Identifier: MPL-2.0
//! A camera connects, falls silent, ends, fails, and is tried again.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Camera;
use crate::cameras::Input;
use crate::cameras::source::Source;
use crate::cameras::watcher::{Pictures, Watcher};
use crate::hub::CameraState;

/// Silence after which a camera counts as stalled.
const STALLED_AFTER: Duration = Duration::from_secs(3);
/// Silence after which it is built anew, where the configuration says nothing.
const LOST_AFTER: f64 = 10.0;
/// For the first frame.
const PATIENCE: Duration = Duration::from_secs(20);
/// Each wait is about twice as long as the one before.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Who has played for so long has not failed in a row.
const SOUND_AFTER: Duration = Duration::from_secs(10);

impl Camera {
    /// Builds what is missing: the pipeline, the source.
    pub(super) fn connect(&mut self) {
        self.set(CameraState::Starting, self.loading.clone());
        if self.watcher.is_none() {
            match self.build() {
                Ok(watcher) => {
                    *self.around.video.lock() = Some(watcher.video());
                    self.watcher = Some(watcher);
                    self.ask_standing();
                    self.publish();
                }
                Err(why) => return self.fail_pipeline(why),
            }
        }
        let Some(watcher) = &self.watcher else { return };
        self.sources += 1;
        self.flowing = None;
        self.connecting = Instant::now();
        watcher.flow.expect();
        match Source::start(&self.config, self.sources, watcher, &self.sender) {
            Ok(source) => self.source = Some(source),
            Err(why) => self.fail_source(why),
        }
    }

    fn build(&mut self) -> Result<Watcher, String> {
        self.watchers += 1;
        self.model_loaded = false;
        let (history, camera) = (self.around.history.clone(), self.config.id.clone());
        let pictures = Pictures {
            live: self.around.live.clone(),
            every: self.around.history.picture_every(),
            keep: Box::new(move |picture| history.keep_picture(&camera, picture)),
        };
        let (model, memory) = (self.around.model.as_deref(), self.around.memory.as_deref());
        Watcher::start(&self.config, model, memory, self.watchers, pictures, &self.sender)
    }

    pub(super) fn tick(&mut self) {
        let Some((watcher, _)) = self.watcher.as_ref().zip(self.source.as_ref()) else { return };
        let idle = watcher.flow.idle();
        if self.flowing.is_none() {
            if self.connecting.elapsed() > PATIENCE {
                self.fail_source(format!("no picture has come within {} s", PATIENCE.as_secs()));
            }
            return;
        }
        let lost_after = Duration::try_from_secs_f64(self.config.stall_after.unwrap_or(LOST_AFTER));
        let lost_after = lost_after.unwrap_or(Duration::MAX);
        if idle > lost_after {
            self.fail_source(format!("no picture for {} s", idle.as_secs()));
        } else if idle > STALLED_AFTER.min(lost_after) {
            if self.state.0 == CameraState::Live {
                watcher.flow.tell_next();
                self.set(CameraState::Stalled, Some("no picture comes".into()));
            }
        } else if self.flowing.is_some_and(|since| since.elapsed() > SOUND_AFTER) {
            self.backoff.worked();
        }
    }

    pub(super) fn source_ended(&mut self) {
        let played = self.flowing.is_some();
        self.drop_source();
        match (self.config.repeat, played) {
            (true, true) => self.retry = Some((Instant::now(), Timestamp::now())),
            (_, false) => self.fail_source("it ends before its first picture".into()),
            // A file that has been played stays as it is; a camera that hangs up is called again.
            (false, true) if self.is_file() => {
                self.set(
                    CameraState::Stopped,
                    Some("the file is at its end; what it showed can be asked about".into()),
                );
            }
            (false, true) => self.fail_source("the camera has ended its stream".into()),
        }
    }

    fn is_file(&self) -> bool {
        let uri = self.config.uri.as_deref();
        uri.is_some_and(|uri| uri.starts_with("file:") || !uri.contains("://"))
    }

    pub(super) fn drop_source(&mut self) {
        self.flowing = None;
        if let (Some(source), Some(watcher)) = (self.source.take(), &self.watcher) {
            source.stop(watcher);
        }
    }

    /// The source has failed; the pipeline and what it remembers stay.
    pub(super) fn fail_source(&mut self, why: String) {
        self.drop_source();
        self.wait(why);
    }

    /// The pipeline has failed.
    pub(super) fn fail_pipeline(&mut self, why: String) {
        self.tear_down();
        self.wait(why);
    }

    /// Tries again later.
    fn wait(&mut self, why: String) {
        let wait = self.backoff.failed();
        let at = Timestamp::now().checked_add(wait).unwrap_or_else(|_| Timestamp::now());
        self.retry = Some((Instant::now() + wait, at));
        tracing::info!(
            camera = self.config.id,
            "{why}; the next try is in {:.1} s",
            wait.as_secs_f64()
        );
        self.set(CameraState::Waiting, Some(why));
    }

    pub(super) fn tear_down(&mut self) {
        *self.around.video.lock() = None;
        self.drop_source();
        let stopped = self.watcher.take();
        // Writes the memory, and ends each question with a last word.
        drop(stopped);
        while let Ok(input) = self.inputs.try_recv() {
            match input {
                Input::Message(number, message) if number == self.watchers => {
                    self.last_words(&message)
                }
                Input::Message(..) | Input::Token(..) | Input::Flowing(_) => {}
                Input::SourceEnded(_) | Input::SourceFailed(..) => {}
                other => self.later.push_back(other),
            }
        }
        self.watchers += 1;
        self.loading = None;
        self.close_questions();
    }
}
