# SPDX-License-Identifier: MPL-2.0
"""The text-image pair: over the frozen vision tower, which frames does a question mean?

A SigLIP of transformers. What is trained is the pooling head over the tower's patches and a small
text tower that reads questions; the loss is SigLIP's, between the questions about a stream and the
frames of that stream, so that the negatives are those that a retrieval has to tell apart.
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, normalizers
from transformers import (
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

import world
from check import questions, video
from lm import RETRIEVE
from training import export
from training.optim import Clock, Optimisers
from training.program import TRAIN, VALIDATION, Question, Stream, ahead
from training.tower import pixel_values
from training.words import END
from world import NOW

# The longest question of the world has 9 tokens; the rest is for words it does not know.
LENGTH = 16
# What no single frame can show.
UNTOLD = NOW | {"first"}
WIDTH = 96


def read_tokenizer(folder: str):
    """The language model's vocabulary; small letters, as SigLIP has it."""
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    tokenizer.normalizer = normalizers.Lowercase()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token="<|endoftext|>",
        model_max_length=LENGTH,
    )


def build(tokenizer, folder: str) -> SiglipModel:
    """The tower of `folder` with a fresh head, beside a fresh text tower."""
    pad = tokenizer.pad_token_id
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": LENGTH,
        "pad_token_id": pad,
        "bos_token_id": pad,
        "eos_token_id": pad,
    }
    vision = world.SHAPE.vision_config().to_dict() | {"vision_use_head": True}
    torch.manual_seed(0)
    pair = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    language = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    tower = language.model.vision_tower
    pair.vision_model.embeddings.load_state_dict(tower.embeddings.state_dict())
    pair.vision_model.encoder.load_state_dict(tower.encoder.state_dict())
    pair.vision_model.embeddings.requires_grad_(False)
    pair.vision_model.encoder.requires_grad_(False)
    with torch.no_grad():
        pair.logit_scale.fill_(np.log(10))
        pair.logit_bias.fill_(-5)
    return pair.eval()


@torch.no_grad()
def patches(pair: SiglipModel, pixels: torch.Tensor) -> torch.Tensor:
    """What the frozen layers make of frames [n, 3, 56, 56]: [n, 16, 96]."""
    tower = pair.vision_model
    return tower.encoder(inputs_embeds=tower.embeddings(pixels)).last_hidden_state


def frame_embeddings(pair: SiglipModel, hidden: torch.Tensor) -> torch.Tensor:
    """Patches [n, 16, 96] to unit vectors [n, 96]."""
    tower = pair.vision_model
    return F.normalize(tower.head(tower.post_layernorm(hidden)), dim=-1)


def token_ids(tokenizer, texts: list[str]) -> torch.Tensor:
    """[n, 16], padded as SigLIP wants it."""
    return tokenizer(
        texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    )["input_ids"]


def text_embeddings(pair: SiglipModel, tokenizer, texts: list[str]) -> torch.Tensor:
    """Unit vectors [n, 96]."""
    ids = token_ids(tokenizer, texts)
    return F.normalize(pair.text_model(input_ids=ids).pooler_output, dim=-1)


def named(question: Question) -> list[list[int]]:
    """The frames that show what a question names: those beside them say what came then."""
    if question.kind == "after":
        return question.relevant[:1]
    if question.kind == "before":
        return question.relevant[-1:]
    return question.relevant


@dataclass
class Pairs:
    """`n` questions about `s` streams of `f` frames."""

    frames: torch.Tensor  # [s, f] numbers of frames
    texts: list[str]
    stream: torch.Tensor  # [n] which stream a question is about
    target: torch.Tensor  # [n, f] 1: shows what is named, -1: does not, 0: does not count
    relevant: torch.Tensor  # [n, f] frames that hold the answer
    past: torch.Tensor  # [n, f] frames the question may know
    kinds: list[str]


def collate(streams: list[Stream], skip: set[str] = UNTOLD) -> Pairs:
    asked = [(s, q) for s, stream in enumerate(streams) for q in stream.questions]
    asked = [(s, q) for s, q in asked if q.kind not in skip]
    size = (len(asked), max(len(stream.frames) for stream in streams))
    frames = np.zeros((len(streams), size[1]), np.int64)
    for s, stream in enumerate(streams):
        frames[s, : len(stream.frames)] = stream.frames
    target = np.zeros(size, np.float32)
    relevant, past = np.zeros(size, bool), np.zeros(size, bool)
    for n, (_, question) in enumerate(asked):
        past[n, : question.after + 1] = True
        for first, last in question.relevant:
            relevant[n, first:last] = True
        target[n, past[n] & ~relevant[n]] = -1
        for first, last in named(question):
            target[n, first:last] = 1
    return Pairs(
        torch.from_numpy(frames),
        [q.text for _, q in asked],
        torch.tensor([s for s, _ in asked]),
        torch.from_numpy(target),
        torch.from_numpy(relevant),
        torch.from_numpy(past),
        [q.kind for _, q in asked],
    )


def recall(cosines: torch.Tensor, pairs: Pairs) -> dict[str, list[float]]:
    """By kind, the share of relevant frames among the best; as `lm.recall` counts it."""
    best = cosines.masked_fill(~pairs.past, -2).topk(RETRIEVE, -1).indices
    found = torch.gather(pairs.relevant, -1, best).sum(-1)
    share = found / pairs.relevant.sum(-1).clamp(min=1, max=RETRIEVE)
    result: dict[str, list[float]] = defaultdict(list)
    for n, kind in enumerate(pairs.kinds):
        if pairs.relevant[n].any() and pairs.past[n].sum() > RETRIEVE:
            result[kind].append(share[n].item())
    return result


