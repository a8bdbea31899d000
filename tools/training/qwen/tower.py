# SPDX-License-Identifier: MPL-2.0
"""The tower of Qwen2.5-VL as the Hugging Face modules compute it, but quickly, for pictures of one size.

A picture of ours is so small that a layer with windows costs no more as a whole, with a mask.
"""

from functools import cache

import torch
import torch.nn.functional as F

from ..decoder import HIDDEN, norm, rotate, signed
from ..quick import QUICK
from ..shape import PATCH
from ..tower import linear

MERGE = 2
SIDE = MERGE * PATCH


def patches(units: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Units [n, 2, height, width, 3] u8 cut into patches [n, patches, 3 * 2 * 14 * 14], the four of a
    token in a row."""
    n, frames, height, width, _ = units.shape
    rows, columns = height // SIDE, width // SIDE
    cut = units.view(n, frames, rows, MERGE, PATCH, columns, MERGE, PATCH, 3)
    cut = cut.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return cut.reshape(n, rows * columns * MERGE**2, -1).to(dtype).mul_(2 / 255).sub_(1)


@cache
def layout(rows: int, columns: int, window: int, head: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For `rows` x `columns` tokens with windows of `window` tokens a side: RoPE [2, patches, head], and the mask
    [patches, patches] that hides other windows."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    place = row // window * columns + column // window
    place = place.flatten().repeat_interleave(MERGE**2)
    mask = (place[:, None] != place) * HIDDEN
    inner = torch.arange(MERGE)
    y = (MERGE * row[..., None, None] + inner[:, None]).expand(-1, -1, -1, MERGE)
    x = (MERGE * column[..., None, None] + inner).expand(-1, -1, MERGE, -1)
    frequency = 10000.0 ** (-torch.arange(0, head // 2, 2) / (head // 2))
    angle = torch.cat([at.flatten()[:, None] * frequency for at in (y, x)], -1)
    return signed(angle), mask


def attention(module, x: torch.Tensor, rope: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """x [n, patches, c]"""
    n, length, width = x.shape
    split = linear(module.qkv, x).view(n, length, 3, module.num_heads, -1).permute(2, 0, 3, 1, 4)
    q, k, v = split
    scores = rotate(q, rope) * module.scaling @ rotate(k, rope).transpose(-1, -2)
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return linear(module.proj, (weights @ v).transpose(1, 2).reshape(n, length, width))


def encode(parts: torch.nn.ModuleDict, units: torch.Tensor, dtype=QUICK) -> torch.Tensor:
    """Units [n, 2, height, width, 3] u8 to tokens [n, tokens, c]."""
    tower = parts["tower"]
    rows, columns = (size // SIDE for size in units.shape[2:4])
    head = tower.blocks[0].attn.head_dim
    rope, mask = (y.to(dtype) for y in layout(rows, columns, tower.window_size // SIDE, head))
    x = F.linear(patches(units, dtype), tower.patch_embed.proj.weight.flatten(1).to(dtype))
    for number, block in enumerate(tower.blocks):
        everywhere = number in tower.fullatt_block_indexes
        x = x + attention(block.attn, norm(block.norm1, x), rope, None if everywhere else mask)
        hidden = norm(block.norm2, x)
        gate = F.silu(linear(block.mlp.gate_proj, hidden))
        x = x + linear(block.mlp.down_proj, gate * linear(block.mlp.up_proj, hidden))
    merger = tower.merger
    merged = norm(merger.ln_q, x).view(len(x), rows * columns, -1)
    return linear(merger.mlp[2], F.gelu(linear(merger.mlp[0], merged)))
