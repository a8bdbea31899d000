# SPDX-License-Identifier: MPL-2.0
"""ReKV's loop (arXiv 2503.00540) over the decoder of a transformers model, written for a CPU.

Linear layers, norms and rotation are the model's own modules. Where the published code leaves room, the
faster way is taken, so that what is compared with is no straw man:

- The window's keys lie rotated in one buffer; only distances matter, so they need not be turned anew for
  every frame. A second copy, not rotated, is what a question retrieves from.
- Query heads that share a key head are folded into rows, so keys are never repeated for the past.
- Past, own tokens and, once the window has overflowed, the first tokens are three attentions without a
  mask (or plainly causal) joined by their log-sum-exp, which is the same softmax.

A frame sees the whole window before it; the published code cuts it per token inside a frame.
"""

import torch
from transformers.models.qwen2.modeling_qwen2 import rotate_half

WINDOW = 15_000
RETRIEVED = 64


def flash(q, k, v, is_causal):
    """q [h, n, d], k and v [h, N, d] to the context [h, n, d] and its log-sum-exp [h, n] in f32."""
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q[None], k[None], v[None], 0.0, is_causal)
    return out[0], lse[0]


def past(q, k, v):
    """Every query sees every key: q [H, n, d], k and v [Hk, N, d]."""
    heads, n, d = q.shape
    out, lse = flash(q.reshape(k.shape[0], -1, d), k, v, False)
    return out.reshape(heads, n, d), lse.reshape(heads, n)


def own(q, k, v):
    """Causal attention of as many queries as keys."""
    group = q.shape[0] // k.shape[0]
    return flash(q, k.repeat_interleave(group, 0), v.repeat_interleave(group, 0), True)


def join(parts):
    """Contexts over separate keys to the context over all of them."""
    if len(parts) == 1:
        return parts[0][0]
    shares = torch.stack([lse for _, lse in parts]).softmax(0)[..., None]
    return sum(out.float() * share for (out, _), share in zip(parts, shares)).to(parts[0][0].dtype)


def turn(x, cos, sin):
    return x * cos + rotate_half(x) * sin


