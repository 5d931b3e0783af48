"""Makes the golden files `diffusers_*` of this folder with diffusers' own models and its own converter.

LDM_REF=folder-of-checkouts python generate_diffusers.py
The folder holds `latent-diffusion` and `stable-diffusion`. Needs torch, diffusers, einops, omegaconf, safetensors, pyyaml.

- diffusers_forward.safetensors: tiny models as `save_pretrained` wrote them: config.json, names and shapes, outputs.
  Weights are not stored: both sides compute them by the formula of `ldm_core::testing::fill_weights`.
- diffusers_official.json: for every official U-Net that diffusers can express the config, and names and shapes of its
  model; of those with transformers also the table of names of diffusers' converter.
"""
import hashlib
import json
import tempfile
from pathlib import Path

import diffusers
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, create_unet_diffusers_config_from_ldm
from generate import OFFICIAL, UNetModel, fill, unet_params
from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).parent
CLASSES = {"UNet2DModel": UNet2DModel, "UNet2DConditionModel": UNet2DConditionModel}
torch.set_num_threads(1)


def saved(model):
    """config.json, and names and shapes of the weights, as `save_pretrained` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "diffusion_pytorch_model.safetensors", "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in sorted(file.keys())}
    return config, shapes


FORWARD = {
    "condition_heads_a_level": ("UNet2DConditionModel", {
        "block_out_channels": (32, 64), "layers_per_block": 2, "cross_attention_dim": 24, "attention_head_dim": (2, 4),
        "transformer_layers_per_block": 2, "num_class_embeds": 5, "in_channels": 3, "out_channels": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"), "sample_size": (8, 12)}),
    "condition_scale_shift": ("UNet2DConditionModel", {
        "block_out_channels": (32, 64, 32), "layers_per_block": 1, "cross_attention_dim": 40, "attention_head_dim": 4,
        "resnet_time_scale_shift": "scale_shift", "sample_size": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")}),
    "plain_head_width": ("UNet2DModel", {
        "block_out_channels": (32, 64, 96), "layers_per_block": 2, "attention_head_dim": 16, "in_channels": 6,
        "sample_size": 8, "num_class_embeds": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")}),
    "plain_scale_shift_updown": ("UNet2DModel", {
        "block_out_channels": (32, 64, 64), "layers_per_block": 1, "attention_head_dim": None, "sample_size": 8,
        "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32, "downsample_type": "resnet",
        "upsample_type": "resnet",
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D")}),
}


def forward():
    tensors, cases = {}, {}
    for seed, (name, (kind, config)) in enumerate(FORWARD.items(), start=300):
        model = fill(CLASSES[kind](**config), seed).eval()
        config, shapes = saved(model)
        generator = torch.Generator().manual_seed(seed)
        given = {"x": torch.randn(2, config["in_channels"], 8, 12, generator=generator), "t": torch.tensor([17.25, 981.0])}
        more = {}
        if kind == "UNet2DConditionModel":
            given["context"] = torch.randn(2, 5, config["cross_attention_dim"], generator=generator)
            more["encoder_hidden_states"] = given["context"]
        if config["num_class_embeds"]:
            given["label"] = torch.randint(config["num_class_embeds"], (2,), generator=generator)
            more["class_labels"] = given["label"]
        with torch.no_grad():
            given["y"] = model(given["x"], given["t"], **more).sample
            elsewhere = model(given["x"], given["t"] + 300, **more).sample
        assert given["y"].std() > 0.1 and (given["y"] - elsewhere).std() > 0.01, name
        tensors |= {f"{name}.{key}": value for key, value in given.items()}
        cases[name] = {"seed": seed, "config": config, "shapes": shapes}
    metadata = {"reference": f"diffusers {diffusers.__version__}", "torch": torch.__version__, "cases": json.dumps(cases)}
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, HERE / "diffusers_forward.safetensors", metadata)


def digest(lines):
    return hashlib.sha256("".join(f"{line}\n" for line in sorted(lines)).encode()).hexdigest()


def head_widths(params, widths, attends):
    """Of the attention of a U-Net without transformers; its middle attends at the last width."""
    channels = [width for width, yes in zip(widths, attends) if yes] + widths[-1:]
    if params.get("num_head_channels", -1) != -1:
        return [params["num_head_channels"]]
    return sorted({width // params["num_heads"] for width in channels})


def official():
    models = {}
    for name, path in OFFICIAL.items():
        params = unet_params(path)
        widths = [params["model_channels"] * mult for mult in params["channel_mult"]]
        attends = [2**i in params["attention_resolutions"] for i in range(len(widths))]
        size = params["image_size"]
        config = {
            "sample_size": size, "in_channels": params["in_channels"], "out_channels": params["out_channels"],
            "block_out_channels": widths, "layers_per_block": params["num_res_blocks"],
        }
        table = None
        if params.get("use_spatial_transformer"):
            kind = "UNet2DConditionModel"
            heads = params.get("num_head_channels", -1)
            config |= {
                "down_block_types": [f"{'CrossAttn' * a}DownBlock2D" for a in attends],
                "up_block_types": [f"{'CrossAttn' * a}UpBlock2D" for a in reversed(attends)],
                "cross_attention_dim": params["context_dim"],
                "transformer_layers_per_block": params.get("transformer_depth", 1),
                "attention_head_dim": params["num_heads"] if heads == -1 else [width // heads for width in widths],
            }
            with torch.device("meta"):
                compvis = {f"model.diffusion_model.{key}": tensor.ndim for key, tensor in UNetModel(**params).state_dict().items()}
            first_stage = {"params": {"ddconfig": {"ch_mult": [1]}}}
            ldm = {"model": {"params": {
                "unet_config": {"params": {"transformer_depth": 1, **params}}, "first_stage_config": first_stage}}}
            theirs = create_unet_diffusers_config_from_ldm(ldm, None, image_size=size)
            # Of heads by width its converter knows only Stable Diffusion 2's.
            skip = ["attention_head_dim"] if heads != -1 else []
            assert all(config.get(key) == value for key, value in theirs.items() if key not in skip and value), name
            names = list(compvis)
            places = {key: torch.full([1] * ndim, float(k)) for k, (key, ndim) in enumerate(compvis.items())}
            converted = convert_ldm_unet_checkpoint(places, theirs)
            cut = len("model.diffusion_model.")
            table = [f"{key} {names[int(tensor.flatten()[0])][cut:]}" for key, tensor in converted.items()]
        else:
            kind = "UNet2DModel"
            found = head_widths(params, widths, attends)
            if len(found) > 1:
                models[name] = {"head_widths": found}
                continue
            updown = params.get("resblock_updown", False)
            assert not updown, "none of these is left"
            config |= {
                "down_block_types": [f"{'Attn' * a}DownBlock2D" for a in attends],
                "up_block_types": [f"{'Attn' * a}UpBlock2D" for a in reversed(attends)], "attention_head_dim": found[0],
            }
        with torch.device("meta"):
            model = CLASSES[kind](**config)
        shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
        models[name] = {
            "config": json.loads(model.to_json_string()), "tensors": len(shapes),
            "shapes_sha256": digest(f"{key} {shape}" for key, shape in shapes.items()),
            "names_sha256": table and digest(table),
        }
    document = {"reference": f"diffusers {diffusers.__version__}", "models": models}
    (HERE / "diffusers_official.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    forward()
    official()
