# SPDX-License-Identifier: MPL-2.0
"""The engine and transformers on the same checkpoint, in turn: medians, ratios, a table.

    python tools/peers/run.py --bench target/debug/examples/bench --model DIR --short DIR

run.sh makes what this needs and runs it. --short is the same decoder behind a tower of one layer:
a question over 64 frames costs the same behind either, and filling the engine's stream does not take
minutes. Both peers stay loaded and answer when asked (peer.py); the engine is started anew each round,
and its loading is not counted. No two of them compute at the same time.
"""

import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

import report

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
PAGE, DATA = ROOT / "docs/benchmarks.md", ROOT / "docs/data/peers.json"
TORCH = ["f32", "bf16"]
ENGINE = ["f32", "auto"]
# How far ReKV's loop may be from transformers where both see everything, in f32.
SAME = 1e-3
# Other jobs on the machine: more than this and the figures are theirs too.
QUIET = 0.5


class Peer:
    """peer.py as a process."""

    def __init__(self, folder, dtype):
        self.dtype = dtype
        command = [sys.executable, HERE / "peer.py", "--model", folder, "--dtype", dtype]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.about = self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"run.py: the peer in {self.dtype} ended with status {self.process.wait()}")
        return json.loads(line)

    def __call__(self, do, **arguments):
        self.process.stdin.write(json.dumps(dict(arguments, do=do)) + "\n")
        self.process.stdin.flush()
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def engine(args, folder, dtype, stored, repeat, tokens):
    """The rows of examples/bench by name, and what it says about itself."""
    with tempfile.TemporaryDirectory() as place:
        out = pathlib.Path(place) / "bench.json"
        command = [args.bench, "--model", folder, "--dtype", dtype, "--method", "rekv", "--chunk", args.chunk,
                   "--stored", stored, "--repeat", repeat, "--tokens", tokens, "--json", out]  # fmt: skip
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"run.py: {shlex.join(map(str, command))}\n{done.stdout}{done.stderr}")
        found = json.loads(out.read_text())
    rows = {row["what"]: row["value"] for row in found["rows"]}
    for what in ["ingest", "decode", "first token"]:
        if what not in rows:
            sys.exit(f"run.py: the engine measured no {what}: {'; '.join(found['notes'])}")
    return rows, found["about"]


class Seconds:
    """Seconds of every round by work and by who did it."""

    def __init__(self):
        self.all = {}

    def add(self, work, who, seconds):
        self.all.setdefault(work, {}).setdefault(who, []).append(seconds)
        print(f"    {report.WORKS[work]:<44} {who:<14} {seconds:8.4f} s", flush=True)


def frames_and_tokens(args, seconds, about):
    peers = [Peer(args.model, dtype) for dtype in TORCH]
    about["peers"] = {peer.dtype: peer.about for peer in peers}
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", flush=True)
        # The first chunk warms up, everywhere.
        for dtype, peer in zip(ENGINE, peers):
            rows, told = engine(args, args.model, dtype, args.chunk * (1 + args.chunks), args.chunks, args.tokens + 1)
            about["engine"][dtype] = told["weights in"].lower()
            about["processor"] = told["processor"]
            seconds.add("frame", f"engine {dtype}", 1 / rows["ingest"])
            seconds.add("token", f"engine {dtype}", 1 / rows["decode"])
            peer("reset")
            peer("frames", count=args.chunk, chunk=args.chunk)
            took = peer("frames", count=args.chunk * args.chunks, chunk=args.chunk)["seconds"]
            seconds.add("frame", f"torch {peer.dtype}", statistics.median(took))
            seconds.add("token", f"torch {peer.dtype}", peer("decode", tokens=args.tokens)["seconds"])
    for peer in peers:
        peer.close()


