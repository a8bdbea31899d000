// SPDX-License-Identifier: MPL-2.0
//! The newest picture of a camera, for any number of viewers: each gets the newest when it is ready for one.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

/// A picture of a camera.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// When it was seen.
    pub at: Timestamp,
    /// A JPEG file.
    pub jpeg: Arc<[u8]>,
}

/// The newest picture of a camera; clones show the same.
#[derive(Clone, Debug)]
pub struct LivePicture {
    newest: watch::Sender<Option<Picture>>,
}

impl Default for LivePicture {
    fn default() -> Self {
        LivePicture { newest: watch::Sender::new(None) }
    }
}

impl LivePicture {
    /// Shows a picture. Never waits for viewers.
    pub fn show(&self, picture: Picture) {
        self.newest.send_replace(Some(picture));
    }

    /// The newest, if there has been one.
    pub fn newest(&self) -> Option<Picture> {
        self.newest.borrow().clone()
    }

    /// Every newer picture that its holder is ready for. While there are holders, pictures come more often.
    pub fn view(&self) -> watch::Receiver<Option<Picture>> {
        self.newest.subscribe()
    }

    /// How many hold a [`LivePicture::view`].
    pub fn viewers(&self) -> usize {
        self.newest.receiver_count()
    }
}
