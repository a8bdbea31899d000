# SPDX-License-Identifier: MPL-2.0
"""Between the stages: scale the projector, then encode the pool once."""

import os

import numpy as np
import torch

from . import tower
from .program import ahead
from .shape import FEATURE_RMS, scale_features

CHUNK = 256


@torch.no_grad()
def encode_pool(parts, frames, path: str, shape) -> int:
    """Appends the features [n, tokens, c] of every batch of frames to a raw file, half precision."""
    done = 0
    with open(path, "wb") as file:
        for pixels in frames:
            tokens = torch.cat([tower.encode(parts, part) for part in pixels.split(CHUNK)])
            assert tokens.shape[1:] == (shape.tokens_per_frame, shape.width)
            file.write(tokens.half().numpy().tobytes())
            done += len(tokens)
    return done


def encode(run: str, parts, shape, program, pool: list, extra=None) -> None:
    """`pool`: the arguments that make the pool; `extra` frames [n, size, size, 3] come after it."""
    state = torch.load(os.path.join(run, "vision.pt"), weights_only=False)
    parts.load_state_dict(state["parts"])
    with torch.no_grad():
        pixels, _ = next(program.records(512, *pool))
        rms = tower.encode(parts, pixels).float().square().mean().sqrt().item()
    scale_features(parts, FEATURE_RMS / rms)

    def frames():
        for pixels, _ in ahead(program.records(4 * CHUNK, *pool)):
            yield pixels
        if extra is not None:
            yield from extra.split(4 * CHUNK)

    path = os.path.join(run, "features.f16")
    count = encode_pool(parts, frames(), path + ".new", shape)
    os.replace(path + ".new", path)
    torch.save(parts.state_dict(), os.path.join(run, "vision-scaled.pt"))
    print(f"{count} frames")


def features(run: str, shape) -> torch.Tensor:
    """[frames, tokens, c], from the file as it is needed."""
    path = os.path.join(run, "features.f16")
    rows = np.memmap(path, np.float16, "c").reshape(-1, shape.tokens_per_frame, shape.width)
    return torch.from_numpy(rows)
