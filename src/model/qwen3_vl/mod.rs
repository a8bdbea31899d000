// SPDX-License-Identifier: MPL-2.0
//! Qwen3-VL: two frames become one unit, whose time stands in front of it in words, and whose tokens
//! have vectors of several depths of the tower (DeepStack). NVIDIA's Cosmos-Reason2 is one.

mod config;
mod tower;

use candle_nn::VarBuilder;

use self::config::Config;
pub(super) use self::config::checked;
use self::tower::Tower;
use super::vision::patched::Patched;
use super::vision::{Moment, Picture, Plan, Told, Vision};
use crate::error::Result;
use crate::model::checkpoint::{ProcessorConfig, Settings};
use crate::model::preprocess::patches::Patches;
use crate::model::rope::Layout;

impl Plan for Config {
    /// The processor's bounds are a whole video's; a stream has no end, so they are each frame's here,
    /// the upper one no larger than what the reference gives to a single frame.
    fn area(&self, settings: &Settings) -> std::result::Result<(usize, usize), String> {
        let token = self.cells().patch_size * self.cells().merge;
        let most = MOST_TOKENS * token * token;
        let (least, longest) =
            settings.area(&self.cells(), (FEWEST_TOKENS * token * token, most))?;
        Ok((least.min(most), longest.min(most)))
    }

    fn colours(&self) -> Option<([f64; 3], [f64; 3])> {
        Some(([0.5; 3], [0.5; 3]))
    }

    fn template(&self) -> &'static str {
        TEMPLATE
    }

    fn told(&self) -> Option<Told> {
        Some(Told {
            around: |Moment { seconds, .. }| {
                [format!("<{:.1} seconds>{START}", tellable(seconds)), END.into()]
            },
            instead_of: [START, END],
            nests: true,
            controls: &[START, END],
        })
    }

    fn build(&self, processor: &ProcessorConfig, vb: VarBuilder) -> Result<Box<dyn Vision>> {
        let patches = Patches::new(&self.cells(), processor).enlarging();
        let tower = Tower::new(self, vb.pp("visual"))?;
        // Time stands in the words, so neither the rate nor `compat` changes where tokens stand.
        let layout = |&Picture { rows, cols, .. }: &Picture, _: f64, _: bool| Layout::Lines {
            rows,
            cols,
            words: 0,
        };
        Ok(Box::new(Patched { patches, tower, layout }))
    }
}

const START: &str = "<|vision_start|>";
const END: &str = "<|vision_end|>";

/// Tokens of a frame of the reference's own video loading (qwen-vl-utils), from and to.
const FEWEST_TOKENS: usize = 128;
const MOST_TOKENS: usize = 768;

/// Seconds as they are told: no clock that is right says more than some thousand years.
fn tellable(seconds: f64) -> f64 {
    const MOST: f64 = 1e11;
    if seconds.is_finite() { seconds.clamp(-MOST, MOST) } else { 0.0 }
}

/// What the published template makes of a system message and one user turn.
const TEMPLATE: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\n' }}\
    {% for part in message['content'] %}\
    {% if part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}\
    {% else %}{{ part['text'] }}{% endif %}{% endfor %}\
    {{ '<|im_end|>\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_the_processor_rounds_them_and_wild_ones_are_short() {
        let told = |seconds| format!("{:.1}", tellable(seconds));
        // As Python has it: exact halves to the even digit.
        let cases =
            [(0.25, "0.2"), (0.75, "0.8"), (12.45, "12.4"), (1.0 / 6.0, "0.2"), (-3.0, "-3.0")];
        for (seconds, expected) in cases {
            assert_eq!(told(seconds), expected);
        }
        assert!([f64::MAX, f64::MIN, f64::NAN].iter().all(|&wild| told(wild).len() < 16));
    }
}