def questions(args, seconds, about):
    peers = [Peer(args.short, dtype) for dtype in TORCH]
    about["loop against stock"] = peers[0]("check", frames=3)["error"]
    if not about["loop against stock"] < SAME:
        sys.exit(f"run.py: ReKV's loop is {about['loop against stock']:.1e} off what transformers computes")
    more = args.chunk * (1 + args.chunks)
    for peer in peers:
        # The last frames come as frames do, so that as many are stored when it is asked.
        peer("open", stored=args.stored - more, more=more)
        peer("push", count=args.chunk, chunk=args.chunk)
        took = peer("push", count=args.chunk * args.chunks, chunk=args.chunk)["seconds"]
        seconds.add("behind", f"loop {peer.dtype}", statistics.median(took))
        peer("ask", count=1)
    # The engine's stream is long in the making, so its questions come in one go, between the peers'.
    for number in range(args.question_rounds):
        print(f"questions {number + 1} of {args.question_rounds}", flush=True)
        for peer in peers:
            found = peer("ask", count=args.asks)
            about["context"]["loop"] = found["context"]
            seconds.add("question", f"loop {peer.dtype}", statistics.median(found["seconds"]))
        rows, _ = engine(args, args.short, "auto", args.stored, args.asks, 2)
        about["context"]["engine"] = round(rows["context of a layer"])
        seconds.add("behind", "engine auto", 1 / rows["ingest"])
        seconds.add("question", "engine auto", rows["first token"] / 1e3)
    for peer in peers:
        seconds.add("question", f"loop {peer.dtype}", statistics.median(peer("ask", count=args.asks)["seconds"]))
        peer.close()


def instructions():
    """Those of the processor that matrix products may use."""
    of_interest = ["avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"]
    try:
        has = pathlib.Path("/proc/cpuinfo").read_text().partition("\nflags")[2].partition("\n")[0].split()
    except OSError:
        has = []
    return [name for name in of_interest if name in has]


def revision():
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return git.stdout.strip() or "unknown"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", type=pathlib.Path, required=True, help="examples/bench, built")
    parser.add_argument("--model", type=pathlib.Path, help="a checkpoint of LLaVA-OneVision")
    parser.add_argument("--short", type=pathlib.Path, help="the same behind a tower of one layer; else the same")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=1, help="frames that are handed over together")
    parser.add_argument("--chunks", type=int, default=1, help="chunks of a round that count")
    parser.add_argument("--tokens", type=int, default=16, help="tokens of an answer")
    parser.add_argument("--stored", type=int, default=64, help="frames that a question looks up")
    parser.add_argument("--question-rounds", type=int, default=1)
    parser.add_argument("--asks", type=int, default=3, help="questions of a round, of which the median is taken")
    parser.add_argument("--quick", action="store_true", help="a tiny model: tries this out, and measures nothing")
    parser.add_argument("--json", type=pathlib.Path, help="where the figures go; else nowhere")
    parser.add_argument("--page", action="store_true", help=f"renew {PAGE.name} and {DATA.name}")
    args = parser.parse_args()
    if args.quick:
        args.model, args.rounds, args.stored = ROOT / "tests/fixtures/ov-even", 2, 8
    if args.quick and args.page:
        parser.error("--quick measures nothing that a page could show")
    if not args.model:
        parser.error("--model or --quick is needed")
    args.short = args.short or args.model
    for path in [args.bench, args.model, args.short]:
        if not path.exists():
            parser.error(f"{path} does not exist")
    if args.stored < args.chunk * (1 + args.chunks):
        parser.error("--stored is less than the chunks of a round")

    load, began = os.getloadavg()[0], time.monotonic()
    about = dict(model=args.model.name, revision=revision(), load=load, engine={}, context={}, date=time.strftime("%F"))
    about["instructions"] = instructions()
    about |= {name: getattr(args, name) for name in ["rounds", "chunk", "chunks", "tokens", "stored", "asks", "quick"]}
    print(f"load average {load:.2f}", flush=True)
    if load > QUIET:
        print(f"warning: other jobs are running (a load over {QUIET}); the figures say little", file=sys.stderr)
    seconds = Seconds()
    frames_and_tokens(args, seconds, about)
    questions(args, seconds, about)
    about["minutes"] = (time.monotonic() - began) / 60

    found = report.figures(about, seconds.all)
    print()
    print(report.table(found))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    if args.page:
        DATA.write_text(json.dumps(found, indent=1) + "\n")
        report.renew(PAGE, report.table(found))


if __name__ == "__main__":
    main()
