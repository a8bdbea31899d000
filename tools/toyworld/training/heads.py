# SPDX-License-Identifier: MPL-2.0
"""What every pooled token should tell: colour, shape, place and background."""

import torch
import torch.nn.functional as F
import world

# Outlines are the hard part: colours are learned in a minute.
WEIGHTS = {"shape": 3.0}


class Heads(torch.nn.ModuleDict):
    """One linear classifier per label; thrown away after this stage."""

    def __init__(self, width: int):
        super().__init__({name: torch.nn.Linear(width, n) for name, n in world.HEADS.items()})

    def mix(self, pixels: torch.Tensor, labels: torch.Tensor):
        """This world is the only source."""
        return pixels, labels

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

    def report(self, tokens: torch.Tensor, labels: torch.Tensor) -> str:
        values = self.accuracy(tokens, labels)
        return " ".join(f"{name} {value:.4f}" for name, value in values.items())
