"""Golden values of ldm-schedulers' samplers, made by the code of CompVis, k-diffusion and diffusers.

    LDM_REF=FOLDER K_DIFFUSION=<folder with the package k_diffusion 0.1.1> python generate_samplers.py

LDM_REF as in docs/tools/compvis_reference.py.

The "network" is `toy` of generate.py. CompVis computes in f32; k-diffusion and diffusers are given f64 tables and samples.
"""
import importlib.util
import json
import os
import pathlib
import sys
import types

import diffusers
import numpy as np
import torch
from safetensors.torch import save_file

from generate import COMMIT, HERE, SHAPE, ddim_module, ddpm_module, model, recorded, replay, toy

from ldm.models.diffusion import plms as plms_module  # noqa: E402
from ldm.modules.diffusionmodules.util import make_beta_schedule  # noqa: E402

SD_COMMIT = "21f890f9da3cfbeaba8e2ac3c425ee9e998d5229"  # CompVis/stable-diffusion
SD = pathlib.Path(os.environ["LDM_REF"]) / "stable-diffusion/ldm/models/diffusion"
CONFIG = {"beta_schedule": "linear", "timesteps": 1000, "linear_start": 0.00085, "linear_end": 0.012}


def save(name, tensors, reference, config=CONFIG):
    metadata = {"reference": reference, "torch": torch.__version__, "config": json.dumps(config)}
    tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    save_file(tensors, HERE / f"{name}.safetensors", metadata=metadata)


def load(name, path, package=False):
    places = [str(path.parent)] if package else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# ---- CompVis -----------------------------------------------------------------------------------------------------


def keep_buffers(cls):
    """CompVis moves every buffer to CUDA."""
    cls.register_buffer = lambda self, name, value: setattr(self, name, value)


def plms():
    m = model(CONFIG)
    keep_buffers(plms_module.PLMSSampler)
    start = recorded(1, 11)[0]
    tensors = {}
    for name, steps in (("twenty", 20), ("two", 2), ("one", 1)):
        plms_module.noise_like = lambda shape, device, repeat=False: torch.zeros(shape)
        sampler = plms_module.PLMSSampler(m)
        sampler.make_schedule(steps, ddim_eta=0.0, verbose=False)
        _, seen = sampler.plms_sampling(None, SHAPE, x_T=start, log_every_t=1)
        tensors[f"{name}.x"] = torch.stack(seen["x_inter"])
    save("plms", tensors, COMMIT)


def latent_model(config):
    """`model` of generate.py as a LatentDiffusion, whose loop knows masks."""
    m = model(config)
    m.__class__ = ddpm_module.LatentDiffusion
    m.shorten_cond_schedule = False
    m.apply_model = lambda x, t, c, return_ids=False: toy(x, t, m.num_timesteps)
    return m


def masks():
    x0, start = recorded(2, 12)
    mask = (torch.rand((SHAPE[0], 1, *SHAPE[2:]), generator=torch.Generator().manual_seed(13)) < 0.5).float()
    mask[0, 0, 0] = torch.tensor([0.0, 0.25, 0.75, 1.0])  # soft masks blend
    tensors = {"x0": x0, "start": start, "mask": mask, "noise": recorded(41, 14)}

    def draws():
        return iter(tensors["noise"])

    def q_sample(m, noise):
        own = type(m).q_sample
        m.q_sample = lambda x_start, t: own(m, x_start, t, next(noise))

    keep_buffers(ddim_module.DDIMSampler)
    keep_buffers(plms_module.PLMSSampler)
    silent = lambda shape, device, repeat=False: torch.zeros(shape)  # noqa: E731
    for name, cls, module, eta in (
        ("ddim", ddim_module.DDIMSampler, ddim_module, 0.0),
        ("ddim_eta1", ddim_module.DDIMSampler, ddim_module, 1.0),
        ("plms", plms_module.PLMSSampler, plms_module, 0.0),
    ):
        m, noise = model(CONFIG), draws()
        q_sample(m, noise)
        # Without eta CompVis draws noise and multiplies it by 0.
        module.noise_like = silent if eta == 0 else lambda shape, device, repeat=False: next(noise)
        sampler = cls(m)
        sampler.make_schedule(20, ddim_eta=eta, verbose=False)
        run = sampler.ddim_sampling if cls is ddim_module.DDIMSampler else sampler.plms_sampling
        got, seen = run(None, SHAPE, x_T=start, log_every_t=1, mask=mask, x0=x0)
        tensors[f"{name}.x0"] = torch.stack(seen["pred_x0"][1:])
        tensors[f"{name}.end"] = got
    config = {"beta_schedule": "linear", "timesteps": 20, "linear_start": 0.0015, "linear_end": 0.295}
    m, noise = latent_model(config), draws()
    q_sample(m, noise)
    seen = []
    steps = iter(range(20))
    # Its last step draws noise and multiplies it by 0.
    ddpm_module.noise_like = lambda shape, device, repeat=False: (
        next(noise) if next(steps) < 19 else torch.zeros(shape)
    )
    m.p_sample_loop(None, SHAPE, x_T=start, mask=mask, x0=x0, verbose=False, img_callback=lambda x, i: seen.append(x))
    tensors["ddpm.x"] = torch.stack([start, *seen])
    save("masks", tensors, COMMIT, {"ddim": CONFIG, "ddpm": config})


