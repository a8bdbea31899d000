# SPDX-License-Identifier: MPL-2.0
"""Proves the kernels on the CPU: each in Triton's interpreter against plain numpy in f64.

    python tools/kernels/check.py [--short] [--only KERNEL] [--device [FOLDER]]

prints a line for each kernel and element type: cases, largest error, what is allowed. The sizes are
odd, the views have gaps of NaN in them, results must fill their place and nothing beside it, and no
load or store may leave its buffers. All compiled variants' constants are run. With --device the same
cases run on a GPU, from the text in FOLDER.
"""

import argparse
import collections
import concurrent.futures
import functools
import itertools
import subprocess
import sys
import time
import zlib
from pathlib import Path

import emulator
import numpy as np

import contract
import references
import variants

KERNELS = Path(__file__).resolve().parents[2] / "src/model/kernels"
LOG2E = 1.4426950408889634
ALLOWED = {
    # Sums in f32. `attend` rounds probabilities to T before they meet the values, as flash attention does.
    ("attend", "f32"): 2e-5,
    ("attend", "f16"): 1e-3,
    ("attend", "bf16"): 8e-3,
    ("scores", None): 4e-6,
    ("mass", None): 1e-5,
    ("join", "f32"): 1e-6,
    ("join_lse", None): 1e-6,
    ("mean_keys", None): 1e-6,
    ("gather", None): 0.0,
    ("not_finite", None): 0.0,
    ("top_k", None): 0.0,
    ("top_k_merge", None): 0.0,
    ("rank", None): 0.0,
    ("chosen", None): 0.0,
    # One rounding to T of a result in f32.
    (None, "f16"): 2.0**-11 * 1.01,
    (None, "bf16"): 2.0**-8 * 1.01,
    (None, "f32"): 1e-6,
    # A second one.
    ("add_norm", "f16"): 2.0**-9,
    ("silu_mul", "f16"): 2.0**-9,
    ("bias_gelu", "f16"): 2.0**-9,
    ("add_norm", "bf16"): 2.0**-6,
    ("silu_mul", "bf16"): 2.0**-6,
    ("bias_gelu", "bf16"): 2.0**-6,
}


def allowed(kernel, dtype):
    for key in ((kernel, dtype), (kernel, None), (None, dtype)):
        if key in ALLOWED:
            return ALLOWED[key]
    raise KeyError((kernel, dtype))


class View:
    """An array with gaps between its rows and heads, in a buffer that is NaN, or the largest integer, everywhere else."""

    def __init__(self, dtype, shape, values=None, gaps=(0, 0), before=0):
        self.dtype, self.shape, self.offset = dtype, shape, before
        row = shape[-1] + gaps[0]
        self.strides = [1, row]
        for size in reversed(shape[1:-1]):
            self.strides.append(self.strides[-1] * size + gaps[1])
        self.strides = self.strides[: len(shape)][::-1]
        whole = before + sum((size - 1) * stride for size, stride in zip(shape, self.strides)) + 1 if all(shape) else before
        stored = emulator.STORED[dtype]
        nothing = {"bf16": 0x7FC0}.get(dtype, np.nan if np.issubdtype(stored, np.floating) else np.iinfo(stored).max)
        self.data = np.full(whole, nothing, stored)
        self.untouched = np.ones(whole, bool)
        self.untouched[self.places()] = False
        if values is not None:
            values = np.asarray(values)
            self.data[self.places()] = emulator.round_bf16(values.astype(np.float32)) if dtype == "bf16" else values

    def places(self):
        at = np.full(self.shape, self.offset)
        for axis, (size, stride) in enumerate(zip(self.shape, self.strides)):
            at += (np.arange(size) * stride).reshape([-1 if a == axis else 1 for a in range(len(self.shape))])
        return at

    def read(self):
        """The values as f64; an error if something beside them was written."""
        gap = self.data[self.untouched]
        wide = emulator.widen(gap) if self.dtype == "bf16" else gap
        clean = np.isnan(wide) if np.issubdtype(wide.dtype, np.floating) else wide == np.iinfo(wide.dtype).max
        if not clean.all():
            raise AssertionError("written beside the result")
        got = self.data[self.places()]
        if self.dtype == "bf16":
            got = emulator.widen(got)
        return got.astype(np.float64) if np.issubdtype(got.dtype, np.floating) else got


