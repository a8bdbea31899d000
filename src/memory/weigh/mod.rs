// SPDX-License-Identifier: MPL-2.0
//! What matters: numbers in, numbers or indices out. Nothing here knows where keys lie or whose they
//! are.

pub mod around;
pub mod basis;
pub mod budget;
pub mod change;
pub mod depth;
pub mod norms;
pub mod novelty;
pub mod otsu;
pub mod rank;
pub mod salience;
pub mod score;
pub mod select;