class Loop:
    """One video: its window, the frames it stored, and questions to them."""

    def __init__(self, model, per_frame, capacity, window=WINDOW, retrieved=RETRIEVED):
        """`capacity`: frames that can be stored."""
        text = model.config.text_config
        self.decoder, self.head = model.model.language_model, model.lm_head
        self.layers, self.kv = text.num_hidden_layers, text.num_key_value_heads
        self.per_frame, self.window, self.retrieved = per_frame, window, retrieved
        self.dim = self.decoder.layers[0].self_attn.head_dim
        self.made = dict(dtype=model.dtype)
        # Room for as much again: the window moves to the front once per that many tokens.
        room = min(2 * window, window + capacity * per_frame)
        self.near = [torch.empty(2, self.kv, room, self.dim, **self.made) for _ in range(self.layers)]
        self.start = self.end = self.place = 0
        self.blocks = [torch.empty(2, self.kv, capacity, per_frame, self.dim, **self.made) for _ in range(self.layers)]
        self.means = torch.empty(self.layers, capacity, self.kv * self.dim)
        self.stored = 0
        self.first = None

    def angles(self, start, count):
        ids = torch.arange(start, start + count)[None]
        cos, sin = self.decoder.rotary_emb(self.near[0], ids)
        return cos[0], sin[0]

    def run(self, x, attend):
        """x [n, hidden]; `attend(layer, q, k, v)`, none of them rotated, gives the context [H, n, d]."""
        n = x.shape[0]
        for i, layer in enumerate(self.decoder.layers):
            y, at = layer.input_layernorm(x), layer.self_attn
            q, k, v = (p(y).view(n, -1, self.dim).transpose(0, 1) for p in (at.q_proj, at.k_proj, at.v_proj))
            x = x + at.o_proj(attend(i, q, k, v).transpose(0, 1).reshape(n, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.decoder.norm(x)

    def open(self, ids):
        """The tokens before the video."""
        n = len(ids)
        self.first = [torch.empty(2, self.kv, n, self.dim, **self.made) for _ in range(self.layers)]
        turned = self.angles(0, n)

        def attend(i, q, k, v):
            self.first[i][0], self.first[i][1] = k, v
            k = turn(k, *turned)
            self.near[i][0, :, :n], self.near[i][1, :, :n] = k, v
            return own(turn(q, *turned), k, v)[0]

        self.run(self.decoder.embed_tokens(torch.tensor(ids)), attend)
        self.end = self.place = n

    def make_room(self, count):
        """The window's last tokens to the front of the buffer if `count` more do not fit behind them."""
        self.start = max(self.start, self.end - self.window)
        if self.end + count <= self.near[0].shape[2]:
            return
        held = self.end - self.start
        for near in self.near:
            near[:, :, :held] = near[:, :, self.start : self.end].clone()
        self.start, self.end = 0, held

    def push(self, tokens):
        """Frames [f, M, hidden]; their states behind the last layer [f*M, hidden]."""
        frames, m = tokens.shape[:2]
        self.make_room(frames * m)
        turned = self.angles(self.place, frames * m)
        # Sinks are not rotated and lie at one distance from every query.
        fixed = self.angles(self.window - 1, 1)

        def attend(i, q, k, v):
            near = self.near[i]
            rotated_q, rotated_k = turn(q, *turned), turn(k, *turned)
            outs = []
            for f in range(frames):
                part = slice(f * m, (f + 1) * m)
                end = self.end + f * m
                start = max(self.start, end - self.window)
                mine = rotated_k[:, part], v[:, part]
                parts = [past(rotated_q[:, part], *near[:, :, start:end]), own(rotated_q[:, part], *mine)]
                if self.place + f * m > self.window:
                    parts.append(past(turn(q[:, part], *fixed), *self.first[i]))
                outs.append(join(parts))
                near[0, :, end : end + m], near[1, :, end : end + m] = mine
                block = self.blocks[i][:, :, self.stored + f]
                block[0], block[1] = k[:, part], v[:, part]
                self.means[i, self.stored + f] = k[:, part].float().mean(1).flatten()
            return torch.cat(outs, 1)

        states = self.run(tokens.flatten(0, 1), attend)
        self.end += frames * m
        self.place += frames * m
        self.stored += frames
        return states

    def fill(self, frames):
        """Frames of random keys and values: what is computed over them does not depend on what they are."""
        m = self.per_frame
        for _ in range(frames):
            self.make_room(m)
            for i in range(self.layers):
                news = torch.randn(2, self.kv, m, self.dim, **self.made)
                self.near[i][:, :, self.end : self.end + m] = news
                self.blocks[i][:, :, self.stored] = news
                self.means[i, self.stored] = news[0].float().mean(1).flatten()
            self.end += m
            self.place += m
            self.stored += 1

    def best(self, i, q):
        """The frames of layer `i` whose mean keys agree best with the mean query, in order of time."""
        if self.stored <= self.retrieved:
            return torch.arange(self.stored)
        mean = q.float().mean(1).view(self.kv, -1, self.dim).sum(1).flatten()
        scores = self.means[i, : self.stored] @ mean
        return scores.topk(self.retrieved).indices.sort().values

    def ask(self, question, prompt):
        """Ids of the question and of the prompt behind the video to the logits of the first token."""
        before = self.first[0].shape[2]
        found = before + min(self.stored, self.retrieved) * self.per_frame
        turned = self.angles(0, found + max(len(question), len(prompt)))
        contexts = [None] * self.layers

        def read(i, q, k, v):
            there = tuple(t[found : found + q.shape[1]] for t in turned)
            q, k = turn(q, *there), turn(k, *there)
            return join([past(q, *contexts[i]), own(q, k, v)])

        def look_up(i, q, k, v):
            chosen = self.blocks[i].index_select(2, self.best(i, q)).flatten(2, 3)
            context = torch.cat([self.first[i], chosen], 2)
            contexts[i] = turn(context[0], *(t[:found] for t in turned)), context[1]
            return read(i, q, k, v)

        self.run(self.decoder.embed_tokens(torch.tensor(question)), look_up)
        states = self.run(self.decoder.embed_tokens(torch.tensor(prompt)), read)
        return self.head(states[-1])
