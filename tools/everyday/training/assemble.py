# SPDX-License-Identifier: MPL-2.0
"""Puts the trained halves together, writes the folder and its `streamkvqa.json`. It reads the newest
checkpoint, so it may be run while the language model is still learning."""

import argparse

from lm import our_world
from training import export, lm


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--trained-frames", type=int, default=64)
    arguments = parser.parse_args()
    lm.export_run(arguments.run, our_world(), arguments.out)
    # Retrieval: of 16, 32 and 48 frames what answered best on validation seeds (64 and 128 frames).
    # Neighbours less alike than the threshold are two pictures: chosen on the training pool.
    recipe = {
        "window": 512,
        "retrieve": 48,
        "guidance": "what is here now?",
        "segment_threshold": 0.7,
        "segment_min": 2,
        "experts": "internal",
    }
    defaults = {"recipe": recipe, "added": {"recent": 4}}
    export.save_defaults(arguments.out, arguments.trained_frames, defaults)


if __name__ == "__main__":
    main()
