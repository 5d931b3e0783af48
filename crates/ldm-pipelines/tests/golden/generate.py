"""Makes the golden files of this folder with CompVis' own LatentDiffusion.

    LDM_REF=FOLDER python generate.py    # see docs/tools/compvis_reference.py

Weights are not stored: both sides compute them by the formula of `ldm_testing::fill_weights`. All is f32, as
CompVis runs.
"""
import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
import compvis_reference as reference  # noqa: E402
from golden_weights import fill  # noqa: E402
from ldm.models.diffusion import ddim, ddpm  # noqa: E402

torch.set_num_threads(1)
SEED, BATCH, STEPS, SCALE, NULL_CLASS = 5, 2, 20, 3.0, 10
CLASSES = [3, 8]
# Steps whose latents are stored, counted from the noisiest as in CompVis.
SEEN = [0, 1, 4, 9, 14, 18]


def build(**overrides):
    config = yaml.safe_load((HERE / "class.yaml").read_text())["model"]
    config["params"].update(overrides)
    assert config["params"]["cond_stage_config"]["params"].pop("null_class") == NULL_CLASS
    model = reference.instantiate_from_config(copy.deepcopy(config)).eval()
    fill(model.named_parameters(), SEED)
    return model


class Recorded:
    """Replaces `noise_like`: draws from its own generator, and records the draws."""

    def __init__(self, seed):
        self.generator, self.draws = torch.Generator().manual_seed(seed), []

    def __call__(self, shape, device, repeat=False):
        assert not repeat
        self.draws.append(torch.randn(shape, generator=self.generator))
        return self.draws[-1]


def commit():
    folder = Path(os.environ["LDM_REF"]) / "latent-diffusion"
    return subprocess.check_output(["git", "-C", str(folder), "rev-parse", "HEAD"], text=True).strip()


def save(name, tensors, **config):
    tensors = {key: tensor.detach().contiguous().clone() for key, tensor in tensors.items()}
    for key, tensor in tensors.items():
        assert tensor.isfinite().all() and (not tensor.is_floating_point() or tensor.std() > 1e-2), key
    metadata = {
        "reference": f"CompVis/latent-diffusion {commit()}",
        "torch": torch.__version__,
        "config": json.dumps({"file": "class.yaml", "seed": SEED, **config}),
    }
    save_file(tensors, HERE / name, metadata)


def condition(model, classes):
    return model.get_learned_conditioning({"class": torch.tensor(classes)})


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stages(model):
    """The first stage, and the network at three levels."""
    image = draw(1, BATCH, 3, 16, 16).tanh()
    posterior = model.encode_first_stage(image)
    noise = draw(2, BATCH, 4, 8, 8)
    posterior.sample = lambda: posterior.mean + posterior.std * noise
    sampled = model.get_first_stage_encoding(posterior)
    mode = model.get_first_stage_encoding(posterior.mode())
    x, t = draw(3, 3, 4, 8, 8), torch.tensor([0, 421, 999])
    classes = [0, 7, NULL_CLASS]
    prediction = model.apply_model(x, t, condition(model, classes))
    for other in (model.apply_model(x, t, condition(model, [1, 2, 3])), model.apply_model(x, 999 - t // 2, condition(model, classes))):
        change = (other - prediction).std(dim=(1, 2, 3)) / prediction.std()
        assert (change > 0.02).all(), change  # class and time both matter
    return {
        "image": image, "noise": noise, "sampled": sampled, "mode": mode, "decoded": model.decode_first_stage(sampled),
        "x": x, "t": t, "class": torch.tensor(classes), "prediction": prediction,
    }


def ddim_walk(model, eta, seed):
    """20 steps, guided away from the null class."""
    ddim.noise_like = noise = Recorded(seed)
    sampler, _ = reference.ddim(model)
    x_T = draw(seed + 1, BATCH, 4, 8, 8)
    latents, seen = sampler.sample(
        STEPS, BATCH, (4, 8, 8), conditioning=condition(model, CLASSES), eta=eta, x_T=x_T, verbose=False, log_every_t=1,
        unconditional_guidance_scale=SCALE, unconditional_conditioning=condition(model, [NULL_CLASS] * BATCH))
    run = {"x_T": x_T, "latents": latents, "decoded": model.decode_first_stage(latents)}
    if eta > 0:
        run["noise"] = torch.stack(noise.draws)
    # x_inter holds the start of each step; pred_x0 begins with x_T, too.
    for step in SEEN:
        run[f"x.{step}"], run[f"x0.{step}"] = seen["x_inter"][step], seen["pred_x0"][step + 1]
    return run


def ddpm_walk(model, seed):
    """All levels of a short schedule, without guidance."""
    ddpm.noise_like = noise = Recorded(seed)
    x_T = draw(seed + 1, BATCH, 4, 8, 8)
    latents, seen = model.p_sample_loop(
        condition(model, CLASSES), (BATCH, 4, 8, 8), return_intermediates=True, x_T=x_T, verbose=False, log_every_t=1)
    run = {"x_T": x_T, "latents": latents, "decoded": model.decode_first_stage(latents)}
    run["noise"] = torch.stack(noise.draws)
    for step in SEEN:
        run[f"x.{step}"] = seen[step]
    return run


SHORT = {"timesteps": STEPS, "linear_start": 0.0015, "linear_end": 0.195}

if __name__ == "__main__":
    with torch.no_grad():
        model = build()
        save("stages.safetensors", stages(model))
        guided = {"steps": STEPS, "classes": CLASSES, "guidance_scale": SCALE}
        save("ddim.safetensors", ddim_walk(model, 0.0, 10), eta=0.0, **guided)
        save("ddim_eta1.safetensors", ddim_walk(model, 1.0, 20), eta=1.0, **guided)
        save("ddpm.safetensors", ddpm_walk(build(**SHORT), 30), classes=CLASSES, overrides=SHORT)
