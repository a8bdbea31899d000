// SPDX-License-Identifier: MPL-2.0
//! What a wall is told to do: one TOML file.

mod brokers;
mod cameras;
mod check;
mod fault;
mod wall;

use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use brokers::*;
pub use cameras::*;
pub use fault::{Fault, Faults};
pub use wall::*;

/// Bytes of the longest file.
const LONGEST: u64 = 4 << 20;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The wall itself.
    pub wall: WallConfig,
    /// Who may see it.
    pub access: AccessConfig,
    /// What is kept of the past.
    pub history: HistoryConfig,
    /// The cameras.
    #[serde(rename = "camera")]
    pub cameras: Vec<CameraConfig>,
    /// An MQTT broker.
    pub mqtt: Option<MqttConfig>,
    /// Web addresses that are told.
    #[serde(rename = "webhook")]
    pub webhooks: Vec<WebhookConfig>,
    /// A NATS server that is told.
    pub nats: Option<NatsConfig>,
    /// Several machines as one wall.
    pub cluster: Option<ClusterConfig>,
}

impl Config {
    /// Reads a file. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// All that is wrong with it, each with its line and column.
    pub fn read(path: &Path) -> Result<Self, Faults> {
        let bytes = read(path).map_err(|error| Faults::whole(path, error.to_string()))?;
        let text =
            String::from_utf8(bytes).map_err(|error| Faults::of_bytes(&error).in_file(path))?;
        let mut config = Self::parse(&text).map_err(|faults| faults.in_file(path))?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// All that is wrong with it, each with its line and column.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        let config: Self = toml::from_str(text).map_err(|error| Faults::of_toml(text, &error))?;
        let faults = check::check(&config);
        if faults.is_empty() { Ok(config) } else { Err(Faults::at_places(text, faults)) }
    }

    /// Makes paths absolute.
    fn resolve(&mut self, folder: &Path) {
        self.wall.data = folder.join(&self.wall.data);
        let models =
            self.cameras.iter_mut().map(|camera| &mut camera.model).chain([&mut self.wall.model]);
        for model in models.flatten() {
            // Names of installed models, and those on the hub, are no paths.
            if folder.join(&*model).is_dir() {
                *model = folder.join(&*model).to_string_lossy().into_owned();
            }
        }
        for uri in self.cameras.iter_mut().filter_map(|camera| camera.uri.as_mut()) {
            if !uri.contains("://") {
                *uri = folder.join(&*uri).to_string_lossy().into_owned();
            }
        }
        let certificates = [
            self.mqtt.as_mut().and_then(|mqtt| mqtt.ca.as_mut()),
            self.nats.as_mut().and_then(|nats| nats.credentials.as_mut()),
            self.cluster.as_mut().and_then(|cluster| cluster.credentials.as_mut()),
        ];
        for path in certificates.into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
}

/// What is in a configuration's file.
///
/// # Errors
/// It cannot be read, or is far too long for one.
pub(crate) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        let mebibytes = LONGEST >> 20;
        return Err(std::io::Error::other(format!(
            "it is longer than {mebibytes} MiB; is it the right file?"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
