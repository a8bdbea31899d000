// SPDX-License-Identifier: MPL-2.0
//! The front door of the families: which of them a folder belongs to. Nothing behind it asks again.
//!
//! A family is a folder beside this file. It supplies a [`Plan`]: what its config says, checked, and
//! how its half that sees is built from it.

use serde::Deserialize;

use super::checkpoint::check::Checker;
use super::checkpoint::{Checkpoint, Words};
use super::vision::Plan;
use super::{llava_onevision, qwen2_5_vl, qwen3_vl};
use crate::error::Result;

/// A folder's model, as far as its config says.
pub(crate) struct Family {
    pub words: Words,
    pub plan: Box<dyn Plan>,
}

#[derive(Deserialize)]
struct Header {
    model_type: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
}

impl Family {
    /// Checks the config of a folder.
    ///
    /// # Errors
    /// [`Checkpoint`](crate::EngineError::Checkpoint) that names the field, or the families that are
    /// supported.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let path = checkpoint.config_path();
        let check = Checker(&path);
        let json = checkpoint.config();
        let header: Header = check.parse("config", json.clone())?;
        let kind = header.model_type.as_deref();
        match kind {
            Some("llava_onevision") => Self::with(llava_onevision::checked(&check, json.clone())?),
            Some("qwen2_5_vl") => Self::with(qwen2_5_vl::checked(&check, json.clone())?),
            Some("qwen3_vl") => Self::with(qwen3_vl::checked(&check, json.clone())?),
            _ => {
                let names = header.architectures.unwrap_or_default().join(", ");
                check.fault(format!(
                    "the model is of type `{}` ({names}); supported: `llava_onevision` \
                     (LlavaOnevisionForConditionalGeneration with a SigLIP tower and a Qwen2 \
                     decoder), `qwen2_5_vl` (Qwen2_5_VLForConditionalGeneration) and `qwen3_vl` \
                     (Qwen3VLForConditionalGeneration)",
                    kind.unwrap_or("none"),
                ))
            }
        }
    }

    fn with<P: Plan + 'static>((words, plan): (Words, P)) -> Result<Self> {
        Ok(Self { words, plan: Box::new(plan) })
    }

    /// Whether a weight (by canonical name) belongs to the architecture but is never read: what its
    /// plan says, a copy of tied embeddings, and tables that old versions of transformers saved
    /// although they compute them.
    pub fn is_unread(&self, name: &str) -> bool {
        self.plan.is_unread(name)
            || (self.words.tied && name == "lm_head.weight")
            || name.ends_with(".position_ids")
            || name.ends_with(".rotary_emb.inv_freq")
    }
}
