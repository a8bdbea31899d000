# SPDX-License-Identifier: MPL-2.0
"""What to train in."""

import torch


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16. Others take several times as long in it as in single
    precision."""
    try:
        with open("/proc/cpuinfo") as file:
            text = file.read()
    except OSError:
        return False
    return "avx512_bf16" in text or "amx_bf16" in text


QUICK = torch.bfloat16 if has_bfloat16() else torch.float32
