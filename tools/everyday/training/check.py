# SPDX-License-Identifier: MPL-2.0
"""What the model can do: fresh videos through the exported folder's own processor.

Test seeds, then what training never saw: pairs of thing and scenery, wordings, drawing styles; and the
official test split of `easy-vqa`, which someone else made.
"""

import argparse
import json
from collections import defaultdict

import easy
import torch
import world
from training import check
from training.batches import collate

SIZE = "320x240"
# Styles that are seen by no training, and the kinds that are asked about them.
STYLES = ["openmoji", "tuxpaint"]
STYLE_KINDS = {"now", "kind_now"}


def easy_vqa(checkpoint, most: int) -> dict[str, list[bool]]:
    """Whole answers right, by what is asked for."""
    right: dict[str, list[bool]] = defaultdict(list)
    for picture, stream in easy.test(most):
        batch = collate([stream], checkpoint.speech)
        features = checkpoint.features(picture[None])
        for value, question in zip(checkpoint.right(batch, features[None])[0], stream.questions):
            kind = "shape" if question.answer in easy.SHAPES else "colour"
            kind = "yes or no" if question.answer in ("yes", "no") else kind
            right[kind].append(bool(value))
    return right


def parser(doc: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("model")
    parser.add_argument("--frames", type=int, nargs="+", default=[64], help="trained lengths")
    parser.add_argument("--streams", type=int, default=130)
    parser.add_argument("--questions", type=int, default=42, help="per stream")
    parser.add_argument("--generate", type=int, default=0, help="streams for transformers' generate")
    parser.add_argument("--pictures", type=int, default=1000, help="of easy-vqa's test split")
    parser.add_argument("--out", help="write the results here as JSON")
    return parser


def measure(checkpoint, arguments) -> None:
    results: dict = {}

    def test(streams: int, frames: int, seen=(), asked=()) -> check.Test:
        return check.Test(
            checkpoint, world.PROGRAM, streams, frames, arguments.questions, SIZE, seen, asked
        )

    def record(name: str, right: dict[str, list[bool]]):
        results[name] = check.table(right)
        print(f"{name}: {check.line(right)}", flush=True)

    for frames in arguments.frames:
        fresh = test(arguments.streams, frames)
        record(f"{frames} full", fresh.accuracy())
        record(f"{frames} blind", fresh.accuracy(blind=True))
    few, frames = arguments.streams // 3, arguments.frames[0]
    record(f"{frames} held-out pairs", test(few, frames, ["--held-out"]).accuracy())
    record(f"{frames} held-out wordings", test(few, frames, [], ["--held-out-wording"]).accuracy())
    for style in STYLES:
        right = test(few, frames, ["--style", style]).accuracy()
        record(f"{frames} {style}", {kind: right[kind] for kind in right if kind in STYLE_KINDS})
    if arguments.pictures:
        record("easy-vqa", easy_vqa(checkpoint, arguments.pictures))
    if arguments.generate:
        results["generate"] = check.agreement(
            checkpoint, world.PROGRAM, arguments.generate, 16, 20, SIZE
        )
        print("generate", results["generate"], flush=True)
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(results, file, indent=1)


def main():
    arguments = parser(__doc__).parse_args()
    torch.set_num_threads(2)
    measure(check.Checkpoint(arguments.model), arguments)


if __name__ == "__main__":
    main()
