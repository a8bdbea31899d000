// SPDX-License-Identifier: MPL-2.0
//! What the training reads through a pipe: labelled pictures, and streams over a pool of them.

use std::io::{self, Write};
use std::ops::Range;

use clap::Args;
use everyday::{
    Atlas, Camera, Clip, Kind, Pool, Question, QuestionOptions, Rng, Stream, StreamLine,
    StreamOptions, Style, derive, labels, model_frame, seeds, vision_shot,
};

use crate::parse_kind;

#[derive(Args)]
pub struct StreamsArgs {
    #[arg(long, default_value_t = seeds::TRAIN.start)]
    pool_seed: u64,
    /// Cameras in the pool.
    #[arg(long)]
    cameras: u64,
    /// The seed of the first stream.
    #[arg(long, default_value_t = seeds::TRAIN.start)]
    seed: u64,
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Streams are as long as this, or shorter ...
    #[arg(long, default_value_t = 64)]
    frames: usize,
    /// ... but not shorter than this.
    #[arg(long, default_value_t = 6)]
    min_frames: usize,
    /// This many streams in a row are equally long, so that they batch without padding.
    #[arg(long, default_value_t = 1)]
    batch: u64,
    /// Questions per stream.
    #[arg(long, default_value_t = 20)]
    questions: usize,
    /// Share of streams from which frames are dropped at random, as a retrieval would.
    #[arg(long, default_value_t = 0.0)]
    gaps: f32,
    /// Kinds of question, one asked after the other; a kind named twice is asked twice as often.
    #[arg(long, value_delimiter = ',', value_parser = parse_kind)]
    kinds: Vec<Kind>,
}

/// What is asked twice as often as the rest: what takes longest to learn.
const HARD: [Kind; 8] = [
    Kind::After,
    Kind::After,
    Kind::Before,
    Kind::Before,
    Kind::CameBy,
    Kind::First,
    Kind::Now,
    Kind::WhichWay,
];

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

pub fn vision(
    mut out: impl Write,
    atlas: &Atlas,
    seeds: Range<u64>,
    size: usize,
    styles: &[Style],
) -> io::Result<()> {
    for seed in seeds {
        let shot = vision_shot(seed, styles);
        write_record(&mut out, atlas, (&shot.camera, &shot.clip), shot.index, size)?;
    }
    out.flush()
}

pub fn pool(
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

pub fn streams(mut out: impl Write, args: &StreamsArgs) -> io::Result<()> {
    if args.min_frames == 0 || args.min_frames > args.frames || args.batch == 0 || args.cameras == 0
    {
        let text = "--min-frames, --batch and --cameras have to be at least 1, --frames at least --min-frames";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let pool = Pool::new(args.pool_seed, args.cameras);
    let kinds = if args.kinds.is_empty() {
        Kind::ALL.iter().copied().chain(HARD).collect()
    } else {
        args.kinds.clone()
    };
    for seed in args.seed..args.seed.saturating_add(args.count) {
        let mut rng = Rng::new(derive(seed, 8));
        let mut length = Rng::new(derive((seed - args.seed) / args.batch, 9));
        let options = StreamOptions {
            frames: args.min_frames + length.below(args.frames - args.min_frames + 1),
            ..StreamOptions::default()
        };
        let stream = Stream::assemble(seed, &options, &mut &pool);
        let gaps = rng.chance(args.gaps);
        let mut kinds: Vec<Kind> = kinds.clone();
        // Whoever has not seen every second cannot count them.
        kinds.retain(|&kind| !gaps || kind != Kind::When);
        let asked = QuestionOptions { count: args.questions, kinds, ..QuestionOptions::default() };
        let questions = stream.questions(0, &asked);
        let kept = if gaps {
            keep_some(&stream, &questions, &mut rng)
        } else {
            vec![true; stream.frames()]
        };
        let pool_frame = |index| stream.pool_frame(index);
        serde_json::to_writer(&mut out, &StreamLine::new(&kept, pool_frame, questions))?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Drops frames at random. A visit that answers a question keeps its first and its last frame and
/// the one before it, so the answers stay right; others may vanish.
fn keep_some(stream: &Stream, questions: &[Question], rng: &mut Rng) -> Vec<bool> {
    let share = rng.range(0.4, 0.9);
    let mut kept: Vec<bool> = (0..stream.frames()).map(|_| rng.chance(share)).collect();
    for question in questions {
        kept[question.after_frame] = true;
        for range in &question.relevant {
            kept[range.start.saturating_sub(1)] = true;
            kept[range.start] = true;
            kept[range.end - 1] = true;
        }
    }
    kept
}
