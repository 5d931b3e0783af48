"""Checks that diffusers and transformers load what `ldm convert --to diffusers` writes and compute the same with it.

    python docs/tools/parity/diffusers_loads.py --ldm target/release/ldm --tokenizers FOLDER tiny|full [NAME ...]
    python docs/tools/parity/diffusers_loads.py --ldm target/release/ldm --tokenizers FOLDER model MODEL ...

`tiny` and `full` make models with random weights with diffusers itself (NAME: stable_diffusion, inpainting,
text_to_image, unconditional, super_resolution) and convert each to a CompVis checkpoint with `ldm convert`; `model` takes
existing models. For each model:

- `ldm convert --to diffusers`: each part loads without missing, unexpected or mismatched parameters, then the whole as a
  pipeline; of a model made here, every tensor equals the one diffusers saved, bit for bit;
- first stage: `ldm decode --save-pixels` of random latents against `decode`;
- U-Net and text encoder: `ldm sample` or `txt2img` (`--init-noise`, `--save-latents`), five steps of DDIM, guided where
  there is text, against the same steps of `DDIMScheduler`, from the model and from the converted folder. Inpainting and
  super-resolution models, which have other inputs, get the first two checks.

FOLDER holds bert-base-uncased-vocab.txt and bpe_simple_vocab_16e6.txt.gz. Everything is f32 on the CPU; a relative
L2 distance above 1e-4 fails. `full` takes 20 GB of disk in --work at most, and 12 GB of memory.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import diffusers
import torch
import transformers
from diffusers import (AutoencoderKL, DDIMScheduler, DiffusionPipeline, LDMSuperResolutionPipeline,
                       LDMTextToImagePipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline,
                       UNet2DConditionModel, UNet2DModel, VQModel)
from diffusers.pipelines.deprecated.latent_diffusion_uncond.pipeline_latent_diffusion_uncond import LDMPipeline
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer, CLIPTextConfig, CLIPTextModel

LIMIT, STEPS, SCALE, TEXT = 1e-4, 5, 3.0, "a red circle above two stars"
NAMES = ["stable_diffusion", "inpainting", "text_to_image", "unconditional", "super_resolution"]
SIDE = {"tiny": 8, "full": 64}


def kl(size):
    widths = (32, 32) if size == "tiny" else (128, 256, 512, 512)
    return AutoencoderKL(
        block_out_channels=widths, down_block_types=("DownEncoderBlock2D",) * len(widths), latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * len(widths), layers_per_block=1 if size == "tiny" else 2,
        sample_size=SIDE[size] * 2 ** (len(widths) - 1))


def vq(size, scale):
    widths = (32, 32) if size == "tiny" else (128, 256, 512)
    return VQModel(
        block_out_channels=widths, down_block_types=("DownEncoderBlock2D",) * len(widths), latent_channels=3,
        up_block_types=("UpDecoderBlock2D",) * len(widths), num_vq_embeddings=64 if size == "tiny" else 8192,
        layers_per_block=1 if size == "tiny" else 2, sample_size=SIDE[size] * 2 ** (len(widths) - 1),
        scaling_factor=scale)


def conditioned(size, width, side=None, **more):
    if size == "full":
        return UNet2DConditionModel(sample_size=side or 64, cross_attention_dim=width, attention_head_dim=8, **more)
    return UNet2DConditionModel(
        block_out_channels=(64, 64), layers_per_block=1, cross_attention_dim=width, attention_head_dim=4, sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **more)


def plain(size, **more):
    if size == "full":
        attend = ("DownBlock2D",) + ("AttnDownBlock2D",) * 3, ("AttnUpBlock2D",) * 3 + ("UpBlock2D",)
        widths, layers = (224, 448, 672, 896), 2
    else:
        attend, widths, layers = (("DownBlock2D", "AttnDownBlock2D"), ("AttnUpBlock2D", "UpBlock2D")), (64, 64), 1
    return UNet2DModel(block_out_channels=widths, layers_per_block=layers, attention_head_dim=32, out_channels=3,
                       sample_size=SIDE[size], down_block_types=attend[0], up_block_types=attend[1], **more)


def clip(size):
    sizes = (32, 64, 2, 2) if size == "tiny" else (768, 3072, 12, 12)
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return CLIPTextModel(CLIPTextConfig(vocab_size=49408, bos_token_id=49406, eos_token_id=49407, **dict(zip(keys, sizes))))


def bert(size):
    width, layers = (32, 2) if size == "tiny" else (1280, 32)
    return LDMBertModel(LDMBertConfig(d_model=width, encoder_ffn_dim=4 * width, encoder_layers=layers))


def ddim(start, end):
    return DDIMScheduler(beta_start=start, beta_end=end, beta_schedule="scaled_linear", clip_sample=False,
                         set_alpha_to_one=False, steps_offset=1)


def stable(cls, size, **more):
    return cls(vae=kl(size), text_encoder=clip(size), tokenizer=None, scheduler=ddim(0.00085, 0.012),
               unet=conditioned(size, 32 if size == "tiny" else 768, **more), safety_checker=None,
               feature_extractor=None, requires_safety_checker=False)


def make(name, size):
    """A pipeline with random weights, none of them zero."""
    torch.manual_seed(NAMES.index(name))
    pipeline = {
        "stable_diffusion": lambda: stable(StableDiffusionPipeline, size),
        "inpainting": lambda: stable(StableDiffusionInpaintPipeline, size, in_channels=9),
        "text_to_image": lambda: LDMTextToImagePipeline(
            vqvae=kl(size), bert=bert(size), tokenizer=None, scheduler=ddim(0.00085, 0.012),
            unet=conditioned(size, 32 if size == "tiny" else 1280, side=32)),
        "unconditional": lambda: LDMPipeline(
            vqvae=vq(size, 1.0), unet=plain(size, in_channels=3), scheduler=ddim(0.0015, 0.0195)),
        "super_resolution": lambda: LDMSuperResolutionPipeline(
            vqvae=vq(size, 1.0), unet=plain(size, in_channels=6), scheduler=ddim(0.0015, 0.0155)),
    }[name]()
    with torch.no_grad():
        for part in pipeline.components.values():
            for parameter in part.parameters() if isinstance(part, torch.nn.Module) else []:
                if parameter.ndim < 2:
                    parameter.add_(0.05 * torch.randn_like(parameter))
                elif parameter.std() < 1e-3:
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
    return pipeline


class Checker:
    def __init__(self, args, work):
        self.ldm, self.tokenizers, self.work, self.failed = args.ldm, Path(args.tokenizers), work, False

    def run(self, *words):
        words = [str(word) for word in words]
        done = subprocess.run([str(self.ldm), *words], text=True, capture_output=True)
        if done.returncode:
            sys.exit(f"ldm {' '.join(words)}\n{done.stderr}")

    def report(self, what, good, value=""):
        self.failed |= not good
        print(f"  {'ok  ' if good else 'FAIL'} {what} {value}", flush=True)

    def near(self, what, got, want):
        if got.shape != want.shape:
            return self.report(what, False, f"{list(got.shape)}, expected {list(want.shape)}")
        distance = ((got.double() - want.double()).norm() / want.double().norm()).item()
        self.report(what, distance <= LIMIT, f"{distance:.1e}")

    def tokenizer(self, index):
        """The arguments of a text model."""
        given = {"CLIPTokenizer": "bpe_simple_vocab_16e6.txt.gz", "BertTokenizer": "bert-base-uncased-vocab.txt"}
        kind = {"LDMTextToImagePipeline": "BertTokenizer"}.get(index["_class_name"], "CLIPTokenizer")
        text = "text_encoder" in index or "bert" in index
        return ["--tokenizer", self.tokenizers / given[kind]] if text else []

    def load(self, folder):
        """Loads every part strictly, then the whole pipeline."""
        index = json.loads((folder / "model_index.json").read_text())
        modules = {"diffusers": diffusers, "transformers": transformers}
        for part, entry in index.items():
            if not isinstance(entry, list) or entry[0] is None or part in ("scheduler", "tokenizer"):
                continue
            cls = LDMBertModel if entry[1] == "LDMBertModel" else getattr(modules[entry[0]], entry[1])
            _, info = cls.from_pretrained(folder / part, output_loading_info=True)
            wrong = {key: list(value)[:3] for key, value in info.items() if value}
            self.report(f"{part} ({entry[1]}) loads strictly", not wrong, wrong or "")
        pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        self.report(f"{type(pipeline).__name__} loads", True)
        return index, pipeline

    @torch.no_grad()
    def steps(self, pipeline, noise):
        parts, x = pipeline.components, noise
        context = [None]
        if "tokenizer" in parts:
            encoder = parts.get("text_encoder") or parts["bert"]
            ids = [parts["tokenizer"]([text] * len(x), padding="max_length", max_length=77, truncation=True,
                                      return_tensors="pt")["input_ids"] for text in ("", TEXT)]
            context = [encoder(each)[0] for each in ids]
        scheduler = DDIMScheduler.from_config(parts["scheduler"].config)
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            more = [{} if each is None else {"encoder_hidden_states": each} for each in context]
            halves = [parts["unet"](x, t, **each).sample for each in more]
            prediction = halves[0] + SCALE * (halves[-1] - halves[0])
            x = scheduler.step(prediction, t, x).prev_sample
        return x

    def check(self, name, model, original=None):
        print(name, flush=True)
        theirs, scratch = self.work / "theirs", self.work / "scratch"
        for folder in (theirs, scratch):
            shutil.rmtree(folder, ignore_errors=True)
        scratch.mkdir()
        words = []
        if original:
            words = self.tokenizer(json.loads((original / "model_index.json").read_text()))
        self.run("convert", model, theirs, "--to", "diffusers", *words)
        if original:
            for path in sorted(original.glob("*/*.safetensors")):
                got, want = load_file(theirs / path.relative_to(original)), load_file(path)
                # transformers 5 drops a prefix that all its releases read.
                got = {key.removeprefix("text_model."): value for key, value in got.items()}
                want = {key.removeprefix("text_model."): value for key, value in want.items()}
                same = got.keys() == want.keys() and all(torch.equal(got[key], want[key]) for key in want)
                self.report(f"{path.parent.name}: {len(want)} tensors equal diffusers' own bit for bit", same)
        index, pipeline = self.load(theirs)
        first, unet = (pipeline.components.get("vae") or pipeline.components["vqvae"]), pipeline.components["unet"]
        channels, side = unet.config.out_channels, unet.config.sample_size
        noise = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(7))
        save_file({"latents": noise}, scratch / "latents.safetensors")
        save_file({"noise": noise}, scratch / "noise.safetensors")
        on = ["--device", "cpu"]
        self.run("decode", scratch / "latents.safetensors", "--model", model, "--out", scratch / "decoded",
                 "--save-pixels", scratch / "pixels.safetensors", *on)
        with torch.no_grad():
            self.near("decode", load_file(scratch / "pixels.safetensors")["pixels"], first.decode(noise).sample)
        if unet.config.in_channels != channels:
            return
        want = self.steps(pipeline, noise)
        for what, path, words in (("model", model, words), ("folder", theirs, [])):
            command = ["txt2img", TEXT, *words, "--guidance-scale", SCALE] if "tokenizer" in index else ["sample"]
            out = scratch / f"{what}.safetensors"
            self.run(*command, "--model", path, "--steps", STEPS, "--sampler", "ddim",
                     "--init-noise", scratch / "noise.safetensors", "--save-latents", out, "--out", scratch / what, *on)
            self.near(f"{STEPS} steps of the {what}", load_file(out)["latents"], want)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ldm", type=Path, required=True)
    parser.add_argument("--tokenizers", required=True)
    parser.add_argument("--work", help="a folder for files; a temporary one by default")
    parser.add_argument("what", choices=["tiny", "full", "model"])
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory(dir=args.work) as work:
        checker = Checker(args, Path(work))
        if args.what == "model":
            for model in args.names:
                checker.check(model, Path(model))
        for name in (args.names or NAMES) if args.what != "model" else []:
            original, checkpoint = Path(work) / "original", Path(work) / "model.ckpt"
            shutil.rmtree(original, ignore_errors=True)
            make(name, args.what).save_pretrained(original)
            checker.run("convert", original, checkpoint, "--to", "compvis", "--force")
            checker.check(name, checkpoint, original)
    sys.exit(checker.failed)


if __name__ == "__main__":
    main()
