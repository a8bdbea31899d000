// SPDX-License-Identifier: MPL-2.0
//! An answer in each of its shapes.

use std::sync::mpsc;

use gst::prelude::*;
use gstreamer as gst;

use crate::pipeline::*;

#[test]
fn an_answer_is_a_message_a_signal_tokens_a_property_and_a_meta() {
    let rig = Rig::new(&format!("videotestsrc num-buffers=30 {BALL} ! QA ! fakesink"));
    let qa = rig.qa();
    let (sender, answers) = mpsc::channel();
    qa.connect("answer", false, move |args| {
        sender.send(args[1].get::<gst::Structure>().unwrap()).unwrap();
        None
    });
    let (sender, tokens) = mpsc::channel();
    qa.connect("token", false, move |args| {
        sender.send((args[1].get::<u64>().unwrap(), args[2].get::<String>().unwrap())).unwrap();
        None
    });
    let (sender, notified) = mpsc::channel();
    qa.connect_notify(Some("last-answer"), move |qa, _| {
        sender.send(qa.property::<String>("last-answer")).unwrap();
    });
    let metas = watch(&qa.static_pad("src").unwrap(), gst::PadProbeType::BUFFER, |info| {
        let meta =
            gst::meta::CustomMeta::from_buffer(info.buffer()?, "StreamKvqaAnswerMeta").ok()?;
        Some(meta.structure().get::<u64>("id").unwrap())
    });

    rig.pause();
    let id = rig.ask("what is it?");
    let message = rig.answer();
    rig.play().eos();

    assert_eq!(message.id(), id);
    let signal = answers.try_recv().unwrap();
    assert_eq!(signal.get::<u64>("id").unwrap(), id);
    assert!(answers.try_recv().is_err());
    let text = message.text("answer");
    let tokens: Vec<_> = tokens.try_iter().collect();
    assert!(tokens.iter().all(|(of, _)| *of == id));
    if message.0.get::<u64>("tokens").unwrap() > 0 {
        assert!(!tokens.is_empty());
    }
    assert_eq!(notified.try_recv().unwrap(), text);
    assert_eq!(qa.property::<String>("last-answer"), text);
    assert_eq!(*metas.lock().unwrap(), [id]);
}

#[test]
fn evidence_lies_in_what_was_seen() {
    let rig =
        Rig::new(&format!("videotestsrc num-buffers=60 {BALL} ! QA question=what? ! fakesink"));
    let answer = rig.play().answers().remove(0);
    let evidence = answer.0.get::<gst::List>("evidence").unwrap();
    assert!(!evidence.is_empty());
    for span in evidence.iter() {
        let span = span.get::<gst::Structure>().unwrap();
        let (start, end) = (span.get::<u64>("start").unwrap(), span.get::<u64>("end").unwrap());
        assert!(start <= end && end <= 6_000_000_000, "{span}");
        assert_eq!(span.get::<u64>("start-stream").unwrap(), start);
        assert!((0.0..=1.0).contains(&span.get::<f64>("score").unwrap()), "{span}");
    }
}

#[test]
fn evidence_after_a_seek_is_in_the_time_of_its_pass() {
    let rig = Rig::new(&format!("videotestsrc num-buffers=40 {BALL} ! QA ! fakesink"));
    rig.pause();
    let flags = gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE;
    rig.pipeline.seek_simple(flags, gst::ClockTime::from_seconds(100)).unwrap();
    rig.play().eos();
    rig.ask("what?");
    let answer = rig.answer();
    let asked = answer.ms("asked-at");
    assert_eq!(answer.ms("asked-at-stream"), asked + 100_000);
    for span in answer.0.get::<gst::List>("evidence").unwrap().iter() {
        let span = span.get::<gst::Structure>().unwrap();
        assert!(span.get::<u64>("end").unwrap() <= 4_000_000_000, "{span}");
    }
}

#[test]
fn post_messages_off_leaves_the_bus_alone() {
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers=20 {BALL} ! QA post-messages=false question=what? ! fakesink"
    ));
    assert!(rig.play().answers().is_empty());
    assert_eq!(rig.stat("answers"), 1);
}

