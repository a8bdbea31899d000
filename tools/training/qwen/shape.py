# SPDX-License-Identifier: MPL-2.0
"""The shape of a model, as an ordinary Hugging Face Qwen2.5-VL."""

from dataclasses import dataclass

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from .tower import SIDE


@dataclass(frozen=True)
class Shape:
    """Sizes of the tower and of the decoder, by the names of their configurations."""

    # Rows and columns of pixels of a frame, as the processor makes them of the world's videos.
    picture: tuple[int, int]
    vision: dict
    text: dict
    rope: dict
    # Of a fresh model's weights.
    seed: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.picture[0] // SIDE, self.picture[1] // SIDE

    @property
    def tokens_per_unit(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def width(self) -> int:
        return self.text["hidden_size"]

    def build(self, tokenizer) -> Qwen2_5_VLForConditionalGeneration:
        """A fresh model; its tokenizer decides the vocabulary."""
        token = tokenizer.convert_tokens_to_ids
        text = dict(
            **self.text,
            vocab_size=len(tokenizer),
            max_position_embeddings=32768,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", **self.rope},
            bos_token_id=token("<|endoftext|>"),
            eos_token_id=token("<|im_end|>"),
            pad_token_id=token("<|endoftext|>"),
        )
        config = Qwen2_5_VLConfig(
            text_config=text,
            vision_config={**self.vision, "out_hidden_size": self.width},
            image_token_id=token("<|image_pad|>"),
            video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"),
            vision_end_token_id=token("<|vision_end|>"),
            tie_word_embeddings=True,
        )
        torch.manual_seed(self.seed)
        return Qwen2_5_VLForConditionalGeneration(config)
