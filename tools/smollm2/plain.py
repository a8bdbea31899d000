# SPDX-License-Identifier: MPL-2.0
"""Perplexity of a text under the folder that convert.py writes, by a forward pass in plain NumPy.

    python tools/smollm2/plain.py /tmp/smollm2 LICENSE

What the engine is compared with: if both agree, the conversion and the decoder are right.
"""

import argparse
import json
import pathlib
import struct

import numpy as np
from tokenizers import Tokenizer


def tensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    for name, info in json.loads(data[8 : 8 + length]).items():
        start, end = (8 + length + at for at in info["data_offsets"])
        yield name, np.frombuffer(data[start:end], "<f4").reshape(info["shape"])


class Llama:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())["text_config"]
        prefix = "language_model.model."
        all = tensors(folder / "model.safetensors")
        self.weights = {name.removeprefix(prefix): value for name, value in all if name.startswith(prefix)}

    def norm(self, name, x):
        eps = self.config["rms_norm_eps"]
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * self.weights[f"{name}.weight"]

    def linear(self, name, x):
        y = x @ self.weights[f"{name}.weight"].T
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else y + bias

    def turned(self, x):
        """RoPE; `x` is [heads, n, d]."""
        half = x.shape[-1] // 2
        angles = np.arange(x.shape[1])[:, None] / self.config["rope_theta"] ** (np.arange(half) / half)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    def attention(self, layer, x):
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        split = lambda x, heads: x.reshape(len(x), heads, -1).swapaxes(0, 1)
        q = self.turned(split(self.linear(f"{layer}.q_proj", x), heads))
        k = self.turned(split(self.linear(f"{layer}.k_proj", x), kv_heads)).repeat(heads // kv_heads, axis=0)
        v = split(self.linear(f"{layer}.v_proj", x), kv_heads).repeat(heads // kv_heads, axis=0)
        scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        context = scores / scores.sum(axis=-1, keepdims=True) @ v
        return self.linear(f"{layer}.o_proj", context.swapaxes(0, 1).reshape(len(x), -1))

    def logits(self, ids):
        x = self.weights["embed_tokens.weight"][ids]
        for i in range(self.config["num_hidden_layers"]):
            layer = f"layers.{i}"
            x = x + self.attention(f"{layer}.self_attn", self.norm(f"{layer}.input_layernorm", x))
            h = self.norm(f"{layer}.post_attention_layernorm", x)
            gate = self.linear(f"{layer}.mlp.gate_proj", h)
            h = gate / (1 + np.exp(-gate)) * self.linear(f"{layer}.mlp.up_proj", h)
            x = x + self.linear(f"{layer}.mlp.down_proj", h)
        return self.norm("norm", x) @ self.weights["embed_tokens.weight"].T


def main():
    parser = argparse.ArgumentParser(description="Perplexity of a text, by NumPy.")
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--window", type=int, default=512, help="tokens that are read together")
    parser.add_argument("--windows", type=int, help="read no more than this many")
    args = parser.parse_args()

    words = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    ids = np.array(words.encode(args.text.read_text()).ids)
    model, losses = Llama(args.model), []
    for window in np.split(ids, range(args.window, len(ids), args.window))[: args.windows]:
        logits = model.logits(window)[:-1].astype(np.float64)
        logits -= logits.max(axis=-1, keepdims=True)
        right = np.take_along_axis(logits, window[1:, None], axis=-1)[:, 0]
        losses.extend(np.log(np.exp(logits).sum(axis=-1)) - right)
    print(f"{len(losses)} tokens, perplexity {np.exp(np.mean(losses)):.4f}")


if __name__ == "__main__":
    main()
