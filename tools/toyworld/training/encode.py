# SPDX-License-Identifier: MPL-2.0
"""Between the stages: scale the projector, then encode the pool of scenes once."""

import argparse

import torch
import world
from training.encode import encode
from training.shape import vision_parts
from training.words import empty_tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="folder of checkpoints and features")
    parser.add_argument("--scenes", type=int, default=40000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    parts = vision_parts(world.SHAPE.build(empty_tokenizer()))
    sample = ["vision", "--seed", world.FIRST_SEED]
    pool = ["pool", "--seed", world.FIRST_SEED, "--scenes", arguments.scenes]
    encode(arguments.run, parts, world.SHAPE, world.PROGRAM, sample, pool)


if __name__ == "__main__":
    main()
