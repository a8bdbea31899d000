# SPDX-License-Identifier: MPL-2.0
"""What the engine does, by transformers: a server on standard input and output.

    python tools/peers/peer.py --model DIR --dtype f32

One JSON object a line is a request, one the answer; run.py asks. {"do": NAME, ...} runs one of Peer's
methods with the rest as its arguments. Seconds are of the work alone.
"""

import argparse
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers
from tokenizers import Tokenizer
from transformers import DynamicCache, LlavaOnevisionForConditionalGeneration

import loop

FORMATS = {"f32": torch.float32, "bf16": torch.bfloat16}
# What the checkpoint's template makes of one video and one question.
BEFORE = "<|im_start|>user "
BEHIND = "\n{}<|im_end|><|im_start|>assistant\n"
QUESTION = "What happens in the video?"


def timed(work):
    began = time.perf_counter()
    done = work()
    return done, time.perf_counter() - began


class Peer:
    def __init__(self, folder, dtype, threads):
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        transformers.logging.disable_progress_bar()
        load = lambda: LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=FORMATS[dtype]).eval()
        self.model, self.loading = timed(load)
        words = Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
        ids = lambda text: words.encode(text, add_special_tokens=False).ids
        self.before, self.question, self.prompt = ids(BEFORE), ids(QUESTION), ids(BEHIND.format(QUESTION))
        vision = self.model.config.vision_config
        self.shape = 3, vision.image_size, vision.image_size
        grid = vision.image_size // vision.patch_size
        self.per_frame = ((grid + 1) // 2) ** 2
        self.reset()

    def about(self):
        config = self.model.config
        return dict(
            torch=torch.__version__, transformers=transformers.__version__, python=sys.version.split()[0],
            threads=torch.get_num_threads(), load=self.loading, per_frame=self.per_frame,
            attention=[c._attn_implementation for c in (config.text_config, config.vision_config)],
        )  # fmt: skip

    def see(self, frames):
        """Tokens [f, M, hidden] of `frames` pictures of noise."""
        pixels = torch.rand(1, frames, *self.shape).mul_(2).sub_(1).to(self.model.dtype)

        def work():
            tokens = self.model.model.get_video_features(
                pixels, vision_feature_layer=-1, vision_feature_select_strategy="full"
            ).pooler_output[0]
            # What comes behind them is the line break of a finished video.
            return tokens[: frames * self.per_frame].view(frames, self.per_frame, -1)

        return timed(work)

    def decode_step(self, **inputs):
        """The best next token [1, 1]."""
        states = self.model.model.language_model(cache=self.cache, use_cache=True, **inputs).last_hidden_state
        return self.model.lm_head(states[:, -1:]).argmax(-1)

    def reset(self):
        """Stock: an empty cache with the tokens before the video."""
        self.cache = DynamicCache(config=self.model.config.text_config)
        self.model.model.language_model(input_ids=torch.tensor([self.before]), cache=self.cache, use_cache=True)
        return {}

    def frames(self, count, chunk):
        """Stock: frames through tower, projector, pooling, and the decoder with its DynamicCache."""
        seconds = []
        for _ in range(count // chunk):
            tokens, seeing = self.see(chunk)
            run = lambda: self.model.model.language_model(
                inputs_embeds=tokens.flatten(0, 1)[None], cache=self.cache, use_cache=True
            )
            seconds.append((seeing + timed(run)[1]) / chunk)
        return dict(seconds=seconds)

    def decode(self, tokens):
        """Stock: a question behind the video, and the tokens of its answer one by one."""
        held = self.cache.get_seq_length()
        token, first = timed(lambda: self.decode_step(input_ids=torch.tensor([self.prompt])))

        def work():
            last = token
            for _ in range(tokens):
                last = self.decode_step(input_ids=last)

        _, seconds = timed(work)
        self.cache.crop(held - self.cache.get_seq_length())
        return dict(first=first, seconds=seconds / tokens)

    def open(self, stored, more):
        """ReKV's loop: a video of `stored` frames of random keys, with room for `more`."""
        self.loop = loop.Loop(self.model, self.per_frame, stored + more)
        self.loop.open(self.before)
        self.loop.fill(stored)
        return {}

    def push(self, count, chunk):
        seconds = []
        for _ in range(count // chunk):
            tokens, seeing = self.see(chunk)
            _, taking = timed(lambda: self.loop.push(tokens))
            seconds.append((seeing + taking) / chunk)
        return dict(seconds=seconds, stored=self.loop.stored)

    def ask(self, count):
        """ReKV's loop: from the question to the first token."""
        ask = lambda: self.loop.ask(self.question, self.prompt).argmax().item()
        seconds = [timed(ask)[1] for _ in range(count)]
        stored = min(self.loop.stored, self.loop.retrieved)
        return dict(seconds=seconds, context=len(self.before) + stored * self.per_frame)

    def check(self, frames):
        """How far the loop's logits are from stock's, where all frames fit into the window: relative."""
        self.reset()
        self.open(0, frames)
        for _ in range(frames):
            tokens, _ = self.see(1)
            self.model.model.language_model(inputs_embeds=tokens, cache=self.cache, use_cache=True)
            self.loop.push(tokens)
        inputs = dict(input_ids=torch.tensor([self.prompt]), cache=self.cache, use_cache=True)
        states = self.model.model.language_model(**inputs).last_hidden_state
        stock = self.model.lm_head(states[0, -1]).float()
        found = self.loop.ask(self.question, self.prompt).float()
        self.reset()
        return dict(error=((found - stock).norm() / stock.norm()).item())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", choices=FORMATS, default="f32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    # Whatever libraries print goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with torch.inference_mode():
        peer = Peer(args.model, args.dtype, args.threads)
        print(json.dumps(peer.about()), file=answers, flush=True)
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(peer, request.pop("do"))(**request)
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
