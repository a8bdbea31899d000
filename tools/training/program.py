# SPDX-License-Identifier: MPL-2.0
"""Reads what the program of a world writes: frames and streams through a pipe."""

import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

# The seed ranges of every world.
TRAIN, VALIDATION, TEST, END = 0, 1_000_000_000, 2_000_000_000, 3_000_000_000


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


@dataclass(frozen=True)
class Program:
    """The binary of a world: $NAME, or where cargo puts it.

    A record is `labels` bytes, then a frame of `size` x `size` RGB. Training draws from `first` on.
    """

    name: str
    size: int
    labels: int
    first: int = TRAIN

    def path(self) -> str:
        here = os.path.dirname(os.path.abspath(__file__))
        built = os.path.join(here, "../../target/release", self.name)
        return os.environ.get(self.name.upper(), built)

    def start(self, *arguments: object) -> subprocess.Popen:
        command = [self.path(), *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=1 << 20)

    def run(self, *arguments: object) -> str:
        command = [self.path(), *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def records(
        self, batch: int, *arguments: object
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(frames [n, size, size, 3] u8, labels [n, labels] i64) from `vision` or `pool`."""
        length = self.labels + self.size * self.size * 3
        process = self.start(*arguments, "--size", self.size)
        try:
            while data := process.stdout.read(batch * length):
                records = np.frombuffer(data, np.uint8).reshape(-1, length)
                labels = torch.from_numpy(records[:, : self.labels].astype(np.int64))
                rgb = records[:, self.labels :].reshape(-1, self.size, self.size, 3)
                yield torch.from_numpy(rgb.copy()), labels
        finally:
            process.kill()
            process.wait()

    def streams(self, *arguments: object) -> Iterator[Stream]:
        """Streams over a pool, from `streams`."""
        process = self.start("streams", *arguments)
        try:
            for line in process.stdout:
                record = json.loads(line)
                yield Stream(record["frames"], [Question(*q) for q in record["questions"]])
        finally:
            process.kill()
            process.wait()
