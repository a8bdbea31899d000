# SPDX-License-Identifier: MPL-2.0
"""Reads what the `toyworld` binary writes: frames and streams through a pipe."""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

SIZE = 56
FRAMES_PER_SCENE = 5
LABELS = 4
RECORD = LABELS + SIZE * SIZE * 3

# The seed ranges of src/seeds.rs.
TRAIN, VALIDATION, TEST = 0, 1_000_000_000, 2_000_000_000

# The classes of each head, "nothing" included, and the label that means "no single name".
HEADS = {"color": 9, "shape": 7, "place": 6, "background": 4}
UNLABELLED = 255


def binary() -> str:
    """The toyworld program: $TOYWORLD, or where cargo puts it."""
    here = os.path.dirname(os.path.abspath(__file__))
    return os.environ.get("TOYWORLD", os.path.join(here, "../../../target/release/toyworld"))


def start(*arguments: object) -> subprocess.Popen:
    command = [binary(), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=1 << 20)


def run(*arguments: object) -> str:
    command = [binary(), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def pixels(rgb: np.ndarray) -> torch.Tensor:
    """Bytes [n, size, size, 3] to what the processor yields: (x / 255 - 0.5) / 0.5, channels first."""
    return torch.from_numpy(rgb).permute(0, 3, 1, 2).float().mul_(2 / 255).sub_(1)


def ahead(items: Iterator, depth: int = 6) -> Iterator:
    """Reads ahead in a thread, so that painting and learning overlap."""
    waiting: queue.Queue = queue.Queue(depth)
    end = object()

    def read():
        for item in items:
            waiting.put(item)
        waiting.put(end)

    threading.Thread(target=read, daemon=True).start()
    while (item := waiting.get()) is not end:
        yield item


def frame_batches(batch: int, *arguments: object) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(pixel values, labels [n, 4]) from `toyworld vision` or `toyworld pool`."""
    process = start(*arguments)
    try:
        while data := process.stdout.read(batch * RECORD):
            records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
            labels = torch.from_numpy(records[:, :LABELS].astype(np.int64))
            yield pixels(records[:, LABELS:].reshape(-1, SIZE, SIZE, 3).copy()), labels
    finally:
        process.kill()
        process.wait()


@dataclass
class Question:
    kind: str
    text: str
    answer: str
    after: int
    relevant: list[list[int]]


@dataclass
class Stream:
    frames: list[int]
    questions: list[Question]


def streams(*arguments: object) -> Iterator[Stream]:
    """Streams over a pool, from `toyworld streams`."""
    process = start("streams", *arguments)
    try:
        for line in process.stdout:
            record = json.loads(line)
            yield Stream(record["frames"], [Question(*q) for q in record["questions"]])
    finally:
        process.kill()
        process.wait()
