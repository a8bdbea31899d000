// SPDX-License-Identifier: MPL-2.0
//! Which frames the model sees, and how they become packed RGB.
//!
//! Sampling goes by running time, never by counting: cameras with a variable frame rate announce
//! 0/1 and mean it. Only sampled frames are mapped; upstream's buffers are never kept, because their
//! pools are small.

use gst::ClockTime;
use gstreamer as gst;
use gstreamer_video as gst_video;

/// Takes frames on a grid of running time that begins with the first one.
#[derive(Debug)]
pub(super) struct Sampler {
    period: ClockTime,
    anchor: Option<ClockTime>,
    due: ClockTime,
    taken: Option<ClockTime>,
}

impl Sampler {
    /// `rate` is in frames per second.
    pub fn new(rate: f64) -> Self {
        let period = (1e9 / rate.clamp(1e-6, 1e6)) as u64;
        Self {
            period: ClockTime::from_nseconds(period.max(1)),
            anchor: None,
            due: ClockTime::ZERO,
            taken: None,
        }
    }

    pub fn period(&self) -> ClockTime {
        self.period
    }

    /// The next frame begins a new grid.
    pub fn restart(&mut self) {
        self.anchor = None;
        self.taken = None;
    }

    /// Whether the frame is taken. A frame on which a question falls due (`asked`) is taken off the
    /// grid too, unless the newest sample is less than half a period old.
    pub fn take(&mut self, running: ClockTime, asked: bool) -> bool {
        let anchor = match self.anchor {
            // Time that went back without a new segment: what was due may be hours away.
            Some(anchor)
                if running >= anchor && running.saturating_add(self.period) >= self.due =>
            {
                anchor
            }
            _ => {
                self.anchor = Some(running);
                self.due = running;
                self.taken = None;
                running
            }
        };
        let on_grid = running >= self.due;
        let stale = self.taken.is_none_or(|taken| {
            running.saturating_sub(taken).nseconds() * 2 >= self.period.nseconds()
        });
        let wanted = on_grid || (asked && stale);
        if !wanted {
            return false;
        }
        if on_grid {
            // Late frames skip grid points instead of catching up in a burst.
            let steps = (running - anchor).nseconds() / self.period.nseconds() + 1;
            self.due = ClockTime::from_nseconds(
                (anchor.nseconds()).saturating_add(steps.saturating_mul(self.period.nseconds())),
            );
        }
        self.taken = Some(running);
        true
    }
}

/// A picture of the stream in the engine's format.
pub(super) struct Picture {
    pub rgb: Vec<u8>,
    pub width: usize,
    pub height: usize,
}

/// Turns buffers of one caps into packed RGB, scaled down where they are large.
pub(super) struct Reader {
    info: gst_video::VideoInfo,
    output: gst_video::VideoInfo,
    converter: gst_video::VideoConverter,
}

