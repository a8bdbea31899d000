# SPDX-License-Identifier: MPL-2.0
"""Stage 2 of `models/everyday-qwen`: the language model, on the answers alone."""

from functools import partial

import torch
import world
from lm import KIND_WEIGHTS
from qwen_world import ODD_SEEDS, PROGRAM, SHAPE, tokenizer
from training import lm, ranks
from training.batches import batches
from training.qwen import pool
from training.qwen.reader import Reader, Seen, halves, see
from training.shape import vision_parts
from training.words import QWEN
from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration

# Of so many batches, the last asks after an odd number of frames, and shows one frame alone: such a one costs more.
ODD_EVERY = 3

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
        """Starts where `models/everyday` ended. What it knows of words, and of tokens like its own (`qwen_encode.py`
        turns ours that way), is not learned again; where things stand and what two frames at once look like is."""
        teacher = self.arguments.teacher
        load = LlavaOnevisionForConditionalGeneration.from_pretrained
        state = load(teacher, dtype=torch.float32).model.language_model.state_dict()
        words = state.pop("embed_tokens.weight")
        missing, unknown = self.reader.text.load_state_dict(state, strict=False)
        assert missing == ["embed_tokens.weight"] and not unknown, (missing, unknown)
        known = AutoTokenizer.from_pretrained(teacher).get_vocab()
        embed = self.reader.text.embed_tokens.weight
        for token, own in self.tokenizer.get_vocab().items():
            if token in known:
                embed[own] = words[known[token]]


def our_world() -> lm.World:
    return lm.World(PROGRAM, SHAPE, tokenizer(), world.POOL, KIND_WEIGHTS, QWEN)


def work(arguments):
    Trainer(arguments).train()


def main():
    parser = lm.parser(__doc__, embedding_lr=0.2)
    parser.add_argument("--teacher", required=True, help="the folder of models/everyday")
    arguments = parser.parse_args()
    ranks.run(arguments, work)


if __name__ == "__main__":
    main()
