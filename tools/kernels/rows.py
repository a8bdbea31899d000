# SPDX-License-Identifier: MPL-2.0
"""Rows of the memory: chosen rows brought together, the mean key of each unit."""

import triton
import triton.language as tl


@triton.jit
def gather(X, Y, SRC, x_head, y_head, y_row, n, D, DP: tl.constexpr, BR: tl.constexpr, EVEN: tl.constexpr):
    """Y[heads, n, D] of the rows that begin at X + head * x_head + SRC[i]. Grid: (ceil(n / BR), heads)."""
    head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BR + tl.arange(0, BR)
    d = tl.arange(0, DP)
    wanted = (row < n)[:, None]
    if not EVEN:
        wanted = wanted & (d < D)[None, :]
    # Every row begins at a multiple of 8 elements, which is for the caller to keep.
    source = tl.multiple_of(tl.load(SRC + row, mask=row < n, other=0), 8)
    x = tl.load(X + (head * x_head + source)[:, None] + d[None, :], mask=wanted, other=0.0)
    tl.store(Y + (head * y_head + row.to(tl.int64) * y_row)[:, None] + d[None, :], x, mask=wanted)


@triton.jit
def mean_keys(K, OUT, STARTS, k_head, k_row, Hk, D, DP: tl.constexpr, BR: tl.constexpr, EVEN: tl.constexpr):
    """OUT[units, Hk * D]: the mean of the keys STARTS[u]..STARTS[u + 1]. Grid: (units, Hk)."""
    unit = tl.program_id(0)
    kv = tl.program_id(1)
    begin = tl.load(STARTS + unit)
    end = tl.load(STARTS + unit + 1)
    d = tl.arange(0, DP)
    K += kv.to(tl.int64) * k_head
    total = tl.zeros([DP], tl.float32)
    for start in range(begin, end, BR):
        row = start + tl.arange(0, BR)
        wanted = (row < end)[:, None]
        if not EVEN:
            wanted = wanted & (d < D)[None, :]
        k = tl.load(K + row.to(tl.int64)[:, None] * k_row + d[None, :], mask=wanted, other=0.0)
        total += tl.sum(k.to(tl.float32), 0)
    mean = total / tl.maximum(end - begin, 1).to(tl.float32)
    to = OUT + (unit.to(tl.int64) * Hk + kv) * D + d
    if EVEN:
        tl.store(to, mean)
    else:
        tl.store(to, mean, mask=d < D)
