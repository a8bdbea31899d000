# SPDX-License-Identifier: MPL-2.0
"""Stage 2: the language model and `image_newline`, on streams assembled from the encoded pool."""

import argparse
import os
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from . import export, ranks, words
from .batches import Batch, Speech, batches
from .decoder import decode
from .encode import features
from .optim import Clock, Optimisers
from .program import TRAIN, VALIDATION, ahead
from .quick import QUICK
from .shape import vision_parts


class Reader(torch.nn.Module):
    """The trained half of the model: decoder, embeddings and the newline."""

    def __init__(self, model, tokenizer):
        super().__init__()
        self.text = model.model.language_model
        self.image_newline = model.model.image_newline
        prefix = tokenizer.encode(words.BEFORE_VIDEO, add_special_tokens=False)
        self.register_buffer("prefix", torch.tensor(prefix), persistent=False)
        self.newline = tokenizer.convert_tokens_to_ids("<video>")

    def embedded(self, batch: Batch, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Video rows [s, m, c] and question rows [s, q, l, c]."""
        embed = self.text.embed_tokens
        prefix = embed(self.prefix).expand(features.shape[0], -1, -1)
        video = torch.cat([prefix, features.flatten(1, 2).to(prefix.dtype)], 1)
        newline = (batch.tokens == self.newline)[..., None]
        return video, torch.where(newline, self.image_newline, embed(batch.tokens))

    def forward(self, batch: Batch, features: torch.Tensor, dtype=QUICK) -> torch.Tensor:
        video, questions = self.embedded(batch, features)
        seen = len(self.prefix) + features.shape[2] * batch.seen
        return decode(self.text, video, questions, seen, dtype)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return (hidden @ self.text.embed_tokens.weight.T.to(hidden.dtype)).float()


@torch.no_grad()
def exact(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """[s, q]: the whole answer right, as greedy decoding would give it."""
    learned = target != -100
    return ((logits.argmax(-1) == target) | ~learned).all(-1) & learned.any(-1)


def by_kind(right: torch.Tensor, batch: Batch, into: dict[str, list[bool]]) -> None:
    for s, kinds in enumerate(batch.kinds):
        for q, kind in enumerate(kinds):
            into[kind].append(bool(right[s, q]))


@dataclass
class Stage:
    """Streams up to `frames` long until this share of the time is spent, asked the program's own mix
    of questions or these kinds."""

    frames: int
    kinds: list[str]
    until: float


def parse_curriculum(text: str) -> list[Stage]:
    """"2@now+where_now:0.1,32:1" is two frames and two kinds for a tenth of the time, then 32 frames
    and all kinds."""
    stages = []
    for part in text.split(","):
        what, until = part.split(":")
        frames, _, kinds = what.partition("@")
        stages.append(Stage(int(frames), kinds.split("+") if kinds else [], float(until)))
    return stages


@dataclass
class World:
    """What a trainer must know of its world."""

    program: object
    shape: object
    tokenizer: object
    # The arguments of `streams` that name the pool.
    pool: list
    kind_weights: dict[str, float]
    turn: words.Turn = words.LLAVA


class Trainer:
    """A world overrides what it does its own way."""

    def __init__(self, arguments, world: World):
        self.arguments, self.world = arguments, world
        self.curriculum = parse_curriculum(arguments.curriculum)
        self.tokenizer = world.tokenizer
        self.model = world.shape.build(self.tokenizer)
        vision = torch.load(os.path.join(arguments.run, "vision-scaled.pt"), weights_only=False)
        vision_parts(self.model).load_state_dict(vision)
        self.reader = self.make_reader()
        self.features = self.read_features()
        self.speech = Speech(self.tokenizer, world.turn)
        self.optimisers = Optimisers(
            self.reader.named_parameters(), arguments.lr, arguments.embedding_lr
        )
        self.steps, self.seed, spent = 0, world.program.first, 0.0
        self.path = os.path.join(arguments.run, "lm.pt")
        if os.path.exists(self.path):
            spent = self.resume()
        else:
            self.begin()
        self.clock = Clock(arguments.minutes, spent)
        # Validation asks at the full length.
        self.validation = {
            frames: list(
                self.batches(VALIDATION, frames, frames, "--count", arguments.validation)
            )
            for frames in sorted({self.curriculum[0].frames, 32, self.curriculum[-1].frames})
        }

    def make_reader(self) -> torch.nn.Module:
        return Reader(self.model, self.tokenizer)

    def read_features(self):
        return features(self.arguments.run, self.world.shape)

    def seen(self, batch: Batch):
        """What the reader is shown of a batch's frames."""
        return self.features[batch.frames]

    def begin(self):
        """What a world does to a fresh model."""

    def batches(self, seed: int, frames: int, least: int, *more: object):
        size = self.batch_size(frames)
        streams = self.world.program.streams(
            *self.world.pool, "--seed", seed, "--frames", frames, "--min-frames", least,
            "--batch", size, "--questions", self.arguments.questions, *more,
        )  # fmt: skip
        return batches(size, streams, self.speech)

    def batch_size(self, frames: int) -> int:
        """Short streams come in greater number: a step costs about the same."""
        return self.arguments.streams * max(1, min(8, 64 // frames))

    def training(self, stage: Stage):
        """Endless batches of a stage."""
        kinds = ["--kinds", ",".join(stage.kinds)] if stage.kinds else []
        return self.batches(self.first_seed(), stage.frames, stage.frames // 2, *kinds)

    def first_seed(self) -> int:
        """Ranks are far apart, so that none sees what another has seen."""
        return self.seed + self.arguments.rank * (VALIDATION - TRAIN) // self.arguments.ranks

    def resume(self) -> float:
        state = torch.load(self.path, weights_only=False)
        self.reader.load_state_dict(state["reader"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.steps, self.seed = state["steps"], state["seed"]
        return state["spent"]

    def save(self):
        state = {
            "reader": self.reader.state_dict(),
            "optimisers": self.optimisers.state_dict(),
            "steps": self.steps,
            "seed": self.seed,
            "spent": self.clock.spent(),
        }
        torch.save(state, self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def weights(self, batch: Batch) -> torch.Tensor:
        """[s, q]"""
        weights = torch.ones(batch.seen.shape)
        for s, kinds in enumerate(batch.kinds):
            for q, kind in enumerate(kinds):
                weights[s, q] = self.world.kind_weights.get(kind, 1.0)
        return weights

    def answer_loss(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        learned = batch.target != -100
        logits = self.reader.logits(hidden[learned])
        weights = self.weights(batch)[..., None].expand_as(learned)[learned]
        each = F.cross_entropy(logits, batch.target[learned], reduction="none")
        return (each * weights).sum() / weights.sum()

    def loss(self, batch: Batch) -> torch.Tensor:
        return self.answer_loss(self.reader(batch, self.seen(batch)), batch)

    def report(self, loss: float):
        print(f"{self.clock.spent():5.0f}s step {self.steps} seed {self.seed} loss {loss:.3f}")
        for frames, validation in self.validation.items():
            print(f"  {frames} frames: {self.evaluate(validation)}", flush=True)

    @torch.no_grad()
    def evaluate(self, validation: list[Batch]) -> str:
        right = defaultdict(list)
        for batch in validation:
            hidden = self.reader(batch, self.seen(batch))
            by_kind(exact(self.reader.logits(hidden), batch.target), batch, right)
        return " ".join(f"{kind} {np.mean(all):.2f}" for kind, all in sorted(right.items()))

    def train(self):
        for stage in self.curriculum:
            if ranks.agreed(self.clock.progress()) < stage.until:
                self.train_stage(stage)

    def train_stage(self, stage: Stage):
        mean = None
        for batch in ahead(self.training(stage)):
            loss = self.loss(batch)
            loss.backward()
            ranks.average_gradients(self.reader.parameters())
            torch.nn.utils.clip_grad_norm_(self.reader.parameters(), 1.0)
            progress = ranks.agreed(self.clock.progress())
            self.optimisers.step(self.clock.rate_at(progress))
            self.steps += 1
            self.seed += self.batch_size(stage.frames)
            mean = loss.item() if mean is None else mean + 0.02 * (loss.item() - mean)
            if self.arguments.rank == 0 and (self.steps % self.arguments.every == 0 or progress >= 1):
                self.save()
                self.report(mean)
            if progress >= stage.until:
                break


def trained(run, world: World, make_reader, vision="vision-scaled.pt"):
    """The model of the newest checkpoint."""
    model = world.shape.build(world.tokenizer)
    parts = torch.load(os.path.join(run, vision), weights_only=False)
    vision_parts(model).load_state_dict(parts)
    state = torch.load(os.path.join(run, "lm.pt"), weights_only=False)
    make_reader(model, world.tokenizer).load_state_dict(state["reader"])
    return model


def export_run(run, world: World, folder: str, vision="vision-scaled.pt", dtype=torch.float16):
    """The newest checkpoint as a model folder; safe while training goes on."""
    model = trained(run, world, Reader, vision)
    size = model.config.vision_config.image_size
    export.save(model.to(dtype), export.processor(world.tokenizer, size), folder)


def parser(doc: str, **defaults: object) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--run", required=True, help="folder of checkpoints and features")
    parser.add_argument("--minutes", type=float, default=65, help="budget in all")
    parser.add_argument("--curriculum", default="16:0.2,32:0.5,64:1", help="frames:until, ...")
    parser.add_argument("--streams", type=int, default=4, help="streams per rank and step")
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--every", type=int, default=300, help="steps between checkpoints")
    parser.add_argument("--validation", type=int, default=96, help="streams of validation")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--embedding-lr", type=float, default=1.0, help="share of it")
    ranks.options(parser, 2, 1)
    parser.set_defaults(**defaults)
    return parser
