"""Makes cv_resize.safetensors: images resized by OpenCV with every interpolation to several sizes, 8-bit and float.

Run with Python, numpy, opencv-python-headless and safetensors: python generate_cv.py
"""
import pathlib

import cv2
import numpy as np
from safetensors.numpy import load_file, save_file

SIZES = [(32, 32), (24, 40), (80, 64), (7, 5), (30, 23), (15, 23), (20, 15)]  # width, height; the source is 60 x 46
WAYS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC,
        "area": cv2.INTER_AREA, "lanczos": cv2.INTER_LANCZOS4}


def main():
    here = pathlib.Path(__file__).parent
    source = np.ascontiguousarray(load_file(here / "resize.safetensors")["source"][:46, :60])
    tensors = {"source": source}
    for name, way in WAYS.items():
        for width, height in SIZES:
            tensors[f"u8.{name}.{width}x{height}"] = cv2.resize(source, (width, height), interpolation=way)
            if (width, height) in SIZES[1:5] and name in ("bilinear", "bicubic", "area") and width < 80:
                floats = cv2.resize(np.float32(source / 255.0), (width, height), interpolation=way)
                tensors[f"f32.{name}.{width}x{height}"] = floats
    save_file(tensors, here / "cv_resize.safetensors", metadata={"opencv": cv2.__version__, "numpy": np.__version__})


main()
