# SPDX-License-Identifier: MPL-2.0
"""Stage 1: vision tower and projector, by four linear heads on every pooled token."""

import os

import torch
import torch.nn.functional as F
import world
from heads import Heads
from training import ranks, vision
from training.shape import vision_parts
from training.words import empty_tokenizer
from transformers import LlavaOnevisionForConditionalGeneration


def start_from(parts, folder: str) -> None:
    """Tower and projector of a model folder; a grid of another size has its places drawn from it."""
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    state = vision_parts(model).state_dict()
    places = "tower.embeddings.position_embedding.weight"
    rows = state[places]
    before, after = (int(len(table) ** 0.5) for table in (rows, parts.state_dict()[places]))
    grid = rows.T.reshape(1, -1, before, before)
    state[places] = F.interpolate(grid, size=(after, after), mode="bicubic").flatten(2)[0].T
    parts.load_state_dict(state)


def work(arguments):
    parts = vision_parts(world.SHAPE.build(empty_tokenizer()))
    if arguments.like:
        start_from(parts, arguments.like)
    heads = Heads(world.SHAPE.width)
    vision.Trainer(arguments, world.PROGRAM, parts, heads).train()


def main():
    parser = vision.parser(__doc__, minutes=25, ranks_=1)
    parser.add_argument("--like", help="a model folder whose tower and projector training starts from")
    arguments = parser.parse_args()
    os.makedirs(arguments.run, exist_ok=True)
    ranks.run(arguments, work)


if __name__ == "__main__":
    main()
