// SPDX-License-Identifier: MPL-2.0
//! The everyday world on standard output: training data through a pipe, questions, raw video.

mod feed;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use everyday::{
    Atlas, Kind, Noun, QuestionOptions, Stream, StreamOptions, Style, When, Wording, seeds,
    vision_shot, vocabulary, write_questions,
};

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    /// The drawings; $EVERYDAY_ATLAS, or else target/everyday/atlas.bin, if left out.
    #[arg(long, global = true)]
    atlas: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Labelled frames for the vision tower.
    ///
    /// Each record is 3 bytes for each of 4 x 4 cells, row by row (the thing that covers most of
    /// it, 0 for none; 1 near, 2 far; how many things have their centre there), 2 bytes for the
    /// frame (scenery, light), and `size * size * 3` of RGB.
    Vision {
        /// The seed of the first frame; the next frame has the next seed.
        #[arg(long, default_value_t = seeds::TRAIN.start)]
        seed: u64,
        /// Stop after this many; without it, never.
        #[arg(long, default_value_t = u64::MAX)]
        count: u64,
        #[arg(long, default_value_t = 112)]
        size: usize,
        /// Whose drawings; named twice, both. Training sees noto and fluent.
        #[arg(long, value_parser = parse_style)]
        style: Vec<Style>,
    },
    /// The frames of a pool of cameras, to be encoded once. Records as in `vision`.
    Pool {
        #[arg(long, default_value_t = seeds::TRAIN.start)]
        seed: u64,
        #[arg(long)]
        cameras: u64,
        #[arg(long, default_value_t = 112)]
        size: usize,
    },
    /// Training streams over a pool, JSON Lines.
    ///
    /// `frames`: the number of each frame in the pool. `questions`: kind, text, answer, after frame,
    /// and the relevant frames as [start, end) pairs.
    Streams(feed::StreamsArgs),
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
        /// Kinds of question, one asked after the other; all if left out.
        #[arg(long, value_delimiter = ',', value_parser = parse_kind)]
        kinds: Vec<Kind>,
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
    /// A contact sheet as a PPM picture: frames as training sees them.
    Sheet {
        #[arg(long, default_value_t = seeds::TRAIN.start)]
        seed: u64,
        /// Tiles in each direction.
        #[arg(long, default_value = "14x8", value_parser = parse_size)]
        tiles: (usize, usize),
        /// Width and height of a tile.
        #[arg(long, default_value_t = 112)]
        size: usize,
        /// Whose drawings; named twice, both. Training sees noto and fluent.
        #[arg(long, value_parser = parse_style)]
        style: Vec<Style>,
    },
    /// Every text the world can ask or answer, one per line, for the tokenizer.
    Vocabulary,
    /// The things by their number: name, plural, kind; one JSON object a line.
    Nouns,
}

#[derive(Args)]
struct StreamArgs {
    #[arg(long, default_value_t = seeds::TEST.start)]
    seed: u64,
    #[arg(long, default_value_t = 64)]
    frames: usize,
    /// Cast the things that training never shows where they are shown here.
    #[arg(long)]
    held_out: bool,
    /// The shape of the picture as WIDTH:HEIGHT. It decides what finds room in it: questions are
    /// about the frames of the same shape.
    #[arg(long, default_value = "4:3", value_parser = parse_aspect)]
    aspect: f32,
    /// Whose drawings; named twice, both. Training sees noto and fluent.
    #[arg(long, value_parser = parse_style)]
    style: Vec<Style>,
}

impl StreamArgs {
    fn stream(&self) -> Stream {
        let options = StreamOptions {
            frames: self.frames,
            held_out: self.held_out,
            styles: styles(&self.style),
            aspect: Some(self.aspect),
        };
        Stream::generate(self.seed, &options)
    }
}

/// The styles named, or those of the training.
fn styles(named: &[Style]) -> Vec<Style> {
    if named.is_empty() { Style::TRAINED.to_vec() } else { named.to_vec() }
}

fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let (width, height) = text.split_once('x').ok_or("write it as WIDTHxHEIGHT")?;
    let number = |part: &str| match part.parse() {
        Ok(0) => Err("0 is too small".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{part}: {error}")),
    };
    Ok((number(width)?, number(height)?))
}

fn parse_aspect(text: &str) -> Result<f32, String> {
    let (width, height) = parse_size(&text.replace(':', "x")).map_err(|_| "write it as 4:3")?;
    Ok(width as f32 / height as f32)
}

fn parse_kind(name: &str) -> Result<Kind, String> {
    let found = Kind::ALL.iter().copied().find(|kind| kind.name() == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        format!("there is no such kind; kinds: {}", names.join(", "))
    })
}

fn parse_style(name: &str) -> Result<Style, String> {
    let found = Style::ALL.iter().copied().find(|style| style.word() == name);
    found.ok_or_else(|| format!("there is no such style; styles: {}", Style::WORDS.join(", ")))
}

fn main() -> io::Result<()> {
    let cli = Cli::parse();
    let out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let atlas = || Atlas::open(&cli.atlas.clone().unwrap_or_else(Atlas::default_path));
    let result = match cli.command {
        Command::Vision { seed, count, size, style } => {
            feed::vision(out, &atlas()?, seed..seed.saturating_add(count), size, &styles(&style))
        }
        Command::Pool { seed, cameras, size } => feed::pool(out, &atlas()?, seed, cameras, size),
        Command::Streams(args) => feed::streams(out, &args),
        Command::Questions { stream, count, at_end, held_out_wording, kinds, out: path } => {
            let options = QuestionOptions {
                count,
                kinds: if kinds.is_empty() { Kind::ALL.to_vec() } else { kinds },
                when: if at_end { When::End } else { When::Anytime },
                wording: if held_out_wording { Wording::HeldOut } else { Wording::Trained },
            };
            let questions = stream.stream().questions(0, &options);
            match path {
                Some(path) => write_questions(File::create(path)?, questions),
                None => write_questions(out, questions),
            }
        }
        Command::Frames { stream, size } => write_frames(out, &atlas()?, &stream.stream(), size),
        Command::Sheet { seed, tiles, size, style } => {
            write_sheet(out, &atlas()?, seed, tiles, size, &styles(&style))
        }
        Command::Vocabulary => write_vocabulary(out),
        Command::Nouns => write_nouns(out),
    };
    // The reader of an endless stream stops by closing it.
    result.or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })
}

fn write_frames(
    mut out: impl Write,
    atlas: &Atlas,
    stream: &Stream,
    (width, height): (usize, usize),
) -> io::Result<()> {
    for index in 0..stream.frames() {
        out.write_all(&stream.frame(atlas, index, width, height))?;
    }
    out.flush()
}

fn write_sheet(
    mut out: impl Write,
    atlas: &Atlas,
    seed: u64,
    (columns, rows): (usize, usize),
    size: usize,
    styles: &[Style],
) -> io::Result<()> {
    writeln!(out, "P6 {} {} 255", columns * size, rows * size)?;
    for row in 0..rows {
        let frames: Vec<Vec<u8>> = (0..columns)
            .map(|column| {
                let seed = seed + (row * columns + column) as u64;
                vision_shot(seed, styles).picture(atlas, size)
            })
            .collect();
        for y in 0..size {
            for frame in &frames {
                out.write_all(&frame[y * size * 3..(y + 1) * size * 3])?;
            }
        }
    }
    out.flush()
}

fn write_vocabulary(mut out: impl Write) -> io::Result<()> {
    for text in vocabulary() {
        writeln!(out, "{text}")?;
    }
    out.flush()
}

fn write_nouns(mut out: impl Write) -> io::Result<()> {
    for noun in Noun::all() {
        let row = serde_json::json!({
            "id": noun.id(), "noun": noun.name(), "plural": noun.plural(), "kind": noun.category(),
        });
        writeln!(out, "{row}")?;
    }
    out.flush()
}
