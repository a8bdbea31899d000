# SPDX-License-Identifier: MPL-2.0
"""Which variants of which kernel are compiled: the one place for tile sizes, warps and stages.

`sweep.py` measures others on a device and prints what wins; STREAMKVQA_VARIANTS names a file with that
list, to build with it at once:

    [{"of": {"kernel": "attend", "arch": "90a", "DP": 128, "BM": 128}, "set": {"BN": 128, "stages": 2}}, ...]
"""

import dataclasses
import json
import os

HALVES = ("bf16", "f16")
ALL = ("bf16", "f16", "f32")


@dataclasses.dataclass(frozen=True)
class Variant:
    kernel: str
    dtype: str
    """Of *T; "f32" where a kernel has no *T."""
    arch: str
    """ "80": every GPU from 8.0 on; "90a": 9.0 alone, with its wgmma."""
    constants: tuple
    warps: int
    stages: int

    @property
    def name(self):
        """The file's name: all that tells variants apart, in a fixed order."""
        tail = "".join(f"_{key.lower()}{value}" for key, value in self.constants if key not in ("PEEL", "EDGE"))
        return f"{self.kernel}_{self.dtype}_sm{self.arch}{tail}"


def variant(kernel, dtype, arch, warps=4, stages=3, **constants):
    return Variant(kernel, dtype, arch, tuple(constants.items()), warps, stages)


# EVEN = 1 serves heads of DP places alone and masks nothing; EVEN = 0 serves all up to DP.
PEELED = dict(PEEL=1, EDGE=1)


def attention():
    for dtype in HALVES:
        # Prefill. 9.0a: text decoders (128, 64) and vision towers (72, 80).
        yield variant("attend", dtype, "90a", warps=8, DP=128, EVEN=1, BM=128, BN=64, **PEELED)
        yield variant("attend", dtype, "90a", warps=8, DP=128, EVEN=0, BM=128, BN=64, **PEELED)
        yield variant("attend", dtype, "90a", warps=8, DP=64, EVEN=1, BM=128, BN=64, **PEELED)
        yield variant("scores", dtype, "90a", warps=8, DP=128, EVEN=1, BM=128, BN=64, **PEELED)
        yield variant("scores", dtype, "90a", warps=8, DP=64, EVEN=1, BM=128, BN=64, **PEELED)
        yield variant("mass", dtype, "90a", warps=8, DP=128, EVEN=1, BM=64, BN=128, **PEELED)
        yield variant("mass", dtype, "90a", warps=8, DP=64, EVEN=1, BM=64, BN=128, **PEELED)
        for dp in (128, 64):
            yield variant("attend", dtype, "80", warps=8, DP=dp, EVEN=0, BM=128, BN=64, **PEELED)
            yield variant("scores", dtype, "80", warps=8, DP=dp, EVEN=0, BM=128, BN=64, PEEL=0, EDGE=3)
            yield variant("mass", dtype, "80", warps=8, DP=dp, EVEN=0, BM=64, BN=128, PEEL=0, EDGE=3)
        # Decoding: the matrix instructions of 9.0 have no tile of 16 rows, and memory is what it waits for.
        yield variant("attend", dtype, "80", DP=128, EVEN=1, BM=16, BN=64, PEEL=0, EDGE=3)
        yield variant("attend", dtype, "80", DP=128, EVEN=0, BM=16, BN=64, PEEL=0, EDGE=3)
        yield variant("attend", dtype, "80", DP=64, EVEN=0, BM=16, BN=64, PEEL=0, EDGE=3)
    for dp in (128, 64):
        # For comparisons, not for speed.
        tile = dict(DP=dp, EVEN=0, BM=16, BN=16, PEEL=0, EDGE=2)
        for kernel in ("attend", "scores", "mass"):
            yield variant(kernel, "f32", "80", stages=2, **tile)


def joins():
    for dtype in ALL:
        for dp, even in ((128, 1), (128, 0), (64, 0)):
            # The stages of many rows; the splits of one.
            yield variant("join", dtype, "80", DP=dp, BR=16, BP=1, EVEN=even)
            yield variant("join", dtype, "80", DP=dp, BR=1, BP=32, EVEN=even)
    yield variant("join_lse", "f32", "80", BR=256)


def rows():
    for dtype in ALL:
        for dp, even in ((128, 1), (128, 0), (64, 0)):
            for mode in range(4):
                for kernel in ("rotate", "gather_rotate"):
                    yield variant(kernel, dtype, "80", DP=dp, BR=16, EVEN=even, MODE=mode)
            yield variant("gather", dtype, "80", DP=dp, BR=16, EVEN=even)
            yield variant("mean_keys", dtype, "80", DP=dp, BR=32, EVEN=even)


def pointwise():
    for dtype in ALL:
        for bn, warps in ((1024, 4), (4096, 8), (8192, 8)):
            yield variant("add_norm", dtype, "80", warps=warps, BN=bn)
        yield variant("silu_mul", dtype, "80", BN=1024)
        for tanh in (0, 1):
            yield variant("bias_gelu", dtype, "80", BN=1024, TANH=tanh)
        yield variant("not_finite", dtype, "80", BN=1024)
    yield variant("top_k", "f32", "80", warps=8, BN=1024, BC=16)
    yield variant("top_k_merge", "f32", "80", warps=8, BN=1024, BC=16)
    yield variant("rank", "f32", "80", BN=64, BC=64)
    yield variant("chosen", "f32", "80", BN=1024)


def changed(variant, of, set):
    """The variant, with `set` in it where all of `of` is true of it."""
    fields = {**dataclasses.asdict(variant), "constants": None, **dict(variant.constants)}
    if any(fields.get(key) != value for key, value in of.items()):
        return variant
    constants = tuple((key, set.get(key, value)) for key, value in variant.constants)
    rest = {key: value for key, value in set.items() if key in ("warps", "stages")}
    return dataclasses.replace(variant, constants=constants, **rest)


def variants():
    """All of them, in the order of the table."""
    made = [*attention(), *joins(), *rows(), *pointwise()]
    if path := os.environ.get("STREAMKVQA_VARIANTS"):
        with open(path) as file:
            for change in json.load(file):
                made = [changed(variant, **change) for variant in made]
    return made
