// SPDX-License-Identifier: MPL-2.0
//! The clip of `make demo`: a street, from day to night, its questions and their right answers.
//!
//! Writes raw RGB pictures to standard output, a questions file and a file of right answers (tag,
//! tab, answer) to where it is told. `examples/media/make-everyday.sh` runs it and encodes the
//! pictures. What happens is written down here; who is where, and every answer, is the world's.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Parser;
use everyday::{
    Atlas, Camera, Clip, Facing, Hold, Kind, Light, Moment, Noun, Pose, Scenery, Stream, Style,
    Subject, Thing, paint_things,
};
use serde::Serialize;

#[derive(Parser)]
struct Cli {
    /// Drawings of 256 pixels: `tools/everyday/atlas.sh ATLAS 256` makes them.
    #[arg(long)]
    atlas: PathBuf,
    /// Which street.
    #[arg(long, default_value_t = 2_000_000_007)]
    seed: u64,
    #[arg(long, default_value_t = 8)]
    fps: usize,
    #[arg(long, default_value_t = 640)]
    width: usize,
    #[arg(long, default_value_t = 480)]
    height: usize,
    #[arg(long)]
    questions: PathBuf,
    #[arg(long)]
    answers: PathBuf,
}

const ASPECT: f32 = 4.0 / 3.0;
/// The lights and the seconds with which they begin.
const LIGHTS: [(Light, usize); 3] = [(Light::Day, 0), (Light::Dusk, 37), (Light::Night, 65)];
const SECONDS: usize = 90;
/// Seconds over which one light turns into the next.
const TURNING: f32 = 5.0;

/// What somebody does.
#[derive(Clone, Copy)]
enum Act {
    /// From the left to the right.
    Right,
    /// From the right to the left.
    Left,
    /// Stands there.
    At(f32),
}

/// Who is seen from which second for how many, how large, and does what.
const STORY: [(&str, usize, usize, f32, Act); 12] = [
    ("dog", 3, 6, 0.42, Act::At(0.22)),
    ("builder", 5, 4, 0.36, Act::At(0.76)),
    ("car", 12, 5, 0.42, Act::Right),
    ("officer", 19, 6, 0.40, Act::At(0.5)),
    ("officer", 20, 5, 0.36, Act::At(0.8)),
    ("bus", 28, 5, 0.46, Act::Left),
    ("cat", 40, 6, 0.40, Act::At(0.78)),
    ("elephant", 49, 6, 0.47, Act::Right),
    ("car", 56, 4, 0.40, Act::Left),
    ("fire engine", 69, 5, 0.46, Act::Right),
    ("owl", 76, 6, 0.36, Act::At(0.22)),
    ("car", 84, 5, 0.42, Act::Right),
];

/// What is asked when: second, tag, kind, subject. Mostly kinds that a small model learns well (on validation
/// seeds), with one of the hardest at the end.
const ASKED: [(usize, &str, Kind, &str); 14] = [
    (4, "now", Kind::Now, ""),
    (7, "where-now", Kind::WhereNow, "dog"),
    (10, "first", Kind::First, ""),
    (14, "kind", Kind::KindNow, ""),
    (21, "how-many", Kind::CountNow, "officer"),
    (34, "last", Kind::Last, ""),
    (44, "light", Kind::LightNow, ""),
    (52, "unusual", Kind::Now, ""),
    (61, "place", Kind::SceneNow, ""),
    (64, "appeared", Kind::DidAppear, "elephant"),
    (75, "where-was", Kind::WhereWas, "cat"),
    (79, "gone", Kind::ExistsNow, "fire engine"),
    (83, "when", Kind::When, "fire engine"),
    (89, "came-by", Kind::CameBy, "car"),
];
/// Asked at every second; only another answer than before is reported.
const STANDING: [(&str, &str); 2] = [("elephant", "elephant"), ("fire-engine", "fire engine")];

/// A line of the questions file.
#[derive(Serialize)]
struct Line<'a> {
    question: &'a str,
    /// Seconds; the frame of that second is the newest the question may know.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<usize>,
    #[serde(rename = "on-change", skip_serializing_if = "std::ops::Not::not")]
    on_change: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<&'a str>,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    hold: Option<usize>,
    tag: &'a str,
}

fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let atlas = Atlas::open(&cli.atlas)?;
    let camera = camera(cli.seed);
    let stream = Stream::of(camera.clone(), clips(&camera)?);
    write_questions(&cli, &stream)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for picture in 0..SECONDS * cli.fps {
        let at = picture as f32 / cli.fps as f32;
        let moment = moment(picture, at);
        let things: Vec<(Thing, Pose)> = stream
            .segments
            .iter()
            .flat_map(|segment| {
                let at = at - segment.start as f32;
                segment.clip().things.iter().filter_map(move |thing| posed(thing, at))
            })
            .collect();
        let things = things.iter().map(|(thing, pose)| (thing, *pose)).collect();
        out.write_all(&paint_things(&atlas, &camera, &moment, things, (cli.width, cli.height)))?;
    }
    out.flush()?;
    Ok(())
}

/// A street seen by a camera that is fixed and good.
fn camera(seed: u64) -> Camera {
    let mut camera = Camera::new(seed, Scenery::Street, Some(ASPECT));
    camera.hold = Hold::Still;
    camera.blur = 0.0;
    camera.lens.noise = camera.lens.noise.min(2.0);
    camera.lens.blocks = 0.0;
    camera
}

