"""Makes folders.safetensors with diffusers' own pipelines: their folders as `save_pretrained` writes them, and five
steps of their schedulers each.

python generate_folders.py
Needs torch, diffusers, transformers, safetensors.

Weights are not stored, only their names and shapes: both sides compute the values by the formula of
`ldm_testing::fill_weights`. The metadata `cases` has for each pipeline the text of its JSON files and vocabularies by
path, and by path the index into the metadata `shapes`, since many files share names and shapes.

diffusers stores its tables in f32. With a network that predicts x0 that alone costs 1e-4, by 1 - alpha_bar near t = 0, so
in that case they are computed in f64.
"""
import json
import sys
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import (AutoencoderKL, DDIMScheduler, LDMSuperResolutionPipeline, LDMTextToImagePipeline, PNDMScheduler,
                       StableDiffusionInpaintPipeline, StableDiffusionPipeline, UNet2DConditionModel, UNet2DModel,
                       VQModel)
from diffusers.pipelines.deprecated.latent_diffusion_uncond.pipeline_latent_diffusion_uncond import LDMPipeline
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "docs/tools"))
from golden_weights import fill  # noqa: E402

torch.set_num_threads(1)
# The seed of each component's weights.
SEEDS = {"vae": 1, "vqvae": 1, "unet": 2, "text_encoder": 3, "bert": 3}
BATCH, STEPS, SCALE, WORDS = 2, 5, 3.0, 40
# The side of the latents; half that of the images.
SIDE = 6
TEXTS = ["A big red circle, left of the cat", "blue stars"]


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kl(**more):
    return AutoencoderKL(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 2, sample_size=2 * SIDE, **more)


