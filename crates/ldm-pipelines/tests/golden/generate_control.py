"""Makes control.safetensors of this folder with diffusers' StableDiffusionControlNetPipeline: a run of a tiny model
steered by two ControlNets, at fractions of the steps.

python generate_control.py
Needs torch, diffusers, numpy, safetensors. Weights are not stored: both sides compute them by the formula of
`ldm_testing::fill_weights`, by diffusers' names. There is no text encoder: the embeddings of the prompts are stored.
"""
import json
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKL, ControlNetModel, DDIMScheduler, MultiControlNetModel, StableDiffusionControlNetPipeline,
    UNet2DConditionModel)
from safetensors.torch import save_file

HERE = Path(__file__).parent
torch.set_num_threads(1)


def fill(model, seed):
    with torch.no_grad():
        for k, (name, p) in enumerate(sorted(model.named_parameters())):
            i = np.arange(p.numel(), dtype=np.float64)
            x = np.sin((i + 1) * 12.9898 + ((k + 1) * 78.233 + seed * 37.719)) * 43758.5453
            v = 2 * (x - np.floor(x)) - 1
            if p.ndim >= 2:
                v = v * (1.2 / np.sqrt(p.numel() / p.shape[0]))
            else:
                v = 0.1 * v + (1 if name.endswith("weight") else 0)
            p.copy_(torch.from_numpy(v.astype(np.float32)).view(p.shape))
    return model.eval()


def described(model):
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    return {"config": json.loads(model.to_json_string()), "shapes": shapes}


BLOCKS = {
    "block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
unet = fill(UNet2DConditionModel(**BLOCKS, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), sample_size=8), 1)
vae = fill(AutoencoderKL(
    block_out_channels=(32, 32), layers_per_block=1, latent_channels=4, down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2, mid_block_add_attention=True, sample_size=16), 2)
nets = [fill(ControlNetModel(**BLOCKS, conditioning_embedding_out_channels=(16, 32)), seed) for seed in (3, 4)]
scheduler = DDIMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
    steps_offset=1)
RUN = {"steps": 5, "guidance_scale": 3.0, "scales": [0.8, 0.5], "starts": [0.0, 0.2], "ends": [0.8, 1.0]}

generator = torch.Generator().manual_seed(5)
prompt = torch.randn(2, 1, 16, generator=generator)
negative = torch.randn(1, 1, 16, generator=generator).repeat(2, 1, 1)
noise = torch.randn(2, 4, 8, 12, generator=generator)
hints = [torch.rand(1, 3, 16, 24, generator=generator) for _ in nets]
pipeline = StableDiffusionControlNetPipeline(
    vae=vae, text_encoder=None, tokenizer=None, unet=unet, controlnet=MultiControlNetModel(nets), scheduler=scheduler,
    safety_checker=None, feature_extractor=None, requires_safety_checker=False)
pipeline.set_progress_bar_config(disable=True)


def run(nets, hints, scales, starts, ends):
    pipeline.controlnet = MultiControlNetModel(nets)
    with torch.no_grad():
        return pipeline(
            prompt_embeds=prompt, negative_prompt_embeds=negative, image=hints, height=16, width=24, latents=noise.clone(),
            num_inference_steps=RUN["steps"], guidance_scale=RUN["guidance_scale"], controlnet_conditioning_scale=scales,
            control_guidance_start=starts, control_guidance_end=ends, output_type="latent").images


latents = run(nets, hints, RUN["scales"], RUN["starts"], RUN["ends"])
one = run(nets[:1], hints[:1], RUN["scales"][:1], [0.0], [1.0])
with torch.no_grad():
    images = vae.decode(latents / vae.config.scaling_factor).sample
assert (latents - one).std() > 0.05 and images.std() > 0.05
tensors = {"prompt": prompt, "negative": negative, "noise": noise, "latents": latents, "one": one, "images": images}
tensors |= {f"hint.{index}": hint for index, hint in enumerate(hints)}
metadata = {
    "reference": f"diffusers {diffusers.__version__}", "torch": torch.__version__, "run": json.dumps(RUN),
    "unet": json.dumps(described(unet)), "vae": json.dumps(described(vae)), "net": json.dumps(described(nets[0]))}
save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, HERE / "control.safetensors", metadata)
