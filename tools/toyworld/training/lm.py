# SPDX-License-Identifier: MPL-2.0
"""Stage 2: the language model and `image_newline`, on streams assembled from the encoded pool.

Runs as `--ranks` processes of one thread each; they average gradients over gloo.
"""

import argparse
import os
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

import export
import model as shape
import words
import world
from batches import Batch, Speech, batches, choose_tokens
from decoder import Plan, decode
from optim import Clock, Optimisers
from world import TRAIN, VALIDATION

AUXILIARY_WEIGHT = 0.3
# What is learned last counts more.
KIND_WEIGHTS = {"count": 2.0, "before": 2.0, "after": 1.5}
# The recipes the engine will run with: tokens of local window, frames retrieved, newest frames,
# and how many neighbours on either side may come with a retrieved frame.
WINDOW, RETRIEVE, RECENT, AROUND = 128, 16, 4, 4


class Reader(torch.nn.Module):
    """The trained half of the model: decoder, embeddings and the newline."""

    def __init__(self, model, tokenizer):
        super().__init__()
        self.text = model.model.language_model
        self.image_newline = model.model.image_newline
        prefix = tokenizer.encode(words.BEFORE_VIDEO, add_special_tokens=False)
        self.register_buffer("prefix", torch.tensor(prefix), persistent=False)
        self.newline = tokenizer.convert_tokens_to_ids("<video>")

    def forward(self, batch: Batch, features: torch.Tensor, chosen=None, window=None):
        s = features.shape[0]
        embed = self.text.embed_tokens
        prefix = embed(self.prefix).expand(s, -1, -1)
        video = torch.cat([prefix, features.flatten(1, 2)], 1)
        newline = (batch.tokens == self.newline)[..., None]
        questions = torch.where(newline, self.image_newline, embed(batch.tokens))
        plan = Plan(
            video.shape[1], len(self.prefix), batch.seen, batch.tokens.shape[-1], chosen, window
        )
        return decode(self.text, video, questions, batch.asked, plan)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.text.embed_tokens.weight.T


def retrieval_loss(scores: list[torch.Tensor], batch: Batch) -> torch.Tensor:
    """Each relevant frame against all irrelevant ones, layer by layer.

    Per positive: a softmax over all frames would be content with the single best one, and
    "what came after?" needs the neighbour too.
    """
    frames = torch.arange(batch.relevant.shape[-1])
    wrong = ~batch.relevant & (frames < batch.seen[..., None])
    losses = []
    for layer, score in enumerate(scores):
        right = batch.relevant
        if layer == 0:
            right = right & ~batch.ordered[..., None]
        rest = score.masked_fill(~wrong, -1e9).logsumexp(-1, keepdim=True)
        each = F.softplus(rest - score) * right
        count = right.sum(-1)
        asked = (count > 0) & wrong.any(-1)
        losses.append((each.sum(-1) / count.clamp(min=1))[asked].mean())
    return torch.stack(losses).mean()


@torch.no_grad()
def recall(scores: list[torch.Tensor], batch: Batch, at: int) -> list[float]:
    """Per layer, the share of relevant frames among the best `at`."""
    frames = torch.arange(batch.relevant.shape[-1])
    past = frames < batch.seen[..., None]
    asked = batch.relevant.any(-1) & (batch.seen > at)
    result = []
    for score in scores:
        best = score.masked_fill(~past, -1e9).topk(min(at, score.shape[-1]), -1).indices
        found = torch.gather(batch.relevant, -1, best).sum(-1)
        share = found / batch.relevant.sum(-1).clamp(min=1, max=at)
        result.append(share[asked].mean().item())
    return result


