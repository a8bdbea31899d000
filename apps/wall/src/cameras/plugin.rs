// SPDX-License-Identifier: MPL-2.0
//! Finding the element.

use std::path::{Path, PathBuf};

use gstreamer as gst;

const FILE: &str =
    if cfg!(target_os = "macos") { "libgststreamkvqa.dylib" } else { "libgststreamkvqa.so" };

/// There is no element.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// GStreamer itself does not start.
    #[error("GStreamer does not start: {0}")]
    GStreamer(String),
    /// A file that should be the plugin is none.
    #[error("{} is not a plugin for this GStreamer: {reason}", path.display())]
    NoPlugin {
        /// The file.
        path: PathBuf,
        /// GStreamer's words.
        reason: String,
    },
    /// It is nowhere.
    #[error(
        "GStreamer finds no element streamkvqa: not in GST_PLUGIN_PATH, not beside this program ({}), not where \
         plugins are installed. Run `make build` in the repository, install the package gstreamer1.0-streamkvqa, \
         or set GST_PLUGIN_PATH to the folder of {FILE}",
        beside.display()
    )]
    Nowhere {
        /// Where the program is.
        beside: PathBuf,
    },
}

/// Starts GStreamer and makes sure that it knows the element: from `GST_PLUGIN_PATH`, else from beside the
/// program, else from where plugins are installed.
///
/// # Errors
/// It is in none of these places.
pub fn find() -> Result<(), Missing> {
    gst::init().map_err(|error| Missing::GStreamer(error.to_string()))?;
    let program = std::env::current_exe().ok();
    let beside = program.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
    // GST_PLUGIN_PATH was read by init and comes before what is installed; what lies beside the program does not
    // come before it.
    let is_named = std::env::var_os("GST_PLUGIN_PATH").is_some_and(|path| !path.is_empty());
    if is_named && is_known() {
        return Ok(());
    }
    // Cargo puts tests and examples a folder below.
    let above = beside.join("../gstreamer-1.0");
    for folder in [beside.join("gstreamer-1.0"), beside.to_path_buf(), above] {
        let path = folder.join(FILE);
        if path.is_file() {
            let reason = |error: gst::glib::Error| Missing::NoPlugin {
                path: path.clone(),
                reason: error.to_string(),
            };
            let plugin = gst::Plugin::load_file(&path).map_err(reason)?;
            gst::Registry::get().add_plugin(&plugin).map_err(|error| Missing::NoPlugin {
                path: path.clone(),
                reason: error.to_string(),
            })?;
            return Ok(());
        }
    }
    if is_known() { Ok(()) } else { Err(Missing::Nowhere { beside: beside.to_path_buf() }) }
}

fn is_known() -> bool {
    gst::ElementFactory::find("streamkvqa").is_some()
}
