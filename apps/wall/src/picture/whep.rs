// SPDX-License-Identifier: MPL-2.0
//! Live video by WebRTC: a page's offer in, an answer out (WHEP).

/// Whether GStreamer has what it needs: `webrtcbin`, and `nice` for the connection.
pub fn is_available() -> bool {
    false
}
