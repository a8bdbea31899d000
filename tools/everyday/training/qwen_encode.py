# SPDX-License-Identifier: MPL-2.0
"""Between the stages of `models/everyday-qwen`: tokens evened out and turned towards those of `models/everyday`, the
pool's units encoded once."""

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
# Rows and columns of the other tower's tokens.
SIDE = 4


def there(run: str, first: np.ndarray) -> torch.Tensor:
    """What the other tower has where our tokens are: [units, rows, columns, c], of both frames together."""
    seen = pool.read(run, "teacher.f16", np.float16, SIDE, SIDE, SHAPE.width)
    both = torch.from_numpy(seen[first].astype(np.float32) + seen[first + 1])
    # Three rows of tokens lie over four rows of cells.
    return both[:, :-1] + both[:, 1:]


def turn(last: torch.nn.Linear, tokens: torch.Tensor, target: torch.Tensor) -> None:
    """Folds into the layer that made `tokens` the rotation that brings them nearest to `target`; nothing of what they
    tell apart is lost."""
    from_, to = tokens.flatten(0, 1), target.flatten(0, 2)
    left, _, right = torch.linalg.svd((to - to.mean(0)).T @ (from_ - from_.mean(0)))
    rotation = left @ right
    last.bias.copy_(rotation @ last.bias)
    last.weight.copy_(rotation @ last.weight)
    near = torch.nn.functional.cosine_similarity(from_ @ rotation.T, to).mean()
    print(f"tokens and the teacher's: cosine {near:.2f}")


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
        last = parts["tower"].merger.mlp[2]
        whiten(last, tokens.flatten(0, 1))
        tokens = torch.cat([tower.encode(parts, part).float() for part in units.split(256)])
        turn(last, tokens, there(run, first))
    print(pool.encode(run, SHAPE, parts), "frames")
    torch.save(parts.state_dict(), os.path.join(run, "vision-scaled.pt"))


if __name__ == "__main__":
    main()
