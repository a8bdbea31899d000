// SPDX-License-Identifier: MPL-2.0
//! Who was there when: every visit of a stream.

use std::ops::Range;

use worlds::derive;

use crate::clip::Pose;
use crate::noun::Noun;
use crate::roll::{RollOptions, usual};
use crate::stream::{Segment, Stream};
use crate::words::{Distance, Light, Place, Way};

/// Something goes left or right if it covers at least this share of the width.
const MOVED: f32 = 0.22;
/// A thing from when it comes until it goes.
#[derive(Clone, Debug)]
pub struct Visit {
    pub noun: Noun,
    /// The frame with which it begins.
    pub start: usize,
    pub poses: Vec<Pose>,
    pub light: Light,
}

impl Visit {
    pub fn end(&self) -> usize {
        self.start + self.poses.len()
    }

    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.end()
    }

    /// The place it has in all of its frames.
    pub(crate) fn place(&self) -> Option<Place> {
        constant(self.poses.iter().map(|pose| Place::of(pose.x)))
    }

    pub(crate) fn distance(&self) -> Option<Distance> {
        constant(self.poses.iter().map(|pose| Distance::of(pose.size)))
    }

    pub(crate) fn way(&self) -> Option<Way> {
        let (first, last) = (self.poses.first()?, self.poses.last()?);
        match (Distance::of(first.size)?, Distance::of(last.size)?) {
            (Distance::Far, Distance::Near) => Some(Way::Closer),
            (Distance::Near, Distance::Far) => Some(Way::Away),
            _ if last.x - first.x > MOVED => Some(Way::Right),
            _ if first.x - last.x > MOVED => Some(Way::Left),
            _ => None,
        }
    }
}

/// What all of them are, if they are the same.
pub(crate) fn constant<T: PartialEq>(mut values: impl Iterator<Item = Option<T>>) -> Option<T> {
    let first = values.next()??;
    values.all(|value| value.as_ref() == Some(&first)).then_some(first)
}

/// Everything that happens in a stream.
pub struct History<'a> {
    pub(crate) stream: &'a Stream,
    /// By their start.
    pub(crate) visits: Vec<Visit>,
    /// Things a question may mention although they have not been there.
    pub(crate) known: Vec<Noun>,
}

impl<'a> History<'a> {
    pub fn of(stream: &'a Stream) -> Self {
        let mut visits = stream.visits();
        visits.sort_by_key(|visit| visit.start);
        let shown = |noun: Noun| {
            stream.segments.iter().any(|segment| {
                let scenery = segment.roll().camera.scenery;
                let options =
                    RollOptions { styles: stream.styles.clone(), ..RollOptions::default() };
                usual(scenery, &options).contains(&noun)
            })
        };
        let kept_apart = |noun: Noun| {
            stream.segments.iter().any(|segment| noun.is_held_out(segment.roll().camera.scenery))
        };
        // Those that could have been there, and some that could not.
        let known = Noun::all()
            .filter(|&noun| !kept_apart(noun))
            .filter(|&noun| {
                derive(stream.seed, u64::from(noun.id())).is_multiple_of(5) || shown(noun)
            })
            .collect();
        Self { stream, visits, known }
    }
}

impl Stream {
    /// Every visit in it.
    pub fn visits(&self) -> Vec<Visit> {
        self.segments.iter().flat_map(Segment::visits).collect()
    }
}

impl Segment {
    fn visits(&self) -> Vec<Visit> {
        let mut visits: Vec<Visit> = Vec::new();
        for thing in &self.clip().things {
            let mut open = false;
            for (index, pose) in thing.track[self.offset..][..self.frames].iter().enumerate() {
                match (pose, visits.last_mut()) {
                    (Some(pose), Some(visit)) if open => visit.poses.push(*pose),
                    (Some(pose), _) => visits.push(Visit {
                        noun: thing.noun,
                        start: self.start + index,
                        poses: vec![*pose],
                        light: self.light(),
                    }),
                    (None, _) => {}
                }
                open = pose.is_some();
            }
        }
        visits
    }
}
