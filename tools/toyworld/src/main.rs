// SPDX-License-Identifier: MPL-2.0
//! The toy world on standard output: training data through a pipe, questions, raw video.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use toyworld::{
    Key, Kind, MAX_FRAMES, Pool, Question, QuestionOptions, Rng, Scene, Stream, StreamLine,
    StreamOptions, When, Wording, derive, labels, model_frame, pool_scene, seeds, vision_index,
    vision_scene, write_questions,
};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Labelled frames of lone scenes, for the vision tower.
    ///
    /// Each record is 4 bytes (colour, shape, place, background) and `size * size * 3` of RGB.
    Vision {
        /// The seed of the first frame; the next frame has the next seed.
        #[arg(long, default_value_t = seeds::TRAIN.start)]
        seed: u64,
        /// Stop after this many; without it, never.
        #[arg(long, default_value_t = u64::MAX)]
        count: u64,
        #[arg(long, default_value_t = 56)]
        size: usize,
    },
    /// The frames of a pool of scenes, to be encoded once.
    ///
    /// Records as in `vision`, five for each scene.
    Pool {
        #[arg(long, default_value_t = seeds::TRAIN.start)]
        seed: u64,
        #[arg(long)]
        scenes: u64,
        #[arg(long, default_value_t = 56)]
        size: usize,
    },
    /// Training streams over a pool, JSON Lines.
    ///
    /// `frames`: the number of each frame in the pool. `questions`: kind, text, answer,
    /// after frame, and the relevant frames as [start, end) pairs.
    Streams(StreamsArgs),
    /// The questions of one stream as a questions file, JSON Lines.
    Questions {
        #[command(flatten)]
        stream: StreamArgs,
        #[arg(long, default_value_t = 24)]
        count: usize,
        /// Ask everything after the last frame.
        #[arg(long)]
        at_end: bool,
        /// Use the wordings training never reads.
        #[arg(long)]
        held_out_wording: bool,
        /// Standard output if left out.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// One stream as raw RGB video, one frame per second.
    Frames {
        #[command(flatten)]
        stream: StreamArgs,
        /// WIDTHxHEIGHT
        #[arg(long, default_value = "320x240", value_parser = parse_size)]
        size: (usize, usize),
    },
    /// The frames with which a new scene begins, one per line.
    Cuts {
        #[command(flatten)]
        stream: StreamArgs,
    },
    /// A contact sheet of training frames as a PPM picture.
    Sheet {
        #[arg(long, default_value_t = seeds::TRAIN.start)]
        seed: u64,
        /// Tiles in each direction.
        #[arg(long, default_value = "16x10", value_parser = parse_size)]
        tiles: (usize, usize),
    },
    /// Every text the world can ask or answer, one per line, for the tokenizer.
    Vocabulary,
}

#[derive(Args)]
struct StreamArgs {
    #[arg(long, default_value_t = seeds::TEST.start)]
    seed: u64,
    #[arg(long, default_value_t = 32)]
    frames: usize,
    /// Cast the colour-shape pairs training never shows.
    #[arg(long)]
    held_out: bool,
}

impl StreamArgs {
    fn stream(&self) -> Stream {
        let options = StreamOptions {
            frames: self.frames,
            held_out: self.held_out,
            ..StreamOptions::default()
        };
        Stream::generate(self.seed, &options)
    }
}

#[derive(Args)]
struct StreamsArgs {
    #[arg(long, default_value_t = seeds::TRAIN.start)]
    pool_seed: u64,
    /// Scenes in the pool.
    #[arg(long)]
    scenes: u64,
    /// The seed of the first stream.
    #[arg(long, default_value_t = seeds::TRAIN.start)]
    seed: u64,
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Streams are as long as this, or shorter ...
    #[arg(long, default_value_t = 32)]
    frames: usize,
    /// ... but not shorter than this.
    #[arg(long, default_value_t = 6)]
    min_frames: usize,
    /// This many streams in a row are equally long, so that they batch without padding.
    #[arg(long, default_value_t = 1)]
    batch: u64,
    /// Questions per stream.
    #[arg(long, default_value_t = 14)]
    questions: usize,
    /// Share of streams from which frames are dropped at random, as a retrieval would.
    #[arg(long, default_value_t = 0.0)]
    gaps: f32,
}

fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let (width, height) = text.split_once('x').ok_or("write it as WIDTHxHEIGHT")?;
    let number = |part: &str| part.parse().map_err(|error| format!("{part}: {error}"));
    Ok((number(width)?, number(height)?))
}

fn main() -> io::Result<()> {
    let out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let result = match Cli::parse().command {
        Command::Vision { seed, count, size } => write_vision(out, seed, count, size),
        Command::Pool { seed, scenes, size } => write_pool(out, seed, scenes, size),
        Command::Streams(args) => write_streams(out, &args),
        Command::Questions { stream, count, at_end, held_out_wording, out: path } => {
            let options = QuestionOptions {
                count,
                when: if at_end { When::End } else { When::Anytime },
                wording: if held_out_wording { Wording::HeldOut } else { Wording::Trained },
                ..QuestionOptions::default()
            };
            let questions = stream.stream().questions(0, &options);
            match path {
                Some(path) => write_questions(File::create(path)?, questions),
                None => write_questions(out, questions),
            }
        }
        Command::Frames { stream, size } => write_frames(out, &stream.stream(), size),
        Command::Cuts { stream } => write_cuts(out, &stream.stream()),
        Command::Sheet { seed, tiles } => write_sheet(out, seed, tiles),
        Command::Vocabulary => write_vocabulary(out),
    };
    // The reader of an endless stream stops by closing it.
    result.or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })
}

