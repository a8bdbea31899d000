// SPDX-License-Identifier: MPL-2.0
//! Which seeds belong to which split. The ranges are disjoint; a test says so.

use std::ops::Range;

/// Streams, scene pools and vision frames the model is trained on.
pub const TRAIN: Range<u64> = 0..1_000_000_000;
/// Streams looked at while training, to choose when to go on.
pub const VALIDATION: Range<u64> = 1_000_000_000..2_000_000_000;
/// Streams behind published numbers; never cached, never trained on.
pub const TEST: Range<u64> = 2_000_000_000..3_000_000_000;
