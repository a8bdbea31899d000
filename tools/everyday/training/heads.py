# SPDX-License-Identifier: MPL-2.0
"""What every pooled token should tell: which cell it is, the thing over it, how far that is and how many
have their centre there; scenery and light of the frame; shape and colour of an `easy-vqa` picture.

A token that tells its cell is what makes "where was it?" answerable: the decoder knows how far back a
token is, and not where in its frame.
"""

from functools import cached_property

import torch
import torch.nn.functional as F

import easy
import world

NONE = 255
# An empty cell is the most frequent and the easiest.
EMPTY = 0.2
CENTRE = 2.0
MOST_CENTRES = 3
# Pictures of `easy-vqa` beside the frames of this world.
EASY_SHARE = 16
WEIGHTS = {"noun": 3.0, "distance": 0.5, "centres": 1.0, "scenery": 0.2, "light": 0.2, "cell": 1.0}


class Labels:
    """The bytes of a record [n, 50], and of an `easy-vqa` picture's two labels."""

    def __init__(self, rows: torch.Tensor):
        cells = rows[:, : 3 * world.CELLS].view(-1, world.CELLS, 3)
        self.noun, self.distance, self.centres = cells.unbind(-1)
        self.centres = torch.where(
            self.centres == NONE, NONE, self.centres.clamp(max=MOST_CENTRES)
        )
        self.scenery, self.light, self.shape, self.color = rows[:, 3 * world.CELLS :].unbind(-1)


class Heads(torch.nn.Module):
    """Linear classifiers; thrown away after this stage."""

    def __init__(self, width: int):
        super().__init__()
        self.nouns = [row["noun"] for row in world.nouns()]
        sizes = {
            "noun": len(self.nouns),
            "distance": 3,
            "centres": MOST_CENTRES + 1,
            "scenery": 5,
            "light": 3,
            "shape": len(easy.SHAPES),
            "color": len(easy.COLORS),
            "cell": world.CELLS,
        }
        self.heads = torch.nn.ModuleDict({k: torch.nn.Linear(width, n) for k, n in sizes.items()})

    @cached_property
    def easy_pixels(self) -> torch.Tensor:
        return easy.pictures(world.PROGRAM.size)

    @cached_property
    def easy_labels(self) -> torch.Tensor:
        return easy.labels()

    def mix(self, pixels: torch.Tensor, labels: torch.Tensor):
        """A few pictures of `easy-vqa` at the end of the batch."""
        few = len(pixels) // EASY_SHARE
        chosen = torch.randint(len(self.easy_pixels), (few,))
        unknown = torch.full((few, labels.shape[1]), NONE)
        rows = torch.cat([unknown, self.easy_labels[chosen]], 1)
        none = torch.full((len(labels), 2), NONE)
        labels = torch.cat([torch.cat([labels, none], 1), rows])
        return torch.cat([pixels, self.easy_pixels[chosen]]), labels

    def loss(self, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """tokens [n, 16, c], labels as `mix` gives them."""
        label = Labels(labels)
        logits = {name: head(tokens) for name, head in self.heads.items()}
        each = lambda name, target: F.cross_entropy(
            logits[name].flatten(0, 1), target.flatten(), ignore_index=NONE, reduction="none"
        ).view(target.shape)
        mean = lambda loss, weight: (loss * weight).sum() / weight.sum().clamp(min=1e-6)
        known = (label.noun != NONE).float()
        here = known * torch.where(label.noun > 0, 1.0, EMPTY)
        centre = (label.centres > 0) & (label.centres != NONE)
        total = WEIGHTS["noun"] * mean(each("noun", label.noun), here * (1 + (CENTRE - 1) * centre))
        total += WEIGHTS["distance"] * mean(each("distance", label.distance), here)
        total += WEIGHTS["centres"] * mean(each("centres", label.centres), here)
        cell = torch.arange(world.CELLS).expand(label.noun.shape)
        total += WEIGHTS["cell"] * each("cell", cell).mean()
        for name in ("scenery", "light", "shape", "color"):
            target = getattr(label, name)[:, None].expand(-1, world.CELLS)
            known = (target != NONE).float()
            total += WEIGHTS.get(name, 0.2) * mean(each(name, target), known)
        return total

    @torch.no_grad()
    def report(self, tokens: torch.Tensor, labels: torch.Tensor) -> str:
        """Shares of single tokens that are right."""
        none = torch.full((len(labels), 2), NONE)
        label = Labels(torch.cat([labels, none], 1))
        best = {name: head(tokens).argmax(-1) for name, head in self.heads.items()}
        share = lambda right, where: right[where].float().mean().item()
        right = best["noun"] == label.noun
        centre = label.centres > 0
        near, far = label.distance == 1, label.distance == 2
        values = {
            "near": share(right, centre & near),
            "far": share(right, centre & far),
            "any": share(right, label.noun > 0),
            "empty": share(right, label.noun == 0),
            "distance": share(best["distance"] == label.distance, centre),
            "centres": share(best["centres"] == label.centres, label.noun > 0),
            "place": share(best["cell"] == torch.arange(world.CELLS), right | ~right),
            "scenery": share(best["scenery"] == label.scenery[:, None], right | ~right),
            "light": share(best["light"] == label.light[:, None], right | ~right),
        }
        text = " ".join(f"{name} {value:.4f}" for name, value in values.items())
        by_noun = [
            (share(right, centre & (label.noun == n)), noun)
            for n, noun in enumerate(self.nouns)
            if n and (centre & (label.noun == n)).any()
        ]
        worst = ", ".join(f"{noun} {value:.2f}" for value, noun in sorted(by_noun)[:16])
        return f"{text}\n    worst: {worst}"
