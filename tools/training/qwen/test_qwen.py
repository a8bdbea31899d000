# SPDX-License-Identifier: MPL-2.0
"""That the quick forms of tower and decoder compute what transformers' modules compute, from the processor's
pixels to the logits, on random weights: `python -m training.qwen.test_qwen` in `tools`."""

import unittest

import torch
from transformers import PreTrainedTokenizerFast

from ..batches import Speech, collate
from ..program import Question, Stream
from ..words import QWEN, train_tokenizer
from . import check, tower
from .export import processor
from .reader import Reader, halves, is_odd, see
from .shape import Shape

FRAMES = 9


def small(picture: tuple[int, int]) -> Shape:
    return Shape(
        picture=picture,
        vision=dict(
            depth=3, hidden_size=64, intermediate_size=96, num_heads=2, window_size=56,
            fullatt_block_indexes=[1], tokens_per_second=1,
        ),
        text=dict(
            hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2,
        ),
        rope={"rope_theta": 10000.0, "mrope_section": [3, 3, 2]},
    )  # fmt: skip


def strong(model):
    """Weights with which every part says something."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            spread = weight[0].numel() ** -0.5 * 1.5 if weight.ndim > 1 else 0.3
            weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
            if "norm" in name or "ln_q" in name:
                weight.add_(1)
    return model.eval()


class Case:
    def __init__(self, picture=(84, 112), camera=(240, 320)):
        texts = ["what is here now?", "was the owl near or far?", "owl", "near"]
        self.tokenizer: PreTrainedTokenizerFast = train_tokenizer(texts, 320, QWEN)
        self.shape = small(picture)
        self.model = strong(self.shape.build(self.tokenizer))
        self.processor = processor(self.tokenizer, 112 * 112)
        generator = torch.Generator().manual_seed(3)
        # As large as the model's pictures, so that nothing is resized and no rounding differs.
        size = (FRAMES, *picture, 3)
        self.frames = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
        self.parts = torch.nn.ModuleDict({"tower": self.model.model.visual})
        self.camera = camera

    def pixels(self, frames: torch.Tensor) -> dict:
        video = frames.permute(0, 3, 1, 2)
        return self.processor.video_processor(videos=[video], return_tensors="pt")

    @torch.no_grad()
    def modules(self, frames: torch.Tensor) -> torch.Tensor:
        pixels = self.pixels(frames)
        grid = pixels["video_grid_thw"]
        tokens = self.model.model.visual(pixels["pixel_values_videos"], grid).pooler_output
        return tokens.view(int(grid[0, 0]), -1, self.shape.width)

    def units(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        pairs = torch.stack([self.frames[first.flatten()], self.frames[second.flatten()]], 1)
        tokens = tower.encode(self.parts, pairs, torch.float32)
        return tokens.view(*first.shape, *tokens.shape[1:])


def batches(tokenizer):
    questions = [
        Question("now", "what is here now?", "owl", after, [[0, 1]]) for after in (0, 3, 4, 7, 8)
    ] + [Question("far", "was the owl near or far?", "near", 5, [[0, 1]])]
    stream = Stream(list(range(FRAMES)), questions)
    speech = Speech(tokenizer, QWEN)
    return [collate(list(halves([stream], odd)), speech) for odd in (False, True)]


class Quick(unittest.TestCase):
    @torch.no_grad()
    def test_the_tower_is_that_of_the_modules(self):
        # One row of windows is half full, one column, both, none.
        for picture in ((84, 112), (112, 84), (84, 84), (112, 112)):
            case = Case(picture)
            frames = torch.arange(FRAMES + 1).clamp(max=FRAMES - 1)
            quick = case.units(frames[::2], frames[1::2])
            expected = case.modules(case.frames)
            self.assertLess((quick - expected).abs().max(), 2e-4 * expected.abs().max())

    def test_the_processor_makes_of_a_camera_what_the_model_was_trained_on(self):
        case = Case()
        frames = torch.zeros(2, *case.camera, 3, dtype=torch.uint8)
        grid = case.pixels(frames)["video_grid_thw"][0].tolist()
        self.assertEqual(grid, [1, *(2 * n for n in case.shape.grid)])

    @torch.no_grad()
    def test_all_logits_are_those_of_the_modules(self):
        case = Case()
        reader = Reader(case.model, case.tokenizer, case.shape.grid)
        compared = 0
        for batch in batches(case.tokenizer):
            seen = see(batch, case.units)
            logits = reader.logits(reader(batch, seen, torch.float32))[0]
            positions = reader.positions(
                seen.units.shape[1], batch.seen // 2, batch.tokens.shape[2], is_odd(batch)
            )
            for q in range(len(batch.kinds[0])):
                count = int(batch.seen[0, q])
                expected, place = self.alone(case, batch.tokens[0, q], count)
                torch.testing.assert_close(logits[q], expected, rtol=0, atol=2e-3)
                # What was turned by is what transformers would count, but for the text behind the video.
                rows = reader_rows(positions, case, batch, q)
                self.assertTrue(torch.equal(rows, place))
                compared += 1
        self.assertEqual(compared, 6)

    def alone(self, case: Case, tokens: torch.Tensor, count: int):
        """Logits of a question's rows after `count` frames, and all positions, by the modules."""
        model, features = case.model, case.modules(case.frames[:count])
        video = torch.full((features.shape[0] * features.shape[1],), model.config.video_token_id)
        prefix = torch.tensor(case.tokenizer.encode(QWEN.before_video))
        ids = torch.cat([prefix, video, tokens])[None]
        grid = case.pixels(case.frames[:count])["video_grid_thw"]
        positions = check.positions(model, ids, grid)
        behind = len(prefix) + len(video)
        embeds = model.get_input_embeddings()(ids)
        embeds[0, len(prefix) : behind] = features.flatten(0, 1)
        logits = model(inputs_embeds=embeds, position_ids=positions).logits[0]
        return logits[behind:], positions[:, 0]


def reader_rows(positions, case, batch, q) -> torch.Tensor:
    """[3, n]: the positions of one question and of what it sees."""
    tokens = case.shape.tokens_per_unit
    prefix = len(case.tokenizer.encode(QWEN.before_video))
    length = batch.tokens.shape[2] + tokens * is_odd(batch)
    units = (batch.frames.shape[1] + 1) // 2
    start = prefix + units * tokens + q * length
    video = prefix + int(batch.seen[0, q]) // 2 * tokens
    return torch.cat([positions[:, 0, :video], positions[:, 0, start : start + length]], 1)


if __name__ == "__main__":
    unittest.main()
