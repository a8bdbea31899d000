# SPDX-License-Identifier: MPL-2.0
"""Stage 2 of `models/toyworld-plain`: the language model on the answers alone.

Every question looks at the whole video before it, as most published Video-LLMs are trained: no window, no
retrieved part, no loss on what is found. What such a model makes of a memory is no merit of its training.
"""

from lm import our_world
from training import lm, ranks


class Trainer(lm.Trainer):
    def batch_size(self, frames: int) -> int:
        """More steps teach more than fuller ones."""
        return self.arguments.streams

    def training(self, stage):
        return self.batches(self.first_seed(), stage.frames, 2)


def work(arguments):
    Trainer(arguments, our_world(arguments.scenes)).train()


def main():
    parser = lm.parser(
        __doc__, minutes=15, curriculum="4:0.04,8:0.1,16:0.18,32:1", streams=8, questions=14, every=250,
        validation=48,
    )  # fmt: skip
    parser.add_argument("--scenes", type=int, default=40000, help="in the pool")
    ranks.run(parser.parse_args(), work)


if __name__ == "__main__":
    main()
