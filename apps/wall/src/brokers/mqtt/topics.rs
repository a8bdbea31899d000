// SPDX-License-Identifier: MPL-2.0
//! The names of topics and entities.

use ring::digest::{SHA256, digest};

/// All topics of one wall.
#[derive(Clone, Debug)]
pub(super) struct Topics {
    prefix: String,
    wall: String,
    discovery: Option<String>,
}

impl Topics {
    /// `discovery` as the configuration has it: none is `homeassistant`, an empty one is none at all.
    pub fn new(prefix: Option<&str>, wall: &str, discovery: Option<&str>) -> Self {
        let prefix =
            prefix.map(|prefix| prefix.trim_matches('/')).filter(|prefix| !prefix.is_empty());
        let discovery = discovery.unwrap_or("homeassistant").trim_matches('/');
        Topics {
            prefix: prefix.unwrap_or("streamkvqa").to_owned(),
            wall: word(wall),
            discovery: (!discovery.is_empty()).then(|| discovery.to_owned()),
        }
    }

    /// `online`, and `offline` once the wall is gone.
    pub fn status(&self) -> String {
        format!("{}/wall/{}/status", self.prefix, self.wall)
    }

    /// Whatever there is of a camera: `state`, `availability`, `health`, `answer`, ...
    pub fn camera(&self, camera: &str, what: &str) -> String {
        format!("{}/camera/{}/{what}", self.prefix, word(camera))
    }

    pub fn standing(&self, camera: &str, standing: &str) -> String {
        self.camera(camera, &format!("standing/{}", word(standing)))
    }

    /// Where questions come in: the filter, and of a topic that matches it the camera.
    pub fn asks(&self) -> String {
        format!("{}/camera/+/ask", self.prefix)
    }

    pub fn asked<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let camera =
            topic.strip_prefix(&self.prefix)?.strip_prefix("/camera/")?.strip_suffix("/ask")?;
        (!camera.contains('/')).then_some(camera)
    }

    /// What Home Assistant knows a camera by.
    pub fn device(&self, camera: &str) -> String {
        format!("{}_{}", word(&self.prefix), word(camera))
    }

    /// Where Home Assistant is told of a camera; none where it is to be told of none.
    pub fn discovery(&self, camera: &str) -> Option<String> {
        self.discovery
            .as_ref()
            .map(|discovery| format!("{discovery}/device/{}/config", self.device(camera)))
    }

    /// Where it has been told of any, and of a topic that matches whether this prefix's cameras stand there.
    pub fn discoveries(&self) -> Option<String> {
        self.discovery.as_ref().map(|discovery| format!("{discovery}/device/+/config"))
    }

    pub fn discovered<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let device = topic.strip_prefix(self.discovery.as_ref()?)?.strip_prefix("/device/")?;
        device.strip_suffix("/config")?.strip_prefix(&word(&self.prefix))?.strip_prefix('_')
    }
}

/// `text` as a word that topics and entities may have in them: as it is if it is one, else with a mark of what
/// it was, so that two texts never become the same word.
pub(super) fn word(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !text.is_empty() && text.len() <= 64 && text.chars().all(fits) {
        return text.to_owned();
    }
    let mark = digest(&SHA256, text.as_bytes());
    let mark: String = mark.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let kept: String = text.chars().filter(|c| fits(*c)).take(40).collect();
    format!("{kept}_{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_leads_back_to_its_camera() {
        let topics = Topics::new(Some("house/wall"), "attic", None);
        assert_eq!(topics.camera("yard", "ask"), "house/wall/camera/yard/ask");
        assert_eq!(topics.asked("house/wall/camera/yard/ask"), Some("yard"));
        assert_eq!(topics.asked("house/wall/camera/yard/x/ask"), None);
        let at = topics.discovery("yard").unwrap();
        assert_eq!(topics.discovered(&at), Some("yard"));
        assert_eq!(topics.discovered("homeassistant/device/other_yard/config"), None);
        assert_eq!(Topics::new(None, "attic", Some("")).discovery("yard"), None);
    }

    #[test]
    fn no_text_becomes_a_wildcard_or_another_texts_word() {
        assert_eq!(word("yard-1_b"), "yard-1_b");
        for text in ["", "a/b", "#", "+", "a b", "Hof №7"] {
            let word = word(text);
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{word}");
        }
        assert_ne!(word("a/b"), word("a+b"));
    }
}
