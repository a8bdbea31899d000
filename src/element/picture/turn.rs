// SPDX-License-Identifier: MPL-2.0
//! Which way up the picture is: the `image-orientation` tag, and turning pixels upright.

use gst_video::VideoOrientationMethod as Method;
use gstreamer as gst;
use gstreamer_video as gst_video;

/// What turns a picture upright: its diagonal mirrored or not, then either side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    transposed: bool,
    mirror_x: bool,
    mirror_y: bool,
}

impl Turn {
    /// `None` for what no tag can say.
    fn new(method: Method) -> Option<Self> {
        let (transposed, mirror_x, mirror_y) = match method {
            Method::Identity => (false, false, false),
            Method::_90r => (true, false, true),
            Method::_180 => (false, true, true),
            Method::_90l => (true, true, false),
            Method::Horiz => (false, true, false),
            Method::Vert => (false, false, true),
            Method::UlLr => (true, false, false),
            Method::UrLl => (true, true, true),
            _ => return None,
        };
        Some(Self { transposed, mirror_x, mirror_y })
    }

    /// Width and height of a picture that was `size` before.
    pub fn size(self, (width, height): (usize, usize)) -> (usize, usize) {
        if self.transposed { (height, width) } else { (width, height) }
    }

    /// Whether the picture is upright as it is.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// RGB of `width` x `height` pixels in rows of `stride` bytes, turned and packed, in the memory of
    /// `packed` where it suffices. `None` if there are fewer bytes.
    pub fn pack(
        self,
        rgb: &[u8],
        stride: usize,
        width: usize,
        height: usize,
        mut packed: Vec<u8>,
    ) -> Option<Vec<u8>> {
        let (across, down) = self.size((width, height));
        packed.clear();
        packed.reserve_exact(across * down * 3);
        for y in 0..down {
            if !self.transposed && !self.mirror_x {
                let row = if self.mirror_y { height - 1 - y } else { y } * stride;
                packed.extend_from_slice(rgb.get(row..row + width * 3)?);
                continue;
            }
            for x in 0..across {
                let (x, y) = if self.transposed { (y, x) } else { (x, y) };
                let x = if self.mirror_x { width - 1 - x } else { x };
                let y = if self.mirror_y { height - 1 - y } else { y };
                let pixel = y * stride + x * 3;
                packed.extend_from_slice(rgb.get(pixel..pixel + 3)?);
            }
        }
        Some(packed)
    }
}

/// What the tags of a stream say about it. What they say of the stream itself goes before what they
/// say of all streams of its file.
#[derive(Debug, Default)]
pub(in crate::element) struct Orientation {
    stream: Option<Turn>,
    global: Option<Turn>,
}

impl Orientation {
    /// Tags without an orientation, and orientations that are none, change nothing.
    pub fn tag(&mut self, tags: &gst::TagListRef) {
        let Some(turn) = Method::from_tag(tags).and_then(Turn::new) else { return };
        match tags.scope() {
            gst::TagScope::Global => self.global = Some(turn),
            _ => self.stream = Some(turn),
        }
    }

    pub(super) fn turn(&self) -> Turn {
        self.stream.or(self.global).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(value: &str, scope: gst::TagScope) -> gst::TagList {
        gst::init().unwrap();
        let mut tags = gst::TagList::new();
        let list = tags.get_mut().unwrap();
        list.add::<gst::tags::ImageOrientation>(&value, gst::TagMergeMode::Replace);
        list.set_scope(scope);
        tags
    }

    fn turn(value: &str) -> Turn {
        let mut orientation = Orientation::default();
        orientation.tag(&tags(value, gst::TagScope::Stream));
        orientation.turn()
    }

    /// 3 x 2 pixels, named by their letters, in rows of eleven bytes.
    fn turned(turn: Turn) -> String {
        let rgb: Vec<u8> = b"aaabbbccc..dddeeefff".to_vec();
        let packed = turn.pack(&rgb, 11, 3, 2, vec![9; 40]).unwrap();
        let (width, _) = turn.size((3, 2));
        let letters: String = packed.chunks(3).map(|pixel| char::from(pixel[0])).collect();
        let rows = letters.as_bytes().chunks(width);
        rows.map(|row| std::str::from_utf8(row).unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_tag_turns_the_picture_upright() {
        for (tag, upright) in [
            ("rotate-0", "abc def"),
            ("rotate-90", "da eb fc"),
            ("rotate-180", "fed cba"),
            ("rotate-270", "cf be ad"),
            ("flip-rotate-0", "cba fed"),
            ("flip-rotate-90", "fc eb da"),
            ("flip-rotate-180", "def abc"),
            ("flip-rotate-270", "ad be cf"),
        ] {
            assert_eq!(turned(turn(tag)), upright, "{tag}");
        }
    }

    #[test]
    fn the_stream_knows_better_than_the_file() {
        let mut orientation = Orientation::default();
        assert_eq!(turned(orientation.turn()), "abc def");
        orientation.tag(&tags("rotate-180", gst::TagScope::Global));
        assert_eq!(turned(orientation.turn()), "fed cba");
        orientation.tag(&tags("rotate-90", gst::TagScope::Stream));
        orientation.tag(&tags("rotate-180", gst::TagScope::Global));
        assert_eq!(turned(orientation.turn()), "da eb fc");
        orientation.tag(&tags("rotate-0", gst::TagScope::Stream));
        assert_eq!(turned(orientation.turn()), "abc def");
    }

    #[test]
    fn what_is_no_orientation_changes_nothing() {
        let mut orientation = Orientation::default();
        orientation.tag(&tags("rotate-90", gst::TagScope::Stream));
        orientation.tag(&tags("upside-down", gst::TagScope::Stream));
        orientation.tag(&gst::TagList::new());
        assert_eq!(turned(orientation.turn()), "da eb fc");
    }

    #[test]
    fn too_few_bytes_are_no_picture() {
        for tag in ["rotate-0", "rotate-90"] {
            assert_eq!(turn(tag).pack(&[0; 19], 11, 3, 2, Vec::new()), None);
        }
    }
}
