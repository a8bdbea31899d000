// SPDX-License-Identifier: MPL-2.0
//! The clip of `make demo`, its questions and their right answers.
//!
//! Writes raw RGB pictures to standard output, a questions file and a file of right answers (tag,
//! tab, answer) to where it is told. `examples/media/make.sh` runs it and encodes the pictures.
//!
//! The stream is the one that `toyworld frames` paints at one frame per second; here the objects
//! also move between those frames.

use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use clap::Parser;
use serde::Serialize;
use toyworld::{Kind, Question, QuestionOptions, Stream, StreamOptions, render, seeds};

#[derive(Parser)]
struct Cli {
    #[arg(long, default_value_t = seeds::TEST.start)]
    seed: u64,
    #[arg(long, default_value_t = 64)]
    seconds: usize,
    #[arg(long, default_value_t = 10)]
    fps: usize,
    #[arg(long, default_value_t = 320)]
    width: usize,
    #[arg(long, default_value_t = 240)]
    height: usize,
    #[arg(long)]
    questions: String,
    #[arg(long)]
    answers: String,
}

/// A line of the questions file.
#[derive(Serialize)]
struct Line<'a> {
    question: &'a str,
    /// Seconds; the frame of that second is the newest the question may know.
    at: usize,
    tag: &'a str,
}

/// The first question's second, and the seconds from one to the next: time to read an answer.
const FIRST: usize = 8;
const SPACING: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let cli = Cli::parse();
    let options = StreamOptions { frames: cli.seconds, ..StreamOptions::default() };
    let stream = Stream::generate(cli.seed, &options);
    write_questions(&cli, &choose_questions(&stream))?;
    let mut out = BufWriter::new(io::stdout().lock());
    for picture in 0..cli.seconds * cli.fps {
        out.write_all(&paint(&stream, picture, &cli))?;
    }
    out.flush()?;
    Ok(())
}

/// The picture shown `picture` / fps seconds into the stream.
fn paint(stream: &Stream, picture: usize, cli: &Cli) -> Vec<u8> {
    let second = picture / cli.fps;
    let part = (picture % cli.fps) as f32 / cli.fps as f32;
    let shot = stream.shot_at(second);
    let mut scene = shot.scene.clone();
    if let Some(object) = &mut scene.object {
        object.center.0 += part * object.drift.0;
        object.center.1 += part * object.drift.1;
    }
    render(&scene, shot.offset + second - shot.start, cli.width, cli.height)
}

/// One question of each kind, about the past and the present in turn: of the kinds that could be
/// asked at its time the one with the fewest chances left, and the one that reaches back furthest.
fn choose_questions(stream: &Stream) -> Vec<Question> {
    let options = QuestionOptions { count: 40 * stream.frames(), ..QuestionOptions::default() };
    let candidates = stream.questions(0, &options);
    let mut open = Kind::ALL.to_vec();
    let mut chosen = Vec::new();
    for second in (FIRST..stream.frames()).step_by(SPACING) {
        let now = chosen.len() % 2 == 1 && open.iter().any(|kind| kind.is_now());
        let best = candidates
            .iter()
            .filter(|question| question.after_frame == second)
            .filter(|question| open.contains(&question.kind) && question.kind.is_now() == now)
            .min_by_key(|question| {
                let later =
                    |other: &&Question| other.kind == question.kind && other.after_frame > second;
                let chances = candidates.iter().filter(later).count();
                (chances, question.relevant.first().map_or(second, |range| range.start))
            });
        if let Some(question) = best {
            open.retain(|&kind| kind != question.kind);
            chosen.push(question.clone());
        }
    }
    chosen
}

fn write_questions(cli: &Cli, chosen: &[Question]) -> io::Result<()> {
    let mut questions = File::create(&cli.questions)?;
    let mut answers = File::create(&cli.answers)?;
    for question in chosen {
        let tag = question.kind.name();
        let line = Line { question: &question.text, at: question.after_frame, tag };
        writeln!(questions, "{}", serde_json::to_string(&line)?)?;
        writeln!(answers, "{tag}\t{}", question.answer)?;
    }
    Ok(())
}
