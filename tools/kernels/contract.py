# SPDX-License-Identifier: MPL-2.0
"""The kernels by name, with the kinds of their arguments as the launcher passes them.

T is the model's element type. Strides are i64 and multiples of 8 elements, pointers to T and to f32
rows multiples of 16 bytes: that is what lets the compiler move 16 bytes at a time.
"""

import importlib

TYPES = {"bf16": "bf16", "f16": "fp16", "f32": "fp32"}
"""Element types by the names of the table, and Triton's names for them."""

QK = "q_head:i64 q_row:i64 k_head:i64 k_row:i64"
V = "v_head:i64 v_row:i64"
SIZES = "Hk:i32 H:i32 Lq:i32 Lk:i32 D:i32 lo:i32 hi:i32 first:i32"
ROTATE = "COS:*f32 SIN:*f32 PLACES:*i32 AXES:*i32 x_head:i64 x_row:i64 y_head:i64 y_row:i64 n:i32 D:i32 places:i32 start:i32"

_KERNELS = {
    "attention": {
        "attend": f"Q:*T K:*T V:*T OUT:*f32 LSE:*f32 {QK} {V} {SIZES} chunk:i32 scale_log2:f32",
        "scores": f"Q:*T K:*T LSE:*f32 {QK} {SIZES} chunk:i32 scale_log2:f32",
        "mass": f"Q:*T K:*T LSE:*f32 MASS:*f32 {QK} {SIZES} scale_log2:f32",
    },
    "join": {
        "join": "OUT:*f32 LSE:*f32 Y:*T y_head:i64 y_row:i64 parts:i32 H:i32 Lq:i32 D:i32",
        "join_lse": "LSE:*f32 ALL:*f32 parts:i32 rows:i32",
    },
    "rotate": {
        "rotate": f"X:*T Y:*T {ROTATE}",
        "gather_rotate": f"X:*T Y:*T SRC:*i64 {ROTATE}",
    },
    "rows": {
        "gather": "X:*T Y:*T SRC:*i64 x_head:i64 y_head:i64 y_row:i64 n:i32 D:i32",
        "mean_keys": "K:*T OUT:*f32 STARTS:*i32 k_head:i64 k_row:i64 Hk:i32 D:i32",
    },
    "pointwise": {
        "add_norm": "X:*T H:*T W:*T SUM:*T Y:*T eps:f32 x_row:i64 h_row:i64 C:i32",
        "silu_mul": "X:*T Y:*T x_row:i64 I:i32",
        "bias_gelu": "X:*T B:*T Y:*T n:i32 C:i32",
        "not_finite": "X:*T FLAG:*i32 n:i64",
    },
    "rank": {
        "top_k": "SCORES:*f32 OUT:*i64 n:i32 k:i32",
        "top_k_merge": "IN:*i64 OUT:*i64 n:i32 k:i32",
        "rank": "SCORES:*f32 RANK:*i32 n:i32",
        "chosen": "RANK:*i32 OUT:*i32 n:i32 k:i32",
    },
}

ARGUMENTS = {
    kernel: [tuple(argument.split(":")) for argument in text.split()]
    for kernels in _KERNELS.values()
    for kernel, text in kernels.items()
}
"""(name, type) of each argument in order; a type is *T, *f32, *i32, *i64, i32, i64 or f32."""

UNALIGNED = {"SCORES", "LSE", "ALL", "MASS"}
"""Pointers that may begin anywhere in a buffer, as those to integers may: single numbers lie there."""


def function(kernel):
    """The kernel as Triton sees it: compiled, or run in the interpreter under TRITON_INTERPRET=1."""
    for module, kernels in _KERNELS.items():
        if kernel in kernels:
            return getattr(importlib.import_module(module), kernel)
    raise KeyError(f"no kernel {kernel!r}")


def kind(type_):
    """The kind of an argument in the table."""
    return "ptr" if type_.startswith("*") else type_


def typed(type_, dtype):
    """Triton's name of an argument's type."""
    names = {**TYPES, "T": TYPES[dtype], "i32": "i32", "i64": "i64", "u32": "u32"}
    return "*" + names[type_[1:]] if type_.startswith("*") else names[type_]


def divisible(name, type_):
    """What the compiler may take an argument to be a multiple of: bytes of an address, else elements."""
    if type_.startswith("*"):
        return 1 if name in UNALIGNED or type_ in ("*i32", "*i64") else 16
    if type_ == "i64" and name != "n":
        return 8
    return 8 if name in ("D", "C", "I") else 1
