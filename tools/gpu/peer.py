# SPDX-License-Identifier: MPL-2.0
"""The work of examples/bench in plain PyTorch, for comparison: random weights, no transformers.

    python3 tools/gpu/peer.py --shape llava-onevision-7b --device cuda --json peers.json

Two ways of taking in video, both behind a window that is full from the start, so that nothing has to be
ingested before it is timed:

- `torch sdpa`: batches of frames; a chunk's tokens see the window and, causally, each other, in one call
  of scaled_dot_product_attention without a mask (so the first of a chunk see up to a chunk more than the
  window: the fast kernel has no sliding window). Keys are rotated once and kept so.
- `torch rekv`: ReKV's loop as published (arXiv 2503.00540 and its code): linear layers over a chunk,
  attention frame by frame, the whole window's keys rotated anew for every frame in every layer, the first
  tokens as a second stage at one fixed distance, every frame's keys and values copied to pinned host
  memory, a mean key for each. A question retrieves in every layer: 64 blocks come from the host.

The tower is SigLIP so400m at 384, the projector's 27x27 tokens pooled to 14x14. The rows are those that
examples/bench writes.
"""

import argparse
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F

SHAPES = {
    "llava-onevision-7b": dict(
        side=384, patch=14, width=1152, depth=26, vheads=16, vinner=4304,
        hidden=3584, layers=28, heads=28, kv=4, dim=128, inner=18944, vocab=152128,
    ),
    "llava-onevision-0.5b": dict(
        side=384, patch=14, width=1152, depth=26, vheads=16, vinner=4304,
        hidden=896, layers=24, heads=14, kv=2, dim=64, inner=4864, vocab=152000,
    ),
    "tiny": dict(
        side=70, patch=14, width=32, depth=2, vheads=2, vinner=64,
        hidden=64, layers=3, heads=4, kv=2, dim=16, inner=96, vocab=520,
    ),
}  # fmt: skip
SINKS = 13
RETRIEVED = 64
# Blocks that lie in host memory: a question takes its 64 from among them, as if they were all there are.
HELD = 128


class Weights:
    """Random matrices of one scale, made where they are used."""

    def __init__(self, device, dtype):
        self.made = dict(device=device, dtype=dtype)

    def linear(self, outputs, inputs, bias=True):
        weight = torch.randn(outputs, inputs, **self.made) / math.sqrt(inputs)
        return weight, torch.randn(outputs, **self.made) * 0.02 if bias else None

    def norm(self, width):
        return torch.ones(width, **self.made)


class Tower:
    def __init__(self, s, weights):
        self.s = s
        self.heads = s["vheads"]
        width, inner = s["width"], s["vinner"]
        self.patch = weights.linear(width, 3 * s["patch"] ** 2)
        self.grid = s["side"] // s["patch"]
        self.places = torch.randn(self.grid**2, width, **weights.made) * 0.02
        self.blocks = [
            dict(
                n1=(weights.norm(width), weights.norm(width)), n2=(weights.norm(width), weights.norm(width)),
                qkv=weights.linear(3 * width, width), out=weights.linear(width, width),
                fc1=weights.linear(inner, width), fc2=weights.linear(width, inner),
            )
            for _ in range(s["depth"])
        ]  # fmt: skip
        self.project = [weights.linear(s["hidden"], width), weights.linear(s["hidden"], s["hidden"])]

    def __call__(self, pixels):
        """[b, 3, side, side] to tokens [b, M, hidden]."""
        s, b = self.s, pixels.shape[0]
        x = F.unfold(pixels, s["patch"], stride=s["patch"]).transpose(1, 2)
        x = F.linear(x, *self.patch) + self.places
        width = s["width"]
        for block in self.blocks:
            y = F.linear(F.layer_norm(x, (width,), *block["n1"], 1e-6), *block["qkv"])
            q, k, v = y.view(b, -1, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, -1, width)
            x = x + F.linear(y, *block["out"])
            y = F.linear(F.layer_norm(x, (width,), *block["n2"], 1e-6), *block["fc1"])
            x = x + F.linear(F.gelu(y, approximate="tanh"), *block["fc2"])
        x = F.linear(F.gelu(F.linear(x, *self.project[0])), *self.project[1])
        x = x.transpose(1, 2).reshape(b, -1, self.grid, self.grid)
        pooled = math.ceil(self.grid / 2)
        x = F.interpolate(x, (pooled, pooled), mode="bilinear", align_corners=False)
        return x.flatten(2).transpose(1, 2)


