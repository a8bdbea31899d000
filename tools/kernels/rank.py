# SPDX-License-Identifier: MPL-2.0
"""The best k of n scores. A score and its index make one key of 64 bits; keys are ordered as numbers.

The high half is the score, its bits turned so that they are ordered as signed integers; the low half
is ~index, so that of equal scores the lower index is the larger key. Nothing is sorted: the place of
a key is the number of keys that beat it, which needs no exchange and comes out the same every time.
"""

import triton
import triton.language as tl


@triton.jit
def _key(SCORES, index, n):
    """Packed keys of SCORES[index]; behind the end keys that lose to every score, index >= n."""
    score = tl.load(SCORES + index, mask=index < n, other=0.0)
    # -0 is 0.
    score = tl.where(score == 0.0, 0.0, score)
    bits = score.to(tl.int32, bitcast=True)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    bits = tl.where(index < n, bits, -0x7FFFFFFF - 1)
    return (bits.to(tl.int64) << 32) | ((~index).to(tl.int64) & 0xFFFFFFFF)


@triton.jit
def _packed(IN, at, n):
    """Keys IN[at]; behind the end keys that lose to every score, index >= n."""
    key = tl.load(IN + at, mask=at < n, other=0)
    return tl.where(at < n, key, -0x7FFFFFFFFFFFFFFF - 1)


@triton.jit
def top_k(SCORES, OUT, n, k, BN: tl.constexpr, BC: tl.constexpr):
    """OUT[programs, k]: the best k keys of each BN scores, the best first. Grid: (ceil(n / BN),).

    Of fewer than k scores the rest are keys with an index >= n. k <= BN.
    """
    begin = tl.program_id(0) * BN
    at = begin + tl.arange(0, BN)
    key = _key(SCORES, at, n)
    place = tl.zeros([BN], tl.int32)
    for other in range(0, BN, BC):
        rival = _key(SCORES, begin + other + tl.arange(0, BC), n)
        place += tl.sum((rival[None, :] > key[:, None]).to(tl.int32), 1)
    tl.store(OUT + tl.program_id(0).to(tl.int64) * k + place, key, mask=place < k)


@triton.jit
def top_k_merge(IN, OUT, n, k, BN: tl.constexpr, BC: tl.constexpr):
    """`top_k` of packed keys IN[n]."""
    begin = tl.program_id(0) * BN
    at = begin + tl.arange(0, BN)
    key = _packed(IN, at, n)
    place = tl.zeros([BN], tl.int32)
    for other in range(0, BN, BC):
        rival_at = begin + other + tl.arange(0, BC)
        rival = _packed(IN, rival_at, n)
        # Keys that stand for nothing may be equal: the first one wins.
        beats = (rival[None, :] > key[:, None]) | ((rival[None, :] == key[:, None]) & (rival_at[None, :] < at[:, None]))
        place += tl.sum(beats.to(tl.int32), 1)
    tl.store(OUT + tl.program_id(0).to(tl.int64) * k + place, key, mask=place < k)


@triton.jit
def rank(SCORES, RANK, n, BN: tl.constexpr, BC: tl.constexpr):
    """RANK[heads, n]: how many scores of SCORES[heads, n] beat each. Grid: (ceil(n / BN), heads).

    For a choice of any number of them: n * n comparisons, which are few for one cache.
    """
    SCORES += tl.program_id(1).to(tl.int64) * n
    at = tl.program_id(0) * BN + tl.arange(0, BN)
    key = _key(SCORES, at, n)
    place = tl.zeros([BN], tl.int32)
    for other in range(0, n, BC):
        rival = _key(SCORES, other + tl.arange(0, BC), n)
        place += tl.sum((rival[None, :] > key[:, None]).to(tl.int32), 1)
    tl.store(RANK + tl.program_id(1).to(tl.int64) * n + at, place, mask=at < n)


@triton.jit
def chosen(RANK, OUT, n, k, BN: tl.constexpr):
    """OUT[heads, k]: the indices whose RANK[heads, n] is below k, ascending. Grid as `rank`; k <= n."""
    RANK += tl.program_id(1).to(tl.int64) * n
    begin = tl.program_id(0) * BN
    before = tl.zeros([BN], tl.int32)
    for other in range(0, begin, BN):
        before += (tl.load(RANK + other + tl.arange(0, BN)) < k).to(tl.int32)
    at = begin + tl.arange(0, BN)
    kept = (tl.load(RANK + at, mask=at < n, other=0x7FFFFFFF) < k).to(tl.int32)
    place = tl.sum(before, 0) + tl.cumsum(kept, 0) - kept
    tl.store(OUT + tl.program_id(1).to(tl.int64) * k + place, at, mask=kept != 0)
