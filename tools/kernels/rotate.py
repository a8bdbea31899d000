# SPDX-License-Identifier: MPL-2.0
"""Rotary embedding, half-split, by a list of places; alone and with the gather of chosen rows."""

import triton
import triton.language as tl


@triton.jit
def _place(PLACES, AXES, row, p, real, half, places, start, MODE: tl.constexpr):
    """The row of the table for each [row, pair]."""
    if MODE == 0:
        return (start + row)[:, None]
    elif MODE == 1:
        return (start + row * 0)[:, None]
    elif MODE == 2:
        return tl.load(PLACES + row, mask=real, other=0)[:, None]
    else:
        axis = tl.load(AXES + p, mask=p < half, other=0)
        pair = real[:, None] & (p < half)[None, :]
        return tl.load(PLACES + axis[None, :] * places + row[:, None], mask=pair, other=0)


@triton.jit
def _turn(X, Y, COS, SIN, PLACES, AXES, x_at, y_at, row, n, D, places, start,
          DP: tl.constexpr, EVEN: tl.constexpr, MODE: tl.constexpr):
    """Rows of X at `x_at` into rows of Y at `y_at`, turned: all in f32, rounded once."""
    real = row < n
    p = tl.arange(0, DP // 2)
    if EVEN:
        half = DP // 2
        pair = real[:, None]
    else:
        half = D // 2
        pair = real[:, None] & (p < half)[None, :]
    turn = _place(PLACES, AXES, row, p, real, half, places, start, MODE).to(tl.int64) * half + p[None, :]
    cos = tl.load(COS + turn, mask=pair, other=0.0)
    sin = tl.load(SIN + turn, mask=pair, other=0.0)
    from_ = X + x_at[:, None] + p[None, :]
    a = tl.load(from_, mask=pair, other=0.0).to(tl.float32)
    b = tl.load(from_ + half, mask=pair, other=0.0).to(tl.float32)
    to = Y + y_at[:, None] + p[None, :]
    tl.store(to, (a * cos - b * sin).to(Y.dtype.element_ty), mask=pair)
    tl.store(to + half, (b * cos + a * sin).to(Y.dtype.element_ty), mask=pair)


@triton.jit
def rotate(X, Y, COS, SIN, PLACES, AXES, x_head, x_row, y_head, y_row, n, D, places, start,
           DP: tl.constexpr, BR: tl.constexpr, EVEN: tl.constexpr, MODE: tl.constexpr):
    """Y[heads, n, D] of X[heads, n, D]. Grid: (ceil(n / BR), heads).

    MODE says where row i stands: 0: start + i; 1: start; 2: PLACES[i]; 3: PLACES[AXES[pair], i].
    """
    head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BR + tl.arange(0, BR)
    x_at = head * x_head + row.to(tl.int64) * x_row
    y_at = head * y_head + row.to(tl.int64) * y_row
    _turn(X, Y, COS, SIN, PLACES, AXES, x_at, y_at, row, n, D, places, start, DP, EVEN, MODE)


@triton.jit
def gather_rotate(X, Y, SRC, COS, SIN, PLACES, AXES, x_head, x_row, y_head, y_row, n, D, places, start,
                  DP: tl.constexpr, BR: tl.constexpr, EVEN: tl.constexpr, MODE: tl.constexpr):
    """`rotate` of the rows that begin at X + head * x_head + SRC[i]."""
    head = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * BR + tl.arange(0, BR)
    x_at = head * x_head + tl.load(SRC + row, mask=row < n, other=0)
    y_at = head * y_head + row.to(tl.int64) * y_row
    _turn(X, Y, COS, SIN, PLACES, AXES, x_at, y_at, row, n, D, places, start, DP, EVEN, MODE)
