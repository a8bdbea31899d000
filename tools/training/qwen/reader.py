# SPDX-License-Identifier: MPL-2.0
"""The decoder of Qwen2.5-VL over one video of units and its questions; a question after an odd number of frames
sees the last one as a unit of its own, with itself as its partner, as the engine shows it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from ..batches import Batch
from ..decoder import decode, frequencies, signed
from ..program import Stream
from ..quick import QUICK
from ..words import QWEN


@dataclass
class Seen:
    """What a batch sees: its whole units [s, u, tokens, c], and what stands alone before each question
    [s, q, tokens, c], or nothing."""

    units: torch.Tensor
    alone: torch.Tensor | None


def halves(streams: Iterable[Stream], odd: bool) -> Iterator[Stream]:
    """Streams with those of their questions that are asked after an odd number of frames, or after an even one."""
    for stream in streams:
        questions = [q for q in stream.questions if (q.after + 1) % 2 == odd]
        if questions:
            yield replace(stream, questions=questions)


def see(batch: Batch, units) -> Seen:
    """`units(first, second)` gives the features of pairs of frame numbers."""
    frames = batch.frames
    if frames.shape[1] % 2:
        frames = torch.cat([frames, frames[:, -1:]], 1)
    alone = None
    if is_odd(batch):
        last = batch.frames.gather(1, batch.seen - 1)
        alone = units(last, last)
    return Seen(units(frames[:, ::2], frames[:, 1::2]), alone)


def is_odd(batch: Batch) -> bool:
    return bool(batch.seen[0, 0] % 2)


class Reader(torch.nn.Module):
    """The trained half of the model: decoder and embeddings."""

    def __init__(self, model, tokenizer, grid: tuple[int, int], seconds_per_unit: int = 2):
        super().__init__()
        self.text = model.model.language_model
        prefix = tokenizer.encode(QWEN.before_video, add_special_tokens=False)
        self.register_buffer("prefix", torch.tensor(prefix), persistent=False)
        self.grid = grid
        self.step = model.config.vision_config.tokens_per_second * seconds_per_unit

    def places(self, units: torch.Tensor) -> torch.Tensor:
        """Positions of units by their numbers [...]: [3, ..., tokens]"""
        row, column = torch.meshgrid(*map(torch.arange, self.grid), indexing="ij")
        time = (units * self.step)[..., None].expand(*units.shape, row.numel())
        place = torch.stack([time, row.flatten().expand_as(time), column.flatten().expand_as(time)])
        return len(self.prefix) + place

    def positions(self, units: int, seen: torch.Tensor, length: int, alone: bool) -> torch.Tensor:
        """[3, s, n]: the prefix, the units, then for each question what stands alone and `length` rows of text, from
        the largest position before them plus one."""
        s = len(seen)
        prefix = torch.arange(len(self.prefix)).expand(3, s, -1)
        video = self.places(torch.arange(units)).flatten(1)[:, None].expand(-1, s, -1)
        last = (seen - 1 + alone).clamp(min=0) * self.step
        text = last.clamp(min=max(self.grid) - 1) + 1
        text = len(self.prefix) + torch.where(seen + alone > 0, text, 0)
        own = (text[..., None] + torch.arange(length)).expand(3, -1, -1, -1)
        if alone:
            own = torch.cat([self.places(seen), own], -1)
        return torch.cat([prefix, video, own.flatten(2)], 2)

    def rope(self, positions: torch.Tensor) -> torch.Tensor:
        """[3, s, n] to cosines and signed sines [2, s, n, head]"""
        rope = self.text.config.rope_parameters
        axis = torch.arange(3).repeat_interleave(torch.tensor(rope["mrope_section"]))
        head = self.text.layers[0].self_attn.head_dim
        return signed(positions[axis].permute(1, 2, 0) * frequencies(head, rope["rope_theta"]))

    def forward(self, batch: Batch, seen: Seen, dtype=QUICK) -> torch.Tensor:
        embed = self.text.embed_tokens
        units = batch.seen // 2
        alone = seen.alone if is_odd(batch) else None
        prefix = embed(self.prefix).expand(len(units), -1, -1)
        video = torch.cat([prefix, seen.units.flatten(1, 2).to(prefix.dtype)], 1)
        rows = embed(batch.tokens)
        before = 0
        if alone is not None:
            before = alone.shape[2]
            rows = torch.cat([alone.to(rows.dtype), rows], 2)
        positions = self.positions(
            seen.units.shape[1], units, batch.tokens.shape[2], alone is not None
        )
        rows_seen = len(self.prefix) + seen.units.shape[2] * units
        rope = self.rope(positions)
        return decode(self.text, video, rows, rows_seen, dtype, rope)[:, :, before:]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return (hidden @ self.text.embed_tokens.weight.T.to(hidden.dtype)).float()
