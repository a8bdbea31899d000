# SPDX-License-Identifier: MPL-2.0
"""What the model can do: fresh videos through the exported folder's own processor.

Everything here is rendered from test seeds, at camera size, and resized by the processor.
`--generate` also answers some questions with `transformers` alone and compares.
"""

import argparse
import json
from collections import defaultdict

import numpy as np
import torch
import world
from lm import RECENT, RETRIEVE, WINDOW, Reader
from retrieval import choose_tokens, recall
from training import check
from training.batches import Batch
from training.check import line, table
from training.lm import by_kind, exact
from training.program import TEST

SIZE = "160x120"


def video(seed: int, frames: int, *options: str) -> np.ndarray:
    return check.video(world.PROGRAM, seed, frames, SIZE, *options)


def questions(seed: int, frames: int, count: int, *options: str):
    return check.questions(world.PROGRAM, seed, frames, count, *options)


class Test(check.Test):
    """Fresh streams of one length with their questions, encoded once."""

    def __init__(self, checkpoint, streams: int, frames: int, count: int, *options: str):
        seen = [option for option in options if option == "--held-out"]
        asked = [option for option in options if option != "--held-out"]
        super().__init__(checkpoint, world.PROGRAM, streams, frames, count, SIZE, seen, asked)

    @torch.no_grad()
    def accuracy(self, method: str = "full") -> dict[str, list[bool]]:
        right: dict[str, list[bool]] = defaultdict(list)
        rng = np.random.default_rng(0)
        for batch, features in self.items:
            how = {}
            if method == "oracle":
                chosen = choose_tokens(batch, RETRIEVE, RECENT, 1.0, 0, rng)
                how = {"chosen": chosen, "window": WINDOW}
            if method == "recent":
                chosen = choose_tokens(batch, 0, RETRIEVE + RECENT, 1.0, 0, rng)
                how = {"chosen": chosen, "window": WINDOW}
            if method == "blind":
                batch = Batch(**{**batch.__dict__, "seen": torch.zeros_like(batch.seen)})
            output = self.checkpoint.reader(batch, features, **how)
            by_kind(exact(self.checkpoint.reader.logits(output.hidden), batch.target), batch, right)
        return right

    @torch.no_grad()
    def recall(self, at: int) -> list[float]:
        found = []
        for batch, features in self.items:
            found.append(recall(self.checkpoint.reader(batch, features).scores, batch, at))
        return np.nanmean(found, axis=0).round(3).tolist()

    def cosines(self) -> dict[str, dict[str, float]]:
        """Cosine of consecutive frames' mean features, within a scene and across a cut."""
        within, across = [], []
        for number, (_, features) in enumerate(self.items):
            frames = features.shape[1]
            cuts = scene_cuts(TEST + number, frames)
            mean = torch.nn.functional.normalize(features[0].mean(1), dim=-1)
            cosine = (mean[1:] * mean[:-1]).sum(-1).tolist()
            for frame, value in enumerate(cosine, start=1):
                (across if frame in cuts else within).append(value)
        return {"within": percentiles(within), "across": percentiles(across)}


def scene_cuts(seed: int, frames: int) -> set[int]:
    return set(map(int, world.PROGRAM.run("cuts", "--seed", seed, "--frames", frames).split()))


def percentiles(values: list[float]) -> dict[str, float]:
    marks = [1, 5, 25, 50, 75, 95, 99]
    return {f"p{mark}": round(float(np.percentile(values, mark)), 3) for mark in marks}


def ball(checkpoint: check.Checkpoint, raw: str) -> dict[str, float]:
    """GStreamer's `videotestsrc pattern=ball` at 320x240: a generator never trained on."""
    clip = np.fromfile(raw, np.uint8).reshape(-1, 240, 320, 3)
    asked = {"what color is it now?": "white", "what shape is it now?": "circle"}
    result = {"n": len(clip)}
    for text, answer in asked.items():
        answers = [checkpoint.generate(frame[None].copy(), text) for frame in clip]
        result[answer] = round(float(np.mean([a == answer for a in answers])), 3)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--frames", type=int, nargs="+", default=[32, 64], help="trained lengths")
    parser.add_argument("--long", type=int, nargs="*", default=[], help="lengths beyond")
    parser.add_argument("--streams", type=int, default=130)
    parser.add_argument("--generate", type=int, default=0, help="streams for transformers' generate")
    parser.add_argument("--ball", help="raw RGB 320x240 frames of pattern=ball")
    parser.add_argument("--out", help="write the results here as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = check.Checkpoint(arguments.model, Reader)
    results: dict = {}

    def record(name: str, right: dict[str, list[bool]]):
        results[name] = table(right)
        print(f"{name}: {line(right)}", flush=True)

    for frames in arguments.frames:
        test = Test(checkpoint, arguments.streams, frames, 39)
        for method in ("full", "blind", "oracle", "recent"):
            record(f"{frames} {method}", test.accuracy(method))
        results[f"{frames} recall@16"] = test.recall(16)
        print(results[f"{frames} recall@16"], flush=True)
    results["cosine"] = test.cosines()
    print(results["cosine"], flush=True)
    for option in ("--held-out", "--held-out-wording"):
        new = Test(checkpoint, arguments.streams // 2, arguments.frames[0], 39, option)
        record(f"{arguments.frames[0]} full, {option.strip('-')}", new.accuracy())
    for frames in arguments.long:
        longer = Test(checkpoint, arguments.streams // 6, frames, 39, "--at-end")
        for method in ("full", "oracle", "recent"):
            record(f"{frames} {method}", longer.accuracy(method))
        results[f"{frames} recall@16"] = longer.recall(16)
        print(results[f"{frames} recall@16"], flush=True)
    if arguments.generate:
        few = arguments.frames[0] // 2
        results["generate"] = check.agreement(
            checkpoint, world.PROGRAM, arguments.generate, few, 13, SIZE
        )
        print("generate", results["generate"], flush=True)
    if arguments.ball:
        results["ball"] = ball(checkpoint, arguments.ball)
        print("ball", results["ball"], flush=True)
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
