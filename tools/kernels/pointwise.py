# SPDX-License-Identifier: MPL-2.0
"""What stands between two matrix products. Roundings lie where transformers has them."""

import triton
import triton.language as tl


@triton.jit
def add_norm(X, H, W, SUM, Y, eps, x_row, h_row, C, BN: tl.constexpr):
    """SUM = X + H, Y = RMSNorm(SUM) * W. Grid: (rows,). A row is held whole: C <= BN."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BN)
    real = c < C
    x = tl.load(X + row * x_row + c, mask=real, other=0.0).to(tl.float32)
    h = tl.load(H + row * h_row + c, mask=real, other=0.0).to(tl.float32)
    w = tl.load(W + c, mask=real, other=0.0).to(tl.float32)
    T = Y.dtype.element_ty
    rounded = (x + h).to(T)
    s = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(s * s, 0) / C.to(tl.float32) + eps)
    y = (s * scale).to(T).to(tl.float32) * w
    tl.store(SUM + row * C + c, rounded, mask=real)
    tl.store(Y + row * C + c, y.to(T), mask=real)


@triton.jit
def silu_mul(X, Y, x_row, I, BN: tl.constexpr):
    """Y[rows, I] = silu(X[:, :I]) * X[:, I:]. Grid: (rows, ceil(I / BN))."""
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BN + tl.arange(0, BN)
    real = i < I
    gate = tl.load(X + row * x_row + i, mask=real, other=0.0).to(tl.float32)
    up = tl.load(X + row * x_row + I + i, mask=real, other=0.0).to(tl.float32)
    T = Y.dtype.element_ty
    silu = (gate * tl.sigmoid(gate)).to(T).to(tl.float32)
    tl.store(Y + row * I + i, (silu * up).to(T), mask=real)


@triton.jit
def bias_gelu(X, B, Y, n, C, BN: tl.constexpr, TANH: tl.constexpr):
    """Y[n, C] = gelu(X + B). Grid: (ceil(n * C / BN),). The sum is rounded, as a linear layer does."""
    at = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN)
    real = at < n.to(tl.int64) * C
    T = Y.dtype.element_ty
    x = tl.load(X + at, mask=real, other=0.0).to(tl.float32)
    b = tl.load(B + at % C, mask=real, other=0.0).to(tl.float32)
    x = (x + b).to(T).to(tl.float32)
    if TANH:
        # (1 + tanh(u)) / 2 is the sigmoid of 2 u.
        y = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    else:
        y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    tl.store(Y + at, y.to(T), mask=real)


@triton.jit
def not_finite(X, FLAG, n, BN: tl.constexpr):
    """FLAG[0] |= 1 where some of X[n] is no finite number. Grid: any number of programs."""
    found = tl.zeros([BN], tl.int32)
    step = tl.num_programs(0).to(tl.int64) * BN
    for begin in range(tl.program_id(0).to(tl.int64) * BN, n, step):
        at = begin + tl.arange(0, BN)
        x = tl.load(X + at, mask=at < n, other=0.0).to(tl.float32)
        bits = x.to(tl.int32, bitcast=True) & 0x7F800000
        found |= (bits == 0x7F800000).to(tl.int32)
    some = tl.max(found, 0)
    tl.atomic_or(FLAG, some, mask=some != 0)
