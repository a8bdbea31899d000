# SPDX-License-Identifier: MPL-2.0
"""Stage 2 of `models/everyday-qwen`: the language model, on the answers alone."""

import os
from functools import partial

import numpy as np
import torch
import world
from lm import KIND_WEIGHTS, name_things
from qwen_world import ODD_SEEDS, PROGRAM, SHAPE, tokenizer
from training import lm, ranks
from training.batches import batches
from training.qwen import pool
from training.qwen.reader import Reader, Seen, halves, see
from training.shape import vision_parts
from training.words import QWEN

# Of so many batches, the last asks after an odd number of frames, and shows one frame alone: such a one costs more.
ODD_EVERY = 3
# Frames of the pool that names are taken from.
NAMED = 16384

make_reader = partial(Reader, grid=SHAPE.grid)


class Trainer(lm.Trainer):
    def __init__(self, arguments):
        super().__init__(arguments, our_world())

    def make_reader(self):
        return make_reader(self.model, self.tokenizer)

    def read_features(self):
        return pool.Units(self.arguments.run, SHAPE, vision_parts(self.model))

    def seen(self, batch) -> Seen:
        return see(batch, self.features)

    def batch_size(self, frames: int) -> int:
        """Rows of short streams are mostly questions, of which here are more."""
        return self.arguments.streams * max(1, min(4, 64 // frames))

    def batches(self, seed: int, frames: int, least: int, *more: object):
        """Of a stream, only the questions of one half are asked at a time: twice as many are drawn."""
        size = self.batch_size(frames)
        make = lambda odd, share, seed: batches(
            size,
            halves(
                self.world.program.streams(
                    *self.world.pool, "--seed", seed, "--frames", frames, "--min-frames", least,
                    "--batch", size, "--questions", round(share * self.arguments.questions), *more,
                ),
                odd,
            ),
            self.speech,
        )  # fmt: skip
        even, odd = make(False, 2, seed), make(True, 1.3, seed + ODD_SEEDS)
        while True:
            for number in range(ODD_EVERY):
                batch = next(odd if number == ODD_EVERY - 1 else even, None)
                if batch is None:
                    return
                yield batch

    @torch.no_grad()
    def begin(self):
        """A thing's name starts where its tokens are: words and pictures need not be brought together first."""
        run = self.arguments.run
        labels = pool.read(run, "labels.u8", np.uint8, world.PROGRAM.labels)
        numbers = np.linspace(0, len(labels) - 1, NAMED).astype(int)
        cells = torch.from_numpy(labels[numbers][:, : 3 * world.CELLS]).long().unflatten(1, (4, 4, 3))
        there = torch.where((cells[..., 2] > 0) & (cells[..., 2] < 255), cells[..., 0], 0)
        number = torch.from_numpy(numbers)
        tokens = self.features(number, number).float().unflatten(1, SHAPE.grid)
        rows = torch.zeros(len(world.nouns()), SHAPE.width)
        for row in range(4):
            near = tokens[:, min(row, SHAPE.grid[0] - 1)] + tokens[:, max(0, row - 1)]
            rows.index_add_(0, there[:, row].flatten(), near.flatten(0, 1))
        count = torch.bincount(there.flatten(), minlength=len(rows)).clamp(min=1)
        rows = rows / count[:, None]
        rows = rows - rows[1:].mean(0)
        name_things(self.reader.text.embed_tokens.weight, self.tokenizer, rows)


def our_world() -> lm.World:
    return lm.World(PROGRAM, SHAPE, tokenizer(), world.POOL, KIND_WEIGHTS, QWEN)


def work(arguments):
    Trainer(arguments).train()


def main():
    arguments = lm.parser(__doc__, embedding_lr=0.2).parse_args()
    ranks.run(arguments, work)


if __name__ == "__main__":
    main()
