// SPDX-License-Identifier: MPL-2.0
//! A memory on its way into a file and back. What stands before the video is none of it: the same model
//! makes the same of the same words.

use serde::{Deserialize, Serialize};

use super::VideoMemory;
use crate::error::Result;
use crate::memory::keep::Layer;
use crate::memory::unit::Clock;
use crate::model::rope::Layout;
use crate::snapshot::{Reader, Snapshot};

/// What the units of the stream look like, and how far it has come.
#[derive(Serialize, Deserialize)]
struct Course {
    layers: usize,
    unit_tokens: usize,
    picture_tokens: usize,
    unit_seconds: f64,
    layout: Layout,
    next_unit: u64,
    next_segment: u64,
    seen: usize,
    taken: usize,
    clock: Clock,
    resident: bool,
}

impl VideoMemory {
    /// What is remembered now; taking it copies the windows and what units are found by, and holds the
    /// rest by its handles.
    ///
    /// # Errors
    /// What the computation fails with.
    pub fn save(&self, into: &mut Snapshot) -> Result<()> {
        let geometry = &self.geometry;
        into.value(Course {
            layers: geometry.layers,
            unit_tokens: geometry.unit_tokens,
            picture_tokens: geometry.picture_tokens,
            unit_seconds: geometry.unit_seconds,
            layout: geometry.layout,
            next_unit: self.next_unit,
            next_segment: self.next_segment,
            seen: self.seen,
            taken: self.taken,
            clock: self.clock,
            resident: self.resident.is_some(),
        });
        for layer in self.resident.iter().flatten() {
            layer.save(into);
        }
        self.stored.save(into)
    }

    /// Takes in what another memory of the same model and method saved, holding nothing yet but what
    /// stands before the video, and brings it within its own bounds.
    ///
    /// # Errors
    /// What is wrong with the file, or what the computation fails with; this memory is of no use then.
    pub fn restore(&mut self, from: &mut Reader) -> Result<()> {
        let course: Course = from.value()?;
        if course.layers != self.geometry.layers || course.resident != self.resident.is_some() {
            return Err(from.damage("a memory of another shape"));
        }
        self.geometry.unit_tokens = course.unit_tokens;
        self.geometry.picture_tokens = course.picture_tokens;
        self.geometry.unit_seconds = course.unit_seconds;
        self.geometry.layout = course.layout;
        (self.next_unit, self.next_segment) = (course.next_unit, course.next_segment);
        (self.seen, self.taken, self.clock) = (course.seen, course.taken, course.clock);
        if let Some(layers) = &mut self.resident {
            for layer in layers {
                *layer = Layer::restored(from, &self.geometry.device)?;
            }
        }
        self.stored.restore(from, &self.geometry)?;
        self.settle()
    }
}
