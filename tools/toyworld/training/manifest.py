# SPDX-License-Identifier: MPL-2.0
"""Gathers seeds, steps, times, versions and results of the model into `manifest.json`."""

import argparse
import json

import world  # noqa: F401  (it knows where the shared modules are)
from training import manifest


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
    settings = {"pool_scenes": arguments.scenes, "curriculum": arguments.curriculum}
    manifest.write(arguments.run, arguments.out, settings, results)


if __name__ == "__main__":
    main()
