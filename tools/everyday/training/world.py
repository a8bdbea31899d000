# SPDX-License-Identifier: MPL-2.0
"""What this world has of its own: its program, the shape of its model, the meaning of its labels."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))

from training.program import Program  # noqa: E402
from training.shape import Shape  # noqa: E402

CELLS = 16
# Three bytes a cell (noun, distance, centres), then scenery and light.
PROGRAM = Program("everyday", size=112, labels=3 * CELLS + 2)

SHAPE = Shape(
    image=112,
    vision={
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
    },
    text={
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    },
)


def nouns() -> list[dict]:
    """Noun, plural and kind, by id; the first is nothing."""
    rows = map(json.loads, PROGRAM.run("nouns").splitlines())
    return [{"noun": "nothing"}, *rows]


# The pool: every clip of this many cameras in every light.
POOL_SEED = 0
CAMERAS = int(os.environ.get("CAMERAS", 128))
POOL = ["--pool-seed", POOL_SEED, "--cameras", CAMERAS]
VOCABULARY = 1536


def tokenizer():
    """Learned from every text of this world and of `easy-vqa`."""
    import easy
    from training.words import train_tokenizer

    return train_tokenizer(PROGRAM.run("vocabulary").splitlines() + easy.texts(), VOCABULARY)
