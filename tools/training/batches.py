# SPDX-License-Identifier: MPL-2.0
"""Streams from the pool, made into tensors: one video, many questions side by side."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from . import words
from .program import Stream


@dataclass
class Batch:
    """`s` streams of up to `f` frames with `q` questions of up to `l` tokens each, sorted by
    the moment at which they are asked."""

    frames: torch.Tensor  # [s, f] numbers of pool frames
    tokens: torch.Tensor  # [s, q, l] newline placeholder, question, answer
    target: torch.Tensor  # [s, q, l] the next token where it is to be learned, else -100
    seen: torch.Tensor  # [s, q] how many frames the question may know
    asked: torch.Tensor  # [s, q, l] the question's own words, as shares that sum to 1
    relevant: torch.Tensor  # [s, q, f] frames that hold the answer
    kinds: list[list[str]]


class Speech:
    """Question and answer to token ids; texts repeat, so they are remembered."""

    def __init__(self, tokenizer, turn=words.LLAVA):
        self.tokenizer, self.turn = tokenizer, turn
        self.known: dict[tuple[str, str], tuple[list[int], int, int]] = {}
        self.mark = tokenizer.convert_tokens_to_ids(turn.mark)

    def encode(self, text: str, answer: str) -> tuple[list[int], int, int]:
        """Token ids, the end of the question's own words, and the start of the answer."""
        key = (text, answer)
        if key not in self.known:
            ids = lambda part: self.tokenizer.encode(part, add_special_tokens=False)
            question = ids(self.turn.before_question + text)
            prompt = [self.mark, *question, *ids(self.turn.after_question)]
            row = [*prompt, *ids(answer + self.turn.end)]
            self.known[key] = (row, 1 + len(question), len(prompt))
        return self.known[key]


def collate(streams: list[Stream], speech: Speech) -> Batch:
    longest = max(len(stream.frames) for stream in streams)
    asked_of = [sorted(stream.questions, key=lambda q: q.after) for stream in streams]
    many = max(map(len, asked_of))
    rows = [[speech.encode(q.text, q.answer) for q in questions] for questions in asked_of]
    length = max(len(row) for stream in rows for row, _, _ in stream)
    shape = (len(streams), many, length)
    frames = np.zeros((len(streams), longest), np.int64)
    tokens, target = np.zeros(shape, np.int64), np.full(shape, -100, np.int64)
    asked = np.zeros(shape, np.float32)
    relevant = np.zeros((*shape[:2], longest), bool)
    # Missing questions come last, and stay sorted.
    seen = np.full(shape[:2], 1, np.int64)
    for s, (stream, questions) in enumerate(zip(streams, asked_of)):
        frames[s, : len(stream.frames)] = stream.frames
        for q, question in enumerate(questions):
            row, end, answer = rows[s][q]
            tokens[s, q, : len(row)] = row
            target[s, q, answer - 1 : len(row) - 1] = row[answer:]
            asked[s, q, 2:end] = 1 / (end - 2)
            seen[s, q] = question.after + 1
            for first, last in question.relevant:
                relevant[s, q, first:last] = True
        seen[s, len(questions) :] = seen[s, max(0, len(questions) - 1)]
    kinds = [[question.kind for question in questions] for questions in asked_of]
    arrays = (frames, tokens, target, seen, asked, relevant)
    return Batch(*map(torch.from_numpy, arrays), kinds)


def batches(size: int, streams: Iterable[Stream], speech: Speech) -> Iterator[Batch]:
    waiting = []
    for stream in streams:
        waiting.append(stream)
        if len(waiting) == size:
            yield collate(waiting, speech)
            waiting = []
    if waiting:
        yield collate(waiting, speech)