class Watch:
    """Fresh streams from validation seeds, through the folder's own processor."""

    def __init__(self, pair, processor, streams: int, frames: int, *options: str):
        self.items = []
        cast = [option for option in options if option == "--held-out"]
        for seed in range(VALIDATION, VALIDATION + streams):
            asked = questions(seed, frames, 39, *options)
            pixels = processor(list(video(seed, frames, *cast)), return_tensors="pt")
            stream = Stream(list(range(frames)), asked)
            self.items.append((collate([stream]), patches(pair, pixels["pixel_values"])))

    @torch.no_grad()
    def recall(self, pair, tokenizer) -> dict[str, float]:
        shares: dict[str, list[float]] = defaultdict(list)
        for pairs, hidden in self.items:
            texts = text_embeddings(pair, tokenizer, pairs.texts)
            cosines = texts @ frame_embeddings(pair, hidden).T
            for kind, values in recall(cosines, pairs).items():
                shares[kind] += values
        shares["all"] = [value for values in shares.values() for value in values]
        return {kind: float(np.mean(values)) for kind, values in sorted(shares.items())}


class Trainer:
    def __init__(self, arguments):
        self.arguments = arguments
        self.tokenizer = read_tokenizer(arguments.model)
        self.processor = SiglipImageProcessor(**export.pixels(world.SHAPE.image), resample=3)
        self.pair = build(self.tokenizer, arguments.model)
        trained = [(name, p) for name, p in self.pair.named_parameters() if p.requires_grad]
        self.optimisers = Optimisers(trained, arguments.lr)
        self.clock, self.steps = Clock(arguments.minutes), 0
        self.path = os.path.join(arguments.run, "pair.pt")
        if os.path.exists(self.path):
            self.resume()

    def encode(self):
        """Everything that goes through the frozen layers, once."""
        pool = world.PROGRAM.records(500, "pool", "--scenes", self.arguments.scenes)
        frames = (patches(self.pair, pixel_values(rgb)) for rgb, _ in pool)
        # [5 * scenes, 16, 96]
        self.features = torch.cat([hidden.half() for hidden in frames])
        size = (self.pair, self.processor, 16, 64)
        self.watched = {
            "trained": Watch(*size),
            "pairs": Watch(*size, "--held-out"),
            "wordings": Watch(*size, "--held-out-wording"),
        }

    def resume(self):
        state = torch.load(self.path, weights_only=False)
        self.pair.load_state_dict(state["pair"])
        self.optimisers.load_state_dict(state["optimisers"])
        self.steps = state["steps"]
        self.clock = Clock(self.arguments.minutes, state["spent"])

    def save(self):
        state = {
            "pair": self.pair.state_dict(),
            "optimisers": self.optimisers.state_dict(),
            "steps": self.steps,
            "spent": self.clock.spent(),
        }
        torch.save(state, self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def report(self, loss: float):
        found = {name: w.recall(self.pair, self.tokenizer) for name, w in self.watched.items()}
        values = "  ".join(f"{name} {shares['all']:.3f}" for name, shares in found.items())
        print(f"{self.clock.spent():6.0f}s step {self.steps} loss {loss:.3f} {values}", flush=True)
        for name, shares in found.items():
            print(f"    {name}: " + " ".join(f"{k} {v:.2f}" for k, v in shares.items()), flush=True)

    def batches(self) -> Iterator[Pairs]:
        batch = self.arguments.batch
        waiting = []
        for stream in world.PROGRAM.streams(
            "--scenes", self.arguments.scenes, "--seed", TRAIN + self.steps * batch,
            "--frames", 64, "--min-frames", 32, "--batch", batch, "--questions", 26,
        ):  # fmt: skip
            waiting.append(stream)
            if len(waiting) == batch:
                yield collate(waiting)
                waiting = []

    def loss(self, pairs: Pairs) -> torch.Tensor:
        """SigLIP's, within each stream; a question counts once, however many frames it has."""
        frames = frame_embeddings(self.pair, self.features[pairs.frames.flatten()].float())
        frames = frames.view(*pairs.frames.shape, -1)
        different = {text: index for index, text in enumerate(dict.fromkeys(pairs.texts))}
        texts = text_embeddings(self.pair, self.tokenizer, list(different))
        texts = texts[[different[text] for text in pairs.texts]]
        cosines = torch.einsum("nd,nfd->nf", texts, frames[pairs.stream])
        logits = self.pair.logit_scale.exp() * cosines + self.pair.logit_bias
        counts = pairs.target != 0
        return (-F.logsigmoid(pairs.target * logits) * counts).sum() / len(pairs.texts)

    def train(self):
        if self.clock.progress() >= 1:
            return
        self.encode()
        for pairs in ahead(self.batches()):
            loss = self.loss(pairs)
            loss.backward()
            self.optimisers.step(self.clock.rate())
            self.steps += 1
            done = self.clock.progress() >= 1
            if self.steps % 500 == 0 or done:
                self.report(loss.item())
                self.save()
            if done:
                break

    def export(self, folder: str):
        """Half precision; everything that transformers and the engine read."""
        self.pair.half().save_pretrained(folder)
        self.processor.save_pretrained(folder)
        # Not the one that has been used: it would carry how.
        read_tokenizer(self.arguments.model).save_pretrained(folder)
        os.chmod(os.path.join(folder, "model.safetensors"), 0o644)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="folder for checkpoints")
    parser.add_argument("--model", required=True, help="the finished model, for tower and words")
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=6, help="budget in all")
    parser.add_argument("--scenes", type=int, default=10000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(arguments.run, exist_ok=True)
    trainer = Trainer(arguments)
    trainer.train()
    trainer.export(arguments.out)


if __name__ == "__main__":
    main()
