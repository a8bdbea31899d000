# SPDX-License-Identifier: MPL-2.0
"""What `models/everyday-qwen` can do: as `check.py`, and no pictures of `easy-vqa`, which it never saw."""

import torch
from check import measure, parser
from qwen_world import SHAPE
from training.qwen.check import Checkpoint


def main():
    options = parser(__doc__)
    options.set_defaults(pictures=0)
    arguments = options.parse_args()
    torch.set_num_threads(2)
    measure(Checkpoint(arguments.model, SHAPE.grid), arguments)


if __name__ == "__main__":
    main()