def encode():
    """img2img's way up and down, which only stable-diffusion has."""
    module = load("sd_ddim", SD / "ddim.py")
    keep_buffers(module.DDIMSampler)
    x0, noise = recorded(2, 15)
    tensors = {"x0": x0, "noise": noise}
    for steps in (1, 8, 19):
        module.noise_like = lambda shape, device, repeat=False: torch.zeros(shape)
        sampler = module.DDIMSampler(model(CONFIG))
        sampler.make_schedule(20, ddim_eta=0.0, verbose=False)
        z = sampler.stochastic_encode(x0, torch.tensor([steps] * SHAPE[0]), noise=noise)
        tensors[f"{steps}.encoded"] = z
        tensors[f"{steps}.decoded"] = sampler.decode(z, None, steps)
    save("encode", tensors, SD_COMMIT)


def dpm_solver():
    package = load("sd_dpm_solver", SD / "dpm_solver/__init__.py", package=True)
    keep_buffers(package.DPMSolverSampler)
    solver = sys.modules["sd_dpm_solver.dpm_solver"]
    start = recorded(1, 16)[0]
    tensors = {}
    m = model(CONFIG)
    for steps in (10, 20):
        seen, times = [], []
        asked = solver.DPM_Solver.model_fn

        def watch(self, x, t, asked=asked):
            seen.append(x)
            times.append(t[0])
            return asked(self, x, t)

        solver.DPM_Solver.model_fn = watch
        end, _ = package.DPMSolverSampler(m).sample(steps, SHAPE[0], SHAPE[1:], conditioning=torch.zeros(SHAPE[0], 1), x_T=start)
        solver.DPM_Solver.model_fn = asked
        assert len(seen) == steps
        tensors[f"{steps}.x"] = torch.stack([*seen, end])
        tensors[f"{steps}.t"] = (torch.stack(times) - 1 / 1000) * 1000
    save("dpm_solver", tensors, SD_COMMIT)


# ---- f64 ---------------------------------------------------------------------------------------------------------


def alphas_bar():
    betas = make_beta_schedule(
        "linear", CONFIG["timesteps"], linear_start=CONFIG["linear_start"], linear_end=CONFIG["linear_end"]
    )
    return torch.from_numpy(np.cumprod(1 - np.asarray(betas, dtype=np.float64)))


