# SPDX-License-Identifier: MPL-2.0
"""The parts that `attend` leaves, stages and splits alike, put together by their log-sum-exp."""

import triton
import triton.language as tl


@triton.jit
def join(OUT, LSE, Y, y_head, y_row, parts, H, Lq, D,
         DP: tl.constexpr, BR: tl.constexpr, BP: tl.constexpr, EVEN: tl.constexpr):
    """Y[H, Lq, D] of OUT[parts, H, Lq, D] and LSE[parts, H, Lq]. Grid: (ceil(Lq / BR), H).

    BP parts are read at once: a decoded row has dozens, and one behind the other they would wait
    for memory dozens of times.
    """
    head = tl.program_id(1)
    row = tl.program_id(0) * BR + tl.arange(0, BR)
    real = row < Lq
    d = tl.arange(0, DP)
    at = head * Lq + row
    step = H.to(tl.int64) * Lq

    top = tl.full([BR], -1e30, tl.float32)
    for p in range(0, parts, BP):
        part = p + tl.arange(0, BP)
        some = (part < parts)[:, None] & real[None, :]
        lse = tl.load(LSE + part.to(tl.int64)[:, None] * step + at[None, :], mask=some, other=-1e30)
        top = tl.maximum(top, tl.max(lse, 0))

    total = tl.zeros([BR], tl.float32)
    acc = tl.zeros([BR, DP], tl.float32)
    for p in range(0, parts, BP):
        part = p + tl.arange(0, BP)
        some = (part < parts)[:, None] & real[None, :]
        place = part.to(tl.int64)[:, None] * step + at[None, :]
        lse = tl.load(LSE + place, mask=some, other=-1e30)
        weight = tl.where(lse > -1e29, tl.exp2(lse - top[None, :]), 0.0)
        wanted = some[:, :, None]
        if not EVEN:
            wanted = wanted & (d < D)[None, None, :]
        out = tl.load(OUT + place[:, :, None] * D + d[None, None, :], mask=wanted, other=0.0)
        total += tl.sum(weight, 0)
        acc += tl.sum(weight[:, :, None] * out, 0)

    y = tl.where((total > 0)[:, None], acc / tl.where(total > 0, total, 1.0)[:, None], 0.0)
    to = head.to(tl.int64) * y_head + row.to(tl.int64) * y_row
    stored = real[:, None]
    if not EVEN:
        stored = stored & (d < D)[None, :]
    tl.store(Y + to[:, None] + d[None, :], y.to(Y.dtype.element_ty), mask=stored)


@triton.jit
def join_lse(LSE, ALL, parts, rows, BR: tl.constexpr):
    """ALL[rows]: the log-sum-exp over all parts of LSE[parts, rows]. Grid: (ceil(rows / BR),)."""
    row = tl.program_id(0) * BR + tl.arange(0, BR)
    real = row < rows
    top = tl.full([BR], -1e30, tl.float32)
    total = tl.zeros([BR], tl.float32)
    for part in range(0, parts):
        lse = tl.load(LSE + part * rows.to(tl.int64) + row, mask=real, other=-1e30)
        higher = tl.maximum(top, lse)
        total = total * tl.exp2(top - higher) + tl.exp2(lse - higher)
        top = higher
    # Where no part saw anything this is -1e30 again: the logarithm is lost beside it.
    tl.store(ALL + row, top + tl.log2(total), mask=real)
