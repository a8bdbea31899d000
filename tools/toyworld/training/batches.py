# SPDX-License-Identifier: MPL-2.0
"""Streams from the pool, made into tensors: one video, many questions side by side."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

import words
import world
from model import TOKENS_PER_FRAME

NOW = {"now", "now_color", "now_shape", "now_where", "now_background"}
# What these ask for cannot be known from a frame alone, so the first layer is not asked.
ORDER = {"first", "after", "before"}


@dataclass
class Batch:
    """`s` streams of up to `f` frames with `q` questions of up to `l` tokens each."""

    frames: torch.Tensor  # [s, f] numbers of pool frames
    tokens: torch.Tensor  # [s, q, l] newline placeholder, question, answer
    target: torch.Tensor  # [s, q, l] the next token where it is to be learned, else -100
    seen: torch.Tensor  # [s, q] how many frames the question may know
    asked: torch.Tensor  # [s, q, l] the question's own words, as shares that sum to 1
    relevant: torch.Tensor  # [s, q, f] frames that hold the answer
    ordered: torch.Tensor  # [s, q] whether the question is about order
    kinds: list[list[str]]


class Speech:
    """Question and answer to token ids; texts repeat, so they are remembered."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.known: dict[tuple[str, str], tuple[list[int], int, int]] = {}
        self.newline = tokenizer.convert_tokens_to_ids("<video>")

    def encode(self, text: str, answer: str) -> tuple[list[int], int, int]:
        """Token ids, the end of the question's own words, and the start of the answer."""
        key = (text, answer)
        if key not in self.known:
            ids = lambda part: self.tokenizer.encode(part, add_special_tokens=False)
            question = ids(words.BEFORE_QUESTION + text)
            prompt = [self.newline, *question, *ids(words.AFTER_QUESTION)]
            row = [*prompt, *ids(answer + words.END)]
            self.known[key] = (row, 1 + len(question), len(prompt))
        return self.known[key]


def collate(streams: list[world.Stream], speech: Speech) -> Batch:
    longest = max(len(stream.frames) for stream in streams)
    many = max(len(stream.questions) for stream in streams)
    rows = [[speech.encode(q.text, q.answer) for q in s.questions] for s in streams]
    length = max(len(row) for stream in rows for row, _, _ in stream)
    shape = (len(streams), many, length)
    frames = np.zeros((len(streams), longest), np.int64)
    tokens, target = np.zeros(shape, np.int64), np.full(shape, -100, np.int64)
    asked = np.zeros(shape, np.float32)
    seen = np.ones(shape[:2], np.int64)
    relevant = np.zeros((*shape[:2], longest), bool)
    ordered = np.zeros(shape[:2], bool)
    for s, stream in enumerate(streams):
        frames[s, : len(stream.frames)] = stream.frames
        for q, question in enumerate(stream.questions):
            row, end, answer = rows[s][q]
            tokens[s, q, : len(row)] = row
            target[s, q, answer - 1 : len(row) - 1] = row[answer:]
            asked[s, q, 2:end] = 1 / (end - 2)
            seen[s, q] = question.after + 1
            ordered[s, q] = question.kind in ORDER
            if question.kind not in NOW:
                for first, last in question.relevant:
                    relevant[s, q, first:last] = True
    arrays = (frames, tokens, target, seen, asked, relevant, ordered)
    kinds = [[question.kind for question in stream.questions] for stream in streams]
    return Batch(*map(torch.from_numpy, arrays), kinds)


def batches(size: int, speech: Speech, *arguments: object) -> Iterator[Batch]:
    waiting = []
    for stream in world.streams("--batch", size, *arguments):
        waiting.append(stream)
        if len(waiting) == size:
            yield collate(waiting, speech)
            waiting = []
    if waiting:
        yield collate(waiting, speech)


def choose_tokens(
    batch: Batch, retrieve: int, recent: int, keep: float, around: int, rng: np.random.Generator
) -> torch.Tensor:
    """Video tokens a retrieval might bring: [s, q, n] ascending, -1 where there are fewer.

    Relevant frames first, then chance in runs as long as `around` neighbours make them, then the
    newest; `keep` is the share of each frame's tokens that a compressed memory still holds.
    """
    relevant, seen = batch.relevant.numpy(), batch.seen.numpy()
    s, q, f = relevant.shape
    frame = np.arange(f)
    chance = np.repeat(rng.random((s, q, f)), 1 + 2 * around, axis=-1)[..., :f]
    wish = chance + 1e-3 * rng.random((s, q, f)) + 2 * relevant
    wish += 4 * (frame >= seen[..., None] - recent)
    wish[frame >= seen[..., None]] = -1
    count = min(f, retrieve + recent)
    chosen = np.argpartition(-wish, count - 1, axis=-1)[..., :count]
    present = np.take_along_axis(wish, chosen, -1) >= 0
    tokens = TOKENS_PER_FRAME * chosen[..., None] + np.arange(TOKENS_PER_FRAME)
    kept = present[..., None] & (rng.random(tokens.shape) < keep)
    late = TOKENS_PER_FRAME * f
    tokens = np.sort(np.where(kept, tokens, late).reshape(s, q, -1), axis=-1)
    return torch.from_numpy(np.where(tokens == late, -1, tokens))
