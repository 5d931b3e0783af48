"""Golden values of `scheduler_config.json`: the inputs of the network in diffusers' schedulers, call by call, and the results.

    python generate_schedulers.py

The "network" is `toy`, a function of x and t that the test implements too. Noise is recorded.
"""
import json
import math
import sys
from pathlib import Path

import diffusers
import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
SHAPE = (1, 2, 3, 3)
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FRONT = {"timestep_spacing": "leading", "steps_offset": 1}
ZERO_SNR = {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}

CASES = {
    "ddim": ("DDIMScheduler", {**SD, "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}, 10),
    "ddim_seven": ("DDIMScheduler", {**SD, "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}, 7),
    "ddim_clipped": ("DDIMScheduler", {"clip_sample_range": 0.8}, 10),
    "ddim_thresholded": ("DDIMScheduler", {"thresholding": True, "dynamic_thresholding_ratio": 0.8, "sample_max_value": 1.5}, 10),
    "ddim_zero_snr": ("DDIMScheduler", {**SD, **ZERO_SNR, "clip_sample": False}, 10),
    "ddpm": ("DDPMScheduler", {**SD, "clip_sample": False}, 10),
    "ddpm_trailing": ("DDPMScheduler", {"timestep_spacing": "trailing"}, 10),
    "pndm": ("PNDMScheduler", {**SD, "skip_prk_steps": True, "steps_offset": 1}, 10),
    "lms": ("LMSDiscreteScheduler", SD, 10),
    "lms_karras": ("LMSDiscreteScheduler", {**SD, "use_karras_sigmas": True}, 10),
    "lms_leading": ("LMSDiscreteScheduler", {**SD, **FRONT, "prediction_type": "sample"}, 10),
    "euler": ("EulerDiscreteScheduler", SD, 10),
    "euler_karras": ("EulerDiscreteScheduler", {**SD, "use_karras_sigmas": True}, 10),
    "euler_exponential": ("EulerDiscreteScheduler", {**SD, "use_exponential_sigmas": True}, 10),
    "euler_leading": ("EulerDiscreteScheduler", {**SD, **FRONT}, 10),
    "euler_trailing": ("EulerDiscreteScheduler", {**SD, "timestep_spacing": "trailing", "final_sigmas_type": "sigma_min"}, 30),
    "euler_zero_snr": ("EulerDiscreteScheduler", {**SD, **ZERO_SNR}, 10),
    "euler_a": ("EulerAncestralDiscreteScheduler", SD, 10),
    "euler_a_leading": ("EulerAncestralDiscreteScheduler", {**SD, **FRONT, "prediction_type": "v_prediction"}, 10),
    "heun": ("HeunDiscreteScheduler", {}, 6),
    "heun_karras_clipped": ("HeunDiscreteScheduler", {"use_karras_sigmas": True, "clip_sample": True, "clip_sample_range": 0.9}, 6),
    "dpm": ("DPMSolverMultistepScheduler", SD, 10),
    "dpm_leading": ("DPMSolverMultistepScheduler", {**SD, **FRONT}, 10),
    "dpm_trailing": ("DPMSolverMultistepScheduler", {**SD, **ZERO_SNR}, 10),
    "dpm_karras": ("DPMSolverMultistepScheduler", {**SD, "use_karras_sigmas": True}, 10),
    "dpm_karras_cosine": ("DPMSolverMultistepScheduler", {"beta_schedule": "squaredcos_cap_v2", "use_karras_sigmas": True}, 10),
    "dpm_exponential": ("DPMSolverMultistepScheduler", {**SD, "use_exponential_sigmas": True}, 10),
    "dpm_sigma_min": ("DPMSolverMultistepScheduler", {**SD, "final_sigmas_type": "sigma_min"}, 10),
    "dpm_sigma_min_16": ("DPMSolverMultistepScheduler", {**SD, "final_sigmas_type": "sigma_min"}, 16),
    "dpm_whole": ("DPMSolverMultistepScheduler", {**SD, "final_sigmas_type": "sigma_min", "lower_order_final": False}, 10),
    "dpm_first_order": ("DPMSolverMultistepScheduler", {**SD, "solver_order": 1}, 10),
    "dpm_thresholded": ("DPMSolverMultistepScheduler", {"thresholding": True, "sample_max_value": 1.2}, 10),
    "dpm_sde": ("DPMSolverMultistepScheduler", {**SD, "algorithm_type": "sde-dpmsolver++"}, 10),
    "dpm_sde_karras": ("DPMSolverMultistepScheduler", {
        **SD, "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, 10),
    "dpm_sde_first_order": ("DPMSolverMultistepScheduler", {**SD, "algorithm_type": "sde-dpmsolver++", "solver_order": 1}, 10),
    "unipc": ("UniPCMultistepScheduler", SD, 10),
    "unipc_karras": ("UniPCMultistepScheduler", {**SD, "use_karras_sigmas": True}, 10),
    "unipc_exponential": ("UniPCMultistepScheduler", {**SD, "use_exponential_sigmas": True}, 10),
    "unipc_third_order": ("UniPCMultistepScheduler", {**SD, "solver_order": 3, "prediction_type": "sample"}, 10),
    "unipc_zero_snr": ("UniPCMultistepScheduler", {**SD, **ZERO_SNR, "final_sigmas_type": "sigma_min"}, 10),
    "lcm": ("LCMScheduler", {}, 4),
    "lcm_of_25": ("LCMScheduler", {"original_inference_steps": 25, "clip_sample": True}, 7),
}


def toy(x, t):
    """In place of a network: smooth in x and t, not linear, never zero."""
    s = t / 1000
    return torch.tanh(x * (0.5 + 0.5 * s)) * (0.3 + 0.7 * s) + 0.1 * (1 - s)


def alphas_cumprod(scheduler):
    """diffusers' values in f64: in f32 two digits are lost, and four on a cosine schedule and with zero terminal SNR."""
    config, wide = scheduler.config, dict(dtype=torch.float64)
    if config.beta_schedule == "squaredcos_cap_v2":
        alpha_bar = lambda t: math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
        betas = torch.tensor([min(1 - alpha_bar(t + 1) / alpha_bar(t), 0.999) for t in range(1000)], **wide)
    elif config.beta_schedule == "scaled_linear":
        betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, 1000, **wide) ** 2
    else:
        assert config.beta_schedule == "linear", config.beta_schedule
        betas = torch.linspace(config.beta_start, config.beta_end, 1000, **wide)
    if getattr(config, "rescale_betas_zero_snr", False):
        betas = diffusers.schedulers.scheduling_ddim.rescale_zero_terminal_snr(betas)
    found = (1 - betas).cumprod(0)
    assert torch.allclose(found.float(), scheduler.alphas_cumprod, rtol=1e-3, atol=1e-6)
    found[-1] = float(scheduler.alphas_cumprod[-1])  # some put a small number in place of the zero
    return found


def run(scheduler, steps, start, noise):
    draws = iter(noise)
    sys.modules[type(scheduler).__module__].randn_tensor = lambda *a, **k: next(draws)
    scheduler.alphas_cumprod = alphas_cumprod(scheduler)
    scheduler.set_timesteps(steps)
    x, inputs, times = start * scheduler.init_noise_sigma, [], []
    for t in scheduler.timesteps:
        into = scheduler.scale_model_input(x, t)
        inputs.append(into)
        times.append(float(t))
        x = scheduler.step(toy(into, float(t)), t, x).prev_sample
    if type(scheduler).__name__ == "EulerDiscreteScheduler":  # its samples are x/alpha
        x = x / math.sqrt(1 + float(scheduler.sigmas[-1]) ** 2)
    return {"asked": torch.stack(inputs), "times": torch.tensor(times), "end": x}


def main():
    generator = torch.Generator().manual_seed(31)
    tensors = {"start": torch.randn(SHAPE, generator=generator), "noise": torch.randn((12, *SHAPE), generator=generator)}
    cases = {}
    for name, (cls, config, steps) in CASES.items():
        scheduler = getattr(diffusers, cls)(**config)
        cases[name] = {"text": scheduler.to_json_string(), "steps": steps}
        for key, value in run(scheduler, steps, tensors["start"], tensors["noise"]).items():
            tensors[f"{name}.{key}"] = value.contiguous().clone()
    metadata = {"reference": f"diffusers {diffusers.__version__}", "torch": torch.__version__, "cases": json.dumps(cases)}
    save_file(tensors, HERE / "schedulers.safetensors", metadata=metadata)


if __name__ == "__main__":
    main()
