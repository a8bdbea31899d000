# SPDX-License-Identifier: MPL-2.0
"""Gathers seeds, steps, times, versions and results of the model."""

import argparse
import json
import os

import world
from training import manifest


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--results", required=True, help="what check.py wrote")
    parser.add_argument("--curriculum", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--first-seed", type=int, default=0, help="of training's streams")
    parser.add_argument("--torch-seed", type=int, default=0, help="of fresh weights")
    parser.add_argument("--begun-with", help="the model whose language model this one's began as")
    arguments = parser.parse_args()
    with open(arguments.results) as file:
        results = json.load(file)
    settings = {
        "pool_cameras": world.CAMERAS,
        "curriculum": arguments.curriculum,
        "drawings": {"emoji-datasource-google": "16.0.0", "@lobehub/fluent-emoji-3d": "1.1.0"},
    }
    if arguments.begun_with:
        settings["begun_with"] = os.path.basename(arguments.begun_with)
    packages = ["easy-vqa", "pillow"]
    manifest.write(
        arguments.run, arguments.out, settings, results, packages, arguments.first_seed,
        arguments.torch_seed, world.POOL_SEED,
    )  # fmt: skip


if __name__ == "__main__":
    main()
