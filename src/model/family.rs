// SPDX-License-Identifier: MPL-2.0
//! The front door of the families: which of them a folder belongs to. Nothing behind it asks again.
//!
//! A family is a folder beside this file. It supplies a [`Plan`]: what its config says, checked, and
//! how its half that sees is built from it.

use serde::Deserialize;

use super::checkpoint::check::Checker;
use super::checkpoint::{Checkpoint, Words};
use super::vision::Plan;
use super::{internvl, llava_onevision, qwen2_5_vl, qwen2_vl, qwen3_vl};
use crate::error::Result;

/// A folder's model, as far as its config says.
pub(crate) struct Family {
    pub words: Words,
    pub plan: Box<dyn Plan>,
}

/// What `model_type` may be.
const SUPPORTED: &str = "`llava_onevision` (LLaVA-OneVision), `qwen2_vl` (Qwen2-VL), `qwen2_5_vl` \
    (Qwen2.5-VL, Cosmos-Reason1), `qwen3_vl` (Qwen3-VL 2B to 32B, Cosmos-Reason2) and `internvl` \
    (InternVL3 and 3.5 in the folders whose names end in -hf)";

/// Types that people have and that do not run here: why, and what to take instead.
const NOT_SUPPORTED: [(&str, &str); 13] = [
    ("llavaonevision1_5", LLAVA_1_5),
    ("llava_onevision1_5", LLAVA_1_5),
    ("qwen3_5", QWEN_3_5),
    ("qwen3_5_vl", QWEN_3_5),
    ("qwen3_5_moe", QWEN_3_5),
    ("qwen3_5_text", QWEN_3_5),
    ("qwen3_5_moe_text", QWEN_3_5),
    ("qwen3_next", QWEN_3_5),
    ("qwen2_5_omni", OMNI),
    ("qwen3_omni_moe", OMNI),
    (
        "qwen3_vl_moe",
        "experts that take turns are not supported; take a dense Qwen3-VL (2B, 4B, 8B or 32B)",
    ),
    (
        "internvl_chat",
        "this is the layout of InternVL's own code; take the folder of the same name with -hf behind it, \
         such as OpenGVLab/InternVL3-2B-hf",
    ),
    (
        "llava",
        "LLaVA-1.5 is made for single pictures; take LLaVA-OneVision \
         (llava-hf/llava-onevision-qwen2-7b-ov-hf)",
    ),
];

const LLAVA_1_5: &str = "LLaVA-OneVision-1.5 is code of its own in its folder, which is not run here; take \
    Qwen3-VL or llava-hf/llava-onevision-qwen2-7b-ov-hf";

const OMNI: &str = "models that hear and speak are not supported; take Qwen2.5-VL or Qwen3-VL";

const QWEN_3_5: &str = "three of four layers are recurrent and hold no keys that a question could \
    retrieve, so no method of this element applies; take Qwen3-VL";

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
            Some("internvl") => Self::with(internvl::checked(&check, json.clone())?),
            Some("qwen2_vl") => Self::with(qwen2_vl::checked(&check, json.clone())?),
            Some("qwen3_vl") => Self::with(qwen3_vl::checked(&check, json.clone())?),
            _ => {
                let kind = kind.unwrap_or("none");
                if let Some((_, why)) = NOT_SUPPORTED.iter().find(|(name, _)| *name == kind) {
                    return check.fault(format!("the model is of type `{kind}`: {why}"));
                }
                let names = header.architectures.unwrap_or_default().join(", ");
                check.fault(format!(
                    "the model is of type `{kind}` ({names}); supported: {SUPPORTED}"
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
