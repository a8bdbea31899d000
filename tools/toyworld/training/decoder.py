# SPDX-License-Identifier: MPL-2.0
"""The Qwen2 decoder over one video and many questions at once, with windows and retrieval.

Computes what the Hugging Face module computes for each question alone (`check.py`
compares them), but the video is encoded once for all questions. Keys are rotated where they are
used, so a question may also be answered from a retrieved part of the video, moved together
to contiguous positions, as the streaming engine does.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from retrieval import TOKENS_PER_FRAME

HEADS, KV_HEADS, HEAD = 4, 2, 32


@dataclass
class Output:
    hidden: torch.Tensor  # [s, q, l, c], after the final norm
    scores: list[torch.Tensor]  # per layer [s, q, f]: how well a frame matches a question


def rope_table(length: int, theta: float = 10000.0) -> tuple[torch.Tensor, torch.Tensor]:
    frequency = theta ** (-torch.arange(0, HEAD, 2).float() / HEAD)
    angle = torch.arange(length).float()[:, None] * frequency
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


ROPE = rope_table(8192)


def rotate(x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """x [..., n, heads, d] at positions [..., n]."""
    cos, sin = (table[positions].unsqueeze(-2) for table in ROPE)
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def video_mask(length: int, prefix: int, window: int | None) -> torch.Tensor:
    """Causal; with a window, the prefix and the newest `window` video tokens."""
    row = torch.arange(length)[:, None]
    column = torch.arange(length)[None, :]
    mask = column <= row
    if window is not None:
        mask &= (column < prefix) | (column > row - window)
    return mask


class Plan:
    """Masks and positions, the same for every layer."""

    def __init__(self, video: int, prefix: int, seen, length: int, chosen=None, window=None):
        self.prefix = prefix
        self.chosen = chosen
        self.window = window
        # The first row that no longer has the whole video in its window.
        self.overflow = video if window is None else window
        self.video_positions = torch.arange(video)
        self.video_mask = video_mask(video, prefix, window)
        self.own_mask = torch.ones(length, length).tril().bool()
        if chosen is None:
            start = prefix + TOKENS_PER_FRAME * seen
            visible = torch.arange(video) < start[..., None]
            self.video_visible = visible[:, :, None, None, None, :]
        else:
            self.chosen_rows = torch.where(chosen < 0, 0, chosen + prefix)
            start = prefix + (chosen >= 0).sum(-1)
            self.chosen_visible = (chosen >= 0)[:, :, None, None, None, :]
            self.chosen_positions = prefix + torch.arange(chosen.shape[-1])
        self.positions = start[..., None] + torch.arange(length)


def heads(x: torch.Tensor, count: int) -> torch.Tensor:
    return x.view(*x.shape[:-1], count, HEAD)


def video_attention(q, k, v, plan: Plan) -> torch.Tensor:
    """q [s, m, heads, d], k and v [s, m, kv heads, d], not yet rotated."""
    groups = HEADS // KV_HEADS
    k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    far_q, far_k = q[:, plan.overflow :], k[:, : plan.prefix]
    q, k = rotate(q, plan.video_positions), rotate(k, plan.video_positions)
    if plan.overflow >= q.shape[1]:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        context = F.scaled_dot_product_attention(q, k, v, attn_mask=plan.video_mask)
        return context.transpose(1, 2).flatten(2)
    scores = torch.einsum("slhd,smhd->shlm", q, k)
    # Beyond the window the prefix is an attention sink: as far away as the window reaches.
    ceiling = torch.full(far_q.shape[1:2], plan.window - 1)
    sink = torch.einsum("slhd,smhd->shlm", rotate(far_q, ceiling), far_k)
    near, far = scores.split([plan.overflow, far_q.shape[1]], 2)
    far = torch.cat([sink, far[..., plan.prefix :]], -1)
    scores = torch.cat([near, far], 2) * HEAD**-0.5
    weights = scores.masked_fill(~plan.video_mask, -1e9).softmax(-1)
    return torch.einsum("shlm,smhd->slhd", weights, v).flatten(2)


def question_attention(q, k, v, video_k, video_v, plan: Plan) -> torch.Tensor:
    """q, k, v [s, q, l, heads, d]; the video's keys are not yet rotated."""
    s, many, length = q.shape[:3]
    q = rotate(q, plan.positions) * HEAD**-0.5
    k = rotate(k, plan.positions)
    q = q.view(s, many, length, KV_HEADS, HEADS // KV_HEADS, HEAD)
    own = torch.einsum("sqlhgd,sqmhd->sqhglm", q, k)
    own = own.masked_fill(~plan.own_mask, -1e9)
    if plan.chosen is None:
        video_k = rotate(video_k, plan.video_positions)
        past = torch.einsum("sqlhgd,smhd->sqhglm", q, video_k)
        past = past.masked_fill(~plan.video_visible, -1e9)
        weights = torch.cat([past, own], -1).softmax(-1)
        past, own = weights.split([past.shape[-1], length], -1)
        context = torch.einsum("sqhglm,smhd->sqlhgd", past, video_v)
    else:
        prefix = plan.prefix
        stream = torch.arange(s)[:, None, None]
        chosen_k = rotate(video_k[stream, plan.chosen_rows], plan.chosen_positions)
        chosen_v = video_v[stream, plan.chosen_rows]
        prefix_k = rotate(video_k[:, :prefix], plan.video_positions[:prefix])
        first = torch.einsum("sqlhgd,smhd->sqhglm", q, prefix_k)
        past = torch.einsum("sqlhgd,sqmhd->sqhglm", q, chosen_k)
        past = past.masked_fill(~plan.chosen_visible, -1e9)
        weights = torch.cat([first, past, own], -1).softmax(-1)
        first, past, own = weights.split([prefix, past.shape[-1], length], -1)
        context = torch.einsum("sqhglm,smhd->sqlhgd", first, video_v[:, :prefix])
        context = context + torch.einsum("sqhglm,sqmhd->sqlhgd", past, chosen_v)
    context = context + torch.einsum("sqhglm,sqmhd->sqlhgd", own, v)
    return context.reshape(s, many, length, HEADS * HEAD)


def frame_scores(q, k, asked, prefix: int) -> torch.Tensor:
    """Mean query of the question's words . mean key of a frame, neither rotated: [s, q, f]."""
    s, many, length = q.shape[:3]
    query = torch.einsum("sqlhd,sql->sqhd", q, asked)
    query = query.view(s, many, KV_HEADS, HEADS // KV_HEADS, HEAD).sum(3)
    keys = k[:, prefix:]
    keys = keys.reshape(s, -1, TOKENS_PER_FRAME, KV_HEADS, HEAD).mean(2)
    return torch.einsum("sqhd,sfhd->sqf", query, keys) * (HEADS * HEAD) ** -0.5


def decode(text_model, video, questions, asked, plan: Plan) -> Output:
    """Runs the layers of a `Qwen2Model` over video [s, m, c] and questions [s, q, l, c]."""
    scores = []
    last = len(text_model.layers) - 1
    for number, layer in enumerate(text_model.layers):
        attention = layer.self_attn
        video_in = layer.input_layernorm(video)
        question_in = layer.input_layernorm(questions)
        video_k = heads(attention.k_proj(video_in), KV_HEADS)
        video_v = heads(attention.v_proj(video_in), KV_HEADS)
        q = heads(attention.q_proj(question_in), HEADS)
        k = heads(attention.k_proj(question_in), KV_HEADS)
        v = heads(attention.v_proj(question_in), KV_HEADS)
        scores.append(frame_scores(q, video_k, asked, plan.prefix))
        context = question_attention(q, k, v, video_k, video_v, plan)
        questions = questions + attention.o_proj(context)
        questions = questions + layer.mlp(layer.post_attention_layernorm(questions))
        if number < last:
            video_q = heads(attention.q_proj(video_in), HEADS)
            context = video_attention(video_q, video_k, video_v, plan)
            video = video + attention.o_proj(context)
            video = video + layer.mlp(layer.post_attention_layernorm(video))
    return Output(text_model.norm(questions), scores)
