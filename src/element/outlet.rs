// SPDX-License-Identifier: MPL-2.0
//! Answers out: to the bus, the signals, the text pad, the next video buffer and `last-answer`.

use std::collections::VecDeque;
use std::sync::Arc;

use gst::prelude::*;
use gstreamer as gst;
use parking_lot::Mutex;

use super::answer::{META_NAME, Record, Status};
use super::bus::{self, ANSWERS, CAT};
use super::condition::Turn;
use super::enums::TextFormat;
use super::question::without_nul;
use super::settings::Settings;
use super::text_pad::TextPad;
use crate::EngineError;

/// Answers that wait for a video buffer to carry them.
const MAX_METAS: usize = 64;

/// Each lock is a leaf; none is held while anything leaves the element.
pub(super) struct Outlet {
    /// Weak: the inference thread has an outlet and must not keep its element alive.
    element: glib::WeakRef<gst::Element>,
    settings: Arc<Mutex<Settings>>,
    text: Mutex<Option<Arc<TextPad>>>,
    metas: Mutex<VecDeque<Record>>,
    last_answer: Mutex<Option<String>>,
}

impl Outlet {
    pub fn new(settings: Arc<Mutex<Settings>>) -> Self {
        Self {
            element: glib::WeakRef::new(),
            settings,
            text: Mutex::default(),
            metas: Mutex::default(),
            last_answer: Mutex::default(),
        }
    }

    /// Whose answers these are; before anything else.
    pub fn belong_to(&self, element: &gst::Element) {
        self.element.set(Some(element));
    }

    /// The settings as they are now.
    pub fn settings(&self) -> Settings {
        self.settings.lock().clone()
    }

    pub fn text(&self) -> Option<Arc<TextPad>> {
        self.text.lock().clone()
    }

    pub fn set_text(&self, text: Arc<TextPad>) {
        *self.text.lock() = Some(text);
    }

    pub fn take_text(&self, pad: &gst::Pad) -> Option<Arc<TextPad>> {
        self.text.lock().take_if(|text| text.pad() == pad)
    }

    pub fn last_answer(&self) -> Option<String> {
        self.last_answer.lock().clone()
    }

    pub fn token(&self, id: u64, token: &str) {
        if let Some(element) = self.element.upgrade() {
            element.emit_by_name::<()>("token", &[&id, &without_nul(token)]);
        }
    }

    /// Carries a record out in every shape; `silent` only ends its asking.
    pub fn deliver(&self, record: Record, silent: bool) {
        let Some(element) = self.element.upgrade() else { return };
        let settings = self.settings();
        if let Some(text) = self.text() {
            let line = match settings.text_format {
                TextFormat::Json => Some(record.json(&element.name()) + "\n"),
                TextFormat::Plain if record.status == Status::Ok => {
                    Some(record.plain(&settings.text_template))
                }
                TextFormat::Plain => None,
            };
            let line = line.filter(|line| !silent && !line.is_empty());
            text.release_hold(record.asked.number, line.map(|line| (line, settings.text_duration)));
        }
        if silent {
            return;
        }
        if record.status == Status::Ok {
            *self.last_answer.lock() = Some(record.text.clone());
            let mut metas = self.metas.lock();
            if metas.len() == MAX_METAS {
                metas.pop_front();
            }
            metas.push_back(record.clone());
            drop(metas);
            element.notify("last-answer");
        }
        Self::tell(&element, &record, settings.post_messages);
    }

    /// Tells of news: to the bus and by the `alert` signal.
    pub fn alert(&self, record: &Record, turn: Turn) {
        let Some(element) = self.element.upgrade() else { return };
        let structure = record.alert(turn, &element.name());
        gst::info!(ANSWERS, obj = element, "alert {}: {turn:?}", record.asked.question.id);
        if self.settings.lock().post_messages {
            bus::message(&element, structure.clone());
        }
        element.emit_by_name::<()>("alert", &[&structure]);
    }

    /// Says the last word on what ends with the run, or was never part of one: there is no text
    /// stream and no video to carry it.
    pub fn last_word(&self, record: &Record) {
        let Some(element) = self.element.upgrade() else { return };
        let post_messages = self.settings.lock().post_messages;
        Self::tell(&element, record, post_messages);
    }

    fn tell(element: &gst::Element, record: &Record, post_messages: bool) {
        let Record { asked, text, status, latency, .. } = record;
        let id = asked.question.id;
        gst::info!(
            ANSWERS,
            obj = element,
            "answer {id} after {latency:.1?}: {text:?} ({status:?})"
        );
        let structure = record.structure(&element.name());
        if post_messages {
            bus::message(element, structure.clone());
        }
        // Last, because a handler may stop the pipeline.
        element.emit_by_name::<()>("answer", &[&structure]);
    }

    /// Puts the answers since the last buffer on this one.
    pub fn attach_metas(&self, buffer: &mut gst::Buffer) {
        let records = std::mem::take(&mut *self.metas.lock());
        if records.is_empty() {
            return;
        }
        let Some(element) = self.element.upgrade() else { return };
        let buffer = buffer.make_mut();
        for record in records {
            if let Err(error) = record.attach(&element.name(), buffer) {
                gst::warning!(CAT, obj = element, "no {META_NAME}: {error}");
            }
        }
    }

    pub fn forget_metas(&self) {
        self.metas.lock().clear();
    }

    /// For `GST_DEBUG=streamkvqa*:6`.
    pub fn log(&self, category: gst::DebugCategory, text: std::fmt::Arguments<'_>) {
        if let Some(element) = self.element.upgrade() {
            gst::log!(category, obj = element, "{text}");
        }
    }

    /// Posts news of the element's own, with its name in it and all of it as one text too.
    pub fn post(&self, mut structure: gst::Structure, mut json: serde_json::Value) {
        let Some(element) = self.element.upgrade() else { return };
        json["element"] = element.name().as_str().into();
        structure.set("element", element.name().as_str());
        structure.set("json", json.to_string());
        bus::message(&element, structure);
    }

    pub fn progress(&self, kind: gst::ProgressType, code: &str, text: &str) {
        if let Some(element) = self.element.upgrade() {
            bus::progress(&element, kind, code, text);
        }
    }

    pub fn error(&self, error: &EngineError) {
        if let Some(element) = self.element.upgrade() {
            bus::engine_error(&element, error);
        }
    }

    pub fn warn(&self, error: &EngineError) {
        if let Some(element) = self.element.upgrade() {
            bus::engine_warning(&element, error);
        }
    }
}