#[test]
fn the_wall_clock_is_known_live() {
    let rig = Rig::new(&format!("videotestsrc is-live=true {BALL} ! QA ! fakesink"));
    rig.play();
    rig.until("a frame", |stats| stats.get::<u64>("encoded").unwrap() > 0);
    rig.ask("when?");
    let wall = rig.answer().0.get::<u64>("wall-clock").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(now.as_nanos().abs_diff(wall.into()) < 60_000_000_000, "{wall}");
}

#[test]
fn a_senders_reference_timestamp_is_the_wall_clock() {
    let rig =
        Rig::new(&format!("videotestsrc num-buffers=20 {BALL} ! QA question=when? ! fakesink"));
    rig.qa().static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let ntp = gst::Caps::new_empty_simple("timestamp/x-ntp");
            let pts = buffer.pts().unwrap();
            let time = gst::ClockTime::from_seconds(2_208_988_800 + 1_700_000_000) + pts;
            gst::ReferenceTimestampMeta::add(buffer.make_mut(), &ntp, time, None);
        }
        gst::PadProbeReturn::Ok
    });
    let answer = rig.play().answers().remove(0);
    assert_eq!(answer.ms("wall-clock"), 1_700_000_000_000 + answer.ms("asked-at"));
}

#[test]
fn a_time_of_day_finds_what_was_seen_then_also_where_the_sender_tells_it_late() {
    let rig = Rig::new(&format!("videotestsrc num-buffers=200 {BALL} ! QA method=rekv ! fakesink"));
    rig.qa().static_pad("sink").unwrap().add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let pts = buffer.pts().unwrap();
            // As a camera does whose first report comes after some seconds, and which tells it now and then.
            let told = pts.mseconds() >= 5000 && (pts.mseconds() / 100).is_multiple_of(3);
            let time = gst::ClockTime::from_seconds(1_700_000_000) + pts;
            let unix = gst::Caps::new_empty_simple("timestamp/x-unix");
            told.then(|| gst::ReferenceTimestampMeta::add(buffer.make_mut(), &unix, time, None));
        }
        gst::PadProbeReturn::Ok
    });
    let ask = gst::Structure::builder("ask").field("question", "then?").field("at", 18.0f64);
    let ask = ask.field("from", "2023-11-14T22:13:28Z").field("to", "2023-11-14T22:13:31Z");
    rig.ask_full(ask.build());
    let answer = rig.play().answers().remove(0);
    assert_eq!(answer.status(), "ok", "{answer:?}");
    let evidence = answer.0.get::<gst::List>("evidence").unwrap();
    assert!(!evidence.is_empty());
    for span in evidence.iter().map(|span| span.get::<gst::Structure>().unwrap()) {
        let ms = |field: &str| span.get::<u64>(field).unwrap() / 1_000_000;
        assert!(ms("start") >= 8000 && ms("end") <= 11_000, "{span:?}");
        assert_eq!(ms("start-wall-clock"), 1_700_000_000_000 + ms("start"));
    }
}

