// SPDX-License-Identifier: MPL-2.0
//! Qwen2.5-VL: two frames become one unit, a picture keeps its shape, and its tokens stand where
//! they are in time and in the picture.

mod config;
mod tower;

use candle_nn::VarBuilder;

use self::config::Config;
pub(super) use self::config::checked;
use self::tower::Tower;
use super::vision::patched::Patched;
use super::vision::{Picture, Plan, Vision};
use crate::error::Result;
use crate::model::checkpoint::{ProcessorConfig, Settings};
use crate::model::preprocess::patches::{PIXELS_OF_A_FRAME, Patches};
use crate::model::prompt::QWEN_TEMPLATE;
use crate::model::rope::Layout;

impl Plan for Config {
    fn area(&self, settings: &Settings) -> std::result::Result<(usize, usize), String> {
        settings.area(&self.cells(), PIXELS_OF_A_FRAME)
    }

    fn template(&self) -> &'static str {
        QWEN_TEMPLATE
    }

    fn build(&self, processor: &ProcessorConfig, vb: VarBuilder) -> Result<Box<dyn Vision>> {
        let patches = Patches::new(&self.cells(), processor);
        let tower = Tower::new(self, vb.pp("visual"))?;
        let (frames, steps) = (patches.frames as f64, self.tokens_per_second as f32);
        let layout = move |&Picture { rows, cols, .. }: &Picture, rate: f64, compat: bool| {
            Layout::Grid { rows, cols, step: steps * (frames / rate) as f32, compat }
        };
        Ok(Box::new(Patched { patches, tower, layout }))
    }
}