def vq(**more):
    return VQModel(
        block_out_channels=(32, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=3, sample_size=2 * SIDE,
        num_vq_embeddings=64, up_block_types=("UpDecoderBlock2D",) * 2, mid_block_add_attention=False, **more)


def conditioned(**more):
    return UNet2DConditionModel(**{
        "block_out_channels": (64, 64), "layers_per_block": 1, "cross_attention_dim": 32, "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "sample_size": SIDE,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), **more})


def plain(**more):
    return UNet2DModel(**{
        "block_out_channels": (64, 64), "layers_per_block": 1, "attention_head_dim": 32, "sample_size": SIDE,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "out_channels": 3, **more})


def clip():
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=WORDS, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=8, bos_token_id=WORDS - 2, eos_token_id=WORDS - 1))


def bert():
    words = len((HERE / "vocab.txt").read_text().split())
    return LDMBertModel(LDMBertConfig(vocab_size=words, encoder_layers=2, encoder_ffn_dim=128, d_model=32))


def words():
    vocabulary = (HERE / "vocab.txt").read_text().split()
    return BertTokenizer(vocab={word: index for index, word in enumerate(vocabulary)}, do_lower_case=True)


def ddim(**more):
    return DDIMScheduler(**{
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
        "set_alpha_to_one": False, "steps_offset": 1, **more})


def stable(cls, scheduler, **parts):
    return cls(vae=kl(), text_encoder=clip(), tokenizer=None, scheduler=scheduler, safety_checker=None,
               feature_extractor=None, requires_safety_checker=False, **parts)


PNDM = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
PIPELINES = {
    "stable_diffusion": lambda: stable(StableDiffusionPipeline, ddim(), unet=conditioned()),
    "stable_diffusion_v": lambda: stable(
        StableDiffusionPipeline, ddim(prediction_type="v_prediction", beta_schedule="linear", beta_end=0.02),
        unet=conditioned(transformer_layers_per_block=2)),
    "stable_diffusion_cosine": lambda: stable(
        StableDiffusionPipeline, ddim(prediction_type="sample", beta_schedule="squaredcos_cap_v2"), unet=conditioned()),
    "stable_diffusion_pndm": lambda: stable(
        StableDiffusionPipeline, PNDMScheduler(skip_prk_steps=True, **PNDM), unet=conditioned()),
    "inpainting": lambda: stable(StableDiffusionInpaintPipeline, ddim(), unet=conditioned(in_channels=9)),
    "text_to_image": lambda: LDMTextToImagePipeline(
        vqvae=kl(scaling_factor=0.3), bert=bert(), tokenizer=words(), unet=conditioned(), scheduler=ddim()),
    "unconditional": lambda: LDMPipeline(
        vqvae=vq(scaling_factor=0.7), unet=plain(in_channels=3),
        scheduler=DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")),
    "super_resolution": lambda: LDMSuperResolutionPipeline(
        vqvae=vq(), unet=plain(in_channels=6),
        scheduler=ddim(trained_betas=[0.001 + 0.0001 * (t % 7) for t in range(200)], num_train_timesteps=200)),
}


def saved(pipeline):
    """Texts, and names and shapes of weights, by their paths."""
    texts, weights = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        pipeline.save_pretrained(folder)
        for path in sorted(Path(folder).rglob("*")):
            name = str(path.relative_to(folder))
            if path.suffix == ".safetensors":
                with safe_open(path, "pt") as file:
                    weights[name] = {key: file.get_slice(key).get_shape() for key in sorted(file.keys())}
            elif path.is_file():
                texts[name] = path.read_text()
    return {"texts": texts, "weights": weights}


def run(name, pipeline):
    parts = pipeline.components
    for part, seed in SEEDS.items():
        if part in parts:
            fill(parts[part].eval().named_parameters(), seed)
    unet, scheduler = parts["unet"], parts["scheduler"]
    first = parts.get("vae") or parts["vqvae"]
    x = noise = draw(11, BATCH, unet.config.out_channels, SIDE, SIDE)
    given, joined, context = {}, None, None
    if name.startswith("stable") or name == "inpainting":
        tokens, nothing = (torch.randint(
            WORDS, (BATCH, 8), generator=torch.Generator().manual_seed(seed)) for seed in (12, 13))
        given |= {"tokens": tokens, "nothing": nothing}
        context = [parts["text_encoder"](each)[0] for each in (nothing, tokens)]
    if name == "text_to_image":
        tokens = [parts["tokenizer"](texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
                  for texts in ([""] * BATCH, TEXTS)]
        context = [parts["bert"](each["input_ids"])[0] for each in tokens]
    if name == "inpainting":
        image, mask = (draw(14, BATCH, 3, 2 * SIDE, 2 * SIDE).tanh(),
                       torch.zeros(BATCH, 1, 2 * SIDE, 2 * SIDE))
        mask[0, :, 3:9, 5:11], mask[1, :, ::3, 7:] = 1, 1
        masked = first.encode(image * (mask < 0.5)).latent_dist.mode() * first.config.scaling_factor
        joined = torch.cat([torch.nn.functional.interpolate(mask, size=(SIDE, SIDE)), masked], dim=1)
        given |= {"image": image, "mask": mask}
    if name == "super_resolution":
        joined = draw(15, BATCH, 3, SIDE, SIDE).tanh()
        given |= {"image": joined}
    if scheduler.config.prediction_type == "sample":
        scheduler.alphas_cumprod = (1 - scheduler.betas.double()).cumprod(0)
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(STEPS)
    for t in scheduler.timesteps:
        into = x if joined is None else torch.cat([x, joined], dim=1)
        if context is None:
            prediction = unet(into, t).sample
        else:
            uncond, cond = (unet(into, t, encoder_hidden_states=each).sample for each in context)
            prediction = uncond + SCALE * (cond - uncond)
        x = scheduler.step(prediction, t, x).prev_sample
    # LDMSuperResolutionPipeline decodes unscaled.
    scale = 1 if name == "super_resolution" else first.config.scaling_factor
    return {**given, "noise": noise, "latents": x, "images": first.decode(x / scale).sample}


def main():
    tensors, cases, shapes = {}, {}, []
    for name, make in PIPELINES.items():
        torch.manual_seed(0)
        pipeline = make()
        cases[name] = saved(pipeline)
        for path, each in cases[name]["weights"].items():
            if each not in shapes:
                shapes.append(each)
            cases[name]["weights"][path] = shapes.index(each)
        with torch.no_grad():
            for key, tensor in run(name, pipeline).items():
                assert tensor.isfinite().all() and tensor.double().std() > 1e-2, (name, key)
                tensors[f"{name}.{key}"] = tensor.contiguous()
    save_file(tensors, HERE / "folders.safetensors", {
        "reference": f"diffusers {diffusers.__version__}, transformers {transformers.__version__}",
        "torch": torch.__version__,
        "cases": json.dumps(cases, separators=(",", ":")),
        "shapes": json.dumps(shapes, separators=(",", ":")),
    })


if __name__ == "__main__":
    main()
