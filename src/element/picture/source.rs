// SPDX-License-Identifier: MPL-2.0
//! Which video can be read, and what to put in front of the element where it cannot.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::develop;
use super::shot::Spare;

/// What puts frames of a kind of memory, named by its caps feature, into memory that can be read.
const DOWNLOADS: [(&str, &str); 9] = [
    ("memory:NVMM", "nvvideoconvert ! video/x-raw"),
    ("memory:CUDAMemory", "cudadownload"),
    ("memory:GLMemory", "gldownload"),
    ("memory:VAMemory", "vapostproc ! video/x-raw"),
    ("memory:VASurface", "vaapipostproc ! video/x-raw"),
    ("memory:DMABuf", "vapostproc ! video/x-raw (or glupload ! gldownload)"),
    ("memory:D3D11Memory", "d3d11download"),
    ("memory:D3D12Memory", "d3d12download"),
    ("memory:VulkanImage", "vulkandownload"),
];

/// What to do about memory that is not in the table.
const DOWNLOAD: &str = "an element that copies the video into system memory";

/// What an element in front of us may attach to a buffer instead of doing it to the picture, and
/// we cannot do to the model's copy.
const UNREADABLE_METAS: [&str; 2] =
    ["GstVideoAffineTransformationAPI", "GstVideoGLTextureUploadMetaAPI"];

/// Video of one caps, of which frames can be read.
pub(in crate::element) struct Source {
    pub(super) info: gst_video::VideoInfo,
    pub(super) colorimetry: gst_video::VideoColorimetry,
    /// What to put in front of the element if a buffer's memory turns out not to be mappable.
    pub(super) download: &'static str,
    pub(super) spare: Arc<Spare>,
}

impl Source {
    /// # Errors
    /// Says why frames of these caps cannot be read, and what to put in front of the element.
    pub fn new(caps: &gst::CapsRef) -> Result<Self, String> {
        let memory = caps.features(0).and_then(|features| {
            let mut names = features.iter().map(|name| name.as_str());
            names.find(|name| name.starts_with("memory:") && *name != "memory:SystemMemory")
        });
        let known = memory.and_then(|memory| DOWNLOADS.iter().find(|(name, _)| *name == memory));
        let download = known.map_or(DOWNLOAD, |(_, download)| download);
        let format = caps.structure(0).and_then(|caps| caps.get::<&str>("format").ok());
        // Mapping either gives something, but no picture.
        let opaque = memory.filter(|name| *name == "memory:NVMM");
        if let Some(what) = opaque.or(format.filter(|name| *name == "DMA_DRM")) {
            return Err(format!("{what} cannot be mapped; put {download} before the element"));
        }
        let info = gst_video::VideoInfo::from_caps(caps).map_err(|_| {
            format!(
                "they do not describe raw video that GStreamer {} knows; put {} before the element",
                gst::version_string(),
                if memory.is_some() { download } else { "videoconvert" }
            )
        })?;
        let size = format!("{}x{}", info.width(), info.height());
        if info.width() == 0 || info.height() == 0 {
            return Err(format!("the picture is {size}"));
        }
        if info.interlace_mode() == gst_video::VideoInterlaceMode::Alternate {
            return Err("buffers of single fields have no whole picture; put deinterlace before \
                        the element"
                .into());
        }
        // Whether it can be converted is known now, not with the first frame.
        develop::converter(&info)?;
        let colorimetry = info.colorimetry();
        Ok(Self { info, colorimetry, download, spare: Arc::default() })
    }
}

/// Takes out of an ALLOCATION query's answer, which is that of the elements behind us, what would
/// make the elements in front of us send frames that look different from what we read.
pub(in crate::element) fn withdraw_unreadable(query: &mut gst::query::Allocation) {
    let metas: Vec<_> = query.allocation_metas().map(|(api, _)| api.name()).collect();
    for (index, name) in metas.iter().enumerate().rev() {
        if UNREADABLE_METAS.contains(name) {
            query.remove_nth_allocation_meta(index as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(caps: &str) -> Result<Source, String> {
        gst::init().unwrap();
        Source::new(&caps.parse::<gst::Caps>().unwrap())
    }

    #[test]
    fn what_cannot_be_read_comes_with_what_to_put_in_front() {
        for (caps, remedy) in [
            ("video/x-raw(memory:NVMM),format=NV12,width=64,height=64", "nvvideoconvert"),
            (
                "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=NV12,width=8,height=8",
                "vapostproc",
            ),
            ("video/x-raw,format=NO_SUCH_FORMAT,width=8,height=8", "videoconvert"),
            ("video/x-raw,format=ENCODED,width=8,height=8", "videoconvert"),
            ("video/x-raw(memory:Odd),format=NO_SUCH_FORMAT,width=8,height=8", "system memory"),
            (
                "video/x-raw(format:Interlaced),format=I420,width=8,height=8,interlace-mode=alternate",
                "deinterlace",
            ),
        ] {
            let reason = source(caps).err().unwrap_or_else(|| panic!("{caps} can be read"));
            assert!(reason.contains(remedy), "{caps}: {reason}");
        }
    }

    #[test]
    fn every_raw_format_that_gstreamer_knows_can_be_read() {
        gst::init().unwrap();
        for format in gst_video::VideoFormat::iter_raw() {
            let caps = format!("video/x-raw,format={format},width=50,height=34");
            assert!(source(&caps).is_ok(), "{format}");
        }
    }

    #[test]
    fn memory_of_a_gpu_may_still_be_mapped() {
        let source = source("video/x-raw(memory:GLMemory),format=RGBA,width=8,height=8").unwrap();
        assert_eq!(source.download, "gldownload");
    }
}
