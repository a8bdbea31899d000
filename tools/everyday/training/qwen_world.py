# SPDX-License-Identifier: MPL-2.0
"""What `models/everyday-qwen` has of its own: the shape of its model, its pool, its tokenizer."""

from dataclasses import replace

import world
from training.qwen.shape import Shape
from training.words import QWEN, train_tokenizer

# A 4:3 picture as the processor makes it: 3x4 tokens of 28x28 pixels, so windows at the lower edge are half full.
SHAPE = Shape(
    picture=(84, 112),
    vision={
        "depth": 4,
        "hidden_size": 192,
        "intermediate_size": 384,
        "num_heads": 6,
        "window_size": 56,
        "fullatt_block_indexes": [1, 3],
        "tokens_per_second": 1,
    },
    text={
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    },
    # The axis of time turns with 1 to 0.056 a position, as in the published checkpoints, which have more to
    # share out.
    rope={"rope_theta": 10000.0, "mrope_section": [6, 5, 5]},
    seed=2,
)
# Other streams than those of `models/everyday`, and others again for questions after odd numbers of frames.
PROGRAM = replace(world.PROGRAM, first=100_000_000)
ODD_SEEDS = 200_000_000


def tokenizer():
    """Learned from every text of this world."""
    return train_tokenizer(world.PROGRAM.run("vocabulary").splitlines(), world.VOCABULARY, QWEN)
