# SPDX-License-Identifier: MPL-2.0
"""Stage 2: the language model and `image_newline`, on streams assembled from the encoded pool.

Beside the answers, what a retrieval needs is learned: a loss in every layer, and batches that are
answered from a retrieved part of the video.
"""

from collections import defaultdict

import numpy as np
import torch
import world
from decoder import Plan, decode
from retrieval import choose_tokens, recall, retrieval_loss
from training import lm, ranks
from training.batches import Batch
from training.lm import by_kind, exact

AUXILIARY_WEIGHT = 0.3
# What is learned last counts more.
KIND_WEIGHTS = {"count": 2.0, "before": 2.0, "after": 1.5}
# The recipes the engine will run with: tokens of local window, frames retrieved, newest frames,
# and how many neighbours on either side may come with a retrieved frame.
WINDOW, RETRIEVE, RECENT, AROUND = 32 * world.SHAPE.tokens_per_frame, 16, 4, 4


class Reader(lm.Reader):
    """Reads with a window, or a retrieved part of the video; tells how frames were scored."""

    def forward(self, batch: Batch, features: torch.Tensor, chosen=None, window=None):
        video, questions = self.embedded(batch, features.float())
        prefix, length = len(self.prefix), batch.tokens.shape[-1]
        plan = Plan(video.shape[1], prefix, batch.seen, length, chosen, window)
        return decode(self.text, video, questions, batch.asked, plan)


class Trainer(lm.Trainer):
    def __init__(self, arguments):
        self.rng = np.random.default_rng(arguments.rank)
        super().__init__(arguments, our_world(arguments.scenes))

    def make_reader(self) -> Reader:
        return Reader(self.model, self.tokenizer)

    def batch_size(self, frames: int) -> int:
        return self.arguments.streams

    def training(self, stage):
        return self.batches(self.first_seed(), stage.frames, 6, "--gaps", 0.2)

    def mode(self, batch: Batch) -> dict:
        """How this batch is run: in full, windowed, or answered from a retrieved part."""
        draw = self.rng.random()
        if draw < 0.5:
            return {"window": WINDOW if draw < 0.15 else None}
        keep = 1.0 if self.rng.random() < 0.6 else self.rng.uniform(0.5, 1.0)
        retrieve = int(self.rng.integers(6, RETRIEVE + 1))
        recent = int(self.rng.integers(1, RECENT + 1))
        around = int(self.rng.integers(0, AROUND + 1))
        chosen = choose_tokens(batch, retrieve, recent, keep, around, self.rng)
        return {"window": WINDOW, "chosen": chosen}

    def loss(self, batch: Batch) -> torch.Tensor:
        output = self.reader(batch, self.features[batch.frames], **self.mode(batch))
        answers = self.answer_loss(output.hidden, batch)
        return answers + AUXILIARY_WEIGHT * retrieval_loss(output.scores, batch)

    @torch.no_grad()
    def evaluate(self, validation: list[Batch]) -> str:
        right, found = defaultdict(list), []
        for batch in validation:
            output = self.reader(batch, self.features[batch.frames])
            by_kind(exact(self.reader.logits(output.hidden), batch.target), batch, right)
            found.append(recall(output.scores, batch, 8))
        recalls = " ".join(f"{value:.2f}" for value in np.nanmean(found, axis=0))
        values = " ".join(f"{kind} {np.mean(all):.2f}" for kind, all in sorted(right.items()))
        return f"recall@8 [{recalls}] {values}"


def our_world(scenes: int) -> lm.World:
    pool = ["--pool-seed", world.FIRST_SEED, "--scenes", scenes]
    return lm.World(world.PROGRAM, world.SHAPE, world.tokenizer(), pool, KIND_WEIGHTS)


def work(arguments):
    Trainer(arguments).train()


def main():
    parser = lm.parser(
        __doc__, minutes=105, curriculum="16:0.1,32:0.45,64:1", streams=8, questions=14, every=150,
        validation=48,
    )  # fmt: skip
    parser.add_argument("--scenes", type=int, default=40000, help="in the pool")
    ranks.run(parser.parse_args(), work)


if __name__ == "__main__":
    main()
