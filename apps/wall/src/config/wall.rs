// SPDX-License-Identifier: MPL-2.0
//! Sections `wall`, `access` and `history`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Section `[wall]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WallConfig {
    /// For people.
    pub name: String,
    /// Unique among the machines of a cluster; unset: the machine's name.
    pub host: Option<String>,
    /// Address and port of the page.
    pub listen: String,
    /// Folder for history, pictures and memories.
    pub data: PathBuf,
    /// The model of cameras that name none: what the element's `model-path` takes.
    pub model: Option<String>,
}

impl Default for WallConfig {
    fn default() -> Self {
        WallConfig {
            name: "Wall".into(),
            host: None,
            listen: "127.0.0.1:8460".into(),
            data: "wall-data".into(),
            model: None,
        }
    }
}

/// Section `[access]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// Who knows one of these may see the wall. None: only this machine can reach it.
    pub tokens: Vec<String>,
    /// Further names by which browsers reach the wall, as in their address line.
    pub hosts: Vec<String>,
    /// Questions that one address may ask in a minute.
    pub questions_per_minute: u32,
    /// Requests that one address may make in a minute, pictures included.
    pub requests_per_minute: u32,
}

impl Default for AccessConfig {
    fn default() -> Self {
        AccessConfig {
            tokens: Vec::new(),
            hosts: Vec::new(),
            questions_per_minute: 60,
            requests_per_minute: 3000,
        }
    }
}

/// Section `[history]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryConfig {
    /// Days after which questions, answers, alerts and their pictures go.
    pub keep_days: f64,
    /// Bytes that they may take; the oldest go first.
    pub max_bytes: u64,
    /// Seconds between the pictures that are kept of every camera, to look back at.
    pub picture_every: f64,
    /// Bytes that these pictures may take in all.
    pub max_picture_bytes: u64,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        HistoryConfig {
            keep_days: 30.0,
            max_bytes: 2 << 30,
            picture_every: 1.0,
            max_picture_bytes: 2 << 30,
        }
    }
}