def rms(x, weight):
    return F.rms_norm(x, (x.shape[-1],), weight, 1e-6)


def angles(places, dim):
    """cos and sin [n, dim] in f32."""
    steps = torch.arange(0, dim, 2, device=places.device) / dim
    turned = places[:, None].float() * (1e6**-steps)[None]
    turned = torch.cat([turned, turned], -1)
    return turned.cos(), turned.sin()


def rotate(x, cos, sin):
    """x [h, n, d], turned in f32 as the published code does."""
    a, b = x.float().chunk(2, -1)
    return (x.float() * cos + torch.cat([-b, a], -1) * sin).to(x.dtype)


# Whether PyTorch's kernel takes fewer key heads than query heads as they are; `proven` finds out.
SHARES_HEADS = False


def causal(q, k, v):
    """Context [H, n, d] of the last n of the keys, and its log-sum-exp [H, n] in f32."""
    if not q.is_cuda:
        return plain(q, k, v, True)
    if not SHARES_HEADS:
        group = q.shape[0] // k.shape[0]
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    # What causal_lower_right of torch.nn.attention.bias comes to; called directly for the log-sum-exp
    # beside the context.
    out = torch.ops.aten._scaled_dot_product_flash_attention(q[None], k[None], v[None], 0.0, True)
    return out[0][0], out[1][0].float()


def proven(s, made):
    """Whether `causal` computes what it says, tried on a small case."""
    global SHARES_HEADS
    shape = lambda heads, n: torch.randn(heads, n, s["dim"], **made)
    q, k, v = shape(s["heads"], 40), shape(s["kv"], 200), shape(s["kv"], 200)
    right, lse = plain(q, k, v, True)
    for shares in [True, False]:
        SHARES_HEADS = shares
        try:
            out, found = causal(q, k, v)
        except RuntimeError:
            continue
        if (out.float() - right.float()).norm() < 2e-2 * right.float().norm() and (found - lse).abs().max() < 2e-2:
            return True
    return False


def plain(q, k, v, is_causal):
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    scores = (q.float() @ k.float().transpose(1, 2)) / math.sqrt(q.shape[-1])
    if is_causal:
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device)
        scores.masked_fill_(hidden.triu(scores.shape[2] - scores.shape[1] + 1), -math.inf)
    lse = scores.logsumexp(-1)
    return ((scores - lse[..., None]).exp() @ v.float()).to(q.dtype), lse


class Decoder:
    def __init__(self, s, weights):
        self.s, made = s, weights.made
        hidden, kv = s["hidden"], s["kv"] * s["dim"]
        self.layers = [
            dict(
                n1=weights.norm(hidden), n2=weights.norm(hidden),
                q=weights.linear(hidden, hidden), k=weights.linear(kv, hidden), v=weights.linear(kv, hidden),
                o=weights.linear(hidden, hidden, False), gate=weights.linear(s["inner"], hidden, False),
                up=weights.linear(s["inner"], hidden, False), down=weights.linear(hidden, s["inner"], False),
            )
            for _ in range(s["layers"])
        ]  # fmt: skip
        self.norm = weights.norm(hidden)
        self.embeddings = torch.randn(s["vocab"], hidden, **made) * 0.02
        self.head = torch.randn(s["vocab"], hidden, **made) / math.sqrt(hidden)

    def __call__(self, x, attend):
        """x [n, hidden]; `attend(layer, q, k, v)` gives the context [H, n, d]."""
        n = x.shape[0]
        for i, w in enumerate(self.layers):
            y = rms(x, w["n1"])
            q, k, v = (
                F.linear(y, *w[name]).view(n, -1, self.s["dim"]).transpose(0, 1).contiguous() for name in "qkv"
            )
            y = attend(i, q, k, v).transpose(0, 1).reshape(n, -1)
            x = x + F.linear(y, *w["o"])
            y = rms(x, w["n2"])
            x = x + F.linear(F.silu(F.linear(y, *w["gate"])) * F.linear(y, *w["up"]), *w["down"])
        return rms(x, self.norm)

    def token(self, states):
        return (states[-1:] @ self.head.T).argmax(-1)


