// SPDX-License-Identifier: MPL-2.0
//! CLIP's two towers and their projections, from candle's parts. candle's own pair finds the end of
//! a text by the largest id, which is right only where no token was added behind it.

use candle_core::{IndexOp, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder, linear_no_bias};
use candle_transformers::models::clip::ClipConfig;
use candle_transformers::models::clip::text_model::ClipTextTransformer;
use candle_transformers::models::clip::vision_model::ClipVisionTransformer;

pub(super) struct Clip {
    text: ClipTextTransformer,
    text_projection: Linear,
    vision: ClipVisionTransformer,
    visual_projection: Linear,
}

impl Clip {
    pub fn new(config: &ClipConfig, vb: VarBuilder) -> Result<Self> {
        let (text, vision) = (&config.text_config, &config.vision_config);
        let vision_vb = vb.pp("vision_model");
        // Where it is missing, candle would draw one at random.
        if !vision_vb.contains_tensor("embeddings.class_embedding") {
            candle_core::bail!("the weights lack `vision_model.embeddings.class_embedding`")
        }
        let projection =
            |width, out, name| -> Result<Linear> { linear_no_bias(width, out, vb.pp(name)) };
        Ok(Self {
            text: ClipTextTransformer::new(vb.pp("text_model"), text)?,
            text_projection: projection(text.embed_dim, text.projection_dim, "text_projection")?,
            vision: ClipVisionTransformer::new(vision_vb, vision)?,
            visual_projection: projection(
                vision.embed_dim,
                vision.projection_dim,
                "visual_projection",
            )?,
        })
    }

    /// `[f, D]` of pixels `[f, 3, S, S]`.
    pub fn images(&self, pixels: &Tensor) -> Result<Tensor> {
        self.visual_projection.forward(&self.vision.forward(pixels)?)
    }

    /// `[1, D]` of ids `[1, n]` that end with the end token: what the tower says at the first of
    /// them (a text may spell it out).
    pub fn text(&self, ids: &Tensor) -> Result<Tensor> {
        let states = self.text.forward_with_mask(ids, usize::MAX)?;
        let ids: Vec<u32> = ids.flatten_all()?.to_vec1()?;
        let end = ids.iter().position(|id| Some(id) == ids.last()).unwrap_or_default();
        self.text_projection.forward(&states.i((.., end, ..))?)
    }
}
