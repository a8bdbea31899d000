// SPDX-License-Identifier: MPL-2.0
//! Properties: what may be written into them, and when they bite.

use glib::value::ToSendValue;
use gst::prelude::*;
use gstreamer as gst;

use crate::pipeline::*;

/// Why the state change fails.
#[track_caller]
fn refusal(rig: &Rig) -> String {
    assert!(rig.pipeline.set_state(gst::State::Paused).is_err());
    let error = rig.error();
    assert!(error.matches(gst::ResourceError::Settings), "{error:?}");
    error.message().to_owned()
}

fn memstream() -> Rig {
    Rig::new(&format!("videotestsrc num-buffers=20 {BALL} ! QA method=memstream ! fakesink"))
}

/// The folder of an option that does not exist is named when it is looked for.
#[track_caller]
fn looks_for(rig: &Rig, folder: &str) {
    let _ = rig.pipeline.set_state(gst::State::Playing);
    let error = rig.error();
    assert!(error.message().contains(folder), "{error}");
}

#[test]
fn quotes_in_method_options_keep_commas_together() {
    let folder = "/nowhere, or: \"there\"; a = b";
    for quoted in [
        r#"retrieve=4,external-model="/nowhere, or: \"there\"; a = b",recent=1"#,
        r#"external-model='/nowhere, or: "there"; a = b' ; recent=1"#,
    ] {
        let rig = memstream();
        rig.qa().set_property("method-options", quoted);
        looks_for(&rig, folder);
    }
    let rig = memstream();
    rig.qa().set_property("method-options", "external-model=\"/nowhere, or");
    let message = refusal(&rig);
    assert!(message.contains("external-model") && message.contains("not closed"), "{message}");
}

#[test]
fn quotes_in_method_options_survive_a_command_line() {
    init();
    // What a shell hands to gst-launch-1.0: method-options="external-model='...',recent=1" and
    // method-options='"external-model=\"...\",recent=1"'.
    for options in [
        "method-options=external-model='/nowhere, or there',recent=1",
        r#"method-options="external-model=\"/nowhere, or there\",recent=1""#,
    ] {
        let path = format!("model-path={}", model());
        let words = ["fakesrc", "!", "streamkvqa", "name=qa", &path, "method=memstream", options];
        let pipeline = gst::parse::launchv(&words).unwrap().downcast::<gst::Pipeline>().unwrap();
        let bus = pipeline.bus().unwrap();
        looks_for(&Rig { pipeline, bus }, "/nowhere, or there");
    }
}

#[test]
fn method_options_may_be_a_structure() {
    let folder = "/nowhere, or there";
    let options = |value: glib::SendValue| {
        let mut options = gst::Structure::new_empty("options");
        options.set_value("external-model", folder.to_send_value());
        options.set_value("recent", value);
        options
    };
    for value in [2i32.to_send_value(), 2u64.to_send_value(), "2".to_send_value()] {
        let rig = memstream();
        rig.qa().set_property("method-options", "recent=many");
        rig.qa().set_property("method-options", "retrieve=4");
        rig.qa().set_property("method-options-structure", options(value));
        looks_for(&rig, folder);
    }
    let rig = memstream();
    rig.qa().set_property("method-options-structure", options("many".to_send_value()));
    assert!(refusal(&rig).contains("recent"));
    let rig = memstream();
    let list = gst::List::new([1i32]);
    rig.qa().set_property("method-options-structure", options(list.to_send_value()));
    assert!(refusal(&rig).contains("recent"));
}

/// Another value than the one a property has.
fn another(element: &gst::Element, property: &glib::ParamSpec) -> glib::Value {
    let value = element.property_value(property.name());
    let ty = value.type_();
    if let Ok(value) = value.get::<bool>() {
        return (!value).to_value();
    }
    if let Ok(value) = value.get::<u32>() {
        return if value > 1 { value - 1 } else { value + 1 }.to_value();
    }
    if let Ok(value) = value.get::<u64>() {
        return if value > 1 { value - 1 } else { value + 1 }.to_value();
    }
    if let Ok(value) = value.get::<f64>() {
        return if value > 0.5 { value - 0.5 } else { value + 0.5 }.to_value();
    }
    if value.get::<Option<String>>().is_ok() {
        return "/another".to_value();
    }
    if value.get::<Option<gst::Structure>>().is_ok() {
        return gst::Structure::builder("options").field("retrieve", 7).build().to_value();
    }
    if value.get::<gst::Fraction>().is_ok() {
        return gst::Fraction::new(3, 1).to_value();
    }
    let class = glib::EnumClass::with_type(ty).unwrap();
    let now = glib::EnumValue::from_value(&value).unwrap().1.value();
    let other = class.values().iter().find(|other| other.value() != now).unwrap();
    class.to_value(other.value()).unwrap()
}

#[test]
fn a_property_that_bites_at_the_next_start_says_so() {
    let rig = Rig::new(&format!("videotestsrc {BALL} ! QA ! fakesink"));
    rig.pause();
    let element = rig.qa();
    let own = element.list_properties();
    let own = own.iter().filter(|property| {
        property.owner_type() == element.type_()
            && property.flags().contains(glib::ParamFlags::WRITABLE)
    });
    let (mut warned, mut quiet) = (0, 0);
    for property in own {
        while rig.bus.pop().is_some() {}
        let value = another(&element, property);
        element.set_property_from_value(property.name(), &value);
        element.set_property_from_value(property.name(), &value);
        let warnings: Vec<_> =
            std::iter::from_fn(|| rig.bus.pop_filtered(&[gst::MessageType::Warning]))
                .filter_map(|message| match message.view() {
                    gst::MessageView::Warning(warning) => {
                        Some(warning.error().message().to_owned())
                    }
                    _ => None,
                })
                .collect();
        if property.flags().contains(gst::PARAM_FLAG_MUTABLE_PLAYING) {
            assert!(warnings.is_empty(), "{}: {warnings:?}", property.name());
            quiet += 1;
        } else {
            assert_eq!(warnings.len(), 1, "{}: {warnings:?}", property.name());
            assert!(warnings[0].contains(property.name()), "{warnings:?}");
            assert!(warnings[0].contains("next start"), "{warnings:?}");
            warned += 1;
        }
    }
    assert!(warned > 10 && quiet > 10, "{warned} {quiet}");
}

#[test]
fn a_model_path_set_while_playing_is_the_next_starts() {
    // A model that nobody else has loaded.
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(model()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let rig =
        Rig::new(&format!("videotestsrc num-buffers=20 {BALL} ! QA question=what? ! fakesink"));
    rig.play().eos();
    let other = folder.path().to_str().unwrap();
    rig.qa().set_property("model-path", other);
    rig.pipeline.set_state(gst::State::Ready).unwrap();
    rig.play();
    rig.wait("loading", |message| match message.view() {
        gst::MessageView::Progress(progress) => progress.get().2.contains(other).then_some(()),
        _ => None,
    });
    assert_eq!(rig.answers().len(), 1);
}

#[test]
fn the_sample_rate_of_a_run_stays_and_leaky_does_not() {
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers=40 {BALL} ! QA sample-rate=1/1 question=what? ! fakesink"
    ));
    rig.pause();
    rig.qa().set_property("sample-rate", gst::Fraction::new(10, 1));
    rig.play().eos();
    assert_eq!(rig.stat("sampled"), 4);
}
