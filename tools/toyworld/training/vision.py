# SPDX-License-Identifier: MPL-2.0
"""Stage 1: vision tower and projector, by four linear heads on every pooled token."""

import os

import world
from heads import Heads
from training import ranks, vision
from training.shape import vision_parts
from training.words import empty_tokenizer


def work(arguments):
    parts = vision_parts(world.SHAPE.build(empty_tokenizer()))
    heads = Heads(world.SHAPE.width)
    vision.Trainer(arguments, world.PROGRAM, parts, heads).train()


def main():
    arguments = vision.parser(__doc__, minutes=25, ranks_=1).parse_args()
    os.makedirs(arguments.run, exist_ok=True)
    ranks.run(arguments, work)


if __name__ == "__main__":
    main()