#[test]
fn an_answer_is_one_json_text_too_and_names_its_element() {
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers=60 {BALL} ! QA ! fakesink qa.text ! fakesink name=text"
    ));
    rig.qa().set_property_from_str("text-format", "json");
    let texts = watch(
        &rig.element("text").static_pad("sink").unwrap(),
        gst::PadProbeType::BUFFER,
        |info| Some(info.buffer()?.map_readable().unwrap().to_vec()),
    );
    let metas = watch(&rig.qa().static_pad("src").unwrap(), gst::PadProbeType::BUFFER, |info| {
        let meta =
            gst::meta::CustomMeta::from_buffer(info.buffer()?, "StreamKvqaAnswerMeta").ok()?;
        Some(meta.structure().get::<String>("json").unwrap())
    });
    let ask = gst::Structure::builder("ask").field("question", "a \"b\"?").field("tag", "t");
    rig.ask_full(ask.field("at", 4.0f64).build());
    let answer = rig.play().answers().remove(0);
    assert_eq!(answer.text("element"), "qa");
    let json = answer.text("json");
    let fields: serde_json::Map<_, _> = serde_json::from_str(&json).unwrap();
    for (name, value) in answer.0.iter().filter(|(name, _)| *name != "json") {
        let found = &fields[name.as_str()];
        match name.as_str() {
            "evidence" => {
                for (span, seconds) in
                    value.get::<gst::List>().unwrap().iter().zip(found.as_array().unwrap())
                {
                    let span = span.get::<gst::Structure>().unwrap();
                    for time in ["start", "end", "start-stream", "end-stream"] {
                        let ns = span.get::<u64>(time).unwrap() as f64;
                        assert_eq!(seconds[time], ns / 1e9, "{span}");
                    }
                }
            }
            "asked-at" | "asked-at-stream" | "answered-at" | "frame-age" => {
                // Written as decimals and read again.
                let seconds = value.get::<u64>().unwrap() as f64 / 1e9;
                assert!((found.as_f64().unwrap() - seconds).abs() < 1e-9, "{found}");
            }
            "id" | "tokens" => assert_eq!(found.as_u64().unwrap(), value.get::<u64>().unwrap()),
            "last" | "truncated" => assert_eq!(*found, value.get::<bool>().unwrap()),
            "latency-ms" | "confidence" => {
                let number = value.get::<f64>().unwrap();
                assert!((found.as_f64().unwrap() - number).abs() < 1e-9, "{found}");
            }
            _ => assert_eq!(*found, value.get::<String>().unwrap(), "{name}"),
        }
    }
    assert_eq!(fields["asked-at"], 4.0);
    rig.stop();
    assert_eq!(*texts.lock().unwrap(), [format!("{json}\n").into_bytes()]);
    // The video's end may come before the answer.
    assert!(metas.lock().unwrap().iter().all(|meta| *meta == json));
}

#[test]
fn evidence_of_one_frame_has_a_length() {
    let rig = Rig::new(&format!(
        "videotestsrc num-buffers=1 {BALL} ! QA question=what? sample-rate=2/1 ! fakesink"
    ));
    let answer = rig.play().answers().remove(0);
    let evidence = answer.0.get::<gst::List>("evidence").unwrap();
    let span = evidence[0].get::<gst::Structure>().unwrap();
    assert_eq!((span.get::<u64>("start"), span.get::<u64>("end")), (Ok(0), Ok(500_000_000)));
    assert_eq!(span.get::<u64>("end-stream"), Ok(500_000_000));
}

/// At temperature 0 the best token is taken each time; above it, the seed decides.
#[test]
fn temperature_draws_by_the_seed_and_an_answer_says_how_it_ended() {
    let asked = |properties: &[(&str, glib::Value)]| {
        let rig = Rig::new(&format!("videotestsrc num-buffers=10 {BALL} ! QA ! fakesink"));
        let qa = rig.qa();
        qa.set_property("max-tokens", 12u32);
        qa.set_property("question", "what?");
        for (name, value) in properties {
            qa.set_property_from_value(name, value);
        }
        rig.play();
        let answers = rig.answers();
        let finish = answers[0].text("finish");
        assert!(["stop", "length"].contains(&finish.as_str()), "{finish}");
        let truncated: bool = answers[0].0.get("truncated").unwrap();
        assert_eq!(truncated, finish == "length");
        answers[0].text("answer")
    };
    let drawn = |seed: u64| asked(&[("temperature", 2.0f64.to_value()), ("seed", seed.to_value())]);
    let greedy = asked(&[]);
    assert_eq!(asked(&[("seed", 7u64.to_value())]), greedy);
    assert_eq!(asked(&[("temperature", 1e-6f64.to_value())]), greedy);
    let nearly_none = [("temperature", 2.0f64.to_value()), ("top-p", 1e-9f64.to_value())];
    assert_eq!(asked(&nearly_none), greedy);
    assert_eq!(drawn(1), drawn(1));
    assert!((2..6).any(|seed| drawn(seed) != drawn(1)));
}
