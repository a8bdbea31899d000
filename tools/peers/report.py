# SPDX-License-Identifier: MPL-2.0
"""What run.py measured as ratios and as a table. Seconds in, so less is better; ratios are the peer's over ours."""

import statistics

WORKS = {
    "frame": "a frame: tower, projector, decoder",
    "token": "a token of an answer",
    "behind": "a frame behind the stored ones, short tower",
    "question": "question to first token",
}
# Of which work, whose seconds over whose, and the goal. "torch", "loop": in the format that is faster there.
RATIOS = [
    ("frame", "torch f32", "engine f32", 1.0),
    ("frame", "torch", "engine auto", 1.5),
    ("frame", "torch f32", "engine auto", 2.5),
    ("token", "torch f32", "engine f32", None),
    ("token", "torch", "engine auto", 2.0),
    ("behind", "loop", "engine auto", None),
    ("question", "loop", "engine auto", 2.0),
]
BEGIN, END = "<!-- peers -->", "<!-- /peers -->"


def fastest(columns, family):
    names = [name for name in columns if name.split()[0] == family]
    return min(names, key=lambda name: statistics.median(columns[name]))


def ratios(seconds):
    """One a round where both have as many rounds; else every one of the peer's over our median."""
    found = []
    for work, peer, ours, goal in RATIOS:
        columns = seconds[work]
        name = peer if peer in columns else fastest(columns, peer)
        theirs, mine = columns[name], columns[ours]
        if len(theirs) != len(mine):
            mine = [statistics.median(mine)] * len(theirs)
        values = [a / b for a, b in zip(theirs, mine)]
        found.append(dict(work=work, of=ours, over=name, values=values, median=statistics.median(values), goal=goal))
    return found


def figures(about, seconds):
    return dict(about=about, seconds=seconds, ratios=ratios(seconds))


def range_of(values, digits):
    shown = f"{statistics.median(values):.{digits}g}"
    if len(values) > 1:
        shown += f" ({min(values):.{digits}g} to {max(values):.{digits}g})"
    return shown


def table(found):
    about, seconds = found["about"], found["seconds"]
    peer = about["peers"]["f32"]
    held = about["engine"]["auto"]
    name = {"engine auto": f"engine, auto ({held})", "engine f32": "engine, f32"}
    for dtype in ["f32", "bf16"]:
        name |= {f"torch {dtype}": f"transformers, {dtype}", f"loop {dtype}": f"ReKV's loop, {dtype}"}
    count = lambda number, thing: f"{number} {thing}{'s' * (number != 1)}"
    lines = [
        f"{about['model']}, {about['processor']} ({', '.join(about['instructions'])}), {peer['threads']} threads "
        f"each, {about['date']}, revision {about['revision']}; PyTorch {peer['torch']}, "
        f"transformers {peer['transformers']}, Python {peer['python']}, "
        f"attention {'/'.join(peer['attention'])}. {count(about['rounds'], 'round')}, frames handed over by "
        f"{about['chunk']}, answers of {count(about['tokens'], 'token')}; the load was {about['load']:.2f} at the "
        f"start. A question looks up {about['stored']} frames (a context of {about['context']['engine']} tokens a "
        f"layer in the engine, {about['context']['loop']} in the loop).",
        "",
        "| work | who | seconds: median (least to most) | rounds |",
        "|---|---|---|---|",
    ]
    for work, columns in seconds.items():
        for who, values in columns.items():
            lines.append(f"| {WORKS[work]} | {name[who]} | {range_of(values, 3)} | {len(values)} |")
    lines += ["", "| work | times as fast | than | median (least to most) | goal |", "|---|---|---|---|---|"]
    for row in found["ratios"]:
        goal = "" if row["goal"] is None else f">= {row['goal']:g}"
        line = [WORKS[row["work"]], name[row["of"]], name[row["over"]], range_of(row["values"], 3), goal]
        lines.append(f"| {' | '.join(line)} |".replace("|  |", "| |"))
    if about["quick"]:
        lines += ["", "A tiny model: none of this counts."]
    return "\n".join(lines)


def renew(page, text):
    """The page with `text` between its marks."""
    before, mark, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise SystemExit(f"run.py: {page} has no {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
