// SPDX-License-Identifier: MPL-2.0
use crate::error::Result;
use crate::model::VideoLlm;

#[derive(Clone, Debug)]
pub struct Recipe {}

impl Recipe {
    /// Names of all methods, for help texts.
    pub fn names() -> &'static [&'static str] {
        &["streamkv", "streamkv-paper", "rekv", "sliding-window", "full"]
    }
    pub fn named(name: &str) -> Result<Self> {
        let _ = name;
        Ok(Self {})
    }
    /// The named recipe with the defaults that the model's folder carries (`streamkvqa.json`).
    pub fn for_model(name: &str, model: &VideoLlm) -> Result<Self> {
        let _ = model;
        Self::named(name)
    }
    /// Overrides one field by its option name, e.g. `set("retrieve", "16")`.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let _ = (key, value);
        Ok(())
    }
    /// (name, default for this recipe, what it does) of every option.
    pub fn options(&self) -> Vec<(&'static str, String, &'static str)> {
        Vec::new()
    }
}