def launch(kernel, dtype, constants, grid, **values):
    """One launch; pointers are `View`s by their names in the contract, numbers numbers."""
    buffers, args = [], []
    for name, type_ in contract.ARGUMENTS[kernel]:
        value = values.pop(name)
        if type_.startswith("*"):
            args.append((len(buffers), value.offset))
            buffers.append((value.dtype, value.data))
        else:
            args.append((type_, value))
    assert not values, f"{kernel} has no {sorted(values)}"
    run = device.launch if device else emulator.launch
    run(kernel, dtype, constants, (*grid, 1, 1)[:3], args, buffers)


def strides(**views):
    """q_head, q_row and so on of [heads, rows, d] views."""
    return {f"{n}_{axis}": view.strides[at] for n, view in views.items() for at, axis in enumerate(("head", "row"))}


device = None
"""The `device.Kernels` to run on, in place of the interpreter."""


def offered(kernel, types):
    """(constants, element type) to be run: in the interpreter all, on a device what is compiled for it."""
    pairs = itertools.product(constants_of(kernel), types)
    return [(c, t) for c, t in pairs if device is None or device.find(kernel, t, c)]


def cdiv(a, b):
    return -(-a // b)


class Results:
    def __init__(self, only):
        self.only, self.found = only, collections.OrderedDict()

    def wants(self, kernel):
        return self.only in (None, kernel)

    def note(self, kernel, dtype, what, got, expected):
        """Errors are relative where the expected number is larger than one, absolute elsewhere."""
        got, expected = np.asarray(got), np.asarray(expected)
        if got.shape != expected.shape:
            raise AssertionError(f"{kernel}: {got.shape} instead of {expected.shape}")
        bad = float(np.max(np.abs(got - expected) / np.maximum(1.0, np.abs(expected)), initial=0.0))
        bad = np.inf if np.isnan(bad) else bad
        cases, worst, where = self.found.get((kernel, dtype), (0, 0.0, ""))
        self.found[kernel, dtype] = (cases + 1, max(worst, bad), what if bad > worst else where)

    def fail(self, kernel, dtype, what, error):
        self.found[kernel, dtype] = (0, np.inf, f"{what}: {type(error).__name__}: {error}")

    def show(self):
        red = False
        for (kernel, dtype), (cases, worst, where) in self.found.items():
            limit = allowed(kernel, dtype)
            wrong = not worst <= limit
            red |= wrong
            print(f"{kernel:14} {dtype:5} {cases:4} results, error {worst:.1e} of {limit:.1e}" + (f"  WRONG: {where}" if wrong else ""))
        return not red


def seeded(*what):
    return np.random.default_rng(zlib.crc32(repr(what).encode()))


def constants_of(kernel):
    """All constants that are compiled, and those of the tests' own small tiles."""
    return [dict(c) for c in dict.fromkeys(v.constants for v in variants.variants() if v.kernel == kernel)]


def heads(constants, short):
    """Head dims that a variant serves."""
    dp = constants["DP"]
    if constants["EVEN"]:
        return [dp]
    few = {128: [72, 80, 128], 64: [16, 32, 64]}[dp]
    return few[:2] if short else few


# --- attention -------------------------------------------------------------------------------------


def rules(Lq, Lk, rng):
    """All four rules of Visible as (name, lo, hi, first), with windows that end before, in and behind the keys."""
    far = 1 << 30
    offset, width = int(rng.integers(0, Lk + 4)), int(rng.integers(1, Lk + 3))
    window = lambda offset, width: (f"window {offset} {width}", offset - width, offset, 0)
    beyond = lambda offset, width: (f"beyond {offset} {width}", -far, offset - width, 0)
    return [
        ("all", -far, far, 0),
        window(max(Lk - Lq, 0), far),
        window(offset, width),
        window(Lk // 2, Lk // 3),
        window(offset, 1),
        window(Lk + Lq + 5, 3),
        window(0, 0),
        beyond(offset, width),
        beyond(Lk, 0),
        beyond(0, Lq + 9),
        (f"from {Lq // 2}", -far, far, Lq // 2),
        (f"from {Lq}", -far, far, Lq),
        (f"from {Lq + 7}", -far, far, Lq + 7),
    ]


def shapes(short):
    """H, Hk, Lq, Lk: groups of 1, 2 and 7; tiles that end within a head's rows; no keys.

    Five or seven, which have no divisor in common with the thirteen rules: every pair has its turn.
    """
    some = [(14, 2, 37, 150), (4, 2, 1, 77), (3, 3, 130, 65), (7, 1, 19, 0), (2, 1, 64, 64), (1, 1, 5, 3), (7, 1, 70, 140)]
    return some[:5] if short else some


def attention(results, short, kernels=("attend", "scores", "mass")):
    for kernel in kernels:
        if not results.wants(kernel):
            continue
        turn = itertools.count()
        for constants in constants_of(kernel):
            # f32 shows the arithmetic, f16 the roundings; the interpreter has no bf16 of its own.
            types = [t for c, t in offered(kernel, ("f32", "f16", "bf16") if device else ("f32", "f16")) if c == constants]
            if not types:
                continue
            for dim, shape in zip(itertools.cycle(heads(constants, short)), shapes(short)):
                rng = seeded(kernel, sorted(constants.items()), shape)
                chosen = rules(shape[2], shape[3], rng)
                # Some of them each time, so that all have their turn with all shapes. A mass costs little.
                begin, step = next(turn), (6 if short else 2) if kernel == "mass" else (len(chosen) if short else 6)
                for at in range(begin % step, len(chosen), step):
                    dtype = types[(begin + at // step) % len(types)]
                    what = f"{constants} D {dim} H,Hk,Lq,Lk {shape} {chosen[at]}"
                    try:
                        attention_case(results, kernel, dtype, constants, dim, shape, chosen[at], rng, what)
                    except Exception as error:
                        results.fail(kernel, dtype, what, error)


def attention_case(results, kernel, dtype, constants, dim, shape, rule, rng, what):
    H, Hk, Lq, Lk = shape
    _, lo, hi, first = rule
    sharp = float(rng.choice([0.3, 1.0, 4.0]))
    q = View(dtype, (H, Lq, dim), sharp * rng.standard_normal((H, Lq, dim)), (8, 16), 8)
    k = View(dtype, (Hk, Lk, dim), rng.standard_normal((Hk, Lk, dim)), (16, 8), 16)
    v = View(dtype, (Hk, Lk, dim), rng.standard_normal((Hk, Lk, dim)), (0, 24), 0)
    sizes = dict(Hk=Hk, H=H, Lq=Lq, Lk=Lk, D=dim, lo=lo, hi=hi, first=first, scale_log2=dim**-0.5 * LOG2E)
    rows = cdiv(H // Hk * Lq, constants["BM"])
    seen = references.seen(Lq, Lk, lo, hi, first)
    score = references.scores(q.read(), k.read(), dim**-0.5 * LOG2E)
    if kernel == "mass":
        lse = references.lse(score, seen)
        # A second stage takes its share: the log-sum-exp is that of both.
        lse = np.where(rng.random(lse.shape) < 0.5, lse + 1.0, lse)
        mass = View("f32", (Hk, Lk), before=4)
        values = dict(Q=q, K=k, LSE=View("f32", (H, Lq), lse), MASS=mass, **strides(q=q, k=k), **sizes)
        launch(kernel, dtype, constants, (cdiv(Lk, constants["BN"]), Hk), **values)
        results.note(kernel, dtype, what, mass.read(), references.mass(score, seen, lse, Hk))
        return
    # Keys in one part, and in parts that end within a tile, the last of them with none.
    for chunk in (max(Lk, 1), 40):
        parts = max(1, cdiv(Lk, chunk)) + (chunk == 40)
        lse = View("f32", (parts, H, Lq), before=1)
        values = dict(Q=q, K=k, LSE=lse, **strides(q=q, k=k), **sizes, chunk=chunk)
        if kernel == "attend":
            out = View("f32", (parts, H, Lq, dim), before=4)
            values.update(V=v, OUT=out, **strides(v=v))
        launch(kernel, dtype, constants, (rows, Hk, parts), **values)
        key = np.arange(Lk)
        for part in range(parts):
            here = seen & (key >= part * chunk) & (key < (part + 1) * chunk)
            results.note(kernel, dtype, what, lse.read()[part], references.lse(score, here))
            if kernel == "attend":
                results.note(kernel, dtype, what, out.read()[part], references.context(score, here, v.read()))


def joins(results, short):
    for constants, dtype in offered("join", ("f32", "f16", "bf16")):
        for dim, (parts, H, Lq) in itertools.product(heads(constants, short), ((1, 3, 5), (3, 2, 37), (40, 2, 1))):
            if not results.wants("join"):
                continue
            rng = seeded("join", sorted(constants.items()), parts, H, Lq)
            lse = rng.standard_normal((parts, H, Lq)) * 8
            lse[rng.random(lse.shape) < 0.3] = -1e30
            lse[:, 0, 0] = -1e30
            # What lies in a part that saw nothing must not count.
            out = rng.standard_normal((parts, H, Lq, dim))
            out, lse = View("f32", (parts, H, Lq, dim), out), View("f32", (parts, H, Lq), lse)
            y = View(dtype, (H, Lq, dim), gaps=(8, 16), before=8)
            values = dict(OUT=out, LSE=lse, Y=y, **strides(y=y), parts=parts, H=H, Lq=Lq, D=dim)
            launch("join", dtype, constants, (cdiv(Lq, constants["BR"]), H), **values)
            results.note("join", dtype, f"{constants} {parts, H, Lq, dim}", y.read(), references.join(out.read(), lse.read()))
    for constants, (parts, rows) in itertools.product(constants_of("join_lse"), ((1, 3), (3, 518), (2, 256))):
        if results.wants("join_lse"):
            rng = seeded("join_lse", parts, rows)
            lse = rng.standard_normal((parts, rows)) * 20
            lse[rng.random(lse.shape) < 0.4] = -1e30
            lse, total = View("f32", (parts, rows), lse, before=3), View("f32", (rows,), before=1)
            launch("join_lse", "f32", constants, (cdiv(rows, constants["BR"]),), LSE=lse, ALL=total, parts=parts, rows=rows)
            results.note("join_lse", "f32", f"{parts, rows}", total.read(), references.join_lse(lse.read()))


# --- rows ------------------------------------------------------------------------------------------


def turning(results, short):
    for kernel in ("rotate", "gather_rotate"):
        for constants, dtype in offered(kernel, ("f32", "f16", "bf16")):
            for dim, (H, n) in itertools.product(heads(constants, short), ((1, 1), (3, 37), (2, 16))):
                if not results.wants(kernel):
                    continue
                rng = seeded(kernel, sorted(constants.items()), H, n)
                pool = n + 11
                x = View(dtype, (H, pool, dim), rng.standard_normal((H, pool, dim)), (8, 16), 8)
                y = View(dtype, (H, n, dim), gaps=(16, 8), before=16)
                angle = rng.uniform(-3, 3, (90, dim // 2))
                places = rng.integers(0, 90, (3, n + 5))
                axes = rng.integers(0, 3, dim // 2)
                start = 7
                values = dict(
                    X=x, Y=y, COS=View("f32", angle.shape, np.cos(angle)), SIN=View("f32", angle.shape, np.sin(angle)),
                    PLACES=View("i32", places.shape, places), AXES=View("i32", axes.shape, axes),
                    x_head=x.strides[0], x_row=x.strides[1], **strides(y=y), n=n, D=dim, places=n + 5, start=start,
                )
                taken = np.arange(n)
                if kernel == "gather_rotate":
                    taken = rng.permutation(pool)[:n]
                    values["SRC"] = View("i64", (n,), taken * x.strides[1])
                    # Rows are found by SRC alone.
                    values["x_row"] = 0
                launch(kernel, dtype, constants, (cdiv(n, constants["BR"]), H), **values)
                i = np.arange(n)[:, None]
                mode = constants["MODE"]
                if mode == 3:
                    place = places[axes[None, :], i]
                else:
                    place = [start + i, start + 0 * i, places[0][i]][mode]
                expected = references.rotate(x.read()[:, taken], angle[place, np.arange(dim // 2)[None, :]])
                results.note(kernel, dtype, f"{constants} {H, n, dim}", y.read(), expected)


def rows(results, short):
    for constants, dtype in offered("gather", ("f32", "f16", "bf16")):
        for dim, (H, n) in itertools.product(heads(constants, short), ((1, 1), (3, 37))):
            if results.wants("gather"):
                rng = seeded("gather", sorted(constants.items()), H, n)
                x = View(dtype, (H, 50, dim), rng.standard_normal((H, 50, dim)), (8, 16), 8)
                y = View(dtype, (H, n, dim), gaps=(16, 8), before=16)
                taken = rng.integers(0, 50, n)
                source = View("i64", (n,), taken * x.strides[1], before=1)
                values = dict(X=x, Y=y, SRC=source, x_head=x.strides[0], **strides(y=y), n=n, D=dim)
                launch("gather", dtype, constants, (cdiv(n, constants["BR"]), H), **values)
                results.note("gather", dtype, f"{constants} {H, n, dim}", y.read(), x.read()[:, taken])
    for constants, dtype in offered("mean_keys", ("f32", "f16", "bf16")):
        for dim, Hk in itertools.product(heads(constants, short), (1, 3)):
            if results.wants("mean_keys"):
                rng = seeded("mean_keys", sorted(constants.items()), Hk)
                starts = np.array([3, 3, 4, 36, 68, 101, 290])
                k = View(dtype, (Hk, 300, dim), rng.standard_normal((Hk, 300, dim)), (8, 16), 8)
                out = View("f32", (6, Hk * dim), before=4)
                values = dict(K=k, OUT=out, STARTS=View("i32", (7,), starts), **strides(k=k), Hk=Hk, D=dim)
                launch("mean_keys", dtype, constants, (6, Hk), **values)
                expected = [k.read()[:, a:b].sum(1).reshape(-1) / max(b - a, 1) for a, b in zip(starts, starts[1:])]
                results.note("mean_keys", dtype, f"{constants} {Hk, dim}", out.read(), expected)


# --- pointwise and ranks ---------------------------------------------------------------------------


def pointwise(results, short):
    for dtype in ("f32", "f16", "bf16"):
        for constants, _ in offered("add_norm", (dtype,)):
            for n, C in ((3, constants["BN"]), (2, constants["BN"] - 1016), (1, 896)):
                if results.wants("add_norm"):
                    rng = seeded("add_norm", C)
                    x = View(dtype, (n, C), rng.standard_normal((n, C)) * 3, (8, 0), 8)
                    h = View(dtype, (n, C), rng.standard_normal((n, C)), (16, 0), 16)
                    w = View(dtype, (C,), rng.standard_normal(C))
                    total, y = View(dtype, (n, C), before=8), View(dtype, (n, C), before=8)
                    values = dict(X=x, H=h, W=w, SUM=total, Y=y, eps=1e-6, x_row=x.strides[0], h_row=h.strides[0], C=C)
                    launch("add_norm", dtype, constants, (n,), **values)
                    added = references.rounded(x.read() + h.read(), dtype)
                    results.note("add_norm", dtype, f"sum {n, C}", total.read(), added)
                    results.note("add_norm", dtype, f"norm {n, C}", y.read(), references.rms_norm(added, w.read(), 1e-6))
        for constants, _ in offered("silu_mul", (dtype,)):
            for n, width in ((2, 4864), (3, 1000)):
                if results.wants("silu_mul"):
                    rng = seeded("silu_mul", n, width)
                    x = View(dtype, (n, 2 * width), rng.standard_normal((n, 2 * width)) * 3, (8, 0), 8)
                    y = View(dtype, (n, width), before=8)
                    grid = (n, cdiv(width, constants["BN"]))
                    launch("silu_mul", dtype, constants, grid, X=x, Y=y, x_row=x.strides[0], I=width)
                    results.note("silu_mul", dtype, f"{n, width}", y.read(), references.silu_mul(x.read()))
        for constants, _ in offered("bias_gelu", (dtype,)):
            for n, C in ((5, 328), (1, 1152), (3, 4304)):
                if results.wants("bias_gelu"):
                    rng = seeded("bias_gelu", n, C)
                    x, b = View(dtype, (n, C), rng.standard_normal((n, C)) * 3, before=8), View(dtype, (C,), rng.standard_normal(C))
                    y = View(dtype, (n, C), before=8)
                    launch("bias_gelu", dtype, constants, (cdiv(n * C, constants["BN"]),), X=x, B=b, Y=y, n=n, C=C)
                    added = references.rounded(x.read() + b.read(), dtype)
                    results.note("bias_gelu", dtype, f"{constants} {n, C}", y.read(), references.gelu(added, constants["TANH"]))
        for constants, _ in offered("not_finite", (dtype,)):
            for n, at, bad in ((5000, None, 0), (5000, 0, np.nan), (4999, 4998, np.inf), (7, 3, -np.inf), (2049, 2048, np.nan)):
                if results.wants("not_finite"):
                    x = seeded("not_finite", n, at).standard_normal(n)
                    if at is not None:
                        x[at] = bad
                    x, flag = View(dtype, (n,), x, before=8), View("i32", (1,), [4])
                    launch("not_finite", dtype, constants, (3,), X=x, FLAG=flag, n=n)
                    results.note("not_finite", dtype, f"{n, at, bad}", flag.read(), [4 | (at is not None)])


def uneven(rng, n):
    """Scores with many equals among them, zeros of both signs, and the ends of the scale."""
    score = rng.standard_normal(n).astype(np.float32)
    score = np.where(rng.random(n) < 0.5, np.round(score), score) * np.float32(rng.choice([1, 1e-30, 1e30]))
    score[rng.integers(0, n, 3)] = [np.inf, -np.inf, -0.0]
    return score


def choices(results, short):
    for (constants,), (last,) in ((constants_of("rank"), constants_of("chosen")),):
        for heads, n, k in ((1, 1, 1), (3, 65, 64), (2, 1500, 700), (1, 2049, 2049), (1, 600, 0)):
            if not (results.wants("rank") or results.wants("chosen")):
                continue
            score = np.stack([uneven(seeded("rank", head, n, k), n) for head in range(heads)])
            place, kept = View("i32", (heads, n), before=1), View("i32", (heads, k), before=1)
            scores = View("f32", (heads, n), score, before=1)
            launch("rank", "f32", constants, (cdiv(n, constants["BN"]), heads), SCORES=scores, RANK=place, n=n)
            order = [references.best(one, n) for one in score]
            results.note("rank", "f32", f"{heads, n}", place.read(), [np.argsort(one) for one in order])
            launch("chosen", "f32", last, (cdiv(n, last["BN"]), heads), RANK=place, OUT=kept, n=n, k=k)
            results.note("chosen", "f32", f"{heads, n, k}", kept.read(), [np.sort(one[:k]) for one in order])


def ranks(results, short):
    if not (results.wants("top_k") or results.wants("top_k_merge")):
        return
    (constants,), (merge,) = constants_of("top_k"), constants_of("top_k_merge")
    for n, k in ((1, 1), (1000, 7), (5000, 1), (3000, 500), (70000, 64)) if not short else ((3000, 500),):
        score = uneven(seeded("top_k", n, k), n)
        programs = cdiv(n, constants["BN"])
        keys = View("i64", (programs * k,))
        launch("top_k", "f32", constants, (programs,), SCORES=View("f32", (n,), score), OUT=keys, n=n, k=k)
        for program, got in enumerate(keys.read().reshape(programs, k)):
            begin = program * constants["BN"]
            expected = begin + references.best(score[begin : begin + constants["BN"]], k)
            got = references.indices(got)
            results.note("top_k", "f32", f"{n, k} program {program}", got[: len(expected)], expected)
            assert (got[len(expected) :] >= n).all(), "something behind the last score"
        while keys.shape[0] > k:
            programs = cdiv(keys.shape[0], merge["BN"])
            merged = View("i64", (programs * k,))
            launch("top_k_merge", "f32", merge, (programs,), IN=keys, OUT=merged, n=keys.shape[0], k=k)
            keys = merged
        expected = references.best(score, k)
        results.note("top_k_merge", "f32", f"{n, k}", references.indices(keys.read())[: len(expected)], expected)


# --- the server ------------------------------------------------------------------------------------


def server():
    """One launch through the pipe, and one that must be refused; the answers as from `launch` itself."""
    import json
    import struct

    (constants,) = constants_of("join_lse")
    lse = seeded("server").standard_normal((2, 300)).astype(np.float32)
    request = {
        "kernel": "join_lse", "dtype": "f32", "constants": constants, "grid": [2, 1, 1],
        "args": [{"buffer": 0, "offset": 0}, {"buffer": 1, "offset": 10}, {"i32": 2}, {"i32": 300}],
        "buffers": [{"dtype": "f32", "elements": 600, "written": False}, {"dtype": "f32", "elements": 310, "written": True}],
    }

    def packed(request, *buffers):
        text = json.dumps(request).encode()
        return struct.pack("<I", len(text)) + text + b"".join(b.tobytes() for b in buffers)

    out = np.zeros(310, np.float32)
    request_short = {**request, "args": [*request["args"][:3], {"i32": 301}]}
    sent = packed(request, lse, out) + packed(request_short, lse, out) + packed(request, lse, out)
    path = Path(__file__).with_name("serve.py")
    got = subprocess.run([sys.executable, str(path)], input=sent, stdout=subprocess.PIPE, check=True).stdout
    view = np.frombuffer(got, np.float32, 310, 4)
    assert got[:4] == b"\0\0\0\0" and (view[:10] == 0).all(), got[:40]
    assert np.allclose(view[10:], references.join_lse(lse.astype(np.float64)), atol=1e-6)
    size = struct.unpack_from("<I", got, 4 + 1240)[0]
    assert b"Strayed" in got[1248 : 1248 + size], got[1248 : 1248 + size]
    assert got[1248 + size :] == got[:1244]
    print("serve.py: a launch answered, a stray one refused, another answered")


SUBJECTS = (
    functools.partial(attention, kernels=("attend",)),
    functools.partial(attention, kernels=("scores", "mass")),
    joins, turning, rows, pointwise, ranks, choices,
)


def part(subject, only, short):
    results = Results(only)
    subject(results, short)
    return results.found


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--short", action="store_true", help="fewer sizes")
    options.add_argument("--only", metavar="KERNEL")
    options.add_argument("--device", metavar="FOLDER", nargs="?", const=KERNELS, help="on a GPU")
    options = options.parse_args()
    if options.device:
        from device import Kernels

        global device
        device = Kernels(options.device)
    begun = time.monotonic()
    results = Results(options.only)
    if device:
        for subject in SUBJECTS:
            subject(results, options.short)
    else:
        with concurrent.futures.ProcessPoolExecutor() as pool:
            parts = [pool.submit(part, subject, options.only, options.short) for subject in SUBJECTS]
            for one in parts:
                results.found.update(one.result())
    green = results.show()
    if options.only is None and device is None:
        server()
    print(f"{'all right' if green else 'WRONG'}, {time.monotonic() - begun:.0f} s")
    sys.exit(not green)


if __name__ == "__main__":
    main()
