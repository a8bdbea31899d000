// SPDX-License-Identifier: MPL-2.0
//! A toy world of coloured shapes, drawn from seeds: videos, questions about them, answers.
//!
//! The model in `models/toyworld` is trained on it, and the tests, the evaluation and the
//! demo clip use the same code, so there is one definition of what is to be seen and what
//! the right answer is. A stream shows one scene after another, one frame per second; a
//! scene is one object, or none, before a background.
//!
//! ```
//! use toyworld::{QuestionOptions, Stream, StreamOptions, seeds};
//!
//! let stream = Stream::generate(seeds::TEST.start, &StreamOptions::default());
//! let rgb = stream.frame(0, 320, 240);
//! assert_eq!(rgb.len(), 320 * 240 * 3);
//! for question in stream.questions(0, &QuestionOptions::default()) {
//!     println!("{} {}", question.text, question.answer);
//! }
//! ```

mod camera_roll;
mod casting;
mod pool;
mod question;
mod render;
mod scene;
mod stream;
mod vocabulary;

pub use camera_roll::{labels, model_frame, paint_size, vision_index, vision_scene};
pub use pool::{Pool, pool_scene};
pub use question::{Kind, MAX_COUNT, Question, QuestionOptions};
pub use render::render;
pub use scene::{Backdrop, MAX_FRAMES, MIN_FRAMES, Object, Placement, Scene, SceneOptions};
pub use stream::{FreshScenes, SceneSource, Shot, Stream, StreamOptions};
pub use vocabulary::{Background, Color, HELD_OUT, Key, Place, Shape};
pub use worlds::{Camera, Rng, StreamLine, When, Wording, derive, resize, seeds, write_questions};
