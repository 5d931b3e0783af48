"""Writes degradation.safetensors: BSRGAN's degradations by CompVis' code, step by step and complete.

    LDM_REF=FOLDER python generate_degradation.py    # see docs/tools/compvis_reference.py

The random choices of whole degradations are recorded as a plan (metadata `plans`), with noise set to zero; noise is compared
separately, from given normals.
"""
import json
import os
import pathlib
import random
import sys
import types

import cv2
import numpy as np
import scipy
from safetensors.numpy import load_file, save_file
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
import compvis_reference  # noqa: E402, F401  makes `ldm` importable

sys.modules.setdefault("albumentations", types.ModuleType("albumentations"))
from ldm.modules.image_degradation import bsrgan, bsrgan_light  # noqa: E402
from ldm.modules.image_degradation import utils_image as util  # noqa: E402



def interp2d(x, y, z):
    """What scipy took out in 1.14, by the drop-in its own notes name."""
    spline = RectBivariateSpline(x, y, z.T, kx=1, ky=1)
    return lambda xs, ys: spline(xs, ys).T


scipy.finfo = np.finfo  # gone too
for module in (bsrgan, bsrgan_light):
    module.interp2d = interp2d
    module.ndimage = types.SimpleNamespace(filters=types.SimpleNamespace(convolve=ndimage.convolve))


def photo(side):
    """Slopes, edges and grain."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:side, 0:side].astype(np.float64)
    slope = 127 + 100 * np.sin(x / 17 + y / 29)
    disc = 200.0 * ((x - side / 3) ** 2 + (y - side / 2) ** 2 < side * side / 16)
    stripes = 90.0 * (np.sin(x / 3) > 0)
    image = np.stack([slope, 0.5 * slope + 0.5 * disc, 255 - slope + stripes * 0.3], -1)
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def record(module, image, seed):
    """The degraded image, and its random plan."""
    plan = {"before": None, "factor": 4, "steps": [], "quality": None}
    state = {"by": None, "sigma": None}
    kinds = {1: "linear", 2: "cubic", 3: "area"}
    steps = plan["steps"]

    class Draws:
        def __getattr__(self, name):
            return getattr(random, name)

        def uniform(self, low, high):
            value = random.uniform(low, high)
            state["by" if low == 1 else "sigma"] = value
            return value

    def resize(image, size, interpolation):
        if image.shape[0] == image.shape[0] and size[0] * 2 == image.shape[1] and not steps and state["by"] is None:
            plan["before"], plan["factor"] = kinds[interpolation], 2
        elif state["by"] is not None:
            steps.append({"resize": {"by": state["by"], "kind": kinds[interpolation]}})
            state["by"] = None
        else:
            steps.append({"fit": kinds[interpolation]})
        return cv2.resize(image, size, interpolation=interpolation)

    def halve(image, scale, antialiasing):
        plan["before"], plan["factor"] = "matlab", 2
        return util.imresize_np(image, scale, antialiasing)

    def long(ksize, theta, l1, l2):
        steps.append({"long": {"side": ksize, "turn": theta, "spread": [l1, l2]}})
        return real["anisotropic_Gaussian"](ksize, theta, l1, l2)

    def fspecial(kind, side, sigma):
        steps.append({"thin": sigma} if side == 25 and sigma == state["sigma"] else
                     {"round": {"side": side, "sigma": sigma}})
        return real["fspecial"](kind, side, sigma)

    def encode(ending, image, options):
        steps.append({"jpeg": options[1]})
        return cv2.imencode(ending, image, options)

    real = {name: getattr(module, name) for name in ("random", "cv2", "util", "anisotropic_Gaussian", "fspecial")}
    noise = module.add_Gaussian_noise
    module.random = Draws()
    module.cv2 = types.SimpleNamespace(**{**vars(cv2), "resize": resize, "imencode": encode})
    module.util = types.SimpleNamespace(**{**vars(util), "imresize_np": halve})
    module.anisotropic_Gaussian, module.fspecial = long, fspecial
    module.add_Gaussian_noise = lambda image, noise_level1, noise_level2: image
    random.seed(seed)
    np.random.seed(seed)
    result = module.degradation_bsrgan_variant(image, sf=4)["image"]
    for name, value in real.items():
        setattr(module, name, value)
    module.add_Gaussian_noise = noise
    plan["quality"] = steps.pop()["jpeg"]
    return result, plan


def main():
    tensors, plans = {}, []
    rng = np.random.default_rng(0)
    small = np.float32(load_file(HERE / "resize.safetensors")["source"][:23, :31] / 255.0)
    tensors["small"] = small
    for side, sigma in [(5, 0.3), (6, 0.7), (7, 0.05), (15, 2.2), (25, 1.4)]:
        kernel = bsrgan.fspecial("gaussian", side, sigma)
        tensors[f"round.{side}.{sigma}"] = kernel
        tensors[f"round_blurred.{side}.{sigma}"] = ndimage.convolve(small, kernel[:, :, None], mode="mirror")
    for side, turn, l1, l2 in [(5, 0.4, 1.1, 0.3), (8, 2.9, 0.5, 1.7), (21, 1.2, 6.5, 0.9)]:
        kernel = bsrgan.anisotropic_Gaussian(side, turn, l1, l2)
        tensors[f"long.{side}.{turn}.{l1}.{l2}"] = kernel
        tensors[f"long_blurred.{side}.{turn}.{l1}.{l2}"] = ndimage.convolve(small, kernel[:, :, None], mode="mirror")
    for factor in (2, 3, 4):
        shifted = bsrgan.shift_pixel(bsrgan.fspecial("gaussian", 25, 1.4), factor)
        tensors[f"shifted.{factor}"] = shifted / shifted.sum()
    tensors["halved"] = util.imresize_np(small.copy(), 1 / 2, True)
    for number in range(6):
        scales, matrix, level = rng.random(3), rng.random((3, 3)), (25 if number % 2 else 2) / 255
        basis = scipy.linalg.orth(matrix)
        covariance = np.abs(level**2 * np.dot(np.dot(basis.T, np.diag(scales)), basis))
        _, values, vectors = np.linalg.svd(covariance)  # as numpy's multivariate_normal
        factor = np.sqrt(values)[:, None] * vectors
        tensors[f"noise.{number}"] = np.concatenate(
            [scales[None], matrix, covariance, factor.T @ factor, np.full((1, 3), level)])
    large = photo(96)
    tensors["photo"] = large
    for quality in (30, 60, 80, 95):
        _, data = cv2.imencode(".jpg", large[:51, :59, ::-1], [int(cv2.IMWRITE_JPEG_QUALITY), quality])
        tensors[f"jpeg.{quality}"] = cv2.imdecode(data, 1)[:, :, ::-1]
    for name, module in [("light", bsrgan_light), ("full", bsrgan)]:
        for seed in range(6):
            tensors[f"whole.{len(plans)}"], plan = record(module, large, seed)
            plans.append({"strength": name, **plan})
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    metadata = {"reference": "CompVis/latent-diffusion a506df5", "opencv": cv2.__version__, "scipy": scipy.__version__,
                "numpy": np.__version__, "plans": json.dumps(plans)}
    save_file(tensors, HERE / "degradation.safetensors", metadata=metadata)
    for plan in plans:
        print(json.dumps(plan))


main()
