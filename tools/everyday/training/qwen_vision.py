# SPDX-License-Identifier: MPL-2.0
"""Stage 1 of `models/everyday-qwen`: the tower, by what the tower of `models/everyday` sees of both frames of a unit,
and by their labels."""

import os
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import world
from heads import NONE, Heads
from qwen_world import PROGRAM, SHAPE
from training import ranks, vision
from training.qwen import pool, tower
from training.shape import FEATURE_RMS, vision_parts
from training.words import QWEN, empty_tokenizer

SIDE = 4
LIKE_TEACHER, PLACE = 4.0, 0.5
# Shares of units that are a frame with itself, and a frame with one from elsewhere in the pool.
ALONE, ELSEWHERE = 0.15, 0.15


@dataclass
class Told:
    """Of both frames of each unit: labels [n, 2, 50], and the teacher's tokens [n, 2, 16, c]."""

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
        return (
            self.labels.loss(cells.flatten(0, 1), told.labels.flatten(0, 1))
            + LIKE_TEACHER * F.mse_loss(cells, told.teacher)
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
        labels = torch.from_numpy(self.labels[both]).long()
        # There are no shape and colour of `easy-vqa` here.
        labels = torch.cat([labels, torch.full((*both.shape, 2), NONE)], -1)
        teacher = torch.from_numpy(self.teacher[both]).float() / FEATURE_RMS
        return torch.from_numpy(self.pixels[both]), Told(labels, teacher)


class Trainer(vision.Trainer):
    def held(self):
        held = Pool(os.path.join(self.arguments.run, "held"))
        first = np.arange(0, len(held.pixels) - 1, 2)
        return held.units(first, first + 1)

    def drawn(self):
        known = Pool(self.arguments.run)
        rng = np.random.default_rng((self.seed, self.arguments.rank))
        while True:
            first = rng.integers(0, len(known.pixels) - 1, self.arguments.batch)
            how = rng.random(len(first))
            second = np.where(how < ALONE, first, first + 1)
            other = rng.integers(0, len(known.pixels), len(first))
            yield known.units(first, np.where(how > 1 - ELSEWHERE, other, second))

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
