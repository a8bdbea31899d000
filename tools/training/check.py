# SPDX-License-Identifier: MPL-2.0
"""What a model folder can do: fresh videos through its own processor, as transformers loads it.

Everything is painted from test seeds, at camera size, and resized by the processor.
"""

import json
import math
import subprocess
from collections import defaultdict

import numpy as np
import torch
from transformers import AutoProcessor, LlavaOnevisionForConditionalGeneration

from .batches import Batch, Speech, collate
from .lm import Reader, by_kind, exact
from .program import TEST, Program, Question, Stream
from .shape import encode_frames, vision_parts


class Checkpoint:
    """An exported folder, loaded by transformers, computing in f32 as the engine does."""

    def __init__(self, folder: str, reader=Reader):
        load = LlavaOnevisionForConditionalGeneration.from_pretrained
        self.model = load(folder, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        self.parts = vision_parts(self.model)
        self.reader = reader(self.model, self.tokenizer)
        self.speech = Speech(self.tokenizer)

    @torch.no_grad()
    def features(self, video: np.ndarray) -> torch.Tensor:
        """Frames [f, h, w, 3] to projected tokens [f, tokens, c]."""
        pixels = self.processor.video_processor(
            [torch.from_numpy(video).permute(0, 3, 1, 2)], return_tensors="pt"
        )["pixel_values_videos"][0]
        return encode_frames(self.parts, pixels)

    def shown(self, stream: Stream, video: np.ndarray) -> list[tuple[Batch, object]]:
        """Batches of a stream's questions with what the reader is shown."""
        return [(collate([stream], self.speech), self.features(video)[None])]

    @torch.no_grad()
    def right(self, batch: Batch, features) -> torch.Tensor:
        """[s, q]: which questions are answered exactly, with attention over the whole video."""
        hidden = self.reader(batch, features, torch.float32)
        return exact(self.reader.logits(hidden), batch.target)

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


def video(program: Program, seed: int, frames: int, size: str, *options: str) -> np.ndarray:
    """[frames, height, width, 3] u8"""
    width, height = map(int, size.split("x"))
    command = [program.path(), "frames", "--seed", str(seed), "--frames", str(frames)]
    raw = subprocess.run(
        [*command, "--size", size, *options], check=True, capture_output=True
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(frames, height, width, 3).copy()


def questions(program, seed: int, frames: int, count: int, *options: str) -> list[Question]:
    lines = program.run(
        "questions", "--seed", seed, "--frames", frames, "--count", count, *options
    ).splitlines()
    return [
        Question(
            line["tag"], line["question"], line["answer"], line["after_frame"],
            [[r["start"], r["end"]] for r in line["relevant"]],
        )
        for line in map(json.loads, lines)
    ]  # fmt: skip


class Test:
    """Fresh streams of one length with their questions, encoded once.

    `seen` are the options of both the frames and the questions, `asked` those of the questions alone.
    """

    def __init__(self, checkpoint, program, streams, frames, count, size, seen=(), asked=()):
        self.checkpoint = checkpoint
        self.items: list[tuple[Batch, object]] = []
        for seed in range(TEST, TEST + streams):
            stream = Stream(
                list(range(frames)), questions(program, seed, frames, count, *seen, *asked)
            )
            self.items += checkpoint.shown(stream, video(program, seed, frames, size, *seen))

    def accuracy(self, blind: bool = False) -> dict[str, list[bool]]:
        right: dict[str, list[bool]] = defaultdict(list)
        for batch, features in self.items:
            if blind:
                batch = Batch(**{**batch.__dict__, "seen": torch.zeros_like(batch.seen)})
            by_kind(self.checkpoint.right(batch, features), batch, right)
        return right


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


def agreement(checkpoint, program, streams: int, frames: int, count: int, size: str) -> dict:
    """How often transformers' own generate gives the right answer."""
    right = total = 0
    for seed in range(TEST, TEST + streams):
        clip = video(program, seed, frames, size)
        for question in questions(program, seed, frames, count):
            answer = checkpoint.generate(clip[: question.after + 1], question.text)
            right += answer == question.answer
            total += 1
    return {"right": right, "n": total}
