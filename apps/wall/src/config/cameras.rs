// SPDX-License-Identifier: MPL-2.0
//! Sections `camera` and `camera.standing`.

use serde::{Deserialize, Serialize};

use crate::hub::On;

pub use super::check::{check_id, check_question};

/// Characters in a question.
pub const MAX_WORDS: usize = 2000;

/// A section `[[camera]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CameraConfig {
    /// Short: a-z, 0-9, `-` and `_`; unique.
    pub id: String,
    /// For people; unset: the `id`.
    pub name: Option<String>,
    /// Where its video is: rtsp, http, file or whatever else GStreamer has a source for.
    pub uri: Option<String>,
    /// A piece of a pipeline that makes video, in place of `uri`.
    pub pipeline: Option<String>,
    /// A file begins anew at its end, and is played as fast as it was filmed.
    #[serde(rename = "loop")]
    pub repeat: bool,
    /// What the element's `model-path` takes; unset: the wall's.
    pub model: Option<String>,
    /// What is seen is kept over restarts.
    pub memory: Option<bool>,
    /// Seconds between savings of the memory.
    pub autosave: Option<f64>,
    /// Seconds without a frame after which it is built anew; unset: 10.
    pub stall_after: Option<f64>,
    /// Further properties of the element, as text.
    pub properties: std::collections::BTreeMap<String, String>,
    /// The questions that stand.
    pub standing: Vec<StandingConfig>,
}

/// A section `[[camera.standing]]`, and what the API takes for a new standing question.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StandingConfig {
    /// Short: a-z, 0-9, `-` and `_`; unique at its camera. Unset: one is made.
    pub id: Option<String>,
    /// Its words.
    pub question: String,
    /// Seconds between askings.
    pub every: Option<f64>,
    /// What it is asked on.
    pub on: On,
    /// The answers that the model decides between; none: any words, or yes and no with `when`.
    pub choices: Vec<String>,
    /// The answer whose beginning and end are alerts.
    pub when: Option<String>,
    /// Seconds for which answers must say so before it is believed.
    #[serde(alias = "for")]
    pub for_s: Option<f64>,
    /// Seconds after an alert until there is another.
    #[serde(alias = "cool_down")]
    pub cool_down_s: Option<f64>,
}

impl CameraConfig {
    /// Whether the other is watched by the same pipeline: it differs in nothing but its name and its standing
    /// questions.
    pub fn has_same_pipeline(&self, other: &Self) -> bool {
        let bare =
            |camera: &Self| CameraConfig { name: None, standing: Vec::new(), ..camera.clone() };
        bare(self) == bare(other)
    }
}

/// The standing questions of a camera by their ids; those without get one made of their words.
pub fn standing_of(camera: &CameraConfig) -> Vec<(String, StandingConfig)> {
    let mut named: Vec<(String, StandingConfig)> = Vec::new();
    for standing in &camera.standing {
        let taken = |id: &str| {
            named.iter().any(|(known, _)| known == id)
                || camera.standing.iter().any(|other| other.id.as_deref() == Some(id))
        };
        let id = standing.id.clone().unwrap_or_else(|| standing_id(&standing.question, taken));
        named.push((id, standing.clone()));
    }
    named
}

/// A name for a standing question, of its words.
pub fn standing_id(question: &str, taken: impl Fn(&str) -> bool) -> String {
    let plain = question.to_lowercase();
    let words: Vec<&str> =
        plain.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let mut name = words.join("-");
    name.truncate(40);
    let name = name.trim_end_matches('-');
    let name = if name.is_empty() { "question" } else { name };
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !taken(name)).unwrap_or_else(|| name.to_owned())
}
