# SPDX-License-Identifier: MPL-2.0
"""The shape of the model, as an ordinary Hugging Face LLaVA-OneVision."""

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen2Config,
    SiglipVisionConfig,
)

PATCH = 14
TOKENS_PER_FRAME = 4
# What token embeddings have at initialisation; projected frames are scaled to it.
FEATURE_RMS = 0.25


def vision_config() -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=56,
        patch_size=PATCH,
        vision_use_head=False,
    )


def text_config(tokenizer) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        pad_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
    )


def build(tokenizer) -> LlavaOnevisionForConditionalGeneration:
    """A fresh model; its tokenizer decides the vocabulary."""
    config = LlavaOnevisionConfig(
        vision_config=vision_config(),
        text_config=text_config(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[56, 56]],
        vision_aspect_ratio="anyres_max_9",
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return LlavaOnevisionForConditionalGeneration(config)


def vision_parts(model) -> torch.nn.ModuleDict:
    """Tower and projector: what the vision stage trains and the language stage freezes."""
    return torch.nn.ModuleDict(
        {"tower": model.model.vision_tower, "projector": model.model.multi_modal_projector}
    )


def encode_frames(parts: torch.nn.ModuleDict, pixel_values: torch.Tensor) -> torch.Tensor:
    """Frames [n, 3, 56, 56] to projected, pooled tokens [n, 4, 128].

    The grid is even, so the model's bilinear pooling is the mean of 2x2 patches.
    """
    hidden = parts["tower"](pixel_values, output_hidden_states=True).hidden_states[-1]
    projected = parts["projector"](hidden)
    n, patches, width = projected.shape
    grid = int(patches**0.5)
    cells = projected.view(n, grid // 2, 2, grid // 2, 2, width)
    return cells.mean(dim=(2, 4)).reshape(n, -1, width)


def scale_features(parts: torch.nn.ModuleDict, factor: float) -> None:
    """Folds a factor into the projector's last layer."""
    with torch.no_grad():
        parts["projector"].linear_2.weight.mul_(factor)
        parts["projector"].linear_2.bias.mul_(factor)