def k_diffusion():
    sys.path.insert(0, os.environ["K_DIFFUSION"])
    package = types.ModuleType("k_diffusion")  # its own __init__ asks for packages that sampling does not need
    package.__path__ = [os.environ["K_DIFFUSION"] + "/k_diffusion"]
    sys.modules["k_diffusion"] = package
    for name in ("torchdiffeq", "torchsde"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchdiffeq"].odeint = None
    from k_diffusion import external, sampling

    as_float = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # `t_to_sigma` would round t to f32
    denoiser = external.DiscreteEpsDDPMDenoiser(lambda x, t: toy(x, t, 1000), alphas_bar(), quantize=False)
    low, high = denoiser.sigma_min.item(), denoiser.sigma_max.item()
    tensors = {"noise": recorded(10, 17).double()}

    def uniform(count):
        return sampling.append_zero(denoiser.t_to_sigma(torch.linspace(999.0, 0.0, count + 1)[:-1]))

    spacings = {
        "karras": lambda count: sampling.get_sigmas_karras(count, low, high),
        "exponential": lambda count: sampling.get_sigmas_exponential(count, low, high),
        "sgm_uniform": uniform,
    }
    for name, spacing in spacings.items():
        for count in (1, 2, 10, 37, 300):
            sigmas = spacing(count)
            tensors[f"noise_levels.{name}.{count}"] = torch.stack([sigmas[:-1], denoiser.sigma_to_t(sigmas[:-1]).double()])
    start = recorded(1, 18)[0].double()
    sigmas = spacings["karras"](10)
    for name, run in {
        "euler": sampling.sample_euler,
        "euler_a": sampling.sample_euler_ancestral,
        "euler_a_half": lambda *a, **k: sampling.sample_euler_ancestral(*a, eta=0.5, **k),
        "heun": sampling.sample_heun,
        "dpm2": sampling.sample_dpm_2,
        "lms": sampling.sample_lms,
        "dpmpp_2m": sampling.sample_dpmpp_2m,
        "dpmpp_2m_sde": sampling.sample_dpmpp_2m_sde,
        "dpmpp_2m_sde_half": lambda *a, **k: sampling.sample_dpmpp_2m_sde(*a, eta=0.5, **k),
        "dpmpp_3m_sde": sampling.sample_dpmpp_3m_sde,
        "dpmpp_3m_sde_half": lambda *a, **k: sampling.sample_dpmpp_3m_sde(*a, eta=0.5, **k),
        "dpmpp_3m_sde_zero": lambda *a, **k: sampling.sample_dpmpp_3m_sde(*a, eta=0.0, **k),
    }.items():
        draws = iter(tensors["noise"])
        stochastic = "_a" in name or "sde" in name
        more = {"noise_sampler": lambda at, to: next(draws)} if stochastic else {}
        seen, clean = [], []

        def watch(step):
            seen.append(step["x"] / (1 + step["sigma"] ** 2) ** 0.5)
            clean.append(step["denoised"])

        end = run(denoiser, start * sigmas[0], sigmas, callback=watch, disable=True, **more)
        tensors[f"{name}.x"] = torch.stack([*seen, end])
        tensors[f"{name}.x0"] = torch.stack(clean)
    torch.Tensor.float = as_float
    torch.set_default_dtype(torch.float32)
    save("k_diffusion", tensors, "k-diffusion 0.1.1.post1")


def diffusers_f64():
    torch.set_default_dtype(torch.float64)
    alphas, start = alphas_bar(), recorded(1, 19)[0].double()
    noise = recorded(8, 20).double()
    tensors = {"noise": noise}
    sigmas = ((1 - alphas) / alphas) ** 0.5
    times = [999, 870, 742, 615, 480, 350, 222, 100, 41, 7]
    for order in (1, 2, 3):
        for final in ("zero", "sigma_min"):
            scheduler = diffusers.UniPCMultistepScheduler(
                solver_order=order, lower_order_final=final == "zero", final_sigmas_type=final
            )
            scheduler.set_timesteps(len(times))
            scheduler.timesteps = torch.tensor(times)
            scheduler.set_begin_index(0)
            end = torch.zeros(1).double() if final == "zero" else sigmas[:1]
            scheduler.sigmas = torch.cat([sigmas[times], end])
            x, seen = start, [start]
            for t in times:
                x = scheduler.step(toy(x, torch.tensor([float(t)]), 1000), t, x).prev_sample
                seen.append(x)
            assert x.dtype == torch.float64
            tensors[f"unipc.{order}.{final}"] = torch.stack(seen)
    tensors["times"] = torch.tensor(times).double()

    from diffusers.schedulers import scheduling_lcm

    for steps in (1, 4, 8):
        scheduler = diffusers.LCMScheduler()
        scheduler.set_timesteps(steps)
        scheduler.alphas_cumprod = alphas
        draws = iter(noise)
        scheduling_lcm.randn_tensor = lambda *a, **k: next(draws)
        x, seen = start, [start]
        for t in scheduler.timesteps:
            x = scheduler.step(toy(x, torch.tensor([float(t)]), 1000), t, x).prev_sample
            seen.append(x)
        tensors[f"lcm.{steps}"] = torch.stack(seen)
        tensors[f"lcm.{steps}.t"] = scheduler.timesteps.double()

    scheduler = diffusers.DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.7)
    wide = recorded(1, 21)[0].double() * torch.tensor([0.2, 3.0]).view(2, 1, 1, 1)
    wide = torch.cat([wide, recorded(1, 22)[0].double()])  # under 1, over the cap, between
    tensors["threshold.x0"], tensors["threshold.held"] = wide, scheduler._threshold_sample(wide)

    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    tensors["zero_terminal_snr"] = rescale_zero_terminal_snr(betas)
    torch.set_default_dtype(torch.float32)
    save("diffusers", tensors, f"diffusers {diffusers.__version__}")


if __name__ == "__main__":
    plms()
    masks()
    encode()
    dpm_solver()
    k_diffusion()
    diffusers_f64()
