// SPDX-License-Identifier: MPL-2.0
//! An application with the element inside: a video plays, questions typed on the console are
//! answered about what has been on screen so far, token by token, and the video never waits.
//!
//! ```sh
//! cargo run --example embed                          # the clip of a street
//! cargo run --example embed -- my.mp4 --model DIR
//! cargo run --example embed -- rtsp://camera/stream --model DIR
//! ```
//!
//! The plugin is linked in, so nothing has to be installed and `GST_PLUGIN_PATH` plays no part.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::thread;

use clap::Parser;
use gst::prelude::*;
use gstreamer as gst;

#[derive(Parser)]
#[command(about = "Ask a playing video questions from the console")]
struct Cli {
    /// A video: a file, or an address such as rtsp://camera/stream.
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/media/everyday.webm"))]
    video: String,
    /// A Hugging Face model directory.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/models/everyday"))]
    model: PathBuf,
    /// Play in a window; without it the video plays unseen, in real time all the same.
    #[arg(long)]
    window: bool,
}

/// What the main loop waits for.
enum Event {
    Typed(String),
    ConsoleClosed,
    Token(String),
    Answer(gst::Structure),
    VideoEnded,
    Failed(String),
}

fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    gst::init()?;
    gststreamkvqa::plugin_register_static()?;
    let outcome = run(&cli);
    // SAFETY: nothing of GStreamer is used behind this. GST_TRACERS=leaks tells what is alive now.
    unsafe { gst::deinit() };
    outcome
}

fn run(cli: &Cli) -> Result<(), Box<dyn Error>> {
    let (pipeline, qa) = build(cli)?;
    let (sender, events) = mpsc::channel();
    listen_to_element(&qa, &sender);
    listen_to_bus(&pipeline, &sender);
    listen_to_console(sender);

    pipeline.set_state(gst::State::Playing)?;
    println!("Playing. Type a question and press Enter; Ctrl-D ends.");
    let mut pending = 0;
    let mut console_open = true;
    let mut outcome = Ok(());
    while console_open || pending > 0 {
        match events.recv()? {
            Event::Typed(question) => {
                qa.emit_by_name::<u64>("ask", &[&question]);
                pending += 1;
            }
            Event::ConsoleClosed => console_open = false,
            Event::Token(text) => {
                print!("{text}");
                std::io::stdout().flush()?;
            }
            Event::Answer(answer) => {
                pending -= 1;
                println!("\n    {}", footnote(&answer));
            }
            // The memory outlives the video: questions are still answered.
            Event::VideoEnded => println!("The video has ended. Ask on, or Ctrl-D."),
            Event::Failed(error) => {
                outcome = Err(error.into());
                break;
            }
        }
    }
    pipeline.set_state(gst::State::Null)?;
    outcome
}

fn build(cli: &Cli) -> Result<(gst::Pipeline, gst::Element), Box<dyn Error>> {
    let sink = if cli.window { "videoconvert ! autovideosink" } else { "fakesink sync=true" };
    let pipeline =
        gst::parse::launch(&format!("uridecodebin name=video ! streamkvqa name=qa ! {sink}"))?
            .downcast::<gst::Pipeline>()
            .map_err(|_| "not a pipeline")?;
    let video = pipeline.by_name("video").ok_or("no element named video")?;
    video.set_property("uri", address(&cli.video)?);
    let qa = pipeline.by_name("qa").ok_or("no element named qa")?;
    qa.set_property("model-path", cli.model.to_string_lossy().as_ref());
    Ok((pipeline, qa))
}

fn address(video: &str) -> Result<String, Box<dyn Error>> {
    match video.contains("://") {
        true => Ok(video.into()),
        false => Ok(gst::glib::filename_to_uri(std::path::absolute(video)?, None)?.into()),
    }
}

/// Tokens and answers come from the element's own thread; a channel brings them over.
fn listen_to_element(qa: &gst::Element, sender: &Sender<Event>) {
    let tokens = sender.clone();
    qa.connect("token", false, move |values| {
        if let Ok(text) = values[2].get::<String>() {
            let _ = tokens.send(Event::Token(text));
        }
        None
    });
    let answers = sender.clone();
    qa.connect("answer", false, move |values| {
        if let Ok(answer) = values[1].get::<gst::Structure>() {
            let _ = answers.send(Event::Answer(answer));
        }
        None
    });
}

fn listen_to_bus(pipeline: &gst::Pipeline, sender: &Sender<Event>) {
    let bus = pipeline.bus().expect("a pipeline has a bus");
    let sender = sender.clone();
    bus.set_sync_handler(move |_, message| {
        let event = match message.view() {
            gst::MessageView::Eos(_) => Some(Event::VideoEnded),
            gst::MessageView::Error(error) => Some(Event::Failed(error.error().to_string())),
            _ => None,
        };
        if let Some(event) = event {
            let _ = sender.send(event);
        }
        gst::BusSyncReply::Drop
    });
}

fn listen_to_console(sender: Sender<Event>) {
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let question = line.trim();
            if !question.is_empty() && sender.send(Event::Typed(question.into())).is_err() {
                return;
            }
        }
        let _ = sender.send(Event::ConsoleClosed);
    });
}

/// When the question was asked and which seconds of the video the answer comes from.
fn footnote(answer: &gst::Structure) -> String {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let asked = answer.get::<u64>("asked-at").map_or(f64::NAN, seconds);
    let status = answer.get::<String>("status").unwrap_or_default();
    let mut text = format!("({status}; asked at {asked:.1} s");
    let evidence = answer.get::<gst::List>("evidence");
    let stretches = evidence.iter().flat_map(|list| list.iter());
    for stretch in stretches.filter_map(|value| value.get::<gst::Structure>().ok()).take(3) {
        let time = |field| stretch.get::<u64>(field).map_or(f64::NAN, seconds);
        text += &format!("; seen {:.1}-{:.1} s", time("start"), time("end"));
    }
    text + ")"
}
