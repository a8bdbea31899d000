// SPDX-License-Identifier: MPL-2.0
//! The worlds that can be asked about, alike to whoever evaluates.

use std::ops::Range;
use std::path::PathBuf;

use clap::ValueEnum;
use everyday::Atlas;
use worlds::{Question, QuestionKind, QuestionOptions, When, Wording};

/// The size the videos are painted at; the model's own processor takes it from there.
pub const PAINTED: (usize, usize) = (160, 120);

/// A world by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    Toyworld,
    Everyday,
}

impl Name {
    pub fn text(self) -> &'static str {
        match self {
            Self::Toyworld => "toyworld",
            Self::Everyday => "everyday",
        }
    }

    /// The kinds of question, in the order of tables.
    pub fn kinds(self) -> Vec<&'static str> {
        match self {
            Self::Toyworld => toyworld::Kind::ALL.iter().map(|kind| kind.name()).collect(),
            Self::Everyday => everyday::Kind::ALL.iter().map(|kind| kind.name()).collect(),
        }
    }

    /// What a user asks for, as groups of kinds.
    pub fn groups(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::Toyworld => &[
                ("now", &["now", "now_color", "now_shape", "now_where", "now_background"]),
                ("where, background, exist", &["where", "background", "exist"]),
                ("first, colour of, count", &["first", "color_of", "count"]),
                ("after, before", &["after", "before"]),
            ],
            Self::Everyday => &[
                (
                    "now",
                    &[
                        "now",
                        "exists_now",
                        "count_now",
                        "where_now",
                        "distance_now",
                        "kind_now",
                        "light_now",
                        "scene_now",
                    ],
                ),
                (
                    "what was",
                    &[
                        "did_appear",
                        "where_was",
                        "distance_was",
                        "kind_was",
                        "beside",
                        "light_when",
                        "which_way",
                    ],
                ),
                ("first, last, when, came by", &["first", "last", "when", "came_by"]),
                ("after, before", &["after", "before"]),
            ],
        }
    }
}

/// Which videos are drawn, and what is asked about them.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    pub frames: usize,
    /// What training never showed.
    pub held_out: bool,
    /// Wordings that training never read.
    pub held_out_wording: bool,
    /// After the last frame, or after random ones.
    pub at_end: bool,
    pub per_kind: usize,
}

/// A question with its right answer.
pub struct Asked {
    pub kind: &'static str,
    pub text: String,
    pub answer: String,
    pub after_frame: usize,
    pub relevant: Vec<Range<usize>>,
}

/// A video that is painted frame by frame, and the questions about it.
pub struct Video<'a> {
    paint: Box<dyn Fn(usize) -> Vec<u8> + 'a>,
    pub questions: Vec<Asked>,
}

impl Video<'_> {
    /// Packed RGB of a frame, [`PAINTED`].
    pub fn paint(&self, index: usize) -> Vec<u8> {
        (self.paint)(index)
    }
}

impl Drawn {
    fn asking<K: QuestionKind>(self) -> QuestionOptions<K> {
        QuestionOptions {
            count: self.per_kind * K::ALL.len(),
            when: if self.at_end { When::End } else { When::Anytime },
            wording: if self.held_out_wording { Wording::HeldOut } else { Wording::Trained },
            ..QuestionOptions::default()
        }
    }
}

fn asked<K: QuestionKind>(questions: Vec<Question<K>>) -> Vec<Asked> {
    let asked = questions.into_iter().map(|question| Asked {
        kind: question.kind.name(),
        text: question.text,
        answer: question.answer,
        after_frame: question.after_frame,
        relevant: question.relevant,
    });
    asked.collect()
}

/// A world with what it takes to paint it.
pub enum World {
    Toyworld,
    /// In the drawings of these styles; none named, in those that training shows.
    Everyday(Atlas, Vec<everyday::Style>),
}

impl World {
    /// # Errors
    /// Says what is missing and how to make it.
    pub fn open(
        name: Name,
        atlas: Option<PathBuf>,
        styles: Vec<everyday::Style>,
    ) -> Result<Self, String> {
        match name {
            Name::Toyworld => Ok(Self::Toyworld),
            Name::Everyday => {
                let path = atlas.unwrap_or_else(Atlas::default_path);
                let atlas = Atlas::open(&path).map_err(|error| error.to_string())?;
                Ok(Self::Everyday(atlas, styles))
            }
        }
    }

    pub fn video(&self, seed: u64, drawn: Drawn) -> Video<'_> {
        let (width, height) = PAINTED;
        match self {
            Self::Toyworld => {
                let Drawn { frames, held_out, .. } = drawn;
                let options = toyworld::StreamOptions { frames, held_out, ..Default::default() };
                let stream = toyworld::Stream::generate(seed, &options);
                let questions = asked(stream.questions(0, &drawn.asking()));
                Video { paint: Box::new(move |i| stream.frame(i, width, height)), questions }
            }
            Self::Everyday(atlas, styles) => {
                let mut options = everyday::StreamOptions {
                    frames: drawn.frames,
                    held_out: drawn.held_out,
                    aspect: Some(width as f32 / height as f32),
                    ..Default::default()
                };
                if !styles.is_empty() {
                    options.styles.clone_from(styles);
                }
                let stream = everyday::Stream::generate(seed, &options);
                let questions = asked(stream.questions(0, &drawn.asking()));
                let paint = move |index| stream.frame(atlas, index, width, height);
                Video { paint: Box::new(paint), questions }
            }
        }
    }
}
