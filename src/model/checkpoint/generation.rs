// SPDX-License-Identifier: MPL-2.0
//! `generation_config.json`: what ends an answer.

use serde::Deserialize;

#[derive(Deserialize)]
pub struct GenerationConfig {
    #[serde(default)]
    pub eos_token_id: Ids,
}

/// No id, one id or a list of them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
pub enum Ids {
    #[default]
    None,
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    pub fn into_vec(self) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}
