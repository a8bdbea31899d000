# SPDX-License-Identifier: MPL-2.0
"""More vision training beside or after the language model, without disturbing it.

The heads are frozen and the features are tied to what they were wherever they were right, so
the language model goes on reading them; only frames that were misread (small outlines) move.
"""

import argparse
import copy
import os

import torch
import torch.nn.functional as F

import world
from heads import Heads
from training import tower
from training.optim import Clock, Optimisers
from training.program import VALIDATION, ahead
from training.shape import scale_features, vision_parts
from training.words import empty_tokenizer

ANCHOR_WEIGHT = 3.0


@torch.no_grad()
def read_right(heads: Heads, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[n, 4]: tokens from which every head reads its label."""
    right = torch.ones(tokens.shape[:2], dtype=torch.bool)
    for column, head in enumerate(heads.values()):
        target = labels[:, column, None]
        right &= (head(tokens).argmax(-1) == target) | (target == world.UNLABELLED)
    return right


class Polisher:
    def __init__(self, run: str):
        state = torch.load(os.path.join(run, "vision.pt"), weights_only=False)
        self.parts = vision_parts(world.SHAPE.build(empty_tokenizer()))
        self.parts.load_state_dict(state["parts"])
        self.teacher = copy.deepcopy(self.parts).eval().requires_grad_(False)
        self.heads = Heads(world.SHAPE.width).requires_grad_(False)
        self.heads.load_state_dict(state["heads"])
        self.seed, self.path = state["seed"], os.path.join(run, "vision-polished.pt")
        scaled = torch.load(os.path.join(run, "vision-scaled.pt"), weights_only=False)
        key = "projector.linear_2.weight"
        self.scale = (scaled[key].norm() / state["parts"][key].norm()).item()
        if os.path.exists(self.path):
            self.resume()
        frames = world.PROGRAM.records(2048, "vision", "--seed", VALIDATION, "--count", 2048)
        self.validation = next(frames)

    def resume(self):
        """Goes on from an earlier polish, with new frames."""
        self.parts.load_state_dict(torch.load(self.path, weights_only=False))
        scale_features(self.parts, 1 / self.scale)
        self.seed += 10_000_000

    def loss(self, pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        tokens = tower.encode(self.parts, pixels, torch.float32)
        with torch.no_grad():
            before = tower.encode(self.teacher, pixels, torch.float32)
            right = read_right(self.heads, before, labels)
        moved = F.mse_loss(tokens[right], before[right]) / before[right].var()
        return self.heads.loss(tokens, labels) + ANCHOR_WEIGHT * moved

    @torch.no_grad()
    def report(self, step: int, loss: float):
        pixels, labels = self.validation
        tokens = tower.encode(self.parts, pixels, torch.float32)
        before = tower.encode(self.teacher, pixels, torch.float32)
        similar = F.cosine_similarity(tokens, before, dim=-1).mean().item()
        values = self.heads.report(tokens, labels)
        print(f"step {step} loss {loss:.3f} cosine {similar:.4f} {values}", flush=True)

    def save(self):
        """Scaled as the language model knows it."""
        parts = copy.deepcopy(self.parts)
        scale_features(parts, self.scale)
        torch.save(parts.state_dict(), self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def train(self, minutes: float, batch: int, lr: float):
        optimisers, clock = Optimisers(self.parts.named_parameters(), lr), Clock(minutes)
        frames = world.PROGRAM.records(batch, "vision", "--seed", self.seed)
        for step, (pixels, labels) in enumerate(ahead(frames), start=1):
            loss = self.loss(pixels, labels)
            loss.backward()
            optimisers.step(clock.rate())
            done = clock.progress() >= 1
            if step % 100 == 0 or done:
                self.report(step, loss.item())
                self.save()
            if done:
                break


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--lr", type=float, default=1e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    Polisher(arguments.run).train(arguments.minutes, arguments.batch, arguments.lr)


if __name__ == "__main__":
    main()