class Sdpa:
    """Batches, keys rotated once; a ring would save the copy of the window, which SDPA cannot read."""

    name = "torch sdpa"

    def __init__(self, decoder, window, chunk, per_frame, made):
        s = decoder.s
        shape = (s["layers"], s["kv"], window + chunk * per_frame, s["dim"])
        self.decoder, self.window, self.made = decoder, window, made
        self.k, self.v = torch.randn(shape, **made), torch.randn(shape, **made)
        self.place = window

    def ingest(self, tokens):
        x = tokens.flatten(0, 1)
        n = x.shape[0]
        turn = angles(torch.arange(self.place, self.place + n, device=x.device), self.decoder.s["dim"])

        def attend(i, q, k, v):
            w = self.window
            self.k[i, :, w : w + n], self.v[i, :, w : w + n] = rotate(k, *turn), v
            context, _ = causal(rotate(q, *turn), self.k[i, :, : w + n], self.v[i, :, : w + n])
            self.k[i, :, :w] = self.k[i, :, n : w + n].clone()
            self.v[i, :, :w] = self.v[i, :, n : w + n].clone()
            return context

        self.decoder(x, attend)
        self.place += n

    def decode(self, count):
        """Tokens behind a context of 64 frames and the prefix, one by one."""
        s = self.decoder.s
        at = min(self.window, SINKS + RETRIEVED * self.per_frame)
        token = torch.zeros(1, dtype=torch.long, device=self.k.device)
        for step in range(count):
            turn = angles(torch.tensor([at + step], device=self.k.device), s["dim"])

            def attend(i, q, k, v):
                self.k[i, :, at + step : at + step + 1], self.v[i, :, at + step : at + step + 1] = rotate(k, *turn), v
                keys, values = self.k[i, :, : at + step + 1], self.v[i, :, : at + step + 1]
                out = F.scaled_dot_product_attention(
                    rotate(q, *turn)[None], keys[None], values[None], enable_gqa=True
                )
                return out[0]

            token = self.decoder.token(self.decoder(self.decoder.embeddings[token], attend))
        return token.item()


