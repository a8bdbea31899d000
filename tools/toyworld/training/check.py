# SPDX-License-Identifier: MPL-2.0
"""What the model can do: fresh videos through the exported folder's own processor.

Everything here is rendered from test seeds, at camera size, and resized by the processor.
`--generate` also answers some questions with `transformers` alone and compares.
"""

import argparse
import json
import math
import subprocess
from collections import defaultdict

import numpy as np
import torch
from transformers import AutoProcessor, LlavaOnevisionForConditionalGeneration

import model as shape
import world
from batches import Batch, Speech, choose_tokens, collate
from lm import RECENT, RETRIEVE, WINDOW, Reader, by_kind, exact, recall

WIDTH, HEIGHT = 160, 120


class Checkpoint:
    """An exported folder, loaded by transformers."""

    def __init__(self, folder: str):
        self.model = LlavaOnevisionForConditionalGeneration.from_pretrained(folder).eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        self.parts = shape.vision_parts(self.model)
        self.reader = Reader(self.model, self.tokenizer)
        self.speech = Speech(self.tokenizer)

    @torch.no_grad()
    def features(self, video: np.ndarray) -> torch.Tensor:
        """Frames [f, h, w, 3] to projected tokens [f, 4, 128]."""
        pixels = self.processor.video_processor(
            [torch.from_numpy(video).permute(0, 3, 1, 2)], return_tensors="pt"
        )["pixel_values_videos"][0]
        return shape.encode_frames(self.parts, pixels)

    @torch.no_grad()
    def generate(self, video: np.ndarray, question: str) -> str:
        content = [{"type": "video"}, {"type": "text", "text": question}]
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = self.processor(
            videos=[torch.from_numpy(video).permute(0, 3, 1, 2)], text=prompt, return_tensors="pt"
        )
        ids = self.model.generate(**inputs, max_new_tokens=8, do_sample=False)
        answer = ids[0, inputs["input_ids"].shape[1] :]
        return self.tokenizer.decode(answer, skip_special_tokens=True).strip()


def video(seed: int, frames: int, *options: str) -> np.ndarray:
    command = [world.binary(), "frames", "--seed", str(seed), "--frames", str(frames)]
    raw = subprocess.run(
        [*command, "--size", f"{WIDTH}x{HEIGHT}", *options], check=True, capture_output=True
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(frames, HEIGHT, WIDTH, 3).copy()


def questions(seed: int, frames: int, count: int, *options: str) -> list[world.Question]:
    lines = world.run(
        "questions", "--seed", seed, "--frames", frames, "--count", count, *options
    ).splitlines()
    return [
        world.Question(
            line["tag"], line["question"], line["answer"], line["after_frame"],
            [[r["start"], r["end"]] for r in line["relevant"]],
        )
        for line in map(json.loads, lines)
    ]  # fmt: skip


class Test:
    """Fresh streams of one length with their questions, encoded once."""

    def __init__(self, checkpoint, streams: int, frames: int, count: int, *options: str):
        self.checkpoint = checkpoint
        cast = [option for option in options if option == "--held-out"]
        self.items: list[tuple[Batch, torch.Tensor]] = []
        for seed in range(world.TEST, world.TEST + streams):
            asked = questions(seed, frames, count, *options)
            stream = world.Stream(list(range(frames)), asked)
            features = checkpoint.features(video(seed, frames, *cast))
            self.items.append((collate([stream], checkpoint.speech), features[None]))

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
            cuts = scene_cuts(world.TEST + number, frames)
            mean = torch.nn.functional.normalize(features[0].mean(1), dim=-1)
            cosine = (mean[1:] * mean[:-1]).sum(-1).tolist()
            for frame, value in enumerate(cosine, start=1):
                (across if frame in cuts else within).append(value)
        return {"within": percentiles(within), "across": percentiles(across)}


def scene_cuts(seed: int, frames: int) -> set[int]:
    return set(map(int, world.run("cuts", "--seed", seed, "--frames", frames).split()))


def percentiles(values: list[float]) -> dict[str, float]:
    marks = [1, 5, 25, 50, 75, 95, 99]
    return {f"p{mark}": round(float(np.percentile(values, mark)), 3) for mark in marks}


def table(right: dict[str, list[bool]]) -> dict[str, dict[str, float]]:
    """Accuracy, n and standard error per kind and over all."""
    rows = {**right, "all": [value for values in right.values() for value in values]}
    return {
        kind: {
            "accuracy": round(float(np.mean(values)), 3),
            "n": len(values),
            "se": round(math.sqrt(np.mean(values) * (1 - np.mean(values)) / len(values)), 3),
        }
        for kind, values in sorted(rows.items())
    }


def line(right: dict[str, list[bool]]) -> str:
    return " ".join(f"{kind} {row['accuracy']:.2f}" for kind, row in table(right).items())


def agreement(checkpoint: Checkpoint, streams: int, frames: int) -> dict[str, int]:
    """How often transformers' own generate gives the right answer."""
    right = total = 0
    for seed in range(world.TEST, world.TEST + streams):
        clip = video(seed, frames)
        for question in questions(seed, frames, 13):
            answer = checkpoint.generate(clip[: question.after + 1], question.text)
            right += answer == question.answer
            total += 1
    return {"right": right, "n": total}


def ball(checkpoint: Checkpoint, raw: str) -> dict[str, float]:
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
    checkpoint = Checkpoint(arguments.model)
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
        results["generate"] = agreement(checkpoint, arguments.generate, arguments.frames[0] // 2)
        print("generate", results["generate"], flush=True)
    if arguments.ball:
        results["ball"] = ball(checkpoint, arguments.ball)
        print("ball", results["ball"], flush=True)
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
