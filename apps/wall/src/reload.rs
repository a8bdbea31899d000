// SPDX-License-Identifier: MPL-2.0
//! The configuration's file, read again when it changes.

use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::wall::Wall;

/// Looking is cheap, works on every file system, and sees files that an editor has put in the place of others.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Somebody asks, by SIGHUP, that the file be read again. Before one listens, that ends the process.
pub struct HangUp(Option<Signal>);

impl HangUp {
    /// From now on.
    pub fn listen() -> Self {
        Self(signal(SignalKind::hangup()).ok())
    }

    async fn heard(&mut self) -> Option<()> {
        match &mut self.0 {
            Some(signal) => signal.recv().await,
            None => std::future::pending().await,
        }
    }
}

/// For ever.
pub async fn follow(wall: &Wall, file: &Path, mut hang_up: HangUp) {
    let mut known = look(file);
    loop {
        let is_asked_for = tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => false,
            Some(()) = hang_up.heard() => true,
        };
        let now = look(file);
        if now == known && !is_asked_for {
            continue;
        }
        known = now;
        match Config::read(file) {
            Ok(config) => {
                wall.apply(&config).await;
                tracing::info!("{} is read again", file.display());
                wall.tell_config(None);
            }
            Err(faults) => {
                tracing::error!("{faults}");
                wall.tell_config(Some(format!("{faults}\nThe configuration before it holds on.")));
            }
        }
    }
}

/// What a file has to differ in to be another.
fn look(file: &Path) -> Option<Vec<u8>> {
    crate::config::read(file).ok()
}
