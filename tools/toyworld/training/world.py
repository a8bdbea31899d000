# SPDX-License-Identifier: MPL-2.0
"""What this world has of its own: its program, the shape of its model, the meaning of its labels."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))

from training.program import TRAIN, Program  # noqa: E402
from training.shape import Shape  # noqa: E402
from training.words import train_tokenizer  # noqa: E402

# Pixels a side, the seed that training draws from, and the seed of fresh weights: a second model has its own.
IMAGE, FIRST_SEED, TORCH_SEED = (
    int(os.environ.get(name, default))
    for name, default in {"IMAGE": 56, "FIRST_SEED": TRAIN, "TORCH_SEED": 0}.items()
)
PROGRAM = Program("toyworld", size=IMAGE, labels=4, first=FIRST_SEED)

SHAPE = Shape(
    image=IMAGE,
    seed=TORCH_SEED,
    vision={
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    },
    text={
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
)

FRAMES_PER_SCENE = 5
VOCABULARY = 512

# The classes of each head, "nothing" included, and the label that means "no single name".
HEADS = {"color": 9, "shape": 7, "place": 6, "background": 4}
UNLABELLED = 255

NOW = {"now", "now_color", "now_shape", "now_where", "now_background"}
# What these ask for cannot be known from a frame alone.
ORDER = {"first", "after", "before"}


def tokenizer():
    """Learned from every text of the world."""
    return train_tokenizer(PROGRAM.run("vocabulary").splitlines(), VOCABULARY)
