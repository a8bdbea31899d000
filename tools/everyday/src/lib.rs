// SPDX-License-Identifier: MPL-2.0
//! A world of everyday things, drawn from seeds: videos, questions about them, answers.

mod atlas;
mod backdrop;
mod brush;
mod camera;
mod clip;
mod kind;
mod moment;
mod noun;
mod paint;
mod pool;
mod question;
mod roll;
mod shots;
mod stream;
mod words;

pub use atlas::Atlas;
pub use camera::{Camera, Hold};
pub use clip::{Clip, MAX_FRAMES, MIN_FRAMES, Pose, Thing};
pub use kind::{Kind, MAX_CAME_BY, MAX_NOW, Subject, vocabulary};
pub use moment::Visit;
pub use noun::{Element, Facing, HELD_OUT, Noun};
pub use paint::{Moment, paint, paint_things};
pub use pool::Pool;
pub use question::{Question, QuestionOptions, When, Wording};
pub use roll::{Roll, RollOptions};
pub use shots::{GRID, LABELS, Shot, labels, model_frame, vision_shot};
pub use stream::{Cameras, Footage, FreshCameras, Segment, Stream, StreamOptions};
pub use words::{Ago, Category, Distance, Light, Place, Scenery, Style, Way};
pub use worlds::{Rng, derive, resize, seeds};
