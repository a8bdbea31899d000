# SPDX-License-Identifier: MPL-2.0
"""One stage of attention, its log-sum-exp alone, and the mass it puts on each key.

Row i sees key j iff i >= first, j <= i + hi, j > i + lo and 0 <= j < Lk. No mask and no score is
stored anywhere, and the G query heads of a KV head share its keys: packed row r of KV head hk is
row r // G of query head hk * G + r % G, so that a tile of packed rows covers few rows i and skips
most keys that a window hides.

Tiles that every row sees whole need no comparison per score, and they are nearly all: with PEEL they
have a loop of their own. The tiles at the window's two edges have another, of EDGE stages; without
PEEL it does them all.
"""

import triton
import triton.language as tl


@triton.jit
def _at(axis, D, width: tl.constexpr, EVEN: tl.constexpr):
    """Which of the head dim's places a tile may touch: all when the tile is as wide as the head."""
    if EVEN:
        return tl.full([width], 1, tl.int1)
    else:
        return axis < D


@triton.jit
def _whole(P, row, offsets, d, D, EVEN: tl.constexpr):
    """A tile of rows of which all exist."""
    if EVEN:
        return tl.load(P + row + offsets)
    else:
        return tl.load(P + row + offsets, mask=(d < D)[None, :], other=0.0)


