"""Makes resize.safetensors: one image resized by PIL with every filter to several sizes.

Run with Python, numpy, Pillow and safetensors: python generate.py
"""

import json
import pathlib

import numpy as np
import PIL
from PIL import Image
from safetensors.numpy import save_file

SIZES = [(32, 32), (24, 40), (80, 64), (7, 5), (61, 20), (130, 47)]  # width, height; the source is 61 x 47
FILTERS = ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]


def image(width=61, height=47):
    """Slopes, edges and noise: what a photograph has, to the limits of 0 and 255."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    slope = 127 + 120 * np.sin(x / 9 + y / 13)
    disc = 255.0 * ((x - 22) ** 2 + (y - 30) ** 2 < 150)
    noise = rng.uniform(0, 255, (height, width))
    return np.clip(np.stack([slope, disc, 0.6 * noise + 0.4 * slope], -1), 0, 255).astype(np.uint8)


def main():
    source = image()
    tensors = {"source": source}
    for name in FILTERS:
        for width, height in SIZES:
            if width * height > 3500 and name in ("nearest", "box", "hamming"):
                continue  # enlarging is the same kernel; keeps the file small
            resized = Image.fromarray(source).resize((width, height), getattr(Image.Resampling, name.upper()))
            tensors[f"{name}.{width}x{height}"] = np.ascontiguousarray(np.asarray(resized))
    metadata = {"pillow": PIL.__version__, "numpy": np.__version__, "config": json.dumps({"sizes": SIZES})}
    save_file(tensors, pathlib.Path(__file__).with_name("resize.safetensors"), metadata=metadata)


main()
