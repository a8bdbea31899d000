# SPDX-License-Identifier: MPL-2.0
"""Between the stages: the pool of this world, then the pictures of `easy-vqa`, encoded once."""

import argparse

import easy
import torch
import world
from training.encode import encode
from training.program import TRAIN
from training.shape import vision_parts
from training.words import empty_tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="folder of checkpoints and features")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    parts = vision_parts(world.SHAPE.build(empty_tokenizer()))
    sample = ["vision", "--seed", TRAIN]
    pool = ["pool", "--seed", world.POOL_SEED, "--cameras", world.CAMERAS]
    extra = easy.pictures(world.PROGRAM.size)
    encode(arguments.run, parts, world.SHAPE, world.PROGRAM, sample, pool, extra)


if __name__ == "__main__":
    main()
