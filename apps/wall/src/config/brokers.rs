// SPDX-License-Identifier: MPL-2.0
//! Sections `mqtt`, `webhook`, `nats` and `cluster`.

use serde::{Deserialize, Serialize};

use super::Config;
use super::check::Places;

/// Section `[mqtt]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// `mqtt://[user:password@]host[:port]`, or `mqtts://` with TLS.
    pub url: String,
    /// First word of all topics; unset: `streamkvqa`.
    pub prefix: Option<String>,
    /// Home Assistant's discovery prefix; unset: `homeassistant`, empty: no discovery.
    pub discovery: Option<String>,
    /// A file with the certificates that `mqtts` trusts; unset: the system's.
    pub ca: Option<std::path::PathBuf>,
}

/// A section `[[webhook]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Unique.
    pub name: String,
    /// Where it is posted to.
    pub url: String,
    /// What is posted: `alert`, `answer`; unset: alerts.
    pub on: Vec<String>,
    /// Of which cameras; none: of all.
    pub cameras: Vec<String>,
    /// Key with which bodies are signed.
    pub secret: Option<String>,
    /// Further headers.
    pub headers: std::collections::BTreeMap<String, String>,
}

/// Section `[nats]`: answers and alerts as messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NatsConfig {
    /// `nats://[user:password@]host[:port]`, or `tls://`.
    pub url: String,
    /// First word of all subjects; unset: `streamkvqa`.
    pub prefix: Option<String>,
    /// A file with credentials.
    pub credentials: Option<std::path::PathBuf>,
}

/// Section `[cluster]`: several machines as one wall.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// A NATS server with JetStream: `nats://[user:password@]host[:port]`, or `tls://`.
    pub nats: String,
    /// A file with credentials.
    pub credentials: Option<std::path::PathBuf>,
    /// Name that the walls have in common; unset: `wall`.
    pub name: Option<String>,
    /// Seconds after which a machine that is not heard of loses its cameras; unset: 5.
    pub lease: Option<f64>,
    /// Cameras that this machine watches at most; unset: any number.
    pub max_cameras: Option<u32>,
}

