# SPDX-License-Identifier: MPL-2.0
"""Between the stages: even out what the projector says, then encode the pool once."""

import os
from itertools import islice

import numpy as np
import torch

from . import tower
from .program import ahead
from .shape import FEATURE_RMS

CHUNK = 256
FLOOR = 0.1


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


@torch.no_grad()
def whiten(last: torch.nn.Linear, tokens: torch.Tensor) -> None:
    """Folds into the layer that made `tokens` what makes `tokens` [n, c] of mean zero and equally strong
    in all directions, the weakest but for a tenth of the mean: what tells things apart is otherwise a
    small part of a token, and the decoder takes long to see it."""
    mean = tokens.mean(0)
    centred = (tokens - mean).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    strength = (values.clamp(min=0) + FLOOR * values.mean()).rsqrt()
    map = ((vectors * strength) @ vectors.T).float()
    map *= FEATURE_RMS / (centred.float() @ map).square().mean().sqrt()
    last.bias.copy_(map @ (last.bias - mean))
    last.weight.copy_(map @ last.weight)


def encode(run: str, parts, shape, program, sample: list, pool: list, extra=None) -> None:
    """`sample`, `pool`: the arguments that make frames to measure, and the pool; `extra` frames
    [n, size, size, 3] come after it."""
    state = torch.load(os.path.join(run, "vision.pt"), weights_only=False)
    parts.load_state_dict(state["parts"])
    with torch.no_grad():
        records = program.records(256, *sample)
        tokens = [tower.encode(parts, pixels).float() for pixels, _ in islice(records, 8)]
    whiten(parts["projector"].linear_2, torch.cat(tokens).flatten(0, 1))

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
