# SPDX-License-Identifier: MPL-2.0
"""The shape of a model, as an ordinary Hugging Face LLaVA-OneVision."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

PATCH = 14
# What token embeddings have at initialisation; projected frames are scaled to it.
FEATURE_RMS = 0.25


def pooled(grid: int) -> int:
    """Rows of tokens that are left of so many rows of patches."""
    return (grid + 1) // 2


@dataclass(frozen=True)
class Shape:
    """Sizes of the tower and of the decoder, by the names of their configurations."""

    image: int
    vision: dict
    text: dict
    # Of a fresh model's weights.
    seed: int = 0

    @property
    def tokens_per_frame(self) -> int:
        return pooled(self.image // PATCH) ** 2

    @property
    def width(self) -> int:
        return self.text["hidden_size"]

    def vision_config(self) -> SiglipVisionConfig:
        return SiglipVisionConfig(
            **self.vision, image_size=self.image, patch_size=PATCH, vision_use_head=False
        )

    def build(self, tokenizer) -> LlavaOnevisionForConditionalGeneration:
        """A fresh model; its tokenizer decides the vocabulary."""
        token = tokenizer.convert_tokens_to_ids
        text = Qwen2Config(
            **self.text,
            vocab_size=len(tokenizer),
            max_position_embeddings=32768,
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            bos_token_id=token("<|endoftext|>"),
            eos_token_id=token("<|im_end|>"),
            pad_token_id=token("<|endoftext|>"),
        )
        config = LlavaOnevisionConfig(
            vision_config=self.vision_config(),
            text_config=text,
            image_token_index=token("<image>"),
            video_token_index=token("<video>"),
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            image_grid_pinpoints=[[self.image, self.image]],
            vision_aspect_ratio="anyres_max_9",
            tie_word_embeddings=True,
        )
        torch.manual_seed(self.seed)
        return LlavaOnevisionForConditionalGeneration(config)


def vision_parts(model) -> torch.nn.ModuleDict:
    """Tower and projector: what the vision stage trains and the language stage freezes."""
    if hasattr(model.model, "visual"):
        return torch.nn.ModuleDict({"tower": model.model.visual})
    return torch.nn.ModuleDict(
        {"tower": model.model.vision_tower, "projector": model.model.multi_modal_projector}
    )


def encode_frames(parts: torch.nn.ModuleDict, pixel_values: torch.Tensor) -> torch.Tensor:
    """Frames [n, 3, size, size] to projected, pooled tokens [n, tokens, c], by the modules."""
    hidden = parts["tower"](pixel_values, output_hidden_states=True).hidden_states[-1]
    projected = parts["projector"](hidden)
    n, patches, width = projected.shape
    grid = int(patches**0.5)
    cells = projected.view(n, grid, grid, width).permute(0, 3, 1, 2)
    cells = F.interpolate(cells, size=(pooled(grid), pooled(grid)), mode="bilinear")
    return cells.flatten(2).transpose(1, 2)


def scale_features(parts: torch.nn.ModuleDict, factor: float) -> None:
    """Folds a factor into the projector's last layer."""
    with torch.no_grad():
        parts["projector"].linear_2.weight.mul_(factor)
        parts["projector"].linear_2.bias.mul_(factor)
