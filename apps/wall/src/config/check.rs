// SPDX-License-Identifier: MPL-2.0
//! What the types of the fields do not say.

use std::collections::BTreeSet;

use super::fault::Step;
use super::{CameraConfig, Config, MAX_WORDS, StandingConfig};

/// Faults by their place.
pub type Places = Vec<(Vec<Step>, String)>;

/// All that is wrong.
pub fn check(config: &Config) -> Places {
    let mut faults = Places::new();
    check_wall(config, &mut faults);
    let mut seen = BTreeSet::new();
    for (at, camera) in config.cameras.iter().enumerate() {
        let place = |fields: &[&str]| {
            let mut steps: Vec<Step> = vec!["camera".into(), at.into()];
            steps.extend(fields.iter().map(|field| Step::from(*field)));
            steps
        };
        let mut fault = |fields: &[&str], message: String| faults.push((place(fields), message));
        if let Err(message) = check_id(&camera.id) {
            fault(&["id"], message);
        } else if !seen.insert(camera.id.as_str()) {
            fault(
                &["id"],
                format!("there is a camera \"{}\" already; each needs an id of its own", camera.id),
            );
        }
        check_camera(camera, &mut fault);
        let mut questions = BTreeSet::new();
        for (number, standing) in camera.standing.iter().enumerate() {
            let mut steps = place(&["standing"]);
            steps.push(number.into());
            if let Err(message) = standing.check() {
                faults.push((steps, message));
            } else if let Some(id) =
                standing.id.as_ref().filter(|id| !questions.insert(id.as_str()))
            {
                steps.push("id".into());
                faults.push((steps, format!("a question \"{id}\" stands at this camera already")));
            }
        }
    }
    super::brokers::check(config, &mut faults);
    faults
}

fn check_wall(config: &Config, faults: &mut Places) {
    let mut fault = |section: &str, field: &str, message: &str| {
        faults.push((vec![section.into(), field.into()], message.to_owned()));
    };
    let listen = config.wall.listen.parse::<std::net::SocketAddr>();
    match listen {
        Err(_) => fault(
            "wall",
            "listen",
            "expected an address and a port, such as \"127.0.0.1:8460\" or \"0.0.0.0:8460\"",
        ),
        Ok(address) if !address.ip().is_loopback() && config.access.tokens.is_empty() => fault(
            "wall",
            "listen",
            "other machines can reach this address, so a token is needed: tokens = [\"...\"] in section [access]; \
             or listen on 127.0.0.1",
        ),
        Ok(_) => {}
    }
    for (field, name) in [("name", Some(&config.wall.name)), ("host", config.wall.host.as_ref())] {
        if let Some(Err(message)) = name.map(|name| check_name(name)) {
            fault("wall", field, &message);
        }
    }
    let mut entry = |field: &str, at: usize, message: &str| {
        faults.push((vec!["access".into(), field.into(), at.into()], message.to_owned()));
    };
    for (at, token) in config.access.tokens.iter().enumerate() {
        // What goes into a header and a cookie as it is.
        let is_plain = token.chars().all(|c| c.is_ascii_graphic() && !";,\"\\".contains(c));
        if token.chars().count() < 16 {
            entry(
                "tokens",
                at,
                "a token has at least 16 characters; `openssl rand -hex 16` makes one",
            );
        } else if !is_plain {
            entry("tokens", at, "a token has letters, digits and signs other than ; , \" \\ alone");
        }
    }
    for (at, host) in config.access.hosts.iter().enumerate() {
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "/:@?#".contains(c)) {
            entry("hosts", at, "expected a name alone, such as \"wall.example\"");
        }
    }
    let mut fault = |section: &str, field: &str, message: &str| {
        faults.push((vec![section.into(), field.into()], message.to_owned()));
    };
    if config.access.questions_per_minute == 0 {
        fault("access", "questions_per_minute", "expected a number above 0");
    }
    if config.access.requests_per_minute == 0 {
        fault("access", "requests_per_minute", "expected a number above 0");
    }
    if !(config.history.keep_days > 0.0 && config.history.keep_days.is_finite()) {
        fault("history", "keep_days", "expected a number of days above 0");
    }
    if !(0.1..=3600.0).contains(&config.history.picture_every) {
        fault("history", "picture_every", "expected a number of seconds from 0.1 to 3600");
    }
}

