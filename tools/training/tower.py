# SPDX-License-Identifier: MPL-2.0
"""SigLIP tower, projector and pooling as the Hugging Face modules compute them, but quickly.

Attention is two plain products: at these lengths that is several times as fast on a
processor as the fused kernel's backward.
"""

from functools import cache

import torch
import torch.nn.functional as F

from .quick import QUICK
from .shape import PATCH, pooled


def pixel_values(frames: torch.Tensor) -> torch.Tensor:
    """Bytes [n, size, size, 3] to what the processor yields, [n, 3, size, size]."""
    return frames.permute(0, 3, 1, 2).float().mul_(2 / 255).sub_(1)


def patches(frames: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The same cut into patches [n, patches, 3 * 14 * 14]."""
    n, size = frames.shape[:2]
    grid = size // PATCH
    cut = frames.view(n, grid, PATCH, grid, PATCH, 3).permute(0, 1, 3, 5, 2, 4)
    return cut.reshape(n, grid * grid, -1).to(dtype).mul_(2 / 255).sub_(1)


def linear(module: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    bias = None if module.bias is None else module.bias.to(x.dtype)
    return F.linear(x, module.weight.to(x.dtype), bias)


def norm(module: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
    weight, bias = module.weight.to(x.dtype), module.bias.to(x.dtype)
    return F.layer_norm(x, module.normalized_shape, weight, bias, module.eps)


def attention(module, x: torch.Tensor) -> torch.Tensor:
    """x [n, patches, c]"""
    n, length, width = x.shape
    projections = (module.q_proj, module.k_proj, module.v_proj)
    weight = torch.cat([p.weight for p in projections]).to(x.dtype)
    bias = torch.cat([p.bias for p in projections]).to(x.dtype)
    split = F.linear(x, weight, bias).view(n, length, 3, -1, module.head_dim)
    q, k, v = split.permute(2, 0, 3, 1, 4)
    weights = torch.matmul(q, k.transpose(-1, -2) * module.head_dim**-0.5).softmax(-1)
    context = torch.matmul(weights, v).transpose(1, 2).reshape(n, length, width)
    return linear(module.out_proj, context)


@cache
def pooling(grid: int) -> torch.Tensor:
    """Shares of patches in tokens, [tokens, patches]: bilinear, which is the mean of 2x2 patches where
    the grid is even."""
    single = torch.eye(grid * grid).view(-1, 1, grid, grid)
    size = (pooled(grid), pooled(grid))
    return F.interpolate(single, size=size, mode="bilinear").flatten(1).T.contiguous()


def encode(parts: torch.nn.ModuleDict, frames: torch.Tensor, dtype=QUICK) -> torch.Tensor:
    """Frames [n, size, size, 3] u8 to projected, pooled tokens [n, tokens, c]."""
    embeddings = parts["tower"].embeddings
    weight = embeddings.patch_embedding.weight.flatten(1).to(dtype)
    x = F.linear(patches(frames, dtype), weight, embeddings.patch_embedding.bias.to(dtype))
    x = x + embeddings.position_embedding.weight.to(dtype)
    for layer in parts["tower"].encoder.layers:
        x = x + attention(layer.self_attn, norm(layer.layer_norm1, x))
        hidden = linear(layer.mlp.fc1, norm(layer.layer_norm2, x))
        x = x + linear(layer.mlp.fc2, F.gelu(hidden, approximate="tanh"))
    projector = parts["projector"]
    x = F.gelu(linear(projector.linear_1, x))
    # The second layer is linear: it may as well come after the mean, on a quarter of the rows.
    return linear(projector.linear_2, pooling(int(x.shape[1] ** 0.5)).to(dtype) @ x)
