"""Makes the golden files `diffusers_*` of this folder with diffusers' own models and its own converter.

LDM_REF=folder-of-checkouts python generate_diffusers.py
The folder holds `latent-diffusion`. Needs torch, diffusers, safetensors, pyyaml.

- diffusers_forward.safetensors: tiny models as `save_pretrained` wrote them: config.json, names and shapes, outputs.
  Weights are not stored: both sides compute them by the formula of `ldm_core::testing::fill_weights`.
- diffusers_official.json: for every official first stage the config, and names and shapes of diffusers' model of it;
  of those that diffusers' converter can convert also its table of names.
"""
import hashlib
import json
import os
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
import yaml
from diffusers import AutoencoderKL, VQModel
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint, create_vae_diffusers_config_from_ldm
from safetensors import safe_open
from safetensors.torch import save_file

REF = Path(os.environ["LDM_REF"])
HERE = Path(__file__).parent
CLASSES = {"AutoencoderKL": AutoencoderKL, "VQModel": VQModel}
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
    return model


def saved(model):
    """config.json, and names and shapes of the weights, as `save_pretrained` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "diffusion_pytorch_model.safetensors", "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in sorted(file.keys())}
    return config, shapes


def base(**more):
    return {
        "block_out_channels": (32, 64), "layers_per_block": 1, "sample_size": 16,
        "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), **more,
    }


FORWARD = {
    "kl": ("AutoencoderKL", base(latent_channels=4, scaling_factor=0.3)),
    "kl_without_attention": ("AutoencoderKL", base(
        latent_channels=3, in_channels=1, out_channels=2, layers_per_block=2, block_out_channels=(32,),
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), mid_block_add_attention=False)),
    "vq": ("VQModel", base(
        latent_channels=4, vq_embed_dim=3, num_vq_embeddings=24, block_out_channels=(32, 32, 64),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "AttnUpDecoderBlock2D", "UpDecoderBlock2D"), scaling_factor=1.0)),
}


def forward():
    tensors, cases = {}, {}
    for seed, (name, (kind, config)) in enumerate(FORWARD.items()):
        model = fill(CLASSES[kind](**config), seed).eval()
        config, shapes = saved(model)
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(1, config["in_channels"], 16, 24, generator=generator)
        with torch.no_grad():
            h = model.encode(x)
            h = h.latent_dist.parameters if kind == "AutoencoderKL" else h.latents
            z = torch.randn(1, h.shape[1] // (2 if kind == "AutoencoderKL" else 1), *h.shape[2:], generator=generator)
            y = model.decode(z).sample
        assert h.std() > 0.05 and y.std() > 0.05, name
        tensors |= {f"{name}.x": x, f"{name}.h": h, f"{name}.z": z, f"{name}.y": y}
        cases[name] = {"seed": seed, "config": config, "shapes": shapes}
    metadata = {"reference": f"diffusers {diffusers.__version__}", "torch": torch.__version__, "cases": json.dumps(cases)}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, HERE / "diffusers_forward.safetensors", metadata)


OFFICIAL = ["kl-f4", "kl-f8", "kl-f16", "kl-f32", "vq-f4", "vq-f4-noattn", "vq-f8", "vq-f8-n256", "vq-f16"]


def digest(lines):
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()


def ours(name):
    """Names and shapes of CompVis' model, from manifest.txt beside this script."""
    section = (HERE / "manifest.txt").read_text().split(f"\n[{name}]", 1)[1].split("\n", 1)[1].split("\n[", 1)[0]
    pairs = [line.split(" ") for line in section.splitlines() if line]
    return {key: [int(size) for size in sizes.split(",")] for key, sizes in pairs}


def official():
    models = {}
    for name in OFFICIAL:
        path = REF / f"latent-diffusion/models/first_stage_models/{name}/config.yaml"
        params = yaml.safe_load(path.read_text())["model"]["params"]
        dd = params["ddconfig"]
        attends = [dd["resolution"] >> i in dd["attn_resolutions"] for i in range(len(dd["ch_mult"]))]
        config = {
            "in_channels": dd["in_channels"], "out_channels": dd["out_ch"], "latent_channels": dd["z_channels"],
            "block_out_channels": [dd["ch"] * mult for mult in dd["ch_mult"]], "layers_per_block": dd["num_res_blocks"],
            "down_block_types": [f"{'Attn' * a}DownEncoderBlock2D" for a in attends],
            "up_block_types": [f"{'Attn' * a}UpDecoderBlock2D" for a in reversed(attends)],
            "mid_block_add_attention": dd.get("attn_type") != "none", "sample_size": dd["resolution"],
            "scaling_factor": 0.5,
        }
        kind = "AutoencoderKL"
        if name.startswith("vq"):
            kind = "VQModel"
            config |= {"num_vq_embeddings": params["n_embed"], "vq_embed_dim": params["embed_dim"]}
        with torch.device("meta"):
            model = CLASSES[kind](**config)
            shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
        table = None
        if not any(attends):
            # Its converter knows no attention in the levels. One element of each tensor tells which it was.
            compvis = ours(name)
            places = {key: torch.full([1] * len(shape), float(k)) for k, (key, shape) in enumerate(compvis.items())}
            theirs = create_vae_diffusers_config_from_ldm(
                {"model": {"params": {"first_stage_config": {"params": {"ddconfig": dd}}}}}, places, 256, 0.5)
            assert all(config[key] == theirs[key] for key in theirs), name
            names = list(compvis)
            converted = convert_ldm_vae_checkpoint(places, {**theirs})
            table = [f"{key} {names[int(tensor.flatten()[0])]}" for key, tensor in converted.items()]
            # It passes the codebook over.
            table += ["quantize.embedding.weight quantize.embedding.weight"] if kind == "VQModel" else []
        config = json.loads(model.to_json_string())
        models[name] = {
            "config": config, "tensors": len(shapes),
            "shapes_sha256": digest(f"{key} {shape}" for key, shape in shapes.items()),
            "names_sha256": table and digest(table),
        }
    document = {"reference": f"diffusers {diffusers.__version__}", "models": models}
    (HERE / "diffusers_official.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    forward()
    official()