/// The story, cut where the light changes.
fn clips(camera: &Camera) -> Result<Vec<Clip>, Box<dyn Error>> {
    let mut clips = Vec::new();
    for (index, &(light, start)) in LIGHTS.iter().enumerate() {
        let end = LIGHTS.get(index + 1).map_or(SECONDS, |next| next.1);
        let mut things = Vec::new();
        for &(name, from, length, size, act) in &STORY {
            if !(start..end).contains(&from) {
                continue;
            }
            let noun = Noun::named(name).ok_or("the story has somebody unknown in it")?;
            let poses = (0..length).map(|step| placed(camera, noun, size, act, step, length));
            let mut track = vec![None; end - start];
            for (step, pose) in poses.enumerate() {
                *track.get_mut(from - start + step).ok_or("somebody stays into another light")? =
                    Some(pose);
            }
            things.push(Thing { noun, style: Style::Fluent, mirrored: false, track });
        }
        clips.push(Clip { seed: index as u64, light, frames: end - start, things });
    }
    Ok(clips)
}

/// Where somebody is at a step of an act.
fn placed(camera: &Camera, noun: Noun, size: f32, act: Act, step: usize, length: usize) -> Pose {
    let (width, height) = camera.extent(size);
    let edge = 0.37 * width;
    let part = step as f32 / (length - 1) as f32;
    let x = match act {
        Act::Right => edge + part * (1.0 - 2.0 * edge),
        Act::Left => 1.0 - edge - part * (1.0 - 2.0 * edge),
        Act::At(x) => x,
    };
    let y = match noun.element() {
        everyday::Element::Air => 0.5 * height + 0.03,
        _ => camera.foot(size) - 0.5 * height,
    };
    Pose { x, y, size }
}

/// Somebody between the seconds, where there is somebody: in the one before the first and after the last frame it
/// comes from beyond the nearer side, and goes back there or on.
fn posed(thing: &Thing, at: f32) -> Option<(Thing, Pose)> {
    let first = thing.track.iter().position(Option::is_some)?;
    let last = thing.track.iter().rposition(Option::is_some)?;
    let (enter, leave) = (thing.track[first]?, thing.track[last]?);
    if at <= first as f32 - 1.0 || at >= last as f32 + 1.0 {
        return None;
    }
    let beyond = |pose: Pose, left: bool| {
        let side = 0.62 * pose.size;
        Pose { x: if left { -side } else { 1.0 + side }, ..pose }
    };
    let goes_left = if enter.x == leave.x { leave.x < 0.5 } else { leave.x < enter.x };
    let comes_left = if enter.x == leave.x { enter.x < 0.5 } else { enter.x < leave.x };
    let frame = |index: f32| -> Pose {
        if index < first as f32 {
            beyond(enter, comes_left)
        } else if index > last as f32 {
            beyond(leave, goes_left)
        } else {
            thing.track[index as usize].unwrap_or(enter)
        }
    };
    let (from, to) = (frame(at.floor()), frame(at.floor() + 1.0));
    let part = at - at.floor();
    let moved = to.x - from.x;
    let step =
        if moved.abs() > 0.01 { 0.006 * (std::f32::consts::TAU * at).sin().abs() } else { 0.0 };
    let mut thing = thing.clone();
    // Whoever leaves turns round; whoever stands there looks where it was going.
    let goes_right = if moved == 0.0 { comes_left } else { moved > 0.0 };
    thing.mirrored = goes_right && thing.noun.facing() == Facing::Left;
    let between = |from: f32, to: f32| from + part * (to - from);
    Some((
        thing,
        Pose { x: between(from.x, to.x), y: between(from.y, to.y) - step, size: from.size },
    ))
}

fn moment(picture: usize, at: f32) -> Moment {
    let (mut light, mut turning) = (LIGHTS[0].0, None);
    for pair in LIGHTS.windows(2) {
        // Done with the second from which it counts.
        let share = 1.0 - (pair[1].1 as f32 - at) / TURNING;
        if share >= 1.0 {
            light = pair[1].0;
        } else if share > 0.0 {
            turning = Some((pair[1].0, share));
        }
    }
    Moment { seed: 0, light, turning, part: 0.0, index: picture }
}

fn write_questions(cli: &Cli, stream: &Stream) -> Result<(), Box<dyn Error>> {
    let mut questions = File::create(&cli.questions)?;
    let mut answers = File::create(&cli.answers)?;
    let mut write = |line: Line<'_>| -> Result<(), Box<dyn Error>> {
        Ok(writeln!(questions, "{}", serde_json::to_string(&line)?)?)
    };
    for (tag, name) in STANDING {
        let noun = Noun::named(name).ok_or("a standing question is about something unknown")?;
        let text = Subject::Noun(noun).put_into(Kind::ExistsNow.wordings()[0]);
        // A second look before anybody is alarmed.
        let (interval, when, hold) = (Some(1), Some("yes"), Some(2));
        write(Line { question: &text, at: None, interval, on_change: true, when, hold, tag })?;
    }
    for (second, tag, kind, name) in ASKED {
        let subject = Noun::named(name).map_or(Subject::None, Subject::Noun);
        let question = stream
            .question(kind, subject, second)
            .ok_or_else(|| format!("{tag} has no single answer at {second} s"))?;
        let text = &question.text;
        let (at, interval, when, hold) = (Some(second), None, None, None);
        write(Line { question: text, at, interval, on_change: false, when, hold, tag })?;
        writeln!(answers, "{tag}\t{}", question.answer)?;
    }
    Ok(())
}
