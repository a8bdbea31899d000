# SPDX-License-Identifier: MPL-2.0
"""What the kernels should compute, in plain numpy and f64. Shares nothing with them."""

import math

import numpy as np


def seen(Lq, Lk, lo, hi, first):
    """[Lq, Lk]: whether row i sees key j."""
    i, j = np.arange(Lq)[:, None], np.arange(Lk)[None, :]
    return (i >= first) & (j <= i + hi) & (j > i + lo)


def scores(q, k, scale):
    """[H, Lq, Lk] of q [H, Lq, d] and k [Hk, Lk, d]."""
    return np.einsum("hqd,hkd->hqk", q, np.repeat(k, q.shape[0] // k.shape[0], 0)) * scale


def lse(score, seen):
    """[H, Lq], base 2; -1e30 for rows that see nothing."""
    score = np.where(seen, score, -np.inf)
    top = np.max(score, -1, initial=-1e300)
    total = np.exp2(score - top[..., None]).sum(-1)
    return np.where(total > 0, top + np.log2(np.where(total > 0, total, 1.0)), -1e30)


def context(score, seen, v):
    """[H, Lq, d]; zero for rows that see nothing."""
    p = np.exp2(np.where(seen, score - lse(score, seen)[..., None], -np.inf))
    return p @ np.repeat(v, score.shape[0] // v.shape[0], 0)


def mass(score, seen, lse, kv_heads):
    """[Hk, Lk]: probabilities summed over the rows of all heads of a group."""
    p = np.exp2(np.where(seen, score - lse[..., None], -np.inf)).sum(1)
    return p.reshape(kv_heads, -1 if p.size else 0, p.shape[-1]).sum(1)


def join(out, lse):
    """[H, Lq, d] of out [parts, H, Lq, d] and lse [parts, H, Lq]."""
    weight = np.where(lse > -1e29, np.exp2(lse - lse.max(0)), 0.0)
    total = weight.sum(0)
    return (weight[..., None] * out).sum(0) / np.where(total > 0, total, 1.0)[..., None]


def join_lse(lse):
    top = lse.max(0)
    total = np.where(lse > -1e29, np.exp2(lse - top), 0.0).sum(0)
    return np.where(total > 0, top + np.log2(np.where(total > 0, total, 1.0)), -1e30)


def rotate(x, angle):
    """x [H, n, d] turned by angle [n, d / 2], half-split."""
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)


def rounded(x, dtype):
    """To the element type and back."""
    if dtype == "bf16":
        bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)
    return np.asarray(x, {"f16": np.float16, "f32": np.float32}[dtype]).astype(np.float64)


def rms_norm(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def silu_mul(x):
    gate, up = np.split(x, 2, -1)
    return gate / (1 + np.exp(-gate)) * up


def gelu(x, tanh):
    if tanh:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def best(score, k):
    """Indices of the best k, of equals the lower index first."""
    return np.argsort(-score, kind="stable")[:k]


def indices(keys):
    """The indices in packed keys."""
    return ~keys & 0xFFFFFFFF
