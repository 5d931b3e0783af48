"""Golden values of the watermark of ldm-pipelines, made by the package invisible-watermark.

    python watermark.py FOLDER          writes the files below; FOLDER has kodak/kodim20.png (shared/data/photos/sr_lossless.tar)
    python watermark.py --check FILE    prints the watermark of an image of any format that Pillow reads

- watermark.webp: part of a photograph ("released by the Eastman Kodak Company for unrestricted usage") over a strip of
  saturated colors and noise, 271 x 246: no side is a multiple of 4, and the 4x4 blocks leave a margin. Lossless.
- watermark_marked.webp: the same with "StableDiffusionV1" by `dwtDct`.
- watermark.json: the package's readings of both, for several lengths in bytes; and
  sums over OpenCV's colors, each squared.

Made with invisible-watermark 0.2.0 (its code is 0.1.5's), opencv-python-headless 5.0.0, PyWavelets 1.9.0, numpy 2.4.6,
Pillow 13.0.0 on x86-64; OpenCV 4.11.0, PyWavelets 1.4.1 and numpy 1.26.4 give the same.
    pip install --no-deps invisible-watermark==0.2.0; pip install opencv-python-headless PyWavelets numpy pillow
"""
import json
import pathlib
import sys
import types

import cv2
import numpy as np
from PIL import Image

sys.modules.setdefault("torch", types.ModuleType("torch"))  # the package imports it for another method
from imwatermark import WatermarkDecoder, WatermarkEncoder  # noqa: E402

HERE = pathlib.Path(__file__).parent
PAYLOAD = b"StableDiffusionV1"
LEFT, TOP, WIDTH, HEIGHT = 400, 40, 271, 246
COLOURS = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]
LENGTHS = [1, 4, 17, 123]  # 990 blocks are 123 bytes and 6 bits


def bgr(image):
    return np.ascontiguousarray(image[:, :, ::-1])


def marked(image):
    encoder = WatermarkEncoder()
    encoder.set_watermark("bytes", PAYLOAD)
    return bgr(encoder.encode(bgr(image), "dwtDct"))


def hidden(image, length):
    return WatermarkDecoder("bytes", 8 * length).decode(bgr(image), "dwtDct")


def load(path):
    return np.array(Image.open(path).convert("RGB"))


def squares():
    """Sums over a grid of all colors: they show a coefficient that is off by one."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(1, -1, 3)
    ways = {"yuv": cv2.cvtColor(bgr(colors), cv2.COLOR_BGR2YUV), "rgb": bgr(cv2.cvtColor(colors, cv2.COLOR_YUV2BGR))}
    return {way: [int(sum) for sum in np.square(values.astype(np.uint64)).sum((0, 1))] for way, values in ways.items()}


def source(folder):
    image = load(folder / "kodak/kodim20.png")[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH].copy()
    for index, color in enumerate(COLOURS):
        image[224:240, 24 * index : 24 * index + 24] = color
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    image[224:240, 24 * len(COLOURS) : 24 * len(COLOURS) + 24] = noise
    return image


def make(folder):
    plain = source(folder)
    images = {"watermark.webp": plain, "watermark_marked.webp": marked(plain)}
    golden = {"sums of squares": squares()}
    for name, image in images.items():
        Image.fromarray(image).save(HERE / name, lossless=True, quality=100, method=6)
        assert np.array_equal(load(HERE / name), image)
        golden[name] = {length: list(hidden(image, length)) for length in LENGTHS}
    assert golden["watermark_marked.webp"][len(PAYLOAD)] == list(PAYLOAD)
    (HERE / "watermark.json").write_text(json.dumps(golden) + "\n")


def main():
    match sys.argv[1:]:
        case ["--check", file]:
            print(hidden(load(file), len(PAYLOAD)))
        case [folder]:
            make(pathlib.Path(folder))
        case _:
            sys.exit(__doc__)


main()
