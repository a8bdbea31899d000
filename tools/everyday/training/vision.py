# SPDX-License-Identifier: MPL-2.0
"""Stage 1: tower and projector."""

import os

import torch
import world
from heads import Heads
from training import ranks, vision
from training.shape import vision_parts
from training.words import empty_tokenizer


def work(arguments):
    parts = vision_parts(world.SHAPE.build(empty_tokenizer()))
    heads = Heads(world.SHAPE.width)
    torch.manual_seed(arguments.rank)
    vision.Trainer(arguments, world.PROGRAM, parts, heads).train()


def main():
    arguments = vision.parser(__doc__, minutes=30, ranks_=2).parse_args()
    os.makedirs(arguments.run, exist_ok=True)
    ranks.run(arguments, work)


if __name__ == "__main__":
    main()