/// What is wrong with these sections, by place.
pub(super) fn check(config: &Config, faults: &mut Places) {
    let mut fault = |steps: &[&str], message: &str| {
        faults.push((steps.iter().map(|step| (*step).into()).collect(), message.to_owned()));
    };
    let has_scheme = |url: &str, schemes: &[&str]| {
        url::Url::parse(url)
            .is_ok_and(|url| schemes.contains(&url.scheme()) && url.host().is_some())
    };
    if config.mqtt.as_ref().is_some_and(|mqtt| !has_scheme(&mqtt.url, &["mqtt", "mqtts"])) {
        fault(&["mqtt", "url"], "expected an address such as \"mqtt://broker:1883\"");
    }
    let nats = ["nats", "tls"];
    if config.nats.as_ref().is_some_and(|server| !has_scheme(&server.url, &nats)) {
        fault(&["nats", "url"], "expected an address such as \"nats://server:4222\"");
    }
    if config.cluster.as_ref().is_some_and(|cluster| !has_scheme(&cluster.nats, &nats)) {
        fault(&["cluster", "nats"], "expected an address such as \"nats://server:4222\"");
    }
    // What would be a wildcard, or no word at all.
    let is_word = |text: &str, bad: &[char]| {
        !text.is_empty()
            && !text.contains(|c: char| c.is_whitespace() || c.is_control() || bad.contains(&c))
    };
    let prefix = config.mqtt.as_ref().and_then(|mqtt| mqtt.prefix.as_deref());
    if prefix.is_some_and(|prefix| !is_word(prefix, &['+', '#'])) {
        fault(&["mqtt", "prefix"], "expected a topic such as \"streamkvqa\", without + and #");
    }
    let prefix = config.nats.as_ref().and_then(|nats| nats.prefix.as_deref());
    let is_subject = |text: &str| text.split('.').all(|word| is_word(word, &['*', '>']));
    if prefix.is_some_and(|prefix| !is_subject(prefix)) {
        fault(&["nats", "prefix"], "expected a subject such as \"streamkvqa\", without * and >");
    }
    let discovery = config.mqtt.as_ref().and_then(|mqtt| mqtt.discovery.as_deref());
    if discovery.is_some_and(|topic| !topic.is_empty() && !is_word(topic, &['+', '#'])) {
        fault(
            &["mqtt", "discovery"],
            "expected a topic such as \"homeassistant\", or \"\" for no discovery",
        );
    }
    if let Some(cluster) = &config.cluster {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let fits = |name: &str| (1..=48).contains(&name.len()) && name.chars().all(is_plain);
        if cluster.name.as_ref().is_some_and(|name| !fits(name)) {
            fault(&["cluster", "name"], "expected 1 to 48 letters, digits, \"-\" and \"_\"");
        }
        if cluster.lease.is_some_and(|lease| !(1.0..=3600.0).contains(&lease)) {
            fault(&["cluster", "lease"], "expected seconds from 1 to 3600");
        }
        if cluster.max_cameras == Some(0) {
            fault(
                &["cluster", "max_cameras"],
                "expected at least one; leave it out for any number",
            );
        }
    }
    let mut names = std::collections::BTreeSet::new();
    for (at, hook) in config.webhooks.iter().enumerate() {
        let mut fault = |field: &str, message: &str| {
            faults.push((vec!["webhook".into(), at.into(), field.into()], message.to_owned()));
        };
        if !names.insert(hook.name.as_str()) {
            fault("name", "another hook has this name; each needs one of its own");
        }
        if hook.on.iter().any(|on| on != "alert" && on != "answer") {
            fault("on", "expected \"alert\" and \"answer\"");
        }
        if !has_scheme(&hook.url, &["http", "https"]) {
            fault("url", "expected an address such as \"https://example.org/hook\"");
        }
        if hook.name.trim().is_empty() {
            fault("name", "expected a name");
        }
        let is_header = |(name, value): (&String, &String)| {
            ureq::http::HeaderName::try_from(name).is_ok()
                && ureq::http::HeaderValue::try_from(value).is_ok()
        };
        if !hook.headers.iter().all(is_header) {
            fault("headers", "expected names of letters, digits and \"-\", and values on one line");
        }
        // In a cluster it may be another machine's.
        let is_here = |id: &String| config.cameras.iter().any(|camera| camera.id == *id);
        if config.cluster.is_none() && !hook.cameras.iter().all(is_here) {
            fault("cameras", "expected ids of cameras in this file");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn a_fault_of_a_broker_has_its_line() {
        for (text, line) in [
            ("[mqtt]\nurl = \"http://x\"", 2),
            ("[mqtt]\nurl = \"mqtt://x\"\nprefix = \"a/#\"", 3),
            ("[nats]\nurl = \"nats://x\"\nprefix = \"a b\"", 3),
            ("[cluster]\nnats = \"nats://x\"\nlease = 0.1", 3),
            ("[mqtt]\nurl = \"mqtt://x\"\ndiscovery = \"home/+\"", 3),
            ("[nats]\nurl = \"nats://x\"\nprefix = \"a..b\"", 3),
            ("[cluster]\nnats = \"nats://x\"\nname = \"\"", 3),
            ("[cluster]\nnats = \"nats://x\"\nname = \"our wall\"", 3),
            ("[cluster]\nnats = \"nats://x\"\nmax_cameras = 0", 3),
            ("[[webhook]]\nname = \"a\"\nurl = \"http://x\"\non = [\"alarm\"]", 4),
            ("[[webhook]]\nname = \"a\"\nurl = \"http://x\"\ncameras = [\"yrad\"]", 4),
            ("[[webhook]]\nname = \"a\"\nurl = \"http://x\"\nheaders = { \"a b\" = \"c\" }", 4),
            ("[[webhook]]\nname = \"a\"\nurl = \"http://x\"\nheaders = { a = \"b\\nc\" }", 4),
            ("[[webhook]]\nname = \" \"\nurl = \"http://x\"", 2),
            (
                "[[webhook]]\nname = \"a\"\nurl = \"http://x\"\n[[webhook]]\nname = \"a\"\nurl = \"http://x\"",
                5,
            ),
        ] {
            let faults = Config::parse(text).unwrap_err().faults;
            assert!(faults.iter().any(|fault| fault.line == line), "{text}\n{faults:?}");
        }
        Config::parse("[mqtt]\nurl = \"mqtt://x\"\n[cluster]\nnats = \"nats://x\"\nlease = 5.0")
            .unwrap();
    }
}
