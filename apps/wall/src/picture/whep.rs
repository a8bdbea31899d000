// SPDX-License-Identifier: MPL-2.0
//! Live video by WebRTC: a page's offer in, an answer out (WHEP).
