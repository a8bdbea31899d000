# SPDX-License-Identifier: MPL-2.0
"""Stage 2: the language model, on the answers alone; now and then on pictures of `easy-vqa`."""

import os

import easy
import torch
import world
from training import lm, ranks
from training.batches import batches

# What is learned last, or seldom asked, counts more.
KIND_WEIGHTS = {
    "after": 4.0,
    "before": 4.0,
    "first": 1.5,
    "last": 1.5,
    "came_by": 3.0,
    "which_way": 4.0,
    "where_now": 2.0,
    "where_was": 4.0,
    "distance_now": 1.5,
    "distance_was": 1.5,
    "beside": 2.0,
    "light_when": 2.0,
    "did_appear": 2.0,
    "when": 1.5,
}
# Every so many batches are pictures, this many with so many questions each.
EASY_EVERY, EASY_PICTURES, EASY_QUESTIONS = 10, 24, 8
# Names beside what an embedding starts with, 0.02.
NAME_RMS = 0.1
# Of the pictures, the first are for validation.
EASY_VALIDATION = 200


class Trainer(lm.Trainer):
    def __init__(self, arguments):
        self.asked = easy.questions()
        super().__init__(arguments, our_world())
        self.first_picture = len(self.features) - len(self.asked)
        held = range(EASY_VALIDATION)
        streams = easy.each(self.asked, self.first_picture, held)
        self.validation["easy-vqa"] = list(batches(50, streams, self.speech))

    @torch.no_grad()
    def begin(self):
        """A thing's name starts where the tower's classifier has the thing: words and pictures need
        not be brought together first."""
        state = torch.load(os.path.join(self.arguments.run, "vision.pt"), weights_only=False)
        before = state["parts"]["projector.linear_2.weight"]
        after = self.model.model.multi_modal_projector.linear_2.weight
        rows = state["heads"]["heads.noun.weight"]
        # The classifier read tokens as they were before `encode.py` evened them out.
        rows = torch.linalg.solve((after @ before.inverse()).T, (rows - rows[1:].mean(0)).T).T
        name_things(self.reader.text.embed_tokens.weight, self.tokenizer, rows)

    def training(self, stage):
        kept = range(EASY_VALIDATION, len(self.asked))
        seed = self.steps * self.arguments.ranks + self.arguments.rank
        drawn = easy.drawn(self.asked, self.first_picture, kept, EASY_QUESTIONS, seed)
        pictures = batches(EASY_PICTURES, drawn, self.speech)
        for number, batch in enumerate(super().training(stage)):
            yield batch
            if number % EASY_EVERY == 0:
                yield next(pictures)


@torch.no_grad()
def name_things(embed: torch.Tensor, tokenizer, rows: torch.Tensor) -> None:
    """Adds directions of things [things, c] to the embeddings of their names."""
    rows = rows / rows.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)
    names, count = torch.zeros_like(embed), torch.zeros(len(embed), 1)
    for row, noun in zip(rows, world.nouns()):
        for text in (noun["noun"], " " + noun["noun"], " " + noun.get("plural", "nothing")):
            for token in tokenizer.encode(text, add_special_tokens=False):
                names[token] += row
                count[token] += 1
    # A token that many names share belongs to none of them.
    embed += NAME_RMS * names / count.clamp(min=1)


def our_world() -> lm.World:
    return lm.World(world.PROGRAM, world.SHAPE, world.tokenizer(), world.POOL, KIND_WEIGHTS)


def work(arguments):
    Trainer(arguments).train()


def main():
    arguments = lm.parser(__doc__, embedding_lr=0.2).parse_args()
    ranks.run(arguments, work)


if __name__ == "__main__":
    main()
