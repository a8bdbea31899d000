# SPDX-License-Identifier: MPL-2.0
"""Compiles `attend` with many tile sizes, warps and stages and, on a GPU, finds the fastest.

    python tools/kernels/sweep.py [--shape prefill|decode|tower|small] [--quick] [--best FILE]

Needs Triton, and PyTorch to measure: each variant must agree with PyTorch's attention in bf16 before
it is timed (CUDA events, the median of 20). Prints a table and then, as one line of JSON, the changes
to variants.py; --best writes them where STREAMKVQA_VARIANTS can name them. Without a GPU it prints
what compiles, and what ptxas makes of it.
"""

import argparse
import concurrent.futures
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile

import build
import device
import variants

LOG2E = 1.4426950408889634
FAR = 1 << 30

# Query heads, KV heads, rows, keys, head dim, and the splits that are tried: in decoding they are what fills
# the GPU, in prefill they even out its last wave of blocks.
SHAPES = {
    # 7B, ten frames of 196 tokens behind a window of 15,000.
    "prefill": dict(H=28, Hk=4, Lq=1960, Lk=15000, D=128, window=True, splits=(1, 2, 3)),
    # 7B, one token over 64 retrieved frames, a prompt and a question.
    "decode": dict(H=28, Hk=4, Lq=1, Lk=12744, D=128, window=True, splits=(16, 33, 66, 99)),
    # SigLIP, eight frames.
    "tower": dict(H=128, Hk=128, Lq=729, Lk=729, D=72, window=False, splits=(1,)),
    # 0.5B, ten frames.
    "small": dict(H=14, Hk=2, Lq=1960, Lk=15000, D=64, window=True, splits=(1,)),
}


def settings(shape, quick):
    """Variants for a shape; one in `quick`: what variants.py has."""
    dim = shape["D"]
    head = dict(DP=128 if dim > 64 else 64, EVEN=int(dim in (64, 128)))
    few = shape["H"] // shape["Hk"] * shape["Lq"] <= 16
    if quick:
        for v in variants.variants():
            constants = dict(v.constants)
            if v.kernel == "attend" and v.dtype == "bf16" and (constants["BM"] == 16) == few and head.items() <= constants.items():
                yield v
        return
    tiles = (16,) if few else (64, 128)
    for bm, bn, warps, stages, peel in itertools.product(tiles, (32, 64, 128), (4, 8), (2, 3, 4), (0, 1)):
        if few and peel or warps * 16 > bm and not few or bm == 128 and warps == 4:
            continue
        if (bm + 2 * bn * stages) * head["DP"] * 2 > 227 * 1024:
            continue
        tile = dict(BM=bm, BN=bn, PEEL=peel, EDGE=1 if peel else stages)
        yield variants.variant("attend", "bf16", "80" if few else "90a", warps=warps, stages=stages, **head, **tile)


def compiled(variant):
    try:
        entry, ptx, made = build.build(variant)
        return entry, ptx, made, ""
    except Exception as error:
        return None, None, None, f"{type(error).__name__}: {error}".splitlines()[0]


