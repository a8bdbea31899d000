// SPDX-License-Identifier: MPL-2.0
//! The pictures of many cameras in one answer. A browser opens six connections to a server and no more, so a wall
//! cannot have a stream a camera.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use super::Picture;

/// Between two pictures of one camera.
const LEAST_INTERVAL: Duration = Duration::from_millis(500);

/// Of the whole answer: parts with the headers `content-type`, `content-length`, `x-camera` (its id) and `x-at`
/// (RFC 3339), one picture each.
pub const CONTENT_TYPE: &str = "multipart/mixed; boundary=picture";

/// The pictures of these cameras as they come, each camera's at most twice a second. A connection that is slower
/// gets fewer, always the newest.
pub fn stream(
    cameras: Vec<(String, watch::Receiver<Option<Picture>>)>,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let each = cameras.into_iter().map(|(camera, pictures)| {
        let parts = WatchStream::new(pictures).filter_map(move |picture| {
            let part = picture.map(|picture| part(&camera, &picture));
            async move { part }
        });
        Box::pin(paced(parts))
    });
    futures_util::stream::select_all(each).map(Ok)
}

/// Waits behind each part, not before it: the first comes at once.
fn paced(parts: impl Stream<Item = Bytes> + Send) -> impl Stream<Item = Bytes> + Send {
    parts.then({
        let mut next = tokio::time::Instant::now();
        move |part| {
            let at = next;
            next = tokio::time::Instant::now().max(at) + LEAST_INTERVAL;
            async move {
                tokio::time::sleep_until(at).await;
                part
            }
        }
    })
}

fn part(camera: &str, picture: &Picture) -> Bytes {
    let (at, length) = (picture.at, picture.jpeg.len());
    let head = format!(
        "--picture\r\ncontent-type: image/jpeg\r\ncontent-length: {length}\r\nx-camera: {camera}\r\nx-at: {at}\r\n\r\n"
    );
    let mut part = BytesMut::with_capacity(head.len() + length + 2);
    part.put_slice(head.as_bytes());
    part.put_slice(&picture.jpeg);
    part.put_slice(b"\r\n");
    part.freeze()
}

#[cfg(test)]
mod tests {
    use super::super::LivePicture;
    use super::*;

    fn show(live: &LivePicture, jpeg: &[u8]) {
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        live.show(Picture { at, jpeg: jpeg.into() });
    }

    async fn next(parts: &mut (impl Stream<Item = Result<Bytes, Infallible>> + Unpin)) -> String {
        let part = tokio::time::timeout(Duration::from_secs(60), parts.next()).await.unwrap();
        String::from_utf8(part.unwrap().unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn each_camera_has_its_newest_picture_in_a_part_of_its_own() {
        let (yard, gate) = (LivePicture::default(), LivePicture::default());
        show(&yard, b"first");
        let views = vec![("yard".to_owned(), yard.view()), ("gate".to_owned(), gate.view())];
        let mut parts = Box::pin(stream(views));
        let part = next(&mut parts).await;
        let head = "--picture\r\ncontent-type: image/jpeg\r\ncontent-length: 5\r\n\
                    x-camera: yard\r\nx-at: 2026-01-02T03:04:05Z\r\n\r\n";
        assert_eq!(part, format!("{head}first\r\n"));

        // One camera does not wait for another, and what nobody was ready for is not sent late.
        show(&gate, b"other");
        assert!(next(&mut parts).await.contains("x-camera: gate"));
        let began = tokio::time::Instant::now();
        for jpeg in [b"one", b"two", b"six"] {
            show(&yard, jpeg);
        }
        let mut seen = vec![next(&mut parts).await];
        show(&yard, b"end");
        while !seen.last().unwrap().ends_with("end\r\n") {
            seen.push(next(&mut parts).await);
        }
        assert!(!seen.iter().any(|part| part.ends_with("one\r\n") || part.ends_with("two\r\n")));
        assert!(began.elapsed() >= LEAST_INTERVAL / 2, "{:?}", began.elapsed());
    }
}
