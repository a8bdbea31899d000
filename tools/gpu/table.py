# SPDX-License-Identifier: MPL-2.0
"""The table of tools/gpu/run.sh: table.py STEPS OUT reads what the steps wrote, prints, and writes OUT."""

import json
import pathlib
import sys

GIB = 1 << 30


def read(folder):
    """The steps' files by name; one that was cut off in the middle of a write is left out."""
    steps = {}
    for path in sorted(folder.glob("*.json")):
        try:
            steps[path.stem] = json.loads(path.read_text())
        except ValueError:
            continue
    return steps


def figures(steps, name, what, method):
    """(stored, value) of one step, by stored."""
    rows = steps.get(name, {}).get("rows", []) if name != "check" else []
    return sorted((r["stored"], r["value"]) for r in rows if r["what"] == what and r["method"] == method)


def last(steps, name, what, method):
    found = figures(steps, name, what, method)
    return found[-1] if found else None


def ratio(found, peer):
    return found[1] / peer[1] if found and peer else None


def goals(steps):
    """(what, goal, measured, at, right) of every goal; measured is None where nothing was."""

    def at_least(what, goal, value, at="", unit=""):
        return what, f">= {goal}{unit}", value, at, value is not None and value >= goal

    def at_most(what, goal, value, at="", unit=""):
        return what, f"<= {goal}{unit}", value, at, value is not None and value <= goal

    def found(pair):
        return (pair[1], f"{pair[0]:,} frames") if pair else (None, "")

    # The window is full from the first length on.
    full = figures(steps, "device", "ingest", "rekv")[:1]
    yield at_least("ingest, tower and decoder, window full (rekv)", 100, *found(full[0] if full else None), " frames/s")
    sdpa, rekv = (last(steps, "peers", "ingest", f"torch {name}") for name in ["sdpa", "rekv"])
    yield at_least("  over PyTorch's SDPA in batches of 8", 1.2, ratio(full[0] if full else None, sdpa))
    yield at_least("  over ReKV's loop in PyTorch", 8, ratio(full[0] if full else None, rekv))
    for method in ["streamkv", "rekv"]:
        for step, goal in [("device", 30), ("host", 60)]:
            pair = last(steps, step, "first token", method)
            yield at_most(f"first token, {method}, blocks on the {step}", goal, *found(pair), " ms")
    yield at_most("first token, auto", 100, *found(last(steps, "device", "first token", "auto")), " ms")
    decode = last(steps, "device", "decode over the memory roofline", "rekv")
    yield at_least("decode over the memory roofline (rekv)", 0.6, *found(decode))
    times = [
        (r["stored"], r["value"]) for r in steps.get("long", {}).get("rows", []) if r["what"].startswith("time of a frame")
    ]
    yield at_most("time of a frame over that at 500 frames", 1.05, *found(times[-1] if times else None))
    times = [r["value"] for r in steps.get("cameras", {}).get("rows", []) if r["what"].startswith("time of")]
    yield at_most("16 cameras over one of 16 times the rate", 1.10, times[-1] if times else None)
    pair = last(steps, "q4", "memory of one more frame", "streamkv")
    pair = (pair[0], pair[1] * 1800 / GIB) if pair else None
    yield at_most("an hour at 0.5 fps, streamkv, store=q4", 1.2, *found(pair), " GiB")


def correctness(rows):
    """One line a model and number format."""
    groups = {}
    for row in rows:
        groups.setdefault((row["model"], row["dtype"]), []).append(row)
    for (model, dtype), group in groups.items():
        errors = [(row["error"], row["method"]) for row in group if row["error"] is not None]
        worst = max(errors, default=(float("nan"), "none"))
        right, same = (sum(bool(row[key]) for row in group) for key in ["ok", "same_ids"])
        yield (
            f"{model:<16} {dtype:<5} {right:>3} of {len(group)} methods within the limit, "
            f"{same:>3} with the same answer; worst {worst[0]:.1e} ({worst[1]})"
        )


def table(steps):
    about = next((steps[name].get("about", {}) for name in ["device", "cameras", "peers"] if name in steps), {})
    device = about.get("device", "none")
    yield f"device: {device}; model: {about.get('model', 'none')}; processor: {about.get('processor', 'unknown')}"
    yield ""
    yield "CORRECTNESS (against the CPU, which computes in f32 with the same weights)"
    yield from correctness(steps.get("check", [])) if "check" in steps else ["not run"]
    yield ""
    here = device not in ("CPU", "none")
    yield "GOALS" + ("" if here else " (no device: nothing measured counts)")
    for what, goal, value, at, right in goals(steps):
        shown = f"{value:.3g}" if here and value is not None else ""
        verdict = ("yes" if right else "NO") if shown else ""
        yield f"{what:<46} {goal:>16} {shown:>9} {verdict:<4} {at if shown else ''}".rstrip()
    wanted = {"ingest", "first token", "decode", "tower and projector", "decoder and memory"}
    yield ""
    yield "MEASURED" + ("" if here else " (a tiny shape on the CPU: that it runs, not how fast)")
    for name in ["device", "host", "long", "q4", "cameras", "peers"]:
        for row in steps.get(name, {}).get("rows", []):
            if row["what"] in wanted or "cameras" in row["what"] or row["what"].startswith("time of"):
                at = f"{row['method']} at {row['stored']:,}" if row["stored"] else row["method"]
                yield f"{name:<8} {row['what']:<32} {at:<22} {row['value']:>10.4g} {row['unit']}"
        for note in steps.get(name, {}).get("notes", []):
            yield f"{name:<8} note: {note}"


def main():
    steps, out = read(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])
    text = "\n".join(table(steps)) + "\n"
    print(text, end="")
    (out / "table.txt").write_text(text)
    (out / "results.json").write_text(json.dumps(steps, indent=1) + "\n")


if __name__ == "__main__":
    main()