fn write_record(out: &mut impl Write, scene: &Scene, index: usize, size: usize) -> io::Result<()> {
    out.write_all(&labels(scene, index))?;
    out.write_all(&model_frame(scene, index, size))
}

fn write_vision(mut out: impl Write, seed: u64, count: u64, size: usize) -> io::Result<()> {
    for seed in seed..seed.saturating_add(count) {
        write_record(&mut out, &vision_scene(seed), vision_index(seed), size)?;
    }
    out.flush()
}

fn write_pool(mut out: impl Write, seed: u64, scenes: u64, size: usize) -> io::Result<()> {
    for index in 0..scenes {
        let scene = pool_scene(seed, index);
        for frame in 0..MAX_FRAMES {
            write_record(&mut out, &scene, frame, size)?;
        }
    }
    out.flush()
}

fn write_streams(mut out: impl Write, args: &StreamsArgs) -> io::Result<()> {
    let pool = Pool::new(args.pool_seed, args.scenes);
    // Order questions are the hard ones: they are asked twice as often.
    let mut kinds = Kind::ALL.to_vec();
    kinds.extend([Kind::After, Kind::Before, Kind::After, Kind::Before, Kind::Count]);
    let question_options =
        QuestionOptions { count: args.questions, kinds, ..QuestionOptions::default() };
    for seed in args.seed..args.seed.saturating_add(args.count) {
        let mut rng = Rng::new(derive(seed, 8));
        let mut length = Rng::new(derive((seed - args.seed) / args.batch, 9));
        let options = StreamOptions {
            frames: args.min_frames + length.below(args.frames - args.min_frames + 1),
            ..StreamOptions::default()
        };
        let stream = Stream::assemble(seed, &options, &mut &pool);
        let questions = stream.questions(0, &question_options);
        let kept = if rng.chance(args.gaps) {
            keep_some(&stream, &questions, &mut rng)
        } else {
            vec![true; stream.frames()]
        };
        let pool_frame = |index: usize| {
            let shot = stream.shot_at(index);
            let scene = pool.index_of(&shot.scene).expect("the scene is of this pool");
            scene * MAX_FRAMES + shot.offset + index - shot.start
        };
        serde_json::to_writer(&mut out, &StreamLine::new(&kept, pool_frame, questions))?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Drops frames at random. A shot that answers a question keeps its first frame, so the
/// answers stay right; other shots may vanish.
fn keep_some(stream: &Stream, questions: &[Question], rng: &mut Rng) -> Vec<bool> {
    let share = rng.range(0.4, 0.9);
    let mut kept: Vec<bool> = (0..stream.frames()).map(|_| rng.chance(share)).collect();
    for question in questions {
        kept[question.after_frame] = true;
        for range in &question.relevant {
            kept[range.start] = true;
        }
    }
    kept
}

fn write_frames(mut out: impl Write, stream: &Stream, size: (usize, usize)) -> io::Result<()> {
    for index in 0..stream.frames() {
        out.write_all(&stream.frame(index, size.0, size.1))?;
    }
    out.flush()
}

fn write_cuts(mut out: impl Write, stream: &Stream) -> io::Result<()> {
    for shot in &stream.shots[1..] {
        writeln!(out, "{}", shot.start)?;
    }
    out.flush()
}

fn write_sheet(mut out: impl Write, seed: u64, tiles: (usize, usize)) -> io::Result<()> {
    const TILE: usize = 56;
    let (columns, rows) = tiles;
    writeln!(out, "P6 {} {} 255", columns * TILE, rows * TILE)?;
    for row in 0..rows {
        let frames: Vec<Vec<u8>> = (0..columns)
            .map(|column| {
                let seed = seed + (row * columns + column) as u64;
                model_frame(&vision_scene(seed), vision_index(seed), TILE)
            })
            .collect();
        for y in 0..TILE {
            for frame in &frames {
                out.write_all(&frame[y * TILE * 3..(y + 1) * TILE * 3])?;
            }
        }
    }
    out.flush()
}

fn write_vocabulary(mut out: impl Write) -> io::Result<()> {
    let streams = (0..400).map(|seed| Stream::generate(seed, &StreamOptions::default()));
    let options = QuestionOptions { count: 60, ..QuestionOptions::default() };
    let mut texts: Vec<String> = streams
        .flat_map(|stream| stream.questions(0, &options))
        .flat_map(|question| [question.text, question.answer])
        .chain(Key::all().map(Key::name))
        .collect();
    texts.sort();
    texts.dedup();
    for text in texts {
        writeln!(out, "{text}")?;
    }
    out.flush()
}
