# SPDX-License-Identifier: MPL-2.0
"""Stage 1: vision tower and projector, by four linear heads on every pooled token."""

import argparse
import os

import torch
import torch.nn.functional as F

import model as shape
import world
from optim import Clock, Optimisers
from words import train_tokenizer


# Outlines are the hard part: colours are learned in a minute.
WEIGHTS = {"shape": 3.0}


class Heads(torch.nn.ModuleDict):
    """One linear classifier per label; thrown away after this stage."""

    def __init__(self, width: int):
        super().__init__({name: torch.nn.Linear(width, n) for name, n in world.HEADS.items()})

    def loss(self, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        total = 0.0
        for column, (name, head) in enumerate(self.items()):
            target = labels[:, column, None].expand(-1, tokens.shape[1])
            logits = head(tokens).flatten(0, 1)
            loss = F.cross_entropy(logits, target.flatten(), ignore_index=world.UNLABELLED)
            total = total + WEIGHTS.get(name, 1.0) * loss
        return total

    @torch.no_grad()
    def accuracy(self, tokens: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Share of single tokens that carry the right label."""
        result = {}
        for column, (name, head) in enumerate(self.items()):
            target = labels[:, column]
            named = target != world.UNLABELLED
            right = head(tokens[named]).argmax(-1) == target[named, None]
            result[name] = right.float().mean().item()
        return result


class Trainer:
    def __init__(self, arguments):
        self.arguments = arguments
        self.parts = shape.vision_parts(shape.build(train_tokenizer()))
        self.heads = Heads(128)
        self.seed = world.TRAIN
        self.steps = 0
        named = [*self.parts.named_parameters(), *self.heads.named_parameters(prefix="head")]
        self.optimisers = Optimisers(named, arguments.lr)
        self.clock = Clock(arguments.minutes)
        self.path = os.path.join(arguments.run, "vision.pt")
        if os.path.exists(self.path):
            self.resume()
        frames = world.frame_batches(2048, "vision", "--seed", world.VALIDATION, "--count", 2048)
        self.validation = next(frames)

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

    def report(self, loss: float):
        with torch.no_grad():
            tokens = shape.encode_frames(self.parts, self.validation[0])
        accuracy = self.heads.accuracy(tokens, self.validation[1])
        values = " ".join(f"{name} {value:.4f}" for name, value in accuracy.items())
        print(f"{self.clock.spent():6.0f}s step {self.steps} loss {loss:.3f} {values}", flush=True)

    def train(self):
        if self.clock.progress() >= 1:
            return
        batch = self.arguments.batch
        frames = world.frame_batches(batch, "vision", "--seed", self.seed)
        for pixels, labels in world.ahead(frames):
            loss = self.heads.loss(shape.encode_frames(self.parts, pixels), labels)
            loss.backward()
            self.optimisers.step(self.clock.rate())
            self.steps += 1
            self.seed += batch
            done = self.clock.progress() >= 1
            if self.steps % 200 == 0 or done:
                self.report(loss.item())
                self.save()
            if done:
                break


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="folder for checkpoints")
    parser.add_argument("--minutes", type=float, default=25, help="budget in all")
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.makedirs(arguments.run, exist_ok=True)
    Trainer(arguments).train()


if __name__ == "__main__":
    main()