fn check_camera(camera: &CameraConfig, fault: &mut impl FnMut(&[&str], String)) {
    if let Some(Err(message)) = camera.name.as_ref().map(|name| check_name(name)) {
        fault(&["name"], message);
    }
    match (&camera.uri, &camera.pipeline) {
        (None, None) => fault(
            &[],
            format!("camera \"{}\" has neither uri nor pipeline; expected one of them", camera.id),
        ),
        (Some(_), Some(_)) => {
            fault(&["pipeline"], "expected either uri or pipeline, not both".into())
        }
        (Some(uri), None) if uri.trim().is_empty() => {
            fault(&["uri"], "expected an address, such as \"rtsp://camera/stream\"".into())
        }
        (None, Some(pipeline)) if pipeline.trim().is_empty() => {
            fault(
                &["pipeline"],
                "expected a piece of a pipeline, such as \"v4l2src ! videoconvert\"".into(),
            );
        }
        _ => {}
    }
    for (name, seconds) in [("autosave", camera.autosave), ("stall_after", camera.stall_after)] {
        if seconds.is_some_and(|seconds| !(1.0..=86_400.0).contains(&seconds)) {
            fault(&[name], "expected a number of seconds from 1 to 86400".into());
        }
    }
    const OURS: [&str; 9] = [
        "name",
        "parent",
        "model-path",
        "memory-path",
        "autosave-interval",
        "stats-interval",
        "post-messages",
        "questions-file",
        "question",
    ];
    for name in camera.properties.keys().filter(|name| OURS.contains(&name.as_str())) {
        fault(
            &["properties", name],
            format!("the wall sets {name} itself; the camera's fields say what it is"),
        );
    }
}

/// A name for people: any signs on one line.
fn check_name(name: &str) -> Result<(), String> {
    let is_short = (1..=100).contains(&name.trim().chars().count());
    match is_short && !name.contains(char::is_control) {
        true => Ok(()),
        false => Err("expected a name of 1 to 100 characters on one line".into()),
    }
}

/// Names that go into addresses, topics and file names.
pub fn check_id(id: &str) -> Result<(), String> {
    let is_short = (1..=48).contains(&id.len());
    let begins_well = id.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let is_plain =
        id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    match is_short && begins_well && is_plain {
        true => Ok(()),
        false => Err(format!(
            "id = \"{id}\": expected 1 to 48 of a-z, 0-9, \"-\" and \"_\", the first a letter or a digit"
        )),
    }
}

/// A question as somebody has typed it.
///
/// # Errors
/// Says what is expected.
pub fn check_question(text: &str, choices: &[String]) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("question: expected a question".into());
    }
    if text.chars().count() > MAX_WORDS {
        return Err(format!("question: expected no more than {MAX_WORDS} characters"));
    }
    if choices.len() == 1 || choices.len() > 32 {
        return Err("choices: expected 2 to 32 of them, or none".into());
    }
    if choices.iter().any(|choice| choice.trim().is_empty() || choice.chars().count() > 200) {
        return Err("choices: expected texts of 1 to 200 characters".into());
    }
    let distinct: BTreeSet<String> =
        choices.iter().map(|choice| choice.trim().to_lowercase()).collect();
    if distinct.len() < choices.len() {
        return Err("choices: expected different ones".into());
    }
    Ok(())
}

impl StandingConfig {
    /// Whether the element would take it.
    ///
    /// # Errors
    /// Says what is expected.
    pub fn check(&self) -> Result<(), String> {
        if let Some(id) = &self.id {
            check_id(id)?;
        }
        check_question(&self.question, &self.choices)?;
        let seconds = [
            ("every", self.every, 0.1),
            ("for_s", self.for_s, 0.0),
            ("cool_down_s", self.cool_down_s, 0.0),
        ];
        for (name, value, least) in seconds {
            if value.is_some_and(|value| !(least..=86_400.0).contains(&value)) {
                return Err(format!("{name}: expected a number of seconds from {least} to 86400"));
            }
        }
        let Some(when) = &self.when else {
            return match self.for_s.or(self.cool_down_s) {
                Some(_) => Err("for_s and cool_down_s say nothing without when: expected the answer that is an alert".into()),
                None => Ok(()),
            };
        };
        let yes_or_no = ["yes".to_string(), "no".to_string()];
        let choices = if self.choices.is_empty() { &yes_or_no[..] } else { &self.choices[..] };
        match choices.iter().any(|choice| choice.trim().eq_ignore_ascii_case(when.trim())) {
            true => Ok(()),
            false => {
                Err(format!("when = \"{when}\": expected one of \"{}\"", choices.join("\", \"")))
            }
        }
    }
}
