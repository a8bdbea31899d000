# SPDX-License-Identifier: MPL-2.0
"""Writes the drawings of all nouns into one file.

One line of JSON, `{"size": .., "sprites": [{"noun", "style", "width", "height", "offset"}, ..]}`, then
the pixels: RGBA bytes with straight alpha, cropped to what is drawn; `offset` counts from after the line.
"""

import argparse
import io
import json
from pathlib import Path

import resvg_py
from PIL import Image

STAMPS = "tuxpaint/usr/share/tuxpaint/stamps"


def first_of(folder, names):
    """The first of `names` there is."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def spellings(code, ending):
    """Packages do not agree on whether the variation selector is part of the name."""
    bare = code.replace("-fe0f", "")
    return [f"{name}{ending}" for name in (code, f"{bare}-fe0f", bare)]


def drawing(work, style, code, stamp):
    if style == "noto":
        return first_of(work / "noto/img/google/64", spellings(code, ".png"))
    if style == "fluent":
        return first_of(work / "fluent/assets", spellings(code, ".webp"))
    if style == "openmoji":
        return first_of(work / "openmoji/color/svg", spellings(code.upper(), ".svg") +
                        [name.upper().replace(".SVG", ".svg") for name in spellings(code, ".svg")])
    return first_of(work / STAMPS, [stamp]) if stamp else None


def read(path, size):
    if path.suffix == ".svg":
        # Stamps without a viewBox are sized in points or millimetres.
        text = path.read_text(encoding="utf-8", errors="replace")
        extent = {"width": 4 * size} if "viewBox" in text else {"zoom": 2}
        picture = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=text, dpi=96, **extent))))
    else:
        picture = Image.open(path)
    picture = picture.convert("RGBA")
    # What is nearly invisible does not count as drawn.
    box = picture.getchannel("A").point(lambda alpha: 255 if alpha > 24 else 0).getbbox()
    picture = picture.crop(box)
    scale = min(1, size / max(picture.size))
    extent = tuple(max(1, round(scale * side)) for side in picture.size)
    if extent == picture.size:
        return picture
    # Premultiplied, or the colour of invisible pixels would show at the border.
    return picture.convert("RGBa").resize(extent, Image.Resampling.LANCZOS, reducing_gap=3.0).convert("RGBA")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nouns", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("atlas", type=Path)
    parser.add_argument("--size", type=int, default=96)
    args = parser.parse_args()

    sprites, pixels, missing = [], [], []
    offset = 0
    rows = [line.split("\t") for line in args.nouns.read_text().splitlines() if not line.startswith("#")]
    for noun, _, _, code, _, _, _, stamp in rows:
        for style in ("noto", "fluent", "openmoji", "tuxpaint"):
            path = drawing(args.work, style, code, stamp)
            if path is None:
                if style != "tuxpaint" or stamp:
                    missing.append(f"{noun} ({style})")
                continue
            picture = read(path, args.size)
            data = picture.tobytes()
            sprites.append({"noun": noun, "style": style, "width": picture.width,
                            "height": picture.height, "offset": offset})
            pixels.append(data)
            offset += len(data)
    with args.atlas.open("wb") as file:
        file.write(json.dumps({"size": args.size, "sprites": sprites}).encode() + b"\n")
        file.writelines(pixels)
    count = {style: sum(sprite["style"] == style for sprite in sprites)
             for style in ("noto", "fluent", "openmoji", "tuxpaint")}
    print(f"{args.atlas}: {len(rows)} nouns, drawings: {count}")
    if missing:
        print("missing:", ", ".join(missing))


main()
