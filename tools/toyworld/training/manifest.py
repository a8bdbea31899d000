# SPDX-License-Identifier: MPL-2.0
"""Gathers seeds, steps, times, versions and results of a run into `manifest.json`."""

import argparse
import json
import os
from importlib.metadata import version

import torch

import world

PACKAGES = ["torch", "torchvision", "transformers", "tokenizers"]


def stage(path: str) -> dict:
    state = torch.load(path, weights_only=False, map_location="cpu")
    return {"steps": state["steps"], "minutes": round(state["spent"] / 60, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--results", required=True, help="what check.py wrote")
    parser.add_argument("--scenes", type=int, required=True)
    parser.add_argument("--curriculum", required=True)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    with open(arguments.results) as file:
        results = json.load(file)
    manifest = {
        "license": "MPL-2.0",
        "seeds": {
            "train": [world.TRAIN, world.VALIDATION],
            "validation": [world.VALIDATION, world.TEST],
            "test": [world.TEST, 3_000_000_000],
            "pool": 0,
            "torch": 0,
        },
        "pool_scenes": arguments.scenes,
        "curriculum": arguments.curriculum,
        "vision": stage(os.path.join(arguments.run, "vision.pt")),
        "language": stage(os.path.join(arguments.run, "lm.pt")),
        "versions": {package: version(package) for package in PACKAGES},
        "results": results,
    }
    with open(arguments.out, "w") as file:
        json.dump(manifest, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