class Rekv:
    name = "torch rekv"

    def __init__(self, decoder, window, per_frame, stored, made):
        s = decoder.s
        self.decoder, self.window, self.per_frame = decoder, window, per_frame
        shape = (s["layers"], s["kv"], window, s["dim"])
        self.k, self.v = list(torch.randn(shape, **made)), list(torch.randn(shape, **made))
        shape = (s["layers"], s["kv"], SINKS, s["dim"])
        self.first = torch.randn(shape, **made), torch.randn(shape, **made)
        pin = made["device"] == "cuda"
        shape = (HELD, 2, s["kv"], per_frame, s["dim"])
        self.blocks = [torch.zeros(shape, dtype=made["dtype"], pin_memory=pin) for _ in range(s["layers"])]
        self.means = torch.randn(s["layers"], stored, s["heads"] * s["dim"], **made)
        self.aside = torch.cuda.Stream() if pin else None
        self.count = 0

    def ingest(self, tokens):
        s, m, w = self.decoder.s, self.per_frame, self.window
        x = tokens.flatten(0, 1)
        device = x.device
        frames = x.shape[0] // m

        def attend(i, q, k, v):
            out = torch.empty_like(q)
            fixed = angles(torch.tensor([w - 1], device=device), s["dim"])
            for f in range(frames):
                part = slice(f * m, (f + 1) * m)
                keys = torch.cat([self.k[i], k[:, part]], 1)
                values = torch.cat([self.v[i], v[:, part]], 1)
                turn = angles(torch.arange(keys.shape[1], device=device), s["dim"])
                turned = rotate(q[:, part], *(t[-m:] for t in turn))
                near, a = causal(turned, rotate(keys, *turn), values)
                far, b = plain(rotate(q[:, part], *fixed), self.first[0][i], self.first[1][i], False)
                share = torch.sigmoid(a - b)[..., None].to(near.dtype)
                out[:, part] = near * share + far * (1 - share)
                self.k[i], self.v[i] = keys[:, m:], values[:, m:]
                block = self.blocks[i][(self.count + f) % HELD]
                if self.aside is None:
                    block[0], block[1] = k[:, part], v[:, part]
                else:
                    self.aside.wait_stream(torch.cuda.current_stream())
                    with torch.cuda.stream(self.aside):
                        block[0].copy_(k[:, part], non_blocking=True)
                        block[1].copy_(v[:, part], non_blocking=True)
                mean = k[:, part].mean(1).repeat_interleave(s["heads"] // s["kv"], 0)
                self.means[i, (self.count + f) % self.means.shape[1]] = mean.flatten()
            return out

        self.decoder(x, attend)
        self.count += frames
        if self.aside is not None:
            torch.cuda.current_stream().wait_stream(self.aside)

    def first_token(self, words):
        """A question of so many tokens looks its frames up, then a prompt of a few more reads them."""
        s, device = self.decoder.s, self.means.device
        contexts = []

        def look_up(i, q, k, v):
            mean = q.mean(1).flatten().float()
            best = (self.means[i].float() @ mean).topk(min(RETRIEVED, self.means.shape[1])).indices
            best = best.sort().values.tolist()
            found = torch.stack([self.blocks[i][b % HELD].to(device, non_blocking=True) for b in best])
            found = found.permute(1, 2, 0, 3, 4).flatten(2, 3)
            contexts.append((torch.cat([self.first[0][i], found[0]], 1), torch.cat([self.first[1][i], found[1]], 1)))
            return read(i, q, k, v)

        def read(i, q, k, v):
            keys, values = torch.cat([contexts[i][0], k], 1), torch.cat([contexts[i][1], v], 1)
            turn = angles(torch.arange(keys.shape[1], device=device), s["dim"])
            return causal(rotate(q, *(t[-q.shape[1] :] for t in turn)), rotate(keys, *turn), values)[0]

        ids = torch.arange(words, device=device)
        self.decoder(self.decoder.embeddings[ids], look_up)
        ids = torch.arange(words + 6, device=device)
        return self.decoder.token(self.decoder(self.decoder.embeddings[ids], read)).item()


def timed(device, work, repeat):
    """Seconds of every run; the first warms up."""
    times = []
    for _ in range(repeat + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return times[1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="llava-onevision-7b")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--window", type=int, default=15_000)
    parser.add_argument("--chunk", type=int, default=8, help="frames of a batch")
    parser.add_argument("--stored", type=int, default=1_800)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--json")
    args = parser.parse_args()
    s, device = SHAPES[args.shape], args.device
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    made = dict(device=device, dtype=dtype)
    torch.manual_seed(1)
    place = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    report = dict(about=dict(model=args.shape, device=place, torch=torch.__version__), rows=[], notes=[])

    def row(what, method, values, unit):
        value = statistics.median(values)
        stored = args.stored if what == "first token" else 0
        report["rows"].append(dict(what=what, method=method, stored=stored, value=value, unit=unit, runs=len(values)))
        print(f"{what:<32} {method:<20} {value:10.4g} {unit}", flush=True)
        if args.json:
            with open(args.json, "w") as file:
                json.dump(report, file, indent=1)

    with torch.inference_mode():
        if not proven(s, made):
            raise SystemExit("peer.py: this PyTorch's attention is not what peer.py takes it for")
        weights = Weights(device, dtype)
        tower, decoder = Tower(s, weights), Decoder(s, weights)
        side = s["side"]
        pixels = torch.randn(args.chunk, 3, side, side, **made)
        tokens = tower(pixels)
        per_frame = tokens.shape[1]
        rate = lambda times, frames: [frames / t for t in times]
        seen = timed(device, lambda: tower(pixels), args.repeat)
        row("tower and projector", "torch sdpa", rate(seen, args.chunk), "frames/s")

        sdpa = Sdpa(decoder, args.window, args.chunk, per_frame, made)
        sdpa.per_frame = per_frame
        times = timed(device, lambda: sdpa.ingest(tower(pixels)), args.repeat)
        row("ingest", sdpa.name, rate(times, args.chunk), "frames/s")
        times = timed(device, lambda: sdpa.decode(args.tokens), 2)
        row("decode", sdpa.name, rate(times, args.tokens), "tokens/s")
        del sdpa

        rekv = Rekv(decoder, args.window, per_frame, args.stored, made)
        times = timed(device, lambda: rekv.ingest(tower(pixels)), max(1, args.repeat // 2))
        row("ingest", rekv.name, rate(times, args.chunk), "frames/s")
        times = timed(device, lambda: rekv.first_token(12), args.repeat)
        row("first token", rekv.name, [1e3 * t for t in times], "ms")


if __name__ == "__main__":
    main()
