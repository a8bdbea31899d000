# SPDX-License-Identifier: MPL-2.0
"""Muon for matrices, AdamW for the rest, and a learning rate that follows the clock.

The budget is processor time of the thread that trains, not steps: what else the machine does then makes a
training later, not worse.
"""

import math
import time

import torch

from .quick import QUICK


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration on a stack of matrices [n, rows, columns].

    It is made to be rough: in bfloat16, where there is any, it costs a fifth.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(QUICK)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.transpose(1, 2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; equal shapes are handled as one stack."""

    def __init__(self, parameters, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                self._update(parameters, group)

    def _update(self, parameters, group):
        updates = []
        for parameter in parameters:
            state = self.state[parameter]
            momentum = state.setdefault("momentum", torch.zeros_like(parameter))
            momentum.lerp_(parameter.grad, 1 - group["momentum"])
            updates.append(parameter.grad.lerp(momentum, group["momentum"]))
        rows, columns = parameters[0].shape
        scale = 0.2 * math.sqrt(max(rows, columns))
        for parameter, update in zip(parameters, orthogonalise(torch.stack(updates))):
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-group["lr"] * scale)


class Optimisers:
    """Muon and AdamW behind one learning rate; embeddings have a share of it."""

    def __init__(self, named_parameters, lr: float, embedding: float = 1.0):
        matrices, others, embeddings = [], [], []
        for name, parameter in named_parameters:
            hidden = parameter.ndim == 2 and "embed" not in name and "head" not in name
            rows = embeddings if "embed_tokens" in name else others
            (matrices if hidden else rows).append(parameter)
        self.lr = lr
        groups = [{"params": others, "share": 1.0}, {"params": embeddings, "share": embedding}]
        groups = [group for group in groups if group["params"]]
        self.parts = [
            Muon(matrices, lr),
            torch.optim.AdamW(groups, lr, betas=(0.9, 0.98), weight_decay=0.01),
        ]

    def step(self, rate: float):
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.lr * rate * group.get("share", 1.0)
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self):
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states):
        for part, state in zip(self.parts, states):
            part.load_state_dict(state)


class Clock:
    """Where in its time budget a training is; survives a restart, and stands still while the process does."""

    def __init__(self, minutes: float, spent: float = 0.0):
        self.budget = 60 * minutes
        self.counted, self.looked = spent, time.thread_time()

    def spent(self) -> float:
        now = time.thread_time()
        self.counted += now - self.looked
        self.looked = now
        return self.counted

    def progress(self) -> float:
        return min(1.0, self.spent() / self.budget)

    def rate(self) -> float:
        return self.rate_at(self.progress())

    @staticmethod
    def rate_at(progress: float, warm_up=0.01, cool_down=0.35, floor=0.02) -> float:
        """Linear warm-up, constant, linear decay."""
        rise = min(1.0, (progress + 1e-3) / warm_up)
        fall = min(1.0, (1.0 - progress) / cool_down)
        return max(floor, min(rise, fall))
