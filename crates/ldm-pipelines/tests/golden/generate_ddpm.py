"""Makes ddpm_pixels.safetensors, with CompVis' own DDPM: diffusion in pixels, whose clean samples are clipped; and
ddim_quantized.safetensors, DDIM on a VQ first stage with quantized clean samples, temperature and noise dropout.

    LDM_REF=FOLDER python generate_ddpm.py    # see docs/tools/compvis_reference.py
"""
import copy
from pathlib import Path

import torch
import yaml

from generate import BATCH, HERE, SEED, STEPS, Recorded, condition, draw, fill, reference, save
from ldm.models.diffusion import ddim, ddpm

SHORT = {"timesteps": STEPS, "linear_start": 0.0015, "linear_end": 0.195}
SEEN = [0, 1, 4, 9, 14, 18]
TEMPERATURE, DROPOUT = 0.7, 0.3


def pixels():
    """All levels of a short schedule, and the loss at some of them."""
    config = yaml.safe_load((HERE / "ddpm.yaml").read_text())["model"]
    model = reference.instantiate_from_config(copy.deepcopy(config)).eval()
    fill(model.named_parameters(), SEED)
    ddpm.noise_like = noise = Recorded(40)
    x_T = draw(41, BATCH, 1, 8, 8)
    randn = torch.randn
    torch.randn = lambda *size, **options: randn(*size, **options) if "generator" in options else x_T
    images, seen = model.p_sample_loop((BATCH, 1, 8, 8), return_intermediates=True)
    torch.randn = randn
    assert model.clip_denoised and (seen[-1].abs() <= 1).all()
    run = {"x_T": x_T, "latents": images, "noise": torch.stack(noise.draws)}
    for step in SEEN:
        run[f"x.{step}"] = seen[step]
    return run


def loss():
    config = yaml.safe_load((HERE / "ddpm.yaml").read_text())["model"]
    config["params"].update(original_elbo_weight=0.1, l_simple_weight=0.7)
    model = reference.instantiate_from_config(copy.deepcopy(config)).eval()
    fill(model.named_parameters(), SEED)
    x, eps, t = draw(42, BATCH, 1, 8, 8).tanh(), draw(43, BATCH, 1, 8, 8), torch.tensor([3, 17])
    _, parts = model.p_losses(x, t, eps)
    parts = torch.stack([parts[f"val/{name}"] for name in ("loss_simple", "loss_vlb", "loss")])
    return {"x": x, "eps": eps, "t": t, "parts": parts}


def quantized():
    """20 steps on a VQ first stage."""
    config = yaml.safe_load((HERE / "class.yaml").read_text())["model"]
    params = config["params"]
    params["scale_factor"] = 1.0
    params["cond_stage_config"]["params"].pop("null_class")
    first = params["first_stage_config"]
    first["target"] = "ldm.models.autoencoder.VQModelInterface"
    first["params"]["n_embed"] = 64
    first["params"]["ddconfig"]["double_z"] = False
    model = reference.instantiate_from_config(copy.deepcopy(config)).eval()
    fill(model.named_parameters(), SEED)
    with torch.no_grad():
        model.first_stage_model.quantize.embedding.weight.copy_(draw(52, 64, 4))
    ddim.noise_like = noise = Recorded(50)
    drops = []

    def dropout(x, p, training=True, inplace=False):
        if not training:
            return x
        draws = torch.randn(x.shape, generator=noise.generator)
        drops.append(draws)
        quantile = torch.erfinv(torch.tensor([2 * p - 1], dtype=torch.float64)) * 2 ** 0.5
        return x * (draws >= quantile) / (1 - p)

    ddim.torch.nn.functional.dropout = dropout
    sampler, _ = reference.ddim(model)
    x_T = draw(51, BATCH, 4, 8, 8)
    latents, seen = sampler.sample(
        STEPS, BATCH, (4, 8, 8), conditioning=condition(model, [3, 8]), eta=1.0, x_T=x_T, verbose=False, log_every_t=1,
        quantize_x0=True, temperature=TEMPERATURE, noise_dropout=DROPOUT)
    # In the order of the draws: the noise of a step, then that of its dropout.
    draws = [each for pair in zip(noise.draws, drops) for each in pair]
    codebook = model.first_stage_model.quantize.embedding.weight
    run = {"x_T": x_T, "latents": latents, "noise": torch.stack(draws), "codebook": codebook,
           "decoded": model.decode_first_stage(latents)}
    for step in SEEN:
        run[f"x.{step}"], run[f"x0.{step}"] = seen["x_inter"][step], seen["pred_x0"][step + 1]
    return run


if __name__ == "__main__":
    with torch.no_grad():
        save("ddpm_pixels.safetensors", {**pixels(), **{f"loss.{name}": value for name, value in loss().items()}},
             file="ddpm.yaml")
        save("ddim_quantized.safetensors", quantized(), temperature=TEMPERATURE, noise_dropout=DROPOUT)
