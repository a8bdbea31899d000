# SPDX-License-Identifier: MPL-2.0
"""Several processes that learn together: each on its own batches, with the mean of all gradients.

On a shared machine this waits less than several threads do: once a step, not at every product.
"""

import argparse
import os
import subprocess
import sys

import torch
import torch.distributed as dist


def options(parser: argparse.ArgumentParser, ranks: int, threads: int) -> None:
    parser.add_argument("--ranks", type=int, default=ranks, help="processes")
    parser.add_argument("--threads", type=int, default=threads, help="of each process")
    parser.add_argument("--port", type=int, default=29571)
    parser.add_argument("--rank", type=int, default=0, help=argparse.SUPPRESS)


def run(arguments, work) -> None:
    """`work(arguments)` in every process; the first starts the others, with its own command line."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.rank)
    if arguments.ranks == 1:
        return work(arguments)
    others = []
    if arguments.rank == 0:
        command = [sys.executable, *sys.argv]
        others = [
            subprocess.Popen([*command, "--rank", str(n)]) for n in range(1, arguments.ranks)
        ]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(arguments.port))
    dist.init_process_group("gloo", rank=arguments.rank, world_size=arguments.ranks)
    try:
        work(arguments)
        dist.destroy_process_group()
    finally:
        for other in others:
            other.terminate() if sys.exc_info()[0] else other.wait()


def average_gradients(parameters) -> None:
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts):
        gradient.copy_(part.view_as(gradient))


def agreed(progress: float) -> float:
    """The first rank's clock is everybody's."""
    value = torch.tensor(progress)
    if dist.is_initialized():
        dist.broadcast(value, 0)
    return value.item()
