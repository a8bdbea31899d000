# SPDX-License-Identifier: MPL-2.0
"""Stage 1: vision tower and projector, by linear heads on every pooled token.

A world brings its heads: a module of `loss(tokens, labels)` and `report(tokens, labels)`.
"""

import argparse
import os

import torch

from . import ranks, tower
from .optim import Clock, Optimisers
from .program import TRAIN, VALIDATION, ahead


class Trainer:
    def __init__(self, arguments, program, parts, heads):
        self.arguments, self.program = arguments, program
        self.parts, self.heads = parts, heads
        self.seed = program.first
        self.steps = 0
        named = [*parts.named_parameters(), *heads.named_parameters(prefix="head")]
        # The tower's last norm is there for the checkpoint's sake; nothing reads it.
        self.optimisers = Optimisers(named, arguments.lr)
        self.clock = Clock(arguments.minutes)
        self.path = os.path.join(arguments.run, "vision.pt")
        if os.path.exists(self.path):
            self.resume()
        if arguments.rank == 0:
            self.validation = self.held()

    def held(self):
        """Pictures that no training sees, and their labels."""
        return next(self.program.records(2048, "vision", "--seed", VALIDATION, "--count", 2048))

    def drawn(self):
        """Endless batches of pictures and labels."""
        # Ranks are far apart, so that none sees what another has seen.
        stride = (VALIDATION - TRAIN) // self.arguments.ranks
        seed = self.seed + self.arguments.rank * stride
        records = self.program.records(self.arguments.batch, "vision", "--seed", seed)
        for pixels, labels in records:
            yield self.heads.mix(pixels, labels)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return tower.encode(self.parts, pixels)

    def resume(self):
        state = torch.load(self.path, weights_only=False)
        self.parts.load_state_dict(state["parts"])
        self.heads.load_state_dict(state["heads"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.seed, self.steps = state["seed"], state["steps"]
        self.clock = Clock(self.arguments.minutes, state["spent"])

    def save(self):
        state = {
            "parts": self.parts.state_dict(),
            "heads": self.heads.state_dict(),
            "optimisers": self.optimisers.state_dict(),
            "seed": self.seed,
            "steps": self.steps,
            "spent": self.clock.spent(),
        }
        torch.save(state, self.path + ".new")
        os.replace(self.path + ".new", self.path)

    @torch.no_grad()
    def report(self, loss: float):
        frames, labels = self.validation
        tokens = torch.cat([self.encode(part) for part in frames.split(256)])
        values = self.heads.report(tokens.float(), labels)
        print(
            f"{self.clock.spent():6.0f}s step {self.steps} seed {self.seed} loss {loss:.3f} {values}",
            flush=True,
        )

    def train(self):
        if ranks.agreed(self.clock.progress()) >= 1:
            return
        arguments = self.arguments
        mean = None
        for pixels, labels in ahead(self.drawn()):
            loss = self.heads.loss(self.encode(pixels).float(), labels)
            loss.backward()
            ranks.average_gradients([*self.parts.parameters(), *self.heads.parameters()])
            progress = ranks.agreed(self.clock.progress())
            self.optimisers.step(self.clock.rate_at(progress))
            self.steps += 1
            self.seed += arguments.batch
            mean = loss.item() if mean is None else mean + 0.02 * (loss.item() - mean)
            done = progress >= 1
            if arguments.rank == 0 and (self.steps % arguments.every == 0 or done):
                self.report(mean)
                self.save()
            if done:
                break


def parser(doc: str, minutes: float, ranks_: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--run", required=True, help="folder for checkpoints")
    parser.add_argument("--minutes", type=float, default=minutes, help="budget in all")
    parser.add_argument("--batch", type=int, default=192 // ranks_, help="per rank and step")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--every", type=int, default=200, help="steps between reports")
    ranks.options(parser, ranks_, 1)
    return parser
