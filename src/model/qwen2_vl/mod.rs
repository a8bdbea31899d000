// SPDX-License-Identifier: MPL-2.0
//! Qwen2-VL: as Qwen2.5-VL without windows, and with a step of time for each unit, however long that is.

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
        let layout = |&Picture { rows, cols, .. }: &Picture, _: f64, compat: bool| Layout::Grid {
            rows,
            cols,
            step: 1.0,
            compat,
        };
        Ok(Box::new(Patched { patches, tower, layout }))
    }
}
