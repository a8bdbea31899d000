# SPDX-License-Identifier: MPL-2.0
"""Stage 1 of `models/everyday-qwen`: the tower, by the labels of both frames of a unit, and by what the tower of
`models/everyday` sees of them.

Labels are those of fresh pictures alone: the pool is so small that its labels are learned by heart (right for 0.99
of its near things, and for 0.79 of others). What the other tower says of it is not.
"""

import os
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F
import world
from heads import NONE, Heads
from qwen_world import PROGRAM, SHAPE
from training import ranks, vision
from training.program import TRAIN, VALIDATION
from training.qwen import pool, tower
from training.shape import FEATURE_RMS, vision_parts
from training.words import QWEN, empty_tokenizer

SIDE = 4
LIKE_TEACHER, PLACE = 4.0, 0.5
# Of a batch, so much is units of the pool; half of the rest is two frames in a row of fresh cameras, the other half
# single shots, with themselves or with each other.
FROM_POOL = 0.25
ALONE = 0.3
# Fresh cameras that are painted in one go, and frames of them that are at hand at a time.
CAMERAS, AT_HAND = 64, 4096


@dataclass
class Told:
    """What is told of both frames of units: the teacher's tokens [m, 2, 16, c] of the first ones, labels
    [n, 2, 52] of the last ones."""

    labels: torch.Tensor
    teacher: torch.Tensor


class UnitHeads(torch.nn.Module):
    """Cells of both frames, read from tokens by linear maps; thrown away after this stage.

    Three rows of tokens lie over four rows of cells: a cell is read from the one or two that may know it.
    """

    def __init__(self, width: int):
        super().__init__()
        self.above = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(2 * SIDE))
        self.below = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(2 * SIDE))
        self.place = torch.nn.Linear(width, SHAPE.tokens_per_unit)
        self.labels = Heads(width)

    def cells(self, tokens: torch.Tensor) -> torch.Tensor:
        """[n, 12, c] to [n, 2, 16, c]"""
        rows = tokens.unflatten(1, SHAPE.grid)
        last = SHAPE.grid[0] - 1
        found = [
            self.above[number](rows[:, max(0, number % SIDE - 1)])
            + self.below[number](rows[:, min(last, number % SIDE)])
            for number in range(2 * SIDE)
        ]
        return torch.stack(found, 1).view(len(tokens), 2, SIDE * SIDE, -1)

    def loss(self, tokens: torch.Tensor, told: Told) -> torch.Tensor:
        cells = self.cells(tokens)
        place = torch.arange(SHAPE.tokens_per_unit).expand(len(tokens), -1)
        own = F.cross_entropy(self.place(tokens).flatten(0, 1), place.flatten())
        labelled = cells[-len(told.labels) :]
        return (
            self.labels.loss(labelled.flatten(0, 1), told.labels.flatten(0, 1))
            + LIKE_TEACHER * F.mse_loss(cells[: len(told.teacher)], told.teacher)
            + PLACE * own
        )

    @torch.no_grad()
    def report(self, tokens: torch.Tensor, told: Told) -> str:
        cells = self.cells(tokens)
        unlike = F.mse_loss(cells, told.teacher).item()
        known = told.labels[..., : 3 * SIDE * SIDE + 2]
        lines = [self.labels.report(cells[:, n], known[:, n]) for n in range(2)]
        return f"unlike {unlike:.3f}\n    first: {lines[0]}\n    second: {lines[1]}"


class Pool:
    """Pixels and what is told of them, by numbers of frames."""

    def __init__(self, run: str):
        self.pixels = pool.read(run, "pixels.u8", np.uint8, *SHAPE.picture, 3)
        self.labels = pool.read(run, "labels.u8", np.uint8, world.PROGRAM.labels)
        self.teacher = pool.read(run, "teacher.f16", np.float16, SIDE * SIDE, SHAPE.width)

    def units(self, first: np.ndarray, second: np.ndarray) -> tuple[torch.Tensor, Told]:
        both = np.stack([first, second], 1)
        labels = full(torch.from_numpy(self.labels[both]).long())
        teacher = torch.from_numpy(self.teacher[both]).float() / FEATURE_RMS
        return torch.from_numpy(self.pixels[both]), Told(labels, teacher)


def full(labels: torch.Tensor) -> torch.Tensor:
    """There are no shape and colour of `easy-vqa` here."""
    return torch.cat([labels, torch.full((*labels.shape[:-1], 2), NONE)], -1)


def painted(count: int, *command: object):
    """Pixels [count, ...] and labels [count, 52]"""
    for squares, labels in PROGRAM.records(count, *command):
        yield pool.resized(squares, SHAPE.picture).contiguous(), full(labels)


def cameras(seed: int, count: int):
    """Endless frames of one fresh camera after the other."""
    while True:
        yield from painted(count, "pool", "--seed", seed, "--cameras", CAMERAS)
        seed += CAMERAS


def filmed(seed: int, count: int, rng):
    """Endless batches of two frames in a row: pixels [count, 2, ...] and labels [count, 2, 52]. Each frame is met
    twice on average."""
    frames = cameras(seed, count)
    pixels, labels = map(torch.cat, zip(*islice(frames, AT_HAND // count)))
    place = 0
    for new in frames:
        # A ring: the newest frames take the place of the oldest.
        at = (place + torch.arange(len(new[1]))) % len(pixels)
        pixels[at], labels[at] = new
        place = int(at[-1]) + 1
        first = torch.from_numpy(rng.integers(0, len(pixels), count))
        both = torch.stack([first, (first + 1) % len(pixels)], 1)
        yield pixels[both], labels[both]


def shot(seed: int, count: int, rng):
    """The same of single shots, each with itself or with any other."""
    for pixels, labels in painted(2 * count, "vision", "--seed", seed):
        first, second = torch.arange(count), torch.arange(count, 2 * count)
        alone = torch.from_numpy(rng.random(count) < ALONE)
        both = torch.stack([first, torch.where(alone, first, second)], 1)
        yield pixels[both], labels[both]


class Trainer(vision.Trainer):
    def held(self):
        held = Pool(os.path.join(self.arguments.run, "held"))
        first = np.arange(0, len(held.pixels) - 1, 2)
        return held.units(first, first + 1)

    def drawn(self):
        known = Pool(self.arguments.run)
        first_seed = self.first_seed()
        rng = np.random.default_rng(first_seed)
        taught = round(FROM_POOL * self.arguments.batch)
        in_a_row = (self.arguments.batch - taught) // 2
        singles = self.arguments.batch - taught - in_a_row
        rows, shots = filmed(first_seed, in_a_row, rng), shot(first_seed, singles, rng)
        while True:
            first = rng.integers(0, len(known.pixels) - 1, taught)
            pixels, told = known.units(first, first + 1)
            fresh = [next(rows), next(shots)]
            told.labels = torch.cat([labels for _, labels in fresh])
            yield torch.cat([pixels, *(pixels for pixels, _ in fresh)]), told

    def first_seed(self) -> int:
        """Ranks are far apart, so that none sees what another has seen."""
        return self.seed + self.arguments.rank * (VALIDATION - TRAIN) // self.arguments.ranks

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return tower.encode(self.parts, pixels)


def work(arguments):
    parts = vision_parts(SHAPE.build(empty_tokenizer(QWEN)))
    heads = UnitHeads(SHAPE.width)
    torch.manual_seed(arguments.rank)
    Trainer(arguments, PROGRAM, parts, heads).train()


def main():
    arguments = vision.parser(__doc__, minutes=15, ranks_=2).parse_args()
    ranks.run(arguments, work)


if __name__ == "__main__":
    main()
