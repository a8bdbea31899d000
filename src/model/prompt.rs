// SPDX-License-Identifier: MPL-2.0
/// Who decides the words around the video and the question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PromptStyle {
    /// The checkpoint's own chat template, `image_newline` after the video.
    #[default]
    Hf,
    /// The separately tokenised pieces of ReKV and StreamKV, no `image_newline`.
    Rekv,
}
