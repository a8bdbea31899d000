// SPDX-License-Identifier: MPL-2.0
//! The signals of the element, both ways.

use glib::prelude::*;
use glib::subclass::Signal;
use glib::subclass::prelude::*;
use gstreamer as gst;

use crate::element::StreamKvqa;

pub(super) fn all() -> Vec<Signal> {
    /// The element that a signal was emitted on. GObject checks the types of all arguments.
    fn element(args: &[glib::Value]) -> Option<StreamKvqa> {
        args.first()?.get().ok()
    }
    vec![
        Signal::builder("ask")
            .param_types([String::static_type()])
            .return_type::<u64>()
            .action()
            .class_handler(|args| {
                let element = element(args)?;
                let text = args.get(1)?.get::<Option<String>>().ok()?.unwrap_or_default();
                let structure = gst::Structure::builder("ask").field("question", text).build();
                Some(element.imp().ask_structure(&structure).to_value())
            })
            .build(),
        Signal::builder("ask-full")
            .param_types([gst::Structure::static_type()])
            .return_type::<u64>()
            .action()
            .class_handler(|args| {
                let element = element(args)?;
                let structure = args.get(1)?.get::<Option<gst::Structure>>().ok()?;
                let structure = structure.unwrap_or_else(|| gst::Structure::new_empty("ask"));
                Some(element.imp().ask_structure(&structure).to_value())
            })
            .build(),
        Signal::builder("cancel")
            .param_types([u64::static_type()])
            .return_type::<bool>()
            .action()
            .class_handler(|args| {
                let element = element(args)?;
                let id = args.get(1)?.get().ok()?;
                Some(element.imp().cancel(id).to_value())
            })
            .build(),
        Signal::builder("clear-memory")
            .action()
            .class_handler(|args| {
                element(args)?.imp().clear_memory();
                None
            })
            .build(),
        Signal::builder("save-memory")
            .return_type::<bool>()
            .action()
            .class_handler(|args| Some(element(args)?.imp().save_memory().to_value()))
            .build(),
        Signal::builder("answer").param_types([gst::Structure::static_type()]).build(),
        Signal::builder("alert").param_types([gst::Structure::static_type()]).build(),
        Signal::builder("token").param_types([u64::static_type(), String::static_type()]).build(),
    ]
}
