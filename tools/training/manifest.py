# SPDX-License-Identifier: MPL-2.0
"""Gathers seeds, steps, times, versions and results of a run."""

import json
import os
from importlib.metadata import version

import torch

from .program import END, TEST, TRAIN, VALIDATION

PACKAGES = ["torch", "torchvision", "transformers", "tokenizers"]


def stage(path: str) -> dict:
    state = torch.load(path, weights_only=False, map_location="cpu")
    return {"steps": state["steps"], "minutes": round(state["spent"] / 60, 1)}


def write(
    run: str, path: str, settings: dict, results: dict, packages=(), first=TRAIN, torch_seed=0, pool=None
):
    """`settings`: what the world chose; `first`: the seed that training starts from, and the pool's unless that has
    its own."""
    manifest = {
        "license": "MPL-2.0",
        "seeds": {
            "train": [first, VALIDATION],
            "validation": [VALIDATION, TEST],
            "test": [TEST, END],
            "pool": first if pool is None else pool,
            "torch": torch_seed,
        },
        **settings,
        "vision": stage(os.path.join(run, "vision.pt")),
        "language": stage(os.path.join(run, "lm.pt")),
        "versions": {package: version(package) for package in [*PACKAGES, *packages]},
        "results": results,
    }
    with open(path, "w") as file:
        json.dump(manifest, file, indent=1)
        file.write("\n")
