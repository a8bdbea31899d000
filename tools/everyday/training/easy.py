# SPDX-License-Identifier: MPL-2.0
"""`easy-vqa`: pictures of one shape by someone else, as one more source. Its
test split is read by `check.py` alone."""

import random

import numpy as np
import torch
import world  # noqa: F401  (it knows where the shared modules are)
from easy_vqa import (
    get_test_image_paths,
    get_test_questions,
    get_train_image_paths,
    get_train_questions,
)
from PIL import Image

from training.program import Question, Stream

SHAPES = ["circle", "rectangle", "triangle"]
COLORS = ["black", "gray", "teal", "red", "yellow", "brown", "blue", "green"]


def picture(path: str, size: int) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.BICUBIC))


def pictures(size: int) -> torch.Tensor:
    """[4000, size, size, 3] u8, in the order of their numbers."""
    paths = get_train_image_paths()
    return torch.from_numpy(np.stack([picture(paths[n], size) for n in range(len(paths))]))


def by_picture(texts, answers, pictures) -> list[list[Question]]:
    result: list[list[Question]] = [[] for _ in range(max(pictures) + 1)]
    for text, answer, picture in zip(texts, answers, pictures):
        result[picture].append(Question("easy_vqa", text, answer, 0, [[0, 1]]))
    return result


def questions() -> list[list[Question]]:
    """By picture."""
    return by_picture(*get_train_questions())


def test(most: int):
    """(picture [64, 64, 3], stream) of the official test split."""
    paths = get_test_image_paths()
    for number, asked in list(enumerate(by_picture(*get_test_questions())))[:most]:
        with Image.open(paths[number]) as image:
            yield np.array(image.convert("RGB")), Stream([0], asked)


def labels() -> torch.Tensor:
    """Shape and colour of each picture [4000, 2], as far as its questions tell; else 255."""
    result = torch.full((len(get_train_image_paths()), 2), 255)
    for number, asked in enumerate(questions()):
        for question in asked:
            for column, names in enumerate((SHAPES, COLORS)):
                if question.answer in names:
                    result[number, column] = names.index(question.answer)
    return result


def each(asked, offset: int, pictures: range):
    """A stream of one frame for each picture, with all its questions; pool frames of pictures
    are numbered from `offset`."""
    for number in pictures:
        yield Stream([offset + number], asked[number])


def drawn(asked, offset: int, pictures: range, count: int, seed: int):
    """Endless streams of one picture and `count` of its questions."""
    rng = random.Random(seed)
    while True:
        number = rng.choice(pictures)
        yield Stream([offset + number], [rng.choice(asked[number]) for _ in range(count)])


def texts() -> list[str]:
    texts, answers, _ = get_train_questions()
    return sorted({*texts, *answers})