@torch.no_grad()
def exact(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """[s, q]: the whole answer right, as greedy decoding would give it."""
    learned = target != -100
    return ((logits.argmax(-1) == target) | ~learned).all(-1) & learned.any(-1)


def kind_weights(batch: Batch) -> torch.Tensor:
    """[s, q]"""
    weights = torch.ones(batch.seen.shape)
    for s, kinds in enumerate(batch.kinds):
        for q, kind in enumerate(kinds):
            weights[s, q] = KIND_WEIGHTS.get(kind, 1.0)
    return weights


def by_kind(right: torch.Tensor, batch: Batch, into: dict[str, list[bool]]) -> None:
    for s, kinds in enumerate(batch.kinds):
        for q, kind in enumerate(kinds):
            into[kind].append(bool(right[s, q]))


@dataclass
class Stage:
    """Streams up to `frames` long until this share of the time is spent."""

    frames: int
    until: float


def parse_curriculum(text: str) -> list[Stage]:
    """"16:0.1,32:1" is 16 frames for a tenth of the time, then 32."""
    pairs = (part.split(":") for part in text.split(","))
    return [Stage(int(frames), float(until)) for frames, until in pairs]


class Trainer:
    def __init__(self, arguments, rank: int):
        self.arguments, self.rank = arguments, rank
        self.curriculum = parse_curriculum(arguments.curriculum)
        self.tokenizer = words.train_tokenizer()
        self.model = shape.build(self.tokenizer)
        vision = torch.load(os.path.join(arguments.run, "vision-scaled.pt"), weights_only=False)
        shape.vision_parts(self.model).load_state_dict(vision)
        self.reader = Reader(self.model, self.tokenizer)
        self.features = torch.from_numpy(
            np.load(os.path.join(arguments.run, "features.npy"), mmap_mode="c")
        )
        self.speech = Speech(self.tokenizer)
        self.rng = np.random.default_rng(rank)
        self.optimisers = Optimisers(self.reader.named_parameters(), arguments.lr)
        self.steps, self.seed, spent = 0, TRAIN, 0.0
        self.path = os.path.join(arguments.run, "lm.pt")
        if os.path.exists(self.path):
            spent = self.resume()
        self.clock = Clock(arguments.minutes, spent)
        self.validation = {
            frames: list(self.streams(VALIDATION, frames, count=48))
            for frames in sorted({32, self.curriculum[-1].frames})
        }

    def streams(self, seed: int, frames: int, count: int | None = None):
        arguments = self.arguments
        # Validation asks at the full length: no padding, no gaps.
        limit = ["--min-frames", frames // 2]
        if count is not None:
            limit = ["--count", count, "--min-frames", frames]
        gaps = 0.2 if count is None else 0.0
        return batches(
            arguments.streams, self.speech, "--scenes", len(self.features) // 5,
            "--seed", seed, "--frames", frames, "--gaps", gaps,
            "--questions", arguments.questions, *limit,
        )  # fmt: skip

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
        export.save(self.model, self.tokenizer, self.arguments.out)

    def mode(self, batch: Batch) -> dict:
        """How this batch is run: in full, windowed, or answered from a retrieved part."""
        draw = self.rng.random()
        if draw < 0.5:
            return {"window": WINDOW if draw < 0.15 else None}
        keep = 1.0 if self.rng.random() < 0.6 else self.rng.uniform(0.5, 1.0)
        retrieve = int(self.rng.integers(6, RETRIEVE + 1))
        recent = int(self.rng.integers(1, RECENT + 1))
        around = int(self.rng.integers(0, AROUND + 1))
        chosen = choose_tokens(batch, retrieve, recent, keep, around, self.rng)
        return {"window": WINDOW, "chosen": chosen}

    def loss(self, batch: Batch) -> torch.Tensor:
        output = self.reader(batch, self.features[batch.frames].float(), **self.mode(batch))
        learned = batch.target != -100
        logits = self.reader.logits(output.hidden[learned])
        weights = kind_weights(batch)[..., None].expand_as(learned)[learned]
        each = F.cross_entropy(logits, batch.target[learned], reduction="none")
        answers = (each * weights).sum() / weights.sum()
        return answers + AUXILIARY_WEIGHT * retrieval_loss(output.scores, batch)

    def average_gradients(self):
        if not dist.is_initialized():
            return
        gradients = [p.grad for p in self.reader.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts):
            gradient.copy_(part.view_as(gradient))

    def agreed_progress(self) -> float:
        """The first rank's clock is everybody's."""
        progress = torch.tensor(self.clock.progress())
        if dist.is_initialized():
            dist.broadcast(progress, 0)
        return progress.item()

    def report(self, loss: float):
        print(f"{self.clock.spent():5.0f}s step {self.steps} loss {loss:.3f}")
        for frames, validation in self.validation.items():
            print(f"  {frames} frames: {self.evaluate(validation)}", flush=True)

    @torch.no_grad()
    def evaluate(self, validation: list[Batch]) -> str:
        right, found = defaultdict(list), []
        for batch in validation:
            output = self.reader(batch, self.features[batch.frames].float())
            by_kind(exact(self.reader.logits(output.hidden), batch.target), batch, right)
            found.append(recall(output.scores, batch, 8))
        recalls = " ".join(f"{value:.2f}" for value in np.nanmean(found, axis=0))
        values = " ".join(f"{kind} {np.mean(all):.2f}" for kind, all in sorted(right.items()))
        return f"recall@8 [{recalls}] {values}"

    def train(self):
        for stage in self.curriculum:
            if self.agreed_progress() < stage.until:
                self.train_stage(stage)

    def train_stage(self, stage: Stage):
        size = self.arguments.streams
        stride = 500_000_000 // self.arguments.ranks
        batches = self.streams(self.seed + self.rank * stride, stage.frames)
        for batch in world.ahead(batches):
            loss = self.loss(batch)
            loss.backward()
            self.average_gradients()
            torch.nn.utils.clip_grad_norm_(self.reader.parameters(), 1.0)
            progress = self.agreed_progress()
            self.optimisers.step(self.clock.rate_at(progress))
            self.steps += 1
            self.seed += size
            if self.rank == 0 and (self.steps % self.arguments.every == 0 or progress >= 1):
                self.report(loss.item())
                self.save()
            if progress >= stage.until:
                break


def work(rank: int, arguments):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if arguments.ranks > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(arguments.port))
        dist.init_process_group("gloo", rank=rank, world_size=arguments.ranks)
    Trainer(arguments, rank).train()
    if dist.is_initialized():
        dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="folder of checkpoints and features")
    parser.add_argument("--out", required=True, help="model folder to export to")
    parser.add_argument("--minutes", type=float, default=50, help="budget in all")
    parser.add_argument("--curriculum", default="16:0.1,32:0.45,64:1", help="frames:until, ...")
    parser.add_argument("--streams", type=int, default=8, help="streams per rank and step")
    parser.add_argument("--questions", type=int, default=14)
    parser.add_argument("--every", type=int, default=150, help="steps between exports")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--port", type=int, default=29571)
    arguments = parser.parse_args()
    if arguments.ranks > 1:
        torch.multiprocessing.spawn(work, (arguments,), nprocs=arguments.ranks)
    else:
        work(0, arguments)


if __name__ == "__main__":
    main()