class Bench:
    """One shape on the device: our launches, and PyTorch's attention for comparison and as the truth."""

    def __init__(self, gpu, shape):
        import torch

        self.torch, self.gpu, self.shape = torch, gpu, shape
        torch.manual_seed(0)
        make = lambda heads, rows: torch.randn(heads, rows, shape["D"], device="cuda", dtype=torch.bfloat16)
        self.q, self.k, self.v = make(shape["H"], shape["Lq"]), make(shape["Hk"], shape["Lk"]), make(shape["Hk"], shape["Lk"])
        self.offset = shape["Lk"] - shape["Lq"] if shape["window"] else FAR
        self.expected = self.sdpa(self.mask())

    def mask(self):
        if not self.shape["window"]:
            return None
        i = self.torch.arange(self.shape["Lq"], device="cuda")[:, None]
        return self.torch.arange(self.shape["Lk"], device="cuda")[None, :] <= i + self.offset

    def sdpa(self, mask=None):
        grouped = self.shape["H"] != self.shape["Hk"]
        attention = self.torch.nn.functional.scaled_dot_product_attention
        return attention(self.q[None], self.k[None], self.v[None], attn_mask=mask, enable_gqa=grouped)[0]

    def launcher(self, entry, ptx, splits):
        s, torch, constants = self.shape, self.torch, entry["constants"]
        function = self.gpu.function(entry, ptx)
        chunk = -(-s["Lk"] // splits)
        rows = -(-s["H"] // s["Hk"] * s["Lq"] // constants["BM"])
        self.out = torch.empty(splits, s["H"], s["Lq"], s["D"], device="cuda")
        self.lse = torch.empty(splits, s["H"], s["Lq"], device="cuda")
        lengths = [s["Lq"] * s["D"], s["D"]] + [s["Lk"] * s["D"], s["D"]] * 2
        pointers = [t.data_ptr() for t in (self.q, self.k, self.v, self.out, self.lse)]
        sizes = [s["Hk"], s["H"], s["Lq"], s["Lk"], s["D"], -FAR, self.offset, 0, chunk]
        values = [*pointers, *lengths, *sizes, s["D"] ** -0.5 * LOG2E]
        return lambda: self.gpu.start(entry, function, (rows, s["Hk"], splits), values)

    def error(self):
        """Of the joined parts, against PyTorch, largest of all."""
        weight = self.torch.softmax(self.lse * (1 / LOG2E), 0)[..., None]
        return ((weight * self.out).sum(0) - self.expected.float()).abs().max().item()

    def time(self, run):
        """Milliseconds, the median of 20 after 3."""
        events = [self.torch.cuda.Event(enable_timing=True) for _ in range(40)]
        for _ in range(3):
            run()
        for begin, end in zip(events[::2], events[1::2]):
            begin.record()
            run()
            end.record()
        self.torch.cuda.synchronize()
        return statistics.median(begin.elapsed_time(end) for begin, end in zip(events[::2], events[1::2]))

    def pairs(self):
        """Query-key pairs that are seen, of all heads."""
        s = self.shape
        whole = s["Lq"] * s["Lk"]
        return s["H"] * (whole - s["Lq"] * (s["Lq"] - 1) // 2 if s["window"] else whole)


def find_gpu():
    try:
        import torch  # noqa: F401

        return device.Device(), ""
    except (ImportError, device.NoDevice) as error:
        return None, str(error)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--shape", choices=SHAPES, action="append")
    options.add_argument("--quick", action="store_true", help="only what variants.py has")
    options.add_argument("--best", metavar="FILE")
    options = options.parse_args()
    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
    gpu, why = find_gpu()
    if gpu is None:
        print(f"no GPU ({why}): compiles only")
    best = []
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            for name in options.shape or SHAPES:
                best += sweep(name, SHAPES[name], options.quick, gpu, pool)
    if gpu is not None:
        print(json.dumps(best))
        if options.best:
            with open(options.best, "w") as file:
                json.dump(best, file, indent=2)


def sweep(name, shape, quick, gpu, pool):
    """Prints a shape's table; gives the change to variants.py that the fastest one is."""
    chosen = list(settings(shape, quick))
    print(f"\n{name}: {shape}")
    bench = Bench(gpu, shape) if gpu else None
    if bench:
        sdpa = bench.time(bench.sdpa)
        print(f"  PyTorch, nothing masked {sdpa:8.3f} ms")
    fastest, winner = None, None
    for variant, (entry, ptx, made, wrong) in zip(chosen, pool.map(compiled, chosen)):
        label = f"  {variant.arch:3} " + " ".join(f"{k} {v:<3}" for k, v in variant.constants if k not in ("DP", "EVEN"))
        label += f" warps {variant.warps} stages {variant.stages}"
        if wrong:
            print(f"{label}  {wrong}")
            continue
        label += f"  {made['registers']:3} registers {made['spilled']:5} spilled {entry['shared']:6} shared"
        if bench is None or not gpu.runs(variant.arch):
            print(label)
            continue
        for splits in shape["splits"]:
            try:
                run = bench.launcher(entry, ptx, splits)
                run()
                error, took = bench.error(), bench.time(run)
            except RuntimeError as failed:
                print(f"{label}  {failed}")
                break
            rate = 4 * bench.pairs() * shape["D"] / took / 1e9
            bytes_ = 2 * 2 * shape["Hk"] * shape["Lk"] * shape["D"] / took / 1e6
            verdict = "" if error < 2e-2 else "  WRONG"
            print(f"{label}  splits {splits:2} {took:8.3f} ms {rate:6.0f} TFLOP/s {bytes_:6.0f} GB/s error {error:.1e}{verdict}", flush=True)
            if not verdict and (fastest is None or took < fastest):
                fastest, winner = took, variant
    if winner is None:
        return []
    constants = dict(winner.constants)
    of = {"kernel": "attend", "arch": winner.arch, "DP": constants["DP"], "EVEN": constants["EVEN"]}
    # The variants that are there: 16 rows for decoding, 128 otherwise.
    of["BM"] = 16 if constants["BM"] == 16 else 128
    tile = {key: constants[key] for key in ("BM", "BN", "PEEL", "EDGE")}
    return [{"of": of, "set": {**tile, "warps": winner.warps, "stages": winner.stages}}]


if __name__ == "__main__":
    sys.exit(main())
