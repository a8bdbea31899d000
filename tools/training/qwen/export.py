# SPDX-License-Identifier: MPL-2.0
"""The processor of a small Qwen2.5-VL, with which its folder is written."""

from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

from ..export import HALF
from ..words import QWEN
from .tower import SIDE


def processor(tokenizer, most: int) -> Qwen2_5_VLProcessor:
    """Pictures keep their shape, with at most `most` pixels and at least four tokens."""
    size = {"shortest_edge": 4 * SIDE**2, "longest_edge": most}
    pixels = {"image_mean": HALF, "image_std": HALF, "size": size}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        video_processor=Qwen2VLVideoProcessor(**pixels, do_sample_frames=False),
        tokenizer=tokenizer,
        chat_template=QWEN.template,
    )
