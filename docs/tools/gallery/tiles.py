"""Compares tiled decoding with decoding at once: pixel differences and peak memory.

    python3 docs/tools/gallery/tiles.py DATA MODEL [SIDE]

Encodes two smooth color fields and two photographs of DATA/photos at 512 x 384, and one photograph at 1024 x 768, with
the first stage MODEL, and decodes each at once and in tiles of SIDE pixels (default 128). The environment variable LDM
names the binary (default target/release/ldm). Needs numpy, Pillow, safetensors and /usr/bin/time.
"""
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

LDM = os.environ.get("LDM", "target/release/ldm")


def ldm(*words):
    """Runs `ldm`; returns its peak resident memory in MB."""
    done = subprocess.run(["/usr/bin/time", "-f", "%M", LDM, *map(str, words), "--threads", "1", "-q"],
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return int(done.stderr.split()[-1]) / 1024


def images(data):
    generator = np.random.default_rng(0)
    for index in range(2):
        coarse = np.tanh(generator.standard_normal((4, 4, 3)))
        field = Image.fromarray(np.uint8((coarse + 1) * 127.5)).resize((512, 384), Image.BICUBIC)
        yield f"field {index}", field
    names = (data / "photos/val.txt").read_text().split()
    with tarfile.open(data / "photos/photos.tar") as tar:
        photos = [Image.open(io.BytesIO(tar.extractfile(names[index]).read())).convert("RGB") for index in (3, 11)]
    yield from ((f"photograph {index}", photo.resize((512, 384))) for index, photo in enumerate(photos))
    yield "photograph 0, 1024 x 768", photos[0].resize((1024, 768))


def main():
    data, model = map(Path, sys.argv[1:3])
    side = sys.argv[3] if len(sys.argv) > 3 else 128
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        for name, image in images(data):
            image.save(work / "image.png")
            ldm("encode", work / "image.png", "--model", model, "--out", work / "z", "--force")
            decode = ["decode", work / "z", "--model", model, "--out", work / "out", "--force", "--save-pixels"]
            whole, tiled = ldm(*decode, work / "whole"), ldm(*decode, work / "tiled", "--tile", side)
            a, b = (load_file(work / each)["pixels"].clip(-1, 1) for each in ("whole", "tiled"))
            gap = np.abs(a - b) * 127.5
            print(f"{name}: mean difference {gap.mean():.2f}, maximum {gap.max():.0f} of 255; at once {whole:.0f} MB, "
                  f"in tiles {tiled:.0f} MB")


if __name__ == "__main__":
    main()
