"""Asks an emoji model for 200 captions it was trained on and all held-out ones, and counts the right answers.

    cargo build --release
    python3 docs/tools/models/score_emoji.py DATA OUT [--model MODEL] [options of ldm txt2img]

DATA is the folder of data sets, with `emoji/`. OUT gets the images, `scores.json`, and `sheet.png`: the first image of
64 of the captions; `emoji/` has the emoji of the captions, for `ldm eval generation OUT/train/images OUT/emoji`. An
answer is right when the nearest of all emoji, by L2 at 16x16 RGB on white, has the caption. The 200 captions are of
distinct emoji without regard to skin tone (`base`), drawn with a fixed seed. For held-out captions that name skin tones
it counts the answers whose nearest emoji has the same tones; the emoji themselves were never seen. The environment
variable LDM names the binary (default target/release/ldm). Needs numpy and Pillow.
"""
import csv
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

LDM = os.environ.get("LDM", "target/release/ldm")
DEFAULTS = {"--guidance-scale": "3", "--steps": "20", "--seed": "0", "--batch-size": "16"}


def table(data):
    with open(data / "emoji/captions.tsv", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def small(image):
    return np.asarray(image.convert("RGB").resize((16, 16), Image.BOX), np.float32).ravel()


def emoji(data, rows):
    """Every emoji at 16x16, in the order of the rows."""
    with tarfile.open(data / "emoji/emoji128.tar") as tar:
        return np.stack([small(Image.open(io.BytesIO(tar.extractfile(row["key"] + ".png").read()))) for row in rows])


def save_emoji(data, captions, rows, out):
    """Saves the emoji of the captions at 64x64 on white."""
    out.mkdir(parents=True, exist_ok=True)
    keys = {}
    for row in rows:
        keys.setdefault(row["caption"], row["key"])
    with tarfile.open(data / "emoji/emoji128.tar") as tar:
        for number, caption in enumerate(captions):
            image = Image.open(io.BytesIO(tar.extractfile(keys[caption] + ".png").read()))
            image.convert("RGB").resize((64, 64), Image.BICUBIC).save(out / f"{number:05}.png")


def training_captions(rows, count=200):
    """A caption of each of `count` distinct bases."""
    bases = {}
    for row in rows:
        if row["split"] == "train":
            bases.setdefault(row["base"], []).append(row["caption"])
    draw = random.Random(0)
    return [draw.choice(bases[base]) for base in draw.sample(sorted(bases), count)]


def generate(captions, out, options):
    out.mkdir(parents=True, exist_ok=True)
    (out / "prompts.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    missing = [word for pair in DEFAULTS.items() if pair[0] not in options for word in pair]
    words = ["txt2img", "--prompts-from", out / "prompts.txt", "--out", out / "images", "--skip-grid", "--force"]
    start = time.monotonic()
    subprocess.run([LDM, *map(str, words), *missing, *options], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    files = sorted((out / "images").glob("*.png"))
    assert len(files) == len(captions), f"{out}: expected {len(captions)} images, got {len(files)}"
    return [Image.open(file).convert("RGB") for file in files], seconds


def ranks(images, captions, rows, known):
    """For each image the captions of all emoji, the nearest first, and the place of its own."""
    all = np.array([row["caption"] for row in rows])
    for image, caption in zip(images, captions):
        order = all[np.argsort(((known - small(image)) ** 2).sum(1), kind="stable")]
        yield order[0], int(np.flatnonzero(order == caption)[0])


def tones(caption):
    return re.findall(r"(?:medium-)?(?:light|dark) skin tone|medium skin tone", caption)


def sheet(images, path, columns=16):
    side = images[0].width + 4
    lines = -(-len(images) // columns)
    canvas = Image.new("RGB", (columns * side + 4, lines * side + 4), "white")
    for number, image in enumerate(images):
        canvas.paste(image, (4 + number % columns * side, 4 + number // columns * side))
    canvas.save(path, optimize=True)


def main():
    data, out, options = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    rows = table(data)
    known = emoji(data, rows)
    train = training_captions(rows)
    held_out = [row["caption"] for row in rows if row["split"] == "val"]
    scores = {"options": options}

    save_emoji(data, train, rows, out / "emoji")
    images, seconds = generate(train, out / "train", options)
    places = [place for _, place in ranks(images, train, rows, known)]
    scores["training"] = {
        "captions": len(train),
        "top1": float(np.mean([place < 1 for place in places])),
        "top5": float(np.mean([place < 5 for place in places])),
        "seconds": round(seconds, 1),
        "wrong": [caption for caption, place in zip(train, places) if place >= 5],
    }
    sheet(images[:64], out / "sheet.png")

    images, seconds = generate(held_out, out / "held-out", options)
    nearest = [(caption, found) for caption, (found, _) in zip(held_out, ranks(images, held_out, rows, known))]
    named = [(caption, found) for caption, found in nearest if tones(caption)]
    scores["held_out"] = {
        "captions": len(held_out),
        "with_tones": len(named),
        "right_tones": float(np.mean([tones(caption) == tones(found) for caption, found in named])),
        "seconds": round(seconds, 1),
        "nearest": dict(nearest),
    }
    sheet(images[:64], out / "held-out.png")
    (out / "scores.json").write_text(json.dumps(scores, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps({"training": {key: value for key, value in scores["training"].items() if key != "wrong"},
                      "held_out": {key: value for key, value in scores["held_out"].items() if key != "nearest"}}))


if __name__ == "__main__":
    main()
