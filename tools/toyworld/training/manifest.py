# SPDX-License-Identifier: MPL-2.0
"""Gathers seeds, steps, times, versions and results of the model into `manifest.json`."""

import argparse
import json

import world
from training import manifest


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--results", required=True, help="what check.py wrote")
    parser.add_argument("--scenes", type=int, required=True)
    parser.add_argument("--curriculum", required=True)
    parser.add_argument("--vision-from", help="the model that tower and projector started from")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    with open(arguments.results) as file:
        results = json.load(file)
    settings = {"pool_scenes": arguments.scenes, "curriculum": arguments.curriculum}
    if arguments.vision_from:
        settings["vision_from"] = arguments.vision_from
    manifest.write(
        arguments.run, arguments.out, settings, results,
        first=world.FIRST_SEED, torch_seed=world.TORCH_SEED,
    )  # fmt: skip


if __name__ == "__main__":
    main()
