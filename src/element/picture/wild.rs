// SPDX-License-Identifier: MPL-2.0
//! Buffers whose metas say anything at all.

use super::*;

/// Numbers without a pattern.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// Mostly something near `value`, sometimes something absurd.
    fn near(&mut self, value: u64) -> u64 {
        match self.below(8) {
            0 => self.below(1 << 33),
            1 => 0,
            2 => value / 2,
            3 => value + self.below(64),
            4 => value.saturating_sub(self.below(64)),
            _ => value,
        }
    }
}

#[test]
fn whatever_metas_say_a_buffer_is_read_or_refused() {
    gst::init().unwrap();
    let formats: Vec<_> = gst_video::VideoFormat::iter_raw().collect();
    let mut dice = Dice(1);
    let (mut read, mut refused) = (0, 0);
    for round in 0..4000 {
        let format = formats[round % formats.len()];
        let (width, height) = (1 + dice.below(70), 1 + dice.below(50));
        let mode = ["progressive", "interleaved", "mixed"][dice.below(3) as usize];
        let caps = caps(&format!(
            "video/x-raw,format={format},width={width},height={height},interlace-mode={mode}"
        ));
        let Ok(source) = Source::new(&caps) else { continue };
        let size = dice.near(source.info.size() as u64).min(1 << 20) as usize;
        let mut buffer = gst::Buffer::from_slice(vec![0x5a_u8; size]);
        if dice.below(4) > 0 {
            let planes = source.info.n_planes() as usize;
            let offsets: Vec<_> = source.info.offset()[..planes]
                .iter()
                .map(|o| dice.near(*o as u64) as usize)
                .collect();
            let strides: Vec<_> = source.info.stride()[..planes]
                .iter()
                .map(|s| dice.near(*s as u64) as i32)
                .collect();
            let (width, height) = (dice.near(width), dice.near(height));
            let _ = gst_video::VideoMeta::add_full(
                buffer.make_mut(),
                gst_video::VideoFrameFlags::empty(),
                format,
                width.clamp(1, 1 << 14) as u32,
                height.clamp(1, 1 << 14) as u32,
                &offsets,
                &strides,
            );
        }
        if dice.below(2) > 0 {
            let (left, top) = (dice.below(width) as u32, dice.below(height) as u32);
            let rect = (left, top, dice.near(width) as u32, dice.near(height) as u32);
            let inside = (left, top, width as u32 - left, height as u32 - top);
            crop(&mut buffer, if dice.below(3) > 0 { inside } else { rect });
        }
        match seen(&source, &buffer) {
            Ok((rgb, width, height)) => {
                assert_eq!(rgb.len(), 3 * width * height);
                read += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(read > 500 && refused > 500, "{read} read, {refused} refused");
}
