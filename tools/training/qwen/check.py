# SPDX-License-Identifier: MPL-2.0
"""A folder of a small Qwen2.5-VL as transformers loads it, for the checks that all worlds share."""

import numpy as np
import torch
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from .. import check
from ..batches import Batch, Speech, collate
from ..program import Stream
from ..words import QWEN
from .reader import Reader, Seen, halves, is_odd

SECONDS_PER_UNIT = 2


def positions(model, ids: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """[3, 1, n]: where the checkpoints of this family, and this engine, put tokens: the text goes on behind the largest
    position of the video. transformers 5 lets it go on after the largest row or column."""
    video = ids == model.config.video_token_id
    found, _ = model.model.get_rope_index(
        ids,
        mm_token_type_ids=video * 2,
        video_grid_thw=grid,
        second_per_grid_ts=torch.tensor([float(SECONDS_PER_UNIT)]),
    )
    behind = int(video[0].nonzero().max()) + 1
    found[..., behind:] += found[..., :behind].max() + 1 - found[0, 0, behind]
    return found


class Checkpoint(check.Checkpoint):
    def __init__(self, folder: str, grid: tuple[int, int]):
        load = Qwen2_5_VLForConditionalGeneration.from_pretrained
        self.model = load(folder, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        self.reader = Reader(self.model, self.tokenizer, grid, SECONDS_PER_UNIT)
        self.speech = Speech(self.tokenizer, QWEN)

    @torch.no_grad()
    def encoded(self, video: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames [f, h, w, 3] to tokens [units, tokens, c], and the grid of patches [1, 3]."""
        frames = torch.from_numpy(video).permute(0, 3, 1, 2)
        inputs = self.processor.video_processor(videos=[frames], return_tensors="pt")
        grid = inputs["video_grid_thw"]
        tokens = self.model.model.visual(inputs["pixel_values_videos"], grid).pooler_output
        return tokens.view(int(grid[0, 0]), -1, tokens.shape[-1]), grid

    def shown(self, stream: Stream, video: np.ndarray) -> list[tuple[Batch, Seen]]:
        units, _ = self.encoded(video)
        items = []
        for odd in (False, True):
            chosen = list(halves([stream], odd))
            if not chosen:
                continue
            batch = collate(chosen, self.speech)
            alone = None
            if is_odd(batch):
                last = (batch.seen[0] - 1).tolist()
                known = {n: self.encoded(video[n : n + 1])[0][0] for n in set(last)}
                alone = torch.stack([known[n] for n in last])[None]
            items.append((batch, Seen(units[None], alone)))
        return items

    @torch.no_grad()
    def generate(self, video: np.ndarray, question: str) -> str:
        """Greedy, by transformers' modules with positions given."""
        content = [{"type": "video"}, {"type": "text", "text": question}]
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        features, grid = self.encoded(video)
        frames = torch.from_numpy(video).permute(0, 3, 1, 2)
        ids = self.processor(text=prompt, videos=[frames], return_tensors="pt")["input_ids"]
        start = ids.shape[1]
        for _ in range(8):
            embeds = self.model.get_input_embeddings()(ids)
            embeds[ids == self.model.config.video_token_id] = features.flatten(0, 1)
            at = positions(self.model, ids, grid)
            new = self.model(inputs_embeds=embeds, position_ids=at).logits[:, -1:].argmax(-1)
            if new.item() == self.tokenizer.eos_token_id:
                break
            ids = torch.cat([ids, new], 1)
        return self.tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()
