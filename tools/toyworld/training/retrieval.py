# SPDX-License-Identifier: MPL-2.0
"""What this world's training knows of retrieval: which frames hold an answer, what a retrieval
might bring, and the loss that makes layers find it."""

import numpy as np
import torch
import torch.nn.functional as F
import world
from training.batches import Batch

TOKENS_PER_FRAME = world.SHAPE.tokens_per_frame


def of_kinds(batch: Batch, kinds: set[str]) -> torch.Tensor:
    """[s, q]"""
    result = torch.zeros(batch.seen.shape, dtype=torch.bool)
    for s, asked in enumerate(batch.kinds):
        for q, kind in enumerate(asked):
            result[s, q] = kind in kinds
    return result


def relevant(batch: Batch) -> torch.Tensor:
    """[s, q, f]: frames that a retrieval should find; the present needs none."""
    return batch.relevant & ~of_kinds(batch, world.NOW)[..., None]


def retrieval_loss(scores: list[torch.Tensor], batch: Batch) -> torch.Tensor:
    """Each relevant frame against all irrelevant ones, layer by layer.

    Per positive: a softmax over all frames would be content with the single best one, and
    "what came after?" needs the neighbour too.
    """
    frames = torch.arange(batch.relevant.shape[-1])
    wanted = relevant(batch)
    wrong = ~wanted & (frames < batch.seen[..., None])
    # Order cannot be known from a frame alone, so the first layer is not asked.
    ordered = of_kinds(batch, world.ORDER)[..., None]
    losses = []
    for layer, score in enumerate(scores):
        right = wanted & ~ordered if layer == 0 else wanted
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
    wanted = relevant(batch)
    asked = wanted.any(-1) & (batch.seen > at)
    result = []
    for score in scores:
        best = score.masked_fill(~past, -1e9).topk(min(at, score.shape[-1]), -1).indices
        found = torch.gather(wanted, -1, best).sum(-1)
        share = found / wanted.sum(-1).clamp(min=1, max=at)
        result.append(share[asked].mean().item())
    return result


def choose_tokens(
    batch: Batch, retrieve: int, recent: int, keep: float, around: int, rng: np.random.Generator
) -> torch.Tensor:
    """Video tokens a retrieval might bring: [s, q, n] ascending, -1 where there are fewer.

    Relevant frames first, then chance in runs as long as `around` neighbours make them, then the
    newest; `keep` is the share of each frame's tokens that a compressed memory still holds.
    """
    wanted, seen = relevant(batch).numpy(), batch.seen.numpy()
    s, q, f = wanted.shape
    frame = np.arange(f)
    chance = np.repeat(rng.random((s, q, f)), 1 + 2 * around, axis=-1)[..., :f]
    wish = chance + 1e-3 * rng.random((s, q, f)) + 2 * wanted
    wish += 4 * (frame >= seen[..., None] - recent)
    wish[frame >= seen[..., None]] = -1
    count = min(f, retrieve + recent)
    chosen = np.argpartition(-wish, count - 1, axis=-1)[..., :count]
    present = np.take_along_axis(wish, chosen, -1) >= 0
    tokens = TOKENS_PER_FRAME * chosen[..., None] + np.arange(TOKENS_PER_FRAME)
    kept = present[..., None] & (rng.random(tokens.shape) < keep)
    late = TOKENS_PER_FRAME * f
    tokens = np.sort(np.where(kept, tokens, late).reshape(s, q, -1), axis=-1)
    return torch.from_numpy(np.where(tokens == late, -1, tokens))
