# SPDX-License-Identifier: MPL-2.0
"""The Qwen2 decoder over one video and many questions at once, with full attention.

Computes what the Hugging Face module computes for each question alone, but the video is encoded
once for all its questions, and in blocks: a block of rows looks at the keys before it
and at no others.
"""

import torch
import torch.nn.functional as F

from .quick import QUICK
from .tower import linear

# Rows of the video, and questions, that are handled together.
ROWS, QUESTIONS = 128, 6
# Large enough for no weight, small enough for bfloat16.
HIDDEN = -1e4


def rope_table(length: int, head: int, theta: float = 10000.0) -> torch.Tensor:
    """Cosines, then sines with the first half's sign: [2, length, head]."""
    return signed(torch.arange(length)[:, None] * frequencies(head, theta))


def frequencies(head: int, theta: float) -> torch.Tensor:
    return theta ** (-torch.arange(0, head, 2).float() / head)


def signed(angle: torch.Tensor) -> torch.Tensor:
    """Angles [..., head / 2] to cosines and signed sines [2, ..., head]."""
    sin = angle.sin()
    return torch.stack([torch.cat([angle.cos()] * 2, -1), torch.cat([-sin, sin], -1)])


def rotate(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """x [..., n, d] by rope [2, ..., n, d]."""
    a, b = x.chunk(2, -1)
    return x * rope[0] + torch.cat([b, a], -1) * rope[1]


class Plan:
    """Masks and positions, the same for every layer.

    Questions must be sorted by `seen` [s, q], the number of video rows they may look at; each has
    `length` rows behind them. Rows stand one behind the other, unless `rope` [2, s, n, head] says where.
    """

    def __init__(self, video: int, seen: torch.Tensor, length: int, head: int, dtype, rope=None):
        s, many = seen.shape
        self.video = video
        if rope is None:
            own = seen[..., None] + torch.arange(length)
            positions = torch.cat([torch.arange(video).expand(s, -1), own.flatten(1)], 1)
            rope = rope_table(int(positions.max()) + 1, head)[:, positions]
        self.rope = rope.to(dtype)[:, :, None]
        self.blocks = []
        for start in range(0, video, ROWS):
            end = min(start + ROWS, video)
            mask = torch.full((end - start, end - start), HIDDEN).triu(1)
            self.blocks.append((start, end, F.pad(mask, (start, 0)).to(dtype)))
        self.groups = []
        for start in range(0, many, QUESTIONS):
            end = min(start + QUESTIONS, many)
            last = int(seen[:, start:end].max())
            count = end - start
            past = torch.arange(last) >= seen[:, start:end, None]
            past = past[:, :, None].expand(-1, -1, length, -1).reshape(s, count * length, last)
            causal = torch.ones(length, length).tril()
            other = torch.block_diag(*[causal] * count) == 0
            mask = torch.cat([past, other.expand(s, -1, -1)], -1)
            rows = (video + start * length, video + end * length)
            self.groups.append((*rows, last, (mask * HIDDEN).to(dtype)[:, None, None]))


def attend(q, k, v, mask) -> torch.Tensor:
    """q [s, kv, group, n, d], k and v [s, kv, m, d], mask that adds to [s, kv, group, n, m]."""
    s, kv, group, n, d = q.shape
    scores = torch.matmul(q.reshape(s, kv, group * n, d), k.transpose(-1, -2))
    weights = (scores.view(s, kv, group, n, -1) + mask).softmax(-1)
    return torch.matmul(weights.view(s, kv, group * n, -1), v).view(q.shape)


def attention(module, x: torch.Tensor, plan: Plan, skip: int) -> torch.Tensor:
    """x [s, n, c]; the context of all rows from `skip` on."""
    s, n, _ = x.shape
    d = module.head_dim
    keys = module.k_proj.out_features // d
    k, v = (
        linear(p, x).view(s, n, keys, d).transpose(1, 2) for p in (module.k_proj, module.v_proj)
    )
    q = linear(module.q_proj, x[:, skip:]).view(s, n - skip, -1, d).transpose(1, 2)
    q = rotate(q, plan.rope[..., skip:, :]) * d**-0.5
    q = q.view(s, keys, -1, n - skip, d)
    k = rotate(k, plan.rope)
    parts = []
    if not skip:
        for start, end, mask in plan.blocks:
            part = q[:, :, :, start:end]
            parts.append(attend(part, k[:, :, :end], v[:, :, :end], mask))
    for start, end, last, mask in plan.groups:
        part = q[:, :, :, start - skip : end - skip]
        near = [torch.cat([y[:, :, :last], y[:, :, start:end]], 2) for y in (k, v)]
        parts.append(attend(part, *near, mask))
    context = torch.cat(parts, 3)
    return context.permute(0, 3, 1, 2, 4).reshape(s, n - skip, -1)


def norm(module, x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, module.weight.shape, module.weight.to(x.dtype), module.variance_epsilon)


def decode(text_model, video, questions, seen, dtype=QUICK, rope=None) -> torch.Tensor:
    """Runs a `Qwen2Model`, or what has its layers, over video [s, m, c] and questions [s, q, l, c], sorted
    by `seen`: [s, q, l, c], after the final norm."""
    s, many, length, width = questions.shape
    head = text_model.layers[0].self_attn.head_dim
    plan = Plan(video.shape[1], seen, length, head, dtype, rope)
    x = torch.cat([video, questions.flatten(1, 2)], 1).to(dtype)
    last = len(text_model.layers) - 1
    for number, layer in enumerate(text_model.layers):
        # After the last layer only the questions matter.
        skip = plan.video if number == last else 0
        context = attention(layer.self_attn, norm(layer.input_layernorm, x), plan, skip)
        x = x[:, skip:] + linear(layer.self_attn.o_proj, context)
        hidden = norm(layer.post_attention_layernorm, x)
        gate = F.silu(linear(layer.mlp.gate_proj, hidden))
        x = x + linear(layer.mlp.down_proj, gate * linear(layer.mlp.up_proj, hidden))
    return norm(text_model.norm, x).view(s, many, length, width)
