// SPDX-License-Identifier: MPL-2.0
//! A world of everyday things, drawn from seeds: videos, questions about them, answers.
//!
//! A camera looks at a scenery; a clip is what it sees for a few seconds, one frame a second; a
//! stream is one clip after the other. All of that and every question come without the drawings;
//! only painting takes an [`Atlas`], which `tools/everyday/atlas.sh` makes.
//!
//! ```
//! use everyday::{QuestionOptions, Stream, StreamOptions, seeds};
//!
//! let stream = Stream::generate(seeds::TEST.start, &StreamOptions::default());
//! for question in stream.questions(0, &QuestionOptions::default()) {
//!     println!("{} {}", question.text, question.answer);
//! }
//! ```

mod atlas;
mod backdrop;
mod brush;
mod camera;
mod clip;
mod kind;
mod moment;
mod noun;
mod paint;
mod palette;
mod pool;
mod question;
mod roll;
mod room;
mod shots;
mod stream;
mod visit;
mod words;

pub use atlas::Atlas;
pub use camera::{Camera, Hold};
pub use clip::{Clip, MAX_FRAMES, MIN_FRAMES, Pose, Thing};
pub use kind::{Kind, MAX_CAME_BY, MAX_NOW, Subject, vocabulary};
pub use noun::{Element, Facing, HELD_OUT, Noun};
pub use paint::{Moment, paint, paint_things};
pub use pool::Pool;
pub use question::{Question, QuestionOptions};
pub use roll::{Roll, RollOptions};
pub use shots::{GRID, LABELS, Shot, labels, model_frame, vision_shot};
pub use stream::{Cameras, Footage, FreshCameras, Segment, Stream, StreamOptions};
pub use visit::Visit;
pub use words::{Ago, Category, Distance, Light, Place, Scenery, Style, Way};
pub use worlds::{Rng, StreamLine, When, Wording, derive, resize, seeds, write_questions};
