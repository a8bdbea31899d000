# SPDX-License-Identifier: MPL-2.0
"""Writes the model as a Hugging Face folder: weights, configs, tokenizer, processor."""

import json
import os
import tempfile

from transformers import (
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
)

from . import words
from .shape import PATCH

HALF = [0.5, 0.5, 0.5]


def pixels(size: int) -> dict:
    return {"size": {"height": size, "width": size}, "image_mean": HALF, "image_std": HALF}


def processor(tokenizer, size: int) -> LlavaOnevisionProcessor:
    images = LlavaOnevisionImageProcessor(**pixels(size), image_grid_pinpoints=[[size, size]])
    videos = LlavaOnevisionVideoProcessor(**pixels(size), do_sample_frames=False)
    return LlavaOnevisionProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        video_processor=videos,
        num_image_tokens=(size // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=words.CHAT_TEMPLATE,
        vision_aspect_ratio="anyres_max_9",
    )


def save(model, processor, folder: str) -> None:
    """Each file is replaced in one step: whoever loads the model meanwhile finds whole files."""
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(folder))) as new:
        model.save_pretrained(new)
        processor.save_pretrained(new)
        for name in os.listdir(new):
            os.chmod(os.path.join(new, name), 0o644)
            os.replace(os.path.join(new, name), os.path.join(folder, name))


def save_defaults(folder: str, trained_frames: int, options: dict) -> None:
    """streamkvqa.json: what the engine should use unless told otherwise."""
    defaults = {
        "trained_frames": trained_frames,
        "sample_rate": 1.0,
        **options,
    }
    with open(os.path.join(folder, "streamkvqa.json"), "w") as file:
        json.dump(defaults, file, indent=2)
        file.write("\n")
