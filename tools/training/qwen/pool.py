# SPDX-License-Identifier: MPL-2.0
"""The pool as files: pixels, labels, and what another model's tower says of each frame.

Which two frames make a unit is known only when a stream is put together. So pictures stay at hand: nearly all
units are two frames in a row and are encoded once, the others when they are met.
"""

import os

import numpy as np
import torch
from torchvision.transforms.v2 import functional as pictures

from .. import tower
from ..program import Program, ahead
from . import tower as units

CHUNK = 512
NAMES = ("labels.u8", "teacher.f16", "pixels.u8")


def painted(run: str) -> bool:
    return os.path.exists(os.path.join(run, NAMES[-1]))


def paint(run: str, program: Program, arguments: list, size: tuple[int, int], teacher) -> None:
    """Frames are painted as squares, as the teacher takes them, and kept at `size` (rows, columns)."""
    paths = [os.path.join(run, name) for name in NAMES]
    files = [open(path + ".new", "wb") for path in paths]
    for squares, labels in ahead(program.records(CHUNK, *arguments)):
        with torch.no_grad():
            tokens = torch.cat([tower.encode(teacher, part) for part in squares.split(256)])
        for file, rows in zip(files, (labels.byte(), tokens.half(), resized(squares, size))):
            file.write(rows.contiguous().numpy().tobytes())
    # The pixels come last: where they are, all is.
    for file, path in zip(files, paths):
        file.close()
        os.replace(path + ".new", path)


def resized(squares: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """[n, side, side, 3] u8 to [n, *size, 3] u8"""
    channels = squares.permute(0, 3, 1, 2)
    mode = pictures.InterpolationMode.BICUBIC
    return pictures.resize(channels, list(size), mode, antialias=True).permute(0, 2, 3, 1)


def read(run: str, name: str, dtype, *shape: int) -> np.ndarray:
    """A file of the pool, from the disk as it is needed."""
    return np.memmap(os.path.join(run, name), dtype, "c").reshape(-1, *shape)


class Units:
    """Features of any two frames of the pool."""

    def __init__(self, run: str, shape, parts):
        self.pixels = read(run, "pixels.u8", np.uint8, *shape.picture, 3)
        self.parts = parts
        # Of each frame: with the next one, and with itself.
        self.known = read(run, "units.f16", np.float16, 2, shape.tokens_per_unit, shape.width)

    @torch.no_grad()
    def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Frame numbers of one shape [...] to [..., tokens, c]."""
        shape, first, second = first.shape, first.flatten().numpy(), second.flatten().numpy()
        alone = first == second
        found = torch.from_numpy(self.known[first, alone.astype(int)])
        others = np.flatnonzero(~alone & (second != first + 1))
        if len(others):
            pairs = np.stack([self.pixels[first[others]], self.pixels[second[others]]], 1)
            found[others] = units.encode(self.parts, torch.from_numpy(pairs)).half()
        return found.view(*shape, *found.shape[1:])


@torch.no_grad()
def encode(run: str, shape, parts) -> int:
    """Writes the units that are known beforehand, in half precision."""
    pixels = read(run, "pixels.u8", np.uint8, *shape.picture, 3)
    path = os.path.join(run, "units.f16")
    with open(path + ".new", "wb") as file:
        for start in range(0, len(pixels), CHUNK):
            here = torch.from_numpy(pixels[start : start + CHUNK])
            # The last frame of all has no next one.
            numbers = np.minimum(np.arange(start + 1, start + 1 + len(here)), len(pixels) - 1)
            after = torch.from_numpy(pixels[numbers])
            both = torch.stack([torch.stack([here, after], 1), torch.stack([here, here], 1)], 1)
            tokens = units.encode(parts, both.flatten(0, 1))
            file.write(tokens.half().numpy().tobytes())
    os.replace(path + ".new", path)
    return len(pixels)
