# SPDX-License-Identifier: MPL-2.0
"""Between the stages of `models/everyday-qwen`: tokens evened out, the pool's units encoded once."""

import argparse
import os

import numpy as np
import torch
from qwen_world import SHAPE
from training.encode import whiten
from training.qwen import pool, tower
from training.shape import vision_parts
from training.words import QWEN, empty_tokenizer

# Units to even out by.
SAMPLE = 2048


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="folder of checkpoints and features")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run = arguments.run
    parts = vision_parts(SHAPE.build(empty_tokenizer(QWEN)))
    parts.load_state_dict(torch.load(os.path.join(run, "vision.pt"), weights_only=False)["parts"])
    pixels = pool.read(run, "pixels.u8", np.uint8, *SHAPE.picture, 3)
    first = np.linspace(0, len(pixels) - 2, SAMPLE).astype(int)
    units = torch.from_numpy(np.stack([pixels[first], pixels[first + 1]], 1))
    with torch.no_grad():
        tokens = torch.cat([tower.encode(parts, part).float() for part in units.split(256)])
        whiten(parts["tower"].merger.mlp[2], tokens.flatten(0, 1))
    print(pool.encode(run, SHAPE, parts), "frames")
    torch.save(parts.state_dict(), os.path.join(run, "vision-scaled.pt"))


if __name__ == "__main__":
    main()
