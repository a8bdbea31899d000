# SPDX-License-Identifier: MPL-2.0
"""Before the stages: paints the pool once, and asks the tower of `models/everyday` what it sees of each frame."""

import argparse
import os

import torch
import world
from qwen_world import SHAPE
from training.program import VALIDATION
from training.qwen import pool
from training.shape import vision_parts
from transformers import LlavaOnevisionForConditionalGeneration

# Cameras that no training sees, to watch the vision stage by.
CAMERAS = 4


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="folder of checkpoints and features")
    parser.add_argument("--teacher", required=True, help="the folder of models/everyday")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if pool.painted(arguments.run):
        return
    load = LlavaOnevisionForConditionalGeneration.from_pretrained
    teacher = vision_parts(load(arguments.teacher, dtype=torch.float32))
    for folder, seed, cameras in (("held", VALIDATION, CAMERAS), ("", world.POOL_SEED, world.CAMERAS)):
        run = os.path.join(arguments.run, folder)
        os.makedirs(run, exist_ok=True)
        command = ["pool", "--seed", seed, "--cameras", cameras]
        pool.paint(run, world.PROGRAM, command, SHAPE.picture, teacher)


if __name__ == "__main__":
    main()