impl Reader {
    /// # Errors
    /// Says why frames of these caps cannot be read, and what to put in front of the element.
    pub fn new(caps: &gst::CapsRef, frame_size: u32) -> Result<Self, String> {
        let features = caps.features(0);
        if features.is_some_and(|features| features.contains("memory:NVMM")) {
            return Err("memory:NVMM cannot be mapped; put nvvideoconvert ! video/x-raw before \
                        the element"
                .into());
        }
        let info = gst_video::VideoInfo::from_caps(caps)
            .map_err(|_| "they do not describe a raw video format".to_string())?;
        let size = format!("{}x{}", info.width(), info.height());
        if info.width() == 0 || info.height() == 0 {
            return Err(format!("the picture is {size}"));
        }
        if info.interlace_mode() == gst_video::VideoInterlaceMode::Alternate {
            return Err("buffers of single fields have no whole picture; put deinterlace before \
                        the element"
                .into());
        }
        let (width, height) = bounded(info.width(), info.height(), frame_size);
        let output = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, width, height)
            .fps(info.fps())
            .interlace_mode(info.interlace_mode())
            .build()
            .map_err(|_| format!("{size} is more than can be converted"))?;
        let mut config = gst_video::VideoConverterConfig::new();
        config.set_resampler_method(gst_video::VideoResamplerMethod::Linear);
        // Dithering is for eyes; to the model it is noise that changes from frame to frame.
        config.set_dither_method(gst_video::VideoDitherMethod::None);
        let converter =
            gst_video::VideoConverter::new(&info, &output, Some(config)).map_err(|_| {
                format!(
                    "{} cannot be converted to RGB; put videoconvert before the element",
                    info.format().to_str()
                )
            })?;
        Ok(Self { info, output, converter })
    }

    /// # Errors
    /// Says why this buffer cannot be read.
    pub fn read(&self, buffer: &gst::BufferRef) -> Result<Picture, String> {
        self.check_planes(buffer)?;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.info)
            .map_err(|_| {
                format!(
                    "a buffer of {} bytes cannot be mapped as {} {}x{}",
                    buffer.size(),
                    self.info.format().to_str(),
                    self.info.width(),
                    self.info.height()
                )
            })?;
        let mut rgb = gst::Buffer::with_size(self.output.size())
            .map_err(|_| format!("no memory for {} bytes", self.output.size()))?;
        {
            let rgb = rgb.get_mut().ok_or("the new buffer is shared")?;
            let mut target = gst_video::VideoFrameRef::from_buffer_ref_writable(rgb, &self.output)
                .map_err(|_| "the RGB buffer cannot be mapped".to_string())?;
            self.converter.frame_ref(&frame, &mut target);
        }
        let map = rgb.map_readable().map_err(|_| "the RGB buffer cannot be mapped".to_string())?;
        let (width, height) = (self.output.width() as usize, self.output.height() as usize);
        let stride = self.output.stride()[0] as usize;
        let mut packed = Vec::with_capacity(width * height * 3);
        for row in map.chunks(stride).take(height) {
            packed.extend_from_slice(&row[..width * 3]);
        }
        Ok(Picture { rgb: packed, width, height })
    }

    /// GStreamer 1.22 maps whatever a video meta claims; a plane that ends outside of its buffer
    /// would be read there.
    fn check_planes(&self, buffer: &gst::BufferRef) -> Result<(), String> {
        let Some(meta) = buffer.meta::<gst_video::VideoMeta>() else {
            // A map without a meta checks the size itself.
            return Ok(());
        };
        if meta.format() != self.info.format()
            || meta.width() != self.info.width()
            || meta.height() != self.info.height()
        {
            return Err(format!(
                "the video meta says {} {}x{}",
                meta.format().to_str(),
                meta.width(),
                meta.height()
            ));
        }
        let format = self.info.format_info();
        let fits = (0..self.info.n_components()).all(|component| {
            let component = component as usize;
            let plane = format.plane()[component] as usize;
            let (Some(&offset), Some(&stride)) =
                (meta.offset().get(plane), meta.stride().get(plane))
            else {
                return false;
            };
            let Ok(stride) = usize::try_from(stride) else { return false };
            if format.is_tiled() {
                // Strides of tiles count tiles; whether they fit is for the map to say.
                return true;
            }
            let rows = self.info.comp_height(component as u8) as usize;
            let row = self.info.comp_width(component as u8) as usize
                * format.pixel_stride()[component].max(1) as usize;
            // A sample may sit inside its pixel: U and V of NV12 share a row.
            let row = row.min(stride).max(1);
            let end = rows
                .checked_sub(1)
                .and_then(|full| full.checked_mul(stride))
                .and_then(|full| full.checked_add(row))
                .and_then(|plane| plane.checked_add(offset));
            end.is_some_and(|end| end <= buffer.size())
        });
        if fits { Ok(()) } else { Err("its planes reach beyond its end".into()) }
    }
}

