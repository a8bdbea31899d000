# SPDX-License-Identifier: MPL-2.0
"""Puts the trained halves together, writes the folder and its `streamkvqa.json`."""

import argparse

import torch

from lm import RECENT, RETRIEVE, WINDOW, our_world
from training import export, lm

# Between the cosines within a scene and across a cut, as check.py measures them.
SEGMENT_THRESHOLD = 0.88


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--vision", default="vision-polished.pt", help="a file in the run folder")
    parser.add_argument("--trained-frames", type=int, default=64)
    parser.add_argument("--segment-threshold", type=float, default=SEGMENT_THRESHOLD)
    parser.add_argument("--pair", default="../toyworld-pair", help="a text-image pair; empty: none")
    arguments = parser.parse_args()
    lm.export_run(arguments.run, our_world(0), arguments.out, arguments.vision, torch.float32)
    recipe = {
        "window": WINDOW,
        "retrieve": RETRIEVE,
        "experts": "internal",
        **({"external_model": arguments.pair} if arguments.pair else {}),
        "guidance": "what do you see now?",
        "segment_threshold": arguments.segment_threshold,
        # Scenes last two frames at least.
        "segment_min": 2,
    }
    recipes = {"memstream": {"experts": "both"}} if arguments.pair else {}
    added = {"recent": RECENT}
    added_to = {
        # Across a cut tokens are often more alike than the published 0.5.
        "cacheflow": {"alike": 0.95},
        # One frame.
        "hermes": {"resident_recent": 0.07},
    }
    defaults = {"recipe": recipe, "recipes": recipes, "added": added, "added_to": added_to}
    export.save_defaults(arguments.out, arguments.trained_frames, defaults)


if __name__ == "__main__":
    main()
