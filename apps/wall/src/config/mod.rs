// SPDX-License-Identifier: MPL-2.0
//! What a wall is told to do: one TOML file.

mod brokers;
mod cameras;
mod wall;

use serde::{Deserialize, Serialize};

pub use brokers::*;
pub use cameras::*;
pub use wall::*;

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