/// The size with its longer side at most `limit` (0: any) and the aspect ratio kept.
fn bounded(width: u32, height: u32, limit: u32) -> (u32, u32) {
    let longer = width.max(height);
    if limit == 0 || longer <= limit {
        return (width, height);
    }
    let scale = |side: u32| {
        let scaled =
            (u64::from(side) * u64::from(limit) + u64::from(longer) / 2) / u64::from(longer);
        (scaled as u32).max(1)
    };
    (scale(width), scale(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> ClockTime {
        ClockTime::from_mseconds(ms)
    }

    fn taken(sampler: &mut Sampler, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        times.into_iter().filter(|&time| sampler.take(ms(time), false)).collect()
    }

    #[test]
    fn frames_are_taken_on_a_grid_of_running_time() {
        let mut sampler = Sampler::new(2.0);
        assert_eq!(taken(&mut sampler, (100..2200).step_by(40)), [100, 620, 1100, 1620, 2100]);
    }

    #[test]
    fn a_gap_is_not_made_up_for_in_a_burst() {
        let mut sampler = Sampler::new(1.0);
        assert_eq!(taken(&mut sampler, [0, 5300, 5400, 5500, 6000, 6100]), [0, 5300, 6000]);
    }

    #[test]
    fn a_frame_on_which_a_question_falls_due_is_taken_if_the_last_is_old() {
        let mut sampler = Sampler::new(1.0);
        assert!(sampler.take(ms(0), false));
        assert!(!sampler.take(ms(400), true));
        assert!(sampler.take(ms(500), true));
        assert!(!sampler.take(ms(900), true));
        assert!(sampler.take(ms(1000), false));
    }

    #[test]
    fn time_that_goes_back_begins_a_new_grid() {
        let mut sampler = Sampler::new(1.0);
        assert_eq!(taken(&mut sampler, [5000, 6000, 100, 500, 1100]), [5000, 6000, 100, 1100]);
        let mut sampler = Sampler::new(1.0);
        assert_eq!(taken(&mut sampler, [0, 9000, 1000, 1500, 2000]), [0, 9000, 1000, 2000]);
    }

    #[test]
    fn large_frames_are_scaled_down_with_their_aspect_ratio() {
        assert_eq!(bounded(1920, 1080, 1024), (1024, 576));
        assert_eq!(bounded(1080, 1920, 1024), (576, 1024));
        assert_eq!(bounded(640, 480, 1024), (640, 480));
        assert_eq!(bounded(30000, 1, 1024), (1024, 1));
        assert_eq!(bounded(1920, 1080, 0), (1920, 1080));
    }

    fn reader(format: &str, width: i32, height: i32, frame_size: u32) -> Reader {
        gst::init().unwrap();
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", format)
            .field("width", width)
            .field("height", height)
            .field("framerate", gst::Fraction::new(0, 1))
            .build();
        Reader::new(&caps, frame_size).unwrap()
    }

    #[test]
    fn rgb_pixels_arrive_as_they_were() {
        let (width, height) = (5, 3);
        let reader = reader("RGB", width, height, 1024);
        // Rows of RGB are padded to four bytes: 5 pixels take 16.
        let padded: Vec<u8> = (0..48).collect();
        let picture = reader.read(&gst::Buffer::from_slice(padded.clone())).unwrap();
        let expected: Vec<u8> = padded.chunks(16).flat_map(|row| row[..15].to_vec()).collect();
        assert_eq!((picture.width, picture.height), (5, 3));
        assert_eq!(picture.rgb, expected);
    }

    #[test]
    fn strides_of_a_video_meta_are_honoured_and_checked() {
        let reader = reader("RGB", 2, 2, 1024);
        let bytes: Vec<u8> = (0..40).collect();
        let with_meta = |offset: usize, stride: i32| {
            let mut buffer = gst::Buffer::from_slice(bytes.clone());
            gst_video::VideoMeta::add_full(
                buffer.get_mut().unwrap(),
                gst_video::VideoFrameFlags::empty(),
                gst_video::VideoFormat::Rgb,
                2,
                2,
                &[offset],
                &[stride],
            )
            .unwrap();
            buffer
        };
        let picture = reader.read(&with_meta(3, 17)).unwrap();
        assert_eq!(picture.rgb, [3, 4, 5, 6, 7, 8, 20, 21, 22, 23, 24, 25]);
        assert!(reader.read(&with_meta(3, 1 << 20)).is_err());
        assert!(reader.read(&with_meta(30, 17)).is_err());
        assert!(reader.read(&with_meta(3, -17)).is_err());
    }

    #[test]
    fn a_buffer_that_is_too_short_is_refused() {
        let reader = reader("NV12", 64, 64, 1024);
        assert!(reader.read(&gst::Buffer::new()).is_err());
        assert!(reader.read(&gst::Buffer::with_size(64 * 64).unwrap()).is_err());
    }

    #[test]
    fn planar_and_packed_formats_are_read() {
        for format in ["I420", "NV12", "YUY2", "BGRx", "GRAY8", "P010_10LE", "v210", "NV12_4L4"] {
            let reader = reader(format, 50, 34, 16);
            let buffer = gst::Buffer::with_size(reader.info.size()).unwrap();
            let picture = reader.read(&buffer).unwrap();
            assert_eq!((picture.width, picture.height), (16, 11), "{format}");
        }
    }
}
