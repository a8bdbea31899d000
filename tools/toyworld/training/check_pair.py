# SPDX-License-Identifier: MPL-2.0
"""What the pair can do: fresh videos through the exported folder's own processor and tokenizer.

Videos and questions are those of `check.py`, counted as it counts for the model's own layers.
"""

import argparse
import json
from collections import defaultdict

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoTokenizer, SiglipModel

import pair as pairs
from check import questions, video
from training.program import TEST, Stream
from world import NOW


class Checkpoint:
    """An exported pair, loaded by transformers, computing in f32 as the engine does."""

    def __init__(self, folder: str):
        self.pair = SiglipModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = AutoImageProcessor.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    @torch.no_grad()
    def images(self, frames: np.ndarray) -> torch.Tensor:
        pixels = self.processor(list(frames), return_tensors="pt")["pixel_values"]
        return self.pair.get_image_features(pixel_values=pixels).pooler_output

    @torch.no_grad()
    def texts(self, texts: list[str]) -> torch.Tensor:
        ids = pairs.token_ids(self.tokenizer, texts)
        return self.pair.get_text_features(input_ids=ids).pooler_output


def recall(checkpoint, streams: int, frames: int, *options: str) -> dict[str, float]:
    """By kind, the share of relevant frames among the best 16; `all`: the mean over streams."""
    kinds: dict[str, list[float]] = defaultdict(list)
    means = []
    for seed in range(TEST, TEST + streams):
        cast = [option for option in options if option == "--held-out"]
        stream = Stream(list(range(frames)), questions(seed, frames, 39, *options))
        asked = pairs.collate([stream], skip=NOW)
        images = normalize(checkpoint.images(video(seed, frames, *cast)), dim=-1)
        texts = normalize(checkpoint.texts(asked.texts), dim=-1)
        found = pairs.recall(texts @ images.T, asked)
        for kind, shares in found.items():
            kinds[kind] += shares
        if found:
            means.append(np.mean([share for shares in found.values() for share in shares]))
    rows = {kind: round(float(np.mean(shares)), 3) for kind, shares in sorted(kinds.items())}
    return {**rows, "all": round(float(np.mean(means)), 3), "n": sum(map(len, kinds.values()))}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--streams", type=int, default=65)
    parser.add_argument("--long", type=int, default=256, help="asked at the end, fewer streams")
    parser.add_argument("--out", help="write the results here as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = Checkpoint(arguments.pair)
    few = arguments.streams // 6
    sets = {
        f"{arguments.frames}": (arguments.streams, arguments.frames),
        f"{arguments.frames}, held-out pairs": (few, arguments.frames, "--held-out"),
        f"{arguments.frames}, held-out wordings": (few, arguments.frames, "--held-out-wording"),
        f"{arguments.long}": (few, arguments.long, "--at-end"),
    }
    results = {}
    for name, options in sets.items():
        results[name] = recall(checkpoint, *options)
        print(name, results[name], flush=True)
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
