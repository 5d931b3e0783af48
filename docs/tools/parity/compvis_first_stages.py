"""The nine first stages: an image to latents, and latents to pixels."""
import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import compvis_reference as reference
import numpy as np
import torch
from ldm.models.autoencoder import AutoencoderKL, VQModelInterface
from PIL import Image

from compvis_table import Row, relative_l2

TABLE = "first stages"
FOLDER = Path(reference.REF) / "latent-diffusion/models/first_stage_models"
SEED = 1


@dataclass
class Case:
    name: str
    config: Path


def cases():
    return [Case(path.parent.name, path) for path in sorted(FOLDER.glob("*/config.yaml"))]


def draw(path, height, width):
    """Writes noise as a PNG; returns it as a tensor in [-1, 1]."""
    pixels = np.random.default_rng(SEED).integers(256, size=(height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def compare(case, folder, ours):
    weights, path = folder / "model.ckpt", folder / "image.png"
    with contextlib.redirect_stdout(io.StringIO()):
        model = reference.first_stage(case.config, SEED)
    reference.save_lightning(model, weights)
    # Not square, so that swapped sides would show; 128 pixels where 64 would give latents of two.
    size = (128, 192) if model.encoder.num_resolutions > 5 else (64, 96)
    image = draw(path, *size)
    if isinstance(model, AutoencoderKL):
        latents = model.encode(image).mode()
        pixels = model.decode(latents)
    else:
        # The diffusion models' view of a VQ first stage: codes are looked up when decoding.
        latents = model.encode_to_prequant(image)
        pixels = VQModelInterface.decode(model, latents)
    measured = {
        "encode": relative_l2(ours.encode(path, case.config, weights), latents),
        "decode": relative_l2(ours.decode(latents, case.config, weights), pixels),
    }
    return Row(case.name, [f"{size[0]}×{size[1]}", "×".join(map(str, latents.shape[1:]))], measured)
