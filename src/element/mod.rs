// SPDX-License-Identifier: MPL-2.0
use gstreamer as gst;
pub fn register(_plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    Ok(())
}
