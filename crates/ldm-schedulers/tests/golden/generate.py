"""Golden values of ldm-schedulers, made by CompVis' own code.

    LDM_REF=FOLDER python generate.py    # see docs/tools/compvis_reference.py

The "network" is a closed formula of x and t that the tests write too (`toy`). Noise is recorded.
"""
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
import compvis_reference  # noqa: F401, E402  makes `ldm` importable

from ldm.models.diffusion import ddim as ddim_module  # noqa: E402
from ldm.models.diffusion import ddpm as ddpm_module  # noqa: E402
from ldm.modules.diffusionmodules.util import make_beta_schedule, make_ddim_timesteps  # noqa: E402

torch.set_num_threads(1)
COMMIT = "a506df5756472e2ebaf9078affdde2c4f1502cd4"  # CompVis/latent-diffusion
SHAPE = (2, 2, 4, 4)


def save(name, tensors, config):
    metadata = {"reference": COMMIT, "torch": torch.__version__, "config": json.dumps(config)}
    tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    save_file(tensors, HERE / f"{name}.safetensors", metadata=metadata)


def toy(x, t, total):
    """Stands for a network: smooth in x and t, not linear, never zero."""
    s = t[0].item() / total
    return torch.tanh(x * (0.5 + 0.5 * s)) * (0.3 + 0.7 * s) + 0.1 * (1 - s)


def model(config):
    """CompVis' DDPM without a network."""
    m = ddpm_module.DDPM.__new__(ddpm_module.DDPM)
    torch.nn.Module.__init__(m)
    m.parameterization = config.get("parameterization", "eps")
    m.v_posterior = config.get("v_posterior", 0.0)
    m.clip_denoised = config.get("clip_denoised", False)
    m.log_every_t = 1
    m._device = torch.device("cpu")  # what its property `device` reads
    schedule = {k: config[k] for k in ("beta_schedule", "timesteps", "linear_start", "linear_end") if k in config}
    m.register_schedule(**schedule)
    total = m.num_timesteps
    m.model = lambda x, t: toy(x, t, total)
    m.apply_model = lambda x, t, c: toy(x, t, total)
    return m


def recorded(count, seed):
    return torch.randn((count, *SHAPE), generator=torch.Generator().manual_seed(seed))


def replay(module, noise):
    draws = iter(noise)
    module.noise_like = lambda shape, device, repeat=False: next(draws)


def schedules():
    for name in ("linear", "cosine", "sqrt_linear", "sqrt"):
        config = {"beta_schedule": name, "timesteps": 1000, "linear_start": 0.00085, "linear_end": 0.012}
        m = model(config)
        tensors = {f"buffer.{key}": value for key, value in m.state_dict().items()}
        assert len(tensors) == 12
        tensors["lvlb.eps"] = m.lvlb_weights
        tensors["lvlb.x0"] = model({**config, "parameterization": "x0"}).lvlb_weights
        save(f"schedule_{name}", tensors, config)


def timesteps():
    tensors = {}
    for steps in (1, 2, 3, 7, 10, 20, 30, 50, 60, 100, 200, 250, 300, 333, 400, 500, 501, 1000):
        tensors[f"uniform.{steps}"] = torch.from_numpy(make_ddim_timesteps("uniform", steps, 1000, False))
    for steps in (1, 2, 3, 7, 10, 20, 30, 50, 100, 250, 333):
        tensors[f"quad.{steps}"] = torch.from_numpy(make_ddim_timesteps("quad", steps, 1000, False))
    # A list for every number of steps would be long: its sum of squares finds any other entry.
    sums = [int((make_ddim_timesteps("quad", steps, 1000, False).astype(np.int64) ** 2).sum()) for steps in range(1, 1001)]
    tensors["quad_squares"] = torch.tensor(sums)
    save("timesteps", tensors, {"timesteps": 1000})


def ddim():
    config = {"beta_schedule": "linear", "timesteps": 1000, "linear_start": 0.0015, "linear_end": 0.0195}
    m = model(config)
    ddim_module.DDIMSampler.register_buffer = lambda self, name, value: setattr(self, name, value)
    start, noise = recorded(1, 1)[0], recorded(31, 2)
    tensors = {"start": start, "noise": noise}
    for name, steps, spacing, eta in (
        ("eta0", 20, "uniform", 0.0),
        ("eta1", 20, "uniform", 1.0),
        ("half", 20, "uniform", 0.5),
        ("thirty", 30, "uniform", 1.0),
        ("quad", 20, "quad", 0.0),
    ):
        replay(ddim_module, noise)
        sampler = ddim_module.DDIMSampler(m)
        sampler.make_schedule(steps, spacing, eta, verbose=False)
        _, seen = sampler.ddim_sampling(None, SHAPE, x_T=start, log_every_t=1)
        tensors[f"{name}.x"] = torch.stack(seen["x_inter"])
        tensors[f"{name}.x0"] = torch.stack(seen["pred_x0"][1:])
    save("ddim", tensors, config)


def ddpm():
    base = {"beta_schedule": "linear", "timesteps": 50, "linear_start": 0.0015, "linear_end": 0.195}
    cases = {
        "latent": base,
        "clipped": {**base, "clip_denoised": True},
        "x0_cosine": {"beta_schedule": "cosine", "timesteps": 50, "parameterization": "x0"},
        "half_beta": {**base, "v_posterior": 0.5},
    }
    noise = recorded(50, 3)
    tensors = {"noise": noise}
    for name, config in cases.items():
        m = model(config)
        replay(ddpm_module, noise)
        torch.manual_seed(4)
        _, seen = m.p_sample_loop(SHAPE, return_intermediates=True)
        tensors[f"{name}.x"] = torch.stack(seen)
    save("ddpm", tensors, cases)


def add_noise():
    config = {"beta_schedule": "linear", "timesteps": 1000, "linear_start": 0.00085, "linear_end": 0.012}
    m = model(config)
    x0, eps = recorded(2, 5)
    t = torch.tensor([3, 870])
    save("add_noise", {"x0": x0, "eps": eps, "t": t, "xt": m.q_sample(x0, t, eps)}, config)


if __name__ == "__main__":
    schedules()
    timesteps()
    ddim()
    ddpm()
    add_noise()
