# SPDX-License-Identifier: MPL-2.0
"""Holds loop.py against a dense computation of the same, in a window so short that it overflows.

    python tools/peers/check.py tests/fixtures/ov-even
"""

import math
import sys

import torch
import transformers
from transformers import LlavaOnevisionForConditionalGeneration

import loop

WINDOW, RETRIEVED, FRAME, FRAMES = 14, 3, 4, 40
BEFORE = [1, 2, 3]
WITHIN = 1e-4


class Dense:
    """Keys and values of all that ever came, one masked softmax over them."""

    def __init__(self, of):
        self.of, self.place = of, 0
        self.k, self.v = [None] * of.layers, [None] * of.layers

    def run(self, x):
        n, place, of = x.shape[0], self.place, self.of

        def attend(i, q, k, v):
            self.k[i] = k if place == 0 else torch.cat([self.k[i], k], 1)
            self.v[i] = v if place == 0 else torch.cat([self.v[i], v], 1)
            keys, values = (t.repeat_interleave(q.shape[0] // k.shape[0], 0) for t in (self.k[i], self.v[i]))
            all_turned, scale = of.angles(0, place + n), math.sqrt(of.dim)
            turned = loop.turn(q, *(t[place:] for t in all_turned))
            scores = turned @ loop.turn(keys, *all_turned).transpose(1, 2) / scale
            seen = torch.ones(n, place + n, dtype=torch.bool).tril(place)
            seen[:, : max(0, place - WINDOW)] = False
            scores.masked_fill_(~seen, -math.inf)
            if place > WINDOW:
                first = len(BEFORE)
                sinks = loop.turn(q, *of.angles(WINDOW - 1, 1)) @ keys[:, :first].transpose(1, 2) / scale
                scores, values = torch.cat([scores, sinks], -1), torch.cat([values, values[:, :first]], 1)
            return scores.softmax(-1) @ values

        self.place += n
        return of.run(x, attend)


def best(of, i, q):
    """Frames by the sum of all their raw products with the question."""
    products = lambda f: of.blocks[i][0, :, f].repeat_interleave(q.shape[0] // of.kv, 0) @ q.transpose(1, 2)
    scores = [products(f).sum().item() for f in range(of.stored)]
    return sorted(sorted(range(of.stored), key=lambda f: -scores[f])[:RETRIEVED])


def main():
    torch.manual_seed(1)
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
    text = model.config.text_config
    of = loop.Loop(model, FRAME, FRAMES, WINDOW, RETRIEVED)
    dense = Dense(of)
    of.open(BEFORE)
    dense.run(of.decoder.embed_tokens(torch.tensor(BEFORE)))
    worst = 0.0
    while of.stored < FRAMES:
        # One frame, then two together, and so on.
        tokens = torch.randn(min(1 + of.stored % 2, FRAMES - of.stored), FRAME, text.hidden_size)
        found, right = of.push(tokens), torch.cat([dense.run(frame) for frame in tokens])
        worst = max(worst, ((found - right).norm() / right.norm()).item())
    print(f"{FRAMES} frames through a window of {WINDOW} tokens: states differ by {worst:.1e}")
    q = torch.randn(text.num_attention_heads, 5, of.dim)
    chosen = [(of.best(i, q).tolist(), best(of, i, q)) for i in range(of.layers)]
    print(f"retrieved: {[found for found, _ in chosen]}")
    if not worst < WITHIN or any(found != right for found, right in chosen):
        sys.exit("check.py: the loop does not compute what it says")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