@triton.jit
def _part(P, row, offsets, some, d, D, EVEN: tl.constexpr):
    """A tile of rows of which only `some` exist; zero elsewhere."""
    if EVEN:
        return tl.load(P + row + offsets, mask=some[:, None], other=0.0)
    else:
        return tl.load(P + row + offsets, mask=some[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def _interval(least, most, lo, hi, begin, end, BN: tl.constexpr, PEEL: tl.constexpr):
    """The tiles of keys that rows least..=most see between `begin` and `end`.

    Returns start, stop, left, inner, inner_end, right: of the keys start..stop the first `left` tiles,
    then those of inner..inner_end that every row sees whole, then `right` tiles.
    """
    start = tl.maximum(begin, least + lo + 1)
    stop = tl.maximum(start, tl.minimum(end, most + hi + 1))
    all_from = stop
    if PEEL:
        all_from = tl.minimum(tl.maximum(start, most + lo + 1), stop)
    left = (all_from - start + BN - 1) // BN
    inner = start + left * BN
    whole = tl.maximum(tl.minimum(stop, least + hi + 1) - inner, 0) // BN
    inner_end = inner + whole * BN
    right = (tl.maximum(stop - inner_end, 0) + BN - 1) // BN
    return start, stop, left, inner, inner_end, right


@triton.jit
def attend(Q, K, V, OUT, LSE, q_head, q_row, k_head, k_row, v_head, v_row,
           Hk, H, Lq, Lk, D, lo, hi, first, chunk, scale_log2,
           DP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, EVEN: tl.constexpr,
           PEEL: tl.constexpr, EDGE: tl.constexpr):
    """OUT[z, H, Lq, D] and LSE[z, H, Lq] (base 2) of the keys of split z. Grid: (tiles, Hk, splits)."""
    kv = tl.program_id(1)
    part = tl.program_id(2)
    group = H // Hk
    packed = tl.program_id(0) * BM + tl.arange(0, BM)
    real = packed < group * Lq
    row = packed // group
    head = kv * group + packed % group
    d = tl.arange(0, DP)

    q_at = head.to(tl.int64) * q_head + row.to(tl.int64) * q_row
    q = _part(Q, 0, q_at[:, None] + d[None, :], real, d, D, EVEN)

    least = tl.maximum(tl.program_id(0) * BM // group, first)
    most = (tl.minimum(tl.program_id(0) * BM + BM, group * Lq) - 1) // group
    begin = part * chunk
    end = tl.where(most < first, begin, tl.minimum(Lk, begin + chunk))
    start, stop, left, inner, inner_end, right = _interval(least, most, lo, hi, begin, end, BN, PEEL)

    columns = tl.arange(0, BN)
    k_in = columns[:, None] * k_row.to(tl.int32) + d[None, :]
    v_in = columns[:, None] * v_row.to(tl.int32) + d[None, :]
    K += kv.to(tl.int64) * k_head
    V += kv.to(tl.int64) * v_head

    top = tl.full([BM], -1e30, tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, DP], tl.float32)

    if PEEL:
        for key in tl.range(inner, inner_end, BN):
            k = _whole(K, key * k_row, k_in, d, D, EVEN)
            score = tl.dot(q, tl.trans(k), input_precision="ieee")
            higher = tl.maximum(top, tl.max(score, 1) * scale_log2)
            p = tl.exp2(score * scale_log2 - higher[:, None])
            shrink = tl.exp2(top - higher)
            total = total * shrink + tl.sum(p, 1)
            v = _whole(V, key * v_row, v_in, d, D, EVEN)
            acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
            top = higher

    for tile in tl.range(0, left + right, num_stages=EDGE):
        key = tl.where(tile < left, start + tile * BN, inner_end + (tile - left) * BN)
        keys = key + columns
        some = keys < stop
        k = _part(K, key * k_row, k_in, some, d, D, EVEN)
        seen = (keys[None, :] <= (row + hi)[:, None]) & (keys[None, :] > (row + lo)[:, None]) & some[None, :]
        score = tl.where(seen, tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2, -1e30)
        higher = tl.maximum(top, tl.max(score, 1))
        p = tl.where(seen, tl.exp2(score - higher[:, None]), 0.0)
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(p, 1)
        v = _part(V, key * v_row, v_in, some, d, D, EVEN)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")
        top = higher

    # A row before `first` was counted along and is dropped here.
    any_seen = (total > 0) & (row >= first)
    context = tl.where(any_seen[:, None], acc / tl.where(any_seen, total, 1.0)[:, None], 0.0)
    lse = tl.where(any_seen, top + tl.log2(tl.where(any_seen, total, 1.0)), -1e30)
    at = (part.to(tl.int64) * H + head) * Lq + row
    tl.store(OUT + at[:, None] * D + d[None, :], context, mask=real[:, None] & _at(d, D, DP, EVEN)[None, :])
    tl.store(LSE + at, lse, mask=real)


@triton.jit
def scores(Q, K, LSE, q_head, q_row, k_head, k_row, Hk, H, Lq, Lk, D, lo, hi, first, chunk, scale_log2,
           DP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, EVEN: tl.constexpr,
           PEEL: tl.constexpr, EDGE: tl.constexpr):
    """`attend` without values: LSE[z, H, Lq] alone."""
    kv = tl.program_id(1)
    part = tl.program_id(2)
    group = H // Hk
    packed = tl.program_id(0) * BM + tl.arange(0, BM)
    real = packed < group * Lq
    row = packed // group
    head = kv * group + packed % group
    d = tl.arange(0, DP)

    q_at = head.to(tl.int64) * q_head + row.to(tl.int64) * q_row
    q = _part(Q, 0, q_at[:, None] + d[None, :], real, d, D, EVEN)

    least = tl.maximum(tl.program_id(0) * BM // group, first)
    most = (tl.minimum(tl.program_id(0) * BM + BM, group * Lq) - 1) // group
    begin = part * chunk
    end = tl.where(most < first, begin, tl.minimum(Lk, begin + chunk))
    start, stop, left, inner, inner_end, right = _interval(least, most, lo, hi, begin, end, BN, PEEL)

    columns = tl.arange(0, BN)
    k_in = columns[:, None] * k_row.to(tl.int32) + d[None, :]
    K += kv.to(tl.int64) * k_head

    top = tl.full([BM], -1e30, tl.float32)
    total = tl.zeros([BM], tl.float32)

    if PEEL:
        for key in tl.range(inner, inner_end, BN):
            k = _whole(K, key * k_row, k_in, d, D, EVEN)
            score = tl.dot(q, tl.trans(k), input_precision="ieee")
            higher = tl.maximum(top, tl.max(score, 1) * scale_log2)
            total = total * tl.exp2(top - higher) + tl.sum(tl.exp2(score * scale_log2 - higher[:, None]), 1)
            top = higher

    for tile in tl.range(0, left + right, num_stages=EDGE):
        key = tl.where(tile < left, start + tile * BN, inner_end + (tile - left) * BN)
        keys = key + columns
        some = keys < stop
        k = _part(K, key * k_row, k_in, some, d, D, EVEN)
        seen = (keys[None, :] <= (row + hi)[:, None]) & (keys[None, :] > (row + lo)[:, None]) & some[None, :]
        score = tl.where(seen, tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2, -1e30)
        higher = tl.maximum(top, tl.max(score, 1))
        p = tl.where(seen, tl.exp2(score - higher[:, None]), 0.0)
        total = total * tl.exp2(top - higher) + tl.sum(p, 1)
        top = higher

    any_seen = (total > 0) & (row >= first)
    lse = tl.where(any_seen, top + tl.log2(tl.where(any_seen, total, 1.0)), -1e30)
    tl.store(LSE + (part.to(tl.int64) * H + head) * Lq + row, lse, mask=real)


@triton.jit
def mass(Q, K, LSE, MASS, q_head, q_row, k_head, k_row, Hk, H, Lq, Lk, D, lo, hi, first, scale_log2,
         DP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, EVEN: tl.constexpr,
         PEEL: tl.constexpr, EDGE: tl.constexpr):
    """MASS[Hk, Lk]: what all rows of all heads of a group give to each key. Grid: (tiles of keys, Hk).

    The tile of keys stays, the rows pass by: each program adds up its own keys, in one order.
    """
    kv = tl.program_id(1)
    group = H // Hk
    key = tl.program_id(0) * BN
    keys = key + tl.arange(0, BN)
    d = tl.arange(0, DP)
    k_in = tl.arange(0, BN)[:, None] * k_row.to(tl.int32) + d[None, :]
    k = _part(K, kv.to(tl.int64) * k_head + key * k_row, k_in, keys < Lk, d, D, EVEN)

    # The rows that see some key of the tile, as packed rows, and among them those that see all.
    last = tl.minimum(key + BN, Lk) - 1
    begin = group * tl.minimum(Lq, tl.maximum(first, key - hi))
    end = tl.maximum(begin, group * tl.maximum(0, tl.minimum(Lq, last - lo)))
    whole = group * tl.minimum(Lq, tl.maximum(first, last - hi))
    whole_end = group * tl.maximum(0, tl.minimum(Lq, key - lo))
    all_from = end
    if PEEL:
        all_from = tl.minimum(tl.maximum(whole, begin), end)
    left = (all_from - begin + BM - 1) // BM
    inner = begin + left * BM
    inner_end = inner + tl.maximum(tl.minimum(whole_end, end) - inner, 0) // BM * BM
    right = (tl.maximum(end - inner_end, 0) + BM - 1) // BM

    total = tl.zeros([BN], tl.float32)
    if PEEL:
        for packed in tl.range(inner, inner_end, BM):
            rows = packed + tl.arange(0, BM)
            row = rows // group
            head = kv * group + rows % group
            lse = tl.load(LSE + head * Lq + row)
            q_at = head.to(tl.int64) * q_head + row.to(tl.int64) * q_row
            q = _whole(Q, 0, q_at[:, None] + d[None, :], d, D, EVEN)
            score = tl.dot(k, tl.trans(q), input_precision="ieee")
            total += tl.sum(tl.exp2(score * scale_log2 - lse[None, :]), 1)

    for tile in tl.range(0, left + right, num_stages=EDGE):
        packed = tl.where(tile < left, begin + tile * BM, inner_end + (tile - left) * BM)
        rows = packed + tl.arange(0, BM)
        some = rows < end
        row = rows // group
        head = kv * group + rows % group
        lse = tl.load(LSE + head * Lq + row, mask=some, other=0.0)
        q_at = head.to(tl.int64) * q_head + row.to(tl.int64) * q_row
        q = _part(Q, 0, q_at[:, None] + d[None, :], some, d, D, EVEN)
        seen = (keys[:, None] <= (row + hi)[None, :]) & (keys[:, None] > (row + lo)[None, :]) & some[None, :]
        score = tl.dot(k, tl.trans(q), input_precision="ieee")
        total += tl.sum(tl.where(seen, tl.exp2(score * scale_log2 - lse[None, :]), 0.0), 1)

    tl.store(MASS + kv.to(tl.int64) * Lk + keys, total, mask=keys < Lk)
