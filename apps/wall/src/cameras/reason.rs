// SPDX-License-Identifier: MPL-2.0
//! Why a camera does not play, in words that say what helps. No password gets into them.

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

/// The words of whoever posted it where they are for people, and what to do about it.
pub fn of(sender: Option<&gst::Object>, error: &glib::Error, debug: Option<&str>) -> String {
    let said = hide_passwords(error.message());
    // It says what helps itself, and what it lacks is no camera: a model, a file of questions.
    if sender.is_some_and(is_streamkvqa) {
        return said;
    }
    let debug = debug.map(hide_passwords).unwrap_or_default();
    if error.matches(gst::CoreError::MissingPlugin) {
        // uridecodebin, of an address that begins as none that is known.
        if debug.contains("gen_source_element") {
            return format!(
                "there is no source for such an address: {}",
                said.trim_end_matches('.')
            );
        }
        return missing(&debug);
    }
    let advice = match (error.kind::<gst::ResourceError>(), error.kind::<gst::StreamError>()) {
        (Some(gst::ResourceError::NotAuthorized), _) => Some("wrong user or password"),
        _ if is_unauthorized(&debug) => Some("wrong user or password"),
        (Some(gst::ResourceError::NotFound), _) => Some("there is nothing at this address"),
        (Some(gst::ResourceError::OpenRead | gst::ResourceError::OpenReadWrite), _) => {
            Some("it cannot be reached (is the address right, and the camera on?)")
        }
        (Some(gst::ResourceError::NoSpaceLeft), _) => Some("the disk is full"),
        (_, Some(gst::StreamError::TypeNotFound | gst::StreamError::WrongType)) => {
            Some("this is no video")
        }
        (_, Some(gst::StreamError::CodecNotFound)) => {
            Some("a decoder is missing; for many cameras it is in gstreamer1.0-libav")
        }
        _ => None,
    };
    // "gstrtspsrc.c(8092): gst_rtspsrc_retrieve_sdp (): /GstPipeline:...:\nCould not resolve hostname."
    let detail =
        debug.lines().nth(1).map(str::trim).filter(|line| !line.is_empty() && !said.contains(line));
    let mut text = String::new();
    if let Some(advice) = advice {
        text.push_str(advice);
        text.push_str(": ");
    }
    text.push_str(said.trim_end_matches('.'));
    if let Some(detail) = detail.filter(|_| advice.is_some() || said.len() < 60) {
        text.push_str(" (");
        text.push_str(detail.trim_end_matches('.'));
        text.push(')');
    }
    text
}

/// "decodebin.c(4719): ...:\nno suitable plugins found:\nMissing decoder: H.264 (...)"; nothing is named where there
/// is no stream of the wanted kind.
fn missing(debug: &str) -> String {
    let is_named = |line: &&str| line.starts_with("Missing") && !line.contains("(audio/");
    let named: Vec<&str> = debug.lines().skip(1).filter(is_named).collect();
    match named.is_empty() {
        true => "there is no video in this stream".into(),
        false => format!(
            "a decoder is missing; for many cameras it is in gstreamer1.0-libav: {}",
            named.join(", ")
        ),
    }
}

fn is_streamkvqa(object: &gst::Object) -> bool {
    let factory = object.downcast_ref::<gst::Element>().and_then(ElementExt::factory);
    factory.is_some_and(|factory| factory.name() == "streamkvqa")
}

fn is_unauthorized(debug: &str) -> bool {
    debug.contains("Unauthorized") || debug.contains("(401)") || debug.contains("(403)")
}

/// `rtsp://user:password@camera` without what is secret.
pub fn hide_passwords(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        // A password may have a slash in it, written as it should not be.
        let end =
            behind.find(|c: char| c.is_whitespace() || "\"'<>".contains(c)).unwrap_or(behind.len());
        let (authority, after) = behind.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                out.push_str("...@");
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden() {
        for (text, hidden) in [
            ("no rtsp://me:s3cret@yard:554/a?b today", "no rtsp://...@yard:554/a?b today"),
            ("http://a/ and rtsp://u:p@b", "http://a/ and rtsp://...@b"),
            ("rtsp://u:p@ss@b/x", "rtsp://...@b/x"),
            ("rtsp://u:p/s#s?@b/x", "rtsp://...@b/x"),
            ("nothing: //", "nothing: //"),
        ] {
            assert_eq!(hide_passwords(text), hidden);
        }
    }
}
