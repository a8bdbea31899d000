// SPDX-License-Identifier: MPL-2.0
//! The everyday world on standard output: training data through a pipe, questions, raw video.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use everyday::{Atlas, Camera, Clip, Noun, Pool, labels, model_frame, seeds, vision_shot};

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
    /// The things by their number: name, plural, kind; one JSON object a line.
    Nouns,
}

fn main() -> io::Result<()> {
    let cli = Cli::parse();
    let out = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let atlas = || Atlas::open(&cli.atlas.clone().unwrap_or_else(Atlas::default_path));
    let result = match cli.command {
        Command::Vision { seed, count, size } => write_vision(out, &atlas()?, seed, count, size),
        Command::Pool { seed, cameras, size } => write_pool(out, &atlas()?, seed, cameras, size),
        Command::Nouns => write_nouns(out),
    };
    // The reader of an endless stream stops by closing it.
    result.or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })
}

fn write_record(
    out: &mut impl Write,
    atlas: &Atlas,
    (camera, clip): (&Camera, &Clip),
    index: usize,
    size: usize,
) -> io::Result<()> {
    out.write_all(&labels(atlas, camera, clip, index))?;
    out.write_all(&model_frame(atlas, camera, clip, index, size))
}

fn write_vision(
    mut out: impl Write,
    atlas: &Atlas,
    seed: u64,
    count: u64,
    size: usize,
) -> io::Result<()> {
    for seed in seed..seed.saturating_add(count) {
        let shot = vision_shot(seed);
        write_record(&mut out, atlas, (&shot.camera, &shot.clip), shot.index, size)?;
    }
    out.flush()
}

fn write_pool(
    mut out: impl Write,
    atlas: &Atlas,
    seed: u64,
    cameras: u64,
    size: usize,
) -> io::Result<()> {
    for roll in Pool::new(seed, cameras).rolls() {
        for clip in roll.clips.iter().flatten() {
            for index in 0..clip.frames {
                write_record(&mut out, atlas, (&roll.camera, clip), index, size)?;
            }
        }
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
