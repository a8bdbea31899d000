# SPDX-License-Identifier: MPL-2.0
"""Writes the folder of `models/everyday-qwen` and its `streamkvqa.json` from the newest checkpoint, so it may be run
while the language model is still learning."""

import argparse

import torch
from qwen_lm import make_reader, our_world
from qwen_world import SHAPE
from training import export, lm
from training.qwen.export import processor

# A 4:3 picture of any size becomes 84x112 below it.
MOST_PIXELS = 112 * 112


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--trained-frames", type=int, default=64)
    arguments = parser.parse_args()
    world = our_world()
    model = lm.trained(arguments.run, world, make_reader)
    export.save(model.to(torch.float16), processor(world.tokenizer, MOST_PIXELS), arguments.out)
    # Settings are chosen on other models. What follows from training is no choice: a window is what it ever saw, and
    # there is no text-image model that knows this world.
    window = arguments.trained_frames // 2 * SHAPE.tokens_per_unit
    recipe = {"window": window, "experts": "internal"}
    export.save_defaults(arguments.out, arguments.trained_frames, {"recipe": recipe})


if __name__ == "__main__":
    main()
