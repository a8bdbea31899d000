# SPDX-License-Identifier: MPL-2.0
"""Between the stages: scale the projector, then encode the pool of scenes once."""

import argparse
import os

import numpy as np
import torch

import model as shape
import world
from words import train_tokenizer


@torch.no_grad()
def rms(parts, frames: int = 512) -> float:
    pixels, _ = next(world.frame_batches(frames, "pool", "--scenes", frames // 5 + 1))
    return shape.encode_frames(parts, pixels).square().mean().sqrt().item()


@torch.no_grad()
def encode_pool(parts, scenes: int) -> np.ndarray:
    """Features of every pool frame: [5 * scenes, 4, 128], half precision."""
    features = np.empty((scenes * world.FRAMES_PER_SCENE, 4, 128), np.float16)
    done = 0
    frames = world.frame_batches(500, "pool", "--scenes", scenes)
    for pixels, _ in world.ahead(frames):
        tokens = shape.encode_frames(parts, pixels)
        features[done : done + len(tokens)] = tokens.half().numpy()
        done += len(tokens)
    assert done == len(features)
    return features


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--scenes", type=int, default=40000)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    parts = shape.vision_parts(shape.build(train_tokenizer()))
    state = torch.load(os.path.join(arguments.run, "vision.pt"), weights_only=False)
    parts.load_state_dict(state["parts"])
    shape.scale_features(parts, shape.FEATURE_RMS / rms(parts))
    np.save(os.path.join(arguments.run, "features.npy"), encode_pool(parts, arguments.scenes))
    torch.save(parts.state_dict(), os.path.join(arguments.run, "vision-scaled.pt"))


if __name__ == "__main__":
    main()
