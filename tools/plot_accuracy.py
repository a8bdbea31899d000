#!/usr/bin/env python3
# SPDX-License-Identifier: MPL-2.0
"""Accuracy over stream length, one line a method, from the JSON of `examples/evaluate`.

    python tools/plot_accuracy.py docs/data/methods.json docs/images/accuracy.png

Needs matplotlib (tools/toyworld/requirements.txt has it); nothing else does.
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# What a user asks for, as groups of question kinds.
GROUPS = {
    "now": {"now", "now_color", "now_shape", "now_where", "now_background"},
    "where, background, exist": {"where", "background", "exist"},
    "first, colour of, count": {"first", "color_of", "count"},
    "after, before": {"after", "before"},
}


def share(cell, kinds):
    """Accuracy over the given kinds and its standard error; None if none was asked."""
    counts = [count for kind, count in cell["kinds"].items() if kind in kinds]
    n = sum(count["n"] for count in counts)
    if n == 0:
        return None
    p = sum(count["right"] for count in counts) / n
    return p, (p * (1 - p) / n) ** 0.5


def draw(axis, cells, kinds):
    for method in dict.fromkeys(cell["method"] for cell in cells):
        points = [(cell["frames"], share(cell, kinds)) for cell in cells if cell["method"] == method]
        points = sorted((frames, *value) for frames, value in points if value)
        if not points:
            continue
        frames, shares, errors = zip(*points)
        axis.errorbar(frames, shares, errors, marker="o", capsize=2, label=method)


def main(source, target, trained=None):
    with open(source) as file:
        report = json.load(file)
    cells = report["cells"]
    figure, axes = plt.subplots(1, len(GROUPS), figsize=(15, 4), sharey=True)
    for axis, (title, kinds) in zip(axes, GROUPS.items()):
        draw(axis, cells, kinds)
        axis.set_title(title)
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted({cell["frames"] for cell in cells}))
        axis.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
        axis.set_xlabel("frames in the stream (one a second)")
        axis.grid(alpha=0.3)
        if trained:
            axis.axvline(float(trained), color="grey", linestyle=":", linewidth=1)
    axes[0].set_ylabel("exact answers")
    axes[0].set_ylim(0, 1.02)
    axes[-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: plot_accuracy.py REPORT.json PICTURE.png [TRAINED_FRAMES]")
    main(*sys.argv[1:])
